//! Benchmarks of Taktline, each beside a peer or beside itself without the thing that is measured.
//!
//! - [`window`]: windows and cycles over files, beside DuckDB and Bytewax.
//! - [`durability`]: what checkpoints, recovery and the journal cost.
//! - [`soak`]: whether memory, open files and latency stay flat for half an hour.
//! - [`running`]: a `taktline run` under way; [`broker`] and [`messages`]: a Mosquitto and what goes through it.
//! - [`measure`]: runs a program several times and takes the middle; [`rows`]: the rows that are measured on.
//! - [`report`] and [`page`]: the results, on stdout and under `bench/results/`.

mod broker;
mod durability;
mod measure;
mod messages;
mod page;
mod report;
mod rows;
mod running;
mod soak;
mod window;

use clap::{Parser, Subcommand};

/// Measures `taktline`; without a command, windows and cycles beside DuckDB and Bytewax.
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    window: Option<window::WindowArgs>,
}

#[derive(Subcommand)]
enum Command {
    /// What checkpoints, recovery and the journal cost.
    Durability(durability::DurabilityArgs),
    /// Whether memory, open files and latency stay flat.
    Soak(soak::SoakArgs),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match (cli.command, cli.window) {
        (Some(Command::Durability(args)), _) => durability::durability(&args),
        (Some(Command::Soak(args)), _) => soak::soak(&args),
        (None, Some(args)) => window::window(&args),
        (None, None) => anyhow::bail!("say which binary to measure: --taktline FILE"),
    }
}
