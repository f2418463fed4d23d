//! The client crates for the two versions of the protocol, in one form.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;

use super::distrust;
use super::endpoint::{Endpoint, Version};
use super::session::Unwritten;
use super::socket::Socket;

/// The largest packet taken: as large as they get. A broker that is told of a lower limit throws larger messages away without a word.
const PACKET_LIMIT: u32 = 256 << 20;
/// How long an orderly goodbye may take: a bound for a broker that no longer answers.
pub(super) const GOODBYE: Duration = Duration::from_secs(5);

/// A delivery guarantee: 0 at most once, 1 at least once, 2 exactly once.
pub(crate) type Qos = u8;

/// Seconds of silence after which the broker is asked for a sign of life. After one and a half times as long without one
/// from us the broker drops us.
const KEEP_ALIVE_SECS: u16 = 60;
/// The same for a subscriber, which sends nothing while its queue is full: slow sinks may hold it up for 15 minutes. The
/// price is that a broker that vanishes without a word is missed only after as long.
const SUBSCRIBER_KEEP_ALIVE_SECS: u16 = 600;

/// What a broker takes from us, as it said when it was reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) packet_bytes: usize,
    pub(crate) qos: Qos,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            packet_bytes: PACKET_LIMIT as usize,
            qos: 2,
        }
    }
}

/// What to keep subscribed, and on which terms.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) filters: Vec<String>,
    pub(crate) qos: Qos,
    /// For how long the broker keeps messages while we are away (under MQTT 3.1.1 for as long as it likes). None: it doesn't.
    pub(crate) kept_secs: Option<u32>,
    /// Messages that a broker may give us before we acknowledge the first (MQTT 5).
    pub(crate) receive_maximum: u16,
}

impl Subscription {
    /// True if the broker keeps messages from one run to the next.
    pub(crate) fn outlives(&self, endpoint: &Endpoint) -> bool {
        self.kept_secs.is_some() && endpoint.client_id.is_some()
    }

    /// True if the broker keeps messages from one connection to the next.
    pub(crate) fn is_kept(&self, endpoint: &Endpoint) -> bool {
        self.kept_secs.is_some() && (endpoint.version == Version::V5 || endpoint.client_id.is_some())
    }
}

/// What others are told about us by a retained message, while we are there and when we are gone.
#[derive(Clone, Debug)]
pub(crate) struct Presence {
    pub(crate) topic: String,
    /// The payload: whether we are there, and in which ms since 1970 this connection began.
    pub(crate) payload: fn(bool, u64) -> Vec<u8>,
}

/// What a broker waits for after it gave us a message: until then it keeps the message for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    qos: Qos,
    packet: u16,
}

impl Ack {
    /// The broker's number of the delivery.
    pub(super) fn packet(self) -> u16 {
        self.packet
    }

    /// None where the broker waits for nothing (QoS 0).
    fn of(qos: Qos, packet: u16) -> Option<Self> {
        (qos > 0).then_some(Ack { qos, packet })
    }
}

/// A message on its way.
pub(crate) enum Receipt {
    V311(rumqttc_v4::PublishNotice),
    V5(rumqttc_v5::PublishNotice),
}

/// Why a message did not arrive.
#[derive(Debug)]
pub(crate) enum Undelivered {
    /// The connection was lost before; send it again.
    Again,
    /// The broker doesn't want it.
    Refused(String),
}

impl Receipt {
    /// Waits until the broker has acknowledged the message (QoS 0: until it is on the wire).
    pub(crate) async fn wait(self) -> Result<(), Undelivered> {
        use rumqttc_v5::PublishNoticeError::{RetainNotSupported, V5PubAck, V5PubComp, V5PubRec};
        match self {
            Receipt::V311(notice) => notice.wait_completion_async().await.map_err(|_| Undelivered::Again),
            Receipt::V5(notice) => notice.wait_completion_async().await.map_err(|error| match error {
                V5PubAck(_) | V5PubRec(_) | V5PubComp(_) | RetainNotSupported => {
                    Undelivered::Refused(error.to_string())
                }
                _ => Undelivered::Again,
            }),
        }
    }
}

#[derive(Clone)]
pub(super) enum Sender {
    V311(rumqttc_v4::AsyncClient),
    V5(rumqttc_v5::AsyncClient),
}

pub(super) enum Link {
    V311(Box<rumqttc_v4::EventLoop>),
    V5(Box<rumqttc_v5::EventLoop>),
}

/// Messages that wait in front of the connection's thread.
const SEND_QUEUE: usize = 256;
/// Messages that the broker may have yet to acknowledge. The client looks through all of this window for each
/// message: with 65,535 it manages some 900 messages a second, with 1,024 some 60,000.
const IN_FLIGHT: u16 = 1024;
/// Of a subscriber, which publishes hardly anything: it looks through the window for each acknowledgement, too.
const FEW_IN_FLIGHT: u16 = 16;

/// Packets that the client reads, and sends, at once. By itself it writes each acknowledgement with a call of its own.
const BATCH: usize = 256;

/// Prepares a connection; the first [`Link::poll`] makes it.
///
/// # Errors
/// A certificate or key can't be read.
pub(super) fn connect(
    endpoint: &Endpoint,
    subscription: Option<&Subscription>,
    socket: &Socket,
) -> anyhow::Result<(Sender, Link)> {
    let id = endpoint
        .client_id
        .clone()
        .unwrap_or_else(|| format!("taktline{}", &uuid::Uuid::new_v4().simple().to_string()[..14]));
    let keep_alive = subscription.map_or(KEEP_ALIVE_SECS, |_| SUBSCRIBER_KEEP_ALIVE_SECS);
    let kept_secs = subscription.and_then(|subscription| subscription.kept_secs);
    let tls = endpoint.tls.as_ref().map(|tls| tls.client()).transpose()?.map(Arc::new);
    let address = (endpoint.host.clone(), endpoint.port);
    let socket = socket.clone();
    let in_flight = if subscription.is_some() {
        FEW_IN_FLIGHT
    } else {
        IN_FLIGHT
    };
    // No delay for subscribers, whose small acknowledgements must not wait; publishers gain from larger packets.
    Ok(match endpoint.version {
        Version::V311 => {
            let mut options = rumqttc_v4::MqttOptions::new(id, address);
            options.set_max_packet_size(PACKET_LIMIT as usize, PACKET_LIMIT as usize);
            options.set_clean_session(kept_secs.is_none() || endpoint.client_id.is_none());
            options.set_keep_alive(keep_alive);
            options.set_inflight(in_flight);
            options.set_max_request_batch(BATCH);
            options.set_read_batch_size(BATCH);
            options.set_ack_mode(rumqttc_v4::AckMode::Manual);
            options.set_socket_connector(move |address, options| socket.clone().connect(address, options));
            match (&endpoint.user, &endpoint.password) {
                (Some(user), Some(password)) => options.set_credentials(user.as_str(), password.clone()),
                (Some(user), None) => options.set_username(user.as_str()),
                _ => &mut options,
            };
            let (client, mut link) = rumqttc_v4::AsyncClient::builder(options).capacity(SEND_QUEUE).build();
            link.network_options.set_tcp_nodelay(subscription.is_some());
            let mut link = Link::V311(Box::new(link));
            link.trust(tls);
            (Sender::V311(client), link)
        }
        Version::V5 => {
            let mut options = rumqttc_v5::MqttOptions::new(id, address);
            options.set_max_packet_size(Some(PACKET_LIMIT));
            options.set_clean_start(kept_secs.is_none());
            options.set_session_expiry_interval(kept_secs);
            options.set_keep_alive(keep_alive);
            options.set_outgoing_inflight_upper_limit(in_flight);
            options.set_max_request_batch(BATCH);
            options.set_read_batch_size(BATCH);
            options.set_ack_mode(rumqttc_v5::AckMode::Manual);
            options.set_receive_maximum(subscription.map(|subscription| subscription.receive_maximum));
            options.set_socket_connector(move |address, options| socket.clone().connect(address, options));
            let mut network = options.network_options();
            network.set_tcp_nodelay(subscription.is_some());
            options.set_network_options(network);
            match (&endpoint.user, &endpoint.password) {
                (Some(user), Some(password)) => options.set_credentials(user.as_str(), password.clone()),
                (Some(user), None) => options.set_username(user.as_str()),
                (None, Some(token)) => options.set_auth(rumqttc_v5::ConnectAuth::Password {
                    password: token.clone().into(),
                }),
                (None, None) => &mut options,
            };
            if kept_secs.is_some() {
                options.set_session_store(Unwritten::of(&options));
            }
            let (client, link) = rumqttc_v5::AsyncClient::builder(options).capacity(SEND_QUEUE).build();
            let mut link = Link::V5(Box::new(link));
            link.trust(tls);
            (Sender::V5(client), link)
        }
    })
}

impl Sender {
    pub(super) async fn publish(
        &self,
        topic: &str,
        payload: Vec<u8>,
        qos: Qos,
        retain: bool,
    ) -> anyhow::Result<Receipt> {
        Ok(match self {
            Sender::V311(client) => {
                let options = rumqttc_v4::PublishOptions::new(qos_311(qos)).retain(retain);
                Receipt::V311(client.publish_tracked(topic, payload, options).await?)
            }
            Sender::V5(client) => {
                let options = rumqttc_v5::PublishOptions::new(qos_5(qos)).retain(retain);
                Receipt::V5(client.publish_tracked(topic, payload, options).await?)
            }
        })
    }

    /// Queues an acknowledgement; false when the queue is full.
    pub(super) fn acknowledge(&self, ack: Ack) -> bool {
        let Ack { qos, packet } = ack;
        match self {
            Sender::V311(client) => {
                use rumqttc_v4::{ManualAck, PubAck, PubRec};
                let ack = match qos {
                    1 => ManualAck::PubAck(PubAck::new(packet)),
                    _ => ManualAck::PubRec(PubRec::new(packet)),
                };
                client.try_manual_ack(ack).is_ok()
            }
            Sender::V5(client) => {
                use rumqttc_v5::{ManualAck, PubAck, PubRec};
                let ack = match qos {
                    1 => ManualAck::PubAck(PubAck::new(packet, None)),
                    _ => ManualAck::PubRec(PubRec::new(packet, None)),
                };
                client.try_manual_ack(ack).is_ok()
            }
        }
    }

    /// Queues a message; false when the queue is full.
    pub(super) fn try_publish(&self, topic: &str, payload: Vec<u8>, qos: Qos, retain: bool) -> bool {
        match self {
            Sender::V311(client) => {
                let options = rumqttc_v4::PublishOptions::new(qos_311(qos)).retain(retain);
                client.try_publish(topic, payload, options).is_ok()
            }
            Sender::V5(client) => {
                let options = rumqttc_v5::PublishOptions::new(qos_5(qos)).retain(retain);
                client.try_publish(topic, payload, options).is_ok()
            }
        }
    }

    /// Subscribes. Under MQTT 5 a subscription that the broker has kept brings its retained messages no second time.
    pub(super) fn subscribe(&self, subscription: &Subscription) -> anyhow::Result<()> {
        let filters = subscription.filters.iter();
        match self {
            Sender::V311(client) => {
                let qos = qos_311(subscription.qos);
                client
                    .try_subscribe_many(filters.map(|filter| rumqttc_v4::SubscribeFilter::new(filter.clone(), qos)))?;
            }
            Sender::V5(client) => {
                let qos = qos_5(subscription.qos);
                client.try_subscribe_many(filters.map(|filter| {
                    let mut filter = rumqttc_v5::SubscribeFilter::new(filter.clone(), qos);
                    filter.retain_forward_rule = rumqttc_v5::RetainForwardRule::OnNewSubscribe;
                    filter
                }))?;
            }
        }
        Ok(())
    }

    /// Asks for an orderly end; `forget` tells the broker to keep nothing.
    pub(super) fn disconnect(&self, forget: bool) {
        let _ = match self {
            Sender::V311(client) => client.try_disconnect_with_timeout(GOODBYE).is_ok(),
            Sender::V5(client) if forget => {
                let properties = rumqttc_v5::DisconnectProperties {
                    session_expiry_interval: Some(0),
                    reason_string: None,
                    user_properties: Vec::new(),
                    server_reference: None,
                };
                let reason = rumqttc_v5::DisconnectReasonCode::NormalDisconnection;
                client
                    .try_disconnect_with_properties_timeout(reason, properties, GOODBYE)
                    .is_ok()
            }
            Sender::V5(client) => client.try_disconnect_with_timeout(GOODBYE).is_ok(),
        };
    }
}

fn qos_311(qos: Qos) -> rumqttc_v4::QoS {
    [
        rumqttc_v4::QoS::AtMostOnce,
        rumqttc_v4::QoS::AtLeastOnce,
        rumqttc_v4::QoS::ExactlyOnce,
    ][usize::from(qos.min(2))]
}

fn qos_5(qos: Qos) -> rumqttc_v5::QoS {
    [
        rumqttc_v5::QoS::AtMostOnce,
        rumqttc_v5::QoS::AtLeastOnce,
        rumqttc_v5::QoS::ExactlyOnce,
    ][usize::from(qos.min(2))]
}

/// What the two protocol versions tell us, in one form.
pub(super) enum Event {
    Connected {
        session_present: bool,
        limits: Limits,
    },
    Publish {
        topic: bytes::Bytes,
        payload: bytes::Bytes,
        ack: Option<Ack>,
        /// The broker has given it before, to us or to nobody.
        again: bool,
    },
    /// An acknowledgement of ours is on the wire.
    Acknowledged,
    SubscriptionRefused(String),
    /// The broker gives what was subscribed to with this quality of service.
    Subscribed(Qos),
    Other,
}

pub(super) enum Fault {
    /// The broker answered, and said no.
    Refused { sign_in: bool, reason: String },
    /// The two ends don't trust each other.
    Distrust(String),
    /// The connection is lost or was never made.
    Lost(String),
    /// An orderly end.
    Done,
}

impl Fault {
    fn of(error: &(dyn Error + 'static)) -> Self {
        if let Some(reason) = distrust::reason(error) {
            return Fault::Distrust(reason);
        }
        // The innermost cause says what happened; what wraps it says only where.
        let mut cause = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        Fault::Lost(cause.to_string())
    }
}

impl Link {
    /// From the next connection on, trusts and shows these certificates. None: no TLS.
    pub(super) fn trust(&mut self, tls: Option<Arc<ClientConfig>>) {
        let Some(tls) = tls else { return };
        match self {
            Link::V311(link) => {
                let tls = rumqttc_v4::TlsConfiguration::Rustls(tls);
                link.mqtt_options.set_transport(rumqttc_v4::Transport::Tls(tls));
            }
            Link::V5(link) => {
                let tls = rumqttc_v5::TlsConfiguration::Rustls(tls);
                link.options.set_transport(rumqttc_v5::Transport::Tls(tls));
            }
        }
    }

    /// From the next connection on, the broker publishes this when it loses us.
    pub(super) fn leave_behind(&mut self, topic: &str, payload: Vec<u8>) {
        match self {
            Link::V311(link) => {
                let will = rumqttc_v4::LastWill::new(topic, payload, rumqttc_v4::QoS::AtLeastOnce, true);
                link.mqtt_options.set_last_will(will);
            }
            Link::V5(link) => {
                let will = rumqttc_v5::LastWill::new(topic, payload, rumqttc_v5::QoS::AtLeastOnce, true, None);
                link.options.set_last_will(will);
            }
        }
    }

    /// The client has taken up its session, from now on in memory.
    pub(super) fn connected(&mut self) {
        if let Link::V5(link) = self {
            link.options.clear_session_store();
        }
    }

    pub(super) async fn poll(&mut self) -> Result<Event, Fault> {
        match self {
            Link::V311(link) => poll_311(link).await,
            Link::V5(link) => poll_5(link).await,
        }
    }
}

async fn poll_311(link: &mut rumqttc_v4::EventLoop) -> Result<Event, Fault> {
    use rumqttc_v4::{ConnectReturnCode, ConnectionError, Event as Incoming, Outgoing, Packet, SubscribeReasonCode};
    match link.poll().await {
        Ok(Incoming::Incoming(Packet::ConnAck(ack))) => Ok(Event::Connected {
            session_present: ack.session_present,
            limits: Limits::default(), // a broker with lower ones does not say so under MQTT 3.1.1
        }),
        Ok(Incoming::Incoming(Packet::Publish(publish))) => Ok(Event::Publish {
            ack: Ack::of(publish.qos as Qos, publish.pkid),
            topic: publish.topic,
            payload: publish.payload,
            again: publish.dup,
        }),
        Ok(Incoming::Outgoing(Outgoing::PubAck(_) | Outgoing::PubRec(_))) => Ok(Event::Acknowledged),
        Ok(Incoming::Incoming(Packet::SubAck(ack))) => {
            let granted = ack.return_codes.iter().map(|code| match code {
                SubscribeReasonCode::Success(qos) => Ok(*qos as Qos),
                SubscribeReasonCode::Failure => Err("refused".to_owned()),
            });
            Ok(subscribed(granted))
        }
        Ok(_) => Ok(Event::Other),
        Err(ConnectionError::ConnectionRefused(code)) => {
            let sign_in = matches!(
                code,
                ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized
            );
            Err(Fault::Refused {
                sign_in,
                reason: words(&format!("{code:?}")),
            })
        }
        Err(ConnectionError::RequestsDone | ConnectionError::DisconnectTimeout) => Err(Fault::Done),
        Err(error) => Err(Fault::of(&error)),
    }
}

async fn poll_5(link: &mut rumqttc_v5::EventLoop) -> Result<Event, Fault> {
    use rumqttc_v5::{ConnectReturnCode, ConnectionError, Event as Incoming, Outgoing, Packet, SubscribeReasonCode};
    match link.poll().await {
        Ok(Incoming::Incoming(Packet::ConnAck(ack))) => {
            let mut limits = Limits::default();
            if let Some(told) = &ack.properties {
                limits.packet_bytes = told.max_packet_size.unwrap_or(PACKET_LIMIT).min(PACKET_LIMIT) as usize;
                limits.qos = told.max_qos.unwrap_or(limits.qos);
            }
            Ok(Event::Connected {
                session_present: ack.session_present,
                limits,
            })
        }
        Ok(Incoming::Incoming(Packet::Publish(publish))) => Ok(Event::Publish {
            ack: Ack::of(publish.qos as Qos, publish.pkid),
            topic: publish.topic,
            payload: publish.payload,
            again: publish.dup,
        }),
        Ok(Incoming::Outgoing(Outgoing::PubAck(_) | Outgoing::PubRec(_))) => Ok(Event::Acknowledged),
        Ok(Incoming::Incoming(Packet::SubAck(ack))) => {
            let granted = ack.return_codes.iter().map(|code| match code {
                SubscribeReasonCode::Success(qos) => Ok(*qos as Qos),
                code => Err(words(&format!("{code:?}"))),
            });
            Ok(subscribed(granted))
        }
        Ok(_) => Ok(Event::Other),
        Err(ConnectionError::ConnectionRefused(code)) => {
            let sign_in = matches!(
                code,
                ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized
            );
            Err(Fault::Refused {
                sign_in,
                reason: words(&format!("{code:?}")),
            })
        }
        Err(ConnectionError::RequestsDone | ConnectionError::DisconnectTimeout) => Err(Fault::Done),
        Err(error) => Err(Fault::of(&error)),
    }
}

/// What became of a subscription to several filters.
fn subscribed(granted: impl Iterator<Item = Result<Qos, String>>) -> Event {
    let granted: Result<Vec<Qos>, String> = granted.collect();
    match granted {
        Ok(granted) => granted.into_iter().min().map_or(Event::Other, Event::Subscribed),
        Err(reason) => Event::SubscriptionRefused(reason),
    }
}

/// `NotAuthorized` → `not authorized`.
fn words(camel: &str) -> String {
    let mut out = String::new();
    for c in camel.chars() {
        if c.is_uppercase() && !out.is_empty() {
            out.push(' ');
        }
        out.extend(c.to_lowercase());
    }
    out
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::endpoint::SignIn;
    use super::*;

    #[test]
    fn a_subscriber_may_be_held_up() {
        for version in [Version::V311, Version::V5] {
            let sign_in = SignIn {
                version,
                ..SignIn::default()
            };
            let endpoint = Endpoint::new("mqtt://broker", sign_in).unwrap();
            let subscription = Subscription {
                filters: vec!["a".into()],
                qos: 1,
                kept_secs: Some(60),
                receive_maximum: 10,
            };
            for (subscription, expect) in [(Some(&subscription), 600), (None, 60)] {
                let keep_alive = match connect(&endpoint, subscription, &Socket::default()).unwrap().1 {
                    Link::V311(link) => link.mqtt_options.keep_alive(),
                    Link::V5(link) => link.options.keep_alive(),
                };
                assert_eq!(keep_alive.as_secs(), expect, "{version:?}");
            }
        }
    }

    #[test]
    fn the_innermost_cause_is_told() {
        let error = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "connection refused");
        match Fault::of(&rumqttc_v5::ConnectionError::Io(error)) {
            Fault::Lost(reason) => assert_eq!(reason, "connection refused"),
            _ => panic!(),
        }
    }
}
