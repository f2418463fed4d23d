//! A plan as a timely dataflow.
//!
//! ```text
//! feed ── raw ──> decode ── samples ──> by machine ──> keyed step ──> keyed step ──> sink
//!          in turn      └── dead letters ──> sink          └── late ──> sink
//! ```
//!
//! - `feed`: each worker polls its partitions and opens epochs, a bounded number ahead of what the sinks have taken.
//! - `decode`: raw batches go to the workers in turn and become rows.
//! - `exchange`: rows go to the worker that owns their machine; there they stay.
//! - `keyed`: the one driver of all steps. It stashes an epoch, brings each key's rows together
//!   (`in_time`, `in_arrival`), lets the operators apply them, flushes what they emit.
//! - `memory`: lets epochs go one at a time when a process comes near its limit.
//! - `outlet`: hands rows to the sinks' threads, epoch by epoch, and holds the epoch until they took them.
//! - `conductor`: worker 0 stamps time, checkpoints and the end into a control stream that all of the above see.
//! - `checkpoint`, `clerk`: each worker hands in its state, the sinks stage, the leader makes the checkpoint real.
//! - `resume`, `ledger`: what a run goes on from, and what each worker has on disk.

mod checkpoint;
mod clerk;
mod clock;
mod columns;
mod conductor;
mod decode;
mod exchange;
mod feed;
mod graph;
mod in_arrival;
mod in_time;
mod keyed;
mod keys;
mod ledger;
mod memory;
mod names;
mod outlet;
mod resume;

use std::any::Any;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use timely::communication::AllocatorBuilder;
use timely::communication::allocator::ProcessBuilder;
use timely::communication::allocator::zero_copy::initialize::initialize_networking_from_sockets;

use crate::metrics::Metrics;
use crate::plan::Plan;
use crate::source::Position;
use crate::taps::Taps;

pub use memory::MemoryExceeded;
pub(crate) use memory::{Memory, Pace};
pub use resume::{Resume, StateOptions};

/// How a plan is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker threads, at least 1. The result does not depend on it.
    pub workers: usize,
    /// Time between two epochs of a source that never ends, unless one is full before.
    pub epoch: Duration,
    /// Time between two checkpoints. What sinks show is as old as the last one.
    pub checkpoint_every: Duration,
    /// How long a stop waits for a sink whose target is away.
    pub sink_patience: Duration,
}

/// The processes of a run: this one's place, and its links to the others.
#[derive(Debug)]
pub struct Fabric {
    /// This process, from 0. Process 0 leads.
    pub process: usize,
    /// All of them.
    pub processes: usize,
    /// A link to each other process, in their order; none at this one's place.
    pub sockets: Vec<Option<UnixStream>>,
}

impl Fabric {
    /// One process alone.
    pub fn alone() -> Self {
        Fabric {
            process: 0,
            processes: 1,
            sockets: vec![None],
        }
    }
}

impl Default for Options {
    fn default() -> Self {
        Options {
            workers: 1,
            epoch: Duration::from_millis(20),
            checkpoint_every: Duration::from_secs(1),
            sink_patience: Duration::from_secs(30),
        }
    }
}

/// A run seen from outside: to stop it and to look at it.
pub struct Run {
    plan: Arc<Plan>,
    options: Options,
    /// Counters and gauges of all nodes.
    pub metrics: Metrics,
    /// Live rows of all edges.
    pub taps: Taps,
    stop: AtomicBool,
    stopped_at: OnceLock<Instant>,
    failed: AtomicBool,
    /// This process does not lead.
    follows: AtomicBool,
    /// Workers with a journal that is not read to its end.
    behind: AtomicUsize,
    /// How fast epochs are to follow each other: in the leading process as memory has it, and in each as the leader said.
    wanted_pace: Mutex<Pace>,
    pace: Mutex<Pace>,
    /// Rows between the dataflow and the sinks of this process.
    with_sinks: AtomicUsize,
    failure: Mutex<Option<anyhow::Error>>,
    remarks: Mutex<Vec<Remark>>,
    positions: Mutex<Vec<Position>>,
    partitions: OnceLock<Vec<Vec<String>>>,
    savepoints: Mutex<Savepoints>,
}

/// Where the number of the checkpoint goes that became a savepoint.
type Answer = Sender<anyhow::Result<u64>>;

/// Savepoints that were asked for: those that wait for the next checkpoint, and those of the one on its way.
#[derive(Default)]
struct Savepoints {
    /// Nobody will take one any more, or ever.
    closed: bool,
    asked: Vec<(String, Answer)>,
    begun: Vec<(String, Answer)>,
}

/// What a step had to say about a key when the input ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// The step.
    pub step: String,
    /// The key.
    pub machine: String,
    /// A sentence.
    pub text: String,
}

impl Run {
    /// Prepares a run of a plan.
    ///
    /// # Errors
    /// The metrics can't be set up.
    pub fn new(plan: Plan, options: Options) -> anyhow::Result<Arc<Self>> {
        let metrics = Metrics::new()?;
        Ok(Arc::new(Run {
            taps: Taps::new(&metrics),
            plan: Arc::new(plan),
            options,
            metrics,
            stop: AtomicBool::new(false),
            stopped_at: OnceLock::new(),
            failed: AtomicBool::new(false),
            follows: AtomicBool::new(false),
            behind: AtomicUsize::new(0),
            wanted_pace: Mutex::default(),
            pace: Mutex::default(),
            with_sinks: AtomicUsize::new(0),
            failure: Mutex::default(),
            remarks: Mutex::default(),
            positions: Mutex::default(),
            partitions: OnceLock::new(),
            savepoints: Mutex::default(),
        }))
    }

    /// What runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// How it runs.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Asks the run to end: sources stop, what was read flows through, sinks publish.
    pub fn stop(&self) {
        self.stopped_at.get_or_init(Instant::now);
        self.stop.store(true, Ordering::Release);
    }

    /// True when the run was asked to end so long ago that a sink which still waits for its target is given up.
    pub(crate) fn out_of_patience(&self) -> bool {
        self.stopped_at
            .get()
            .is_some_and(|at| at.elapsed() >= self.options.sink_patience)
    }

    /// True once the run was asked to end, by [`Run::stop`] or by an error.
    pub fn stopping(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }

    /// Where the sources' partitions have come to.
    pub fn positions(&self) -> Vec<Position> {
        self.positions.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a checkpoint now and names it. Waits until it is there.
    ///
    /// # Errors
    /// The run keeps no state, or has ended; the name can't be given.
    pub fn savepoint(&self, name: &str) -> anyhow::Result<u64> {
        let (answer, answered) = channel();
        let mut savepoints = self.savepoints.lock().unwrap_or_else(PoisonError::into_inner);
        if !savepoints.closed {
            savepoints.asked.push((name.to_owned(), answer));
        }
        drop(savepoints);
        answered
            .recv()
            .unwrap_or_else(|_| Err(anyhow::anyhow!("the run has ended, or keeps no state")))
    }

    /// A worker of this process has come to be behind its journals, or has caught up.
    pub(crate) fn note_behind(&self, behind: bool) {
        if behind {
            self.behind.fetch_add(1, Ordering::AcqRel);
        } else {
            self.behind.fetch_sub(1, Ordering::AcqRel);
        }
    }

    /// True when no journal of this process holds anything that was not read yet.
    pub(crate) fn caught_up(&self) -> bool {
        self.behind.load(Ordering::Acquire) == 0
    }

    pub(crate) fn want_pace(&self, pace: Pace) {
        *self.wanted_pace.lock().unwrap_or_else(PoisonError::into_inner) = pace;
    }

    pub(crate) fn wanted_pace(&self) -> Pace {
        *self.wanted_pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn set_pace(&self, pace: Pace) {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = pace;
    }

    pub(crate) fn pace(&self) -> Pace {
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn rows_to_sink(&self, rows: usize) {
        self.with_sinks.fetch_add(rows, Ordering::AcqRel);
    }

    pub(crate) fn rows_at_sink(&self, rows: usize) {
        self.with_sinks.fetch_sub(rows, Ordering::AcqRel);
    }

    /// True when the sinks of this process have nothing left of what they were given.
    pub(crate) fn sinks_are_done(&self) -> bool {
        self.with_sinks.load(Ordering::Acquire) == 0
    }

    pub(crate) fn say_what_journals_say(&self) {
        for (source, sentence) in self.metrics.journal_sentences() {
            tracing::warn!("source {source}: {sentence}");
        }
    }

    /// Who waits for one is told by the closed channel.
    fn close_savepoints(&self) {
        *self.savepoints.lock().unwrap_or_else(PoisonError::into_inner) = Savepoints {
            closed: true,
            ..Savepoints::default()
        };
    }

    pub(crate) fn wants_checkpoint(&self) -> bool {
        !self
            .savepoints
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .asked
            .is_empty()
    }

    pub(crate) fn checkpoint_begins(&self) {
        let mut savepoints = self.savepoints.lock().unwrap_or_else(PoisonError::into_inner);
        let mut asked = std::mem::take(&mut savepoints.asked);
        savepoints.begun.append(&mut asked);
    }

    pub(crate) fn begun_savepoints(&self) -> Vec<(String, Answer)> {
        std::mem::take(&mut self.savepoints.lock().unwrap_or_else(PoisonError::into_inner).begun)
    }

    /// Runs without state, in this process alone. See [`Run::execute_from`].
    ///
    /// # Errors
    /// As for [`Run::execute_from`].
    pub fn execute(self: &Arc<Self>) -> anyhow::Result<Vec<Remark>> {
        self.execute_from(None, Fabric::alone())
    }

    /// Runs until all sources have ended or the run is stopped, and everything is published. With state it goes on from
    /// `resume`, and a stop leaves open what is open. Gives what the steps had to say in the end, in a fixed order.
    ///
    /// # Errors
    /// The first thing that could not go on: a source that can't be read, a sink that can't be written, an operator's
    /// error. After a source's error everything read before it is published; after any other, everything up to the last checkpoint.
    pub fn execute_from(self: &Arc<Self>, resume: Option<Resume>, fabric: Fabric) -> anyhow::Result<Vec<Remark>> {
        if resume.is_none() {
            self.close_savepoints();
        }
        let executed = self.run_through(resume, fabric);
        self.close_savepoints();
        self.taps.close();
        executed?;
        if let Some(error) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        let mut remarks = std::mem::take(&mut *self.remarks.lock().unwrap_or_else(PoisonError::into_inner));
        remarks.sort();
        Ok(remarks)
    }

    fn run_through(self: &Arc<Self>, resume: Option<Resume>, fabric: Fabric) -> anyhow::Result<()> {
        let leads = fabric.process == 0;
        self.follows.store(!leads, Ordering::Release);
        let generation = resume.as_ref().map_or(0, Resume::generation);
        let staging = resume.as_ref().map(Resume::staging);
        let mut opened = outlet::open_all(self, (generation, leads), staging.as_deref())?;
        if let (Some(resume), true) = (&resume, leads) {
            for (sink, planned) in opened.iter_mut().zip(&self.plan.sinks) {
                let (checkpoint, staged) = resume.published(&planned.name);
                sink.recover(&planned.name, checkpoint, &staged)?;
            }
        }
        if resume.as_ref().is_some_and(Resume::ended) {
            return Ok(());
        }
        let partitions = feed::list(&self.plan)?;
        let _ = self.partitions.set(partitions.clone()); // a run is executed once
        *self.positions.lock().unwrap_or_else(PoisonError::into_inner) =
            vec![Position::default(); partitions.iter().map(Vec::len).sum()];
        let doors: Vec<outlet::Door> = opened.iter().map(|sink| sink.door.clone()).collect();
        let (clerk, queue) = clerk::Clerk::new();
        let working = outlet::start_all(self, &clerk, opened)?;
        let leader = resume.as_ref().and_then(Resume::take_leader);
        // Held until the sinks have published: another run must not begin before.
        let claim = leader
            .as_ref()
            .map(|leader| (Arc::clone(&leader.claim), leader.dir.clone()));
        let desk = clerk::start(self, &clerk, queue, doors.clone(), leader)?;
        let common = graph::Common {
            run: Arc::clone(self),
            clerk: Arc::clone(&clerk),
            partitions,
            doors,
            resume,
        };
        let joined = self.work(common, fabric);
        self.say_what_journals_say();
        clerk.close();
        if desk.join().is_err() {
            self.fail(anyhow::anyhow!("the thread of the checkpoints panicked"));
        }
        outlet::close_all(self, working);
        if let (Some((_claim, dir)), false) = (claim, self.failed()) {
            dir.note_published(clerk.committed())?;
        }
        if self.failed() {
            let late = "the last checkpoint took too long; the next run goes on from the one before";
            let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
            failure.get_or_insert_with(|| anyhow::anyhow!(late));
        }
        joined
    }

    fn work(self: &Arc<Self>, common: graph::Common, fabric: Fabric) -> anyhow::Result<()> {
        let threads = self.options.workers;
        let worker_config = timely::WorkerConfig::default();
        let common = Arc::new(common);
        let guards = if fabric.processes == 1 {
            let config = timely::Config {
                communication: timely::CommunicationConfig::Process(threads),
                worker: worker_config,
            };
            timely::execute(config, move |worker| graph::work(worker, &common))
        } else {
            let (builders, others) = mesh(fabric, threads)?;
            timely::execute::execute_from(builders, others, worker_config, move |worker| {
                graph::work(worker, &common)
            })
        };
        for worker in guards.map_err(anyhow::Error::msg)?.join() {
            if let Err(message) = worker {
                self.fail(anyhow::anyhow!("a worker ended early: {message}"));
            }
        }
        Ok(())
    }

    pub(crate) fn partition_name(&self, source: usize, partition: usize) -> String {
        let names = self
            .partitions
            .get()
            .and_then(|sources| sources.get(source)?.get(partition));
        names.cloned().unwrap_or_else(|| partition.to_string())
    }

    /// Records the first error and ends the run at once: nothing after the last checkpoint counts.
    pub(crate) fn fail(&self, error: anyhow::Error) {
        self.note_failure(error);
        self.failed.store(true, Ordering::Release);
    }

    /// Records the first error and ends the run in good order. A process that does not lead can't do that alone, and fails.
    pub(crate) fn end_with(&self, error: anyhow::Error) {
        if self.follows.load(Ordering::Acquire) {
            return self.fail(error);
        }
        self.note_failure(error);
    }

    fn note_failure(&self, error: anyhow::Error) {
        self.note_reason(error);
        self.stop();
    }

    /// Records the first error. That the run ends is the leader's doing.
    pub(crate) fn note_reason(&self, error: anyhow::Error) {
        let mut failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.get_or_insert(error);
    }

    /// Whether memory is what ended the run.
    pub fn exceeded(&self) -> Option<MemoryExceeded> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref()?.downcast_ref().copied()
    }

    /// Ends the run at once, because a sink keeps the last checkpoint waiting; which one is said when the sinks are closed.
    pub(crate) fn give_up(&self) {
        self.failed.store(true, Ordering::Release);
    }

    /// What ended the run, as far as it is known now.
    pub fn failure(&self) -> Option<String> {
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner);
        failure.as_ref().map(|error| format!("{error:#}"))
    }

    /// True when the run ends at once.
    pub fn failed(&self) -> bool {
        self.failed.load(Ordering::Acquire)
    }

    pub(crate) fn remark(&self, remark: Remark) {
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner).push(remark);
    }

    pub(crate) fn set_position(&self, partition: usize, position: Position) {
        if let Some(slot) = self
            .positions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(partition)
        {
            *slot = position;
        }
    }
}

/// Ends the process on a panic in any thread. timely would hang: the other workers wait for the lost one's progress.
pub fn abort_on_panic() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        report(info);
        std::process::abort();
    }));
}

/// Several processes as timely's own mesh, over links that are there already.
fn mesh(fabric: Fabric, threads: usize) -> anyhow::Result<(Vec<AllocatorBuilder>, Box<dyn Any + Send>)> {
    let Fabric { process, sockets, .. } = fabric;
    let hooks = timely::communication::initialize::Hooks::default();
    let local = ProcessBuilder::new_typed_vector(threads, hooks.refill.clone(), hooks.spill.clone());
    let (builders, guard) = initialize_networking_from_sockets(local, sockets, process, threads, hooks)?;
    let builders = builders.into_iter().map(AllocatorBuilder::Tcp).collect();
    Ok((builders, Box::new(guard)))
}
