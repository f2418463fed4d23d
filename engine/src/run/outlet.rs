//! From the dataflow to the sinks' threads, through bounded queues.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use arrow::array::RecordBatch;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::frontier::MutableAntichain;

use super::Run;
use super::clerk::Clerk;
use super::graph::{Frames, Place};
use super::memory::Pace;
use crate::frame::{Barrier, BarrierKind, Frame, Report, Word};
use crate::metrics::NodeMetrics;
use crate::sink::{Opening, Sink};
use crate::state::Staged;

/// Errands between the dataflow and a sink's thread.
const DEPTH: usize = 64;

const UNPUBLISHED: &str = "its target took no rows after the stop; what waited for it is not published";

/// How soon a full queue is tried again.
pub(crate) const RETRY: Duration = Duration::from_millis(1);

/// What a sink's thread is asked to do.
pub(crate) enum Errand {
    /// Take rows from an outlet.
    Rows { from: Outlet, batch: RecordBatch },
    /// This outlet has given all rows up to a checkpoint.
    Mark { from: Outlet, checkpoint: u64 },
    /// A checkpoint has become real.
    Publish { checkpoint: u64, staged: Vec<Staged> },
}

impl Errand {
    fn rows(&self) -> usize {
        match self {
            Errand::Rows { batch, .. } => batch.num_rows(),
            Errand::Mark { .. } | Errand::Publish { .. } => 0,
        }
    }
}

/// Where rows come from: a worker's place in this process, and the sink's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Outlet {
    worker: usize,
    input: usize,
}

/// The way into a sink's queue.
pub(crate) type Door = SyncSender<Errand>;

/// A sink that is open and not yet at work.
pub(crate) struct Opened {
    sink: Box<dyn Sink>,
    queue: Receiver<Errand>,
    pub door: Door,
}

/// A sink at work.
pub(crate) struct Working {
    door: Door,
    thread: JoinHandle<()>,
}

/// Opens all sinks. Each is told of a folder of its own below `staging`.
pub(crate) fn open_all(
    run: &Run,
    (generation, publishes): (u64, bool),
    staging: Option<&Path>,
) -> anyhow::Result<Vec<Opened>> {
    let open = |planned: &crate::plan::PlannedSink| {
        let opening = Opening {
            generation,
            publishes,
            folder: staging.map(|folder| folder.join(&planned.name)),
        };
        let sink = planned
            .sink
            .open(&opening)
            .with_context(|| format!("sink {}", planned.name))?;
        let (door, queue) = sync_channel(DEPTH);
        Ok(Opened { sink, queue, door })
    };
    run.plan().sinks.iter().map(open).collect()
}

impl Opened {
    /// See [`Sink::recover`].
    pub fn recover(&mut self, name: &str, checkpoint: u64, staged: &[Staged]) -> anyhow::Result<()> {
        self.sink
            .recover(checkpoint, staged)
            .with_context(|| format!("sink {name}"))
    }
}

/// Gives every sink a thread of its own.
pub(crate) fn start_all(run: &Arc<Run>, clerk: &Arc<Clerk>, opened: Vec<Opened>) -> anyhow::Result<Vec<Working>> {
    let mut working = Vec::new();
    for (index, Opened { sink, queue, door }) in opened.into_iter().enumerate() {
        let planned = &run.plan().sinks[index];
        let name = planned.name.clone();
        let mut serving = Serving {
            sink,
            index,
            run: Arc::clone(run),
            clerk: Arc::clone(clerk),
            outlets: planned.inputs.len() * run.options.workers,
            metrics: run.metrics.node(&name, planned.kind),
            marked: BTreeSet::new(),
            held: VecDeque::new(),
        };
        let run = Arc::clone(run);
        let thread = std::thread::Builder::new()
            .name(format!("sink-{name}"))
            .spawn(move || {
                if let Err(error) = serving.serve(&queue) {
                    run.fail(error.context(format!("sink {name}")));
                    // Rows still on their way are let go, so that the workers can end.
                    while queue.recv().is_ok() {}
                }
            })?;
        working.push(Working { door, thread });
    }
    Ok(working)
}

/// Closes the queues and waits until everything in them is done.
pub(crate) fn close_all(run: &Run, working: Vec<Working>) {
    for (Working { door, thread }, planned) in working.into_iter().zip(&run.plan().sinks) {
        drop(door);
        while !thread.is_finished() && !run.out_of_patience() {
            std::thread::park_timeout(RETRY); // the thread may wait for a target that is away, for ever
        }
        if !thread.is_finished() {
            run.fail(anyhow::anyhow!(UNPUBLISHED).context(format!("sink {}", planned.name)));
        } else if thread.join().is_err() {
            run.fail(anyhow::anyhow!("a sink's thread panicked"));
        }
    }
}

/// A sink's thread. An outlet that has given its mark is ahead of the others: its rows are held until all marks are there.
struct Serving {
    sink: Box<dyn Sink>,
    index: usize,
    run: Arc<Run>,
    clerk: Arc<Clerk>,
    outlets: usize,
    metrics: NodeMetrics,
    marked: BTreeSet<Outlet>,
    held: VecDeque<Errand>,
}

impl Serving {
    fn serve(&mut self, queue: &Receiver<Errand>) -> anyhow::Result<()> {
        for errand in queue {
            let started = Instant::now();
            self.take(errand)?;
            self.metrics.refused_rows.inc_by(self.sink.refused());
            self.metrics.busy_seconds.inc_by(started.elapsed().as_secs_f64());
        }
        Ok(())
    }

    fn take(&mut self, errand: Errand) -> anyhow::Result<()> {
        match errand {
            Errand::Rows { from, .. } | Errand::Mark { from, .. } if self.marked.contains(&from) => {
                self.held.push_back(errand)
            }
            Errand::Rows { from, batch } => {
                self.sink.write(from.input, &batch)?;
                self.metrics.rows_in.inc_by(batch.num_rows() as u64);
                self.metrics.queue_rows.sub(batch.num_rows() as i64);
                self.run.rows_at_sink(batch.num_rows());
            }
            Errand::Mark { from, checkpoint } => {
                self.marked.insert(from);
                if self.marked.len() == self.outlets {
                    let staged = self.sink.stage(checkpoint)?;
                    let sink = self.index;
                    self.clerk.report(Report::Sink {
                        checkpoint,
                        sink,
                        staged,
                    });
                    self.marked.clear();
                    for errand in std::mem::take(&mut self.held) {
                        self.take(errand)?;
                    }
                }
            }
            Errand::Publish { checkpoint, staged } => self.sink.publish(checkpoint, &staged)?,
        }
        Ok(())
    }
}

/// Hands the rows of one edge to a sink, epoch by epoch as they close, with a mark after each that is a checkpoint. The stream it
/// gives carries nothing; its frontier says what the sink has taken.
pub(crate) fn outlet<'scope>(
    run: &Arc<Run>,
    (sink, input): (usize, usize),
    place: Place,
    rows: Frames<'scope>,
    control: Frames<'scope>,
    door: Door,
) -> Frames<'scope> {
    let planned = &run.plan().sinks[sink];
    let metrics = run.metrics.node(&planned.name, planned.kind);
    let mut builder = OperatorBuilder::new(planned.name.clone(), rows.scope());
    let activator = rows.scope().activator_for(builder.operator_info().address);
    let mut rows = builder.new_input(rows, Pipeline);
    let mut control = builder.new_input(control, Pipeline);
    let (_output, taken) = builder.new_output::<Frame>();
    let (run, name) = (Arc::clone(run), planned.name.clone());
    let from = Outlet {
        worker: place.local,
        input,
    };
    let mut queue = Queue {
        run: Arc::clone(&run),
        from,
        door,
        metrics,
        stash: BTreeMap::new(),
        barriers: BTreeMap::new(),
        over: false,
        waiting: VecDeque::new(),
    };
    builder.build(move |capabilities| {
        drop(capabilities);
        move |frontiers| {
            rows.for_each(|time, frame| {
                if let Frame::Rows(packet) = std::mem::take(frame) {
                    queue.stash(time.delayed(time.time(), 0), packet.batch);
                }
            });
            control.for_each(|time, frame| {
                if let Frame::Control {
                    word: Word::Barrier(barrier),
                    ..
                } = std::mem::take(frame)
                {
                    queue
                        .barriers
                        .insert(*time.time(), (time.delayed(time.time(), 0), barrier));
                }
            });
            queue.release(frontiers);
            if queue.drain() {
                return;
            }
            if run.out_of_patience() {
                queue.waiting.clear();
                run.fail(anyhow::anyhow!(UNPUBLISHED).context(format!("sink {name}")));
            } else {
                activator.activate_after(RETRY);
            }
        }
    });
    taken
}

/// Rows of open epochs, and errands that found the sink's queue full, each with the capability that keeps its epoch open.
struct Queue {
    run: Arc<Run>,
    from: Outlet,
    door: Door,
    metrics: NodeMetrics,
    stash: BTreeMap<u64, Vec<(Capability<u64>, RecordBatch)>>,
    barriers: BTreeMap<u64, (Capability<u64>, Barrier)>,
    /// A stop has passed: nothing after it counts.
    over: bool,
    waiting: VecDeque<(Capability<u64>, Errand)>,
}

impl Queue {
    fn stash(&mut self, capability: Capability<u64>, batch: RecordBatch) {
        self.metrics.queue_rows.add(batch.num_rows() as i64);
        self.stash
            .entry(*capability.time())
            .or_default()
            .push((capability, batch));
    }

    /// Moves closed epochs to the queue, in order, each checkpoint's mark after its epoch.
    fn release(&mut self, frontiers: &[MutableAntichain<u64>]) {
        let closed = |epoch: u64| frontiers.iter().all(|frontier| !frontier.less_equal(&epoch));
        let ended = frontiers.iter().all(|frontier| frontier.is_empty());
        loop {
            let rows = self.stash.first_key_value().map(|(epoch, _)| *epoch);
            let barrier = self
                .barriers
                .first_key_value()
                .map(|(epoch, (_, barrier))| (*epoch, barrier.kind));
            // The mark of the end comes after all rows.
            let barrier_at = barrier.map(|(epoch, kind)| if kind == BarrierKind::End { u64::MAX } else { epoch });
            match (rows, barrier_at) {
                (Some(epoch), at) if closed(epoch) && at.is_none_or(|at| epoch <= at) => {
                    for (capability, batch) in self.stash.remove(&epoch).unwrap_or_default() {
                        if !self.over {
                            let from = self.from;
                            self.waiting.push_back((capability, Errand::Rows { from, batch }));
                        }
                    }
                }
                (_, Some(at)) if closed(at) || (at == u64::MAX && ended) => {
                    if let Some((_, (capability, barrier))) = self.barriers.pop_first() {
                        self.over = barrier.kind != BarrierKind::Passing;
                        let (from, checkpoint) = (self.from, barrier.checkpoint);
                        self.waiting.push_back((capability, Errand::Mark { from, checkpoint }));
                    }
                }
                _ => return,
            }
        }
    }

    /// True when nothing waits any more.
    fn drain(&mut self) -> bool {
        while let Some((capability, errand)) = self.waiting.pop_front() {
            let rows = errand.rows();
            // Near the limit of memory the sink gets batch by batch.
            if rows > 0 && self.run.pace() != Pace::Full && !self.run.sinks_are_done() {
                self.waiting.push_front((capability, errand));
                return false;
            }
            self.run.rows_to_sink(rows);
            match self.door.try_send(errand) {
                Ok(()) => {}
                Err(TrySendError::Full(errand)) => {
                    self.run.rows_at_sink(rows);
                    self.waiting.push_front((capability, errand));
                    return false;
                }
                // The sink has failed and the run is ending with its error.
                Err(TrySendError::Disconnected(_)) => self.waiting.clear(),
            }
        }
        true
    }
}
