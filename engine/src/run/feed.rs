//! Opens epochs and fills them from the partitions of one worker.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use timely::container::NoopBuilder;
use timely::dataflow::operators::core::input::Handle;

use super::Run;
use crate::frame::{Frame, Origin};
use crate::plan::Plan;
use crate::source::{Partition, Poll};

/// Epochs that may be on their way at once. With the size of a raw batch it bounds the rows in memory.
const EPOCHS_IN_FLIGHT: u64 = 8;

/// Raw batches of bounded partitions in one epoch, over all of them. A constant of the plan, not of the workers, so that
/// rows fall into the same epochs with any number of workers.
const BATCHES_PER_EPOCH: usize = 8;

/// How often passing time is stamped for machines that are silent.
const TICK: Duration = Duration::from_millis(250);

pub(crate) type Input = Handle<u64, NoopBuilder<Frame>>;

/// The names of all partitions, by source.
pub(crate) fn list(plan: &Plan) -> anyhow::Result<Vec<Vec<String>>> {
    use anyhow::Context;
    plan.sources
        .iter()
        .map(|s| s.source.partitions().with_context(|| format!("source {}", s.name)))
        .collect()
}

/// The partitions of one worker and the inputs they feed.
pub(crate) struct Feed {
    run: Arc<Run>,
    inputs: Vec<Input>,
    ticks: Option<Input>,
    partitions: Vec<Fed>,
    per_epoch: usize,
    epoch: u64,
    stopped: bool,
    opened: Instant,
    last_tick: Instant,
}

/// A partition that is being read.
struct Fed {
    partition: Box<dyn Partition>,
    source: usize,
    /// Place in the source, and among all partitions.
    number: u32,
    place: usize,
    bounded: bool,
    sequence: u64,
    /// Batches given in the epoch that is open.
    given: usize,
    settled: bool,
    ended: bool,
}

/// What the feed wants next.
pub(crate) enum Next {
    /// Go on at once.
    Now,
    /// Nothing to do for this long, unless woken.
    After(Duration),
    /// All partitions have ended and the inputs are closed.
    Ended,
}

impl Feed {
    /// Opens the partitions of worker `index` of `peers`.
    pub fn open(
        run: &Arc<Run>,
        partitions: &[Vec<String>],
        inputs: Vec<Input>,
        ticks: Option<Input>,
        (index, peers): (usize, usize),
    ) -> anyhow::Result<Self> {
        let thread = std::thread::current();
        let mut fed = Vec::new();
        let mut place = 0;
        let mut bounded_partitions = 0;
        let mut stamps_time = false;
        let mut first_live = true;
        for (source, names) in partitions.iter().enumerate() {
            let planned = &run.plan().sources[source];
            for number in 0..names.len() {
                if planned.source.bounded() {
                    bounded_partitions += 1;
                } else if std::mem::take(&mut first_live) {
                    stamps_time = place % peers == index; // one worker stamps for all
                }
                if place % peers == index {
                    let thread = thread.clone();
                    let partition = planned.source.open(number, Arc::new(move || thread.unpark()))?;
                    fed.push(Fed {
                        partition,
                        source,
                        number: number as u32,
                        place,
                        bounded: planned.source.bounded(),
                        sequence: 0,
                        given: 0,
                        settled: false,
                        ended: false,
                    });
                }
                place += 1;
            }
        }
        let ticks = ticks.filter(|_| stamps_time);
        let now = Instant::now();
        Ok(Feed {
            run: Arc::clone(run),
            inputs,
            ticks,
            partitions: fed,
            per_epoch: (BATCHES_PER_EPOCH / bounded_partitions.max(1)).max(1),
            epoch: 0,
            stopped: false,
            opened: now,
            last_tick: now,
        })
    }

    /// Fills the open epoch and opens the next when it is full. `taken` tells whether the sinks have taken an epoch.
    pub fn turn(&mut self, taken: impl Fn(u64) -> bool, peers: usize) -> anyhow::Result<Next> {
        if self.run.stopping() && !std::mem::replace(&mut self.stopped, true) {
            self.partitions.retain_mut(|fed| fed.partition.stop());
        }
        if self.partitions.is_empty() {
            self.inputs.clear();
            self.ticks = None;
            return Ok(Next::Ended);
        }
        if self.epoch >= EPOCHS_IN_FLIGHT && !taken(self.epoch - EPOCHS_IN_FLIGHT) {
            return Ok(Next::After(Duration::from_millis(1)));
        }
        let mut waits = false;
        for fed in &mut self.partitions {
            waits |= fed.fill(&mut self.inputs, self.per_epoch)?;
        }
        self.partitions.retain(|fed| {
            if fed.ended {
                self.run.set_position(fed.place, fed.partition.position());
            }
            !fed.ended
        });
        if waits {
            return Ok(Next::After(Duration::from_millis(1)));
        }
        if let Some(rest) = self.pause() {
            return Ok(Next::After(rest));
        }
        if self.last_tick.elapsed() >= TICK {
            self.last_tick = Instant::now();
            self.tick(peers);
        }
        self.next_epoch();
        Ok(Next::Now)
    }

    /// How long the open epoch must stay open for sources that go on for ever.
    fn pause(&self) -> Option<Duration> {
        let live = !self.partitions.is_empty() && self.partitions.iter().all(|fed| fed.given == 0 || !fed.bounded);
        if !live {
            return None;
        }
        self.run
            .options
            .epoch
            .checked_sub(self.opened.elapsed())
            .filter(|rest| !rest.is_zero())
    }

    fn tick(&mut self, peers: usize) {
        for fed in &self.partitions {
            self.run.set_position(fed.place, fed.partition.position());
        }
        let Some(ticks) = &mut self.ticks else { return };
        let now_us = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_micros() as i64);
        for worker in 0..peers {
            ticks.send_batch(&mut Frame::Tick { now_us, worker });
        }
    }

    fn next_epoch(&mut self) {
        self.epoch += 1;
        self.opened = Instant::now();
        for input in self.inputs.iter_mut().chain(self.ticks.as_mut()) {
            input.advance_to(self.epoch);
        }
        for fed in &mut self.partitions {
            fed.given = 0;
            fed.settled = false;
        }
    }
}

impl Fed {
    /// Takes what the partition has for the open epoch; true when the epoch must wait for more.
    fn fill(&mut self, inputs: &mut [Input], per_epoch: usize) -> anyhow::Result<bool> {
        while !self.settled && self.given < per_epoch {
            match self.partition.poll()? {
                Poll::Batch(batch) => {
                    let partition = (self.source as u32, self.number);
                    let mut frame = Frame::rows(
                        batch,
                        Origin {
                            partition,
                            sequence: self.sequence,
                        },
                    );
                    inputs[self.source].send_batch(&mut frame);
                    self.sequence += 1;
                    self.given += 1;
                }
                Poll::Idle => self.settled = true,
                Poll::Wait => return Ok(true),
                Poll::End => {
                    self.ended = true;
                    self.settled = true;
                }
            }
        }
        Ok(false)
    }
}
