//! The `cycles` edge: one row per cycle with its signals nested inside; how it is built, read, extended and published.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, StringBuilder,
    StructArray, TimestampMicrosecondArray, UInt32Array, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{cast, take};
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::temporal_conversions::timestamp_us_to_datetime;
use serde::{Deserialize, Serialize};
use taktline_engine::table::{KEY, Published, Table, name_type, timestamp};

mod rows;

pub use rows::CycleRows;

/// The nested column.
pub const SIGNALS: &str = "signals";

/// `cycles`: one row per cycle.
///
/// | column | type | meaning |
/// | --- | --- | --- |
/// | `machine` | dictionary of UTF-8 | who |
/// | `cycle_id` | UTF-8 | see [`cycle_id`] |
/// | `step` | UTF-8 | the step that cut it |
/// | `parent_id` | UTF-8, nullable | the cycle around it, for a phase |
/// | `start`, `end` | timestamp µs, UTC | when |
/// | `duration_s` | float64 | `end - start` in seconds |
/// | `outcome` | UTF-8 | an [`Outcome`] |
/// | `samples`, `missing` | uint64 | rows with a value or text, and rows with neither |
/// | `stale` | uint64 | rows by which a source says that it no longer knows a reading: the cycle is not to be trusted as the others |
/// | `signals` | list of struct | one [`SignalCycle`] per signal, sorted by name |
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new(KEY, name_type(), false),
            Field::new("cycle_id", DataType::Utf8, false),
            Field::new("step", DataType::Utf8, false),
            Field::new("parent_id", DataType::Utf8, true),
            Field::new("start", timestamp(), false),
            Field::new("end", timestamp(), false),
            Field::new("duration_s", DataType::Float64, false),
            Field::new("outcome", DataType::Utf8, false),
            Field::new("samples", DataType::UInt64, false),
            Field::new("missing", DataType::UInt64, false),
            Field::new("stale", DataType::UInt64, false),
            signals_column(signal_fields()),
        ]))
    });
    SCHEMA.clone()
}

/// The fields of one signal inside a cycle, as the `cycle` step makes them.
pub fn signal_fields() -> Fields {
    let mut fields = vec![
        Field::new("signal", DataType::Utf8, false),
        Field::new("samples", DataType::UInt64, false),
        Field::new("missing", DataType::UInt64, false),
        Field::new("stale", DataType::UInt64, false),
    ];
    fields.extend(SignalStats::NAMES.map(|name| Field::new(name, DataType::Float64, true)));
    fields.push(Field::new("text", DataType::Utf8, true));
    fields.push(Field::new("offsets", list_of(DataType::Int64), false));
    fields.push(Field::new("values", list_of(DataType::Float64), false));
    fields.into()
}

fn list_of(item: DataType) -> DataType {
    DataType::List(Arc::new(Field::new("item", item, false)))
}

fn signals_column(fields: Fields) -> Field {
    Field::new(SIGNALS, list_of(DataType::Struct(fields)), false)
}

/// The table of an edge that carries cycles, with whatever columns a step has added to [`schema`] by [`extended`].
pub fn table(schema: SchemaRef, extends_input: bool) -> Table {
    let empty = RecordBatch::new_empty(schema.clone());
    // A schema that lacks the columns of `cycles` has nothing to publish; `extended` can't make such.
    let published = [("cycles", flat as fn(&RecordBatch) -> _), ("cycle_signals", per_signal)];
    let published = published
        .into_iter()
        .filter_map(|(name, project)| {
            Some(Published {
                name,
                schema: project(&empty).ok()?.schema(),
                project,
            })
        })
        .collect();
    Table {
        name: "cycles",
        schema,
        published,
        extends_input,
    }
}

/// `schema` with more columns for the cycle (after its others) and for each of its signals.
pub fn extended(
    schema: &Schema,
    cycle: impl IntoIterator<Item = Field>,
    signal: impl IntoIterator<Item = Field>,
) -> SchemaRef {
    let mut signal = Some(signal);
    let mut fields: Vec<Field> = Vec::new();
    for field in schema.fields() {
        match (
            field.name() == SIGNALS,
            struct_fields(field.data_type()),
            signal.is_some(),
        ) {
            (true, Some(inner), true) => {
                let own = inner.iter().map(|f| f.as_ref().clone());
                fields.push(signals_column(own.chain(signal.take().into_iter().flatten()).collect()));
            }
            _ => fields.push(field.as_ref().clone()),
        }
    }
    fields.extend(cycle);
    Arc::new(Schema::new(fields))
}

fn struct_fields(list: &DataType) -> Option<&Fields> {
    let DataType::List(item) = list else { return None };
    let DataType::Struct(fields) = item.data_type() else {
        return None;
    };
    Some(fields)
}

/// `batch` with the columns that [`extended`] announced: `cycle` has one entry per row, `signal` one entry per signal of
/// each row, in order.
///
/// # Errors
/// Lengths or types don't fit `schema`.
pub fn extend(
    batch: &RecordBatch,
    schema: &SchemaRef,
    cycle: Vec<ArrayRef>,
    signal: Vec<ArrayRef>,
) -> anyhow::Result<RecordBatch> {
    let index = batch.schema_ref().index_of(SIGNALS)?;
    let (offsets, signals) = signals_of(batch)?;
    let fields = struct_fields(schema.field(index).data_type())
        .ok_or_else(|| anyhow::anyhow!("`signals` is no list of structs"))?;
    let arrays = signals.columns().iter().cloned().chain(signal).collect();
    let signals = StructArray::try_new(fields.clone(), arrays, None)?;
    let mut columns = batch.columns().to_vec();
    columns[index] = list(offsets, Arc::new(signals))?;
    columns.extend(cycle);
    Ok(RecordBatch::try_new(schema.clone(), columns)?)
}

/// Where each row's signals begin (from 0, one more than rows), and the signals of just these rows.
fn signals_of(batch: &RecordBatch) -> anyhow::Result<(Vec<i32>, StructArray)> {
    let list = column(batch, SIGNALS)?
        .as_list_opt::<i32>()
        .ok_or_else(|| anyhow::anyhow!("`signals` is no list"))?;
    let offsets = list.value_offsets();
    let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
    let all = list
        .values()
        .as_struct_opt()
        .ok_or_else(|| anyhow::anyhow!("`signals` is no list of structs"))?;
    Ok((
        offsets.iter().map(|o| o - first).collect(),
        all.slice(first as usize, (last - first) as usize),
    ))
}

fn list(offsets: Vec<i32>, values: ArrayRef) -> anyhow::Result<ArrayRef> {
    let item = Arc::new(Field::new("item", values.data_type().clone(), false));
    Ok(Arc::new(ListArray::try_new(
        item,
        OffsetBuffer::new(offsets.into()),
        values,
        None,
    )?))
}

/// The published table `cycles`: every column but `signals`.
fn flat(batch: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let keep: Vec<usize> = (0..batch.num_columns())
        .filter(|i| batch.schema_ref().field(*i).name() != SIGNALS)
        .collect();
    Ok(batch.project(&keep)?)
}

/// The published table `cycle_signals`: one row per cycle and signal, without the lists.
fn per_signal(batch: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let (offsets, signals) = signals_of(batch)?;
    let mut row_of = Vec::with_capacity(signals.len());
    for (row, bounds) in offsets.windows(2).enumerate() {
        row_of.resize(row_of.len() + (bounds[1] - bounds[0]) as usize, row as u32);
    }
    let row_of = UInt32Array::from(row_of);
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for name in [KEY, "cycle_id", "step", "start"] {
        fields.push(batch.schema_ref().field_with_name(name)?.clone());
        columns.push(take(column(batch, name)?, &row_of, None)?);
    }
    for (field, array) in signals.fields().iter().zip(signals.columns()) {
        if !matches!(field.data_type(), DataType::List(_)) {
            fields.push(field.as_ref().clone());
            columns.push(array.clone());
        }
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

fn column<'a>(batch: &'a RecordBatch, name: &str) -> anyhow::Result<&'a ArrayRef> {
    batch
        .column_by_name(name)
        .ok_or_else(|| anyhow::anyhow!("column `{name}` is absent"))
}

/// How a cycle ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// By its end condition, or by the next start where it has none.
    Complete,
    /// It reached `max` first.
    Timeout,
    /// The machine was silent for `gap`.
    Gap,
    /// The input ended.
    Truncated,
    /// It ended by its condition but sooner than `min`.
    Short,
}

impl Outcome {
    /// The word in the table.
    pub const fn as_str(self) -> &'static str {
        match self {
            Outcome::Complete => "complete",
            Outcome::Timeout => "timeout",
            Outcome::Gap => "gap",
            Outcome::Truncated => "truncated",
            Outcome::Short => "short",
        }
    }
}

/// The id of the cycle of `machine` that starts at `start_us`: `press-1@2026-01-02T03:04:05.678901Z`.
///
/// A phase has its step behind that (`press-1@2026-01-02T03:04:05.678901Z/filling`), since it may start where its cycle
/// does. So an id is a pure function of machine and start, for a phase also of the step.
pub fn cycle_id(machine: &str, start_us: i64) -> String {
    match timestamp_us_to_datetime(start_us) {
        Some(time) => format!("{machine}@{}", time.format("%Y-%m-%dT%H:%M:%S%.6fZ")),
        None => format!("{machine}@{start_us}us"),
    }
}

/// What is known of a signal's finite values; NaN where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SignalStats {
    /// Least value.
    pub min: f64,
    /// Greatest value.
    pub max: f64,
    /// Arithmetic mean over samples.
    pub mean: f64,
    /// Population standard deviation.
    pub std: f64,
    /// Root of the mean square.
    pub rms: f64,
    /// First value.
    pub first: f64,
    /// Last value.
    pub last: f64,
    /// Integral over time in value × seconds, by trapezoids between samples; 0 for a single sample.
    pub integral: f64,
}

impl SignalStats {
    /// Column names, in the order of [`SignalStats::to_array`].
    pub const NAMES: [&str; 8] = ["min", "max", "mean", "std", "rms", "first", "last", "integral"];

    /// Statistics of finite `values` at `offsets` (µs), which are of the same length.
    ///
    /// Distances are taken from the first value for the mean and from the mean for the deviation, so that neither a large
    /// level nor an odd first value costs digits.
    pub fn of(offsets: &[i64], values: &[f64]) -> Self {
        let (Some(&first), Some(&last)) = (values.first(), values.last()) else {
            return SignalStats::from_array([f64::NAN; 8]);
        };
        let n = values.len() as f64;
        let (mut min, mut max, mut sum) = (first, first, 0.0);
        for &value in values {
            min = if value < min { value } else { min };
            max = if value > max { value } else { max };
            sum += value - first;
        }
        let mean = first + sum / n;
        let squares: f64 = values.iter().map(|value| (value - mean) * (value - mean)).sum();
        let pairs = offsets.windows(2).zip(values.windows(2));
        let area: f64 = pairs
            .map(|(times, pair)| times[1].saturating_sub(times[0]) as f64 * (pair[0] + pair[1]))
            .sum();
        let variance = if min == max { 0.0 } else { squares / n };
        let (std, rms) = (variance.sqrt(), (mean * mean + variance).sqrt());
        SignalStats {
            min,
            max,
            mean,
            std,
            rms,
            first,
            last,
            integral: area / 2e6,
        }
    }

    /// The eight numbers in the order of [`SignalStats::NAMES`].
    pub const fn to_array(self) -> [f64; 8] {
        [
            self.min,
            self.max,
            self.mean,
            self.std,
            self.rms,
            self.first,
            self.last,
            self.integral,
        ]
    }

    /// From the eight numbers in the order of [`SignalStats::NAMES`].
    pub const fn from_array([min, max, mean, std, rms, first, last, integral]: [f64; 8]) -> Self {
        SignalStats {
            min,
            max,
            mean,
            std,
            rms,
            first,
            last,
            integral,
        }
    }
}

/// Rows that tell no reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lacking {
    /// Rows with neither value nor text.
    pub missing: u64,
    /// Rows by which a source says that it no longer knows the reading; mostly missing, too.
    pub stale: u64,
}

/// One cycle without its signals.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cycle<'a> {
    /// Who.
    pub machine: &'a str,
    /// The step that cuts it.
    pub step: &'a str,
    /// The cycle around it, for a phase.
    pub parent_id: Option<&'a str>,
    /// First moment, µs since 1970.
    pub start_us: i64,
    /// Last moment, µs since 1970.
    pub end_us: i64,
    /// How it ended.
    pub outcome: Outcome,
    /// Rows with a value or a text.
    pub samples: u64,
    /// Rows that tell no reading.
    pub lacking: Lacking,
}

/// One signal inside a cycle, borrowed from a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SignalCycle<'a> {
    /// Its name.
    pub name: &'a str,
    /// Rows with neither value nor text.
    pub missing: u64,
    /// Statistics of `values`.
    pub stats: SignalStats,
    /// The last text in the cycle.
    pub text: Option<&'a str>,
    /// µs since the cycle's start of each finite sample.
    pub offsets: &'a [i64],
    /// Finite samples.
    pub values: &'a [f64],
}

/// Makes `cycles` batches: the signals of a cycle sorted by name, then the cycle, and so on.
#[derive(Default)]
pub struct CyclesBuilder {
    machine: Vec<String>,
    cycle_id: StringBuilder,
    step: StringBuilder,
    parent_id: StringBuilder,
    start: Vec<i64>,
    end: Vec<i64>,
    outcome: StringBuilder,
    samples: Vec<u64>,
    missing: Vec<u64>,
    stale: Vec<u64>,
    signal_ends: Vec<i32>,
    name: StringBuilder,
    signal_samples: Vec<u64>,
    signal_missing: Vec<u64>,
    signal_stale: Vec<u64>,
    stats: [Vec<f64>; 8],
    text: StringBuilder,
    value_ends: Vec<i32>,
    offsets: Vec<i64>,
    values: Vec<f64>,
}

impl CyclesBuilder {
    /// Makes room for this many more finite samples.
    pub fn reserve(&mut self, samples: usize) {
        self.offsets.reserve(samples);
        self.values.reserve(samples);
    }

    /// A signal of the cycle that is being built. `offsets` and `values` are of the same length, all values finite.
    pub fn signal(&mut self, name: &str, lacking: Lacking, text: Option<&str>, offsets: &[i64], values: &[f64]) {
        self.name.append_value(name);
        self.signal_samples.push(values.len() as u64);
        self.signal_missing.push(lacking.missing);
        self.signal_stale.push(lacking.stale);
        for (column, number) in self.stats.iter_mut().zip(SignalStats::of(offsets, values).to_array()) {
            column.push(number);
        }
        self.text.append_option(text);
        self.offsets.extend_from_slice(offsets);
        self.values.extend_from_slice(values);
        self.value_ends.push(self.values.len() as i32);
    }

    /// Closes the cycle whose signals were given since the last call.
    pub fn cycle(&mut self, cycle: &Cycle<'_>) {
        self.machine.push(cycle.machine.to_owned());
        let id = cycle_id(cycle.machine, cycle.start_us);
        match cycle.parent_id {
            Some(_) => self.cycle_id.append_value(format!("{id}/{}", cycle.step)),
            None => self.cycle_id.append_value(id),
        }
        self.step.append_value(cycle.step);
        self.parent_id.append_option(cycle.parent_id);
        self.start.push(cycle.start_us);
        self.end.push(cycle.end_us);
        self.outcome.append_value(cycle.outcome.as_str());
        self.samples.push(cycle.samples);
        self.missing.push(cycle.lacking.missing);
        self.stale.push(cycle.lacking.stale);
        self.signal_ends.push(self.signal_samples.len() as i32);
    }

    /// Number of closed cycles.
    pub fn len(&self) -> usize {
        self.start.len()
    }

    /// True when there is no closed cycle.
    pub fn is_empty(&self) -> bool {
        self.start.is_empty()
    }

    /// The closed cycles as a batch with [`schema`]; the builder is empty again.
    ///
    /// # Errors
    /// None for cycles below 2³¹ samples.
    pub fn finish(&mut self) -> anyhow::Result<RecordBatch> {
        let mut b = std::mem::take(self);
        let starts = |ends: Vec<i32>| std::iter::once(0).chain(ends).collect::<Vec<i32>>();
        let value_offsets = starts(b.value_ends);
        let mut signals: Vec<ArrayRef> = vec![
            Arc::new(b.name.finish()),
            Arc::new(UInt64Array::from(b.signal_samples)),
            Arc::new(UInt64Array::from(b.signal_missing)),
            Arc::new(UInt64Array::from(b.signal_stale)),
        ];
        signals.extend(
            b.stats
                .into_iter()
                .map(|column| Arc::new(nan_is_null(column)) as ArrayRef),
        );
        signals.push(Arc::new(b.text.finish()));
        signals.push(list(value_offsets.clone(), Arc::new(Int64Array::from(b.offsets)))?);
        signals.push(list(value_offsets, Arc::new(Float64Array::from(b.values)))?);
        let duration: Vec<f64> = b
            .start
            .iter()
            .zip(&b.end)
            .map(|(start, end)| end.saturating_sub(*start) as f64 / 1e6)
            .collect();
        let machine = cast(&StringArray::from(b.machine), &name_type())?;
        let time = |us: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(us).with_timezone("UTC"));
        let columns: Vec<ArrayRef> = vec![
            machine,
            Arc::new(b.cycle_id.finish()),
            Arc::new(b.step.finish()),
            Arc::new(b.parent_id.finish()),
            time(b.start),
            time(b.end),
            Arc::new(Float64Array::from(duration)),
            Arc::new(b.outcome.finish()),
            Arc::new(UInt64Array::from(b.samples)),
            Arc::new(UInt64Array::from(b.missing)),
            Arc::new(UInt64Array::from(b.stale)),
            list(
                starts(b.signal_ends),
                Arc::new(StructArray::try_new(signal_fields(), signals, None)?),
            )?,
        ];
        Ok(RecordBatch::try_new(schema(), columns)?)
    }
}

/// A column in which NaN stands for null.
pub fn nan_is_null(values: Vec<f64>) -> Float64Array {
    values
        .into_iter()
        .map(|value| (!value.is_nan()).then_some(value))
        .collect()
}
