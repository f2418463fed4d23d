//! A second hold on the socket of a connection.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rumqttc_v5::NetworkOptions;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::gathered::Gathered;

/// The socket of a connection beside the client that uses it, so that its end can be seen after the client has said goodbye.
#[derive(Clone, Default)]
pub(super) struct Socket(Arc<Mutex<Option<OwnedFd>>>);

impl Socket {
    fn lock(&self) -> MutexGuard<'_, Option<OwnedFd>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects to `host:port`.
    pub(super) async fn connect(self, address: String, options: NetworkOptions) -> io::Result<Gathered<TcpStream>> {
        self.release();
        let stream = rumqttc_v5::default_socket_connect(address, options).await?;
        *self.lock() = Some(stream.as_fd().try_clone_to_owned()?);
        Ok(Gathered::new(stream))
    }

    /// Lets go, so that the client alone decides when the socket is closed.
    pub(super) fn release(&self) {
        self.lock().take();
    }

    /// Waits until the other end has closed. It has then read what was sent before: closing a socket with something unread in it
    /// would have thrown that away, and a client of the same name that comes too soon makes it do so.
    pub(super) async fn closed(&self) {
        let Some(socket) = self.lock().take() else { return };
        let Ok(mut stream) = TcpStream::from_std(socket.into()) else {
            return;
        };
        let mut rest = [0; 4096];
        while !matches!(stream.read(&mut rest).await, Ok(0) | Err(_)) {}
    }
}
