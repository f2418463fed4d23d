//! `taktline cluster`: one pipeline over several processes, on one machine or more.
//!
//! - [`start`]: the command line becomes a supervisor; [`hosts`]: where the processes are.
//! - [`supervise`]: starts the processes, and all of them again when one dies.
//! - [`mesh`]: what each process does first: the connections between them, before timely sees them; [`certificates`]: who may.
//! - [`alive`]: what each process does all the time: heartbeats, and ending with its supervisor.
//! - [`show`], [`logs`]: what runs, and what it says.

pub mod alive;
pub mod certificates;
pub mod hosts;
pub mod logs;
pub mod mesh;
pub mod show;
pub mod start;
pub mod supervise;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};

use crate::load::DATA;

/// What is done with a cluster.
#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Start the processes, and again when one of them dies, until the input ends or a signal.
    Start(Box<start::StartArgs>),
    /// End the cluster of a data directory in good order; what is open is in its last checkpoint.
    Stop {
        /// Its data directory.
        #[arg(long, value_name = "DIR", default_value = DATA)]
        data: PathBuf,
    },
    /// Which processes run; exit code 1 when none do.
    Status {
        /// Their data directory.
        #[arg(long, value_name = "DIR", default_value = DATA)]
        data: PathBuf,
        /// How they are listed.
        #[arg(long, default_value = "text")]
        format: Format,
    },
    /// What the processes wrote.
    Logs {
        /// Their data directory.
        #[arg(long, value_name = "DIR", default_value = DATA)]
        data: PathBuf,
        /// Only this one.
        #[arg(long, value_name = "I")]
        process: Option<usize>,
        /// How many lines of each.
        #[arg(long, value_name = "N", default_value_t = 50)]
        lines: usize,
        /// Go on with what comes.
        #[arg(long, short)]
        follow: bool,
    },
}

/// How `status` is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// Does it. Gives the exit code.
///
/// # Errors
/// What kept it from being done.
pub fn execute(command: &ClusterCommand) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    match command {
        ClusterCommand::Start(args) => start::start(args),
        ClusterCommand::Stop { data } => {
            anyhow::ensure!(show::stop(&folder(data))?, "no cluster runs on {}", data.display());
            Ok(ExitCode::SUCCESS)
        }
        ClusterCommand::Status { data, format } => {
            let runs = show::status(&folder(data), *format == Format::Json, &mut out)?;
            if !runs {
                eprintln!("no cluster runs on {}", data.display());
            }
            Ok(if runs { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        ClusterCommand::Logs {
            data,
            process,
            lines,
            follow,
        } => {
            match logs::show(&folder(data), *process, *lines, *follow, &mut out) {
                // Whoever read has read enough.
                Err(error) if error.downcast_ref().is_some_and(is_broken_pipe) => Ok(ExitCode::SUCCESS),
                result => result.map(|()| ExitCode::SUCCESS),
            }
        }
    }
}

fn is_broken_pipe(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::BrokenPipe
}

/// What a cluster keeps in its data directory.
#[must_use]
pub fn folder(data: &Path) -> PathBuf {
    data.join("_taktline").join("cluster")
}

/// The certificates of its processes; copied to other machines when the data directory isn't shared.
#[must_use]
pub fn certificates_folder(data: &Path) -> PathBuf {
    folder(data).join("certificates")
}
