//! `cycle`: cuts a machine's samples into cycles; on the rows of another cycle step, cuts each cycle into phases.
//!
//! | case | the cycle ends | outcome |
//! | --- | --- | --- |
//! | `end` is met | with the row that meets it, which belongs to it | `complete` |
//! | no `end` given, `start` is met again | at that row, which belongs to the next cycle | `complete` |
//! | `end` and `start` are met by rows of one time | at that time, whose rows belong to the next cycle | `complete` |
//! | `length` given | at the next multiple of it since 1970 (UTC) | `complete` |
//! | one of the above before `min` has passed | as above | `short` |
//! | `max` has passed | at start + `max`; a row of just that time still belongs to it | `timeout` |
//! | it holds 10 million values | with the row that fills it | `timeout` |
//! | no row of the machine for longer than `gap` | with its last row | `gap` |
//! | the input ends | with its last row | `truncated` |
//!
//! A cycle starts with the row that meets `start`, where `for` is given with the first one of those that lasted. While
//! a cycle is open, `start` is not looked at unless there is no `end`. `max` is 1d where neither `max` nor `gap` is given.
//! A cycle by `length` that goes on after a `gap` starts with the row after it.
//!
//! A row of quality `stale`, by which a source says that it no longer knows a reading (a Sparkplug node has died), ends nothing: it is
//! counted in the open cycle's column `stale`, so that an alert or a query can tell such cycles from the others.
//!
//! A phase without `end` or by `length` also ends, complete, where its complete cycle ends, and the first phase by
//! `length` doesn't start before its cycle.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use taktline_engine::config::{Interval, Problem, Section};
use taktline_engine::kind::{Input, StepKind};
use taktline_engine::table::STALE;
use taktline_engine::{Operator, Order, Output, Rows, Saved, Snapshot, Step, Table};

use crate::cycles::{self, CycleRows, CyclesBuilder, Outcome};
use crate::open::Said;
use crate::segment::{Boundaries, Cut, Segmenter, Slices};
use crate::slots::Slots;
use crate::trigger::Trigger;

/// The kind's row in the table.
pub const KIND: StepKind = StepKind {
    name: "cycle",
    summary: "cuts samples into cycles, or cycles into phases",
    schema: || schemars::schema_for!(CycleConfig),
    reads: &["samples", "cycles"],
    build,
};

/// Settings of a `cycle` step.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CycleConfig {
    /// What starts a cycle: `pressure rises above 5`, `batch_id changes`, `event is 'START'`, `ClockTime goes back`.
    pub start: Option<String>,
    /// What ends a cycle, written like `start`. Without it a cycle lasts until the next start.
    pub end: Option<String>,
    /// Cycles of this length instead of `start` and `end`, at multiples of it since 1970 (UTC).
    pub length: Option<Interval>,
    /// A cycle that ends sooner is `short`.
    pub min: Option<Interval>,
    /// A cycle is cut after this time as `timeout`. 1d if neither this nor `gap` is given.
    pub max: Option<Interval>,
    /// A cycle ends as `gap` when its machine is silent for longer.
    pub gap: Option<Interval>,
    /// How long rows may be out of order; 1s if not given. Later ones go to the table `late`.
    pub lateness: Option<Interval>,
    /// Signals to keep in the cycles; all if not given.
    pub keep: Option<Vec<String>>,
}

/// `max` where neither `max` nor `gap` is given: 1 day.
const DEFAULT_MAX_US: i64 = 86_400_000_000;
/// Values a cycle can hold: 160 MB.
const MOST_SAMPLES: u64 = 10_000_000;

fn build(section: &Section, input: &Input) -> Result<Box<dyn Step>, Vec<Problem>> {
    let config: CycleConfig = section.parse()?;
    let phases = input.table.name == "cycles";
    let mut problems = Vec::new();
    let mut trigger = |path: &str, text: &Option<String>| {
        let parsed = text.as_ref().map(|text| Trigger::parse(path, text)).transpose();
        let parsed = parsed.map_err(|problem| problems.push(problem)).ok().flatten();
        if phases && parsed.as_ref().is_some_and(Trigger::needs_text) {
            let message = "a cycle keeps only the last text of a signal, so a phase can't begin or end with one";
            problems.push(Problem::at(path, message).hint("use a signal with values"));
        }
        parsed.map(Box::new)
    };
    let (start, end) = (trigger("start", &config.start), trigger("end", &config.end));
    let by = match (&config.start, &config.length) {
        (Some(_), None) => start.map(|start| Boundaries::Triggers { start, end }),
        (None, Some(length)) if length.micros() > 0 => Some(Boundaries::Length(length.micros())),
        (None, Some(_)) => {
            problems.push(Problem::at("length", "must be longer than 0"));
            None
        }
        (Some(_), Some(_)) => {
            problems.push(Problem::at(
                "length",
                "stands instead of `start` and `end`, not beside them",
            ));
            None
        }
        (None, None) => {
            problems.push(
                Problem::at("", "`start` is missing").hint("give `start`, or `length` for cycles of fixed length"),
            );
            None
        }
    };
    if config.length.is_some() && config.max.is_some() {
        problems.push(Problem::at("max", "has no meaning beside `length`, which ends a cycle"));
    }
    if config.end.is_some() && config.start.is_none() {
        problems.push(Problem::at("end", "needs a `start`"));
    }
    if let (Some(min), Some(max)) = (config.min, config.max)
        && min > max
    {
        problems.push(Problem::at("min", "is longer than `max`"));
    }
    if config.keep.as_ref().is_some_and(Vec::is_empty) {
        problems.push(Problem::at("keep", "names no signal").hint("leave it out to keep all"));
    }
    if phases && config.lateness.is_some() {
        problems.push(Problem::at(
            "lateness",
            "has no meaning inside a cycle, whose rows are in order already",
        ));
    }
    if let (Some(min), None, None) = (config.min, config.max, config.gap)
        && config.start.is_some()
        && min.micros() > DEFAULT_MAX_US
    {
        problems.push(Problem::at("min", "is longer than `max`, which is 1d if not given").hint("give `max`"));
    }
    let Some(by) = by.filter(|_| problems.is_empty()) else {
        return Err(problems);
    };
    let micros = |interval: Option<Interval>| interval.map(Interval::micros);
    let lateness_us = micros(config.lateness).unwrap_or(1_000_000);
    let (min_us, max_us, gap_us) = (micros(config.min), micros(config.max), micros(config.gap));
    let default_max_us = gap_us.is_none().then_some(DEFAULT_MAX_US);
    Ok(Box::new(CycleStep {
        name: section.name.as_str().into(),
        cut: Arc::new(Cut {
            by,
            min_us,
            max_us: max_us.or(default_max_us),
            gap_us,
            most_samples: MOST_SAMPLES,
            keep: config.keep.unwrap_or_default(),
        }),
        max_us,
        order: if phases {
            Order::Arrival
        } else {
            Order::Time { lateness_us }
        },
        table: cycles::table(cycles::schema(), false),
    }))
}

struct CycleStep {
    name: Arc<str>,
    cut: Arc<Cut>,
    /// `max` as it was given. The default doesn't count for patience: nobody waits a day for a silent machine.
    max_us: Option<i64>,
    order: Order,
    table: Table,
}

impl Step for CycleStep {
    fn output(&self) -> &Table {
        &self.table
    }

    fn order(&self) -> Order {
        self.order
    }

    fn patience_us(&self) -> i64 {
        if self.order == Order::Arrival {
            return 0;
        }
        let length = match &self.cut.by {
            Boundaries::Length(length) => *length,
            Boundaries::Triggers { start, end } => start.hold_us().max(end.as_ref().map_or(0, |end| end.hold_us())),
        };
        let longest = length.max(self.max_us.unwrap_or(0)).max(self.cut.gap_us.unwrap_or(0));
        // What is due at a time is done as soon as time is later than it.
        if longest > 0 { longest.saturating_add(1) } else { 0 }
    }

    /// With other levels and times an open cycle goes on under the new ones; with other triggers nothing fits.
    fn state(&self) -> String {
        let of = if self.order == Order::Arrival {
            "phases"
        } else {
            "cycles"
        };
        match &self.cut.by {
            Boundaries::Length(_) => format!("cycle/2 {of} by length"),
            Boundaries::Triggers { start, end: None } => format!("cycle/2 {of} from {}", start.watches()),
            Boundaries::Triggers { start, end: Some(end) } => {
                format!("cycle/2 {of} from {} to {}", start.watches(), end.watches())
            }
        }
    }

    fn operator(&self, key: &str) -> Box<dyn Operator> {
        let segmenter = Segmenter::new(self.cut.clone(), self.name.clone(), key);
        let builder = CyclesBuilder::default();
        match self.order {
            Order::Time { .. } => Box::new(Cycles {
                slots: Slots::default(),
                segmenter,
                builder,
            }),
            Order::Arrival => Box::new(Phases { segmenter, builder }),
        }
    }
}

/// Rows whose signals get the key's own numbers at once, on the stack.
const ROWS_AT_ONCE: usize = 1024;

struct Cycles {
    slots: Slots,
    segmenter: Segmenter,
    builder: CyclesBuilder,
}

impl Operator for Cycles {
    fn rows(&mut self, rows: &Rows<'_>, out: &mut Output) -> anyhow::Result<()> {
        let samples = rows.samples()?;
        let only_values = samples.no_text() && samples.no_quality();
        let mut slots = [0; ROWS_AT_ONCE];
        for from in (0..samples.ts.len()).step_by(ROWS_AT_ONCE) {
            let rows = from..samples.ts.len().min(from + ROWS_AT_ONCE);
            for (slot, &number) in slots.iter_mut().zip(&samples.signal[rows.clone()]) {
                let segmenter = &mut self.segmenter;
                *slot = self
                    .slots
                    .of(number, || segmenter.number_of(samples.signal_name(number))) as i32;
            }
            let slices = Slices {
                ts: &samples.ts[rows.clone()],
                signal: &slots[..rows.len()],
                value: &samples.value[rows],
            };
            if only_values {
                self.segmenter.rows(slices, |_| Said::default(), &mut self.builder);
            } else {
                let said = |row| Said {
                    text: samples.text(from + row),
                    stale: samples.quality(from + row) == Some(STALE),
                };
                self.segmenter.rows(slices, said, &mut self.builder);
            }
        }
        emit(&mut self.builder, out)
    }

    fn advance(&mut self, watermark_us: i64, out: &mut Output) -> anyhow::Result<()> {
        self.segmenter.advance(watermark_us, &mut self.builder);
        emit(&mut self.builder, out)
    }

    fn end(&mut self, out: &mut Output) -> anyhow::Result<()> {
        self.segmenter.end(None, &mut self.builder);
        emit(&mut self.builder, out)
    }

    fn snapshot(&mut self, into: &mut Snapshot) -> anyhow::Result<()> {
        self.segmenter.snapshot(into)
    }

    fn restore(&mut self, saved: &Saved) -> anyhow::Result<()> {
        self.segmenter.restore(saved)?;
        self.slots = Slots::unknown(self.segmenter.signals());
        Ok(())
    }

    fn remark(&self) -> Option<String> {
        self.segmenter.remark()
    }
}

fn emit(builder: &mut CyclesBuilder, out: &mut Output) -> anyhow::Result<()> {
    if !builder.is_empty() {
        out.emit(builder.finish()?);
    }
    Ok(())
}

struct Phases {
    segmenter: Segmenter,
    builder: CyclesBuilder,
}

impl Operator for Phases {
    fn rows(&mut self, rows: &Rows<'_>, out: &mut Output) -> anyhow::Result<()> {
        let batch = rows.batch();
        let cycles = CycleRows::of(&batch)?;
        for row in 0..cycles.len() {
            self.cut(&cycles, row);
            emit(&mut self.builder, out)?;
        }
        Ok(())
    }

    fn snapshot(&mut self, into: &mut Snapshot) -> anyhow::Result<()> {
        self.segmenter.snapshot(into)
    }

    fn restore(&mut self, saved: &Saved) -> anyhow::Result<()> {
        self.segmenter.restore(saved)
    }

    fn remark(&self) -> Option<String> {
        self.segmenter.remark()
    }
}

impl Phases {
    fn cut(&mut self, cycles: &CycleRows<'_>, row: usize) {
        let start_us = cycles.start_us(row);
        let mut merged: Vec<(i64, i32, f64)> = Vec::new();
        for signal in cycles.signals(row) {
            let number = self.segmenter.number_of(signal.name) as i32;
            let samples = signal.offsets.iter().zip(signal.values);
            merged.extend(samples.map(|(offset, value)| (start_us.saturating_add(*offset), number, *value)));
        }
        // Stable, so that samples of one signal and time keep their order.
        merged.sort_by_key(|(ts, number, _)| (*ts, *number));
        let ts: Vec<i64> = merged.iter().map(|(ts, _, _)| *ts).collect();
        let signal: Vec<i32> = merged.iter().map(|(_, signal, _)| *signal).collect();
        let value: Vec<f64> = merged.iter().map(|(_, _, value)| *value).collect();
        let slices = Slices {
            ts: &ts,
            signal: &signal,
            value: &value,
        };
        self.segmenter.within(cycles.cycle_id(row), start_us);
        self.segmenter.rows(slices, |_| Said::default(), &mut self.builder);
        let around = cycles.is_complete(row).then(|| (cycles.end_us(row), Outcome::Complete));
        self.segmenter.end(around, &mut self.builder);
    }
}

#[cfg(test)]
#[path = "cycle_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "cycle_bounds_tests.rs"]
mod bounds_tests;
