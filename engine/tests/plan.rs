//! The plan: golden graphs, and every way in which a file can be wrong.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod toy;

use expect_test::{Expect, expect};
use taktline_engine::config::{Override, Problem};
use taktline_engine::kind::{Catalog, SinkKind};
use taktline_engine::plan::compile;

const GOOD: &str = r#"
version: 1
sources:
  plc: {kind: list, rows: [[a, 1, 1.5]]}
steps:
  sums: {kind: sum, from: plc, lateness: 2s}
  all: {kind: pass, from: sums}
sinks:
  out: {kind: keep, from: [plc, sums, all]}
"#;

fn outcome(text: &str, overrides: &[Override]) -> String {
    let env = |name: &str| (name == "LATENESS").then(|| "3s".to_owned());
    match compile("line.yaml", text, overrides, &toy::CATALOG, &env) {
        Ok(plan) => plan.to_string(),
        Err(found) => found.iter().map(|diagnostic| format!("{diagnostic}\n")).collect(),
    }
}

fn check(text: &str, expected: Expect) {
    expected.assert_eq(&outcome(text, &[]));
}

/// `GOOD` with one part replaced.
fn check_with(old: &str, new: &str, expected: Expect) {
    assert!(GOOD.contains(old));
    check(&GOOD.replace(old, new), expected);
}

#[test]
fn a_good_file() {
    check(
        GOOD,
        expect![[r#"
        pipeline line
        source plc (list)
          -> samples: machine name(utf8), signal name(utf8), ts timestamp, value float64, text utf8, quality name(utf8)
        step sums (sum) from plc
          -> sums: machine name(utf8), ts timestamp, sum float64
        step all (pass) from sums
          -> sums: machine name(utf8), ts timestamp, sum float64
        sink out (keep) from plc, sums, all, late, dead_letters
    "#]],
    );
    check_with(
        "lateness: 2s",
        "lateness: {env: LATENESS}",
        expect![[r#"
        pipeline line
        source plc (list)
          -> samples: machine name(utf8), signal name(utf8), ts timestamp, value float64, text utf8, quality name(utf8)
        step sums (sum) from plc
          -> sums: machine name(utf8), ts timestamp, sum float64
        step all (pass) from sums
          -> sums: machine name(utf8), ts timestamp, sum float64
        sink out (keep) from plc, sums, all, late, dead_letters
    "#]],
    );
}

#[test]
fn toml_and_json_are_read_too() {
    let toml = "version = 1\n[sources.plc]\nkind = \"list\"\nrows = [[\"a\", 1, 1.5]]\n[steps.sums]\nkind = \"smu\"\nfrom = \"plc\"\n";
    let found = compile("line.toml", toml, &[], &toy::CATALOG, &|_| None).err().unwrap();
    expect!["line.toml:6:8: unknown kind `smu`; did you mean `sum`?"].assert_eq(&found[0].to_string());
    let json = r#"{"version": 1, "sources": {"plc": {"kind": "list", "rows": []}}}"#;
    assert!(compile("line.json", json, &[], &toy::CATALOG, &|_| None).is_ok());
}

#[test]
fn everything_wrong_is_said_at_once() {
    check(
        "version: 2\nsourcess: {}\nsources:\n  plc: {kind: lst}\nsteps:\n  a: {kind: sum, from: plcc, lateness: 2}\nsinks:\n  s: {from: a}\n",
        expect![[r#"
            line.yaml:1:10: must be 1
            line.yaml:2:1: unknown key `sourcess`; did you mean `sources`?
            line.yaml:4:15: unknown kind `lst`; did you mean `list`?
            line.yaml:6:24: there is no source or step `plcc`; did you mean `plc`?
            line.yaml:6:40: expected a length of time like 800ms, found a whole number
            line.yaml:8:6: `kind` is missing; known: keep, count
        "#]],
    );
}

#[test]
fn each_wrong_thing_has_its_place() {
    check_with(
        "rows:",
        "rowz:",
        expect![[r#"
        line.yaml:4:8: `rows` is missing; rows: The rows
        line.yaml:4:21: unknown key `rowz`; did you mean `rows`?
    "#]],
    );
    check_with(
        "kind: sum,",
        "kind: summ,",
        expect![[r#"
        line.yaml:6:16: unknown kind `summ`; did you mean `sum`?
    "#]],
    );
    check_with(
        "from: plc,",
        "from: plcs,",
        expect![[r#"
        line.yaml:6:27: there is no source or step `plcs`; did you mean `plc`?
    "#]],
    );
    check_with(
        "from: plc,",
        "",
        expect![[r#"
        line.yaml:6:3: `from` is missing; name the source or step to read
    "#]],
    );
    check_with(
        "from: plc,",
        "from: all,",
        expect![[r#"
        line.yaml:6:3: `sums` is part of a loop: it reads what it makes
        line.yaml:7:3: `all` is part of a loop: it reads what it makes
    "#]],
    );
    check_with(
        "lateness: 2s",
        "lateness: 2",
        expect![[r#"
        line.yaml:6:42: expected a length of time like 800ms, found a whole number
    "#]],
    );
    check_with(
        "lateness: 2s",
        "lateness: 2 parsecs",
        expect![[r#"
        line.yaml:6:42: `2 parsecs` is no length of time; write a number and a unit, like 800ms, 6s or 5min
    "#]],
    );
    check_with(
        "lateness: 2s",
        "lateness: {env: NOWHERE}",
        expect![[r#"
        line.yaml:6:42: the environment has no variable `NOWHERE`; set it, or write {env: NOWHERE, default: ...}
    "#]],
    );
    check_with(
        "lateness: 2s",
        "lateness: {file: /nowhere/secret}",
        expect![[r#"
        line.yaml:6:42: /nowhere/secret: No such file or directory (os error 2)
    "#]],
    );
    check_with(
        "kind: pass, from: sums",
        "kind: sum, from: sums",
        expect![[r#"
        line.yaml:7:26: `sum` reads samples, but `sums` gives sums; put a step between that makes samples (steps that read sums: pass)
    "#]],
    );
    check_with(
        "kind: pass, from: sums",
        "kind: pass, from: [sums, plc]",
        expect![[r#"
        line.yaml:7:34: `plc` gives samples, `sums` gives sums; the inputs of a step must carry the same columns
    "#]],
    );
    check_with(
        "kind: pass, from: sums",
        "kind: pass, from: sums, column: summ",
        expect![[r#"
        line.yaml:7:41: `sums` has no column `summ`; did you mean `sum`?
    "#]],
    );
    check_with(
        "  all:",
        "  sums:",
        expect![[r#"
            line.yaml:7:3: the key `sums` stands here a second time
        "#]],
    );
    check_with(
        "  all:",
        "  a b:",
        expect![[r#"
        line.yaml:7:3: `a b` can't be a name; use letters, digits, `_` and `-`
        line.yaml:9:39: there is no source or step `all`; known: plc, sums, a b
    "#]],
    );
    check_with(
        "{kind: pass, from: sums}",
        "[1, 2]",
        expect![[r#"
        line.yaml:7:3: `from` is missing; name the source or step to read
        line.yaml:7:8: `kind` is missing; known: sum, pass
    "#]],
    );
    check(
        "version: 1\nsources: {}\n",
        expect![[r#"
        line.yaml:1:1: a pipeline needs at least one source
    "#]],
    );
    check(
        "version: 1\nsources: {plc: [\n",
        expect![[r#"
        line.yaml:3:1: while parsing a node, did not find expected node content
    "#]],
    );
    check(
        "",
        expect![[r#"
        line.yaml:1:1: `version` is missing; version: The version of the file format: 1
        line.yaml:1:1: `sources` is missing; sources: Where rows come from, by name
    "#]],
    );
}

#[derive(schemars::JsonSchema)]
struct Nothing {}

/// Refuses to be built and says whose rows its inputs extend.
const EXTENDS: &[SinkKind] = &[SinkKind {
    name: "extends",
    summary: "says whose rows its inputs extend",
    schema: || schemars::schema_for!(Nothing),
    takes_refused: false,
    build: |_, inputs| {
        let said = inputs.iter().map(|input| format!("{} {:?}", input.name, input.extends));
        Err(vec![Problem::at("", said.collect::<Vec<_>>().join(", "))])
    },
}];

#[test]
fn a_step_extends_all_its_inputs() {
    let text = "version: 1\nsources:\n  x: {kind: list, rows: [[a, 1, 1.5]]}\n  y: {kind: list, rows: [[b, 1, 1.5]]}\n\
                steps:\n  one: {kind: sum, from: x}\n  two: {kind: sum, from: y}\n\
                \x20 both: {kind: pass, from: [one, two]}\n  again: {kind: pass, from: both}\n\
                sinks:\n  out: {kind: extends, from: [one, again]}\n";
    let catalog = Catalog {
        sinks: EXTENDS,
        ..toy::CATALOG
    };
    let found = compile("line.yaml", text, &[], &catalog, &|_| None).err().unwrap();
    assert_eq!(found[0].message, r#"one [], again ["both", "one", "two"]"#);
}

#[test]
fn an_override_is_checked_like_the_file() {
    let set = |text: &str| outcome(GOOD, &[text.parse().unwrap()]);
    expect![[r#"
        --set steps.sums.lateness=5: expected a length of time like 800ms, found a whole number
    "#]]
    .assert_eq(&set("steps.sums.lateness=5"));
    expect![[r#"
        --set steps.sums.latenes=5s: unknown key `latenes`; did you mean `lateness`?
    "#]]
    .assert_eq(&set("steps.sums.latenes=5s"));
    assert!(set("steps.sums.lateness=5s").starts_with("pipeline line"));
    assert!("steps.sums.lateness".parse::<Override>().is_err());
}

#[test]
fn the_schema_names_all_kinds() {
    let schema = taktline_engine::plan::schema(&toy::CATALOG).to_value();
    let kinds = schema
        .pointer("/properties/steps/additionalProperties/oneOf")
        .unwrap()
        .as_array()
        .unwrap();
    assert_eq!(kinds.len(), 2);
    assert_eq!(kinds[0]["properties"]["kind"]["const"], "sum");
}
