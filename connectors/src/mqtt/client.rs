//! One connection to a broker that comes back by itself, on a thread of its own.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::Notify;

use super::endpoint::{Endpoint, Version};
use super::link::{Event, Fault, GOODBYE, Link, Qos, Receipt, Sender, Subscription, connect};

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(30);
/// Being refused doesn't mend itself: try again more slowly.
const BACKOFF_REFUSED: Duration = Duration::from_secs(5);

/// What came in: a topic, which a bad broker may not send as UTF-8, and a payload.
pub(crate) struct Message<'a> {
    pub(crate) topic: &'a [u8],
    pub(crate) payload: &'a [u8],
}

/// A running connection. Dropping it says goodbye to the broker and joins the thread.
pub(crate) struct Connection {
    sender: Sender,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Connection {
    /// Starts to connect, and never gives up. `on_message` runs on the connection's thread: while it blocks, nothing
    /// is read from the socket. When it breaks, the connection ends. It is dropped when all that was acknowledged has been
    /// given to it.
    pub(crate) fn start(
        name: &str,
        endpoint: &Endpoint,
        subscription: Option<Subscription>,
        on_message: impl FnMut(Message<'_>) -> ControlFlow<()> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (sender, link) = connect(endpoint, subscription.as_ref());
        let stop = Arc::new(Notify::new());
        let driver = Driver {
            name: name.to_owned(),
            endpoint: endpoint.clone(),
            subscription,
            sender: sender.clone(),
            link,
            stop: stop.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("mqtt {name}"))
            .spawn(move || runtime.block_on(driver.run(on_message)))
            .context("starting the MQTT thread")?;
        Ok(Connection {
            sender,
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

    /// Begins to say goodbye to the broker. What was read until then still comes to `on_message`.
    pub(crate) fn stop(&self) {
        self.stop.notify_one();
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
            let event = tokio::select! {
                biased;
                () = self.stop.notified() => break,
                event = self.link.poll() => event,
            };
            let wait = match event {
                Ok(Event::Publish { topic, payload }) => {
                    if on_message(Message {
                        topic: &topic,
                        payload: &payload,
                    })
                    .is_break()
                    {
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
                Ok(Event::Other) => continue,
                Err(Fault::Done) => {
                    state = State::Away;
                    break;
                }
                Err(fault) => self.lost(&mut state, fault, &mut backoff),
            };
            tokio::select! {
                () = self.stop.notified() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        self.goodbye(state == State::Connected, on_message).await;
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

    async fn goodbye(mut self, connected: bool, mut on_message: impl FnMut(Message<'_>) -> ControlFlow<()>) {
        let mut give = |topic: &[u8], payload: &[u8]| {
            // When nobody wants more, nobody can be told.
            let _ = on_message(Message { topic, payload });
        };
        if connected {
            self.sender.disconnect(self.endpoint.client_id.is_none());
            let _ = tokio::time::timeout(GOODBYE, async {
                while let Ok(event) = self.link.poll().await {
                    if let Event::Publish { topic, payload } = event {
                        give(&topic, &payload);
                    }
                }
            })
            .await;
        }
        // Acknowledged as they were read.
        while let Some((topic, payload)) = self.link.unpolled() {
            give(&topic, &payload);
        }
    }
}
