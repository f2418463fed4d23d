//! A small pipeline, the rows that it makes when nobody disturbs it, and runs of it that are disturbed.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{sql, taktline, text};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// A folder with a pipeline file and a data directory.
pub struct Scene {
    _folder: Option<tempfile::TempDir>,
    pub pipeline: String,
    pub data: PathBuf,
}

impl Scene {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_owned();
        Scene {
            _folder: Some(folder),
            ..Scene::at(&path)
        }
    }

    /// In a folder that is there.
    pub fn at(folder: &Path) -> Self {
        std::fs::write(folder.join("rows.csv"), input()).unwrap();
        let pipeline = folder.join("p.yaml");
        std::fs::write(&pipeline, PIPELINE).unwrap();
        Scene {
            _folder: None,
            pipeline: pipeline.to_str().unwrap().to_owned(),
            data: folder.join("data"),
        }
    }

    /// `taktline run` on the data directory, until the input ends.
    pub fn command(&self) -> Command {
        let mut command = taktline();
        command
            .args(["run", &self.pipeline, "--until-end", "--data"])
            .arg(&self.data);
        // Paths in the pipeline file are relative, so that dead letters are the same wherever it lies.
        command
            .current_dir(self.data.parent().unwrap())
            .env("TAKTLINE_LOG", LOG)
            .env_remove("FAILPOINTS");
        command
    }

    pub fn start(&self, options: &[&str]) -> Running {
        Running::new(self.command().args(options))
    }

    /// Starts a run and kills it when there are so many more checkpoints.
    pub fn kill_after(&self, checkpoints: usize) {
        let before = self.checkpoints();
        let mut running = self.start(&[]);
        running.until("checkpoints", || {
            newest(&self.checkpoints()) >= newest(&before) + checkpoints as u64
        });
        running.kill();
    }

    /// A run to the end that must go well. Gives what it said.
    pub fn finish(&self) -> String {
        let (status, said) = self.start(&["--workers", "3"]).end();
        assert!(status.success(), "{status}: {said}");
        said
    }

    /// The manifests of its checkpoints, oldest first.
    pub fn checkpoints(&self) -> Vec<PathBuf> {
        files(&self.data.join("_taktline/checkpoints"), "json")
    }

    /// History is that of an undisturbed run.
    pub fn assert_equal(&self) {
        static UNDISTURBED: OnceLock<Vec<String>> = OnceLock::new();
        let expected = UNDISTURBED.get_or_init(|| {
            let scene = Scene::new();
            let (status, said) = scene.start(&["--set", "sources.rows.replay=max"]).end();
            assert!(status.success(), "{said}");
            let rows = scene.rows();
            assert!(rows.len() > 1000 && TABLES.iter().all(|table| rows.iter().any(|row| row.starts_with(table))));
            rows
        });
        let found = self.rows();
        let differs = expected.iter().zip(&found).find(|(a, b)| a != b);
        assert!(
            *expected == found,
            "{} rows expected, {} found, first difference {differs:?}",
            expected.len(),
            found.len()
        );
    }

    /// All rows of all tables, sorted.
    pub fn rows(&self) -> Vec<String> {
        let mut rows = Vec::new();
        for table in TABLES {
            let csv = sql(&self.data, &format!("SELECT * FROM {table}"));
            rows.extend(csv.lines().map(|row| format!("{table} {row}")));
        }
        rows.sort_unstable();
        rows
    }
}

/// What a user sees.
pub const LOG: &str = "warn,taktline=info";

const TABLES: [&str; 6] = ["samples", "windows", "cycles", "cycle_signals", "late", "dead_letters"];

/// The number of the newest checkpoint.
pub fn newest(checkpoints: &[PathBuf]) -> u64 {
    let name = checkpoints.last().and_then(|path| path.file_stem()?.to_str());
    name.and_then(|name| name.split('-').next()?.parse().ok())
        .unwrap_or_default()
}

/// The files of a folder with this ending, sorted; none where there is no folder.
pub fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|found| found == ending));
    files.sort();
    files
}

/// Three presses, 20 samples a second for 80 seconds, some late, some out of order, some unreadable.
fn input() -> String {
    let mut rows = String::from("machine,signal,ts,value\n");
    for i in 0..1600_i64 {
        for press in 0..3_i64 {
            let late = if i % 97 == 13 * press { 5_000_000 } else { 0 };
            let ts = 1_700_000_000_000_000 + (i ^ 1) * 50_000 - late;
            let phase = (i + 7 * press) % (40 + press);
            let value = if phase < 20 { 1.5 } else { 9.0 + phase as f64 / 8.0 };
            rows += &format!("press-{press},pressure,{ts},{value}\n");
        }
        if i % 111 == 0 {
            rows += &format!("press-0,pressure,garbage {i},1\n");
        }
    }
    rows
}

const PIPELINE: &str = "\
version: 1
checkpoint: {every: 50ms}
sources:
  rows: {kind: file, path: rows.csv, layout: long, machine: {column: machine}, signal: signal, value: value, time: {column: ts, unit: us}, replay: x30}
steps:
  strokes: {kind: cycle, from: rows, start: \"pressure rises above 5\", lateness: 1s}
  windows: {kind: window, from: rows, every: 2s, lateness: 1s}
sinks:
  history: {kind: history, from: [rows, strokes, windows]}
";

/// A process of Taktline; killed when the test ends.
pub struct Running {
    pub child: Child,
    said: tempfile::NamedTempFile,
}

impl Running {
    pub fn new(command: &mut Command) -> Self {
        let said = tempfile::NamedTempFile::new().unwrap();
        let stderr = said.reopen().unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        Running { child, said }
    }

    /// Looks until it is so; the process must go on meanwhile.
    pub fn until(&mut self, what: &str, mut so: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !so() {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("{status} before: {what}\n{}", self.said());
            }
            assert!(Instant::now() < deadline, "waited in vain for: {what}\n{}", self.said());
            std::thread::sleep(Duration::from_millis(5)); // between two looks, not to wait for anything
        }
    }

    /// Waits until it says this.
    pub fn until_said(&mut self, words: &str) {
        let said = self.said.path().to_owned();
        self.until(words, || text(&std::fs::read(&said).unwrap()).contains(words));
    }

    /// Waits for its end.
    pub fn end(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return (status, self.said());
            }
            assert!(Instant::now() < deadline, "does not end\n{}", self.said());
            std::thread::sleep(Duration::from_millis(5)); // between two looks, not to wait for anything
        }
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub fn said(&self) -> String {
        text(&std::fs::read(self.said.path()).unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
