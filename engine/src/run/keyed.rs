//! The one driver of all steps: stash an epoch's frames, apply them key by key, flush what the operators emit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::Pipeline;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::frontier::MutableAntichain;

use super::clock::now_us;
use super::graph::Frames;
use super::in_arrival::InArrival;
use super::in_time::{InTime, Released};
use super::keys::Keys;
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
    slots: Vec<Slot>,
    /// What keys that were forgotten still have on disk.
    gone: Vec<(String, [OnDisk; SLOTS])>,
    forget_after_us: Option<i64>,
    ledger: Option<Shared>,
    output: Output,
}

/// What moved the time of keys.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Moved {
    ByRows,
    BySilence,
}

/// A key in a step.
#[derive(Default)]
struct Slot {
    /// None in a slot that is not in use.
    operator: Option<Box<dyn Operator>>,
    on_disk: [OnDisk; SLOTS],
    /// Since it was last written.
    changed: bool,
    /// Since the last tick.
    heard: bool,
    /// The tick at or after its newest row.
    last_tick: Option<i64>,
}

enum Ordering {
    Time(InTime),
    Arrival(InArrival),
}

impl Slot {
    /// The operator, to be given something.
    fn at_work(&mut self, heard: bool) -> Option<&mut Box<dyn Operator>> {
        self.changed = true;
        self.heard |= heard;
        self.operator.as_mut()
    }
}

impl Ordering {
    fn keys(&mut self) -> &mut Keys {
        match self {
            Ordering::Time(in_time) => &mut in_time.keys,
            Ordering::Arrival(in_arrival) => &mut in_arrival.keys,
        }
    }
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
            slots: Vec::new(),
            gone: Vec::new(),
            forget_after_us: run.plan().forget_after.map(|after| after.as_micros() as i64),
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
        for (key, slots) in restored {
            let number = self.order.keys().number(&key);
            self.meet();
            for (slot, kept) in slots.into_iter().enumerate() {
                let Some(kept) = kept else { continue };
                let own = &mut self.slots[number as usize];
                own.on_disk[slot] = ledger.borrow_mut().adopt(&key, &kept);
                let saved = Saved::from(kept);
                let restored = match (slot, &mut self.order, &mut own.operator) {
                    (TIME, Ordering::Time(in_time), _) => in_time.restore_key(number, &saved),
                    (OPERATOR, _, Some(operator)) => operator.restore(&saved),
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
        for (key, mut on_disk) in self.gone.drain(..) {
            for (slot, on_disk) in on_disk.iter_mut().enumerate() {
                ledger.write_gone(checkpoint, (&self.name, slot, &key), on_disk)?;
            }
        }
        let cleans = ledger.cleans();
        for (number, own) in self.slots.iter_mut().enumerate() {
            let Some(operator) = &mut own.operator else { continue };
            let changed = std::mem::take(&mut own.changed);
            for (slot, on_disk) in own.on_disk.iter_mut().enumerate() {
                let whole = ledger.wants_whole(*on_disk);
                let cleaned = cleans && on_disk.there() && whole;
                if !changed && !cleaned {
                    continue;
                }
                let mut snapshot = Snapshot::new(whole);
                match (slot, &self.order) {
                    (TIME, Ordering::Time(in_time)) => in_time.snapshot(number as u32, &mut snapshot)?,
                    (OPERATOR, _) => operator.snapshot(&mut snapshot)?,
                    _ => {
                        // Of a step that ordered by time once.
                        let key = self.order.keys().name(number as u32);
                        ledger.write_gone(checkpoint, (&self.name, slot, key), on_disk)?;
                        continue;
                    }
                }
                let key = self.order.keys().name(number as u32);
                ledger.write(checkpoint, (&self.name, slot, key), &snapshot, on_disk)?;
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
                    self.hand_out(released, Moved::ByRows)?;
                    self.note_watermark();
                }
                Ordering::Arrival(in_arrival) => {
                    let arrived = in_arrival.epoch(&batches)?;
                    self.meet();
                    for (key, range) in arrived.runs {
                        if let Some(operator) = self.slots[key as usize].at_work(true) {
                            operator.rows(&Rows::new(&arrived.batch, range), &mut self.output)?;
                        }
                    }
                }
            }
        }
        if let (Some(now_us), Ordering::Time(in_time), true) = (tick, &mut self.order, self.patience_us > 0)
            && let Some(released) = in_time.tick(now_us, self.patience_us)?
        {
            self.hand_out(released, Moved::BySilence)?;
        }
        if let (Some(now_us), Some(after_us)) = (tick, self.forget_after_us) {
            self.forget(now_us, after_us)?;
        }
        self.flush(late)
    }

    /// Ends and forgets the keys that have been silent for so long.
    fn forget(&mut self, now_us: i64, after_us: i64) -> anyhow::Result<()> {
        let mut silent = Vec::new();
        for (number, own) in self.slots.iter_mut().enumerate() {
            if std::mem::take(&mut own.heard) || own.last_tick.is_none() {
                own.last_tick = Some(now_us);
            } else if own.operator.is_some() && own.last_tick.is_some_and(|last| now_us - last > after_us) {
                silent.push(number as u32);
            }
        }
        if silent.is_empty() {
            return Ok(());
        }
        if let Ordering::Time(in_time) = &mut self.order {
            let released = in_time.end(&silent)?;
            self.hand_out(released, Moved::ByRows)?;
        }
        for number in silent {
            let mut own = std::mem::take(&mut self.slots[number as usize]);
            if let Some(operator) = &mut own.operator {
                operator.end(&mut self.output)?;
            }
            self.gone.push((self.order.keys().name(number).to_owned(), own.on_disk));
            match &mut self.order {
                Ordering::Time(in_time) => in_time.forget(number),
                Ordering::Arrival(in_arrival) => in_arrival.keys.forget(number),
            }
        }
        Ok(())
    }

    /// Rows first, then how far time has come.
    fn hand_out(&mut self, released: Released, by: Moved) -> anyhow::Result<()> {
        self.meet();
        released
            .wary
            .iter()
            .for_each(|key| self.slots[*key as usize].changed = true);
        for moved in released.moves {
            let heard = !moved.rows.is_empty();
            let own = &mut self.slots[moved.key as usize];
            let changed = own.changed;
            let Some(operator) = own.at_work(heard) else {
                continue;
            };
            if heard {
                operator.rows(&Rows::new(&released.batch, moved.rows), &mut self.output)?;
            }
            let emitted = self.output.len();
            operator.advance(moved.watermark, &mut self.output)?;
            // Silence is measured anew after a restart, so that it has passed is nothing to keep, unless something came of it.
            if by == Moved::BySilence && !heard && self.output.len() == emitted {
                own.changed = changed;
            }
        }
        Ok(())
    }

    /// Makes the operators of keys that are new.
    fn meet(&mut self) {
        let step = &self.run.plan().steps[self.step].step;
        let keys = self.order.keys();
        let met = keys.take_met();
        self.slots.resize_with(keys.slots(), Slot::default);
        for number in met {
            self.slots[number as usize].operator = Some(step.operator(keys.name(number)));
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
        if let Ordering::Time(in_time) = &mut self.order {
            let all: Vec<u32> = in_time.keys.in_use().map(|(number, _)| number).collect();
            let released = in_time.end(&all)?;
            self.hand_out(released, Moved::ByRows)?;
        }
        for (number, machine) in self.order.keys().in_use() {
            let Some(operator) = &mut self.slots[number as usize].operator else {
                continue;
            };
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
            let kind = self.run.plan().steps[self.step].kind;
            let delay = self
                .run
                .metrics
                .watermark_delay_seconds
                .with_label_values(&[self.name.as_str(), kind]);
            delay.set((now_us() as f64 - watermark as f64) / 1e6);
        }
    }

    fn or_fail(&self, emitted: anyhow::Result<Emitted>) -> Emitted {
        emitted.unwrap_or_else(|error| {
            self.run.fail(error.context(format!("step {}", self.name)));
            Emitted::default()
        })
    }
}
