//! A run that is there to be killed: one process, or a cluster of them.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// What is run.
#[derive(Debug)]
pub struct Program {
    /// The binary.
    pub taktline: PathBuf,
    /// The pipeline file.
    pub pipeline: PathBuf,
    /// More than one: a cluster.
    pub processes: usize,
}

/// How a run is started.
#[derive(Clone, Debug, Default)]
pub struct Start {
    /// Worker threads of each process.
    pub workers: u64,
    /// Fewer processes than the program has; 0 for those.
    pub processes: usize,
    /// A fault point and what it does, as `FAILPOINTS` says it.
    pub fault: Option<String>,
    /// Goes on until it is told to stop, though the input has ended.
    pub for_ever: bool,
}

/// A running one.
#[derive(Debug)]
pub struct Running {
    child: Child,
    log: PathBuf,
    taktline: PathBuf,
    data: PathBuf,
}

/// Between two looks at a process.
const LOOK: Duration = Duration::from_millis(2);

impl Program {
    /// Starts it on a data directory; what it says is appended to a log beside that.
    ///
    /// # Errors
    /// It can't be started.
    pub fn start(&self, data: &Path, how: &Start) -> anyhow::Result<Running> {
        let log = data.with_extension("log");
        let out = File::options().create(true).append(true).open(&log);
        let out = out.with_context(|| log.display().to_string())?;
        let mut command = Command::new(&self.taktline);
        let processes = if how.processes == 0 {
            self.processes
        } else {
            how.processes
        };
        if processes > 1 {
            command.args(["cluster", "start"]).arg(&self.pipeline);
            command.args(["--settled-after", "0", "--processes", &processes.to_string()]);
        } else {
            command.arg("run").arg(&self.pipeline);
        }
        if how.for_ever {
            command.args(["--listen", "127.0.0.1:0"]);
        } else {
            command.arg("--until-end");
        }
        command
            .arg("--data")
            .arg(data)
            .args(["--workers", &how.workers.max(1).to_string()]);
        command
            .env("TAKTLINE_LOG", "warn,taktline=info")
            .env_remove("FAILPOINTS")
            .env_remove("TAKTLINE_FAILPOINTS");
        if let Some(fault) = &how.fault {
            command.env("TAKTLINE_FAILPOINTS", "1").env("FAILPOINTS", fault);
        }
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        Ok(Running {
            child: command.spawn().with_context(|| self.taktline.display().to_string())?,
            log,
            taktline: self.taktline.clone(),
            data: data.to_owned(),
        })
    }
}

impl Running {
    /// Waits for its end, but no longer than this.
    ///
    /// # Errors
    /// The system can't say.
    pub fn ends_within(&mut self, span: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let until = Instant::now() + span;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// Kills it at once: in a cluster the supervisor.
    ///
    /// # Errors
    /// The system won't.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end in good order.
    ///
    /// # Errors
    /// The system won't.
    pub fn terminate(&self) -> anyhow::Result<()> {
        signal(u64::from(self.child.id()), Signal::TERM).map(|_| ())
    }

    /// The processes of a cluster that are there now.
    ///
    /// # Errors
    /// `taktline cluster status` can't be read.
    pub fn pids(&self) -> anyhow::Result<Vec<u64>> {
        let mut command = Command::new(&self.taktline);
        command
            .args(["cluster", "status", "--format", "json", "--data"])
            .arg(&self.data);
        let said = command.output().context("taktline cluster status")?;
        let status: Value = serde_json::from_slice(&said.stdout).with_context(|| {
            let stderr = String::from_utf8_lossy(&said.stderr).into_owned();
            format!("taktline cluster status said no JSON, but {stderr:?}")
        })?;
        let supervisors = status["supervisors"].as_array().into_iter().flatten();
        let ours = supervisors.filter(|one| one["pid"].as_u64() == Some(self.child.id().into()));
        let processes = ours.flat_map(|one| one["processes"].as_array().into_iter().flatten());
        Ok(processes.filter_map(|process| process["pid"].as_u64()).collect())
    }

    /// The end of what it said.
    pub fn last_words(&self) -> String {
        let mut text = Vec::new();
        let read = File::open(&self.log).and_then(|mut file| {
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(3_000)))?;
            file.read_to_end(&mut text)
        });
        match read {
            Ok(_) => String::from_utf8_lossy(&text).into_owned(),
            Err(error) => format!("{}: {error}", self.log.display()),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only where the harness itself gives up: nothing may run on.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal; false when there is no such process any more.
///
/// # Errors
/// The system won't.
pub fn signal(pid: u64, signal: Signal) -> anyhow::Result<bool> {
    let raw = i32::try_from(pid)
        .ok()
        .and_then(Pid::from_raw)
        .with_context(|| format!("pid {pid}"))?;
    match kill_process(raw, signal) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::SRCH) => Ok(false),
        Err(error) => Err(error).with_context(|| format!("pid {pid}")),
    }
}
