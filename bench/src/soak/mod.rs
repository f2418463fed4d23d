//! Whether memory, open files and latency stay flat while a live press line runs at about half of what the machine can take.
//!
//! - `sample`: the figures that are looked at.
//! - [`crate::taps`]: how long after the end of a cycle its row is there.

mod sample;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::page::{self, Section};
use crate::running::{Running, process_cpu_secs};
use crate::taps::Taps;
use sample::{Before, FIGURES, Figures, sample};

/// How long it runs, and at which load.
#[derive(clap::Args)]
pub struct SoakArgs {
    /// The `taktline` to watch, built with `--release`.
    #[arg(long)]
    taktline: PathBuf,
    /// Where its data is kept while it runs.
    #[arg(long, default_value = "/tmp/taktline-bench")]
    work: PathBuf,
    /// How long.
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,
    /// Presses with 5 signals of 100 Hz; found by a probe, if not given.
    #[arg(long)]
    machines: Option<usize>,
    /// Worker threads.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// What else is to be said about the machine.
    #[arg(long, default_value = "")]
    remark: String,
    /// Where the result is written.
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
}

const PIPELINE: &str = "bench/pipelines/soak.yaml";
const SAMPLE_EVERY: Duration = Duration::from_secs(10);
/// Enough of them that what a run takes with none hardly counts.
const PROBE_MACHINES: usize = 600;
/// What is compared at the beginning and at the end, in parts of the whole.
const PARTS: usize = 6;
/// A mean this much above its first one is no longer flat.
const FLAT: f64 = 1.1;

/// Runs it, and writes `soak.md`.
///
/// # Errors
/// The run ends, or a figure can't be had.
pub fn soak(args: &SoakArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.work)?;
    let machines = match args.machines {
        Some(machines) => machines,
        None => probe(args)?,
    };
    let work = tempfile::tempdir_in(&args.work)?;
    let data = work.path().join("data");
    let load = page::load()?;
    let mut run = start(args, &data, machines)?;
    let taps = Taps::follow(&args.taktline, run.url(), "health")?;
    let (begun, whole) = (Instant::now(), Duration::from_secs_f64(60.0 * args.minutes));
    let (mut samples, mut before) = (Vec::new(), Before::default());
    sample(&mut run, &data, SAMPLE_EVERY, &mut before, taps.take())?;
    let mut last = Instant::now();
    while begun.elapsed() < whole {
        std::thread::sleep(SAMPLE_EVERY.saturating_sub(last.elapsed()));
        let interval = last.elapsed();
        last = Instant::now();
        let figures = sample(&mut run, &data, interval, &mut before, taps.take())?;
        eprintln!("{:>5.1} min {figures:.1?}", begun.elapsed().as_secs_f64() / 60.0);
        samples.push(figures);
    }
    run.stop()?;
    let head = format!(
        "# Soak\n\n{}; data on a local disk; {} workers.\n\
         Command: `bench soak --taktline target/release/taktline --minutes {}`",
        page::machine(&args.taktline)?,
        args.workers,
        args.minutes
    );
    let note = format!(
        "{machines} presses × 5 signals × 100 Hz, live, through the journal to cycle, compare, health, alert and history, with the \
         samples, and a checkpoint every second (`{PIPELINE}`). A sample every {} s, {} in all. First and last: the mean \
         of the first and of the last {:.1} minutes. Flat: the last mean is at most {FLAT} times the first. {load} {}",
        SAMPLE_EVERY.as_secs(),
        samples.len(),
        args.minutes / PARTS as f64,
        args.remark
    );
    page::put(&args.results.join("soak.md"), &head, &summary(&samples, note)?)?;
    page::put(&args.results.join("soak.md"), &head, &course(&samples))
}

fn start(args: &SoakArgs, data: &Path, machines: usize) -> anyhow::Result<Running> {
    let settings = [
        "--workers".to_owned(),
        args.workers.to_string(),
        "--set".to_owned(),
        format!("sources.line.machines={machines}"),
    ];
    let mut run = Running::start(&args.taktline, PIPELINE, data, &settings)?;
    run.until(Duration::from_secs(60), |metrics| {
        metrics.of("taktline_rows_in_total", "strokes") > 0.0
    })?;
    Ok(run)
}

/// So many presses that the run's own processor time is half of the machine's.
fn probe(args: &SoakArgs) -> anyhow::Result<usize> {
    let work = tempfile::tempdir_in(&args.work)?;
    let mut run = start(args, &work.path().join("data"), PROBE_MACHINES)?;
    // References are learned first: comparing begins after 12 cycles of 3 s.
    std::thread::sleep(Duration::from_secs(45));
    let rows = |run: &mut Running| -> anyhow::Result<f64> {
        Ok(run
            .metrics()?
            .map_or(0.0, |metrics| metrics.of("taktline_rows_in_total", "strokes")))
    };
    let (begun, cpu, first) = (Instant::now(), process_cpu_secs(run.pid())?, rows(&mut run)?);
    std::thread::sleep(Duration::from_secs(20));
    let secs = begun.elapsed().as_secs_f64();
    let cores = (process_cpu_secs(run.pid())? - cpu) / secs;
    let rate = (rows(&mut run)? - first) / secs;
    run.stop()?;
    let half = std::thread::available_parallelism()?.get() as f64 / 2.0;
    let machines = (PROBE_MACHINES as f64 * half / cores) as usize;
    eprintln!("{PROBE_MACHINES} presses: {rate:.0} rows/s take {cores:.2} cores; {machines} presses would take {half}");
    ensure!(machines > 0, "one press is too much for this machine");
    Ok(machines)
}

fn mean(samples: &[Figures], figure: usize) -> f64 {
    let known: Vec<f64> = samples
        .iter()
        .map(|s| s[figure])
        .filter(|value| value.is_finite())
        .collect();
    known.iter().sum::<f64>() / known.len() as f64
}

fn summary(samples: &[Figures], note: String) -> anyhow::Result<Section> {
    let part = samples.len() / PARTS;
    ensure!(part > 0, "{} samples are too few", samples.len());
    let rows = FIGURES.iter().enumerate().map(|(figure, (name, must))| {
        let (first, last) = (
            mean(&samples[..part], figure),
            mean(&samples[samples.len() - part..], figure),
        );
        let most = samples.iter().map(|s| s[figure]).fold(f64::NAN, f64::max);
        let verdict = match (must, last <= FLAT * first) {
            (true, true) => "flat",
            (true, false) => "**not flat**",
            (false, _) => "–",
        };
        vec![
            (*name).to_owned(),
            format!("{first:.2}"),
            format!("{last:.2}"),
            format!("{most:.2}"),
            format!("{:.2}", last / first),
            verdict.to_owned(),
        ]
    });
    Ok(Section {
        title: "First and last",
        note,
        columns: vec!["what", "first", "last", "most", "last : first", ""],
        rows: rows.collect(),
    })
}

/// The way there, in a few steps.
fn course(samples: &[Figures]) -> Section {
    let step = samples.len().div_ceil(10).max(1);
    let rows = samples.chunks(step).enumerate().map(|(at, chunk)| {
        let minute = (at * step) as f64 * SAMPLE_EVERY.as_secs_f64() / 60.0;
        let means = (0..FIGURES.len()).map(|figure| format!("{:.1}", mean(chunk, figure)));
        std::iter::once(format!("{minute:.1}")).chain(means).collect()
    });
    Section {
        title: "Course",
        note: "Means of the time from this minute on.".to_owned(),
        columns: std::iter::once("minute")
            .chain(FIGURES.iter().map(|(name, _)| *name))
            .collect(),
        rows: rows.collect(),
    }
}
