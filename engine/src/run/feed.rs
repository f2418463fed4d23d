//! Opens epochs and fills them from the partitions of one worker.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use timely::container::NoopBuilder;
use timely::dataflow::operators::core::input::Handle;

use super::Run;
use super::graph::Place;
use super::ledger::Shared;
use super::memory::Pace;
use super::resume::Resume;
use crate::frame::{Frame, Origin};
use crate::journal::JournalPartition;
use crate::plan::Plan;
use crate::source::{Partition, Poll, Wake};
use crate::state::Offset;

/// Epochs that may be on their way at once. With the size of a raw batch it bounds the rows in memory.
pub(crate) const EPOCHS_IN_FLIGHT: u64 = 8;

/// Raw batches of bounded partitions in one epoch, over all of them. A constant of the plan, not of the workers, so that
/// rows fall into the same epochs with any number of workers.
const BATCHES_PER_EPOCH: usize = 8;

/// How long an epoch stays open when memory is above its limit.
const SLOW_EPOCH: Duration = Duration::from_secs(1);

/// How often the partitions' positions are noted for people.
const NOTE_EVERY: Duration = Duration::from_millis(250);

pub(crate) type Input = Handle<u64, NoopBuilder<Frame>>;

/// The names of all partitions, by source.
pub(crate) fn list(plan: &Plan) -> anyhow::Result<Vec<Vec<String>>> {
    plan.sources
        .iter()
        .map(|s| s.source.partitions().with_context(|| format!("source {}", s.name)))
        .collect()
}

/// The partitions of one worker and the inputs they feed.
pub(crate) struct Feed {
    run: Arc<Run>,
    inputs: Vec<Input>,
    ledger: Option<Shared>,
    partitions: Vec<Fed>,
    /// Offsets of partitions that have ended.
    ended: Vec<(u32, u32, Offset)>,
    per_epoch: usize,
    epoch: u64,
    /// Epochs that may be on their way. Below a limit of memory it begins with one, and with each it is seen what they take.
    width: u64,
    /// The epoch from which it may be one more.
    wider_from: u64,
    stopped: bool,
    behind: bool,
    released: u64,
    committed: u64,
    opened: Instant,
    noted: Instant,
}

/// A partition that is being read.
struct Fed {
    reader: Reader,
    source: usize,
    /// Place in the source, and among all partitions.
    number: u32,
    place: usize,
    bounded: bool,
    sequence: u64,
    /// Batches polled in this run.
    polled: u64,
    /// Batches given in the epoch that is open.
    given: usize,
    settled: bool,
    ended: bool,
}

/// How a partition is read.
enum Reader {
    /// It can be read again from an offset.
    Replayable(Box<dyn Partition>),
    /// Through the journal.
    Journaled(Box<JournalPartition>),
    /// It can't, and no state is kept: acknowledged as soon as it was polled.
    Fleeting(Box<dyn Partition>),
}

impl Reader {
    fn partition(&mut self) -> &mut dyn Partition {
        match self {
            Reader::Replayable(partition) | Reader::Fleeting(partition) => partition.as_mut(),
            Reader::Journaled(partition) => partition.as_mut(),
        }
    }
}

/// What the feed wants next.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Next {
    /// Go on at once.
    Now,
    /// Nothing to do for this long, unless woken.
    After(Duration),
    /// All partitions have ended and the inputs are closed.
    Ended,
}

impl Feed {
    /// Opens the partitions of one worker, where the last checkpoint left them.
    pub fn open(
        run: &Arc<Run>,
        partitions: &[Vec<String>],
        inputs: Vec<Input>,
        ledger: Option<Shared>,
        resume: Option<&Resume>,
        place: Place,
    ) -> anyhow::Result<Self> {
        let thread = std::thread::current();
        let mut fed = Vec::new();
        let mut next_place = 0;
        let mut bounded_partitions = 0;
        for (source, names) in partitions.iter().enumerate() {
            let planned = &run.plan().sources[source];
            for (number, name) in names.iter().enumerate() {
                let own = next_place % place.peers == place.index;
                let at = next_place;
                next_place += 1;
                bounded_partitions += usize::from(planned.source.bounded());
                if !own {
                    continue;
                }
                let thread = thread.clone();
                let wake: Wake = Arc::new(move || thread.unpark());
                let from = resume.and_then(|resume| resume.offset(planned, name));
                let reader = open(run, (source, number, name), from.as_ref(), resume, wake)
                    .with_context(|| format!("source {}", planned.name))?;
                fed.push(Fed {
                    reader,
                    source,
                    number: number as u32,
                    place: at,
                    bounded: planned.source.bounded(),
                    sequence: from.map_or(0, |offset| offset.sequence),
                    polled: 0,
                    given: 0,
                    settled: false,
                    ended: false,
                });
            }
        }
        let now = Instant::now();
        let mut feed = Feed {
            run: Arc::clone(run),
            inputs,
            ledger,
            partitions: fed,
            ended: Vec::new(),
            per_epoch: (BATCHES_PER_EPOCH / bounded_partitions.max(1)).max(1),
            epoch: 0,
            width: run.plan().memory_limit_bytes.map_or(EPOCHS_IN_FLIGHT, |_| 1),
            wider_from: 2,
            stopped: false,
            behind: false,
            released: 0,
            committed: 0,
            opened: now,
            noted: now,
        };
        if let (Some(ledger), Some(resume)) = (feed.ledger.clone(), resume) {
            let offsets = feed.offsets();
            let mut ledger = ledger.borrow_mut();
            ledger.passed.insert(resume.checkpoint(), offsets);
        }
        Ok(feed)
    }

    /// The epoch that is open; none when all partitions have ended.
    pub fn epoch(&self) -> Option<u64> {
        (!self.inputs.is_empty()).then_some(self.epoch)
    }

    /// Tells the run whether a journal here holds something that was not read yet.
    fn note_behind(&mut self) {
        let behind = |fed: &Fed| matches!(&fed.reader, Reader::Journaled(journal) if !journal.caught_up());
        let behind = self.partitions.iter().any(behind);
        if behind != std::mem::replace(&mut self.behind, behind) {
            self.run.note_behind(behind);
        }
    }

    /// Fills the open epoch and opens the next when it is full. `taken` tells whether the sinks have taken an epoch.
    pub fn turn(&mut self, taken: impl Fn(u64) -> bool) -> anyhow::Result<Next> {
        if self.stops_now() && !std::mem::replace(&mut self.stopped, true) {
            self.stop()?;
        }
        self.say_committed();
        self.release()?;
        self.note_behind();
        if self.partitions.is_empty() {
            if !self.inputs.is_empty() {
                self.note_offsets();
                self.inputs.clear();
            }
            return Ok(Next::Ended);
        }
        if !self.has_room(taken) {
            return Ok(Next::After(Duration::from_millis(1)));
        }
        let mut waits = false;
        for fed in &mut self.partitions {
            match fed.fill(&mut self.inputs, self.per_epoch) {
                Ok(must_wait) => waits |= must_wait,
                Err(error) => {
                    // It is not read again; the others fill their epochs up to the last checkpoint.
                    fed.ended = true;
                    let source = &self.run.plan().sources[fed.source].name;
                    self.run.end_with(error.context(format!("source {source}")));
                }
            }
        }
        if self.partitions.iter().any(|fed| fed.ended) {
            self.part();
        }
        if waits {
            return Ok(Next::After(Duration::from_millis(1)));
        }
        if let Some(rest) = self.pause() {
            return Ok(Next::After(rest));
        }
        if self.noted.elapsed() >= NOTE_EVERY {
            self.noted = Instant::now();
            self.run.say_what_journals_say();
            for fed in &mut self.partitions {
                fed.note(&self.run);
            }
        }
        self.note_offsets();
        if self.stop_at().is_some_and(|last| self.epoch >= last) {
            self.stopped = true;
            self.stop()?;
        } else {
            self.next_epoch();
        }
        Ok(Next::Now)
    }

    /// Whether the open epoch may be filled.
    fn has_room(&self, taken: impl Fn(u64) -> bool) -> bool {
        let on_their_way = match self.run.pace() {
            Pace::Full => self.width,
            Pace::Slow if self.opened.elapsed() < SLOW_EPOCH && self.stop_at().is_none() => return false,
            Pace::Single | Pace::Slow => 1,
        };
        self.epoch < on_their_way || taken(self.epoch - on_their_way)
    }

    /// The epoch of the checkpoint that ends a run with state, once it is known.
    fn stop_at(&self) -> Option<u64> {
        self.ledger.as_ref()?.borrow().stop_at
    }

    /// A run without state stops where it is. One with state fills its epochs up to the last checkpoint, so that a stop changes nothing.
    fn stops_now(&self) -> bool {
        self.ledger.is_none() && self.run.stopping()
    }

    /// With state the next run reads on from the checkpoint. Without it, what outside believes to be ours is still read.
    fn stop(&mut self) -> anyhow::Result<()> {
        let mut stopped = Ok(());
        for fed in &mut self.partitions {
            let left = fed.reader.partition().stop();
            fed.ended = self.ledger.is_some() || !left;
            if let (Reader::Journaled(journal), true, true) = (&mut fed.reader, left, stopped.is_ok()) {
                stopped = journal.poll().map(drop); // a journal that could not stop in good order says why
            }
        }
        self.part();
        stopped
    }

    /// Lets partitions go that have ended.
    fn part(&mut self) {
        let (gone, left): (Vec<Fed>, Vec<Fed>) = self.partitions.drain(..).partition(|fed| fed.ended);
        self.partitions = left;
        for mut fed in gone {
            fed.note(&self.run);
            self.ended.push(fed.offset());
        }
    }

    /// Tells partitions that can be read again which of their offsets are in a checkpoint.
    fn say_committed(&mut self) {
        let Some(ledger) = &self.ledger else { return };
        let ledger = ledger.borrow();
        if ledger.committed == std::mem::replace(&mut self.committed, ledger.committed) {
            return;
        }
        let Some(offsets) = ledger.passed.get(&self.committed) else {
            return;
        };
        for fed in &mut self.partitions {
            let own =
                |(source, number, _): &&(u32, u32, Offset)| (*source as usize, *number) == (fed.source, fed.number);
            if let (Reader::Replayable(partition), Some((_, _, offset))) = (&mut fed.reader, offsets.iter().find(own)) {
                partition.committed(&offset.at);
            }
        }
    }

    /// Lets journals forget what no checkpoint needs.
    fn release(&mut self) -> anyhow::Result<()> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        let mut ledger = ledger.borrow_mut();
        if ledger.released == self.released {
            return Ok(());
        }
        self.released = ledger.released;
        let Some((oldest, offsets)) = ledger.passed.range(..=self.released).next_back() else {
            return Ok(());
        };
        for fed in &mut self.partitions {
            let own =
                |(source, number, _): &&(u32, u32, Offset)| (*source as usize, *number) == (fed.source, fed.number);
            if let (Reader::Journaled(journal), Some((_, _, offset))) = (&mut fed.reader, offsets.iter().find(own)) {
                journal.release(&offset.at)?;
            }
        }
        let oldest = *oldest;
        ledger.passed.retain(|checkpoint, _| *checkpoint >= oldest);
        Ok(())
    }

    fn note_offsets(&mut self) {
        if let Some(ledger) = self.ledger.clone() {
            let offsets = self.offsets();
            ledger.borrow_mut().note_offsets(self.epoch, offsets);
        }
    }

    fn offsets(&mut self) -> Vec<(u32, u32, Offset)> {
        let open = self.partitions.iter_mut().map(Fed::offset);
        self.ended.iter().cloned().chain(open).collect()
    }

    /// How long the open epoch must stay open for sources that go on for ever. One that gave all an epoch takes has more: it isn't
    /// kept waiting.
    fn pause(&self) -> Option<Duration> {
        let rests = |fed: &Fed| fed.given == 0 || !fed.bounded && fed.given < self.per_epoch;
        if self.partitions.is_empty() || !self.partitions.iter().all(rests) {
            return None;
        }
        self.run
            .options
            .epoch
            .checked_sub(self.opened.elapsed())
            .filter(|rest| !rest.is_zero())
    }

    fn next_epoch(&mut self) {
        self.epoch += 1;
        if self.run.pace() != Pace::Full {
            (self.width, self.wider_from) = (1, self.epoch + 2);
        } else if self.width < EPOCHS_IN_FLIGHT && self.epoch >= self.wider_from {
            self.width += 1;
            // By then as many epochs as are on their way have been taken.
            self.wider_from = self.epoch + 2 * self.width;
        }
        self.opened = Instant::now();
        for input in &mut self.inputs {
            input.advance_to(self.epoch);
        }
        for fed in &mut self.partitions {
            fed.given = 0;
            fed.settled = false;
        }
    }
}

/// Opens a partition, through its journal if it can't be read twice and the run keeps state.
fn open(
    run: &Arc<Run>,
    (source, number, name): (usize, usize, &str),
    from: Option<&Offset>,
    resume: Option<&Resume>,
    wake: Wake,
) -> anyhow::Result<Reader> {
    let planned = &run.plan().sources[source];
    let at = from.map(|offset| &offset.at);
    if planned.source.replayable() {
        return Ok(Reader::Replayable(planned.source.open(number, at, wake)?));
    }
    let Some(resume) = resume else {
        return Ok(Reader::Fleeting(planned.source.open(number, None, wake)?));
    };
    let journal = resume.journal(run, (source, number, name), at, wake)?;
    Ok(Reader::Journaled(Box::new(journal)))
}

impl Fed {
    /// Takes what the partition has for the open epoch; true when the epoch must wait for more.
    fn fill(&mut self, inputs: &mut [Input], per_epoch: usize) -> anyhow::Result<bool> {
        while !self.settled && self.given < per_epoch {
            match self.reader.partition().poll()? {
                Poll::Batch(batch) => {
                    self.polled += 1;
                    if let Reader::Fleeting(partition) = &mut self.reader {
                        partition.acknowledge(self.polled)?;
                    }
                    let origin = Origin {
                        partition: (self.source as u32, self.number),
                        sequence: self.sequence,
                    };
                    inputs[self.source].send_batch(&mut Frame::rows(batch, origin));
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

    /// Tells the run where it has come to.
    fn note(&mut self, run: &Run) {
        let partition = self.reader.partition();
        if let Some(lag) = partition.lag() {
            let name = run.partition_name(self.source, self.number as usize);
            let labels = &[run.plan().sources[self.source].name.as_str(), &name];
            let lag = i64::try_from(lag).unwrap_or(i64::MAX);
            run.metrics.source_lag.with_label_values(labels).set(lag);
        }
        run.set_position(self.place, partition.position());
    }

    fn offset(&mut self) -> (u32, u32, Offset) {
        let offset = Offset {
            sequence: self.sequence,
            at: self.reader.partition().offset(),
        };
        (self.source as u32, self.number, offset)
    }
}
