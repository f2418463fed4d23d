use taktline_engine::table::samples;

use super::*;
use crate::{dedup, join, resample};

const RESAMPLE: [&str; 4] = [
    "{every: 3ms, max_gap: 7ms}",
    "{every: 3ms, by: linear, max_gap: 7ms}",
    "{every: 2ms, by: linear}",
    "{every: 3ms, by: mean}",
];
const JOIN: [&str; 2] = ["{with: {b: value}}", "{with: {b: text, c: value}, max_age: 4ms}"];
const DEDUP: [&str; 2] = ["{within: 3ms}", "{}"];

proptest! {
    #[test]
    fn resampling_goes_on(rows in sample_rows(), chunk in 1_usize..9, acts in acts(), silence in 0_i64..30, which in 0..RESAMPLE.len()) {
        let step = step(&resample::KIND, RESAMPLE[which], samples());
        lockstep(step.as_ref(), &sample_calls(&rows, chunk, silence), &acts);
    }

    #[test]
    fn joining_goes_on(rows in sample_rows(), chunk in 1_usize..9, acts in acts(), which in 0..JOIN.len()) {
        let step = step(&join::KIND, JOIN[which], samples());
        lockstep(step.as_ref(), &sample_calls(&rows, chunk, 0), &acts);
    }

    /// In the order of arrival, so each call may go back in time.
    #[test]
    fn dedup_goes_on(calls in prop::collection::vec((0_i64..20, sample_rows()), 1..9), acts in acts(), which in 0..DEDUP.len()) {
        let step = step(&dedup::KIND, DEDUP[which], samples());
        let mut all = Vec::new();
        for (back, rows) in calls {
            for call in sample_calls(&rows, 7, 0) {
                if let Call::Samples(mut samples) = call {
                    samples.iter_mut().for_each(|sample| sample.ts -= back * 1000);
                    all.push(Call::Samples(samples));
                }
            }
        }
        lockstep(step.as_ref(), &all, &acts);
    }
}

#[test]
fn settings_make_the_state() {
    let resampled = RESAMPLE.map(|yaml| step(&resample::KIND, yaml, samples()).state());
    assert_eq!(resampled[0], "resample/1 every 3000us by Hold over 7000us");
    assert!(!resampled[1..].contains(&resampled[0]) && resampled[1] != resampled[2]);
    let joined = JOIN.map(|yaml| step(&join::KIND, yaml, samples()).state());
    assert_ne!(joined[0], joined[1]);
    let deduped = DEDUP.map(|yaml| step(&dedup::KIND, yaml, samples()).state());
    assert_eq!(deduped[0], deduped[1]);
}
