//! The network between the processes of one run, formed before timely sees it.
//!
//! timely's own mesh believes whoever connects. Here every connection first shows a certificate (`link`) and says who it is
//! (`greeting`); then timely gets one end of a socket pair per peer, and `relay` carries bytes between the other end and the peer.
//! Each process listens for those with a larger index and dials those with a smaller one.

mod forming;
mod greeting;
mod link;
mod relay;
#[cfg(test)]
mod tests;

use std::fmt;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::certificates::Certificates;

/// What a process needs to know to take part.
#[derive(Clone)]
pub struct MeshSettings {
    /// This process, an index into `addresses`.
    pub process: usize,
    /// `host:port` of every process; the same in all.
    pub addresses: Vec<String>,
    /// Worker threads of each process; timely wants the same in all, and a process with others is refused.
    pub threads: usize,
    /// What is run: processes with another text are refused. The pipeline's name and a hash of its file do.
    pub cluster: String,
    /// What process 0 tells all before they start. Not used from others.
    pub facts: Option<Value>,
    /// Mutual TLS with these; plain TCP for whoever connects without them (`--insecure`).
    pub certificates: Option<Certificates>,
    /// How long what is waited for.
    pub patience: Patience,
    /// Called once for each peer that dies, before timely can notice (it panics). One that ends the process is the right one:
    /// [`end_process`].
    pub on_lost: OnLost,
}

/// See [`MeshSettings::on_lost`].
pub type OnLost = Arc<dyn Fn(&Lost) + Send + Sync>;

/// How long a mesh waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For all to come together.
    pub forming: Duration,
    /// For one connection to show what it is.
    pub greeting: Duration,
    /// For a sign of life from a peer, later.
    pub silence: Duration,
    /// At the end, for peers to take what was sent to them and to say their own end.
    pub closing: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            forming: Duration::from_secs(30),
            greeting: Duration::from_secs(5),
            silence: Duration::from_secs(30),
            closing: Duration::from_secs(30),
        }
    }
}

/// A peer that died, or can no longer be reached.
#[derive(Clone, Debug)]
pub struct Lost {
    /// Which.
    pub process: usize,
    /// Where it was.
    pub address: String,
    /// What was seen of it.
    pub reason: String,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "process {} ({}) is gone: {}",
            self.process, self.address, self.reason
        )
    }
}

impl std::error::Error for Lost {}

/// Says which peer is gone and ends this process with exit code 1: the supervisor starts all again from the checkpoint.
pub fn end_process(lost: &Lost) {
    super::alive::end(&lost.to_string(), crate::cli::FAILED);
}

/// All processes are there.
#[derive(Debug)]
pub struct Mesh {
    // First, so that a mesh that is dropped falls silent before its sockets can look like an orderly end.
    runtime: Runtime,
    /// For timely, by process; None for this one. Dropping one says "I have no more" to that peer.
    pub sockets: Vec<Option<UnixStream>>,
    /// What process 0 said to all; null when it had nothing to say.
    pub facts: Value,
    relays: Vec<(usize, JoinHandle<anyhow::Result<()>>)>,
    closing: Duration,
}

/// Forms the mesh: returns when every process is connected to this one.
///
/// # Errors
/// Names the processes that did not come in time, and why; or says that this one was refused, or can't listen.
pub fn join(settings: &MeshSettings) -> anyhow::Result<Mesh> {
    let processes = settings.addresses.len();
    anyhow::ensure!(
        settings.process < processes,
        "process {} of {processes}",
        settings.process
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("mesh")
        .enable_io()
        .enable_time()
        .build()
        .context("threads of the mesh")?;
    let formed = runtime.block_on(forming::form(settings))?;
    let facts = if settings.process == 0 {
        settings.facts.clone()
    } else {
        formed.facts
    };

    let mut sockets = Vec::with_capacity(processes);
    let mut relays = Vec::with_capacity(processes);
    for (process, link) in formed.links.into_iter().enumerate() {
        let Some(link) = link else {
            sockets.push(None);
            continue;
        };
        let (timely, ours) = UnixStream::pair().context("a socket pair for timely")?;
        ours.set_nonblocking(true)?;
        sockets.push(Some(timely));
        let on_lost = Arc::clone(&settings.on_lost);
        let (address, silence) = (settings.addresses[process].clone(), settings.patience.silence);
        let carry = async move {
            let mut ours = tokio::net::UnixStream::from_std(ours)?;
            match relay::relay(&mut ours, link, silence).await {
                Ok(()) => Ok(()),
                Err(relay::Broken::Peer(error)) => {
                    let reason = error.to_string();
                    let lost = Lost {
                        process,
                        address,
                        reason,
                    };
                    // Timely's end closes when this task ends, so not before.
                    on_lost(&lost);
                    Err(lost.into())
                }
                Err(relay::Broken::Here(error)) => Err(anyhow::Error::new(error)
                    .context(format!("this process's own end of the link to process {process}"))),
            }
        };
        relays.push((process, runtime.spawn(carry)));
    }
    Ok(Mesh {
        runtime,
        sockets,
        facts: facts.unwrap_or_default(),
        relays,
        closing: settings.patience.closing,
    })
}

impl Mesh {
    /// The orderly end, after timely's: waits until everything written has reached the peers and they have said their own end.
    /// Dropping a mesh without it looks like a death to the peers.
    ///
    /// # Errors
    /// A peer was lost before that, or it takes longer than [`Patience::closing`].
    pub fn close(self) -> anyhow::Result<()> {
        drop(self.sockets);
        let closing = self.closing;
        let result = self.runtime.block_on(async {
            let deadline = tokio::time::Instant::now() + closing;
            for (process, relay) in self.relays {
                match tokio::time::timeout_at(deadline, relay).await {
                    Ok(result) => result??,
                    Err(_) => anyhow::bail!("process {process} did not end within {closing:?} after this one"),
                }
            }
            Ok(())
        });
        self.runtime.shutdown_background();
        result
    }
}
