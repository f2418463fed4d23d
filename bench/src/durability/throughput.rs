//! Rows per second of the cycle pipeline with checkpoints and without.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};

use super::DurabilityArgs;
use crate::page::{Section, median, runs};
use crate::rows;
use crate::running::children_cpu_secs;

/// `1d` leaves the one at the end, without which nothing is published.
const EVERY: [(&str, &str); 3] = [("only at the end", "1d"), ("5s", "5s"), ("1s", "1s")];

struct Timed {
    seconds: f64,
    cpu_secs: f64,
    checkpoints: u64,
}

/// Runs in turn with each interval, so that a busy neighbour meets all of them.
pub fn measure(args: &DurabilityArgs) -> anyhow::Result<Section> {
    let csv = rows::csv(&args.work, args.rows)?;
    let mut all: Vec<Vec<Timed>> = EVERY.iter().map(|_| Vec::new()).collect();
    for _ in 0..args.runs.max(1) {
        for (timed, (_, every)) in all.iter_mut().zip(EVERY) {
            timed.push(run(args, &csv, every)?);
        }
    }
    let of = |timed: &[Timed], figure: fn(&Timed) -> f64| timed.iter().map(figure).collect::<Vec<f64>>();
    let seconds: Vec<Vec<f64>> = all.iter().map(|timed| of(timed, |t| t.seconds)).collect();
    let cpu: Vec<Vec<f64>> = all.iter().map(|timed| of(timed, |t| t.cpu_secs)).collect();
    let lines = EVERY.iter().enumerate().map(|(at, (name, _))| {
        let checkpoints: Vec<f64> = of(&all[at], |t| t.checkpoints as f64);
        vec![
            (*name).to_owned(),
            format!("{:.2} M rows/s", args.rows as f64 / median(&seconds[at]) / 1e6),
            format!("{:.1} s ({})", median(&seconds[at]), runs(&seconds[at], 1)),
            format!("{:.1} s ({})", median(&cpu[at]), runs(&cpu[at], 1)),
            runs(&checkpoints, 0),
            format!("{:.3}", median(&seconds[0]) / median(&seconds[at])),
            format!("{:.3}", median(&cpu[0]) / median(&cpu[at])),
        ]
    });
    Ok(Section {
        title: "Throughput with checkpoints",
        note: format!(
            "{} rows of CSV: 50 machines × 4 signals × 100 Hz, through cycle, compare, health and alert to history \
             (`bench/pipelines/cycles.yaml`), from process start to everything published. The intervals take turns. \
             Processor time is that of the process, user and system, over all threads; it bears with neighbours better than \
             the clock does. Wanted: a ratio of 0.9 with 5 s.",
            args.rows
        ),
        columns: vec![
            "checkpoint every",
            "throughput",
            "time (runs)",
            "processor time (runs)",
            "checkpoints in a run",
            "ratio by the clock",
            "ratio by processor time",
        ],
        rows: lines.collect(),
    })
}

fn run(args: &DurabilityArgs, csv: &Path, every: &str) -> anyhow::Result<Timed> {
    let data = tempfile::tempdir_in(&args.work)?;
    let (started, cpu_before) = (Instant::now(), children_cpu_secs()?);
    let status = Command::new(&args.taktline)
        .args(["run", "bench/pipelines/cycles.yaml", "--until-end"])
        .args(["--workers", &args.workers.to_string()])
        .arg("--data")
        .arg(data.path())
        .args(["--set", &format!("sources.rows.path={}", csv.display())])
        .args(["--set", &format!("checkpoint.every={every}")])
        .stderr(Stdio::null())
        .status()
        .with_context(|| args.taktline.display().to_string())?;
    ensure!(status.success(), "{} ended with {status}", args.taktline.display());
    let timed = Timed {
        seconds: started.elapsed().as_secs_f64(),
        cpu_secs: children_cpu_secs()? - cpu_before,
        checkpoints: newest_checkpoint(data.path())?,
    };
    eprintln!(
        "checkpoint every {every}: {:.1} s, processor {:.1} s, {} checkpoints",
        timed.seconds, timed.cpu_secs, timed.checkpoints
    );
    Ok(timed)
}

/// Their numbers go up by one.
fn newest_checkpoint(data: &Path) -> anyhow::Result<u64> {
    let folder = data.join("_taktline/checkpoints");
    let mut newest = 0;
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let name = entry?.file_name();
        let number = name
            .to_string_lossy()
            .split('-')
            .next()
            .and_then(|text| text.parse().ok());
        newest = newest.max(number.unwrap_or(0));
    }
    Ok(newest)
}
