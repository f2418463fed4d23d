//! From the dataflow to the sinks' threads, through bounded queues.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use arrow::array::RecordBatch;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::Run;
use super::graph::Frames;
use crate::frame::Frame;
use crate::metrics::NodeMetrics;
use crate::sink::Sink;

/// Batches between the dataflow and a sink's thread.
const DEPTH: usize = 64;

const UNPUBLISHED: &str = "its target took no rows after the stop; what waited for it is not published";

/// How soon a full queue is tried again.
const RETRY: Duration = Duration::from_millis(1);

/// The way into a sink's queue: the number of the input, and rows.
pub(crate) type Door = SyncSender<(usize, RecordBatch)>;

/// A sink at work.
pub(crate) struct Working {
    pub door: Door,
    thread: JoinHandle<()>,
}

/// Opens all sinks, each on a thread of its own.
pub(crate) fn open_all(run: &Arc<Run>) -> anyhow::Result<Vec<Working>> {
    let mut working = Vec::new();
    for (index, planned) in run.plan().sinks.iter().enumerate() {
        let sink = planned.sink.open().with_context(|| format!("sink {}", planned.name))?;
        let (door, queue) = sync_channel(DEPTH);
        let (run, name) = (Arc::clone(run), planned.name.clone());
        let thread = std::thread::Builder::new()
            .name(format!("sink-{name}"))
            .spawn(move || {
                if let Err(error) = serve(&run, index, sink, &queue) {
                    run.fail(error.context(format!("sink {name}")));
                    // Rows still on their way are let go, so that the workers can end.
                    while queue.recv().is_ok() {}
                }
            })?;
        working.push(Working { door, thread });
    }
    Ok(working)
}

/// Closes the queues and waits until everything in them is published.
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

fn serve(
    run: &Run,
    index: usize,
    mut sink: Box<dyn Sink>,
    queue: &Receiver<(usize, RecordBatch)>,
) -> anyhow::Result<()> {
    let planned = &run.plan().sinks[index];
    let metrics = run.metrics.node(&planned.name, planned.kind);
    let every = planned.sink.publish_every();
    let mut due = Instant::now() + every;
    let mut unpublished = false;
    loop {
        let received = queue.recv_timeout(due.saturating_duration_since(Instant::now()));
        let started = Instant::now();
        match received {
            Ok((input, batch)) => {
                sink.write(input, &batch)?;
                metrics.rows_in.inc_by(batch.num_rows() as u64);
                metrics.queue_rows.sub(batch.num_rows() as i64);
                unpublished = true;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => {
                return sink.close();
            }
        }
        if Instant::now() >= due {
            if std::mem::take(&mut unpublished) {
                sink.stage()?;
                sink.publish()?;
            }
            due = Instant::now() + every;
        }
        metrics.busy_seconds.inc_by(started.elapsed().as_secs_f64());
    }
}

/// Hands the rows of one edge to a sink. The stream it gives carries nothing; its frontier says what the sink has taken.
pub(crate) fn outlet<'scope>(
    run: &Arc<Run>,
    (sink, input): (usize, usize),
    rows: Frames<'scope>,
    door: Door,
) -> Frames<'scope> {
    let planned = &run.plan().sinks[sink];
    let metrics = run.metrics.node(&planned.name, planned.kind);
    let mut builder = OperatorBuilder::new(planned.name.clone(), rows.scope());
    let activator = rows.scope().activator_for(builder.operator_info().address);
    let mut rows = builder.new_input(rows, Pipeline);
    let (_output, taken) = builder.new_output::<Frame>();
    let (run, name) = (Arc::clone(run), planned.name.clone());
    let mut queue = Queue {
        input,
        door,
        metrics,
        waiting: VecDeque::new(),
    };
    builder.build(move |capabilities| {
        drop(capabilities);
        move |_| {
            rows.for_each(|time, frame| {
                if let Frame::Rows(packet) = std::mem::take(frame) {
                    queue.push(time.delayed(time.time(), 0), packet.batch);
                }
            });
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

/// Batches that found the sink's queue full, each with the capability that keeps its epoch open.
struct Queue {
    input: usize,
    door: Door,
    metrics: NodeMetrics,
    waiting: VecDeque<(Capability<u64>, RecordBatch)>,
}

impl Queue {
    fn push(&mut self, capability: Capability<u64>, batch: RecordBatch) {
        self.metrics.queue_rows.add(batch.num_rows() as i64);
        self.waiting.push_back((capability, batch));
    }

    /// True when nothing waits any more.
    fn drain(&mut self) -> bool {
        while let Some((capability, batch)) = self.waiting.pop_front() {
            match self.door.try_send((self.input, batch)) {
                Ok(()) => {}
                Err(TrySendError::Full((_, batch))) => {
                    self.waiting.push_front((capability, batch));
                    return false;
                }
                // The sink has failed and the run is ending with its error.
                Err(TrySendError::Disconnected(_)) => self.waiting.clear(),
            }
        }
        true
    }
}
