//! `taktline test`: replays recorded inputs through a pipeline and counts what it makes of them.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::Deserialize;
use taktline_engine::config::{Node, NodeKind, parse};
use taktline_engine::plan::{Plan, compile};
use taktline_engine::{Options, Run};

use crate::catalog::CATALOG;
use crate::load::{Pipeline, Wrong, environment};
use crate::recorded::replace_sources;

/// One test of a pipeline file.
#[derive(Debug, Deserialize)]
struct Case {
    name: String,
    replay: String,
    expect: BTreeMap<String, u64>,
}

/// What became of one test.
#[derive(Debug, serde::Serialize)]
pub struct Verdict {
    /// The test's name.
    pub name: String,
    /// What was not as expected; empty when all was.
    pub failures: Vec<String>,
}

/// Runs all tests of a pipeline file, in order.
///
/// # Errors
/// The file can't be read or is wrong.
pub fn verify(file: &Path) -> anyhow::Result<Vec<Verdict>> {
    Pipeline::open(file, &[], None)?.plan()?; // with its own sources, so that all of the file is checked
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| name.clone())?;
    let root = parse(&name, &text).map_err(|diagnostic| Wrong(vec![diagnostic]))?;
    let tests = root.get("tests").map_or_else(
        || Ok(Vec::new()),
        |tests| serde_json::from_value::<Vec<Case>>(tests.to_json()),
    )?;
    let verdict = |case: &Case| {
        one(&name, &root, case).unwrap_or_else(|error| Verdict {
            name: case.name.clone(),
            failures: vec![format!("{error:#}")],
        })
    };
    Ok(tests.iter().map(verdict).collect())
}

fn one(file: &str, root: &Node, case: &Case) -> anyhow::Result<Verdict> {
    let nothing = tempfile::Builder::new().suffix(".csv").tempfile()?;
    std::fs::write(nothing.path(), "machine,signal,ts,value\n")?;
    let plan = replaying(file, root, &case.replay, nothing.path())?;
    let run = Run::new(plan, Options::default())?;
    let remarks = run.execute()?;
    let plan = run.plan();
    let mut failures = Vec::new();
    let source = |source: &taktline_engine::plan::PlannedSource| {
        let labels = &[source.name.as_str(), source.kind];
        run.metrics.dead_letters.with_label_values(labels).get()
    };
    match plan.sources.iter().map(source).sum::<u64>() {
        0 => {}
        letters => failures.push(format!("{letters} rows of {} could not be read", case.replay)),
    }
    for (what, expected) in &case.expect {
        let made: Vec<u64> = plan
            .steps
            .iter()
            .filter(|step| step.name == *what || (made_anew(step) && table_is(step, what)))
            .map(|step| {
                run.metrics
                    .rows_out
                    .with_label_values(&[step.name.as_str(), step.kind])
                    .get()
            })
            .collect();
        match made.iter().sum::<u64>() {
            _ if made.is_empty() => failures.push(format!("{what}: no step or table of this name")),
            found if found == *expected => {}
            found => failures.push(format!("{what}: expected {expected}, found {found}")),
        }
    }
    if !failures.is_empty() {
        failures.extend(remarks.iter().map(|r| format!("{}: {}: {}", r.step, r.machine, r.text)));
    }
    Ok(Verdict {
        name: case.name.clone(),
        failures,
    })
}

/// True for a step whose rows aren't another step's rows with more columns; so a cycle counts once.
fn made_anew(step: &taktline_engine::plan::PlannedStep) -> bool {
    !step.step.output().extends_input
}

fn table_is(step: &taktline_engine::plan::PlannedStep, name: &str) -> bool {
    step.step.output().name == name
}

/// The pipeline with every source replaced by the recorded file, and without sinks.
fn replaying(file: &str, root: &Node, replay: &str, nothing: &Path) -> anyhow::Result<Plan> {
    let mut root = root.clone();
    let NodeKind::Map(parts) = &mut root.kind else {
        anyhow::bail!("{file} is no map")
    };
    parts.retain(|(key, _)| key.name != "sinks" && key.name != "tests");
    replace_sources(&mut root, replay, nothing)?;
    let text = root.to_json().to_string();
    Ok(compile(file, &text, &[], &CATALOG, &environment).map_err(Wrong)?)
}
