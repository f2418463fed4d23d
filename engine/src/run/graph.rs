//! Builds the dataflow of one worker and turns it until the end.

use std::collections::BTreeMap;
use std::sync::Arc;

use timely::container::NoopBuilder;
use timely::dataflow::channels::pact::DistributorPact;
use timely::dataflow::operators::core::{Concatenate, Input as _, Probe};
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;
use timely::dataflow::{ProbeHandle, Scope, Stream};
use timely::worker::Worker;

use super::Run;
use super::decode::decode;
use super::exchange::ByMachine;
use super::feed::{Feed, Input, Next};
use super::keyed::keyed;
use super::outlet::{Door, outlet};
use crate::frame::Frame;
use crate::plan::Edge;

/// A stream of frames in epochs.
pub(crate) type Frames<'scope> = Stream<'scope, u64, Frame>;

/// Everything one worker does.
pub(crate) fn work(worker: &mut Worker, run: &Arc<Run>, partitions: &[Vec<String>], doors: &[Door]) {
    let place = (worker.index(), worker.peers());
    let (inputs, ticks, probe) = worker.dataflow(|scope| build(scope, run, doors));
    let mut feed = match Feed::open(run, partitions, inputs, ticks, place) {
        Ok(feed) => Some(feed),
        Err(error) => {
            run.fail(error);
            None
        }
    };
    while worker.has_dataflows() {
        let next = match &mut feed {
            Some(open) => open.turn(|epoch| !probe.less_equal(&epoch), place.1),
            None => Ok(Next::Ended),
        };
        match next {
            Ok(Next::Now) => {
                worker.step();
            }
            Ok(Next::After(rest)) => {
                worker.step_or_park(Some(rest));
            }
            Ok(Next::Ended) => {
                feed = None;
                worker.step_or_park(Some(std::time::Duration::from_millis(20)));
            }
            Err(error) => run.fail(error),
        }
    }
}

type Built = (Vec<Input>, Option<Input>, ProbeHandle<u64>);

fn build(scope: Scope<'_, u64>, run: &Arc<Run>, doors: &[Door]) -> Built {
    let plan = run.plan();
    let mut inputs = Vec::new();
    // Ordered maps: every worker must build the same dataflow. Rows as decoded, for sinks; rows at the worker that owns their machine, for steps.
    let mut decoded: BTreeMap<Edge, Frames<'_>> = BTreeMap::new();
    let mut owned: BTreeMap<Edge, Frames<'_>> = BTreeMap::new();
    let mut dead_letters = Vec::new();
    let mut late = Vec::new();
    for source in 0..plan.sources.len() {
        let (input, raw) = scope.new_input_with_builder::<NoopBuilder<Frame>>();
        inputs.push(input);
        let (samples, letters) = decode(run, source, raw);
        owned.insert(Edge::Source(source), by_machine(samples.clone()));
        decoded.insert(Edge::Source(source), samples);
        dead_letters.push(letters);
    }
    let live = plan.sources.iter().any(|planned| !planned.source.bounded());
    let (tick_input, ticks) = if live {
        let (input, ticks) = scope.new_input_with_builder::<NoopBuilder<Frame>>();
        (Some(input), Some(ticks))
    } else {
        (None, None)
    };
    for (index, planned) in plan.steps.iter().enumerate() {
        let inputs = planned.inputs.iter().map(|edge| owned[edge].clone());
        let rows = scope.concatenate(inputs);
        let (output, late_rows) = keyed(run, index, rows, ticks.clone());
        owned.insert(Edge::Step(index), output.clone());
        decoded.insert(Edge::Step(index), output);
        late.push(late_rows);
    }
    decoded.insert(Edge::Late, scope.concatenate(late));
    decoded.insert(Edge::DeadLetters, scope.concatenate(dead_letters));

    // The probe sees what all sinks have taken, and the ends that no sink takes.
    let probe = ProbeHandle::new();
    let mut ends: Vec<Frames<'_>> = Vec::new();
    for (index, (planned, door)) in plan.sinks.iter().zip(doors).enumerate() {
        for (number, edge) in planned.inputs.iter().enumerate() {
            ends.push(outlet(run, (index, number), decoded[edge].clone(), door.clone()));
        }
    }
    ends.extend(decoded.into_values());
    scope.concatenate(ends).probe_with(&probe);
    (inputs, tick_input, probe)
}

fn by_machine(samples: Frames<'_>) -> Frames<'_> {
    let mut builder = OperatorBuilder::new("by machine".to_owned(), samples.scope());
    let mut input = builder.new_input(samples, DistributorPact(|_| ByMachine));
    let (output, owned) = builder.new_output();
    let mut output = OutputBuilder::<_, NoopBuilder<Frame>>::from(output);
    builder.build(move |_| {
        move |_| {
            let mut output = output.activate();
            input.for_each(|time, frame| output.session_with_builder(&time).give_container(frame));
        }
    });
    owned
}
