//! Builds rows of the `dead_letters` table.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryBuilder, RecordBatch, StringBuilder, UInt64Builder};

use crate::table;

/// The most of a payload that a dead letter keeps, in bytes.
pub const PAYLOAD_LIMIT: usize = 4096;

/// Collects what could not be read.
pub struct DeadLetters {
    source: String,
    sources: StringBuilder,
    partition: StringBuilder,
    offset: UInt64Builder,
    reason: StringBuilder,
    payload: BinaryBuilder,
}

impl DeadLetters {
    /// For the source of this name.
    pub fn new(source: impl Into<String>) -> Self {
        DeadLetters {
            source: source.into(),
            sources: StringBuilder::new(),
            partition: StringBuilder::new(),
            offset: UInt64Builder::new(),
            reason: StringBuilder::new(),
            payload: BinaryBuilder::new(),
        }
    }

    /// Adds one: where it stood, why it could not be read, and what it was (its first 4 KiB are kept).
    pub fn push(&mut self, partition: &str, offset: u64, reason: impl AsRef<str>, payload: &[u8]) {
        self.sources.append_value(&self.source);
        self.partition.append_value(partition);
        self.offset.append_value(offset);
        self.reason.append_value(reason);
        self.payload.append_value(&payload[..payload.len().min(PAYLOAD_LIMIT)]);
    }

    /// The rows so far; starts anew.
    #[allow(clippy::expect_used)]
    pub fn finish(&mut self) -> RecordBatch {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.sources.finish()),
            Arc::new(self.partition.finish()),
            Arc::new(self.offset.finish()),
            Arc::new(self.reason.finish()),
            Arc::new(self.payload.finish()),
        ];
        RecordBatch::try_new(table::dead_letters().schema, columns)
            .expect("columns of equal length and the table's types")
    }
}
