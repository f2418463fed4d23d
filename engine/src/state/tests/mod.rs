//! The store, whole: directories are claimed, written, damaged and read again.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

mod claims;
mod collecting;
mod damage;
mod faults;
mod fencing;
mod records;
mod savepoints;

/// Long enough that a busy machine doesn't look like a stopped run.
const LEASE: Duration = Duration::from_secs(20);

/// For claims whose owner is known to be stopped.
const SHORT: Duration = Duration::from_millis(50);

fn empty() -> (TempDir, StateDir) {
    let data = tempfile::tempdir().unwrap();
    let dir = StateDir::at(data.path());
    (data, dir)
}

fn manifest(claim: &Claim, checkpoint: u64, files: &[StateFile]) -> Manifest {
    let offset = Offset {
        sequence: checkpoint,
        at: serde_json::json!({"line": checkpoint * 100}),
    };
    Manifest {
        format: FORMAT,
        checkpoint,
        generation: claim.generation(),
        pipeline: "presses".to_owned(),
        created_us: 1_700_000_000_000_000,
        ended: false,
        steps: BTreeMap::from([("strokes".to_owned(), "cycle 1 f64".to_owned())]),
        sources: BTreeMap::from([("plc".to_owned(), BTreeMap::from([("a.csv".to_owned(), offset)]))]),
        sinks: BTreeMap::from([("history".to_owned(), vec![Staged(serde_json::json!(["part-0"]))])]),
        files: files.to_vec(),
        restores: None,
    }
}

fn record<'a>(key: &'a str, change: Change, head: &'a str, tail: &'a str) -> Record<'a> {
    Record {
        step: "strokes",
        slot: 0,
        key,
        change,
        head: head.as_bytes(),
        tail: tail.as_bytes(),
    }
}

fn write(dir: &StateDir, generation: u64, checkpoint: u64, worker: usize, records: &[Record<'_>]) -> StateFile {
    let mut writer = FileWriter::create(dir, generation, checkpoint, worker).unwrap();
    for record in records {
        writer.write(record).unwrap();
    }
    writer.finish().unwrap().expect("records were written")
}

/// A checkpoint with one state file of its own after the given ones.
fn checkpoint(dir: &StateDir, claim: &Claim, number: u64, before: &[StateFile]) -> Manifest {
    let head = format!("head {number}");
    let own = write(
        dir,
        claim.generation(),
        number,
        0,
        &[record("press-1", Change::Append, &head, "+")],
    );
    let manifest = manifest(claim, number, &[before, &[own]].concat());
    claim.commit(&manifest).unwrap();
    manifest
}

fn all(_: &str) -> bool {
    true
}

fn press_1(states: &States) -> &Kept {
    &states[&("strokes".to_owned(), 0, "press-1".to_owned())]
}

fn latest(dir: &StateDir, claim: &Claim) -> Option<CheckpointId> {
    dir.latest(claim).unwrap().map(|found| found.manifest.id())
}

fn id(checkpoint: u64, generation: u64) -> CheckpointId {
    CheckpointId { checkpoint, generation }
}

/// What the error says, with its causes.
fn said<T>(result: anyhow::Result<T>) -> String {
    format!("{:#}", result.err().expect("an error"))
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &to)
        } else {
            fs::copy(entry.path(), to).map(drop).unwrap()
        }
    }
}
