//! Rows a second of the `window` step, fed without a dataflow: `cargo bench -p taktline-operators --bench window`.
//!
//! 5 million rows of 200 machines at 10 and at 100 Hz, in calls of 1,000 rows, machine by machine in turn. The best of some
//! runs counts, which take turns, so that what else runs on the machine meets all alike. The hopping window of 60 s every second says as
//! many rows as the tumbling one of 1 s, with which it is compared.

#![allow(clippy::expect_used)]

use std::time::Instant;

use arrow::array::RecordBatch;
use taktline_engine::config::Section;
use taktline_engine::kind::Input;
use taktline_engine::table::{Sample, samples, samples_batch};
use taktline_engine::{Output, Rows, Step};
use taktline_operators::window::KIND;

const MACHINES: usize = 200;
const ROWS_EACH: usize = 25_000;
const CALL_ROWS: usize = 1_000;
const RUNS: usize = 5;

/// What is measured, and what it is held against.
const CASES: [(&str, Option<usize>); 9] = [
    ("every: 1s", None),
    ("every: 60s", None),
    ("every: 1s, length: 60s", Some(0)),
    ("session: 5s", None),
    ("rows: 100", None),
    ("last: 10s", None),
    ("every: 1s, of: [median]", None),
    ("every: 1s, length: 60s, of: [median]", Some(6)),
    ("every: 1s, of: [slope, time_mean, kurtosis]", None),
];

fn main() {
    println!("{MACHINES} machines, {ROWS_EACH} rows each, {CALL_ROWS} rows a call, best of {RUNS}");
    for rate_hz in [10, 100] {
        let batch = rows(1_000_000 / rate_hz);
        let steps = CASES.map(|(settings, _)| step(&format!("{{{settings}}}")));
        let mut best = [f64::INFINITY; CASES.len()];
        for _ in 0..RUNS {
            for (step, best) in steps.iter().zip(&mut best) {
                *best = best.min(secs(step.as_ref(), &batch));
            }
        }
        for ((settings, against), secs) in CASES.iter().zip(best) {
            let rows_per_second = (MACHINES * ROWS_EACH) as f64 / secs;
            let ratio = against.map(|other| format!(", {:.2} × `{}`", secs / best[other], CASES[other].0));
            let ratio = ratio.unwrap_or_default();
            println!(
                "{rate_hz:>3} Hz  {:>6.1} M rows/s  `{settings}`{ratio}",
                rows_per_second / 1e6
            );
        }
    }
}

/// A machine's rows, one each `step_us`.
fn rows(step_us: i64) -> RecordBatch {
    let sample = |n| Sample {
        machine: "m",
        signal: "pressure",
        ts: n * step_us,
        value: Some((n as f64 * 0.01).sin()),
        text: None,
    };
    samples_batch((0..ROWS_EACH as i64).map(sample))
}

fn step(yaml: &str) -> Box<dyn Step> {
    let input = Input {
        name: "plc".into(),
        table: samples(),
        extends: Vec::new(),
    };
    (KIND.build)(&Section::from_yaml("w", yaml), &input).expect("a step")
}

fn secs(step: &dyn Step, batch: &RecordBatch) -> f64 {
    let mut operators: Vec<_> = (0..MACHINES).map(|n| step.operator(&n.to_string())).collect();
    let mut out = Output::default();
    let started = Instant::now();
    for from in (0..ROWS_EACH).step_by(CALL_ROWS) {
        for operator in &mut operators {
            let rows = Rows::new(batch, from..(from + CALL_ROWS).min(ROWS_EACH));
            operator.rows(&rows, &mut out).expect("rows");
            out.take();
        }
    }
    for operator in &mut operators {
        operator.end(&mut out).expect("the end");
        out.take();
    }
    started.elapsed().as_secs_f64()
}
