//! Rows as JSON for pages and programs.

use arrow::array::{ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, TimestampMicrosecondType};
use arrow::json::LineDelimitedWriter;
use arrow::json::writer::{JsonArray, WriterBuilder};
use serde_json::{Map, Value};

/// One JSON object a row, a line each; nulls are written, times as RFC 3339.
///
/// # Errors
/// A column type that JSON can't say.
pub fn lines(batch: &RecordBatch) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut writer: LineDelimitedWriter<_> = WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, arrow::json::writer::LineDelimited>(&mut bytes);
    writer.write(&plain(batch)?)?;
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

/// Rows as objects; a time `x` becomes `x_ms`, milliseconds since 1970.
///
/// # Errors
/// As for [`lines`].
pub fn objects(batch: &RecordBatch) -> anyhow::Result<Vec<Map<String, Value>>> {
    let mut bytes = Vec::new();
    let mut writer = WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, JsonArray>(&mut bytes);
    writer.write(&in_ms(&plain(batch)?)?)?;
    writer.finish()?;
    drop(writer);
    if bytes.is_empty() {
        Ok(Vec::new())
    } else {
        Ok(serde_json::from_slice(&bytes)?)
    }
}

/// Dictionaries as plain text: a slice of a batch then writes what it holds and no more.
fn plain(batch: &RecordBatch) -> anyhow::Result<RecordBatch> {
    map_columns(batch, |field, column| match field.data_type() {
        DataType::Dictionary(_, values) => Ok((
            field.clone().with_data_type(values.as_ref().clone()),
            cast(column, values)?,
        )),
        _ => Ok((field.clone(), column.clone())),
    })
}

fn in_ms(batch: &RecordBatch) -> anyhow::Result<RecordBatch> {
    map_columns(batch, |field, column| {
        match column.as_primitive_opt::<TimestampMicrosecondType>() {
            Some(times) => {
                let ms: arrow::array::Int64Array = times.unary(|us| us.div_euclid(1000));
                let field = Field::new(format!("{}_ms", field.name()), DataType::Int64, field.is_nullable());
                Ok((field, std::sync::Arc::new(ms) as ArrayRef))
            }
            None => Ok((field.clone(), column.clone())),
        }
    })
}

fn map_columns(
    batch: &RecordBatch,
    map: impl Fn(&Field, &ArrayRef) -> anyhow::Result<(Field, ArrayRef)>,
) -> anyhow::Result<RecordBatch> {
    let schema = batch.schema();
    let mapped = schema
        .fields()
        .iter()
        .zip(batch.columns())
        .map(|(field, column)| map(field, column));
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) =
        mapped.collect::<anyhow::Result<Vec<_>>>()?.into_iter().unzip();
    Ok(RecordBatch::try_new(Schema::new(fields).into(), columns)?)
}
