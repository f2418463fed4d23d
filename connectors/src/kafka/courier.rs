//! From the outbox to the topics: in transactions that carry how far the sink is, or as they come.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use taktline_engine::fault;

use super::connect::{Brokers, Listener};
use super::outbox::{self, Letter, Lot};
use super::progress::{self, Progress, Unknown};

/// How long a broker may take to answer before it is said that it doesn't.
const ANSWER: Duration = Duration::from_secs(5);
/// How soon it is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// A transaction carries about so much at most, so that it is over long before a broker gives it up, however large a checkpoint is.
const PART_BYTES: usize = 16 << 20;
const PART_ROWS: usize = 50_000;

/// What all producers of a sink have in common.
#[derive(Clone)]
pub(crate) struct Sending {
    pub name: String,
    pub brokers: Brokers,
    pub compression: &'static str,
}

impl Sending {
    fn producer(&self, transactional_id: Option<&str>) -> anyhow::Result<BaseProducer<Listener>> {
        let mut config = self.brokers.config();
        config
            .set("enable.idempotence", "true")
            // Where Kafka's own clients put the same key.
            .set("partitioner", "murmur2_random")
            .set("compression.type", self.compression)
            // How long a topic may be unknown before rows to it are refused.
            .set("topic.metadata.propagation.max.ms", "10000")
            .set("message.max.bytes", "104857600")
            .set("queue.buffering.max.kbytes", "65536");
        match transactional_id {
            Some(id) => config
                .set("transactional.id", id)
                .set("transaction.timeout.ms", "60000"),
            // A message waits for its broker as long as the sink does.
            None => config.set("message.timeout.ms", "0"),
        };
        BaseProducer::from_config_and_context(&config, self.brokers.listener(&self.name))
            .with_context(|| format!("a client for {} (`brokers`, `tls`)", self.brokers.list()))
    }
}

/// A letter that can't be sent now.
enum Stuck {
    /// Try the same again.
    Again(KafkaError),
    /// End the transaction, and try all of it again.
    Abort(KafkaError),
    Over(anyhow::Error),
}

/// What no broker will take the second time either.
fn is_lasting(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::MessageSizeTooLarge
            | Code::InvalidMessageSize
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicOrPartition
            | Code::InvalidTopic
            | Code::TopicAuthorizationFailed
            | Code::ClusterAuthorizationFailed
            | Code::TransactionalIdAuthorizationFailed
            | Code::InvalidRecord
            | Code::PolicyViolation
            | Code::InvalidTransactionTimeout
    )
}

/// Says why a letter can't be sent, with the setting that mends it.
fn undeliverable(error: &KafkaError) -> anyhow::Error {
    use RDKafkaErrorCode as Code;
    let setting = match error.rdkafka_error_code() {
        Some(Code::MessageSizeTooLarge | Code::InvalidMessageSize) => {
            "a row is larger than the broker takes; raise `max.message.bytes` of the topic"
        }
        Some(Code::UnknownTopic | Code::UnknownPartition | Code::UnknownTopicOrPartition) => {
            "the topic (`topic`) is not there; make it, or let the broker make it: auto.create.topics.enable"
        }
        Some(Code::InvalidTopic) => "check `topic`",
        _ => "check `topic` and the rights of `user`",
    };
    anyhow::anyhow!("the broker takes no rows: {error}; {setting}")
}

/// Sends one letter; waits while the client's queue is full.
fn send(producer: &BaseProducer<Listener>, letter: &Letter) -> Result<(), Stuck> {
    let mut record: BaseRecord<'_, [u8], [u8]> = BaseRecord::to(&letter.topic).payload(&letter.payload);
    record.key = letter.key.as_deref();
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((error, back)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                record = back;
                producer.poll(Duration::from_millis(50));
                undelivered(producer)?;
            }
            Err((error, _)) if error.rdkafka_error_code().is_some_and(is_lasting) => {
                return Err(Stuck::Over(undeliverable(&error)));
            }
            Err((error, _)) => return Err(Stuck::Abort(error)),
        }
    }
}

/// # Errors
/// A message could not be delivered.
fn undelivered(producer: &BaseProducer<Listener>) -> Result<(), Stuck> {
    match producer.context().take_undelivered() {
        None => Ok(()),
        Some(error) if error.rdkafka_error_code().is_some_and(is_lasting) => Err(Stuck::Over(undeliverable(&error))),
        Some(error) => Err(Stuck::Abort(error)),
    }
}

/// Sends letters as they come: each at least once.
pub(crate) struct Post {
    producer: BaseProducer<Listener>,
}

impl Post {
    pub(crate) fn open(sending: &Sending) -> anyhow::Result<Self> {
        Ok(Post {
            producer: sending.producer(None)?,
        })
    }

    pub(crate) fn send(&mut self, letter: &Letter) -> anyhow::Result<()> {
        loop {
            match send(&self.producer, letter) {
                Ok(()) => return Ok(()),
                Err(Stuck::Over(error)) => return Err(error),
                Err(Stuck::Again(error) | Stuck::Abort(error)) => self.wait_after(&error)?,
            }
        }
    }

    /// Blocks until the brokers have all of it.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        loop {
            let flushed = self.producer.flush(Duration::from_secs(1));
            match undelivered(&self.producer) {
                Ok(()) => {}
                Err(Stuck::Over(error)) => return Err(error),
                // The client has given up on it, which it does not for a broker that is away.
                Err(Stuck::Again(error) | Stuck::Abort(error)) => return Err(undeliverable(&error)),
            }
            match flushed {
                Ok(()) => {
                    self.producer.context().met();
                    return Ok(());
                }
                Err(error) => self.producer.context().away(&error)?,
            }
        }
    }

    fn wait_after(&self, error: &KafkaError) -> anyhow::Result<()> {
        self.producer.context().away(error)?;
        self.producer.poll(RETRY);
        Ok(())
    }
}

/// Sends what was staged, each letter exactly once.
pub(crate) struct Courier {
    sending: Sending,
    progress_topic: String,
    folder: PathBuf,
    /// Whose transactions these are, and the key of our progress: the same in every run that goes on with the same state.
    id: String,
    session: Option<Session>,
}

/// A producer that no other one of our id is before, and what was published when it began.
struct Session {
    producer: BaseProducer<Listener>,
    progress: Progress,
}

impl Courier {
    pub(crate) fn new(sending: Sending, progress_topic: String, folder: PathBuf, id: String) -> Self {
        Courier {
            sending,
            progress_topic,
            folder,
            id,
            session: None,
        }
    }

    /// Where the outbox is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// How far the sink has published. From here on, an older run's transactions fail. Waits for the brokers.
    pub(crate) fn progress(&mut self) -> anyhow::Result<Progress> {
        Ok(self.session()?.progress)
    }

    /// Takes nothing for published: what comes now has nothing to do with it.
    pub(crate) fn forget_progress(&mut self) {
        if let Some(session) = &mut self.session {
            session.progress = Progress::default();
        }
    }

    fn session(&mut self) -> anyhow::Result<&mut Session> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.begin()?,
        };
        Ok(self.session.insert(session))
    }

    fn begin(&self) -> anyhow::Result<Session> {
        let producer = self.sending.producer(Some(&self.id))?;
        // First the fence: what an older run has on its way is over when this returns.
        self.persist(&producer, || producer.init_transactions(ANSWER))
            .map_err(|stuck| self.told(stuck))?;
        let (brokers, name) = (&self.sending.brokers, &self.sending.name);
        let progress = loop {
            let found = progress::make_topic(brokers, name, &self.progress_topic)
                .and_then(|()| progress::read(brokers, name, &self.progress_topic, &self.id));
            match found {
                Ok(found) => break found.unwrap_or_default(),
                Err(Unknown::Over(error)) => return Err(error),
                Err(Unknown::Away(error)) => {
                    producer.context().away(&error)?;
                    producer.poll(RETRY);
                }
            }
        };
        producer.context().met();
        Ok(Session { producer, progress })
    }

    /// Publishes what was staged for a checkpoint, as far as it isn't yet, and removes it from the outbox. Waits for the brokers.
    ///
    /// # Errors
    /// Another run has taken over; the brokers take no rows; the outbox is damaged.
    pub(crate) fn deliver(&mut self, checkpoint: u64, lots: &[Lot]) -> anyhow::Result<()> {
        if !self.progress()?.covers(checkpoint) {
            self.send_all(checkpoint, lots)?;
        }
        fault::point("kafka.published")?;
        outbox::remove(&self.folder, lots)
    }

    fn send_all(&mut self, checkpoint: u64, lots: &[Lot]) -> anyhow::Result<()> {
        let of = lots.iter().map(|lot| lot.rows).sum();
        let begun = self.progress()?;
        let done = if begun.checkpoint == checkpoint { begun.rows } else { 0 };
        let folder = self.folder.clone();
        let (mut rows, mut part, mut bytes) = (0, Vec::new(), 0);
        for lot in lots {
            outbox::read(&folder, lot, &mut |letter| {
                rows += 1;
                if rows <= done {
                    return Ok(()); // in a transaction of its own, before a crash
                }
                bytes += letter.bytes();
                part.push(letter);
                if bytes >= PART_BYTES || part.len() >= PART_ROWS {
                    self.transact(&part, Progress { checkpoint, rows, of })?;
                    part.clear();
                    bytes = 0;
                }
                Ok(())
            })?;
        }
        if part.is_empty() && rows > 0 {
            Ok(())
        } else {
            self.transact(&part, Progress { checkpoint, rows, of })
        }
    }

    /// Sends letters, and how far they bring us, in one transaction. Tries until it succeeds.
    fn transact(&mut self, part: &[Letter], progress: Progress) -> anyhow::Result<()> {
        loop {
            self.session()?;
            let Some(session) = &self.session else { continue };
            match self.try_transact(&session.producer, part, progress) {
                Ok(()) => {
                    session.producer.context().met();
                    if let Some(session) = &mut self.session {
                        session.progress = progress;
                    }
                    return Ok(());
                }
                Err(Stuck::Over(error)) => return Err(error),
                Err(Stuck::Again(error) | Stuck::Abort(error)) => {
                    session.producer.context().away(&error)?;
                    // What it had not sent yet is thrown away, which comes as deliveries that failed: no news.
                    self.persist(&session.producer, || session.producer.abort_transaction(ANSWER))
                        .map_err(|stuck| self.told(stuck))?;
                    session.producer.poll(RETRY);
                }
            }
        }
    }

    fn try_transact(
        &self,
        producer: &BaseProducer<Listener>,
        part: &[Letter],
        progress: Progress,
    ) -> Result<(), Stuck> {
        let at = |name: &str| fault::point(name).map_err(|e| Stuck::Over(e.into()));
        at("kafka.begin")?;
        self.persist(producer, || producer.begin_transaction())?;
        producer.context().take_undelivered();
        for letter in part {
            send(producer, letter)?;
        }
        at("kafka.sent")?;
        let letter = Letter {
            topic: self.progress_topic.clone(),
            key: Some(self.id.clone().into_bytes()),
            payload: serde_json::to_vec(&progress).map_err(|e| Stuck::Over(e.into()))?,
        };
        send(producer, &letter)?;
        // Nothing is committed while something is still on its way, so a delivery that failed is known here.
        while let Err(error) = producer.flush(ANSWER) {
            undelivered(producer)?;
            producer.context().away(&error).map_err(Stuck::Over)?;
            producer.poll(RETRY);
        }
        undelivered(producer)?;
        at("kafka.commit")?;
        self.persist(producer, || producer.commit_transaction(ANSWER))?;
        at("kafka.committed")
    }

    /// Does a step of a transaction until it is done or can't be.
    fn persist(
        &self,
        producer: &BaseProducer<Listener>,
        step: impl Fn() -> Result<(), KafkaError>,
    ) -> Result<(), Stuck> {
        loop {
            let Err(error) = step() else { return Ok(()) };
            producer.poll(Duration::ZERO);
            match self.judge(error) {
                Stuck::Again(error) => {
                    producer.context().away(&error).map_err(Stuck::Over)?;
                    producer.poll(RETRY);
                }
                stuck => return Err(stuck),
            }
        }
    }

    fn judge(&self, error: KafkaError) -> Stuck {
        use RDKafkaErrorCode as Code;
        match &error {
            KafkaError::Transaction(failed) => match failed.code() {
                Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch => Stuck::Over(anyhow::anyhow!(
                    "another run publishes with the same state (transactional id `{}`), or a transaction took longer than a minute: {failed}",
                    self.id
                )),
                code if is_lasting(code) => Stuck::Over(undeliverable(&error)),
                _ if failed.is_fatal() => Stuck::Over(anyhow::anyhow!("the client can't go on: {failed}")),
                _ if failed.txn_requires_abort() => Stuck::Abort(error),
                _ if failed.is_retriable() => Stuck::Again(error),
                _ => Stuck::Over(anyhow::anyhow!("a transaction can't go on: {failed}")),
            },
            _ => Stuck::Abort(error),
        }
    }

    /// A step that has no transaction to abort.
    fn told(&self, stuck: Stuck) -> anyhow::Error {
        match stuck {
            Stuck::Over(error) => error,
            Stuck::Again(error) | Stuck::Abort(error) => anyhow::anyhow!("a transaction can't go on: {error}"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use rdkafka::mocking::MockCluster;
    use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

    use super::super::outbox::Outbox;
    use super::*;

    #[test]
    fn a_transaction_that_fails_in_its_middle_is_done_again() {
        let cluster = MockCluster::new(1).unwrap();
        for topic in ["rows", "progress"] {
            cluster.create_topic(topic, 1, 1).unwrap();
        }
        let dir = tempfile::tempdir().unwrap();
        let mut outbox = Outbox::new(dir.path().to_owned(), 1);
        let rows = u64::try_from(PART_ROWS).unwrap();
        for row in 0..rows {
            outbox.push("rows", None, row.to_string().as_bytes()).unwrap();
        }
        let lots = [outbox.finish().unwrap().unwrap()];
        let sending = Sending {
            name: "out".into(),
            brokers: Brokers::new(&cluster.bootstrap_servers(), (None, None), None, None).unwrap(),
            compression: "none",
        };
        let mut courier = Courier::new(
            sending,
            "progress".into(),
            dir.path().to_owned(),
            "taktline-out-1".into(),
        );
        assert_eq!(courier.progress().unwrap(), Progress::default());
        // The first batch of rows; more of them are still in the client then.
        let refused = RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_REQUIRED_ACKS;
        cluster.request_errors(RDKafkaApiKey::Produce, &[refused]);
        courier.deliver(1, &lots).unwrap();
        let expect = Progress {
            checkpoint: 1,
            rows,
            of: rows,
        };
        assert_eq!(courier.progress().unwrap(), expect);
    }
}
