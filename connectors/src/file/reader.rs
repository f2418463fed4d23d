//! The thread that reads files ahead of the dataflow, and the partition in front of it.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use anyhow::Context;
use arrow::array::RecordBatch;
use taktline_engine::{Partition, Poll, Position, Samples, Wake};

use super::FileState;
use super::block::{Block, Pieces, rows_in};
use super::decode::FileDecoder;
use super::inputs::{Input, Opened};
use crate::replay::{Pace, Replay};

/// Blocks that may wait between the reading thread and the dataflow.
const QUEUED_BLOCKS: usize = 4;
/// How much of the rows' time a paced block may span, as time on the wall.
const PACED_SPAN: Duration = Duration::from_millis(50);

enum Message {
    Block(RecordBatch, Position),
    End,
    Failed(anyhow::Error),
}

/// A partition of a file source: one or more files, read one after another.
pub(super) struct FilePartition {
    messages: Receiver<Message>,
    position: Position,
    paced: bool,
    stop: Arc<AtomicBool>,
}

impl FilePartition {
    /// Starts reading these files.
    pub fn start(state: Arc<FileState>, files: std::ops::Range<usize>, wake: Wake) -> anyhow::Result<Self> {
        let (sender, messages) = sync_channel(QUEUED_BLOCKS);
        let stop = Arc::new(AtomicBool::new(false));
        let paced = state.settings.replay != Replay::Max;
        let output = Output {
            sender,
            wake,
            stop: stop.clone(),
        };
        let position = Position {
            text: state.inputs()?[files.start].name.clone(),
            fraction: Some(0.0),
        };
        std::thread::Builder::new().name("file reader".into()).spawn(move || {
            let last = match read(&state, files, &output) {
                Ok(()) => Message::End,
                Err(e) => Message::Failed(e),
            };
            output.send(last);
        })?;
        Ok(FilePartition {
            messages,
            position,
            paced,
            stop,
        })
    }
}

impl Partition for FilePartition {
    fn poll(&mut self) -> anyhow::Result<Poll> {
        match self.messages.try_recv() {
            Ok(Message::Block(batch, position)) => {
                self.position = position;
                Ok(Poll::Batch(batch))
            }
            Ok(Message::End) => {
                self.position.fraction = Some(1.0);
                Ok(Poll::End)
            }
            Ok(Message::Failed(e)) => Err(e),
            Err(TryRecvError::Empty) if self.paced => Ok(Poll::Idle),
            Err(TryRecvError::Empty) => Ok(Poll::Wait),
            Err(TryRecvError::Disconnected) => anyhow::bail!("the thread that reads {} has died", self.position.text),
        }
    }

    fn position(&self) -> Position {
        self.position.clone()
    }
}

impl Drop for FilePartition {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// The reading thread's end of the queue.
struct Output {
    sender: SyncSender<Message>,
    wake: Wake,
    stop: Arc<AtomicBool>,
}

impl Output {
    /// False when nobody wants more.
    fn send(&self, message: Message) -> bool {
        let sent = self.sender.send(message).is_ok();
        (self.wake)();
        sent
    }

    /// Waits, and returns false when it should stop before.
    fn sleep(&self, mut wait: Duration) -> bool {
        while !wait.is_zero() && !self.stop.load(Ordering::Relaxed) {
            let part = wait.min(Duration::from_millis(50));
            std::thread::sleep(part);
            wait -= part;
        }
        !self.stop.load(Ordering::Relaxed)
    }
}

fn read(state: &Arc<FileState>, files: std::ops::Range<usize>, output: &Output) -> anyhow::Result<()> {
    let inputs = state.inputs()?;
    let total = inputs[files.clone()]
        .iter()
        .map(|input| input.bytes)
        .sum::<u64>()
        .max(1);
    let mut paced = match &state.pace {
        Some(pace) => Some(Paced::new(state, pace.clone(), files.clone())?),
        None => None,
    };
    let mut row = 0;
    let mut before = 0;
    for file in files {
        let input = &inputs[file];
        if state.settings.file_is_machine() {
            row = 0;
        }
        let mut blocks = Blocks::open(state, file, row)?;
        let file_start = row;
        while let Some((block, bytes_done)) = blocks.next().with_context(|| input.name.clone())? {
            row = blocks.row;
            let fraction = Some(((before + bytes_done) as f64 / total as f64).min(1.0));
            let text = format!("{}:{}", input.name, row - file_start);
            let position = Position { text, fraction };
            let go_on = match &mut paced {
                Some(paced) => paced.play(block, &position, output)?,
                None => output.send(Message::Block(block.into_batch()?, position)),
            };
            if !go_on {
                return Ok(());
            }
        }
        before += input.bytes;
    }
    Ok(())
}

/// The blocks of one file.
struct Blocks<'a> {
    file: u32,
    /// Rows before the next block.
    row: u64,
    cutting: Cutting,
    input: &'a Input,
}

enum Cutting {
    Text(Pieces<File>),
    /// Slices that are left: first row and rows.
    Slices {
        rows: u64,
        left: VecDeque<(u64, u64)>,
    },
}

impl<'a> Blocks<'a> {
    fn open(state: &'a FileState, file: usize, row: u64) -> anyhow::Result<Self> {
        let settings = &state.settings;
        let input = &state.inputs()?[file];
        let (block_bytes, block_rows) = match settings.replay {
            Replay::Max => (settings.block_bytes, settings.block_rows),
            Replay::Times(_) => (settings.block_bytes.min(8 << 10), settings.block_rows.min(1024)),
        };
        let text = |start: u64| -> anyhow::Result<Cutting> {
            let mut file = File::open(&input.path).with_context(|| input.name.clone())?;
            file.seek(SeekFrom::Start(start))?;
            Ok(Cutting::Text(Pieces::new(file, start, block_bytes, settings.max_line)))
        };
        let cutting = match input.open(settings)? {
            Opened::Empty => Cutting::Slices {
                rows: 0,
                left: VecDeque::new(),
            },
            Opened::Csv(csv) => text(csv.data_start)?,
            Opened::Ndjson => text(byte_order_mark(input)?)?,
            // A slice without rows stands for the whole file.
            Opened::Broken(_) => Cutting::Slices {
                rows: 0,
                left: VecDeque::from([(0, 0)]),
            },
            Opened::Parquet(parquet) => slices(&parquet.groups(), block_rows),
        };
        Ok(Blocks {
            file: file as u32,
            row,
            cutting,
            input,
        })
    }

    /// The next block and how many bytes of the file are behind it then.
    fn next(&mut self) -> anyhow::Result<Option<(Block, u64)>> {
        let first_row = self.row;
        let (offset, length, bytes, done) = match &mut self.cutting {
            Cutting::Text(pieces) => {
                let Some(piece) = pieces.next()? else { return Ok(None) };
                let is_head = piece.length > piece.bytes.len() as u64;
                self.row += if is_head { 1 } else { rows_in(&piece.bytes) };
                (piece.offset, piece.length, piece.bytes, piece.offset + piece.length)
            }
            Cutting::Slices { rows, left } => {
                let Some((offset, length)) = left.pop_front() else {
                    return Ok(None);
                };
                self.row += length;
                let share = (offset + length) as f64 / (*rows).max(1) as f64;
                (offset, length, Vec::new(), (self.input.bytes as f64 * share) as u64)
            }
        };
        Ok(Some((
            Block {
                file: self.file,
                offset,
                first_row,
                length,
                bytes,
            },
            done,
        )))
    }
}

fn slices(groups: &[u64], block_rows: u64) -> Cutting {
    let mut left = VecDeque::new();
    let mut first = 0;
    for rows in groups {
        let end = first + rows;
        while first < end {
            let length = block_rows.min(end - first);
            left.push_back((first, length));
            first += length;
        }
    }
    Cutting::Slices { rows: first, left }
}

fn byte_order_mark(input: &Input) -> anyhow::Result<u64> {
    let mut head = Vec::new();
    File::open(&input.path)
        .with_context(|| input.name.clone())?
        .take(3)
        .read_to_end(&mut head)?;
    Ok(if head == b"\xef\xbb\xbf" { 3 } else { 0 })
}

/// Holds blocks back until they are due.
struct Paced {
    decoder: FileDecoder,
    pace: Arc<Pace>,
}

impl Paced {
    /// Starts the clock at the first time of all files that are played side by side.
    fn new(state: &Arc<FileState>, pace: Arc<Pace>, files: std::ops::Range<usize>) -> anyhow::Result<Self> {
        let decoder = FileDecoder::new(state.clone());
        let mut paced = Paced { decoder, pace };
        let heads = if state.side_by_side() {
            0..state.inputs()?.len()
        } else {
            files.start..files.start + 1
        };
        let mut first: Option<i64> = None;
        for file in heads {
            if let Some((block, _)) = Blocks::open(state, file, 0)?.next()?
                && let Some((earliest, _)) = paced.span(&block)?
            {
                first = Some(first.map_or(earliest, |known| known.min(earliest)));
            }
        }
        if let Some(first) = first {
            paced.pace.start(first);
        }
        Ok(paced)
    }

    /// Sends a block when it is due, in parts if it spans too much time.
    fn play(&mut self, block: Block, position: &Position, output: &Output) -> anyhow::Result<bool> {
        if let Some((earliest, latest)) = self.span(&block)? {
            self.pace.start(earliest);
            if latest - earliest > self.pace.span(PACED_SPAN)
                && let Some((head, tail)) = halves(&block)
            {
                return Ok(self.play(head, position, output)? && self.play(tail, position, output)?);
            }
            if !output.sleep(self.pace.until(latest)) {
                return Ok(false);
            }
        }
        Ok(output.send(Message::Block(block.into_batch()?, position.clone())))
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
