//! The one driver of all steps: stash an epoch's frames, apply them key by key, flush what the operators emit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arrow::array::{Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{DistributorPact, Pipeline};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::frontier::MutableAntichain;

use super::exchange::InTurn;
use super::graph::Frames;
use super::in_arrival::InArrival;
use super::in_time::{InTime, Released};
use super::{Remark, Run};
use crate::frame::{Frame, Origin, Packet};
use crate::metrics::NodeMetrics;
use crate::operator::{Operator, Order, Output, Rows};
use crate::plan::Edge;

/// The output and the late rows of a step.
pub(crate) fn keyed<'scope>(
    run: &Arc<Run>,
    step: usize,
    rows: Frames<'scope>,
    ticks: Option<Frames<'scope>>,
) -> (Frames<'scope>, Frames<'scope>) {
    let planned = &run.plan().steps[step];
    let mut builder = OperatorBuilder::new(planned.name.clone(), rows.scope());
    let mut rows = builder.new_input(rows, Pipeline);
    let mut ticks = ticks.map(|ticks| builder.new_input(ticks, DistributorPact(|_| InTurn)));
    let (output, output_stream) = builder.new_output();
    let (late, late_stream) = builder.new_output();
    let mut output = OutputBuilder::<_, CapacityContainerBuilder<Frame>>::from(output);
    let mut late = OutputBuilder::<_, CapacityContainerBuilder<Frame>>::from(late);
    let mut driver = Driver::new(Arc::clone(run), step);
    builder.build(move |capabilities| {
        let mut capabilities = Some(capabilities);
        move |frontiers| {
            let Some(held) = &mut capabilities else { return };
            rows.for_each(|time, frame| driver.stash(*time.time(), std::mem::take(frame)));
            if let Some(ticks) = &mut ticks {
                ticks.for_each(|time, frame| driver.stash(*time.time(), std::mem::take(frame)));
            }
            let (mut output, mut late) = (output.activate(), late.activate());
            let mut flush = |held: &[timely::dataflow::operators::Capability<u64>], epoch: u64, emitted: Emitted| {
                if let Some(mut frame) = emitted.rows {
                    output.session(&held[0].delayed(&epoch)).give_container(&mut frame);
                }
                if let Some(mut frame) = emitted.late {
                    late.session(&held[1].delayed(&epoch)).give_container(&mut frame);
                }
            };
            while let Some((epoch, emitted)) = driver.apply_next(|epoch| closed(frontiers, epoch)) {
                flush(held, epoch, emitted);
            }
            // The step's own capability follows its input, so that the end of the input can still emit.
            match frontiers
                .iter()
                .filter_map(|frontier| frontier.frontier().first().copied())
                .min()
            {
                Some(open) => held.iter_mut().for_each(|capability| capability.downgrade(&open)),
                None => {
                    let emitted = driver.end();
                    flush(held, END, emitted);
                    capabilities = None;
                }
            }
        }
    });
    (output_stream, late_stream)
}

/// The epoch of what steps emit when their input has ended: after all others, so that the next step sees it last.
const END: u64 = u64::MAX - 1;

fn closed(frontiers: &[MutableAntichain<u64>], epoch: u64) -> bool {
    frontiers.iter().all(|frontier| !frontier.less_equal(&epoch))
}

/// What an epoch gave.
#[derive(Default)]
struct Emitted {
    rows: Option<Frame>,
    late: Option<Frame>,
}

/// One step on one worker.
struct Driver {
    run: Arc<Run>,
    step: usize,
    name: String,
    metrics: NodeMetrics,
    stash: BTreeMap<u64, Vec<Packet>>,
    ticks: BTreeMap<u64, i64>,
    order: Ordering,
    patience_us: i64,
    /// By key number.
    operators: Vec<Box<dyn Operator>>,
    output: Output,
}

enum Ordering {
    Time(InTime),
    Arrival(InArrival),
}

impl Driver {
    fn new(run: Arc<Run>, step: usize) -> Self {
        let planned = &run.plan().steps[step];
        let order = match planned.step.order() {
            Order::Time { lateness_us } => Ordering::Time(InTime::new(lateness_us)),
            Order::Arrival => Ordering::Arrival(InArrival::new()),
        };
        Driver {
            step,
            name: planned.name.clone(),
            metrics: run.metrics.node(&planned.name, planned.kind),
            stash: BTreeMap::new(),
            ticks: BTreeMap::new(),
            order,
            patience_us: planned.step.patience_us(),
            operators: Vec::new(),
            output: Output::default(),
            run,
        }
    }

    fn stash(&mut self, epoch: u64, frame: Frame) {
        match frame {
            Frame::Rows(packet) => {
                self.metrics.queue_rows.add(packet.batch.num_rows() as i64);
                self.stash.entry(epoch).or_default().push(packet);
            }
            Frame::Tick { now_us, .. } => {
                self.ticks.insert(epoch, now_us);
            }
        }
    }

    /// Applies the oldest stashed epoch if it is closed.
    fn apply_next(&mut self, closed: impl Fn(u64) -> bool) -> Option<(u64, Emitted)> {
        let oldest = self
            .stash
            .keys()
            .next()
            .into_iter()
            .chain(self.ticks.keys().next())
            .min()
            .copied()?;
        if !closed(oldest) {
            return None;
        }
        let packets = self.stash.remove(&oldest).unwrap_or_default();
        let tick = self.ticks.remove(&oldest);
        let started = Instant::now();
        let emitted = self.apply(packets, tick);
        self.metrics.busy_seconds.inc_by(started.elapsed().as_secs_f64());
        Some((oldest, self.or_fail(emitted)))
    }

    fn apply(&mut self, mut packets: Vec<Packet>, tick: Option<i64>) -> anyhow::Result<Emitted> {
        packets.sort_by_key(|packet| packet.origin);
        let batches: Vec<RecordBatch> = packets.into_iter().map(|packet| packet.batch).collect();
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        self.metrics.queue_rows.sub(rows as i64);
        self.metrics.rows_in.inc_by(rows as u64);
        let mut late = None;
        if !batches.is_empty() {
            match &mut self.order {
                Ordering::Time(in_time) => {
                    let released = in_time.epoch(&self.name, &batches)?;
                    late = released.late.clone();
                    self.hand_out(released)?;
                    self.note_watermark();
                }
                Ordering::Arrival(in_arrival) => {
                    let arrived = in_arrival.epoch(&batches)?;
                    let keys = in_arrival.keys().clone();
                    self.meet(&keys);
                    for (key, range) in arrived.runs {
                        self.operators[key as usize].rows(&Rows::new(&arrived.batch, range), &mut self.output)?;
                    }
                }
            }
        }
        if let (Some(now_us), Ordering::Time(in_time), true) = (tick, &mut self.order, self.patience_us > 0)
            && let Some(released) = in_time.tick(now_us, self.patience_us)?
        {
            self.hand_out(released)?;
        }
        self.flush(late)
    }

    /// Rows first, then how far time has come.
    fn hand_out(&mut self, released: Released) -> anyhow::Result<()> {
        let Ordering::Time(in_time) = &self.order else {
            return Ok(());
        };
        let keys = in_time.keys().clone();
        self.meet(&keys);
        for moved in released.moves {
            let operator = &mut self.operators[moved.key as usize];
            if !moved.rows.is_empty() {
                operator.rows(&Rows::new(&released.batch, moved.rows), &mut self.output)?;
            }
            operator.advance(moved.watermark, &mut self.output)?;
        }
        Ok(())
    }

    /// Makes the operators of keys that were not known.
    fn meet(&mut self, keys: &StringArray) {
        let step = &self.run.plan().steps[self.step].step;
        for number in self.operators.len()..keys.len() {
            self.operators.push(step.operator(keys.value(number)));
        }
    }

    /// The input has ended: what waits is handed out, what is open is emitted.
    fn end(&mut self) -> Emitted {
        let emitted = self.end_all();
        self.or_fail(emitted)
    }

    fn end_all(&mut self) -> anyhow::Result<Emitted> {
        let keys = match &mut self.order {
            Ordering::Time(in_time) => {
                let released = in_time.end()?;
                let keys = in_time.keys().clone();
                self.hand_out(released)?;
                keys
            }
            Ordering::Arrival(in_arrival) => in_arrival.keys().clone(),
        };
        for (operator, machine) in self.operators.iter_mut().zip(keys.iter().flatten()) {
            operator.end(&mut self.output)?;
            if let Some(text) = operator.remark() {
                self.run.remark(Remark {
                    step: self.name.clone(),
                    machine: machine.to_owned(),
                    text,
                });
            }
        }
        self.flush(None)
    }

    fn flush(&mut self, late: Option<RecordBatch>) -> anyhow::Result<Emitted> {
        let node = self.run.plan().sources.len() + self.step;
        let origin = Origin {
            partition: (node as u32, 0),
            sequence: 0,
        };
        let mut emitted = Emitted::default();
        if let Some(late) = late {
            self.metrics.late_rows.inc_by(late.num_rows() as u64);
            emitted.late = Some(Frame::rows(late, origin));
        }
        let batches = self.output.take();
        if let Some(first) = batches.first() {
            let rows = concat_batches(&first.schema(), &batches)?;
            self.metrics.rows_out.inc_by(rows.num_rows() as u64);
            self.run.taps.offer(Edge::Step(self.step), &self.name, &rows);
            emitted.rows = Some(Frame::rows(rows, origin));
        }
        Ok(emitted)
    }

    fn note_watermark(&self) {
        if let Ordering::Time(in_time) = &self.order
            && let Some(watermark) = in_time.newest_watermark()
        {
            let now = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0.0, |since| since.as_secs_f64());
            let kind = self.run.plan().steps[self.step].kind;
            let delay = self
                .run
                .metrics
                .watermark_delay_seconds
                .with_label_values(&[self.name.as_str(), kind]);
            delay.set(now - watermark as f64 / 1e6);
        }
    }

    fn or_fail(&self, emitted: anyhow::Result<Emitted>) -> Emitted {
        emitted.unwrap_or_else(|error| {
            self.run.fail(error.context(format!("step {}", self.name)));
            Emitted::default()
        })
    }
}
