//! What the journal's thread and its reader share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;

use super::folder::Segment;
use crate::source::Position;

/// Bytes of recent batches that are kept in memory, so that a reader that keeps up reads no file.
const WINDOW_BYTES: u64 = 12 << 20;

/// Shared between the thread that writes and the dataflow that reads.
pub(super) struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    /// The source shall stop; what it still holds is journaled.
    pub stopping: AtomicBool,
    /// Nobody reads any more: the thread ends as soon as it can.
    pub gone: AtomicBool,
}

pub(super) struct State {
    /// By number, with the one that is being written last.
    pub segments: VecDeque<Segment>,
    /// Bytes on disk, with those that aren't durable yet.
    pub bytes: u64,
    /// Batches before this one are durable.
    pub durable: u64,
    /// Batches before this one were read, or are being read.
    pub read: u64,
    pub window: Window,
    /// Where the real partition is.
    pub position: Position,
    /// The thread has ended.
    pub ended: bool,
    pub failure: Option<Failure>,
}

/// Why the thread ended before its time.
pub(super) struct Failure {
    pub error: anyhow::Error,
    /// What is durable may be read first: the fault is the source's, not the journal's.
    pub after_all: bool,
}

impl Shared {
    pub fn new(segments: VecDeque<Segment>, durable: u64, read: u64) -> Self {
        Shared {
            state: Mutex::new(State {
                bytes: segments.iter().map(|segment| segment.bytes).sum(),
                segments,
                durable,
                read,
                window: Window::default(),
                position: Position::default(),
                ended: false,
                failure: None,
            }),
            changed: Condvar::new(),
            stopping: AtomicBool::new(false),
            gone: AtomicBool::new(false),
        }
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread's last word.
    pub fn end(&self, failure: Option<Failure>) {
        let mut state = self.lock();
        state.ended = true;
        state.failure = failure;
        self.changed.notify_all();
    }

    /// Waits for the thread's end; false when it takes longer.
    pub fn wait(&self, limit: Duration) -> bool {
        let waited = self
            .changed
            .wait_timeout_while(self.lock(), limit, |state| !state.ended);
        waited.unwrap_or_else(PoisonError::into_inner).0.ended
    }

    pub fn gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }
}

/// A batch that was appended, and where its record ends.
pub(super) struct Recent {
    pub index: u64,
    pub batch: RecordBatch,
    pub segment: u64,
    pub ends_at: u64,
    /// In memory, which is more than on disk.
    pub bytes: u64,
}

/// Recent batches in order, perhaps with gaps: what doesn't fit is read from the files.
#[derive(Default)]
pub(super) struct Window {
    recent: VecDeque<Recent>,
    bytes: u64,
}

impl Window {
    pub fn push(&mut self, recent: Recent) {
        if self.bytes + recent.bytes <= WINDOW_BYTES {
            self.bytes += recent.bytes;
            self.recent.push_back(recent);
        }
    }

    /// The batch `index`, if it is here; those before it are forgotten.
    pub fn take(&mut self, index: u64) -> Option<Recent> {
        while self.recent.front().is_some_and(|recent| recent.index <= index) {
            let recent = self.recent.pop_front()?;
            self.bytes -= recent.bytes;
            if recent.index == index {
                return Some(recent);
            }
        }
        None
    }

    /// Forgets the batches `first..end`.
    pub fn forget(&mut self, first: u64, end: u64) {
        self.recent
            .retain(|recent| !(first <= recent.index && recent.index < end));
        self.bytes = self.recent.iter().map(|recent| recent.bytes).sum();
    }
}
