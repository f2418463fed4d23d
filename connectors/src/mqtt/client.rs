//! One connection to a broker that comes back by itself, on a thread of its own.

use std::collections::VecDeque;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use tokio::sync::{Notify, watch};

use super::endpoint::Endpoint;
use super::link::{Ack, Event, Fault, GOODBYE, Limits, Link, Presence, Qos, Receipt, Sender, Subscription, connect};
use super::socket::Socket;

const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_LAST: Duration = Duration::from_secs(30);
/// Being refused doesn't mend itself: try again more slowly.
const BACKOFF_REFUSED: Duration = Duration::from_secs(5);
/// A connection that is lost sooner than this was no success: something at the other end ends it each time.
const STEADY: Duration = Duration::from_secs(5);

/// How long a broker may take to close the connection after our goodbye.
const FAREWELL: Duration = Duration::from_secs(5);

/// What a connection brings, in the order in which it came.
pub(crate) enum Incoming<'a> {
    /// The broker was reached, and had a session for us or not.
    Connected {
        session_present: bool,
    },
    Message(Message<'a>),
}

/// A message: a topic, which a bad broker may not send as UTF-8, and a payload.
pub(crate) struct Message<'a> {
    pub(crate) topic: &'a [u8],
    pub(crate) payload: &'a [u8],
    /// None where the broker waits for nothing.
    pub(crate) receipt: Option<MessageAck>,
    /// The broker has sent it before.
    pub(crate) again: bool,
}

/// The acknowledgement of a message. It is void once the connection that brought the message is lost: the broker then
/// gives the message again.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageAck {
    connection: u64,
    ack: Ack,
}

impl MessageAck {
    /// The broker's number of the delivery; the same when it is given again.
    pub(crate) fn packet(self) -> u16 {
        self.ack.packet()
    }
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
    /// None before the first connection.
    limits: watch::Receiver<Option<Limits>>,
    announce: Arc<Notify>,
    stop: Arc<Notify>,
    thread: Option<JoinHandle<()>>,
}

impl Connection {
    /// Starts to connect, and never gives up. `on_incoming` runs on the connection's thread: while it blocks, nothing
    /// is read from the socket, and no acknowledgement is sent. When it breaks, the connection ends.
    ///
    /// # Errors
    /// A certificate or key of `tls` can't be read, or there can be no thread.
    pub(crate) fn start(
        name: &str,
        endpoint: &Endpoint,
        subscription: Option<Subscription>,
        presence: Option<Presence>,
        on_incoming: impl FnMut(Incoming<'_>) -> ControlFlow<()> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let socket = Socket::default();
        let (sender, link) = connect(endpoint, subscription.as_ref(), &socket)?;
        let (announce, stop) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let acks = Arc::new(Acks::default());
        let (tell_limits, limits) = watch::channel(None);
        let driver = Driver {
            name: name.to_owned(),
            endpoint: endpoint.clone(),
            subscription,
            presence,
            since_ms: 0,
            sender: sender.clone(),
            link,
            socket,
            acks: acks.clone(),
            number: 0,
            on_their_way: 0,
            short_lives: ShortLives::default(),
            limits: tell_limits,
            announce: announce.clone(),
            stop: stop.clone(),
        };
        let thread = std::thread::Builder::new()
            .name(format!("mqtt {name}"))
            .spawn(move || runtime.block_on(driver.run(on_incoming)))
            .context("starting the MQTT thread")?;
        Ok(Connection {
            sender,
            acks,
            limits,
            announce,
            stop,
            thread: Some(thread),
        })
    }

    /// False once the connection's thread has ended.
    pub(crate) fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// What the broker takes; waits until it was reached once.
    pub(crate) async fn limits(&mut self) -> anyhow::Result<Limits> {
        let told = self.limits.wait_for(Option::is_some).await;
        let limits = told.ok().and_then(|limits| *limits);
        limits.context("the MQTT connection's thread has ended")
    }

    /// Queues a message; waits while the queue is full. The receipt says when the broker has it.
    pub(crate) async fn publish(&self, topic: &str, payload: &[u8], qos: Qos, retain: bool) -> anyhow::Result<Receipt> {
        self.sender.publish(topic, payload.to_vec(), qos, retain).await
    }

    /// Queues a message that may be lost (QoS 0); false when the queue is full.
    pub(crate) fn try_send(&self, topic: &str, payload: Vec<u8>) -> bool {
        self.sender.try_publish(topic, payload, 0, false)
    }

    /// Says once more that we are there.
    pub(crate) fn announce(&self) {
        self.announce.notify_one();
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
    presence: Option<Presence>,
    /// When the newest try to connect began.
    since_ms: u64,
    sender: Sender,
    link: Link,
    socket: Socket,
    acks: Arc<Acks>,
    /// Counts connections; an acknowledgement is good on its own only.
    number: u64,
    /// Acknowledgements that were handed to the client and are not on the wire yet.
    on_their_way: usize,
    short_lives: ShortLives,
    limits: watch::Sender<Option<Limits>>,
    announce: Arc<Notify>,
    stop: Arc<Notify>,
}

/// Connections in a row that did not last.
#[derive(Default)]
struct ShortLives {
    since: Option<Instant>,
    count: u32,
}

impl ShortLives {
    fn begins(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// The least time to wait before the next connection, after one was lost or never made.
    fn ends(&mut self, now: Instant) -> Duration {
        match self.since.take() {
            Some(since) if now.duration_since(since) >= STEADY => self.count = 0,
            Some(_) => self.count += 1,
            None => {}
        }
        (BACKOFF_FIRST * 2_u32.pow(self.count.min(16))).min(BACKOFF_REFUSED)
    }

    /// True when it is no accident any more.
    fn is_habit(&self) -> bool {
        self.count > 2
    }
}

/// What was logged last, so that each change is logged once.
#[derive(PartialEq)]
enum State {
    Starting,
    Connected,
    Away,
    Refused,
    Distrusted,
}

impl Driver {
    async fn run(mut self, mut on_incoming: impl FnMut(Incoming<'_>) -> ControlFlow<()>) {
        let mut state = State::Starting;
        let mut backoff = BACKOFF_FIRST;
        self.prepare(&state);
        loop {
            let Some(event) = self.next().await else { break };
            let wait = match event {
                Ok(Event::Publish {
                    topic,
                    payload,
                    ack,
                    again,
                }) => {
                    let connection = self.number;
                    let message = Message {
                        topic: &topic,
                        payload: &payload,
                        receipt: ack.map(|ack| MessageAck { connection, ack }),
                        again,
                    };
                    if on_incoming(Incoming::Message(message)).is_break() {
                        break;
                    }
                    continue;
                }
                Ok(Event::Connected {
                    session_present,
                    limits,
                }) => {
                    backoff = BACKOFF_FIRST;
                    self.short_lives.begins(Instant::now());
                    self.limits.send_replace(Some(limits));
                    self.connected(&mut state);
                    if on_incoming(Incoming::Connected { session_present }).is_break() {
                        break;
                    }
                    continue;
                }
                Ok(Event::SubscriptionRefused(reason)) => {
                    let filters =
                        (self.subscription.as_ref()).map_or(String::new(), |asked| asked.filters.join("`, `"));
                    tracing::warn!(
                        "{}: the broker {} refused the subscription to `{filters}`: {reason}; check the topic and the rights of `user`",
                        self.name,
                        self.endpoint.url
                    );
                    continue;
                }
                Ok(Event::Subscribed(granted)) => {
                    let asked = self.subscription.as_ref().map_or(0, |asked| asked.qos);
                    if granted < asked {
                        tracing::warn!(
                            "{}: the broker {} gives messages with QoS {granted} and not {asked} (`qos`): it may lose some",
                            self.name,
                            self.endpoint.url
                        );
                    }
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
                    self.socket.release();
                    let least = self.short_lives.ends(Instant::now());
                    self.lost(&mut state, fault, &mut backoff).max(least)
                }
            };
            tokio::select! {
                () = self.stop.notified() => break,
                () = tokio::time::sleep(wait) => {}
            }
            self.prepare(&state);
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
                () = self.announce.notified() => say(&self.sender, self.presence.as_ref(), self.since_ms, true),
            }
        }
    }

    /// Before each try to connect: certificates may have been renewed, and what we leave behind names the connection.
    fn prepare(&mut self, state: &State) {
        if let Some(tls) = self.endpoint.tls.as_ref().filter(|_| *state != State::Starting) {
            match tls.client() {
                Ok(tls) => self.link.trust(Some(Arc::new(tls))),
                Err(error) => tracing::warn!("{}: {error:#}; using the certificates from before", self.name),
            }
        }
        if let Some(presence) = &self.presence {
            self.since_ms = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| since.as_millis() as u64);
            let gone = (presence.payload)(false, self.since_ms);
            self.link.leave_behind(&presence.topic, gone);
        }
    }

    fn connected(&mut self, state: &mut State) {
        tracing::info!("{}: connected to {} (`url`)", self.name, self.endpoint.url);
        *state = State::Connected;
        self.link.connected();
        // A kept session may hold another subscription, of an earlier pipeline file.
        if let Some(subscription) = &self.subscription
            && let Err(error) = self.sender.subscribe(subscription)
        {
            let filters = subscription.filters.join("`, `");
            tracing::error!("{}: subscribing to `{filters}`: {error}", self.name);
        }
        say(&self.sender, self.presence.as_ref(), self.since_ms, true);
    }

    /// Logs a change of state and says how long to wait.
    fn lost(&self, state: &mut State, fault: Fault, backoff: &mut Duration) -> Duration {
        let (name, url) = (&self.name, &self.endpoint.url);
        let now = match &fault {
            Fault::Refused { .. } => State::Refused,
            Fault::Distrust(_) => State::Distrusted,
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
                Fault::Distrust(reason) => {
                    tracing::warn!("{name}: no secure connection to the broker {url}: {reason}; trying again");
                }
                Fault::Lost(reason) if *state == State::Connected => {
                    let hint = match &self.endpoint.client_id {
                        Some(id) if self.short_lives.is_habit() => {
                            format!(", soon after it was made: does another client have the `client_id` {id}?")
                        }
                        _ => String::new(),
                    };
                    tracing::warn!("{name}: the connection to {url} was lost: {reason}{hint}; trying again");
                }
                Fault::Lost(reason) => {
                    // A broker that doesn't like our certificate may close before it has said so.
                    let hint = match &self.endpoint.tls {
                        Some(tls) if tls.certificate.is_none() => {
                            "; it may want a certificate of ours (`tls.certificate`)"
                        }
                        Some(_) => "; it may not trust our certificate (`tls.certificate`)",
                        None => "",
                    };
                    tracing::warn!("{name}: no broker at {url} (`url`): {reason}{hint}; trying again");
                }
                Fault::Done => {}
            }
        }
        *state = now;
        let least = if matches!(fault, Fault::Refused { .. } | Fault::Distrust(_)) {
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

    /// An end in good order: when it is over, the broker has read all that we sent.
    async fn goodbye(mut self, connected: bool) {
        if !connected {
            return;
        }
        let _ = tokio::time::timeout(GOODBYE, async {
            // What isn't acknowledged now comes again in the next session.
            loop {
                self.on_their_way += send_acks(&self.acks, &self.sender, self.number);
                if self.on_their_way == 0 {
                    return;
                }
                match self.link.poll().await {
                    Ok(Event::Acknowledged) => self.on_their_way = self.on_their_way.saturating_sub(1),
                    Ok(_) => {}
                    Err(_) => return,
                }
            }
        })
        .await;
        say(&self.sender, self.presence.as_ref(), self.since_ms, false);
        self.sender.disconnect(self.endpoint.client_id.is_none());
        let _ = tokio::time::timeout(GOODBYE, async { while self.link.poll().await.is_ok() {} }).await;
        let _ = tokio::time::timeout(FAREWELL, self.socket.closed()).await;
    }
}

/// Tells the others that we are there, or gone.
fn say(sender: &Sender, presence: Option<&Presence>, since_ms: u64, there: bool) {
    if let Some(presence) = presence {
        let payload = (presence.payload)(there, since_ms);
        if !sender.try_publish(&presence.topic, payload, 1, true) {
            tracing::warn!("no room to publish to `{}`", presence.topic);
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_do_not_last_are_made_less_often() {
        let mut lives = ShortLives::default();
        let mut now = Instant::now();
        let mut check = |lived_secs: Option<u64>, expect_ms: u128| {
            if let Some(lived_secs) = lived_secs {
                lives.begins(now);
                now += Duration::from_secs(lived_secs);
            }
            assert_eq!(lives.ends(now).as_millis(), expect_ms, "{lived_secs:?}");
        };
        check(None, 100);
        check(Some(60), 100);
        check(Some(0), 200);
        check(Some(4), 400);
        check(None, 400); // nobody was there
        for expect_ms in [800, 1600, 3200, 5000, 5000] {
            check(Some(1), expect_ms);
        }
        check(Some(5), 100);
    }
}
