//! The thread that reads files ahead of the dataflow, and the partition in front of it.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use anyhow::Context;
use arrow::array::RecordBatch;
use serde_json::Value;
use taktline_engine::{Partition, Poll, Position, Wake};

use super::FileState;
use super::blocks::Blocks;
use super::marks::{Mark, Marks};
use super::paced::Paced;
use crate::replay::Replay;

/// Blocks that may wait between the reading thread and the dataflow.
const QUEUED_BLOCKS: usize = 4;

enum Message {
    /// A batch, and how far its file has been read with it.
    Block(RecordBatch, Position, usize, Mark),
    /// A file has been read to its end, where its mark is.
    Read(usize, Mark),
    End,
    Failed(anyhow::Error),
}

/// A partition of a file source: one or more files, read one after another.
pub(super) struct FilePartition {
    messages: Receiver<Message>,
    position: Position,
    marks: Marks,
    paced: bool,
    stop: Arc<AtomicBool>,
}

impl FilePartition {
    /// Starts reading these files, each from its mark on.
    pub fn start(state: Arc<FileState>, files: Range<usize>, marks: Marks, wake: Wake) -> anyhow::Result<Self> {
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
        let from = marks.clone();
        std::thread::Builder::new().name("file reader".into()).spawn(move || {
            let last = match read(&state, files, &from, &output) {
                Ok(()) => Message::End,
                Err(e) => Message::Failed(e),
            };
            output.send(last);
        })?;
        Ok(FilePartition {
            messages,
            position,
            marks,
            paced,
            stop,
        })
    }
}

impl Partition for FilePartition {
    fn poll(&mut self) -> anyhow::Result<Poll> {
        loop {
            return match self.messages.try_recv() {
                Ok(Message::Block(batch, position, file, mark)) => {
                    self.position = position;
                    self.marks.set(file, mark);
                    Ok(Poll::Batch(batch))
                }
                Ok(Message::Read(file, mark)) => {
                    self.marks.set(file, mark);
                    continue;
                }
                Ok(Message::End) => {
                    self.position.fraction = Some(1.0);
                    Ok(Poll::End)
                }
                Ok(Message::Failed(e)) => Err(e),
                Err(TryRecvError::Empty) if self.paced => Ok(Poll::Idle),
                Err(TryRecvError::Empty) => Ok(Poll::Wait),
                Err(TryRecvError::Disconnected) => {
                    anyhow::bail!("the thread that reads {} has died", self.position.text)
                }
            };
        }
    }

    fn offset(&self) -> Value {
        self.marks.offset()
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

/// Reads files one after another, each from its mark on.
fn read(state: &Arc<FileState>, files: Range<usize>, marks: &Marks, output: &Output) -> anyhow::Result<()> {
    let inputs = state.inputs()?;
    let total = inputs[files.clone()].iter().map(|input| input.bytes).sum::<u64>();
    let mut paced = state.pace.clone().map(|pace| Paced::new(state, pace));
    if let (Some(paced), true) = (&mut paced, marks.is_empty()) {
        let side_by_side = state.side_by_side();
        paced.start_at_first(
            state,
            if side_by_side {
                0..inputs.len()
            } else {
                files.start..files.start + 1
            },
        )?;
    }
    let mut row = marks.rows();
    let mut before = 0;
    for file in files {
        let (input, mark) = (&inputs[file], marks.of(file));
        let rows_read = mark.map_or(0, |mark| mark.rows);
        if state.settings.file_is_machine() {
            row = rows_read;
        }
        let mut blocks = Blocks::open(state, file, mark, row)?;
        let mut begin = blocks.mark()?;
        let mut played = mark.and_then(|mark| mark.till).unwrap_or_default();
        while let Some((block, bytes_done)) = blocks.next().with_context(|| input.name.clone())? {
            let end = blocks.mark()?;
            let fraction = Some(((before + bytes_done) as f64 / total.max(1) as f64).min(1.0));
            let text = format!("{}:{}", input.name, end.rows);
            let position = Position { text, fraction };
            let parts = match &mut paced {
                Some(paced) => paced.parts(block, std::mem::take(&mut played))?,
                None => block
                    .after(std::mem::take(&mut played))
                    .map(|rest| (rest, None))
                    .into_iter()
                    .collect(),
            };
            let count = parts.len();
            for (index, (part, span)) in parts.into_iter().enumerate() {
                if paced.as_ref().is_some_and(|paced| !output.sleep(paced.until(span))) {
                    return Ok(());
                }
                // A part within a block: read the block again, and play the rest of it.
                let till = Some(part.offset + part.length).filter(|_| index + 1 < count);
                let mark = till.map_or_else(|| end.clone(), |_| Mark { till, ..begin.clone() });
                if !output.send(Message::Block(part.into_batch()?, position.clone(), file, mark)) {
                    return Ok(());
                }
            }
            begin = end;
        }
        row = blocks.row;
        before += input.bytes;
        let whole = Mark { whole: true, ..begin };
        if !output.send(Message::Read(file, whole)) {
            return Ok(());
        }
    }
    Ok(())
}
