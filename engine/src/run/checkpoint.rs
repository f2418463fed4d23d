//! The part of a checkpoint that travels by the dataflow: each worker hands in its state, the leader gathers the reports, and what the
//! processes say of their memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::{DistributorPact, Pipeline};
use timely::dataflow::operators::Capability;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::progress::frontier::MutableAntichain;

use super::Run;
use super::clerk::{Clerk, Job};
use super::exchange::InTurn;
use super::graph::{Frames, Place};
use super::ledger::Shared;
use super::memory::Memory;
use crate::frame::{Barrier, BarrierKind, Frame, Report, Word};

/// Waits until everything of a checkpoint's epoch has passed `ends` on all workers, then hands in this worker's state. The first
/// worker of a process also carries the process's reports to the leader.
pub(crate) fn hand_in<'scope>(
    run: &Arc<Run>,
    clerk: &Arc<Clerk>,
    place: Place,
    ledger: Option<Shared>,
    control: Frames<'scope>,
    ends: Frames<'scope>,
) -> Frames<'scope> {
    let mut builder = OperatorBuilder::new("checkpoint".to_owned(), control.scope());
    let scope = control.scope();
    let activator = scope
        .worker()
        .sync_activator_for(builder.operator_info().address.to_vec());
    let carries = place.local == 0;
    if carries {
        clerk.wake_by(activator);
    }
    let mut control = builder.new_input(control, Pipeline);
    let mut ends = builder.new_input(ends, Pipeline);
    let (output, reports) = builder.new_output();
    let mut output = OutputBuilder::<_, CapacityContainerBuilder<Frame>>::from(output);
    let (run, clerk) = (Arc::clone(run), Arc::clone(clerk));
    // Of one process: a report by each worker and one by each sink.
    let expected = place.threads + run.plan().sinks.len();
    let mut due: BTreeMap<u64, Barrier> = BTreeMap::new();
    let mut open: BTreeMap<u64, (Capability<u64>, usize)> = BTreeMap::new();
    builder.build(move |capabilities| {
        // Held at where the control stream stands, so that a word can be given at any time.
        let mut open_end = carries.then(|| capabilities.into_iter().next()).flatten();
        move |frontiers| {
            control.for_each(|time, frame| match std::mem::take(frame) {
                Frame::Control {
                    word: Word::Barrier(barrier),
                    ..
                } => {
                    due.insert(*time.time(), barrier);
                    if let (Some(ledger), BarrierKind::Stop) = (&ledger, barrier.kind) {
                        ledger.borrow_mut().stop_at = Some(*time.time());
                    }
                    if carries {
                        open.insert(barrier.checkpoint, (time.delayed(time.time(), 0), expected));
                    }
                }
                Frame::Control {
                    word: Word::Committed { checkpoint },
                    ..
                } => {
                    if let Some(ledger) = &ledger {
                        ledger.borrow_mut().committed = checkpoint;
                    }
                }
                Frame::Control {
                    word: Word::Released { checkpoint },
                    ..
                } => {
                    if let Some(ledger) = &ledger {
                        ledger.borrow_mut().released = checkpoint;
                    }
                }
                Frame::Control {
                    word: Word::Pace(pace), ..
                } => run.set_pace(pace),
                Frame::Control {
                    word: Word::Exceeded(exceeded),
                    ..
                } => run.note_reason(exceeded.into()),
                _ => {}
            });
            ends.for_each(|_, _| {});
            while let Some((&epoch, &barrier)) = due
                .first_key_value()
                .filter(|(epoch, barrier)| passed(frontiers, **epoch, barrier.kind))
            {
                due.pop_first();
                let checkpoint = barrier.checkpoint;
                let handed_in = ledger.as_ref().map(|ledger| {
                    let mut ledger = ledger.borrow_mut();
                    let offsets = ledger.offsets_at(epoch, checkpoint)?;
                    let (writer, needs) = ledger.finish(checkpoint)?;
                    anyhow::Ok((offsets, writer, needs))
                });
                let (offsets, writer, needs) = match handed_in {
                    Some(Ok(handed_in)) => handed_in,
                    Some(Err(error)) => return run.fail(error.context("checkpoint")),
                    None => (Vec::new(), None, u64::MAX),
                };
                clerk.ask(Job::Sync {
                    checkpoint,
                    writer,
                    needs,
                    offsets,
                });
            }
            if !carries {
                return;
            }
            let mut output = output.activate();
            for word in clerk.take_words() {
                let checkpoint = match &word {
                    Word::Report(report) => Some(report.checkpoint()),
                    _ => None,
                };
                let mut frame = Frame::Control { worker: 0, word };
                match checkpoint.map(|checkpoint| (checkpoint, open.get_mut(&checkpoint))) {
                    Some((checkpoint, Some((capability, left)))) => {
                        output.session(capability).give_container(&mut frame);
                        *left -= 1;
                        if *left == 0 {
                            open.remove(&checkpoint);
                        }
                    }
                    Some((_, None)) => {}
                    None => {
                        if let Some(capability) = &open_end {
                            output.session(capability).give_container(&mut frame);
                        }
                    }
                }
            }
            match (frontiers[0].frontier().first(), &mut open_end) {
                (Some(stands), Some(capability)) => capability.downgrade(stands),
                _ => open_end = None,
            }
        }
    });
    reports
}

/// True when everything that belongs to a checkpoint has passed.
fn passed(frontiers: &[MutableAntichain<u64>], epoch: u64, kind: BarrierKind) -> bool {
    match kind {
        BarrierKind::Passing | BarrierKind::Stop => frontiers.iter().all(|frontier| !frontier.less_equal(&epoch)),
        BarrierKind::End => frontiers.iter().all(|frontier| frontier.is_empty()),
    }
}

/// Gathers the reports on worker 0, and has the clerk make the checkpoint real when all are there.
pub(crate) fn gather<'scope>(
    run: &Arc<Run>,
    clerk: &Arc<Clerk>,
    place: Place,
    control: Frames<'scope>,
    reports: Frames<'scope>,
) {
    let mut builder = OperatorBuilder::new("gather".to_owned(), reports.scope());
    let mut reports = builder.new_input(reports, DistributorPact(|_| InTurn));
    let mut control = builder.new_input(control, Pipeline);
    let (run, clerk) = (Arc::clone(run), Arc::clone(clerk));
    let mut memories = BTreeMap::new();
    let expected = place.peers + place.peers / place.threads * run.plan().sinks.len();
    let mut barriers: BTreeMap<u64, Barrier> = BTreeMap::new();
    let mut parts: BTreeMap<u64, Vec<Report>> = BTreeMap::new();
    builder.build(move |_| {
        move |_| {
            control.for_each(|_, frame| {
                if let Frame::Control {
                    word: Word::Barrier(barrier),
                    ..
                } = std::mem::take(frame)
                    && place.index == 0
                {
                    barriers.insert(barrier.checkpoint, barrier);
                }
            });
            reports.for_each(|_, frame| {
                let Frame::Control { word, .. } = std::mem::take(frame) else {
                    return;
                };
                match word {
                    Word::Report(report) => parts.entry(report.checkpoint()).or_default().push(*report),
                    Word::Memory { process, memory } => weigh(&run, &mut memories, process, memory),
                    _ => {}
                }
            });
            if place.index != 0 {
                return;
            }
            while let Some((checkpoint, gathered)) = parts
                .first_key_value()
                .filter(|(_, gathered)| gathered.len() == expected)
            {
                let Some(barrier) = barriers.remove(checkpoint) else {
                    return;
                };
                let reports = gathered.clone();
                parts.pop_first();
                clerk.ask(Job::Commit { barrier, reports });
            }
        }
    });
}

/// What the leader makes of the processes' memory.
fn weigh(run: &Run, memories: &mut BTreeMap<usize, Memory>, process: usize, memory: Memory) {
    memories.insert(process, memory);
    run.want_pace(memories.values().map(|memory| memory.pace()).max().unwrap_or_default());
    if let (Memory::Exceeded(exceeded), false) = (memory, run.stopping()) {
        run.end_with(exceeded.into());
    }
}
