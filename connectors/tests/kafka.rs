//! The Kafka source against a real broker.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kafka_broker;
mod kafka_client;

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use kafka_broker::{Broker, PASSWORD, Tls, USER, shared};
use kafka_client::{Cluster, unique, until};
use serde_json::{Value, json};
use taktline_connectors::kafka::source;
use taktline_engine::config::Section;
use taktline_engine::{Decoder, Partition, Poll, Samples, Source};

const NUMBER: &str = "signal: s, decode: {format: number}";

/// A running source, driven without the engine.
struct Reader {
    partitions: Vec<Box<dyn Partition>>,
    decoder: Box<dyn Decoder>,
    samples: Vec<RecordBatch>,
    reasons: Vec<String>,
}

fn built(brokers: &str, rest: &str) -> Box<dyn Source> {
    let section = Section::from_yaml("plc", &format!("{{brokers: '{brokers}', {rest}}}"));
    let source = (source::KIND.build)(&section).unwrap_or_else(|problems| panic!("{problems:?}"));
    assert!(!source.bounded() && source.replayable());
    source
}

impl Reader {
    fn open(brokers: &str, rest: &str) -> Self {
        Reader::resume(brokers, rest, &[])
    }

    /// Goes on from what readers gave, as the engine would have it.
    fn resume(brokers: &str, rest: &str, from: &[(String, Value)]) -> Self {
        let source = built(brokers, rest);
        let names = source.partitions().unwrap();
        let known = from.iter().cloned().collect();
        let open = |(index, name): (usize, &String)| {
            let from = source.read_on(name, &known);
            source.open(index, from.as_ref(), Arc::new(|| {})).unwrap()
        };
        Reader {
            partitions: names.iter().enumerate().map(open).collect(),
            decoder: source.decoder(),
            samples: Vec::new(),
            reasons: Vec::new(),
        }
    }

    fn try_poll(&mut self) -> anyhow::Result<bool> {
        let mut any = false;
        for partition in &mut self.partitions {
            match partition.poll()? {
                Poll::Batch(raw) => {
                    let decoded = self.decoder.decode(&raw)?;
                    let reasons = decoded.dead_letters.column_by_name("reason").expect("a column");
                    let reasons = arrow::array::AsArray::as_string::<i32>(reasons);
                    self.reasons.extend(reasons.iter().flatten().map(str::to_owned));
                    self.samples.push(decoded.samples);
                    any = true;
                }
                Poll::Idle => {}
                other => panic!("{other:?}"),
            }
        }
        Ok(any)
    }

    /// Reads until there are this many rows, and a little more to see that there are no others.
    fn read(&mut self, count: usize) {
        until("messages arrive", || {
            self.try_poll().unwrap();
            (self.rows() >= count).then_some(())
        });
        self.try_poll().unwrap();
        assert_eq!(self.rows(), count);
    }

    fn rows(&self) -> usize {
        self.samples.iter().map(RecordBatch::num_rows).sum()
    }

    fn values(&self) -> Vec<i64> {
        let values = self
            .samples
            .iter()
            .flat_map(|batch| Samples::of(batch).unwrap().value.iter().flatten());
        values.map(|value| value as i64).collect()
    }

    fn machines(&self) -> BTreeSet<String> {
        let names = self.samples.iter().flat_map(|batch| {
            let samples = Samples::of(batch).unwrap();
            let name = |row: usize| {
                let machine = samples.machines.value(samples.machine[row] as usize);
                format!("{machine}/{}", samples.signals.value(samples.signal[row] as usize))
            };
            (0..batch.num_rows()).map(name).collect::<Vec<_>>()
        });
        names.collect()
    }

    fn offset(&self) -> Value {
        self.partitions[0].offset()
    }

    fn offsets(&self) -> Vec<(String, Value)> {
        let count = self.partitions.len();
        let named = self.partitions.iter().enumerate();
        named
            .map(|(index, partition)| (format!("reader {} of {count}", index + 1), partition.offset()))
            .collect()
    }

    /// Waits until the partitions were found.
    fn found(&mut self, count: usize) {
        until("the partitions are found", || {
            self.try_poll().unwrap();
            let offsets = self
                .partitions
                .iter()
                .filter_map(|partition| partition.offset().as_object().map(|o| o.len()));
            (offsets.sum::<usize>() >= count).then_some(())
        });
    }

    fn fails(&mut self) -> String {
        until("an error", || self.try_poll().err().map(|error| format!("{error:#}")))
    }
}

fn cluster() -> Option<Cluster> {
    shared().map(|brokers| Cluster::at(&brokers))
}

#[test]
fn messages_of_all_partitions_come_in_their_order_with_keys_headers_and_topics() {
    let Some(kafka) = cluster() else { return };
    let topic = unique("plain");
    kafka.topic(&topic, 3);
    for partition in 0..3 {
        for number in 0..100 {
            kafka.send(
                &topic,
                partition,
                Some(&format!("m{partition}")),
                Some(number.to_string().as_bytes()),
            );
        }
    }
    kafka.flush();
    let mut reader = Reader::open(kafka.brokers(), &format!("topics: {topic}, {NUMBER}"));
    reader.read(300);
    assert_eq!(
        reader.offset(),
        json!({format!("{topic}/0"): 100, format!("{topic}/1"): 100, format!("{topic}/2"): 100})
    );
    assert_eq!(reader.machines(), ["m0/s", "m1/s", "m2/s"].map(str::to_owned).into());
    let mut last = std::collections::BTreeMap::new();
    for batch in &reader.samples {
        let samples = Samples::of(batch).unwrap();
        for row in 0..batch.num_rows() {
            let machine = samples.machines.value(samples.machine[row] as usize).to_owned();
            let value = samples.value.value(row);
            assert!(last.insert(machine, value).is_none_or(|before| before + 1.0 == value));
        }
    }
    let topic = unique("named");
    kafka.topic(&topic, 1);
    kafka.send_with_header(&topic, "k", ("sensor", "force"), b"1");
    kafka.send_with_header(&topic, "k", ("other", "force"), b"2");
    kafka.flush();
    let names = "machine: '{topic}-{key}', signal: '{header.sensor}', decode: {format: number}";
    let mut reader = Reader::open(kafka.brokers(), &format!("topics: {topic}, {names}"));
    reader.read(1);
    assert_eq!(reader.machines(), [format!("{topic}-k/force")].into());
    assert!(reader.reasons[0].contains("signal"), "{:?}", reader.reasons);
}

#[test]
fn bad_messages_cost_themselves() {
    let Some(kafka) = cluster() else { return };
    let topic = unique("bad");
    kafka.topic_with(&topic, 1, &[("max.message.bytes", "60000000")]);
    let wide = "decode: {values: /values, time: /ts, unit: ms}";
    let huge = format!("{{\"values\": {{\"a\": 3}}, \"pad\": \"{}\"}}", "x".repeat(40_000_000));
    let deep = format!("{{\"values\": {}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let good = |n: i64| format!("{{\"values\": {{\"a\": {n}}}, \"ts\": 1767323045000}}");
    for payload in [
        good(1).as_bytes(),
        b"",
        b"{",
        b"\xff\xfe",
        deep.as_bytes(),
        br#"{"values": {"a": 1}, "ts": 1767323045000000}"#,
        huge.as_bytes(),
        good(2).as_bytes(),
    ] {
        kafka.send(&topic, 0, Some("m"), Some(payload));
    }
    kafka.send(&topic, 0, Some("m"), None);
    kafka.send(&topic, 0, None, Some(good(3).as_bytes()));
    kafka.flush();
    let mut reader = Reader::open(kafka.brokers(), &format!("topics: {topic}, {wide}"));
    until("all is read", || {
        reader.try_poll().unwrap();
        (reader.offset() == json!({format!("{topic}/0"): 10})).then_some(())
    });
    assert_eq!(reader.values(), [1, 2]);
    // No key, no machine; the tombstone is no bad message.
    assert_eq!(reader.reasons.len(), 7, "{:?}", reader.reasons);
    assert!(reader.reasons[6].contains("machine"), "{:?}", reader.reasons);
    let position = reader.partitions[0].position().text;
    assert!(
        position.contains("9 messages") && position.contains("1 tombstones"),
        "{position}"
    );
}

#[test]
fn it_goes_on_from_an_offset_and_reads_nothing_twice() {
    let Some(kafka) = cluster() else { return };
    let topic = unique("resume");
    kafka.topic(&topic, 2);
    kafka.send_numbers(&topic, 0, 0..50);
    kafka.send_numbers(&topic, 1, 100..150);
    let rest = format!("topics: {topic}, {NUMBER}");
    let mut reader = Reader::open(kafka.brokers(), &rest);
    reader.read(100);
    let from = reader.offsets();
    drop(reader);
    kafka.send_numbers(&topic, 0, 50..60);
    kafka.send_numbers(&topic, 1, 150..155);
    let mut reader = Reader::resume(kafka.brokers(), &rest, &from);
    reader.read(15);
    let values: BTreeSet<i64> = reader.values().into_iter().collect();
    assert_eq!(values, (50..60).chain(150..155).collect());
    // The same offset gives the same again.
    let mut again = Reader::resume(kafka.brokers(), &rest, &from);
    again.read(15);
    assert_eq!(again.offset(), reader.offset());
}

#[test]
fn any_number_of_readers_shares_the_partitions() {
    let Some(kafka) = cluster() else { return };
    let topic = unique("readers");
    kafka.topic(&topic, 6);
    let mut from = Vec::new();
    for (round, readers) in [1, 3, 2, 1].into_iter().enumerate() {
        let round = round as i64;
        for partition in 0..6_i64 {
            let first = round * 1_000 + partition * 100;
            kafka.send_numbers(&topic, partition as i32, first..first + 10);
        }
        let rest = format!("topics: {topic}, readers: {readers}, {NUMBER}");
        let mut reader = Reader::resume(kafka.brokers(), &rest, &from);
        reader.read(60);
        let values: BTreeSet<i64> = reader.values().into_iter().collect();
        assert_eq!(values.len(), 60);
        assert!(values.iter().all(|value| value / 1_000 == round), "{values:?}");
        // Offsets of readers that are no longer there stay in the checkpoints.
        let now = reader.offsets();
        from.retain(|(name, _)| !now.iter().any(|(known, _)| known == name));
        from.extend(now);
    }
}

#[test]
fn it_starts_where_it_is_told() {
    let Some(kafka) = cluster() else { return };
    let topic = unique("start");
    kafka.topic(&topic, 1);
    let time = |second: i64| 1_767_323_045_000 + second * 1_000;
    for second in 0..10 {
        kafka.send_at(&topic, time(second), &second.to_string());
    }
    kafka.flush();
    let open = |start: &str| Reader::open(kafka.brokers(), &format!("topics: {topic}, start: '{start}', {NUMBER}"));
    let mut earliest = open("earliest");
    earliest.read(10);
    let mut dated = open("2026-01-02T03:04:12Z");
    dated.read(3);
    assert_eq!(dated.values(), [7, 8, 9]);
    let mut later = open("2099-01-01T00:00:00Z");
    later.found(1);
    let mut latest = open("latest");
    latest.found(1);
    assert_eq!(latest.offset(), json!({format!("{topic}/0"): 10}));
    kafka.send_at(&topic, time(10), "10");
    kafka.flush();
    latest.read(1);
    later.read(1);
    assert_eq!((latest.values(), later.values()), (vec![10], vec![10]));
    // A partition that comes later is new to all of them: nothing of it is passed over.
    kafka.add_partitions(&topic, 2);
    kafka.send_numbers(&topic, 1, 100..105);
    latest.read(6);
    // Also to one that was away.
    let from = vec![("reader 1 of 1".to_owned(), json!({format!("{topic}/0"): 11}))];
    let mut back = Reader::resume(
        kafka.brokers(),
        &format!("topics: {topic}, start: latest, {NUMBER}"),
        &from,
    );
    back.read(5);
    assert_eq!(back.values(), [100, 101, 102, 103, 104]);
}

#[test]
fn a_reader_that_was_stopped_before_it_looked_begins_where_start_says() {
    let Some(kafka) = cluster() else { return };
    let topic = unique("latest");
    kafka.topic(&topic, 6);
    let send = |first: i64| {
        for partition in 0..6_i64 {
            let first = first + partition * 100;
            kafka.send_numbers(&topic, partition as i32, first..first + 10);
        }
    };
    send(0);
    let rest = format!("topics: {topic}, readers: 2, start: latest, {NUMBER}");
    let mut reader = Reader::open(kafka.brokers(), &rest);
    reader.found(6);
    let mut from = reader.offsets();
    drop(reader);
    // As if the run had been stopped before the second reader had found its partitions.
    let late = from[1].1.as_object().unwrap().len();
    assert!((1..6).contains(&late), "{from:?}");
    from[1].1 = Value::Null;
    let mut reader = Reader::resume(kafka.brokers(), &rest, &from);
    reader.found(6);
    send(1_000);
    reader.read(60);
    assert!(
        reader.values().iter().all(|value| *value >= 1_000),
        "{:?}",
        reader.values()
    );
}

#[test]
fn a_topic_that_was_made_anew_is_an_error() {
    let Some(kafka) = cluster() else { return };
    let rest = |topic: &str| format!("topics: {topic}, {NUMBER}");
    let remade = |topic: &str| {
        kafka.delete(topic);
        until("the topic is gone", || (!kafka.has(topic)).then_some(()));
        kafka.topic(topic, 1);
        kafka.send_numbers(topic, 0, 100..103);
    };
    let told = |said: String, topic: &str| {
        assert!(
            said.contains(&format!("`{topic}`")) && said.contains("--fresh plc"),
            "{said}"
        );
        assert!(said.contains("made anew") || said.contains("was deleted"), "{said}");
    };
    // While nobody reads.
    let away = unique("anew");
    kafka.topic(&away, 1);
    kafka.send_numbers(&away, 0, 0..10);
    let mut reader = Reader::open(kafka.brokers(), &rest(&away));
    reader.read(10);
    let from = reader.offsets();
    drop(reader);
    remade(&away);
    let mut back = Reader::resume(kafka.brokers(), &rest(&away), &from);
    told(back.fails(), &away);
    assert_eq!(back.rows(), 0, "nothing is read from a place that nobody meant");
    // While it is read.
    let read = unique("anew");
    kafka.topic(&read, 1);
    kafka.send_numbers(&read, 0, 0..10);
    let mut reader = Reader::open(kafka.brokers(), &rest(&read));
    reader.read(10);
    remade(&read);
    told(reader.fails(), &read);
    assert_eq!(reader.rows(), 10);
}

#[test]
fn topics_of_a_pattern_are_found_while_it_runs() {
    let Some(kafka) = cluster() else { return };
    let line = unique("line");
    let name = |press: &str| format!("{line}.{press}");
    kafka.topic(&name("press-1"), 1);
    kafka.topic(&name("robot-1"), 1);
    kafka.send_numbers(&name("press-1"), 0, 0..5);
    kafka.send_numbers(&name("robot-1"), 0, 100..105);
    let pattern = format!("topics: '^{line}\\.press-.*', machine: '{{topic}}', {NUMBER}");
    let mut reader = Reader::open(kafka.brokers(), &pattern);
    reader.read(5);
    kafka.topic(&name("press-2"), 2);
    kafka.send_numbers(&name("press-2"), 1, 5..8);
    reader.read(8);
    assert_eq!(
        reader.machines(),
        ["press-1", "press-2"].map(|press| format!("{}/s", name(press))).into()
    );
    // A name that isn't there yet is waited for.
    let later = unique("later");
    let mut reader = Reader::open(
        kafka.brokers(),
        &format!("topics: [{later}, {}], {NUMBER}", name("press-1")),
    );
    reader.read(5);
    kafka.topic(&later, 1);
    kafka.send_numbers(&later, 0, 20..23);
    reader.read(8);
}

#[test]
fn an_offset_that_is_no_longer_there_is_an_error() {
    let Some(kafka) = cluster() else { return };
    let topic = unique("range");
    kafka.topic(&topic, 1);
    kafka.send_numbers(&topic, 0, 0..100);
    kafka.truncate(&topic, 0, 60);
    let rest = format!("topics: {topic}, {NUMBER}");
    let check = |next: i64, expect: &[&str]| {
        let from = [("reader 1 of 1".to_owned(), json!({format!("{topic}/0"): next}))];
        let said = Reader::resume(kafka.brokers(), &rest, &from).fails();
        for part in expect {
            assert!(said.contains(part), "{said}");
        }
    };
    let place = format!("topic `{topic}` partition 0");
    check(
        50,
        &[
            &place,
            "offset 50 ",
            "60 to 100",
            "10 messages",
            "retention",
            "--fresh plc",
        ],
    );
    check(101, &[&place, "offset 101 ", "60 to 100", "made anew"]);
    let from = [("reader 1 of 1".to_owned(), json!({format!("{topic}/0"): 60}))];
    Reader::resume(kafka.brokers(), &rest, &from).read(40);
}

#[test]
fn messages_that_are_removed_under_a_slow_reader_are_an_error() {
    let Some(kafka) = cluster() else { return };
    let topic = unique("slow");
    kafka.topic(&topic, 1);
    // More than the queue and the client's own hold: 64 MiB.
    let payload = format!("1{}", " ".repeat(1 << 20 >> 1));
    for _ in 0..240 {
        kafka.send(&topic, 0, Some("m"), Some(payload.as_bytes()));
    }
    kafka.flush();
    let mut reader = Reader::open(kafka.brokers(), &format!("topics: {topic}, {NUMBER}"));
    reader.found(1);
    // Nothing is taken until the client's queues are full: the lag says how far it is from the end.
    until("the lag is known", || reader.partitions[0].lag().filter(|lag| *lag > 0));
    kafka.truncate(&topic, 0, 239);
    let said = reader.fails();
    assert!(said.contains("to 240") && said.contains("retention"), "{said}");
    assert!(
        reader.rows() < 239,
        "what was fetched is kept, the rest is not passed over: {}",
        reader.rows()
    );
}

#[test]
fn a_deleted_topic_is_an_error_that_says_so() {
    let Some(kafka) = cluster() else { return };
    let (topic, other) = (unique("deleted"), unique("other"));
    kafka.topic(&topic, 1);
    kafka.topic(&other, 1);
    kafka.send_numbers(&topic, 0, 0..5);
    let rest = format!("topics: [{topic}, {other}], {NUMBER}");
    let mut reader = Reader::open(kafka.brokers(), &rest);
    reader.read(5);
    let from = reader.offsets();
    kafka.delete(&topic);
    let check = |said: String| assert!(said.contains(&format!("`{topic}` (`topics`) was deleted")), "{said}");
    check(reader.fails());
    check(Reader::resume(kafka.brokers(), &rest, &from).fails());
    // Taken out of the settings it is no longer missed.
    kafka.send_numbers(&other, 0, 0..3);
    Reader::resume(kafka.brokers(), &format!("topics: {other}, {NUMBER}"), &from).read(3);
}

#[test]
fn a_broker_that_is_away_is_waited_for_at_the_start_and_in_the_middle() {
    let Some(mut broker) = Broker::start() else { return };
    let kafka = Cluster::at(&broker.address());
    let topic = unique("restart");
    kafka.topic(&topic, 2);
    kafka.send_numbers(&topic, 0, 0..10);
    broker.stop();
    let mut reader = Reader::open(&broker.address(), &format!("topics: {topic}, {NUMBER}"));
    assert_eq!(reader.offset(), Value::Null);
    broker.restart();
    reader.read(10);
    for round in 1..3 {
        broker.kill();
        reader.try_poll().unwrap();
        broker.restart();
        kafka.wait_for(&topic, 2);
        kafka.send_numbers(&topic, 1, round * 10..round * 10 + 10);
        reader.read(10 + 10 * round as usize);
    }
    assert_eq!(reader.values(), (0..30).collect::<Vec<i64>>());
}

#[test]
fn a_slow_dataflow_slows_the_source_and_loses_nothing() {
    let Some(kafka) = cluster() else { return };
    let topic = unique("pause");
    kafka.topic(&topic, 2);
    let (count, pad) = (60_000, " ".repeat(1_000));
    for number in 0..count {
        kafka.send(&topic, number % 2, Some("m"), Some(format!("{number}{pad}").as_bytes()));
    }
    kafka.flush();
    let mut reader = Reader::open(kafka.brokers(), &format!("topics: {topic}, {NUMBER}"));
    // A batch now and then: the queue is full in between.
    until("all is read", || {
        reader.try_poll().unwrap();
        (reader.rows() >= count as usize).then_some(())
    });
    let mut values = reader.values();
    values.sort_unstable();
    assert_eq!(values, (0..i64::from(count)).collect::<Vec<_>>());
    until("nothing is left", || {
        reader.try_poll().unwrap();
        (reader.partitions[0].lag() == Some(0)).then_some(())
    });
}

#[test]
fn offsets_of_checkpoints_are_shown_to_the_group() {
    let Some(kafka) = cluster() else { return };
    let (topic, group) = (unique("group"), unique("g"));
    kafka.topic(&topic, 1);
    kafka.send_numbers(&topic, 0, 0..10);
    let mut reader = Reader::open(kafka.brokers(), &format!("topics: {topic}, group: {group}, {NUMBER}"));
    reader.read(10);
    assert_eq!(kafka.committed(&group, &topic, 0), None, "nothing before a checkpoint");
    reader.partitions[0].committed(&json!({format!("{topic}/0"): 7}));
    until("the group knows", || {
        (kafka.committed(&group, &topic, 0) == Some(7)).then_some(())
    });
}

#[test]
fn only_committed_transactions_are_read() {
    use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
    let Some(kafka) = cluster() else { return };
    let topic = unique("transactions");
    kafka.topic(&topic, 1);
    let producer: BaseProducer = rdkafka::ClientConfig::new()
        .set("bootstrap.servers", kafka.brokers())
        .set("transactional.id", unique("id"))
        .create()
        .unwrap();
    let patience = kafka_client::PATIENCE;
    producer.init_transactions(patience).unwrap();
    for (first, commits) in [(0, true), (10, false), (20, true)] {
        producer.begin_transaction().unwrap();
        for number in first..first + 10 {
            producer
                .send(BaseRecord::to(&topic).key("m").payload(&number.to_string()))
                .map_err(|(e, _)| e)
                .unwrap();
        }
        producer.flush(patience).unwrap();
        if commits {
            producer.commit_transaction(patience).unwrap();
        } else {
            producer.abort_transaction(patience).unwrap();
        }
    }
    let mut reader = Reader::open(kafka.brokers(), &format!("topics: {topic}, {NUMBER}"));
    reader.read(20);
    assert_eq!(reader.values(), (0..10).chain(20..30).collect::<Vec<i64>>());
}

#[test]
fn sign_in_and_what_is_said_without() {
    let Some(broker) = Broker::start() else { return };
    let kafka = Cluster::at(&broker.address());
    let topic = unique("sasl");
    kafka.topic(&topic, 1);
    kafka.send_numbers(&topic, 0, 0..5);
    let rest = |password: &str, mechanism: &str| {
        format!("topics: {topic}, user: {USER}, password: {password}, mechanism: {mechanism}, {NUMBER}")
    };
    for mechanism in ["plain", "scram-sha-256", "scram-sha-512"] {
        Reader::open(&broker.sasl(), &rest(PASSWORD, mechanism)).read(5);
        let said = Reader::open(&broker.sasl(), &rest("wrong", mechanism)).fails();
        for part in ["`alice`", "`password`", &broker.sasl()] {
            assert!(said.contains(part), "{mechanism}: {said}");
        }
        assert!(!said.contains("wrong"), "{said}");
    }
}

#[test]
fn tls_and_what_is_said_when_it_is_not_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        std::fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name)
    };
    let authority = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, unique("authority"));
        let certificate = params.self_signed(&key).unwrap().pem();
        (certificate, rcgen::Issuer::new(params, key))
    };
    let ((ca, issuer), (other_ca, _)) = (authority(), authority());
    let signed = |name: &str, until: Option<i32>| {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        if let Some(year) = until {
            params.not_before = rcgen::date_time_ymd(2000, 1, 1);
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
        }
        (params.signed_by(&key, &issuer).unwrap().pem(), key.serialize_pem())
    };
    let (ca, other_ca) = (write("ca.pem", &ca), write("other.pem", &other_ca));
    let (certificate, key) = signed("taktline", None);
    let (certificate, key) = (write("own.pem", &certificate), write("own.key", &key));
    let (certificate, key) = (certificate.display(), key.display());
    let server = |until| {
        let (certificate, key) = signed("localhost", until);
        let own = write(&format!("server-{until:?}.pem"), &format!("{key}{certificate}"));
        Broker::with(
            Some(&Tls {
                own,
                clients: Some(ca.clone()),
            }),
            "",
        )
    };
    let Some(broker) = server(None) else { return };
    let kafka = Cluster::at(&broker.address());
    let topic = unique("tls");
    kafka.topic(&topic, 1);
    kafka.send_numbers(&topic, 0, 0..5);
    let (ca, other_ca) = (ca.display(), other_ca.display());
    let open =
        |broker: &Broker, tls: &str| Reader::open(&broker.tls(), &format!("topics: {topic}, tls: {{{tls}}}, {NUMBER}"));
    open(&broker, &format!("ca: {ca}, certificate: {certificate}, key: {key}")).read(5);
    let untrusted = open(
        &broker,
        &format!("ca: {other_ca}, certificate: {certificate}, key: {key}"),
    )
    .fails();
    assert!(
        untrusted.contains("`tls`") && untrusted.contains("certificate"),
        "{untrusted}"
    );
    drop(broker);
    let Some(expired) = server(Some(2001)) else { return };
    let said = open(&expired, &format!("ca: {ca}, certificate: {certificate}, key: {key}")).fails();
    assert!(said.contains("`tls`") && said.contains("expired"), "{said}");
}
