//! Raw batches become rows, on all workers.

use std::sync::Arc;
use std::time::Instant;

use timely::container::CapacityContainerBuilder;
use timely::dataflow::channels::pact::DistributorPact;
use timely::dataflow::operators::generic::OutputBuilder;
use timely::dataflow::operators::generic::builder_rc::OperatorBuilder;

use super::Run;
use super::exchange::InTurn;
use super::graph::Frames;
use crate::frame::Frame;
use crate::plan::Edge;

/// The `samples` and the `dead_letters` of a source.
pub(crate) fn decode<'scope>(run: &Arc<Run>, source: usize, raw: Frames<'scope>) -> (Frames<'scope>, Frames<'scope>) {
    let run = Arc::clone(run);
    let planned = &run.plan().sources[source];
    let mut builder = OperatorBuilder::new(planned.name.clone(), raw.scope());
    let mut decoder = planned.source.decoder();
    let metrics = run.metrics.node(&planned.name, planned.kind);
    let mut work = {
        let run = Arc::clone(&run);
        let name = planned.name.clone();
        move |frame: &mut Frame| -> (Option<Frame>, Option<Frame>) {
            let Frame::Rows(packet) = std::mem::take(frame) else {
                return (None, None);
            };
            let started = Instant::now();
            let decoded = match decoder.decode(&packet.batch) {
                Ok(decoded) => decoded,
                Err(error) => {
                    run.fail(error.context(format!("source {name}")));
                    return (None, None);
                }
            };
            metrics.busy_seconds.inc_by(started.elapsed().as_secs_f64());
            let (rows, letters) = (
                decoded.samples.num_rows() as u64,
                decoded.dead_letters.num_rows() as u64,
            );
            metrics.rows_in.inc_by(rows + letters);
            metrics.rows_out.inc_by(rows);
            metrics.dead_letters.inc_by(letters);
            metrics.left_out_rows.inc_by(decoder.left_out());
            run.taps.offer(Edge::Source(source), &name, &decoded.samples);
            let some =
                |batch: arrow::array::RecordBatch| (batch.num_rows() > 0).then(|| Frame::rows(batch, packet.origin));
            (some(decoded.samples), some(decoded.dead_letters))
        }
    };

    type Builder = CapacityContainerBuilder<Frame>;
    let mut input = builder.new_input(raw, DistributorPact(|_| InTurn));
    let (samples, samples_out) = builder.new_output();
    let (dead, dead_out) = builder.new_output();
    let mut samples = OutputBuilder::<_, Builder>::from(samples);
    let mut dead = OutputBuilder::<_, Builder>::from(dead);
    builder.build(move |_| {
        move |_| {
            let (mut samples, mut dead) = (samples.activate(), dead.activate());
            input.for_each(|time, frame| {
                let (rows, letters) = work(frame);
                if let Some(mut rows) = rows {
                    samples.session(&time.delayed(time.time(), 0)).give_container(&mut rows);
                }
                if let Some(mut letters) = letters {
                    dead.session(&time.delayed(time.time(), 1)).give_container(&mut letters);
                }
            });
        }
    });
    (samples_out, dead_out)
}
