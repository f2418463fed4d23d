//! Kafka to history, beside a bare rdkafka consumer that parses the same messages with the same decoder.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message as _;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use taktline_connectors::codec::message::{Message, MessageBatch};
use taktline_connectors::kafka::source::KIND;
use taktline_engine::config::Section;

use super::payloads::{self, Payload};
use super::{ConnectionsArgs, LIMIT, rate, set, through};
use crate::kafka_broker::Broker;
use crate::page::{self, median, runs};

/// What is run.
pub const PIPELINE: &str = "bench/pipelines/connections-kafka.yaml";
/// Of each topic.
pub const PARTITIONS: i32 = 4;
/// Messages that are parsed at once, as many as `taktline` takes.
const BATCH: usize = 16_384;

/// So many times more samples where a message has many, or it would be over too soon.
const MORE: usize = 5;

/// How a payload is read, as the pipeline file says it.
const ONE: &str = "{format: json, time: /ts, unit: us, value: /value, machine: /machine, signal: /signal}";
const MANY: &str =
    "{format: json, time: /samples/*/ts, unit: us, value: /samples/*/value, machine: /machine, signal: /signal}";

/// Both forms, from one broker.
pub fn measure(args: &ConnectionsArgs) -> anyhow::Result<page::Section> {
    let work = tempfile::tempdir_in(&args.work)?;
    let broker = start()?;
    let address = &broker.address();
    let mut lines = Vec::new();
    for (topic, name, decode, samples, per_message) in [
        ("one", "one sample a message", ONE, args.samples, 1),
        (
            "many",
            "100 samples a message",
            MANY,
            MORE * args.samples,
            payloads::MANY,
        ),
    ] {
        let messages = samples / per_message;
        create(address, topic)?;
        match per_message {
            1 => fill(address, topic, payloads::one(samples))?,
            _ => fill(address, topic, payloads::many(samples))?,
        }
        let (mut bare, mut ours) = (Vec::new(), Vec::new());
        for run in 0..args.runs.max(1) {
            // Who is first changes from run to run.
            for of_us in [run % 2 == 1, run % 2 == 0] {
                if of_us {
                    let data = work.path().join(format!("{topic}-{run}"));
                    let settings = [
                        set("sources.plc.brokers", address),
                        set("sources.plc.topics.0", topic),
                        set("sources.plc.decode", decode),
                    ]
                    .concat();
                    ours.push(through(args, PIPELINE, &settings, &data, messages * per_message)?);
                    std::fs::remove_dir_all(&data)?;
                } else {
                    bare.push(consume(address, topic, decode, messages, messages * per_message)?);
                }
            }
            eprintln!("{name}: bare {bare:.0?}, taktline {ours:.0?} samples per second");
        }
        let line = |who: &str, rates: &[f64]| {
            vec![
                name.to_owned(),
                who.to_owned(),
                format!("{:.0} k/s ({})", median(rates) / 1e3, runs(rates, 0)),
                format!("{:.2}", median(rates) / median(&bare)),
            ]
        };
        lines.push(line("bare consumer", &bare));
        lines.push(line("taktline, to history", &ours));
    }
    Ok(page::Section {
        title: "Kafka to history",
        note: format!(
            "{} samples as JSON, {MORE} times more where a message has 100, on {PARTITIONS} partitions of one broker. Bare: an rdkafka consumer on one thread that parses the messages \
             with the decoder of taktline and forgets them. Taktline: `{PIPELINE}`, cycle, compare (DTW), health and alert to Delta \
             tables, from the first sample at the first step until the last is published. The broker's JVM shares the machine with \
             either.",
            args.samples
        ),
        columns: vec!["messages", "who", "samples (runs)", "ratio to the bare consumer"],
        rows: lines,
    })
}

/// A broker of our own, or an error that says what is missing.
///
/// # Errors
/// Servers are to be skipped here.
pub fn start() -> anyhow::Result<Broker> {
    Broker::start().context("a Kafka broker is needed: .ci/kafka fetches it, Java runs it")
}

/// Makes a topic.
///
/// # Errors
/// The broker says no.
pub fn create(address: &str, topic: &str) -> anyhow::Result<()> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new().set("bootstrap.servers", address).create()?;
    let asked = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
    for made in block_on(admin.create_topics([&asked], &AdminOptions::new()))? {
        made.map_err(|(topic, code)| anyhow::anyhow!("topic {topic}: {code}"))?;
    }
    Ok(())
}

/// Publishes them, with the machine as key.
pub fn fill(address: &str, topic: &str, payloads: impl Iterator<Item = Payload>) -> anyhow::Result<()> {
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("linger.ms", "20")
        .set("compression.type", "lz4")
        .set("queue.buffering.max.messages", "200000")
        .create()?;
    for payload in payloads {
        let mut record = BaseRecord::to(topic).key(&payload.machine).payload(&payload.json);
        while let Err((error, refused)) = producer.send(record) {
            let full = error.rdkafka_error_code() == Some(rdkafka::types::RDKafkaErrorCode::QueueFull);
            ensure!(full, "{topic}: {error}");
            record = refused;
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    producer.flush(LIMIT).with_context(|| topic.to_owned())
}

/// Takes and parses so many messages; samples per second from the first to the last.
fn consume(address: &str, topic: &str, decode: &str, messages: usize, samples: usize) -> anyhow::Result<f64> {
    let yaml = format!("brokers: \"{address}\"\ntopics: [{topic}]\ndecode: {decode}");
    let source = (KIND.build)(&Section::from_yaml("plc", &yaml));
    let source = source.map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    let mut decoder = source.decoder();
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "bare")
        .set("enable.auto.commit", "false")
        // As taktline has it: with librdkafka's own second of rest after 100,000 messages it is seven times slower.
        .set("queued.max.messages.kbytes", "32768")
        .set("fetch.queue.backoff.ms", "5")
        .create()?;
    let mut all = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        all.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&all)?;
    let (mut begun, mut taken, mut parsed) = (None, 0, 0);
    let mut batch = MessageBatch::default();
    while taken < messages {
        let message = consumer
            .poll(Duration::from_secs(30))
            .context("no message came for 30 s")??;
        begun.get_or_insert_with(Instant::now);
        batch.push(Message {
            topic: message.topic(),
            key: message.key(),
            headers: &[],
            payload: message.payload().unwrap_or_default(),
            received: 1000 * message.timestamp().to_millis().unwrap_or_default(),
            sequence: message.offset() as u64,
        })?;
        taken += 1;
        if taken % BATCH == 0 || taken == messages {
            parsed += decoder.decode(&batch.finish()?)?.samples.num_rows();
        }
    }
    let begun = begun.context("no message was asked for")?;
    ensure!(parsed == samples, "{parsed} of {samples} samples were parsed");
    Ok(rate(samples, begun))
}
