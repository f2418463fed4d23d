//! The `http` source: settings, and the contract with the engine.
//!
//! A request is answered when the engine's journal has its rows. The verdict on each row falls before that, so that the sender
//! hears it: raw batches hold samples that were read already.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use arrow::array::RecordBatch;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use taktline_engine::config::{Interval, Problem, Section, Size};
use taktline_engine::kind::SourceKind;
use taktline_engine::{Decoder, Partition, Poll, Position, Source, Wake, fault};
use tokio::sync::{Semaphore, watch};

use super::access::Access;
use super::catalogue::{Catalogue, Stream, StreamConfig};
use super::connections;
use super::encrypted::{self, Encrypted};
use super::keys::{KEY_LIMIT, Keys};
use super::queue::Queue;
use super::rate::Rates;
use super::raw::{self, PushDecoder};
use super::reads::Reads;
use super::server::{self, App, BUDGET_KIB};
use crate::codec::decode::DecodeConfig;
use crate::time::Unit;

/// The `http` source.
pub const KIND: SourceKind = SourceKind {
    name: "http",
    summary: "takes samples that are pushed over HTTP: JSON, NDJSON, Arrow, InfluxDB line protocol",
    schema: || schemars::schema_for!(HttpConfig),
    build,
};

/// Takes samples that machines, gateways and microcontrollers push over HTTP.
///
/// `curl -d '{"temperature": 21.5}' http://HOST:8088/streams/press-1` is enough: the stream is the machine, each member a signal, the time
/// that of the arrival. Rows may be JSON (one object or a list), NDJSON, Arrow IPC (stream format) or InfluxDB line protocol, gzipped or
/// not; long (`signal`, `value`) or wide; with `machine`, and `ts` as a text or a number. In lines the machine is the tag `machine`, else the
/// stream's, on `/write` and `/api/v2/write` the measurement; the signal is the field, or the measurement where the field is called `value`.
/// With `decode` bodies may have any other form. Telegraf writes to it with `outputs.influxdb` and
/// `outputs.influxdb_v2`. The answer is 202 when the rows are safe, with the reason of each row that was refused, which is a dead letter
/// too. A request with an `Idempotency-Key` may be sent again: while the key is among the last 65,536 it adds nothing; after a restart, while
/// the journal still holds its rows.
/// `PUT /streams/NAME` registers a stream with its signals, `GET /streams` lists them; what was registered lasts until the run ends.
///
/// Limits besides those below: 1,024 connections at the same time; 64 KiB and 100 lines of a request's head; 64 MiB of bodies being read at the
/// same time, then 429; 10,000 streams, and 10,000 signals of one; 256 bytes of a name, 64 KiB of a text; 10,000 refused rows of a body are kept
/// one by one, the rest as a count.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    /// Address to listen at: `0.0.0.0:8088` for everybody, `127.0.0.1:8088` for programs on this machine
    pub listen: String,
    /// Token that senders show as `Authorization: Bearer TOKEN` (or `Token TOKEN`, or the password of a user): `{env: NAME}` or
    /// `{file: /run/secrets/x}`. Default: everybody may write
    pub token: Option<String>,
    /// More tokens, for senders with one each, or while one replaces another
    #[serde(default)]
    pub tokens: Vec<String>,
    /// Certificate and key, for https. Default: plain http
    pub tls: Option<ServerTlsConfig>,
    /// The largest body, also unpacked; larger ones are answered 413. Default 8MiB, at most 64MiB
    pub max_body: Option<Size>,
    /// Requests a second that one client (address) may make; more are answered 429. Default: no limit
    #[schemars(range(min = 0.001))]
    pub rate: Option<f64>,
    /// How long a sender may take for a request's head and again for its body, and how long a connection may rest between requests. Default 30s
    pub read_timeout: Option<Interval>,
    /// How long a sender waits until its rows are safe, before it is answered 503. Default 10s
    pub timeout: Option<Interval>,
    /// What a number in the time of a JSON or Arrow row counts, where the request has no `precision`. Default ms; in line protocol ns
    pub unit: Option<Unit>,
    /// How to read a body, in place of the forms above. With `only` and `signals` alone the forms stay, and signals are left out, renamed and
    /// scaled. With a `format`, a `preset` or pointers every body is read as they say, whatever its `Content-Type`; only what comes to `/write`
    /// and `/api/v2/write` is line protocol in any case. Registered signals are the names that senders use
    pub decode: Option<DecodeConfig>,
    /// Name of the machine, where `decode` says how bodies are read: from `{stream}`, `{machine}` (as `decode.machine` or the stream says) and,
    /// in line protocol, `{measurement}` and `{tag.NAME}`. Default `{machine}`
    pub machine: Option<String>,
    /// Name of the signal, from the same names. With `decode.values` also `{member}`, which is then the default
    pub signal: Option<String>,
    /// What becomes of rows for a stream that is neither declared nor registered. Default accept
    #[serde(default)]
    pub unregistered: Unregistered,
    /// Streams that are known from the start, by name
    #[serde(default)]
    pub streams: BTreeMap<String, StreamConfig>,
}

/// What becomes of rows for a stream that is neither declared nor registered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unregistered {
    /// They are taken
    #[default]
    Accept,
    /// They are answered 404 until the stream is registered
    Refuse,
}

/// How senders recognize this server.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerTlsConfig {
    /// PEM file with the certificate, and those that vouch for it
    pub certificate: PathBuf,
    /// PEM file with the private key of the certificate
    pub key: PathBuf,
}

const MAX_BODY: Size = Size::from_bytes(8 << 20);
const MAX_BODY_LIMIT: u64 = 64 << 20;
const READ_TIMEOUT: Interval = Interval::from_micros(30_000_000);
const TIMEOUT: Interval = Interval::from_micros(10_000_000);
/// How long requests that are being answered may take when the server closes.
const GOODBYE: Duration = Duration::from_secs(2);

fn build(section: &Section) -> Result<Box<dyn Source>, Vec<Problem>> {
    let config: HttpConfig = section.parse()?;
    let mut problems = Vec::new();
    let port = config
        .listen
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse::<u16>().ok());
    if port.is_none() || config.listen.contains('/') {
        let message = format!("`{}` is no address with a port", config.listen);
        problems.push(
            Problem::at("listen", message).hint("write 0.0.0.0:8088, or 127.0.0.1:8088 for programs on this machine"),
        );
    }
    let empty = "an empty token lets everybody in";
    if config.token.as_deref() == Some("") {
        problems.push(Problem::at("token", empty).hint("leave it out if that is meant"));
    }
    if config.tokens.iter().any(String::is_empty) {
        problems.push(Problem::at("tokens", empty));
    }
    let max_body = config.max_body.unwrap_or(MAX_BODY).bytes();
    if !(1..=MAX_BODY_LIMIT).contains(&max_body) {
        problems.push(Problem::at("max_body", "must be at least 1B and at most 64MiB"));
    }
    if config.rate.is_some_and(|rate| !rate.is_finite() || rate <= 0.0) {
        problems.push(Problem::at("rate", "must be above 0").hint("leave it out for no limit"));
    }
    let read_timeout = config.read_timeout.unwrap_or(READ_TIMEOUT).micros();
    if read_timeout <= 0 {
        problems.push(Problem::at("read_timeout", "must be longer than 0"));
    }
    let names = (config.machine.as_deref(), config.signal.as_deref());
    let reads = Reads::new(&section.name, config.unit, &config.decode.unwrap_or_default(), names);
    let reads = reads.map_err(|found| problems.extend(found)).ok();
    let mut streams = Vec::new();
    for (name, stream) in &config.streams {
        match Stream::new(name, stream) {
            Ok(stream) => streams.push(stream),
            Err(mut problem) => {
                problem.path.splice(0..0, ["streams".to_owned(), name.clone()]);
                problems.push(problem);
            }
        }
    }
    let (Some(reads), true) = (reads, problems.is_empty()) else {
        return Err(problems);
    };
    Ok(Box::new(HttpSource {
        name: section.name.clone(),
        listen: config.listen,
        tokens: config.token.into_iter().chain(config.tokens).collect(),
        tls: config.tls,
        max_body: max_body as usize,
        rate: config.rate,
        timeout: Duration::from_micros(config.timeout.unwrap_or(TIMEOUT).micros().unsigned_abs()),
        read_timeout: Duration::from_micros(read_timeout.unsigned_abs()),
        reads: Arc::new(reads),
        left_out: Arc::default(),
        open: config.unregistered == Unregistered::Accept,
        streams,
    }))
}

struct HttpSource {
    name: String,
    listen: String,
    tokens: Vec<String>,
    tls: Option<ServerTlsConfig>,
    max_body: usize,
    rate: Option<f64>,
    timeout: Duration,
    read_timeout: Duration,
    reads: Arc<Reads>,
    /// Samples that were left out when they came, until a decoder tells the engine.
    left_out: Arc<AtomicU64>,
    open: bool,
    streams: Vec<Stream>,
}

impl Source for HttpSource {
    fn partitions(&self) -> anyhow::Result<Vec<String>> {
        Ok(vec![format!("http {}", self.listen)])
    }

    fn open(&self, partition: usize, _: Option<&Value>, wake: Wake) -> anyhow::Result<Box<dyn Partition>> {
        anyhow::ensure!(partition == 0, "an HTTP source has one partition");
        let (queue, keys) = (Arc::new(Queue::new(wake)), Arc::new(Keys::default()));
        let listener = listen(&self.listen)?;
        let address = listener.local_addr()?;
        let app = App {
            access: Access::new(self.tokens.iter().map(String::as_str)),
            rates: Rates::new(self.rate),
            catalogue: Catalogue::new(self.streams.clone(), self.open),
            queue: queue.clone(),
            keys: keys.clone(),
            budget: Semaphore::new(BUDGET_KIB),
            max_body: self.max_body,
            timeout: self.timeout,
            read_timeout: self.read_timeout,
            reads: self.reads.clone(),
            left_out: self.left_out.clone(),
        };
        if app.access.is_open() && !address.ip().is_loopback() {
            tracing::warn!(
                "{}: everybody who reaches {address} may write; set `token`, or listen: 127.0.0.1:{}",
                self.name,
                address.port()
            );
        }
        let tls = self.tls.as_ref().map(encrypted::acceptor).transpose()?;
        let scheme = if tls.is_some() { "https" } else { "http" };
        Ok(Box::new(HttpPartition {
            queue,
            keys,
            url: format!("{scheme}://{address}"),
            waiting: Some((self.name.clone(), listener, app, tls)),
            server: None,
        }))
    }

    fn look(&self, _: usize, _: Wake) -> anyhow::Result<Box<dyn Partition>> {
        anyhow::bail!(
            "samples are pushed, and who pushes them would be told that they are kept: run the pipeline to see what comes"
        )
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(PushDecoder::new(&self.name, self.left_out.clone()))
    }

    fn bounded(&self) -> bool {
        false
    }

    fn replayable(&self) -> bool {
        false
    }
}

fn listen(address: &str) -> anyhow::Result<TcpListener> {
    let wrong = || format!("listening at {address} (`listen`)");
    let addresses: Vec<SocketAddr> = address.to_socket_addrs().with_context(wrong)?.collect();
    let listener = TcpListener::bind(&addresses[..]).with_context(wrong)?;
    listener.set_nonblocking(true).with_context(wrong)?;
    Ok(listener)
}

/// A server that doesn't run yet.
type Waiting = (String, TcpListener, App, Option<tokio_rustls::TlsAcceptor>);

struct HttpPartition {
    queue: Arc<Queue>,
    keys: Arc<Keys>,
    url: String,
    /// Until the first poll: what earlier runs took is recalled before anybody is answered.
    waiting: Option<Waiting>,
    server: Option<Server>,
}

impl Partition for HttpPartition {
    fn poll(&mut self) -> anyhow::Result<Poll> {
        if let Some((name, listener, app, tls)) = self.waiting.take() {
            self.server = Some(Server::start(&name, listener, app, tls)?);
            tracing::info!("{name}: listening at {}", self.url);
        }
        if let Some(batch) = self.queue.take()? {
            return Ok(Poll::Batch(batch));
        }
        if self.queue.is_stopping() {
            return Ok(Poll::End);
        }
        let runs = self.server.as_ref().is_some_and(Server::is_running);
        anyhow::ensure!(runs, "the HTTP server's thread has ended");
        Ok(Poll::Idle)
    }

    fn stop(&mut self) -> bool {
        self.queue.stop()
    }

    fn recall(&mut self, newest: &mut dyn Iterator<Item = RecordBatch>) {
        let mut requests = Vec::new();
        for raw in newest {
            // What can't be read is not ours to report: the journal's reader comes to it.
            requests.extend(raw::requests(&raw).into_iter().flatten().rev());
            if requests.len() >= KEY_LIMIT {
                break;
            }
        }
        requests.into_iter().rev().for_each(|request| self.keys.recall(request));
    }

    fn acknowledge(&mut self, batches: u64) -> anyhow::Result<()> {
        fault::point("http.acknowledge")?;
        self.queue.acknowledge(batches);
        Ok(())
    }

    fn position(&self) -> Position {
        Position {
            text: format!("{}: {} rows", self.url, self.queue.taken()),
            fraction: None,
        }
    }
}

impl Drop for HttpPartition {
    fn drop(&mut self) {
        self.queue.close(); // before the server, which waits for those who still wait for rows
    }
}

/// The server on a thread of its own. Dropping it lets requests end, and joins the thread.
struct Server {
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    fn start(
        name: &str,
        listener: TcpListener,
        app: App,
        tls: Option<tokio_rustls::TlsAcceptor>,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let (name, read_timeout) = (format!("http {name}"), app.read_timeout);
        let mut closing = stopped.clone();
        let serve = async move {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let routes = server::routes(Arc::new(app));
            let too_long = async {
                let _ = closing.wait_for(|stopped| *stopped).await;
                tokio::time::sleep(GOODBYE).await;
            };
            let served = async {
                match tls {
                    None => connections::serve(listener, routes, read_timeout, stopped).await,
                    Some(tls) => {
                        connections::serve(Encrypted::start(listener, tls), routes, read_timeout, stopped).await;
                    }
                }
            };
            tokio::select! {
                () = served => Ok(()),
                () = too_long => Ok(()),
            }
        };
        let thread = std::thread::Builder::new().name(name.clone()).spawn(move || {
            let served: std::io::Result<()> = runtime.block_on(serve);
            if let Err(error) = served {
                tracing::error!("{name}: {error}");
            }
            runtime.shutdown_background();
        });
        Ok(Server {
            stop,
            thread: Some(thread.context("starting the HTTP thread")?),
        })
    }

    fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        let check = |yaml: &str, expect: &[&str]| {
            let problems = build(&Section::from_yaml("plc", yaml)).err().unwrap_or_default();
            let paths: Vec<String> = problems.iter().map(|problem| problem.path.join(".")).collect();
            assert_eq!(paths, expect, "{yaml}: {problems:?}");
        };
        check("listen: 0.0.0.0:8088", &[]);
        check("listen: '[::1]:8088'", &[]);
        check(
            "listen: localhost:8088\ntoken: x\ntokens: [y]\nmax_body: 64MiB\nrate: 0.5\ntimeout: 2s\nunit: s\nunregistered: refuse\n\
             read_timeout: 5s\ndecode: {only: [t]}\n\
             streams: {press-1: {machine: p1, signals: {t: {unit: degC}}}, oven: {signals: [t, p]}, any: {}}",
            &[],
        );
        check("listen: 0.0.0.0", &["listen"]);
        check("listen: http://0.0.0.0:8088", &["listen"]);
        check("listen: ':99999'", &["listen"]);
        check("listen: 'a:1'\ntoken: ''\ntokens: ['']", &["token", "tokens"]);
        check(
            "listen: 'a:1'\nmax_body: 65MiB\nrate: 0\nunit: rfc3339",
            &["max_body", "rate", "unit"],
        );
        check(
            "listen: 'a:1'\nread_timeout: 0s\ndecode: {values: ''}\nmachine: '{x'\nsignal: 'y}'",
            &["read_timeout", "machine", "signal"],
        );
        check(
            "listen: 'a:1'\nstreams: {' x': {}, y: {machine: ''}, z: {signals: []}}",
            &["streams. x", "streams.y.machine", "streams.z.signals"],
        );
    }
}
