//! Processes that are threads of one test, on free ports.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::greeting::{self, Answer, Hello};
use super::*;

/// Generous: a test that needs it has failed.
const LONG: Duration = Duration::from_secs(60);

fn free_addresses(n: usize) -> Vec<String> {
    let held: Vec<_> = (0..n).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter()
        .map(|listener| listener.local_addr().unwrap().to_string())
        .collect()
}

fn certificates() -> Certificates {
    let dir = tempfile::tempdir().unwrap();
    Certificates::open(&dir.path().join("certificates")).unwrap()
}

fn settings(process: usize, addresses: &[String], certificates: Option<&Certificates>) -> MeshSettings {
    MeshSettings {
        process,
        addresses: addresses.to_vec(),
        threads: 2,
        cluster: "press 1234".into(),
        facts: Some(json!({"generation": 7, "from": process})),
        certificates: certificates.cloned(),
        patience: Patience {
            forming: LONG,
            greeting: LONG,
            silence: LONG,
            closing: LONG,
        },
        on_lost: Arc::new(|lost| panic!("{lost}")),
    }
}

fn with_lost(mut settings: MeshSettings) -> (MeshSettings, Receiver<Lost>) {
    let (told, lost) = channel();
    let told = Mutex::new(told);
    settings.on_lost = Arc::new(move |lost| told.lock().unwrap().send(lost.clone()).unwrap());
    (settings, lost)
}

fn start(settings: MeshSettings) -> JoinHandle<anyhow::Result<Mesh>> {
    std::thread::spawn(move || join(&settings))
}

fn all(started: Vec<JoinHandle<anyhow::Result<Mesh>>>) -> Vec<Mesh> {
    started
        .into_iter()
        .map(|thread| thread.join().unwrap().unwrap())
        .collect()
}

/// Bytes that only `from` sends to `to`.
fn bytes(from: usize, to: usize, n: usize) -> Vec<u8> {
    let mut state = 1 + from as u64 * 31 + to as u64;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..n).map(|_| next()).collect()
}

/// Each sends `n` bytes to each, all at once, and ends in good order.
fn exchange(meshes: Vec<Mesh>, n: usize) {
    let processes = meshes.len();
    let process = |own: usize, mut mesh: Mesh| {
        let sockets = std::mem::take(&mut mesh.sockets);
        assert_eq!(sockets.len(), processes);
        assert!(sockets[own].is_none());
        std::thread::scope(|scope| {
            for (peer, socket) in sockets
                .into_iter()
                .enumerate()
                .filter_map(|(peer, s)| s.map(|s| (peer, s)))
            {
                let mut sending = socket.try_clone().unwrap();
                scope.spawn(move || {
                    sending.write_all(&bytes(own, peer, n)).unwrap();
                    sending.shutdown(Shutdown::Write).unwrap();
                });
                scope.spawn(move || {
                    let mut got = Vec::new();
                    { socket }.read_to_end(&mut got).unwrap();
                    assert!(got == bytes(peer, own, n), "{peer} to {own}: {} bytes", got.len());
                });
            }
        });
        mesh.close().unwrap();
    };
    let process = &process;
    std::thread::scope(|scope| {
        for (own, mesh) in meshes.into_iter().enumerate() {
            scope.spawn(move || process(own, mesh));
        }
    });
}

fn three_exchange(certificates: Option<&Certificates>) {
    let addresses = free_addresses(3);
    let meshes = all((0..3).map(|i| start(settings(i, &addresses, certificates))).collect());
    for mesh in &meshes {
        assert_eq!(mesh.facts, json!({"generation": 7, "from": 0}));
    }
    exchange(meshes, 10 << 20);
}

#[test]
fn three_exchange_data_encrypted() {
    three_exchange(Some(&certificates()));
}

#[test]
fn three_exchange_data_in_the_open() {
    three_exchange(None);
}

#[test]
fn one_alone_is_a_mesh() {
    let mesh = join(&settings(0, &free_addresses(1), None)).unwrap();
    assert_eq!(mesh.sockets.len(), 1);
    mesh.close().unwrap();
}

/// Connects as soon as somebody listens.
fn reach(address: &str) -> TcpStream {
    loop {
        match TcpStream::connect(address) {
            Ok(stream) => return stream,
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// True when the other side closes without a word of JSON.
fn is_closed(mut stream: TcpStream) -> bool {
    stream.set_read_timeout(Some(LONG)).unwrap();
    let mut said = Vec::new();
    match stream.read_to_end(&mut said) {
        Ok(_) => !said.contains(&b'{'),
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

fn strays_are_closed(certificates: Option<&Certificates>) {
    let addresses = free_addresses(3);
    let quick = |process| {
        let mut settings = settings(process, &addresses, certificates);
        settings.patience.greeting = Duration::from_millis(500);
        settings
    };
    let first = start(quick(0));
    let silent = reach(&addresses[0]);
    drop(reach(&addresses[0]));
    let long = [b"takt\0\0\0\x01".as_slice(), &u32::MAX.to_be_bytes(), &[b' '; 100]].concat();
    let old = b"takt\0\0\0\0\0\0\0\x02{}".to_vec();
    let empty = b"takt\0\0\0\x01\0\0\0\x02{}".to_vec();
    for garbage in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        bytes(1, 2, 5000),
        vec![0; 64],
        long,
        old,
        empty,
    ] {
        let mut stray = reach(&addresses[0]);
        // It may be closed before all is said.
        let _ = stray.write_all(&garbage);
        assert!(is_closed(stray), "{}", garbage.escape_ascii());
    }
    let mut half = reach(&addresses[0]);
    half.write_all(b"takt").unwrap();
    // Both still open, while the others come.
    let held = (silent.try_clone().unwrap(), half.try_clone().unwrap());
    let mut started = vec![first];
    started.extend([1, 2].map(|i| start(settings(i, &addresses, certificates))));
    let meshes = all(started);
    assert!(is_closed(silent) && is_closed(half));
    drop(held);
    for address in &addresses {
        assert!(
            TcpStream::connect(address).is_err(),
            "nobody listens at {address} when all are there"
        );
    }
    exchange(meshes, 1 << 20);
}

#[test]
fn strays_are_closed_and_disturb_nobody() {
    strays_are_closed(None);
}

#[test]
fn strays_are_closed_and_disturb_nobody_encrypted() {
    strays_are_closed(Some(&certificates()));
}

#[test]
fn a_silent_connection_is_closed_while_the_mesh_waits() {
    let addresses = free_addresses(2);
    let mut patient = settings(0, &addresses, None);
    patient.patience.greeting = Duration::from_millis(100);
    let first = start(patient);
    assert!(is_closed(reach(&addresses[0])));
    assert!(!first.is_finished());
    exchange(all(vec![first, start(settings(1, &addresses, None))]), 1000);
}

#[test]
fn a_certificate_of_another_authority_is_refused() {
    let (ours, theirs) = (certificates(), certificates());
    let addresses = free_addresses(2);
    let first = start(settings(0, &addresses, Some(&ours)));
    for (intruder, named) in [(Some(&theirs), "certificate"), (None, "process 0")] {
        let mut intruder = settings(1, &addresses, intruder);
        intruder.patience.forming = Duration::from_secs(2);
        let error = join(&intruder).unwrap_err().to_string();
        assert!(error.contains("process 0") && error.contains(named), "{error}");
    }
    assert!(!first.is_finished());
    exchange(all(vec![first, start(settings(1, &addresses, Some(&ours)))]), 1000);
}

/// The server checks too: a client that believes anybody but shows a foreign certificate.
#[test]
fn a_client_with_a_foreign_certificate_is_refused_by_the_server() {
    let ours = certificates();
    let addresses = free_addresses(2);
    let first = start(settings(0, &addresses, Some(&ours)));
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("certificates");
    Certificates::open(&folder).unwrap();
    let mixed = Certificates {
        server: Arc::clone(&ours.server),
        client: believing(&folder),
    };
    let mut intruder = settings(1, &addresses, Some(&mixed));
    intruder.patience.forming = Duration::from_secs(2);
    let error = join(&intruder).unwrap_err().to_string();
    assert!(error.contains("UnknownCA"), "{error}");
    exchange(all(vec![first, start(settings(1, &addresses, Some(&ours)))]), 1000);
}

/// Takes every server for good, and shows the certificate of `folder`.
fn believing(folder: &std::path::Path) -> Arc<rustls::ClientConfig> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let own = vec![CertificateDer::from_pem_file(folder.join("node.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(folder.join("node.key")).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believer))
        .with_client_auth_cert(own, key)
        .unwrap();
    Arc::new(client)
}

#[derive(Debug)]
struct Believer;

impl rustls::client::danger::ServerCertVerifier for Believer {
    fn verify_server_cert(
        &self,
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.2".into()))
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &rustls::pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

#[test]
fn another_run_is_refused_at_once_and_by_name() {
    let addresses = free_addresses(2);
    let first = start(settings(0, &addresses, None));
    let mut other = settings(1, &addresses, None);
    other.cluster = "press 5678".into();
    let error = join(&other).unwrap_err().to_string();
    assert!(error.contains("process 0") && error.contains("`press 5678`"), "{error}");
    let mut other = settings(1, &addresses, None);
    other.threads = 3;
    let error = join(&other).unwrap_err().to_string();
    assert!(error.contains("3 workers"), "{error}");
    exchange(all(vec![first, start(settings(1, &addresses, None))]), 1000);
}

#[test]
fn the_missing_are_named() {
    let addresses = free_addresses(4);
    let settings = |process| {
        let mut settings = settings(process, &addresses, None);
        settings.patience.forming = Duration::from_secs(5);
        settings
    };
    let started: Vec<_> = [0, 2].into_iter().map(|i| start(settings(i))).collect();
    for thread in started {
        let error = thread.join().unwrap().unwrap_err().to_string();
        assert!(error.contains(&format!("process 1 ({})", addresses[1])), "{error}");
        assert!(error.contains(&format!("process 3 ({})", addresses[3])), "{error}");
        assert!(!error.contains("process 0") && !error.contains("process 2"), "{error}");
    }
}

#[test]
fn a_taken_address_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = format!(
        "{:#}",
        join(&settings(0, &[address.clone(), address.clone()], None)).unwrap_err()
    );
    assert!(error.contains(&address), "{error}");
}

async fn greet(address: &str, process: usize) -> (link::Link, Answer) {
    let mut link = link::connect(address, None).await.unwrap();
    let hello = Hello {
        cluster: "press 1234".into(),
        version: env!("CARGO_PKG_VERSION").into(),
        processes: 3,
        threads: 2,
        process,
        to: 0,
    };
    greeting::say(&mut link, &hello).await.unwrap();
    let answer = greeting::answered(&mut link).await.unwrap();
    (link, answer)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

#[test]
fn a_second_of_the_same_index_is_refused_until_the_first_is_gone() {
    let addresses = free_addresses(3);
    let first = start(settings(0, &addresses, None));
    drop(reach(&addresses[0]));
    runtime().block_on(async {
        let (old, answer) = greet(&addresses[0], 1).await;
        assert!(matches!(answer, Answer::Welcome { .. }), "{answer:?}");
        let (_, answer) = greet(&addresses[0], 1).await;
        assert!(matches!(answer, Answer::Refused { for_good: false, .. }), "{answer:?}");
        drop(old);
        while !matches!(greet(&addresses[0], 1).await.1, Answer::Welcome { .. }) {}
    });
    let started = vec![
        first,
        start(settings(1, &addresses, None)),
        start(settings(2, &addresses, None)),
    ];
    exchange(all(started), 1000);
}

/// Reads until its end. True when the loss had been told before.
fn ends_after(mut socket: UnixStream, told: &AtomicBool) -> bool {
    let ended = socket.read_to_end(&mut Vec::new());
    ended.is_ok() && told.load(Ordering::SeqCst)
}

fn lost_is_told(certificates: Option<&Certificates>) {
    let addresses = free_addresses(2);
    let (mut settings0, lost) = with_lost(settings(0, &addresses, certificates));
    let (told, send) = (Arc::new(AtomicBool::new(false)), settings0.on_lost);
    let seen = Arc::clone(&told);
    settings0.on_lost = Arc::new(move |lost| {
        seen.store(true, Ordering::SeqCst);
        send(lost);
    });
    let (settings1, _) = with_lost(settings(1, &addresses, certificates));
    let mut meshes = all(vec![start(settings0), start(settings1)]);
    let dies = meshes.pop().unwrap();
    let mut stays = meshes.pop().unwrap();
    dies.sockets[0].as_ref().unwrap().write_all(b"its last words").unwrap();
    let mut socket = stays.sockets[1].take().unwrap();
    let mut words = [0; 14];
    socket.read_exact(&mut words).unwrap();
    // The runtime goes, and the connection with it, as in a process that is killed.
    drop(dies);
    let lost = lost.recv_timeout(LONG).unwrap();
    assert_eq!((lost.process, &lost.address), (1, &addresses[1]));
    assert!(lost.to_string().starts_with("process 1 ("), "{lost}");
    assert!(ends_after(socket, &told));
    let error = stays.close().unwrap_err();
    assert!(error.to_string().contains("process 1"), "{error}");
}

#[test]
fn a_lost_peer_is_told() {
    lost_is_told(None);
}

#[test]
fn a_lost_peer_is_told_encrypted() {
    lost_is_told(Some(&certificates()));
}

/// A mesh of two with a second process that is only a connection, and does what the test does with it.
fn beside_a_connection(silence: Duration) -> (Mesh, link::Link, Receiver<Lost>, Runtime) {
    let addresses = free_addresses(3);
    let (mut settings, lost) = with_lost(settings(0, &addresses, None));
    settings.patience.silence = silence;
    let first = start(settings);
    drop(reach(&addresses[0]));
    let runtime = runtime();
    let link = runtime.block_on(async {
        let (one, answer) = greet(&addresses[0], 1).await;
        assert!(matches!(answer, Answer::Welcome { .. }), "{answer:?}");
        one
    });
    // The third is not looked at.
    let (other, answer) = runtime.block_on(greet(&addresses[0], 2));
    assert!(matches!(answer, Answer::Welcome { .. }), "{answer:?}");
    std::mem::forget(other);
    (first.join().unwrap().unwrap(), link, lost, runtime)
}

#[test]
fn a_peer_that_is_silent_for_too_long_is_lost() {
    let (_mesh, _link, lost, _runtime) = beside_a_connection(Duration::from_millis(200));
    let lost = lost.recv_timeout(LONG).unwrap();
    assert!(lost.reason.contains("silent"), "{lost}");
}

#[test]
fn a_peer_with_nothing_to_say_is_not_lost() {
    let (_mesh, mut link, lost, runtime) = beside_a_connection(Duration::from_secs(4));
    // Five pulses take longer than the silence that a peer is allowed.
    runtime.block_on(async {
        for _ in 0..6 {
            assert_eq!(link.read_u32().await.unwrap(), u32::MAX);
            link.write_u32(u32::MAX).await.unwrap();
        }
    });
    assert!(lost.try_iter().all(|lost| lost.process != 1));
}

#[test]
fn a_peer_that_dies_between_its_end_and_ours_is_lost() {
    let (_mesh, mut link, lost, runtime) = beside_a_connection(LONG);
    runtime.block_on(link.write_u32(0)).unwrap();
    drop(link);
    assert_eq!(lost.recv_timeout(LONG).unwrap().process, 1);
}

#[test]
fn garbage_from_a_peer_is_a_lost_peer() {
    let (_mesh, mut link, lost, runtime) = beside_a_connection(LONG);
    runtime.block_on(link.write_all(b"GET / HTTP/1.1")).unwrap();
    let lost = lost.recv_timeout(LONG).unwrap();
    assert_eq!(lost.process, 1);
    assert!(lost.reason.contains("a frame of"), "{lost}");
}

#[test]
fn what_was_said_last_arrives() {
    let certificates = certificates();
    let addresses = free_addresses(2);
    let mut meshes = all((0..2)
        .map(|i| start(settings(i, &addresses, Some(&certificates))))
        .collect());
    let mut second = meshes.pop().unwrap();
    let mut first = meshes.pop().unwrap();
    let said = bytes(0, 1, 3 << 20);
    let expected = said.clone();
    let ends = std::thread::spawn(move || {
        let mut socket = first.sockets[1].take().unwrap();
        socket.write_all(&said).unwrap();
        drop(socket);
        first.close().unwrap();
    });
    let mut socket = second.sockets[0].take().unwrap();
    let mut got = Vec::new();
    socket.read_to_end(&mut got).unwrap();
    assert!(got == expected);
    assert!(!ends.is_finished(), "it waits for the other's end");
    drop(socket);
    second.close().unwrap();
    ends.join().unwrap();
}
