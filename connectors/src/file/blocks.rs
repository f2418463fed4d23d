//! One file as blocks, from its beginning or from a mark on.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};

use anyhow::Context;

use super::FileState;
use super::block::{Block, Pieces, rows_in};
use super::inputs::{Input, Opened};
use super::marks::{At, Mark};
use crate::replay::Replay;

/// The blocks of one file.
pub(super) struct Blocks<'a> {
    file: u32,
    /// Rows of the source (or of the file) before the next block.
    pub row: u64,
    /// Rows of the file before the next block.
    rows: u64,
    cutting: Cutting,
    input: &'a Input,
}

enum Cutting {
    Text(Pieces<File>),
    /// Slices that are left, first row and rows, of a Parquet file with so many rows.
    Slices {
        rows: u64,
        left: VecDeque<(u64, u64)>,
    },
    /// A file that can't be read: true as long as that has to be said.
    Broken(bool),
    Empty,
}

impl<'a> Blocks<'a> {
    /// Opens a file at a mark; `row` rows of the source (or of the file) come before.
    pub fn open(state: &'a FileState, file: usize, mark: Option<&Mark>, row: u64) -> anyhow::Result<Self> {
        let settings = &state.settings;
        let input = &state.inputs()?[file];
        let (block_bytes, block_rows) = match settings.replay {
            Replay::Max => (settings.block_bytes, settings.block_rows),
            Replay::Times(_) => (settings.block_bytes.min(8 << 10), settings.block_rows.min(1024)),
        };
        let next = mark.map_or(0, Mark::next);
        let text = |first: u64| -> anyhow::Result<Cutting> {
            let start = if next <= first { first } else { line_start(input, next)? };
            let mut file = File::open(&input.path).with_context(|| input.name.clone())?;
            file.seek(SeekFrom::Start(start))?;
            Ok(Cutting::Text(Pieces::new(file, start, block_bytes, settings.max_line)))
        };
        let cutting = match input.open(settings)? {
            Opened::Empty => Cutting::Empty,
            Opened::Csv(csv) => text(csv.data_start)?,
            Opened::Ndjson => text(byte_order_mark(input)?)?,
            Opened::Broken(_) => Cutting::Broken(mark.is_none()),
            Opened::Parquet(parquet) => slices(&parquet.groups(), block_rows, next),
        };
        Ok(Blocks {
            file: file as u32,
            row,
            rows: mark.map_or(0, |mark| mark.rows),
            cutting,
            input,
        })
    }

    /// The next block and how many bytes of the file are behind it then.
    pub fn next(&mut self) -> anyhow::Result<Option<(Block, u64)>> {
        let (offset, length, bytes, rows, done) = match &mut self.cutting {
            Cutting::Text(pieces) => {
                let Some(piece) = pieces.next()? else { return Ok(None) };
                let is_head = piece.length > piece.bytes.len() as u64;
                let rows = if is_head { 1 } else { rows_in(&piece.bytes) };
                (piece.offset, piece.length, piece.bytes, rows, pieces.offset())
            }
            Cutting::Slices { rows, left } => {
                let Some((offset, length)) = left.pop_front() else {
                    return Ok(None);
                };
                let share = (offset + length) as f64 / (*rows).max(1) as f64;
                let done = (self.input.bytes as f64 * share) as u64;
                (offset, length, Vec::new(), length, done)
            }
            // A slice without rows stands for the whole file.
            Cutting::Broken(untold) => match std::mem::take(untold) {
                true => (0, 0, Vec::new(), 0, self.input.bytes),
                false => return Ok(None),
            },
            Cutting::Empty => return Ok(None),
        };
        let block = Block {
            file: self.file,
            offset,
            first_row: self.row,
            length,
            bytes,
        };
        self.row += rows;
        self.rows += rows;
        Ok(Some((block, done)))
    }

    /// Where the next block begins.
    pub fn mark(&self) -> anyhow::Result<Mark> {
        let at = match &self.cutting {
            Cutting::Text(pieces) => At::Byte(pieces.offset()),
            Cutting::Slices { rows, left } => At::Row(left.front().map_or(*rows, |(first, _)| *first)),
            Cutting::Broken(_) => At::Broken(self.input.bytes),
            Cutting::Empty => At::Byte(0),
        };
        Mark::new(self.input, at, self.rows)
    }
}

fn slices(groups: &[u64], block_rows: u64, next: u64) -> Cutting {
    let mut left = VecDeque::new();
    let mut first = 0;
    for rows in groups {
        let end = first + rows;
        while first < end {
            let length = block_rows.min(end - first);
            if next <= first {
                left.push_back((first, length));
            } else if next < first + length {
                left.push_back((next, first + length - next));
            }
            first += length;
        }
    }
    Cutting::Slices { rows: first, left }
}

/// The first byte of the line that begins at `at` or after it. A file may have ended within a line, and grown.
fn line_start(input: &Input, at: u64) -> anyhow::Result<u64> {
    let mut file = File::open(&input.path).with_context(|| input.name.clone())?;
    file.seek(SeekFrom::Start(at - 1))?;
    let mut lines = BufReader::new(file);
    let (mut passed, mut is_cut) = (0, false);
    loop {
        let bytes = lines.fill_buf().with_context(|| input.name.clone())?;
        let end = memchr::memchr(b'\n', bytes);
        let taken = end.map_or(bytes.len(), |end| end + 1);
        let from = usize::from(passed == 0).min(taken); // the byte before `at` was read
        is_cut |= !bytes[from..taken].trim_ascii().is_empty();
        passed += taken as u64;
        if end.is_some() || taken == 0 {
            break;
        }
        lines.consume(taken);
    }
    if is_cut {
        tracing::warn!(
            "{}: the line before byte {at} was read before it was whole; its rest is left out",
            input.name
        );
    }
    Ok(at - 1 + passed)
}

fn byte_order_mark(input: &Input) -> anyhow::Result<u64> {
    let mut head = Vec::new();
    File::open(&input.path)
        .with_context(|| input.name.clone())?
        .take(3)
        .read_to_end(&mut head)?;
    Ok(if head == b"\xef\xbb\xbf" { 3 } else { 0 })
}
