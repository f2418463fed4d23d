//! The table `anomalies`.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Float64Builder, ListBuilder, RecordBatch, StringArray, StringBuilder,
    StructBuilder, TimestampMicrosecondArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use taktline_engine::table::{KEY, name_type, timestamp};

use crate::cycles::nan_is_null;

/// How many contributions a row names.
const TOP: usize = 5;

/// `anomalies`: one row per sample, window and signal, or cycle.
///
/// | column | type | meaning |
/// | --- | --- | --- |
/// | `machine` | dictionary of UTF-8 | who |
/// | `signal` | dictionary of UTF-8, nullable | what; null for a cycle |
/// | `ts` | timestamp µs, UTC | when: the sample's time, the window's or cycle's end |
/// | `value` | float64, nullable | what was scored: the value, or the rarest statistic of a cycle |
/// | `score` | float64, nullable | 0 to 1, see [the module](super); null while learning and where there is no value |
/// | `threshold` | float64, nullable | the score that the accepted false alarms allow; null while the pace of rows isn't known |
/// | `anomaly` | boolean | the score reaches the threshold |
/// | `detector` | UTF-8 | the detector; for a cycle the rarest statistic: `t2`, `mewma` or `spe` |
/// | `cycle_id` | UTF-8, nullable | the cycle |
/// | `top_signal` | UTF-8, nullable | of a cycle: the signal, or column of the cycle, that adds most |
/// | `contributions` | list of struct (`name`, `share`), nullable | of a cycle: the five columns that add most to `value`, as shares of it |
pub(super) fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let contribution = Field::new("item", DataType::Struct(contribution_fields()), true);
        Arc::new(Schema::new(vec![
            Field::new(KEY, name_type(), false),
            Field::new("signal", name_type(), true),
            Field::new("ts", timestamp(), false),
            Field::new("value", DataType::Float64, true),
            Field::new("score", DataType::Float64, true),
            Field::new("threshold", DataType::Float64, true),
            Field::new("anomaly", DataType::Boolean, false),
            Field::new("detector", DataType::Utf8, false),
            Field::new("cycle_id", DataType::Utf8, true),
            Field::new("top_signal", DataType::Utf8, true),
            Field::new("contributions", DataType::List(Arc::new(contribution)), true),
        ]))
    });
    SCHEMA.clone()
}

fn contribution_fields() -> Fields {
    Fields::from(vec![
        Field::new("name", DataType::Utf8, true),
        Field::new("share", DataType::Float64, true),
    ])
}

/// A row of the table. NaN is null.
pub(super) struct Row<'a> {
    pub signal: Option<&'a str>,
    pub ts_us: i64,
    pub value: f64,
    pub score: f64,
    pub threshold: f64,
    pub detector: &'static str,
    pub cycle_id: Option<&'a str>,
    /// Signal and column with what it adds; none for one signal.
    pub parts: Vec<(&'a str, &'a str, f64)>,
}

/// The rows as a batch.
pub(super) fn batch(machine: &str, rows: &[Row<'_>]) -> anyhow::Result<RecordBatch> {
    let texts =
        |get: fn(&Row<'_>) -> Option<String>| Arc::new(rows.iter().map(get).collect::<StringArray>()) as ArrayRef;
    let numbers = |get: fn(&Row<'_>) -> f64| Arc::new(nan_is_null(rows.iter().map(get).collect())) as Arc<Float64Array>;
    let signals: ArrayRef = Arc::new(rows.iter().map(|row| row.signal).collect::<StringArray>());
    let times = TimestampMicrosecondArray::from_iter_values(rows.iter().map(|row| row.ts_us));
    let machines: ArrayRef = Arc::new(StringArray::from(vec![machine; rows.len()]));
    let mut contributions = ListBuilder::new(StructBuilder::from_fields(contribution_fields(), 0));
    for row in rows {
        for (name, share) in shares(&row.parts) {
            let item = contributions.values();
            if let Some(names) = item.field_builder::<StringBuilder>(0) {
                names.append_value(name);
            }
            if let Some(shares) = item.field_builder::<Float64Builder>(1) {
                shares.append_value(share);
            }
            item.append(true);
        }
        contributions.append(!row.parts.is_empty());
    }
    let columns: Vec<ArrayRef> = vec![
        cast(&machines, &name_type())?,
        cast(&signals, &name_type())?,
        Arc::new(times.with_timezone("UTC")),
        numbers(|row| row.value),
        numbers(|row| row.score),
        numbers(|row| row.threshold),
        Arc::new(
            rows.iter()
                .map(|row| Some(row.score >= row.threshold))
                .collect::<BooleanArray>(),
        ),
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.detector))),
        texts(|row| row.cycle_id.map(str::to_owned)),
        texts(|row| top(&row.parts).map(|(signal, _, _)| signal.to_owned())),
        Arc::new(contributions.finish()),
    ];
    Ok(RecordBatch::try_new(schema(), columns)?)
}

type Part<'a> = (&'a str, &'a str, f64);

fn top<'a>(parts: &[Part<'a>]) -> Option<Part<'a>> {
    ranked(parts).first().copied()
}

/// The parts, greatest first; of equals the first by name.
fn ranked<'a>(parts: &[Part<'a>]) -> Vec<Part<'a>> {
    let mut ranked = parts.to_vec();
    ranked.sort_by(|a, b| b.2.total_cmp(&a.2).then_with(|| (a.0, a.1).cmp(&(b.0, b.1))));
    ranked
}

/// The greatest parts by name (`signal.column`; the column alone where there is no signal) as shares of the sum.
fn shares(parts: &[Part<'_>]) -> Vec<(String, f64)> {
    let sum: f64 = parts.iter().map(|(_, _, part)| part).sum();
    let name = |signal: &str, column: &str| {
        if column.is_empty() {
            signal.to_owned()
        } else {
            format!("{signal}.{column}")
        }
    };
    ranked(parts)
        .into_iter()
        .take(TOP)
        .map(|(signal, column, part)| (name(signal, column), if sum > 0.0 { part / sum } else { 0.0 }))
        .collect()
}
