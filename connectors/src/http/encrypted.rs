//! TLS for senders: connections that have shaken hands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::serve::Listener;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::source::ServerTlsConfig;

/// How long a handshake may take, and how many may go on at the same time.
const HANDSHAKE: Duration = Duration::from_secs(10);
const HANDSHAKES: usize = 256;

/// What shakes hands with senders.
///
/// # Errors
/// A file can't be read, or isn't what it should be; the message names it.
pub(super) fn acceptor(config: &ServerTlsConfig) -> anyhow::Result<TlsAcceptor> {
    let name = || format!("{} (`tls.certificate`)", config.certificate.display());
    let certificates = CertificateDer::pem_file_iter(&config.certificate).with_context(name)?;
    let certificates: Vec<_> = certificates.collect::<Result<_, _>>().with_context(name)?;
    anyhow::ensure!(!certificates.is_empty(), "{}: there is no certificate in it", name());
    let key =
        PrivateKeyDer::from_pem_file(&config.key).with_context(|| format!("{} (`tls.key`)", config.key.display()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(certificates, key)
        .context("`tls`: certificate and key don't fit")?;
    Ok(TlsAcceptor::from(Arc::new(server)))
}

/// Accepts connections and gives them on when they are encrypted; a slow handshake holds up nobody else.
pub(super) struct Encrypted {
    address: std::io::Result<SocketAddr>,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl Encrypted {
    pub(super) fn start(mut listener: TcpListener, acceptor: TlsAcceptor) -> Self {
        let (give, ready) = mpsc::channel(64);
        let address = listener.local_addr();
        let room = Arc::new(Semaphore::new(HANDSHAKES));
        tokio::spawn(async move {
            while let Ok(place) = room.clone().acquire_owned().await {
                let (stream, peer) = tokio::select! {
                    accepted = Listener::accept(&mut listener) => accepted,
                    () = give.closed() => return,
                };
                let (give, handshake) = (give.clone(), acceptor.accept(stream));
                tokio::spawn(async move {
                    // Who can't shake hands is told so by TLS itself.
                    if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, handshake).await {
                        let _ = give.send((stream, peer)).await;
                    }
                    drop(place);
                });
            }
        });
        Encrypted { address, ready }
    }
}

impl Listener for Encrypted {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, SocketAddr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            None => std::future::pending().await, // the runtime is ending
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        match &self.address {
            Ok(address) => Ok(*address),
            Err(error) => Err(std::io::Error::from(error.kind())),
        }
    }
}
