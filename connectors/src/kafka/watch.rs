//! The thread that finds the partitions, has them read from the right place, and looks after them while they are read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

use super::connect::Listener;
use super::place::{self, Offsets};
use super::queue::Queue;
use super::topics::{Start, Topics};

/// How often new topics and partitions are looked for, and the brokers asked where the partitions end.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How soon it is tried again when no broker answers, or a topic isn't there.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How long a broker may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// How often a topic must be missing before it counts as deleted: a broker that has just started may not know all yet.
const MISSING_LOOKS: u32 = 3;

pub(crate) type Client = BaseConsumer<Listener>;

/// What the watching thread is told.
#[derive(Default)]
pub(crate) struct Bell {
    told: Mutex<Told>,
    rung: Condvar,
}

#[derive(Default)]
struct Told {
    stop: bool,
    /// The reading thread was told that an offset isn't there.
    suspect: Option<String>,
    /// The brokers may have changed something.
    look: bool,
    /// Offsets that are in a checkpoint.
    commit: Option<Offsets>,
}

impl Bell {
    fn lock(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, what: impl FnOnce(&mut Told)) {
        what(&mut self.lock());
        self.rung.notify_all();
    }

    pub(crate) fn stop(&self) {
        self.tell(|told| told.stop = true);
    }

    pub(crate) fn stopped(&self) -> bool {
        self.lock().stop
    }

    pub(crate) fn suspect(&self, reason: String) {
        self.tell(|told| told.suspect = Some(reason));
    }

    pub(crate) fn look(&self) {
        self.tell(|told| told.look = true);
    }

    pub(crate) fn commit(&self, offsets: Offsets) {
        self.tell(|told| told.commit = Some(offsets));
    }

    /// Waits until something was told, at most this long.
    fn wait(&self, at_most: Duration) -> Told {
        let nothing = |told: &mut Told| !told.stop && told.suspect.is_none() && !told.look && told.commit.is_none();
        let waited = self.rung.wait_timeout_while(self.lock(), at_most, nothing);
        let (mut told, _) = waited.unwrap_or_else(PoisonError::into_inner);
        let stop = told.stop;
        Told {
            stop,
            ..std::mem::take(&mut *told)
        }
    }
}

/// Why a look did not succeed.
enum Trouble {
    /// No broker answers; it may come back.
    Away(KafkaError),
    /// Reading can't go on.
    Over(anyhow::Error),
}

impl From<KafkaError> for Trouble {
    fn from(error: KafkaError) -> Self {
        Trouble::Away(error)
    }
}

/// Which partitions one reader reads.
pub(crate) struct Share {
    pub reader: usize,
    pub readers: usize,
}

pub(crate) struct Watch {
    pub client: Arc<Client>,
    pub topics: Topics,
    pub start: Start,
    pub share: Share,
    pub queue: Arc<Queue>,
    pub bell: Arc<Bell>,
    /// Where partitions are read on; none before they were looked for the first time, ever.
    pub known: Option<Offsets>,
    pub state: WatchState,
}

/// What the watch remembers.
#[derive(Default)]
pub(crate) struct WatchState {
    assigned: BTreeSet<String>,
    missing: BTreeMap<String, u32>,
    warned: BTreeSet<String>,
    committed: Offsets,
}

impl Watch {
    /// Runs until it is stopped, or reading can't go on.
    pub(crate) fn run(mut self) {
        let mut next = Instant::now();
        loop {
            let told = self.bell.wait(next.saturating_duration_since(Instant::now()));
            if told.stop {
                return;
            }
            if let Some(offsets) = told.commit {
                self.commit(offsets);
            }
            let looked = match told.suspect {
                Some(reason) => self.explain(&reason),
                None if told.look || Instant::now() >= next => self.look(),
                None => continue,
            };
            let pause = match looked {
                Ok(pause) => {
                    self.client.context().met();
                    pause
                }
                Err(Trouble::Away(error)) => match self.client.context().away(&error) {
                    Ok(()) => RETRY_EVERY,
                    Err(refused) => return self.queue.fail(refused),
                },
                Err(Trouble::Over(error)) => return self.queue.fail(error),
            };
            next = Instant::now() + pause;
        }
    }

    /// Looks for partitions, has new ones read, and asks where all end.
    fn look(&mut self) -> Result<Duration, Trouble> {
        let (there, complete) = self.there()?;
        if let Some(key) = self.state.assigned.iter().find(|key| complete && !there.contains(*key)) {
            let (topic, partition) = place::split(key).unwrap_or((key, 0));
            return Err(Trouble::Over(anyhow::anyhow!(
                "topic `{topic}` has no partition {partition} any more: it was made anew; forget its offsets with --fresh {}",
                self.client.context().name()
            )));
        }
        let own = |key: &&String| place::reader_of(key, self.share.readers) == self.share.reader;
        let new: Vec<String> = there
            .iter()
            .filter(own)
            .filter(|key| !self.state.assigned.contains(*key))
            .cloned()
            .collect();
        let mut pause = if complete { LOOK_EVERY } else { RETRY_EVERY };
        if !self.read_from(&new)? {
            pause = RETRY_EVERY;
        }
        if self.known.is_none() {
            // Every partition that comes from now on is a new one, and read from its beginning.
            self.known = Some(Offsets::new());
            self.queue.found(Offsets::new());
        }
        let assigned = list(self.state.assigned.iter(), Offset::End)?;
        self.queue.ends(
            self.ask(assigned)?
                .into_iter()
                .filter_map(|(key, end)| Some((key, end.ok()?)))
                .collect(),
        );
        Ok(pause)
    }

    /// The partitions of all our topics, and whether all topics are there.
    fn there(&mut self) -> Result<(BTreeSet<String>, bool), Trouble> {
        let mut found: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        let mut take = |metadata: &rdkafka::metadata::Metadata, wanted: &dyn Fn(&str) -> bool| {
            for topic in metadata.topics().iter().filter(|topic| wanted(topic.name())) {
                match topic.error().map(RDKafkaErrorCode::from) {
                    None => {
                        let partitions = topic.partitions().iter().map(rdkafka::metadata::MetadataPartition::id);
                        found.insert(topic.name().to_owned(), partitions.collect());
                    }
                    Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic) => {}
                    Some(code @ (RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::InvalidTopic)) => {
                        let (name, why) = (topic.name(), KafkaError::MetadataFetch(code));
                        return Err(Trouble::Over(anyhow::anyhow!(
                            "the topic `{name}` (`topics`) can't be read: {why}; check `topics` and the rights of `user`"
                        )));
                    }
                    Some(code) => return Err(Trouble::Away(KafkaError::MetadataFetch(code))),
                }
            }
            Ok(())
        };
        if self.topics.has_pattern() {
            take(&self.client.fetch_metadata(None, ANSWER)?, &|name| {
                self.topics.wants(name)
            })?;
        } else {
            for name in self.topics.names() {
                take(&self.client.fetch_metadata(Some(name), ANSWER)?, &|found| found == name)?;
            }
        }
        let complete = self.count_missing(&found)?;
        let keys = found
            .iter()
            .flat_map(|(topic, partitions)| partitions.iter().map(move |partition| place::key(topic, *partition)));
        Ok((keys.collect(), complete))
    }

    /// Whether all topics are there that should be.
    fn count_missing(&mut self, found: &BTreeMap<String, Vec<i32>>) -> Result<bool, Trouble> {
        let known = self
            .known
            .iter()
            .flat_map(|known| known.keys())
            .filter_map(|key| place::split(key));
        let known: BTreeSet<String> = known
            .map(|(topic, _)| topic.to_owned())
            .filter(|topic| self.topics.wants(topic))
            .collect();
        let wanted: BTreeSet<String> = self
            .topics
            .names()
            .map(str::to_owned)
            .chain(known.iter().cloned())
            .collect();
        let gone: Vec<String> = wanted.into_iter().filter(|topic| !found.contains_key(topic)).collect();
        self.state.missing.retain(|topic, _| gone.contains(topic));
        for topic in &gone {
            let looks = self.state.missing.entry(topic.clone()).or_default();
            *looks += 1;
            if known.contains(topic) && *looks >= MISSING_LOOKS {
                return Err(Trouble::Over(anyhow::anyhow!(
                    "the topic `{topic}` (`topics`) was deleted; take it out of `topics`, or make it anew and forget its offsets with --fresh {}",
                    self.client.context().name()
                )));
            }
            if !known.contains(topic) && self.state.warned.insert(topic.clone()) {
                tracing::warn!(
                    "{}: there is no topic `{topic}` (`topics`) yet; waiting for it",
                    self.client.context().name()
                );
            }
        }
        Ok(gone.is_empty())
    }

    /// Has new partitions read, where they were left or where `start` says; false if one of them can't be read yet.
    fn read_from(&mut self, new: &[String]) -> Result<bool, Trouble> {
        if new.is_empty() {
            return Ok(true);
        }
        let beginnings = self.ask(list(new.iter(), Offset::Beginning)?)?;
        let ends = self.ask(list(new.iter(), Offset::End)?)?;
        let mut from = Offsets::new();
        let mut dated = Vec::new();
        let mut ready = true;
        for key in new {
            let (Some(Ok(low)), Some(Ok(high))) = (beginnings.get(key), ends.get(key)) else {
                ready = false; // it has no leader yet
                continue;
            };
            let next = match (self.known.as_ref().map(|known| known.get(key)), self.start) {
                (Some(Some(next)), _) if (*low..=*high).contains(next) => *next,
                (Some(Some(next)), _) => return Err(Trouble::Over(self.out_of_range(key, *next, (*low, *high)))),
                (_, Start::At(_)) => {
                    dated.push(key);
                    continue;
                }
                (None, Start::Latest) => *high,
                (None, Start::Earliest) | (Some(None), _) => *low,
            };
            from.insert(key.clone(), next);
        }
        if let (Start::At(ms), false) = (self.start, dated.is_empty()) {
            let found = self.ask(list(dated.iter().copied(), Offset::Offset(ms))?)?;
            for key in dated {
                match (found.get(key), ends.get(key)) {
                    (Some(Ok(next)), Some(Ok(high))) => {
                        // Nothing is as new as that.
                        let next = if *next < 0 { *high } else { *next };
                        from.insert(key.clone(), next);
                    }
                    _ => ready = false,
                }
            }
        }
        if from.is_empty() {
            return Ok(ready);
        }
        let mut assigned = TopicPartitionList::with_capacity(from.len());
        for (key, next) in &from {
            if let Some((topic, partition)) = place::split(key) {
                assigned.add_partition_offset(topic, partition, Offset::Offset(*next))?;
            }
        }
        // First the dataflow: no checkpoint may miss a partition of which it has messages.
        self.queue.found(from.clone());
        self.client
            .incremental_assign(&assigned)
            .map_err(|e| Trouble::Over(anyhow::anyhow!("the partitions can't be read: {e}")))?;
        self.state.assigned.extend(from.keys().cloned());
        self.known.get_or_insert_default().extend(from);
        Ok(ready)
    }

    /// Asks the brokers for one offset of each partition: what the list has as offset is the question.
    fn ask(&self, list: TopicPartitionList) -> Result<BTreeMap<String, Result<i64, KafkaError>>, Trouble> {
        if list.count() == 0 {
            return Ok(BTreeMap::new());
        }
        let answered = self.client.offsets_for_times(list, ANSWER)?;
        let answers = answered.elements().into_iter().map(|element| {
            let offset = element.error().map(|()| element.offset().to_raw().unwrap_or(-1));
            (place::key(element.topic(), element.partition()), offset)
        });
        Ok(answers.collect())
    }

    /// The reading thread was told that an offset isn't there: says which, and what is.
    fn explain(&mut self, reason: &str) -> Result<Duration, Trouble> {
        let lows = self.ask(list(self.state.assigned.iter(), Offset::Beginning)?)?;
        let highs = self.ask(list(self.state.assigned.iter(), Offset::End)?)?;
        let read = self.client.position()?;
        let read = read.elements().into_iter().filter_map(|element| {
            let next = element.offset().to_raw().filter(|next| *next >= 0)?;
            Some((place::key(element.topic(), element.partition()), next))
        });
        let mut positions = self.known.clone().unwrap_or_default();
        positions.extend(read);
        for key in &self.state.assigned {
            let (Some(Ok(low)), Some(Ok(high)), Some(next)) = (lows.get(key), highs.get(key), positions.get(key))
            else {
                continue;
            };
            if !(*low..=*high).contains(next) {
                return Err(Trouble::Over(self.out_of_range(key, *next, (*low, *high))));
            }
        }
        Err(Trouble::Over(anyhow::anyhow!(
            "the broker no longer has the offset that comes next: {reason}"
        )))
    }

    fn out_of_range(&self, key: &str, next: i64, (low, high): (i64, i64)) -> anyhow::Error {
        let (topic, partition) = place::split(key).unwrap_or((key, 0));
        let name = self.client.context().name();
        let why = if next < low {
            format!(
                "{} messages were removed before they were read; check the topic's `retention.ms` and `retention.bytes`",
                low - next
            )
        } else {
            "the topic was made anew, or its brokers have lost messages".to_owned()
        };
        anyhow::anyhow!(
            "topic `{topic}` partition {partition}: offset {next} comes next, and the broker has {low} to {high}: {why}; \
             to go on with what is there, forget the offsets with --fresh {name}"
        )
    }

    /// Tells the group how far checkpoints are, for others to see.
    fn commit(&mut self, offsets: Offsets) {
        let mut changed = TopicPartitionList::new();
        for (key, next) in &offsets {
            if self.state.committed.get(key) == Some(next) || !self.state.assigned.contains(key) {
                continue;
            }
            if let Some((topic, partition)) = place::split(key) {
                let _ = changed.add_partition_offset(topic, partition, Offset::Offset(*next)); // never negative
            }
        }
        if changed.count() > 0 {
            match self.client.commit(&changed, CommitMode::Async) {
                Ok(()) => self.state.committed = offsets,
                Err(error) => tracing::debug!("{}: offsets for the group: {error}", self.client.context().name()),
            }
        }
    }
}

fn list<'k>(keys: impl Iterator<Item = &'k String>, offset: Offset) -> Result<TopicPartitionList, KafkaError> {
    let mut list = TopicPartitionList::new();
    for (topic, partition) in keys.filter_map(|key| place::split(key)) {
        list.add_partition_offset(topic, partition, offset)?;
    }
    Ok(list)
}
