#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};

use taktline_engine::Decoder;
use taktline_engine::config::Section;

use super::super::address::Address;
use super::super::config::DecodeConfig;
use super::super::decode::{MessageDecoder, Reading};
use super::super::message::{Message, MessageBatch};
use super::*;

/// A schema registry over its REST paths, in this process.
pub(crate) struct TestRegistry {
    pub url: String,
    asked: Arc<Asked>,
}

#[derive(Default)]
struct Asked {
    /// Requests so far.
    requests: AtomicUsize,
    /// So many requests are answered by 503 first.
    away: AtomicUsize,
    /// What was registered: subject and schema.
    registered: Mutex<Vec<(String, String)>>,
}

pub(crate) const READING: &str = r#"{"type":"record","name":"Reading","fields":[
    {"name":"machine","type":"string"},{"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}},
    {"name":"value","type":["null","double"]}]}"#;

impl TestRegistry {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Asked::default());
        let shared = asked.clone();
        // Ends with the process: a listener has no end of its own.
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (stream, asked) = (stream.unwrap(), shared.clone());
                std::thread::spawn(move || serve(stream, &asked));
            }
        });
        TestRegistry { url, asked }
    }

    /// One that talks TLS, and the certificate to trust.
    fn start_secured(folder: &std::path::Path) -> (Self, std::path::PathBuf) {
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let ca = folder.join("ca.pem");
        std::fs::write(&ca, certified.cert.pem()).unwrap();
        let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Asked::default());
        let shared = asked.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (connection, asked) = (rustls::ServerConnection::new(config.clone()).unwrap(), shared.clone());
                let stream = rustls::StreamOwned::new(connection, stream.unwrap());
                std::thread::spawn(move || serve(stream, &asked));
            }
        });
        (TestRegistry { url, asked }, ca)
    }

    pub(crate) fn registered(&self) -> Vec<(String, String)> {
        self.asked.registered.lock().unwrap().clone()
    }

    fn requests(&self) -> usize {
        self.asked.requests.load(Ordering::SeqCst)
    }

    fn registry(&self, user: Option<&str>) -> Registry {
        let config = RegistryConfig {
            url: self.url.clone(),
            user: user.map(str::to_owned),
            password: user.map(|_| "secret".to_owned()),
            tls: None,
        };
        Registry::new(&config, "registry").unwrap()
    }

    /// Of a registry that is asked once.
    fn impatient(&self) -> Registry {
        Registry {
            patience: Duration::ZERO,
            ..self.registry(None)
        }
    }
}

fn serve(stream: impl Read + Write, asked: &Asked) {
    let mut reader = BufReader::new(stream);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request).unwrap_or(0) == 0 {
            return;
        }
        let (mut length, mut authorization) = (0, String::new());
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).unwrap();
            let line = line.trim();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(": ").unwrap();
            match name.to_ascii_lowercase().as_str() {
                "content-length" => length = value.parse().unwrap(),
                "authorization" => authorization = value.to_owned(),
                _ => {}
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).unwrap();
        asked.requests.fetch_add(1, Ordering::SeqCst);
        let path = request.split(' ').nth(1).unwrap().to_owned();
        let (status, answer) = answer(&path, &body, &authorization, asked);
        let head = format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nContent-Type: application/json\r\n\r\n",
            answer.len()
        );
        let sent = reader.get_mut().write_all((head + &answer).as_bytes());
        if sent.is_err() {
            return;
        }
    }
}

fn answer(path: &str, body: &[u8], authorization: &str, asked: &Asked) -> (u16, String) {
    let away = asked.away.load(Ordering::SeqCst);
    if away > 0 {
        asked.away.store(away - 1, Ordering::SeqCst);
        return (503, "busy".into());
    }
    let schema = |schema: &str| (200, json!({ "schema": schema }).to_string());
    match path {
        "/schemas/ids/1" => schema(READING),
        "/schemas/ids/2" => {
            let text = r#"{"type":"record","name":"Outer","fields":[{"name":"inner","type":"Reading"}]}"#;
            let references = json!([{"name": "Reading", "subject": "a/b c", "version": 3}]);
            (200, json!({"schema": text, "references": references}).to_string())
        }
        "/subjects/a%2Fb%20c/versions/3" => schema(READING),
        "/schemas/ids/3" => (
            200,
            json!({"schema": "syntax = \"proto3\";", "schemaType": "PROTOBUF"}).to_string(),
        ),
        "/schemas/ids/4" => schema("{\"type\":\"nonsense\"}"),
        "/schemas/ids/5" if authorization == "Basic dXNlcjpzZWNyZXQ=" => schema(READING),
        "/schemas/ids/5" => (401, "no".into()),
        "/schemas/ids/6" => (200, "<html>".into()),
        "/schemas/ids/7" => (404, "<html>".into()),
        "/subjects/refused/versions" => (409, json!({"error_code": 409, "message": "incompatible"}).to_string()),
        _ if path.starts_with("/subjects/") && path.ends_with("/versions") => {
            let body: serde_json::Value = serde_json::from_slice(body).unwrap();
            let subject = path.split('/').nth(2).unwrap().to_owned();
            let mut registered = asked.registered.lock().unwrap();
            registered.push((subject, body["schema"].as_str().unwrap().to_owned()));
            (200, json!({"id": 40 + registered.len()}).to_string())
        }
        _ => (
            404,
            json!({"error_code": 40403, "message": "Schema not found"}).to_string(),
        ),
    }
}

#[test]
fn answers() {
    let server = TestRegistry::start();
    let check = |id: u32, user, expect: &str| {
        let got = match server.registry(user).schema(id) {
            Ok(Ok(schema)) => format!("{} types", schema.types.len()),
            Ok(Err(reason)) => format!("dead letter: {reason}"),
            Err(error) => format!("the run ends: {error}"),
        };
        assert!(got.starts_with(expect), "{id}: {got}");
    };
    check(1, None, "6 types");
    check(2, None, "7 types");
    check(
        3,
        None,
        "dead letter: schema 3 of the registry is PROTOBUF and not Avro; check `decode.format`",
    );
    check(4, None, "dead letter: schema 4 of the registry: no Avro schema");
    check(5, Some("user"), "6 types");
    check(5, Some("other"), "the run ends: the schema registry http");
    check(5, None, "the run ends: the schema registry http");
    check(6, None, "the run ends: http");
    check(7, None, "the run ends: http");
    check(
        99,
        None,
        "dead letter: the registry has no schema 99: Schema not found (40403)",
    );
}

#[test]
fn a_schema_is_asked_for_once() {
    let server = TestRegistry::start();
    let registry = server.registry(None);
    for _ in 0..3 {
        registry.schema(1).unwrap().unwrap();
        registry.schema(99).unwrap().unwrap_err();
    }
    assert_eq!(server.requests(), 2);
}

#[test]
fn a_registry_that_is_away_is_waited_for_and_then_ends_the_run() {
    let server = TestRegistry::start();
    server.asked.away.store(1, Ordering::SeqCst);
    assert!(server.registry(None).schema(1).unwrap().is_ok());
    assert_eq!(server.requests(), 2);
    server.asked.away.store(usize::MAX, Ordering::SeqCst);
    let error = server.impatient().schema(1).unwrap_err().to_string();
    assert!(
        error.contains("has been away for") && error.contains("it answered 503"),
        "{error}"
    );
    // Nobody listens at all.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut registry = server.impatient();
    registry.url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let error = registry.schema(1).unwrap_err().to_string();
    assert!(error.contains("has been away for"), "{error}");
}

#[test]
fn registers() {
    let server = TestRegistry::start();
    let registry = server.registry(None);
    assert_eq!(registry.register("alerts-value", "{}").unwrap(), 41);
    assert_eq!(server.registered(), [("alerts-value".to_owned(), "{}".to_owned())]);
    let error = registry.register("refused", "{}").unwrap_err().to_string();
    assert!(
        error.ends_with("refused the schema of `refused`: incompatible (409)"),
        "{error}"
    );
}

#[test]
fn a_secured_registry_is_asked_where_its_certificate_is_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let (server, ca) = TestRegistry::start_secured(folder.path());
    let registry = |ca: Option<std::path::PathBuf>| {
        let tls = Some(TlsConfig {
            ca,
            ..TlsConfig::default()
        });
        let config = RegistryConfig {
            url: server.url.clone(),
            user: Some("user".into()),
            password: Some("secret".into()),
            tls,
        };
        Registry {
            patience: Duration::ZERO,
            ..Registry::new(&config, "registry").unwrap()
        }
    };
    let trusting = registry(Some(ca));
    assert!(trusting.schema(5).unwrap().is_ok(), "signed in over TLS");
    assert_eq!(trusting.register("alerts-value", "{}").unwrap(), 41);
    // One that somebody else vouches for is told nothing, not even who asks.
    let other = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let path = folder.path().join("other.pem");
    std::fs::write(&path, other.cert.pem()).unwrap();
    let asked = server.requests();
    let error = registry(Some(path)).schema(5).unwrap_err().to_string();
    assert!(error.contains(&server.url) && error.contains("certificate"), "{error}");
    assert_eq!(server.requests(), asked);
    let absent = registry(Some(folder.path().join("absent.pem"))).schema(5).unwrap_err();
    assert!(format!("{absent:#}").contains("absent.pem"), "{absent:#}");
}

/// What the library writes is what the decoder reads, by the schema that the registry has.
#[test]
fn messages_by_the_schemas_of_a_registry() {
    let server = TestRegistry::start();
    let yaml = format!(
        "{{format: avro, registry: {{url: '{}'}}, time: /ts, value: /value, machine: /machine}}",
        server.url
    );
    let config: DecodeConfig = Section::from_yaml("decode", &yaml).parse().unwrap();
    let reading = Reading::new("plc", Address::default(), &config, None, Some("v")).unwrap();
    let schema = apache_avro::Schema::parse_str(READING).unwrap();
    let mut record = apache_avro::types::Record::new(&schema).unwrap();
    record.put("machine", "m1");
    record.put("ts", apache_avro::types::Value::TimestampMillis(1_767_323_045_001));
    record.put(
        "value",
        apache_avro::types::Value::Union(1, Box::new(apache_avro::types::Value::Double(4.5))),
    );
    let datum = apache_avro::to_avro_datum(&schema, record).unwrap();
    let framed = |id: u32| [&[0], &id.to_be_bytes()[..], &datum].concat();
    let mut batch = MessageBatch::default();
    for payload in [framed(1), framed(99), datum.clone(), framed(1)] {
        batch
            .push(Message {
                topic: "t",
                key: None,
                headers: &[],
                payload: &payload,
                received: 1_767_323_045_000_000,
                sequence: 0,
            })
            .unwrap();
    }
    let decoded = MessageDecoder::new(reading).decode(&batch.finish().unwrap()).unwrap();
    let samples = taktline_engine::Samples::of(&decoded.samples).unwrap();
    assert_eq!(samples.ts, [1_767_323_045_001_000; 2]);
    assert_eq!(samples.value.values(), &[4.5, 4.5]);
    assert_eq!(samples.machines.value(0), "m1");
    assert_eq!(decoded.dead_letters.num_rows(), 2);
    assert_eq!(server.requests(), 2);
}

#[test]
fn digits_of_base_64() {
    let check = |text: &str, expect: &str| assert_eq!(base64(text.as_bytes()), expect);
    check("", "");
    check("f", "Zg==");
    check("fo", "Zm8=");
    check("foo", "Zm9v");
    check("user:secret", "dXNlcjpzZWNyZXQ=");
}
