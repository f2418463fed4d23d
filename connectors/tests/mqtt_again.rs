//! What the broker gives again, and what it has forgotten: messages are kept once, and gaps are told of.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod mosquitto;

use arrow::array::RecordBatch;
use mosquitto::*;
use taktline_connectors::mqtt::broker::Publisher;

const NUMBER: &str = "topic: 'acme/{machine}/{signal}'\ndecode: {format: number}";

fn settings(version: &str, qos: u8, client_id: &str) -> String {
    format!("{NUMBER}\nversion: {version}\nqos: {qos}\nclient_id: {client_id}")
}

fn publish(publisher: &mut Publisher, values: impl IntoIterator<Item = i64>) {
    for value in values {
        publisher.publish("acme/m/s", value.to_string().as_bytes()).unwrap();
    }
    publisher.flush().unwrap();
}

#[test]
fn what_the_journal_has_is_kept_once_however_often_a_run_is_killed() {
    for version in ["3.1.1", "5"] {
        for qos in 1..=2 {
            let Some(broker) = Mosquitto::start() else { return };
            let mut publisher = Publisher::with_qos(&broker.url(), qos).unwrap();
            let rest = settings(version, qos, "taktlineagain");
            let mut reader = Reader::open(&broker.url(), &rest);
            reader.subscribed(&mut publisher, "acme/m/s");
            reader.acknowledges = false;
            publish(&mut publisher, 0..500);
            reader.read(500);
            let mut journal: Vec<RecordBatch> = reader.raw.clone();
            drop(reader); // it is journaled, and the broker doesn't know
            for run in 1..4 {
                let mut reader = Reader::after("plc", &broker.url(), &rest, &journal);
                reader.acknowledges = false;
                publish(&mut publisher, [1000 + run]);
                reader.read(1);
                assert_eq!(reader.values(), [1000 + run], "version {version} qos {qos}");
                assert_eq!(reader.dead, [""; 0]);
                // Only what this run has written is left, as if the rest had been released.
                journal = reader.raw.clone();
            }
            // What was passed over is acknowledged with the rest.
            let mut reader = Reader::after("plc", &broker.url(), &rest, &journal);
            publish(&mut publisher, [2000]);
            reader.read(1);
            reader.finish();
            drop(reader);
            let mut reader = Reader::open(&broker.url(), &rest);
            publish(&mut publisher, [3000]);
            reader.read(1);
            assert_eq!(reader.values(), [3000], "version {version} qos {qos}");
        }
    }
}

#[test]
fn what_the_journal_does_not_have_is_taken_though_it_was_given_before() {
    for version in ["3.1.1", "5"] {
        let Some(broker) = Mosquitto::start() else { return };
        let mut publisher = Publisher::connect(&broker.url()).unwrap();
        let rest = settings(version, 1, "taktlinehalf");
        let mut reader = Reader::open(&broker.url(), &rest);
        reader.subscribed(&mut publisher, "acme/m/s");
        reader.acknowledges = false;
        publish(&mut publisher, 0..100);
        reader.read(100);
        let journal: Vec<RecordBatch> = reader.raw.clone();
        // Equal readings, which nobody journaled.
        publish(&mut publisher, (0..100).map(|_| 7));
        reader.read(200);
        drop(reader);
        let mut reader = Reader::after("plc", &broker.url(), &rest, &journal);
        reader.read(100);
        publish(&mut publisher, [8]);
        reader.read(101);
        let mut expect = vec![7; 100];
        expect.push(8);
        assert_eq!(reader.values(), expect, "version {version}");
    }
}

#[test]
fn a_broker_that_comes_back_gives_again_what_a_run_still_has() {
    for version in ["3.1.1", "5"] {
        let Some(mut broker) = Mosquitto::keeping() else { return };
        let mut publisher = Publisher::connect(&broker.url()).unwrap();
        let rest = settings(version, 1, "taktlineback");
        let mut reader = Reader::open(&broker.url(), &rest);
        reader.subscribed(&mut publisher, "acme/m/s");
        reader.acknowledges = false;
        publish(&mut publisher, 0..200);
        reader.read(200);
        broker.stop();
        broker.restart();
        publish(&mut publisher, 200..210);
        reader.read(210);
        assert_eq!(reader.values(), (0..210).collect::<Vec<i64>>(), "version {version}");
        assert!(
            reader
                .partition
                .position()
                .text
                .ends_with("200 of them given again and kept once"),
            "{}",
            reader.partition.position().text
        );
        // It had kept the session.
        assert_eq!(reader.dead, [""; 0]);
        reader.acknowledges = true;
        reader.partition.acknowledge(reader.polled).unwrap();
        reader.finish();
        let journal = reader.raw.clone();
        drop(reader);
        let mut reader = Reader::after("plc", &broker.url(), &rest, &journal);
        publish(&mut publisher, [300]);
        reader.read(1);
        assert_eq!(
            reader.raw.iter().map(RecordBatch::num_rows).sum::<usize>(),
            1,
            "nothing was given again"
        );
        assert_eq!(reader.dead, [""; 0]);
    }
}

#[test]
fn a_forgotten_session_is_a_possible_gap() {
    let log = Log::shared();
    for version in ["3.1.1", "5"] {
        let Some(mut broker) = Mosquitto::start() else { return };
        let mut publisher = Publisher::connect(&broker.url()).unwrap();
        let (name, rest) = (format!("gap{version}"), settings(version, 1, "taktlinegap"));
        let mut reader = Reader::named(&name, &broker.url(), &rest);
        reader.subscribed(&mut publisher, "acme/m/s");
        publish(&mut publisher, [1]);
        reader.read(1);
        broker.kill();
        broker.restart();
        until("the row", || {
            reader.poll();
            (reader.dead.len() == 1).then_some(())
        });
        let check = |reason: &str, parts: &[&str]| {
            assert!(
                reason.starts_with("possible gap: what was published between 20"),
                "{reason}"
            );
            for part in parts {
                assert!(reason.contains(part), "{reason}");
            }
        };
        check(&reader.dead[0], &["forgotten", "`client_id`", "`session_expiry`"]);
        assert_eq!(log.lines(&name, "possible gap"), 1);
        // The same between two runs.
        reader.subscribed(&mut publisher, "acme/m/s");
        publish(&mut publisher, [2]);
        reader.read(1);
        let journal = reader.raw.clone();
        drop(reader);
        broker.kill();
        broker.restart();
        let mut reader = Reader::after(&name, &broker.url(), &rest, &journal);
        until("the row", || {
            reader.poll();
            (reader.dead.len() == 1).then_some(())
        });
        check(&reader.dead[0], &["forgotten"]);
        drop(reader);
        // And where nothing is kept, between any two runs.
        let rest = format!("{NUMBER}\nversion: {version}");
        let mut reader = Reader::after(&name, &broker.url(), &rest, &journal);
        until("the row", || {
            reader.poll();
            (reader.dead.len() == 1).then_some(())
        });
        check(&reader.dead[0], &["set `client_id`"]);
    }
}

#[test]
fn a_session_that_was_kept_has_no_gap() {
    for version in ["3.1.1", "5"] {
        let Some(mut broker) = Mosquitto::keeping() else { return };
        let mut publisher = Publisher::connect(&broker.url()).unwrap();
        let rest = settings(version, 1, "taktlinenogap");
        let mut reader = Reader::open(&broker.url(), &rest);
        reader.subscribed(&mut publisher, "acme/m/s");
        publish(&mut publisher, [1]);
        reader.read(1);
        let journal = reader.raw.clone();
        drop(reader);
        broker.stop();
        broker.restart();
        publish(&mut publisher, [2]);
        let mut reader = Reader::after("plc", &broker.url(), &rest, &journal);
        reader.read(1);
        assert_eq!((reader.values(), reader.dead.len()), (vec![2], 0), "version {version}");
    }
}

#[test]
fn another_topic_is_subscribed_to_in_a_kept_session() {
    for version in ["3.1.1", "5"] {
        let Some(broker) = Mosquitto::start() else { return };
        let mut publisher = Publisher::connect(&broker.url()).unwrap();
        let rest = settings(version, 1, "taktlineother");
        Reader::open(&broker.url(), &rest).subscribed(&mut publisher, "acme/m/s");
        let rest = rest.replace("acme/", "other/");
        Reader::open(&broker.url(), &rest).subscribed(&mut publisher, "other/m/s");
    }
}

#[test]
fn a_shared_subscription_gives_each_its_part() {
    let log = Log::shared();
    let Some(broker) = Mosquitto::start() else { return };
    let mut publisher = Publisher::connect(&broker.url()).unwrap();
    let rest = NUMBER.replace("acme/", "$share/line/acme/");
    let mut readers = ["shared1", "shared2"].map(|name| Reader::named(name, &broker.url(), &rest));
    for name in ["shared1", "shared2"] {
        log.says(name, "is a shared subscription");
    }
    until("both are subscribed", || {
        publish(&mut publisher, [-1]);
        readers.iter_mut().for_each(|reader| {
            reader.poll();
        });
        readers.iter().all(|reader| reader.rows() > 0).then_some(())
    });
    publish(&mut publisher, 0..1000);
    let mut values = Vec::new();
    until("all messages", || {
        for reader in &mut readers {
            reader.poll();
        }
        values = readers
            .iter()
            .flat_map(Reader::values)
            .filter(|value| *value >= 0)
            .collect();
        (values.len() >= 1000).then_some(())
    });
    values.sort_unstable();
    assert_eq!(values, (0..1000).collect::<Vec<i64>>());
}

#[test]
fn the_broker_sends_no_more_than_may_wait() {
    let Some(broker) = Mosquitto::with("allow_anonymous true\nmax_inflight_messages 0") else {
        return;
    };
    let mut publisher = Publisher::connect(&broker.url()).unwrap();
    let mut reader = Reader::open(&broker.url(), &format!("{NUMBER}\nreceive_maximum: 10"));
    reader.subscribed(&mut publisher, "acme/m/s");
    reader.acknowledges = false;
    publish(&mut publisher, 0..100);
    reader.read(10);
    for _ in 0..100 {
        assert!(!reader.poll());
    }
    reader.acknowledges = true;
    reader.partition.acknowledge(reader.polled).unwrap();
    reader.read(100);
    assert_eq!(reader.values(), (0..100).collect::<Vec<i64>>());
}

#[test]
fn a_huge_payload_costs_one_row() {
    for version in ["3.1.1", "5"] {
        let Some(broker) = Mosquitto::start() else { return };
        let mut publisher = Publisher::connect(&broker.url()).unwrap();
        let mut reader = Reader::open(&broker.url(), &format!("{NUMBER}\nversion: {version}"));
        reader.subscribed(&mut publisher, "acme/m/s");
        publisher.publish("acme/m/s", &vec![b'1'; 100 << 20]).unwrap();
        publish(&mut publisher, [5]);
        reader.read(1);
        assert_eq!(reader.values(), [5], "version {version}");
        assert_eq!(reader.dead.len(), 1);
        assert!(
            reader.dead[0].starts_with("the payload has 104857600 bytes, and 16777216 is the most"),
            "{:?}",
            reader.dead
        );
    }
}

#[test]
fn what_is_sent_again_is_kept_once_where_it_is_asked_for() {
    let Some(broker) = Mosquitto::start() else { return };
    for qos in 0..=1 {
        let mut publisher = Publisher::connect(&broker.url()).unwrap();
        let rest = format!("{NUMBER}\nqos: {qos}\ndrop_repeats: true");
        let mut reader = Reader::open(&broker.url(), &rest);
        until("the subscription stands", || {
            publish(&mut publisher, [-1]);
            reader.poll();
            (reader.rows() > 0).then_some(())
        });
        for _ in 0..3 {
            publish(&mut publisher, 0..100);
        }
        publish(&mut publisher, [100]);
        reader.read(102);
        assert_eq!(reader.values(), (-1..101).collect::<Vec<i64>>(), "qos {qos}");
        let journal = reader.raw.clone();
        drop(reader);
        let mut reader = Reader::after("plc", &broker.url(), &rest, &journal);
        until("a new one", || {
            publish(&mut publisher, [50]);
            publish(&mut publisher, [200]);
            reader.poll();
            (reader.rows() > 0).then_some(())
        });
        assert_eq!(reader.values(), [200], "qos {qos}");
    }
}
