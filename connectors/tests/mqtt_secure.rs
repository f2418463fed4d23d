//! MQTT over TLS, and what is said when the two ends don't trust each other.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod mosquitto;

use std::path::Path;

use mosquitto::*;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use taktline_connectors::mqtt::broker::Publisher;

const NUMBER: &str = "topic: 'acme/{machine}/{signal}'\ndecode: {format: number}";

/// An authority; its certificate is `NAME.pem` in a folder.
struct Authority(Issuer<'static, KeyPair>);

impl Authority {
    fn new(folder: &Path, name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        Authority(Issuer::new(params, key))
    }

    /// Writes `NAME.pem` and `NAME.key` for a host; `ended`: long ago.
    fn issue(&self, folder: &Path, name: &str, host: &str, ended: bool) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        if ended {
            params.not_before = date_time_ymd(2019, 1, 1);
            params.not_after = date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        std::fs::write(folder.join(format!("{name}.pem")), certificate.pem()).unwrap();
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

/// A broker with a plain port and a secure one, whose certificates are `ca`, `server` and `client`.
struct Secure {
    broker: Mosquitto,
    port: u16,
    ca: Authority,
}

impl Secure {
    fn start(lines: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let ca = Authority::new(folder.path(), "ca");
        ca.issue(folder.path(), "server", "127.0.0.1", false);
        ca.issue(folder.path(), "client", "taktline", false);
        Authority::new(folder.path(), "other");
        let port = free_port();
        let lines = format!(
            "allow_anonymous true\nlistener {port} 127.0.0.1\ncafile FOLDER/ca.pem\ncertfile FOLDER/server.pem\n\
             keyfile FOLDER/server.key\n{lines}"
        );
        let broker = Mosquitto::prepared(folder, &lines)?;
        Some(Secure { broker, port, ca })
    }

    fn folder(&self) -> &Path {
        self.broker.folder.path()
    }

    fn url(&self) -> String {
        format!("mqtts://127.0.0.1:{}", self.port)
    }

    /// The settings of a source with these `tls`, in which FOLDER stands for the folder.
    fn rest(&self, version: &str, tls: &str) -> String {
        let tls = tls.replace("FOLDER", self.folder().to_str().unwrap());
        format!("{NUMBER}\nversion: {version}\ntls: {{{tls}}}")
    }

    fn reader(&self, name: &str, version: &str, tls: &str) -> Reader {
        Reader::named(name, &self.url(), &self.rest(version, tls))
    }

    fn publisher(&self) -> Publisher {
        Publisher::connect(&self.broker.url()).unwrap()
    }
}

const TRUSTED: &str = "ca: FOLDER/ca.pem";
const MUTUAL: &str = "ca: FOLDER/ca.pem, certificate: FOLDER/client.pem, key: FOLDER/client.key";

#[test]
fn messages_come_over_tls() {
    let Some(secure) = Secure::start("") else { return };
    for version in ["3.1.1", "5"] {
        let mut reader = secure.reader("plc", version, TRUSTED);
        let mut publisher = secure.publisher();
        reader.subscribed(&mut publisher, "acme/m/s");
        for value in 0..1000 {
            publisher.publish("acme/m/s", value.to_string().as_bytes()).unwrap();
        }
        publisher.flush().unwrap();
        reader.read(1000);
        assert_eq!(reader.values(), (0..1000).collect::<Vec<i64>>(), "{version}");
        // The end waits for the broker here too.
        let start = std::time::Instant::now();
        reader.finish();
        drop(reader);
        println!("{version}: an end in good order took {:?}", start.elapsed());
    }
}

#[test]
fn both_ends_may_show_certificates() {
    let log = Log::shared();
    let Some(secure) = Secure::start("require_certificate true") else {
        return;
    };
    let stranger = Authority::new(secure.folder(), "stranger");
    stranger.issue(secure.folder(), "foreign", "taktline", false);
    secure.ca.issue(secure.folder(), "late", "taktline", true);
    for version in ["3.1.1", "5"] {
        secure
            .reader("plc", version, MUTUAL)
            .subscribed(&mut secure.publisher(), "acme/m/s");
        let name = format!("nobody{version}");
        let _nobody = secure.reader(&name, version, TRUSTED);
        log.says(&name, "`tls.certificate`");
        for file in ["foreign", "late"] {
            let name = format!("{file}{version}");
            let _reader = secure.reader(&name, version, &MUTUAL.replace("client", file));
            log.says(&name, "`tls.certificate`");
        }
    }
}

#[test]
fn distrust_names_its_cause_and_the_setting() {
    let log = Log::shared();
    let Some(secure) = Secure::start("") else { return };
    for version in ["3.1.1", "5"] {
        let check = |name: &str, url: &str, tls: &str, expect: &str| {
            let name = format!("{name}{version}");
            let mut reader = Reader::named(&name, url, &secure.rest(version, tls));
            log.says(&name, expect);
            assert_eq!(log.lines(&name, "trying again"), 1);
            assert!(!reader.poll());
        };
        check("unknown", &secure.url(), "ca: FOLDER/other.pem", "name it by `tls.ca`");
        let by_name = secure.url().replace("127.0.0.1", "localhost");
        check("host", &by_name, TRUSTED, "check the host in `url`");
        let plain = secure.broker.url().replace("mqtt:", "mqtts:");
        check("plain", &plain, TRUSTED, "(`url`)");
    }
    secure.ca.issue(secure.folder(), "server", "127.0.0.1", true);
    let mut secure = secure;
    secure.broker.kill();
    secure.broker.restart();
    let mut readers = ["3.1.1", "5"].map(|version| {
        let name = format!("expired{version}");
        let reader = secure.reader(&name, version, TRUSTED);
        log.says(&name, "its certificate has expired");
        reader
    });
    // Renewed at the broker, it is found without a restart here.
    secure.ca.issue(secure.folder(), "server", "127.0.0.1", false);
    secure.broker.kill();
    secure.broker.restart();
    for reader in &mut readers {
        reader.subscribed(&mut secure.publisher(), "acme/m/s");
    }
}

#[test]
fn renewed_files_are_read_again() {
    let log = Log::shared();
    let Some(secure) = Secure::start("") else { return };
    let file = secure.folder().join("mine.pem");
    std::fs::copy(secure.folder().join("other.pem"), &file).unwrap();
    let mut readers = ["3.1.1", "5"].map(|version| {
        let name = format!("renewed{version}");
        let reader = secure.reader(&name, version, "ca: FOLDER/mine.pem");
        log.says(&name, "`tls.ca`");
        reader
    });
    std::fs::copy(secure.folder().join("ca.pem"), &file).unwrap();
    for reader in &mut readers {
        reader.subscribed(&mut secure.publisher(), "acme/m/s");
    }
}

#[test]
fn a_file_that_is_missing_is_named_at_the_start() {
    let section = taktline_engine::config::Section::from_yaml(
        "plc",
        &format!("url: mqtts://127.0.0.1\n{NUMBER}\ntls: {{ca: /nowhere/ca.pem}}"),
    );
    let source = (taktline_connectors::mqtt::source::KIND.build)(&section).unwrap();
    let error = source.open(0, None, std::sync::Arc::new(|| {})).err().unwrap();
    assert!(format!("{error:#}").contains("/nowhere/ca.pem"), "{error:#}");
}

#[test]
fn a_password_opens_the_door() {
    let log = Log::shared();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("passwords");
    let made = std::process::Command::new("mosquitto_passwd")
        .args(["-c", "-b"])
        .arg(&file)
        .args(["plant", "right"])
        .status();
    if std::env::var_os("TAKTLINE_SKIP_SERVERS").is_some_and(|value| value == "1") {
        return;
    }
    assert!(made.unwrap().success());
    let Some(broker) = Mosquitto::prepared(folder, "allow_anonymous false\npassword_file FOLDER/passwords") else {
        return;
    };
    for version in ["3.1.1", "5"] {
        let sign_in = |password: &str| format!("{NUMBER}\nversion: {version}\nuser: plant\npassword: {password}");
        let (wrong, right) = (format!("wrong{version}"), format!("right{version}"));
        let _wrong = Reader::named(&wrong, &broker.url(), &sign_in("wrong"));
        log.says(&wrong, "check `user` and `password`");
        let _right = Reader::named(&right, &broker.url(), &sign_in("right"));
        log.says(&right, "connected to mqtt://");
    }
    // A token that stands alone reaches the broker, which knows none.
    let token = format!("{NUMBER}\npassword: token");
    let _token = Reader::named("token", &broker.url(), &token);
    log.says("token", "check `user` and `password`");
}
