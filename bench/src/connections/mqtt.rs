//! MQTT through the journal to history, beside a bare subscriber that parses the same messages with the same decoder.

use anyhow::{Context, ensure};
use taktline_connectors::codec::message::{Message, MessageBatch};
use taktline_connectors::mqtt::source::KIND;
use taktline_engine::config::Section;

use super::payloads::{self, Payload};
use super::{ConnectionsArgs, set, through};
use crate::broker::Broker;
use crate::messages::{self, Publisher, keep_for, take_each};
use crate::page::{self, median, runs};

/// What is run.
pub const PIPELINE: &str = "bench/pipelines/connections-mqtt.yaml";
const FILTER: &str = "plant/+/+";
const BARE: &str = "bench-bare";
/// As the pipeline file has it.
const OURS: &str = "bench-taktline";
const BATCH: usize = 16_384;
/// Less than of Kafka: the broker keeps them all in memory, twice.
const SHARE: usize = 4;

/// The broker keeps the same messages for both; then one takes them, and then the other.
pub fn measure(args: &ConnectionsArgs) -> anyhow::Result<page::Section> {
    let samples = args.samples / SHARE;
    let work = tempfile::tempdir_in(&args.work)?;
    let broker = Broker::start(work.path())?;
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    // As often first as second: what the broker has for one alone it gives more slowly.
    for run in 0..args.runs.max(1).next_multiple_of(2) {
        keep_for(&broker, BARE, FILTER)?;
        keep_for(&broker, OURS, FILTER)?;
        Publisher::connect(&broker).send(payloads::one(samples).map(message))?;
        for of_us in [run % 2 == 1, run % 2 == 0] {
            if of_us {
                let data = work.path().join(format!("data-{run}"));
                let url = set("sources.plc.url", &broker.url());
                ours.push(through(args, PIPELINE, &url, &data, samples)?);
                std::fs::remove_dir_all(&data)?;
            } else {
                bare.push(subscribe(&broker, samples)?);
            }
        }
        eprintln!("bare {bare:.0?}, taktline {ours:.0?} messages per second");
    }
    let line = |who: &str, rates: &[f64]| {
        vec![
            who.to_owned(),
            format!("{:.0} k/s ({})", median(rates) / 1e3, runs(rates, 0)),
            format!("{:.2}", median(rates) / median(&bare)),
        ]
    };
    Ok(page::Section {
        title: "MQTT to history",
        note: format!(
            "{samples} messages of QoS 1 with one sample each, which one Mosquitto keeps for two subscribers; first one takes them, then the \
             other, and the order changes from run to run. Bare: rumqttc 5 that acknowledges each message, parses it with the decoder of \
             taktline and forgets it. Taktline: `{PIPELINE}`, through the journal, cycle, compare (DTW), health and alert to Delta \
             tables, from the first sample at the first step until the last is published."
        ),
        columns: vec!["who", "messages (runs)", "ratio to the bare subscriber"],
        rows: vec![line("bare subscriber", &bare), line("taktline, to history", &ours)],
    })
}

/// As it is published.
pub fn message(payload: Payload) -> messages::Message {
    messages::Message {
        topic: format!("plant/{}/{}", payload.machine, payload.signal),
        payload: payload.json,
    }
}

fn subscribe(broker: &Broker, samples: usize) -> anyhow::Result<f64> {
    let yaml = format!(
        "url: {}\ntopic: \"plant/{{machine}}/{{signal}}\"\ndecode: {{format: json, time: /ts, unit: us, value: /value}}",
        broker.url()
    );
    let source = (KIND.build)(&Section::from_yaml("plc", &yaml));
    let source = source.map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    let mut decoder = source.decoder();
    let mut batch = MessageBatch::default();
    let (mut taken, mut parsed) = (0, 0);
    let took = take_each(broker, BARE, samples, |topic, payload| {
        batch.push(Message {
            topic,
            key: None,
            headers: &[],
            payload,
            received: i64::MAX / 2,
            sequence: taken as u64,
        })?;
        taken += 1;
        if taken % BATCH == 0 || taken == samples {
            parsed += decoder.decode(&batch.finish()?)?.samples.num_rows();
        }
        Ok(())
    })
    .context("the bare subscriber")?;
    ensure!(parsed == samples, "{parsed} of {samples} messages were parsed");
    Ok(samples as f64 / took.as_secs_f64())
}
