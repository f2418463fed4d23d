//! Cases of cutting: `ts value` rows of one or more signals, and the cycles that come out.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, UInt64Type};
use proptest::prelude::*;
use taktline_engine::table::{Sample, samples, samples_batch};

use super::*;
use crate::lockstep::with_stale;

pub(super) fn input(table: Table) -> Input {
    Input {
        name: "plc".into(),
        table,
        extends: Vec::new(),
    }
}

pub(super) fn step(yaml: &str) -> Box<dyn Step> {
    build(&Section::from_yaml("strokes", yaml), &input(samples())).unwrap()
}

/// `"p 0 1.5"`: signal, ms, value; `'START'` is a text, `-` is missing.
pub(super) fn rows<'a>(text: &'a str) -> Vec<Sample<'a>> {
    let row = |line: &'a str| {
        let mut words = line.split_whitespace();
        let (signal, ms, content) = (words.next().unwrap(), words.next().unwrap(), words.next().unwrap());
        let text = content.strip_prefix('\'').map(|text| text.trim_end_matches('\''));
        let value = if text.is_some() {
            f64::NAN
        } else {
            content.parse().unwrap_or(f64::NAN)
        };
        Sample {
            machine: "m",
            signal,
            ts: ms.parse::<i64>().unwrap() * 1000,
            value: Some(value),
            text,
        }
    };
    text.split([',', '\n'])
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .map(row)
        .collect()
}

/// Runs rows in calls of `chunk`; `advance_ms` tells how far time goes on before the end.
pub(super) fn run(
    step: &dyn Step,
    rows: &[Sample<'_>],
    chunk: usize,
    advance_ms: Option<i64>,
) -> (Vec<RecordBatch>, Option<String>) {
    let mut operator = step.operator("m");
    let mut out = Output::default();
    let batch = samples_batch(rows.iter().copied());
    for from in (0..rows.len()).step_by(chunk.max(1)) {
        let to = (from + chunk).min(rows.len());
        operator.rows(&Rows::new(&batch, from..to), &mut out).unwrap();
        operator.advance(rows[to - 1].ts, &mut out).unwrap();
    }
    if let Some(ms) = advance_ms {
        operator.advance(ms * 1000, &mut out).unwrap();
    }
    operator.end(&mut out).unwrap();
    (out.take(), operator.remark())
}

/// `start..end outcome samples/missing` in ms, then ` signal=first:last` of each.
pub(super) fn show(batches: &[RecordBatch]) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in batches {
        let cycles = CycleRows::of(batch).unwrap();
        for row in 0..cycles.len() {
            let count = |name: &str| {
                batch
                    .column_by_name(name)
                    .unwrap()
                    .as_primitive::<UInt64Type>()
                    .value(row)
            };
            let (start, end) = (cycles.start_us(row) as f64 / 1e3, cycles.end_us(row) as f64 / 1e3);
            let mut line = format!(
                "{start}..{end} {} {}/{}",
                cycles.outcome(row),
                count("samples"),
                count("missing")
            );
            for signal in cycles.signals(row) {
                line += &format!(" {}={}:{}", signal.name, signal.stats.first, signal.stats.last);
                line += &signal.text.map(|text| format!("'{text}'")).unwrap_or_default();
            }
            lines.push(line);
        }
    }
    lines
}

#[track_caller]
fn check_until(yaml: &str, text: &str, advance_ms: Option<i64>, expect: &[&str]) {
    let (step, rows) = (step(yaml), rows(text));
    for chunk in [rows.len(), 1, 2, 3, 5] {
        let (batches, _) = run(step.as_ref(), &rows, chunk, advance_ms);
        assert_eq!(show(&batches), expect, "{yaml}: in calls of {chunk}");
    }
}

#[track_caller]
pub(super) fn check(yaml: &str, text: &str, expect: &[&str]) {
    check_until(yaml, text, None, expect);
}

/// `~` for a value: the source no longer knows it.
fn stale_cycles(text: &str, chunk: usize) -> Vec<String> {
    let (step, samples) = (step(EDGES), rows(text));
    let stale: Vec<bool> = text.split(',').map(|row| row.ends_with('~')).collect();
    let batch = with_stale(&samples_batch(samples.iter().copied()), stale.iter().copied());
    let (mut operator, mut out) = (step.operator("m"), Output::default());
    for from in (0..batch.num_rows()).step_by(chunk) {
        let to = (from + chunk).min(batch.num_rows());
        operator.rows(&Rows::new(&batch, from..to), &mut out).unwrap();
    }
    operator.end(&mut out).unwrap();
    let mut found = Vec::new();
    for batch in out.take() {
        let count = |batch: &RecordBatch, name: &str| {
            let column = batch.column_by_name(name).unwrap();
            column.as_primitive::<UInt64Type>().values().to_vec()
        };
        let published = |name: &str| {
            let table = step.output().published.iter().find(|table| table.name == name).unwrap();
            (table.project)(&batch).unwrap()
        };
        let cycles = published("cycles");
        let (stale, missing) = (count(&cycles, "stale"), count(&cycles, "missing"));
        let of_signals = count(&published("cycle_signals"), "stale");
        for (line, (stale, missing)) in show(std::slice::from_ref(&batch)).iter().zip(stale.iter().zip(missing)) {
            let line = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
            found.push(format!("{line} stale {stale} missing {missing}"));
        }
        found.push(format!("signals {of_signals:?}"));
    }
    found
}

#[test]
fn a_reading_that_is_no_longer_known_flags_the_open_cycle() {
    let check = |text: &str, expect: &[&str]| {
        for chunk in [100, 1, 2] {
            let found: Vec<String> = stale_cycles(text, chunk)
                .into_iter()
                .filter(|line| !line.starts_with("signals"))
                .collect();
            assert_eq!(found, expect, "{text}: in calls of {chunk}");
        }
    };
    check(
        "p 0 0,p 1 6,p 2 ~,q 2 ~,p 3 2,p 4 0,p 5 7,p 6 0",
        &["1..3 complete stale 2 missing 2", "5..6 complete stale 0 missing 0"],
    );
    // Between cycles there is none to flag, and a missing value alone says nothing of the kind.
    check("p 0 0,p 1 ~,p 2 6,p 3 -,p 4 0", &["2..4 complete stale 0 missing 1"]);
    check("p 0 0,p 1 6,p 2 ~", &["1..2 truncated stale 1 missing 1"]);
    let signals = stale_cycles("p 0 0,p 1 6,q 1 8,q 2 ~,p 3 0", 100);
    assert_eq!(signals, ["1..3 complete stale 1 missing 1", "signals [0, 1]"]);
}

const EDGES: &str = "{start: p rises above 5, end: p falls below 3}";

#[test]
fn edges() {
    check(
        EDGES,
        "p 0 0, p 1 6, p 2 4, p 3 2, p 4 1, p 5 7, p 6 2, p 7 0",
        &["1..3 complete 3/0 p=6:2", "5..6 complete 2/0 p=7:2"],
    );
    check(EDGES, "p 0 9, p 1 2, p 2 9, p 3 9", &["2..3 truncated 2/0 p=9:9"]);
    check(
        EDGES,
        "p 0 0, p 1 6, p 2 -, p 3 inf, p 4 2",
        &["1..4 complete 2/2 p=6:2"],
    );
    check(
        EDGES,
        "p 0 0, q 1 8, p 1 6, q 2 -, p 2 1, q 2 9, q 3 3",
        &["1..2 complete 4/1 p=6:1 q=8:9"],
    );
    check(EDGES, "p 0 0, p 1 4", &[]);
    // A duplicate of the row that starts the cycle.
    check(EDGES, "p 0 0, p 1 6, p 1 6, p 2 1, p 2 1", &["1..2 complete 4/0 p=6:1"]);
}

#[test]
fn until_the_next_start() {
    check(
        "{start: b changes}",
        "b 0 1, q 0 5, b 1 1, q 1 6, q 2 7, b 2 2",
        &["0..2 complete 4/0 b=1:1 q=5:6", "2..2 truncated 2/0 b=2:2 q=7:7"],
    );
    check(
        "{start: b changes}",
        "b 0 1, b 1 2, b 2 1",
        &[
            "0..1 complete 1/0 b=1:1",
            "1..2 complete 1/0 b=2:2",
            "2..2 truncated 1/0 b=1:1",
        ],
    );
    check(
        "{start: c goes back}",
        "c 0 0, c 1 1, c 2 0, c 3 1",
        &["0..2 complete 2/0 c=0:1", "2..3 truncated 2/0 c=0:1"],
    );
    check(
        "{start: b changes}",
        "b 0 'x', b 1 'x', b 2 'y'",
        &["0..2 complete 2/0 b=NaN:NaN'x'", "2..2 truncated 1/0 b=NaN:NaN'y'"],
    );
    // Before the first start nothing belongs to a cycle.
    check(
        "{start: b changes}",
        "q 0 1, q 1 2, b 2 1, q 3 4",
        &["2..3 truncated 2/0 b=1:1 q=4:4"],
    );
}

#[test]
fn markers() {
    let yaml = "{start: \"e is 'S'\", end: \"e is 'E'\"}";
    check(
        yaml,
        "e 0 'S', q 1 4, e 2 'E', q 3 5, e 4 'S', e 5 'S', e 6 'E'",
        &["0..2 complete 3/0 e=NaN:NaN'E' q=4:4", "4..6 complete 3/0 e=NaN:NaN'E'"],
    );
    // End and start at one time: its rows, whatever their order, belong to the next cycle.
    check(
        yaml,
        "e 0 'S', q 1 4, q 2 5, e 2 'S', e 2 'E', q 2 6, e 3 'E'",
        &[
            "0..2 complete 2/0 e=NaN:NaN'S' q=4:4",
            "2..3 complete 5/0 e=NaN:NaN'E' q=5:6",
        ],
    );
}

#[test]
fn bounds() {
    let edges = "start: p rises above 5, end: p falls below 3";
    check(
        &format!("{{{edges}, min: 3ms}}"),
        "p 0 0, p 1 6, p 3 2, p 4 6, p 7 2",
        &["1..3 short 2/0 p=6:2", "4..7 complete 2/0 p=6:2"],
    );
    check(
        &format!("{{{edges}, max: 3ms}}"),
        "p 0 0, p 1 6, p 3 7, p 4 8, p 5 9, p 6 2",
        &["1..4 timeout 3/0 p=6:8"],
    );
    check(
        &format!("{{{edges}, max: 3ms}}"),
        "p 0 0, p 1 6, p 4 2",
        &["1..4 complete 2/0 p=6:2"],
    );
    check(
        &format!("{{{edges}, gap: 3ms}}"),
        "p 0 0, p 1 6, p 4 6, p 8 2, p 9 6",
        &["1..4 gap 2/0 p=6:6", "9..9 truncated 1/0 p=6:6"],
    );
    check_until(
        &format!("{{{edges}, max: 3ms}}"),
        "p 0 0, p 1 6",
        Some(4),
        &["1..1 truncated 1/0 p=6:6"],
    );
    check_until(
        &format!("{{{edges}, max: 3ms}}"),
        "p 0 0, p 1 6",
        Some(5),
        &["1..4 timeout 1/0 p=6:6"],
    );
    check_until(
        &format!("{{{edges}, gap: 3ms}}"),
        "p 0 0, p 1 6",
        Some(5),
        &["1..1 gap 1/0 p=6:6"],
    );
    check(
        "{start: b changes, keep: [q]}",
        "b 0 1, q 0 5, r 0 7",
        &["0..0 truncated 1/0 q=5:5"],
    );
}

#[test]
fn held() {
    let yaml = "{start: p rises above 5 for 2ms}";
    check(
        yaml,
        "p 0 0, p 1 6, p 2 4, q 2 1, p 3 6, q 4 2, p 6 6, p 7 0",
        &["3..7 truncated 4/0 p=6:0 q=2:2"],
    );
    check(
        yaml,
        "p 0 0, p 1 6, p 4 0, p 5 6, p 6 0, p 7 6, p 9 8",
        &["1..7 complete 4/0 p=6:0", "7..9 truncated 2/0 p=6:8"],
    );
    let yaml = "{start: p rises above 5, end: p falls below 3 for 2ms}";
    check(
        yaml,
        "p 0 0, p 1 6, p 2 2, p 3 4, p 4 2, q 5 1, p 7 1, p 8 6",
        &["1..4 complete 4/0 p=6:2", "8..8 truncated 1/0 p=6:6"],
    );
    // While an end may be under way, `max` waits; it holds if the end is broken.
    let yaml = "{start: p rises above 5, end: p falls below 3 for 3ms, max: 4ms}";
    check(
        yaml,
        "p 0 0, p 1 6, p 4 2, p 5 1, p 6 1, p 7 4",
        &["1..5 timeout 3/0 p=6:1"],
    );
    check(
        yaml,
        "p 0 0, p 1 6, p 4 2, p 5 1, p 6 1, p 8 4",
        &["1..4 complete 2/0 p=6:2"],
    );
}

#[test]
fn fixed_length() {
    check(
        "{length: 10ms}",
        "p 3 1, p 9 2, p 10 3, p 35 4",
        &[
            "0..10 complete 2/0 p=1:2",
            "10..20 complete 1/0 p=3:3",
            "30..35 truncated 1/0 p=4:4",
        ],
    );
    check(
        "{length: 10ms}",
        "p -3 1, p 2 2",
        &["-10..0 complete 1/0 p=1:1", "0..2 truncated 1/0 p=2:2"],
    );
    check_until("{length: 10ms}", "p 3 1", Some(10), &["0..10 complete 1/0 p=1:1"]);
}

#[test]
fn a_counter_that_goes_back_counts_every_run() {
    let rows: Vec<Sample<'_>> = [1, 2, 3, 2, 3, 4]
        .iter()
        .enumerate()
        .flat_map(|(run, n)| {
            (0..3).map(move |i| Sample {
                machine: "m",
                signal: "n",
                ts: (run * 3 + i) as i64,
                value: Some(f64::from(*n)),
                text: None,
            })
        })
        .collect();
    assert_eq!(
        show(&run(step("{start: n changes}").as_ref(), &rows, 4, None).0).len(),
        6
    );
}

#[test]
fn remarks() {
    let remark = |text: &str| run(step(EDGES).as_ref(), &rows(text), 100, None).1;
    assert_eq!(remark("p 0 0, p 1 6"), None);
    let found = remark("p 0 0.5, p 1 4.5").unwrap();
    assert!(
        found.starts_with("no cycle: `p rises above 5` was met 0 times; 2 values"),
        "{found}"
    );
    assert!(remark("pp 0 0, q 1 6").unwrap().contains("did you mean `pp`?"));
}

#[test]
fn columns() {
    let (batches, _) = run(
        step(EDGES).as_ref(),
        &rows("p 0 0, a 1 2, p 1 6, p 2 8, p 4 2"),
        9,
        None,
    );
    let batch = &batches[0];
    let text = |name: &str| {
        batch
            .column_by_name(name)
            .unwrap()
            .as_string::<i32>()
            .value(0)
            .to_owned()
    };
    assert_eq!(
        (text("cycle_id"), text("step")),
        ("m@1970-01-01T00:00:00.001000Z".into(), "strokes".into())
    );
    assert_eq!(
        batch
            .column_by_name("duration_s")
            .unwrap()
            .as_primitive::<Float64Type>()
            .value(0),
        0.003
    );
    let table = cycles::table(cycles::schema(), false);
    let signals = (table.published[1].project)(batch).unwrap();
    assert_eq!(signals.schema(), table.published[1].schema);
    let names: Vec<_> = signals
        .column_by_name("signal")
        .unwrap()
        .as_string::<i32>()
        .iter()
        .flatten()
        .collect();
    assert_eq!(names, ["a", "p"]);
    let number = |name: &str| {
        signals
            .column_by_name(name)
            .unwrap()
            .as_primitive::<Float64Type>()
            .value(1)
    };
    assert_eq!(
        [number("min"), number("max"), number("mean"), number("integral")],
        [2.0, 8.0, 16.0 / 3.0, 0.017]
    );
    assert!((number("std") - (56.0_f64 / 9.0).sqrt()).abs() < 1e-12);
    assert!((number("rms") - (104.0_f64 / 3.0).sqrt()).abs() < 1e-12);
    let flat = (table.published[0].project)(batch).unwrap();
    assert_eq!(
        (flat.schema(), flat.num_columns()),
        (table.published[0].schema.clone(), 11)
    );
}

#[test]
fn phases() {
    let outer = step("{start: b changes}");
    let text = "b 0 1, p 0 0, p 1 6, p 3 1, p 4 7, b 5 2, p 5 0, p 6 6, p 7 7";
    let (cycles, _) = run(outer.as_ref(), &rows(text), 100, None);
    let inner = build(
        &Section::from_yaml("phases", "{start: p rises above 5}"),
        &input(outer.output().clone()),
    )
    .unwrap();
    let mut operator = inner.operator("m");
    let mut out = Output::default();
    for batch in &cycles {
        operator.rows(&Rows::new(batch, 0..batch.num_rows()), &mut out).unwrap();
    }
    operator.end(&mut out).unwrap();
    let phases = out.take();
    let expect = [
        "1..4 complete 2/0 p=6:1",
        "4..5 complete 1/0 p=7:7",
        "6..7 truncated 2/0 p=6:7",
    ];
    assert_eq!(show(&phases), expect);
    let parents = phases[0].column_by_name("parent_id").unwrap().as_string::<i32>();
    assert_eq!(
        (parents.value(0), parents.null_count()),
        ("m@1970-01-01T00:00:00.000000Z", 0)
    );
}

#[test]
fn refused() {
    let refused = |yaml: &str, table: Table, expect: &[&str]| {
        let problems = build(&Section::from_yaml("s", yaml), &input(table)).err().unwrap();
        let found: Vec<String> = problems
            .iter()
            .map(|p| format!("{}: {}", p.path.join("."), p.message))
            .collect();
        assert_eq!(found, expect, "{yaml}");
    };
    refused("{}", samples(), &[": `start` is missing"]);
    refused(
        "{start: p changes, length: 3s}",
        samples(),
        &["length: stands instead of `start` and `end`, not beside them"],
    );
    refused(
        "{length: 0s, end: p changes}",
        samples(),
        &["length: must be longer than 0", "end: needs a `start`"],
    );
    refused(
        "{length: 5s, max: 3s}",
        samples(),
        &["max: has no meaning beside `length`, which ends a cycle"],
    );
    refused(
        "{start: p changes, min: 2d}",
        samples(),
        &["min: is longer than `max`, which is 1d if not given"],
    );
    refused(
        "{start: p rises, end: p falls, min: 3s, max: 2s, keep: []}",
        samples(),
        &[
            "start: expected `rises above`, `falls below` or `goes back`",
            "end: expected `rises above`, `falls below` or `goes back`",
            "min: is longer than `max`",
            "keep: names no signal",
        ],
    );
    let cycles = cycles::table(cycles::schema(), false);
    refused(
        "{start: \"e is 'x'\", lateness: 1s}",
        cycles,
        &[
            "start: a cycle keeps only the last text of a signal, so a phase can't begin or end with one",
            "lateness: has no meaning inside a cycle, whose rows are in order already",
        ],
    );
}

proptest! {
    #[test]
    fn the_cut_into_calls_does_not_matter(
        steps in prop::collection::vec((0_i64..4, 0_usize..3, 0..8_i32), 1..60),
        chunk in 1_usize..9,
        kind in 0_usize..7,
    ) {
        let yaml = [
            "{start: a rises above 4, end: a falls below 2, max: 9ms, gap: 2ms, min: 2ms}",
            "{start: a rises above 4 for 2ms, end: b falls below 3 for 3ms, max: 6ms}",
            "{start: a rises above 4 for 3ms, max: 5ms, gap: 2ms}",
            "{start: b changes, gap: 2ms}",
            "{start: c goes back, max: 4ms}",
            "{length: 5ms}",
            "{length: 9ms, gap: 2ms}",
        ][kind];
        let mut ts = 0;
        let rows: Vec<Sample<'_>> = steps.iter().map(|(pause, signal, value)| {
            ts += pause * 1000;
            let value = if *value == 0 { f64::NAN } else { f64::from(*value) };
            Sample { machine: "m", signal: ["a", "b", "c"][*signal], ts, value: Some(value), text: None }
        }).collect();
        let step = step(yaml);
        let whole = run(step.as_ref(), &rows, rows.len(), None).0;
        let cut = run(step.as_ref(), &rows, chunk, None).0;
        prop_assert_eq!(show(&whole), show(&cut));
    }
}
