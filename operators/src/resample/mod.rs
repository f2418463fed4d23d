//! `resample`: brings all signals of a machine onto one grid of times.
//!
//! The grid are the multiples of `every` since 1970 (UTC). At each of its times a signal has a row where it has a value:
//!
//! | `by` | the value at time g |
//! | --- | --- |
//! | `hold` (the default) | the last one at or before g, if it is not older than `max_gap` |
//! | `linear` | on the line between the last one at or before g and the first after it, if they are not further apart than `max_gap` |
//! | `mean` | the mean of the values with g <= ts < g + `every` |
//!
//! Rows come in the order of time and signal; all rows of one time are emitted as soon as each is known, which for `linear` may take
//! `max_gap`. Values that are not finite and texts are not looked at, and a result beyond the range of float64 is no row. Of several
//! values of one time the last one counts; a line leads to the first of them and goes on from the last. When the input ends,
//! `hold` holds until the machine's newest row. History keeps the rows as the table `resampled`.

mod grid;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use anyhow::ensure;
use arrow::array::{ArrayRef, Float64Array, RecordBatch, TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::DataType;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taktline_engine::config::{Interval, Problem, Section};
use taktline_engine::kind::{Input, StepKind};
use taktline_engine::table::{Published, name_type, samples};
use taktline_engine::{Operator, Order, Output, Rows, Saved, Snapshot, Step, Table};

use crate::signals::Signals;
use grid::{Grid, Line};

/// The kind's row in the table.
pub const KIND: StepKind = StepKind {
    name: "resample",
    summary: "brings all signals of a machine onto one grid of times",
    schema: || schemars::schema_for!(ResampleConfig),
    reads: &["samples"],
    build,
};

/// Settings of a `resample` step.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResampleConfig {
    /// Time from one row of a signal to the next: `100ms`.
    pub every: Interval,
    /// How a value between samples is found; `hold` if not given.
    #[serde(default)]
    pub by: By,
    /// Over a longer time without samples a signal has no rows; 10 times `every` if not given.
    pub max_gap: Option<Interval>,
    /// How long rows may be out of order; 1s if not given. Later ones go to the table `late`.
    pub lateness: Option<Interval>,
}

/// How a value between samples is found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// The last sample holds.
    #[default]
    Hold,
    /// On the line between two samples.
    Linear,
    /// The mean of the samples up to the next time of the grid.
    Mean,
}

/// A silent signal never has more rows than this.
const MOST_ROWS: i64 = 100_000;

fn build(section: &Section, _: &Input) -> Result<Box<dyn Step>, Vec<Problem>> {
    let config: ResampleConfig = section.parse()?;
    let every_us = config.every.micros();
    if every_us <= 0 {
        return Err(vec![Problem::at("every", "must be longer than 0")]);
    }
    let max_gap_us = config.max_gap.map_or(every_us.saturating_mul(10), Interval::micros);
    let mut problems = Vec::new();
    if config.by == By::Mean && config.max_gap.is_some() {
        problems.push(Problem::at("max_gap", "has no meaning for a mean of what is there").on_key());
    }
    if max_gap_us / every_us > MOST_ROWS {
        problems.push(Problem::at(
            "max_gap",
            format!("is more than {MOST_ROWS} times `every`"),
        ));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let all = samples();
    Ok(Box::new(ResampleStep {
        grid: Grid {
            every_us,
            by: config.by,
            max_gap_us: if config.by == By::Mean { 0 } else { max_gap_us },
        },
        lateness_us: config.lateness.map_or(1_000_000, Interval::micros),
        table: Table {
            published: vec![Published {
                name: "resampled",
                schema: all.schema.clone(),
                project: |batch| Ok(batch.clone()),
            }],
            ..all
        },
    }))
}

struct ResampleStep {
    grid: Grid,
    lateness_us: i64,
    table: Table,
}

impl Step for ResampleStep {
    fn output(&self) -> &Table {
        &self.table
    }

    fn order(&self) -> Order {
        Order::Time {
            lateness_us: self.lateness_us,
        }
    }

    fn patience_us(&self) -> i64 {
        // What is due at a time is done as soon as time is later than it.
        self.grid.max_gap_us.max(self.grid.every_us).saturating_add(1)
    }

    fn state(&self) -> String {
        let Grid {
            every_us,
            by,
            max_gap_us,
        } = self.grid;
        format!("resample/1 every {every_us}us by {by:?} over {max_gap_us}us")
    }

    fn operator(&self, key: &str) -> Box<dyn Operator> {
        Box::new(Resample {
            grid: self.grid,
            signals: Signals::new(key),
            lines: Vec::new(),
            time_us: i64::MIN,
            next: None,
            ready: Ready::default(),
        })
    }
}

struct Resample {
    grid: Grid,
    signals: Signals,
    /// By slot: the samples that rows to come are made of.
    lines: Vec<Line>,
    /// No row before it comes any more.
    time_us: i64,
    /// The next time of the grid that has not been told; none while no signal has a value to tell.
    next: Option<i64>,
    ready: Ready,
}

/// Rows to emit.
#[derive(Default)]
struct Ready {
    slot: Vec<i32>,
    ts: Vec<i64>,
    value: Vec<f64>,
}

#[derive(Serialize, Deserialize)]
struct Head {
    time_us: i64,
    next: Option<i64>,
    lines: Vec<Line>,
}

impl Operator for Resample {
    fn rows(&mut self, rows: &Rows<'_>, _: &mut Output) -> anyhow::Result<()> {
        let samples = rows.samples()?;
        for (row, (ts, value)) in samples.ts.iter().zip(samples.value).enumerate() {
            self.time_us = self.time_us.max(*ts);
            if !value.is_finite() {
                continue;
            }
            let slot = self.signals.slot(&samples, samples.signal[row]);
            if slot >= self.lines.len() {
                self.lines.resize_with(slot + 1, Line::default);
            }
            self.lines[slot].push(*ts, *value);
            self.next.get_or_insert(self.grid.first(*ts));
        }
        Ok(())
    }

    fn advance(&mut self, watermark_us: i64, out: &mut Output) -> anyhow::Result<()> {
        self.time_us = self.time_us.max(watermark_us);
        while let Some(at) = self.next.filter(|at| self.grid.is_due(*at, watermark_us, &self.lines)) {
            self.tell(at);
        }
        self.emit(out)
    }

    fn end(&mut self, out: &mut Output) -> anyhow::Result<()> {
        while let Some(at) = self.next.filter(|at| *at <= self.time_us) {
            self.tell(at);
        }
        self.emit(out)
    }

    fn snapshot(&mut self, into: &mut Snapshot) -> anyhow::Result<()> {
        for name in self.signals.unsaved(into.whole()) {
            into.append(name)?;
        }
        into.head(&Head {
            time_us: self.time_us,
            next: self.next,
            lines: self.lines.clone(),
        })
    }

    fn restore(&mut self, saved: &Saved) -> anyhow::Result<()> {
        let head: Head = saved.head()?;
        for name in saved.appended::<String>()? {
            self.signals.restore(&name)?;
        }
        let whole = head.lines.len() <= self.signals.len() && head.lines.iter().all(Line::is_sorted);
        ensure!(whole, "state that can't be read: samples of an unknown signal or time");
        (self.time_us, self.next, self.lines) = (head.time_us, head.next, head.lines);
        Ok(())
    }
}

impl Resample {
    /// Makes the rows of a time of the grid, and goes on to the next that may have some.
    fn tell(&mut self, at: i64) {
        for &slot in self.signals.order() {
            let value = self.lines.get_mut(slot).and_then(|line| line.value(at, self.grid));
            if let Some(value) = value.filter(|value| value.is_finite()) {
                self.ready.slot.push(slot as i32);
                self.ready.ts.push(at);
                self.ready.value.push(value);
            }
        }
        self.next = self.grid.next(at, &self.lines);
    }

    fn emit(&mut self, out: &mut Output) -> anyhow::Result<()> {
        if self.ready.ts.is_empty() {
            return Ok(());
        }
        let ready = std::mem::take(&mut self.ready);
        let count = ready.ts.len();
        let [machine, signal] = self.signals.columns(ready.slot)?;
        let columns: Vec<ArrayRef> = vec![
            machine,
            signal,
            Arc::new(TimestampMicrosecondArray::from(ready.ts).with_timezone("UTC")),
            Arc::new(Float64Array::from(ready.value)),
            new_null_array(&DataType::Utf8, count),
            new_null_array(&name_type(), count),
        ];
        out.emit(RecordBatch::try_new(samples().schema, columns)?);
        Ok(())
    }
}
