//! Rows as a table for people, as CSV or as JSON.

use std::io::Write;
use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, StringBuilder};
use arrow::compute::cast;
use arrow::csv;
use arrow::datatypes::{DataType, DurationMicrosecondType, Field, Schema, SchemaRef, TimeUnit};
use arrow::json::writer::{JsonArray, make_encoder};
use arrow::json::{EncoderOptions, WriterBuilder};
use arrow::util::pretty::pretty_format_batches;

/// A table holds at most this many rows, since its widths need all of them.
const TABLE_ROWS: usize = 10_000;

/// How rows are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Aligned columns, for people.
    #[default]
    Table,
    /// RFC 4180 with a header; lists and structs as JSON text.
    Csv,
    /// One array of objects; times as RFC 3339, absent values as null.
    Json,
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "table" => Ok(Format::Table),
            "csv" => Ok(Format::Csv),
            "json" => Ok(Format::Json),
            _ => Err(format!("`{text}` is no format; write table, csv or json")),
        }
    }
}

/// Writes batches of one schema.
pub(crate) struct RowWriter<W: Write> {
    schema: SchemaRef,
    format: Format,
    form: Form<W>,
}

enum Form<W: Write> {
    Table {
        out: W,
        rows: Vec<RecordBatch>,
        count: usize,
        more: bool,
    },
    Csv(Box<csv::Writer<W>>),
    Json(arrow::json::Writer<W, JsonArray>),
}

impl<W: Write> RowWriter<W> {
    /// For rows of `schema`.
    pub fn new(format: Format, schema: &SchemaRef, out: W) -> Self {
        let form = match format {
            Format::Table => Form::Table {
                out,
                rows: Vec::new(),
                count: 0,
                more: false,
            },
            Format::Csv => Form::Csv(Box::new(csv::WriterBuilder::new().with_header(true).build(out))),
            Format::Json => Form::Json(WriterBuilder::new().with_explicit_nulls(true).build(out)),
        };
        RowWriter {
            schema: schema.clone(),
            format,
            form,
        }
    }

    /// Writes rows. False when no more are wanted.
    ///
    /// # Errors
    /// The rows can't be written.
    pub fn write(&mut self, batch: &RecordBatch) -> anyhow::Result<bool> {
        let batch = readable(batch, self.format)?;
        match &mut self.form {
            Form::Table { rows, count, more, .. } => {
                let wanted = batch.num_rows().min(TABLE_ROWS - *count);
                *more = wanted < batch.num_rows();
                *count += wanted;
                rows.push(batch.slice(0, wanted));
                return Ok(!*more);
            }
            Form::Csv(out) => out.write(&batch)?,
            Form::Json(out) => out.write(&batch)?,
        }
        Ok(true)
    }

    /// Writes what is held, and the ends.
    ///
    /// # Errors
    /// The rows can't be written.
    pub fn finish(mut self) -> anyhow::Result<()> {
        // An empty batch brings the header where no row came.
        let none = RecordBatch::new_empty(self.schema.clone());
        let none = readable(&none, self.format)?;
        match &mut self.form {
            Form::Table { out, rows, more, count } => {
                rows.push(none);
                writeln!(out, "{}", pretty_format_batches(rows)?)?;
                match (*more, *count) {
                    (true, count) => writeln!(
                        out,
                        "first {count} rows; there are more: add LIMIT, or use --format csv"
                    )?,
                    (false, 1) => writeln!(out, "1 row")?,
                    (false, count) => writeln!(out, "{count} rows")?,
                }
                out.flush()?;
            }
            Form::Csv(out) => out.write(&none)?,
            Form::Json(out) => {
                out.finish()?;
                writeln!(out.get_mut())?;
                out.get_mut().flush()?;
            }
        }
        Ok(())
    }
}

/// Bytes as text; unless the format is JSON, lists and structs as JSON text; in a table, durations in words.
fn readable(batch: &RecordBatch, format: Format) -> anyhow::Result<RecordBatch> {
    let mut fields = Vec::new();
    let mut columns: Vec<ArrayRef> = Vec::new();
    for (field, column) in batch.schema().fields().iter().zip(batch.columns()) {
        let column = match column.data_type() {
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
                Arc::new(bytes_text(&cast(column, &DataType::Binary)?))
            }
            DataType::Duration(_) if format == Format::Table => Arc::new(duration_text(column)?),
            of if format != Format::Json && of.is_nested() => Arc::new(json_text(field, column)?),
            _ => column.clone(),
        };
        fields.push(Field::new(field.name(), column.data_type().clone(), true));
        columns.push(column);
    }
    let rows = arrow::array::RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(
        Arc::new(Schema::new(fields)),
        columns,
        &rows,
    )?)
}

/// UTF-8 as it is, anything else as `\x` and hexadecimal digits.
fn bytes_text(column: &ArrayRef) -> StringArray {
    let bytes = column.as_binary::<i32>();
    let text = |bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => bytes
            .iter()
            .fold("\\x".to_owned(), |text, byte| text + &format!("{byte:02x}")),
    };
    bytes.iter().map(|value| value.map(text)).collect()
}

/// `1.5s`, `2min 0.25s`, `-1d 3h 0min 0s`.
fn duration_text(column: &ArrayRef) -> anyhow::Result<StringArray> {
    let micros = cast(column, &DataType::Duration(TimeUnit::Microsecond))?;
    let text = |micros: i64| {
        let (minutes, seconds) = (
            micros.unsigned_abs() / 60_000_000,
            (micros.unsigned_abs() % 60_000_000) as f64 / 1e6,
        );
        let (days, hours, minutes) = (minutes / 1440, minutes / 60 % 24, minutes % 60);
        let larger = match (days, hours, minutes) {
            (0, 0, 0) => String::new(),
            (0, 0, _) => format!("{minutes}min "),
            (0, ..) => format!("{hours}h {minutes}min "),
            _ => format!("{days}d {hours}h {minutes}min "),
        };
        format!("{}{larger}{seconds}s", if micros < 0 { "-" } else { "" })
    };
    Ok(micros
        .as_primitive::<DurationMicrosecondType>()
        .iter()
        .map(|micros| micros.map(text))
        .collect())
}

fn json_text(field: &Arc<Field>, column: &ArrayRef) -> anyhow::Result<StringArray> {
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(field, column, &options)?;
    let mut text = StringBuilder::new();
    let mut json = Vec::new();
    for row in 0..column.len() {
        if column.is_null(row) {
            text.append_null();
            continue;
        }
        json.clear();
        encoder.encode(row, &mut json);
        text.append_value(std::str::from_utf8(&json)?);
    }
    Ok(text.finish())
}
