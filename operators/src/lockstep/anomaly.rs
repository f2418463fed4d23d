use taktline_engine::table::samples;

use super::*;
use crate::anomaly::KIND;
use crate::kernels::anomaly::auto::Method;
use crate::kernels::anomaly::random::Random;
use crate::{cycle, cycles};

/// Rows of two signals, long enough that every detector scores.
fn calls(seed: u64, chunk: usize) -> Vec<Call> {
    let mut random = Random::new(seed);
    let sample = |row: i64| Sample {
        machine: "m",
        signal: if row % 3 == 0 { "b" } else { "a" },
        ts: row * 1000,
        value: Some(if row % 97 == 0 { f64::NAN } else { random.normal() }),
        text: None,
    };
    let rows: Vec<Sample<'static>> = (0..700).map(sample).collect();
    rows.chunks(chunk).map(|chunk| Call::Samples(chunk.to_vec())).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn detectors_go_on(seed in any::<u64>(), chunk in 20_usize..90, acts in acts(), detector in 0..Method::ALL.len()) {
        let yaml = format!("{{detector: {}, warm_up: 3, remember: 100}}", Method::ALL[detector].as_str());
        lockstep(step(&KIND, &yaml, samples()).as_ref(), &calls(seed, chunk), &acts);
    }

    #[test]
    fn cycles_go_on(rows in prop::collection::vec((0_i64..4, 0_usize..3, 0..10_i32), 300..400), acts in acts()) {
        let outer = step(&cycle::KIND, "{start: c changes}", samples());
        let mut worker = Worker::new(outer.as_ref(), 0);
        let calls = sample_calls(&rows, 20, 0);
        let cycles: Vec<Call> = calls.iter().flat_map(|call| worker.call(call).unwrap()).map(Call::Rows).collect();
        let table = cycles::table(cycles::schema(), false);
        lockstep(step(&KIND, "{warm_up: 3, remember: 60}", table).as_ref(), &cycles, &acts);
    }
}

#[test]
fn what_was_learned_makes_the_state() {
    let state = |yaml| step(&KIND, yaml, samples()).state();
    assert_eq!(state("{}"), "anomaly/1 auto of value over 2000");
    assert_eq!(state("{false_alarms: 1 per week, warm_up: 9}"), state("{}"));
    assert_ne!(state("{detector: ewma}"), state("{}"));
}

#[test]
fn rows_do_not_depend_on_the_cut_into_calls() {
    let step = step(&KIND, "{warm_up: 3, remember: 100}", samples());
    let run = |chunk| {
        let mut worker = Worker::new(step.as_ref(), 0);
        let batches: Vec<RecordBatch> = calls(1, chunk)
            .iter()
            .flat_map(|call| worker.call(call).unwrap())
            .collect();
        arrow::compute::concat_batches(&step.output().schema, &batches).unwrap()
    };
    assert_eq!(run(1), run(700));
}

#[test]
fn state_has_a_bound() {
    for method in Method::ALL {
        let yaml = format!("{{detector: {}}}", method.as_str());
        let mut worker = Worker::new(step(&KIND, &yaml, samples()).as_ref(), 0);
        let mut random = Random::new(1);
        let mut bytes = |rows: std::ops::Range<i64>| {
            let sample = |row| Sample {
                machine: "m",
                signal: "a",
                ts: row * 1000,
                value: Some(random.normal()),
                text: None,
            };
            worker.call(&Call::Samples(rows.map(sample).collect())).unwrap();
            super::broken::parts(&worker.save(true, None)).0.len()
        };
        let most = (0..5).map(|part| bytes(part * 1200..(part + 1) * 1200)).max().unwrap();
        println!("{}: at most {most} bytes a signal", method.as_str());
        let bound = match method {
            Method::Auto | Method::CutForest => 256 << 10,
            Method::HalfSpaceTrees | Method::LeftProfile => 64 << 10,
            _ => 2 << 10,
        };
        assert!(most <= bound, "{}: {most} bytes", method.as_str());
    }
}
