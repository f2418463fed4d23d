//! The journal as the dataflow reads it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use arrow::array::RecordBatch;
use serde_json::{Value, json};

use super::Settings;
use super::folder::{self, Segment};
use super::segment::{Next, Reader};
use super::shared::{Recent, Shared};
use super::watch::{Count, Watch};
use crate::fault;
use crate::source::{Partition, Poll, Position};

/// How long a stop waits for what the source still holds.
const STOP: Duration = Duration::from_secs(5);

/// A journal as a partition: yields the durable batches in order, from the window in memory or from the files.
pub struct JournalPartition {
    settings: Settings,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
    reader: Option<Reader>,
    /// The segment, byte and number behind the batch that was last taken from the window.
    known: (u64, u64, u64),
    /// The next batch.
    next: u64,
    stopped: bool,
    watch: Watch,
}

/// Where the next batch is.
enum Place {
    Window(Recent),
    File(Segment),
    NotYet,
    End,
}

impl Partition for JournalPartition {
    fn poll(&mut self) -> anyhow::Result<Poll> {
        loop {
            match self.place()? {
                Place::Window(recent) => {
                    self.known = (recent.segment, recent.ends_at, recent.index + 1);
                    self.advance(recent.index + 1);
                    return Ok(Poll::Batch(recent.batch));
                }
                Place::File(segment) => {
                    if let Some(batch) = self.read(&segment) {
                        return Ok(Poll::Batch(batch));
                    }
                }
                Place::NotYet => return Ok(Poll::Idle),
                Place::End => return Ok(Poll::End),
            }
        }
    }

    /// What isn't read yet stays for the next run. What the source still holds, and outside believes to be ours, is
    /// journaled and acknowledged before this returns, unless that takes more than 5 s. True when poll has an error to tell.
    fn stop(&mut self) -> bool {
        self.stopped = true;
        self.shared.stopping.store(true, Ordering::Release);
        self.thread.thread().unpark();
        if !self.shared.wait(STOP) {
            self.shared.gone.store(true, Ordering::Release);
            self.watch.say(format!(
                "the journal {} could not take all that its source held within {} s; what was not acknowledged will come again",
                self.settings.folder.display(),
                STOP.as_secs()
            ));
        }
        self.shared.lock().failure.is_some()
    }

    fn offset(&self) -> Value {
        json!({ "batch": self.next })
    }

    fn position(&self) -> Position {
        let state = self.shared.lock();
        let unread = state.durable.saturating_sub(self.next);
        let mut position = state.position.clone();
        if unread > 0 {
            position.text = format!("{}, {unread} batches behind in the journal", position.text);
        }
        position
    }
}

/// The number in an offset.
pub(super) fn batch_number(offset: &Value) -> anyhow::Result<u64> {
    let number = offset.get("batch").and_then(Value::as_u64);
    let number = number.filter(|&number| number < u64::MAX / 2); // so that counting on can't overflow
    number.with_context(|| format!("{offset} is no offset of a journal: it looks like {{\"batch\": 12}}"))
}

impl JournalPartition {
    pub(super) fn new(
        settings: Settings,
        shared: Arc<Shared>,
        thread: JoinHandle<()>,
        next: u64,
        watch: Watch,
    ) -> Self {
        JournalPartition {
            settings,
            shared,
            thread,
            reader: None,
            known: (0, 0, 0),
            next,
            stopped: false,
            watch,
        }
    }

    /// Removes the segments that lie wholly before this offset.
    ///
    /// # Errors
    /// It is no offset, a file can't be removed, or another run has taken over.
    pub fn release(&mut self, upto: &Value) -> anyhow::Result<()> {
        let upto = batch_number(upto)?.min(self.next);
        let mut fenced = false;
        loop {
            let mut state = self.shared.lock();
            let released = |segment: &Segment| !segment.open && segment.end <= upto;
            let Some(place) = state.segments.iter().position(released) else {
                break;
            };
            if !std::mem::replace(&mut fenced, true) {
                drop(state);
                (self.settings.fence)()?;
                continue;
            }
            let path = folder::path(&self.settings.folder, state.segments[place].number);
            match fault::point("journal.release").and_then(|()| std::fs::remove_file(&path)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("removing {}", path.display()));
                }
                _ => {}
            }
            let bytes = state.segments.remove(place).map_or(0, |segment| segment.bytes);
            state.bytes -= bytes;
            self.watch.sub(Count::Bytes, bytes);
        }
        self.thread.thread().unpark();
        Ok(())
    }

    /// True when everything durable has been polled.
    pub fn caught_up(&self) -> bool {
        self.next >= self.shared.lock().durable
    }

    fn place(&mut self) -> anyhow::Result<Place> {
        let mut state = self.shared.lock();
        if let Some(failure) = state.failure.take_if(|failure| self.stopped || !failure.after_all) {
            return Err(failure.error);
        }
        if self.stopped {
            return Ok(Place::End);
        }
        if self.next >= state.durable {
            return match state.failure.take() {
                Some(failure) => Err(failure.error),
                None if state.ended => Ok(Place::End),
                None => Ok(Place::NotYet),
            };
        }
        state.read = self.next + 1; // from here on the policy leaves its segment alone
        if let Some(recent) = state.window.take(self.next) {
            return Ok(Place::Window(recent));
        }
        let place = state.segments.partition_point(|segment| segment.end <= self.next);
        let segment = state.segments.get(place).cloned();
        drop(state);
        Ok(match segment {
            Some(segment) => Place::File(segment),
            None => Place::NotYet,
        })
    }

    /// The next batch from a file. None: it isn't there, and reading goes on behind it.
    fn read(&mut self, segment: &Segment) -> Option<RecordBatch> {
        if segment.dropped {
            self.advance(segment.end);
            return None;
        }
        let path = folder::path(&self.settings.folder, segment.number);
        if self
            .reader
            .as_ref()
            .is_none_or(|reader| reader.header.number != segment.number)
        {
            match Reader::open(&path) {
                Ok(Some(reader)) => self.reader = Some(reader),
                Ok(None) => return self.lost(segment, segment.end, "its header is damaged at byte 0"),
                Err(error) => return self.lost(segment, segment.end, &format!("it can't be opened: {error:#}")),
            }
        }
        let (number, at, expected) = self.known;
        if let Some(reader) = self.reader.as_mut()
            && number == segment.number
            && reader.at() < at
        {
            reader.seek(at, expected);
        }
        let mut cause = "batches are missing in it".to_owned();
        loop {
            match self.reader.as_mut()?.next(segment.end, segment.bytes) {
                Ok(Next::Record(record)) if record.index < self.next => {}
                Ok(Next::Record(record)) => {
                    if record.index > self.next {
                        self.lost(segment, record.index, &cause);
                    }
                    let index = record.index;
                    match record.batch() {
                        Ok(batch) => {
                            self.advance(index + 1);
                            return Some(batch);
                        }
                        Err(error) => return self.lost(segment, index + 1, &format!("batch {index}: {error:#}")),
                    }
                }
                Ok(Next::Damage { at, next }) => {
                    cause = format!("it is damaged at byte {at}");
                    if next.is_none() {
                        return self.lost(segment, segment.end, &cause);
                    }
                }
                Ok(Next::End) => return self.lost(segment, segment.end, &cause),
                Err(error) => return self.lost(segment, segment.end, &format!("it can't be read: {error}")),
            }
        }
    }

    /// Passes over batches that can't be read, and says so.
    fn lost(&mut self, segment: &Segment, to: u64, cause: &str) -> Option<RecordBatch> {
        let lost = to - self.next;
        self.watch.add(Count::Lost, lost);
        self.watch.say(format!(
            "{}: {cause}: {lost} batches are lost, from {} on; reading goes on with batch {to}{}",
            folder::path(&self.settings.folder, segment.number).display(),
            self.next,
            folder::quarantine(&self.settings.folder, segment.number, &self.watch)
        ));
        self.advance(to);
        None
    }

    fn advance(&mut self, to: u64) {
        self.watch.sub(Count::Unread, to - self.next);
        self.next = to;
    }
}

impl Drop for JournalPartition {
    fn drop(&mut self) {
        self.shared.gone.store(true, Ordering::Release);
        self.thread.thread().unpark();
        if !self.stopped {
            self.shared.wait(STOP); // so that nobody writes here any more when the next run opens the journal
        }
        let state = self.shared.lock();
        self.watch.sub(Count::Bytes, state.bytes);
        self.watch.sub(Count::Unread, state.durable.saturating_sub(self.next));
    }
}
