//! A real Kafka: a topic that messages come from, and one that the pipeline writes them to again.

use std::time::Duration;

use anyhow::Context;
use futures::executor::block_on;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::acknowledged::Found;
use crate::kafka_broker::Broker;
use crate::lines::Producer;

/// A broker with both topics.
pub struct Kafka(Broker);

const PATIENCE: Duration = Duration::from_secs(60);
const PARTITIONS: i32 = 4;
const IN: &str = "torture-in";
/// Where the pipeline writes the samples again.
pub const OUT: &str = "torture-out";

impl Kafka {
    /// Starts one, and makes its topics.
    ///
    /// # Errors
    /// It can't be started, or is to be skipped.
    pub fn start() -> anyhow::Result<Self> {
        let broker = Broker::start().context("a Kafka broker is needed: .ci/kafka fetches it, Java runs it")?;
        let admin: AdminClient<DefaultClientContext> = config(&broker).create()?;
        let topics = [IN, OUT].map(|name| NewTopic::new(name, PARTITIONS, TopicReplication::Fixed(1)));
        for made in block_on(admin.create_topics(&topics, &AdminOptions::new()))? {
            made.map_err(|(topic, code)| anyhow::anyhow!("topic {topic}: {code}"))?;
        }
        Ok(Kafka(broker))
    }

    /// The beginning of the source's section.
    pub fn source(&self) -> String {
        let brokers = self.0.address();
        format!("kind: kafka, brokers: \"{brokers}\", topics: [{IN}], start: earliest, machine: \"{{key}}\"")
    }

    /// The section of a sink that writes the samples of these sources to [`OUT`].
    pub fn sink(&self, from: &str) -> String {
        let brokers = self.0.address();
        format!("kind: kafka, from: [{from}], brokers: \"{brokers}\", topic: {OUT}")
    }

    /// A client that sends for one machine.
    ///
    /// # Errors
    /// Its settings are wrong.
    pub fn producer(&self, machine: &str) -> anyhow::Result<KafkaProducer> {
        Ok(KafkaProducer {
            producer: config(&self.0).set("enable.idempotence", "true").create()?,
            machine: machine.to_owned(),
        })
    }

    /// What a reader of committed transactions finds in [`OUT`].
    ///
    /// # Errors
    /// The broker doesn't answer.
    pub fn written(&self) -> anyhow::Result<Vec<Found>> {
        let consumer: BaseConsumer = config(&self.0)
            .set("group.id", "torture")
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .create()?;
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            all.add_partition_offset(OUT, partition, Offset::Beginning)?;
        }
        consumer.assign(&all)?;
        let (mut open, mut rows) = (PARTITIONS, Vec::new());
        while open > 0 {
            match consumer
                .poll(PATIENCE)
                .with_context(|| format!("{OUT}: nothing came"))?
            {
                Ok(message) => rows.push(Found::read(message.payload().unwrap_or_default())?),
                Err(KafkaError::PartitionEOF(_)) => open -= 1,
                Err(error) => return Err(error).context(OUT),
            }
        }
        Ok(rows)
    }
}

/// Sends for one machine.
pub struct KafkaProducer {
    producer: ThreadedProducer<DefaultProducerContext>,
    machine: String,
}

impl Producer for KafkaProducer {
    fn publish(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        let record = BaseRecord::to(IN).key(self.machine.as_str()).payload(payload);
        self.producer.send(record).map_err(|(error, _)| error).context(IN)
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.producer.flush(PATIENCE).context(IN)
    }
}

fn config(broker: &Broker) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker.address());
    config
}
