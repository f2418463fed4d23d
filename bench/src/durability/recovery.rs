//! How long a run needs that goes on from much state.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;

use super::{DurabilityArgs, options};
use crate::page::{Section, median, runs};
use crate::running::{Running, memory, size};

const PIPELINE: &str = "bench/pipelines/open.yaml";
const ROWS_IN: &str = "taktline_rows_in_total";
/// The cycle step.
const STEP: &str = "open";
const LIMIT: Duration = Duration::from_secs(600);

/// Lets open cycles grow until the state is as large as wanted, stops, and goes on from there several times.
pub fn measure(args: &DurabilityArgs) -> anyhow::Result<Section> {
    let work = tempfile::tempdir_in(&args.work)?;
    let data = work.path().join("data");
    let state = data.join("_taktline/state");
    let wanted = args.state_mb * 1_000_000;
    let mut limit = wanted;
    let (grown_mb, stopped) = loop {
        let often = options(args.workers, &["--set", "checkpoint.every=2s"]);
        let mut first = Running::start(&args.taktline, PIPELINE, &data, &often)?;
        first.until(LIMIT, |_| size(&state).0 >= limit)?;
        let grown_mb = memory(first.pid(), "VmRSS")? / 1e6;
        let stopped = first.stop()?;
        // Files that were replaced are gone by now.
        if size(&state).0 >= wanted {
            break (grown_mb, stopped);
        }
        limit += wanted / 2;
    };
    let (bytes, files) = size(&state);
    eprintln!("{bytes} bytes of state in {files} files; stopped in {stopped:.1?}");

    let mut lines = Vec::new();
    for (name, cold) in [("files not in memory", true), ("files in memory", false)] {
        let (mut seconds, mut peak) = (Vec::new(), Vec::new());
        for _ in 0..args.runs.max(1) {
            if cold {
                forget(&state)?;
            }
            // No checkpoint of its own: killed, it leaves the state as it was.
            let mut again = Running::start(
                &args.taktline,
                PIPELINE,
                &data,
                &options(args.workers, &["--set", "checkpoint.every=1d"]),
            )?;
            let (flowing, _) = again.until(LIMIT, |metrics| metrics.of(ROWS_IN, STEP) > 0.0)?;
            seconds.push((flowing - again.started).as_secs_f64());
            peak.push(memory(again.pid(), "VmHWM")? / 1e9);
            eprintln!("{name}: {:.2} s", seconds.last().copied().unwrap_or(f64::NAN));
            drop(again);
        }
        lines.push(vec![
            name.to_owned(),
            format!("{:.2} GB in {files} files", bytes as f64 / 1e9),
            format!("{:.2} s ({})", median(&seconds), runs(&seconds, 2)),
            format!("{:.2} GB", median(&peak)),
        ]);
    }
    Ok(Section {
        title: "Recovery from much state",
        note: format!(
            "10,000 machines with 5 signals, a cycle open on each (`{PIPELINE}`), checkpoints every 2 s until the state files \
             had the size also after a stop by SIGTERM (resident {grown_mb:.0} MB then; the last checkpoint and the end took \
             {:.1} s), then started again: the time from process start until the first new rows reach the step. \
             Wanted: below 10 s for 1 GB.",
            stopped.as_secs_f64()
        ),
        columns: vec![
            "started with",
            "state on disk",
            "until rows flow (runs)",
            "resident memory, peak",
        ],
        rows: lines,
    })
}

/// Has the kernel drop what it keeps of these files in memory.
fn forget(folder: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let file = std::fs::File::open(&path)?;
        file.sync_all()?;
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
    }
    ensure!(folder.exists(), "{} is gone", folder.display());
    Ok(())
}
