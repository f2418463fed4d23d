//! A run whose steps remember more than `memory.limit` allows says so and ends, with a checkpoint.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod toy;

use taktline_engine::plan::compile;
use taktline_engine::state::StateDir;
use taktline_engine::{Fabric, Options, Resume, Run, StateOptions};

/// 2,000 new keys an epoch that nobody forgets, some hundred bytes each.
#[test]
fn state_above_the_limit_ends_the_run_with_the_reason() {
    let data = tempfile::tempdir().unwrap();
    let text = "version: 1\nname: keys\nmemory: {limit: 96MiB}\nsources: {plc: {kind: fountain, keys: 2000}}\n\
                steps: {sums: {kind: sum, from: plc}}\nsinks: {out: {kind: count, from: sums}}\n";
    let plan = compile("toy.yaml", text, &[], &toy::CATALOG, &|_| None).unwrap_or_else(|found| panic!("{found:?}"));
    let options = Options {
        workers: 2,
        ..Options::default()
    };
    let run = Run::new(plan, options).unwrap();
    let resume = Resume::lead(&run, &StateOptions::at(data.path()), 1).unwrap();
    let error = run.execute_from(Some(resume), Fabric::alone()).unwrap_err();
    let message = format!("{error:#}");
    assert!(message.contains("memory.limit is 96 MiB"), "{message}");
    assert!(message.contains("keys.forget_after"), "{message}");
    assert!(StateDir::at(data.path()).exists());
}
