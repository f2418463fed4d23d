//! What tests do at a broker, with clients of their own: topics, messages in, messages out.
#![allow(dead_code, unsafe_code)] // each test uses its part

use std::time::{Duration, Instant};

use futures::executor::block_on;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

pub const PATIENCE: Duration = Duration::from_secs(60);

/// Polls until there is something, or the patience ends.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5)); // between two looks
    }
}

/// A name that no other test has, and no other run at the same broker.
pub fn unique(what: &str) -> String {
    format!("{what}-{}", &uuid::Uuid::new_v4().simple().to_string()[..8])
}

/// A broker as a test sees it.
pub struct Cluster {
    brokers: String,
    admin: AdminClient<DefaultClientContext>,
    producer: BaseProducer,
}

impl Cluster {
    pub fn at(brokers: &str) -> Self {
        let config = config(brokers);
        Cluster {
            brokers: brokers.to_owned(),
            admin: config.create().unwrap(),
            producer: config
                .clone()
                .set("linger.ms", "0")
                .set("message.max.bytes", "100000000")
                .create()
                .unwrap(),
        }
    }

    /// Makes a topic, and returns when it is there.
    pub fn topic(&self, name: &str, partitions: i32) {
        self.topic_with(name, partitions, &[]);
    }

    pub fn topic_with(&self, name: &str, partitions: i32, settings: &[(&str, &str)]) {
        let topic = settings.iter().fold(
            NewTopic::new(name, partitions, TopicReplication::Fixed(1)),
            |topic, (key, value)| topic.set(key, value),
        );
        until("the topic is made", || {
            let made = block_on(self.admin.create_topics([&topic], &AdminOptions::new())).ok()?;
            matches!(made[0], Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists))).then_some(())
        });
        self.wait_for(name, partitions as usize);
    }

    pub fn wait_for(&self, name: &str, partitions: usize) {
        until("the topic is known", || {
            let metadata = self
                .admin
                .inner()
                .fetch_metadata(Some(name), Duration::from_secs(5))
                .ok()?;
            let partitions = metadata.topics()[0]
                .partitions()
                .iter()
                .filter(|p| p.leader() >= 0)
                .count()
                == partitions;
            partitions.then_some(())
        });
    }

    /// What a topic's setting is.
    pub fn setting(&self, topic: &str, name: &str) -> String {
        let asked = [ResourceSpecifier::Topic(topic)];
        let described = block_on(self.admin.describe_configs(&asked, &AdminOptions::new())).unwrap();
        let described = described.into_iter().next().unwrap().unwrap();
        described.get(name).unwrap().value.clone().unwrap()
    }

    pub fn delete(&self, name: &str) {
        block_on(self.admin.delete_topics(&[name], &AdminOptions::new())).unwrap()[0]
            .as_ref()
            .unwrap();
    }

    /// Whether there is such a topic; asking for it by name would make it.
    pub fn has(&self, name: &str) -> bool {
        let metadata = self.admin.inner().fetch_metadata(None, Duration::from_secs(5)).unwrap();
        metadata.topics().iter().any(|topic| topic.name() == name)
    }

    pub fn add_partitions(&self, name: &str, count: usize) {
        block_on(
            self.admin
                .create_partitions([&NewPartitions::new(name, count)], &AdminOptions::new()),
        )
        .unwrap()[0]
            .as_ref()
            .unwrap();
        self.wait_for(name, count);
    }

    /// Removes the messages before an offset.
    pub fn truncate(&self, name: &str, partition: i32, before: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(name, partition, Offset::Offset(before))
            .unwrap();
        block_on(self.admin.delete_records(&list, &AdminOptions::new())).unwrap();
    }

    pub fn send(&self, topic: &str, partition: i32, key: Option<&str>, payload: Option<&[u8]>) {
        self.send_record(record(topic, partition, key, payload));
    }

    pub fn send_with_header(&self, topic: &str, key: &str, (name, value): (&str, &str), payload: &[u8]) {
        let name_of_bytes = vec![0xff];
        // SAFETY: nobody looks at it as a text; the client passes it on as bytes. A broker takes any.
        let noise = unsafe { std::str::from_utf8_unchecked(&name_of_bytes) };
        let headers = OwnedHeaders::new()
            .insert(Header {
                key: noise,
                value: Some("x"),
            })
            .insert(Header {
                key: name,
                value: Some(value),
            });
        self.send_record(record(topic, 0, Some(key), Some(payload)).headers(headers));
    }

    pub fn send_at(&self, topic: &str, ms: i64, payload: &str) {
        self.send_record(record(topic, 0, Some("m"), Some(payload.as_bytes())).timestamp(ms));
    }

    fn send_record(&self, mut record: BaseRecord<'_, str, [u8]>) {
        while let Err((error, back)) = self.producer.send(record) {
            // A partition that was just added is not yet known here.
            let code = error.rdkafka_error_code();
            assert!(
                matches!(
                    code,
                    Some(RDKafkaErrorCode::QueueFull | RDKafkaErrorCode::UnknownPartition)
                ),
                "{error}"
            );
            let _ = self.producer.client().fetch_metadata(Some(back.topic), PATIENCE);
            record = back;
            self.producer.poll(Duration::from_millis(10));
        }
    }

    pub fn flush(&self) {
        self.producer.flush(PATIENCE).unwrap();
    }

    /// Numbers as payloads, one behind the other.
    pub fn send_numbers(&self, topic: &str, partition: i32, numbers: std::ops::Range<i64>) {
        for number in numbers {
            self.send(topic, partition, Some("m"), Some(number.to_string().as_bytes()));
        }
        self.flush();
    }

    /// All messages of a topic that a reader of committed transactions sees: key and payload, partition by partition.
    pub fn read(&self, topic: &str) -> Vec<(String, String)> {
        let text = |payload: Vec<u8>| String::from_utf8_lossy(&payload).into_owned();
        let messages = self.messages(topic).into_iter();
        messages.map(|(key, payload)| (key, text(payload))).collect()
    }

    /// As [`Cluster::read`], payloads as they are.
    pub fn messages(&self, topic: &str) -> Vec<(String, Vec<u8>)> {
        let consumer: BaseConsumer = config(&self.brokers)
            .set("group.id", unique("reader"))
            .set("enable.partition.eof", "true")
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest")
            .create()
            .unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), PATIENCE).unwrap();
        let mut list = TopicPartitionList::new();
        let partitions = metadata.topics()[0].partitions();
        for partition in partitions {
            list.add_partition_offset(topic, partition.id(), Offset::Beginning)
                .unwrap();
        }
        consumer.assign(&list).unwrap();
        let (mut open, mut found) = (partitions.len(), Vec::new());
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned();
        let start = Instant::now();
        while open > 0 {
            assert!(start.elapsed() < PATIENCE, "waited in vain: the end of {topic}");
            match consumer.poll(Duration::from_millis(500)) {
                Some(Ok(message)) => {
                    let payload = message.payload().unwrap_or_default().to_vec();
                    found.push((message.partition(), text(message.key()), payload));
                }
                Some(Err(KafkaError::PartitionEOF(_))) => open -= 1,
                _ => {}
            }
        }
        found.sort_by_key(|(partition, ..)| *partition);
        found.into_iter().map(|(_, key, payload)| (key, payload)).collect()
    }

    /// What a group has committed for a partition.
    pub fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<i64> {
        let consumer: BaseConsumer = config(&self.brokers).set("group.id", group).create().unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, partition);
        let found = consumer.committed_offsets(list, PATIENCE).unwrap();
        found.elements()[0].offset().to_raw().filter(|offset| *offset >= 0)
    }

    pub fn brokers(&self) -> &str {
        &self.brokers
    }
}

fn record<'r>(
    topic: &'r str,
    partition: i32,
    key: Option<&'r str>,
    payload: Option<&'r [u8]>,
) -> BaseRecord<'r, str, [u8]> {
    let mut record = BaseRecord::to(topic).partition(partition);
    record.key = key;
    record.payload = payload;
    record
}

fn config(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", brokers);
    config
}
