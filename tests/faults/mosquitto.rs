//! A real Mosquitto, and runs that read its messages through the journal.

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use taktline_connectors::mqtt::broker::Publisher;

use crate::scene::{LOG, Running, Scene, files};
use crate::support::{sql, taktline};

/// A Mosquitto; killed with this value.
pub struct Mosquitto {
    port: u16,
    config: tempfile::NamedTempFile,
    child: Child,
}

impl Mosquitto {
    /// None where servers are to be skipped.
    pub fn start() -> Option<Self> {
        if std::env::var_os("TAKTLINE_SKIP_SERVERS").is_some_and(|value| value == "1") {
            eprintln!("skipped: TAKTLINE_SKIP_SERVERS=1");
            return None;
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut config = tempfile::NamedTempFile::new().unwrap();
        writeln!(
            config,
            "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0"
        )
        .unwrap();
        let child = spawn(config.path(), port);
        Some(Mosquitto { port, config, child })
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn restart(&mut self) {
        self.child = spawn(self.config.path(), self.port);
    }

    pub fn publisher(&self) -> Publisher {
        Publisher::connect(&format!("mqtt://127.0.0.1:{}", self.port)).unwrap()
    }

    /// A pipeline that keeps each message as a sample.
    pub fn scene(&self, checkpoint: &str) -> Scene {
        self.stage(Scene::new(), checkpoint)
    }

    /// In another folder.
    pub fn stage(&self, scene: Scene, checkpoint: &str) -> Scene {
        let pipeline = format!(
            "version: 1\ncheckpoint: {{every: {checkpoint}}}\nsources:\n  plc: {{kind: mqtt, url: \"mqtt://127.0.0.1:{}\", \
             topic: \"t/{{machine}}/{{signal}}\", client_id: faults, decode: {{format: number}}}}\n\
             steps: {{windows: {{kind: window, from: plc, every: 1s}}}}\n\
             sinks: {{history: {{kind: history, from: [plc, windows]}}}}\n",
            self.port
        );
        std::fs::write(&scene.pipeline, pipeline).unwrap();
        scene
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(config: &Path, port: u16) -> Child {
    let debian = Path::new("/usr/sbin/mosquitto");
    let program = if debian.exists() {
        debian
    } else {
        Path::new("mosquitto")
    };
    let mut command = Command::new(program);
    command
        .arg("-c")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let child = command
        .spawn()
        .expect("mosquitto is missing: apt-get install mosquitto (or set TAKTLINE_SKIP_SERVERS=1)");
    let deadline = Instant::now() + Duration::from_secs(20);
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "mosquitto does not listen");
        std::thread::sleep(Duration::from_millis(5)); // between two looks, not to wait for anything
    }
    child
}

/// A run over messages goes on until it is killed or told to stop.
pub fn run(scene: &Scene) -> Running {
    let mut command = taktline();
    command
        .args(["run", &scene.pipeline, "--listen", "127.0.0.1:0", "--data"])
        .arg(&scene.data);
    command.env("TAKTLINE_LOG", LOG);
    Running::new(&mut command)
}

pub fn segments(scene: &Scene) -> Vec<PathBuf> {
    files(&scene.data.join("_taktline/journal/plc/0"), "journal")
}

pub fn journal_bytes(scene: &Scene) -> u64 {
    segments(scene)
        .iter()
        .map(|path| std::fs::metadata(path).unwrap().len())
        .sum()
}

/// Publishes until something comes through, which is not the first that was published.
pub fn subscribed(scene: &Scene, running: &mut Running, broker: &Mosquitto) {
    let mut publisher = broker.publisher();
    running.until("the subscription stands", || {
        publisher.publish("t/probe/x", b"-1").unwrap();
        publisher.flush().unwrap();
        journal_bytes(scene) > HEADER
    });
}

/// The header of a segment.
const HEADER: u64 = 80;

/// Publishes and waits until the broker has it.
pub fn publish(broker: &Mosquitto, values: std::ops::Range<u32>) {
    let mut publisher = broker.publisher();
    for value in values {
        publisher.publish("t/m/x", value.to_string().as_bytes()).unwrap();
    }
    publisher.flush().unwrap();
}

pub fn values(scene: &Scene) -> Vec<u32> {
    if !scene.data.join("samples/_delta_log").is_dir() {
        return Vec::new();
    }
    let rows = sql(
        &scene.data,
        "SELECT DISTINCT CAST(value AS INT) AS v FROM samples WHERE machine = 'm' ORDER BY v",
    );
    rows.lines().map(|row| row.parse().unwrap()).collect()
}
