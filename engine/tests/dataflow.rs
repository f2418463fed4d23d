//! The dataflow: the same rows with any number of workers, ends, stops and errors.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod toy;

use std::time::{Duration, Instant};

use taktline_engine::plan::compile;
use taktline_engine::{Options, Run};

/// Runs a pipeline over rows of `machines` machines that are partly out of order, and gives what the sink kept.
fn run(to: &str, workers: usize, lateness: &str) -> Vec<String> {
    let mut rows = Vec::new();
    for i in 0..2_000i64 {
        let ts = if i % 7 == 3 { i - 4 } else { i };
        let value = match i % 500 {
            499 => -1e9, // a dead letter
            250 => 1e9,  // left out
            _ => (i % 13) as f64,
        };
        rows.push(format!("[m{}, {ts}, {value:.1}]", i % 11));
    }
    let text = format!(
        "version: 1\nsources: {{plc: {{kind: list, batch: 37, rows: [{}]}}}}\n\
         steps:\n  sums: {{kind: sum, from: plc, lateness: {lateness}}}\n  all: {{kind: pass, from: sums}}\n\
         sinks: {{out: {{kind: keep, to: {to}, from: [plc, sums, all]}}}}\n",
        rows.join(", ")
    );
    let plan = compile("toy.yaml", &text, &[], &toy::CATALOG, &|_| None).unwrap();
    let run = Run::new(
        plan,
        Options {
            workers,
            ..Options::default()
        },
    )
    .unwrap();
    run.execute().unwrap();
    let kept = toy::kept(to);
    let metrics = run.metrics.text().unwrap();
    assert!(
        metrics.contains("taktline_dead_letters_total{kind=\"list\",node=\"plc\"} 4"),
        "{metrics}"
    );
    assert!(
        metrics.contains("taktline_rows_left_out_total{kind=\"list\",node=\"plc\"} 4"),
        "{metrics}"
    );
    let sums = kept.iter().filter(|row| row.starts_with("sums:")).count();
    let late = kept.iter().filter(|row| row.starts_with("late:")).count();
    assert_eq!(sums + late, 1_992, "every row is summed or late");
    assert!(
        metrics.contains(&format!(
            "taktline_late_rows_total{{kind=\"sum\",node=\"sums\"}} {late}"
        )),
        "{metrics}"
    );
    kept
}

#[test]
fn any_number_of_workers_gives_the_same_rows() {
    for lateness in ["0s", "3s", "60s"] {
        let one = run(&format!("one-{lateness}"), 1, lateness);
        for workers in [2, 3, 4] {
            assert_eq!(
                run(&format!("{workers}-{lateness}"), workers, lateness),
                one,
                "{workers} workers"
            );
        }
    }
}

#[test]
fn a_stop_ends_an_endless_source_and_loses_nothing_read() {
    let text = "version: 1\nsources: {plc: {kind: list, endless: true, rows: [[a, 1, 1.0], [b, 2, 2.0]]}}\n\
                steps: {sums: {kind: sum, from: plc, lateness: 1d}}\nsinks: {out: {kind: keep, to: stopped, from: sums}}\n";
    let plan = compile("toy.yaml", text, &[], &toy::CATALOG, &|_| None).unwrap();
    let run = Run::new(
        plan,
        Options {
            workers: 2,
            ..Options::default()
        },
    )
    .unwrap();
    let running = std::thread::spawn({
        let run = run.clone();
        move || run.execute()
    });
    let read = || {
        run.metrics
            .text()
            .unwrap()
            .contains("taktline_rows_in_total{kind=\"sum\",node=\"sums\"} 2")
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while !read() {
        assert!(Instant::now() < deadline, "the rows never reached the step");
        std::thread::yield_now();
    }
    assert!(toy::kept("stopped").is_empty(), "rows wait for their watermark");
    run.stop();
    running.join().unwrap().unwrap();
    assert_eq!(toy::kept("stopped"), ["sums: a 1 1", "sums: b 2 2"]);
}

#[test]
fn a_failing_sink_ends_the_run_with_its_name() {
    let rows = vec!["[a, 1, 1.0]"; 3_000].join(", ");
    let text = format!(
        "version: 1\nsources: {{plc: {{kind: list, rows: [{rows}]}}}}\nsinks: {{shelf: {{kind: keep, fail_after: 50, from: plc}}}}\n"
    );
    let plan = compile("toy.yaml", &text, &[], &toy::CATALOG, &|_| None).unwrap();
    let error = Run::new(plan, Options::default()).unwrap().execute().unwrap_err();
    assert_eq!(format!("{error:#}"), "sink shelf: the shelf is full");
}

#[test]
fn steps_have_the_last_word() {
    let text = "version: 1\nsources: {plc: {kind: list, rows: [[a, 1, 0.0], [b, 1, 1.0]]}}\nsteps: {sums: {kind: sum, from: plc}}\n";
    let plan = compile("toy.yaml", text, &[], &toy::CATALOG, &|_| None).unwrap();
    let remarks = Run::new(plan, Options::default()).unwrap().execute().unwrap();
    assert_eq!(remarks.len(), 1);
    assert_eq!(
        (remarks[0].machine.as_str(), remarks[0].text.as_str()),
        ("a", "nothing to sum")
    );
}

#[test]
fn rows_of_the_end_come_last() {
    // The steps emit at the end only; many epochs may close in one activation before it.
    let rows: Vec<String> = (0..500).map(|i| format!("[m{}, {i}, 1.0]", i % 5)).collect();
    for workers in [1, 2, 4] {
        let text = format!(
            "version: 1\nsources: {{plc: {{kind: list, batch: 1, rows: [{}]}}}}\n\
             steps: {{sums: {{kind: sum, from: plc, last: true}}, more: {{kind: pass, from: sums}}}}\n\
             sinks: {{out: {{kind: keep, to: end-{workers}, from: more}}}}\n",
            rows.join(", ")
        );
        let plan = compile("toy.yaml", &text, &[], &toy::CATALOG, &|_| None).unwrap();
        let options = Options {
            workers,
            ..Options::default()
        };
        Run::new(plan, options).unwrap().execute().unwrap();
        for machine in ["m0", "m1", "m2", "m3", "m4"] {
            let kept = toy::kept_in_order(&format!("end-{workers}"));
            let own: Vec<&String> = kept.iter().filter(|row| row.contains(machine)).collect();
            assert_eq!(own.len(), 101, "{workers} workers");
            assert_eq!(own[100], &format!("more: {machine} 0 -1"), "{workers} workers: {own:?}");
        }
    }
}

#[test]
fn a_stop_gives_up_a_sink_whose_target_is_away() {
    let text = "version: 1\nsources: {plc: {kind: list, endless: true, batch: 1, rows: [[a, 1, 1.0], [a, 2, 1.0]]}}\n\
                sinks: {gone: {kind: keep, away: true, from: plc}}\n";
    let plan = compile("toy.yaml", text, &[], &toy::CATALOG, &|_| None).unwrap();
    let options = Options {
        sink_patience: Duration::from_millis(100),
        ..Options::default()
    };
    let run = Run::new(plan, options).unwrap();
    let running = std::thread::spawn({
        let run = run.clone();
        move || run.execute()
    });
    let deadline = Instant::now() + Duration::from_secs(30);
    while !run
        .metrics
        .text()
        .unwrap()
        .contains("taktline_rows_out_total{kind=\"list\",node=\"plc\"} 2")
    {
        assert!(Instant::now() < deadline, "the rows were never read");
        std::thread::yield_now();
    }
    run.stop();
    let error = running.join().unwrap().unwrap_err();
    assert!(
        format!("{error:#}").starts_with("sink gone: its target took no rows"),
        "{error:#}"
    );
}
