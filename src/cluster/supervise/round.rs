//! One start of all processes, until one of them ends or all have.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};

use super::output;
use crate::cluster::alive;

/// Where the processes find each other.
#[derive(Clone, Debug)]
pub enum Addresses {
    /// Said by the user: all processes of all machines.
    Fixed(Vec<String>),
    /// So many, all on this machine, on ports that are free at the time.
    Free(usize),
}

impl Addresses {
    /// How many processes the run has.
    #[must_use]
    pub fn of(&self) -> usize {
        match self {
            Self::Fixed(addresses) => addresses.len(),
            Self::Free(n) => *n,
        }
    }

    /// Free ports are chosen at each start: the last ones may be another's by now.
    pub(super) fn choose(&self) -> io::Result<Vec<String>> {
        match self {
            Self::Fixed(addresses) => Ok(addresses.clone()),
            Self::Free(n) => {
                let held = (0..*n)
                    .map(|_| TcpListener::bind("127.0.0.1:0"))
                    .collect::<io::Result<Vec<_>>>()?;
                held.iter()
                    .map(|listener| Ok(listener.local_addr()?.to_string()))
                    .collect()
            }
        }
    }
}

/// What a command is made for.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// Which process.
    pub process: usize,
    /// All processes' addresses.
    pub addresses: &'a [String],
    /// 0 at first, then how often all were started again.
    pub restarts: u32,
}

/// How a process ended a round.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum End {
    /// All exited with 0.
    All,
    /// This one has to be started again, and all others with it.
    Died { process: usize, how: String },
    /// It says that another start would be of no use: bad configuration (78) or command line (2).
    Hopeless { process: usize, code: u8 },
}

/// The processes of one start. Dropped, it kills those that are left.
pub(super) struct Round {
    pub started: Instant,
    pub children: Vec<Running>,
}

/// One child.
pub(super) struct Running {
    pub process: usize,
    pub address: String,
    child: Child,
    ended: Option<ExitStatus>,
    heartbeat: Heartbeat,
    log: std::thread::JoinHandle<()>,
}

/// How long a process may take until its first heartbeat, in the time that it has for each later one.
const FIRST_HEARTBEAT: u32 = 3;

/// Log lines of processes that have ended are on their way for this long.
const LAST_LINES: Duration = Duration::from_secs(1);

impl Round {
    pub fn start(
        folder: &Path,
        processes: &[usize],
        addresses: &[String],
        restarts: u32,
        command: &dyn Fn(&Start) -> Command,
    ) -> anyhow::Result<Self> {
        let mut round = Self {
            started: Instant::now(),
            children: Vec::new(),
        };
        // Between two starts somebody may have cleared the folder.
        let logs = output::logs(folder);
        fs::create_dir_all(&logs).with_context(|| logs.display().to_string())?;
        for &process in processes {
            let file = alive::heartbeat_file(folder, process);
            let heartbeat = Heartbeat::new(file)?;
            let (reader, writer) = io::pipe().context("a pipe for its log")?;
            let log_file = output::log_file(folder, process);
            let mut command = command(&Start {
                process,
                addresses,
                restarts,
            });
            command
                .stdin(Stdio::piped())
                .stdout(writer.try_clone()?)
                .stderr(writer)
                // Ctrl-C is for the supervisor, which stops all in good order.
                .process_group(0);
            let log = output::keep(reader, log_file.clone(), output::LOG_BYTES)
                .with_context(|| log_file.display().to_string())?;
            let child = command
                .spawn()
                .with_context(|| format!("process {process} can't be started"))?;
            let address = addresses.get(process).cloned().unwrap_or_default();
            round.children.push(Running {
                process,
                address,
                child,
                ended: None,
                heartbeat,
                log,
            });
        }
        Ok(round)
    }

    /// Looks at all once. None while they run.
    pub fn look(&mut self, lease: Duration) -> io::Result<Option<End>> {
        let mut cause: Option<(bool, End)> = None;
        for one in &mut self.children {
            if one.ended.is_none() {
                one.ended = one.child.try_wait()?;
            }
            let (first, how) = match one.ended {
                Some(status) if status.success() => continue,
                Some(status) => match status.code() {
                    Some(code @ (2 | 78)) => {
                        return Ok(Some(End::Hopeless {
                            process: one.process,
                            code: code as u8,
                        }));
                    }
                    // With exit code 1 a process also ends because a peer is gone: the peer is named.
                    code => (code != Some(1), said(status)),
                },
                None => match one.heartbeat.missed(lease) {
                    Some(silent) => (true, format!("gave no sign of life for {} s", silent.as_secs())),
                    None => continue,
                },
            };
            if cause.as_ref().is_none_or(|(before, _)| first && !before) {
                let process = one.process;
                cause = Some((first, End::Died { process, how }));
            }
        }
        if let Some((_, died)) = cause {
            return Ok(Some(died));
        }
        Ok(self.children.iter().all(|one| one.ended.is_some()).then_some(End::All))
    }

    /// Asks those that are left to end.
    pub fn ask_to_end(&self) {
        for one in self.children.iter().filter(|one| one.ended.is_none()) {
            if let Some(pid) = Pid::from_raw(one.child.id() as i32)
                && let Err(error) = kill_process(pid, Signal::TERM)
            {
                tracing::warn!("process {} can't be asked to end: {error}", one.process);
            }
        }
    }

    /// Ends those that are left, at once: what they have not published is in the checkpoint.
    pub fn kill(&mut self) {
        for one in self.children.iter_mut().filter(|one| one.ended.is_none()) {
            if let Err(error) = one.child.kill() {
                tracing::warn!("process {} can't be killed: {error}", one.process);
            }
        }
        for one in self.children.iter_mut().filter(|one| one.ended.is_none()) {
            match one.child.wait() {
                Ok(status) => one.ended = Some(status),
                Err(error) => tracing::warn!("process {} can't be waited for: {error}", one.process),
            }
        }
        // A grandchild may hold a log's pipe for longer than anybody wants to wait.
        let until = Instant::now() + LAST_LINES;
        while self.children.iter().any(|one| !one.log.is_finished()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Running {
    /// None when it has ended.
    pub fn pid(&self) -> Option<u32> {
        self.ended.is_none().then(|| self.child.id())
    }

    /// Ended, and not with 0.
    pub fn failed(&self) -> bool {
        self.ended.is_some_and(|status| !status.success())
    }
}

fn said(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => format!("ended: {status}"),
    }
}

/// Counts in the supervisor's own time, so that a clock that is set changes nothing.
struct Heartbeat {
    file: PathBuf,
    seen: Option<SystemTime>,
    changed: Instant,
    beats: bool,
}

impl Heartbeat {
    fn new(file: PathBuf) -> io::Result<Self> {
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        Ok(Self {
            file,
            seen: None,
            changed: Instant::now(),
            beats: false,
        })
    }

    /// How long it has been silent, when that is too long.
    fn missed(&mut self, lease: Duration) -> Option<Duration> {
        let seen = fs::metadata(&self.file).and_then(|data| data.modified()).ok();
        if seen != self.seen {
            self.beats |= seen.is_some();
            self.seen = seen;
            self.changed = Instant::now();
        }
        let silent = self.changed.elapsed();
        let allowed = if self.beats { lease } else { lease * FIRST_HEARTBEAT };
        (silent > allowed).then_some(silent)
    }
}
