//! What checkpoints, recovery and the journal cost.
//!
//! - [`throughput`]: rows per second with checkpoints and without.
//! - [`recovery`]: how long a run needs that goes on from much state.
//! - [`changed`]: what a checkpoint writes when few of many machines were active.
//! - [`acknowledged`]: MQTT messages per second through the journal, beside a bare subscriber.
//! - [`overload`]: memory when ten times as much comes as the sink takes.

mod acknowledged;
mod changed;
mod overload;
mod recovery;
mod throughput;

use std::path::PathBuf;

use clap::ValueEnum;

use crate::page;

/// What is measured, and on what.
#[derive(clap::Args)]
pub struct DurabilityArgs {
    /// The `taktline` to measure, built with `--release`.
    #[arg(long)]
    taktline: PathBuf,
    /// Where inputs and state are kept while it runs: on a disk, not in memory.
    #[arg(long, default_value = "/tmp/taktline-bench")]
    work: PathBuf,
    /// Only these parts; all, if not given.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Rows of the throughput part.
    #[arg(long, default_value_t = 40_000_000)]
    rows: usize,
    /// State of the recovery part, in MB.
    #[arg(long, default_value_t = 1000)]
    state_mb: u64,
    /// Messages of the acknowledgement part.
    #[arg(long, default_value_t = 500_000)]
    messages: usize,
    /// Runs of each; the middle one counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Worker threads of each run.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// What else is to be said about the binary and the machine.
    #[arg(long, default_value = "")]
    remark: String,
    /// Where the result is written.
    #[arg(long, default_value = "bench/results")]
    results: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Part {
    Throughput,
    Recovery,
    Changed,
    Acknowledged,
    Overload,
}

/// Measures the parts that are asked for, and writes `durability.md`.
///
/// # Errors
/// A program is missing or fails.
pub fn durability(args: &DurabilityArgs) -> anyhow::Result<()> {
    std::fs::create_dir_all(&args.work)?;
    let head = format!(
        "# What durability costs\n\n{}; data on a local disk; {} workers.\n\
         The middle of several runs, each in a process of its own; all runs stand beside it.\n\
         Command: `bench durability --taktline target/release/taktline [--only PART]`\n\n{}",
        page::machine(&args.taktline)?,
        args.workers,
        args.remark
    );
    for part in Part::value_variants() {
        if !args.only.is_empty() && !args.only.contains(part) {
            continue;
        }
        let load = page::load()?;
        let mut section = match part {
            Part::Throughput => throughput::measure(args)?,
            Part::Recovery => recovery::measure(args)?,
            Part::Changed => changed::measure(args)?,
            Part::Acknowledged => acknowledged::measure(args)?,
            Part::Overload => overload::measure(args)?,
        };
        section.note = format!("{} {load}", section.note);
        page::put(&args.results.join("durability.md"), &head, &section)?;
    }
    Ok(())
}

/// Arguments for a run.
fn options(workers: usize, more: &[&str]) -> Vec<String> {
    let workers = ["--workers".to_owned(), workers.to_string()];
    workers
        .into_iter()
        .chain(more.iter().map(|text| (*text).to_owned()))
        .collect()
}
