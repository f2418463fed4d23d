//! Holds blocks back until they are due.

use std::sync::Arc;
use std::time::Duration;

use taktline_engine::Samples;

use super::FileState;
use super::block::{Block, rows_in};
use super::blocks::Blocks;
use super::decode::FileDecoder;
use crate::replay::Pace;

/// How much of the rows' time a paced block may span, as time on the wall.
const PACED_SPAN: Duration = Duration::from_millis(50);

/// A part of a block, and its earliest and latest time.
pub(super) type Part = (Block, Option<(i64, i64)>);

/// Cuts blocks so that none spans much time, and knows when each part is due.
pub(super) struct Paced {
    decoder: FileDecoder,
    pace: Arc<Pace>,
}

impl Paced {
    /// A player of blocks. The clock starts with the first block that is played.
    pub fn new(state: &Arc<FileState>, pace: Arc<Pace>) -> Self {
        let decoder = FileDecoder::new(state.clone());
        Paced { decoder, pace }
    }

    /// Starts the clock at the first time of these files, which are played side by side.
    pub fn start_at_first(&mut self, state: &FileState, files: std::ops::Range<usize>) -> anyhow::Result<()> {
        let mut first: Option<i64> = None;
        for file in files {
            if let Some((block, _)) = Blocks::open(state, file, None, 0)?.next()?
                && let Some((earliest, _)) = self.span(&block)?
            {
                first = Some(first.map_or(earliest, |known| known.min(earliest)));
            }
        }
        if let Some(first) = first {
            self.pace.start(first);
        }
        Ok(())
    }

    /// The parts of a block in order. What ends at or before `played` is left out.
    pub fn parts(&mut self, block: Block, played: u64) -> anyhow::Result<Vec<Part>> {
        let mut parts = Vec::new();
        let mut open = vec![block];
        while let Some(block) = open.pop() {
            let Some((earliest, latest)) = self.span(&block)? else {
                parts.push((block, None));
                continue;
            };
            if latest - earliest > self.pace.span(PACED_SPAN)
                && let Some((head, tail)) = halves(&block)
            {
                open.extend([tail, head]);
            } else {
                parts.push((block, Some((earliest, latest))));
            }
        }
        parts.retain(|(part, _)| part.offset + part.length > played || part.length == 0);
        if let Some((_, Some((earliest, _)))) = parts.first() {
            self.pace.start(*earliest);
        }
        Ok(parts)
    }

    /// How long it still takes until a part is due.
    pub fn until(&self, span: Option<(i64, i64)>) -> Duration {
        span.map_or(Duration::ZERO, |(_, latest)| self.pace.until(latest))
    }

    /// The earliest and the latest time in a block.
    fn span(&mut self, block: &Block) -> anyhow::Result<Option<(i64, i64)>> {
        let decoded = self.decoder.decode_block(block.view())?;
        let samples = Samples::of(&decoded.samples)?;
        let earliest = samples.ts.iter().min();
        Ok(earliest
            .zip(samples.ts.iter().max())
            .map(|(earliest, latest)| (*earliest, *latest)))
    }
}

/// Two halves of a block; `None` when it is one row.
fn halves(block: &Block) -> Option<(Block, Block)> {
    if block.bytes.is_empty() {
        let half = block.length / 2;
        let head = Block {
            length: half,
            ..block.clone()
        };
        let tail = Block {
            offset: block.offset + half,
            first_row: block.first_row + half,
            length: block.length - half,
            ..block.clone()
        };
        return (half > 0).then_some((head, tail));
    }
    let text = block.bytes.as_slice();
    let middle = text.len() / 2;
    let before = memchr::memrchr(b'\n', &text[..middle]).map(|at| at + 1);
    let cut = before.or_else(|| memchr::memchr(b'\n', &text[middle..]).map(|at| middle + at + 1))?;
    let (head, tail) = text.split_at(cut);
    if tail.trim_ascii().is_empty() {
        return None;
    }
    let part = |offset: u64, first_row: u64, bytes: &[u8]| Block {
        file: block.file,
        offset,
        first_row,
        length: bytes.len() as u64,
        bytes: bytes.to_vec(),
    };
    let tail = part(block.offset + cut as u64, block.first_row + rows_in(head), tail);
    Some((part(block.offset, block.first_row, head), tail))
}
