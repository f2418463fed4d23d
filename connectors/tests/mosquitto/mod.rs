//! A real Mosquitto, and sources driven without the engine.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // each test file uses a part

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};
use taktline_connectors::mqtt::broker::Publisher;
use taktline_engine::config::Section;
use taktline_engine::kind::SourceKind;
use taktline_engine::{Decoder, Partition, Poll, Samples};

pub const PATIENCE: Duration = Duration::from_secs(40);

/// A Mosquitto on ports of its own, with a folder of its own; ends with this value.
pub struct Mosquitto {
    pub port: u16,
    pub folder: tempfile::TempDir,
    child: Child,
}

impl Mosquitto {
    /// None where servers are to be skipped.
    pub fn start() -> Option<Self> {
        Self::with("allow_anonymous true")
    }

    /// One that keeps its sessions when it is stopped in good order.
    pub fn keeping() -> Option<Self> {
        Self::with("allow_anonymous true\npersistence true\npersistence_location FOLDER/")
    }

    /// With more lines in its configuration, in which FOLDER stands for its folder.
    pub fn with(lines: &str) -> Option<Self> {
        Self::prepared(tempfile::tempdir().unwrap(), lines)
    }

    /// With files in its folder.
    pub fn prepared(folder: tempfile::TempDir, lines: &str) -> Option<Self> {
        if std::env::var_os("TAKTLINE_SKIP_SERVERS").is_some_and(|value| value == "1") {
            return None;
        }
        let port = free_port();
        let lines = lines.replace("FOLDER", folder.path().to_str().unwrap());
        // The user keeps its rights to the folder where the test is run by root.
        let text = format!(
            "user root\nlistener {port} 127.0.0.1\nmax_queued_messages 0\nmax_inflight_messages 1000\n{lines}\n"
        );
        std::fs::write(folder.path().join("mosquitto.conf"), text).unwrap();
        let child = spawn(folder.path(), port);
        Some(Mosquitto { port, folder, child })
    }

    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
    }

    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Stops it in good order.
    pub fn stop(&mut self) {
        let status = Command::new("kill").arg(self.child.id().to_string()).status().unwrap();
        assert!(status.success());
        self.child.wait().unwrap();
    }

    pub fn restart(&mut self) {
        self.child = spawn(self.folder.path(), self.port);
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn spawn(folder: &Path, port: u16) -> Child {
    let program = if Path::new("/usr/sbin/mosquitto").exists() {
        "/usr/sbin/mosquitto"
    } else {
        "mosquitto"
    };
    let child = Command::new(program)
        .arg("-c")
        .arg(folder.join("mosquitto.conf"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let child = child.expect("mosquitto is missing: sudo apt-get install mosquitto (or set TAKTLINE_SKIP_SERVERS=1)");
    until("mosquitto listens", || {
        TcpStream::connect(("127.0.0.1", port)).is_ok().then_some(())
    });
    child
}

/// Polls until there is something, or the patience ends.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A running source, driven without the engine.
pub struct Reader {
    pub partition: Box<dyn Partition>,
    decoder: Box<dyn Decoder>,
    pub raw: Vec<RecordBatch>,
    pub decoded: Vec<RecordBatch>,
    /// Reasons of dead letters.
    pub dead: Vec<String>,
    pub ended: bool,
    pub polled: u64,
    /// False: a run that is killed before anything is durable.
    pub acknowledges: bool,
}

impl Reader {
    pub fn open(url: &str, rest: &str) -> Self {
        Reader::named("plc", url, rest)
    }

    pub fn named(name: &str, url: &str, rest: &str) -> Self {
        Reader::of(
            taktline_connectors::mqtt::source::KIND,
            name,
            &format!("url: {url}\n{rest}"),
        )
    }

    pub fn of(kind: SourceKind, name: &str, yaml: &str) -> Self {
        Reader::recalling(kind, name, yaml, None)
    }

    /// A run after one that had journaled these batches.
    pub fn after(name: &str, url: &str, rest: &str, journal: &[RecordBatch]) -> Self {
        let kind = taktline_connectors::mqtt::source::KIND;
        Reader::recalling(kind, name, &format!("url: {url}\n{rest}"), Some(journal))
    }

    pub fn recalling(kind: SourceKind, name: &str, yaml: &str, journal: Option<&[RecordBatch]>) -> Self {
        let section = Section::from_yaml(name, yaml);
        let source = (kind.build)(&section).unwrap();
        assert!(!source.bounded() && !source.replayable());
        assert_eq!(source.partitions().unwrap().len(), 1);
        let mut partition = source.open(0, None, Arc::new(|| {})).unwrap();
        if let Some(journal) = journal {
            partition.recall(&mut journal.iter().rev().cloned());
        }
        Reader {
            partition,
            decoder: source.decoder(),
            raw: Vec::new(),
            decoded: Vec::new(),
            dead: Vec::new(),
            ended: false,
            polled: 0,
            acknowledges: true,
        }
    }

    pub fn poll(&mut self) -> bool {
        match self.partition.poll().unwrap() {
            Poll::Batch(raw) => {
                assert!(raw.num_rows() > 0);
                let decoded = self.decoder.decode(&raw).unwrap();
                self.raw.push(raw);
                let reasons = decoded.dead_letters.column_by_name("reason").unwrap();
                let reasons = reasons.as_string::<i32>().iter().flatten().map(str::to_owned);
                self.dead.extend(reasons);
                self.decoded.push(decoded.samples);
                self.polled += 1;
                if self.acknowledges {
                    self.partition.acknowledge(self.polled).unwrap();
                }
                true
            }
            Poll::Idle => false,
            Poll::End if !self.ended => {
                self.ended = true;
                false
            }
            other => panic!("{other:?}"),
        }
    }

    pub fn rows(&self) -> usize {
        self.decoded.iter().map(RecordBatch::num_rows).sum()
    }

    pub fn read(&mut self, count: usize) {
        until("messages arrive", || {
            self.poll();
            (self.rows() >= count).then_some(())
        });
    }

    /// Stops in good order, and reads what it had taken.
    pub fn finish(&mut self) {
        assert!(self.partition.stop());
        until("the end", || {
            self.poll();
            self.ended.then_some(())
        });
    }

    /// Publishes to a topic of its own until it comes back: then the subscription stands.
    pub fn subscribed(&mut self, publisher: &mut Publisher, topic: &str) {
        let before = self.rows();
        until("the subscription stands", || {
            publisher.publish(topic, b"0").unwrap();
            publisher.flush().unwrap();
            self.poll();
            (self.rows() > before).then_some(())
        });
        // What was sent too often may still be on its way.
        publisher.publish(topic, b"-1").unwrap();
        publisher.flush().unwrap();
        until("the last of them", || {
            self.poll();
            self.values().contains(&-1).then_some(())
        });
        self.decoded.clear();
        self.raw.clear();
        self.dead.clear();
    }

    pub fn values(&self) -> Vec<i64> {
        let values = self
            .decoded
            .iter()
            .flat_map(|batch| Samples::of(batch).unwrap().value.iter().flatten());
        values.map(|value| value as i64).collect()
    }
}

/// All that was logged, from all threads.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    pub fn shared() -> &'static Log {
        static LOG: OnceLock<Log> = OnceLock::new();
        LOG.get_or_init(|| {
            let log = Log::default();
            let writer = log.clone();
            tracing_subscriber::fmt()
                .with_ansi(false)
                .with_writer(move || writer.clone())
                .init();
            log
        })
    }

    /// Lines that name this source or sink and contain this part.
    pub fn lines(&self, name: &str, part: &str) -> usize {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines()
            .filter(|line| line.contains(&format!("{name}: ")) && line.contains(part))
            .count()
    }

    /// Waits for such a line.
    pub fn says(&self, name: &str, part: &str) {
        until(&format!("{name} says `{part}`"), || {
            (self.lines(name, part) > 0).then_some(())
        });
    }
}
