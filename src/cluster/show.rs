//! `taktline cluster stop` and `status`: what the records of a data directory say, and whether it is so.

use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};

use super::alive;
use super::supervise::record::{self, Process, Record};

/// A heartbeat this old is no sign of life.
const FRESH: Duration = Duration::from_secs(10);

/// A supervisor gives its processes 45 s.
const STOPPING: Duration = Duration::from_secs(60);

/// Ends this machine's supervisors of a data directory, and waits for that. False when there are none.
///
/// # Errors
/// One that can't be told, or doesn't end.
pub fn stop(folder: &Path) -> anyhow::Result<bool> {
    let mut told = Vec::new();
    for record in record::read_all(folder)? {
        if record.host != record::host() || !record::runs(folder, &record)? {
            continue;
        }
        let pid = Pid::from_raw(record.pid as i32).with_context(|| format!("pid {}", record.pid))?;
        kill_process(pid, Signal::TERM).with_context(|| format!("supervisor, pid {}", record.pid))?;
        told.push(record);
    }
    let until = Instant::now() + STOPPING;
    for record in &told {
        while record::runs(folder, record)? {
            anyhow::ensure!(
                Instant::now() < until,
                "the supervisor, pid {}, did not end within {STOPPING:?}",
                record.pid
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    Ok(!told.is_empty())
}

/// All processes of a data directory, also those of other machines. False when no supervisor runs.
///
/// # Errors
/// Records that can't be read, output that can't be written.
pub fn status(folder: &Path, as_json: bool, out: &mut impl Write) -> anyhow::Result<bool> {
    let mut supervisors = Vec::new();
    for record in record::read_all(folder)? {
        let runs = record::runs(folder, &record)?;
        supervisors.push((record, runs));
    }
    let any = supervisors.iter().any(|(_, runs)| *runs);
    if as_json {
        let all: Vec<Value> = supervisors
            .iter()
            .map(|(record, runs)| as_value(folder, record, *runs))
            .collect();
        writeln!(out, "{:#}", json!({"running": any, "supervisors": all}))?;
        return Ok(any);
    }
    for (record, runs) in &supervisors {
        let state = if *runs { "running" } else { "gone" };
        let Record {
            pid,
            host,
            pipeline,
            of,
            ..
        } = record;
        writeln!(
            out,
            "{pipeline}: supervisor {state}, pid {pid} on {host}, {} of {of} processes",
            record.processes.len()
        )?;
        writeln!(
            out,
            "{:>7}  {:>8}  {:<22}  {:>9}  {:>8}  state",
            "process", "pid", "address", "up", "restarts"
        )?;
        for one in &record.processes {
            let alive = is_alive(folder, record, *runs, one);
            let state = if alive { "alive" } else { "not alive" };
            let pid = one.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
            let Process {
                process,
                address,
                restarts,
                ..
            } = one;
            let up = span(record::now_ms().saturating_sub(one.started_ms) / 1000);
            let up = if alive { up } else { "-".to_owned() };
            writeln!(
                out,
                "{process:>7}  {pid:>8}  {address:<22}  {up:>9}  {restarts:>8}  {state}"
            )?;
        }
    }
    Ok(any)
}

fn as_value(folder: &Path, record: &Record, runs: bool) -> Value {
    let process = |one: &Process| {
        json!({"process": one.process, "pid": one.pid, "address": one.address, "restarts": one.restarts,
            "started_ms": one.started_ms, "alive": is_alive(folder, record, runs, one)})
    };
    json!({"pid": record.pid, "host": record.host, "pipeline": record.pipeline, "started_ms": record.started_ms,
        "running": runs, "of": record.of, "processes": record.processes.iter().map(process).collect::<Vec<_>>()})
}

/// Its heartbeat says so, also from another machine; here its pid must be there too.
fn is_alive(folder: &Path, record: &Record, runs: bool, one: &Process) -> bool {
    let there = |pid: u32| Pid::from_raw(pid as i32).is_some_and(|pid| test_kill_process(pid).is_ok());
    let beats = std::fs::metadata(alive::heartbeat_file(folder, one.process)).and_then(|data| data.modified());
    let fresh = beats.is_ok_and(|at| record::since(at) < FRESH);
    runs && fresh && one.pid.is_some_and(|pid| record.host != record::host() || there(pid))
}

fn span(secs: u64) -> String {
    match secs {
        0..60 => format!("{secs} s"),
        60..3600 => format!("{} min", secs / 60),
        3600..172_800 => format!("{} h", secs / 3600),
        _ => format!("{} days", secs / 86_400),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    #[test]
    fn nothing_runs_where_nothing_was_started() {
        let dir = tempfile::tempdir().unwrap();
        let mut out = Vec::new();
        assert!(!status(&dir.path().join("none"), true, &mut out).unwrap());
        let said: Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(said, json!({"running": false, "supervisors": []}));
        assert!(!stop(dir.path()).unwrap());
    }

    #[test]
    fn alive_needs_supervisor_pid_and_heartbeat() {
        let dir = tempfile::tempdir().unwrap();
        let own = Process {
            process: 0,
            pid: Some(std::process::id()),
            address: "a:1".into(),
            restarts: 2,
            started_ms: 0,
        };
        let record = Record {
            pid: std::process::id(),
            host: record::host(),
            pipeline: "press.yaml".into(),
            started_ms: 0,
            of: 1,
            processes: vec![own.clone()],
        };
        assert!(!is_alive(dir.path(), &record, true, &own), "no heartbeat");
        let beat = std::fs::File::create(alive::heartbeat_file(dir.path(), 0)).unwrap();
        assert!(is_alive(dir.path(), &record, true, &own));
        assert!(!is_alive(dir.path(), &record, false, &own), "no supervisor");
        let ended = Process {
            pid: None,
            ..own.clone()
        };
        assert!(!is_alive(dir.path(), &record, true, &ended), "no pid");
        beat.set_modified(std::time::SystemTime::now() - 2 * FRESH).unwrap();
        assert!(!is_alive(dir.path(), &record, true, &own), "an old heartbeat");
    }

    #[test]
    fn a_killed_supervisor_is_shown_as_gone() {
        let dir = tempfile::tempdir().unwrap();
        let process = Process {
            process: 0,
            pid: Some(1),
            address: "a:1".into(),
            restarts: 2,
            started_ms: record::now_ms(),
        };
        let record = Record {
            pid: 1,
            host: record::host(),
            pipeline: "press.yaml".into(),
            started_ms: 0,
            of: 1,
            processes: vec![process],
        };
        let claim = record::claim(dir.path(), &[0]).unwrap();
        record.write(dir.path()).unwrap();
        let mut out = Vec::new();
        assert!(status(dir.path(), false, &mut out).unwrap());
        drop(claim);
        assert!(!status(dir.path(), false, &mut out).unwrap());
        let out = String::from_utf8(out).unwrap();
        assert!(
            out.contains("supervisor running, pid 1") && out.contains("supervisor gone, pid 1"),
            "{out}"
        );
        assert!(!stop(dir.path()).unwrap(), "pid 1 is somebody else's by now");
    }
}
