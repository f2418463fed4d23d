//! The history sink when things fail at every point of a checkpoint, and when another run takes over.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrow::array::RecordBatch;
use fail::FailScenario;
use taktline_connectors::history;
use taktline_engine::config::Section;
use taktline_engine::kind::Input;
use taktline_engine::state::Staged;
use taktline_engine::table::{Sample, dead_letters, samples, samples_batch};
use taktline_engine::{DeadLetters, Opening, Sink};

/// Fail points are of the whole process: one test at a time.
fn alone() -> (MutexGuard<'static, ()>, FailScenario<'static>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    (guard, FailScenario::setup())
}

fn open_as(dir: &Path, generation: u64, publishes: bool) -> Box<dyn Sink> {
    try_open(dir, generation, publishes).unwrap()
}

fn try_open(dir: &Path, generation: u64, publishes: bool) -> anyhow::Result<Box<dyn Sink>> {
    let section = Section::from_yaml("history", &format!("{{path: {}, file_rows: 1000}}", dir.display()));
    let input = |name: &str, table| Input {
        name: name.into(),
        table,
        extends: Vec::new(),
    };
    let inputs = [input("plc", samples()), input("dead_letters", dead_letters())];
    let plan = (history::KIND.build)(&section, &inputs).unwrap();
    plan.open(&Opening {
        generation,
        publishes,
        folder: None,
    })
}

/// A sink of a run with state that goes on after `checkpoint`.
fn resume(dir: &Path, generation: u64, checkpoint: u64, staged: &[Staged]) -> Box<dyn Sink> {
    let mut sink = open_as(dir, generation, true);
    sink.recover(checkpoint, staged).unwrap();
    sink
}

fn one(second: i64) -> RecordBatch {
    samples_batch([Sample {
        machine: "press-1",
        signal: "force",
        ts: second * 1_000_000,
        value: Some(second as f64),
        text: None,
    }])
}

fn write(sink: &mut Box<dyn Sink>, second: i64) {
    sink.write(0, &one(second)).unwrap();
    let mut refused = DeadLetters::new("plc");
    refused.push("a", second as u64, "no number", b"x");
    sink.write(1, &refused.finish()).unwrap();
}

fn checkpoint(sink: &mut Box<dyn Sink>, number: u64) -> Vec<Staged> {
    let staged = vec![sink.stage(number).unwrap()];
    sink.publish(number, &staged).unwrap();
    staged
}

/// Rows of both tables.
fn rows(dir: &Path) -> u64 {
    history::rows(dir).unwrap()
}

fn parts(dir: &Path) -> usize {
    let files = ["samples", "dead_letters"].map(|table| fs::read_dir(dir.join(table)).unwrap());
    let names = files.into_iter().flatten().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name.to_string_lossy().starts_with("part-")).count()
}

fn commits(dir: &Path) -> usize {
    fs::read_dir(dir.join("samples/_delta_log")).unwrap().count()
}

fn said(result: anyhow::Result<()>) -> String {
    format!("{:#}", result.unwrap_err())
}

#[test]
fn a_checkpoint_is_published_once() {
    let (_alone, _) = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut sink = resume(dir.path(), 1, 0, &[]);
    write(&mut sink, 1);
    let first = checkpoint(&mut sink, 1);
    write(&mut sink, 2);
    let second = checkpoint(&mut sink, 2);
    sink.publish(2, &second).unwrap();
    sink.publish(1, &first).unwrap();
    assert_eq!(rows(dir.path()), 4);
    // By another one of the same run, too.
    let mut sink = resume(dir.path(), 2, 2, &second);
    sink.publish(2, &second).unwrap();
    sink.recover(2, &second).unwrap();
    assert_eq!(rows(dir.path()), 4);
}

#[test]
fn a_summed_up_log_still_knows_what_was_published_and_by_whom() {
    let (_alone, _) = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut manifest = (0, Vec::new());
    run(dir.path(), 1, &mut manifest, 100).unwrap();
    assert!(dir.path().join("samples/_delta_log/_last_checkpoint").exists());
    // Entries that the summary has may be cleaned away by any tool.
    for version in 0..99 {
        fs::remove_file(dir.path().join(format!("samples/_delta_log/{version:020}.json"))).unwrap();
    }
    let mut zombie = open_as(dir.path(), 1, true);
    run(dir.path(), 2, &mut manifest, 101).unwrap();
    assert_eq!(rows(dir.path()), 101);
    run(dir.path(), 3, &mut manifest, 101).unwrap();
    assert_eq!(rows(dir.path()), 101);
    assert!(said(zombie.recover(50, &[])).contains("another run has taken over"));
}

#[test]
fn nothing_written_is_no_commit() {
    let (_alone, _) = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut sink = resume(dir.path(), 1, 0, &[]);
    let before = commits(dir.path());
    for number in 1..4 {
        checkpoint(&mut sink, number);
    }
    assert_eq!(commits(dir.path()), before);
    sink.recover(3, &[Staged(serde_json::Value::Null)]).unwrap();
    assert_eq!(commits(dir.path()), before, "recovered before");
}

#[test]
fn what_was_staged_is_published_after_a_crash_and_the_rest_is_removed() {
    let (_alone, _) = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut sink = resume(dir.path(), 1, 0, &[]);
    write(&mut sink, 1);
    checkpoint(&mut sink, 1);
    write(&mut sink, 2);
    let staged = [sink.stage(2).unwrap()];
    write(&mut sink, 3);
    sink.stage(3).unwrap(); // no manifest names it
    write(&mut sink, 4);
    std::mem::forget(sink);
    assert_eq!((rows(dir.path()), parts(dir.path())), (2, 8));
    let sink = resume(dir.path(), 2, 2, &staged);
    assert_eq!((rows(dir.path()), parts(dir.path())), (4, 4));
    drop(sink);
    resume(dir.path(), 3, 2, &staged);
    assert_eq!(
        (rows(dir.path()), parts(dir.path())),
        (4, 4),
        "a crash at once after that"
    );
}

#[test]
fn going_back_takes_rows_back_and_numbers_go_on() {
    let (_alone, _) = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut sink = resume(dir.path(), 1, 0, &[]);
    let mut all = Vec::new();
    for number in 1..=5 {
        write(&mut sink, number as i64);
        all.push(checkpoint(&mut sink, number));
    }
    let mut sink = resume(dir.path(), 2, 3, &all[2]);
    assert_eq!(rows(dir.path()), 6);
    write(&mut sink, 6);
    let staged = checkpoint(&mut sink, 6);
    assert_eq!(rows(dir.path()), 8);
    resume(dir.path(), 3, 6, &staged);
    assert_eq!(
        (rows(dir.path()), parts(dir.path())),
        (8, 12),
        "what was taken back stays for old readers"
    );
    resume(dir.path(), 4, 0, &[]);
    assert_eq!(rows(dir.path()), 0);
}

#[test]
fn rows_of_runs_without_state_are_never_taken_back() {
    let (_alone, _) = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open_as(dir.path(), 0, true);
    write(&mut sink, 1);
    checkpoint(&mut sink, 7);
    drop(sink);
    let mut sink = resume(dir.path(), 1, 0, &[]);
    write(&mut sink, 2);
    checkpoint(&mut sink, 1);
    let mut sink = open_as(dir.path(), 0, true);
    write(&mut sink, 3);
    checkpoint(&mut sink, 1);
    assert_eq!(rows(dir.path()), 6);
}

#[test]
fn an_older_run_is_shut_out() {
    let (_alone, _) = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut zombie = resume(dir.path(), 1, 0, &[]);
    write(&mut zombie, 1);
    let one = checkpoint(&mut zombie, 1);
    write(&mut zombie, 2);
    let late = [zombie.stage(2).unwrap()];
    let mut sink = resume(dir.path(), 2, 1, &one);
    for _ in 0..2 {
        let error = said(zombie.publish(2, &late));
        assert!(
            error.contains("run 2 has written to this table, and this is run 1"),
            "{error}"
        );
    }
    assert!(said(zombie.recover(1, &one)).contains("another run has taken over"));
    assert_eq!(rows(dir.path()), 2);
    write(&mut sink, 3);
    checkpoint(&mut sink, 2);
    assert_eq!(rows(dir.path()), 4);
}

#[test]
fn a_zombie_that_is_first_is_taken_back() {
    let (_alone, _) = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut zombie = resume(dir.path(), 1, 0, &[]);
    write(&mut zombie, 1);
    let one = checkpoint(&mut zombie, 1);
    let mut sink = open_as(dir.path(), 2, true);
    write(&mut zombie, 2);
    checkpoint(&mut zombie, 2);
    assert_eq!(rows(dir.path()), 4);
    sink.recover(1, &one).unwrap();
    assert_eq!(rows(dir.path()), 2);
}

#[test]
fn a_lost_state_is_noticed_before_rows_are_taken_back() {
    let (_alone, _) = alone();
    let dir = tempfile::tempdir().unwrap();
    for generation in [1, 2] {
        let mut sink = resume(dir.path(), generation, generation - 1, &[]);
        write(&mut sink, 1);
        checkpoint(&mut sink, generation);
    }
    // The state was deleted: generations begin anew.
    assert!(try_open(dir.path(), 1, true).is_err(), "older than what is there");
    let error = said(open_as(dir.path(), 2, true).recover(0, &[]));
    assert!(
        error.contains("the state in `_taktline` is not the one that belongs to this history"),
        "{error}"
    );
    assert_eq!(rows(dir.path()), 4);
}

#[test]
fn all_processes_are_in_one_commit() {
    let (_alone, _) = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut first = resume(dir.path(), 1, 0, &[]);
    let mut second = open_as(dir.path(), 1, false);
    write(&mut first, 1);
    write(&mut second, 2);
    let before = commits(dir.path());
    let staged = [first.stage(1).unwrap(), second.stage(1).unwrap()];
    assert!(said(second.publish(1, &staged)).contains("this process doesn't publish"));
    first.publish(1, &staged).unwrap();
    assert_eq!((rows(dir.path()), commits(dir.path())), (4, before + 1));
}

#[test]
fn a_table_that_the_pipeline_lost_is_recovered() {
    let (_alone, _) = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut sink = resume(dir.path(), 1, 0, &[]);
    write(&mut sink, 1);
    checkpoint(&mut sink, 1);
    write(&mut sink, 2);
    let staged = [sink.stage(2).unwrap()];
    std::mem::forget(sink);
    let section = Section::from_yaml("history", &format!("{{path: {}}}", dir.path().display()));
    let input = Input {
        name: "plc".into(),
        table: samples(),
        extends: Vec::new(),
    };
    let plan = (history::KIND.build)(&section, &[input]).unwrap();
    let opened = |generation| {
        plan.open(&Opening {
            generation,
            publishes: true,
            folder: None,
        })
        .unwrap()
    };
    opened(2).recover(2, &staged).unwrap();
    assert_eq!(rows(dir.path()), 4);
    opened(3).recover(1, &[]).unwrap();
    assert_eq!(rows(dir.path()), 2);
}

#[test]
fn a_torn_log_entry_is_moved_away() {
    let (_alone, _) = alone();
    let dir = tempfile::tempdir().unwrap();
    let mut sink = resume(dir.path(), 1, 0, &[]);
    write(&mut sink, 1);
    checkpoint(&mut sink, 1);
    drop(sink);
    let log = dir.path().join("samples/_delta_log");
    let next = commits(dir.path());
    fs::write(log.join(format!("{next:020}.json")), "{\"commitInfo\":{\"timest").unwrap();
    fs::write(log.join(format!("{:020}.json", next + 1)), "").unwrap();
    let mut sink = resume(dir.path(), 2, 1, &[]);
    write(&mut sink, 2);
    checkpoint(&mut sink, 2);
    assert_eq!(rows(dir.path()), 4);
    let torn = fs::read_dir(dir.path().join("samples")).unwrap();
    let torn = torn.filter(|entry| {
        entry
            .as_ref()
            .unwrap()
            .file_name()
            .to_string_lossy()
            .starts_with("torn-")
    });
    assert_eq!(torn.count(), 2);
}

/// Writes 1, 2, 3, … with a checkpoint after each until something fails, then resumes as the engine would: after the newest
/// checkpoint whose manifest was written.
fn run(dir: &Path, generation: u64, manifest: &mut (u64, Vec<Staged>), last: u64) -> anyhow::Result<()> {
    let section = Section::from_yaml("history", &format!("{{path: {}}}", dir.display()));
    let input = Input {
        name: "plc".into(),
        table: samples(),
        extends: Vec::new(),
    };
    let plan = (history::KIND.build)(&section, &[input]).unwrap();
    let mut sink = plan.open(&Opening {
        generation,
        publishes: true,
        folder: None,
    })?;
    sink.recover(manifest.0, &manifest.1)?;
    for number in manifest.0 + 1..=last {
        sink.write(0, &one(number as i64))?;
        let staged = vec![sink.stage(number)?];
        *manifest = (number, staged.clone());
        sink.publish(number, &staged)?;
    }
    Ok(())
}

#[test]
fn a_fault_at_any_point_loses_and_doubles_nothing() {
    let (_alone, _) = alone();
    let points = [
        "history.write",
        "history.sync",
        "history.rename",
        "history.folder",
        "history.commit",
        "history.committed",
        "log.write",
        "log.sync",
        "log.link",
        "log.folder",
    ];
    for point in points {
        for after in 0..4 {
            let dir = tempfile::tempdir().unwrap();
            let mut manifest = (0, Vec::new());
            fail::cfg(point, &format!("{after}*off->1*return(full)->off")).unwrap();
            let mut faults = 0;
            // Numbers are never used twice; here a checkpoint without a manifest is tried again by a newer generation.
            for generation in 1.. {
                match run(dir.path(), generation, &mut manifest, 5) {
                    Ok(()) => break,
                    Err(error) => {
                        faults += 1;
                        let said = format!("{error:#}");
                        assert!(generation < 3 && said.contains("no storage space"), "{point}: {said}");
                    }
                }
            }
            fail::remove(point);
            assert_eq!(faults, 1, "{point} after {after}");
            assert_eq!(rows(dir.path()), 5, "{point} after {after}");
        }
    }
}
