//! Reference cycles from a CSV file, as `taktline sql --format csv` writes samples.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, ensure};
use arrow::array::{Array, AsArray, StringArray};
use arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use arrow::csv::ReaderBuilder;
use arrow::csv::reader::Format;
use arrow::datatypes::{DataType, Field, Schema};

use super::{CycleData, Series};

/// A cycle of the file.
#[derive(Debug)]
pub(crate) struct FileCycle {
    pub data: CycleData,
    /// The last text of each signal, else its last value; says the recipe.
    pub last: BTreeMap<String, String>,
}

#[derive(Default)]
struct Samples {
    rows: Vec<(i64, f64)>,
    text: Option<String>,
}

/// The cycles of a CSV file with the columns `cycle_id`, `signal`, `ts` (RFC 3339 or µs) and `value`, and where recipes
/// are texts `text`, in any order. Rows may be in any order; empty and NaN values are left out.
///
/// # Errors
/// The file can't be read, lacks a column, has a time or value that is none, or no cycle; with its line.
pub(crate) fn read(path: &Path, most_points: usize) -> anyhow::Result<Vec<FileCycle>> {
    let format = Format::default().with_header(true);
    let (schema, _) = format.infer_schema(File::open(path)?, Some(0))?;
    let texts = schema
        .fields()
        .iter()
        .map(|field| Field::new(field.name().trim(), DataType::Utf8, true));
    let schema = Arc::new(Schema::new(texts.collect::<Vec<Field>>()));
    for name in ["cycle_id", "signal", "ts", "value"] {
        ensure!(
            schema.index_of(name).is_ok(),
            "the column `{name}` is absent; wanted are cycle_id, signal, ts and value"
        );
    }
    let mut cycles: BTreeMap<String, BTreeMap<String, Samples>> = BTreeMap::new();
    let mut line = 1;
    for batch in ReaderBuilder::new(schema).with_header(true).build(File::open(path)?)? {
        let batch = batch?;
        let column = |name: &str| batch.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
        let (Some(ids), Some(signals), Some(times), Some(values)) =
            (column("cycle_id"), column("signal"), column("ts"), column("value"))
        else {
            continue;
        };
        let texts = column("text");
        for row in 0..batch.num_rows() {
            line += 1;
            let samples = cycles.entry(ids.value(row).to_owned()).or_default();
            let samples = samples.entry(signals.value(row).to_owned()).or_default();
            let ts = time(times.value(row)).with_context(|| format!("line {line}: `ts` is no time"))?;
            if let Some(text) = texts.and_then(|column| present(column, row)) {
                samples.text = Some(text.to_owned());
            }
            let Some(value) = present(values, row) else { continue };
            let value: f64 = value
                .trim()
                .parse()
                .with_context(|| format!("line {line}: `{value}` is no number"))?;
            if value.is_finite() {
                samples.rows.push((ts, value));
            }
        }
    }
    ensure!(!cycles.is_empty(), "it has no rows");
    Ok(cycles
        .into_values()
        .map(|signals| cycle(signals, most_points))
        .collect())
}

fn present(column: &StringArray, row: usize) -> Option<&str> {
    (!column.is_null(row))
        .then(|| column.value(row))
        .filter(|text| !text.trim().is_empty())
}

fn time(text: &str) -> anyhow::Result<i64> {
    let text = text.trim();
    text.parse().or_else(|_| Ok(string_to_timestamp_nanos(text)? / 1000))
}

fn cycle(signals: BTreeMap<String, Samples>, most_points: usize) -> FileCycle {
    let start = signals
        .values()
        .flat_map(|s| s.rows.iter().map(|(ts, _)| *ts))
        .min()
        .unwrap_or(0);
    let mut cycle = FileCycle {
        data: CycleData::default(),
        last: BTreeMap::new(),
    };
    for (name, mut samples) in signals {
        samples.rows.sort_by_key(|(ts, _)| *ts);
        let offsets: Vec<i64> = samples.rows.iter().map(|(ts, _)| ts.saturating_sub(start)).collect();
        let values: Vec<f64> = samples.rows.iter().map(|(_, value)| *value).collect();
        if let Some(last) = samples.text.or_else(|| values.last().map(f64::to_string)) {
            cycle.last.insert(name.clone(), last);
        }
        if !values.is_empty() {
            cycle
                .data
                .signals
                .insert(name, Series::new(&offsets, &values, most_points));
        }
    }
    cycle
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::io::Write;

    use super::*;

    fn load(text: &str) -> anyhow::Result<Vec<FileCycle>> {
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(text.as_bytes()).expect("written");
        read(file.path(), 10_000)
    }

    #[test]
    fn reads_samples_in_any_order() {
        let cycles = load(
            "signal,ts,value,cycle_id,text\np,2026-01-02T03:04:06Z,2,x,\np,2026-01-02T03:04:05Z,1,x,\nq,7,,y,A\n\
             q,9,NaN,y,\np,8,4.5,y,\n",
        )
        .expect("cycles");
        assert_eq!(cycles.len(), 2);
        let p = &cycles[0].data.signals["p"];
        assert_eq!(
            (p.offsets.as_slice(), p.values.as_slice()),
            (&[0, 1_000_000][..], &[1.0, 2.0][..])
        );
        assert_eq!(cycles[1].data.signals.keys().collect::<Vec<_>>(), ["p"]);
        assert_eq!(
            (cycles[1].last["q"].as_str(), cycles[1].last["p"].as_str()),
            ("A", "4.5")
        );
    }

    #[test]
    fn says_what_is_wrong() {
        let check = |text: &str, expect: &str| {
            let error = format!("{:#}", load(text).expect_err(text));
            assert!(error.contains(expect), "{error}");
        };
        check("cycle_id,signal,ts,value\n", "no rows");
        check("cycle_id,signal,value\nx,p,1\n", "`ts` is absent");
        check(
            "cycle_id,signal,ts,value\nx,p,1,1\nx,p,2,abc\n",
            "line 3: `abc` is no number",
        );
        check("cycle_id,signal,ts,value\nx,p,soon,1\n", "line 2: `ts` is no time");
        check("", "absent");
        assert!(read(Path::new("no/such.csv"), 10).is_err());
    }
}
