//! Acknowledgements that are written together.
//!
//! The client writes and flushes each by itself, which costs more than all the rest of taking a message. Here they are held until the client
//! reads again or writes anything else, and go out in one call. Below TLS nothing looks like an acknowledgement, and all passes through.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are held at most.
const HELD: usize = 16 << 10;

/// A stream that holds back acknowledgements.
pub(super) struct Gathered<S> {
    stream: S,
    held: Vec<u8>,
}

impl<S> Gathered<S> {
    pub(super) fn new(stream: S) -> Self {
        Gathered {
            stream,
            held: Vec::new(),
        }
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    fn poll_held(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.held))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.drain(..written);
        }
        Poll::Ready(Ok(()))
    }
}

/// One PUBACK, PUBREC or PUBCOMP, and nothing else.
fn is_acknowledgement(bytes: &[u8]) -> bool {
    matches!(bytes, [head, length, ..] if matches!(head >> 4, 4 | 5 | 7) && bytes.len() == 2 + usize::from(*length))
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if let Poll::Ready(Err(error)) = self.poll_held(cx) {
            return Poll::Ready(Err(error));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if is_acknowledgement(bytes) && self.held.len() < HELD {
            self.held.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(self.poll_held(cx))?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_held(cx))?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn acknowledgements_go_with_what_comes_after_them() {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        let mut ours = Gathered::new(ours);
        let (first, second, publish) = ([0x40, 2, 0, 1], [0x70, 3, 0, 2, 0], [0x30, 3, 0, 1, b'a']);
        for bytes in [first.as_slice(), &second] {
            ours.write_all(bytes).await.unwrap();
            ours.flush().await.unwrap();
        }
        assert_eq!(ours.held, [first.as_slice(), &second].concat());
        ours.write_all(&publish).await.unwrap();
        let mut got = [0; 14];
        theirs.read_exact(&mut got).await.unwrap();
        assert_eq!(got, *[first.as_slice(), &second, &publish].concat());
        // Or before the client reads.
        ours.write_all(&first).await.unwrap();
        theirs.write_all(&[9]).await.unwrap();
        assert_eq!(ours.read_u8().await.unwrap(), 9);
        theirs.read_exact(&mut got[..4]).await.unwrap();
        assert_eq!(got[..4], first);
        // Or at the end.
        ours.write_all(&first).await.unwrap();
        ours.shutdown().await.unwrap();
        theirs.read_exact(&mut got[..4]).await.unwrap();
        assert_eq!(got[..4], first);
    }

    #[test]
    fn only_whole_acknowledgements_are_held() {
        for (bytes, expect) in [
            (&[0x40, 2, 0, 1][..], true),
            (&[0x50, 4, 0, 1, 0x10, 0], true),
            (&[0x62, 2, 0, 1], false), // PUBREL: the broker waits for it
            (&[0x40, 2, 0, 1, 0x40], false),
            (&[0x40, 2, 0], false),
            (&[0xe0, 0], false),
            (&[0x17, 3, 3, 0, 4], false),
            (&[], false),
        ] {
            assert_eq!(is_acknowledgement(bytes), expect, "{bytes:x?}");
        }
    }
}
