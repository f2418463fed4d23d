//! The `mqtt` source: subscribes to a topic pattern and reads samples from payloads.
//!
//! A message is acknowledged when the engine says that it is durable. Until then the broker keeps it, and gives it again after a
//! lost connection or a crash. What is already in the journal then is passed over: see `deliveries`.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::array::RecordBatch;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use taktline_engine::config::{Interval, Problem, Section};
use taktline_engine::fault;
use taktline_engine::kind::SourceKind;
use taktline_engine::{Decoder, Partition, Poll, Position, Source, Wake};

use super::client::{Connection, MessageAck};
use super::deliveries::{Deliveries, Repeats, WINDOW, fingerprint};
use super::endpoint::{Endpoint, SignIn, Version};
use super::gap::Sessions;
use super::link::Subscription;
use super::note::{Note, NotedDecoder};
use super::queue::{Arrived, Item, PAYLOAD_LIMIT, Producer, Queue};
use crate::codec::decode::{Address, DecodeConfig, MessageDecoder, Reading};
use crate::codec::message::{Message, MessageBatch, Messages};
use crate::codec::topic::TopicPattern;
use crate::tls::TlsConfig;

/// The `mqtt` source.
pub const KIND: SourceKind = SourceKind {
    name: "mqtt",
    summary: "subscribes to a topic pattern of an MQTT broker",
    schema: || schemars::schema_for!(MqttSourceConfig),
    build,
};

/// Subscribes to topics of an MQTT broker.
///
/// A broker gives a message again when the connection or the run ended before it had read our acknowledgement; such a message is kept
/// once. What senders and bridges publish a second time are two messages to the broker, and so are retained messages that it sends once
/// more after a reconnection under MQTT 3.1.1: they are kept twice, unless `drop_repeats` says that payloads tell them. Where the broker
/// had no session for us, messages may be missing: `dead_letters` then has a row that begins with `possible gap`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MqttSourceConfig {
    /// Address of the broker: `mqtt://host:1883`, or `mqtts://host:8883` with TLS
    pub url: String,
    /// Topic pattern with names for levels: `acme/{line}/{machine}/{signal}`. A last level `#` takes all below. Before it
    /// `$share/GROUP/` shares the messages with other subscribers of the group: each gets a part of them, and their order is lost
    pub topic: String,
    /// Version of the protocol. Default 5. Under 3.1.1 the broker says how many messages may wait to be safe here: in Mosquitto
    /// `max_inflight_messages`, whose default of 20 is slow
    #[serde(default)]
    pub version: Version,
    /// Client id; one that no other client uses. With it the broker keeps messages while Taktline is away. Default: random
    pub client_id: Option<String>,
    /// User to sign in as
    pub user: Option<String>,
    /// Password of the user, or a token (which under MQTT 5 needs no user): `{env: NAME}` or `{file: /run/secrets/x}`
    pub password: Option<String>,
    /// Certificates for an `mqtts` address. Default: those that the system trusts. Files that were renewed are read again when the
    /// connection is lost
    pub tls: Option<TlsConfig>,
    /// Delivery: 0 at most once, 1 at least once, 2 exactly once as long as the connection holds. Default 1. The broker is told
    /// that a message has arrived when it is safe here, and gives it again until then
    #[serde(default = "default_qos")]
    #[schemars(range(min = 0, max = 2))]
    pub qos: u8,
    /// Messages that the broker may send before the first of them is safe here (MQTT 5). Default 16384; fewer take less of the broker's
    /// memory, and are slower
    #[schemars(range(min = 1, max = 32768))]
    pub receive_maximum: Option<u32>,
    /// For how long the broker keeps messages while Taktline is away (MQTT 5): `1h`, `3d`. Default 1h
    pub session_expiry: Option<Interval>,
    /// True if each payload says its time or number, so that a message with the topic and payload of one of the 32768 before it is that
    /// message once more, sent again by a sender or a bridge: it is kept once. Equal readings of payloads that say neither would be
    /// lost. Default false
    #[serde(default)]
    pub drop_repeats: bool,
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

/// Enough for a million messages a second that are durable after some milliseconds.
const RECEIVE_MAXIMUM: u32 = 16_384;
const SESSION_EXPIRY: Interval = Interval::from_micros(3_600_000_000);

fn build(section: &Section) -> Result<Box<dyn Source>, Vec<Problem>> {
    let config: MqttSourceConfig = section.parse()?;
    let mut problems = Vec::new();
    if config.qos > 2 {
        problems.push(Problem::at("qos", "must be 0, 1 or 2"));
    }
    let receive_maximum = config.receive_maximum.unwrap_or(RECEIVE_MAXIMUM);
    if !(1..=WINDOW).contains(&u64::from(receive_maximum)) {
        problems.push(Problem::at("receive_maximum", format!("must be 1 to {WINDOW}")));
    }
    if config.version == Version::V311 {
        for (key, is_set) in [
            ("receive_maximum", config.receive_maximum.is_some()),
            ("session_expiry", config.session_expiry.is_some()),
        ] {
            if is_set {
                let hint = "write version: 5, or set it at the broker";
                problems.push(Problem::at(key, "MQTT 3.1.1 leaves this to the broker").hint(hint));
            }
        }
    }
    let sign_in = SignIn {
        version: config.version,
        client_id: config.client_id,
        user: config.user,
        password: config.password,
        tls: config.tls,
    };
    let endpoint = Endpoint::new(&config.url, sign_in).map_err(|found| problems.extend(found));
    let shared = share(&config.topic);
    let pattern = shared.and_then(|(share, topic)| {
        TopicPattern::parse(topic).map_err(|problem| {
            let offset = problem.offset + share.chars().count();
            problem.offset(offset)
        })
    });
    let pattern = pattern.map_err(|problem| problems.push(problem));
    let share = share(&config.topic).map_or("", |(share, _)| share);
    let filter = pattern.as_ref().map(TopicPattern::filter).unwrap_or_default();
    let reading = pattern.and_then(|pattern| {
        let names = (config.machine.as_deref(), config.signal.as_deref());
        let address = Address {
            pattern: Some(pattern),
            ..Address::default()
        };
        Reading::new(&section.name, address, &config.decode, names.0, names.1).map_err(|found| problems.extend(found))
    });
    let kept_secs = config.session_expiry.unwrap_or(SESSION_EXPIRY).micros() / 1_000_000;
    match (endpoint, reading) {
        (Ok(endpoint), Ok(reading)) if problems.is_empty() => {
            let subscription = Subscription {
                filters: vec![format!("{share}{filter}")],
                qos: config.qos,
                kept_secs: (config.qos > 0 && kept_secs > 0).then(|| kept_secs.min(u32::MAX.into()) as u32),
                receive_maximum: receive_maximum as u16,
            };
            Ok(Box::new(MqttSource {
                name: section.name.clone(),
                endpoint,
                subscription,
                is_shared: !share.is_empty(),
                drops_repeats: config.drop_repeats,
                reading,
            }))
        }
        _ => Err(problems),
    }
}

/// `$share/group/topic` as `$share/group/` and `topic`; the first is empty for a subscription that isn't shared.
fn share(topic: &str) -> Result<(&str, &str), Problem> {
    let Some(rest) = topic.strip_prefix("$share/") else {
        return Ok(("", topic));
    };
    match rest.split_once('/') {
        Some((group, _)) if !group.is_empty() && !group.contains(['+', '#', '{', '}', '\0']) => {
            Ok(topic.split_at("$share/".len() + group.len() + 1))
        }
        _ => {
            let problem = Problem::at("topic", "a shared subscription needs the name of its group");
            Err(problem.hint("write $share/GROUP/acme/{machine}/{signal}"))
        }
    }
}

struct MqttSource {
    name: String,
    endpoint: Endpoint,
    subscription: Subscription,
    is_shared: bool,
    drops_repeats: bool,
    reading: Reading,
}

impl MqttSource {
    fn filter(&self) -> String {
        self.subscription.filters.join(" ")
    }
}

impl Source for MqttSource {
    fn partitions(&self) -> anyhow::Result<Vec<String>> {
        Ok(vec![format!("{} {}", self.endpoint.url, self.filter())])
    }

    fn open(&self, partition: usize, _: Option<&Value>, wake: Wake) -> anyhow::Result<Box<dyn Partition>> {
        anyhow::ensure!(partition == 0, "an MQTT source has one partition");
        self.listen(&self.endpoint, &self.subscription, wake)
    }

    /// With QoS 0 and no client id the broker keeps nothing for us, and expects nothing of us.
    fn look(&self, partition: usize, wake: Wake) -> anyhow::Result<Box<dyn Partition>> {
        anyhow::ensure!(partition == 0, "an MQTT source has one partition");
        let endpoint = Endpoint {
            client_id: None,
            ..self.endpoint.clone()
        };
        let subscription = Subscription {
            qos: 0,
            kept_secs: None,
            ..self.subscription.clone()
        };
        self.listen(&endpoint, &subscription, wake)
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        let messages = MessageDecoder::new(self.reading.clone());
        Box::new(NotedDecoder::new(&self.name, messages))
    }

    fn bounded(&self) -> bool {
        false
    }

    fn replayable(&self) -> bool {
        false
    }
}

impl MqttSource {
    fn listen(
        &self,
        endpoint: &Endpoint,
        subscription: &Subscription,
        wake: Wake,
    ) -> anyhow::Result<Box<dyn Partition>> {
        if self.is_shared {
            tracing::warn!(
                "{}: `{}` is a shared subscription: the broker gives each member of the group a part of the messages, and a machine's \
                 messages lose their order; without $share/ in `topic` they keep it",
                self.name,
                self.filter()
            );
        }
        let queue = Arc::new(Queue::default());
        let mut producer = Producer::new(queue.clone(), wake);
        let asked = Some(subscription.clone());
        let connection = Connection::start(&self.name, endpoint, asked, None, move |incoming| {
            producer.take(incoming)
        })?;
        Ok(Box::new(MqttPartition {
            name: self.name.clone(),
            queue,
            connection: Some(connection),
            deliveries: Deliveries::default(),
            repeats: self.drops_repeats.then(Repeats::default),
            sessions: Sessions::new(
                subscription.is_kept(endpoint),
                subscription.outlives(endpoint),
                "the broker keeps nothing for this source while it is away; set `client_id`, and `qos` to 1 or 2",
            ),
            unacknowledged: VecDeque::new(),
            acknowledged: 0,
            taken: 0,
            given_again: 0,
            filter: self.filter(),
        }))
    }
}

struct MqttPartition {
    name: String,
    queue: Arc<Queue>,
    connection: Option<Connection>,
    deliveries: Deliveries,
    /// None: what is sent again is kept again.
    repeats: Option<Repeats>,
    sessions: Sessions,
    /// The acknowledgements of each batch that was polled.
    unacknowledged: VecDeque<Vec<MessageAck>>,
    /// Batches before these.
    acknowledged: u64,
    /// Messages that came, and those of them that the broker gave again.
    taken: u64,
    given_again: u64,
    filter: String,
}

/// A raw batch in the making.
#[derive(Default)]
struct Raw {
    messages: MessageBatch,
    rows: usize,
}

impl Raw {
    fn push(
        &mut self,
        key: Option<&[u8]>,
        topic: &str,
        payload: &[u8],
        received: i64,
        sequence: u64,
    ) -> anyhow::Result<()> {
        self.rows += 1;
        self.messages.push(Message {
            topic,
            key,
            headers: &[],
            payload,
            received,
            sequence,
        })
    }
}

impl MqttPartition {
    /// Adds a message. Each one whose acknowledgement is waited for adds a row, for it to wait for.
    fn push(&mut self, raw: &mut Raw, message: &Arrived) -> anyhow::Result<()> {
        let Arrived {
            topic,
            payload,
            length,
            received,
            sequence,
            receipt,
            again,
        } = message;
        self.taken += 1;
        self.sessions.message(*received);
        let packet = receipt.map(MessageAck::packet);
        let fingerprint = fingerprint(topic, payload);
        let had = || packet.and_then(|packet| Note::Had { packet, fingerprint }.key());
        let is_given_again = packet.is_some_and(|packet| self.deliveries.note(packet, fingerprint, *again));
        let is_repeated = self.repeats.as_mut().is_some_and(|repeats| repeats.note(fingerprint));
        if is_given_again || is_repeated {
            self.given_again += 1;
            return match had() {
                Some(had) => raw.push(Some(&had), "", &[], *received, *sequence),
                None => Ok(()),
            };
        }
        if *length > PAYLOAD_LIMIT {
            let reason = format!(
                "the payload has {length} bytes, and {PAYLOAD_LIMIT} is the most that is read; check what is sent to this `topic`"
            );
            raw.push(
                Note::Refused(&reason).key().as_deref(),
                topic,
                payload,
                *received,
                *sequence,
            )?;
            return match had() {
                Some(had) => raw.push(Some(&had), "", &[], *received, *sequence),
                None => Ok(()),
            };
        }
        let key = packet.map(u16::to_be_bytes);
        raw.push(
            key.as_ref().map(<[u8; 2]>::as_slice),
            topic,
            payload,
            *received,
            *sequence,
        )
    }

    fn connected(&mut self, raw: &mut Raw, session_present: bool, at: i64) -> anyhow::Result<()> {
        let Some(reason) = self.sessions.connected(session_present, at) else {
            return Ok(());
        };
        tracing::warn!("{}: {reason}", self.name);
        raw.push(
            Note::Refused(&reason).key().as_deref(),
            &self.filter,
            &[],
            at,
            self.taken,
        )
    }
}

impl Partition for MqttPartition {
    fn poll(&mut self) -> anyhow::Result<Poll> {
        let (items, last) = self.queue.take();
        if items.is_empty() {
            anyhow::ensure!(
                !last || self.queue.is_stopping(),
                "the MQTT connection's thread has ended"
            );
            return Ok(if last { Poll::End } else { Poll::Idle });
        }
        let (mut raw, mut receipts) = (Raw::default(), Vec::new());
        for item in &items {
            match item {
                Item::Connected { session_present, at } => self.connected(&mut raw, *session_present, *at)?,
                Item::Message(message) => {
                    receipts.extend(message.receipt);
                    self.push(&mut raw, message)?;
                }
            }
        }
        if raw.rows == 0 {
            return Ok(Poll::Idle);
        }
        self.unacknowledged.push_back(receipts);
        Ok(Poll::Batch(raw.messages.finish()?))
    }

    fn recall(&mut self, newest: &mut dyn Iterator<Item = RecordBatch>) {
        let (mut age, mut last) = (0, None);
        'all: for batch in newest {
            let mut headers = Vec::new();
            let Ok(messages) = Messages::of(&batch) else { break };
            for row in (0..messages.len()).rev() {
                let message = messages.get(row, &mut headers);
                last = last.or(Some(message.received));
                let (packet, fingerprint) = match Note::of(message.key) {
                    Note::Message(packet) => (packet, fingerprint(message.topic, message.payload)),
                    Note::Had { packet, fingerprint } => (Some(packet), fingerprint),
                    Note::Refused(_) => continue,
                };
                if let Some(packet) = packet {
                    self.deliveries.recall(age, packet, fingerprint);
                }
                if let Some(repeats) = &mut self.repeats {
                    repeats.recall(fingerprint);
                }
                age += 1;
                if age >= WINDOW {
                    break 'all;
                }
            }
        }
        self.sessions.recall(last);
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
        let again = match self.given_again {
            0 => String::new(),
            count => format!(", {count} of them given again and kept once"),
        };
        Position {
            text: format!("{}: {} messages{again}", self.filter, self.taken),
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
            &format!("topic: 'a/{{machine}}/{{signal}}'\nversion: 3.1.1\npassword: x\n{number}"),
            &["password"],
        );
        check(
            &format!("topic: 'a/{{machine}}/{{signal}}'\nqos: 3\n{number}"),
            &["qos"],
        );
        let mqtt5 = "receive_maximum: 100\nsession_expiry: 3d";
        check(&format!("topic: '{{machine}}/{{signal}}'\n{mqtt5}\n{number}"), &[]);
        check(
            &format!("topic: '{{machine}}/{{signal}}'\nversion: 3.1.1\n{mqtt5}\n{number}"),
            &["receive_maximum", "session_expiry"],
        );
        check(
            &format!("topic: '{{machine}}/{{signal}}'\nreceive_maximum: 0\n{number}"),
            &["receive_maximum"],
        );
        check(&format!("topic: '$share/g/{{machine}}/{{signal}}'\n{number}"), &[]);
        check(
            &format!("topic: '$share//{{machine}}/{{signal}}'\n{number}"),
            &["topic"],
        );
        check(&format!("topic: '$share/g'\n{number}"), &["topic"]);
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
