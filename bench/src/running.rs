//! A `taktline run` under way: its metrics, its log, its end.

use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How often a run is asked when something is waited for.
const ASK_EVERY: Duration = Duration::from_millis(10);

/// A `taktline run` in a process of its own; killed with this value.
pub struct Running {
    child: Child,
    url: String,
    log: PathBuf,
    agent: ureq::Agent,
    /// When the process was started.
    pub started: Instant,
}

impl Running {
    /// Starts one on a free port. What it says goes to `DATA.log`.
    ///
    /// # Errors
    /// The binary can't be started.
    pub fn start(taktline: &Path, pipeline: &str, data: &Path, more: &[String]) -> anyhow::Result<Self> {
        Self::start_with(taktline, pipeline, data, more, Stdio::null())
    }

    /// The same, with what it prints.
    ///
    /// # Errors
    /// As for [`Running::start`].
    pub fn start_piped(
        taktline: &Path,
        pipeline: &str,
        data: &Path,
        more: &[String],
    ) -> anyhow::Result<(Self, ChildStdout)> {
        let mut run = Self::start_with(taktline, pipeline, data, more, Stdio::piped())?;
        let out = run.child.stdout.take().context("it has no output")?;
        Ok((run, out))
    }

    fn start_with(taktline: &Path, pipeline: &str, data: &Path, more: &[String], out: Stdio) -> anyhow::Result<Self> {
        let port = free_port()?;
        let log = data.with_extension("log");
        let errors = File::options().create(true).append(true).open(&log)?;
        let started = Instant::now();
        let child = Command::new(taktline)
            .args(["run", pipeline, "--listen", &format!("127.0.0.1:{port}"), "--data"])
            .arg(data)
            .args(more)
            .stdout(out)
            .stderr(errors)
            .spawn()
            .with_context(|| taktline.display().to_string())?;
        Ok(Running {
            child,
            url: format!("http://127.0.0.1:{port}"),
            log,
            agent: ureq::Agent::config_builder()
                .timeout_global(Some(Duration::from_secs(120)))
                .build()
                .into(),
            started,
        })
    }

    /// Of its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its API is.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its metrics now; none while its API isn't there yet.
    ///
    /// # Errors
    /// It has ended.
    pub fn metrics(&mut self) -> anyhow::Result<Option<Metrics>> {
        if let Some(status) = self.child.try_wait()? {
            bail!("the run ended with {status}; it said last:\n{}", said(&self.log));
        }
        let Ok(mut answer) = self.agent.get(format!("{}/metrics", self.url)).call() else {
            return Ok(None);
        };
        Ok(Some(Metrics(answer.body_mut().read_to_string()?)))
    }

    /// Asks until its metrics say so; gives the time and the metrics.
    ///
    /// # Errors
    /// It has ended, or nothing came of it for as long as `limit`.
    pub fn until(&mut self, limit: Duration, true_of: impl Fn(&Metrics) -> bool) -> anyhow::Result<(Instant, Metrics)> {
        let begun = Instant::now();
        loop {
            if let Some(metrics) = self.metrics()?
                && true_of(&metrics)
            {
                return Ok((Instant::now(), metrics));
            }
            ensure!(
                begun.elapsed() < limit,
                "what was waited for did not come; the run said last:\n{}",
                said(&self.log)
            );
            std::thread::sleep(ASK_EVERY);
        }
    }

    /// Takes a checkpoint now; gives how long that took.
    ///
    /// # Errors
    /// It says no.
    pub fn savepoint(&self, name: &str) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let address = format!("{}/api/savepoints/{name}", self.url);
        self.agent.put(&address).send_empty().context(address)?;
        Ok(begun.elapsed())
    }

    /// Stops it in good order, with a last checkpoint; gives how long that took.
    ///
    /// # Errors
    /// It does not end well.
    pub fn stop(mut self) -> anyhow::Result<Duration> {
        let begun = Instant::now();
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM)?;
        let status: ExitStatus = self.child.wait()?;
        ensure!(
            status.success(),
            "the run ended with {status}; it said last:\n{}",
            said(&self.log)
        );
        Ok(begun.elapsed())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// Metrics in Prometheus' text format.
pub struct Metrics(String);

impl Metrics {
    /// A metric, of one node where it has nodes; 0 while it isn't there.
    pub fn of(&self, name: &str, node: &str) -> f64 {
        let label = format!("node=\"{node}\"");
        self.0
            .lines()
            .filter(|line| {
                let rest = line.strip_prefix(name).unwrap_or_default();
                rest.starts_with(' ') || (rest.starts_with('{') && rest.contains(&label))
            })
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}

/// The last lines of a log.
pub fn said(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

const LINES: usize = 20;

/// A port that nobody listens on now.
///
/// # Errors
/// There is none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Bytes and number of the files below a folder; nothing where it isn't there.
pub fn size(folder: &Path) -> (u64, u64) {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return (0, 0);
    };
    let mut sum = (0, 0);
    for entry in entries.flatten() {
        // A file may go while we look.
        let Ok(meta) = entry.metadata() else { continue };
        let (bytes, files) = match meta.is_dir() {
            true => size(&entry.path()),
            false => (meta.len(), 1),
        };
        sum = (sum.0 + bytes, sum.1 + files);
    }
    sum
}

/// Seconds of processor time of all children that have ended, user and system.
///
/// # Errors
/// `/proc` is not as it should be.
pub fn children_cpu_secs() -> anyhow::Result<f64> {
    cpu_secs("self", [13, 14])
}

/// Seconds of processor time of a process.
///
/// # Errors
/// It isn't there.
pub fn process_cpu_secs(pid: u32) -> anyhow::Result<f64> {
    cpu_secs(&pid.to_string(), [11, 12])
}

/// Fields of `/proc/PID/stat`, counted from the one after the name.
fn cpu_secs(pid: &str, fields: [usize; 2]) -> anyhow::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat")?;
    let values: Vec<&str> = rest.split_whitespace().collect();
    let ticks = fields.iter().map(|field| {
        let text = values.get(*field).copied().unwrap_or_default();
        text.parse::<f64>().context("/proc/PID/stat")
    });
    let sum: f64 = ticks.collect::<anyhow::Result<Vec<f64>>>()?.iter().sum();
    Ok(sum / TICKS_PER_SEC)
}

/// Linux' USER_HZ.
const TICKS_PER_SEC: f64 = 100.0;

/// A line of `/proc/PID/status`, like VmRSS, in bytes.
///
/// # Errors
/// The process isn't there.
pub fn memory(pid: u32, name: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line
        .and_then(|line| line.trim_start_matches(':').split_whitespace().next())
        .and_then(|text| text.parse::<f64>().ok());
    Ok(1024.0 * kib.with_context(|| format!("{name} of process {pid}"))?)
}
