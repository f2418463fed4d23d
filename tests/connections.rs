//! docs/CONNECTIONS.md and the pipelines of config/: what they show is valid, and the pipelines for Kafka and HTTP find cycles, unedited.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../connectors/tests/kafka_broker/mod.rs"]
mod kafka_broker;
mod support;

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use support::{any, ok, taktline, text};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A run; ends with this value.
struct Started(Child);

impl Started {
    fn run(pipeline: &str, data: &Path, variables: &[(&str, &str)]) -> Self {
        let mut command = taktline();
        command.envs(variables.iter().copied());
        command
            .args(["run", pipeline, "--listen", "127.0.0.1:0", "--data"])
            .arg(data);
        Started(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn every_block_of_the_document_is_a_valid_pipeline() {
    let document = shown("docs/CONNECTIONS.md");
    let blocks: Vec<&str> = document
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .collect();
    assert!(blocks.len() >= 8, "{} blocks", blocks.len());
    blocks.into_iter().for_each(valid);
}

#[test]
fn every_decode_of_the_document_is_valid() {
    let document = shown("docs/CONNECTIONS.md");
    let codes = document.split('`').filter(|code| code.starts_with("decode: {"));
    // Those that name a file of the plant need it.
    let codes: Vec<&str> = codes
        .filter(|code| !code.contains("schema: ") && !code.contains("descriptor: "))
        .collect();
    assert!(codes.len() >= 10, "{codes:?}");
    for code in codes {
        valid(&format!(
            "version: 1\nsources:\n  plc: {{kind: mqtt, url: mqtt://broker:1883, topic: \"plant/{{machine}}/{{signal}}\", {code}}}\n\
             sinks:\n  history: {{kind: history, from: plc}}\n"
        ));
    }
}

#[test]
fn every_pipeline_of_config_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for entry in std::fs::read_dir(root.join("config/pipelines")).unwrap() {
        ok(&["validate", entry.unwrap().path().to_str().unwrap()]);
        count += 1;
    }
    assert!(count >= 8, "{count} pipelines");
}

#[test]
fn presses_behind_kafka() {
    let settings = "auto.create.topics.enable=true";
    let Some(broker) = kafka_broker::Broker::with(None, settings) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let line = dir.path().join("line.yaml");
    let gateway = format!(
        "version: 1\nsources:\n  presses: {{kind: simulate, machines: 2, rate: 50, period: 1s, replay: realtime}}\n\
         sinks:\n  gateway: {{kind: kafka, from: presses, brokers: \"{}\", topic: press-line}}\n",
        broker.address()
    );
    std::fs::write(&line, gateway).unwrap();
    let _plant = Started::run(line.to_str().unwrap(), &dir.path().join("line"), &[]);
    let data = dir.path().join("data");
    let _run = Started::run(
        "config/pipelines/kafka.yaml",
        &data,
        &[("KAFKA_BROKERS", &broker.address())],
    );
    finds_cycles(&data, || ());
}

#[test]
fn a_gateway_that_pushes() {
    let dir = tempfile::tempdir().unwrap();
    let (data, reports) = (dir.path().join("data"), dir.path().join("reports"));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let variables = [
        ("HTTP_LISTEN", address.as_str()),
        ("REPORTS", reports.to_str().unwrap()),
    ];
    let _run = Started::run("config/pipelines/http.yaml", &data, &variables);
    let begun = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64 - 60_000;
    let mut tick = 0;
    // As `curl` and Telegraf send, a second of it at a time, until there are cycles.
    finds_cycles(&data, || {
        let (mut rows, mut lines) = (String::new(), String::new());
        for _ in 0..50 {
            let (ts, pressure) = (begun + tick * 20, if tick % 50 < 20 { 7.5 } else { 1.0 });
            rows += &format!("{{\"ts\": {ts}, \"pressure\": {pressure}, \"position\": 120}}\n");
            lines += &format!("press,machine=press-2 pressure={pressure} {ts}000000\n");
            tick += 1;
        }
        // Until it listens nobody takes them.
        let _ = ureq::post(&format!("http://{address}/streams/press-1")).send(rows);
        let _ = ureq::post(&format!("http://{address}/api/v2/write?org=plant&bucket=telegraf")).send(lines);
    });
}

/// Does something again and again until history has cycles of both presses.
fn finds_cycles(data: &Path, mut meanwhile: impl FnMut()) {
    let deadline = Instant::now() + PATIENCE;
    let query = [
        "sql",
        "SELECT machine FROM cycles GROUP BY machine HAVING count(*) >= 3 ORDER BY machine",
        "--format",
        "csv",
        "--data",
        data.to_str().unwrap(),
    ];
    loop {
        meanwhile();
        let (code, found, said) = any(&query);
        if code == 0 && found.lines().eq(["machine", "press-1", "press-2"]) {
            return;
        }
        assert!(Instant::now() < deadline, "no cycles: {found} {said}");
        std::thread::sleep(Duration::from_millis(100)); // between two looks
    }
}

/// Passes `taktline validate`, with some value in each variable that it names.
fn valid(pipeline: &str) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("pipeline.yaml");
    std::fs::write(&file, pipeline).unwrap();
    let mut command: Command = taktline();
    for name in pipeline.split("{env: ").skip(1) {
        let name = name.split([',', '}']).next().unwrap();
        command.env(
            name,
            if name.ends_with("URL") {
                "https://example.com"
            } else {
                "x"
            },
        );
    }
    let output = command.arg("validate").arg(&file).output().unwrap();
    assert!(output.status.success(), "{}\n{pipeline}", text(&output.stderr));
}

/// A file of the repository.
fn shown(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}
