//! The Kafka sink against a real broker: when things fail at every point of a checkpoint, when another run takes over, when the broker
//! is away. A reader of its own counts what is committed.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod kafka_broker;
mod kafka_client;

use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arrow::array::RecordBatch;
use fail::FailScenario;
use kafka_broker::{Broker, PASSWORD, USER, shared};
use kafka_client::{Cluster, unique, until};
use taktline_connectors::kafka::sink;
use taktline_engine::config::Section;
use taktline_engine::kind::{Catalog, Input};
use taktline_engine::plan::compile;
use taktline_engine::state::Staged;
use taktline_engine::table::{Sample, samples, samples_batch};
use taktline_engine::{Fabric, Opening, Options, Poll, Resume, Run, Samples, Sink, StateOptions};

/// Fail points are of the whole process: one test at a time.
fn alone() -> (MutexGuard<'static, ()>, FailScenario<'static>) {
    static ALONE: Mutex<()> = Mutex::new(());
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    (guard, FailScenario::setup())
}

/// A sink's surroundings, as the engine would keep them.
struct Scene {
    kafka: Cluster,
    topic: String,
    progress: String,
    settings: String,
    dir: tempfile::TempDir,
    generation: u64,
    checkpoint: u64,
    staged: Vec<Staged>,
    /// Rows in the checkpoint.
    rows: i64,
}

impl Scene {
    fn at(brokers: &str) -> Self {
        let kafka = Cluster::at(brokers);
        let topic = unique("out");
        kafka.topic(&topic, 2);
        let progress = unique("progress");
        Scene {
            kafka,
            settings: format!("brokers: '{brokers}', topic: {topic}, progress_topic: {progress}"),
            topic,
            progress,
            dir: tempfile::tempdir().unwrap(),
            generation: 0,
            checkpoint: 0,
            staged: Vec::new(),
            rows: 0,
        }
    }

    fn open_as(&self, generation: u64, publishes: bool) -> Box<dyn Sink> {
        open(&self.settings, Some(self.dir.path()), generation, publishes)
    }

    /// The next run's sink.
    fn resume(&mut self) -> anyhow::Result<Box<dyn Sink>> {
        self.generation += 1;
        let mut sink = self.open_as(self.generation, true);
        sink.recover(self.checkpoint, &self.staged)?;
        Ok(sink)
    }

    /// One checkpoint of so many rows.
    fn checkpoint(&mut self, sink: &mut Box<dyn Sink>, rows: i64) -> anyhow::Result<()> {
        sink.write(0, &batch(self.rows..self.rows + rows))?;
        let staged = vec![sink.stage(self.checkpoint + 1)?];
        // From here on it is real.
        (self.checkpoint, self.staged) = (self.checkpoint + 1, staged);
        self.rows += rows;
        sink.publish(self.checkpoint, &self.staged)
    }

    fn sent(&self) -> Vec<i64> {
        let mut values: Vec<i64> = values(&self.kafka.read(&self.topic));
        values.sort_unstable();
        values
    }

    fn files(&self) -> usize {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().file_name().to_string_lossy().ends_with(".rows"))
            .count()
    }
}

fn open(settings: &str, folder: Option<&Path>, generation: u64, publishes: bool) -> Box<dyn Sink> {
    let section = Section::from_yaml("out", &format!("{{{settings}}}"));
    let input = Input {
        name: "plc".into(),
        table: samples(),
        extends: Vec::new(),
    };
    let plan = (sink::KIND.build)(&section, &[input]).unwrap_or_else(|problems| panic!("{problems:?}"));
    let opening = Opening {
        generation,
        publishes,
        folder: folder.map(Path::to_owned),
    };
    plan.open(&opening).unwrap()
}

fn batch(values: std::ops::Range<i64>) -> RecordBatch {
    samples_batch(values.map(|value| Sample {
        machine: ["press-1", "press-2", "press-3"][(value % 3) as usize],
        signal: "force",
        ts: value * 1_000_000,
        value: Some(value as f64),
        text: None,
    }))
}

fn values(messages: &[(String, String)]) -> Vec<i64> {
    let value = |payload: &String| {
        let row: serde_json::Value = serde_json::from_str(payload).unwrap();
        row["value"].as_f64().unwrap() as i64
    };
    messages.iter().map(|(_, payload)| value(payload)).collect()
}

fn said<T>(result: anyhow::Result<T>) -> String {
    format!("{:#}", result.err().expect("an error"))
}

/// Schemas that a registry was asked to keep, each with its subject.
type Registered = Arc<Mutex<Vec<(String, String)>>>;

/// A schema registry over its REST paths: gives each new schema the next number.
fn registry() -> (String, Registered) {
    use axum::extract::{Path, State};
    use axum::http::StatusCode;
    use axum::routing::{get, post};
    use serde_json::{Value, json};
    async fn register(State(all): State<Registered>, Path(subject): Path<String>, body: String) -> String {
        let body: Value = serde_json::from_str(&body).unwrap();
        let mut all = all.lock().unwrap();
        all.push((subject, body["schema"].as_str().unwrap().to_owned()));
        json!({"id": all.len()}).to_string()
    }
    async fn schema(State(all): State<Registered>, Path(id): Path<usize>) -> (StatusCode, String) {
        match all.lock().unwrap().get(id.wrapping_sub(1)) {
            Some((_, schema)) => (StatusCode::OK, json!({"schema": schema}).to_string()),
            None => (StatusCode::NOT_FOUND, json!({"error_code": 40403}).to_string()),
        }
    }
    let registered = Registered::default();
    let routes = axum::Router::new()
        .route("/subjects/{subject}/versions", post(register))
        .route("/schemas/ids/{id}", get(schema))
        .with_state(registered.clone());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    listener.set_nonblocking(true).unwrap();
    // Ends with the process.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            axum::serve(listener, routes).await.unwrap();
        });
    });
    (url, registered)
}

/// What the sink writes by a registry, the source reads by the same, and another implementation of Avro by the schema alone.
#[test]
fn avro_by_a_registry_comes_back_as_it_was() {
    let (_alone, _faults) = alone();
    let Some(brokers) = shared() else { return };
    let (url, registered) = registry();
    let mut scene = Scene::at(&brokers);
    scene.settings += &format!(", encode: {{format: avro, registry: {{url: '{url}'}}}}");
    let mut sink = scene.resume().unwrap();
    scene.checkpoint(&mut sink, 30).unwrap();
    scene.checkpoint(&mut sink, 6).unwrap();
    let registered = registered.lock().unwrap().clone();
    let subject = format!("{}-value", scene.topic);
    assert_eq!(registered.len(), 1, "a schema is registered once");
    assert_eq!(registered[0].0, subject);
    let messages = scene.kafka.messages(&scene.topic);
    assert_eq!(messages.len(), 36);
    let schema = apache_avro::Schema::parse_str(&registered[0].1).unwrap();
    let mut values: Vec<i64> = messages.iter().map(|(_, payload)| value_of(&schema, payload)).collect();
    values.sort_unstable();
    assert_eq!(values, (0..36).collect::<Vec<_>>());
    let decode = format!(
        "{{format: avro, registry: {{url: '{url}'}}, time: /ts, value: /value, machine: /machine, signal: /signal}}"
    );
    let section = Section::from_yaml(
        "plc",
        &format!("{{brokers: '{brokers}', topics: {}, decode: {decode}}}", scene.topic),
    );
    let source = (taktline_connectors::kafka::source::KIND.build)(&section).unwrap_or_else(|found| panic!("{found:?}"));
    let mut partition = source.open(0, None, Arc::new(|| {})).unwrap();
    let (mut decoder, mut rows) = (source.decoder(), Vec::new());
    until("the rows come back", || {
        if let Poll::Batch(raw) = partition.poll().unwrap() {
            let decoded = decoder.decode(&raw).unwrap();
            assert_eq!(decoded.dead_letters.num_rows(), 0);
            let samples = Samples::of(&decoded.samples).unwrap();
            rows.extend((0..decoded.samples.num_rows()).map(|row| {
                let machine = samples.machines.value(samples.machine[row] as usize).to_owned();
                (samples.ts[row], machine, samples.value.value(row) as i64)
            }));
        }
        (rows.len() >= 36).then_some(())
    });
    rows.sort();
    let expect = (0..36).map(|value: i64| {
        let machine = ["press-1", "press-2", "press-3"][(value % 3) as usize].to_owned();
        (value * 1_000_000, machine, value)
    });
    assert_eq!(rows, expect.collect::<Vec<_>>());
}

/// The column `value` of a payload behind its five bytes of framing.
fn value_of(schema: &apache_avro::Schema, payload: &[u8]) -> i64 {
    let mut rest = payload
        .strip_prefix(&[0, 0, 0, 0, 1])
        .expect("the number of the schema");
    let read = apache_avro::from_avro_datum(schema, &mut rest, None).unwrap();
    let read: serde_json::Value = read.try_into().unwrap();
    read["value"].as_f64().unwrap() as i64
}

#[test]
fn rows_are_seen_when_their_checkpoint_is_real_and_keep_their_order_by_key() {
    let (_alone, _faults) = alone();
    let Some(brokers) = shared() else { return };
    let mut scene = Scene::at(&brokers);
    let mut sink = scene.resume().unwrap();
    sink.write(0, &batch(0..30)).unwrap();
    let staged = vec![sink.stage(1).unwrap()];
    assert_eq!((scene.sent(), scene.files()), (vec![], 1), "staged, not sent");
    sink.publish(1, &staged).unwrap();
    sink.publish(1, &staged).unwrap();
    let messages = scene.kafka.read(&scene.topic);
    assert_eq!(messages.len(), 30);
    for machine in 0..3 {
        let name = format!("press-{}", machine + 1);
        let of: Vec<_> = messages.iter().filter(|(key, _)| *key == name).cloned().collect();
        assert_eq!(values(&of), (machine..30).step_by(3).collect::<Vec<_>>());
    }
    assert_eq!(scene.files(), 0, "what is published is not kept");
    // A checkpoint without rows is nothing to Kafka.
    let nothing = vec![sink.stage(2).unwrap()];
    assert!(nothing[0].0.is_null());
    sink.publish(2, &nothing).unwrap();
}

#[test]
fn a_fault_at_any_point_loses_nothing_and_doubles_nothing() {
    let (_alone, _faults) = alone();
    let Some(brokers) = shared() else { return };
    let points = [
        "kafka.outbox.create",
        "kafka.outbox.write",
        "kafka.outbox.sync",
        "kafka.begin",
        "kafka.sent",
        "kafka.commit",
        "kafka.committed",
        "kafka.published",
    ];
    for point in points {
        let mut scene = Scene::at(&brokers);
        fail::cfg(point, "1*off->1*return(x)->1*off->1*return(x)->off").unwrap();
        let mut runs = 0;
        while scene.rows < 60 {
            runs += 1;
            let run = scene.resume().and_then(|mut sink| {
                while scene.rows < 60 {
                    scene.checkpoint(&mut sink, 10)?;
                }
                Ok(())
            });
            assert!(run.is_ok() || said(run).contains(point));
        }
        // The last one may have ended before all was sent.
        scene.resume().unwrap();
        fail::remove(point);
        assert!(runs > 2, "{point}: {runs} runs");
        assert_eq!(scene.sent(), (0..60).collect::<Vec<_>>(), "{point}");
        scene.resume().unwrap();
        assert_eq!(scene.files(), 0, "{point}");
    }
}

#[test]
fn a_large_checkpoint_is_sent_in_parts_and_goes_on_after_the_last_one() {
    let (_alone, _faults) = alone();
    let Some(brokers) = shared() else { return };
    let mut scene = Scene::at(&brokers);
    let mut sink = scene.resume().unwrap();
    fail::cfg("kafka.committed", "1*off->1*return(x)->off").unwrap();
    // Two parts of 50,000 and the rest; the fault comes after the second.
    let failed = said(scene.checkpoint(&mut sink, 120_000));
    fail::remove("kafka.committed");
    assert!(failed.contains("kafka.committed"), "{failed}");
    drop(sink);
    assert_eq!(scene.sent().len(), 100_000);
    scene.resume().unwrap();
    assert!(scene.sent() == (0..120_000).collect::<Vec<_>>());
}

#[test]
fn several_processes_stage_and_one_publishes() {
    let (_alone, _faults) = alone();
    let Some(brokers) = shared() else { return };
    let mut scene = Scene::at(&brokers);
    let mut sink = scene.resume().unwrap();
    let mut other = scene.open_as(1, false);
    for checkpoint in 1..4 {
        let first = checkpoint * 100;
        sink.write(0, &batch(first..first + 10)).unwrap();
        other.write(0, &batch(first + 10..first + 20)).unwrap();
        let staged = vec![
            sink.stage(checkpoint as u64).unwrap(),
            other.stage(checkpoint as u64).unwrap(),
        ];
        sink.publish(checkpoint as u64, &staged).unwrap();
    }
    assert_eq!(
        scene.sent(),
        (1..4).flat_map(|at| at * 100..at * 100 + 20).collect::<Vec<_>>()
    );
}

#[test]
fn an_older_run_can_no_longer_publish() {
    let (_alone, _faults) = alone();
    let Some(brokers) = shared() else { return };
    let mut scene = Scene::at(&brokers);
    let mut zombie = scene.resume().unwrap();
    scene.checkpoint(&mut zombie, 10).unwrap();
    // It has made a checkpoint real, and sleeps before it publishes.
    zombie.write(0, &batch(10..20)).unwrap();
    (scene.checkpoint, scene.staged) = (2, vec![zombie.stage(2).unwrap()]);
    scene.rows = 20;
    let mut sink = scene.resume().unwrap();
    assert_eq!(scene.sent().len(), 20, "the next run has published it");
    let (checkpoint, staged) = (scene.checkpoint, scene.staged.clone());
    let refused = zombie.publish(checkpoint, &staged);
    assert!(said(refused).contains("rows"), "its file is gone");
    zombie.write(0, &batch(20..30)).unwrap();
    let staged = vec![zombie.stage(3).unwrap()];
    let refused = said(zombie.publish(3, &staged));
    assert!(refused.contains("another run"), "{refused}");
    scene.checkpoint(&mut sink, 10).unwrap();
    assert_eq!(scene.sent(), (0..30).collect::<Vec<_>>());
}

#[test]
fn a_broker_that_is_away_is_waited_for() {
    let (_alone, _faults) = alone();
    let Some(mut broker) = Broker::start() else { return };
    let mut scene = Scene::at(&broker.address());
    let mut sink = scene.resume().unwrap();
    scene.checkpoint(&mut sink, 10).unwrap();
    for how in ["kill", "stop", "kill before"] {
        if how == "stop" {
            broker.stop()
        } else {
            broker.kill()
        }
        if how == "kill before" {
            // Nothing is to be published: a new run doesn't wait for the broker.
            sink = scene.resume().unwrap();
        }
        let publishing = std::thread::spawn(move || {
            let done = scene.checkpoint(&mut sink, 10);
            (done, scene, sink)
        });
        broker.restart();
        let done;
        (done, scene, sink) = publishing.join().unwrap();
        done.unwrap();
        assert_eq!(scene.sent(), (0..scene.rows).collect::<Vec<_>>(), "{how}");
    }
    // And at least once, while rows are on their way.
    let mut post = open(&format!("{}, delivery: at_least_once", scene.settings), None, 0, true);
    broker.kill();
    let writing = std::thread::spawn(move || {
        post.write(0, &batch(1_000..1_100)).unwrap();
        post.stage(1).unwrap();
    });
    broker.restart();
    writing.join().unwrap();
    let mut sent = scene.sent();
    sent.dedup();
    assert!(sent.ends_with(&(1_000..1_100).collect::<Vec<_>>()));
}

#[test]
fn progress_is_kept_for_ever_also_by_a_broker_that_makes_topics_itself() {
    let (_alone, _faults) = alone();
    let Some(broker) = Broker::with(None, "auto.create.topics.enable=true") else {
        return;
    };
    let mut scene = Scene::at(&broker.address());
    let mut sink = scene.resume().unwrap();
    scene.checkpoint(&mut sink, 10).unwrap();
    assert_eq!(scene.kafka.setting(&scene.progress, "cleanup.policy"), "compact");
}

#[test]
fn without_a_data_directory_rows_are_sent_at_once() {
    let (_alone, _faults) = alone();
    let Some(brokers) = shared() else { return };
    let scene = Scene::at(&brokers);
    let mut sink = open(&scene.settings, None, 0, true);
    sink.write(0, &batch(0..10)).unwrap();
    assert!(sink.stage(1).unwrap().0.is_null());
    assert_eq!(scene.sent(), (0..10).collect::<Vec<_>>());
}

#[test]
fn topics_and_keys_are_made_of_columns() {
    let (_alone, _faults) = alone();
    let Some(brokers) = shared() else { return };
    let mut scene = Scene::at(&brokers);
    let prefix = unique("by");
    for machine in ["press-1", "press-2", "press-3"] {
        scene.kafka.topic(&format!("{prefix}-{machine}"), 1);
    }
    scene.settings = scene.settings.replace(
        &scene.topic,
        &format!("'{prefix}-{{machine}}', key: '{{signal}}/{{machine}}'"),
    );
    let mut sink = scene.resume().unwrap();
    scene.checkpoint(&mut sink, 6).unwrap();
    for (index, machine) in ["press-1", "press-2", "press-3"].into_iter().enumerate() {
        let found = scene.kafka.read(&format!("{prefix}-{machine}"));
        assert_eq!(values(&found), [index as i64, index as i64 + 3]);
        assert!(
            found.iter().all(|(key, _)| *key == format!("force/{machine}")),
            "{found:?}"
        );
    }
}

#[test]
fn what_the_broker_never_takes_ends_the_run_and_says_why() {
    let (_alone, _faults) = alone();
    let Some(broker) = Broker::start() else { return };
    let mut scene = Scene::at(&broker.address());
    let settings = scene.settings.clone();
    let check = |scene: &mut Scene, settings: String, parts: &[&str]| {
        scene.settings = settings;
        for delivery in ["exactly_once", "at_least_once"] {
            scene.settings += &format!(", delivery: {delivery}");
            let mut sink = scene.resume().unwrap();
            let failed = said(scene.checkpoint(&mut sink, 10));
            for part in parts {
                assert!(failed.contains(part), "{delivery}: {failed}");
            }
            // Let go of what can't be published: the next case begins anew.
            (scene.staged, scene.settings) = (
                Vec::new(),
                scene.settings.replace(&format!(", delivery: {delivery}"), ""),
            );
        }
    };
    let (user, sasl) = (format!("user: {USER}, password"), broker.sasl());
    let signed = settings.replace(&broker.address(), &sasl);
    check(
        &mut scene,
        format!("{signed}, {user}: wrong"),
        &["`alice`", "`password`", &sasl],
    );
    let none = settings.replace(&scene.topic, &unique("none"));
    check(&mut scene, none, &["`topic`", "auto.create.topics.enable"]);
    let small = unique("small");
    scene.kafka.topic_with(&small, 1, &[("max.message.bytes", "200")]);
    let settings = settings.replace(&scene.topic, &small);
    check(&mut scene, settings, &["`max.message.bytes`"]);
    let signed = scene
        .settings
        .replace(&broker.address(), &sasl)
        .replace(&small, &scene.topic);
    scene.settings = format!("{signed}, {user}: {PASSWORD}, mechanism: scram-sha-256");
    let (first, mut sink) = (scene.rows, scene.resume().unwrap());
    scene.checkpoint(&mut sink, 10).unwrap();
    assert_eq!(scene.sent(), (first..first + 10).collect::<Vec<_>>());
}

#[test]
fn a_damaged_outbox_is_an_error_and_a_lost_one_is_said() {
    let (_alone, _faults) = alone();
    let Some(brokers) = shared() else { return };
    let mut scene = Scene::at(&brokers);
    let mut sink = scene.resume().unwrap();
    fail::cfg("kafka.begin", "return(x)").unwrap();
    scene.checkpoint(&mut sink, 10).unwrap_err();
    fail::remove("kafka.begin");
    drop(sink);
    let file = std::fs::read_dir(scene.dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let file = file
        .into_iter()
        .find(|path| path.extension().is_some_and(|ending| ending == "rows"))
        .unwrap();
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() - 1]).unwrap();
    let failed = said(scene.resume());
    assert!(
        failed.contains("can't be published") && failed.contains(".rows"),
        "{failed}"
    );
    std::fs::write(&file, &whole).unwrap();
    scene.resume().unwrap();
    assert_eq!(scene.sent(), (0..10).collect::<Vec<_>>());
}

/// What is logged on this thread while `act` runs.
fn logged(act: impl FnOnce()) -> String {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);
    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    tracing::subscriber::with_default(subscriber, act);
    let bytes = log.0.lock().unwrap().clone();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn going_back_to_an_older_checkpoint_is_said_since_kafka_takes_nothing_back() {
    let (_alone, _faults) = alone();
    let Some(brokers) = shared() else { return };
    let mut scene = Scene::at(&brokers);
    let mut sink = scene.resume().unwrap();
    scene.checkpoint(&mut sink, 10).unwrap();
    let back = (scene.checkpoint, scene.staged.clone());
    scene.checkpoint(&mut sink, 10).unwrap();
    drop(sink);
    // As with --from: the numbers of checkpoints go on.
    let mut sink = scene.open_as(2, true);
    sink.recover(back.0, &back.1).unwrap();
    scene.rows = 10;
    (scene.checkpoint, scene.generation) = (3, 2);
    let log = logged(|| scene.checkpoint(&mut sink, 10).unwrap());
    assert!(log.contains("WARN") && log.contains("sent again"), "{log}");
    assert_eq!(scene.sent().len(), 30);
    let log = logged(|| scene.checkpoint(&mut sink, 10).unwrap());
    assert_eq!(log, "");
}

#[test]
fn an_older_copy_of_the_state_loses_no_rows() {
    let (_alone, _faults) = alone();
    let Some(brokers) = shared() else { return };
    let mut scene = Scene::at(&brokers);
    let mut sink = scene.resume().unwrap();
    scene.checkpoint(&mut sink, 10).unwrap();
    let copy = (scene.checkpoint, scene.staged.clone());
    for _ in 0..3 {
        scene.checkpoint(&mut sink, 10).unwrap();
    }
    (scene.checkpoint, scene.staged) = copy;
    // The numbers of their checkpoints were in Kafka before.
    for _ in 0..2 {
        sink = scene.resume().unwrap();
        scene.checkpoint(&mut sink, 10).unwrap();
    }
    assert_eq!(scene.sent(), (0..60).collect::<Vec<_>>());
}

static CATALOG: Catalog = Catalog {
    sources: taktline_connectors::SOURCES,
    steps: &[],
    sinks: taktline_connectors::SINKS,
};

fn run(text: &str, workers: usize) -> Arc<Run> {
    let plan = compile("kafka.yaml", text, &[], &CATALOG, &|_| None).unwrap_or_else(|found| panic!("{found:?}"));
    let options = Options {
        workers,
        checkpoint_every: Duration::from_millis(50),
        ..Options::default()
    };
    Run::new(plan, options).unwrap()
}

#[test]
fn from_kafka_to_kafka_each_row_comes_once_through_stops_and_faults() {
    let (_alone, _faults) = alone();
    let Some(brokers) = shared() else { return };
    let kafka = Cluster::at(&brokers);
    let (from, to, group) = (unique("in"), unique("out"), unique("group"));
    kafka.topic(&from, 4);
    kafka.topic(&to, 2);
    let data = tempfile::tempdir().unwrap();
    let progress = unique("progress");
    let text = [1, 3].map(|readers| {
        format!(
            "version: 1\nname: copy\nsources: {{plc: {{kind: kafka, brokers: '{brokers}', topics: {from}, group: {group}, \
             readers: {readers}, signal: s, decode: {{format: number}}}}}}\n\
             sinks: {{out: {{kind: kafka, from: plc, brokers: '{brokers}', topic: {to}, progress_topic: {progress}}}}}\n"
        )
    });
    let faults = [
        None,
        Some("kafka.commit"),
        Some("kafka.committed"),
        None,
        Some("kafka.sent"),
        Some("kafka.outbox.sync"),
    ];
    let mut total = 0;
    for (round, fault) in faults.into_iter().enumerate() {
        if let Some(point) = fault {
            fail::cfg(point, "1*return(x)->off").unwrap();
        }
        let running = run(&text[round % 2], 1 + round % 3);
        let thread = std::thread::spawn({
            let (running, state) = (Arc::clone(&running), StateOptions::at(data.path()));
            move || {
                let resume = Resume::lead(&running, &state, 1)?;
                running.execute_from(Some(resume), Fabric::alone()).map(drop)
            }
        });
        for part in 0..20 {
            for partition in 0..4_i64 {
                let first = total + partition * 25;
                kafka.send_numbers(&from, partition as i32, first..first + 25);
            }
            total += 100;
            if part == 10 && fault.is_none() {
                until("the lag is shown", || {
                    running
                        .metrics
                        .text()
                        .unwrap()
                        .contains("taktline_source_lag{node=\"plc\"")
                        .then_some(())
                });
            }
        }
        match fault {
            // A fault ends the run, wherever it is.
            Some(point) => {
                let failed = said(thread.join().unwrap());
                assert!(failed.contains(point), "{failed}");
                fail::remove(point);
            }
            None => {
                until("all is copied", || {
                    (kafka.read(&to).len() >= total as usize).then_some(())
                });
                until("the group knows", || {
                    let committed = (0..4).map(|partition| kafka.committed(&group, &from, partition).unwrap_or(0));
                    (committed.sum::<i64>() == total).then_some(())
                });
                running.stop();
                thread.join().unwrap().unwrap();
            }
        }
    }
    let running = run(&text[0], 2);
    let thread = std::thread::spawn({
        let (running, state) = (Arc::clone(&running), StateOptions::at(data.path()));
        move || {
            running
                .execute_from(Some(Resume::lead(&running, &state, 1)?), Fabric::alone())
                .map(drop)
        }
    });
    until("all is copied", || {
        (kafka.read(&to).len() >= total as usize).then_some(())
    });
    running.stop();
    thread.join().unwrap().unwrap();
    let mut sent = values(&kafka.read(&to));
    sent.sort_unstable();
    assert_eq!(sent, (0..total).collect::<Vec<_>>());
}
