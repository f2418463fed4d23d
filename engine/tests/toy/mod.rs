//! Toy kinds: the engine's tests know no real operator.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // each test file uses a part

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, Float64Array, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Float64Type, Int32Type, Schema, SchemaRef, TimestampMicrosecondType};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use taktline_engine::config::{Interval, Problem, Section};
use taktline_engine::kind::{Catalog, Input, SinkKind, SourceKind, StepKind};
use taktline_engine::state::Staged;
use taktline_engine::table::{self, Sample, samples_batch};
use taktline_engine::{
    DeadLetters, Decoded, Decoder, Opening, Operator, Order, Output, Partition, Poll, Position, Rows, Saved, Sink,
    SinkPlan, Snapshot, Source, Step, Table, Wake,
};

pub static CATALOG: Catalog = Catalog {
    sources: &[
        SourceKind {
            name: "list",
            summary: "rows from the file itself",
            schema: || schemars::schema_for!(ListConfig),
            build: |section| {
                Ok(Box::new(List {
                    name: section.name.clone(),
                    config: section.parse()?,
                }))
            },
        },
        SourceKind {
            name: "fountain",
            summary: "new keys without end",
            schema: || schemars::schema_for!(FountainConfig),
            build: |section| Ok(Box::new(Fountain(section.parse()?))),
        },
    ],
    steps: &[
        StepKind {
            name: "sum",
            summary: "running sum of each machine",
            schema: || schemars::schema_for!(SumConfig),
            reads: &["samples"],
            build: |section, _| {
                Ok(Box::new(Sum {
                    config: section.parse()?,
                    table: sums(),
                }))
            },
        },
        StepKind {
            name: "pass",
            summary: "gives on what it gets",
            schema: || schemars::schema_for!(PassConfig),
            reads: &["sums"],
            build: build_pass,
        },
    ],
    sinks: &[
        SinkKind {
            name: "keep",
            summary: "keeps rows in memory for the test",
            schema: || schemars::schema_for!(KeepConfig),
            takes_refused: true,
            build: |section, inputs| {
                let config: KeepConfig = section.parse()?;
                let names = inputs.iter().map(|input| input.name.clone()).collect();
                Ok(Box::new(Keep {
                    to: config.to.unwrap_or_default(),
                    fail_after: config.fail_after,
                    away: config.away,
                    names,
                }))
            },
        },
        SinkKind {
            name: "count",
            summary: "takes rows and keeps none",
            schema: || schemars::schema_for!(CountConfig),
            takes_refused: false,
            build: |section, _| Ok(Box::new(Count(section.parse()?))),
        },
    ],
};

/// Rows as (machine, seconds, value); `batch` of them at a time, over `partitions` by machine.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct ListConfig {
    /// The rows.
    rows: Vec<(String, i64, f64)>,
    /// Rows in a raw batch.
    #[serde(default = "ten")]
    batch: usize,
    /// Never ends by itself.
    #[serde(default)]
    endless: bool,
    /// Can't give its rows twice.
    #[serde(default)]
    fleeting: bool,
    /// The row before which it stops and waits for [`LET`].
    hold: Option<usize>,
    /// The row that can't be read.
    broken: Option<usize>,
}

/// Lists that hold may go on.
pub static LET: AtomicBool = AtomicBool::new(false);

/// So many keys that were never there before, in each batch.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FountainConfig {
    keys: u64,
}

#[derive(Clone, Copy)]
struct Fountain(FountainConfig);

impl Source for Fountain {
    fn partitions(&self) -> anyhow::Result<Vec<String>> {
        Ok(vec!["fountain".into()])
    }

    fn open(&self, _: usize, from: Option<&Value>, _: Wake) -> anyhow::Result<Box<dyn Partition>> {
        let next = from.and_then(Value::as_u64).unwrap_or(0);
        Ok(Box::new(FountainPartition {
            next,
            keys: self.0.keys,
            given: false,
        }))
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(*self)
    }

    fn bounded(&self) -> bool {
        false
    }

    fn replayable(&self) -> bool {
        true
    }
}

struct FountainPartition {
    next: u64,
    keys: u64,
    given: bool,
}

impl Partition for FountainPartition {
    fn poll(&mut self) -> anyhow::Result<Poll> {
        self.given = !self.given;
        if !self.given {
            return Ok(Poll::Idle);
        }
        let index = arrow::array::UInt64Array::from_iter_values(self.next..self.next + self.keys);
        self.next += self.keys;
        Ok(Poll::Batch(RecordBatch::try_new(raw_schema(), vec![Arc::new(index)])?))
    }

    fn offset(&self) -> Value {
        self.next.into()
    }

    fn position(&self) -> Position {
        Position::default()
    }
}

impl Decoder for Fountain {
    fn decode(&mut self, raw: &RecordBatch) -> anyhow::Result<Decoded> {
        let index = raw.column(0).as_primitive::<arrow::datatypes::UInt64Type>();
        let names: Vec<String> = index.values().iter().map(|key| format!("machine-{key}")).collect();
        let sample = |machine| Sample {
            machine,
            signal: "v",
            ts: 1,
            value: Some(1.0),
            text: None,
        };
        Ok(Decoded {
            samples: samples_batch(names.iter().map(|name| sample(name.as_str()))),
            dead_letters: DeadLetters::new("fountain").finish(),
        })
    }
}

/// Takes rows and keeps none.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CountConfig {
    /// How long it takes for each batch.
    #[serde(default)]
    slow_ms: u64,
}

struct Count(CountConfig);

impl SinkPlan for Count {
    fn open(&self, _: &Opening) -> anyhow::Result<Box<dyn Sink>> {
        Ok(Box::new(Count(self.0)))
    }
}

impl Sink for Count {
    fn write(&mut self, _: usize, _: &RecordBatch) -> anyhow::Result<()> {
        std::thread::sleep(Duration::from_millis(self.0.slow_ms));
        Ok(())
    }

    fn stage(&mut self, _: u64) -> anyhow::Result<Staged> {
        Ok(Staged(Value::Null))
    }
}

fn ten() -> usize {
    10
}

struct List {
    name: String,
    config: ListConfig,
}

fn raw_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("index", DataType::UInt64, false)]))
}

impl Source for List {
    fn partitions(&self) -> anyhow::Result<Vec<String>> {
        Ok(vec!["list".into()])
    }

    fn open(&self, _: usize, from: Option<&Value>, _: Wake) -> anyhow::Result<Box<dyn Partition>> {
        Ok(Box::new(ListPartition {
            config: self.config.clone(),
            next: from.and_then(Value::as_u64).unwrap_or(0) as usize,
        }))
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(ListDecoder {
            name: self.name.clone(),
            rows: self.config.rows.clone(),
            left_out: 0,
        })
    }

    fn bounded(&self) -> bool {
        !self.config.endless
    }

    fn replayable(&self) -> bool {
        !self.config.fleeting
    }
}

struct ListPartition {
    config: ListConfig,
    next: usize,
}

impl Partition for ListPartition {
    fn poll(&mut self) -> anyhow::Result<Poll> {
        let mut end = (self.next + self.config.batch).min(self.config.rows.len());
        if let Some(hold) = self
            .config
            .hold
            .filter(|hold| self.next <= *hold && !LET.load(Ordering::Acquire))
        {
            end = end.min(hold);
            if self.next == hold {
                return Ok(Poll::Idle);
            }
        }
        if let Some(broken) = self.config.broken {
            anyhow::ensure!(self.next < broken, "row {broken} can't be read");
            end = end.min(broken);
        }
        if self.next == end {
            return Ok(if self.config.endless { Poll::Idle } else { Poll::End });
        }
        let index = arrow::array::UInt64Array::from_iter_values(self.next as u64..end as u64);
        self.next = end;
        Ok(Poll::Batch(RecordBatch::try_new(raw_schema(), vec![Arc::new(index)])?))
    }

    fn offset(&self) -> Value {
        self.next.into()
    }

    fn position(&self) -> Position {
        Position {
            text: format!("row {}", self.next),
            fraction: Some(self.next as f64 / self.config.rows.len() as f64),
        }
    }
}

struct ListDecoder {
    name: String,
    rows: Vec<(String, i64, f64)>,
    left_out: u64,
}

impl Decoder for ListDecoder {
    fn decode(&mut self, raw: &RecordBatch) -> anyhow::Result<Decoded> {
        let mut letters = DeadLetters::new(&self.name);
        let index = raw.column(0).as_primitive::<arrow::datatypes::UInt64Type>();
        let mut good = Vec::new();
        for row in index.values() {
            let (machine, ts, value) = &self.rows[*row as usize];
            if *value < -1e6 {
                letters.push("list", *row, "too small", b"toy");
            } else if *value > 1e6 {
                self.left_out += 1;
            } else {
                let sample = Sample {
                    machine,
                    signal: "v",
                    ts: ts * 1_000_000,
                    value: Some(*value),
                    text: None,
                };
                good.push(sample);
            }
        }
        Ok(Decoded {
            samples: samples_batch(good),
            dead_letters: letters.finish(),
        })
    }

    fn left_out(&mut self) -> u64 {
        std::mem::take(&mut self.left_out)
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct SumConfig {
    /// How long a row may be out of order.
    lateness: Option<Interval>,
    /// Emits a row of -1 when the input ends.
    #[serde(default)]
    last: bool,
}

struct Sum {
    config: SumConfig,
    table: Table,
}

fn sums() -> Table {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new(table::KEY, table::name_type(), false),
            Field::new("ts", table::timestamp(), false),
            Field::new("sum", DataType::Float64, false),
        ]))
    });
    Table::plain("sums", SCHEMA.clone())
}

impl Step for Sum {
    fn output(&self) -> &Table {
        &self.table
    }

    fn order(&self) -> Order {
        Order::Time {
            lateness_us: self.config.lateness.map_or(0, Interval::micros),
        }
    }

    fn state(&self) -> String {
        format!("sum/1{}", if self.config.last { " last" } else { "" })
    }

    fn operator(&self, key: &str) -> Box<dyn Operator> {
        Box::new(Summing {
            sum: 0.0,
            last: self.config.last.then(|| key.to_owned()),
            schema: self.table.schema.clone(),
        })
    }
}

struct Summing {
    sum: f64,
    last: Option<String>,
    schema: SchemaRef,
}

impl Operator for Summing {
    fn rows(&mut self, rows: &Rows<'_>, out: &mut Output) -> anyhow::Result<()> {
        let samples = rows.samples()?;
        let sums: Float64Array = samples
            .value
            .iter()
            .map(|value| {
                self.sum += value;
                Some(self.sum)
            })
            .collect();
        let batch = rows.batch();
        let columns = vec![batch.column(0).clone(), batch.column(2).clone(), Arc::new(sums) as _];
        out.emit(RecordBatch::try_new(self.schema.clone(), columns)?);
        Ok(())
    }

    fn end(&mut self, out: &mut Output) -> anyhow::Result<()> {
        if let Some(key) = &self.last {
            let machine: DictionaryArray<Int32Type> = [key.as_str()].into_iter().collect();
            let ts = TimestampMicrosecondArray::from(vec![0]).with_timezone("UTC");
            let columns: Vec<ArrayRef> = vec![
                Arc::new(machine),
                Arc::new(ts),
                Arc::new(Float64Array::from(vec![-1.0])),
            ];
            out.emit(RecordBatch::try_new(self.schema.clone(), columns)?);
        }
        Ok(())
    }

    fn snapshot(&mut self, into: &mut Snapshot) -> anyhow::Result<()> {
        into.head(&self.sum)
    }

    fn restore(&mut self, saved: &Saved) -> anyhow::Result<()> {
        self.sum = saved.head()?;
        Ok(())
    }

    fn remark(&self) -> Option<String> {
        (self.sum == 0.0).then(|| "nothing to sum".into())
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PassConfig {
    /// A column that must be there.
    column: Option<String>,
}

fn build_pass(section: &Section, input: &Input) -> Result<Box<dyn Step>, Vec<Problem>> {
    let config: PassConfig = section.parse()?;
    if let Some(column) = config.column
        && input.table.schema.index_of(&column).is_err()
    {
        let known = input.table.schema.fields().iter().map(|field| field.name().as_str());
        let problem = Problem::at("column", format!("`{}` has no column `{column}`", input.name));
        return Err(vec![problem.did_you_mean(&column, known)]);
    }
    Ok(Box::new(Pass {
        table: Table {
            extends_input: true,
            ..input.table.clone()
        },
    }))
}

struct Pass {
    table: Table,
}

impl Step for Pass {
    fn output(&self) -> &Table {
        &self.table
    }

    fn order(&self) -> Order {
        Order::Arrival
    }

    fn state(&self) -> String {
        "pass/1".into()
    }

    fn operator(&self, _: &str) -> Box<dyn Operator> {
        Box::new(Passing {
            rows: 0,
            logged: Vec::new(),
        })
    }
}

/// Remembers how many rows passed, and in its tail the size of each batch.
struct Passing {
    rows: u64,
    logged: Vec<u64>,
}

impl Operator for Passing {
    fn rows(&mut self, rows: &Rows<'_>, out: &mut Output) -> anyhow::Result<()> {
        self.rows += rows.len() as u64;
        self.logged.push(rows.len() as u64);
        out.emit(rows.batch());
        Ok(())
    }

    fn snapshot(&mut self, into: &mut Snapshot) -> anyhow::Result<()> {
        into.head(&self.rows)?;
        if into.whole() {
            into.append(&self.rows)?;
        } else {
            self.logged.iter().try_for_each(|rows| into.append(rows))?;
        }
        self.logged.clear();
        Ok(())
    }

    fn restore(&mut self, saved: &Saved) -> anyhow::Result<()> {
        self.rows = saved.head()?;
        let appended: u64 = saved.appended::<u64>()?.iter().sum();
        anyhow::ensure!(
            appended == self.rows,
            "{appended} rows in the tail, {} in the head",
            self.rows
        );
        Ok(())
    }
}

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct KeepConfig {
    /// Where the test finds the rows.
    to: Option<String>,
    /// Never takes a row: its target is away.
    #[serde(default)]
    away: bool,
    /// Rows after which the sink fails.
    fail_after: Option<usize>,
}

struct Keep {
    to: String,
    away: bool,
    fail_after: Option<usize>,
    names: Vec<String>,
}

/// What the sinks show, by `to`: rows as `input: columns`, each with the checkpoint that published it.
pub static KEPT: LazyLock<Mutex<Kept>> = LazyLock::new(Mutex::default);

type Kept = HashMap<String, Vec<(u64, String)>>;

/// The rows kept under this name, sorted.
pub fn kept(to: &str) -> Vec<String> {
    let mut rows = kept_in_order(to);
    rows.sort();
    rows
}

/// The rows kept under this name, as they were published.
pub fn kept_in_order(to: &str) -> Vec<String> {
    let kept = KEPT.lock().unwrap();
    kept.get(to).into_iter().flatten().map(|(_, row)| row.clone()).collect()
}

impl SinkPlan for Keep {
    fn open(&self, _: &Opening) -> anyhow::Result<Box<dyn Sink>> {
        Ok(Box::new(Keeping {
            to: self.to.clone(),
            names: self.names.clone(),
            left: self.fail_after,
            away: self.away,
            written: Vec::new(),
        }))
    }
}

struct Keeping {
    to: String,
    away: bool,
    names: Vec<String>,
    left: Option<usize>,
    written: Vec<String>,
}

impl Sink for Keeping {
    fn write(&mut self, input: usize, batch: &RecordBatch) -> anyhow::Result<()> {
        if self.away {
            loop {
                std::thread::park();
            }
        }
        if let Some(left) = &mut self.left {
            *left = left
                .checked_sub(batch.num_rows())
                .ok_or_else(|| anyhow::anyhow!("the shelf is full"))?;
        }
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|column| cell(column, row));
            self.written.push(format!(
                "{}: {}",
                self.names[input],
                cells.collect::<Vec<_>>().join(" ")
            ));
        }
        Ok(())
    }

    fn recover(&mut self, checkpoint: u64, staged: &[Staged]) -> anyhow::Result<()> {
        if let Some(rows) = KEPT.lock().unwrap().get_mut(&self.to) {
            rows.retain(|(published, _)| *published <= checkpoint);
        }
        self.publish(checkpoint, staged)
    }

    fn stage(&mut self, _: u64) -> anyhow::Result<Staged> {
        Ok(Staged(json!(std::mem::take(&mut self.written))))
    }

    fn publish(&mut self, checkpoint: u64, staged: &[Staged]) -> anyhow::Result<()> {
        let mut kept = KEPT.lock().unwrap();
        let kept = kept.entry(self.to.clone()).or_default();
        if kept.last().is_none_or(|(last, _)| *last < checkpoint) {
            let rows = staged
                .iter()
                .flat_map(|staged| staged.0.as_array().cloned().unwrap_or_default());
            kept.extend(rows.map(|row| (checkpoint, row.as_str().unwrap().to_owned())));
        }
        Ok(())
    }
}

fn cell(column: &arrow::array::ArrayRef, row: usize) -> String {
    if let Some(ts) = column.as_primitive_opt::<TimestampMicrosecondType>() {
        return (ts.value(row) / 1_000_000).to_string();
    }
    if let Some(value) = column.as_primitive_opt::<Float64Type>().filter(|v| v.is_valid(row)) {
        return value.value(row).to_string();
    }
    arrow::util::display::array_value_to_string(column, row).unwrap()
}
