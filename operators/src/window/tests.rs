#![allow(clippy::unwrap_used)]

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, Int32Type, TimestampMicrosecondType, UInt64Type};
use proptest::prelude::*;
use taktline_engine::table::{Sample, samples, samples_batch};
use taktline_engine::{Output, Rows};

use super::pane::Pane;
use super::*;

fn built(yaml: &str) -> Result<Box<dyn Step>, Vec<Problem>> {
    let input = Input {
        name: "plc".into(),
        table: samples(),
        extends: Vec::new(),
    };
    build(&Section::from_yaml("w", yaml), &input)
}

/// -99 stands for the text `on`.
fn sample(signal: &'static str, ts: i64, value: f64) -> Sample<'static> {
    let text = (value == -99.0).then_some("on");
    Sample {
        machine: "m",
        signal,
        ts,
        value: Some(if text.is_some() { f64::NAN } else { value }),
        text,
    }
}

type Row = (&'static str, i64, f64);

fn emitted(yaml: &str, rows: &[Row], chunk: usize) -> Vec<RecordBatch> {
    let batch = samples_batch(rows.iter().map(|&(signal, ts, value)| sample(signal, ts, value)));
    let mut operator = built(yaml).unwrap().operator("m");
    let mut out = Output::default();
    for from in (0..rows.len()).step_by(chunk) {
        let to = (from + chunk).min(rows.len());
        operator.rows(&Rows::new(&batch, from..to), &mut out).unwrap();
        operator.advance(rows[to - 1].1, &mut out).unwrap();
    }
    operator.end(&mut out).unwrap();
    out.take()
}

/// One row of the table.
#[derive(Debug, PartialEq)]
struct Told {
    signal: String,
    start: i64,
    end: i64,
    count: u64,
    missing: u64,
    numbers: Vec<Option<f64>>,
    last: bool,
}

fn told(batches: &[RecordBatch]) -> Vec<Told> {
    let mut rows = Vec::new();
    for batch in batches {
        let signals = batch.column(1).as_dictionary::<Int32Type>();
        let names = signals.values().as_string::<i32>();
        let time = |column: usize, row| {
            batch
                .column(column)
                .as_primitive::<TimestampMicrosecondType>()
                .value(row)
        };
        let count = |column: usize, row| batch.column(column).as_primitive::<UInt64Type>().value(row);
        let last = batch.column_by_name("final").map(|column| column.as_boolean());
        let numbers = 6..batch.num_columns() - usize::from(last.is_some());
        let number = |column: usize, row| {
            let array = batch.column(column).as_primitive::<Float64Type>();
            array.is_valid(row).then(|| array.value(row))
        };
        rows.extend((0..batch.num_rows()).map(|row| Told {
            signal: names.value(signals.keys().value(row) as usize).to_owned(),
            start: time(2, row),
            end: time(3, row),
            count: count(4, row),
            missing: count(5, row),
            numbers: numbers.clone().map(|column| number(column, row)).collect(),
            last: last.is_none_or(|last| last.value(row)),
        }));
    }
    rows
}

/// `start..end signal count/missing numbers`, and `early` where the window isn't over.
fn lines(yaml: &str, rows: &[Row], chunk: usize) -> Vec<String> {
    let line = |told: Told| {
        let number = |number: &Option<f64>| number.map_or("null".to_owned(), |n| n.to_string());
        let numbers: Vec<String> = told.numbers.iter().map(number).collect();
        let early = if told.last { "" } else { " early" };
        let Told {
            signal,
            start,
            end,
            count,
            missing,
            ..
        } = &told;
        format!("{start}..{end} {signal} {count}/{missing} {}{early}", numbers.join(" "))
    };
    told(&emitted(yaml, rows, chunk)).into_iter().map(line).collect()
}

/// Rows of signal, µs and value give these lines, however they are cut into calls.
fn check(yaml: &str, rows: &[Row], expect: &[&str]) {
    for chunk in [1, 2, rows.len()] {
        assert_eq!(lines(yaml, rows, chunk), expect, "{yaml} in calls of {chunk}");
    }
}

#[test]
fn tumbling() {
    let nan = f64::NAN;
    let yaml = "{every: 10us}";
    check(
        yaml,
        &[("b", 1, 1.0), ("a", 2, 5.0), ("b", 9, 3.0), ("b", 10, 7.0)],
        &["0..10 a 1/0 5 5 5 0", "0..10 b 2/0 2 1 3 1", "10..20 b 1/0 7 7 7 0"],
    );
    check(
        yaml,
        &[("a", 1, nan), ("a", 2, f64::INFINITY), ("b", 3, nan), ("b", 35, 2.0)],
        &[
            "0..10 a 0/2 null null null null",
            "0..10 b 0/1 null null null null",
            "30..40 b 1/0 2 2 2 0",
        ],
    );
    check(
        yaml,
        &[("a", -1, 1.0), ("a", 0, 2.0)],
        &["-10..0 a 1/0 1 1 1 0", "0..10 a 1/0 2 2 2 0"],
    );
    // A text is neither a value nor missing.
    check(yaml, &[("a", 1, -99.0), ("b", 1, 2.0)], &["0..10 b 1/0 2 2 2 0"]);
    // The ends of time.
    let (first, last) = (i64::MIN, i64::MAX);
    assert_eq!(
        lines(yaml, &[("a", first, 1.0), ("a", last, 2.0), ("a", last, 3.0)], 3).len(),
        3
    );
}

#[test]
fn hopping() {
    check(
        "{every: 10us, length: 25us, of: [sum]}",
        &[("a", 12, 1.0), ("a", 24, 2.0), ("a", 25, 4.0), ("b", 70, 8.0)],
        &[
            "-10..15 a 1/0 1",
            "0..25 a 2/0 3",
            "10..35 a 3/0 7",
            "20..45 a 2/0 6",
            "50..75 b 1/0 8",
            "60..85 b 1/0 8",
            "70..95 b 1/0 8",
        ],
    );
    // As long as its hop: tumbling.
    let rows = [("a", 1, 1.0), ("a", 19, 2.0)];
    assert_eq!(
        lines("{every: 10us, length: 10us}", &rows, 1),
        lines("{every: 10us}", &rows, 1)
    );
    let ends = [("a", i64::MIN, 1.0), ("a", i64::MAX, 2.0), ("a", i64::MAX, 3.0)];
    assert!(lines("{every: 10us, length: 25us}", &ends, 1).len() > 2);
}

#[test]
fn sessions() {
    check(
        "{session: 5us, of: [first, last]}",
        &[("a", 1, 1.0), ("b", 6, 2.0), ("a", 11, -99.0), ("b", 17, 3.0)],
        &["1..11 a 1/0 1 1", "1..11 b 1/0 2 2", "17..17 b 1/0 3 3"],
    );
    // Time alone ends one, as soon as no row can belong to it.
    let mut operator = built("{session: 5us}").unwrap().operator("m");
    let mut out = Output::default();
    let batch = samples_batch([sample("a", 1, 1.0)]);
    operator.rows(&Rows::new(&batch, 0..1), &mut out).unwrap();
    operator.advance(6, &mut out).unwrap();
    assert!(out.take().is_empty());
    operator.advance(7, &mut out).unwrap();
    assert_eq!(out.take().len(), 1);
}

#[test]
fn counted() {
    check(
        "{rows: 2, of: [mean]}",
        &[
            ("a", 1, 1.0),
            ("b", 2, 5.0),
            ("a", 3, f64::NAN),
            ("a", 3, -99.0),
            ("b", 4, 7.0),
            ("a", 9, 4.0),
        ],
        &["1..3 a 1/1 1", "2..4 b 2/0 6", "9..9 a 1/0 4"],
    );
}

#[test]
fn sliding_on_row() {
    check(
        "{last: 10us, of: [sum, median]}",
        &[
            ("a", 0, 1.0),
            ("a", 9, 2.0),
            ("b", 9, 0.0),
            ("a", 10, 4.0),
            ("a", 10, f64::NAN),
            ("a", 30, 8.0),
        ],
        &[
            "-10..0 a 1/0 1 1",
            "-1..9 a 2/0 3 1.51171875",
            "-1..9 b 1/0 0 0",
            "0..10 a 2/0 6 3.0234375",
            "0..10 a 2/1 6 3.0234375",
            "20..30 a 1/0 8 8",
        ],
    );
}

#[test]
fn early() {
    check(
        "{every: 20us, early: 5us, of: [sum]}",
        &[
            ("a", 1, 1.0),
            ("a", 6, 2.0),
            ("b", 7, 5.0),
            ("a", 19, 4.0),
            ("a", 20, 8.0),
        ],
        &[
            "0..20 a 1/0 1 early",
            "0..20 a 2/0 3 early",
            "0..20 b 1/0 5 early",
            "0..20 a 3/0 7",
            "0..20 b 1/0 5",
            "20..40 a 1/0 8",
        ],
    );
    // A session that has ended before the mark says nothing early.
    check(
        "{session: 3us, early: 10us, of: [sum]}",
        &[("a", 1, 1.0), ("a", 9, 2.0), ("a", 12, 4.0)],
        &["1..1 a 1/0 1", "9..9 a 1/0 2 early", "9..12 a 2/0 6"],
    );
}

#[test]
fn what_is_said() {
    let rows = [("a", 0, 3.0), ("a", 2_000_000, -1.0), ("a", 4_000_000, 4.0)];
    let all = "{every: 8s, of: [first, last, sum, rate, slope, time_mean, zero_crossings, count]}";
    check(all, &rows, &["0..8000000 a 3/0 3 4 6 1.25 0.25 2.5 2"]);
    // One value: no rate, slope or kurtosis; a value is its own percentile.
    check(
        "{every: 8s, of: [rate, slope, kurtosis, time_mean, median, p95, std]}",
        &[("a", 5, 0.1)],
        &["0..8000000 a 1/0 null null null 0.1 0.1 0.1 0"],
    );
    // A constant, and 0.
    check(
        "{every: 8s, of: [slope, kurtosis, crest, median, std]}",
        &[("a", 5, 0.1), ("a", 6, 0.1), ("b", 6, 0.0)],
        &["0..8000000 a 2/0 0 null 1 0.1 0", "0..8000000 b 1/0 null null null 0 0"],
    );
    // What leaves the range of float64 is null.
    check(
        "{every: 8s, of: [mean, min, max, std, median, sum, time_mean]}",
        &[("a", 0, 1e308), ("a", 4_000_000, 1e308), ("a", 5_000_000, 1e308)],
        &["0..8000000 a 3/0 1e308 1e308 1e308 0 1e308 null 1e308"]
            .map(|line| line.replace("1e308", &1e308.to_string()))
            .each_ref()
            .map(String::as_str),
    );
    check(
        "{every: 8s, of: [mean, std]}",
        &[("a", 0, 1e308), ("a", 1, -1e308)],
        &["0..8000000 a 2/0 null null"],
    );
}

#[test]
fn bands_of_a_shaking_machine() {
    // 3 at 20 Hz, sampled at 1 kHz for a second; a signal too short to tell beside it.
    let value = |ms: i64| 3.0 * (std::f64::consts::TAU * 20.0 * ms as f64 / 1000.0).sin();
    let mut rows: Vec<Row> = (0..1000).map(|ms| ("a", ms * 1000, value(ms))).collect();
    rows.push(("b", 999_500, 1.0));
    let yaml = "{every: 1s, of: [rms], bands: [[0, 50], [50, 200.5], [900, 1000]]}";
    let found = told(&emitted(yaml, &rows, 77));
    let numbers: Vec<f64> = found[0].numbers.iter().map(|n| n.unwrap_or(-1.0)).collect();
    assert!((numbers[0] - 4.5_f64.sqrt()).abs() < 1e-2 && (numbers[1] - 4.5_f64.sqrt()).abs() < 1e-2);
    assert!(numbers[2] < 0.05 && numbers[3] == -1.0, "{numbers:?}");
    assert_eq!(found[1].numbers, [Some(1.0), None, None, None]);
    let schema = built(yaml).unwrap().output().schema.clone();
    let names: Vec<&String> = schema.fields().iter().skip(6).map(|field| field.name()).collect();
    assert_eq!(names, ["rms", "band_0_50", "band_50_200p5", "band_900_1000"]);
}

#[test]
fn signals_of_other_machines_cost_nothing() {
    let names: Vec<String> = (0..10_000).map(|n| format!("other {n}")).collect();
    let others = names.iter().map(|name| Sample {
        signal: name,
        ..sample("", 0, 1.0)
    });
    let batch = samples_batch(others.chain([sample("p", 0, 1.0), sample("a", 1, 1.0)]));
    for yaml in [
        "{every: 10us}",
        "{every: 5us, length: 10us}",
        "{session: 1s}",
        "{rows: 1}",
        "{last: 1s}",
    ] {
        let mut operator = built(yaml).unwrap().operator("m");
        let mut out = Output::default();
        operator
            .rows(&Rows::new(&batch, names.len()..batch.num_rows()), &mut out)
            .unwrap();
        operator.end(&mut out).unwrap();
        let rows = out.take();
        assert_eq!(
            rows[0].column(1).as_dictionary::<Int32Type>().values().len(),
            2,
            "{yaml}"
        );
    }
}

#[test]
fn open_windows_take_what_the_docs_say() {
    assert_eq!((size_of::<Pane<Basic>>(), size_of::<Pane<Full>>()), (56, 192));
}

#[test]
fn large_levels_keep_their_digits() {
    let rows = [1.0, -1.0, 1.0, -1.0].map(|step| ("a", 3, 1e9 + step));
    assert_eq!(
        lines("{every: 10us}", &rows, 3),
        ["0..10 a 4/0 1000000000 999999999 1000000001 1"]
    );
    // Merged from panes too.
    let rows = [1.0, -1.0, 1.0, -1.0].map(|step| ("a", 10 + 3 * (step as i64), 1e9 + step));
    let mut rows = rows.to_vec();
    rows.sort_by_key(|(_, ts, _)| *ts);
    assert_eq!(
        lines("{every: 10us, length: 20us}", &rows, 3)[1],
        "0..20 a 4/0 1000000000 999999999 1000000001 1"
    );
}

#[test]
fn refused() {
    let check = |yaml: &str, expect: &[&str]| {
        let problems = built(yaml).err().unwrap_or_default();
        let shown = |p: &Problem| format!("{}: {}", p.path.join("."), p.message);
        assert_eq!(problems.iter().map(shown).collect::<Vec<_>>(), expect, "{yaml}");
    };
    check("{every: 0s}", &["every: must be longer than 0"]);
    check("{}", &[": nothing says where windows end"]);
    check(
        "{every: 1s, session: 1s, rows: 3}",
        &[
            "session: stands instead of `every`, not beside it",
            "rows: stands instead of `every`, not beside it",
        ],
    );
    check("{length: 5s, last: 1s}", &["length: needs `every`"]);
    check("{every: 5s, length: 1s}", &["length: is shorter than `every`"]);
    check(
        "{every: 1us, length: 1s}",
        &["length: is more than 100000 times as long as `every`"],
    );
    check(
        "{every: 1s, of: [mean, middle, mean, p100]}",
        &[
            "of.1: `middle` is nothing that a window says",
            "of.2: `mean` is there already",
            "of.3: `p100` is nothing that a window says",
        ],
    );
    check("{every: 1s, of: []}", &["of: names nothing"]);
    check(
        "{every: 1s, bands: [[5, 5], [-1, 3], [1, 2], [1, 2]]}",
        &[
            "bands.0: [5, 5] is no band",
            "bands.1: [-1, 3] is no band",
            "bands.3: [1, 2] is there already",
        ],
    );
    check(
        "{last: 1s, bands: [[0, 5]]}",
        &["bands: can't be told of windows that overlap"],
    );
    check("{rows: 5, early: 1s}", &["early: has no meaning for these windows"]);
    check("{every: 1s, early: 0s}", &["early: must be longer than 0"]);
}

const OF: &str = "of: [count, mean, min, max, std, first, last, sum, median, p95, rate, slope, time_mean, rms, crest, \
                  kurtosis, zero_crossings]";

/// Each way to cut, and the windows of rows as it is defined: start, end, rows.
fn naive(way: usize, rows: &[Row]) -> (String, Vec<(i64, i64, Vec<Row>)>) {
    let by_signal = |rows: &[Row]| -> Vec<Vec<Row>> {
        ["a", "b", "c"]
            .map(|name| rows.iter().filter(|row| row.0 == name).copied().collect())
            .to_vec()
    };
    let within = |start: i64, end: i64| -> Vec<Row> {
        rows.iter()
            .filter(|(_, ts, _)| start <= *ts && *ts < end)
            .copied()
            .collect()
    };
    let (setting, windows): (_, Vec<(i64, i64, Vec<Row>)>) = match way {
        0 | 1 => {
            let (every, length) = [(10, 10), (7, 31)][way];
            let last = rows.iter().map(|row| row.1).max().unwrap_or(0);
            let starts = (-5..=last / every).map(|n| n * every);
            let windows = starts.map(|start| (start, start + length, within(start, start + length)));
            (format!("every: {every}us, length: {length}us"), windows.collect())
        }
        2 => {
            let sessions = rows.chunk_by(|one, next| next.1 - one.1 <= 4);
            let windows = sessions.map(|rows| (rows[0].1, rows[rows.len() - 1].1, rows.to_vec()));
            ("session: 4us".into(), windows.collect())
        }
        3 => {
            let signals = by_signal(rows);
            let chunks = signals.iter().flat_map(|rows| rows.chunks(4));
            let windows = chunks.map(|rows| (rows[0].1, rows[rows.len() - 1].1, rows.to_vec()));
            ("rows: 4".into(), windows.collect())
        }
        _ => {
            let mut windows = Vec::new();
            for rows in by_signal(rows) {
                for (n, (_, ts, _)) in rows.iter().enumerate() {
                    let recent = rows[..=n].iter().filter(|row| row.1 > ts - 9).copied().collect();
                    windows.push((ts - 9, *ts, recent));
                }
            }
            ("last: 9us".into(), windows)
        }
    };
    let windows = windows.into_iter().flat_map(|(start, end, rows)| {
        by_signal(&rows)
            .into_iter()
            .filter(|rows| !rows.is_empty())
            .map(move |rows| (start, end, rows))
    });
    (format!("{{{setting}, {OF}}}"), windows.collect())
}

proptest! {
    #[test]
    fn windows_are_those_of_their_definition(
        steps in prop::collection::vec((0_i64..8, 0_usize..3, -5..6_i32), 1..60),
        way in 0..5_usize,
        chunk in 1_usize..9,
    ) {
        let mut ts = 0;
        let rows: Vec<Row> = steps.iter().map(|(pause, signal, value)| {
            ts += pause;
            (["b", "a", "c"][*signal], ts, if *value == 5 { f64::NAN } else { f64::from(*value) })
        }).collect();
        let (yaml, windows) = naive(way, &rows);
        let of: Vec<Aggregate> = OF[5..OF.len() - 1].split(", ").map(|name| name.trim().parse().unwrap()).collect();
        let mut expect: Vec<Told> = windows.into_iter().map(|(start, end, rows)| {
            let mut pane = Pane::<Full>::new(Keep { sketch: true, values: false });
            rows.iter().for_each(|(_, ts, value)| pane.add(*ts, *value));
            let numbers = of[1..].iter().map(|a| Some(a.of(&pane, end)).filter(|n| n.is_finite())).collect();
            let (count, missing) = (pane.tally.moments().count, pane.tally.missing());
            Told { signal: rows[0].0.to_owned(), start, end, count, missing, numbers, last: true }
        }).collect();
        let mut found = told(&emitted(&yaml, &rows, chunk));
        prop_assert_eq!(&found, &told(&emitted(&yaml, &rows, rows.len())));
        let key = |t: &Told| (t.end, t.start, t.signal.clone(), t.count, t.missing);
        expect.sort_by_key(key);
        found.sort_by_key(key);
        let close = |a: &Option<f64>, b: &Option<f64>| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * b.abs().max(100.0),
            (a, b) => a == b,
        };
        prop_assert_eq!(found.iter().map(key).collect::<Vec<_>>(), expect.iter().map(key).collect::<Vec<_>>());
        for (found, expect) in found.iter().zip(&expect) {
            let same = found.numbers.iter().zip(&expect.numbers).all(|(a, b)| close(a, b));
            prop_assert!(same, "{} {:?} {:?}", yaml, found, expect);
        }
    }
}
