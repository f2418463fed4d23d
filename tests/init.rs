//! `taktline init` and `run --dry-run` with the real binary: what is written runs unedited and finds the cycles.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use support::mosquitto::Mosquitto;
use support::{any, data, ok, sql, taktline, text};

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
fn a_broker_with_presses_behind_it() {
    let Some(broker) = Mosquitto::start() else { return };
    let dir = tempfile::tempdir().unwrap();
    let line = dir.path().join("line.yaml");
    std::fs::write(
        &line,
        format!(
            "version: 1\nsources:\n  presses: {{kind: simulate, machines: 2, rate: 50, period: 1s, replay: realtime}}\n\
             sinks:\n  gateway: {{kind: mqtt, from: presses, url: \"{}\", topic: \"hall/{{machine}}/{{signal}}\"}}\n",
            broker.url()
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
    let deadline = Instant::now() + Duration::from_secs(120);
    let args = [
        "init",
        "--mqtt",
        &broker.url(),
        "--listen",
        "8s",
        "--output",
        path(&pipeline),
    ];
    while any(&args).0 != 0 {
        assert!(Instant::now() < deadline, "{}", any(&args).2);
    }
    let written = std::fs::read_to_string(&pipeline).unwrap();
    assert!(written.contains("topic: \"hall/"), "{written}");
    assert!(written.contains("kind: cycle"), "{written}");

    let (code, shown, said) = any(&[
        "run",
        path(&pipeline),
        "--dry-run",
        "--data",
        path(&history),
        "--format",
        "json",
    ]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(shown.lines().count(), 100, "{said}");
    assert!(shown.contains("\"machine\":\"press-1\""), "{shown}");
    assert!(!history.exists(), "a dry run wrote something");

    let mut found = taktline();
    found.args([
        "run",
        path(&pipeline),
        "--listen",
        "127.0.0.1:0",
        "--data",
        path(&history),
    ]);
    let _found = Started(found.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        let query = taktline()
            .args([
                "sql",
                "SELECT count(*) FROM cycles",
                "--format",
                "csv",
                "--data",
                path(&history),
            ])
            .output()
            .unwrap();
        let count = text(&query.stdout)
            .lines()
            .last()
            .and_then(|line| line.parse::<u64>().ok());
        if count.is_some_and(|count| count >= 4) {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "no cycles: {}\n{written}",
            text(&query.stderr)
        );
        std::thread::sleep(Duration::from_millis(200)); // between two looks
    }
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
