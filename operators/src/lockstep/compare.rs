use std::io::Write;

use super::broken::parts;
use super::*;
use crate::compare::KIND;
use crate::cycles::{self, Cycle, CyclesBuilder, Lacking, Outcome};

const REFERENCES: [&str; 8] = [
    "{reference: {first: 3}}",
    "{reference: {first: 1}, distance: euclidean}",
    "{reference: {first: 2}, per: recipe}",
    "{reference: {last: 3}}",
    "{reference: {last: 4}, per: recipe, distance: euclidean}",
    "{reference: {last: 3}, ignore: [speed], max_points: 7}",
    "{reference: {last: 1}}",
    "{reference: {cycle: m@1970-01-01T00:02:00.000000Z}}",
];

/// One cycle: level, whether it has a speed, recipe, outcome.
type Scene = (f64, bool, u8, bool);

fn lacking(missing: u64) -> Lacking {
    Lacking { missing, stale: 0 }
}

/// A cycle in each call.
fn calls(scenes: &[Scene]) -> Vec<Call> {
    let mut minute = 0;
    let mut call = |&(level, speed, recipe, complete): &Scene| {
        let mut builder = CyclesBuilder::default();
        let offsets: Vec<i64> = (0..10).map(|i| i * 1_000_000).collect();
        let ramp = |shift: f64| (0..10).map(|i| f64::from(i) + shift).collect::<Vec<f64>>();
        builder.signal("pressure", Lacking::default(), None, &offsets, &ramp(level));
        builder.signal(
            "recipe",
            Lacking::default(),
            ["A", "B", "C"].get(usize::from(recipe)).copied(),
            &[],
            &[],
        );
        if speed {
            builder.signal("speed", lacking(1), None, &offsets[..7], &ramp(level / 3.0)[..7]);
        }
        minute += 1;
        builder.cycle(&Cycle {
            machine: "m",
            step: "strokes",
            parent_id: None,
            start_us: minute * 60_000_000,
            end_us: minute * 60_000_000 + 9_000_000,
            outcome: if complete { Outcome::Complete } else { Outcome::Timeout },
            samples: 20,
            lacking: lacking(1),
        });
        Call::Rows(builder.finish().unwrap())
    };
    scenes.iter().map(&mut call).chain([Call::End]).collect()
}

fn table() -> Table {
    cycles::table(cycles::schema(), false)
}

fn scene() -> impl Strategy<Value = Scene> {
    (
        0.0..2.0f64,
        prop::bool::weighted(0.8),
        0_u8..4,
        prop::bool::weighted(0.9),
    )
}

proptest! {
    #[test]
    fn comparisons_go_on(
        scenes in prop::collection::vec(scene(), 1..30),
        acts in acts(),
        reference in 0..REFERENCES.len(),
    ) {
        lockstep(step(&KIND, REFERENCES[reference], table()).as_ref(), &calls(&scenes), &acts);
    }
}

#[test]
fn a_reference_from_a_file_is_no_state() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "cycle_id,signal,ts,value\nc,pressure,0,1\nc,pressure,9,2").expect("written");
    let step = step(
        &KIND,
        &format!("{{reference: {{path: {}}}}}", file.path().display()),
        table(),
    );
    let acts = [Act::Save { whole: false }, Act::Replace { whole: false, turn: 0 }];
    let calls = calls(&[(1.0, true, 0, true); 6]);
    lockstep(step.as_ref(), &calls, &acts);
    let mut worker = Worker::new(step.as_ref(), 0);
    worker.call(&calls[0]).unwrap();
    let (head, tail) = parts(&worker.save(true, None));
    assert!(head.len() < 8 && tail.is_empty());
}

/// Of the snapshot after each cycle: the bytes that it appends, and those of the whole tail then.
fn tails(yaml: &str, cycles: usize) -> Vec<(usize, usize)> {
    let step = step(&KIND, yaml, table());
    let mut written = Vec::new();
    for whole in [false, true] {
        let mut worker = Worker::new(step.as_ref(), 0);
        written.push(Vec::new());
        for (number, call) in calls(&vec![(1.0, true, 0, true); cycles])[..cycles].iter().enumerate() {
            worker.call(call).unwrap();
            let mut snapshot = Snapshot::new(whole || number == 0);
            worker.operator.snapshot(&mut snapshot).unwrap();
            let (head, tail) = parts(&snapshot.saved(None));
            assert!(head.len() < 32, "a head of {} bytes", head.len());
            written[usize::from(whole)].push(tail.len());
        }
    }
    written[0].iter().copied().zip(written[1].iter().copied()).collect()
}

#[test]
fn a_learned_reference_is_written_once() {
    let found = tails("{reference: {first: 3}}", 9);
    assert!(
        found[2].0 > 0 && found[3..].iter().all(|(added, whole)| *added == 0 && *whole > 0),
        "{found:?}"
    );
}

#[test]
fn a_sliding_reference_adds_its_new_cycle_and_is_written_anew_once_it_is_twice_as_long() {
    let found = tails("{reference: {last: 3}}", 30);
    let added: usize = found.iter().map(|(added, _)| added).sum();
    assert!(added < 30 * found[0].0 * 2, "{found:?}");
    assert!(found[3..].iter().any(|(added, whole)| added < whole), "{found:?}");
    assert!(found[3..].iter().any(|(added, whole)| added == whole), "{found:?}");
}

#[test]
fn the_tail_of_a_sliding_reference_stays_short_over_restarts() {
    let step = step(&KIND, "{reference: {last: 3}}", table());
    let (mut worker, mut saved, mut tails) = (Worker::new(step.as_ref(), 0), None, Vec::new());
    for call in &calls(&[(1.0, true, 0, true); 30])[..30] {
        worker.call(call).unwrap();
        let state = worker.save(false, saved);
        tails.push(parts(&state).1.len());
        worker = Worker::new(step.as_ref(), 0);
        worker.operator.restore(&state).unwrap();
        saved = Some(state);
    }
    assert!(tails.iter().all(|bytes| *bytes <= 8 * tails[0]), "{tails:?}");
}

#[test]
fn what_a_reference_was_learned_with_makes_the_state() {
    let state = |yaml| step(&KIND, yaml, table()).state();
    assert_eq!(state("{}"), "compare/1 to first 20, dtw 10%");
    assert_eq!(
        state("{reference: {last: 3}, distance: euclidean, per: r, signals: [b, a], ignore: [a]}"),
        "compare/1 to last 3, euclidean, per \"r\", signals {\"a\", \"b\"}, without {\"a\"}"
    );
    assert_eq!(state("{max_points: 50}"), state("{}"));
    assert_ne!(state("{window: 5%}"), state("{}"));
}
