#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use taktline_engine::table::{Sample, Samples, samples_batch};

use super::*;

fn built(yaml: &str) -> Result<Box<dyn Step>, Vec<Problem>> {
    let input = Input {
        name: "plc".into(),
        table: samples(),
        extends: Vec::new(),
    };
    build(&Section::from_yaml("r", yaml), &input)
}

type Row = (&'static str, i64, f64);

/// Signal, µs and value of the rows that come of these, in calls of `chunk`.
fn run(yaml: &str, rows: &[Row], chunk: usize) -> Vec<(String, i64, f64)> {
    let sample = |&(signal, ts, value): &Row| Sample {
        machine: "m",
        signal,
        ts,
        value: Some(value),
        text: None,
    };
    let batch = samples_batch(rows.iter().map(sample));
    let mut operator = built(yaml).ok().unwrap().operator("m");
    let mut out = Output::default();
    for from in (0..rows.len()).step_by(chunk) {
        let to = (from + chunk).min(rows.len());
        operator.rows(&Rows::new(&batch, from..to), &mut out).unwrap();
        operator.advance(rows[to - 1].1, &mut out).unwrap();
    }
    operator.end(&mut out).unwrap();
    let mut found = Vec::new();
    for batch in out.take() {
        let samples = Samples::of(&batch).unwrap();
        for row in 0..batch.num_rows() {
            let signal = samples.signals.value(samples.signal[row] as usize).to_owned();
            found.push((signal, samples.ts[row], samples.value.value(row)));
        }
    }
    found
}

fn check(yaml: &str, rows: &[Row], expect: &str) {
    for chunk in [1, 2, rows.len().max(1)] {
        let found: Vec<String> = run(yaml, rows, chunk)
            .iter()
            .map(|(s, ts, v)| format!("{s}{ts}={v}"))
            .collect();
        assert_eq!(found.join(" "), expect, "{yaml} in calls of {chunk}");
    }
}

#[test]
fn each_way() {
    let rows = [
        ("b", 1, 1.0),
        ("a", 2, 10.0),
        ("b", 12, 2.0),
        ("b", 25, 3.0),
        ("a", 32, 40.0),
    ];
    check("{every: 10us, max_gap: 20us}", &rows, "a10=10 b10=1 a20=10 b20=2 b30=3");
    check(
        "{every: 10us, max_gap: 30us, by: linear}",
        &rows,
        "a10=18 b10=1.8181818181818183 a20=28 b20=2.6153846153846154 a30=38",
    );
    check("{every: 10us, by: mean}", &rows, "a0=10 b0=1 b10=2 b20=3 a30=40");
    // On the grid, twice at one time, and not finite.
    let rows = [
        ("a", 0, 1.0),
        ("a", 10, 2.0),
        ("a", 10, 4.0),
        ("a", 15, f64::NAN),
        ("a", 20, 8.0),
    ];
    check("{every: 5us}", &rows, "a0=1 a5=1 a10=4 a15=4 a20=8");
    check("{every: 5us, by: linear}", &rows, "a0=1 a5=1.5 a10=4 a15=6 a20=8");
    check("{every: 10us, by: mean}", &rows, "a0=1 a10=3 a20=8");
}

#[test]
fn gaps() {
    let rows = [("a", 0, 1.0), ("a", 1_000_000_000_000, 2.0)];
    check("{every: 1us, max_gap: 2us}", &rows, "a0=1 a1=1 a2=1 a1000000000000=2");
    check("{every: 1us, max_gap: 2us, by: linear}", &rows, "a0=1 a1000000000000=2");
    check("{every: 1us, by: mean}", &rows, "a0=1 a1000000000000=2");
    check("{every: 1us, by: mean}", &[("a", 0, f64::NAN)], "");
    // The ends of time, and of the range of values.
    let ends = [
        ("a", i64::MIN, 1e308),
        ("a", -1, -1e308),
        ("a", 1, 1e308),
        ("a", i64::MAX, 1e308),
    ];
    check(
        "{every: 1us, max_gap: 2us, by: linear}",
        &ends[1..3],
        &format!("a-1={} a0=0 a1={}", -1e308, 1e308),
    );
    for by in ["hold", "linear", "mean"] {
        assert!(run(&format!("{{every: 1s, by: {by}}}"), &ends, 1).len() < 99);
    }
}

#[test]
fn time_alone_tells_a_silent_signal() {
    let mut operator = built("{every: 10us, max_gap: 20us, by: linear}")
        .ok()
        .unwrap()
        .operator("m");
    let mut out = Output::default();
    let batch = samples_batch([0, 10].map(|ts| Sample {
        machine: "m",
        signal: "a",
        ts,
        value: Some(1.0),
        text: None,
    }));
    operator.rows(&Rows::new(&batch, 0..2), &mut out).unwrap();
    operator.advance(10, &mut out).unwrap();
    assert_eq!(out.take().iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    operator.advance(11, &mut out).unwrap();
    assert_eq!(out.take().iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
}

#[test]
fn refused() {
    let check = |yaml: &str, expect: &str| {
        let problems = built(yaml).err().unwrap_or_default();
        assert_eq!(
            format!("{}: {}", problems[0].path.join("."), problems[0].message),
            expect
        );
    };
    check("{every: 0s}", "every: must be longer than 0");
    check(
        "{every: 1s, by: mean, max_gap: 1s}",
        "max_gap: has no meaning for a mean of what is there",
    );
    check(
        "{every: 1us, max_gap: 1s}",
        "max_gap: is more than 100000 times `every`",
    );
}

/// By the definitions, for each time of the grid; the oracle.
fn naive(by: &str, every: i64, max_gap: i64, rows: &[Row]) -> Vec<(String, i64, f64)> {
    let newest = rows[rows.len() - 1].1;
    let mut found = Vec::new();
    for at in (0..=newest / every).map(|n| n * every) {
        for name in ["a", "b", "c"] {
            let line: Vec<&Row> = rows.iter().filter(|row| row.0 == name && row.2.is_finite()).collect();
            let before = line.iter().rfind(|row| row.1 <= at);
            let after = line.iter().find(|row| row.1 > at);
            let value = match (by, before, after) {
                ("hold", Some(b), _) if at - b.1 <= max_gap => Some(b.2),
                ("linear", Some(b), _) if b.1 == at => Some(b.2),
                ("linear", Some(b), Some(a)) if a.1 - b.1 <= max_gap => {
                    Some(b.2 + (a.2 - b.2) * (at - b.1) as f64 / (a.1 - b.1) as f64)
                }
                ("mean", ..) => {
                    let within = line.iter().filter(|row| at <= row.1 && row.1 < at + every);
                    let values: Vec<f64> = within.map(|row| row.2).collect();
                    (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
                }
                _ => None,
            };
            found.extend(value.map(|value| (name.to_owned(), at, value)));
        }
    }
    found
}

proptest! {
    #[test]
    fn rows_are_those_of_the_definition(
        steps in prop::collection::vec((0_i64..9, 0_usize..3, -5..6_i32), 1..50),
        by in 0..3_usize,
        every in 1_i64..12,
        chunk in 1_usize..9,
    ) {
        let mut ts = 0;
        let rows: Vec<Row> = steps.iter().map(|(pause, signal, value)| {
            ts += pause;
            (["b", "a", "c"][*signal], ts, if *value == 5 { f64::NAN } else { f64::from(*value) })
        }).collect();
        let by = ["hold", "linear", "mean"][by];
        let gap = if by == "mean" { "" } else { ", max_gap: 17us" };
        let yaml = format!("{{every: {every}us, by: {by}{gap}}}");
        let found = run(&yaml, &rows, chunk);
        prop_assert_eq!(&found, &run(&yaml, &rows, rows.len()));
        let expect = naive(by, every, 17, &rows);
        let key = |row: &(String, i64, f64)| (row.0.clone(), row.1);
        prop_assert_eq!(found.iter().map(key).collect::<Vec<_>>(), expect.iter().map(key).collect::<Vec<_>>());
        prop_assert!(found.iter().zip(&expect).all(|(a, b)| (a.2 - b.2).abs() < 1e-9), "{:?} {:?}", found, expect);
    }
}
