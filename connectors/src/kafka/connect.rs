//! Which brokers, as whom, and what a client hears from them.

use std::net::{TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::{DeliveryResult, ProducerContext};
use rdkafka::{ClientContext, TopicPartitionList};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use schemars::JsonSchema;
use serde::Deserialize;
use taktline_engine::config::Problem;

use crate::tls::TlsConfig;

/// How to prove who we are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum Mechanism {
    /// User and password as they are; use it with `tls`
    #[default]
    #[serde(rename = "plain")]
    Plain,
    /// Salted hashes, SHA-256
    #[serde(rename = "scram-sha-256")]
    Scram256,
    /// Salted hashes, SHA-512
    #[serde(rename = "scram-sha-512")]
    Scram512,
}

impl Mechanism {
    fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Scram256 => "SCRAM-SHA-256",
            Mechanism::Scram512 => "SCRAM-SHA-512",
        }
    }
}

/// The brokers and how to sign in to them.
#[derive(Clone, Debug)]
pub(crate) struct Brokers {
    list: String,
    sign_in: Option<(String, String, Mechanism)>,
    tls: Option<TlsConfig>,
}

impl Brokers {
    /// # Errors
    /// An address that is none; a password without a user.
    pub(crate) fn new(
        list: &str,
        (user, password): (Option<String>, Option<String>),
        mechanism: Option<Mechanism>,
        tls: Option<TlsConfig>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let list: Vec<&str> = list.split(',').map(str::trim).collect();
        for address in &list {
            if let Err(message) = check_address(address) {
                problems.push(Problem::at("brokers", message).hint("write host:9092, or host1:9092,host2:9092"));
            }
        }
        problems.extend(tls.iter().flat_map(|tls| tls.problems("tls")));
        let sign_in = match (user, password) {
            (Some(user), Some(password)) => Some((user, password, mechanism.unwrap_or_default())),
            (Some(_), None) => {
                problems.push(Problem::at("user", "there is a `user` but no `password`"));
                None
            }
            (None, Some(_)) => {
                problems.push(Problem::at("password", "there is a `password` but no `user`"));
                None
            }
            (None, None) => {
                if mechanism.is_some() {
                    problems.push(Problem::at("mechanism", "there is a `mechanism` but no `user`"));
                }
                None
            }
        };
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Brokers {
            list: list.join(","),
            sign_in,
            tls,
        })
    }

    /// As they were written.
    pub(crate) fn list(&self) -> &str {
        &self.list
    }

    /// What all clients of them have in common.
    pub(crate) fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.list)
            .set("client.id", "taktline")
            .set("socket.keepalive.enable", "true")
            .set("reconnect.backoff.max.ms", "5000")
            // It says so itself once a minute at most; we say it in our words.
            .set("log.connection.close", "false");
        let protocol = match (&self.sign_in, &self.tls) {
            (None, None) => "PLAINTEXT",
            (None, Some(_)) => "SSL",
            (Some(_), None) => "SASL_PLAINTEXT",
            (Some(_), Some(_)) => "SASL_SSL",
        };
        config.set("security.protocol", protocol);
        if let Some((user, password, mechanism)) = &self.sign_in {
            config
                .set("sasl.mechanism", mechanism.name())
                .set("sasl.username", user)
                .set("sasl.password", password);
        }
        let files = self.tls.iter().flat_map(|tls| {
            [
                ("ssl.ca.location", &tls.ca),
                ("ssl.certificate.location", &tls.certificate),
                ("ssl.key.location", &tls.key),
            ]
        });
        for (key, path) in files {
            if let Some(path) = path {
                config.set(key, path.to_string_lossy());
            }
        }
        config.set_log_level(RDKafkaLogLevel::Warning);
        config
    }

    /// That the files of `tls` can be read: the client says only that one of them can't.
    ///
    /// # Errors
    /// One can't be read.
    pub(crate) fn check_files(&self) -> anyhow::Result<()> {
        let files = self.tls.iter().flat_map(|tls| [&tls.ca, &tls.certificate, &tls.key]);
        for path in files.flatten() {
            std::fs::File::open(path).with_context(|| format!("{} (`tls`)", path.display()))?;
        }
        Ok(())
    }

    /// Says what was refused, and which settings mend it.
    fn explain(&self, refusal: Refusal) -> String {
        let list = &self.list;
        match (refusal, &self.sign_in) {
            (Refusal::SignIn(reason), Some((user, _, mechanism))) => format!(
                "the broker {list} refused the sign-in of `{user}`: {reason}; check `user`, `password` and `mechanism` ({})",
                mechanism.name()
            ),
            (Refusal::SignIn(reason), None) => {
                format!("the broker {list} wants a sign-in: {reason}; set `user` and `password`")
            }
            (Refusal::Tls(reason), _) => {
                // The client does not say what is wrong with a certificate; we look at it ourselves.
                let tls = self.tls.clone().unwrap_or_default();
                let seen = self.list.split(',').find_map(|address| tls_fault(&tls, address));
                let reason = seen.unwrap_or(reason);
                format!(
                    "the TLS connection to {list} can't be trusted: {reason}; check `tls` and the broker's certificate"
                )
            }
        }
    }

    /// A listener for a client of a source or sink.
    pub(crate) fn listener(&self, name: &str) -> Listener {
        Listener {
            name: name.to_owned(),
            brokers: self.clone(),
            heard: Mutex::default(),
        }
    }
}

fn check_address(address: &str) -> Result<(), String> {
    if address.contains("://") {
        return Err(format!("`{address}` must have no scheme"));
    }
    if address.contains('@') {
        return Err("an address must hold no user and no password; use the settings `user` and `password`".into());
    }
    let (host, port) = match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() => (host, Some(port)),
        Some(_) => ("", None),
        None => (address, None),
    };
    if host.is_empty() || host.contains(char::is_whitespace) {
        return Err(format!("`{address}` names no host"));
    }
    match port.map(str::parse::<u16>) {
        Some(Err(_)) => Err(format!("`{address}` has no port behind the colon")),
        _ => Ok(()),
    }
}

/// What is wrong with a broker's certificate, in the words of our own TLS. None if nothing is, or it can't be reached.
fn tls_fault(tls: &TlsConfig, address: &str) -> Option<String> {
    let (host, port) = address.rsplit_once(':').unwrap_or((address, "9092"));
    let host = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(host.to_owned()).ok()?;
    let mut connection = ClientConnection::new(Arc::new(tls.client().ok()?), name).ok()?;
    let found = (host, port.parse().ok()?).to_socket_addrs().ok()?.next()?;
    let mut socket = TcpStream::connect_timeout(&found, LOOK).ok()?;
    socket.set_read_timeout(Some(LOOK)).ok()?;
    while connection.is_handshaking() {
        if let Err(error) = connection.complete_io(&mut socket) {
            return Some(error.to_string());
        }
    }
    None
}

/// How long such a look may take.
const LOOK: Duration = Duration::from_secs(2);

/// How often it is said that no broker can be reached.
const REMIND_EVERY: Duration = Duration::from_secs(60);

/// What a client hears from its brokers. Shared by its threads.
pub(crate) struct Listener {
    name: String,
    brokers: Brokers,
    heard: Mutex<Heard>,
}

#[derive(Default)]
struct Heard {
    /// A broker has answered once.
    met: bool,
    /// The last reason for which there was no connection.
    reason: String,
    /// Why trying again is of no use.
    refused: Option<Refusal>,
    /// When it was last said that there is none.
    warned: Option<Instant>,
    /// The first message that could not be delivered.
    undelivered: Option<KafkaError>,
    /// That the group does not take our offsets was said.
    group_warned: bool,
}

/// What does not mend itself.
enum Refusal {
    SignIn(String),
    Tls(String),
}

impl Listener {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The source or sink.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A broker has answered.
    pub(crate) fn met(&self) {
        let mut heard = self.lock();
        if !std::mem::replace(&mut heard.met, true) || heard.warned.is_some() {
            tracing::info!("{}: connected to {} (`brokers`)", self.name, self.brokers.list);
        }
        heard.warned = None;
        heard.refused = None;
        heard.reason.clear();
    }

    /// Told of an answer that can't be read: true if no broker has ever answered, so that something else is at its address.
    pub(crate) fn is_foreign(&self, reason: &str) -> bool {
        self.hear(RDKafkaErrorCode::BadMessage, reason);
        !self.lock().met
    }

    /// No broker has answered: said at once and then at intervals.
    ///
    /// # Errors
    /// Trying again is of no use: the brokers refuse the sign-in, or we their certificate, and have never been connected.
    pub(crate) fn away(&self, error: &KafkaError) -> anyhow::Result<()> {
        let refused = self.lock().refused.take().map(|refusal| self.brokers.explain(refusal));
        let mut heard = self.lock();
        if let Some(refused) = refused {
            anyhow::ensure!(heard.met, refused);
            heard.reason = refused;
        }
        if heard.warned.is_none_or(|warned| warned.elapsed() >= REMIND_EVERY) {
            heard.warned = Some(Instant::now());
            let (name, list) = (&self.name, &self.brokers.list);
            match heard.reason.as_str() {
                "" => tracing::warn!("{name}: {list} (`brokers`) is slow to answer: {error}; trying again"),
                reason => tracing::warn!("{name}: no broker at {list} (`brokers`): {reason}; trying again"),
            }
        }
        Ok(())
    }

    /// The first message since the last call that could not be delivered.
    pub(crate) fn take_undelivered(&self) -> Option<KafkaError> {
        self.lock().undelivered.take()
    }

    fn hear(&self, code: RDKafkaErrorCode, reason: &str) {
        tracing::debug!("{}: {code:?}: {reason}", self.name);
        let mut heard = self.lock();
        match code {
            RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed => {
                heard.refused = Some(Refusal::SignIn(reason.to_owned()));
            }
            RDKafkaErrorCode::SSL if reason.contains("certificate") => {
                heard.refused = Some(Refusal::Tls(reason.to_owned()));
            }
            RDKafkaErrorCode::BadMessage if !heard.met => {
                heard.reason = format!("what answers there does not speak Kafka: {reason}");
            }
            RDKafkaErrorCode::AllBrokersDown if !heard.reason.is_empty() => {}
            RDKafkaErrorCode::SSL
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::OperationTimedOut => reason.clone_into(&mut heard.reason),
            _ => {}
        }
    }
}

impl ClientContext for Listener {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters comes as an error too.
        tracing::debug!("{}: {facility}: {message}", self.name);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if let Some(code) = error.rdkafka_error_code() {
            self.hear(code, reason);
        }
    }
}

impl ConsumerContext for Listener {
    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        let Err(error) = result else { return };
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::NoOffset) {
            return; // nothing was new
        }
        let mut heard = self.lock();
        if !std::mem::replace(&mut heard.group_warned, true) {
            tracing::warn!(
                "{}: the group does not take our offsets, so others can't see how far we are: {error}; check `group` and the rights of `user`",
                self.name
            );
        }
    }
}

impl ProducerContext for Listener {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.lock().undelivered.get_or_insert_with(|| error.clone());
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let check = |list: &str, expect: Result<&str, &str>| {
            let got = Brokers::new(list, (None, None), None, None);
            match (got, expect) {
                (Ok(got), Ok(expect)) => assert_eq!(got.list(), expect),
                (Err(problems), Err(part)) => {
                    assert_eq!(problems[0].path, ["brokers"]);
                    assert!(problems[0].message.contains(part), "{list}: {}", problems[0].message);
                }
                (got, _) => panic!("{list}: {got:?}"),
            }
        };
        check("kafka:9092", Ok("kafka:9092"));
        check("a:1, b:2", Ok("a:1,b:2"));
        check("kafka", Ok("kafka"));
        check("[::1]:9092", Ok("[::1]:9092"));
        check("", Err("no host"));
        check(":9092", Err("no host"));
        check("a:1,,b:1", Err("no host"));
        check("kafka:x", Err("no port"));
        check("kafka://a:9092", Err("no scheme"));
        check("u:p@a:9092", Err("no user"));
    }

    #[test]
    fn sign_in() {
        let check = |user: Option<&str>, password: Option<&str>, mechanism, expect: &[&str]| {
            let sign_in = (user.map(str::to_owned), password.map(str::to_owned));
            let problems = Brokers::new("a:1", sign_in, mechanism, None).err().unwrap_or_default();
            let paths: Vec<String> = problems.iter().map(|problem| problem.path.join(".")).collect();
            assert_eq!(paths, expect);
        };
        check(None, None, None, &[]);
        check(Some("u"), Some("p"), Some(Mechanism::Scram512), &[]);
        check(Some("u"), None, None, &["user"]);
        check(None, Some("p"), None, &["password"]);
        check(None, None, Some(Mechanism::Plain), &["mechanism"]);
    }

    #[test]
    fn what_is_no_broker_is_only_told_from_one_before_one_has_answered() {
        let listener = Brokers::new("a:1", (None, None), None, None).unwrap().listener("plc");
        assert!(listener.is_foreign("bad format"));
        assert_eq!(
            listener.lock().reason,
            "what answers there does not speak Kafka: bad format"
        );
        listener.met();
        assert!(!listener.is_foreign("bad format"));
        assert_eq!(listener.lock().reason, "");
    }

    #[test]
    fn a_file_that_is_not_there_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let there = dir.path().join("ca.pem");
        std::fs::write(&there, "").unwrap();
        let check = |ca: &std::path::Path| {
            let tls = TlsConfig {
                ca: Some(ca.to_owned()),
                ..TlsConfig::default()
            };
            let brokers = Brokers::new("a:1", (None, None), None, Some(tls)).unwrap();
            brokers.check_files()
        };
        check(&there).unwrap();
        let said = format!("{:#}", check(&dir.path().join("no.pem")).unwrap_err());
        assert!(said.contains("no.pem (`tls`): No such file"), "{said}");
    }

    #[test]
    fn a_refused_sign_in_ends_only_what_never_was_connected() {
        let sign_in = (Some("alice".to_owned()), Some("secret".to_owned()));
        let brokers = Brokers::new("a:1", sign_in, None, None).unwrap();
        let error = KafkaError::Global(RDKafkaErrorCode::Authentication);
        let timeout = KafkaError::MetadataFetch(RDKafkaErrorCode::OperationTimedOut);
        let listener = brokers.listener("plc");
        listener.away(&timeout).unwrap();
        listener.error(error.clone(), "invalid credentials");
        let said = listener.away(&timeout).unwrap_err().to_string();
        for part in ["`alice`", "invalid credentials", "`password`"] {
            assert!(said.contains(part), "{said}");
        }
        assert!(!said.contains("secret"), "{said}");
        let listener = brokers.listener("plc");
        listener.met();
        listener.error(error, "invalid credentials");
        listener.away(&timeout).unwrap();
    }
}
