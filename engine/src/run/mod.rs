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
//! - `outlet`: hands rows to the sinks' threads and holds the epoch until they took them.

mod columns;
mod decode;
mod exchange;
mod feed;
mod graph;
mod in_arrival;
mod in_time;
mod keyed;
mod names;
mod outlet;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::metrics::Metrics;
use crate::plan::Plan;
use crate::source::Position;
use crate::taps::Taps;

/// How a plan is run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Worker threads, at least 1. The result does not depend on it.
    pub workers: usize,
    /// Shortest time between two epochs of a source that never ends.
    pub epoch: Duration,
    /// How long a stop waits for a sink whose target is away.
    pub sink_patience: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            workers: 1,
            epoch: Duration::from_millis(20),
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
    failure: Mutex<Option<anyhow::Error>>,
    remarks: Mutex<Vec<Remark>>,
    positions: Mutex<Vec<Position>>,
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
            failure: Mutex::default(),
            remarks: Mutex::default(),
            positions: Mutex::default(),
        }))
    }

    /// What runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
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

    /// Runs until all sources have ended or the run is stopped, and everything is published. Gives what the steps had to
    /// say in the end, in a fixed order.
    ///
    /// # Errors
    /// The first thing that could not go on: a source that can't be read, a sink that can't be written, an operator's
    /// error. What was read before it is published as far as the sinks could take it.
    pub fn execute(self: &Arc<Self>) -> anyhow::Result<Vec<Remark>> {
        let partitions = feed::list(&self.plan)?;
        let doors = outlet::open_all(self)?;
        let senders: Vec<outlet::Door> = doors.iter().map(|sink| sink.door.clone()).collect();
        *self.positions.lock().unwrap_or_else(PoisonError::into_inner) =
            vec![Position::default(); partitions.iter().map(Vec::len).sum()];
        let (run, senders) = (Arc::clone(self), Mutex::new(senders));
        let guards = timely::execute(timely::Config::process(self.options.workers.max(1)), move |worker| {
            let senders = senders.lock().unwrap_or_else(PoisonError::into_inner).clone();
            graph::work(worker, &run, &partitions, &senders);
        })
        .map_err(anyhow::Error::msg)?;
        for worker in guards.join() {
            if let Err(message) = worker {
                self.fail(anyhow::anyhow!("a worker ended early: {message}"));
            }
        }
        outlet::close_all(self, doors);
        self.taps.close();
        if let Some(error) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(error);
        }
        let mut remarks = std::mem::take(&mut *self.remarks.lock().unwrap_or_else(PoisonError::into_inner));
        remarks.sort();
        Ok(remarks)
    }

    /// Records the first error and ends the run.
    pub(crate) fn fail(&self, error: anyhow::Error) {
        self.failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_or_insert(error);
        self.stop();
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
