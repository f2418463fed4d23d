//! Between timely's end of a socket pair and the link to the peer.
//!
//! Frames on the link: a length (u32, big endian) and so many bytes; [`END`] when this side has no more; [`PULSE`] when there
//! was nothing to say for a while. So a connection that ends without `END` is a peer that died, with TLS and without.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, BufReader, ReadHalf, WriteHalf};
use tokio::net::UnixStream;
use tokio::net::unix::{ReadHalf as FromHere, WriteHalf as ToHere};
use tokio::sync::Notify;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::link::Link;

const END: u32 = 0;
const PULSE: u32 = u32::MAX;
const FRAME_BYTES: usize = 256 << 10;
const HEADER: usize = size_of::<u32>();

/// Why a relay ended before both sides had said all.
#[derive(Debug)]
pub enum Broken {
    /// The peer, or the way to it.
    Peer(io::Error),
    /// Timely's end of the socket pair.
    Here(io::Error),
}

/// Carries bytes both ways until both sides have said all, and all of it has reached the other process. `here` stays open when
/// that fails: timely panics as soon as it closes.
pub async fn relay(here: &mut UnixStream, link: Link, silence: Duration) -> Result<(), Broken> {
    let (from_here, to_here) = here.split();
    let (from_peer, to_peer) = tokio::io::split(link);
    let ends = Ends::default();
    let (_, mut from_peer) = tokio::try_join!(
        outward(from_here, to_peer, silence / 4, &ends),
        inward(from_peer, to_here, silence, &ends)
    )?;
    // Closing with unread bytes would reset the connection, and with it what the peer has not read yet. How it goes away no
    // longer matters: all was said and heard.
    let mut rest = [0; 64];
    let drained = async { while matches!(from_peer.read(&mut rest).await, Ok(1..)) {} };
    let _ = timeout(silence, drained).await;
    Ok(())
}

/// Neither side closes before both have said their end, so that one that dies between the two is seen at once.
#[derive(Default)]
struct Ends {
    said: Notify,
    heard: Notify,
}

async fn outward(
    mut here: FromHere<'_>,
    mut peer: WriteHalf<Link>,
    pulse: Duration,
    ends: &Ends,
) -> Result<(), Broken> {
    let mut frame = vec![0; HEADER + FRAME_BYTES];
    let mut pulse = interval(pulse);
    pulse.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let read = tokio::select! {
            biased;
            read = here.read(&mut frame[HEADER..]) => Some(read.map_err(Broken::Here)?),
            _ = pulse.tick() => None,
        };
        let (header, bytes) = match read {
            Some(0) => (END, 0),
            Some(n) => (n as u32, n),
            None => (PULSE, 0),
        };
        frame[..HEADER].copy_from_slice(&header.to_be_bytes());
        send(&mut peer, &frame[..HEADER + bytes]).await?;
        if header == END {
            break;
        }
    }
    ends.said.notify_one();
    loop {
        tokio::select! {
            () = ends.heard.notified() => return peer.shutdown().await.map_err(Broken::Peer),
            _ = pulse.tick() => send(&mut peer, &PULSE.to_be_bytes()).await?,
        }
    }
}

async fn send(peer: &mut WriteHalf<Link>, bytes: &[u8]) -> Result<(), Broken> {
    peer.write_all(bytes).await.map_err(Broken::Peer)?;
    peer.flush().await.map_err(Broken::Peer)
}

async fn inward(
    peer: ReadHalf<Link>,
    mut here: ToHere<'_>,
    silence: Duration,
    ends: &Ends,
) -> Result<BufReader<ReadHalf<Link>>, Broken> {
    let mut peer = BufReader::with_capacity(FRAME_BYTES, peer);
    let mut frame = vec![0; FRAME_BYTES];
    loop {
        // Only time spent waiting for the peer counts, not time in which timely takes nothing.
        match heard(silence, peer.read_u32()).await? {
            END => break,
            PULSE => {}
            length if length as usize > FRAME_BYTES => {
                let error = format!("a frame of {length} bytes, where {FRAME_BYTES} are the most");
                return Err(Broken::Peer(io::Error::other(error)));
            }
            length => {
                let frame = &mut frame[..length as usize];
                heard(silence, peer.read_exact(frame)).await?;
                here.write_all(frame).await.map_err(Broken::Here)?;
            }
        }
    }
    here.shutdown().await.map_err(Broken::Here)?;
    ends.heard.notify_one();
    loop {
        tokio::select! {
            biased;
            () = ends.said.notified() => return Ok(peer),
            length = heard(silence, peer.read_u32()) => if length? != PULSE {
                return Err(Broken::Peer(io::Error::other("it said more after its end")));
            },
        }
    }
}

async fn heard<T>(silence: Duration, read: impl Future<Output = io::Result<T>>) -> Result<T, Broken> {
    let result = match timeout(silence, read).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::other(format!("silent for {silence:?}"))),
    };
    result.map_err(|error| {
        Broken::Peer(match error.kind() {
            io::ErrorKind::UnexpectedEof => io::Error::other("the connection was closed before its end"),
            _ => error,
        })
    })
}
