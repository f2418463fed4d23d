//! JSON: scalars at pointers without building a tree, rows as JSON objects.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Schema, TimestampMicrosecondType};

use super::query::{Document, Found, Query};

/// A JSON document.
pub(crate) struct JsonDocument<'j>(pub &'j [u8]);

impl<'j> Document<'j> for JsonDocument<'j> {
    #[inline]
    fn find(&self, query: &Query, found: &mut Found<'j>) -> Result<(), String> {
        let mut deserializer = serde_json::Deserializer::from_slice(without_mark(self.0));
        let read = query.walk(&mut deserializer, found);
        read.and_then(|()| deserializer.end())
            .map_err(|e| format!("not JSON: {e}"))
    }

    fn is_list(&self) -> bool {
        without_mark(self.0).trim_ascii_start().first() == Some(&b'[')
    }
}

/// The document without the byte order mark that some gateways begin it with.
#[inline]
fn without_mark(json: &[u8]) -> &[u8] {
    json.strip_prefix(b"\xef\xbb\xbf").unwrap_or(json)
}

/// Writes each row as a JSON object and a line break. Timestamps are RFC 3339, nulls are written.
///
/// # Errors
/// A column's type has no form in JSON.
pub fn write_rows(batch: &RecordBatch, out: &mut Vec<u8>) -> anyhow::Result<()> {
    use arrow::json::writer::{LineDelimited, WriterBuilder};
    let mut writer = WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, LineDelimited>(out);
    writer.write(&offset_zones(batch)?)?;
    writer.finish()?;
    Ok(())
}

/// The batch with its timestamps at the offset `+00:00` in place of the zone `UTC`: formatting names of zones needs a
/// time zone database that we leave out.
pub(crate) fn offset_zones(batch: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let times = column.as_primitive_opt::<TimestampMicrosecondType>();
        let column: ArrayRef = match times.filter(|times| times.timezone() == Some("UTC")) {
            Some(times) => Arc::new(times.clone().with_timezone("+00:00")),
            None => column.clone(),
        };
        fields.push(field.as_ref().clone().with_data_type(column.data_type().clone()));
        columns.push(column);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}
