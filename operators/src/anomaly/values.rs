//! Samples and windows: each signal is judged by itself.

use std::sync::Arc;

use anyhow::ensure;
use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int32Type};
use serde::{Deserialize, Serialize};
use taktline_engine::table::timestamps;
use taktline_engine::{Operator, Output, Rows, Saved, Snapshot};

use super::output::{Row, batch};
use super::{Progress, Reads, Settings};
use crate::kernels::anomaly::auto::{Judge, rarity};
use crate::slots::Slots;

/// One machine's signals.
pub(super) struct Values {
    settings: Arc<Settings>,
    machine: String,
    slots: Slots,
    /// By slot.
    signals: Vec<Signal>,
    /// Slots sorted by name.
    order: Vec<usize>,
}

#[derive(Serialize, Deserialize)]
struct Signal {
    name: String,
    /// `None` for a signal that isn't looked at.
    judge: Option<Judge>,
    progress: Progress,
}

/// A row to judge: slot, time, value.
type Value = (usize, i64, f64);

impl Values {
    pub fn new(settings: Arc<Settings>, key: &str) -> Self {
        Values {
            settings,
            machine: key.to_owned(),
            slots: Slots::default(),
            signals: Vec::new(),
            order: Vec::new(),
        }
    }

    fn of_samples(&mut self, rows: &Rows<'_>) -> anyhow::Result<Vec<Value>> {
        let samples = rows.samples()?;
        let (only_values, mut found) = (samples.no_text(), Vec::with_capacity(rows.len()));
        let mut slots = std::mem::take(&mut self.slots);
        for row in 0..samples.ts.len() {
            let (number, value) = (samples.signal[row], samples.value[row]);
            let slot = slots.of(number, || self.slot(samples.signal_name(number)));
            if only_values || value.is_finite() || samples.text(row).is_none() {
                found.push((slot, samples.ts[row], value));
            }
        }
        self.slots = slots;
        Ok(found)
    }

    fn of_windows(&mut self, rows: &Rows<'_>) -> anyhow::Result<Vec<Value>> {
        let batch = rows.batch();
        let column = |name: &str| {
            let array = batch.column_by_name(name);
            array.ok_or_else(|| anyhow::anyhow!("column `{name}` is absent"))
        };
        let signals = column("signal")?.as_dictionary_opt::<Int32Type>();
        let signals = signals.ok_or_else(|| anyhow::anyhow!("column `signal` is no dictionary"))?;
        let names = signals.values().as_string_opt::<i32>();
        let names = names.ok_or_else(|| anyhow::anyhow!("column `signal` holds no names"))?;
        let of = self.settings.of[0].clone();
        let values = column(&of)?.as_primitive_opt::<Float64Type>();
        let values = values.ok_or_else(|| anyhow::anyhow!("column `{of}` holds no numbers"))?;
        let ends = timestamps(&batch, "end")?;
        let row = |(row, end): (usize, &i64)| {
            let value = if values.is_valid(row) {
                values.value(row)
            } else {
                f64::NAN
            };
            (self.slot(names.value(signals.keys().value(row) as usize)), *end, value)
        };
        Ok(ends.iter().enumerate().map(row).collect())
    }

    /// The slot of a signal by name, the next one if it has none.
    fn slot(&mut self, name: &str) -> usize {
        match self
            .order
            .binary_search_by(|&slot| self.signals[slot].name.as_str().cmp(name))
        {
            Ok(place) => self.order[place],
            Err(place) => {
                let Settings { detector, memory, .. } = *self.settings.as_ref();
                let judge = || Judge::new(detector, memory, &format!("{}/{name}", self.machine));
                let signal = Signal {
                    name: name.to_owned(),
                    judge: self.settings.looks_at(name).then(judge),
                    progress: Progress::default(),
                };
                self.order.insert(place, self.signals.len());
                self.signals.push(signal);
                self.signals.len() - 1
            }
        }
    }
}

impl Operator for Values {
    fn rows(&mut self, rows: &Rows<'_>, out: &mut Output) -> anyhow::Result<()> {
        let values = if self.settings.reads == Reads::Samples {
            self.of_samples(rows)?
        } else {
            self.of_windows(rows)?
        };
        let mut judged = Vec::with_capacity(values.len());
        for (slot, ts_us, value) in values {
            let signal = &mut self.signals[slot];
            let Some(judge) = &mut signal.judge else { continue };
            let rare = rarity(judge.probability(value));
            let (score, threshold) = signal.progress.judge(ts_us, rare, &self.settings);
            judged.push((slot, ts_us, value, score, threshold));
        }
        let row = |&(slot, ts_us, value, score, threshold): &(usize, i64, f64, f64, f64)| Row {
            signal: Some(&self.signals[slot].name),
            ts_us,
            value,
            score,
            threshold,
            detector: self.settings.detector.as_str(),
            cycle_id: None,
            parts: Vec::new(),
        };
        let rows: Vec<Row<'_>> = judged.iter().map(row).collect();
        if !rows.is_empty() {
            out.emit(batch(&self.machine, &rows)?);
        }
        Ok(())
    }

    fn snapshot(&mut self, into: &mut Snapshot) -> anyhow::Result<()> {
        into.head(&self.signals)
    }

    fn restore(&mut self, saved: &Saved) -> anyhow::Result<()> {
        let signals: Vec<Signal> = saved.head()?;
        for (slot, mut signal) in signals.into_iter().enumerate() {
            ensure!(
                self.slot(&signal.name) == slot,
                "state that can't be read: `{}` twice",
                signal.name
            );
            signal.progress.check()?;
            let whole = signal.judge.as_mut().is_none_or(Judge::is_whole);
            ensure!(
                whole,
                "state that can't be read: `{}` doesn't fit together",
                signal.name
            );
            // What is looked at may have changed since; what was learned of it is kept.
            let known = &mut self.signals[slot];
            match (&mut known.judge, signal.judge) {
                (Some(judge), Some(learned)) => *judge = learned,
                _ => continue,
            }
            known.progress = signal.progress;
        }
        self.slots = Slots::unknown(self.signals.len());
        Ok(())
    }
}
