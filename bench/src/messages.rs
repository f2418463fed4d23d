//! Messages through a broker: published, kept for a subscriber that is away, and taken by one that does nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rumqttc_v5::mqttbytes::QoS;
use rumqttc_v5::{BrokerSessionResumePolicy, Client, Connection, Event, MqttOptions, Packet, PublishOptions};

use crate::broker::Broker;

/// What is sent.
pub struct Message {
    /// Where to.
    pub topic: String,
    /// What.
    pub payload: String,
}

/// Messages that may wait for the broker's acknowledgement.
const IN_FLIGHT: u16 = 1024;
/// Packets that the client reads, and sends, at once, as taktline has it.
const BATCH: usize = 256;
/// What `taktline` lets a broker send before the first acknowledgement.
const RECEIVE_MAXIMUM: u16 = 16_384;
/// The longest silence of a broker that has something to say.
const SILENCE: Duration = Duration::from_secs(30);

/// Sends with QoS 1.
pub struct Publisher {
    client: Client,
    sent: u64,
    acknowledged: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
}

impl Publisher {
    /// Connects.
    pub fn connect(broker: &Broker) -> Self {
        let mut options = MqttOptions::new("bench-publisher", ("127.0.0.1", broker.port()));
        options.set_keep_alive(60);
        options.set_outgoing_inflight_upper_limit(IN_FLIGHT);
        options.set_max_request_batch(BATCH);
        options.set_read_batch_size(BATCH);
        let (client, mut connection) = Client::builder(options).capacity(4096).build();
        let acknowledged = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&acknowledged);
        let thread = std::thread::spawn(move || {
            for event in connection.iter() {
                match event {
                    Ok(Event::Incoming(Packet::PubAck(_))) => _ = counter.fetch_add(1, Ordering::AcqRel),
                    Ok(_) => {}
                    Err(_) => break, // missed acknowledgements say it
                }
            }
        });
        Publisher {
            client,
            sent: 0,
            acknowledged,
            thread: Some(thread),
        }
    }

    /// Sends one, and waits for nothing but room.
    ///
    /// # Errors
    /// The connection is lost.
    pub fn post(&mut self, Message { topic, payload }: Message) -> anyhow::Result<()> {
        self.client
            .publish(topic, payload, PublishOptions::new(QoS::AtLeastOnce))?;
        self.sent += 1;
        Ok(())
    }

    /// Sends these, and waits until the broker has them all.
    ///
    /// # Errors
    /// The broker doesn't take them.
    pub fn send(&mut self, messages: impl IntoIterator<Item = Message>) -> anyhow::Result<()> {
        for message in messages {
            self.post(message)?;
        }
        let mut last = (Instant::now(), 0);
        loop {
            let acknowledged = self.acknowledged.load(Ordering::Acquire);
            if acknowledged >= self.sent {
                return Ok(());
            }
            if acknowledged > last.1 {
                last = (Instant::now(), acknowledged);
            }
            ensure!(
                last.0.elapsed() < SILENCE,
                "the broker took {acknowledged} of {} messages",
                self.sent
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.client.disconnect(); // the broker may be gone
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Has the broker keep what comes for a subscriber from now on.
///
/// # Errors
/// The broker doesn't take the subscription.
pub fn keep_for(broker: &Broker, id: &str, filter: &str) -> anyhow::Result<()> {
    let (client, mut connection) = subscriber(broker, id);
    loop {
        match next(&mut connection, SILENCE)? {
            // Kept since the last time, with its subscription.
            Some(Event::Incoming(Packet::ConnAck(ack))) if ack.session_present => break,
            Some(Event::Incoming(Packet::ConnAck(_))) => client.subscribe(filter, QoS::AtLeastOnce)?,
            Some(Event::Incoming(Packet::SubAck(_))) => break,
            Some(_) => {}
            None => bail!("the broker doesn't answer a subscription"),
        }
    }
    client.disconnect()?;
    while let Ok(Some(_)) = next(&mut connection, Duration::from_secs(1)) {}
    Ok(())
}

/// Takes and acknowledges what was kept for a subscriber, `count` messages; gives the time from the first to the last.
///
/// # Errors
/// They don't come.
pub fn take(broker: &Broker, id: &str, count: usize) -> anyhow::Result<Duration> {
    take_each(broker, id, count, |_, _| Ok(()))
}

/// The same, with something to do for each topic and payload.
///
/// # Errors
/// They don't come, or it can't be done.
pub fn take_each(
    broker: &Broker,
    id: &str,
    count: usize,
    mut each: impl FnMut(&str, &[u8]) -> anyhow::Result<()>,
) -> anyhow::Result<Duration> {
    let (client, mut connection) = subscriber(broker, id);
    let (mut taken, mut first) = (0, None);
    while taken < count {
        match next(&mut connection, SILENCE)? {
            Some(Event::Incoming(Packet::Publish(publish))) => {
                taken += 1;
                first.get_or_insert_with(Instant::now);
                each(std::str::from_utf8(&publish.topic)?, &publish.payload)?;
            }
            Some(_) => {}
            None => bail!("{taken} of {count} messages came"),
        }
    }
    let first = first.context("no message was asked for")?;
    let took = first.elapsed();
    client.disconnect()?;
    while let Ok(Some(_)) = next(&mut connection, Duration::from_secs(1)) {}
    Ok(took)
}

/// How many messages a broker still keeps for a subscriber; they are acknowledged.
///
/// # Errors
/// The broker doesn't answer.
pub fn left(broker: &Broker, id: &str) -> anyhow::Result<usize> {
    let (_client, mut connection) = subscriber(broker, id);
    let mut left = 0;
    while let Some(event) = next(&mut connection, Duration::from_secs(2))? {
        left += usize::from(matches!(event, Event::Incoming(Packet::Publish(_))));
    }
    Ok(left)
}

/// With the settings of `taktline`'s own, except that each message is acknowledged at once.
fn subscriber(broker: &Broker, id: &str) -> (Client, Connection) {
    let mut options = MqttOptions::new(id, ("127.0.0.1", broker.port()));
    options.set_clean_start(false);
    options.set_broker_session_resume_policy(BrokerSessionResumePolicy::AllowBrokerOnly);
    options.set_session_expiry_interval(Some(3600));
    options.set_keep_alive(600);
    options.set_receive_maximum(Some(RECEIVE_MAXIMUM));
    options.set_max_request_batch(BATCH);
    options.set_read_batch_size(BATCH);
    let mut network = options.network_options();
    network.set_tcp_nodelay(true);
    options.set_network_options(network);
    Client::builder(options).capacity(256).build()
}

fn next(connection: &mut Connection, limit: Duration) -> anyhow::Result<Option<Event>> {
    match connection.recv_timeout(limit) {
        Ok(event) => Ok(Some(event?)),
        Err(_) => Ok(None),
    }
}
