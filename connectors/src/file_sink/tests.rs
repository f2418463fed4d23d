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

/// A run of this generation, as the engine drives it.
fn open(folder: &Path, rest: &str, generation: u64) -> Box<dyn Sink> {
    let section = Section::from_yaml("out", &format!("path: {}\n{rest}", folder.display()));
    let plan = build(&section, &[input()])
        .map_err(|problems| format!("{problems:?}"))
        .unwrap();
    let opening = Opening {
        generation,
        publishes: true,
        folder: None,
    };
    plan.open(&opening).unwrap()
}

fn visible(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
    names.sort();
    names
}

fn hidden(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count() - visible(folder).len()
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
    for entry in fs::read_dir(folder.path()).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let error = open(folder.path(), "", 2).recover(1, &[staged]).unwrap_err();
    assert!(format!("{error:#}").contains("--overwrite"), "{error:#}");
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
        "out-plc-x-20260102T030405Z-000000000009-12345678.csv",
    ];
    for name in others {
        fs::write(folder.path().join(name), "").unwrap();
    }
    open(folder.path(), "", 3).recover(1, &[]).unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), others.len());
    fs::write(
        folder.path().join("out-plc-20260102T030405Z-000000000009-12345678.csv"),
        "",
    )
    .unwrap();
    open(folder.path(), "", 4).recover(1, &[]).unwrap();
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        others.len(),
        "that one is ours, of a later checkpoint"
    );
}
