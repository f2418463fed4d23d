//! What was published, as Kafka itself knows it: records in a compacted topic, written in the transactions of the rows.
//!
//! Not the offsets of a consumer group, which could be written in a transaction as well: brokers forget those a week after their group was
//! last used, and a pipeline may rest for longer.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::executor::block_on;
use rdkafka::Message;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};
use serde::{Deserialize, Serialize};

use super::connect::{Brokers, Listener};

/// How far a sink has published.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {
    pub checkpoint: u64,
    /// Rows of this checkpoint that are published; it is whole when they are `of`.
    pub rows: u64,
    pub of: u64,
}

impl Progress {
    /// True when all of a checkpoint is published.
    pub(crate) fn covers(&self, checkpoint: u64) -> bool {
        self.checkpoint > checkpoint || self.checkpoint == checkpoint && self.rows >= self.of
    }
}

/// How long a broker may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How long reading the topic may take before it is tried anew.
const READ_WITHIN: Duration = Duration::from_secs(60);

/// Why the progress isn't known.
pub(crate) enum Unknown {
    /// No broker answers.
    Away(KafkaError),
    /// It can't be known.
    Over(anyhow::Error),
}

impl From<KafkaError> for Unknown {
    fn from(error: KafkaError) -> Self {
        Unknown::Away(error)
    }
}

/// Makes the topic if it isn't there.
pub(crate) fn make_topic(brokers: &Brokers, name: &str, topic: &str) -> Result<(), Unknown> {
    let mut config = brokers.config();
    // Asking for a topic would make it, and not compacted: brokers forget what is in it after a week.
    config.set("allow.auto.create.topics", "false");
    let admin = AdminClient::from_config_and_context(&config, brokers.listener(name))?;
    let there = |metadata: rdkafka::metadata::Metadata| {
        metadata
            .topics()
            .iter()
            .any(|found| found.name() == topic && found.error().is_none() && !found.partitions().is_empty())
    };
    if there(admin.inner().fetch_metadata(Some(topic), ANSWER)?) {
        return Ok(());
    }
    let new = NewTopic::new(topic, 1, TopicReplication::Fixed(-1))
        .set("cleanup.policy", "compact")
        // Only closed segments are compacted; without this the topic would grow for a week before.
        .set("segment.ms", "86400000");
    let options = AdminOptions::new()
        .request_timeout(Some(ANSWER))
        .operation_timeout(Some(ANSWER));
    let made = block_on(admin.create_topics([&new], &options))?;
    let deadline = Instant::now() + ANSWER;
    for result in made {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((_, code)) => {
                return Err(Unknown::Over(anyhow::anyhow!(
                    "the topic `{topic}` (`progress_topic`) is not there and can't be made: {code}; make it with one partition and \
                     cleanup.policy=compact, or give `user` the right to"
                )));
            }
        }
    }
    // Made is not yet known everywhere.
    loop {
        if there(admin.inner().fetch_metadata(Some(topic), ANSWER)?) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Unknown::Away(KafkaError::MetadataFetch(
                RDKafkaErrorCode::UnknownTopicOrPartition,
            )));
        }
        std::thread::sleep(Duration::from_millis(20)); // between two looks
    }
}

/// The newest record under `key` of a transaction that was committed. Transactions of ours must have come to their end; those of others
/// that are open are waited for, since ours may stand behind them.
pub(crate) fn read(brokers: &Brokers, name: &str, topic: &str, key: &str) -> Result<Option<Progress>, Unknown> {
    let partitions = ends(brokers, name, topic)?;
    let mut config = brokers.config();
    config
        .set("group.id", key)
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("isolation.level", "read_committed");
    let consumer: BaseConsumer<Listener> = BaseConsumer::from_config_and_context(&config, brokers.listener(name))?;
    let deadline = Instant::now() + READ_WITHIN;
    let late = || Unknown::Away(KafkaError::Global(RDKafkaErrorCode::OperationTimedOut));
    let ids = || partitions.iter().map(|(partition, _)| *partition);
    loop {
        let stable = consumer.offsets_for_times(list(topic, ids(), Offset::End)?, ANSWER)?;
        let stable = stable.elements();
        let reached = |(partition, end): &(i32, i64)| {
            let found = stable.iter().find(|element| element.partition() == *partition);
            found
                .and_then(|element| element.offset().to_raw())
                .is_some_and(|stable| stable >= *end)
        };
        if partitions.iter().all(reached) {
            break;
        }
        if Instant::now() > deadline {
            return Err(late());
        }
        std::thread::sleep(Duration::from_millis(50)); // between two looks
    }
    consumer.assign(&list(topic, ids(), Offset::Beginning)?)?;
    let mut open: BTreeSet<i32> = ids().collect();
    let mut newest = None;
    while !open.is_empty() {
        match consumer.poll(Duration::from_millis(100)) {
            None if Instant::now() > deadline => return Err(late()),
            None => {}
            Some(Err(KafkaError::PartitionEOF(partition))) => drop(open.remove(&partition)),
            Some(Err(error)) if is_passing(&error) => {}
            Some(Err(error)) => {
                return Err(Unknown::Over(anyhow::anyhow!(
                    "reading `{topic}` (`progress_topic`): {error}"
                )));
            }
            Some(Ok(message)) => {
                if message.key() != Some(key.as_bytes()) {
                    continue;
                }
                if let Some(payload) = message.payload() {
                    let progress: Progress = serde_json::from_slice(payload).map_err(|e| {
                        Unknown::Over(anyhow::anyhow!(
                            "`{topic}` (`progress_topic`) holds something else under `{key}`: {e}"
                        ))
                    })?;
                    newest = Some(progress); // all of a key are in one partition, in the order they were written
                }
            }
        }
    }
    Ok(newest)
}

fn is_passing(error: &KafkaError) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        error.rdkafka_error_code(),
        Some(
            Code::BrokerTransportFailure
                | Code::AllBrokersDown
                | Code::OperationTimedOut
                | Code::Resolve
                | Code::Authentication
                | Code::SSL
        )
    )
}

/// The partitions and where they end, open transactions included.
fn ends(brokers: &Brokers, name: &str, topic: &str) -> KafkaResult<Vec<(i32, i64)>> {
    let mut config = brokers.config();
    config.set("isolation.level", "read_uncommitted");
    let client: BaseConsumer<Listener> = BaseConsumer::from_config_and_context(&config, brokers.listener(name))?;
    let metadata = client.fetch_metadata(Some(topic), ANSWER)?;
    let partitions = metadata.topics().iter().flat_map(|topic| topic.partitions());
    partitions
        .map(|partition| {
            Ok((
                partition.id(),
                client.fetch_watermarks(topic, partition.id(), ANSWER)?.1,
            ))
        })
        .collect()
}

fn list(topic: &str, partitions: impl Iterator<Item = i32>, offset: Offset) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for partition in partitions {
        list.add_partition_offset(topic, partition, offset)?;
    }
    Ok(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_covers_what_was_published_whole() {
        let at = |checkpoint, rows, of| Progress { checkpoint, rows, of };
        let check =
            |progress: Progress, checkpoint, expect| assert_eq!(progress.covers(checkpoint), expect, "{progress:?}");
        check(Progress::default(), 1, false);
        check(at(5, 10, 10), 5, true);
        check(at(5, 10, 10), 4, true);
        check(at(5, 10, 10), 6, false);
        check(at(5, 9, 10), 5, false);
        check(at(5, 9, 10), 4, true);
    }
}
