//! Between the senders and the dataflow: a bounded queue, and who waits until their rows are safe.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use taktline_engine::Wake;

use super::keys::Ticket;
use super::raw::{self, Content};

const QUEUE_ROWS: usize = 524_288;
const QUEUE_BYTES: usize = 32 << 20;
const BATCH_ROWS: usize = 16_384;
const BATCH_BYTES: usize = 1 << 20;

/// Rows on their way, and who waits for them.
pub(super) struct Push {
    pub content: Content,
    /// None where nobody waits: rows that were all refused.
    pub ticket: Option<Ticket>,
}

/// Why a push isn't taken now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    Full,
    Stopping,
}

pub(super) struct Queue {
    state: Mutex<State>,
    wake: Wake,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Push>,
    rows: usize,
    bytes: usize,
    stopping: bool,
    /// The tickets of each batch that was polled, and how many batches before them were acknowledged.
    unacknowledged: VecDeque<Vec<Ticket>>,
    acknowledged: u64,
    taken: u64,
}

impl Queue {
    pub(super) fn new(wake: Wake) -> Self {
        Queue {
            state: Mutex::default(),
            wake,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes rows, or says why not.
    pub(super) fn offer(&self, push: Push) -> Result<(), Closed> {
        let mut state = self.lock();
        if state.stopping {
            return Err(Closed::Stopping);
        }
        // A body that is more than the queue may hold still goes into an empty one.
        let (rows, bytes) = (push.content.rows(), push.content.bytes());
        let is_full = state.rows + rows > QUEUE_ROWS || state.bytes + bytes > QUEUE_BYTES;
        if is_full && !state.waiting.is_empty() {
            return Err(Closed::Full);
        }
        let was_empty = state.waiting.is_empty();
        state.rows += rows;
        state.bytes += bytes;
        state.waiting.push_back(push);
        drop(state);
        if was_empty {
            (self.wake)();
        }
        Ok(())
    }

    /// True while there is no room for anything.
    pub(super) fn closed(&self) -> Option<Closed> {
        let state = self.lock();
        if state.stopping {
            return Some(Closed::Stopping);
        }
        (state.rows >= QUEUE_ROWS || state.bytes >= QUEUE_BYTES).then_some(Closed::Full)
    }

    /// The next raw batch: whole requests, so that one is in the journal as a whole or not at all. None: there is nothing.
    pub(super) fn take(&self) -> anyhow::Result<Option<RecordBatch>> {
        let mut pushes = Vec::new();
        let mut state = self.lock();
        let (mut rows, mut bytes) = (0, 0);
        while rows < BATCH_ROWS
            && bytes < BATCH_BYTES
            && let Some(push) = state.waiting.pop_front()
        {
            rows += push.content.rows();
            bytes += push.content.bytes();
            pushes.push(push);
        }
        state.rows -= rows;
        state.bytes -= bytes;
        drop(state);
        if pushes.is_empty() {
            return Ok(None);
        }
        let batch = raw::batch(pushes.iter().map(|push| &push.content))?;
        let mut state = self.lock();
        state.taken += batch.num_rows() as u64;
        let tickets = pushes.into_iter().filter_map(|push| push.ticket).collect();
        state.unacknowledged.push_back(tickets);
        Ok(Some(batch))
    }

    /// The first `batches` batches are safe: says so to those who wait.
    pub(super) fn acknowledge(&self, batches: u64) {
        let mut state = self.lock();
        let mut safe = Vec::new();
        while state.acknowledged < batches
            && let Some(tickets) = state.unacknowledged.pop_front()
        {
            state.acknowledged += 1;
            safe.extend(tickets);
        }
        drop(state); // a ticket has a lock of its own
        safe.into_iter().for_each(Ticket::settle);
    }

    /// Takes nothing any more. True when something waits.
    pub(super) fn stop(&self) -> bool {
        let mut state = self.lock();
        state.stopping = true;
        !state.waiting.is_empty()
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Rows that were taken so far.
    pub(super) fn taken(&self) -> u64 {
        self.lock().taken
    }

    /// Nobody polls any more: who still waits is told that the rows are lost.
    pub(super) fn close(&self) {
        let (waiting, polled) = {
            let mut state = self.lock();
            state.stopping = true;
            (
                std::mem::take(&mut state.waiting),
                std::mem::take(&mut state.unacknowledged),
            )
        };
        drop((waiting, polled));
    }
}
