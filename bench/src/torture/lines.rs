//! Where messages come from: a Mosquitto, whose messages can't be read twice, or a Kafka, whose can.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use futures::executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::broker::{Broker, Publisher};
use crate::kafka_broker;

/// Where messages come from and where rows go.
pub enum Line {
    Mqtt(Broker),
    Kafka(kafka_broker::Broker),
}

const PATIENCE: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 4;
/// Topics of Kafka: in, and out.
const IN: &str = "torture-in";
/// Where the pipeline writes the samples again.
pub const OUT: &str = "torture-out";

impl Line {
    /// A Mosquitto, with its files in `work`.
    ///
    /// # Errors
    /// It can't be started.
    pub fn mqtt(work: &Path) -> anyhow::Result<Self> {
        Ok(Line::Mqtt(Broker::start(work)?))
    }

    /// A Kafka.
    ///
    /// # Errors
    /// It can't be started.
    pub fn kafka() -> anyhow::Result<Self> {
        let broker = kafka_broker::Broker::start();
        let broker = broker.context("a Kafka broker is needed: .ci/kafka fetches it, Java runs it")?;
        let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
            .set("bootstrap.servers", broker.address())
            .create()?;
        let topics = [IN, OUT].map(|name| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1)));
        for made in block_on(admin.create_topics(&topics, &AdminOptions::new()))? {
            made.map_err(|(topic, code)| anyhow::anyhow!("topic {topic}: {code}"))?;
        }
        Ok(Line::Kafka(broker))
    }

    /// The source section, and sinks besides history.
    pub fn sections(&self, seed: u64) -> (String, String) {
        let decode = "decode: {format: json, time: /ts, unit: us, value: /value, text: /record";
        match self {
            Line::Mqtt(broker) => {
                let source = format!(
                    "kind: mqtt, url: \"mqtt://127.0.0.1:{}\", topic: \"torture/{{machine}}/{{signal}}\", client_id: torture-{seed}, {decode}}}",
                    broker.port
                );
                (source, String::new())
            }
            Line::Kafka(broker) => {
                let address = broker.address();
                let source = format!(
                    "kind: kafka, brokers: \"{address}\", topics: [{IN}], start: earliest, machine: \"{{key}}\", signal: count, {decode}}}"
                );
                let sink = format!("  out: {{kind: kafka, from: plc, brokers: \"{address}\", topic: {OUT}}}\n");
                (source, sink)
            }
        }
    }

    /// A client that publishes for one machine.
    ///
    /// # Errors
    /// The broker is away.
    pub fn producer(&self, machine: &str) -> anyhow::Result<Producer> {
        Ok(match self {
            Line::Mqtt(broker) => Producer::Mqtt(Publisher::connect(broker.port, machine)?, machine.to_owned()),
            Line::Kafka(broker) => {
                let mut config = ClientConfig::new();
                config
                    .set("bootstrap.servers", broker.address())
                    .set("enable.idempotence", "true");
                Producer::Kafka(config.create()?, machine.to_owned())
            }
        })
    }

    /// What a reader of committed transactions finds in Kafka's topic [`OUT`]; none for MQTT.
    ///
    /// # Errors
    /// The broker doesn't answer.
    pub fn written(&self) -> anyhow::Result<Option<Vec<serde_json::Value>>> {
        let Line::Kafka(broker) = self else { return Ok(None) };
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", broker.address())
            .set("group.id", "torture")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .create()?;
        let metadata = consumer.fetch_metadata(Some(OUT), PATIENCE)?;
        let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
        let mut all = TopicPartitionList::new();
        for partition in 0..partitions {
            all.add_partition_offset(OUT, partition as i32, Offset::Beginning)?;
        }
        consumer.assign(&all)?;
        let (mut open, mut rows) = (partitions, Vec::new());
        while open > 0 {
            match consumer
                .poll(PATIENCE)
                .with_context(|| format!("{OUT}: nothing came"))?
            {
                Ok(message) => rows.push(serde_json::from_slice(message.payload().unwrap_or_default())?),
                Err(KafkaError::PartitionEOF(_)) => open -= 1,
                Err(error) => return Err(error).context(OUT),
            }
        }
        Ok(Some(rows))
    }
}

/// A client of one machine.
pub enum Producer {
    Mqtt(Publisher, String),
    Kafka(ThreadedProducer<rdkafka::producer::DefaultProducerContext>, String),
}

impl Producer {
    /// Sends a message.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn publish(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        match self {
            Producer::Mqtt(publisher, machine) => publisher.publish(&format!("torture/{machine}/count"), payload),
            Producer::Kafka(producer, machine) => {
                let sent = producer.send(BaseRecord::to(IN).key(machine.as_str()).payload(payload));
                sent.map_err(|(error, _)| error).context(IN)
            }
        }
    }

    /// Waits until the broker has acknowledged everything.
    ///
    /// # Errors
    /// It doesn't.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        match self {
            Producer::Mqtt(publisher, _) => publisher.flush(),
            Producer::Kafka(producer, _) => producer.flush(PATIENCE).context(IN),
        }
    }
}
