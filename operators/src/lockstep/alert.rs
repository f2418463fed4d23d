use taktline_engine::table::samples;

use super::*;
use crate::alert::KIND;
use crate::compare::tests::{Scene, compared};
use crate::health;

const RULES: [&str; 6] = [
    "{when: value > 4}",
    "{when: value > 4, for: 2 rows}",
    "{when: value > 4, for: 2 of 4 rows}",
    "{when: value > 4, for: 5ms}",
    "{when: value > 4, for: 2 rows, clear: value < 2}",
    "{when: \"text = 'on'\", for: 2ms, clear: \"text = 'off'\"}",
];

proptest! {
    #[test]
    fn alerts_go_on(rows in sample_rows(), chunk in 1_usize..9, acts in acts(), rule in 0..RULES.len()) {
        let step = step(&KIND, RULES[rule], samples());
        lockstep(step.as_ref(), &sample_calls(&rows, chunk, 0), &acts);
    }

    #[test]
    fn health_and_its_alerts_go_on(levels in prop::collection::vec(0.0..9.0f64, 1..20), acts in acts()) {
        let (input, batches) = compared(Scene { levels, chunk: 1, ..Scene::default() });
        let scores = step(&health::KIND, "{}", input.table);
        let rows = |batches: &[RecordBatch]| batches.iter().cloned().map(Call::Rows).collect::<Vec<Call>>();
        lockstep(scores.as_ref(), &rows(&batches), &acts);
        let mut worker = Worker::new(scores.as_ref(), 0);
        let scored: Vec<RecordBatch> = rows(&batches).iter().flat_map(|call| worker.call(call).unwrap()).collect();
        let alerts = step(&KIND, "{when: health < 60, for: 2 of 3 cycles}", scores.output().clone());
        lockstep(alerts.as_ref(), &rows(&scored), &acts);
    }
}

#[test]
fn an_open_alert_outlives_its_rule() {
    let rows = |values: [f64; 3]| {
        let sample = |(ts, value): (i64, f64)| Sample {
            machine: "m",
            signal: "a",
            ts,
            value: Some(value),
            text: None,
        };
        Call::Samples((0..).zip(values).map(sample).collect())
    };
    let mut worker = Worker::new(step(&KIND, "{when: value > 4}", samples()).as_ref(), 0);
    assert_eq!(worker.call(&rows([1.0, 2.0, 5.0])).unwrap().len(), 1);
    let saved = worker.save(true, None);
    let other = step(&KIND, "{when: value > 2}", samples());
    let mut worker = Worker::new(other.as_ref(), 3);
    worker.operator.restore(&saved).unwrap();
    assert!(worker.call(&rows([5.0, 3.0, 3.0])).unwrap().is_empty());
    assert_eq!(worker.call(&rows([1.0, 1.0, 1.0])).unwrap()[0].num_rows(), 1);
}

#[test]
fn any_rule_has_the_same_state() {
    let states = RULES.map(|rule| step(&KIND, rule, samples()).state());
    assert!(states.iter().all(|state| state == "alert/1 by signal"), "{states:?}");
    assert_eq!(
        step(
            &KIND,
            "{when: health < 60}",
            step(&health::KIND, "{}", compared(Scene::default()).0.table)
                .output()
                .clone()
        )
        .state(),
        "alert/1"
    );
}
