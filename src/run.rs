//! `taktline run`: a plan with its API, its progress, its end.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{HumanCount, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use taktline_engine::plan::Plan;
use taktline_engine::{MemoryExceeded, Options, Remark, Resume, Run};

use crate::api::Api;
use crate::state::StateArgs;

/// Where the API listens when the command line doesn't say.
pub const LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// How a plan is run.
#[derive(Debug)]
pub struct Settings {
    /// Worker threads.
    pub workers: usize,
    /// Ends with the input; else the API stays up until a signal.
    pub until_end: bool,
    /// Where state is kept; None: nowhere, and a stop closes what is open.
    pub data: Option<PathBuf>,
    /// State and other processes.
    pub state: StateArgs,
    /// Where the API listens. None with `until_end`: nowhere; else [`LISTEN`], or any free port when that is taken.
    pub listen: Option<SocketAddr>,
}

/// Runs a plan until its end, or a signal. Gives what it did, for people on stderr as it goes.
///
/// # Errors
/// What ended the run early.
pub fn run(plan: Plan, settings: &Settings) -> anyhow::Result<Value> {
    let checkpoint_every = plan.checkpoint_every;
    let run = Run::new(
        plan,
        Options {
            workers: settings.workers,
            checkpoint_every,
            ..Options::default()
        },
    )?;
    // Before the state is read, which may take a while: a stop must not find nobody.
    let signalled = stop_on_signals(&run, settings.data.is_some())?;
    let started = settings.state.start(&run, settings.data.clone())?;
    if started.resume.as_ref().is_some_and(Resume::ended) {
        eprintln!("an earlier run has read the input to its end; --overwrite begins anew");
    }
    let api = if settings.listen.is_none() && (settings.until_end || settings.state.follows()) {
        None
    } else {
        Some(serve(&run, settings.listen)?)
    };
    let bar = progress(&run)?;
    let outcome = run.execute_from(started.resume, started.fabric);
    let exceeded = outcome.as_ref().is_err_and(|error| error.is::<MemoryExceeded>());
    if let Some((bar, thread)) = bar {
        bar.finish_and_clear();
        let _ = thread.join(); // a bar that panicked has shown so
    }
    // After a source's error the others are to take this one for dead, so that all are started again.
    let closed = match started.mesh {
        Some(mesh) if outcome.is_ok() || exceeded && !run.failed() => mesh.close(),
        _ => Ok(()),
    };
    let remarks = outcome?;
    closed?;
    for line in report(&run, &remarks) {
        eprintln!("{line}");
    }
    let stays = !settings.until_end && !settings.state.follows();
    if let (Some(api), true, false) = (&api, stays, signalled.load(Ordering::Acquire)) {
        eprintln!("the input has ended; http://{} stays up until Ctrl-C", api.address);
        while !signalled.load(Ordering::Acquire) {
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
    if let Some(api) = api {
        api.close();
    }
    Ok(summary(&run, &remarks))
}

fn serve(run: &Arc<Run>, listen: Option<SocketAddr>) -> anyhow::Result<Api> {
    let api = match listen {
        Some(address) => Api::serve(run, address)?,
        None => Api::serve(run, LISTEN).or_else(|_| {
            tracing::warn!("{LISTEN} is taken; another port is used");
            Api::serve(run, SocketAddr::new(LISTEN.ip(), 0))
        })?,
    };
    eprintln!("{}: http://{}", run.plan().name, api.address);
    Ok(api)
}

/// Signals that come together are one wish to stop.
const ONE_WISH: Duration = Duration::from_secs(2);

/// The first SIGINT or SIGTERM ends the run in good order, the second at once.
fn stop_on_signals(run: &Arc<Run>, keeps_state: bool) -> anyhow::Result<Arc<AtomicBool>> {
    use signal_hook::consts::{SIGINT, SIGTERM};
    let signalled = Arc::new(AtomicBool::new(false));
    let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]).context("signals")?;
    let (run, seen) = (Arc::clone(run), Arc::clone(&signalled));
    std::thread::Builder::new().name("signals".into()).spawn(move || {
        let mut first = None;
        for _ in signals.forever() {
            let at = *first.get_or_insert_with(Instant::now);
            // A supervisor may signal the process and then its group: that is one wish.
            if seen.swap(true, Ordering::AcqRel) && at.elapsed() < ONE_WISH {
                continue;
            }
            if at.elapsed() >= ONE_WISH {
                let rest = if keeps_state {
                    "the next run goes on from the last checkpoint"
                } else {
                    "what was not published is lost"
                };
                eprintln!("stopped at once; {rest}");
                std::process::exit(1);
            }
            if keeps_state {
                tracing::info!("stopping: a last checkpoint, from which the next run goes on");
            } else {
                tracing::info!("stopping: what was read flows through and is published");
            }
            run.stop();
        }
    })?;
    Ok(signalled)
}

type Bar = (ProgressBar, std::thread::JoinHandle<()>);

/// A bar for inputs that have an end, when stderr is a terminal.
fn progress(run: &Arc<Run>) -> anyhow::Result<Option<Bar>> {
    use std::io::IsTerminal;
    if !std::io::stderr().is_terminal() || !run.plan().sources.iter().all(|source| source.source.bounded()) {
        return Ok(None);
    }
    let bar = ProgressBar::new(1000).with_style(ProgressStyle::with_template("{bar:40} {percent:>3}% {eta:>4} {msg}")?);
    let (run, shown) = (Arc::clone(run), bar.clone());
    let thread = std::thread::Builder::new().name("progress".into()).spawn(move || {
        while !shown.is_finished() {
            let positions = run.positions();
            let fractions: Vec<f64> = positions.iter().filter_map(|position| position.fraction).collect();
            if !fractions.is_empty() {
                shown.set_position((1000.0 * fractions.iter().sum::<f64>() / fractions.len() as f64) as u64);
            }
            if let Some(position) = positions
                .iter()
                .find(|position| position.fraction.is_some_and(|f| f < 1.0))
            {
                shown.set_message(position.text.clone());
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
    })?;
    Ok(Some((bar, thread)))
}

/// What a node did.
struct Did {
    rows_in: u64,
    rows_out: u64,
    late: u64,
    dead_letters: u64,
}

fn did(run: &Run, name: &str, kind: &str) -> Did {
    let labels = &[name, kind];
    Did {
        rows_in: run.metrics.rows_in.with_label_values(labels).get(),
        rows_out: run.metrics.rows_out.with_label_values(labels).get(),
        late: run.metrics.late_rows.with_label_values(labels).get(),
        dead_letters: run.metrics.dead_letters.with_label_values(labels).get(),
    }
}

/// Remarks shown for one step; more would hide the rest.
const REMARKS: usize = 5;

fn report(run: &Run, remarks: &[Remark]) -> Vec<String> {
    let plan = run.plan();
    let mut lines = Vec::new();
    for source in &plan.sources {
        let did = did(run, &source.name, source.kind);
        let refused = match did.dead_letters {
            0 => String::new(),
            letters => format!(", {} could not be read (see dead_letters)", HumanCount(letters)),
        };
        lines.push(format!(
            "{:>16}  {} samples{refused}",
            source.name,
            HumanCount(did.rows_out)
        ));
    }
    for step in &plan.steps {
        let did = did(run, &step.name, step.kind);
        let late = match did.late {
            0 => String::new(),
            late => format!(
                ", {} rows came late (see late; `lateness:` lets them wait)",
                HumanCount(late)
            ),
        };
        lines.push(format!(
            "{:>16}  {} {}{late}",
            step.name,
            HumanCount(did.rows_out),
            step.step.output().name
        ));
        let mut said = remarks.iter().filter(|remark| remark.step == step.name);
        lines.extend(
            said.by_ref()
                .take(REMARKS)
                .map(|remark| format!("{:>16}  {}: {}", "", remark.machine, remark.text)),
        );
        match said.count() {
            0 => {}
            more => lines.push(format!("{:>16}  ... and {more} more machines", "")),
        }
    }
    for sink in &plan.sinks {
        lines.push(format!(
            "{:>16}  {} rows taken",
            sink.name,
            HumanCount(did(run, &sink.name, sink.kind).rows_in)
        ));
    }
    lines
}

fn summary(run: &Run, remarks: &[Remark]) -> Value {
    let plan = run.plan();
    let node = |name: &str, kind: &str| {
        let did = did(run, name, kind);
        json!({"name": name, "kind": kind, "rows_in": did.rows_in, "rows_out": did.rows_out, "late": did.late,
            "dead_letters": did.dead_letters})
    };
    let sources = plan.sources.iter().map(|s| node(&s.name, s.kind));
    let steps = plan.steps.iter().map(|s| node(&s.name, s.kind));
    let sinks = plan.sinks.iter().map(|s| node(&s.name, s.kind));
    let remarks: Vec<Value> = remarks
        .iter()
        .map(|r| json!({"step": r.step, "machine": r.machine, "text": r.text}))
        .collect();
    json!({"pipeline": plan.name, "nodes": sources.chain(steps).chain(sinks).collect::<Vec<_>>(), "remarks": remarks})
}
