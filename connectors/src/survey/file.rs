//! The head of a file: its columns and first rows, in whichever format.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};
use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::{Map, Value};

use super::payload::unit_of_text;
use super::{Proposal, csv, quoted};
use crate::file::{Format, format_of};
use crate::time::Unit;

/// Bytes of a text file that are looked at.
const HEAD: u64 = 1 << 20;
/// Lines or rows that are.
const ROWS: usize = 1000;

const MACHINES: [&str; 6] = ["machine", "machine_id", "device", "device_id", "asset", "unit_id"];
const SIGNALS: [&str; 5] = ["signal", "sensor", "tag", "metric", "variable"];
const VALUES: [&str; 3] = ["value", "val", "reading"];

/// Columns and cells; those of a row stand in the order of the columns.
#[derive(Debug, Default)]
pub(super) struct Head {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<String>>,
}

/// The lines of a `file` source for a file.
///
/// # Errors
/// The file can't be read, or has no columns.
pub fn propose(path: &Path) -> anyhow::Result<Proposal> {
    let shown = path.display().to_string();
    let stem = path
        .file_stem()
        .map_or("machine-1".into(), |stem| stem.to_string_lossy().into_owned());
    let mut proposal = Proposal::default();
    proposal.line(format!("path: {}", quoted(&shown)), None);
    let head = match format_of(path) {
        Some(Format::Parquet) => of_parquet(path).with_context(|| shown.clone())?,
        Some(Format::Ndjson) => of_ndjson(&text(path)?),
        Some(Format::Csv) => of_csv(&text(path)?, &mut proposal),
        None => {
            proposal.line("format: csv", Some("the file's ending tells none".into()));
            of_csv(&text(path)?, &mut proposal)
        }
    };
    ensure!(
        !head.columns.is_empty() && !head.rows.is_empty(),
        "{shown}: a header and a row are needed to guess by"
    );
    columns(&head, &stem, &mut proposal);
    Ok(proposal)
}

/// The first lines. The last one may be cut, and is left out then.
fn text(path: &Path) -> anyhow::Result<String> {
    let mut head = Vec::new();
    let file = File::open(path).with_context(|| path.display().to_string())?;
    file.take(HEAD).read_to_end(&mut head)?;
    let text = String::from_utf8_lossy(&head);
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(match text.rsplit_once('\n') {
        Some((whole, _)) if head.len() as u64 == HEAD => whole.to_owned(),
        _ => text.to_owned(),
    })
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| !line.trim().is_empty()).take(ROWS)
}

fn of_csv(text: &str, proposal: &mut Proposal) -> Head {
    match lines(text).collect::<Vec<_>>() {
        lines if lines.is_empty() => Head::default(),
        lines => csv::read(&lines, proposal),
    }
}

/// The members of the first object that are no objects or lists.
fn of_ndjson(text: &str) -> Head {
    let objects: Vec<Map<String, Value>> = lines(text).filter_map(|line| serde_json::from_str(line).ok()).collect();
    let scalar = |value: &Value| !value.is_object() && !value.is_array();
    let columns: Vec<String> = (objects.first().into_iter().flatten())
        .filter(|(_, value)| scalar(value))
        .map(|(name, _)| name.clone())
        .collect();
    let cell = |object: &Map<String, Value>, name: &String| match object.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => String::new(),
    };
    let rows = objects
        .iter()
        .map(|object| columns.iter().map(|name| cell(object, name)).collect());
    Head {
        rows: rows.collect(),
        columns,
    }
}

fn of_parquet(path: &Path) -> anyhow::Result<Head> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path)?)?;
    let mut head = Head::default();
    for batch in builder.with_limit(ROWS).build()? {
        let batch = batch?;
        let flat: Vec<usize> = (0..batch.num_columns())
            .filter(|index| !batch.column(*index).data_type().is_nested())
            .collect();
        let batch = batch.project(&flat)?;
        head.columns = batch
            .schema_ref()
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect();
        head.rows.extend(cells(&batch)?);
    }
    Ok(head)
}

fn cells(batch: &RecordBatch) -> anyhow::Result<Vec<Vec<String>>> {
    let options = FormatOptions::default();
    let columns = batch.columns().iter().map(|column| {
        Ok(match column.data_type() {
            // It says itself what it is, in whichever zone.
            DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => None,
            _ => Some(ArrayFormatter::try_new(column, &options)?),
        })
    });
    let columns: Vec<Option<ArrayFormatter<'_>>> = columns.collect::<anyhow::Result<_>>()?;
    let cell = |column: &Option<ArrayFormatter<'_>>, row| match column {
        None => "1970-01-01T00:00:00Z".to_owned(),
        Some(column) => column.value(row).to_string(),
    };
    Ok((0..batch.num_rows())
        .map(|row| columns.iter().map(|column| cell(column, row)).collect())
        .collect())
}

/// What the columns are.
fn columns(head: &Head, stem: &str, proposal: &mut Proposal) {
    let names = head.columns.iter().map(String::as_str);
    let named: Vec<&str> = names.filter(|name| !name.is_empty()).collect();
    proposal.see(&format!("{} columns: {}", named.len(), named.join(", ")));
    let find = |names: &[&str]| {
        let is = |name: &&String| names.contains(&name.to_lowercase().as_str());
        head.columns.iter().find(is)
    };
    match find(&MACHINES) {
        Some(name) => proposal.line(format!("machine: {{column: {}}}", quoted(name)), None),
        None => {
            let reason = "no column names a machine: all rows are of one".to_owned();
            proposal.line(format!("machine: {{constant: {}}}", quoted(stem)), Some(reason));
        }
    }
    match time_column(head) {
        Some((name, unit)) => {
            let reason = format!("`{name}` looks like a time");
            proposal.line(
                format!("time: {{column: {}, unit: {}}}", quoted(name), unit.name()),
                Some(reason),
            );
        }
        None => {
            let reason =
                "no column looks like a time: rows are taken to come once a second; set `rate` to what is true"
                    .to_owned();
            proposal.line("time: {start: 2024-01-01T00:00:00Z, rate: 1}", Some(reason));
        }
    }
    match (find(&SIGNALS), find(&VALUES)) {
        (Some(signal), Some(value)) => {
            let reason = "a row is one reading of one signal".to_owned();
            proposal.line("layout: long", Some(reason));
            proposal.line(format!("signal: {}", quoted(signal)), None);
            proposal.line(format!("value: {}", quoted(value)), None);
        }
        _ => proposal.line(
            "layout: wide",
            Some("a row has one time and a column for each signal".into()),
        ),
    }
}

fn time_column(head: &Head) -> Option<(&str, Unit)> {
    head.columns.iter().enumerate().find_map(|(at, name)| {
        let cells: Vec<&str> = (head.rows.iter().filter_map(|row| row.get(at)))
            .map(String::as_str)
            .collect();
        let unit = |cell: &&str| unit_of_text(cell);
        let first = cells.first().and_then(unit)?;
        let most = cells.iter().filter(|cell| unit(cell) == Some(first)).count();
        (most * 10 >= cells.len() * 9).then_some((name.as_str(), first))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Float64Array, StringArray, TimestampMicrosecondArray};
    use parquet::arrow::ArrowWriter;

    use super::*;

    fn check(name: &str, content: &[u8], expect: &str) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let shown = match propose(&path) {
            Ok(proposal) => {
                let lines: Vec<String> = proposal.lines.into_iter().skip(1).map(|(line, _)| line).collect();
                lines.join("; ")
            }
            Err(error) => format!("{error:#}").replace(&format!("{}/", dir.path().display()), ""),
        };
        assert_eq!(shown, expect, "{name} {}", String::from_utf8_lossy(content));
    }

    #[test]
    fn heads_of_csv_files() {
        check(
            "p.csv",
            b"machine,signal,ts,value\nm,force,1767225600000,1\nm,force,1767225600001,2",
            "machine: {column: machine}; time: {column: ts, unit: ms}; layout: long; signal: signal; value: value",
        );
        let german = "Timestamp;temp;force\r\n2026-01-01 00:00:00;1,5;2\r\n2026-01-01 00:00:01;1,6;2\r\n";
        let expect = "delimiter: \";\"; decimal: \",\"; machine: {constant: press}; time: {column: Timestamp, unit: rfc3339}; layout: wide";
        check("press.csv", german.as_bytes(), expect);
        check("press.csv", format!("\u{feff}{german}").as_bytes(), expect);
        check("press.log", german.as_bytes(), &format!("format: csv; {expect}"));
        check(
            "press.csv",
            b"batch_id,temp,ClockTime\n1,19.5,0\n1,19.6,1",
            "machine: {constant: press}; time: {start: 2024-01-01T00:00:00Z, rate: 1}; layout: wide",
        );
        check(
            "7.csv",
            b"a\tb\n1\t2",
            "delimiter: tab; machine: {constant: \"7\"}; time: {start: 2024-01-01T00:00:00Z, rate: 1}; layout: wide",
        );
        check("e.csv", b"", "e.csv: a header and a row are needed to guess by");
        check("e.csv", b"a,b\n", "e.csv: a header and a row are needed to guess by");
    }

    #[test]
    fn heads_of_ndjson_files() {
        check(
            "p.ndjson",
            b"{\"device\":\"m\",\"ts\":\"2026-01-01T00:00:00Z\",\"force\":1,\"more\":{\"a\":1}}\n{\"device\":\"m\",\"ts\":\"2026-01-01T00:00:01Z\"}",
            "machine: {column: device}; time: {column: ts, unit: rfc3339}; layout: wide",
        );
        check(
            "p.jsonl",
            b"{\"signal\":\"force\",\"t\":1767225600,\"value\":1}\nnonsense\n",
            "machine: {constant: p}; time: {column: t, unit: s}; layout: long; signal: signal; value: value",
        );
        check(
            "p.jsonl",
            b"[1]\n",
            "p.jsonl: a header and a row are needed to guess by",
        );
    }

    #[test]
    fn heads_of_parquet_files() {
        let columns: [(&str, ArrayRef); 3] = [
            ("machine", Arc::new(StringArray::from(vec!["a", "b"]))),
            (
                "at",
                Arc::new(TimestampMicrosecondArray::from(vec![0, 1]).with_timezone("Europe/Berlin")),
            ),
            ("force", Arc::new(Float64Array::from(vec![1.0, 2.0]))),
        ];
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let mut file = Vec::new();
        let mut writer = ArrowWriter::try_new(&mut file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        check(
            "p.parquet",
            &file,
            "machine: {column: machine}; time: {column: at, unit: rfc3339}; layout: wide",
        );
    }
}
