//! The journal's thread: polls the real partition, appends, commits in groups, acknowledges.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::append::Current;
use super::folder;
use super::quota::{Quota, Room};
use super::shared::{Failure, Recent, Shared};
use super::watch::{Count, Watch};
use super::{Settings, Wake};
use crate::fault;
use crate::source::{Partition, Poll};

/// How long the thread rests when nothing wakes it.
const REST: Duration = Duration::from_millis(5);

/// After a batch of few rows, more of them are let gather for so long: a batch has its price in every step that follows.
const GATHER: Duration = Duration::from_millis(2);
const FEW_ROWS: usize = 1024;

/// What the thread does before it polls again.
enum Rest {
    No,
    Gather,
    UntilWoken,
}

pub(super) struct Writer {
    pub settings: Settings,
    pub shared: Arc<Shared>,
    pub watch: Watch,
    pub quota: Quota,
    pub inner: Box<dyn Partition>,
    pub wake: Wake,
    pub current: Option<Current>,
    pub record: Vec<u8>,
    /// Number of the next batch and of the next segment.
    pub next: u64,
    pub number: u64,
    /// Batches of the partition that are appended or dropped, and those that it was told of.
    pub settled: u64,
    pub acknowledged: u64,
    pub pending: Vec<Recent>,
    pub pending_bytes: u64,
    pub pending_rows: u64,
    pub committed: Option<Instant>,
    pub draining: bool,
    pub refused: bool,
}

impl Writer {
    pub fn new(
        settings: Settings,
        shared: Arc<Shared>,
        (next, number): (u64, u64),
        inner: Box<dyn Partition>,
        wake: Wake,
        watch: Watch,
    ) -> Self {
        Writer {
            settings,
            shared,
            watch,
            quota: Quota::default(),
            inner,
            wake,
            current: None,
            record: Vec::new(),
            next,
            number,
            settled: 0,
            acknowledged: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            pending_rows: 0,
            committed: None,
            draining: false,
            refused: false,
        }
    }

    /// Runs until the partition ends, the run stops, or nothing can be written.
    pub fn run(mut self) {
        self.shared.lock().position = self.inner.position();
        let failure = self.work().err();
        let (shared, wake) = (Arc::clone(&self.shared), Arc::clone(&self.wake));
        drop(self); // closes the real partition first
        shared.end(failure);
        wake();
    }

    fn work(&mut self) -> Result<(), Failure> {
        let own = |error| Failure {
            error,
            after_all: false,
        };
        while !self.shared.gone() {
            if self.shared.stopping.load(Ordering::Acquire) && !self.draining {
                self.draining = true;
                if !self.inner.stop() {
                    return self.commit().map_err(own);
                }
            }
            let room = self.room(self.draining).map_err(own)?;
            let rest = if room == Room::Wait {
                Rest::UntilWoken
            } else {
                match self.inner.poll() {
                    Ok(Poll::Batch(batch)) => {
                        self.take(&batch, room).map_err(own)?;
                        if batch.num_rows() < FEW_ROWS {
                            Rest::Gather
                        } else {
                            Rest::No
                        }
                    }
                    Ok(Poll::Idle | Poll::Wait) => Rest::UntilWoken,
                    Ok(Poll::End) => return self.commit().map_err(own),
                    Err(error) => {
                        self.commit().map_err(own)?;
                        return Err(Failure { error, after_all: true });
                    }
                }
            };
            let due = self.due();
            if due == Some(Duration::ZERO) {
                self.commit().map_err(own)?;
                continue;
            }
            let at_most = |rest: Duration| due.map_or(rest, |due| due.min(rest));
            match rest {
                Rest::No => {}
                Rest::Gather => std::thread::sleep(at_most(GATHER)), // each message would wake it
                Rest::UntilWoken => std::thread::park_timeout(at_most(REST)),
            }
        }
        Ok(())
    }

    /// When the next commit is due, if there is something to commit. A segment that is full is committed at once and closed.
    fn due(&self) -> Option<Duration> {
        let full = (self.current.as_ref()).is_some_and(|current| self.settings.segment_limit() <= current.bytes);
        let last = self.committed.filter(|_| !full);
        let due = last.map_or(Duration::ZERO, |at| {
            self.settings.sync_every.saturating_sub(at.elapsed())
        });
        (self.acknowledged < self.settled).then_some(due)
    }

    /// Makes durable what was appended, shows it to the reader, and acknowledges it.
    pub fn commit(&mut self) -> anyhow::Result<()> {
        if self.acknowledged == self.settled {
            return Ok(());
        }
        let fresh = self.next - self.shared.lock().durable;
        if let Some(current) = self.current.as_ref().filter(|_| fresh > 0) {
            fault::point("journal.sync")
                .and_then(|()| current.file.sync_data())
                .with_context(|| {
                    let path = folder::path(&self.settings.folder, current.header.number);
                    format!(
                        "fsync of {}: what it holds since the last one may be lost",
                        path.display()
                    )
                })?;
            self.watch.add(Count::Syncs, 1);
        }
        self.committed = Some(Instant::now());
        (self.settings.fence)()?;
        self.show(fresh);
        fault::point("journal.acknowledge").context("acknowledging to the source")?;
        let told = self.inner.acknowledge(self.settled);
        self.acknowledged = self.settled;
        if let Err(error) = &told
            && !self.refused
        {
            self.watch
                .say(format!("{error:#}; the source may give again what the journal has"));
        }
        self.refused = told.is_err();
        Ok(())
    }

    fn show(&mut self, fresh: u64) {
        let mut state = self.shared.lock();
        state.position = self.inner.position();
        if fresh == 0 {
            return;
        }
        self.watch.add(Count::Batches, fresh);
        self.watch.add(Count::Unread, fresh);
        self.watch.add(Count::Rows, std::mem::take(&mut self.pending_rows));
        state.durable = self.next;
        let full = match (&self.current, state.segments.back_mut()) {
            (Some(current), Some(segment)) => {
                (segment.end, segment.bytes, segment.rows) = (self.next, current.bytes, Some(current.rows));
                segment.open = current.bytes < self.settings.segment_limit();
                !segment.open
            }
            _ => false,
        };
        self.pending.drain(..).for_each(|recent| state.window.push(recent));
        drop(state);
        if full {
            self.current = None;
        }
        self.pending_bytes = 0;
        (self.wake)();
    }
}
