use taktline_engine::table::samples;

use super::broken::parts;
use super::*;
use crate::cycle::KIND;

const CUTS: [&str; 13] = [
    "{start: a rises above 4, end: a falls below 2, max: 9ms, gap: 2ms, min: 2ms}",
    "{start: a rises above 4 for 2ms, end: b falls below 3 for 3ms, max: 6ms}",
    "{start: a rises above 4 for 3ms, max: 5ms, gap: 2ms}",
    "{start: a rises above 4 by 2 for 9ms}",
    "{start: a rises above 4, end: a falls below 4 for 5ms, max: 2ms}",
    "{start: a rises above 4 for 4ms, max: 6ms}",
    "{start: b changes, gap: 2ms}",
    "{start: c goes back, max: 4ms, keep: [a, b]}",
    "{start: \"c is 'on'\", end: \"c becomes 'off'\"}",
    "{start: \"c becomes 'on'\"}",
    "{length: 5ms}",
    "{length: 9ms, gap: 2ms}",
    "{start: a rises above 99}",
];

const PHASES: [&str; 4] = [
    "{start: a rises above 4}",
    "{start: a rises above 4 for 1ms, end: b falls below 3 for 1ms, max: 3ms}",
    "{length: 3ms}",
    "{start: zz is 3}",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn cycles_go_on(
        rows in sample_rows(),
        chunk in 1_usize..9,
        acts in acts(),
        silence in 0_i64..12,
        cut in 0..CUTS.len(),
    ) {
        let step = step(&KIND, CUTS[cut], samples());
        lockstep(step.as_ref(), &sample_calls(&rows, chunk, silence), &acts);
    }

    #[test]
    fn phases_go_on(rows in sample_rows(), acts in acts(), cut in 0..PHASES.len()) {
        let outer = step(&KIND, "{start: b changes}", samples());
        let mut worker = Worker::new(outer.as_ref(), 0);
        let calls = sample_calls(&rows, 3, 0);
        let mut cycles: Vec<Call> =
            calls.iter().flat_map(|call| worker.call(call).unwrap()).map(Call::Rows).collect();
        cycles.push(Call::End);
        lockstep(step(&KIND, PHASES[cut], outer.output().clone()).as_ref(), &cycles, &acts);
    }
}

#[test]
fn rows_after_a_crossing_that_has_still_to_last_are_kept() {
    let calls = |values: &[(i64, f64)]| {
        let sample = |(ms, value): &(i64, f64)| Sample {
            machine: "m",
            signal: "a",
            ts: ms * 1000,
            value: Some(*value),
            text: None,
        };
        let rows = values.iter().map(|row| Call::Samples(vec![sample(row)]));
        rows.chain([Call::End]).collect::<Vec<Call>>()
    };
    let each = [Act::Replace { whole: false, turn: 3 }];
    let ends = step(
        &KIND,
        "{start: a rises above 5, end: a falls below 3 for 3ms, max: 4ms}",
        samples(),
    );
    let broken = [(0, 0.0), (1, 6.0), (4, 2.0), (5, 1.0), (6, 1.0), (7, 4.0)];
    lockstep(ends.as_ref(), &calls(&broken), &each);
    let starts = step(&KIND, "{start: a rises above 5 for 4ms, max: 6ms}", samples());
    let lasts = [
        (0, 0.0),
        (1, 6.0),
        (6, 1.0),
        (7, 7.0),
        (8, 8.0),
        (9, 9.0),
        (12, 6.0),
        (13, 5.5),
        (14, 1.0),
    ];
    lockstep(starts.as_ref(), &calls(&lasts), &each);
    // What waited and then joined the open cycle stays in the tail, and what waits next isn't taken for it.
    let dips = step(
        &KIND,
        "{start: a rises above 5, end: a falls below 3 for 9ms}",
        samples(),
    );
    let values = [
        0.0, 6.0, 6.0, 6.0, 6.0, 6.0, 1.0, 1.0, 6.0, 1.0, 1.0, 6.0, 1.0, 1.0, 6.0,
    ];
    lockstep(
        dips.as_ref(),
        &calls(&(0..).zip(values).collect::<Vec<(i64, f64)>>()),
        &each,
    );
}

/// `count` rows of one µs each, from the row `from`; `a` rises at 0 and is 0 whenever `low` says so.
fn steady_rows(from: usize, count: usize, low: impl Fn(usize) -> bool) -> Call {
    let sample = |row: usize| Sample {
        machine: "m",
        signal: NAMES[row % 4],
        ts: row as i64 * 100_000,
        value: Some(if row < 4 || low(row) { 0.0 } else { row as f64 }),
        text: None,
    };
    Call::Samples((from..from + count).map(sample).collect())
}

/// The bytes of all tails of `saves` snapshots, and those of a whole one after them; rows come 60 at a time.
fn tails(yaml: &str, saves: usize, low: impl Fn(usize) -> bool) -> (usize, usize) {
    let step = step(&KIND, yaml, samples());
    let mut worker = Worker::new(step.as_ref(), 0);
    let mut sum = 0;
    for save in 0..saves {
        worker.call(&steady_rows(60 * save, 60, &low)).unwrap();
        let mut snapshot = Snapshot::new(save == 0);
        worker.operator.snapshot(&mut snapshot).unwrap();
        let (head, tail) = parts(&snapshot.saved(None));
        assert!(head.len() < 512, "a head of {} bytes", head.len());
        sum += tail.len();
    }
    (sum, parts(&worker.save(true, None)).1.len())
}

#[test]
fn an_open_cycle_is_written_once() {
    let (sum, whole) = tails("{start: a rises above 4}", 100, |_| false);
    assert!(whole > 100 * 60 * 8, "{whole} bytes hold no cycle");
    assert!(sum * 10 <= whole * 12, "{sum} bytes were written for {whole}");
}

#[test]
fn rows_after_a_broken_end_are_written_twice_at_most() {
    // The end is under way for a few snapshots, again and again.
    let low = |row: usize| row % 400 > 100;
    let (sum, whole) = tails("{start: a rises above 4, end: a falls below 2 for 1h}", 100, low);
    assert!(whole > 100 * 60 * 8, "{whole} bytes hold no cycle");
    assert!(sum * 10 <= whole * 24, "{sum} bytes were written for {whole}");
}

#[test]
fn the_tail_of_closed_cycles_goes() {
    let low = |row: usize| row % 400 > 300;
    let yaml = "{start: a rises above 4, end: a falls below 2}";
    let (_, whole) = tails(yaml, 100, low);
    let step = step(&KIND, yaml, samples());
    let (mut worker, mut saved) = (Worker::new(step.as_ref(), 0), None);
    for save in 0..100 {
        worker.call(&steady_rows(60 * save, 60, low)).unwrap();
        let state = worker.save(false, saved);
        let (_, tail) = parts(&state);
        assert!(tail.len() < 2 * 400 * 16 + whole, "a tail of {} bytes", tail.len());
        worker = Worker::new(step.as_ref(), save);
        worker.operator.restore(&state).unwrap();
        saved = Some(state);
    }
}

#[test]
fn triggers_make_the_state_and_their_levels_do_not() {
    let state = |yaml| step(&KIND, yaml, samples()).state();
    let one = "{start: a rises above 4 for 2ms, end: b falls below 3}";
    let other = "{start: a rises above 9 by 2, end: b falls below 1 for 1s, max: 1h, keep: [a]}";
    assert_eq!(state(one), "cycle/2 cycles from \"a\" rises to \"b\" falls");
    assert_eq!(state(one), state(other));
    assert_eq!(state("{start: b changes}"), "cycle/2 cycles from \"b\" changes");
    assert_eq!(state("{length: 10s}"), "cycle/2 cycles by length");
    assert_ne!(state("{start: a rises above 4}"), state("{start: c rises above 4}"));
    assert_ne!(state("{start: a rises above 4}"), state("{start: a falls below 4}"));
}

#[test]
fn an_open_cycle_goes_on_under_other_levels() {
    let row = |ms: i64, value| Sample {
        machine: "m",
        signal: "a",
        ts: ms * 1000,
        value: Some(value),
        text: None,
    };
    let edges = "{start: a rises above 4, end: a falls below 2 for 5ms}";
    let mut worker = Worker::new(step(&KIND, edges, samples()).as_ref(), 0);
    let calls = [row(0, 0.0), row(1, 5.0), row(2, 3.0), row(3, 1.0), row(4, 1.0)];
    assert!(worker.call(&Call::Samples(calls.to_vec())).unwrap().is_empty());
    let saved = worker.save(true, None);
    let other = step(&KIND, "{start: a rises above 9, end: a falls below 2}", samples());
    let mut worker = Worker::new(other.as_ref(), 1);
    worker.operator.restore(&saved).unwrap();
    let found = worker.call(&Call::Samples(vec![row(9, 7.0), row(10, 8.0)])).unwrap();
    let cycles = crate::cycles::CycleRows::of(&found[0]).unwrap();
    assert_eq!((cycles.len(), cycles.start_us(0), cycles.end_us(0)), (1, 1000, 3000));
}
