use taktline_engine::table::samples;

use super::*;
use crate::window::KIND;

proptest! {
    #[test]
    fn windows_go_on(rows in sample_rows(), chunk in 1_usize..9, acts in acts(), silence in 0_i64..30) {
        let step = step(&KIND, "{every: 10ms}", samples());
        lockstep(step.as_ref(), &sample_calls(&rows, chunk, silence), &acts);
    }
}

#[test]
fn the_length_makes_the_state() {
    let state = |yaml| step(&KIND, yaml, samples()).state();
    assert_eq!(state("{every: 1s}"), "window/1 of 1000000us");
    assert_eq!(state("{every: 1s, lateness: 9s}"), state("{every: 1s}"));
}
