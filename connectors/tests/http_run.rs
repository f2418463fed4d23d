//! From senders over HTTP to files, through the engine: each row once, however often the run ends and the senders repeat themselves.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;
use taktline_connectors::{SINKS, SOURCES};
use taktline_engine::kind::Catalog;
use taktline_engine::plan::compile;
use taktline_engine::{Fabric, Options, Resume, Run, StateOptions};

const PATIENCE: Duration = Duration::from_secs(120);
const SENDERS: usize = 4;
const REQUESTS: usize = 100;
const RUNS: usize = 5;

static CATALOG: Catalog = Catalog {
    sources: SOURCES,
    steps: &[],
    sinks: SINKS,
};

/// Sends a request until it is taken, as a sender that can't lose a row does.
fn send(agent: &ureq::Agent, url: &str, sender: usize, number: usize) {
    let started = Instant::now();
    let rows: Vec<String> = (0..3)
        .map(|row| format!("x,machine=m{sender} t={}", number * 3 + row))
        .collect();
    loop {
        let sent = agent
            .post(url)
            .header("idempotency-key", format!("{sender}-{number}"))
            .send(rows.join("\n"));
        match sent.map(|answer| answer.status().as_u16()) {
            Ok(202) => return,
            Ok(429 | 503) | Err(_) => {}
            Ok(other) => panic!("answered {other}"),
        }
        assert!(
            started.elapsed() < PATIENCE,
            "row {number} of sender {sender} was not taken"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The rows in all files, sorted; those of one machine in the order of their value.
fn rows(folder: &Path) -> Vec<String> {
    let mut rows = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "ndjson") {
            for line in fs::read_to_string(path).unwrap().lines() {
                let row: Value = serde_json::from_str(line).unwrap();
                rows.push(format!(
                    "{} {:06}",
                    row["machine"].as_str().unwrap(),
                    row["value"].as_f64().unwrap() as u64
                ));
            }
        }
    }
    rows.sort();
    rows
}

#[test]
fn rows_are_in_the_files_once_though_runs_end_and_senders_repeat() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let out = folder.path().join("out");
    let text = format!(
        "version: 1\nname: pushed\nsources: {{plc: {{kind: http, listen: '{address}', timeout: 2s}}}}\n\
         sinks: {{out: {{kind: file, from: plc, path: '{}', format: ndjson, rows: 50}}}}\n",
        out.display()
    );
    let taken = Arc::new(AtomicUsize::new(0));
    let senders: Vec<_> = (0..SENDERS)
        .map(|sender| {
            let taken = taken.clone();
            std::thread::spawn(move || {
                let config = ureq::Agent::config_builder()
                    .http_status_as_error(false)
                    .timeout_global(Some(PATIENCE));
                let agent = config.build().new_agent();
                for number in 0..REQUESTS {
                    send(&agent, &format!("http://{address}/streams/m"), sender, number);
                    taken.fetch_add(1, Ordering::Release);
                    // Now and then an answer is lost on the way, and the request comes again.
                    if number % 3 == 0 {
                        send(&agent, &format!("http://{address}/streams/m"), sender, number);
                    }
                }
            })
        })
        .collect();
    for number in 1..=RUNS {
        let plan = compile("pushed.yaml", &text, &[], &CATALOG, &|_| None).unwrap_or_else(|found| panic!("{found:?}"));
        let options = Options {
            workers: 1 + number % 2,
            checkpoint_every: Duration::from_millis(50),
            ..Options::default()
        };
        let run = Run::new(plan, options).unwrap();
        let resume = Resume::lead(&run, &StateOptions::at(folder.path().join("data")), 1).unwrap();
        let running = std::thread::spawn({
            let run = run.clone();
            move || run.execute_from(Some(resume), Fabric::alone()).map(drop)
        });
        let enough = SENDERS * REQUESTS * number / RUNS;
        let started = Instant::now();
        while taken.load(Ordering::Acquire) < enough {
            assert!(
                !running.is_finished() && started.elapsed() < PATIENCE,
                "run {number}: {:?}",
                run.failure()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
        if number == RUNS {
            let all =
                |senders: &[std::thread::JoinHandle<()>]| senders.iter().all(std::thread::JoinHandle::is_finished);
            while !all(&senders) {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        run.stop();
        running.join().unwrap().unwrap();
    }
    senders.into_iter().for_each(|sender| sender.join().unwrap());
    // What a stop left in the journal is read by the next run.
    let plan = compile("pushed.yaml", &text, &[], &CATALOG, &|_| None).unwrap_or_else(|found| panic!("{found:?}"));
    let run = Run::new(plan, Options::default()).unwrap();
    let resume = Resume::lead(&run, &StateOptions::at(folder.path().join("data")), 1).unwrap();
    let running = std::thread::spawn({
        let run = run.clone();
        move || run.execute_from(Some(resume), Fabric::alone()).map(drop)
    });
    let behind = || {
        run.positions()
            .iter()
            .any(|position| position.text.is_empty() || position.text.contains("behind"))
    };
    let started = Instant::now();
    while behind() {
        assert!(started.elapsed() < PATIENCE, "{:?}", run.positions());
        std::thread::sleep(Duration::from_millis(2));
    }
    run.stop();
    running.join().unwrap().unwrap();
    let mut expect: Vec<String> = (0..SENDERS)
        .flat_map(|sender| (0..REQUESTS * 3).map(move |value| format!("m{sender} {value:06}")))
        .collect();
    expect.sort();
    let found = rows(&out);
    let missing: Vec<&String> = expect.iter().filter(|row| found.binary_search(row).is_err()).collect();
    assert!(missing.is_empty(), "missing: {missing:?}");
    assert_eq!(found.len(), expect.len(), "rows that are there twice");
}
