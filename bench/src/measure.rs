//! Runs a program several times and takes the middle.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, ensure};

/// What a program took for a number of rows.
pub struct Measured {
    pub rows: usize,
    /// Middle of the runs.
    pub seconds: f64,
    /// All runs, fastest first.
    pub runs: Vec<f64>,
}

impl Measured {
    fn of(rows: usize, mut runs: Vec<f64>) -> Self {
        runs.sort_by(f64::total_cmp);
        Measured {
            rows,
            seconds: runs[runs.len() / 2],
            runs,
        }
    }

    /// Rows per second.
    pub fn rate(&self) -> f64 {
        self.rows as f64 / self.seconds
    }
}

/// `taktline run` on a file, from process start to everything published.
pub fn taktline(
    binary: &Path,
    pipeline: &str,
    file: &Path,
    workers: usize,
    rows: usize,
    runs: usize,
) -> anyhow::Result<Measured> {
    let seconds = (0..runs.max(1)).map(|_| {
        let data = tempfile::tempdir()?;
        let started = Instant::now();
        let status = Command::new(binary)
            .arg("run")
            .arg(format!("bench/pipelines/{pipeline}.yaml"))
            .args(["--until-end", "--workers", &workers.to_string()])
            .arg("--data")
            .arg(data.path())
            .arg("--set")
            .arg(format!("sources.rows.path={}", file.display()))
            .stderr(Stdio::null())
            .status()
            .with_context(|| binary.display().to_string())?;
        ensure!(status.success(), "{} ended with {status}", binary.display());
        Ok(started.elapsed().as_secs_f64())
    });
    Ok(Measured::of(rows, seconds.collect::<anyhow::Result<_>>()?))
}

/// A peer's script under `bench/peers`, which prints the seconds its work took (without starting up).
pub fn peer(script: &str, args: &[&str], rows: usize, runs: usize) -> anyhow::Result<Measured> {
    let seconds = (0..runs.max(1)).map(|_| {
        let output = Command::new("python3")
            .arg(format!("bench/peers/{script}"))
            .args(args)
            .output()?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success(),
            "{script}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        text.trim()
            .parse()
            .with_context(|| format!("{script} printed `{}`", text.trim()))
    });
    Ok(Measured::of(rows, seconds.collect::<anyhow::Result<_>>()?))
}
