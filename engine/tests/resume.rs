//! Checkpoints and what a run goes on from: nothing lost, nothing twice, with another number of workers too.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod toy;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use taktline_engine::plan::compile;
use taktline_engine::{Fabric, Options, Resume, Run, StateOptions};

fn pipeline(to: &str, list: &str, rows: usize) -> String {
    let mut text = Vec::new();
    for i in 0..rows as i64 {
        let ts = if i % 7 == 3 { i - 4 } else { i };
        let value = if i % 500 == 499 { -1e9 } else { (i % 13) as f64 };
        text.push(format!("[m{}, {ts}, {value:.1}]", i % 11));
    }
    format!(
        "version: 1\nname: toy\nsources: {{plc: {{kind: list, batch: 3{list}, rows: [{}]}}}}\n\
         steps:\n  sums: {{kind: sum, from: plc, lateness: 3s, last: true}}\n  all: {{kind: pass, from: sums}}\n\
         sinks: {{out: {{kind: keep, to: {to}, from: [plc, sums, all]}}}}\n",
        text.join(", ")
    )
}

/// One machine's rows come by two sources, so that the result depends on how these interleave.
fn two_sources(to: &str) -> String {
    let rows = |first: i64| {
        let rows: Vec<String> = (0..1_000)
            .map(|i| format!("[m{}, {}, {}.0]", i % 3, 2 * i + first, i % 13))
            .collect();
        rows.join(", ")
    };
    format!(
        "version: 1\nname: toy\nsources: {{one: {{kind: list, batch: 3, rows: [{}]}}, two: {{kind: list, batch: 7, rows: [{}]}}}}\n\
         steps:\n  sums: {{kind: sum, from: [one, two], lateness: 3s, last: true}}\n\
         sinks: {{out: {{kind: keep, to: {to}, from: [one, two, sums]}}}}\n",
        rows(0),
        rows(1)
    )
}

fn start(text: &str, workers: usize) -> Arc<Run> {
    let plan = compile("toy.yaml", text, &[], &toy::CATALOG, &|_| None).unwrap_or_else(|found| panic!("{found:?}"));
    let options = Options {
        workers,
        checkpoint_every: Duration::from_millis(1),
        ..Options::default()
    };
    Run::new(plan, options).unwrap()
}

fn go(run: &Arc<Run>, state: &StateOptions) -> anyhow::Result<()> {
    let resume = Resume::lead(run, state, 1)?;
    run.execute_from(Some(resume), Fabric::alone()).map(drop)
}

fn options(data: &Path) -> StateOptions {
    StateOptions::at(data)
}

/// The rows of a run that nothing disturbed.
fn undisturbed(to: &str) -> Vec<String> {
    start(&pipeline(to, "", 2_000), 1).execute().unwrap();
    let rows = toy::kept(to);
    assert!(rows.len() > 4_000);
    rows
}

#[test]
fn stopped_and_resumed_with_other_workers_gives_the_same_rows() {
    let expected = undisturbed("resume-expected");
    stop_and_resume(&pipeline("resume", "", 2_000), "resume", &expected);
}

#[test]
fn a_stop_does_not_change_how_two_sources_interleave() {
    start(&two_sources("two-expected"), 1).execute().unwrap();
    let expected = toy::kept("two-expected");
    assert!(
        expected.iter().any(|row| row.starts_with("late:")),
        "nothing depends on the order"
    );
    stop_and_resume(&two_sources("two"), "two", &expected);
}

fn stop_and_resume(text: &str, to: &str, expected: &[String]) {
    let data = tempfile::tempdir().unwrap();
    let mut runs = 0;
    for workers in [1, 3, 2, 4, 1].into_iter().cycle() {
        let run = start(text, workers);
        let stopper = std::thread::spawn({
            let run = Arc::clone(&run);
            let (before, to) = (toy::kept(to).len(), to.to_owned());
            move || {
                // Stopped as soon as something new is shown.
                while toy::kept(&to).len() == before && !run.stopping() {
                    std::thread::yield_now();
                }
                run.stop();
            }
        });
        go(&run, &options(data.path())).unwrap();
        run.stop();
        stopper.join().unwrap();
        runs += 1;
        if toy::kept(to).iter().any(|row| row.ends_with(" -1")) {
            break; // the input has ended
        }
        assert!(runs < 2_000, "no run makes progress");
    }
    assert!(runs > 1, "{runs} runs");
    assert!(toy::kept(to) == expected);
    // What has ended is not read again.
    go(&start(text, 2), &options(data.path())).unwrap();
    assert!(toy::kept(to) == expected);
}

#[test]
fn a_failing_sink_costs_nothing_when_the_run_is_started_again() {
    let expected = undisturbed("again-expected");
    let data = tempfile::tempdir().unwrap();
    for fail_after in (100..).step_by(400) {
        let text = pipeline("again", "", 2_000).replace("to: again", &format!("to: again, fail_after: {fail_after}"));
        let ended = go(&start(&text, 2), &options(data.path()));
        let Err(error) = ended else { break };
        assert_eq!(format!("{error:#}"), "sink out: the shelf is full");
    }
    assert!(toy::kept("again") == expected);
}

#[test]
fn a_source_that_cannot_repeat_goes_through_the_journal() {
    let expected = undisturbed("journal-expected");
    let data = tempfile::tempdir().unwrap();
    let run = start(&pipeline("journal", ", fleeting: true", 2_000), 2);
    go(&run, &options(data.path())).unwrap();
    assert!(toy::kept("journal") == expected);
    let journal = data.path().join("_taktline/journal/plc/0");
    assert!(journal.is_dir(), "no journal");
}

#[test]
fn what_changed_in_the_pipeline_is_said_before_it_starts() {
    let data = tempfile::tempdir().unwrap();
    let text = pipeline("changed", ", endless: true", 100);
    let stopped = |text: &str, state: &StateOptions| {
        let run = start(text, 1);
        run.stop();
        go(&run, state)
    };
    stopped(&text, &options(data.path())).unwrap();
    let error = |text: &str, state: &StateOptions| format!("{:#}", stopped(text, state).unwrap_err());
    let other = text.replace(", last: true", "");
    assert_eq!(
        error(&other, &options(data.path())),
        "step sums: its state is `sum sum/1 last rows/2`, and would be `sum sum/1 rows/2` now; to drop that state, start with --fresh sums"
    );
    let fresh = |step: &str| StateOptions {
        fresh: vec![step.into()],
        ..options(data.path())
    };
    assert!(error(&other, &fresh("sum")).contains("there is no step or source of this name"));
    stopped(&other, &fresh("sums")).unwrap();
    stopped(&other, &options(data.path())).unwrap();
    let named = text.replace("name: toy", "name: game");
    assert!(error(&named, &options(data.path())).contains("holds the state of the pipeline `toy`"));
}

#[test]
fn a_savepoint_can_be_gone_back_to() {
    let expected = undisturbed("save-expected");
    let data = tempfile::tempdir().unwrap();
    let text = pipeline("save", ", hold: 900", 2_000);
    let run = start(&text, 2);
    let running = std::thread::spawn({
        let (run, state) = (Arc::clone(&run), options(data.path()));
        move || go(&run, &state)
    });
    let shown = |rows: usize| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while toy::kept("save").iter().filter(|row| row.starts_with("plc:")).count() < rows {
            assert!(Instant::now() < deadline, "the rows are never shown");
            std::thread::yield_now();
        }
    };
    shown(899); // one row is a dead letter
    run.savepoint("before").unwrap();
    assert!(format!("{:#}", run.savepoint("be/fore").unwrap_err()).contains("be/fore"));
    let then = toy::kept("save");
    toy::LET.store(true, std::sync::atomic::Ordering::Release);
    running.join().unwrap().unwrap();
    assert!(toy::kept("save") == expected);
    assert!(then.len() < expected.len());

    toy::LET.store(false, std::sync::atomic::Ordering::Release);
    let back = StateOptions {
        from: Some("before".into()),
        ..options(data.path())
    };
    let run = start(&text, 3);
    run.stop();
    go(&run, &back).unwrap();
    assert!(toy::kept("save") == then, "what came after the savepoint is taken back");
    toy::LET.store(true, std::sync::atomic::Ordering::Release);
    go(&start(&text, 1), &options(data.path())).unwrap();
    assert!(toy::kept("save") == expected);
    let none = StateOptions {
        from: Some("after".into()),
        ..options(data.path())
    };
    assert!(format!("{:#}", go(&start(&text, 1), &none).unwrap_err()).contains("before"));
}

#[test]
fn a_source_that_can_not_be_read_on_ends_the_run_with_a_checkpoint() {
    let data = tempfile::tempdir().unwrap();
    let text = |broken: &str| {
        format!(
            "version: 1\nname: toy\n\
             sources: {{one: {{kind: list, batch: 1, rows: [[a, 1, 1], [a, 2, 2], [a, 3, 3]]{broken}}}, two: {{kind: list, endless: true, rows: [[b, 1, 9]]}}}}\n\
             steps:\n  sums: {{kind: sum, from: [one, two]}}\nsinks: {{out: {{kind: keep, to: broken, from: [one, two]}}}}\n"
        )
    };
    for workers in [1, 2] {
        let error = go(&start(&text(", broken: 2"), workers), &options(data.path())).unwrap_err();
        assert_eq!(format!("{error:#}"), "source one: row 2 can't be read");
        let rows = |machine: &str| toy::kept("broken").iter().filter(|row| row.contains(machine)).count();
        assert_eq!((rows(" a "), rows(" b ")), (2, 1), "{:?}", toy::kept("broken"));
    }
}

#[test]
fn a_second_run_on_the_same_directory_is_refused() {
    let data = tempfile::tempdir().unwrap();
    let text = pipeline("second", ", endless: true", 10);
    let first = start(&text, 1);
    let resume = Resume::lead(&first, &options(data.path()), 1).unwrap();
    let second = start(&text, 1);
    let error = format!("{:#}", go(&second, &options(data.path())).unwrap_err());
    assert!(error.contains(&std::process::id().to_string()), "{error}");
    drop(resume);
    second.stop();
    go(&second, &options(data.path())).unwrap();
}

#[test]
fn a_silent_key_is_forgotten_when_the_file_says_so() {
    let data = tempfile::tempdir().unwrap();
    let text = |rows: &str| {
        format!(
            "version: 1\nname: toy\nkeys: {{forget_after: 1s}}\nsources: {{plc: {{kind: list, endless: true, rows: [{rows}]}}}}\n\
             steps:\n  sums: {{kind: sum, from: plc, last: true}}\nsinks: {{out: {{kind: keep, to: forgotten, from: sums}}}}\n"
        )
    };
    let until_shown = |rows: &str, last: &str| {
        let run = start(&text(rows), 1);
        let running = std::thread::spawn({
            let (run, state) = (Arc::clone(&run), options(data.path()));
            move || go(&run, &state)
        });
        let deadline = Instant::now() + Duration::from_secs(60);
        while toy::kept_in_order("forgotten").last().is_none_or(|row| row != last) {
            assert!(Instant::now() < deadline, "{:?}", toy::kept("forgotten"));
            std::thread::yield_now();
        }
        run.stop();
        running.join().unwrap().unwrap();
    };
    until_shown("[a, 1, 1.0]", "sums: a 0 -1");
    until_shown("[a, 1, 1.0], [a, 2, 5.0]", "sums: a 2 5"); // its sum begins anew
    until_shown("[a, 1, 1.0], [a, 2, 5.0], [a, 3, 1.0]", "sums: a 3 6"); // and is remembered again
}

#[test]
fn dropped_state_does_not_come_back() {
    let data = tempfile::tempdir().unwrap();
    let text = |rows: &str, steps: &str| {
        format!(
            "version: 1\nname: toy\nsources: {{plc: {{kind: list, endless: true, rows: [{rows}]}}}}\n\
             steps: {{{steps}}}\nsinks: {{out: {{kind: keep, to: dropped, from: plc}}}}\n"
        )
    };
    let (all, one) = (
        "sums: {kind: sum, from: plc}, more: {kind: sum, from: plc}",
        "sums: {kind: sum, from: plc}",
    );
    let go_on = |text: String, fresh: &[&str]| {
        let run = start(&text, 1);
        let state = StateOptions {
            fresh: fresh.iter().map(|step| (*step).to_owned()).collect(),
            ..options(data.path())
        };
        let running = std::thread::spawn({
            let run = Arc::clone(&run);
            move || go(&run, &state)
        });
        run.savepoint(&format!(
            "s{}",
            std::fs::read_dir(data.path().join("_taktline/savepoints")).map_or(0, Iterator::count)
        ))
        .unwrap();
        run.stop();
        running.join().unwrap().unwrap();
        let dir = taktline_engine::state::StateDir::at(data.path());
        let claim = dir.claim("toy", Duration::from_secs(10)).unwrap();
        let (_, keys) = dir.recover(&claim, &|_| true).unwrap().unwrap();
        let mut steps: Vec<String> = keys
            .into_keys()
            .filter(|(_, slot, _)| *slot == 1)
            .map(|(step, _, key)| format!("{step} {key}"))
            .collect();
        steps.sort();
        steps
    };
    assert_eq!(
        go_on(text("[a, 1, 1.0], [b, 2, 1.0]", all), &[]),
        ["more a", "more b", "sums a", "sums b"]
    );
    assert_eq!(
        go_on(text("[a, 1, 1.0], [b, 2, 1.0], [a, 3, 1.0]", all), &["sums"]),
        ["more a", "more b", "sums a"]
    );
    assert_eq!(
        go_on(text("[a, 1, 1.0], [b, 2, 1.0], [a, 3, 1.0]", one), &[]),
        ["sums a"]
    );
    assert_eq!(
        go_on(text("[a, 1, 1.0], [b, 2, 1.0], [a, 3, 1.0]", all), &[]),
        ["sums a"]
    );
}
