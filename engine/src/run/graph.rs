//! Builds the dataflow of one worker and turns it until the end.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use timely::container::NoopBuilder;
use timely::dataflow::channels::pact::DistributorPact;
use timely::dataflow::operators::core::{Concatenate, Input as _, Probe};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{ProbeHandle, Scope, Stream};
use timely::worker::Worker;

use super::Run;
use super::checkpoint::{gather, hand_in};
use super::clerk::Clerk;
use super::conductor::Conductor;
use super::decode::decode;
use super::exchange::{ByMachine, InTurn};
use super::feed::{Feed, Input, Next};
use super::keyed::keyed;
use super::ledger::Shared;
use super::memory::MemoryWatch;
use super::outlet::{Door, outlet};
use super::resume::Resume;
use crate::frame::{Frame, Word};
use crate::plan::Edge;

/// A stream of frames in epochs.
pub(crate) type Frames<'scope> = Stream<'scope, u64, Frame>;

/// Where a worker stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// Among all workers.
    pub index: usize,
    pub peers: usize,
    /// Among those of its process.
    pub local: usize,
    pub threads: usize,
}

/// What all workers of a process share.
pub(crate) struct Common {
    pub run: Arc<Run>,
    pub clerk: Arc<Clerk>,
    pub partitions: Vec<Vec<String>>,
    pub doors: Vec<Door>,
    pub resume: Option<Resume>,
}

/// Everything one worker does.
pub(crate) fn work(worker: &mut Worker, common: &Common) {
    let Common { run, .. } = common;
    let threads = run.options.workers;
    let place = Place {
        index: worker.index(),
        peers: worker.peers(),
        local: worker.index() % threads,
        threads,
    };
    if let Err(error) = turn(worker, common, place) {
        run.fail(error);
    }
    if run.failed() {
        for dataflow in worker.installed_dataflows() {
            worker.drop_dataflow(dataflow);
        }
    }
}

fn turn(worker: &mut Worker, common: &Common, place: Place) -> anyhow::Result<()> {
    let Common { run, clerk, resume, .. } = common;
    let ledger = resume.as_ref().map(|resume| resume.ledger(place)).transpose()?;
    let built = worker.dataflow(|scope| build(scope, common, place, ledger.as_ref()))?;
    let (taken, raw) = (built.taken, built.raw);
    let mut feed = Feed::open(run, &common.partitions, built.inputs, ledger, resume.as_ref(), place)?;
    let first = resume.as_ref().map_or(1, Resume::first_checkpoint);
    let mut conductor =
        (place.index == 0).then(|| Conductor::new(run, clerk, built.control, place.peers, first, resume.is_some()));
    let process = place.index / place.threads;
    let limit = run.plan().memory_limit_bytes.filter(|_| place.local == 0);
    let mut memory = limit.map(|limit_bytes| MemoryWatch::new(process, limit_bytes));
    while worker.has_dataflows() && !run.failed() {
        // Nothing is on its way when the sinks have done with all that the sources have given.
        let all_taken = || raw.with_frontier(|given| given.iter().all(|epoch| !taken.less_than(epoch)));
        let alone = || run.sinks_are_done() && !raw.done() && all_taken();
        if let Some(memory) = memory.as_mut().and_then(|memory| memory.turn(alone)) {
            clerk.say(Word::Memory { process, memory });
        }
        let next = feed.turn(|epoch| !taken.less_equal(&epoch)).unwrap_or_else(|error| {
            run.end_with(error);
            Next::Now
        });
        let conducting = conductor.as_mut().is_some_and(|conductor| {
            conductor.turn(feed.epoch(), &raw);
            !conductor.done()
        });
        match next {
            Next::Now => {
                worker.step();
            }
            Next::After(rest) => {
                worker.step_or_park(Some(rest));
            }
            Next::Ended => {
                let rest = if conducting { 1 } else { 20 };
                worker.step_or_park(Some(Duration::from_millis(rest)));
            }
        }
    }
    Ok(())
}

struct Built {
    inputs: Vec<Input>,
    control: Input,
    /// What all sinks have taken.
    taken: ProbeHandle<u64>,
    /// What all sources have given.
    raw: ProbeHandle<u64>,
}

fn build(scope: Scope<'_, u64>, common: &Common, place: Place, ledger: Option<&Shared>) -> anyhow::Result<Built> {
    let Common { run, clerk, doors, .. } = common;
    let plan = run.plan();
    let (control_input, control) = scope.new_input_with_builder::<NoopBuilder<Frame>>();
    let control = moved(control, "control", DistributorPact(|_| InTurn));
    let mut inputs = Vec::new();
    // Ordered maps: every worker must build the same dataflow. Rows as decoded, for sinks; rows at the worker that owns their
    // machine, for steps.
    let mut decoded: BTreeMap<Edge, Frames<'_>> = BTreeMap::new();
    let mut owned: BTreeMap<Edge, Frames<'_>> = BTreeMap::new();
    let mut raws = Vec::new();
    let mut dead_letters = Vec::new();
    let mut late = Vec::new();
    for source in 0..plan.sources.len() {
        let (input, raw) = scope.new_input_with_builder::<NoopBuilder<Frame>>();
        inputs.push(input);
        raws.push(raw.clone());
        let (samples, letters) = decode(run, source, raw);
        owned.insert(
            Edge::Source(source),
            moved(samples.clone(), "by machine", DistributorPact(|_| ByMachine)),
        );
        decoded.insert(Edge::Source(source), samples);
        dead_letters.push(letters);
    }
    for (index, planned) in plan.steps.iter().enumerate() {
        let inputs = planned.inputs.iter().map(|edge| owned[edge].clone());
        let rows = scope.concatenate(inputs);
        let (output, late_rows) = keyed(run, index, rows, control.clone(), ledger.cloned())?;
        owned.insert(Edge::Step(index), output.clone());
        decoded.insert(Edge::Step(index), output);
        late.push(late_rows);
    }
    decoded.insert(Edge::Late, scope.concatenate(late));
    decoded.insert(Edge::DeadLetters, scope.concatenate(dead_letters));

    // The probe sees what all sinks have taken, and the ends that no sink takes.
    let (taken, raw) = (ProbeHandle::new(), ProbeHandle::new());
    let mut ends: Vec<Frames<'_>> = Vec::new();
    for (index, (planned, door)) in plan.sinks.iter().zip(doors).enumerate() {
        for (number, edge) in planned.inputs.iter().enumerate() {
            let rows = decoded[edge].clone();
            ends.push(outlet(run, (index, number), place, rows, control.clone(), door.clone()));
        }
    }
    ends.extend(decoded.into_values());
    let ends = scope.concatenate(ends).probe_with(&taken);
    scope.concatenate(raws).probe_with(&raw);
    let ledger = ledger.cloned();
    let reports = hand_in(run, clerk, place, ledger, control.clone(), ends);
    gather(run, clerk, place, control, reports);
    Ok(Built {
        inputs,
        control: control_input,
        taken,
        raw,
    })
}

/// Frames as they are, at the workers they are for.
fn moved<'scope, D>(frames: Frames<'scope>, name: &str, pact: DistributorPact<D>) -> Frames<'scope>
where
    DistributorPact<D>: timely::dataflow::channels::pact::ParallelizationContract<u64, Frame>,
{
    let mut builder = OperatorBuilder::new(name.to_owned(), frames.scope());
    let mut input = builder.new_input(frames, pact);
    let (output, there) = builder.new_output();
    let mut output = OutputBuilder::<_, NoopBuilder<Frame>>::from(output);
    builder.build(move |_| {
        move |_| {
            let mut output = output.activate();
            input.for_each(|time, frame| output.session_with_builder(&time).give_container(frame));
        }
    });
    there
}
