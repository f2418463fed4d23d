//! The `mqtt` source: subscribes to a topic pattern and reads samples from payloads.
//!
//! A message is acknowledged when the engine says that it is durable. Until then the broker keeps it, and gives it again
//! after a lost connection or a crash: it may then be in the journal twice.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use taktline_engine::config::{Problem, Section};
use taktline_engine::fault;
use taktline_engine::kind::SourceKind;
use taktline_engine::{Decoder, Partition, Poll, Position, Source, Wake};

use super::client::{Connection, Message, MessageAck};
use super::endpoint::{Endpoint, Version};
use super::link::Subscription;
use crate::codec::decode::{Address, DecodeConfig, MessageDecoder, Reading};
use crate::codec::message::{self, MessageBatch};
use crate::codec::topic::TopicPattern;

/// The `mqtt` source.
pub const KIND: SourceKind = SourceKind {
    name: "mqtt",
    summary: "subscribes to a topic pattern of an MQTT broker",
    schema: || schemars::schema_for!(MqttSourceConfig),
    build,
};

/// Subscribes to topics of an MQTT broker.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MqttSourceConfig {
    /// Address of the broker: `mqtt://host:1883`
    pub url: String,
    /// Topic pattern with names for levels: `acme/{line}/{machine}/{signal}`. A last level `#` takes all below
    pub topic: String,
    /// Version of the protocol. Default 5. Under 3.1.1 the broker says how many messages may wait to be safe here: in Mosquitto
    /// `max_inflight_messages`, whose default of 20 is slow
    #[serde(default)]
    pub version: Version,
    /// Client id; one that no other client uses. With it the broker keeps messages while Taktline is away. Default: random
    pub client_id: Option<String>,
    /// User to sign in as
    pub user: Option<String>,
    /// Password of the user: `{env: NAME}` or `{file: /run/secrets/x}`
    pub password: Option<String>,
    /// Delivery: 0 at most once, 1 at least once, 2 exactly once as long as the connection holds. Default 1. The broker is told
    /// that a message has arrived when it is safe here; one that it gives again after a lost connection is kept twice
    #[serde(default = "default_qos")]
    #[schemars(range(min = 0, max = 2))]
    pub qos: u8,
    /// How to read a payload
    pub decode: DecodeConfig,
    /// Name of the machine, from names in the topic: `{line}-{machine}`. Default `{machine}`
    pub machine: Option<String>,
    /// Name of the signal, from names in the topic. Default `{signal}`; with `decode.values` `{member}`
    pub signal: Option<String>,
}

fn default_qos() -> u8 {
    1
}

fn build(section: &Section) -> Result<Box<dyn Source>, Vec<Problem>> {
    let config: MqttSourceConfig = section.parse()?;
    let mut problems = Vec::new();
    if config.qos > 2 {
        problems.push(Problem::at("qos", "must be 0, 1 or 2"));
    }
    let endpoint = Endpoint::new(&config.url, config.version)
        .and_then(|endpoint| endpoint.sign_in(config.client_id, config.user, config.password))
        .map_err(|problem| problems.push(problem));
    let pattern = TopicPattern::parse(&config.topic).map_err(|problem| problems.push(problem));
    let filter = pattern.as_ref().map(TopicPattern::filter).unwrap_or_default();
    let reading = pattern.and_then(|pattern| {
        let names = (config.machine.as_deref(), config.signal.as_deref());
        let address = Address {
            pattern: Some(pattern),
            ..Address::default()
        };
        Reading::new(&section.name, address, &config.decode, names.0, names.1).map_err(|found| problems.extend(found))
    });
    match (endpoint, reading) {
        (Ok(endpoint), Ok(reading)) if problems.is_empty() => {
            let subscription = Subscription {
                filter,
                qos: config.qos,
            };
            Ok(Box::new(MqttSource {
                name: section.name.clone(),
                endpoint,
                subscription,
                reading,
            }))
        }
        _ => Err(problems),
    }
}

struct MqttSource {
    name: String,
    endpoint: Endpoint,
    subscription: Subscription,
    reading: Reading,
}

impl Source for MqttSource {
    fn partitions(&self) -> anyhow::Result<Vec<String>> {
        Ok(vec![format!("{} {}", self.endpoint.url, self.subscription.filter)])
    }

    fn open(&self, partition: usize, _: Option<&Value>, wake: Wake) -> anyhow::Result<Box<dyn Partition>> {
        anyhow::ensure!(partition == 0, "an MQTT source has one partition");
        let queue = Arc::new(Queue::default());
        let (producer, mut sequence) = (
            Producer {
                queue: queue.clone(),
                wake,
            },
            0,
        );
        let on_message = move |message: Message<'_>| {
            let received = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |d| d.as_micros() as i64);
            let topic = String::from_utf8_lossy(message.topic).into_owned();
            let flow = producer.push(Raw {
                topic,
                payload: message.payload.to_vec(),
                received,
                sequence,
                receipt: message.receipt,
            });
            sequence += 1;
            flow
        };
        let connection = Connection::start(&self.name, &self.endpoint, Some(self.subscription.clone()), on_message)?;
        Ok(Box::new(MqttPartition {
            queue,
            connection: Some(connection),
            unacknowledged: VecDeque::new(),
            acknowledged: 0,
            taken: 0,
            filter: self.subscription.filter.clone(),
        }))
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(MessageDecoder::new(self.reading.clone()))
    }

    fn bounded(&self) -> bool {
        false
    }

    fn replayable(&self) -> bool {
        false
    }
}

struct Raw {
    topic: String,
    payload: Vec<u8>,
    received: i64,
    sequence: u64,
    receipt: Option<MessageAck>,
}

/// Messages between the connection's thread and the dataflow. While it is full, the thread waits and so reads nothing
/// from the socket.
#[derive(Default)]
struct Queue {
    state: Mutex<QueueState>,
    room: Condvar,
}

#[derive(Default)]
struct QueueState {
    messages: VecDeque<Raw>,
    bytes: usize,
    /// No more is taken: the broker keeps what comes now, since it is not acknowledged.
    stopping: bool,
    /// Nobody wants more.
    closed: bool,
    /// Nothing more will come.
    ended: bool,
}

/// The connection's thread's end of the queue.
struct Producer {
    queue: Arc<Queue>,
    wake: Wake,
}

const QUEUE_MESSAGES: usize = 32_768;
const QUEUE_BYTES: usize = 32 << 20;
const BATCH_MESSAGES: usize = 16_384;
const BATCH_BYTES: usize = 1 << 20;

impl Queue {
    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next messages, up to a batch; and whether these are the last.
    fn take(&self) -> (Vec<Raw>, bool) {
        let mut state = self.lock();
        let mut batch = Vec::new();
        let mut bytes = 0;
        while batch.len() < BATCH_MESSAGES && bytes < BATCH_BYTES {
            let Some(raw) = state.messages.pop_front() else { break };
            bytes += raw.topic.len() + raw.payload.len();
            batch.push(raw);
        }
        state.bytes -= bytes;
        self.room.notify_one();
        (batch, (state.ended || state.stopping) && state.messages.is_empty())
    }

    fn stop(&self) {
        self.lock().stopping = true;
        self.room.notify_all();
    }

    fn close(&self) {
        self.lock().closed = true;
        self.room.notify_all();
    }
}

impl Producer {
    fn push(&self, raw: Raw) -> ControlFlow<()> {
        let full = |state: &mut QueueState| {
            let is_full = state.messages.len() >= QUEUE_MESSAGES || state.bytes >= QUEUE_BYTES;
            is_full && !state.closed && !state.stopping
        };
        let mut state = self
            .queue
            .room
            .wait_while(self.queue.lock(), full)
            .unwrap_or_else(PoisonError::into_inner);
        if state.closed {
            return ControlFlow::Break(());
        }
        if state.stopping {
            return ControlFlow::Continue(()); // acknowledgements of what was taken still have to go out
        }
        let was_empty = state.messages.is_empty();
        state.bytes += raw.topic.len() + raw.payload.len();
        state.messages.push_back(raw);
        drop(state);
        if was_empty {
            (self.wake)();
        }
        ControlFlow::Continue(())
    }
}

impl Drop for Producer {
    fn drop(&mut self) {
        self.queue.lock().ended = true;
        (self.wake)();
    }
}

struct MqttPartition {
    queue: Arc<Queue>,
    connection: Option<Connection>,
    /// The acknowledgements of each batch that was polled.
    unacknowledged: VecDeque<Vec<MessageAck>>,
    /// Batches before these.
    acknowledged: u64,
    taken: u64,
    filter: String,
}

impl Partition for MqttPartition {
    fn poll(&mut self) -> anyhow::Result<Poll> {
        let (batch, last) = self.queue.take();
        if batch.is_empty() {
            anyhow::ensure!(
                !last || self.queue.lock().stopping,
                "the MQTT connection's thread has ended"
            );
            return Ok(if last { Poll::End } else { Poll::Idle });
        }
        self.taken += batch.len() as u64;
        self.unacknowledged
            .push_back(batch.iter().filter_map(|raw| raw.receipt).collect());
        let mut messages = MessageBatch::default();
        for raw in &batch {
            messages.push(message::Message {
                topic: &raw.topic,
                key: None,
                headers: &[],
                payload: &raw.payload,
                received: raw.received,
                sequence: raw.sequence,
            })?;
        }
        Ok(Poll::Batch(messages.finish()?))
    }

    fn stop(&mut self) -> bool {
        self.queue.stop();
        true
    }

    fn acknowledge(&mut self, batches: u64) -> anyhow::Result<()> {
        while self.acknowledged < batches
            && let Some(acks) = self.unacknowledged.pop_front()
        {
            fault::point("mqtt.acknowledge")?;
            self.acknowledged += 1;
            if let Some(connection) = &self.connection {
                connection.acknowledge(acks);
            }
        }
        Ok(())
    }

    fn position(&self) -> Position {
        Position {
            text: format!("{}: {} messages", self.filter, self.taken),
            fraction: None,
        }
    }
}

impl Drop for MqttPartition {
    fn drop(&mut self) {
        // First the queue: the thread may be waiting for room in it.
        self.queue.close();
        self.connection = None;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        let check = |yaml: &str, expect: &[&str]| {
            let section = Section::from_yaml("plc", &format!("url: mqtt://broker\n{yaml}"));
            let paths = build(&section).err().unwrap_or_default();
            let paths: Vec<String> = paths.iter().map(|problem| problem.path.join(".")).collect();
            assert_eq!(paths, expect, "{yaml}");
        };
        let number = "decode: {format: number}";
        check(&format!("topic: 'a/{{machine}}/{{signal}}'\n{number}"), &[]);
        check(
            &format!("topic: 'a/{{machine}}/{{signal}}'\nversion: 3.1.1\nqos: 2\n{number}"),
            &[],
        );
        check(&format!("topic: 'a/{{line}}/{{signal}}'\n{number}"), &["topic"]);
        check(&format!("topic: 'a/{{x}}'\n{number}"), &["topic", "topic"]);
        check(&format!("topic: 'a//b'\n{number}"), &["topic"]);
        check(
            &format!("topic: 'a/{{line}}/{{signal}}'\nmachine: '{{line}}'\n{number}"),
            &[],
        );
        check(&format!("topic: 'a/{{machine}}'\nsignal: pressure\n{number}"), &[]);
        check(
            &format!("topic: 'a/{{machine}}/{{signal}}'\nmachine: '{{lin}}'\n{number}"),
            &["machine"],
        );
        check(
            &format!("topic: 'a/{{machine}}/{{signal}}'\npassword: x\n{number}"),
            &["password"],
        );
        check(
            &format!("topic: 'a/{{machine}}/{{signal}}'\nqos: 3\n{number}"),
            &["qos"],
        );
        check("topic: '{machine}/{signal}'\ndecode: {format: json}", &["decode"]);
        check("topic: '{machine}/{signal}'\ndecode: {value: v}", &["decode.value"]);
        check(
            "topic: '{machine}/{signal}'\ndecode: {value: /v, time: /t}",
            &["decode.time"],
        );
        check(
            "topic: '{machine}/{signal}'\ndecode: {value: /v, unit: ms}",
            &["decode.unit"],
        );
        check(
            "topic: '{machine}/{signal}'\ndecode: {format: text, value: /v}",
            &["decode.value"],
        );
        check("topic: '{machine}'\ndecode: {values: '', time: /t, unit: s}", &[]);
        check(
            "topic: '{machine}'\ndecode: {values: '', value: /v}",
            &["decode.values"],
        );
    }
}
