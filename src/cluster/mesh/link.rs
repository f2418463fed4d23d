//! One connection to one peer: TLS in both directions, or plain TCP.

use std::sync::Arc;

use futures::FutureExt;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::cluster::certificates::{Certificates, NAME};

/// What a link is made of.
pub trait Wire: AsyncRead + AsyncWrite + Send + Unpin {
    /// The connection below the encryption.
    fn tcp(&self) -> &TcpStream;
}

impl Wire for TcpStream {
    fn tcp(&self) -> &TcpStream {
        self
    }
}

impl Wire for TlsStream<TcpStream> {
    fn tcp(&self) -> &TcpStream {
        self.get_ref().0
    }
}

/// A connection whose other side has shown that it belongs to the cluster (or is trusted, with `--insecure`).
pub type Link = Box<dyn Wire>;

/// Has the other side closed or reset it? Data that waits to be read counts as open.
pub fn is_closed(link: &Link) -> bool {
    match link.tcp().peek(&mut [0]).now_or_never() {
        Some(Ok(0) | Err(_)) => true,
        Some(Ok(_)) | None => false,
    }
}

/// The side that was dialled. Checks the other's certificate.
pub async fn accept(stream: TcpStream, certificates: Option<&Certificates>) -> std::io::Result<Link> {
    stream.set_nodelay(true)?;
    let Some(certificates) = certificates else {
        return Ok(Box::new(stream));
    };
    let stream = TlsAcceptor::from(Arc::clone(&certificates.server))
        .accept(stream)
        .await?;
    Ok(Box::new(TlsStream::from(stream)))
}

/// The side that dials. Checks the other's certificate; that its own was refused shows at the first read.
pub async fn connect(address: &str, certificates: Option<&Certificates>) -> std::io::Result<Link> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let Some(certificates) = certificates else {
        return Ok(Box::new(stream));
    };
    let name = ServerName::try_from(NAME).map_err(std::io::Error::other)?;
    let stream = TlsConnector::from(Arc::clone(&certificates.client))
        .connect(name, stream)
        .await?;
    Ok(Box::new(TlsStream::from(stream)))
}
