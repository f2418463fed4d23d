//! `taktline demo`: a broker, a simulated press line that publishes to it, and the pipeline that watches the line.
//!
//! The line is a pipeline of its own (`simulate` → `mqtt`); the two meet only at the broker, as in a plant.

use std::net::SocketAddr;
use std::path::PathBuf;

use anyhow::Context;
use taktline_connectors::mqtt::broker::EmbeddedBroker;
use taktline_engine::config::{Interval, Override};
use taktline_engine::{Options, Run};

use crate::load::Pipeline;
use crate::run;
use crate::state::StateArgs;

const LINE: &str = include_str!("../config/pipelines/demo-line.yaml");
const WATCH: &str = include_str!("../config/pipelines/demo.yaml");

/// Arguments of `taktline demo`.
#[derive(clap::Args)]
pub struct DemoArgs {
    /// Where the API and the page listen [default: 127.0.0.1:8080, or a free port].
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,
    /// Where history is kept [default: a directory that is removed in the end].
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// When the bearing of press-2 begins to wear.
    #[arg(long, value_name = "INTERVAL", default_value = "60s")]
    fault_after: String,
}

/// Runs the demo until a signal.
///
/// # Errors
/// A part can't start, or what ended the run.
pub fn demo(args: &DemoArgs) -> anyhow::Result<()> {
    let fault_after: Interval = args.fault_after.parse().map_err(anyhow::Error::msg)?;
    let broker = EmbeddedBroker::start().context("the demo's broker")?;
    let kept = tempfile::tempdir().context("a directory for history")?;
    let data = args.data.clone().unwrap_or_else(|| kept.path().join("history"));

    let watched = [Override::new("sources.plc.url", broker.url())];
    let watch = Pipeline::new("demo.yaml", WATCH, &watched, Some(&data)).plan()?;
    let fault = format!("{}us", fault_after.micros());
    let line = [
        Override::new("sinks.gateway.url", broker.url()),
        Override::new("sources.presses.faults.0.at", fault),
    ];
    let line = Run::new(
        Pipeline::new("demo-line.yaml", LINE, &line, None).plan()?,
        Options::default(),
    )?;

    let simulated = std::thread::Builder::new().name("press line".into()).spawn({
        let line = line.clone();
        move || line.execute()
    })?;
    eprintln!(
        "three presses at 30 strokes a minute publish to {}; the bearing of press-2 begins to wear after {}",
        broker.url(),
        args.fault_after
    );
    eprintln!(
        "history: taktline sql \"SELECT * FROM cycles\" --data {}",
        data.display()
    );
    let settings = run::Settings {
        workers: 2,
        until_end: false,
        listen: args.listen,
        data: Some(data.clone()),
        state: StateArgs::default(),
    };
    let outcome = run::run(watch, &settings);
    line.stop();
    let line_outcome = simulated
        .join()
        .map_err(|_| anyhow::anyhow!("the press line panicked"))?;
    outcome?;
    line_outcome.context("the press line")?;
    Ok(())
}
