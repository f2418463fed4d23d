//! Messages as they came, in raw batches: what a source's partition yields, the journal keeps and the decoder reads.

use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, MapArray, MapBuilder, PrimitiveArray, RecordBatch,
    StringArray, StringBuilder, TimestampMicrosecondBuilder, UInt64Builder,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimestampMicrosecondType, UInt64Type};
use taktline_engine::table;

/// A message as it came.
#[derive(Clone, Copy, Debug)]
pub struct Message<'m> {
    /// Where it was sent: an MQTT or Kafka topic, an HTTP stream.
    pub topic: &'m str,
    /// Its key, where the source has one.
    pub key: Option<&'m [u8]>,
    /// Headers or properties that the source was asked for.
    pub headers: &'m [(&'m str, &'m [u8])],
    /// What it carries.
    pub payload: &'m [u8],
    /// When it came, or when the broker says it was made; µs since 1970.
    pub received: i64,
    /// Its number in this run, or its offset.
    pub sequence: u64,
}

/// The schema of raw batches.
pub(crate) fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let headers = MessageBatch::default().headers.finish();
        Arc::new(Schema::new(vec![
            Field::new("topic", DataType::Utf8, false),
            Field::new("key", DataType::Binary, true),
            Field::new("headers", headers.data_type().clone(), false),
            Field::new("payload", DataType::Binary, false),
            Field::new("received", table::timestamp(), false),
            Field::new("sequence", DataType::UInt64, false),
        ]))
    });
    SCHEMA.clone()
}

/// A raw batch in the making.
pub struct MessageBatch {
    topic: StringBuilder,
    key: BinaryBuilder,
    headers: MapBuilder<StringBuilder, BinaryBuilder>,
    payload: BinaryBuilder,
    received: TimestampMicrosecondBuilder,
    sequence: UInt64Builder,
}

impl Default for MessageBatch {
    fn default() -> Self {
        MessageBatch {
            topic: StringBuilder::new(),
            key: BinaryBuilder::new(),
            headers: MapBuilder::new(None, StringBuilder::new(), BinaryBuilder::new()),
            payload: BinaryBuilder::new(),
            received: TimestampMicrosecondBuilder::new(),
            sequence: UInt64Builder::new(),
        }
    }
}

impl MessageBatch {
    /// Adds a message.
    pub fn push(&mut self, message: Message<'_>) -> anyhow::Result<()> {
        self.topic.append_value(message.topic);
        self.key.append_option(message.key);
        for (name, value) in message.headers {
            self.headers.keys().append_value(name);
            self.headers.values().append_value(value);
        }
        self.headers.append(true)?;
        self.payload.append_value(message.payload);
        self.received.append_value(message.received);
        self.sequence.append_value(message.sequence);
        Ok(())
    }

    /// The messages so far; starts anew.
    pub fn finish(&mut self) -> anyhow::Result<RecordBatch> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.topic.finish()),
            Arc::new(self.key.finish()),
            Arc::new(self.headers.finish()),
            Arc::new(self.payload.finish()),
            Arc::new(self.received.finish().with_timezone("UTC")),
            Arc::new(self.sequence.finish()),
        ];
        Ok(RecordBatch::try_new(schema(), columns)?)
    }
}

/// A raw batch being read.
pub(crate) struct Messages<'b> {
    topic: &'b StringArray,
    key: &'b BinaryArray,
    headers: &'b MapArray,
    header_names: &'b StringArray,
    header_values: &'b BinaryArray,
    payload: &'b BinaryArray,
    received: &'b PrimitiveArray<TimestampMicrosecondType>,
    sequence: &'b PrimitiveArray<UInt64Type>,
}

impl<'b> Messages<'b> {
    /// # Errors
    /// The batch was not made by a [`MessageBatch`].
    pub(crate) fn of(raw: &'b RecordBatch) -> anyhow::Result<Self> {
        anyhow::ensure!(
            raw.schema_ref().fields() == schema().fields(),
            "this is no raw batch of messages: an earlier version may have written it"
        );
        let headers = raw.column(2).as_map();
        Ok(Messages {
            topic: raw.column(0).as_string(),
            key: raw.column(1).as_binary(),
            headers,
            header_names: headers.keys().as_string(),
            header_values: headers.values().as_binary(),
            payload: raw.column(3).as_binary(),
            received: raw.column(4).as_primitive(),
            sequence: raw.column(5).as_primitive(),
        })
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.topic.len()
    }

    /// The payload at a row, for as long as the batch lives.
    pub(crate) fn payload(&self, row: usize) -> &'b [u8] {
        self.payload.value(row)
    }

    /// The message at a row, with its headers in `headers`.
    pub(crate) fn get<'m>(&'m self, row: usize, headers: &'m mut Vec<(&'b str, &'b [u8])>) -> Message<'m> {
        headers.clear();
        let offsets = self.headers.value_offsets();
        headers.extend(
            (offsets[row] as usize..offsets[row + 1] as usize)
                .map(|at| (self.header_names.value(at), self.header_values.value(at))),
        );
        Message {
            topic: self.topic.value(row),
            key: self.key.is_valid(row).then(|| self.key.value(row)),
            headers,
            payload: self.payload.value(row),
            received: self.received.value(row),
            sequence: self.sequence.value(row),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        let mut batch = MessageBatch::default();
        let headers: &[(&str, &[u8])] = &[("a", b"1"), ("b", b"")];
        let message = |key, headers, sequence| Message {
            topic: "t",
            key,
            headers,
            payload: b"p",
            received: 7,
            sequence,
        };
        batch.push(message(Some(b"k"), headers, 1)).unwrap();
        batch.push(message(None, &[], 2)).unwrap();
        let raw = batch.finish().unwrap();
        let messages = Messages::of(&raw).unwrap();
        let mut room = Vec::new();
        let first = messages.get(0, &mut room);
        assert_eq!(
            (first.key, first.headers, first.sequence),
            (Some(&b"k"[..]), headers, 1)
        );
        let second = messages.get(1, &mut room);
        assert_eq!((second.key, second.headers.len(), second.received), (None, 0, 7));
        assert_eq!((messages.len(), batch.finish().unwrap().num_rows()), (2, 0));
        assert!(Messages::of(&raw.project(&[0, 1]).unwrap()).is_err());
    }
}
