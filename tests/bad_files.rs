//! Bad pipeline files, through the real binary: every problem at once, with file, line, column and hint; exit code 78.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use expect_test::{Expect, expect};

const GOOD: &str = r#"version: 1
sources:
  plc: {kind: simulate, machines: 1, duration: 10s, replay: max}
steps:
  strokes: {kind: cycle, from: plc, start: "pressure rises above 5", end: "pressure falls below 3", max: 6s}
  compared: {kind: compare, from: strokes, reference: {first: 3}, distance: dtw, window: 10%}
  health: {kind: health, from: compared}
  worn: {kind: alert, from: health, when: "health < 60", for: 3 cycles, clear: "health > 70"}
sinks:
  out: {kind: stdout, from: worn}
"#;

fn problems(text: &str) -> (i32, String) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("line.yaml");
    std::fs::write(&file, text).unwrap();
    let (code, stdout, stderr) = support::any(&["validate", file.to_str().unwrap()]);
    assert_eq!(stdout, "");
    (code, stderr.replace(dir.path().to_str().unwrap(), ""))
}

fn check(old: &str, new: &str, expected: Expect) {
    assert!(GOOD.contains(old), "{old}");
    let (code, found) = problems(&GOOD.replace(old, new));
    expected.assert_eq(&found);
    assert_eq!(code, 78, "{found}");
}

#[test]
fn a_good_file_says_nothing() {
    assert_eq!(problems(GOOD), (0, String::new()));
}

#[test]
fn unknown_keys() {
    check(
        "max: 6s",
        "maxx: 6s",
        expect![[r#"
        /line.yaml:5:101: unknown key `maxx`; did you mean `max`?
    "#]],
    );
    check(
        "reference: {first: 3}",
        "reference: {frist: 3}",
        expect![[r#"
            /line.yaml:6:55: expected {first: ...} or {last: ...} or {cycle: ...} or {path: ...}, found `frist`; did you mean `first`?
        "#]],
    );
    check(
        "machines: 1",
        "machine: 1",
        expect![[r#"
        /line.yaml:3:25: unknown key `machine`; did you mean `machines`?
    "#]],
    );
}

#[test]
fn unknown_kinds_and_steps() {
    check(
        "kind: cycle",
        "kind: cycles",
        expect![[r#"
        /line.yaml:5:19: unknown kind `cycles`; did you mean `cycle`?
    "#]],
    );
    check(
        "from: strokes",
        "from: stroke",
        expect![[r#"
        /line.yaml:6:35: there is no source or step `stroke`; did you mean `strokes`?
    "#]],
    );
    check(
        "kind: simulate",
        "kind: opcua",
        expect![[r#"
        /line.yaml:3:15: unknown kind `opcua`; known: file, simulate, mqtt, sparkplug, kafka, http
    "#]],
    );
}

#[test]
fn loops_and_missing_inputs() {
    check(
        "{kind: cycle, from: plc,",
        "{kind: cycle, from: compared,",
        expect![[r#"
        /line.yaml:5:3: `strokes` is part of a loop: it reads what it makes
        /line.yaml:6:3: `compared` is part of a loop: it reads what it makes
    "#]],
    );
    check(
        "{kind: health, from: compared}",
        "{kind: health}",
        expect![[r#"
        /line.yaml:7:3: `from` is missing; name the source or step to read
    "#]],
    );
    check(
        "{kind: health, from: compared}",
        "{kind: health, from: strokes}",
        expect![[r#"
        /line.yaml:7:11: `strokes` has no column `deviation`; put a compare step before it and read from that
    "#]],
    );
    check(
        "{kind: compare, from: strokes,",
        "{kind: compare, from: plc,",
        expect![[r#"
            /line.yaml:6:35: `compare` reads cycles, but `plc` gives samples; put a step between that makes cycles (steps that read samples: cycle, window, resample, join, dedup, anomaly, alert)
        "#]],
    );
}

#[test]
fn wrong_types_and_values() {
    check(
        "max: 6s",
        "max: 6",
        expect![[r#"
        /line.yaml:5:106: expected a length of time like 800ms, found a whole number
    "#]],
    );
    check(
        "window: 10%",
        "window: wide",
        expect![[r#"
        /line.yaml:6:90: `wide` is no share; write 0% to 100%
    "#]],
    );
    check(
        "distance: dtw",
        "distance: dwt",
        expect![[r#"
            /line.yaml:6:77: unknown value `dwt`; did you mean `dtw`?
        "#]],
    );
    check(
        "reference: {first: 3}",
        "reference: {first: none}",
        expect![[r#"
        /line.yaml:6:63: expected a whole number, found a text
    "#]],
    );
    check(
        "reference: {first: 3}",
        "reference: {first: 0}",
        expect![[r#"
        /line.yaml:6:63: must be 1 to 200
    "#]],
    );
    check(
        "for: 3 cycles",
        "for: 3 weeks",
        expect![[r#"
        /line.yaml:8:63: `3 weeks` is no span; write 3 cycles, 2 of 5 cycles or 10s
    "#]],
    );
}

#[test]
fn conditions_that_do_not_parse_and_columns_that_are_not_there() {
    check(
        "pressure rises above 5",
        "pressure rises abov 5",
        expect![[r#"
        /line.yaml:5:60: expected `rises above`, `falls below` or `goes back`; write for example: pressure rises above 5, batch_id changes, event is 'START', ClockTime goes back
    "#]],
    );
    check(
        "pressure falls below 3",
        "pressure falls below",
        expect![[r#"
        /line.yaml:5:96: expected a number; write for example: pressure rises above 5, batch_id changes, event is 'START', ClockTime goes back
    "#]],
    );
    check(
        "health < 60",
        "health <",
        expect![[r#"
        /line.yaml:8:52: expected a column, a number or a 'text'; write for example: health < 60 and outcome = 'complete'
    "#]],
    );
    check(
        "health < 60",
        "heath < 60",
        expect![[r#"
        /line.yaml:8:43: there is no column `heath`; did you mean `health`?
    "#]],
    );
    check(
        "health < 60",
        "health < 'low'",
        expect![[r#"
        /line.yaml:8:53: 'low' is a text, `health` a number
    "#]],
    );
    check(
        "health > 70",
        "(health > 70",
        expect![[r#"
        /line.yaml:8:93: expected `)`; write for example: health < 60 and outcome = 'complete'
    "#]],
    );
}

#[test]
fn everything_at_once() {
    let text = GOOD
        .replace("max: 6s", "maxx: 6s")
        .replace("from: strokes", "from: stroke")
        .replace("kind: stdout", "kind: stdoutt")
        .replace("machines: 1", "machines: one");
    let (code, found) = problems(&text);
    expect![[r#"
        /line.yaml:3:35: expected a whole number, found a text
        /line.yaml:5:101: unknown key `maxx`; did you mean `max`?
        /line.yaml:6:35: there is no source or step `stroke`; did you mean `strokes`?
        /line.yaml:10:15: unknown kind `stdoutt`; did you mean `stdout`?
    "#]]
    .assert_eq(&found);
    assert_eq!(code, 78);
}

#[test]
fn problems_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("line.yaml");
    std::fs::write(&file, GOOD.replace("max: 6s", "maxx: 6s")).unwrap();
    let (code, stdout, _) = support::any(&["validate", file.to_str().unwrap(), "--format", "json"]);
    let found: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(
        (code, &found[0]["line"], &found[0]["column"]),
        (78, &5.into(), &101.into())
    );
}

#[test]
fn wrong_usage() {
    assert_eq!(support::any(&["rum"]).0, 2);
    assert_eq!(support::any(&["run", "nowhere.yaml"]).0, 1);
    assert_eq!(support::any(&["run", "x.yaml", "--workers", "0"]).0, 2);
}
