//! What connections carry: messages through the main job to history, beside a bare client that only takes and parses them.
//!
//! - [`payloads`]: the rows that are measured on, as messages.
//! - [`kafka`]: one sample a message and a hundred, beside a bare rdkafka consumer. [`mqtt`]: beside a bare subscriber.
//! - [`latency`]: from a publish to the cycle's health on the live tap.

mod kafka;
mod latency;
mod mqtt;
mod payloads;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;
use clap::ValueEnum;

use crate::page;
use crate::running::{Metrics, Running, said};

/// What is measured, and on what.
#[derive(clap::Args)]
pub struct ConnectionsArgs {
    /// The `taktline` to measure, built with `--release`.
    #[arg(long)]
    taktline: PathBuf,
    /// Where brokers and runs keep their data.
    #[arg(long, default_value = "/tmp/taktline-bench")]
    work: PathBuf,
    /// Only these parts; all, if not given.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Samples of each throughput part.
    #[arg(long, default_value_t = 4_000_000)]
    samples: usize,
    /// Runs of each; the middle one counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Worker threads of each run.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// How long latency is watched at each rate, in seconds.
    #[arg(long, default_value_t = 60)]
    latency_secs: u64,
    /// What else is to be said about the binary and the machine.
    #[arg(long, default_value = "")]
    remark: String,
    /// Where the result is written.
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Kafka,
    Mqtt,
    Latency,
}

/// Longer than any good run.
const LIMIT: Duration = Duration::from_secs(600);

/// Measures the parts that are asked for, and writes `connections.md`.
///
/// # Errors
/// A program is missing or fails.
pub fn connections(args: &ConnectionsArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.work)?;
    let head = format!(
        "# What connections carry\n\n{}; broker, peer and taktline on the same machine; {} workers.\n\
         The middle of {} runs; all runs stand beside it.\n\
         Command: `bench connections --taktline target/release/taktline [--only PART]`\n\n{}",
        page::machine(&args.taktline)?,
        args.workers,
        args.runs,
        args.remark
    );
    for part in Part::value_variants() {
        if !args.only.is_empty() && !args.only.contains(part) {
            continue;
        }
        let load = page::load()?;
        let sections = match part {
            Part::Kafka => vec![kafka::measure(args)?],
            Part::Mqtt => vec![mqtt::measure(args)?],
            Part::Latency => latency::measure(args)?,
        };
        for mut section in sections {
            section.note = format!("{} {load}", section.note);
            page::put(&args.results.join("connections.md"), &head, &section)?;
        }
    }
    Ok(())
}

/// Runs the pipeline until `rows` samples have gone through and all is published; samples per second from the first to that.
fn through(
    args: &ConnectionsArgs,
    pipeline: &str,
    settings: &[String],
    data: &Path,
    rows: usize,
) -> anyhow::Result<f64> {
    let workers = ["--workers".to_owned(), args.workers.to_string()];
    let settings: Vec<String> = workers.into_iter().chain(settings.iter().cloned()).collect();
    let mut run = Running::start(&args.taktline, pipeline, data, &settings)?;
    let taken = |metrics: &Metrics| metrics.of("taktline_rows_in_total", "strokes");
    let (begun, metrics) = run.until(LIMIT, |metrics| taken(metrics) > 0.0)?;
    let before = taken(&metrics);
    run.until(LIMIT, |metrics| taken(metrics) >= rows as f64)?;
    run.savepoint("end")?;
    let rate = (rows as f64 - before) / begun.elapsed().as_secs_f64();
    let refused = run
        .metrics()?
        .map_or(0.0, |metrics| metrics.of("taktline_dead_letters_total", "plc"));
    ensure!(
        refused == 0.0,
        "{refused} messages were refused; the run said last:\n{}",
        said(&data.with_extension("log"))
    );
    run.stop()?;
    Ok(rate)
}

/// `count` per second since `begun`.
fn rate(count: usize, begun: Instant) -> f64 {
    count as f64 / begun.elapsed().as_secs_f64()
}

/// The setting of a source, for the command line.
fn set(path: &str, value: &str) -> [String; 2] {
    ["--set".to_owned(), format!("{path}={value}")]
}
