//! Kills Taktline again and again, and holds what is in history against a run that nobody disturbed.
//!
//! - [`input`]: files and a pipeline made from a seed; every record carries producer, sequence and checksum.
//! - [`program`]: a run of one process or of a cluster, to be killed. [`dice`]: chance that replays.
//! - [`history`]: the tables of a data directory. [`verdict`]: lost, twice, different.
//! - [`killing`]: kills at random times. [`points`]: kills at every write, fsync, link, commit and acknowledgement.
//! - [`messages`]: kills while messages come over [`lines`]: a real Mosquitto ([`broker`]), a real [`kafka`], senders over HTTP ([`pushing`]).
//!   [`acknowledged`], [`windows`]: none lost, none twice; [`delta`]: history as others read it; [`sinks`]: files, a topic, a [`hook`] and a [`mail`] server.

mod acknowledged;
mod broker;
mod delta;
mod dice;
mod history;
mod hook;
mod input;
mod kafka;
#[path = "../../../connectors/tests/kafka_broker/mod.rs"]
mod kafka_broker;
mod killing;
mod lines;
mod mail;
mod messages;
mod points;
mod program;
mod pushing;
mod sinks;
mod verdict;
mod windows;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Parser;

use crate::lines::Line;
use crate::messages::Torture;
use crate::program::Program;
use crate::sinks::Sinks;
use crate::verdict::Verdict;

/// Kills Taktline at random times, or at its fault points, and compares history with an undisturbed run, row for row.
#[derive(Parser, Debug)]
struct Args {
    /// The `taktline` to kill.
    #[arg(long)]
    taktline: PathBuf,
    /// The same seed makes the same input and the same choices. Default: the time.
    #[arg(long)]
    seed: Option<u64>,
    /// How often it is killed.
    #[arg(long, default_value_t = 100)]
    kills: u64,
    /// With more than one, through `taktline cluster`: one process is killed, or all, or their supervisor.
    #[arg(long, default_value_t = 1)]
    processes: usize,
    /// Instead of at random times it is killed at its fault points, each in turn.
    #[arg(long)]
    failpoints: bool,
    /// With --failpoints: only these points.
    #[arg(long = "fault", value_name = "NAME")]
    faults: Vec<String>,
    /// Read messages of a real Mosquitto through the journal, not files. With --kafka and --http beside it, one pipeline reads them all.
    #[arg(long)]
    mqtt: bool,
    /// Read messages of a real Kafka, and write all messages to another topic of it, exactly once.
    #[arg(long)]
    kafka: bool,
    /// Read what senders push over HTTP until it is answered with 202.
    #[arg(long)]
    http: bool,
    /// With messages: write to files, an MQTT topic, a webhook and a mail server too.
    #[arg(long)]
    sinks: bool,
    /// How long the input takes to read, in seconds.
    #[arg(long, default_value_t = 20)]
    secs: u64,
    /// Where data directories and logs are; what a failed run left stays there.
    #[arg(long, default_value = "/tmp/taktline-torture")]
    work: PathBuf,
    /// What CI has time for: a few random kills of one process, of a cluster, and with messages over all ways into all sinks.
    #[arg(long)]
    short: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let mut args = Args::parse();
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |d| d.as_millis() as u64)
    };
    let seed = *args.seed.get_or_insert_with(now);
    args.taktline = args
        .taktline
        .canonicalize()
        .with_context(|| format!("--taktline {}", args.taktline.display()))?;
    let work = args.work.join(seed.to_string());
    if work.exists() {
        std::fs::remove_dir_all(&work).with_context(|| format!("clearing {}", work.display()))?;
    }
    std::fs::create_dir_all(&work).with_context(|| format!("making {}", work.display()))?;
    println!("seed {seed}, in {}", work.display());
    let verdict = torture(&args, seed, &work)?;
    println!("{verdict}");
    if verdict.good() {
        std::fs::remove_dir_all(&work).with_context(|| format!("clearing {}", work.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    println!("seed {seed}: see {}", work.display());
    Ok(ExitCode::FAILURE)
}

fn torture(args: &Args, seed: u64, work: &Path) -> anyhow::Result<Verdict> {
    if args.short {
        let mut verdict = files(args, seed, &Amount::short(15, 1), &folder(work, "files")?)?;
        verdict.add(files(args, seed, &Amount::short(4, 3), &folder(work, "cluster")?)?);
        let all = Ways {
            mqtt: true,
            kafka: true,
            http: true,
            sinks: true,
        };
        verdict.add(all.torture(args, seed, 5, &folder(work, "messages")?)?);
        return Ok(verdict);
    }
    let ways = Ways {
        mqtt: args.mqtt,
        kafka: args.kafka,
        http: args.http,
        sinks: args.sinks,
    };
    if ways.mqtt || ways.kafka || ways.http {
        return ways.torture(args, seed, args.kills, work);
    }
    anyhow::ensure!(!ways.sinks, "--sinks goes with --mqtt, --kafka or --http");
    let amount = Amount {
        kills: args.kills,
        processes: args.processes,
        secs: args.secs,
    };
    files(args, seed, &amount, work)
}

/// Which ways messages take.
struct Ways {
    mqtt: bool,
    kafka: bool,
    http: bool,
    sinks: bool,
}

impl Ways {
    fn torture(&self, args: &Args, seed: u64, kills: u64, work: &Path) -> anyhow::Result<Verdict> {
        let mut lines = Vec::new();
        if self.mqtt {
            lines.push(Line::mqtt(&folder(work, "mosquitto")?)?);
        }
        if self.kafka {
            lines.push(Line::kafka()?);
        }
        if self.http {
            lines.push(Line::http()?);
        }
        let sinks = self.sinks.then(|| Sinks::start(&folder(work, "sinks")?)).transpose()?;
        let faults = args
            .failpoints
            .then(|| points::of_messages(&lines, self.sinks, &args.faults));
        let torture = Torture {
            taktline: &args.taktline,
            seed,
            kills,
            faults: faults.as_deref(),
            work,
        };
        messages::torture(&lines, sinks.as_ref(), &torture)
    }
}

/// How much of it.
struct Amount {
    kills: u64,
    processes: usize,
    /// Of the input.
    secs: u64,
}

impl Amount {
    fn short(kills: u64, processes: usize) -> Self {
        Amount {
            kills,
            processes,
            secs: 4,
        }
    }
}

fn files(args: &Args, seed: u64, amount: &Amount, work: &Path) -> anyhow::Result<Verdict> {
    let program = Program {
        taktline: args.taktline.clone(),
        pipeline: input::write(work, seed, amount.secs)?,
        processes: amount.processes,
    };
    let mut bench = killing::Bench::new(program, seed, work)?;
    if args.failpoints {
        let faults = points::of_files(&args.faults);
        return points::kill(&mut bench, &faults, amount.kills);
    }
    killing::kill(&mut bench, amount.kills)
}

fn folder(work: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let folder = work.join(name);
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}
