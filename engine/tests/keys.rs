//! New keys without end: memory stays where it is when silent ones are forgotten.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod toy;

use std::sync::Arc;
use std::time::{Duration, Instant};

use taktline_engine::plan::compile;
use taktline_engine::{Fabric, Options, Resume, Run, StateOptions};

/// Resident memory of this process in MiB.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Runs with so many new keys an epoch until so many were seen, and gives the memory at each quarter.
fn run(an_epoch: u64, keys: u64, every: Duration) -> Vec<u64> {
    let data = tempfile::tempdir().unwrap();
    let text = format!(
        "version: 1\nname: keys\nkeys: {{forget_after: 1s}}\nsources: {{plc: {{kind: fountain, keys: {an_epoch}}}}}\n\
         steps: {{sums: {{kind: sum, from: plc}}, all: {{kind: pass, from: sums}}}}\nsinks: {{out: {{kind: count, from: all}}}}\n"
    );
    let plan = compile("toy.yaml", &text, &[], &toy::CATALOG, &|_| None).unwrap_or_else(|found| panic!("{found:?}"));
    let options = Options {
        workers: 2,
        checkpoint_every: every,
        ..Options::default()
    };
    let run = Run::new(plan, options).unwrap();
    let running = std::thread::spawn({
        let (run, state) = (Arc::clone(&run), StateOptions::at(data.path()));
        move || {
            let resume = Resume::lead(&run, &state, 1)?;
            run.execute_from(Some(resume), Fabric::alone())
        }
    });
    let seen = || run.metrics.rows_in.with_label_values(&["out", "count"]).get();
    let begun = Instant::now();
    let mut memory = Vec::new();
    for quarter in 1..=4 {
        while seen() < quarter * keys / 4 {
            assert!(begun.elapsed() < Duration::from_secs(300), "{} of {keys} keys", seen());
            assert!(!run.failed(), "{:?}", run.failure());
            std::thread::park_timeout(Duration::from_millis(5));
        }
        memory.push(resident_mib());
    }
    println!(
        "{:.0} new keys a second, resident {memory:?} MiB",
        keys as f64 / begun.elapsed().as_secs_f64()
    );
    run.stop();
    running.join().unwrap().unwrap();
    memory
}

#[test]
fn memory_does_not_grow_with_keys_that_came_and_went() {
    let memory = run(2_000, 300_000, Duration::from_millis(500));
    // A key costs about 1 KiB in two steps: without forgetting, half of them would be 150 MiB more.
    assert!(memory[3] < memory[1] + 60, "{memory:?}");
}

/// `cargo test -p taktline-engine --release --test keys -- --ignored --nocapture`
#[test]
#[ignore = "takes a minute; prints memory"]
fn memory_with_keys_for_a_minute() {
    let memory = run(10_000, 12_000_000, Duration::from_secs(2));
    assert!(memory[3] < memory[1] + 150, "{memory:?}");
}
