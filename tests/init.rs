//! `taktline init` and `run --dry-run` with the real binary: what is written runs unedited and finds the cycles.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../connectors/tests/kafka_broker/mod.rs"]
mod kafka_broker;
mod support;

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use support::mosquitto::Mosquitto;
use support::{any, data, ok, sql, taktline, text};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);
/// The variable that has the password of [`kafka_broker::USER`].
const PASSWORD_ENV: &str = "PLANT_PASSWORD";

/// Ends with this value.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// As [`any`], with the password in its variable.
fn signed_in(args: &[&str]) -> (i32, String, String) {
    let output = taktline()
        .env(PASSWORD_ENV, kafka_broker::PASSWORD)
        .args(args)
        .output()
        .unwrap();
    let code = output.status.code().unwrap_or(-1);
    (code, text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_file_with_batches() {
    let Some(dryer) = data("batches/dryer.csv") else { return };
    let dir = tempfile::tempdir().unwrap();
    let (pipeline, history) = (dir.path().join("dryer.yaml"), dir.path().join("data"));
    ok(&["init", "--file", path(&dryer), "--output", path(&pipeline)]);
    ok(&["run", path(&pipeline), "--until-end", "--data", path(&history)]);
    assert_eq!(sql(&history, "SELECT count(*) FROM cycles"), "71");
    // It is not written over.
    let (code, _, said) = any(&["init", "--file", path(&dryer), "--output", path(&pipeline)]);
    assert!(code == 1 && said.contains("is there already"), "{said}");
}

#[test]
fn a_file_with_marks_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let (csv, pipeline, history) = (
        dir.path().join("p.csv"),
        dir.path().join("p.yaml"),
        dir.path().join("data"),
    );
    let mut rows = String::from("Timestamp;Presskraft;Temp\n");
    for tick in 0..1200_u64 {
        let force = if tick % 40 < 15 { "180,5" } else { "2,25" };
        rows.push_str(&format!(
            "2026-01-01 00:{:02}:{:02};{force};21,{}\n",
            tick / 60,
            tick % 60,
            ((tick * 2_654_435_761) >> 13) % 10 // noise
        ));
    }
    std::fs::write(&csv, rows).unwrap();
    ok(&["init", "--file", path(&csv), "--output", path(&pipeline)]);
    ok(&["run", path(&pipeline), "--until-end", "--data", path(&history)]);
    // The first begins before the recording.
    assert_eq!(sql(&history, "SELECT count(*) FROM cycles"), "29");
}

#[test]
fn a_mosquitto_with_presses_behind_it() {
    let Some(broker) = Mosquitto::start() else { return };
    finds_cycles(
        &format!(
            "kind: mqtt, url: \"{}\", topic: \"hall/{{machine}}/{{signal}}\"",
            broker.url()
        ),
        &["--mqtt", &broker.url()],
        &["kind: mqtt", "topic: \"hall/"],
    );
}

#[test]
fn a_kafka_topic_with_presses_behind_it() {
    let settings = "auto.create.topics.enable=true";
    let Some(broker) = kafka_broker::Broker::with(None, settings) else {
        return;
    };
    // With a sign-in, whose password stays out of the file.
    let sign_in = ["--user", kafka_broker::USER, "--password-env", PASSWORD_ENV];
    finds_cycles(
        &format!("kind: kafka, brokers: \"{}\", topic: presses", broker.address()),
        &[&["--kafka", &broker.sasl(), "--topic", "presses"], &sign_in[..]].concat(),
        &[
            "topics: [presses]",
            "user: alice",
            "password: {env: PLANT_PASSWORD}",
            "machine: /machine",
            "signal: /signal",
        ],
    );
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("p.yaml");
    let args = [
        "init",
        "--listen",
        "3s",
        "--output",
        path(&out),
        "--kafka",
        &broker.address(),
    ];
    let (code, _, said) = any(&[&args[..], &["--topic", "nowhere"]].concat());
    assert!(code == 1 && said.contains("there is no topic `nowhere`"), "{said}");
}

/// Behind a broker, to which `gateway` sends, are two presses: `init` with these arguments writes a file that has all `parts`, shows what comes
/// without writing history, and finds the presses' cycles, unedited.
fn finds_cycles(gateway: &str, args: &[&str], parts: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let line = dir.path().join("line.yaml");
    std::fs::write(
        &line,
        format!(
            "version: 1\nsources:\n  presses: {{kind: simulate, machines: 2, rate: 50, period: 1s, replay: realtime}}\n\
             sinks:\n  gateway: {{from: presses, {gateway}}}\n"
        ),
    )
    .unwrap();
    let mut plant = taktline();
    plant
        .args(["run", path(&line), "--listen", "127.0.0.1:0", "--data"])
        .arg(dir.path().join("line"));
    let _plant = Started(plant.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());

    let (pipeline, history) = (dir.path().join("found.yaml"), dir.path().join("data"));
    // Until something is published there is nothing to find.
    let deadline = Instant::now() + PATIENCE;
    let init = ["init", "--listen", "8s", "--output", path(&pipeline)];
    loop {
        let (code, _, said) = signed_in(&[&init, args].concat());
        if code == 0 {
            break;
        }
        assert!(Instant::now() < deadline, "{said}");
    }
    let written = std::fs::read_to_string(&pipeline).unwrap();
    assert!(!written.contains(kafka_broker::PASSWORD), "{written}");
    for part in ["kind: cycle"].iter().chain(parts) {
        assert!(written.contains(part), "{part}: {written}");
    }

    let dry = ["--dry-run", "--format", "json", "--data", path(&history)];
    let (code, shown, said) = signed_in(&[&["run", path(&pipeline)], &dry[..]].concat());
    assert_eq!(code, 0, "{said}");
    assert_eq!(shown.lines().count(), 100, "{said}");
    assert!(shown.contains("\"machine\":\"press-1\""), "{shown}");
    assert!(!history.exists(), "a dry run wrote something");

    let mut found = taktline();
    found
        .env(PASSWORD_ENV, kafka_broker::PASSWORD)
        .args(["run", path(&pipeline), "--listen", "127.0.0.1:0", "--data"])
        .arg(&history);
    let _found = Started(found.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let deadline = Instant::now() + PATIENCE;
    let query = [
        "sql",
        "SELECT count(*) FROM cycles",
        "--format",
        "csv",
        "--data",
        path(&history),
    ];
    loop {
        let (_, counted, said) = any(&query);
        let count = counted.lines().last().and_then(|line| line.parse::<u64>().ok());
        if count.is_some_and(|count| count >= 4) {
            break;
        }
        assert!(Instant::now() < deadline, "no cycles: {said}\n{written}");
        std::thread::sleep(Duration::from_millis(200)); // between two looks
    }
}

#[test]
fn a_dry_run_shows_the_sources_that_can_be_looked_at() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(
        folder.path().join("rows.csv"),
        "machine,signal,ts,value\npress-1,force,1767225600,1.5\n",
    )
    .unwrap();
    let pipeline = folder.path().join("p.yaml");
    let text = format!(
        "version: 1\nsources:\n  push: {{kind: http, listen: \"127.0.0.1:0\"}}\n\
         \x20 rows: {{kind: file, path: {}, layout: long, machine: {{column: machine}}, signal: signal, value: value, time: {{column: ts, unit: s}}}}\n\
         sinks: {{out: {{kind: stdout, from: [push, rows]}}}}\n",
        folder.path().join("rows.csv").display()
    );
    std::fs::write(&pipeline, text).unwrap();
    let (code, shown, said) = any(&["run", path(&pipeline), "--dry-run", "--format", "json"]);
    assert_eq!(code, 1, "{said}");
    assert!(shown.contains("\"machine\":\"press-1\""), "{shown}{said}");
    assert!(
        said.contains("samples are pushed") && said.contains("no row came of push;"),
        "{said}"
    );
}

#[test]
fn what_can_not_be_found_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let csv = dir.path().join("empty.csv");
    std::fs::write(&csv, "a,b\n").unwrap();
    let out = dir.path().join("p.yaml");
    let check = |args: &[&str], code: i32, part: &str| {
        let (got, _, said) = any(args);
        assert!(got == code && said.contains(part), "{args:?}: {got}: {said}");
        assert!(!out.exists());
    };
    check(
        &["init", "--file", path(&csv), "--output", path(&out)],
        1,
        "a header and a row are needed",
    );
    check(
        &["init", "--file", "nowhere.csv", "--output", path(&out)],
        1,
        "nowhere.csv",
    );
    check(&["init", "--output", path(&out)], 2, "--mqtt");
}
