//! What came in, between a connection's thread and the partition. While the queue is full, the thread waits and so reads nothing
//! from the socket.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use taktline_engine::Wake;

use super::client::{Incoming, MessageAck};

const QUEUE_MESSAGES: usize = 32_768;
const QUEUE_BYTES: usize = 32 << 20;
const BATCH_MESSAGES: usize = 16_384;
const BATCH_BYTES: usize = 1 << 20;
/// The longest payload that is read.
pub(crate) const PAYLOAD_LIMIT: usize = 16 << 20;
/// What is kept of a longer one.
const PAYLOAD_HEAD: usize = 4096;

/// What came in, in the order in which it came.
pub(crate) enum Item {
    /// The broker was reached at this time, and had a session for us or not.
    Connected {
        session_present: bool,
        at: i64,
    },
    Message(Arrived),
}

/// A message that came in.
pub(crate) struct Arrived {
    pub(crate) topic: String,
    /// At most [`PAYLOAD_LIMIT`] bytes; of a longer payload only its head.
    pub(crate) payload: Vec<u8>,
    /// How long the payload was.
    pub(crate) length: usize,
    /// µs since 1970.
    pub(crate) received: i64,
    pub(crate) sequence: u64,
    pub(crate) receipt: Option<MessageAck>,
    /// The broker has sent it before.
    pub(crate) again: bool,
}

impl Arrived {
    fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len()
    }
}

/// The queue, as the partition sees it.
#[derive(Default)]
pub(crate) struct Queue {
    state: Mutex<State>,
    room: Condvar,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    /// No more is taken: the broker keeps what comes now, since it is not acknowledged.
    stopping: bool,
    /// Nobody wants more.
    closed: bool,
    /// Nothing more will come.
    ended: bool,
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came next, up to a batch; and whether it is the last.
    pub(crate) fn take(&self) -> (Vec<Item>, bool) {
        let mut state = self.lock();
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_MESSAGES && bytes < BATCH_BYTES {
            let Some(item) = state.items.pop_front() else { break };
            if let Item::Message(message) = &item {
                bytes += message.bytes();
            }
            batch.push(item);
        }
        state.bytes -= bytes;
        self.room.notify_one();
        (batch, (state.ended || state.stopping) && state.items.is_empty())
    }

    /// True after [`Queue::stop`].
    pub(crate) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    pub(crate) fn stop(&self) {
        self.lock().stopping = true;
        self.room.notify_all();
    }

    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.room.notify_all();
    }
}

/// The queue, as the connection's thread sees it.
pub(crate) struct Producer {
    queue: Arc<Queue>,
    wake: Wake,
    sequence: u64,
}

impl Producer {
    pub(crate) fn new(queue: Arc<Queue>, wake: Wake) -> Self {
        Producer {
            queue,
            wake,
            sequence: 0,
        }
    }

    /// Takes what came in; waits for room.
    pub(crate) fn take(&mut self, incoming: Incoming<'_>) -> ControlFlow<()> {
        let received = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_micros() as i64);
        let item = match incoming {
            Incoming::Connected { session_present } => Item::Connected {
                session_present,
                at: received,
            },
            Incoming::Message(message) => {
                let length = message.payload.len();
                let kept = if length > PAYLOAD_LIMIT { PAYLOAD_HEAD } else { length };
                let arrived = Arrived {
                    topic: String::from_utf8_lossy(message.topic).into_owned(),
                    payload: message.payload[..kept].to_vec(),
                    length,
                    received,
                    sequence: self.sequence,
                    receipt: message.receipt,
                    again: message.again,
                };
                self.sequence += 1;
                Item::Message(arrived)
            }
        };
        self.push(item)
    }

    fn push(&self, item: Item) -> ControlFlow<()> {
        let full = |state: &mut State| {
            let is_full = state.items.len() >= QUEUE_MESSAGES || state.bytes >= QUEUE_BYTES;
            is_full && !state.closed && !state.stopping
        };
        let mut state = self
            .queue
            .room
            .wait_while(self.queue.lock(), full)
            .unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return ControlFlow::Break(());
        }
        if state.stopping {
            return ControlFlow::Continue(()); // acknowledgements of what was taken still have to go out
        }
        let was_empty = state.items.is_empty();
        if let Item::Message(message) = &item {
            state.bytes += message.bytes();
        }
        state.items.push_back(item);
        drop(state);
        if was_empty {
            (self.wake)();
        }
        ControlFlow::Continue(())
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.queue.lock().ended = true;
        (self.wake)();
    }
}
