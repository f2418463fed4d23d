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
    check("max: 6s", "maxx: 6s", expect![[""]]);
    check("reference: {first: 3}", "reference: {frist: 3}", expect![[""]]);
    check("machines: 1", "machine: 1", expect![[""]]);
}

#[test]
fn unknown_kinds_and_steps() {
    check("kind: cycle", "kind: cycles", expect![[""]]);
    check("from: strokes", "from: stroke", expect![[""]]);
    check("kind: simulate", "kind: opcua", expect![[""]]);
}

#[test]
fn loops_and_missing_inputs() {
    check("{kind: cycle, from: plc,", "{kind: cycle, from: compared,", expect![[""]]);
    check("{kind: health, from: compared}", "{kind: health}", expect![[""]]);
    check("{kind: health, from: compared}", "{kind: health, from: strokes}", expect![[""]]);
    check("{kind: compare, from: strokes,", "{kind: compare, from: plc,", expect![[""]]);
}

#[test]
fn wrong_types_and_values() {
    check("max: 6s", "max: 6", expect![[""]]);
    check("window: 10%", "window: wide", expect![[""]]);
    check("distance: dtw", "distance: dwt", expect![[""]]);
    check("reference: {first: 3}", "reference: {first: none}", expect![[""]]);
    check("reference: {first: 3}", "reference: {first: 0}", expect![[""]]);
    check("for: 3 cycles", "for: 3 weeks", expect![[""]]);
}

#[test]
fn conditions_that_do_not_parse_and_columns_that_are_not_there() {
    check("pressure rises above 5", "pressure rises abov 5", expect![[""]]);
    check("pressure falls below 3", "pressure falls below", expect![[""]]);
    check("health < 60", "health <", expect![[""]]);
    check("health < 60", "heath < 60", expect![[""]]);
    check("health < 60", "health < 'low'", expect![[""]]);
    check("health > 70", "(health > 70", expect![[""]]);
}

#[test]
fn everything_at_once() {
    let text = GOOD
        .replace("max: 6s", "maxx: 6s")
        .replace("from: strokes", "from: stroke")
        .replace("kind: stdout", "kind: stdoutt")
        .replace("machines: 1", "machines: one");
    let (code, found) = problems(&text);
    expect![[""]].assert_eq(&found);
    assert_eq!(code, 78);
}

#[test]
fn problems_as_json() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("line.yaml");
    std::fs::write(&file, GOOD.replace("max: 6s", "maxx: 6s")).unwrap();
    let (code, stdout, _) = support::any(&["validate", file.to_str().unwrap(), "--format", "json"]);
    let found: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((code, &found[0]["line"], &found[0]["column"]), (78, &5.into(), &103.into()));
}

#[test]
fn wrong_usage() {
    assert_eq!(support::any(&["rum"]).0, 2);
    assert_eq!(support::any(&["run", "nowhere.yaml"]).0, 1);
    assert_eq!(support::any(&["run", "x.yaml", "--workers", "0"]).0, 2);
}
