//! The `kafka` source: reads topics from offsets that the checkpoints keep.
//!
//! It can be read again from an offset, so nothing stands between it and the dataflow. Each reader has two threads: one takes messages
//! from the client and gathers them to raw batches, the other finds partitions and looks after them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use rdkafka::Message as _;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::BorrowedMessage;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use taktline_engine::config::{Problem, Section};
use taktline_engine::kind::SourceKind;
use taktline_engine::{Decoder, Partition, Poll, Position, Source, Wake};

use super::connect::{Brokers, Mechanism};
use super::headers::Wanted;
use super::place::{self, Offsets};
use super::queue::Queue;
use super::topics::{Start, Topics};
use super::watch::{Bell, Client, Share, Watch, WatchState};
use crate::codec::decode::{Address, DecodeConfig, MessageDecoder, Reading};
use crate::codec::message::Message;
use crate::tls::TlsConfig;

/// The `kafka` source.
pub const KIND: SourceKind = SourceKind {
    name: "kafka",
    summary: "reads topics of Kafka from offsets that the checkpoints keep",
    schema: || schemars::schema_for!(KafkaSourceConfig),
    build,
};

/// Reads topics of Kafka. Offsets are kept in the checkpoints; the group is told for others to see. Only messages of transactions that
/// were committed are read. A message without a payload (a tombstone) says nothing about a machine: it is passed over, and counted in
/// the source's position. Rows of one machine stay in order when its messages are in one partition: give them its name as their key
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaSourceConfig {
    /// Addresses of some of the brokers: `kafka:9092`, or `a:9092,b:9092`
    pub brokers: String,
    /// Topics: a name, a list of names, or a pattern that begins with `^`: `^press-.*`. New topics and partitions are found within
    /// seconds while it runs, and read from their beginning
    pub topics: Topics,
    /// Consumer group that is told how far the checkpoints are, so that other tools show it. It is never asked, and must have no
    /// members. Default `taktline-` and the name of the source
    pub group: Option<String>,
    /// Where to begin when there is no checkpoint: `earliest`, `latest`, or a time such as `2026-01-31T06:00:00Z`, from which messages
    /// are read that the brokers took then or later. Default earliest
    #[serde(default)]
    pub start: Start,
    /// How many clients share the partitions, at most 64. One reads some hundred thousand messages a second. Default 1. May be changed
    /// between runs
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 64))]
    pub readers: usize,
    /// User to sign in as, with SASL
    pub user: Option<String>,
    /// Password of the user: `{env: NAME}` or `{file: /run/secrets/x}`
    pub password: Option<String>,
    /// How to sign in: `plain`, `scram-sha-256` or `scram-sha-512`. Default plain
    pub mechanism: Option<Mechanism>,
    /// How the connection is secured; `tls: {}` trusts whom the system trusts. Default: not at all
    pub tls: Option<TlsConfig>,
    /// How to read a payload
    pub decode: DecodeConfig,
    /// Name of the machine, from the message's `{topic}`, `{key}` or a header: `{header.machine}`. Default: as the payload says by `decode`,
    /// or `{key}`
    pub machine: Option<String>,
    /// Name of the signal, from the same names: `{header.signal}`. With `decode.values` also `{member}`, which is then the default
    pub signal: Option<String>,
}

fn one() -> usize {
    1
}

fn build(section: &Section) -> Result<Box<dyn Source>, Vec<Problem>> {
    let config: KafkaSourceConfig = section.parse()?;
    let mut problems = Vec::new();
    if !(1..=64).contains(&config.readers) {
        problems.push(Problem::at("readers", "must be between 1 and 64"));
    }
    let sign_in = (config.user, config.password);
    let brokers =
        Brokers::new(&config.brokers, sign_in, config.mechanism, config.tls).map_err(|found| problems.extend(found));
    let reading = reading(
        &section.name,
        &config.decode,
        config.machine.as_deref(),
        config.signal.as_deref(),
    )
    .map_err(|found| problems.extend(found.into_iter().map(without_topic_levels)));
    match (brokers, reading) {
        (Ok(brokers), Ok((reading, headers))) if problems.is_empty() => Ok(Box::new(KafkaSource {
            group: config.group.unwrap_or_else(|| format!("taktline-{}", section.name)),
            name: section.name.clone(),
            brokers,
            topics: config.topics,
            start: config.start,
            readers: config.readers,
            headers,
            reading,
        })),
        _ => Err(problems),
    }
}

/// How messages are read, and the headers that it needs.
fn reading(
    source: &str,
    decode: &DecodeConfig,
    machine: Option<&str>,
    signal: Option<&str>,
) -> Result<(Reading, Vec<String>), Vec<Problem>> {
    let templates = [machine.unwrap_or_default(), signal.unwrap_or_default()];
    let headers = headers_in(&templates);
    let address = Address {
        pattern: None,
        keyed: templates.iter().any(|template| template.contains("{key}")),
        headers: headers.clone(),
        ..Address::default()
    };
    match Reading::new(source, address, decode, machine, signal) {
        // Neither the setting nor the payload names it: then the key does.
        Err(found) if machine.is_none() && found.iter().any(|problem| is_unnamed(problem, "{machine}")) => {
            reading(source, decode, Some("{key}"), signal)
        }
        read => Ok((read?, headers)),
    }
}

/// True when nothing says what stands for this name.
fn is_unnamed(problem: &Problem, name: &str) -> bool {
    problem.path == ["topic"] && problem.message.contains(name)
}

/// The headers that templates ask for.
fn headers_in(templates: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for template in templates {
        for rest in template.split("{header.").skip(1) {
            if let Some((name, _)) = rest.split_once('}')
                && !found.iter().any(|known| known == name)
            {
                found.push(name.to_owned());
            }
        }
    }
    found
}

/// Kafka's topics have no levels to name.
fn without_topic_levels(problem: Problem) -> Problem {
    if !is_unnamed(&problem, "{signal}") {
        return problem;
    }
    Problem::at("signal", "nothing says which signal a message is about")
        .hint("write signal: pressure or signal: \"{header.signal}\", or say in `decode` where the payload names it")
}

struct KafkaSource {
    name: String,
    brokers: Brokers,
    topics: Topics,
    group: String,
    start: Start,
    readers: usize,
    headers: Vec<String>,
    reading: Reading,
}

impl Source for KafkaSource {
    fn partitions(&self) -> anyhow::Result<Vec<String>> {
        Ok((0..self.readers).map(|reader| self.reader_name(reader)).collect())
    }

    fn open(&self, partition: usize, from: Option<&Value>, wake: Wake) -> anyhow::Result<Box<dyn Partition>> {
        let mut known = from.map(place::from_json).transpose()?.flatten();
        if let Some(known) = &mut known {
            known.retain(|key, _| place::reader_of(key, self.readers) == partition);
        }
        self.brokers.check_files()?;
        let listener = self.brokers.listener(&self.name);
        let client = Client::from_config_and_context(&self.client_config(), listener)
            .with_context(|| format!("a client for {} (`brokers`, `tls`)", self.brokers.list()))?;
        let (client, queue, bell) = (Arc::new(client), Arc::new(Queue::new(wake)), Arc::new(Bell::default()));
        let watch = Watch {
            client: Arc::clone(&client),
            topics: self.topics.clone(),
            start: self.start,
            share: Share {
                reader: partition,
                readers: self.readers,
            },
            queue: Arc::clone(&queue),
            bell: Arc::clone(&bell),
            known: known.clone(),
            state: WatchState::default(),
        };
        let reader = Reader {
            client,
            queue: Arc::clone(&queue),
            bell: Arc::clone(&bell),
            headers: Wanted::new(&self.headers)?,
            keys: HashMap::new(),
            last: None,
        };
        let spawn = |what: &str, run: Box<dyn FnOnce() + Send>| {
            let name = format!("kafka {what} {}", self.name);
            std::thread::Builder::new()
                .name(name)
                .spawn(run)
                .context("starting a thread for Kafka")
        };
        spawn("watch", Box::new(move || watch.run()))?;
        spawn("read", Box::new(move || reader.run()))?;
        Ok(Box::new(KafkaPartition {
            queue,
            bell,
            topics: self.topics.to_string(),
            offsets: known,
            taken: 0,
        }))
    }

    fn read_on(&self, partition: &str, known: &BTreeMap<String, Value>) -> Option<Value> {
        // Another number of readers shares the partitions in another way.
        let merged = place::merge(known.values())?;
        // A reader that was stopped before it had found its partitions has still to begin where `start` says: to it they aren't new.
        let never_looked = known.get(partition).is_some_and(Value::is_null);
        let own = |key: &String| partition == self.reader_name(place::reader_of(key, self.readers));
        if never_looked && !merged.as_object().is_some_and(|keys| keys.keys().any(own)) {
            return None;
        }
        Some(merged)
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(MessageDecoder::new(self.reading.clone()))
    }

    fn bounded(&self) -> bool {
        false
    }

    fn replayable(&self) -> bool {
        true
    }
}

impl KafkaSource {
    fn reader_name(&self, reader: usize) -> String {
        format!("reader {} of {}", reader + 1, self.readers)
    }

    fn client_config(&self) -> rdkafka::ClientConfig {
        let mut config = self.brokers.config();
        config
            .set("group.id", &self.group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("allow.auto.create.topics", "false")
            // What is fetched ahead, and how soon more is fetched once there is room again: a second would be a hole in the stream.
            .set("queued.max.messages.kbytes", "32768")
            .set("fetch.queue.backoff.ms", "5")
            .set("fetch.wait.max.ms", "100")
            .set("fetch.error.backoff.ms", "200")
            // A single message may be larger than what is fetched at once.
            .set("receive.message.max.bytes", "536870912")
            .set("topic.metadata.refresh.interval.ms", "10000");
        config
    }
}

/// The thread that takes messages from the client.
struct Reader {
    client: Arc<Client>,
    queue: Arc<Queue>,
    bell: Arc<Bell>,
    headers: Wanted,
    keys: HashMap<String, Vec<Option<Arc<str>>>>,
    /// The last message's partition; most come in runs.
    last: Option<(String, i32, Arc<str>)>,
}

/// How long to wait for a message; only a stop waits for it.
const PATIENCE: Duration = Duration::from_millis(100);
/// How far ahead of the clock a message's time may be before its arrival is taken instead: somebody sent µs for ms.
const AHEAD_LIMIT_US: i64 = 300_000_000;

impl Reader {
    fn run(mut self) {
        // A message borrows the client; the reader must stay free to be changed.
        let client = Arc::clone(&self.client);
        while self.queue.wait_for_room() && !self.bell.stopped() {
            let Some(polled) = client.poll(PATIENCE) else { continue };
            let taken = match polled {
                Ok(message) => self.take(&message),
                Err(error) => self.hear(&error),
            };
            if let Err(error) = taken {
                self.queue.fail(error);
                return;
            }
        }
    }

    fn take(&mut self, message: &BorrowedMessage<'_>) -> anyhow::Result<()> {
        let (topic, partition) = (message.topic(), message.partition());
        let key = match &self.last {
            Some((last_topic, last_partition, key)) if *last_partition == partition && last_topic == topic => {
                key.clone()
            }
            _ => {
                let key = self.key(topic, partition);
                self.last = Some((topic.to_owned(), partition, Arc::clone(&key)));
                key
            }
        };
        let headers = self.headers.of(message);
        let read = message.payload().map(|payload| Message {
            topic,
            key: message.key(),
            headers: &headers,
            payload,
            received: received(message.timestamp().to_millis()),
            sequence: message.offset() as u64,
        });
        self.queue.push(&key, message.offset() + 1, read)
    }

    fn key(&mut self, topic: &str, partition: i32) -> Arc<str> {
        if !self.keys.contains_key(topic) {
            self.keys.insert(topic.to_owned(), Vec::new());
        }
        let of_topic = self.keys.entry(topic.to_owned()).or_default();
        let index = partition.max(0) as usize;
        if of_topic.len() <= index {
            of_topic.resize(index + 1, None);
        }
        of_topic[index]
            .get_or_insert_with(|| place::key(topic, partition).into())
            .clone()
    }

    /// # Errors
    /// What the client says means that reading can't go on.
    fn hear(&self, error: &KafkaError) -> anyhow::Result<()> {
        use RDKafkaErrorCode as Code;
        match error.rdkafka_error_code() {
            Some(Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation) => {
                self.bell.suspect(error.to_string());
            }
            Some(Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition) => self.bell.look(),
            Some(code @ (Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed)) => {
                let setting = if code == Code::TopicAuthorizationFailed {
                    "topics"
                } else {
                    "group"
                };
                anyhow::bail!("the broker refuses to let us read: {error}; check `{setting}` and the rights of `user`");
            }
            Some(Code::BadMessage) if self.client.context().is_foreign(&error.to_string()) => {}
            Some(Code::BadMessage | Code::BadCompression | Code::InvalidMessage | Code::InvalidMessageSize) => {
                anyhow::bail!("a batch of messages on the broker is damaged: {error}");
            }
            _ if matches!(error, KafkaError::MessageConsumptionFatal(_)) => anyhow::bail!("reading ended: {error}"),
            // A broker that is away comes back; the watching thread says so.
            _ => tracing::debug!("{error}"),
        }
        Ok(())
    }
}

/// When a message came: as the broker or its sender says, unless that can't be.
fn received(ms: Option<i64>) -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_micros() as i64);
    ms.filter(|ms| *ms > 0)
        .and_then(|ms| ms.checked_mul(1000))
        .filter(|us| *us <= now + AHEAD_LIMIT_US)
        .unwrap_or(now)
}

struct KafkaPartition {
    queue: Arc<Queue>,
    bell: Arc<Bell>,
    topics: String,
    /// The next offset of each partition; none before they were looked for.
    offsets: Option<Offsets>,
    taken: u64,
}

impl Partition for KafkaPartition {
    fn poll(&mut self) -> anyhow::Result<Poll> {
        let taken = self.queue.take()?;
        if let Some(found) = taken.found {
            let offsets = self.offsets.get_or_insert_default();
            // One that was known is read from where it was known to be.
            for (key, next) in found {
                offsets.entry(key).or_insert(next);
            }
        }
        for (key, next) in taken.next {
            let offsets = self.offsets.get_or_insert_default();
            match offsets.get_mut(&*key) {
                Some(at) => *at = next,
                None => drop(offsets.insert(key.to_string(), next)),
            }
        }
        let Some(batch) = taken.batch else {
            return Ok(Poll::Idle);
        };
        self.taken += batch.num_rows() as u64;
        Ok(Poll::Batch(batch))
    }

    fn offset(&self) -> Value {
        self.offsets.as_ref().map_or(Value::Null, place::to_json)
    }

    fn committed(&mut self, offset: &Value) {
        if let Ok(Some(offsets)) = place::from_json(offset) {
            self.bell.commit(offsets);
        }
    }

    fn lag(&self) -> Option<u64> {
        self.queue.lag(self.offsets.as_ref()?)
    }

    fn position(&self) -> Position {
        let tombstones = match self.queue.tombstones() {
            0 => String::new(),
            count => format!(", {count} tombstones passed over"),
        };
        let lag = self.lag().map_or_else(String::new, |lag| format!(", {lag} behind"));
        Position {
            text: format!("{}: {} messages{lag}{tombstones}", self.topics, self.taken),
            fraction: None,
        }
    }
}

impl Drop for KafkaPartition {
    fn drop(&mut self) {
        // The threads end by themselves: waiting for them would wait for a broker that may be away.
        self.bell.stop();
        self.queue.close();
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
