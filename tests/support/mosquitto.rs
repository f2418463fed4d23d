//! A real Mosquitto on a free port.
#![allow(dead_code)] // each test file uses a part

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use taktline_connectors::mqtt::broker::Publisher;

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
        Publisher::connect(&self.url()).unwrap()
    }

    /// For pipeline files.
    pub fn url(&self) -> String {
        format!("mqtt://127.0.0.1:{}", self.port)
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
