//! Tables: what flows along an edge, and under which names history keeps it.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, AsArray, DictionaryArray, Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, TimeUnit, TimestampMicrosecondType};

/// The column that every keyed table has, and by which rows are spread over workers.
pub const KEY: &str = "machine";

/// The table that flows along one edge of the graph. Its schema is fixed before the first row.
#[derive(Clone, Debug)]
pub struct Table {
    /// The table's name in the published schema, for example `samples` or `cycles`.
    pub name: &'static str,
    /// Columns of a batch on this edge.
    pub schema: SchemaRef,
    /// What a history keeps of it: usually itself, sometimes several flatter tables.
    pub published: Vec<Published>,
    /// True when each row is an input row with more columns, so that history may keep this one in its place.
    pub extends_input: bool,
}

impl Table {
    /// A table that is published as it flows.
    pub fn plain(name: &'static str, schema: SchemaRef) -> Self {
        let published = vec![Published {
            name,
            schema: schema.clone(),
            project: |batch| Ok(batch.clone()),
        }];
        Table {
            name,
            schema,
            published,
            extends_input: false,
        }
    }
}

/// A flat table made from the rows of an edge.
#[derive(Clone, Debug)]
pub struct Published {
    /// Name of the table, for example `cycle_signals`.
    pub name: &'static str,
    /// Columns of the table; a strict superset of them may be declared by another edge of the same name.
    pub schema: SchemaRef,
    /// Makes the table's rows from a batch of the edge.
    pub project: fn(&RecordBatch) -> anyhow::Result<RecordBatch>,
}

/// Timestamps everywhere: microseconds since 1970, UTC.
pub fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Repeated names (machines, signals): 32-bit dictionary over UTF-8.
pub fn name_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// The quality of a row that says: nobody knows the reading any more.
pub const STALE: &str = "stale";

static SAMPLES: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new(KEY, name_type(), false),
        Field::new("signal", name_type(), false),
        Field::new("ts", timestamp(), false),
        Field::new("value", DataType::Float64, true),
        Field::new("text", DataType::Utf8, true),
        Field::new("quality", name_type(), true),
    ]))
});

/// `samples`: one row per machine, signal and time.
///
/// | column | type | meaning |
/// | --- | --- | --- |
/// | `machine`, `signal` | dictionary of UTF-8 | who, what |
/// | `ts` | timestamp µs, UTC | when |
/// | `value` | float64, nullable | the reading; null where the source had none |
/// | `text` | UTF-8, nullable | a state or marker |
/// | `quality` | dictionary of UTF-8, nullable | as the source said it; [`STALE`] where the reading before holds no longer |
pub fn samples() -> Table {
    Table::plain("samples", SAMPLES.clone())
}

/// `late`: rows that came after their key's watermark had passed them.
pub fn late() -> Table {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let mut fields = vec![Field::new("step", DataType::Utf8, false)];
        fields.extend(SAMPLES.fields().iter().map(|f| f.as_ref().clone()));
        fields.push(Field::new("watermark", timestamp(), false));
        Arc::new(Schema::new(fields))
    });
    Table::plain("late", SCHEMA.clone())
}

/// `dead_letters`: input that could not be read, with the reason and its first 4 KiB.
pub fn dead_letters() -> Table {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        Arc::new(Schema::new(vec![
            Field::new("source", DataType::Utf8, false),
            Field::new("partition", DataType::Utf8, false),
            Field::new("offset", DataType::UInt64, false),
            Field::new("reason", DataType::Utf8, false),
            Field::new("payload", DataType::Binary, false),
        ]))
    });
    Table::plain("dead_letters", SCHEMA.clone())
}

/// The columns of a `samples` batch as slices, for loops over rows.
#[derive(Clone, Copy)]
pub struct Samples<'a> {
    /// Machine of each row: an index into [`Samples::machines`].
    pub machine: &'a [i32],
    /// Machine names.
    pub machines: &'a StringArray,
    /// Signal of each row: an index into [`Samples::signals`].
    pub signal: &'a [i32],
    /// Signal names.
    pub signals: &'a StringArray,
    /// Event time in µs.
    pub ts: &'a [i64],
    /// Readings, with their validity. The keyed driver hands out batches in which an absent value is NaN.
    pub value: &'a Float64Array,
    /// States and markers.
    pub text: &'a StringArray,
    /// Quality as the source said it.
    pub quality: &'a DictionaryArray<Int32Type>,
}

impl<'a> Samples<'a> {
    /// Borrows the columns of a batch with the `samples` schema.
    ///
    /// # Errors
    /// Says which column is absent or of another type.
    pub fn of(batch: &'a RecordBatch) -> anyhow::Result<Self> {
        let machine = names(batch, 0)?;
        let signal = names(batch, 1)?;
        Ok(Samples {
            machine: machine.keys().values(),
            machines: machine.values().as_string(),
            signal: signal.keys().values(),
            signals: signal.values().as_string(),
            ts: column::<TimestampMicrosecondArray>(batch, 2)?.values(),
            value: column::<Float64Array>(batch, 3)?,
            text: column::<StringArray>(batch, 4)?,
            quality: names(batch, 5)?,
        })
    }
}

fn names(batch: &RecordBatch, index: usize) -> anyhow::Result<&DictionaryArray<Int32Type>> {
    let names: &DictionaryArray<Int32Type> = column(batch, index)?;
    anyhow::ensure!(
        names.values().data_type() == &DataType::Utf8,
        "column {index} holds {} names",
        names.values().data_type()
    );
    Ok(names)
}

fn column<A: Array + 'static>(batch: &RecordBatch, index: usize) -> anyhow::Result<&A> {
    let array = batch
        .columns()
        .get(index)
        .ok_or_else(|| anyhow::anyhow!("column {index} is absent"))?;
    array
        .as_any()
        .downcast_ref()
        .ok_or_else(|| anyhow::anyhow!("column {index} is of type {}", array.data_type()))
}

/// Values of a timestamp column by name.
pub fn timestamps<'a>(batch: &'a RecordBatch, name: &str) -> anyhow::Result<&'a [i64]> {
    let array = batch
        .column_by_name(name)
        .ok_or_else(|| anyhow::anyhow!("column {name} is absent"))?;
    let array = array
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or_else(|| anyhow::anyhow!("column {name} is no timestamp"))?;
    Ok(array.values())
}

/// One row for [`samples_batch`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample<'a> {
    /// Who.
    pub machine: &'a str,
    /// What.
    pub signal: &'a str,
    /// When, µs since 1970.
    pub ts: i64,
    /// The reading.
    pub value: Option<f64>,
    /// A state or marker.
    pub text: Option<&'a str>,
}

/// A `samples` batch of single rows, for sources of low rate and for tests.
#[allow(clippy::expect_used)]
pub fn samples_batch<'a>(rows: impl IntoIterator<Item = Sample<'a>>) -> RecordBatch {
    use arrow::array::{
        Float64Builder, StringBuilder, StringDictionaryBuilder, TimestampMicrosecondBuilder, new_null_array,
    };
    let mut machine = StringDictionaryBuilder::<Int32Type>::new();
    let mut signal = StringDictionaryBuilder::<Int32Type>::new();
    let mut ts = TimestampMicrosecondBuilder::new();
    let mut value = Float64Builder::new();
    let mut text = StringBuilder::new();
    for row in rows {
        machine.append_value(row.machine);
        signal.append_value(row.signal);
        ts.append_value(row.ts);
        value.append_option(row.value);
        text.append_option(row.text);
    }
    let quality = new_null_array(&name_type(), ts.values_slice().len());
    let ts = ts.finish().with_timezone("UTC");
    RecordBatch::try_new(
        SAMPLES.clone(),
        vec![
            Arc::new(machine.finish()),
            Arc::new(signal.finish()),
            Arc::new(ts),
            Arc::new(value.finish()),
            Arc::new(text.finish()),
            quality,
        ],
    )
    .expect("columns of equal length and the table's types")
}
