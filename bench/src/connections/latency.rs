//! From the publish of a cycle's last sample to its health on the live tap, at parts of the highest rate.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;

use super::{ConnectionsArgs, LIMIT, set};
use crate::broker::Broker;
use crate::messages::{self, Publisher};
use crate::page::Section;
use crate::rows;
use crate::running::{Running, process_cpu_secs};
use crate::taps::Taps;

/// Parts of the highest rate.
const SHARES: [f64; 2] = [0.1, 0.7];
/// So often samples of all machines are made.
const TICK: Duration = Duration::from_millis(10);
/// References are learned first: comparing begins after 20 cycles of 5 s.
const LEARNED_AFTER: Duration = Duration::from_secs(115);
/// How long as much is sent as goes, and how long of that is watched.
const AT_MOST: Duration = Duration::from_secs(30);
const AT_MOST_WATCHED: Duration = Duration::from_secs(20);
/// Machines of that.
const AT_MOST_MACHINES: usize = 100;

/// Through MQTT and through Kafka.
pub fn measure(args: &ConnectionsArgs) -> anyhow::Result<Vec<Section>> {
    let work = tempfile::tempdir_in(&args.work)?;
    let highest = {
        let broker = Broker::start(work.path())?;
        let url = set("sources.plc.url", &broker.url());
        highest_rate(
            args,
            super::mqtt::PIPELINE,
            &url,
            Sender::Mqtt(Publisher::connect(&broker)),
        )?
    };
    let mqtt = Broker::start(work.path())?;
    let url = set("sources.plc.url", &mqtt.url());
    let mut lines = Vec::new();
    for share in SHARES {
        let send = Sender::Mqtt(Publisher::connect(&mqtt));
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
    let settings = |topic: &str| [set("sources.plc.brokers", address), set("sources.plc.topics.0", topic)].concat();
    let sender = |topic: &str| -> anyhow::Result<Sender> {
        super::kafka::create(address, topic)?;
        let producer = ClientConfig::new()
            .set("bootstrap.servers", address)
            .set("linger.ms", "5")
            .set("compression.type", "lz4")
            .set("queue.buffering.max.messages", "50000")
            .create()?;
        Ok(Sender::Kafka(producer, topic.to_owned()))
    };
    let highest = highest_rate(args, super::kafka::PIPELINE, &settings("highest"), sender("highest")?)?;
    for share in SHARES {
        let topic = format!("live-{:.0}", 100.0 * share);
        let send = sender(&topic)?;
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
             waits. The highest rate is what came through when the publisher sent as much as it could for {} s. Publisher, broker, taktline and tap \
             share the machine.",
            AT_MOST.as_secs()
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
                let mut record = BaseRecord::to(topic).key(&key).payload(&json);
                while let Err((error, refused)) = producer.send(record) {
                    let full = error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull);
                    ensure!(full, "{topic}: {error}");
                    record = refused;
                    std::thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            }
        }
    }

    /// One sample of each signal of so many machines.
    fn send_all(&mut self, machines: usize, tick: u32) -> anyhow::Result<()> {
        let ts = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros() as i64;
        for machine in 0..machines {
            for signal in rows::SIGNALS {
                let value = rows::at(machine, signal, f64::from(tick) * TICK.as_secs_f64());
                self.send(machine, signal, ts, value)?;
            }
        }
        Ok(())
    }
}

/// Samples per second that come through when as much is sent as goes.
fn highest_rate(
    args: &ConnectionsArgs,
    pipeline: &str,
    settings: &[String],
    mut sender: Sender,
) -> anyhow::Result<f64> {
    let work = tempfile::tempdir_in(&args.work)?;
    let mut run = start(args, pipeline, settings, work.path())?;
    let taken = |run: &mut Running| -> anyhow::Result<f64> {
        let metrics = run.metrics()?.context("the run has ended")?;
        Ok(metrics.of("taktline_rows_in_total", "strokes"))
    };
    let begun = Instant::now();
    let mut watched = None;
    for tick in 0.. {
        sender.send_all(AT_MOST_MACHINES, tick)?;
        if watched.is_none() && begun.elapsed() >= AT_MOST - AT_MOST_WATCHED {
            watched = Some((Instant::now(), taken(&mut run)?));
        }
        if begun.elapsed() >= AT_MOST {
            break;
        }
    }
    let (since, before) = watched.context("nothing was watched")?;
    let rate = (taken(&mut run)? - before) / since.elapsed().as_secs_f64();
    run.stop()?;
    Ok(rate)
}

fn start(args: &ConnectionsArgs, pipeline: &str, settings: &[String], work: &Path) -> anyhow::Result<Running> {
    let workers = ["--workers".to_owned(), args.workers.to_string()];
    let settings: Vec<String> = workers.into_iter().chain(settings.iter().cloned()).collect();
    let mut run = Running::start(&args.taktline, pipeline, &work.join("data"), &settings)?;
    run.until(LIMIT, |metrics| metrics.of("taktline_checkpoints_total", "") > 0.0)?;
    Ok(run)
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
    let run = start(args, pipeline, settings, work.path())?;
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
        sender.send_all(machines, tick)?;
        sent += (machines * rows::SIGNALS.len()) as u64;
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
