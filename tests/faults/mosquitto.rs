//! Runs that read a Mosquitto's messages through the journal.

use std::path::PathBuf;

use crate::scene::{LOG, Running, Scene, files};
pub use crate::support::mosquitto::Mosquitto;
use crate::support::{sql, taktline};

/// Pipelines over a broker's messages.
pub trait Scenes {
    /// A pipeline that keeps each message as a sample.
    fn scene(&self, checkpoint: &str) -> Scene;
    /// In another folder.
    fn stage(&self, scene: Scene, checkpoint: &str) -> Scene;
}

impl Scenes for Mosquitto {
    fn scene(&self, checkpoint: &str) -> Scene {
        self.stage(Scene::new(), checkpoint)
    }

    fn stage(&self, scene: Scene, checkpoint: &str) -> Scene {
        let pipeline = format!(
            "version: 1\ncheckpoint: {{every: {checkpoint}}}\nsources:\n  plc: {{kind: mqtt, url: \"{}\", \
             topic: \"t/{{machine}}/{{signal}}\", client_id: faults, decode: {{format: number}}}}\n\
             steps: {{windows: {{kind: window, from: plc, every: 1s}}}}\n\
             sinks: {{history: {{kind: history, from: [plc, windows]}}}}\n",
            self.url()
        );
        std::fs::write(&scene.pipeline, pipeline).unwrap();
        scene
    }
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
