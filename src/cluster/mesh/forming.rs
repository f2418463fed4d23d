//! From nothing to one link per peer, whatever else connects meanwhile.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::greeting::{self, Answer, Hello};
use super::link::{self, Link};
use super::{MeshSettings, Patience};
use crate::cluster::certificates::Certificates;

/// One link per peer, and what process 0 said.
pub struct Formed {
    pub links: Vec<Option<Link>>,
    pub facts: Option<Value>,
}

/// What the tasks that dial, listen and greet report to the one loop that decides.
enum Event {
    /// A process that was dialled has welcomed this one.
    Welcomed { process: usize, link: Link, facts: Value },
    /// A process has shown itself and waits for its answer.
    Came { process: usize, link: Link },
    /// It has its answer: the link, when that was a welcome and reached it.
    Answered { process: usize, link: Option<Link> },
    /// Not yet.
    Trouble { process: usize, reason: String },
    /// Never.
    Hopeless { process: usize, reason: String },
}

enum Seat {
    /// With what was last seen of it.
    Empty(Option<String>),
    /// A welcome is on its way.
    Welcoming,
    Taken(Link),
}

/// Waits for those with a larger index, dials those with a smaller one.
pub async fn form(settings: &MeshSettings) -> anyhow::Result<Formed> {
    let (own, processes) = (settings.process, settings.addresses.len());
    let deadline = Instant::now() + settings.patience.forming;
    let mut tasks = JoinSet::new();
    let (events, mut reported) = mpsc::channel(16);
    let party = Arc::new(Party {
        hello: Hello {
            cluster: settings.cluster.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            processes,
            threads: settings.threads,
            process: own,
            to: own,
        },
        certificates: settings.certificates.clone(),
        patience: settings.patience,
        events,
    });
    if own + 1 < processes {
        let address = &settings.addresses[own];
        let listener = listen(address)
            .await
            .with_context(|| format!("process {own} can't listen on {address}"))?;
        tasks.spawn(Arc::clone(&party).wait_for_others(listener));
    }
    for (process, address) in settings.addresses.iter().enumerate().take(own) {
        tasks.spawn(Arc::clone(&party).dial(process, address.clone()));
    }

    let mut seats: Vec<Seat> = (0..processes).map(|_| Seat::Empty(None)).collect();
    let mut facts = None;
    loop {
        if all_taken(&seats, own) {
            let gone = vacate(&mut seats);
            if gone.is_empty() {
                break;
            }
            for process in gone.into_iter().filter(|process| *process < own) {
                tasks.spawn(Arc::clone(&party).dial(process, settings.addresses[process].clone()));
            }
        }
        let Ok(event) = timeout_at(deadline, reported.recv()).await else {
            return Err(missing(settings, &seats));
        };
        match event.context("the tasks of the mesh have ended")? {
            Event::Welcomed {
                process,
                link,
                facts: said,
            } => {
                if process == 0 {
                    facts = Some(said);
                }
                seats[process] = Seat::Taken(link);
            }
            Event::Came { process, link } => {
                let duplicate = match &seats[process] {
                    Seat::Empty(_) => false,
                    Seat::Welcoming => true,
                    // One that was started again, before the mesh was formed.
                    Seat::Taken(old) => !link::is_closed(old),
                };
                let answer = if duplicate {
                    Answer::Refused {
                        reason: format!("process {process} is connected to process {own} already"),
                        for_good: false,
                    }
                } else {
                    seats[process] = Seat::Welcoming;
                    Answer::Welcome {
                        facts: settings.facts.clone().filter(|_| own == 0).unwrap_or_default(),
                    }
                };
                tasks.spawn(Arc::clone(&party).answer(process, link, answer));
            }
            Event::Answered {
                process,
                link: Some(link),
            } => seats[process] = Seat::Taken(link),
            Event::Answered { process, link: None } => seats[process] = Seat::Empty(None),
            Event::Trouble { process, reason } => seats[process] = Seat::Empty(Some(reason)),
            Event::Hopeless { process, reason } => {
                anyhow::bail!(
                    "process {process} ({}) refuses this one: {reason}",
                    settings.addresses[process]
                )
            }
        }
    }
    // The listener closes here: nothing can come in later.
    tasks.shutdown().await;
    let links = seats.into_iter().map(|seat| match seat {
        Seat::Taken(link) => Some(link),
        Seat::Empty(_) | Seat::Welcoming => None,
    });
    Ok(Formed {
        links: links.collect(),
        facts,
    })
}

fn all_taken(seats: &[Seat], own: usize) -> bool {
    let mut others = seats.iter().enumerate().filter(|(process, _)| *process != own);
    others.all(|(_, seat)| matches!(seat, Seat::Taken(_)))
}

/// One that died while others were waited for is waited for again, as it is started again.
fn vacate(seats: &mut [Seat]) -> Vec<usize> {
    let mut gone = Vec::new();
    for (process, seat) in seats.iter_mut().enumerate() {
        if matches!(seat, Seat::Taken(link) if link::is_closed(link)) {
            *seat = Seat::Empty(Some("it came and went".to_owned()));
            gone.push(process);
        }
    }
    gone
}

fn missing(settings: &MeshSettings, seats: &[Seat]) -> anyhow::Error {
    let missing = seats.iter().enumerate().filter_map(|(process, seat)| {
        let seen = match seat {
            Seat::Taken(_) => return None,
            Seat::Empty(Some(reason)) => reason,
            Seat::Empty(None) | Seat::Welcoming => "it did not connect",
        };
        let other = process != settings.process;
        other.then(|| format!("process {process} ({}): {seen}", settings.addresses[process]))
    });
    let missing: Vec<_> = missing.collect();
    anyhow::anyhow!("missing after {:?}: {}", settings.patience.forming, missing.join("; "))
}

/// A port that another has used a moment ago becomes free soon.
const PORT_TAKEN_TRIES: u32 = 50;
const BETWEEN_TRIES: Duration = Duration::from_millis(100);

async fn listen(address: &str) -> std::io::Result<TcpListener> {
    let mut tries = 0;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && tries < PORT_TAKEN_TRIES => {
                tries += 1;
                sleep(BETWEEN_TRIES).await;
            }
            result => return result,
        }
    }
}

/// Connections that may show what they are at one time; more are closed at once.
const GREETINGS: usize = 256;

/// What all tasks know.
struct Party {
    hello: Hello,
    certificates: Option<Certificates>,
    patience: Patience,
    events: mpsc::Sender<Event>,
}

impl Party {
    async fn wait_for_others(self: Arc<Self>, listener: TcpListener) {
        let greetings = Arc::new(Semaphore::new(GREETINGS));
        let mut tasks = JoinSet::new();
        loop {
            let (stream, from) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    // One connection's trouble, or no more files: neither ends the listening.
                    tracing::warn!("process {} can't accept a connection: {error}", self.hello.process);
                    sleep(BETWEEN_TRIES).await;
                    continue;
                }
            };
            let Ok(permit) = Arc::clone(&greetings).try_acquire_owned() else {
                tracing::warn!("a connection from {from} is closed: {GREETINGS} others have not said what they are");
                continue;
            };
            let party = Arc::clone(&self);
            tasks.spawn(async move {
                if let Err(reason) = party.receive(stream).await {
                    tracing::warn!("a connection from {from} is closed: {reason}");
                }
                drop(permit);
            });
            while tasks.try_join_next().is_some() {}
        }
    }

    /// One connection that came in. Gives the reason to close it.
    async fn receive(&self, stream: TcpStream) -> Result<(), String> {
        let greet = async {
            let mut link = link::accept(stream, self.certificates.as_ref()).await.map_err(plain)?;
            let hello = greeting::hear(&mut link).await.map_err(plain)?;
            Ok::<_, String>((link, hello))
        };
        let patience = self.patience.greeting;
        let (mut link, hello) = timeout(patience, greet)
            .await
            .map_err(|_| format!("it did not say within {patience:?} what it is"))??;
        if let Some(reason) = greeting::refusal(&self.hello, &hello) {
            let answer = Answer::Refused {
                reason: reason.clone(),
                for_good: true,
            };
            let said = timeout(patience, greeting::answer(&mut link, &answer)).await;
            return Err(if matches!(said, Ok(Ok(()))) {
                reason
            } else {
                format!("{reason} (it did not wait to hear that)")
            });
        }
        // Nobody waits for events only when the mesh is formed or given up.
        let _ = self
            .events
            .send(Event::Came {
                process: hello.process,
                link,
            })
            .await;
        Ok(())
    }

    async fn answer(self: Arc<Self>, process: usize, mut link: Link, answer: Answer) {
        let said = timeout(self.patience.greeting, greeting::answer(&mut link, &answer)).await;
        let said = said.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        match (answer, said) {
            (Answer::Refused { reason, .. }, _) => tracing::warn!("a connection is closed: {reason}"),
            (Answer::Welcome { .. }, Err(error)) => {
                tracing::warn!("process {process} came and went: {error}");
                let _ = self.events.send(Event::Answered { process, link: None }).await;
            }
            (Answer::Welcome { .. }, Ok(())) => {
                let _ = self
                    .events
                    .send(Event::Answered {
                        process,
                        link: Some(link),
                    })
                    .await;
            }
        }
    }

    /// Tries until this task is dropped, welcomed, or refused for good.
    async fn dial(self: Arc<Self>, process: usize, address: String) {
        let patience = self.patience.greeting;
        let hello = Hello {
            to: process,
            ..self.hello.clone()
        };
        let mut said = String::new();
        loop {
            let attempt = async {
                let mut link = link::connect(&address, self.certificates.as_ref()).await?;
                greeting::say(&mut link, &hello).await?;
                let answer = greeting::answered(&mut link).await?;
                Ok((link, answer))
            };
            let timed_out = || std::io::Error::other(format!("no answer within {patience:?}"));
            let event = match timeout(patience, attempt).await.unwrap_or_else(|_| Err(timed_out())) {
                Ok((link, Answer::Welcome { facts })) => Event::Welcomed { process, link, facts },
                Ok((_, Answer::Refused { reason, for_good: true })) => Event::Hopeless { process, reason },
                Ok((
                    _,
                    Answer::Refused {
                        reason,
                        for_good: false,
                    },
                )) => Event::Trouble { process, reason },
                Err(error) => {
                    // Not listening yet is how every start looks.
                    let early = error.kind() == std::io::ErrorKind::ConnectionRefused;
                    let reason = plain(error);
                    if !early && said != reason {
                        tracing::warn!("process {process} ({address}) is not there yet: {reason}");
                        said.clone_from(&reason);
                    }
                    Event::Trouble { process, reason }
                }
            };
            let again = matches!(event, Event::Trouble { .. });
            if self.events.send(event).await.is_err() || !again {
                return;
            }
            sleep(BETWEEN_TRIES).await;
        }
    }
}

fn plain(error: std::io::Error) -> String {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(_) | rustls::Error::AlertReceived(_)) => {
            format!("{error} (all machines need the same certificates folder)")
        }
        Some(rustls::Error::InvalidMessage(_)) => {
            format!("{error} (is it started with --insecure, or no process at all?)")
        }
        _ if error.kind() == std::io::ErrorKind::UnexpectedEof => "it closed the connection".to_owned(),
        _ => error.to_string(),
    }
}
