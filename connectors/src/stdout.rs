//! The `stdout` sink: rows as JSON lines, CSV or a table.

use std::io::{self, BufWriter, Write};

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use schemars::JsonSchema;
use serde::Deserialize;
use taktline_engine::config::{Problem, Section};
use taktline_engine::kind::{Input, SinkKind};
use taktline_engine::state::Staged;
use taktline_engine::{Opening, Published, Sink, SinkPlan, Table};

use crate::codec::json;

/// The `stdout` sink.
pub const KIND: SinkKind = SinkKind {
    name: "stdout",
    summary: "prints rows as JSON lines, CSV or a table",
    schema: || schemars::schema_for!(StdoutConfig),
    takes_refused: false,
    build,
};

/// Prints rows to standard output.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StdoutConfig {
    /// How a row is written: a JSON object on a line, CSV with a header for each input, or a table. Default json
    #[serde(default)]
    pub format: Format,
}

/// How a row is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A JSON object on a line
    #[default]
    Json,
    /// Comma-separated values; nested columns are left out
    Csv,
    /// Aligned columns; nested columns are left out
    Table,
}

/// Whoever read our output has gone (`taktline run … | head`).
#[derive(Debug, thiserror::Error)]
#[error("standard output was closed")]
pub struct ClosedPipe;

fn build(section: &Section, inputs: &[Input]) -> Result<Box<dyn SinkPlan>, Vec<Problem>> {
    let config: StdoutConfig = section.parse()?;
    let flat = inputs
        .iter()
        .map(|input| input.table.published.first().cloned())
        .collect();
    Ok(Box::new(StdoutPlan {
        format: config.format,
        flat,
    }))
}

/// A sink to standard output for rows of these tables, outside of a run.
pub fn printer(format: Format, tables: &[Table]) -> Box<dyn Sink> {
    let flat = tables.iter().map(|table| table.published.first().cloned()).collect();
    Box::new(Printer::new(io::stdout(), format, flat))
}

struct StdoutPlan {
    format: Format,
    flat: Vec<Option<Published>>,
}

impl SinkPlan for StdoutPlan {
    fn open(&self, _: &Opening) -> anyhow::Result<Box<dyn Sink>> {
        Ok(Box::new(Printer::new(io::stdout(), self.format, self.flat.clone())))
    }
}

struct Printer<W: Write> {
    out: BufWriter<W>,
    format: Format,
    /// The flat table of each input, for formats that have no nesting.
    flat: Vec<Option<Published>>,
    has_header: Vec<bool>,
}

impl<W: Write> Printer<W> {
    fn new(out: W, format: Format, flat: Vec<Option<Published>>) -> Self {
        let has_header = vec![false; flat.len()];
        Printer {
            out: BufWriter::with_capacity(64 << 10, out),
            format,
            flat,
            has_header,
        }
    }

    fn print(&mut self, input: usize, batch: &RecordBatch) -> anyhow::Result<()> {
        let mut text = Vec::new();
        if self.format == Format::Json {
            json::write_rows(batch, &mut text)?;
            return Ok(self.out.write_all(&text)?);
        }
        let projected = self
            .flat
            .get(input)
            .and_then(Option::as_ref)
            .map(|flat| (flat.project)(batch))
            .transpose()?;
        let batch = &json::offset_zones(projected.as_ref().unwrap_or(batch))?;
        let header = !self
            .has_header
            .get_mut(input)
            .is_some_and(|written| std::mem::replace(written, true));
        if self.format == Format::Csv {
            let mut writer = arrow::csv::WriterBuilder::new().with_header(header).build(&mut text);
            writer.write(batch)?;
            drop(writer);
        } else {
            write_table(batch, header, &mut text)?;
        }
        Ok(self.out.write_all(&text)?)
    }
}

impl<W: Write + Send> Sink for Printer<W> {
    fn write(&mut self, input: usize, batch: &RecordBatch) -> anyhow::Result<()> {
        self.print(input, batch).map_err(closed)
    }

    fn stage(&mut self, _: u64) -> anyhow::Result<Staged> {
        self.out.flush().map_err(|error| closed(error.into()))?;
        Ok(Staged(serde_json::Value::Null))
    }
}

fn closed(error: anyhow::Error) -> anyhow::Error {
    match error.downcast_ref::<io::Error>() {
        Some(cause) if cause.kind() == io::ErrorKind::BrokenPipe => ClosedPipe.into(),
        _ => error.context("writing to standard output"),
    }
}

/// The widest a column of a table gets, in characters.
const WIDTH_LIMIT: usize = 40;

fn write_table(batch: &RecordBatch, header: bool, out: &mut Vec<u8>) -> anyhow::Result<()> {
    let options = FormatOptions::default();
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, array) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let cells = ArrayFormatter::try_new(array, &options)?;
        let cells: Vec<String> = (0..batch.num_rows())
            .map(|row| cells.value(row).to_string().replace('\n', " "))
            .collect();
        let widest = cells
            .iter()
            .chain([field.name()])
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0);
        columns.push((
            field.name(),
            cells,
            widest.min(WIDTH_LIMIT),
            array.data_type().is_numeric(),
        ));
    }
    let mut line = |cell: &dyn Fn(usize) -> String| -> io::Result<()> {
        let mut text = String::new();
        for (index, (_, _, width, numeric)) in columns.iter().enumerate() {
            let cell: String = cell(index).chars().take(WIDTH_LIMIT).collect();
            let gap = if index == 0 { "" } else { "  " };
            text += &if *numeric {
                format!("{gap}{cell:>width$}")
            } else {
                format!("{gap}{cell:<width$}")
            };
        }
        writeln!(out, "{}", text.trim_end())
    };
    if header {
        line(&|index| columns[index].0.clone())?;
        line(&|index| "-".repeat(columns[index].2))?;
    }
    for row in 0..batch.num_rows() {
        line(&|index| columns[index].1[row].clone())?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use taktline_engine::table::{Sample, samples, samples_batch};

    fn rows() -> RecordBatch {
        samples_batch([
            Sample {
                machine: "press-1",
                signal: "pressure",
                ts: 1_767_323_045_678_901,
                value: Some(7.25),
                text: None,
            },
            Sample {
                machine: "press-1",
                signal: "state",
                ts: 1_767_323_046_000_000,
                value: None,
                text: Some("a \"b\",\nc"),
            },
            Sample {
                machine: "press-1",
                signal: "x",
                ts: 0,
                value: Some(f64::NAN),
                text: None,
            },
        ])
    }

    #[test]
    fn formats() {
        let check = |format: Format, expect: Expect| {
            let mut out = Vec::new();
            let mut printer = Printer::new(&mut out, format, vec![samples().published.first().cloned()]);
            printer.write(0, &rows().slice(0, 2)).unwrap();
            printer.write(0, &rows().slice(2, 1)).unwrap();
            printer.stage(1).unwrap();
            drop(printer);
            expect.assert_eq(&String::from_utf8(out).unwrap());
        };
        check(
            Format::Json,
            expect![[r#"
            {"machine":"press-1","signal":"pressure","ts":"2026-01-02T03:04:05.678901Z","value":7.25,"text":null,"quality":null}
            {"machine":"press-1","signal":"state","ts":"2026-01-02T03:04:06Z","value":null,"text":"a \"b\",\nc","quality":null}
            {"machine":"press-1","signal":"x","ts":"1970-01-01T00:00:00Z","value":null,"text":null,"quality":null}
        "#]],
        );
        check(
            Format::Csv,
            expect![[r#"
            machine,signal,ts,value,text,quality
            press-1,pressure,2026-01-02T03:04:05.678901Z,7.25,,
            press-1,state,2026-01-02T03:04:06Z,,"a ""b"",
            c",
            press-1,x,1970-01-01T00:00:00Z,NaN,,
        "#]],
        );
        check(
            Format::Table,
            expect![[r#"
            machine  signal    ts                           value  text      quality
            -------  --------  ---------------------------  -----  --------  -------
            press-1  pressure  2026-01-02T03:04:05.678901Z   7.25
            press-1  state     2026-01-02T03:04:06Z                a "b", c
            press-1  x       1970-01-01T00:00:00Z    NaN
        "#]],
        );
    }

    #[test]
    fn a_closed_pipe_is_an_error_of_its_own() {
        struct Closed;
        impl Write for Closed {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::BrokenPipe.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut printer = Printer::new(Closed, Format::Json, vec![None]);
        printer.write(0, &rows()).unwrap();
        assert!(printer.stage(1).unwrap_err().is::<ClosedPipe>());
    }
}
