#![allow(clippy::unwrap_used, clippy::expect_used)]

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Float64Type;
use taktline_engine::table::{Sample, samples, samples_batch};
use taktline_engine::{Output, Rows};

use super::*;
use crate::cycles::{self, Cycle, CyclesBuilder, Lacking, Outcome};
use crate::kernels::anomaly::random::Random;
use crate::window;

fn input(table: Table) -> Input {
    Input {
        name: "plc".into(),
        table,
        extends: Vec::new(),
    }
}

fn windows() -> Table {
    let step = (window::KIND.build)(&Section::from_yaml("w", "{every: 1s}"), &input(samples())).unwrap();
    step.output().clone()
}

fn cycle_table() -> Table {
    cycles::table(cycles::schema(), false)
}

#[test]
fn settings() {
    let check = |yaml: &str, table: Table, expect: &str| {
        let problems = build(&Section::from_yaml("a", yaml), &input(table))
            .err()
            .unwrap_or_default();
        let found: Vec<String> = problems
            .iter()
            .map(|p| format!("{}: {}", p.path.join("."), p.message))
            .collect();
        assert_eq!(found.join("; "), expect, "{yaml}");
    };
    check("{}", samples(), "");
    check("{}", windows(), "");
    check("{}", cycle_table(), "");
    check(
        "{detector: cusum, false_alarms: 1 per week, warm_up: 20, remember: 500, lateness: 2s}",
        samples(),
        "",
    );
    check("{of: [max], signals: [a]}", windows(), "");
    check("{of: [rms, duration_s]}", cycle_table(), "");
    check("{of: [mean]}", samples(), "of: samples have one value");
    check("{of: [mean, max]}", windows(), "of: of windows one column is scored");
    check("{of: [median]}", windows(), "of: `plc` has no number `median`");
    check("{of: [signal]}", windows(), "of: `plc` has no number `signal`");
    check("{of: []}", cycle_table(), "of: names no column");
    check(
        "{detector: ewma}",
        cycle_table(),
        "detector: `ewma` looks at one signal, a cycle has many columns",
    );
    check("{lateness: 1s}", windows(), "lateness: is for samples only");
    check("{remember: 3}", samples(), "remember: must be 32 to 10000000");
    check(
        "{signals: [a], ignore: [a]}",
        samples(),
        "signals: names no signal to look at",
    );
    check(
        "{false_alarms: 1 per fortnight}",
        samples(),
        "false_alarms: `1 per fortnight` is no rate; write 1 per day, 2 per week or 1 per 10000 rows",
    );
}

fn run(yaml: &str, table: Table, batches: &[RecordBatch]) -> RecordBatch {
    let step = build(&Section::from_yaml("a", yaml), &input(table)).unwrap_or_else(|problems| panic!("{problems:?}"));
    let (mut operator, mut out) = (step.operator("m"), Output::default());
    for batch in batches {
        operator.rows(&Rows::new(batch, 0..batch.num_rows()), &mut out).unwrap();
    }
    operator.end(&mut out).unwrap();
    concat_batches(&schema(), &out.take()).unwrap()
}

fn number(rows: &RecordBatch, column: &str, row: usize) -> f64 {
    let numbers = rows.column_by_name(column).unwrap().as_primitive::<Float64Type>();
    if numbers.is_valid(row) {
        numbers.value(row)
    } else {
        f64::NAN
    }
}

fn is_anomaly(rows: &RecordBatch, row: usize) -> bool {
    rows.column_by_name("anomaly").unwrap().as_boolean().value(row)
}

fn text(rows: &RecordBatch, column: &str, row: usize) -> String {
    let texts = rows.column_by_name(column).unwrap().as_string::<i32>();
    if texts.is_valid(row) {
        texts.value(row).to_owned()
    } else {
        "-".into()
    }
}

/// Values of the signal `a`, one a second, as a batch.
fn stream(values: &[f64]) -> RecordBatch {
    let sample = |(second, value): (i64, &f64)| Sample {
        machine: "m",
        signal: "a",
        ts: second * 1_000_000,
        value: Some(*value),
        text: None,
    };
    samples_batch((0..).zip(values).map(sample))
}

fn noise(rows: usize) -> Vec<f64> {
    let mut random = Random::new(5);
    (0..rows).map(|_| random.normal()).collect()
}

#[test]
fn learns_then_scores_then_finds() {
    for detector in ["auto", "ewma", "cusum", "robust_z", "prediction", "cut_forest"] {
        let mut values = noise(2000);
        values[1500] = 60.0;
        values[1501] = 60.0;
        let rows = run(
            &format!("{{detector: {detector}, false_alarms: 1 per 10000 rows}}"),
            samples(),
            &[stream(&values)],
        );
        assert_eq!(rows.num_rows(), 2000);
        assert!(
            (0..200).all(|row| number(&rows, "score", row).is_nan() && !is_anomaly(&rows, row)),
            "{detector}"
        );
        assert!(
            (400..2000).all(|row| !number(&rows, "score", row).is_nan()),
            "{detector}"
        );
        assert!((1500..1520).any(|row| is_anomaly(&rows, row)), "{detector}");
        let before = (0..1500).filter(|row| is_anomaly(&rows, *row)).count();
        assert!(before <= 3, "{detector}: {before}");
        assert_eq!(
            (number(&rows, "value", 1500), text(&rows, "detector", 0).as_str()),
            (60.0, detector)
        );
        assert!((number(&rows, "threshold", 1000) - 0.4).abs() < 1e-9);
    }
}

#[test]
fn the_threshold_follows_the_pace() {
    let rows = run("{false_alarms: 1 per 1000 seconds}", samples(), &[stream(&noise(5))]);
    assert!(number(&rows, "threshold", 0).is_nan());
    assert!((number(&rows, "threshold", 4) - 0.3).abs() < 1e-9);
}

#[test]
fn bad_values_have_no_score_and_teach_nothing() {
    let clean = noise(1000);
    let mut dirty = clean.clone();
    let bad = [f64::NAN, f64::INFINITY, f64::NEG_INFINITY];
    bad.iter().for_each(|value| dirty.insert(600, *value));
    let yaml = "{false_alarms: 1 per 1000 rows}";
    let (clean, dirty) = (
        run(yaml, samples(), &[stream(&clean)]),
        run(yaml, samples(), &[stream(&dirty)]),
    );
    assert_eq!(dirty.num_rows(), 1003);
    for row in 600..603 {
        assert!(number(&dirty, "score", row).is_nan() && !is_anomaly(&dirty, row));
    }
    assert_eq!(number(&dirty, "value", 601), f64::INFINITY);
    assert_eq!(number(&dirty, "score", 1002), number(&clean, "score", 999));
}

#[test]
fn signals_are_judged_each_by_itself_and_texts_are_no_rows() {
    let values = noise(300);
    let sample = |row: usize, signal: &'static str, value: Option<f64>, text| Sample {
        machine: "m",
        signal,
        ts: row as i64 * 1000,
        value,
        text,
    };
    let both = values.iter().enumerate().flat_map(|(row, value)| {
        [
            sample(row, "b", Some(1e6 * value), None),
            sample(row, "a", Some(*value), None),
            sample(row, "state", Some(f64::NAN), Some("on")),
            sample(row, "c", Some(*value), None),
        ]
    });
    let both = run("{detector: robust_z, ignore: [c]}", samples(), &[samples_batch(both)]);
    assert_eq!(both.num_rows(), 600);
    let alone = run("{detector: robust_z}", samples(), &[stream(&values)]);
    assert_eq!(number(&both, "score", 599), number(&alone, "score", 299));
}

#[test]
fn windows_by_a_column() {
    let step = (window::KIND.build)(&Section::from_yaml("w", "{every: 1s}"), &input(samples())).unwrap();
    let (mut operator, mut out) = (step.operator("m"), Output::default());
    let mut values = noise(1000);
    values[900] = 50.0;
    let batch = stream(&values);
    operator.rows(&Rows::new(&batch, 0..1000), &mut out).unwrap();
    operator.end(&mut out).unwrap();
    let rows = run(
        "{of: [max], detector: robust_z, false_alarms: 1 per 10000 windows}",
        windows(),
        &out.take(),
    );
    assert_eq!(rows.num_rows(), 1000);
    assert!(is_anomaly(&rows, 900) && number(&rows, "value", 900) == 50.0);
}

/// Cycles of 10 s with signals `pressure` and `speed`, of which the second follows the first.
fn cycle_batch(levels: &[(f64, f64)], outcome: Outcome) -> RecordBatch {
    let (mut builder, mut random) = (CyclesBuilder::default(), Random::new(2));
    for (number, (pressure, speed)) in (0..).zip(levels) {
        let mut values = |level: f64| -> Vec<f64> { (0..50).map(|_| level + 0.1 * random.normal()).collect() };
        let offsets: Vec<i64> = (0..50).map(|i| i * 200_000).collect();
        builder.signal("pressure", Lacking::default(), None, &offsets, &values(*pressure));
        builder.signal("speed", Lacking::default(), None, &offsets, &values(*speed));
        builder.cycle(&Cycle {
            machine: "m",
            step: "strokes",
            parent_id: None,
            start_us: number * 10_000_000,
            end_us: number * 10_000_000 + 9_800_000,
            outcome,
            samples: 100,
            lacking: Lacking::default(),
        });
    }
    builder.finish().unwrap()
}

fn levels(cycles: usize) -> Vec<(f64, f64)> {
    noise(cycles).into_iter().map(|x| (10.0 + x, 100.0 + 5.0 * x)).collect()
}

#[test]
fn a_cycle_names_its_signal() {
    let mut levels = levels(200);
    levels[180].1 += 10.0;
    let rows = run(
        "{false_alarms: 1 per 1000 cycles}",
        cycle_table(),
        &[cycle_batch(&levels, Outcome::Complete)],
    );
    assert_eq!(rows.num_rows(), 200);
    assert!((0..40).all(|row| number(&rows, "score", row).is_nan() && text(&rows, "top_signal", row) == "-"));
    assert!(is_anomaly(&rows, 180), "{}", number(&rows, "score", 180));
    assert_eq!(text(&rows, "top_signal", 180), "speed");
    assert!(["t2", "spe"].contains(&text(&rows, "detector", 180).as_str()));
    assert!(text(&rows, "cycle_id", 180).starts_with("m@"));
    let contributions = rows
        .column_by_name("contributions")
        .unwrap()
        .as_list::<i32>()
        .value(180);
    let shares = contributions
        .as_struct()
        .column(1)
        .as_primitive::<Float64Type>()
        .clone();
    assert_eq!(contributions.len(), 5);
    assert!(shares.values().is_sorted_by(|a, b| a >= b) && shares.value(0) <= 1.5);
    let before = (40..180).filter(|row| is_anomaly(&rows, *row)).count();
    assert!(before <= 2, "{before}");
}

#[test]
fn incomplete_and_empty_cycles_teach_nothing() {
    let (good, cut) = (levels(100), cycle_batch(&[(1e9, -1e9); 20], Outcome::Timeout));
    let mut builder = CyclesBuilder::default();
    builder.cycle(&Cycle {
        machine: "m",
        step: "strokes",
        parent_id: None,
        start_us: 0,
        end_us: 0,
        outcome: Outcome::Complete,
        samples: 0,
        lacking: Lacking::default(),
    });
    let good = cycle_batch(&good, Outcome::Complete);
    let clean = run("{of: [mean]}", cycle_table(), std::slice::from_ref(&good));
    let all = run("{of: [mean]}", cycle_table(), &[cut, good, builder.finish().unwrap()]);
    assert_eq!(all.num_rows(), 121);
    assert!(
        (0..20)
            .chain([120])
            .all(|row| number(&all, "score", row).is_nan() && !is_anomaly(&all, row))
    );
    assert_eq!(number(&all, "score", 119), number(&clean, "score", 99));
}

#[test]
fn more_columns_than_are_looked_at_is_said() {
    let names: Vec<String> = (0..70).map(|n| format!("s{n:02}")).collect();
    let mut builder = CyclesBuilder::default();
    names
        .iter()
        .for_each(|name| builder.signal(name, Lacking::default(), None, &[0], &[1.0]));
    builder.cycle(&Cycle {
        machine: "m",
        step: "strokes",
        parent_id: None,
        start_us: 0,
        end_us: 1,
        outcome: Outcome::Complete,
        samples: 70,
        lacking: Lacking::default(),
    });
    let batch = builder.finish().unwrap();
    let step =
        build(&Section::from_yaml("a", "{of: [mean]}"), &input(cycle_table())).unwrap_or_else(|_| panic!("built"));
    let mut operator = step.operator("m");
    operator.rows(&Rows::new(&batch, 0..1), &mut Output::default()).unwrap();
    assert_eq!(
        operator.remark().as_deref(),
        Some("m: only 64 columns are looked at; name fewer by `of` or `signals`")
    );
}
