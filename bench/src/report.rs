//! The result as a table, for people and for the repository.

use std::fmt;
use std::path::Path;

use crate::measure::Measured;
use crate::page::machine;

/// The lines of one run of the benchmark.
pub struct Report {
    head: String,
    lines: Vec<String>,
}

impl Report {
    pub fn new(taktline: &Path, rows: usize, workers: usize) -> anyhow::Result<Self> {
        let head = format!(
            "{}\n{rows} rows: 50 machines × 4 signals × 100 Hz; {workers} workers. The middle of several runs, each in a \
             process of its own; taktline's time includes its start, a peer's does not.\nCommand: `make bench`\n",
            machine(taktline)?,
        );
        Ok(Report {
            head,
            lines: Vec::new(),
        })
    }

    /// A measurement, beside its peer's where it has one.
    pub fn line(&mut self, what: &str, ours: &Measured, peer: Option<(&str, &Measured)>) {
        let own = format!(
            "{:.2} M rows/s ({:.2} s, runs {})",
            ours.rate() / 1e6,
            ours.seconds,
            spread(&ours.runs)
        );
        let beside = match peer {
            Some((name, peer)) => {
                format!(
                    "{name}: {:.2} M rows/s | {:.2} ×",
                    peer.rate() / 1e6,
                    ours.rate() / peer.rate()
                )
            }
            None => "– | –".to_owned(),
        };
        self.lines.push(format!("| {what} | {own} | {beside} |"));
    }

    /// Writes it to `dir/window.md`, in place of the one before.
    pub fn save(&self, dir: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(dir)?;
        Ok(std::fs::write(dir.join("window.md"), self.to_string())?)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.head)?;
        writeln!(f, "| what | taktline | peer | ratio |\n| --- | --- | --- | --- |")?;
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

fn spread(runs: &[f64]) -> String {
    let runs: Vec<String> = runs.iter().map(|seconds| format!("{seconds:.2}")).collect();
    runs.join(" ")
}
