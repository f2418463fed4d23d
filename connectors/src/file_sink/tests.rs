//! Files as readers see them, after good runs and bad ones.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;

use ::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use arrow::array::Float64Array;
use taktline_engine::table::{Sample, samples, samples_batch};

use super::*;

fn input() -> Input {
    Input {
        name: "plc".into(),
        table: samples(),
        extends: Vec::new(),
    }
}

fn rows(values: std::ops::Range<usize>) -> RecordBatch {
    samples_batch(values.map(|value| Sample {
        machine: "m",
        signal: if value % 2 == 0 { "even" } else { "odd" },
        ts: value as i64,
        value: Some(value as f64),
        text: None,
    }))
}

/// Where a run keeps what it remembers; beside its files, for the tests.
const STATE: &str = "state";

/// A run of this generation, as the engine drives it.
fn open(folder: &Path, rest: &str, generation: u64) -> Box<dyn Sink> {
    open_with(folder, &folder.join(STATE), rest, generation)
}

fn open_with(folder: &Path, state: &Path, rest: &str, generation: u64) -> Box<dyn Sink> {
    let section = Section::from_yaml("out", &format!("path: {}\n{rest}", folder.display()));
    let plan = build(&section, &[input()])
        .map_err(|problems| format!("{problems:?}"))
        .unwrap();
    let opening = Opening {
        generation,
        publishes: true,
        folder: Some(state.to_owned()),
    };
    plan.open(&opening).unwrap()
}

fn files(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| name != STATE).collect();
    names.sort();
    names
}

fn visible(folder: &Path) -> Vec<String> {
    let names = files(folder).into_iter();
    names.filter(|name| !name.starts_with('.')).collect()
}

fn hidden(folder: &Path) -> usize {
    files(folder).len() - visible(folder).len()
}

/// The values in all visible files, sorted.
fn values(folder: &Path) -> Vec<usize> {
    let mut values = Vec::new();
    for name in visible(folder) {
        let path = folder.join(&name);
        match path.extension().unwrap().to_str().unwrap() {
            "csv" => {
                let text = fs::read_to_string(path).unwrap();
                let mut lines = text.lines();
                assert_eq!(lines.next(), Some("machine,signal,ts,value,text,quality"), "{name}");
                values.extend(lines.map(|line| line.split(',').nth(3).unwrap().parse::<f64>().unwrap() as usize));
            }
            "ndjson" => {
                let text = fs::read_to_string(path).unwrap();
                let row = |line| {
                    serde_json::from_str::<serde_json::Value>(line).unwrap()["value"]
                        .as_f64()
                        .unwrap() as usize
                };
                values.extend(text.lines().map(row));
            }
            _ => {
                let file = fs::File::open(path).unwrap();
                for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
                    let batch = batch.unwrap();
                    let column: &Float64Array = batch.column_by_name("value").unwrap().as_any().downcast_ref().unwrap();
                    values.extend(column.values().iter().map(|value| *value as usize));
                }
            }
        }
    }
    values.sort_unstable();
    values
}

fn all(count: usize) -> Vec<usize> {
    (0..count).collect()
}

const FORMATS: [&str; 3] = ["format: csv", "format: ndjson", "format: parquet"];

#[test]
fn settings() {
    let check = |yaml: &str, expect: &[&str]| {
        let problems = build(&Section::from_yaml("out", yaml), &[input()])
            .err()
            .unwrap_or_default();
        let paths: Vec<String> = problems.iter().map(|problem| problem.path.join(".")).collect();
        assert_eq!(paths, expect, "{yaml}: {problems:?}");
    };
    check("path: export", &[]);
    check(
        "{path: export, format: parquet, every: 10min, size: 1MiB, rows: 1000}",
        &[],
    );
    check("{path: '', size: 0B, rows: 0}", &["path", "size", "rows"]);
}

#[test]
fn a_file_appears_when_it_is_due_and_its_checkpoint_is_real() {
    for format in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = open(folder.path(), &format!("{format}\nrows: 10"), 1);
        sink.recover(0, &[]).unwrap();
        sink.write(0, &rows(0..4)).unwrap();
        let first = sink.stage(1).unwrap();
        sink.publish(1, &[first]).unwrap();
        assert_eq!(visible(folder.path()), Vec::<String>::new(), "{format}: it is not due");
        sink.write(0, &rows(4..12)).unwrap();
        sink.write(0, &rows(12..13)).unwrap();
        let second = sink.stage(2).unwrap();
        assert_eq!(
            visible(folder.path()),
            Vec::<String>::new(),
            "{format}: its checkpoint is not real"
        );
        sink.publish(2, std::slice::from_ref(&second)).unwrap();
        sink.publish(2, &[second]).unwrap();
        assert_eq!(values(folder.path()), all(12), "{format}");
        assert!(
            visible(folder.path())[0].starts_with("out-plc-20"),
            "{:?}",
            visible(folder.path())
        );
        drop(sink);
        assert_eq!(values(folder.path()), all(13), "{format}: the end needs no next run");
        assert_eq!(hidden(folder.path()), 0, "{format}");
    }
}

/// Ends in the middle, and goes on from the last checkpoint that was real.
#[test]
fn rows_are_there_once_after_a_crash_anywhere() {
    for format in FORMATS {
        for crash in ["after write", "after stage", "after commit", "after publish"] {
            let folder = tempfile::tempdir().unwrap();
            let rest = format!("{format}\nrows: 5");
            let mut sink = open(folder.path(), &rest, 1);
            sink.recover(0, &[]).unwrap();
            sink.write(0, &rows(0..8)).unwrap();
            sink.write(0, &rows(8..10)).unwrap();
            let mut real = (1, vec![sink.stage(1).unwrap()]);
            sink.publish(1, &real.1).unwrap();
            sink.write(0, &rows(10..12)).unwrap();
            sink.write(0, &rows(12..14)).unwrap();
            if crash != "after write" {
                let staged = sink.stage(2).unwrap();
                if crash != "after stage" {
                    real = (2, vec![staged]);
                }
                if crash == "after publish" {
                    sink.publish(2, &real.1).unwrap();
                }
            }
            std::mem::forget(sink); // killed
            let count = if real.0 == 1 { 10 } else { 14 };
            for generation in [2, 3] {
                let mut sink = open(folder.path(), &rest, generation);
                sink.recover(real.0, &real.1).unwrap();
                assert_eq!(values(folder.path()), all(count), "{format} {crash}");
                assert_eq!(hidden(folder.path()), 0, "{format} {crash}");
                std::mem::forget(sink);
            }
            let mut sink = open(folder.path(), &rest, 4);
            sink.recover(real.0, &real.1).unwrap();
            sink.write(0, &rows(count..20)).unwrap();
            let staged = sink.stage(real.0 + 1).unwrap();
            sink.publish(real.0 + 1, &[staged]).unwrap();
            drop(sink);
            assert_eq!(values(folder.path()), all(20), "{format} {crash}");
        }
    }
}

#[test]
fn going_back_takes_back_what_came_later() {
    for format in FORMATS {
        let folder = tempfile::tempdir().unwrap();
        let rest = format!("{format}\nrows: 6");
        let mut sink = open(folder.path(), &rest, 1);
        sink.recover(0, &[]).unwrap();
        let mut staged = Vec::new();
        for checkpoint in 1..=4 {
            sink.write(0, &rows((checkpoint - 1) * 4..checkpoint * 4)).unwrap();
            staged.push(sink.stage(checkpoint as u64).unwrap());
            sink.publish(checkpoint as u64, &staged[checkpoint - 1..]).unwrap();
        }
        drop(sink);
        assert_eq!(values(folder.path()), all(16), "{format}");
        for (generation, checkpoint) in [(2, 3), (3, 2), (4, 1), (5, 0)] {
            let mut sink = open(folder.path(), &rest, generation);
            let there = if checkpoint == 0 {
                &[]
            } else {
                &staged[checkpoint - 1..checkpoint]
            };
            sink.recover(checkpoint as u64, there).unwrap();
            assert_eq!(values(folder.path()), all(checkpoint * 4), "{format} {checkpoint}");
        }
    }
}

#[test]
fn what_was_staged_and_is_gone_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = open(folder.path(), "rows: 1000", 1);
    sink.write(0, &rows(0..4)).unwrap();
    let staged = sink.stage(1).unwrap();
    std::mem::forget(sink);
    for name in files(folder.path()) {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    let error = open(folder.path(), "", 2).recover(1, &[staged]).unwrap_err();
    assert!(format!("{error:#}").contains("--overwrite"), "{error:#}");
}

fn take_away(folder: &Path) {
    for name in visible(folder) {
        fs::remove_file(folder.join(name)).unwrap();
    }
}

#[test]
fn a_file_that_got_its_name_may_be_taken_away() {
    for format in FORMATS {
        let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (folder, state) = (folder.path(), state.path());
        let rest = format!("{format}\nrows: 5");
        let mut sink = open_with(folder, state, &rest, 1);
        sink.recover(0, &[]).unwrap();
        sink.write(0, &rows(0..6)).unwrap();
        sink.write(0, &rows(6..8)).unwrap();
        let staged = [sink.stage(1).unwrap()];
        sink.publish(1, &staged).unwrap();
        take_away(folder);
        std::mem::forget(sink); // killed
        for generation in [2, 3] {
            let mut sink = open_with(folder, state, &rest, generation);
            sink.recover(1, &staged).unwrap();
            assert_eq!(
                values(folder).len(),
                if generation == 2 { 2 } else { 0 },
                "{format}: what was hidden got its name once"
            );
            take_away(folder);
            std::mem::forget(sink);
        }
        let mut sink = open_with(folder, state, &rest, 4);
        sink.recover(1, &staged).unwrap();
        sink.write(0, &rows(8..10)).unwrap();
        let staged = [sink.stage(2).unwrap()];
        sink.publish(2, &staged).unwrap();
        drop(sink); // an end in good order
        assert_eq!(values(folder), [8, 9], "{format}");
        // The next run writes elsewhere, and something else.
        let elsewhere = tempfile::tempdir().unwrap();
        let mut sink = open_with(elsewhere.path(), state, "format: ndjson", 5);
        sink.recover(2, &staged).unwrap();
        assert_eq!(visible(elsewhere.path()), Vec::<String>::new(), "{format}");
        // What came after a checkpoint that is gone back to can't be taken back from who has it.
        take_away(folder);
        let back = [
            serde_json::json!({"done": [], "open": [{"file": ".out-plc-20260102T030405Z-1234567812345678.00000001.open",
            "prefix": "out-plc", "stem": "20260102T030405Z-1234567812345678", "format": "csv", "bytes": 1, "rows": 1}]}),
        ];
        let back = back.map(Staged);
        let error = open_with(folder, state, &rest, 6).recover(1, &back).unwrap_err();
        assert!(format!("{error:#}").contains("`path`"), "{error:#}");
    }
}

#[test]
fn a_file_keeps_the_format_that_it_began_with() {
    for (before, after, ending) in [
        ("format: csv", "format: parquet", ".csv"),
        ("format: parquet", "format: csv", ".parquet"),
        ("format: ndjson", "format: csv", ".ndjson"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = open(folder.path(), before, 1);
        sink.write(0, &rows(0..4)).unwrap();
        let staged = [sink.stage(1).unwrap()];
        std::mem::forget(sink); // killed
        open(folder.path(), after, 2).recover(1, &staged).unwrap();
        assert!(visible(folder.path())[0].ends_with(ending), "{before} {after}");
        assert_eq!(values(folder.path()), all(4), "{before} {after}");
    }
}

#[test]
fn another_kind_of_sink_may_have_had_the_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = open(folder.path(), "", 2);
    sink.recover(1, &[Staged(serde_json::Value::Null)]).unwrap();
    let mails = Staged(serde_json::json!({"count": 0, "notices": []}));
    let error = sink.recover(1, &[mails]).unwrap_err();
    assert!(format!("{error:#}").contains("another name"), "{error:#}");
}

#[test]
fn a_zombie_publishes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut zombie = open(folder.path(), "rows: 1", 1);
    zombie.write(0, &rows(0..4)).unwrap();
    let staged = zombie.stage(1).unwrap();
    open(folder.path(), "rows: 1", 2).recover(0, &[]).unwrap();
    assert!(zombie.publish(1, &[staged]).is_err());
    assert_eq!(values(folder.path()), all(0));
}

#[test]
fn other_files_stay() {
    let folder = tempfile::tempdir().unwrap();
    let others = [
        "out-plc-notes.csv",
        "out-plc-20260102T030405Z-000000000009-xyz.csv",
        ".out-plc.open",
        "out-plc-x-20260102T030405Z-000000000009-1234567812345678.csv",
        "out-plc-20260102T030405Z-000000000009-1234567812345678.csv",
    ];
    for name in others {
        fs::write(folder.path().join(name), "").unwrap();
    }
    open(folder.path(), "", 3).recover(1, &[]).unwrap();
    assert_eq!(files(folder.path()).len(), others.len());
    let identity = durable::identity(&folder.path().join(STATE)).unwrap();
    let own = format!("out-plc-20260102T030405Z-000000000009-{}12345678.csv", &identity[..8]);
    fs::write(folder.path().join(own), "").unwrap();
    open(folder.path(), "", 4).recover(1, &[]).unwrap();
    assert_eq!(
        files(folder.path()).len(),
        others.len(),
        "that one is ours, of a later checkpoint"
    );
}

#[test]
fn two_pipelines_may_write_to_one_folder() {
    for format in FORMATS {
        let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let rest = format!("{format}\nrows: 3");
        let mut one = open(folder.path(), &rest, 1);
        one.recover(0, &[]).unwrap();
        one.write(0, &rows(0..4)).unwrap();
        let staged = [one.stage(1).unwrap()];
        one.publish(1, &staged).unwrap();
        one.write(0, &rows(4..6)).unwrap();
        let staged = [one.stage(2).unwrap()];
        // The other one has the same names, and begins later.
        let mut other = open_with(folder.path(), state.path(), &rest, 2);
        other.recover(0, &[]).unwrap();
        other.write(0, &rows(10..12)).unwrap();
        let others = [other.stage(1).unwrap()];
        other.publish(1, &others).unwrap();
        one.publish(2, &staged).unwrap();
        drop((one, other));
        let all: Vec<usize> = (0..6).chain(10..12).collect();
        assert_eq!(values(folder.path()), all, "{format}");
    }
}
