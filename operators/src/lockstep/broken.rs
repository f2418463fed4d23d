//! State of any bytes: restored or refused, never a panic.

use serde::de::{DeserializeOwned, SeqAccess, Visitor};
use serde::ser::SerializeTuple;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use taktline_engine::table::samples;

use super::*;
use crate::{alert, anomaly, compare, cycle, cycles, dedup, health, join, resample, window};

/// Bytes as they are, without a length before them.
struct Raw(Vec<u8>);

impl Serialize for Raw {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(self.0.len())?;
        self.0.iter().try_for_each(|byte| tuple.serialize_element(byte))?;
        tuple.end()
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'de> Visitor<'de> for All {
            type Value = Raw;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
                Ok(Raw(std::iter::from_fn(|| seq.next_element().ok().flatten()).collect()))
            }
        }
        deserializer.deserialize_tuple(usize::MAX, All)
    }
}

/// Head and tail as bytes.
pub(super) fn parts(saved: &Saved) -> (Vec<u8>, Vec<u8>) {
    fn read<T: DeserializeOwned>(saved: &Saved) -> T {
        saved.head().unwrap()
    }
    (read::<Raw>(saved).0, saved.appended::<u8>().unwrap())
}

fn of_parts(head: Vec<u8>, tail: Vec<u8>) -> Saved {
    let mut snapshot = Snapshot::new(true);
    snapshot.head(&Raw(head)).unwrap();
    snapshot.append(&Raw(tail)).unwrap();
    snapshot.saved(None)
}

/// A step of each kind, and calls for it.
fn scenes() -> Vec<(Box<dyn Step>, Vec<Call>)> {
    let rows: Vec<(i64, usize, i32)> = (0..40)
        .map(|i| (i % 3, (i * 5 % 7 % 3) as usize, (i * 7 % 10) as i32))
        .collect();
    let of_samples = |kind: &StepKind, yaml| (step(kind, yaml, samples()), sample_calls(&rows, 4, 0));
    let table = || cycles::table(cycles::schema(), false);
    let of_cycles = |kind: &StepKind, yaml| {
        let outer = step(&cycle::KIND, "{start: b changes}", samples());
        let mut worker = Worker::new(outer.as_ref(), 0);
        let calls = sample_calls(&rows, 4, 0);
        let cycles = calls.iter().flat_map(|call| worker.call(call).unwrap()).map(Call::Rows);
        (step(kind, yaml, table()), cycles.chain([Call::End]).collect())
    };
    let compared = compare::tests::compared(compare::tests::Scene::default());
    vec![
        of_samples(
            &cycle::KIND,
            "{start: a rises above 4 for 2ms, end: b falls below 3 for 30ms, max: 60ms}",
        ),
        of_samples(&cycle::KIND, "{start: c changes}"),
        of_samples(&cycle::KIND, "{length: 50ms}"),
        of_cycles(&cycle::KIND, "{start: a rises above 4}"),
        of_samples(&window::KIND, "{every: 10ms}"),
        of_samples(
            &window::KIND,
            "{every: 10ms, early: 3ms, of: [p5, slope], bands: [[0, 99]]}",
        ),
        of_samples(
            &window::KIND,
            "{every: 3ms, length: 20ms, of: [zero_crossings, median]}",
        ),
        of_samples(&window::KIND, "{rows: 4, of: [median], bands: [[0, 99]]}"),
        of_samples(&window::KIND, "{last: 9ms, of: [p95, rate]}"),
        of_samples(&resample::KIND, "{every: 3ms, by: linear}"),
        of_samples(&join::KIND, "{with: {b: value, c: text}}"),
        of_samples(&dedup::KIND, "{within: 9ms}"),
        of_samples(&anomaly::KIND, "{warm_up: 3}"),
        of_cycles(&anomaly::KIND, "{warm_up: 3, of: [mean]}"),
        of_samples(&alert::KIND, "{when: value > 4, for: 2 of 3 rows}"),
        of_cycles(&compare::KIND, "{reference: {first: 2}}"),
        of_cycles(&compare::KIND, "{reference: {last: 3}, per: c}"),
        (
            step(&health::KIND, "{}", compared.0.table),
            compared.1.into_iter().map(Call::Rows).collect(),
        ),
    ]
}

/// Restores damaged state; where that is taken, goes on with it to the end. True when it was taken.
fn endures(step: &dyn Step, saved: &Saved, calls: &[Call]) -> bool {
    let mut worker = Worker::new(step, 2);
    if let Err(error) = worker.operator.restore(saved) {
        assert!(format!("{error:#}").contains("state"), "{error:#}");
        return false;
    }
    for call in calls {
        // Rows that can't be expressed are an error as well.
        let _ = worker.call(call);
        let mut snapshot = Snapshot::new(false);
        let _ = worker.operator.snapshot(&mut snapshot);
    }
    worker.operator.remark();
    true
}

/// The state of each scene after its call `after`.
fn states(after: usize) -> Vec<(Box<dyn Step>, Vec<Call>, Saved)> {
    let state = |(step, calls): (Box<dyn Step>, Vec<Call>)| {
        let mut worker = Worker::new(step.as_ref(), 0);
        for call in &calls[..after.min(calls.len() - 1)] {
            worker.call(call).unwrap();
        }
        let saved = worker.save(true, None);
        (step, calls, saved)
    };
    scenes().into_iter().map(state).collect()
}

#[test]
fn raw_bytes_are_the_state() {
    for (step, _, saved) in states(9) {
        let (head, tail) = parts(&saved);
        assert_eq!(of_parts(head, tail), saved, "{}", step.state());
    }
}

#[test]
fn cut_state_is_refused() {
    for (step, calls, saved) in states(9) {
        let (head, tail) = parts(&saved);
        for keep in 0..head.len() {
            let cut = of_parts(head[..keep].to_vec(), tail.clone());
            assert!(
                !endures(step.as_ref(), &cut, &calls),
                "{}: {keep} bytes of the head",
                step.state()
            );
        }
        for keep in 0..tail.len() {
            let taken = endures(step.as_ref(), &of_parts(head.clone(), tail[..keep].to_vec()), &calls);
            let wants_all = step.state().starts_with("cycle/1 cycles");
            assert!(!(taken && wants_all), "{}: {keep} bytes of the tail", step.state());
        }
    }
}

#[test]
fn a_lost_tail_is_refused() {
    let mut refused = 0;
    for (step, calls, saved) in states(9) {
        let (head, tail) = parts(&saved);
        let lost = of_parts(head, Vec::new());
        refused += usize::from(!tail.is_empty() && !endures(step.as_ref(), &lost, &calls));
    }
    // What is only being learned can't be told from what was never there.
    assert!(refused >= 4, "{refused}");
}

proptest! {
    #[test]
    fn damaged_state_never_panics(
        after in 1_usize..14,
        damage in prop::collection::vec((any::<bool>(), any::<usize>(), any::<u8>()), 1..6),
    ) {
        for (step, calls, saved) in states(after) {
            let (mut head, mut tail) = parts(&saved);
            for (in_head, at, byte) in &damage {
                let bytes = if *in_head { &mut head } else { &mut tail };
                if !bytes.is_empty() {
                    let at = at % bytes.len();
                    bytes[at] = *byte;
                }
            }
            endures(step.as_ref(), &of_parts(head, tail), &calls);
        }
    }

    #[test]
    fn random_bytes_never_panic(
        head in prop::collection::vec(any::<u8>(), 0..200),
        tail in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let saved = of_parts(head, tail);
        for (step, calls) in scenes() {
            endures(step.as_ref(), &saved, &calls);
        }
    }
}
