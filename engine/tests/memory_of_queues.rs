//! Rows that wait for a slow sink are no reason to end a run by `memory.limit`: they become fewer.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod toy;

use std::sync::Arc;
use std::time::{Duration, Instant};

use taktline_engine::plan::compile;
use taktline_engine::{Fabric, Options, Resume, Run, StateOptions};

/// Longer than memory may stay above its limit, at a second for each batch.
const BATCHES: u64 = 9;
const KEYS: u64 = 100_000;

#[test]
fn a_slow_sink_slows_the_source() {
    let data = tempfile::tempdir().unwrap();
    // Without the limit the sink's queue alone would take some 200 MiB.
    let text = format!(
        "version: 1\nmemory: {{limit: 96MiB}}\nsources: {{plc: {{kind: fountain, keys: {KEYS}}}}}\n\
         sinks: {{out: {{kind: count, slow_ms: 1000, from: plc}}}}\n"
    );
    let plan = compile("toy.yaml", &text, &[], &toy::CATALOG, &|_| None).unwrap_or_else(|found| panic!("{found:?}"));
    let run = Run::new(plan, Options::default()).unwrap();
    let resume = Resume::lead(&run, &StateOptions::at(data.path()), 1).unwrap();
    let running = std::thread::spawn({
        let run = Arc::clone(&run);
        move || run.execute_from(Some(resume), Fabric::alone())
    });
    let begun = Instant::now();
    let taken = || run.metrics.rows_in.with_label_values(&["out", "count"]).get();
    while taken() < BATCHES * KEYS {
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "{} rows were taken",
            taken()
        );
        assert!(!run.stopping(), "{:?}", run.failure());
        std::thread::park_timeout(Duration::from_millis(5));
    }
    run.stop();
    running.join().unwrap().unwrap();
}
