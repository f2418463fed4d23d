//! The messages of a Delta table, read without Taktline: its log as the protocol says, then the Parquet files that it names.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

use anyhow::{Context, ensure};
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::acknowledged::Found;

const COLUMNS: [&str; 4] = ["machine", "signal", "value", "text"];

/// All messages of a table.
///
/// # Errors
/// The log or a file can't be read.
pub fn messages(table: &Path) -> anyhow::Result<Vec<Found>> {
    let mut found = Vec::new();
    for name in files(&table.join("_delta_log"))? {
        found.extend(of_parquet(&table.join(name))?);
    }
    Ok(found)
}

/// The files of the newest version. Entries are not summed up here, so that all of them must be there.
fn files(log: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut files = BTreeSet::new();
    let mut version = 0;
    loop {
        let path = log.join(format!("{version:020}.json"));
        let entry = match std::fs::read_to_string(&path) {
            Ok(entry) => entry,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => break,
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        for line in entry.lines() {
            let action: Value = serde_json::from_str(line).with_context(|| path.display().to_string())?;
            if let Some(name) = action["add"]["path"].as_str() {
                files.insert(name.to_owned());
            }
            if let Some(name) = action["remove"]["path"].as_str() {
                files.remove(name);
            }
        }
        version += 1;
    }
    let entries = std::fs::read_dir(log).with_context(|| log.display().to_string())?;
    let entries = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let entries = entries
        .filter(|path| path.extension().is_some_and(|ending| ending == "json"))
        .count();
    ensure!(
        entries == version,
        "{} has {entries} entries, but not in a row",
        log.display()
    );
    Ok(files)
}

/// The messages in a Parquet file.
///
/// # Errors
/// It can't be read, or has other columns.
pub fn of_parquet(path: &Path) -> anyhow::Result<Vec<Found>> {
    let place = || path.display().to_string();
    let builder =
        ParquetRecordBatchReaderBuilder::try_new(File::open(path).with_context(place)?).with_context(place)?;
    let mask = ProjectionMask::columns(builder.parquet_schema(), COLUMNS);
    let mut found = Vec::new();
    for batch in builder.with_projection(mask).build().with_context(place)? {
        rows(&batch.with_context(place)?, &mut found).with_context(place)?;
    }
    Ok(found)
}

fn rows(batch: &RecordBatch, found: &mut Vec<Found>) -> anyhow::Result<()> {
    let column = |name: &str, kind: &DataType| {
        let column = batch
            .column_by_name(name)
            .with_context(|| format!("there is no column {name}"))?;
        anyhow::Ok(cast(column, kind)?)
    };
    let [machine, signal, value, text] = COLUMNS;
    let (machine, signal) = (column(machine, &DataType::Utf8)?, column(signal, &DataType::Utf8)?);
    let (value, text) = (column(value, &DataType::Float64)?, column(text, &DataType::Utf8)?);
    let texts = |column: &dyn Array, row: usize| column.as_string::<i32>().value(row).to_owned();
    for row in 0..batch.num_rows() {
        found.push(Found {
            machine: texts(&machine, row),
            signal: texts(&signal, row),
            value: value.as_primitive::<Float64Type>().value(row),
            text: texts(&text, row),
        });
    }
    Ok(())
}
