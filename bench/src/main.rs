//! Benchmarks of Taktline, each beside a peer or beside itself without the thing that is measured.
//!
//! - [`window`]: windows and cycles over files, beside DuckDB and Bytewax.
//! - [`durability`]: what checkpoints, recovery and the journal cost.
//! - [`connections`]: what Kafka and MQTT carry, beside bare clients, and how soon a cycle's health is seen.
//! - [`soak`]: whether memory, open files and latency stay flat for half an hour.
//! - [`running`]: a `taktline run` under way; [`taps`]: live rows of it. [`broker`] and [`messages`]: a
//!   Mosquitto and what goes through it; `kafka_broker`: a Kafka.
//! - [`measure`]: runs a program several times and takes the middle; [`rows`]: the rows that are measured on.
//! - [`report`] and [`page`]: the results, on stdout and under `bench/results/`.

mod broker;
mod connections;
mod durability;
#[path = "../../connectors/tests/kafka_broker/mod.rs"]
mod kafka_broker;
mod measure;
mod messages;
mod page;
mod report;
mod rows;
mod running;
mod soak;
mod taps;
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
    /// What Kafka and MQTT carry, and how soon.
    Connections(connections::ConnectionsArgs),
    /// Whether memory, open files and latency stay flat.
    Soak(soak::SoakArgs),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match (cli.command, cli.window) {
        (Some(Command::Durability(args)), _) => durability::durability(&args),
        (Some(Command::Connections(args)), _) => connections::connections(&args),
        (Some(Command::Soak(args)), _) => soak::soak(&args),
        (None, Some(args)) => window::window(&args),
        (None, None) => anyhow::bail!("say which binary to measure: --taktline FILE"),
    }
}
