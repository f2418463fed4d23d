//! Connections: taken, served, and closed when a sender takes too long.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::ConnectInfo;
use axum::serve::Listener;
use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

/// The most connections at the same time; who comes then waits for one to end.
pub(super) const CONNECTIONS: usize = 1024;
/// The most bytes of a request's head, and how many header lines it may have.
const HEAD: usize = 64 << 10;
const HEADERS: usize = 100;

/// Who has connected.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer(pub SocketAddr);

/// Serves connections until `stop` turns true; requests that have begun are answered.
///
/// A connection on which no whole head of a request has come for `read_timeout` is closed, be it that the sender sends it byte by byte or
/// that it rests.
pub(super) async fn serve<L>(mut listener: L, routes: Router, read_timeout: Duration, mut stop: watch::Receiver<bool>)
where
    L: Listener<Addr = SocketAddr>,
{
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = async {
            let place = room.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, (stream, peer)) = tokio::select! {
            accepted = accepted => accepted,
            () = told(&mut stop) => break,
        };
        // Those that have ended are forgotten.
        while connections.try_join_next().is_some() {}
        let service = TowerToHyperService::new(routes.clone().layer(Extension(ConnectInfo(Peer(peer)))));
        let mut stop = stop.clone();
        connections.spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(read_timeout)
                .max_buf_size(HEAD)
                .max_headers(HEADERS)
                .serve_connection(TokioIo::new(stream), service);
            tokio::pin!(connection);
            // What goes wrong on a connection is its sender's matter, who is told where that is still possible.
            tokio::select! {
                _ = connection.as_mut() => {}
                () = told(&mut stop) => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
            drop(place);
        });
    }
    drop(listener); // the port is free while the last requests are answered
    while connections.join_next().await.is_some() {}
}

/// Returns when it is time to stop.
async fn told(stop: &mut watch::Receiver<bool>) {
    // An error is the same news: nobody is there to say it any more.
    let _ = stop.wait_for(|stop| *stop).await;
}
