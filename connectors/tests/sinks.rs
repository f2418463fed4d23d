//! The webhook and email sinks against real servers inside the test.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use taktline_connectors::{SINKS, SOURCES, email, webhook};
use taktline_engine::config::Section;
use taktline_engine::kind::{Catalog, Input, SinkKind};
use taktline_engine::plan::compile;
use taktline_engine::state::Staged;
use taktline_engine::table::{Sample, samples, samples_batch};
use taktline_engine::{Opening, Options, Run, Sink};

const PATIENCE: Duration = Duration::from_secs(40);

/// Polls until there is something, or the patience ends.
fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn rows(values: std::ops::Range<usize>) -> RecordBatch {
    samples_batch(values.map(|value| Sample {
        machine: "press-1",
        signal: "t",
        ts: 0,
        value: Some(value as f64),
        text: None,
    }))
}

fn open(kind: &SinkKind, yaml: &str, folder: Option<&Path>) -> anyhow::Result<Box<dyn Sink>> {
    let input = Input {
        name: "plc".into(),
        table: samples(),
        extends: Vec::new(),
    };
    let plan = (kind.build)(&Section::from_yaml("ops", yaml), &[input])
        .map_err(|problems| format!("{problems:?}"))
        .unwrap();
    plan.open(&Opening {
        generation: u64::from(folder.is_some()),
        publishes: true,
        folder: folder.map(Path::to_owned),
    })
}

/// A request that the hook got.
#[derive(Clone, Debug)]
struct Got {
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// What it answers next; 200 when there is nothing.
type Script = VecDeque<(u16, Vec<(&'static str, &'static str)>)>;

#[derive(Clone, Default)]
struct Hook {
    got: Arc<Mutex<Vec<Got>>>,
    script: Arc<Mutex<Script>>,
}

impl Hook {
    fn answers(&self, statuses: impl IntoIterator<Item = u16>) {
        self.script
            .lock()
            .unwrap()
            .extend(statuses.into_iter().map(|status| (status, Vec::new())));
    }

    fn routes(&self) -> Router {
        async fn take(
            State(hook): State<Hook>,
            headers: HeaderMap,
            body: Bytes,
        ) -> (StatusCode, HeaderMap, &'static str) {
            let body = body.to_vec();
            hook.got.lock().unwrap().push(Got { headers, body });
            let (status, headers) = hook.script.lock().unwrap().pop_front().unwrap_or((200, Vec::new()));
            let headers = headers
                .into_iter()
                .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()));
            (StatusCode::from_u16(status).unwrap(), headers.collect(), "because")
        }
        Router::new().fallback(take).with_state(self.clone())
    }

    /// Serves at this listener until the test ends.
    fn serve(&self, listener: TcpListener) {
        let routes = self.routes();
        listener.set_nonblocking(true).unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                axum::serve(tokio::net::TcpListener::from_std(listener).unwrap(), routes)
                    .await
                    .unwrap();
            });
        });
    }

    fn start() -> (Self, String) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/hook", listener.local_addr().unwrap());
        let hook = Hook::default();
        hook.serve(listener);
        (hook, url)
    }

    fn got(&self) -> Vec<Got> {
        self.got.lock().unwrap().clone()
    }

    fn values(&self) -> Vec<f64> {
        self.got()
            .iter()
            .map(|got| got.json()["value"].as_f64().unwrap())
            .collect()
    }
}

#[test]
fn each_row_is_a_signed_request() {
    let (hook, url) = Hook::start();
    let yaml = format!("url: {url}\nsecret: geheim\ntoken: t0\nheaders: {{X-Team: a}}");
    let mut sink = open(&webhook::KIND, &yaml, None).unwrap();
    sink.write(0, &rows(0..3)).unwrap();
    sink.stage(1).unwrap();
    assert_eq!(hook.values(), [0.0, 1.0, 2.0]);
    for got in hook.got() {
        assert_eq!((got.header("x-team"), got.header("authorization")), ("a", "Bearer t0"));
        assert_eq!(got.header("content-type"), "application/json");
        // As the documentation says to verify it.
        let mut mac = Hmac::<Sha256>::new_from_slice(b"geheim").unwrap();
        mac.update(got.header("taktline-timestamp").as_bytes());
        mac.update(b".");
        mac.update(&got.body);
        let expect: String = mac
            .finalize()
            .into_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        assert_eq!(got.header("taktline-signature"), format!("v1={expect}"));
    }
    let ids: std::collections::BTreeSet<String> = hook
        .got()
        .iter()
        .map(|got| got.header("idempotency-key").to_owned())
        .collect();
    assert_eq!(ids.len(), 3);
}

#[test]
fn a_batch_is_a_list_and_a_checkpoint_sends_the_rest() {
    let (hook, url) = Hook::start();
    let mut sink = open(&webhook::KIND, &format!("url: {url}\nbatch: 4\nmethod: PUT"), None).unwrap();
    sink.write(0, &rows(0..10)).unwrap();
    assert_eq!(hook.got().len(), 2);
    sink.stage(1).unwrap();
    sink.stage(2).unwrap();
    let sizes: Vec<usize> = hook
        .got()
        .iter()
        .map(|got| got.json().as_array().unwrap().len())
        .collect();
    assert_eq!(sizes, [4, 4, 2]);
    let (chat, url) = Hook::start();
    let mut sink = open(
        &webhook::KIND,
        &format!("url: {url}\nbody: {{text: '{{machine}} is at {{value}}'}}"),
        None,
    )
    .unwrap();
    sink.write(0, &rows(7..8)).unwrap();
    assert_eq!(chat.got()[0].json(), serde_json::json!({"text": "press-1 is at 7.0"}));
}

#[test]
fn it_is_sent_until_it_is_taken() {
    let (hook, url) = Hook::start();
    hook.answers([500, 429, 401, 404, 302]);
    let mut sink = open(&webhook::KIND, &format!("url: {url}"), None).unwrap();
    sink.write(0, &rows(0..2)).unwrap();
    sink.stage(1).unwrap();
    assert_eq!(hook.values(), [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]);
    let ids: Vec<String> = hook
        .got()
        .iter()
        .map(|got| got.header("idempotency-key").to_owned())
        .collect();
    assert!(
        ids[..6].iter().all(|id| *id == ids[0]) && ids[6] != ids[0],
        "the same rows have the same key"
    );
    // Retry-After is honoured: the next request doesn't come before it.
    hook.script.lock().unwrap().push_back((503, vec![("retry-after", "2")]));
    let before = Instant::now();
    sink.write(0, &rows(2..3)).unwrap();
    assert!(
        before.elapsed() >= Duration::from_secs(2),
        "it came after {:?}",
        before.elapsed()
    );
}

#[test]
fn a_target_that_is_away_gets_its_rows_when_it_is_back() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut sink = open(&webhook::KIND, &format!("url: http://{address}/hook"), None).unwrap();
    let sending = std::thread::spawn(move || {
        sink.write(0, &rows(0..5)).unwrap();
        sink.stage(1).unwrap();
    });
    let hook = Hook::default();
    let listener = until("the port is free", || TcpListener::bind(address).ok());
    hook.serve(listener);
    sending.join().unwrap();
    assert_eq!(hook.values(), [0.0, 1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn what_is_refused_is_kept_and_the_next_rows_go_on() {
    let (hook, url) = Hook::start();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("staging").join("ops");
    hook.answers([200, 422, 200]);
    let mut sink = open(&webhook::KIND, &format!("url: {url}"), Some(&folder)).unwrap();
    sink.write(0, &rows(0..3)).unwrap();
    sink.stage(1).unwrap();
    assert_eq!(hook.values(), [0.0, 1.0, 2.0]);
    assert_eq!((sink.refused(), sink.refused()), (1, 0), "each is counted once");
    let kept = std::fs::read_to_string(folder.join("refused.ndjson")).unwrap();
    let kept: Vec<Value> = kept.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((kept.len(), &kept[0]["row"]["value"]), (1, &serde_json::json!(1.0)));
    assert!(
        kept[0]["reason"].as_str().unwrap().contains("422") && kept[0]["reason"].as_str().unwrap().contains("because")
    );
    // With a limit, a target that is away doesn't hold up the rest for ever.
    hook.answers([500; 20]);
    let mut sink = open(
        &webhook::KIND,
        &format!("url: {url}\ngive_up_after: 300ms"),
        Some(&folder),
    )
    .unwrap();
    sink.write(0, &rows(3..4)).unwrap();
    let kept = std::fs::read_to_string(folder.join("refused.ndjson")).unwrap();
    assert!(kept.lines().last().unwrap().contains("give_up_after"), "{kept}");
}

#[test]
fn refused_rows_are_counted_where_the_run_says_how_it_goes() {
    static CATALOG: Catalog = Catalog {
        sources: SOURCES,
        steps: &[],
        sinks: SINKS,
    };
    let (hook, url) = Hook::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("press.csv");
    std::fs::write(&file, "ts,t\n1767323045,1\n1767323046,2\n1767323047,3\n").unwrap();
    hook.answers([200, 400, 422]);
    let text = format!(
        "version: 1\nsources: {{plc: {{kind: file, path: '{}', machine: {{constant: m}}, time: {{column: ts, unit: s}}}}}}\n\
         sinks: {{ops: {{kind: webhook, from: plc, url: '{url}'}}}}\n",
        file.display()
    );
    let plan = compile("refused.yaml", &text, &[], &CATALOG, &|_| None).unwrap_or_else(|found| panic!("{found:?}"));
    let run = Run::new(plan, Options::default()).unwrap();
    run.execute().unwrap();
    assert_eq!(hook.values(), [1.0, 2.0, 3.0]);
    let metrics = run.metrics.text().unwrap();
    let counted = r#"taktline_rows_refused_total{kind="webhook",node="ops"} 2"#;
    assert!(metrics.contains(counted), "{metrics}");
}

/// A certificate for 127.0.0.1 in files, and a server's settings with it.
fn certified(folder: &Path) -> (std::path::PathBuf, Arc<rustls::ServerConfig>) {
    let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let path = folder.join("ca.pem");
    std::fs::write(&path, certified.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    (path, Arc::new(server))
}

/// Answers one request on each connection, over TLS.
fn https(server: Arc<rustls::ServerConfig>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(server.clone()).unwrap();
            let mut stream = BufReader::new(rustls::StreamOwned::new(connection, stream.unwrap()));
            let (mut line, mut length) = (String::new(), 0);
            while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().unwrap();
                }
                line.clear();
            }
            let mut body = vec![0; length];
            if stream.read_exact(&mut body).is_ok() && length > 0 {
                let _ = stream
                    .get_mut()
                    .write_all(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n");
            }
        }
    });
    format!("https://{address}/hook")
}

#[test]
fn https_trusts_only_whom_it_is_told_to() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, server) = certified(folder.path());
    let url = https(server);
    let mut sink = open(
        &webhook::KIND,
        &format!("url: {url}\ntls: {{ca: {}}}", ca.display()),
        None,
    )
    .unwrap();
    sink.write(0, &rows(0..1)).unwrap();
    sink.stage(1).unwrap();
    let other = tempfile::tempdir().unwrap();
    let (ca, _) = certified(other.path());
    let yaml = format!("url: {url}\ngive_up_after: 1ms\ntls: {{ca: {}}}", ca.display());
    let mut sink = open(&webhook::KIND, &yaml, Some(other.path())).unwrap();
    sink.write(0, &rows(0..1)).unwrap();
    let kept = std::fs::read_to_string(other.path().join("refused.ndjson")).unwrap();
    assert!(kept.contains("certificate"), "{kept}");
    let missing = open(&webhook::KIND, &format!("url: {url}\ntls: {{ca: /nowhere.pem}}"), None)
        .err()
        .unwrap();
    assert!(format!("{missing:#}").contains("/nowhere.pem"), "{missing:#}");
}

/// A mail server: takes every mail, or says what it is told to.
#[derive(Clone, Default)]
struct Smtp {
    mails: Arc<Mutex<Vec<String>>>,
    /// What is answered to the next commands that begin so, in place of yes.
    says: Arc<Mutex<VecDeque<(&'static str, &'static str)>>>,
}

/// A connection that can turn to TLS.
trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

impl Smtp {
    fn start(tls: Option<(Arc<rustls::ServerConfig>, bool)>) -> (Self, String) {
        let smtp = Smtp::default();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = smtp.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (server, tls) = (server.clone(), tls.clone());
                std::thread::spawn(move || server.talk(stream.unwrap(), tls));
            }
        });
        (smtp, address)
    }

    fn talk(&self, stream: TcpStream, tls: Option<(Arc<rustls::ServerConfig>, bool)>) -> Option<()> {
        let encrypt = |stream: TcpStream, server: Arc<rustls::ServerConfig>| -> Box<dyn Stream> {
            let connection = rustls::ServerConnection::new(server).unwrap();
            Box::new(rustls::StreamOwned::new(connection, stream))
        };
        let plain = stream.try_clone().unwrap();
        let mut stream: BufReader<Box<dyn Stream>> = BufReader::new(match &tls {
            Some((server, true)) => encrypt(stream, server.clone()),
            _ => Box::new(stream),
        });
        let say = |stream: &mut BufReader<Box<dyn Stream>>, text: &str| {
            stream.get_mut().write_all(format!("{text}\r\n").as_bytes()).ok()
        };
        say(&mut stream, "220 test")?;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).ok()? == 0 {
                return None;
            }
            let told = {
                let mut says = self.says.lock().unwrap();
                let fits = says.front().is_some_and(|(command, _)| line.starts_with(command));
                fits.then(|| says.pop_front().unwrap().1)
            };
            match (told, line.get(..4).unwrap_or_default()) {
                (Some(answer), _) => say(&mut stream, answer)?,
                (None, "EHLO") => say(
                    &mut stream,
                    "250-test\r\n250-STARTTLS\r\n250-8BITMIME\r\n250 AUTH PLAIN LOGIN",
                )?,
                (None, "STAR") => {
                    say(&mut stream, "220 go")?;
                    stream = BufReader::new(encrypt(plain.try_clone().unwrap(), tls.as_ref()?.0.clone()));
                }
                (None, "AUTH") => say(&mut stream, "235 welcome")?,
                (None, "DATA") => {
                    say(&mut stream, "354 go")?;
                    let mut mail = String::new();
                    while !mail.ends_with("\r\n.\r\n") {
                        if stream.read_line(&mut mail).ok()? == 0 {
                            return None;
                        }
                    }
                    self.mails.lock().unwrap().push(mail);
                    say(&mut stream, "250 taken")?;
                }
                (None, "QUIT") => {
                    say(&mut stream, "221 bye")?;
                    return Some(());
                }
                _ => say(&mut stream, "250 ok")?,
            }
        }
    }

    fn mails(&self) -> Vec<String> {
        self.mails.lock().unwrap().clone()
    }

    fn subjects(&self) -> Vec<String> {
        let subject = |mail: &String| {
            mail.lines()
                .find_map(|line| line.strip_prefix("Subject: "))
                .unwrap()
                .to_owned()
        };
        self.mails().iter().map(subject).collect()
    }
}

const MAIL: &str =
    "sender: 'Taktline <t@example.com>'\nto: [a@example.com, b@example.com]\nsubject: '{machine} {signal}={value}'";

fn mailer(address: &str, rest: &str, folder: Option<&Path>) -> Box<dyn Sink> {
    open(
        &email::KIND,
        &format!("server: '{address}'\nsecurity: none\n{MAIL}\n{rest}"),
        folder,
    )
    .unwrap()
}

/// A checkpoint with these rows, that becomes real.
fn checkpoint(sink: &mut dyn Sink, number: u64, values: std::ops::Range<usize>) -> Staged {
    sink.write(0, &rows(values)).unwrap();
    let staged = sink.stage(number).unwrap();
    sink.publish(number, std::slice::from_ref(&staged)).unwrap();
    staged
}

#[test]
fn a_row_is_a_mail_and_many_are_a_digest() {
    let (smtp, address) = Smtp::start(None);
    let mut sink = mailer(&address, "text: 'it is {value}'", None);
    checkpoint(&mut *sink, 1, 0..1);
    checkpoint(&mut *sink, 2, 0..0);
    checkpoint(&mut *sink, 3, 1..251);
    assert_eq!(smtp.subjects(), ["press-1 t=0.0", "250 rows: press-1 t=1.0"]);
    let mails = smtp.mails();
    assert!(
        mails[0].contains("From: Taktline <t@example.com>") || mails[0].contains("From: \"Taktline\" <t@example.com>"),
        "{}",
        mails[0]
    );
    assert!(
        mails[0].contains("To: a@example.com, b@example.com") && mails[0].contains("it is 0.0"),
        "{}",
        mails[0]
    );
    assert!(
        mails[1].contains("it is 100.0") && mails[1].contains("... and 150 more"),
        "{}",
        mails[1]
    );
}

#[test]
fn a_flood_is_a_few_mails() {
    let (smtp, address) = Smtp::start(None);
    let folder = tempfile::tempdir().unwrap();
    let mut sink = mailer(&address, "per_hour: 2", Some(folder.path()));
    let staged: Vec<Staged> = (1..=50).map(|number| checkpoint(&mut *sink, number, 0..20)).collect();
    assert_eq!(smtp.mails().len(), 2);
    // A crash now: the checkpoint knows what waits.
    std::mem::forget(sink);
    let mut sink = mailer(&address, "per_hour: 2", Some(folder.path()));
    sink.recover(50, &staged[49..]).unwrap();
    assert_eq!(smtp.subjects()[2], "960 rows: press-1 t=0.0");
    std::mem::forget(sink);
    // It was mailed, and is not mailed again.
    let mut sink = mailer(&address, "per_hour: 2", Some(folder.path()));
    sink.recover(50, &staged[49..]).unwrap();
    drop(sink);
    assert_eq!(smtp.mails().len(), 3);
    // An end in good order mails what still waits for the hour.
    let mut sink = mailer(&address, "per_hour: 1", Some(folder.path()));
    sink.recover(50, &staged[49..]).unwrap();
    checkpoint(&mut *sink, 51, 0..1);
    checkpoint(&mut *sink, 52, 0..7);
    assert_eq!(smtp.mails().len(), 4);
    drop(sink);
    assert_eq!(smtp.subjects()[4], "7 rows: press-1 t=0.0");
}

#[test]
fn a_server_that_is_away_stops_nothing_and_gets_all_later() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let folder = tempfile::tempdir().unwrap();
    let mut sink = mailer(&address, "", Some(folder.path()));
    checkpoint(&mut *sink, 1, 0..3);
    let staged = checkpoint(&mut *sink, 2, 3..5);
    drop(sink);
    let (smtp, address) = Smtp::start(None);
    let mut sink = mailer(&address, "", Some(folder.path()));
    sink.recover(2, &[staged]).unwrap();
    assert_eq!(smtp.subjects(), ["5 rows: press-1 t=0.0"]);
    // One that refuses, for now or for good, is asked again.
    smtp.says
        .lock()
        .unwrap()
        .extend([("MAIL", "451 not now"), ("RCPT", "550 who is that")]);
    checkpoint(&mut *sink, 3, 5..6);
    assert_eq!(smtp.mails().len(), 1);
    let mut number = 3;
    until("the mail", || {
        number += 1;
        checkpoint(&mut *sink, number, 0..0);
        (smtp.mails().len() == 2).then_some(())
    });
    assert_eq!(smtp.subjects()[1], "press-1 t=5.0");
    assert!(smtp.says.lock().unwrap().is_empty());
}

#[test]
fn connections_are_secured_and_signed_in() {
    let folder = tempfile::tempdir().unwrap();
    let (ca, server) = certified(folder.path());
    for (security, at_once) in [("starttls", false), ("tls", true)] {
        let (smtp, address) = Smtp::start(Some((server.clone(), at_once)));
        let yaml = |ca: &Path| {
            format!(
                "server: '{address}'\nsecurity: {security}\nuser: u\npassword: p\ntls: {{ca: {}}}\n{MAIL}",
                ca.display()
            )
        };
        let mut sink = open(&email::KIND, &yaml(&ca), None).unwrap();
        checkpoint(&mut *sink, 1, 0..1);
        assert_eq!(smtp.mails().len(), 1, "{security}");
        let other = tempfile::tempdir().unwrap();
        let (wrong, _) = certified(other.path());
        let mut sink = open(&email::KIND, &yaml(&wrong), None).unwrap();
        checkpoint(&mut *sink, 1, 0..1);
        drop(sink);
        assert_eq!(smtp.mails().len(), 1, "{security}: who isn't trusted gets no mail");
    }
    let error = open(
        &email::KIND,
        &format!("server: x\ntls: {{ca: /nowhere.pem}}\n{MAIL}"),
        None,
    )
    .err()
    .unwrap();
    assert!(format!("{error:#}").contains("/nowhere.pem"), "{error:#}");
}
