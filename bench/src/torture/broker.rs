//! A real Mosquitto, and clients that speak just enough MQTT 3.1.1 themselves to publish, or to take what is published.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
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
        let port = free_port()?;
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

/// A port of loopback that nobody listens at now.
///
/// # Errors
/// There is none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
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
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;

impl Publisher {
    /// Connects with a clean session.
    ///
    /// # Errors
    /// The broker is away or refuses.
    pub fn connect(port: u16, name: &str) -> anyhow::Result<Self> {
        Ok(Publisher {
            stream: connect(port, name)?,
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

/// A connection that takes what is published below a filter, with QoS 1, until the program ends.
#[derive(Clone, Debug)]
pub struct Subscriber(Arc<Mutex<Vec<Vec<u8>>>>);

impl Subscriber {
    /// Subscribes.
    ///
    /// # Errors
    /// The broker is away or refuses.
    pub fn connect(port: u16, name: &str, filter: &str) -> anyhow::Result<Self> {
        let mut stream = connect(port, name)?;
        let mut body = vec![0, 1];
        text(&mut body, filter.as_bytes());
        body.push(1);
        stream.write_all(&packet(SUBSCRIBE, &body))?;
        let (kind, answer) = read_packet(&mut stream)?;
        anyhow::ensure!(
            kind == SUBACK && answer == [0, 1, 1],
            "the broker refused {filter}: {answer:?}"
        );
        stream.set_read_timeout(None)?;
        let subscriber = Subscriber(Arc::default());
        let payloads = subscriber.0.clone();
        // It ends with the broker.
        std::thread::spawn(move || {
            while let Ok((kind, body)) = read_packet(&mut stream) {
                if let Some((id, payload)) = published(kind, &body) {
                    payloads
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .push(payload.to_vec());
                    if stream.write_all(&packet(PUBACK, id)).is_err() {
                        break;
                    }
                }
            }
        });
        Ok(subscriber)
    }

    /// The payloads that came so far.
    pub fn payloads(&self) -> Vec<Vec<u8>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The packet id and the payload of a message with QoS 1.
fn published(kind: u8, body: &[u8]) -> Option<(&[u8], &[u8])> {
    // The bit between says that it is given again.
    if kind & !0x08 != PUBLISH_QOS_1 {
        return None;
    }
    let (length, rest) = body.split_first_chunk::<2>()?;
    let rest = rest.get(u16::from_be_bytes(*length).into()..)?;
    rest.split_at_checked(2)
}

/// Signs in with a clean session, without keep-alive.
fn connect(port: u16, name: &str) -> anyhow::Result<TcpStream> {
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
    Ok(stream)
}

/// The first byte of a packet and its body.
fn read_packet(stream: &mut TcpStream) -> std::io::Result<(u8, Vec<u8>)> {
    let mut byte = [0];
    stream.read_exact(&mut byte)?;
    let kind = byte[0];
    let (mut length, mut shift) = (0, 0);
    loop {
        stream.read_exact(&mut byte)?;
        length |= usize::from(byte[0] & 127) << shift;
        shift += 7;
        if byte[0] < 128 || shift > 21 {
            break;
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((kind, body))
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
