//! `window`: count, mean, extremes and standard deviation of each signal over stretches of fixed length.
//!
//! A window holds the rows with `start <= ts < end`; windows begin at multiples of their length since 1970 (UTC). A window
//! without rows of a signal has no row in the table.

use std::sync::{Arc, LazyLock};

use anyhow::ensure;
use arrow::array::{
    ArrayRef, DictionaryArray, Float64Array, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    UInt64Array,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taktline_engine::config::{Interval, Problem, Section};
use taktline_engine::kind::{Input, StepKind};
use taktline_engine::table::{KEY, name_type, timestamp};
use taktline_engine::{Operator, Order, Output, Rows, SampleRows, Saved, Snapshot, Step, Table};

use crate::count::{Count, count};
use crate::cycles::nan_is_null;
use crate::slots::Slots;

/// The kind's row in the table.
pub const KIND: StepKind = StepKind {
    name: "window",
    summary: "count, mean, min, max and std of each signal over tumbling windows",
    schema: || schemars::schema_for!(WindowConfig),
    reads: &["samples"],
    build,
};

/// Settings of a `window` step.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowConfig {
    /// Length of a window: `1s`. Windows begin at multiples of it since 1970 (UTC).
    pub every: Interval,
    /// How long rows may be out of order; 1s if not given. Later ones go to the table `late`.
    pub lateness: Option<Interval>,
}

/// `windows`: one row per machine, window and signal, sorted by start and signal.
///
/// | column | type | meaning |
/// | --- | --- | --- |
/// | `machine`, `signal` | dictionary of UTF-8 | who, what |
/// | `start`, `end` | timestamp µs, UTC | the window, without its end |
/// | `count`, `missing` | uint64 | finite values, and rows with neither value nor text |
/// | `mean`, `min`, `max`, `std` | float64, nullable | of the finite values; std of the population |
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let number = |name| Field::new(name, DataType::Float64, true);
        Arc::new(Schema::new(vec![
            Field::new(KEY, name_type(), false),
            Field::new("signal", name_type(), false),
            Field::new("start", timestamp(), false),
            Field::new("end", timestamp(), false),
            Field::new("count", DataType::UInt64, false),
            Field::new("missing", DataType::UInt64, false),
            number("mean"),
            number("min"),
            number("max"),
            number("std"),
        ]))
    });
    SCHEMA.clone()
}

fn build(section: &Section, _: &Input) -> Result<Box<dyn Step>, Vec<Problem>> {
    let config: WindowConfig = section.parse()?;
    if config.every.micros() <= 0 {
        return Err(vec![Problem::at("every", "must be longer than 0")]);
    }
    let lateness_us = config.lateness.map_or(1_000_000, Interval::micros);
    Ok(Box::new(WindowStep {
        every_us: config.every.micros(),
        lateness_us,
        table: Table::plain("windows", schema()),
    }))
}

struct WindowStep {
    every_us: i64,
    lateness_us: i64,
    table: Table,
}

impl Step for WindowStep {
    fn output(&self) -> &Table {
        &self.table
    }

    fn order(&self) -> Order {
        Order::Time {
            lateness_us: self.lateness_us,
        }
    }

    fn patience_us(&self) -> i64 {
        self.every_us
    }

    fn state(&self) -> String {
        format!("window/1 of {}us", self.every_us)
    }

    fn operator(&self, key: &str) -> Box<dyn Operator> {
        Box::new(Windows::new(self.every_us, key))
    }
}

/// One signal in the open window: Welford's running mean and sum of squared distances from it.
#[derive(Clone, Copy)]
struct Running {
    count: u64,
    missing: u64,
    mean: f64,
    squares: f64,
    min: f64,
    max: f64,
}

const NOTHING: Running = Running {
    count: 0,
    missing: 0,
    mean: 0.0,
    squares: 0.0,
    min: f64::INFINITY,
    max: f64::NEG_INFINITY,
};

impl Running {
    #[inline]
    fn add(&mut self, value: f64) {
        if !value.is_finite() {
            self.missing += 1;
            return;
        }
        self.count += 1;
        let distance = value - self.mean;
        self.mean += distance / self.count as f64;
        self.squares += distance * (value - self.mean);
        self.min = if value < self.min { value } else { self.min };
        self.max = if value > self.max { value } else { self.max };
    }
}

struct Windows {
    every_us: i64,
    machine: ArrayRef,
    slots: Slots,
    /// The key's own signals by slot.
    names: Vec<String>,
    dictionary: ArrayRef,
    /// Slots sorted by name.
    order: Vec<usize>,
    running: Vec<Running>,
    start_us: Option<i64>,
    closed: Closed,
    /// Names in the tail of the state.
    saved_names: usize,
}

/// The state but for the names, which the tail holds in the order of their slots.
#[derive(Serialize, Deserialize)]
struct Head {
    start_us: Option<i64>,
    /// Signals with rows in the open window: slot, count, missing, then mean, squares, min, max.
    running: Vec<(u32, Count, Count, [f64; 4])>,
}

/// Rows to emit.
#[derive(Default)]
struct Closed {
    signal: Vec<i32>,
    start: Vec<i64>,
    end: Vec<i64>,
    count: Vec<u64>,
    missing: Vec<u64>,
    mean: Vec<f64>,
    min: Vec<f64>,
    max: Vec<f64>,
    std: Vec<f64>,
}

impl Operator for Windows {
    fn rows(&mut self, rows: &Rows<'_>, out: &mut Output) -> anyhow::Result<()> {
        let samples = rows.samples()?;
        let mut from = 0;
        while from < samples.ts.len() {
            let start = samples.ts[from].saturating_sub(samples.ts[from].rem_euclid(self.every_us));
            if self.start_us != Some(start) {
                self.close();
                self.start_us = Some(start);
            }
            let end = start.saturating_add(self.every_us);
            let to = from + samples.ts[from..].partition_point(|ts| *ts < end);
            self.add(&samples, from..to);
            from = to;
        }
        self.emit(out)
    }

    fn advance(&mut self, watermark_us: i64, out: &mut Output) -> anyhow::Result<()> {
        if self
            .start_us
            .is_some_and(|start| start.saturating_add(self.every_us) <= watermark_us)
        {
            self.close();
        }
        self.emit(out)
    }

    fn end(&mut self, out: &mut Output) -> anyhow::Result<()> {
        self.close();
        self.emit(out)
    }

    fn snapshot(&mut self, into: &mut Snapshot) -> anyhow::Result<()> {
        if into.whole() {
            self.saved_names = 0;
        }
        for name in &self.names[self.saved_names..] {
            into.append(name)?;
        }
        self.saved_names = self.names.len();
        let with_rows = (0..).zip(&self.running).filter(|(_, r)| r.count + r.missing > 0);
        let numbers = |r: &Running| [r.mean, r.squares, r.min, r.max];
        into.head(&Head {
            start_us: self.start_us,
            running: with_rows
                .map(|(slot, r)| (slot, count(r.count), count(r.missing), numbers(r)))
                .collect(),
        })
    }

    fn restore(&mut self, saved: &Saved) -> anyhow::Result<()> {
        let head: Head = saved.head()?;
        for name in saved.appended::<String>()? {
            let slot = slot_of(&mut self.names, &mut self.order, &mut self.running, &name);
            ensure!(slot == self.saved_names, "state that can't be read: `{name}` twice");
            self.saved_names += 1;
        }
        self.start_us = head.start_us;
        for (slot, count, missing, [mean, squares, min, max]) in head.running {
            let Some(running) = self.running.get_mut(slot as usize) else {
                anyhow::bail!("state that can't be read: a window of an unknown signal");
            };
            let (count, missing) = (count.get(), missing.get());
            *running = Running {
                count,
                missing,
                mean,
                squares,
                min,
                max,
            };
        }
        self.slots = Slots::unknown(self.names.len());
        Ok(())
    }
}

/// The slot of a signal by name, the next one if it has none. `order` are the slots sorted by name.
fn slot_of(names: &mut Vec<String>, order: &mut Vec<usize>, running: &mut Vec<Running>, name: &str) -> usize {
    match order.binary_search_by(|&slot| names[slot].as_str().cmp(name)) {
        Ok(place) => order[place],
        Err(place) => {
            order.insert(place, names.len());
            names.push(name.to_owned());
            running.push(NOTHING);
            names.len() - 1
        }
    }
}

impl Windows {
    fn new(every_us: i64, key: &str) -> Self {
        Windows {
            every_us,
            machine: Arc::new(StringArray::from(vec![key])),
            slots: Slots::default(),
            names: Vec::new(),
            dictionary: Arc::new(StringArray::from(Vec::<&str>::new())),
            order: Vec::new(),
            running: Vec::new(),
            start_us: None,
            closed: Closed::default(),
            saved_names: 0,
        }
    }

    /// Adds rows of the open window to their signals.
    fn add(&mut self, samples: &SampleRows<'_>, rows: std::ops::Range<usize>) {
        let (names, order, running) = (&mut self.names, &mut self.order, &mut self.running);
        let only_values = samples.no_text();
        for row in rows {
            let (number, value) = (samples.signal[row], samples.value[row]);
            let slot = self
                .slots
                .of(number, || slot_of(names, order, running, samples.signal_name(number)));
            if only_values || value.is_finite() || samples.text(row).is_none() {
                running[slot].add(value);
            }
        }
    }

    /// Closes the open window, if there is one.
    fn close(&mut self) {
        let Some(start) = self.start_us.take() else { return };
        let closed = &mut self.closed;
        for &number in &self.order {
            let running = std::mem::replace(&mut self.running[number], NOTHING);
            let Running {
                count,
                missing,
                mean,
                squares,
                min,
                max,
            } = running;
            if count + missing == 0 {
                continue;
            }
            let or_nan = |number: f64| if count > 0 { number } else { f64::NAN };
            closed.signal.push(number as i32);
            closed.start.push(start);
            closed.end.push(start.saturating_add(self.every_us));
            closed.count.push(count);
            closed.missing.push(missing);
            closed.mean.push(or_nan(mean));
            closed.min.push(or_nan(min));
            closed.max.push(or_nan(max));
            closed.std.push(or_nan(if min == max {
                0.0
            } else {
                (squares / count as f64).max(0.0).sqrt()
            }));
        }
    }

    fn emit(&mut self, out: &mut Output) -> anyhow::Result<()> {
        if self.closed.start.is_empty() {
            return Ok(());
        }
        if self.dictionary.len() < self.names.len() {
            self.dictionary = Arc::new(StringArray::from(self.names.clone()));
        }
        let closed = std::mem::take(&mut self.closed);
        let rows = closed.start.len();
        let machine = DictionaryArray::<Int32Type>::try_new(Int32Array::from(vec![0; rows]), self.machine.clone())?;
        let signal = DictionaryArray::<Int32Type>::try_new(Int32Array::from(closed.signal), self.dictionary.clone())?;
        let time = |us: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(us).with_timezone("UTC"));
        let number = |values: Vec<f64>| Arc::new(nan_is_null(values)) as Arc<Float64Array>;
        let columns: Vec<ArrayRef> = vec![
            Arc::new(machine),
            Arc::new(signal),
            time(closed.start),
            time(closed.end),
            Arc::new(UInt64Array::from(closed.count)),
            Arc::new(UInt64Array::from(closed.missing)),
            number(closed.mean),
            number(closed.min),
            number(closed.max),
            number(closed.std),
        ];
        out.emit(RecordBatch::try_new(schema(), columns)?);
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use arrow::array::{Array, AsArray};
    use arrow::datatypes::{Float64Type, TimestampMicrosecondType, UInt64Type};
    use proptest::prelude::*;
    use taktline_engine::table::{Sample, samples, samples_batch};

    fn step(yaml: &str) -> Box<dyn Step> {
        let input = Input {
            name: "plc".into(),
            table: samples(),
            extends: Vec::new(),
        };
        build(&Section::from_yaml("w", yaml), &input).unwrap()
    }

    /// Rows of signal, µs, value (-99 stands for the text `on`) give `start signal count/missing mean min max std`.
    fn run(yaml: &str, rows: &[(&str, i64, f64)], chunk: usize) -> Vec<String> {
        let samples: Vec<Sample<'_>> = rows
            .iter()
            .map(|&(signal, ts, value)| {
                let text = (value == -99.0).then_some("on");
                let value = if text.is_some() { f64::NAN } else { value };
                Sample {
                    machine: "m",
                    signal,
                    ts,
                    value: Some(value),
                    text,
                }
            })
            .collect();
        let batch = samples_batch(samples);
        let mut operator = step(yaml).operator("m");
        let mut out = Output::default();
        for from in (0..rows.len()).step_by(chunk) {
            let to = (from + chunk).min(rows.len());
            operator.rows(&Rows::new(&batch, from..to), &mut out).unwrap();
            operator.advance(rows[to - 1].1, &mut out).unwrap();
        }
        operator.end(&mut out).unwrap();
        let mut lines = Vec::new();
        for batch in out.take() {
            let signals = batch.column(1).as_dictionary::<Int32Type>();
            let names = signals.values().as_string::<i32>();
            let number = |column: usize, row: usize| {
                let array = batch.column(column).as_primitive::<Float64Type>();
                if array.is_null(row) {
                    "null".to_owned()
                } else {
                    format!("{}", array.value(row))
                }
            };
            for row in 0..batch.num_rows() {
                let start = batch.column(2).as_primitive::<TimestampMicrosecondType>().value(row);
                let count = |column: usize| batch.column(column).as_primitive::<UInt64Type>().value(row);
                let name = names.value(signals.keys().value(row) as usize);
                let numbers = [6, 7, 8, 9].map(|column| number(column, row)).join(" ");
                lines.push(format!("{start} {name} {}/{} {numbers}", count(4), count(5)));
            }
        }
        lines
    }

    fn check(rows: &[(&str, i64, f64)], expect: &[&str]) {
        for chunk in [1, 2, rows.len()] {
            assert_eq!(run("{every: 10us}", rows, chunk), expect, "in calls of {chunk}");
        }
    }

    #[test]
    fn windows() {
        let nan = f64::NAN;
        check(
            &[("b", 1, 1.0), ("a", 2, 5.0), ("b", 9, 3.0), ("b", 10, 7.0)],
            &["0 a 1/0 5 5 5 0", "0 b 2/0 2 1 3 1", "10 b 1/0 7 7 7 0"],
        );
        check(
            &[("a", 1, nan), ("a", 2, f64::INFINITY), ("b", 3, nan), ("b", 35, 2.0)],
            &[
                "0 a 0/2 null null null null",
                "0 b 0/1 null null null null",
                "30 b 1/0 2 2 2 0",
            ],
        );
        check(
            &[("a", -1, 1.0), ("a", 0, 2.0)],
            &["-10 a 1/0 1 1 1 0", "0 a 1/0 2 2 2 0"],
        );
        // A text is neither a value nor missing.
        check(&[("a", 1, -99.0), ("b", 1, 2.0)], &["0 b 1/0 2 2 2 0"]);
    }

    #[test]
    fn signals_of_other_machines_cost_nothing() {
        let names: Vec<String> = (0..10_000).map(|n| format!("other {n}")).collect();
        let sample = |signal, ts| Sample {
            machine: "m",
            signal,
            ts,
            value: Some(1.0),
            text: None,
        };
        let others = names.iter().map(|name| sample(name, 0));
        let batch = samples_batch(others.chain([sample("p", 0), sample("a", 1)]));
        let mut windows = Windows::new(10, "m");
        let mut out = Output::default();
        windows
            .rows(&Rows::new(&batch, names.len()..batch.num_rows()), &mut out)
            .unwrap();
        windows.end(&mut out).unwrap();
        assert_eq!((windows.names.len(), windows.running.len()), (2, 2));
        let rows = out.take();
        assert_eq!(rows[0].num_rows(), 2);
        assert_eq!(rows[0].column(1).as_dictionary::<Int32Type>().values().len(), 2);
    }

    #[test]
    fn large_levels_keep_their_digits() {
        let rows = [1.0, -1.0, 1.0, -1.0].map(|step| ("a", 3, 1e9 + step));
        assert_eq!(
            run("{every: 10us}", &rows, 3),
            ["0 a 4/0 1000000000 999999999 1000000001 1"]
        );
    }

    #[test]
    fn refused() {
        let input = Input {
            name: "plc".into(),
            table: samples(),
            extends: Vec::new(),
        };
        let problems = build(&Section::from_yaml("w", "{every: 0s}"), &input).err().unwrap();
        assert_eq!(problems[0].message, "must be longer than 0");
    }

    proptest! {
        #[test]
        fn the_cut_into_calls_does_not_matter(
            steps in prop::collection::vec((0_i64..6, 0_usize..3, 0..5_i32), 1..50),
            chunk in 1_usize..9,
        ) {
            let mut ts = 0;
            let rows: Vec<_> = steps.iter().map(|(pause, signal, value)| {
                ts += pause;
                (["b", "a", "c"][*signal], ts, f64::from(*value))
            }).collect();
            prop_assert_eq!(run("{every: 10us}", &rows, rows.len()), run("{every: 10us}", &rows, chunk));
        }
    }
}
