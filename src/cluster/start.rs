//! `taktline cluster start`: a supervisor, in the foreground or not.

use std::ffi::OsString;
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::certificates::Certificates;
use super::supervise::round::Start;
use super::supervise::{Outcome, Supervisor, Timing, output, record};
use super::{certificates_folder, folder, hosts, logs};
use crate::load::DATA;

/// What to start.
#[derive(Args, Debug)]
pub struct StartArgs {
    /// The pipeline file: YAML, TOML or JSON.
    file: PathBuf,
    /// Where history and checkpoints are kept; one for all processes, also those of other machines.
    #[arg(long, value_name = "DIR", default_value = DATA)]
    data: PathBuf,
    /// How many processes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    processes: Option<u16>,
    /// Worker threads of each process; the same on all machines [default: the processors, shared among this machine's].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    workers: Option<u16>,
    /// One `host:port` a line, one line for each process.
    #[arg(long, value_name = "FILE")]
    hosts: Option<PathBuf>,
    /// Which lines of the hosts file to start here, counted from 0 [default: those that are this machine].
    #[arg(long, value_name = "K,..", value_delimiter = ',', requires = "hosts")]
    host: Vec<usize>,
    /// Neither encrypt the links between processes nor ask who is there.
    #[arg(long)]
    insecure: bool,
    /// Where the API and the page of process 0 listen.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Override a value of the file, like sources.plc.url=mqtt://host:1883.
    #[arg(long = "set", value_name = "PATH=VALUE")]
    overrides: Vec<String>,
    /// Stop when the input ends.
    #[arg(long)]
    until_end: bool,
    /// In the background; its own messages go to logs/supervisor.log beside the processes' logs.
    #[arg(long)]
    detach: bool,
    /// What `--detach` starts.
    #[arg(long, hide = true, conflicts_with = "detach")]
    detached: bool,
    /// A start that lasted so many seconds was a good one, and the next is made at once.
    #[arg(long, hide = true, value_name = "SECS", default_value_t = 30)]
    settled_after: u64,
    /// After `--`: further options of `taktline run`, for the first start only: if that dies before its first checkpoint, the
    /// next start is without them (stop the cluster then, and give them again).
    #[arg(last = true, value_name = "RUN OPTION")]
    at_first: Vec<OsString>,
}

/// Starts a cluster and stays until it ends; with `--detach` only until it has started.
///
/// # Errors
/// A wrong hosts file; another supervisor on this data directory; files that can't be written.
pub fn start(args: &StartArgs) -> anyhow::Result<ExitCode> {
    if args.detach {
        return detach(&folder(&args.data));
    }
    if args.detached {
        // Away from the terminal, whose end would be this one's too.
        rustix::process::setsid().context("a session of its own")?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop)).context("signals")?;
    }
    let supervisor = supervisor(args)?;
    if !args.insecure {
        Certificates::open(&certificates_folder(&args.data))?;
    }
    Ok(match supervisor.run(&stop)? {
        Outcome::Done => ExitCode::SUCCESS,
        Outcome::Cut => ExitCode::FAILURE,
        Outcome::Hopeless { process, code } => {
            let log = output::log_file(&supervisor.folder, process);
            eprintln!(
                "process {process} says that another start would be of no use; the end of {}:",
                log.display()
            );
            logs::last_lines(&log, 20)?.iter().for_each(|line| eprintln!("{line}"));
            code.into()
        }
    })
}

fn supervisor(args: &StartArgs) -> anyhow::Result<Supervisor> {
    let addresses = args.hosts.as_deref().map(hosts::read).transpose()?;
    let (addresses, processes) = hosts::resolve(addresses, args.processes.map(usize::from), &args.host)?;
    let workers = args
        .workers
        .map_or_else(|| share_of_processors(processes.len()), usize::from);
    let program = std::env::current_exe().context("this program's own file")?;
    let run = RunOptions {
        file: args.file.clone(),
        data: args.data.clone(),
        workers,
        insecure: args.insecure,
        until_end: args.until_end,
        listen: args.listen,
        overrides: args.overrides.clone(),
        at_first: args.at_first.clone(),
    };
    Ok(Supervisor {
        folder: folder(&args.data),
        pipeline: args.file.display().to_string(),
        processes,
        addresses,
        timing: Timing {
            settled: Duration::from_secs(args.settled_after),
            ..Timing::default()
        },
        command: Box::new(move |start| {
            let mut command = Command::new(&program);
            command.args(run.arguments(start));
            command
        }),
    })
}

fn share_of_processors(processes: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / processes).clamp(1, 64)
}

/// What every process is told.
struct RunOptions {
    file: PathBuf,
    data: PathBuf,
    workers: usize,
    insecure: bool,
    until_end: bool,
    listen: Option<SocketAddr>,
    overrides: Vec<String>,
    at_first: Vec<OsString>,
}

impl RunOptions {
    fn arguments(&self, start: &Start) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["run".into(), self.file.clone().into()];
        let mut option = |name: &str, value: OsString| arguments.extend([name.into(), value]);
        option("--data", self.data.clone().into());
        option("--workers", self.workers.to_string().into());
        option("--process", start.process.to_string().into());
        option("--peers", start.addresses.join(",").into());
        for value in &self.overrides {
            option("--set", value.into());
        }
        if let (0, Some(listen)) = (start.process, self.listen) {
            option("--listen", listen.to_string().into());
        }
        arguments.extend(self.insecure.then(|| "--insecure".into()));
        arguments.extend(self.until_end.then(|| "--until-end".into()));
        if start.restarts == 0 {
            arguments.extend(self.at_first.iter().cloned());
        }
        arguments
    }
}

/// Lines of its log that are shown when a background supervisor ends at once.
const LAST_LINES: usize = 20;

/// The same command line once more, in the background.
fn detach(folder: &Path) -> anyhow::Result<ExitCode> {
    let mut arguments: Vec<OsString> = std::env::args_os().skip(1).collect();
    let flag = arguments
        .iter_mut()
        .find(|argument| *argument == "--detach")
        .context("--detach")?;
    *flag = "--detached".into();
    let log_file = output::logs(folder).join("supervisor.log");
    std::fs::create_dir_all(output::logs(folder)).with_context(|| folder.display().to_string())?;
    let log = File::options()
        .create(true)
        .append(true)
        .open(&log_file)
        .with_context(|| log_file.display().to_string())?;
    let from = log.metadata()?.len();
    let mut child = Command::new(std::env::current_exe().context("this program's own file")?)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("the supervisor can't be started")?;
    let pid = child.id();
    loop {
        if let Some(status) = child.try_wait()? {
            let said = std::fs::read(&log_file).with_context(|| log_file.display().to_string())?;
            let said = String::from_utf8_lossy(said.get(from as usize..).unwrap_or_default()).into_owned();
            let lines: Vec<_> = said.lines().collect();
            lines
                .iter()
                .skip(lines.len().saturating_sub(LAST_LINES))
                .for_each(|line| eprintln!("{line}"));
            return Ok(status.code().map_or(ExitCode::FAILURE, |code| (code as u8).into()));
        }
        if record::read_all(folder)?
            .iter()
            .any(|record| record.pid == pid && record.host == record::host())
        {
            eprintln!("pid {pid}; logs in {}", output::logs(folder).display());
            return Ok(ExitCode::SUCCESS);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        start: StartArgs,
    }

    fn arguments(line: &str, process: usize, restarts: u32) -> String {
        let args = Cli::try_parse_from(line.split(' ')).unwrap().start;
        let supervisor = supervisor(&args).unwrap();
        let addresses = ["a:1".to_owned(), "b:2".into()];
        let command = (supervisor.command)(&Start {
            process,
            addresses: &addresses,
            restarts,
        });
        let arguments: Vec<_> = command.get_args().map(|argument| argument.to_str().unwrap()).collect();
        arguments.join(" ")
    }

    #[test]
    fn each_process_is_told_what_it_needs() {
        let line = "start p.yaml --data d --processes 2 --workers 3 --insecure --until-end --listen 127.0.0.1:9 --set a.b=c -- --overwrite";
        let told = "run p.yaml --data d --workers 3 --process 0 --peers a:1,b:2 --set a.b=c --listen 127.0.0.1:9 --insecure --until-end";
        assert_eq!(arguments(line, 0, 0), format!("{told} --overwrite"));
        assert_eq!(
            arguments(line, 0, 1),
            told,
            "what would remove history is not said twice"
        );
        let other = told
            .replace("--process 0", "--process 1")
            .replace(" --listen 127.0.0.1:9", "");
        assert_eq!(arguments(line, 1, 1), other);
    }

    #[test]
    fn detach_and_its_other_half_are_not_for_one_command_line() {
        assert!(Cli::try_parse_from("start p.yaml --processes 2 --detach --detached".split(' ')).is_err());
        assert!(Cli::try_parse_from("start p.yaml --processes 0".split(' ')).is_err());
    }
}
