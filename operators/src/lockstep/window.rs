use taktline_engine::table::samples;

use super::*;
use crate::window::KIND;

/// Every way to cut, with as much state as it can have.
const STEPS: [&str; 8] = [
    "{every: 10ms}",
    "{every: 10ms, early: 3ms, of: [median, slope], bands: [[0, 200], [200, 400]]}",
    "{every: 3ms, length: 20ms}",
    "{every: 3ms, length: 20ms, of: [p95, time_mean, kurtosis]}",
    "{session: 2ms, early: 3ms, bands: [[0, 200]]}",
    "{rows: 5, of: [mean, p5, zero_crossings], bands: [[0, 200]]}",
    "{last: 9ms}",
    "{last: 9ms, of: [std, median, rate]}",
];

proptest! {
    #[test]
    fn windows_go_on(rows in sample_rows(), chunk in 1_usize..9, acts in acts(), silence in 0_i64..30, which in 0..STEPS.len()) {
        let step = step(&KIND, STEPS[which], samples());
        lockstep(step.as_ref(), &sample_calls(&rows, chunk, silence), &acts);
    }
}

#[test]
fn what_is_kept_makes_the_state() {
    let state = |yaml| step(&KIND, yaml, samples()).state();
    assert_eq!(state("{every: 1s}"), "window/2 every 1000000us");
    // What needs no other state goes on.
    for same in [
        "{every: 1s, lateness: 9s}",
        "{every: 1s, length: 1s}",
        "{every: 1s, of: [rms]}",
    ] {
        assert_eq!(state("{every: 1s}"), state(same));
    }
    let states = STEPS.map(state);
    for (n, one) in states.iter().enumerate() {
        assert!(!states[..n].contains(one), "{one}");
    }
}

#[test]
fn the_tail_does_not_grow_without_end() {
    let step = step(&KIND, "{last: 3ms}", samples());
    let mut worker = Worker::new(step.as_ref(), 0);
    let (mut saved, mut longest) = (None, 0);
    for n in 0..500_i64 {
        let sample = |k| Sample {
            machine: "m",
            signal: "a",
            ts: (n * 10 + k) * 1000,
            value: Some(k as f64),
            text: None,
        };
        worker.call(&Call::Samples((0..10).map(sample).collect())).unwrap();
        let state = worker.save(false, saved);
        longest = longest.max(format!("{state:?}").len());
        saved = Some(state);
    }
    // The text of some 80 samples; of all there were, it would be fifty times as much.
    assert!(longest < 10_000, "{longest}");
}
