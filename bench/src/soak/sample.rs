//! What is looked at every few seconds.

use std::path::Path;
use std::time::Duration;

use crate::running::{Metrics, Running, memory, process_cpu_secs, size};

/// The figures of one moment, by the names in [`FIGURES`].
pub type Figures = [f64; FIGURES.len()];

/// A figure: its name, and whether it must stay flat. What grows with the history that is kept doesn't, nor the
/// journal, which goes a whole segment at a time.
pub const FIGURES: [(&str, bool); 16] = [
    ("resident memory, MB", true),
    ("open files", true),
    ("threads", true),
    ("watermark behind the clock, ms", true),
    ("end of a cycle to its row on `tap`, median, ms", true),
    ("the same, 99 of 100, ms", false),
    ("processor, cores", true),
    ("rows per second, thousand", true),
    ("checkpoints per second", true),
    ("commit of a checkpoint, ms", true),
    ("state written per checkpoint, KB", true),
    ("journal (segments of 64 MiB), MB", false),
    ("state files, MB", true),
    ("files of `_taktline`", true),
    ("Delta logs, MB", false),
    ("history, MB", false),
];

/// Counters at the sample before.
#[derive(Default)]
pub struct Before {
    cpu_secs: f64,
    rows: f64,
    checkpoints: f64,
    commit_secs: f64,
    state_bytes: f64,
}

/// Takes a sample, `interval` after the one before. `latencies` came since then.
///
/// # Errors
/// The run has ended.
pub fn sample(
    run: &mut Running,
    data: &Path,
    interval: Duration,
    before: &mut Before,
    mut latencies: Vec<f64>,
) -> anyhow::Result<Figures> {
    let Some(metrics) = run.metrics()? else {
        anyhow::bail!("the run doesn't answer");
    };
    let pid = run.pid();
    let now = counters(pid, &metrics)?;
    let secs = interval.as_secs_f64();
    let checkpoints = now.checkpoints - before.checkpoints;
    latencies.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = ((latencies.len() as f64 * share) as usize).min(latencies.len().saturating_sub(1));
        latencies.get(place).copied().unwrap_or(f64::NAN)
    };
    let kept = size(&data.join("_taktline"));
    let logs = delta_logs(data)?;
    let figures = [
        memory(pid, "VmRSS")? / 1e6,
        std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as f64,
        std::fs::read_dir(format!("/proc/{pid}/task"))?.count() as f64,
        1e3 * metrics.of("taktline_watermark_delay_seconds", "strokes"),
        at(0.5),
        at(0.99),
        (now.cpu_secs - before.cpu_secs) / secs,
        (now.rows - before.rows) / secs / 1e3,
        checkpoints / secs,
        1e3 * (now.commit_secs - before.commit_secs) / checkpoints,
        (now.state_bytes - before.state_bytes) / checkpoints / 1e3,
        size(&data.join("_taktline/journal")).0 as f64 / 1e6,
        size(&data.join("_taktline/state")).0 as f64 / 1e6,
        kept.1 as f64,
        logs as f64 / 1e6,
        size(data).0.saturating_sub(kept.0) as f64 / 1e6,
    ];
    *before = now;
    Ok(figures)
}

fn counters(pid: u32, metrics: &Metrics) -> anyhow::Result<Before> {
    Ok(Before {
        cpu_secs: process_cpu_secs(pid)?,
        rows: metrics.of("taktline_rows_in_total", "strokes"),
        checkpoints: metrics.of("taktline_checkpoints_total", ""),
        commit_secs: metrics.of("taktline_checkpoint_commit_seconds_total", ""),
        state_bytes: metrics.of("taktline_checkpoint_bytes_total", ""),
    })
}

fn delta_logs(data: &Path) -> anyhow::Result<u64> {
    let tables = std::fs::read_dir(data)?;
    let logs = tables.map(|table| Ok(size(&table?.path().join("_delta_log")).0));
    logs.sum()
}
