//! From the publish of a cycle's last sample to its health on the live tap, at parts of the highest rate.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, ThreadedProducer};

use super::payloads;
use super::{ConnectionsArgs, LIMIT, set, through};
use crate::broker::Broker;
use crate::messages::{self, Publisher, keep_for};
use crate::page::{Section, load};
use crate::rows;
use crate::running::{Running, process_cpu_secs};
use crate::taps::Taps;

/// Parts of the highest rate.
const SHARES: [f64; 2] = [0.1, 0.7];
/// So often samples of all machines are made.
const TICK: Duration = Duration::from_millis(10);
/// References are learned first: comparing begins after 20 cycles of 5 s.
const LEARNED_AFTER: Duration = Duration::from_secs(115);
/// Samples by which the highest rate is found.
const PROBED: usize = 1_000_000;

/// Through MQTT and through Kafka.
pub fn measure(args: &ConnectionsArgs) -> anyhow::Result<Vec<Section>> {
    let work = tempfile::tempdir_in(&args.work)?;
    let mqtt = Broker::start(work.path())?;
    keep_for(&mqtt, "bench-taktline", "plant/+/+")?;
    Publisher::connect(&mqtt).send(payloads::one(PROBED).map(super::mqtt::message))?;
    let url = set("sources.plc.url", &mqtt.url());
    let highest = through(
        args,
        super::mqtt::PIPELINE,
        &url,
        &work.path().join("mqtt-probe"),
        PROBED,
    )?;
    let mut lines = Vec::new();
    for share in SHARES {
        let publisher = Publisher::connect(&mqtt);
        let send = Sender::Mqtt(publisher);
        lines.push(watch(
            args,
            "MQTT",
            super::mqtt::PIPELINE,
            &url,
            (highest, share),
            send,
        )?);
    }
    drop(mqtt);
    let kafka = super::kafka::start()?;
    let address = &kafka.address();
    super::kafka::create(address, "probe")?;
    super::kafka::fill(address, "probe", payloads::one(PROBED))?;
    let settings = |topic: &str| [set("sources.plc.brokers", address), set("sources.plc.topics.0", topic)].concat();
    let highest = through(
        args,
        super::kafka::PIPELINE,
        &settings("probe"),
        &work.path().join("kafka-probe"),
        PROBED,
    )?;
    for share in SHARES {
        let topic = format!("live-{:.0}", 100.0 * share);
        super::kafka::create(address, &topic)?;
        let producer = ClientConfig::new()
            .set("bootstrap.servers", address)
            .set("linger.ms", "5")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", "200000")
            .create()?;
        let send = Sender::Kafka(producer, topic.clone());
        lines.push(watch(
            args,
            "Kafka",
            super::kafka::PIPELINE,
            &settings(&topic),
            (highest, share),
            send,
        )?);
    }
    Ok(vec![Section {
        title: "How soon",
        note: format!(
            "From the time in a cycle's last sample, taken as it is published, to the cycle's row on `taktline tap health`. One sample a message, each \
             machine 4 signals at 100 Hz with cycles of 5 s, as many machines as the rate asks for; `lateness: 20ms`, which every cycle \
             waits. The highest rate is that of a full queue through the same pipeline, found just before. Publisher, broker, taktline and tap \
             share the machine. {}",
            load()?
        ),
        columns: vec![
            "through",
            "rate",
            "of the highest",
            "cycles",
            "p50",
            "p99",
            "p99.9",
            "processor of taktline",
        ],
        rows: lines,
    }])
}

enum Sender {
    Mqtt(Publisher),
    Kafka(ThreadedProducer<rdkafka::producer::DefaultProducerContext>, String),
}

impl Sender {
    fn send(&mut self, machine: usize, signal: &str, ts: i64, value: f64) -> anyhow::Result<()> {
        let json =
            format!("{{\"machine\":\"machine-{machine}\",\"signal\":\"{signal}\",\"ts\":{ts},\"value\":{value}}}");
        match self {
            Sender::Mqtt(publisher) => publisher.post(messages::Message {
                topic: format!("plant/machine-{machine}/{signal}"),
                payload: json,
            }),
            Sender::Kafka(producer, topic) => {
                let key = format!("machine-{machine}");
                let sent = producer.send(BaseRecord::to(topic).key(&key).payload(&json));
                sent.map_err(|(error, _)| error).context("the producer's queue is full")
            }
        }
    }
}

fn watch(
    args: &ConnectionsArgs,
    name: &str,
    pipeline: &str,
    settings: &[String],
    (highest, share): (f64, f64),
    mut sender: Sender,
) -> anyhow::Result<Vec<String>> {
    let work = tempfile::tempdir_in(&args.work)?;
    let workers = ["--workers".to_owned(), args.workers.to_string()];
    let settings: Vec<String> = workers.into_iter().chain(settings.iter().cloned()).collect();
    let mut run = Running::start(&args.taktline, pipeline, &work.path().join("data"), &settings)?;
    run.until(LIMIT, |metrics| metrics.of("taktline_checkpoints_total", "") > 0.0)?;
    let taps = Taps::follow(&args.taktline, run.url(), "health")?;
    let machines = ((highest * share) as usize / (4 * 100)).max(1);
    let (begun, watched) = (Instant::now(), Duration::from_secs(args.latency_secs));
    let (mut tick, mut cpu, mut sent) = (0_u32, None, 0_u64);
    while begun.elapsed() < LEARNED_AFTER + watched {
        if begun.elapsed() >= LEARNED_AFTER && cpu.is_none() {
            taps.take();
            cpu = Some((Instant::now(), process_cpu_secs(run.pid())?, sent));
        }
        let due = begun + TICK * tick;
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let ts = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as i64;
        for machine in 0..machines {
            for signal in rows::SIGNALS {
                sender.send(
                    machine,
                    signal,
                    ts,
                    rows::at(machine, signal, f64::from(tick) * TICK.as_secs_f64()),
                )?;
                sent += 1;
            }
        }
        tick += 1;
    }
    let (since, before, sent_before) = cpu.context("nothing was watched")?;
    let cores = (process_cpu_secs(run.pid())? - before) / since.elapsed().as_secs_f64();
    let rate = (sent - sent_before) as f64 / since.elapsed().as_secs_f64();
    let mut latencies = taps.take();
    latencies.sort_by(f64::total_cmp);
    ensure!(latencies.len() >= 10, "only {} cycles were seen", latencies.len());
    let quantile = |share: f64| {
        format!(
            "{:.0} ms",
            latencies[((latencies.len() - 1) as f64 * share).round() as usize]
        )
    };
    run.stop()?;
    let line = vec![
        name.to_owned(),
        format!("{:.1} k/s", rate / 1e3),
        format!("{:.0} %", 100.0 * rate / highest),
        latencies.len().to_string(),
        quantile(0.5),
        quantile(0.99),
        quantile(0.999),
        format!("{cores:.2} cores"),
    ];
    eprintln!("{line:?}");
    Ok(line)
}
