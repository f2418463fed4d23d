//! What a checkpoint writes when few of many machines were active.

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;

use super::{DurabilityArgs, options};
use crate::broker::Broker;
use crate::messages::{Message, Publisher};
use crate::page::{Section, median};
use crate::running::{Metrics, Running};

const MACHINES: usize = 10_000;
const SIGNALS: [&str; 4] = ["pressure", "position", "temperature", "vibration"];
/// Moments in a round, each with a value of all signals.
const MOMENTS: usize = 20;
/// A row in memory: time and value.
const ROW_BYTES: usize = 16;
const LIMIT: Duration = Duration::from_secs(300);
const BYTES: &str = "taktline_checkpoint_bytes_total";
const CHECKPOINTS: &str = "taktline_checkpoints_total";
const ROWS_IN: &str = "taktline_rows_in_total";

struct Round {
    bytes: f64,
    millis: f64,
}

/// One whose cycles may stay open for ever, and one whose cycles time out: passing time then concerns silent machines too.
const PIPELINES: [(&str, &[&str]); 2] = [
    ("no `max`", &[]),
    (
        "`max: 1h, lateness: 2s`",
        &["--set", "steps.strokes.max=1h", "--set", "steps.strokes.lateness=2s"],
    ),
];
/// Longer than the lateness: nothing waits for its turn when the checkpoint is taken.
const QUIET: Duration = Duration::from_millis(3500);

/// All machines are known; then in each round a share of them sends, and a checkpoint is taken by hand.
pub fn measure(args: &DurabilityArgs) -> anyhow::Result<Section> {
    let mut lines = Vec::new();
    for (name, more) in PIPELINES {
        let work = tempfile::tempdir_in(&args.work)?;
        let broker = Broker::start(work.path())?;
        let mut feeding = Feeding::start(args, &broker, work.path(), more)?;
        feeding.send(0..MACHINES)?;
        feeding.checkpoint()?;
        let mut whole = 0.0;
        for active in [MACHINES, MACHINES / 10, MACHINES / 100, 0] {
            let mut rounds = Vec::new();
            for _ in 0..args.runs.max(1) {
                feeding.send(0..active)?;
                rounds.push(feeding.checkpoint()?);
            }
            let bytes = median(&rounds.iter().map(|round| round.bytes).collect::<Vec<_>>());
            let millis = median(&rounds.iter().map(|round| round.millis).collect::<Vec<_>>());
            let raw = (active * MOMENTS * SIGNALS.len() * ROW_BYTES) as f64;
            if active == MACHINES {
                whole = bytes;
            }
            let per = |all: f64| match active {
                0 => "–".to_owned(),
                _ => format!("{:.2}", bytes / all),
            };
            let kilobytes = |round: &Round| format!("{:.1}", round.bytes / 1e3);
            eprintln!("{name}: {active} of {MACHINES} active: {bytes} bytes of state for {raw} bytes of rows");
            lines.push(vec![
                name.to_owned(),
                format!("{} %", active as f64 * 100.0 / MACHINES as f64),
                format!("{:.1} KB", raw / 1e3),
                format!(
                    "{:.1} KB ({})",
                    bytes / 1e3,
                    rounds.iter().map(kilobytes).collect::<Vec<_>>().join(" ")
                ),
                per(raw),
                match active {
                    0 => "–".to_owned(),
                    _ => format!("{:.0}", bytes / active as f64),
                },
                format!("{:.2} %", 100.0 * bytes / whole),
                format!("{millis:.0} ms"),
            ]);
        }
    }
    Ok(Section {
        title: "Bytes of a checkpoint against what changed",
        note: format!(
            "{MACHINES} machines with an open cycle each, through MQTT and the journal (`bench/pipelines/keys.yaml`, which keeps \
             no raw samples). In each round the active machines send {MOMENTS} moments of {} signals, {} rows of {ROW_BYTES} \
             bytes (time and value); then a checkpoint is taken with `taktline checkpoint`. Bytes are the growth of \
             `{BYTES}`; all rounds stand in brackets. A checkpoint may also write keys anew to free old files, which then \
             shows in one of the rounds.",
            SIGNALS.len(),
            MOMENTS * SIGNALS.len()
        ),
        columns: vec![
            "pipeline",
            "machines active",
            "rows that came",
            "written by the checkpoint (rounds)",
            "written : came",
            "bytes per changed machine",
            "of that for 100 %",
            "checkpoint took",
        ],
        rows: lines,
    })
}

/// A pipeline at work, and what it was sent.
struct Feeding {
    run: Running,
    publisher: Publisher,
    moment: usize,
    rows: f64,
    savepoints: usize,
}

impl Feeding {
    fn start(args: &DurabilityArgs, broker: &Broker, work: &Path, more: &[&str]) -> anyhow::Result<Self> {
        let url = format!("sources.plc.url={}", broker.url());
        let mut settings = vec!["--set", "checkpoint.every=1d", "--set", &url];
        settings.extend_from_slice(more);
        let mut run = Running::start(
            &args.taktline,
            "bench/pipelines/keys.yaml",
            &work.join("data"),
            &options(args.workers, &settings),
        )?;
        let mut publisher = Publisher::connect(broker);
        // Nobody is told when the subscription is there; so a machine calls until it is heard.
        while run.metrics()?.is_none_or(|metrics| rows_in(&metrics) == 0.0) {
            publisher.send([message(0, 0)])?;
            std::thread::sleep(Duration::from_millis(200));
        }
        std::thread::sleep(Duration::from_secs(1));
        let rows = run.metrics()?.map_or(0.0, |metrics| rows_in(&metrics));
        Ok(Feeding {
            run,
            publisher,
            moment: 0,
            rows,
            savepoints: 0,
        })
    }

    /// A round of some machines; waits until all of it has come to the step.
    fn send(&mut self, machines: Range<usize>) -> anyhow::Result<()> {
        let (from, active) = (self.moment, machines.len());
        self.moment += MOMENTS;
        let messages = (from..self.moment).flat_map(|moment| machines.clone().map(move |m| message(m, moment)));
        self.publisher.send(messages)?;
        self.rows += (active * MOMENTS * SIGNALS.len()) as f64;
        let rows = self.rows;
        self.run.until(LIMIT, |metrics| rows_in(metrics) >= rows)?;
        std::thread::sleep(QUIET);
        Ok(())
    }

    fn checkpoint(&mut self) -> anyhow::Result<Round> {
        let metrics = self.run.metrics()?.context("the run doesn't answer")?;
        let (before, number) = (metrics.of(BYTES, ""), metrics.of(CHECKPOINTS, ""));
        self.savepoints += 1;
        let took = self.run.savepoint(&format!("round-{}", self.savepoints))?;
        // The answer comes a moment before it is counted.
        let (_, metrics) = self.run.until(LIMIT, |metrics| metrics.of(CHECKPOINTS, "") > number)?;
        let after = metrics.of(BYTES, "");
        Ok(Round {
            bytes: after - before,
            millis: took.as_secs_f64() * 1e3,
        })
    }
}

fn rows_in(metrics: &Metrics) -> f64 {
    metrics.of(ROWS_IN, "strokes")
}

/// All signals of a machine now; its pressure rises once.
fn message(machine: usize, moment: usize) -> Message {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let ts = since.as_millis();
    let noise = (machine * 31 + moment * 17) % 1000;
    let pressure = if moment == 0 { 0.0 } else { 50.0 + noise as f64 / 1000.0 };
    let others: Vec<String> = SIGNALS[1..]
        .iter()
        .enumerate()
        .map(|(at, name)| format!("\"{name}\":{}.{noise:03}", at + 1))
        .collect();
    Message {
        topic: format!("plant/machine-{machine:05}"),
        payload: format!(
            "{{\"ts\":{ts},\"v\":{{\"pressure\":{pressure:.3},{}}}}}",
            others.join(",")
        ),
    }
}
