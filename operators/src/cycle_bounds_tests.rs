//! What a cycle may cost, how long it may last, and where it may begin.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use arrow::array::AsArray;
use taktline_engine::table::{Sample, samples_batch};

use super::tests::{check, input, rows, run, show, step};
use super::*;

const DAY_MS: i64 = 86_400_000;

fn cut(by: Boundaries, most_samples: u64) -> Arc<Cut> {
    Arc::new(Cut {
        by,
        min_us: None,
        max_us: None,
        gap_us: None,
        most_samples,
        keep: Vec::new(),
    })
}

/// A step without `max`.
fn unbounded(by: Boundaries, most_samples: u64) -> CycleStep {
    CycleStep {
        name: "s".into(),
        cut: cut(by, most_samples),
        max_us: None,
        order: Order::Time { lateness_us: 0 },
        table: cycles::table(cycles::schema(), false),
    }
}

fn triggers(start: &str, end: Option<&str>) -> Boundaries {
    let trigger = |text: &str| Box::new(Trigger::parse("start", text).unwrap());
    Boundaries::Triggers {
        start: trigger(start),
        end: end.map(trigger),
    }
}

fn sample(signal: &str, ts: i64, value: f64) -> Sample<'_> {
    Sample {
        machine: "m",
        signal,
        ts,
        value: Some(value),
        text: None,
    }
}

#[test]
fn signals_of_other_machines_cost_nothing() {
    let names: Vec<String> = (0..10_000).map(|n| format!("other {n}")).collect();
    let own = (0..600).map(|n| sample(["b", "p", "a"][n % 3], n as i64 / 3, 1.0));
    let batch = samples_batch(names.iter().map(|name| sample(name, 0, 1.0)).chain(own));
    let cut = cut(triggers("b changes", None), MOST_SAMPLES);
    let mut cycles = Cycles {
        slots: Slots::default(),
        segmenter: Segmenter::new(cut, "s".into(), "m"),
        builder: CyclesBuilder::default(),
    };
    let mut out = Output::default();
    for from in (names.len()..batch.num_rows()).step_by(3) {
        cycles.rows(&Rows::new(&batch, from..from + 3), &mut out).unwrap();
        let (samples, bytes) = (from + 3 - names.len(), cycles.segmenter.allocated());
        assert!(bytes <= 24 * samples + 3 * 1024, "{bytes} bytes for {samples} samples");
    }
    cycles.end(&mut out).unwrap();
    assert_eq!(show(&out.take()), ["0..0.199 truncated 600/0 a=1:1 b=1:1 p=1:1"]);
}

#[test]
fn a_gap_inside_a_length_makes_another_cycle() {
    let yaml = "{length: 100ms, gap: 10ms}";
    let text = "p 3 1, p 5 2, p 40 3, p 45 4, p 99 5, p 101 6";
    check(
        yaml,
        text,
        &[
            "0..5 gap 2/0 p=1:2",
            "40..45 gap 2/0 p=3:4",
            "99..100 complete 1/0 p=5:5",
            "100..101 truncated 1/0 p=6:6",
        ],
    );
    // Also where the gap came after the very first moment of a stretch.
    check(
        yaml,
        "p 0 1, p 20 2",
        &["0..0 gap 1/0 p=1:1", "20..20 truncated 1/0 p=2:2"],
    );
}

#[test]
fn lasts_a_day_at_most() {
    let day = format!("b 0 1, q {} 2, q {} 3", DAY_MS, DAY_MS + 1);
    check("{start: b changes}", &day, &["0..86400000 timeout 2/0 b=1:1 q=2:2"]);
    let more = DAY_MS + 1;
    check(
        "{start: b changes, gap: 2d}",
        &day,
        &[&format!("0..{more} truncated 3/0 b=1:1 q=2:3")],
    );
    // Nobody waits a day for a silent machine.
    assert_eq!(step("{start: b changes}").patience_us(), 0);
}

#[test]
fn holds_so_many_samples_at_most() {
    let check = |by: Boundaries, text: &str, expect: &[&str]| {
        let step = unbounded(by, 3);
        for chunk in [1, 2, 9] {
            assert_eq!(
                show(&run(&step, &rows(text), chunk, None).0),
                expect,
                "in calls of {chunk}"
            );
        }
    };
    check(
        triggers("b changes", None),
        "b 0 1, q 1 1, q 2 2, q 3 3, b 4 2, q 5 5",
        &["0..2 timeout 3/0 b=1:1 q=1:2", "4..5 truncated 2/0 b=2:2 q=5:5"],
    );
    check(
        Boundaries::Length(10_000),
        "q 1 1, q 2 2, q 3 3, q 4 4",
        &["0..3 timeout 3/0 q=1:3", "4..4 truncated 1/0 q=4:4"],
    );
    // An end that has still to last is no end any more.
    check(
        triggers("p rises above 5", Some("p falls below 3 for 9ms")),
        "p 0 0, p 1 6, p 2 1, p 3 1, p 4 1, p 5 9",
        &["1..3 timeout 3/0 p=6:1", "5..5 truncated 1/0 p=9:9"],
    );
}

#[test]
fn a_next_cycle_keeps_its_rows_when_max_passes_before_it_is_sure() {
    check(
        "{start: p rises above 5 for 4ms, max: 6ms}",
        "p 0 0, p 1 6, p 6 1, p 7 7, p 8 8, p 9 9, p 12 6, p 13 5.5, p 14 1",
        &["1..7 complete 2/0 p=6:1", "7..13 timeout 5/0 p=7:5.5"],
    );
}

#[test]
fn ends_of_time() {
    for yaml in [
        "{start: b changes}",
        "{start: b rises above 0 for 1s, gap: 1s, max: 1s}",
        "{length: 10s}",
        "{length: 10s, gap: 1s}",
    ] {
        let (first, last) = (i64::MIN, i64::MAX);
        let rows = [(first, 0.0), (first, 1.0), (0, 0.0), (last - 1, 1.0), (last, 2.0)];
        let rows = rows.map(|(ts, value)| sample("b", ts, value));
        run(step(yaml).as_ref(), &rows, 2, None);
    }
    // An end that was broken: rows of the end of time go to a cycle that began at its start.
    let by = triggers("b rises above 0", Some("b falls below 0 for 1s"));
    let step = unbounded(by, MOST_SAMPLES);
    let rows = [
        (i64::MIN, -1.0),
        (i64::MIN + 1, 1.0),
        (i64::MAX - 9, -1.0),
        (i64::MAX - 8, -1.0),
        (i64::MAX, 1.0),
    ];
    let rows = rows.map(|(ts, value)| sample("b", ts, value));
    let (cycles, _) = run(&step, &rows, 2, None);
    assert_eq!(show(&cycles).len(), 1);
}

/// Ids and times of the phases of the cycles that `outer` cuts.
fn phases(outer: &str, inner: &str, text: &str) -> (Vec<String>, Vec<String>) {
    let outer = step(outer);
    let (cycles, _) = run(outer.as_ref(), &rows(text), 100, None);
    let inner = build(&Section::from_yaml("fill", inner), &input(outer.output().clone())).unwrap();
    let mut operator = inner.operator("m");
    let mut out = Output::default();
    for batch in &cycles {
        operator.rows(&Rows::new(batch, 0..batch.num_rows()), &mut out).unwrap();
    }
    operator.end(&mut out).unwrap();
    let phases = out.take();
    let ids = phases.iter().flat_map(|batch| {
        let ids = batch.column_by_name("cycle_id").unwrap().as_string::<i32>().clone();
        ids.iter().flatten().map(str::to_owned).collect::<Vec<_>>()
    });
    (ids.collect(), show(&phases))
}

#[test]
fn a_phase_has_its_own_id() {
    let text = "b 0 1, p 0 9, p 2 1, b 5 2";
    let (ids, _) = phases("{start: b changes}", "{start: p is 9}", text);
    assert_eq!(ids, ["m@1970-01-01T00:00:00.000000Z/fill"]);
}

#[test]
fn a_phase_by_length_does_not_start_before_its_cycle() {
    let text = "b 0 1, p 2 1, p 12 2, b 15 2, p 18 3, p 22 4";
    let (ids, found) = phases("{start: b changes, keep: [p]}", "{length: 10ms}", text);
    assert_eq!(
        found,
        [
            "0..10 complete 1/0 p=1:1",
            "10..15 complete 1/0 p=2:2",
            "15..20 complete 1/0 p=3:3",
            "20..22 truncated 1/0 p=4:4"
        ]
    );
    assert_eq!(ids[2], "m@1970-01-01T00:00:00.015000Z/fill");
}
