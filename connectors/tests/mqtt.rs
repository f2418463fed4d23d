//! The MQTT source and sink against a real Mosquitto, and against the embedded broker.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod mosquitto;

use std::collections::BTreeSet;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::UInt64Type;
use mosquitto::*;
use taktline_connectors::mqtt::broker::{EmbeddedBroker, Publisher};
use taktline_connectors::mqtt::sink;
use taktline_engine::Samples;
use taktline_engine::config::Section;
use taktline_engine::kind::Input;
use taktline_engine::table::{Sample, samples, samples_batch};

const NUMBER: &str = "topic: 'acme/{machine}/{signal}'\ndecode: {format: number}";

#[test]
fn both_versions_read_what_was_published() {
    for version in ["3.1.1", "5"] {
        for qos in 0..=2 {
            let Some(broker) = Mosquitto::start() else { return };
            let mut publisher = Publisher::connect(&broker.url()).unwrap();
            let mut reader = Reader::open(&broker.url(), &format!("{NUMBER}\nversion: {version}\nqos: {qos}"));
            reader.subscribed(&mut publisher, "acme/m/s");
            for value in 1..=50 {
                publisher
                    .publish(&format!("acme/m{}/s", value % 3), value.to_string().as_bytes())
                    .unwrap();
            }
            publisher.publish("acme/m/s", b"garbage").unwrap();
            publisher.flush().unwrap();
            reader.read(50);
            until("the dead letter", || {
                reader.poll();
                (reader.dead.len() == 1).then_some(())
            });
            assert_eq!(
                reader.values(),
                (1..=50).collect::<Vec<i64>>(),
                "version {version} qos {qos}"
            );
            assert!(reader.partition.position().text.starts_with("acme/+/+: "));
        }
    }
}

#[test]
fn json_by_pointers() {
    let Some(broker) = Mosquitto::start() else { return };
    let mut publisher = Publisher::connect(&broker.url()).unwrap();
    let rest = "topic: 'acme/{line}/{m}/{signal}'\nmachine: '{line}-{m}'\n\
                decode: {time: /meta/ts, unit: ms, value: /data/0/value}";
    let payload = br#"{"meta":{"ts":1767323045001},"data":[{"value":2.5}]}"#;
    // Kept by no broker before the subscription stands, so send until it comes.
    let mut reader = Reader::open(&broker.url(), rest);
    until("a sample", || {
        publisher.publish("acme/l1/p2/pressure", payload).unwrap();
        publisher.flush().unwrap();
        reader.poll().then_some(())
    });
    let batch = Samples::of(&reader.decoded[0]).unwrap();
    assert_eq!((batch.machines.value(0), batch.signals.value(0)), ("l1-p2", "pressure"));
    assert_eq!((batch.ts[0], batch.value.value(0)), (1_767_323_045_001_000, 2.5));
}

#[test]
fn ten_thousand_messages_arrive_once_each() {
    let Some(broker) = Mosquitto::start() else { return };
    let mut publisher = Publisher::connect(&broker.url()).unwrap();
    let mut reader = Reader::open(&broker.url(), NUMBER);
    reader.subscribed(&mut publisher, "acme/m/s");
    let start = Instant::now();
    for value in 0..10_000 {
        publisher.publish("acme/m/s", value.to_string().as_bytes()).unwrap();
    }
    publisher.flush().unwrap();
    println!("published in {:?}", start.elapsed());
    reader.read(10_000);
    println!("10,000 messages through Mosquitto in {:?}", start.elapsed());
    assert_eq!(reader.values(), (0..10_000).collect::<Vec<i64>>());
    let sequences = reader
        .raw
        .iter()
        .flat_map(|raw| raw.column(5).as_primitive::<UInt64Type>().values().to_vec());
    let sequences: Vec<u64> = sequences.collect();
    assert!(sequences.windows(2).all(|pair| pair[0] + 1 == pair[1]));
}

#[test]
fn a_slow_reader_loses_nothing() {
    for version in ["3.1.1", "5"] {
        let Some(broker) = Mosquitto::start() else { return };
        let mut publisher = Publisher::connect(&broker.url()).unwrap();
        let mut reader = Reader::open(&broker.url(), &format!("{NUMBER}\nversion: {version}"));
        reader.subscribed(&mut publisher, "acme/m/s");
        // More than the queue holds, and nobody polls.
        for value in 0..50_000 {
            publisher.publish("acme/m/s", value.to_string().as_bytes()).unwrap();
        }
        publisher.flush().unwrap();
        let start = Instant::now();
        reader.read(50_000);
        println!("{version}: 50,000 waiting messages read in {:?}", start.elapsed());
        assert_eq!(reader.values(), (0..50_000).collect::<Vec<i64>>());
        assert!(reader.raw.iter().all(|raw| raw.num_rows() <= 16_384));
    }
}

#[test]
fn a_stop_loses_nothing_that_was_acknowledged() {
    const ALL: i64 = 60_000;
    for version in ["3.1.1", "5"] {
        // All that fits the queue, the queue full with more behind it, and a queue that is being emptied.
        for (polls, wait) in [(0, 20), (0, 500), (3, 100)] {
            let Some(broker) = Mosquitto::start() else { return };
            let mut publisher = Publisher::connect(&broker.url()).unwrap();
            let rest = format!("{NUMBER}\nversion: {version}\nclient_id: taktlinestop");
            let mut reader = Reader::open(&broker.url(), &rest);
            reader.subscribed(&mut publisher, "acme/m/s");
            let sending = std::thread::spawn(move || {
                for value in 0..ALL {
                    publisher.publish("acme/m/s", value.to_string().as_bytes()).unwrap();
                }
                publisher.flush().unwrap();
            });
            for _ in 0..=polls {
                std::thread::sleep(Duration::from_millis(wait));
                if polls > 0 {
                    reader.poll();
                }
            }
            reader.finish();
            let first: BTreeSet<i64> = reader.values().into_iter().collect();
            drop(reader);
            sending.join().unwrap();
            let mut next = Reader::open(&broker.url(), &rest);
            let mut second = BTreeSet::new();
            until("the rest", || {
                next.poll();
                second.extend(next.values());
                next.decoded.clear();
                (second.contains(&(ALL - 1)) || first.contains(&(ALL - 1))).then_some(())
            });
            let twice = first.intersection(&second).count();
            println!(
                "{version}: {} before the stop, {} after it, {twice} twice",
                first.len(),
                second.len()
            );
            assert_eq!(first.union(&second).count(), ALL as usize, "version {version}");
            // An end in good order waits until the broker has read all acknowledgements.
            assert_eq!(twice, 0, "version {version}");
        }
    }
}

#[test]
fn a_message_is_acknowledged_when_it_is_durable_and_not_before() {
    for version in ["3.1.1", "5"] {
        for qos in 1..=2 {
            let Some(broker) = Mosquitto::start() else { return };
            let mut publisher = Publisher::connect(&broker.url()).unwrap();
            let rest = format!("{NUMBER}\nversion: {version}\nqos: {qos}\nclient_id: taktlineack");
            let mut reader = Reader::open(&broker.url(), &rest);
            reader.subscribed(&mut publisher, "acme/m/s");
            reader.acknowledges = false;
            for value in 0..500 {
                publisher.publish("acme/m/s", value.to_string().as_bytes()).unwrap();
            }
            publisher.flush().unwrap();
            reader.read(500);
            drop(reader); // all were read, none is durable
            let mut reader = Reader::open(&broker.url(), &rest);
            reader.acknowledges = false;
            reader.read(500);
            assert_eq!(
                reader.values(),
                (0..500).collect::<Vec<i64>>(),
                "version {version} qos {qos}"
            );
            // Durable up to here, and one message after it.
            reader.partition.acknowledge(reader.polled).unwrap();
            publisher.publish("acme/m/s", b"500").unwrap();
            publisher.flush().unwrap();
            reader.read(501);
            drop(reader);
            let mut reader = Reader::open(&broker.url(), &rest);
            reader.read(1);
            publisher.publish("acme/m/s", b"501").unwrap();
            publisher.flush().unwrap();
            reader.read(2);
            assert_eq!(reader.values(), [500, 501], "version {version} qos {qos}");
        }
    }
}

#[test]
fn messages_on_their_way_are_bounded_and_not_throttled() {
    let Some(broker) = Mosquitto::start() else { return };
    let mut publisher = Publisher::connect(&broker.url()).unwrap();
    let mut reader = Reader::open(&broker.url(), NUMBER);
    reader.subscribed(&mut publisher, "acme/m/s");
    reader.acknowledges = false;
    for value in 0..40_000 {
        publisher.publish("acme/m/s", value.to_string().as_bytes()).unwrap();
    }
    publisher.flush().unwrap();
    reader.read(16_384);
    // Whatever is polled now: the broker waits for an acknowledgement.
    for _ in 0..100 {
        assert!(!reader.poll());
    }
    reader.acknowledges = true;
    reader.partition.acknowledge(reader.polled).unwrap();
    reader.read(40_000);
    assert_eq!(reader.values(), (0..40_000).collect::<Vec<i64>>());
}

#[test]
fn acknowledgements_of_a_lost_connection_are_void() {
    let log = Log::shared();
    for version in ["3.1.1", "5"] {
        let Some(mut broker) = Mosquitto::start() else { return };
        let mut publisher = Publisher::connect(&broker.url()).unwrap();
        let (name, rest) = (
            format!("void{version}"),
            format!("{NUMBER}\nversion: {version}\nclient_id: taktlinevoid"),
        );
        let mut reader = Reader::named(&name, &broker.url(), &rest);
        reader.subscribed(&mut publisher, "acme/m/s");
        reader.acknowledges = false;
        for value in 0..10 {
            publisher.publish("acme/m/s", value.to_string().as_bytes()).unwrap();
        }
        publisher.flush().unwrap();
        reader.read(10);
        broker.kill();
        broker.restart(); // it has forgotten the session: nothing comes again
        reader.partition.acknowledge(reader.polled).unwrap();
        reader.acknowledges = true;
        reader.subscribed(&mut publisher, "acme/m/s");
        publisher.publish("acme/m/s", b"10").unwrap();
        publisher.flush().unwrap();
        reader.read(1);
        assert_eq!(reader.values(), [10], "version {version}");
        // A client that is told to send such an acknowledgement gives the connection up.
        assert_eq!(log.lines(&name, "was lost"), 1, "version {version}");
    }
}

#[test]
fn a_sink_stages_what_its_broker_has() {
    let Some(mut broker) = Mosquitto::start() else { return };
    let mut sink = sink_to(&broker.url());
    sink.write(0, &one_row()).unwrap();
    assert_eq!(sink.stage(1).unwrap().0, serde_json::Value::Null);
    broker.kill();
    sink.write(0, &one_row()).unwrap();
    let (done, staged) = std::sync::mpsc::channel();
    let staging = std::thread::spawn(move || {
        sink.stage(2).unwrap();
        done.send(()).unwrap();
    });
    assert!(staged.try_recv().is_err(), "there is no broker");
    broker.restart();
    until("the broker has it", || staged.try_recv().ok());
    staging.join().unwrap();
}

const OPENING: taktline_engine::Opening = taktline_engine::Opening {
    generation: 0,
    publishes: true,
    folder: None,
};

fn sink_to(url: &str) -> Box<dyn taktline_engine::Sink> {
    let section = Section::from_yaml("ops", &format!("url: {url}\ntopic: 'out/{{machine}}'"));
    let input = Input {
        name: "plc".into(),
        table: samples(),
        extends: Vec::new(),
    };
    (sink::KIND.build)(&section, &[input]).unwrap().open(&OPENING).unwrap()
}

fn one_row() -> RecordBatch {
    samples_batch([Sample {
        machine: "m",
        signal: "s",
        ts: 0,
        value: Some(1.0),
        text: None,
    }])
}

#[test]
fn a_restarted_broker_is_found_again() {
    for version in ["3.1.1", "5"] {
        let Some(mut broker) = Mosquitto::start() else { return };
        let mut publisher = Publisher::connect(&broker.url()).unwrap();
        let mut reader = Reader::open(
            &broker.url(),
            &format!("{NUMBER}\nversion: {version}\nclient_id: taktlinetest"),
        );
        reader.subscribed(&mut publisher, "acme/m/s");
        broker.kill();
        assert!(!reader.poll());
        broker.restart();
        reader.subscribed(&mut publisher, "acme/m/s");
    }
}

#[test]
fn a_broker_that_is_absent_at_the_start_is_waited_for() {
    let Some(mut broker) = Mosquitto::start() else { return };
    broker.kill();
    let mut reader = Reader::open(&broker.url(), NUMBER);
    let mut publisher = Publisher::connect(&broker.url()).unwrap();
    assert!(!reader.poll());
    broker.restart();
    reader.subscribed(&mut publisher, "acme/m/s");
}

#[test]
fn a_kept_session_brings_what_came_in_between() {
    for version in ["3.1.1", "5"] {
        let Some(broker) = Mosquitto::start() else { return };
        let mut publisher = Publisher::connect(&broker.url()).unwrap();
        let rest = format!("{NUMBER}\nversion: {version}\nclient_id: taktlinekept");
        let mut reader = Reader::open(&broker.url(), &rest);
        reader.subscribed(&mut publisher, "acme/m/s");
        drop(reader);
        for value in 0..100 {
            publisher.publish("acme/m/s", value.to_string().as_bytes()).unwrap();
        }
        publisher.flush().unwrap();
        let mut reader = Reader::open(&broker.url(), &rest);
        reader.read(100);
        let values: BTreeSet<i64> = reader.values().into_iter().collect();
        assert_eq!(values, (0..100).collect(), "version {version}");
    }
}

#[test]
fn a_refused_sign_in_is_said_once_and_tried_again() {
    let log = Log::shared();
    let Some(broker) = Mosquitto::with("allow_anonymous false") else {
        return;
    };
    for (name, version) in [("refused311", "3.1.1"), ("refused5", "5")] {
        let sign_in = format!("{NUMBER}\nversion: {version}\nuser: a\npassword: secret");
        let mut reader = Reader::named(name, &broker.url(), &sign_in);
        until("the warning", || {
            (log.lines(name, "check `user` and `password`") == 1).then_some(())
        });
        assert!(!reader.poll());
        assert_eq!(log.lines(name, "secret"), 0);
    }
}

#[test]
fn each_change_of_a_connection_is_said_once() {
    let log = Log::shared();
    let Some(mut broker) = Mosquitto::start() else { return };
    let name = "changes";
    let reader = Reader::named(name, &broker.url(), NUMBER);
    until("connected", || {
        (log.lines(name, "connected to mqtt://") == 1).then_some(())
    });
    broker.kill();
    until("lost", || (log.lines(name, "was lost") == 1).then_some(()));
    broker.restart();
    until("connected again", || {
        (log.lines(name, "connected to mqtt://") == 2).then_some(())
    });
    let mut reader = reader;
    until("the gap", || {
        reader.poll();
        (log.lines(name, "possible gap") == 1).then_some(())
    });
    assert_eq!(log.lines(name, ""), 4);
}

#[test]
fn rows_go_out_and_come_back() {
    for version in ["3.1.1", "5"] {
        let Some(broker) = Mosquitto::start() else { return };
        let mut publisher = Publisher::connect(&broker.url()).unwrap();
        let rest = "topic: 'out/{machine}/{signal}'\ndecode: {value: /value, time: /ts, unit: rfc3339}";
        let mut reader = Reader::open(&broker.url(), rest);
        let probe = br#"{"value":-1,"ts":"2026-01-02T03:04:05Z"}"#;
        until("the subscription stands", || {
            publisher.publish("out/probe/x", probe).unwrap();
            publisher.flush().unwrap();
            reader.poll().then_some(())
        });
        let section = Section::from_yaml(
            "ops",
            &format!(
                "url: {}\ntopic: 'out/{{machine}}/{{signal}}'\nversion: {version}",
                broker.url()
            ),
        );
        let input = Input {
            name: "plc".into(),
            table: samples(),
            extends: Vec::new(),
        };
        let mut sink = (sink::KIND.build)(&section, &[input]).unwrap().open(&OPENING).unwrap();
        let ts = 1_767_323_045_678_901;
        let rows: Vec<Sample<'_>> = (0..500)
            .map(|i| Sample {
                machine: "a/b",
                signal: "s",
                ts: ts + i,
                value: Some(i as f64),
                text: None,
            })
            .collect();
        sink.write(0, &samples_batch(rows)).unwrap();
        sink.stage(1).unwrap();
        until("the rows", || {
            reader.poll();
            (reader.values().iter().filter(|value| **value >= 0).count() == 500).then_some(())
        });
        let last = reader.decoded.last().unwrap();
        let (last, row) = (Samples::of(last).unwrap(), last.num_rows() - 1);
        assert_eq!(last.machines.value(last.machine[row] as usize), "a_b");
        assert_eq!((last.ts[row], last.value.value(row)), (ts + 499, 499.0));
        assert_eq!(reader.dead, [""; 0]);
    }
}

#[test]
fn a_row_that_is_too_large_for_the_broker_costs_itself_only() {
    let log = Log::shared();
    let Some(broker) = Mosquitto::with("allow_anonymous true\nmax_packet_size 400") else {
        return;
    };
    let mut reader = Reader::open(
        &broker.url(),
        "topic: 'out/{machine}/{signal}'\ndecode: {value: /value}",
    );
    let mut publisher = Publisher::connect(&broker.url()).unwrap();
    until("the subscription stands", || {
        publisher.publish("out/probe/x", br#"{"value":-1}"#).unwrap();
        publisher.flush().unwrap();
        reader.poll().then_some(())
    });
    let section = Section::from_yaml(
        "sized",
        &format!("url: {}\ntopic: 'out/{{machine}}/{{signal}}'", broker.url()),
    );
    let input = Input {
        name: "plc".into(),
        table: samples(),
        extends: Vec::new(),
    };
    let mut sink = (sink::KIND.build)(&section, &[input]).unwrap().open(&OPENING).unwrap();
    let (short, long) = ("x".repeat(100), "x".repeat(600));
    let row = |number, text| Sample {
        machine: "m",
        signal: "s",
        ts: 0,
        value: Some(number),
        text: Some(text),
    };
    sink.write(
        0,
        &samples_batch([row(1.0, &*short), row(2.0, &*long), row(3.0, &*short)]),
    )
    .unwrap();
    sink.stage(1).unwrap();
    until("the other rows", || {
        reader.poll();
        let rows: Vec<i64> = reader.values().into_iter().filter(|value| *value > 0).collect();
        (rows == [1, 3]).then_some(())
    });
    assert_eq!(log.lines("sized", "was not sent: it has"), 1);
}

#[test]
fn a_quality_of_service_that_the_broker_has_not_is_an_error() {
    let Some(broker) = Mosquitto::with("allow_anonymous true\nmax_qos 0") else {
        return;
    };
    let error = sink_to(&broker.url()).write(0, &one_row()).unwrap_err();
    assert!(error.to_string().contains("write qos: 0"), "{error:#}");
    let log = Log::shared();
    let _reader = Reader::named("granted", &broker.url(), NUMBER);
    until("it is said of a source", || {
        (log.lines("granted", "with QoS 0 and not 1") == 1).then_some(())
    });
}

#[test]
fn a_sink_waits_for_its_broker() {
    let Some(mut broker) = Mosquitto::start() else { return };
    broker.kill();
    let mut sink = sink_to(&broker.url());
    let done = std::thread::spawn(move || {
        for _ in 0..3 {
            sink.write(0, &one_row()).unwrap();
            sink.stage(1).unwrap();
        }
    });
    broker.restart();
    until("the sink goes on", || done.is_finished().then_some(()));
    done.join().unwrap();
}

#[test]
fn the_embedded_broker_carries_the_demo() {
    let broker = EmbeddedBroker::start().unwrap();
    let mut publisher = Publisher::connect(broker.url()).unwrap();
    let mut reader = Reader::open(broker.url(), NUMBER);
    reader.subscribed(&mut publisher, "acme/m/s");
    let start = Instant::now();
    for value in 0..10_000 {
        publisher.publish("acme/m/s", value.to_string().as_bytes()).unwrap();
    }
    publisher.flush().unwrap();
    println!("published in {:?}", start.elapsed());
    reader.read(10_000);
    println!("10,000 messages through the embedded broker in {:?}", start.elapsed());
    assert_eq!(reader.values(), (0..10_000).collect::<Vec<i64>>());
    let url = broker.url().to_owned();
    drop(reader);
    drop(publisher);
    drop(broker);
    let address = url.trim_start_matches("mqtt://").to_owned();
    assert!(TcpStream::connect(address).is_err(), "the broker ends with its value");
}
