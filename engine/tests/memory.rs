//! A run whose steps remember more than `memory.limit` allows says so and ends, with a checkpoint.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod toy;

use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use taktline_engine::plan::compile;
use taktline_engine::state::StateDir;
use taktline_engine::{Fabric, MemoryExceeded, Options, Resume, Run, StateOptions};

/// 10,000 new keys an epoch that nobody forgets, some hundred bytes each.
fn run(limit: &str, workers: usize) -> Arc<Run> {
    let text = format!(
        "version: 1\nname: keys\nmemory: {{limit: {limit}}}\nsources: {{plc: {{kind: fountain, keys: 10000}}}}\n\
         steps: {{sums: {{kind: sum, from: plc}}}}\nsinks: {{out: {{kind: count, from: sums}}}}\n"
    );
    let plan = compile("toy.yaml", &text, &[], &toy::CATALOG, &|_| None).unwrap_or_else(|found| panic!("{found:?}"));
    let options = Options {
        workers,
        checkpoint_every: Duration::from_secs(3600),
        ..Options::default()
    };
    Run::new(plan, options).unwrap()
}

/// The one who exceeded it is named, with the way out; what was read is in a checkpoint, and there were some before it.
fn check(data: &Path, error: &anyhow::Error, process: usize) {
    let exceeded = error
        .downcast_ref::<MemoryExceeded>()
        .unwrap_or_else(|| panic!("{error:?}"));
    assert_eq!((exceeded.process, exceeded.limit_bytes), (process, 96 << 20));
    // Above the limit it hardly grows, though keys would come at hundreds of MiB a second.
    assert!(
        exceeded.resident_bytes < 256 << 20,
        "{} MiB",
        exceeded.resident_bytes >> 20
    );
    let message = error.to_string();
    assert!(message.contains("memory.limit is 96 MiB"), "{message}");
    assert!(message.contains("keys.forget_after"), "{message}");
    let checkpoint = StateDir::at(data).published().unwrap();
    assert!(checkpoint > Some(1), "{checkpoint:?}");
}

#[test]
fn state_above_the_limit_ends_the_run_with_the_reason() {
    let data = tempfile::tempdir().unwrap();
    let run = run("96MiB", 2);
    let resume = Resume::lead(&run, &StateOptions::at(data.path()), 1).unwrap();
    let error = run.execute_from(Some(resume), Fabric::alone()).unwrap_err();
    check(data.path(), &error, 0);
}

/// The second of two processes reads nothing itself; what fills it is read by the first.
#[test]
fn a_process_that_follows_has_the_leader_end_the_run() {
    let data = tempfile::tempdir().unwrap();
    let state = StateOptions::at(data.path());
    let (leads, follows) = (run("100GiB", 1), run("96MiB", 1));
    let (one, other) = UnixStream::pair().unwrap();
    let fabric = |process, sockets| Fabric {
        process,
        processes: 2,
        sockets,
    };
    let resume = Resume::lead(&leads, &state, 2).unwrap();
    let following = Resume::follow(&follows, &state, &resume.facts(), 1, 2).unwrap();
    let follower =
        std::thread::spawn(move || follows.execute_from(Some(following), fabric(1, vec![Some(other), None])));
    let error = leads
        .execute_from(Some(resume), fabric(0, vec![None, Some(one)]))
        .unwrap_err();
    check(data.path(), &error, 1);
    check(data.path(), &follower.join().unwrap().unwrap_err(), 1);
}
