//! The Sparkplug source against a real Mosquitto and a simulated edge node.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod mosquitto;

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use arrow::array::{Array, StringArray};
use futures::executor::block_on;
use mosquitto::*;
use prost::Message as _;
use rumqttc_v5::{AsyncClient, Event, Incoming, LastWill, MqttOptions, PublishOptions, QoS};
use taktline_connectors::sparkplug::source;
use taktline_engine::Samples;

/// As much of a payload as an edge node needs.
#[derive(Clone, PartialEq, prost::Message)]
struct Payload {
    #[prost(uint64, optional, tag = "1")]
    timestamp: Option<u64>,
    #[prost(message, repeated, tag = "2")]
    metrics: Vec<Metric>,
    #[prost(uint64, optional, tag = "3")]
    seq: Option<u64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Metric {
    #[prost(string, optional, tag = "1")]
    name: Option<String>,
    #[prost(uint64, optional, tag = "2")]
    alias: Option<u64>,
    #[prost(uint32, optional, tag = "4")]
    datatype: Option<u32>,
    #[prost(uint64, optional, tag = "11")]
    long: Option<u64>,
    #[prost(double, optional, tag = "13")]
    double: Option<f64>,
    #[prost(bool, optional, tag = "14")]
    boolean: Option<bool>,
}

fn named(name: &str, alias: u64, value: f64) -> Metric {
    Metric {
        name: Some(name.into()),
        datatype: Some(10),
        ..by_alias(alias, value)
    }
}

fn by_alias(alias: u64, value: f64) -> Metric {
    Metric {
        alias: Some(alias),
        double: Some(value),
        ..Metric::default()
    }
}

fn session(number: u64) -> Metric {
    Metric {
        name: Some("bdSeq".into()),
        datatype: Some(4),
        long: Some(number),
        ..Metric::default()
    }
}

fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// A client with a thread that speaks for it; dropped, it vanishes without a word.
struct Vanishing {
    client: AsyncClient,
    heard: Receiver<(String, Vec<u8>)>,
    gone: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Vanishing {
    fn connect(port: u16, id: &str, will: Option<(String, Vec<u8>)>, listens: &str) -> Self {
        let mut options = MqttOptions::new(id, ("127.0.0.1".to_owned(), port));
        if let Some((topic, payload)) = will {
            options.set_last_will(LastWill::new(topic, payload, QoS::AtLeastOnce, false, None));
        }
        let (client, mut link) = AsyncClient::builder(options).capacity(100).build();
        block_on(client.subscribe(listens, QoS::AtLeastOnce)).unwrap();
        let (sender, heard) = channel();
        let (ready, is_ready) = channel();
        let (gone, mut is_gone) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                loop {
                    let event = tokio::select! {
                        _ = &mut is_gone => return,
                        event = link.poll() => event,
                    };
                    match event {
                        Ok(Event::Incoming(Incoming::Publish(publish))) => {
                            let topic = String::from_utf8(publish.topic.to_vec()).unwrap();
                            let _ = sender.send((topic, publish.payload.to_vec()));
                        }
                        Ok(Event::Incoming(Incoming::SubAck(_))) => {
                            let _ = ready.send(());
                        }
                        Ok(_) => {}
                        Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
            });
        });
        is_ready.recv_timeout(PATIENCE).unwrap();
        Vanishing {
            client,
            heard,
            gone: Some(gone),
            thread: Some(thread),
        }
    }

    fn publish(&self, topic: &str, payload: Vec<u8>) {
        let options = PublishOptions::new(QoS::AtMostOnce);
        block_on(self.client.publish(topic, payload, options)).unwrap();
    }
}

impl Drop for Vanishing {
    fn drop(&mut self) {
        let _ = self.gone.take().unwrap().send(());
        self.thread.take().unwrap().join().unwrap();
    }
}

/// An edge node `plant/edge` with a device `press`.
struct Edge {
    link: Vanishing,
    session: u64,
    seq: Mutex<u64>,
}

impl Edge {
    fn connect(port: u16, number: u64) -> Self {
        let death = Payload {
            timestamp: Some(now_ms()),
            metrics: vec![session(number)],
            seq: None,
        };
        let will = ("spBv1.0/plant/NDEATH/edge".to_owned(), death.encode_to_vec());
        Edge {
            link: Vanishing::connect(port, "edge", Some(will), "spBv1.0/plant/NCMD/edge"),
            session: number,
            seq: Mutex::new(0),
        }
    }

    fn send(&self, kind: &str, metrics: Vec<Metric>) {
        let mut seq = self.seq.lock().unwrap();
        if kind == "NBIRTH" {
            *seq = 0;
        }
        let payload = Payload {
            timestamp: Some(now_ms()),
            metrics,
            seq: Some(*seq),
        };
        *seq = (*seq + 1) % 256;
        let device = if kind.starts_with('D') { "/press" } else { "" };
        self.link
            .publish(&format!("spBv1.0/plant/{kind}/edge{device}"), payload.encode_to_vec());
    }

    /// A message that is lost on its way.
    fn lose(&self) {
        let mut seq = self.seq.lock().unwrap();
        *seq = (*seq + 1) % 256;
    }

    fn born(&self, pressure: f64) {
        self.send("NBIRTH", vec![session(self.session), named("load", 1, 0.5)]);
        self.send("DBIRTH", vec![named("pressure", 1, pressure), named("state", 2, 0.0)]);
    }

    fn pressure(&self, value: f64) {
        self.send("DDATA", vec![by_alias(1, value)]);
    }

    fn is_asked_for_a_birth(&self) {
        let (_, payload) = self.link.heard.recv_timeout(PATIENCE).unwrap();
        let command = Payload::decode(payload.as_slice()).unwrap();
        assert_eq!(command.metrics[0].name.as_deref(), Some("Node Control/Rebirth"));
        assert_eq!(command.metrics[0].boolean, Some(true));
    }
}

fn open(broker: &Mosquitto, rest: &str) -> Reader {
    open_after(broker, rest, None)
}

fn open_after(broker: &Mosquitto, rest: &str, journal: Option<&[arrow::array::RecordBatch]>) -> Reader {
    let yaml = format!(
        "url: {}\nreorder_timeout: 200ms\nrebirth_interval: 300ms\n{rest}",
        broker.url()
    );
    Reader::recalling(source::KIND, "line", &yaml, journal)
}

/// `machine signal value [quality]` of each sample.
fn rows(reader: &Reader) -> Vec<String> {
    let mut rows = Vec::new();
    for batch in &reader.decoded {
        let samples = Samples::of(batch).unwrap();
        let quality = samples.quality.downcast_dict::<StringArray>().unwrap();
        let quality: Vec<Option<&str>> = quality.into_iter().collect();
        for row in 0..batch.num_rows() {
            let value = if samples.value.is_valid(row) {
                samples.value.value(row).to_string()
            } else {
                "-".into()
            };
            let machine = samples.machines.value(samples.machine[row] as usize);
            let signal = samples.signals.value(samples.signal[row] as usize);
            let quality = quality[row].map(|quality| format!(" {quality}")).unwrap_or_default();
            rows.push(format!("{machine} {signal} {value}{quality}"));
        }
    }
    rows
}

fn wait_for(reader: &mut Reader, row: &str) {
    until(row, || {
        reader.poll();
        rows(reader).iter().any(|got| got == row).then_some(())
    });
}

/// Makes births until one is heard: then the subscription stands.
fn introduce(reader: &mut Reader, edge: &Edge) {
    until("a birth is heard", || {
        edge.born(1.0);
        std::thread::sleep(Duration::from_millis(20));
        reader.poll();
        rows(reader)
            .iter()
            .any(|row| row.ends_with("press pressure 1"))
            .then_some(())
    });
    edge.pressure(-1.0);
    wait_for(reader, "plant/edge/press pressure -1");
    reader.decoded.clear();
    reader.dead.clear();
}

#[test]
fn an_edge_node_is_born_measures_and_dies() {
    for version in ["3.1.1", "5"] {
        let Some(broker) = Mosquitto::start() else { return };
        let mut reader = open(&broker, &format!("version: {version}"));
        let edge = Edge::connect(broker.port, 1);
        introduce(&mut reader, &edge);
        for value in 2..600 {
            edge.pressure(f64::from(value));
        }
        edge.send("NDATA", vec![by_alias(1, 0.75)]);
        wait_for(&mut reader, "plant/edge load 0.75");
        let got: Vec<String> = rows(&reader);
        let expect = (2..600).map(|value| format!("plant/edge/press pressure {value}"));
        assert_eq!(got[..598], expect.collect::<Vec<_>>(), "{version}");
        assert_eq!(reader.dead, [""; 0]);
        reader.decoded.clear();
        drop(edge); // without a word: the broker says it
        wait_for(&mut reader, "plant/edge/press state - stale");
        assert_eq!(
            rows(&reader),
            [
                "plant/edge load - stale",
                "plant/edge/press pressure - stale",
                "plant/edge/press state - stale"
            ]
        );
        let edge = Edge::connect(broker.port, 2);
        edge.born(7.0);
        edge.send("DDEATH", Vec::new());
        wait_for(&mut reader, "plant/edge/press pressure 7");
        until("the death of the device", || {
            reader.poll();
            (rows(&reader)
                .iter()
                .filter(|row| *row == "plant/edge/press state - stale")
                .count()
                == 2)
                .then_some(())
        });
        assert!(reader.partition.position().text.contains("1 edge nodes"));
    }
}

#[test]
fn a_missing_message_is_told_of_and_a_birth_asked_for() {
    let Some(broker) = Mosquitto::start() else { return };
    let mut reader = open(&broker, "machine: '{device}'");
    let edge = Edge::connect(broker.port, 1);
    until("a birth is heard", || {
        edge.born(1.0);
        std::thread::sleep(Duration::from_millis(20));
        reader.poll();
        rows(&reader).iter().any(|row| row == "press pressure 1").then_some(())
    });
    edge.pressure(2.0);
    edge.lose();
    edge.pressure(4.0);
    wait_for(&mut reader, "press pressure 2");
    wait_for(&mut reader, "press pressure 4");
    edge.is_asked_for_a_birth();
    until("the gap is told of", || {
        reader.poll();
        let mut gaps = reader
            .dead
            .iter()
            .filter(|reason| reason.starts_with("possible gap: the messages"));
        gaps.any(|reason| reason.contains("`plant/edge` did not come within 0.2 s"))
            .then_some(())
    });
    edge.born(5.0);
    wait_for(&mut reader, "press pressure 5");
    // The node's own metrics have no device to be named after.
    until("a message without a machine", || {
        reader.poll();
        reader
            .dead
            .iter()
            .any(|reason| reason.contains("names no machine"))
            .then_some(())
    });
}

#[test]
fn data_before_its_birth_waits() {
    let Some(broker) = Mosquitto::start() else { return };
    let edge = Edge::connect(broker.port, 1);
    let watcher = Vanishing::connect(broker.port, "watcher", None, "spBv1.0/+/DBIRTH/#");
    edge.born(1.0);
    watcher.heard.recv_timeout(PATIENCE).unwrap(); // and not the source
    let mut reader = open(&broker, "");
    until("something is heard", || {
        edge.pressure(2.0);
        reader.poll();
        edge.link.heard.try_recv().ok()
    });
    assert_eq!(rows(&reader), [""; 0]);
    edge.born(3.0);
    wait_for(&mut reader, "plant/edge/press pressure 3");
    let rows = rows(&reader);
    assert!(rows.iter().any(|row| row == "plant/edge/press pressure 2"), "{rows:?}");
    assert_eq!(rows.last().unwrap(), "plant/edge/press state 0");
}

#[test]
fn a_run_after_another_asks_for_births_and_tells_of_the_gap() {
    let Some(broker) = Mosquitto::start() else { return };
    let edge = Edge::connect(broker.port, 1);
    let mut reader = open(&broker, "");
    introduce(&mut reader, &edge);
    let journal = reader.raw.clone();
    drop(reader);
    while edge.link.heard.try_recv().is_ok() {}
    let mut reader = open_after(&broker, "", Some(&journal));
    until("it is asked", || {
        edge.pressure(2.0);
        reader.poll();
        edge.link.heard.try_recv().ok()
    });
    assert!(
        reader.dead[0].contains("a Sparkplug host has no session"),
        "{:?}",
        reader.dead
    );
    edge.born(3.0);
    wait_for(&mut reader, "plant/edge/press pressure 3");
}

#[test]
fn a_broker_that_was_away_makes_births_void() {
    let Some(mut broker) = Mosquitto::start() else { return };
    let mut reader = open(&broker, "birth_timeout: 1s");
    let edge = Edge::connect(broker.port, 1);
    introduce(&mut reader, &edge);
    drop(edge);
    wait_for(&mut reader, "plant/edge/press state - stale");
    let edge = Edge::connect(broker.port, 2);
    edge.born(5.0);
    wait_for(&mut reader, "plant/edge/press pressure 5");
    reader.decoded.clear();
    broker.kill();
    drop(edge);
    broker.restart();
    // The edge node doesn't come back, and nobody can say that it died.
    wait_for(&mut reader, "plant/edge/press state - stale");
    assert!(
        reader.dead.iter().any(|reason| reason.starts_with("possible gap")),
        "{:?}",
        reader.dead
    );
}

#[test]
fn a_primary_host_says_whether_it_is_there() {
    for version in ["3.1.1", "5"] {
        let Some(broker) = Mosquitto::start() else { return };
        let watcher = Vanishing::connect(broker.port, "watcher", None, "spBv1.0/STATE/taktline");
        let said = || -> serde_json::Value {
            let (_, payload) = watcher.heard.recv_timeout(PATIENCE).unwrap();
            serde_json::from_slice(&payload).unwrap()
        };
        let rest = format!("host_id: taktline\nclient_id: host\nversion: {version}");
        let mut reader = open(&broker, &rest);
        let first = said();
        assert_eq!(first["online"], true, "{version}");
        assert!(first["timestamp"].as_u64().unwrap() > 1_700_000_000_000);
        reader.finish();
        drop(reader);
        let gone = said();
        assert_eq!(
            (&gone["online"], &gone["timestamp"]),
            (&false.into(), &first["timestamp"]),
            "{version}"
        );
        // What a connection that was lost leaves behind comes when the next one is there: it is put right.
        let mut reader = open(&broker, &rest);
        assert_eq!(said()["online"], true);
        let other = Vanishing::connect(broker.port, "another", None, "nothing");
        let options = PublishOptions::new(QoS::AtLeastOnce).retain(true);
        let will = br#"{"online":false,"timestamp":1}"#.to_vec();
        block_on(other.client.publish("spBv1.0/STATE/taktline", will, options)).unwrap();
        assert_eq!(said()["online"], false);
        let (done, is_done) = channel();
        let looking = std::thread::spawn(move || {
            while is_done.try_recv().is_err() {
                reader.poll();
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        assert_eq!(said()["online"], true, "{version}");
        done.send(()).unwrap();
        looking.join().unwrap();
    }
}

#[test]
fn garbage_costs_one_row() {
    let Some(broker) = Mosquitto::start() else { return };
    let mut reader = open(&broker, "");
    let edge = Edge::connect(broker.port, 1);
    introduce(&mut reader, &edge);
    edge.link.publish("spBv1.0/plant/NDATA/edge", vec![0xff; 10]);
    edge.link.publish("spBv1.0/plant/NDATA/edge", Vec::new());
    edge.link.publish("spBv1.0/plant/NDATA/edge", vec![b'x'; 17 << 20]);
    edge.pressure(2.0);
    wait_for(&mut reader, "plant/edge/press pressure 2");
    // Samples and dead letters go in batches of their own.
    let deadline = Instant::now() + Duration::from_secs(20);
    while reader.dead.len() < 2 && Instant::now() < deadline {
        reader.poll();
        std::thread::sleep(Duration::from_millis(2)); // between two looks
    }
    assert_eq!(reader.dead.len(), 2, "{:?}", reader.dead);
    assert!(
        reader.dead[0].starts_with("not a Sparkplug B payload"),
        "{:?}",
        reader.dead
    );
    assert!(
        reader.dead[1].starts_with("the payload has 17825792 bytes"),
        "{:?}",
        reader.dead
    );
}
