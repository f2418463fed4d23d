//! Messages between the reading thread and the dataflow, already gathered to raw batches.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use taktline_engine::Wake;

use super::place::Offsets;
use crate::codec::message::{Message, MessageBatch};

const QUEUE_MESSAGES: usize = 32_768;
const QUEUE_BYTES: usize = 32 << 20;
const BATCH_MESSAGES: usize = 16_384;
const BATCH_BYTES: usize = 1 << 20;

/// While it is full, the reading thread waits: it asks the client for nothing, and what the client has fetched ahead stays there.
pub(crate) struct Queue {
    state: Mutex<State>,
    room: Condvar,
    wake: Wake,
}

#[derive(Default)]
struct State {
    full: VecDeque<Gathered>,
    /// The batch that messages are added to; the dataflow takes it as it is when there is no full one.
    open: Gathered,
    messages: usize,
    bytes: usize,
    /// Partitions that were found and where they are read from.
    found: Option<Offsets>,
    /// Where each partition ends, as the broker last said.
    ends: BTreeMap<String, i64>,
    tombstones: u64,
    /// Why reading can't go on.
    fault: Option<anyhow::Error>,
    /// Nobody wants more.
    closed: bool,
}

#[derive(Default)]
struct Gathered {
    batch: MessageBatch,
    messages: usize,
    bytes: usize,
    /// The next offsets after what came, in the order it came; a later one of a partition replaces an earlier one.
    next: Vec<(Arc<str>, i64)>,
}

/// What the dataflow takes at once.
pub(crate) struct Taken {
    /// Partitions that were found since, before any message of them.
    pub found: Option<Offsets>,
    /// A raw batch and the next offsets after it.
    pub batch: Option<RecordBatch>,
    pub next: Vec<(Arc<str>, i64)>,
}

impl Queue {
    pub(crate) fn new(wake: Wake) -> Self {
        Queue {
            state: Mutex::default(),
            room: Condvar::new(),
            wake,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until there is room; false once nobody wants more.
    pub(crate) fn wait_for_room(&self) -> bool {
        let full =
            |state: &mut State| !state.closed && (state.messages >= QUEUE_MESSAGES || state.bytes >= QUEUE_BYTES);
        let state = self.room.wait_while(self.lock(), full);
        !state.unwrap_or_else(PoisonError::into_inner).closed
    }

    /// Adds a message of a partition, or none where it is a tombstone; `next` is the offset after it.
    pub(crate) fn push(&self, key: &Arc<str>, next: i64, message: Option<Message<'_>>) -> anyhow::Result<()> {
        let mut state = self.lock();
        let state = &mut *state;
        let was_empty = state.messages == 0;
        match state.open.next.last_mut() {
            Some((last, at)) if Arc::ptr_eq(last, key) => *at = next,
            _ => state.open.next.push((Arc::clone(key), next)),
        }
        let Some(message) = message else {
            state.tombstones += 1;
            return Ok(());
        };
        let headers: usize = message
            .headers
            .iter()
            .map(|(name, value)| name.len() + value.len())
            .sum();
        let bytes = message.topic.len() + message.key.map_or(0, <[u8]>::len) + headers + message.payload.len();
        state.open.batch.push(message)?;
        state.open.messages += 1;
        state.open.bytes += bytes;
        state.messages += 1;
        state.bytes += bytes;
        if state.open.messages >= BATCH_MESSAGES || state.open.bytes >= BATCH_BYTES {
            let full = std::mem::take(&mut state.open);
            state.full.push_back(full);
        }
        if was_empty {
            (self.wake)();
        }
        Ok(())
    }

    /// Takes the oldest batch, if there is one.
    ///
    /// # Errors
    /// There is none, and there will be none: why reading can't go on.
    pub(crate) fn take(&self) -> anyhow::Result<Taken> {
        let mut state = self.lock();
        let found = state.found.take();
        let gathered = match state.full.pop_front() {
            Some(full) => Some(full),
            // Tombstones alone move offsets, too.
            None if !state.open.next.is_empty() => Some(std::mem::take(&mut state.open)),
            None => None,
        };
        let Some(mut gathered) = gathered else {
            return match state.fault.take() {
                Some(fault) if found.is_none() => Err(fault),
                fault => {
                    state.fault = fault;
                    Ok(Taken {
                        found,
                        batch: None,
                        next: Vec::new(),
                    })
                }
            };
        };
        state.messages -= gathered.messages;
        state.bytes -= gathered.bytes;
        drop(state);
        self.room.notify_one();
        let batch = (gathered.messages > 0).then(|| gathered.batch.finish()).transpose()?;
        Ok(Taken {
            found,
            batch,
            next: gathered.next,
        })
    }

    /// Partitions were found and will be read from here.
    pub(crate) fn found(&self, offsets: Offsets) {
        self.lock().found.get_or_insert_default().extend(offsets);
        (self.wake)();
    }

    pub(crate) fn ends(&self, ends: BTreeMap<String, i64>) {
        self.lock().ends = ends;
    }

    /// How many messages the brokers have beyond these offsets.
    pub(crate) fn lag(&self, offsets: &Offsets) -> Option<u64> {
        let state = self.lock();
        let behind = |(key, end): (&String, &i64)| Some((end - offsets.get(key)?).max(0) as u64);
        (!state.ends.is_empty()).then(|| state.ends.iter().filter_map(behind).sum())
    }

    pub(crate) fn tombstones(&self) -> u64 {
        self.lock().tombstones
    }

    /// Reading can't go on. What came before is still taken.
    pub(crate) fn fail(&self, fault: anyhow::Error) {
        self.lock().fault.get_or_insert(fault);
        (self.wake)();
    }

    /// Nobody wants more.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.room.notify_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn message(payload: &[u8]) -> Message<'_> {
        Message {
            topic: "t",
            key: None,
            headers: &[],
            payload,
            received: 0,
            sequence: 0,
        }
    }

    fn queue() -> (Queue, Arc<AtomicUsize>) {
        let woken = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&woken);
        let wake: Wake = Arc::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
        });
        (Queue::new(wake), woken)
    }

    #[test]
    fn messages_gather_until_they_are_taken() {
        let (queue, woken) = queue();
        let (a, b): (Arc<str>, Arc<str>) = ("t/0".into(), "t/1".into());
        for next in 1..=3 {
            queue.push(&a, next, Some(message(b"x"))).unwrap();
        }
        queue.push(&b, 8, Some(message(b"y"))).unwrap();
        let taken = queue.take().unwrap();
        assert_eq!(taken.batch.unwrap().num_rows(), 4);
        assert_eq!(taken.next, [(a.clone(), 3), (b, 8)]);
        assert_eq!(
            woken.load(Ordering::Relaxed),
            1,
            "only the first finds the dataflow asleep"
        );
        assert!(queue.take().unwrap().batch.is_none());
        // A tombstone is no message, but it was read.
        queue.push(&a, 4, None).unwrap();
        let taken = queue.take().unwrap();
        assert!(taken.batch.is_none());
        assert_eq!((taken.next, queue.tombstones()), (vec![(a, 4)], 1));
    }

    #[test]
    fn batches_are_bounded() {
        let check = |count: usize, payload: usize, expect: &[usize]| {
            let (queue, _) = queue();
            let (key, payload): (Arc<str>, _) = ("t/0".into(), vec![b'x'; payload]);
            for next in 0..count {
                assert!(queue.wait_for_room());
                queue.push(&key, next as i64 + 1, Some(message(&payload))).unwrap();
            }
            let mut rows = Vec::new();
            while let Some(batch) = queue.take().unwrap().batch {
                rows.push(batch.num_rows());
            }
            assert_eq!(rows, expect);
        };
        check(20_000, 1, &[16_384, 3_616]);
        check(3, 600_000, &[2, 1]);
        check(2, 3_000_000, &[1, 1]);
    }

    #[test]
    fn a_full_queue_makes_the_reader_wait_until_something_was_taken() {
        let (queue, _) = queue();
        let queue = Arc::new(queue);
        let key: Arc<str> = "t/0".into();
        for next in 0..QUEUE_MESSAGES {
            queue.push(&key, next as i64 + 1, Some(message(b"x"))).unwrap();
        }
        let waiting = Arc::clone(&queue);
        let thread = std::thread::spawn(move || waiting.wait_for_room());
        assert_eq!(queue.take().unwrap().batch.unwrap().num_rows(), BATCH_MESSAGES);
        assert!(thread.join().unwrap());
        queue.close();
        assert!(!queue.wait_for_room());
    }

    #[test]
    fn a_fault_comes_after_what_was_read() {
        let (queue, _) = queue();
        queue.found(Offsets::from([("t/0".into(), 0)]));
        queue.push(&"t/0".into(), 1, Some(message(b"x"))).unwrap();
        queue.fail(anyhow::anyhow!("gone"));
        let taken = queue.take().unwrap();
        assert_eq!(taken.found, Some(Offsets::from([("t/0".into(), 0)])));
        assert_eq!(taken.batch.unwrap().num_rows(), 1);
        assert_eq!(queue.take().err().unwrap().to_string(), "gone");
    }

    #[test]
    fn lag_is_what_the_brokers_have_beyond() {
        let (queue, _) = queue();
        let at = Offsets::from([("t/0".into(), 3), ("t/1".into(), 9)]);
        assert_eq!(queue.lag(&at), None);
        queue.ends(BTreeMap::from([
            ("t/0".into(), 10),
            ("t/1".into(), 8),
            ("t/2".into(), 5),
        ]));
        assert_eq!(queue.lag(&at), Some(7));
    }
}
