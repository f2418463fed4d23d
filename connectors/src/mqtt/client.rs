//! One connection to a broker that comes back by itself, on a thread of its own.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::Notify;

use super::endpoint::{Endpoint, Version};
use super::link::{Ack, Event, Fault, GOODBYE, Link, Qos, Receipt, Sender, Subscription, connect};

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(30);
/// Being refused doesn't mend itself: try again more slowly.
const BACKOFF_REFUSED: Duration = Duration::from_secs(5);

/// How long a broker says nothing when it has nothing to say.
const SILENCE: Duration = Duration::from_millis(50);

/// What came in: a topic, which a bad broker may not send as UTF-8, and a payload.
pub(crate) struct Message<'a> {
    pub(crate) topic: &'a [u8],
    pub(crate) payload: &'a [u8],
    /// None where the broker waits for nothing.
    pub(crate) receipt: Option<MessageAck>,
}

/// The acknowledgement of a message. It is void once the connection that brought the message is lost: the broker then
/// gives the message again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageAck {
    connection: u64,
    ack: Ack,
}

/// Acknowledgements on their way to the connection's thread. There can't be more than messages the broker gave us without one.
#[derive(Default)]
struct Acks {
    waiting: Mutex<VecDeque<MessageAck>>,
    more: Notify,
}

impl Acks {
    fn lock(&self) -> MutexGuard<'_, VecDeque<MessageAck>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running connection. Dropping it says goodbye to the broker and joins the thread.
pub(crate) struct Connection {
    sender: Sender,
    acks: Arc<Acks>,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Connection {
    /// Starts to connect, and never gives up. `on_message` runs on the connection's thread: while it blocks, nothing
    /// is read from the socket, and no acknowledgement is sent. When it breaks, the connection ends.
    pub(crate) fn start(
        name: &str,
        endpoint: &Endpoint,
        subscription: Option<Subscription>,
        on_message: impl FnMut(Message<'_>) -> ControlFlow<()> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (sender, link) = connect(endpoint, subscription.as_ref());
        let stop = Arc::new(Notify::new());
        let acks = Arc::new(Acks::default());
        let driver = Driver {
            name: name.to_owned(),
            endpoint: endpoint.clone(),
            subscription,
            sender: sender.clone(),
            link,
            acks: acks.clone(),
            number: 0,
            on_their_way: 0,
            stop: stop.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("mqtt {name}"))
            .spawn(move || runtime.block_on(driver.run(on_message)))
            .context("starting the MQTT thread")?;
        Ok(Connection {
            sender,
            acks,
            stop,
            thread: Some(thread),
        })
    }

    /// False once the connection's thread has ended.
    pub(crate) fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Queues a message; waits while the queue is full. The receipt says when the broker has it.
    pub(crate) async fn publish(&self, topic: &str, payload: &[u8], qos: Qos, retain: bool) -> anyhow::Result<Receipt> {
        self.sender.publish(topic, payload.to_vec(), qos, retain).await
    }

    /// Tells the broker that these messages are ours now. Those of a lost connection are passed over.
    pub(crate) fn acknowledge(&self, acks: impl IntoIterator<Item = MessageAck>) {
        self.acks.lock().extend(acks);
        self.acks.more.notify_one();
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The thread's state.
struct Driver {
    name: String,
    endpoint: Endpoint,
    subscription: Option<Subscription>,
    sender: Sender,
    link: Link,
    acks: Arc<Acks>,
    /// Counts connections; an acknowledgement is good on its own only.
    number: u64,
    /// Acknowledgements that were handed to the client and are not on the wire yet.
    on_their_way: usize,
    stop: Arc<Notify>,
}

/// What was logged last, so that each change is logged once.
#[derive(PartialEq)]
enum State {
    Starting,
    Connected,
    Away,
    Refused,
}

impl Driver {
    async fn run(mut self, mut on_message: impl FnMut(Message<'_>) -> ControlFlow<()>) {
        let mut state = State::Starting;
        let mut backoff = BACKOFF_FIRST;
        loop {
            let Some(event) = self.next().await else { break };
            let wait = match event {
                Ok(Event::Publish { topic, payload, ack }) => {
                    let connection = self.number;
                    let message = Message {
                        topic: &topic,
                        payload: &payload,
                        receipt: ack.map(|ack| MessageAck { connection, ack }),
                    };
                    if on_message(message).is_break() {
                        break;
                    }
                    continue;
                }
                Ok(Event::Connected { session_present }) => {
                    backoff = BACKOFF_FIRST;
                    self.connected(&mut state, session_present);
                    continue;
                }
                Ok(Event::SubscriptionRefused(reason)) => {
                    let filter = self
                        .subscription
                        .as_ref()
                        .map_or("", |subscription| &subscription.filter);
                    tracing::warn!(
                        "{}: the broker {} refused the subscription to `{filter}`: {reason}; check `topic` and the rights of `user`",
                        self.name,
                        self.endpoint.url
                    );
                    continue;
                }
                Ok(Event::Acknowledged) => {
                    self.on_their_way = self.on_their_way.saturating_sub(1);
                    continue;
                }
                Ok(Event::Other) => continue,
                Err(Fault::Done) => {
                    state = State::Away;
                    break;
                }
                Err(fault) => {
                    self.number += 1;
                    self.on_their_way = 0;
                    self.lost(&mut state, fault, &mut backoff)
                }
            };
            tokio::select! {
                () = self.stop.notified() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.goodbye(state == State::Connected).await;
    }

    /// The next event; acknowledgements go out while it is waited for. None when it is time to stop.
    async fn next(&mut self) -> Option<Result<Event, Fault>> {
        self.on_their_way += send_acks(&self.acks, &self.sender, self.number);
        // One poll from its begin to its end: half of one could lose what it had read.
        let mut event = std::pin::pin!(self.link.poll());
        loop {
            tokio::select! {
                biased;
                () = self.stop.notified() => return None,
                event = &mut event => return Some(event),
                () = self.acks.more.notified() => {
                    self.on_their_way += send_acks(&self.acks, &self.sender, self.number);
                }
            }
        }
    }

    fn connected(&self, state: &mut State, session_present: bool) {
        tracing::info!("{}: connected to {} (`url`)", self.name, self.endpoint.url);
        *state = State::Connected;
        // A kept session still holds the subscription, and the MQTT 5 client may not change a session it didn't begin.
        let kept = session_present && self.endpoint.version == Version::V5;
        if let Some(subscription) = self.subscription.as_ref().filter(|_| !kept)
            && let Err(error) = self.sender.subscribe(subscription)
        {
            tracing::error!("{}: subscribing to `{}`: {error}", self.name, subscription.filter);
        }
    }

    /// Logs a change of state and says how long to wait.
    fn lost(&self, state: &mut State, fault: Fault, backoff: &mut Duration) -> Duration {
        let (name, url) = (&self.name, &self.endpoint.url);
        let now = match &fault {
            Fault::Refused { .. } => State::Refused,
            _ => State::Away,
        };
        if *state != now {
            match &fault {
                Fault::Refused { sign_in: true, reason } => {
                    tracing::warn!(
                        "{name}: the broker {url} refused the sign-in: {reason}; check `user` and `password`; trying again"
                    );
                }
                Fault::Refused { reason, .. } => {
                    tracing::warn!(
                        "{name}: the broker {url} refused the connection: {reason}; check `version` and `client_id`; trying again"
                    );
                }
                Fault::Lost(reason) if *state == State::Connected => {
                    tracing::warn!("{name}: the connection to {url} was lost: {reason}; trying again");
                }
                Fault::Lost(reason) => {
                    tracing::warn!("{name}: no broker at {url} (`url`): {reason}; trying again");
                }
                Fault::Done => {}
            }
        }
        *state = now;
        let least = if matches!(fault, Fault::Refused { .. }) {
            BACKOFF_REFUSED
        } else {
            BACKOFF_FIRST
        };
        let wait = (*backoff).max(least);
        *backoff = (*backoff * 2).min(BACKOFF_LAST);
        // Half of it at random, so that many clients don't come back at the same moment.
        let share = f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
        wait.mul_f64(0.5 + share / 2.0)
    }

    /// True when the broker waits for acknowledgements of ours.
    fn acknowledges(&self) -> bool {
        self.subscription
            .as_ref()
            .is_some_and(|subscription| subscription.qos > 0)
    }

    async fn goodbye(mut self, connected: bool) {
        if !connected {
            return;
        }
        let _ = tokio::time::timeout(GOODBYE, async {
            // What isn't acknowledged now comes again in the next session.
            loop {
                self.on_their_way += send_acks(&self.acks, &self.sender, self.number);
                let event = match self.on_their_way {
                    0 if !self.acknowledges() => return,
                    // Read on until the broker is silent: closing a socket with something unread in it would throw away
                    // what the broker has yet to read of ours.
                    0 => match tokio::time::timeout(SILENCE, self.link.poll()).await {
                        Ok(event) => event,
                        Err(_) => return,
                    },
                    _ => self.link.poll().await,
                };
                match event {
                    Ok(Event::Acknowledged) => self.on_their_way = self.on_their_way.saturating_sub(1),
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        })
        .await;
        self.sender.disconnect(self.endpoint.client_id.is_none());
        let _ = tokio::time::timeout(GOODBYE, async { while self.link.poll().await.is_ok() {} }).await;
    }
}

/// Queues the acknowledgements that wait, as far as there is room, and counts them.
fn send_acks(acks: &Acks, sender: &Sender, number: u64) -> usize {
    let mut waiting = acks.lock();
    let mut sent = 0;
    while let Some(next) = waiting.front() {
        if next.connection == number {
            if !sender.acknowledge(next.ack) {
                break; // the next event comes when there is room again
            }
            sent += 1;
        }
        waiting.pop_front();
    }
    sent
}
