//! A real Mosquitto, and producers that speak just enough MQTT 3.1.1 themselves to publish and to be acknowledged.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;

/// A broker that keeps its sessions on disk; ends with this value.
#[derive(Debug)]
pub struct Broker {
    /// On loopback.
    pub port: u16,
    child: Child,
}

const PATIENCE: Duration = Duration::from_secs(10);

impl Broker {
    /// Starts one on a free port, with its files in `work`.
    ///
    /// # Errors
    /// Mosquitto is missing, or doesn't listen.
    pub fn start(work: &Path) -> anyhow::Result<Self> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = work.join("mosquitto.conf");
        let text = format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\nmax_inflight_messages 1000\n\
             persistence true\npersistence_location {}/\n",
            work.display()
        );
        std::fs::write(&config, text).with_context(|| config.display().to_string())?;
        let debian = Path::new("/usr/sbin/mosquitto");
        let program = if debian.exists() {
            debian
        } else {
            Path::new("mosquitto")
        };
        let mut command = Command::new(program);
        command
            .arg("-c")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let child = command
            .spawn()
            .context("mosquitto is missing: apt-get install mosquitto")?;
        let broker = Broker { port, child };
        let until = Instant::now() + PATIENCE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            anyhow::ensure!(Instant::now() < until, "mosquitto does not listen on {port}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(broker)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A connection that publishes with QoS 1.
#[derive(Debug)]
pub struct Publisher {
    stream: TcpStream,
    packet: u16,
    unanswered: usize,
}

const CONNECT: u8 = 0x10;
const PUBLISH_QOS_1: u8 = 0x32;
const PUBACK: u8 = 0x40;

impl Publisher {
    /// Connects with a clean session.
    ///
    /// # Errors
    /// The broker is away or refuses.
    pub fn connect(port: u16, name: &str) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        // Protocol level 4, clean session, no keep-alive.
        let mut body = b"\x00\x04MQTT\x04\x02\x00\x00".to_vec();
        text(&mut body, name.as_bytes());
        stream.write_all(&packet(CONNECT, &body))?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        anyhow::ensure!(answer == [0x20, 2, 0, 0], "the broker refused {name}: {answer:?}");
        Ok(Publisher {
            stream,
            packet: 0,
            unanswered: 0,
        })
    }

    /// Sends a message.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) -> anyhow::Result<()> {
        self.packet = self.packet % u16::MAX + 1;
        let mut body = Vec::new();
        text(&mut body, topic.as_bytes());
        body.extend(self.packet.to_be_bytes());
        body.extend(payload);
        self.stream.write_all(&packet(PUBLISH_QOS_1, &body))?;
        self.unanswered += 1;
        Ok(())
    }

    /// Waits until the broker has acknowledged everything.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn flush(&mut self) -> anyhow::Result<()> {
        while self.unanswered > 0 {
            let mut answer = [0; 4];
            self.stream
                .read_exact(&mut answer)
                .context("waiting for an acknowledgement")?;
            anyhow::ensure!(answer[0] == PUBACK, "the broker said {answer:?}, not PUBACK");
            self.unanswered -= 1;
        }
        Ok(())
    }
}

fn text(body: &mut Vec<u8>, bytes: &[u8]) {
    body.extend((bytes.len() as u16).to_be_bytes());
    body.extend(bytes);
}

fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![kind];
    let mut length = body.len();
    loop {
        let more = if length > 127 { 0x80 } else { 0 };
        packet.push((length & 127) as u8 | more);
        length >>= 7;
        if length == 0 {
            break;
        }
    }
    packet.extend(body);
    packet
}
