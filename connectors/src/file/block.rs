//! Raw batches of the file source, and cutting text into them.

use std::io::{self, Read};
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, BinaryArray, RecordBatch, UInt32Array, UInt64Array};
use arrow::buffer::{Buffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt32Type, UInt64Type};

/// As much of a line as is kept when it is too long: what a dead letter keeps.
const HEAD_BYTES: usize = 4096;

/// A piece of a file, small enough for one epoch: one row of a raw batch.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Block {
    /// Index into the source's files.
    pub file: u32,
    /// Text: byte where the block begins. Parquet: its first row.
    pub offset: u64,
    /// Rows of the source (or of the file, where the file is a machine) before the block, for times by index.
    pub first_row: u64,
    /// Text: bytes of the block; more than are in `bytes` for the head of a line that was too long to keep. Parquet:
    /// rows.
    pub length: u64,
    /// Text: whole lines. Parquet: nothing, the decoder reads the slice itself.
    pub bytes: Vec<u8>,
}

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let field = |name: &str, data_type| Field::new(name, data_type, false);
    Arc::new(Schema::new(vec![
        field("file", DataType::UInt32),
        field("offset", DataType::UInt64),
        field("first_row", DataType::UInt64),
        field("length", DataType::UInt64),
        field("bytes", DataType::Binary),
    ]))
});

/// The schema of raw batches.
pub(super) fn schema() -> SchemaRef {
    SCHEMA.clone()
}

impl Block {
    /// The raw batch of this block.
    pub fn into_batch(self) -> anyhow::Result<RecordBatch> {
        let offsets = OffsetBuffer::from_lengths([self.bytes.len()]);
        let bytes = BinaryArray::try_new(offsets, Buffer::from_vec(self.bytes), None)?;
        let number = |value| Arc::new(UInt64Array::from(vec![value]));
        Ok(RecordBatch::try_new(
            schema(),
            vec![
                Arc::new(UInt32Array::from(vec![self.file])),
                number(self.offset),
                number(self.first_row),
                number(self.length),
                Arc::new(bytes),
            ],
        )?)
    }

    /// What of this block comes after `played`, a place between two of its rows; None when nothing does.
    pub fn after(mut self, played: u64) -> Option<Block> {
        let skipped = played.saturating_sub(self.offset);
        if skipped > 0 && skipped >= self.length {
            return None;
        }
        let text = (skipped as usize).min(self.bytes.len());
        self.first_row += if self.bytes.is_empty() {
            skipped
        } else {
            rows_in(&self.bytes[..text])
        };
        self.bytes.drain(..text);
        self.offset += skipped;
        self.length -= skipped;
        Some(self)
    }

    /// The block as its decoder sees it.
    pub fn view(&self) -> BlockView<'_> {
        let Block {
            file,
            offset,
            first_row,
            length,
            ref bytes,
        } = *self;
        BlockView {
            file,
            offset,
            first_row,
            length,
            bytes,
        }
    }
}

/// A [`Block`] whose bytes are borrowed from a raw batch.
#[derive(Clone, Copy, Debug)]
pub(super) struct BlockView<'a> {
    pub file: u32,
    pub offset: u64,
    pub first_row: u64,
    pub length: u64,
    pub bytes: &'a [u8],
}

impl<'a> BlockView<'a> {
    /// The blocks of a raw batch.
    ///
    /// # Errors
    /// This source didn't make the batch.
    pub fn of(raw: &'a RecordBatch) -> anyhow::Result<Vec<Self>> {
        anyhow::ensure!(
            raw.schema_ref().fields() == SCHEMA.fields(),
            "a raw batch of another source"
        );
        let number = |index: usize| raw.column(index).as_primitive::<UInt64Type>().values();
        let files = raw.column(0).as_primitive::<UInt32Type>().values();
        let bytes = raw.column(4).as_binary::<i32>();
        Ok((0..bytes.len())
            .map(|row| BlockView {
                file: files[row],
                offset: number(1)[row],
                first_row: number(2)[row],
                length: number(3)[row],
                bytes: bytes.value(row),
            })
            .collect())
    }
}

/// Text that was cut at line ends.
#[derive(Debug, PartialEq)]
pub(super) struct Piece {
    /// Byte where it begins.
    pub offset: u64,
    /// Bytes it has in the file; see [`Block::length`].
    pub length: u64,
    pub bytes: Vec<u8>,
}

/// Cuts text into pieces of about `target` bytes, each of whole lines. Needs at most `target` plus the longest allowed
/// line of memory, whatever the input.
pub(super) struct Pieces<R> {
    input: R,
    target: usize,
    max_line: usize,
    offset: u64,
    rest: Vec<u8>,
    ended: bool,
}

impl<R: Read> Pieces<R> {
    /// Cuts `input`, whose first byte stands at `offset`.
    pub fn new(input: R, offset: u64, target: usize, max_line: usize) -> Self {
        Pieces {
            input,
            target: target.max(1),
            max_line,
            offset,
            rest: Vec::new(),
            ended: false,
        }
    }

    /// Where the next piece begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next piece; `None` at the end.
    pub fn next(&mut self) -> io::Result<Option<Piece>> {
        let mut wanted = self.target;
        loop {
            let seen = self.rest.len();
            self.fill(wanted)?;
            // A line feed in what was there before has been cut off already, or has been searched for.
            if let Some(at) = memchr::memrchr(b'\n', &self.rest[if wanted == self.target { 0 } else { seen }..]) {
                let end = at + 1 + if wanted == self.target { 0 } else { seen };
                return Ok(Some(self.cut(end)));
            }
            if self.ended {
                let end = self.rest.len();
                return Ok(if end == 0 { None } else { Some(self.cut(end)) });
            }
            // One byte more for the carriage return of a line that is just short enough.
            if self.rest.len() > self.max_line + 1 {
                return self.skip_line().map(Some);
            }
            wanted = self.rest.len() + self.target;
        }
    }

    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        let missing = wanted.saturating_sub(self.rest.len());
        if missing > 0 && !self.ended {
            self.rest.reserve(missing);
            let read = self.input.by_ref().take(missing as u64).read_to_end(&mut self.rest)?;
            self.ended = read < missing;
        }
        Ok(())
    }

    fn cut(&mut self, end: usize) -> Piece {
        let mut rest = Vec::with_capacity(self.target.max(self.rest.len() - end));
        rest.extend_from_slice(&self.rest[end..]);
        self.rest.truncate(end);
        let bytes = std::mem::replace(&mut self.rest, rest);
        let piece = Piece {
            offset: self.offset,
            length: bytes.len() as u64,
            bytes,
        };
        self.offset += piece.length;
        piece
    }

    /// Passes over a line that is too long and keeps its head.
    fn skip_line(&mut self) -> io::Result<Piece> {
        let offset = self.offset;
        let mut head = Vec::new();
        let mut length = 0;
        let mut last = 0u8;
        loop {
            let end = memchr::memchr(b'\n', &self.rest);
            let line = end.unwrap_or(self.rest.len());
            length += line as u64;
            head.extend_from_slice(&self.rest[..line.min(HEAD_BYTES - head.len())]);
            last = if line > 0 { self.rest[line - 1] } else { last };
            if let Some(end) = end {
                self.rest.drain(..=end);
                self.offset += length + 1;
                break;
            }
            self.rest.clear();
            self.fill(self.target)?;
            if self.rest.is_empty() {
                self.offset += length;
                break;
            }
        }
        length -= u64::from(last == b'\r');
        head.truncate(length.min(HEAD_BYTES as u64) as usize);
        Ok(Piece {
            offset,
            length,
            bytes: head,
        })
    }
}

/// Lines of a block that aren't blank: what an index of rows counts.
pub(super) fn rows_in(bytes: &[u8]) -> u64 {
    let mut start = 0;
    let mut rows = 0;
    for end in memchr::memchr_iter(b'\n', bytes).chain([bytes.len()]) {
        rows += u64::from(!is_blank(&bytes[start..end]));
        start = (end + 1).min(bytes.len());
    }
    rows
}

/// True for an empty line.
pub(super) fn is_blank(line: &[u8]) -> bool {
    line.is_empty() || line == b"\r"
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pieces(text: &[u8], target: usize, max_line: usize) -> Vec<Piece> {
        let mut pieces = Pieces::new(text, 0, target, max_line);
        std::iter::from_fn(|| pieces.next().unwrap()).collect()
    }

    /// Lines with their offsets, the head only for those that are too long: what must not depend on the cuts.
    fn lines(text: &[u8], target: usize, max_line: usize) -> Vec<(u64, Vec<u8>, u64)> {
        let mut lines = Vec::new();
        for piece in pieces(text, target, max_line) {
            if piece.length > piece.bytes.len() as u64 {
                lines.push((piece.offset, piece.bytes, piece.length));
                continue;
            }
            let mut offset = piece.offset;
            for line in piece.bytes.split_inclusive(|byte| *byte == b'\n') {
                let text = line.strip_suffix(b"\n").unwrap_or(line);
                let text = text.strip_suffix(b"\r").unwrap_or(text);
                let head = if text.len() > max_line {
                    &text[..text.len().min(HEAD_BYTES)]
                } else {
                    text
                };
                lines.push((offset, head.to_vec(), text.len() as u64));
                offset += line.len() as u64;
            }
        }
        lines
    }

    #[test]
    fn pieces_end_at_line_ends() {
        let check = |text: &str, target, expect: &[&str]| {
            let found: Vec<String> = pieces(text.as_bytes(), target, 100)
                .into_iter()
                .map(|p| String::from_utf8(p.bytes).unwrap())
                .collect();
            assert_eq!(found, expect);
        };
        check("a\nb\nc\n", 4, &["a\nb\n", "c\n"]);
        check("a\nb\nc", 4, &["a\nb\n", "c"]);
        check("aaaaaaaa\nb\n", 2, &["aaaaaaaa\n", "b\n"]);
        check("", 4, &[]);
        check("\n\n", 1, &["\n", "\n"]);
    }

    #[test]
    fn a_line_of_ten_megabytes_costs_its_head() {
        let mut text = b"a\n".to_vec();
        text.extend(std::iter::repeat_n(b'x', 10 << 20));
        text.extend(b"\nb\n");
        let found = pieces(&text, 256 << 10, 1 << 20);
        assert_eq!(found.len(), 3);
        assert_eq!(
            (found[1].offset, found[1].length, found[1].bytes.len()),
            (2, 10 << 20, HEAD_BYTES)
        );
        assert_eq!(
            (found[2].offset, found[2].bytes.as_slice()),
            ((10 << 20) + 3, &b"b\n"[..])
        );
    }

    proptest! {
        #[test]
        fn cuts_do_not_change_lines(
            parts in proptest::collection::vec(
                prop_oneof!["[a-c]{0,12}", Just("\r\n".to_owned()), Just("\n".to_owned())],
                0..40,
            ),
            target in 1usize..50,
        ) {
            let text = parts.concat().into_bytes();
            prop_assert_eq!(lines(&text, target, 9), lines(&text, 1 << 20, 9));
            let rows: u64 = pieces(&text, target, 1 << 20).iter().map(|p| rows_in(&p.bytes)).sum();
            prop_assert_eq!(rows, rows_in(&text));
        }
    }
}
