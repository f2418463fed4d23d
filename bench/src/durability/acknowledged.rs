//! MQTT messages per second through the journal, beside a bare subscriber.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;

use super::{DurabilityArgs, options};
use crate::broker::Broker;
use crate::messages::{Message, Publisher, keep_for, left, take};
use crate::page::{Section, median, runs};
use crate::running::{Metrics, Running, said};

const FILTER: &str = "plant/+/+";
const BARE: &str = "bench-bare";
/// As the pipeline file has it.
const OURS: &str = "bench-taktline";
const MACHINES: usize = 50;
const SIGNALS: [&str; 4] = ["pressure", "position", "temperature", "vibration"];
const LIMIT: Duration = Duration::from_secs(300);

/// So long the broker may take to read the last acknowledgements.
const QUIET: Duration = Duration::from_secs(10);

struct Rates {
    acknowledged: f64,
    history: f64,
}

/// The broker keeps the same messages for both; then one takes them, and then the other.
pub fn measure(args: &DurabilityArgs) -> anyhow::Result<Section> {
    let work = tempfile::tempdir_in(&args.work)?;
    let broker = Broker::start(work.path())?;
    let (mut bare, mut ours, mut history) = (Vec::new(), Vec::new(), Vec::new());
    for run in 0..args.runs.max(1) {
        keep_for(&broker, BARE, FILTER)?;
        keep_for(&broker, OURS, FILTER)?;
        Publisher::connect(&broker).send((0..args.messages).map(message))?;
        let data = work.path().join(format!("data-{run}"));
        let mut rates = None;
        // Who is first changes from run to run.
        for of_us in [run % 2 == 1, run % 2 == 0] {
            if of_us {
                rates = Some(taktline(args, &broker, &data)?);
            } else {
                let took = take(&broker, BARE, args.messages)?;
                bare.push(args.messages as f64 / took.as_secs_f64());
            }
        }
        if let Some(rates) = rates {
            ours.push(rates.acknowledged);
            history.push(rates.history);
        }
        eprintln!("bare {bare:.0?}, taktline {ours:.0?}, to history {history:.0?} messages per second");
        std::fs::remove_dir_all(&data)?;
    }
    let line = |name: &str, rates: &[f64]| {
        vec![
            name.to_owned(),
            format!("{:.1} k/s ({})", median(rates) / 1e3, runs(rates, 0)),
            format!("{:.2}", median(rates) / median(&bare)),
        ]
    };
    Ok(Section {
        title: "MQTT in, journal, history",
        note: format!(
            "{} messages of QoS 1, {{\"ts\":…,\"value\":…}} on {} topics, which one Mosquitto (localhost, no persistence) keeps for two \
             subscribers; first one takes them, then the other, and the order changes from run to run. Bare: rumqttc 5 that \
             acknowledges each message and forgets it. Taktline: `bench/pipelines/mqtt.yaml`, a message counts when the journal's \
             fsync has made it durable, right after which it is acknowledged. Timed from the first message to the last, without process start. 10 s after each run \
             the broker was asked: it kept no message, so all had been acknowledged.",
            args.messages,
            MACHINES * SIGNALS.len()
        ),
        columns: vec!["what", "messages (runs)", "ratio to the bare subscriber"],
        rows: vec![
            line("bare subscriber", &bare),
            line("Taktline: durable in the journal", &ours),
            line("Taktline: taken by history", &history),
        ],
    })
}

fn taktline(args: &DurabilityArgs, broker: &Broker, data: &Path) -> anyhow::Result<Rates> {
    let url = format!("sources.plc.url={}", broker.url());
    let settings = options(args.workers, &["--set", &url]);
    let mut run = Running::start(&args.taktline, "bench/pipelines/mqtt.yaml", data, &settings)?;
    let all = args.messages as f64;
    let durable = |metrics: &Metrics| metrics.of("taktline_journal_rows_total", "plc");
    let (begun, metrics) = run.until(LIMIT, |metrics| durable(metrics) > 0.0)?;
    let before = durable(&metrics);
    let (acknowledged, _) = run.until(LIMIT, |metrics| durable(metrics) >= all)?;
    let (taken, _) = run.until(LIMIT, |metrics| metrics.of("taktline_rows_in_total", "history") >= all)?;
    let rate = |at: Instant| (all - before) / (at - begun).as_secs_f64();
    let rates = Rates {
        acknowledged: rate(acknowledged),
        history: rate(taken),
    };
    run.stop()?;
    // Mosquitto forgets what it hasn't read of a connection when the next one of that name comes.
    std::thread::sleep(QUIET);
    let kept = left(broker, OURS)?;
    ensure!(
        kept == 0,
        "the broker still keeps {kept} messages that are in the journal; the run said last:\n{}",
        said(&data.with_extension("log"))
    );
    Ok(rates)
}

/// A message of its own for each number.
pub fn message(number: usize) -> Message {
    let (machine, signal) = (number / SIGNALS.len() % MACHINES, SIGNALS[number % SIGNALS.len()]);
    let ts = 1_767_225_600_000 + 10 * (number / (SIGNALS.len() * MACHINES));
    Message {
        topic: format!("plant/machine-{machine:02}/{signal}"),
        payload: format!("{{\"ts\":{ts},\"value\":{}.{:03}}}", number % 97, number % 1000),
    }
}
