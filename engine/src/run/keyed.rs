//! The one driver of all steps: stash an epoch's frames, apply them key by key, flush what the operators emit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use arrow::array::{Array, RecordBatch, StringArray};
use arrow::compute::concat_batches;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::frontier::MutableAntichain;

use super::graph::Frames;
use super::in_arrival::InArrival;
use super::in_time::{InTime, Released};
use super::ledger::{OPERATOR, OnDisk, SLOTS, Shared, TIME};
use super::{Remark, Run};
use crate::frame::{Barrier, BarrierKind, Frame, Origin, Packet, Word};
use crate::metrics::NodeMetrics;
use crate::operator::{Operator, Order, Output, Rows};
use crate::plan::Edge;
use crate::snapshot::{Saved, Snapshot};

/// The output and the late rows of a step.
pub(crate) fn keyed<'scope>(
    run: &Arc<Run>,
    step: usize,
    rows: Frames<'scope>,
    control: Frames<'scope>,
    ledger: Option<Shared>,
) -> anyhow::Result<(Frames<'scope>, Frames<'scope>)> {
    let planned = &run.plan().steps[step];
    let mut builder = OperatorBuilder::new(planned.name.clone(), rows.scope());
    let mut rows = builder.new_input(rows, Pipeline);
    let mut control = builder.new_input(control, Pipeline);
    let (output, output_stream) = builder.new_output();
    let (late, late_stream) = builder.new_output();
    let mut output = OutputBuilder::<_, CapacityContainerBuilder<Frame>>::from(output);
    let mut late = OutputBuilder::<_, CapacityContainerBuilder<Frame>>::from(late);
    let mut driver = Driver::new(Arc::clone(run), step, ledger)?;
    builder.build(move |capabilities| {
        let mut capabilities = Some(capabilities);
        move |frontiers| {
            let Some(held) = &mut capabilities else { return };
            rows.for_each(|time, frame| driver.stash(*time.time(), std::mem::take(frame)));
            control.for_each(|time, frame| driver.stash(*time.time(), std::mem::take(frame)));
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
    Ok((output_stream, late_stream))
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
    barriers: BTreeMap<u64, Barrier>,
    /// How the input ended, once that was said.
    ending: Option<BarrierKind>,
    order: Ordering,
    patience_us: i64,
    /// By key number.
    operators: Vec<Box<dyn Operator>>,
    /// By key number: what is on disk, and whether it has changed since.
    on_disk: Vec<[OnDisk; SLOTS]>,
    changed: Vec<bool>,
    ledger: Option<Shared>,
    output: Output,
}

enum Ordering {
    Time(InTime),
    Arrival(InArrival),
}

impl Driver {
    fn new(run: Arc<Run>, step: usize, ledger: Option<Shared>) -> anyhow::Result<Self> {
        let planned = &run.plan().steps[step];
        let order = match planned.step.order() {
            Order::Time { lateness_us } => Ordering::Time(InTime::new(lateness_us)),
            Order::Arrival => Ordering::Arrival(InArrival::new()),
        };
        let mut driver = Driver {
            step,
            name: planned.name.clone(),
            metrics: run.metrics.node(&planned.name, planned.kind),
            stash: BTreeMap::new(),
            ticks: BTreeMap::new(),
            barriers: BTreeMap::new(),
            ending: None,
            order,
            patience_us: planned.step.patience_us(),
            operators: Vec::new(),
            on_disk: Vec::new(),
            changed: Vec::new(),
            ledger,
            output: Output::default(),
            run,
        };
        driver.restore().with_context(|| format!("step {}", driver.name))?;
        Ok(driver)
    }

    /// Takes the keys that the last checkpoint had.
    fn restore(&mut self) -> anyhow::Result<()> {
        let Some(ledger) = self.ledger.clone() else {
            return Ok(());
        };
        let mut restored: Vec<_> = ledger.borrow_mut().take_restored(&self.name).into_iter().collect();
        restored.sort_by(|a, b| a.0.cmp(&b.0));
        let keys: Vec<String> = restored.iter().map(|(key, _)| key.clone()).collect();
        let (numbers, names) = match &mut self.order {
            Ordering::Time(in_time) => (in_time.restore(&keys), in_time.keys().clone()),
            Ordering::Arrival(in_arrival) => (in_arrival.restore(&keys), in_arrival.keys().clone()),
        };
        self.meet(&names);
        for (number, (key, slots)) in numbers.into_iter().zip(restored) {
            for (slot, kept) in slots.iter().enumerate() {
                let Some(kept) = kept else { continue };
                self.on_disk[number as usize][slot] = ledger.borrow_mut().adopt(&key, kept);
                let saved = Saved::from(kept);
                let restored = match (slot, &mut self.order) {
                    (TIME, Ordering::Time(in_time)) => in_time.restore_key(number, &saved),
                    (OPERATOR, _) => self.operators[number as usize].restore(&saved),
                    _ => Ok(()),
                };
                restored.with_context(|| format!("the state of {key}"))?;
            }
        }
        Ok(())
    }

    /// Writes the keys that changed since the last checkpoint.
    fn snapshot(&mut self, checkpoint: u64) -> anyhow::Result<()> {
        let Some(ledger) = self.ledger.clone() else {
            return Ok(());
        };
        let mut ledger = ledger.borrow_mut();
        let cleans = ledger.cleans();
        let keys = match &self.order {
            Ordering::Time(in_time) => in_time.keys().clone(),
            Ordering::Arrival(in_arrival) => in_arrival.keys().clone(),
        };
        for (number, changed) in self.changed.iter_mut().enumerate() {
            let changed = std::mem::take(changed);
            for slot in 0..SLOTS {
                let on_disk = &mut self.on_disk[number][slot];
                let whole = ledger.wants_whole(*on_disk);
                let cleaned = cleans && on_disk.there() && whole;
                if !changed && !cleaned {
                    continue;
                }
                let mut snapshot = Snapshot::new(whole);
                match (slot, &self.order) {
                    (TIME, Ordering::Time(in_time)) => in_time.snapshot(number as u32, &mut snapshot)?,
                    (OPERATOR, _) => self.operators[number].snapshot(&mut snapshot)?,
                    _ => continue,
                }
                ledger.write(checkpoint, (&self.name, slot, keys.value(number)), &snapshot, on_disk)?;
            }
        }
        Ok(())
    }

    fn stash(&mut self, epoch: u64, frame: Frame) {
        match frame {
            Frame::Rows(packet) => {
                self.metrics.queue_rows.add(packet.batch.num_rows() as i64);
                self.stash.entry(epoch).or_default().push(packet);
            }
            Frame::Control {
                word: Word::Tick { now_us },
                ..
            } => {
                self.ticks.insert(epoch, now_us);
            }
            Frame::Control {
                word: Word::Barrier(barrier),
                ..
            } => {
                self.barriers.insert(epoch, barrier);
            }
            Frame::Control { .. } => {}
        }
    }

    /// Applies the oldest stashed epoch if it is closed.
    fn apply_next(&mut self, closed: impl Fn(u64) -> bool) -> Option<(u64, Emitted)> {
        let epochs = [
            self.stash.keys().next(),
            self.ticks.keys().next(),
            self.barriers.keys().next(),
        ];
        let oldest = epochs.into_iter().flatten().min().copied()?;
        if !closed(oldest) {
            return None;
        }
        if self.ending == Some(BarrierKind::Stop) {
            // After a stop nothing counts; the next run reads it again.
            self.stash.remove(&oldest);
            self.ticks.remove(&oldest);
            return Some((oldest, Emitted::default()));
        }
        let packets = self.stash.remove(&oldest).unwrap_or_default();
        let tick = self.ticks.remove(&oldest);
        let barrier = self.barriers.remove(&oldest);
        let started = Instant::now();
        let emitted = self.apply(packets, tick).and_then(|emitted| {
            if let Some(barrier) = barrier {
                self.ending = Some(barrier.kind).filter(|kind| *kind != BarrierKind::Passing);
                if barrier.kind != BarrierKind::End {
                    self.snapshot(barrier.checkpoint)?;
                }
            }
            Ok(emitted)
        });
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
                        self.changed[key as usize] = true;
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
        released.wary.iter().for_each(|key| self.changed[*key as usize] = true);
        for moved in released.moves {
            let operator = &mut self.operators[moved.key as usize];
            self.changed[moved.key as usize] = true;
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
            self.on_disk.push(Default::default());
            self.changed.push(false);
        }
    }

    /// The input has ended: what waits is handed out, what is open is emitted. Not when the run was only stopped.
    fn end(&mut self) -> Emitted {
        if self.ending != Some(BarrierKind::End) {
            return Emitted::default();
        }
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
