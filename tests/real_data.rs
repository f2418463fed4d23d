//! The example pipelines on the real sets they are made for.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::path::Path;
use std::process::Command;

use support::{data, ok, sql};
use tempfile::TempDir;

fn run(pipeline: &str, workers: &str, set: &[&str]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let file = format!("config/pipelines/{pipeline}.yaml");
    let mut args = vec![
        "run",
        file.as_str(),
        "--until-end",
        "--workers",
        workers,
        "--data",
        dir.path().to_str().unwrap(),
    ];
    for one in set {
        args.extend(["--set", one]);
    }
    ok(&args);
    dir
}

fn check(data: &Path, query: &str, expected: &str) {
    assert_eq!(sql(data, query), expected, "{query}");
}

#[test]
fn dryer_has_71_batches() {
    if data("batches/dryer.csv").is_none() {
        return;
    }
    let history = run("dryer", "2", &[]);
    let of = |query, expected| check(history.path(), query, expected);
    of("SELECT count(*) FROM cycles", "71");
    of(
        "SELECT outcome, count(*) FROM cycles GROUP BY 1 ORDER BY 1",
        "complete,70\ntruncated,1",
    );
    let samples = (rows("batches/dryer.csv") * 12).to_string();
    of("SELECT sum(samples) FROM cycle_signals", &samples);
    // Twenty make the reference, the last is cut by the end of the file; the rest are scored.
    of(
        "SELECT comparison, count(*) FROM cycles GROUP BY 1 ORDER BY 1",
        "compared,50\nlearning,20\nnot complete,1",
    );
    of("SELECT count(*) FROM cycles WHERE health BETWEEN 0 AND 100", "50");
    of(
        "SELECT count(*) FROM (SELECT cycle_id, sum(contribution) s FROM cycle_signals WHERE rank > 0 GROUP BY 1) WHERE abs(s - 1) < 1e-9",
        "50",
    );
    of("SELECT count(*) FROM dead_letters", "0");
    of("SELECT count(*) FROM late", "0");
}

#[test]
fn nylon_has_57_batches() {
    if data("batches/nylon.csv").is_some() {
        let history = run("nylon", "1", &[]);
        check(history.path(), "SELECT count(*) FROM cycles", "57");
    }
}

#[test]
fn cobot_has_249_cycles_of_which_85_stopped() {
    if data("cobot/ur3_cobotops.csv").is_none() {
        return;
    }
    let history = run("cobot", "2", &[]);
    let of = |query, expected| check(history.path(), query, expected);
    of("SELECT count(*) FROM cycles", "249");
    of(
        "SELECT count(*) FROM cycle_signals WHERE signal = 'Robot_ProtectiveStop' AND max = 1",
        "85",
    );
    of(
        "SELECT count(*) FROM cycle_signals WHERE signal = 'grip_lost' AND max = 1",
        "51",
    );
    of("SELECT count(*) FROM dead_letters", "0");
    // Missing values are counted where they are: the empty cells of the file.
    let missing = sql(history.path(), "SELECT sum(missing) FROM cycles");
    let samples = sql(
        history.path(),
        "SELECT count(*) FROM samples WHERE value IS NULL AND text IS NULL",
    );
    assert_eq!(missing, samples);
    assert_eq!(missing, empty_cells("cobot/ur3_cobotops.csv").to_string());
}

/// Empty cells in named columns of the robot's file.
fn empty_cells(file: &str) -> usize {
    let text = std::fs::read_to_string(data(file).unwrap()).unwrap();
    let mut lines = text.lines();
    let named = lines.next().unwrap().split(';').filter(|name| !name.is_empty()).count();
    lines
        .map(|line| line.split(';').take(named).filter(|cell| cell.is_empty()).count())
        .sum()
}

fn rows(file: &str) -> usize {
    std::fs::read_to_string(data(file).unwrap())
        .unwrap()
        .lines()
        .skip(1)
        .filter(|line| !line.is_empty())
        .count()
}

/// Every table of a history, in an order of its own.
fn tables(data: &Path) -> [String; 4] {
    [
        "SELECT * FROM samples ORDER BY machine, signal, ts",
        "SELECT * FROM cycles ORDER BY cycle_id",
        "SELECT * FROM cycle_signals ORDER BY cycle_id, signal",
        "SELECT * FROM alerts ORDER BY alert_id, state",
    ]
    .map(|query| sql(data, query))
}

#[test]
fn any_number_of_workers_gives_the_same_history() {
    if data("cobot/ur3_cobotops.csv").is_none() {
        return;
    }
    let history = |workers: &str| tables(run("cobot", workers, &[]).path());
    let one = history("1");
    assert!(one.iter().take(3).all(|rows| rows.lines().count() >= 249));
    for workers in ["2", "4"] {
        assert!(history(workers) == one, "{workers} workers");
    }
}

#[test]
fn stopped_at_each_checkpoint_and_resumed_with_other_workers_gives_the_same_history() {
    for (pipeline, file, pace) in [
        ("cobot", "cobot/ur3_cobotops.csv", "sources.robot.replay=x13000"),
        ("dryer", "batches/dryer.csv", "sources.batches.replay=x4600"),
        ("nylon", "batches/nylon.csv", "sources.batches.replay=x3300"),
    ] {
        if data(file).is_none() {
            return;
        }
        let through = tables(run(pipeline, "1", &[]).path());
        let dir = tempfile::tempdir().unwrap();
        let mut stops = 0;
        for workers in ["1", "3", "2", "4"].into_iter().cycle() {
            if stopped_at_a_checkpoint(pipeline, pace, workers, dir.path()) {
                break;
            }
            stops += 1;
            assert!(stops < 500, "{pipeline}: no end");
        }
        assert!(stops > 1, "{pipeline}: stopped {stops} times");
        assert!(tables(dir.path()) == through, "{pipeline}: stopped {stops} times");
    }
}

/// Runs until a checkpoint has read more than the last one, or to the end: then true.
fn stopped_at_a_checkpoint(pipeline: &str, pace: &str, workers: &str, data: &Path) -> bool {
    let before = newest(data).map_or(0, |(batches, _)| batches);
    let mut child = support::taktline()
        .args(["run", &format!("config/pipelines/{pipeline}.yaml"), "--until-end"])
        .args(["--workers", workers, "--set", pace, "--set", "checkpoint.every=20ms"])
        .args(["--data", data.to_str().unwrap()])
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while newest(data).is_none_or(|(batches, _)| batches == before) && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let _ = Command::new("kill").args(["-TERM", &child.id().to_string()]).status(); // it may have ended
    assert!(child.wait().unwrap().success());
    newest(data).unwrap().1
}

/// Of the newest checkpoint: how many batches were read, and whether the input had ended.
fn newest(data: &Path) -> Option<(u64, bool)> {
    let files = std::fs::read_dir(data.join("_taktline/checkpoints"))
        .into_iter()
        .flatten();
    let newest = files
        .map(|file| file.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .max()?;
    let text = std::fs::read_to_string(newest).ok()?; // it may have been collected
    let manifest: serde_json::Value = serde_json::from_str(text.split_once('\n')?.1).ok()?;
    let partitions = manifest["sources"]
        .as_object()?
        .values()
        .flat_map(|source| source.as_object().into_iter().flatten());
    let batches = partitions.map(|(_, offset)| offset["sequence"].as_u64().unwrap()).sum();
    Some((batches, manifest["ended"] == true))
}

#[test]
fn what_was_read_to_its_end_is_not_read_again() {
    let Some(file) = data("batches/nylon.csv") else { return };
    let history = run("nylon", "1", &[]);
    let data = history.path().to_str().unwrap();
    let args = ["run", "config/pipelines/nylon.yaml", "--until-end", "--data", data];
    let (code, _, stderr) = support::any(&args);
    assert!(code == 0 && stderr.contains("--overwrite"), "{stderr}");
    check(history.path(), "SELECT count(*) FROM cycles", "57");
    // History without its state could only be doubled.
    std::fs::remove_dir_all(history.path().join("_taktline")).unwrap();
    let (code, _, stderr) = support::any(&args);
    assert!(code == 1 && stderr.contains("rows would be there twice"), "{stderr}");
    let path = format!("sources.batches.path={}", file.display());
    ok(&[&args[..], &["--overwrite", "--set", &path]].concat());
    check(history.path(), "SELECT count(*) FROM cycles", "57");
}
