//! The `sparkplug` source: hears edge nodes, and asks them for births.
//!
//! Aliases mean something only between a birth and a death, so they are resolved before the journal: a raw batch holds samples, or dead
//! letters. What the journal has can then be read at any time, without the births.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use arrow::array::{Array, ArrayRef, RecordBatch};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};
use taktline_engine::config::{Interval, Problem, Section};
use taktline_engine::kind::SourceKind;
use taktline_engine::{Decoded, Decoder, Partition, Poll, Position, Samples, Source, Wake, table};

use super::host::{Came, Host, MACHINE_NAMES, SIGNAL_NAMES};
use super::node::Patience;
use super::topic;
use crate::codec::sparkplug::{DataType, Metric, MetricValue, Payload};
use crate::codec::topic::{Template, TemplateError};
use crate::mqtt::client::{Connection, MessageAck};
use crate::mqtt::endpoint::{Endpoint, SignIn, Version};
use crate::mqtt::gap::Sessions;
use crate::mqtt::link::{Presence, Subscription};
use crate::mqtt::queue::{Item, PAYLOAD_LIMIT, Producer, Queue};
use crate::tls::TlsConfig;

/// The `sparkplug` source.
pub const KIND: SourceKind = SourceKind {
    name: "sparkplug",
    summary: "hears the Sparkplug B edge nodes of an MQTT broker",
    schema: || schemars::schema_for!(SparkplugConfig),
    build,
};

/// Hears the Sparkplug B edge nodes of an MQTT broker.
///
/// Machines and signals follow from births: a new edge node or device is there with its birth. Metrics that are numbers or booleans become
/// values, texts become `text`; tables, templates and bytes are skipped, which `dead_letters` says once for each. After a death each
/// metric gets a row without a value and of `quality` `stale`. When messages of an edge node are missing, or data comes that no birth
/// explains, a rebirth is asked for, and the data waits for it. A Sparkplug host keeps no session: what edge nodes send while it is away
/// is missing, unless they store it and send it later, and `dead_letters` has a row that begins with `possible gap`. Values that a
/// birth repeats are passed over, but not those from before Taktline was started again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SparkplugConfig {
    /// Address of the broker: `mqtt://host:1883`, or `mqtts://host:8883` with TLS
    pub url: String,
    /// Group of the edge nodes. Default `+`, all groups
    #[serde(default = "all")]
    pub group: String,
    /// Id as a primary host: edge nodes that wait for it then know by `spBv1.0/STATE/ID` whether Taktline is there. Default: none
    pub host_id: Option<String>,
    /// Version of the protocol. Default 5
    #[serde(default)]
    pub version: Version,
    /// Client id; one that no other client uses. Default: random
    pub client_id: Option<String>,
    /// User to sign in as
    pub user: Option<String>,
    /// Password of the user, or a token (which under MQTT 5 needs no user): `{env: NAME}` or `{file: /run/secrets/x}`
    pub password: Option<String>,
    /// Certificates for an `mqtts` address. Default: those that the system trusts
    pub tls: Option<TlsConfig>,
    /// Name of the machine, of `{group}`, `{node}` and `{device}`. For metrics of an edge node itself `{device}` is empty, and separators at
    /// the ends fall away. Default `{group}/{node}/{device}`
    pub machine: Option<String>,
    /// Name of the signal, of `{metric}` and the names above. Default `{metric}`
    pub signal: Option<String>,
    /// How long to wait for messages that others have overtaken, before they are held to be missing. Default 2s
    pub reorder_timeout: Option<Interval>,
    /// The shortest time between two requests to an edge node for a rebirth. Default 10s
    pub rebirth_interval: Option<Interval>,
    /// How long data waits for a birth that explains it, and metrics for word of them after the connection was lost. Then the data goes
    /// to `dead_letters`, and the metrics are stale. Default 30s
    pub birth_timeout: Option<Interval>,
}

fn all() -> String {
    "+".into()
}

const REORDER_TIMEOUT: Interval = Interval::from_micros(2_000_000);
const REBIRTH_INTERVAL: Interval = Interval::from_micros(10_000_000);
const BIRTH_TIMEOUT: Interval = Interval::from_micros(30_000_000);
/// Messages that a broker may give us before we acknowledge the first. Nearly all are sent without acknowledgements.
const RECEIVE_MAXIMUM: u16 = 1024;
/// Rows of a raw batch, about.
const BATCH_ROWS: usize = 8_192;

fn build(section: &Section) -> Result<Box<dyn Source>, Vec<Problem>> {
    let config: SparkplugConfig = section.parse()?;
    let mut problems = Vec::new();
    let sign_in = SignIn {
        version: config.version,
        client_id: config.client_id,
        user: config.user,
        password: config.password,
        tls: config.tls,
    };
    let endpoint = Endpoint::new(&config.url, sign_in).map_err(|found| problems.extend(found));
    let is_level = |text: &str| !text.is_empty() && !text.contains(['/', '+', '#', '\0']);
    if config.group != "+" && !is_level(&config.group) {
        problems.push(Problem::at("group", "must be the name of one group").hint("write + for all groups"));
    }
    if config.host_id.as_deref().is_some_and(|id| !is_level(id)) {
        problems.push(Problem::at("host_id", "must be a name without / + and #"));
    }
    let machine = config.machine.as_deref().unwrap_or("{group}/{node}/{device}");
    let machine = template("machine", machine, &MACHINE_NAMES).map_err(|problem| problems.push(problem));
    let signal = config.signal.as_deref().unwrap_or("{metric}");
    let signal = template("signal", signal, &SIGNAL_NAMES).map_err(|problem| problems.push(problem));
    let micros = |set: Option<Interval>, default: Interval| set.unwrap_or(default).micros();
    match (endpoint, machine, signal) {
        (Ok(endpoint), Ok(machine), Ok(signal)) if problems.is_empty() => Ok(Box::new(SparkplugSource {
            name: section.name.clone(),
            endpoint,
            group: config.group,
            host_id: config.host_id,
            templates: (machine, signal),
            patience: Patience {
                reorder_us: micros(config.reorder_timeout, REORDER_TIMEOUT),
                rebirth_us: micros(config.rebirth_interval, REBIRTH_INTERVAL),
                birth_us: micros(config.birth_timeout, BIRTH_TIMEOUT),
            },
        })),
        _ => Err(problems),
    }
}

fn template(key: &str, text: &str, names: &[&str]) -> Result<Template, Problem> {
    Template::parse(text, names).map_err(|error| match error {
        TemplateError::Unknown(name) => {
            Problem::at(key, format!("there is no name `{{{name}}}`")).did_you_mean(&name, names.iter().copied())
        }
        TemplateError::Brace => Problem::at(key, "a brace has no partner").hint("write {name}"),
    })
}

struct SparkplugSource {
    name: String,
    endpoint: Endpoint,
    group: String,
    host_id: Option<String>,
    templates: (Template, Template),
    patience: Patience,
}

impl Source for SparkplugSource {
    fn partitions(&self) -> anyhow::Result<Vec<String>> {
        Ok(vec![format!("{} {}", self.endpoint.url, self.group)])
    }

    fn open(&self, partition: usize, _: Option<&Value>, wake: Wake) -> anyhow::Result<Box<dyn Partition>> {
        anyhow::ensure!(partition == 0, "a Sparkplug source has one partition");
        let state = self.host_id.as_deref().map(topic::state);
        let mut filters = topic::filters(&self.group);
        filters.extend(state.clone());
        // A host begins each connection anew, says the specification: births are asked for.
        let subscription = Subscription {
            filters,
            qos: 1,
            kept_secs: None,
            receive_maximum: RECEIVE_MAXIMUM,
        };
        let presence = state.clone().map(|topic| Presence {
            topic,
            payload: |online, timestamp| {
                json!({"online": online, "timestamp": timestamp})
                    .to_string()
                    .into_bytes()
            },
        });
        let queue = Arc::new(Queue::default());
        let mut producer = Producer::new(queue.clone(), wake);
        let connection = Connection::start(
            &self.name,
            &self.endpoint,
            Some(subscription),
            presence,
            move |incoming| producer.take(incoming),
        )?;
        Ok(Box::new(SparkplugPartition {
            name: self.name.clone(),
            group: self.group.clone(),
            state,
            host: Host::new(&self.name, self.templates.clone(), self.patience),
            queue,
            connection,
            sessions: Sessions::new(
                false,
                false,
                "a Sparkplug host has no session that the broker keeps; edge nodes that store what they measure send it later",
            ),
            began: Instant::now(),
            inbox: VecDeque::new(),
            outbox: VecDeque::new(),
            receipts: Vec::new(),
            unacknowledged: VecDeque::new(),
            acknowledged: 0,
            taken: 0,
            has_ended: false,
        }))
    }

    fn look(&self, _: usize, _: Wake) -> anyhow::Result<Box<dyn Partition>> {
        anyhow::bail!(
            "what nodes send has no names without their births, which no broker keeps: they would have to be asked for them, and be told that \
             a host is there; run the pipeline to see what comes"
        )
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(ResolvedDecoder)
    }

    fn bounded(&self) -> bool {
        false
    }

    fn replayable(&self) -> bool {
        false
    }
}

struct SparkplugPartition {
    name: String,
    group: String,
    /// Where we say whether we are there.
    state: Option<String>,
    host: Host,
    queue: Arc<Queue>,
    connection: Connection,
    sessions: Sessions,
    /// For a clock that only goes forward.
    began: Instant,
    /// What came in and was not looked at.
    inbox: VecDeque<Item>,
    /// Batches that wait to be polled, and what is acknowledged with them.
    outbox: VecDeque<(RecordBatch, Vec<MessageAck>)>,
    /// Of messages that have added no batch yet.
    receipts: Vec<MessageAck>,
    unacknowledged: VecDeque<Vec<MessageAck>>,
    acknowledged: u64,
    taken: u64,
    has_ended: bool,
}

impl SparkplugPartition {
    fn now(&self) -> i64 {
        self.began.elapsed().as_micros() as i64
    }

    fn connected(&mut self, session_present: bool, at: i64) {
        self.host.distrust(self.now());
        if let Some(reason) = self.sessions.connected(session_present, at) {
            tracing::warn!("{}: {reason}", self.name);
            self.host.refuse(&self.group, self.taken, &reason);
        }
    }

    /// Word of ourselves that we are gone comes from a connection that was lost before: we are there.
    fn heard_of_us(&self, payload: &[u8]) {
        let said: Option<Value> = serde_json::from_slice(payload).ok();
        if said.is_some_and(|said| said["online"] == Value::Bool(false)) {
            self.connection.announce();
        }
    }

    fn take(&mut self, item: Item) {
        let message = match item {
            Item::Connected { session_present, at } => return self.connected(session_present, at),
            Item::Message(message) => message,
        };
        self.receipts.extend(message.receipt);
        if self.state.as_deref() == Some(&message.topic) {
            return self.heard_of_us(&message.payload);
        }
        self.taken += 1;
        self.sessions.message(message.received);
        if message.length > PAYLOAD_LIMIT {
            let reason = format!(
                "the payload has {} bytes, and {PAYLOAD_LIMIT} is the most that is read",
                message.length
            );
            return self.host.refuse(&message.topic, message.sequence, &reason);
        }
        let now = self.now();
        self.host.take(&Came {
            topic: &message.topic,
            payload: &message.payload,
            received: message.received,
            sequence: message.sequence,
            now,
        });
    }

    /// Lets time pass, and asks for the births that are wanted.
    fn tick(&mut self) {
        let wall = wall();
        for (group, node) in self.host.tick(self.now(), wall) {
            tracing::info!("{}: asks `{group}/{node}` for a rebirth", self.name);
            let payload = rebirth(wall / 1000);
            if !self.connection.try_send(&topic::command(&group, &node), payload) {
                tracing::warn!(
                    "{}: no room to ask `{group}/{node}` for a rebirth; trying again",
                    self.name
                );
            }
        }
    }

    /// Puts what there is into the outbox.
    fn finish(&mut self) -> anyhow::Result<()> {
        let mut receipts = std::mem::take(&mut self.receipts);
        let batches: Vec<RecordBatch> = self.host.finish()?.into_iter().flatten().collect();
        let count = batches.len();
        for (index, batch) in batches.into_iter().enumerate() {
            let last = index + 1 == count;
            let receipts = if last {
                std::mem::take(&mut receipts)
            } else {
                Vec::new()
            };
            self.outbox.push_back((batch, receipts));
        }
        // What added nothing is as safe as what came before it.
        match self.unacknowledged.back_mut() {
            Some(before) => before.extend(receipts),
            None => self.connection.acknowledge(receipts),
        }
        Ok(())
    }
}

impl Partition for SparkplugPartition {
    fn poll(&mut self) -> anyhow::Result<Poll> {
        let mut is_last = false;
        if self.outbox.is_empty() {
            if self.inbox.is_empty() {
                let (items, last) = self.queue.take();
                self.inbox.extend(items);
                is_last = last;
            }
            while self.host.pending() < BATCH_ROWS
                && let Some(item) = self.inbox.pop_front()
            {
                self.take(item);
            }
            is_last &= self.inbox.is_empty();
            anyhow::ensure!(
                !is_last || self.queue.is_stopping(),
                "the MQTT connection's thread has ended"
            );
            self.tick();
            if is_last && !std::mem::replace(&mut self.has_ended, true) {
                self.host.end();
            }
            self.finish()?;
        }
        Ok(match self.outbox.pop_front() {
            Some((batch, receipts)) => {
                self.unacknowledged.push_back(receipts);
                Poll::Batch(batch)
            }
            None if is_last => Poll::End,
            None => Poll::Idle,
        })
    }

    fn recall(&mut self, newest: &mut dyn Iterator<Item = RecordBatch>) {
        let mut last = None;
        for batch in newest {
            if let Ok(samples) = Samples::of(&batch) {
                last = samples.ts.iter().copied().max();
                break;
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
            && let Some(receipts) = self.unacknowledged.pop_front()
        {
            self.acknowledged += 1;
            self.connection.acknowledge(receipts);
        }
        Ok(())
    }

    fn position(&self) -> Position {
        let skipped = match self.host.skipped() {
            0 => String::new(),
            count => format!(", {count} values of types that are skipped"),
        };
        Position {
            text: format!(
                "{}: {} messages of {} edge nodes{skipped}",
                self.group,
                self.taken,
                self.host.nodes()
            ),
            fraction: None,
        }
    }
}

impl Drop for SparkplugPartition {
    fn drop(&mut self) {
        // The connection's thread may be waiting for room.
        self.queue.close();
    }
}

fn wall() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as i64)
}

/// The command by which a host asks for births.
fn rebirth(now_ms: i64) -> Vec<u8> {
    let timestamp = u64::try_from(now_ms).ok();
    let metric = Metric {
        name: Some("Node Control/Rebirth".into()),
        timestamp,
        datatype: Some(DataType::Boolean as u32),
        value: Some(MetricValue::Boolean(true)),
        ..Metric::default()
    };
    let payload = Payload {
        timestamp,
        metrics: vec![metric],
        ..Payload::default()
    };
    payload.write()
}

/// Raw batches are samples or dead letters already.
struct ResolvedDecoder;

impl Decoder for ResolvedDecoder {
    fn decode(&mut self, raw: &RecordBatch) -> anyhow::Result<Decoded> {
        let (samples, dead_letters) = (table::samples().schema, table::dead_letters().schema);
        let is = |schema: &arrow::datatypes::Schema| {
            let types = raw.columns().iter().map(ArrayRef::data_type);
            types.eq(schema.fields().iter().map(|field| field.data_type()))
        };
        let columns = || raw.columns().to_vec();
        if is(&samples) {
            Ok(Decoded {
                samples: RecordBatch::try_new(samples, columns())?,
                dead_letters: RecordBatch::new_empty(dead_letters),
            })
        } else if is(&dead_letters) {
            Ok(Decoded {
                samples: RecordBatch::new_empty(samples),
                dead_letters: RecordBatch::try_new(dead_letters, columns())?,
            })
        } else {
            anyhow::bail!("this is no raw batch of a Sparkplug source: an earlier version may have written it")
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        let check = |yaml: &str, expect: &[&str]| {
            let section = Section::from_yaml("line", yaml);
            let problems = build(&section).err().unwrap_or_default();
            let paths: Vec<String> = problems.iter().map(|problem| problem.path.join(".")).collect();
            assert_eq!(paths, expect, "{yaml}");
        };
        check("{url: 'mqtt://b'}", &[]);
        check(
            "{url: 'mqtts://b', group: plant, host_id: taktline, tls: {ca: ca.pem}}",
            &[],
        );
        check(
            "{url: 'mqtt://b', machine: '{node}.{device}', signal: '{device}-{metric}'}",
            &[],
        );
        check("{url: 'mqtt://b', machine: '{metric}'}", &["machine"]);
        check("{url: 'mqtt://b', signal: '{metrics}'}", &["signal"]);
        check("{url: 'mqtt://b', group: 'a/b', host_id: ''}", &["group", "host_id"]);
        check(
            "{url: 'mqtt://b', reorder_timeout: 500ms, rebirth_interval: 1min, birth_timeout: 1h}",
            &[],
        );
        check("{url: b}", &["url"]);
    }

    #[test]
    fn a_request_is_what_edge_nodes_wait_for() {
        let payload = Payload::read(&rebirth(7)).unwrap();
        let metric = &payload.metrics[0];
        assert_eq!(metric.name.as_deref(), Some("Node Control/Rebirth"));
        assert_eq!(metric.content(None).unwrap(), (Some(1.0), None));
        assert_eq!((payload.timestamp, payload.seq), (Some(7), None));
    }

    #[test]
    fn foreign_batches_are_refused() {
        let foreign = table::late().schema;
        assert!(ResolvedDecoder.decode(&RecordBatch::new_empty(foreign)).is_err());
    }
}
