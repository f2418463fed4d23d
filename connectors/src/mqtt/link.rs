//! The client crates for the two versions of the protocol, in one form.

use std::time::Duration;

use super::endpoint::{Endpoint, Version};

/// The largest packet taken. Under MQTT 5 the broker is told; under 3.1.1 it can't be, so that all must be taken.
const PACKET_LIMIT: u32 = 16 << 20;
const PACKET_LIMIT_311: usize = 256 << 20;
/// How long a broker keeps what it couldn't deliver (MQTT 5).
const SESSION_EXPIRY_SECS: u32 = 3600;
/// How long an orderly goodbye may take.
pub(super) const GOODBYE: Duration = Duration::from_millis(500);

/// A delivery guarantee: 0 at most once, 1 at least once, 2 exactly once.
pub(crate) type Qos = u8;

/// Seconds of silence after which the broker is asked for a sign of life. After one and a half times as long without one
/// from us the broker drops us.
const KEEP_ALIVE_SECS: u16 = 60;
/// The same for a subscriber, which sends nothing while its queue is full: slow sinks may hold it up for 15 minutes. The
/// price is that a broker that vanishes without a word is missed only after as long.
const SUBSCRIBER_KEEP_ALIVE_SECS: u16 = 600;

/// A topic filter to keep subscribed.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) filter: String,
    pub(crate) qos: Qos,
}

/// What a broker waits for after it gave us a message: until then it keeps the message for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ack {
    qos: Qos,
    packet: u16,
}

impl Ack {
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
/// Messages that a broker may give us before we acknowledge the first (MQTT 5). Enough for a million messages a second
/// that are durable after some milliseconds; under 3.1.1 it is for the broker to say (`max_inflight_messages`).
const RECEIVE_MAXIMUM: u16 = 16_384;

pub(super) fn connect(endpoint: &Endpoint, subscription: Option<&Subscription>) -> (Sender, Link) {
    let id = endpoint
        .client_id
        .clone()
        .unwrap_or_else(|| format!("taktline{}", &uuid::Uuid::new_v4().simple().to_string()[..14]));
    // The broker should keep messages while we are away, where it is told how long or for whom.
    let keep_alive = subscription.map_or(KEEP_ALIVE_SECS, |_| SUBSCRIBER_KEEP_ALIVE_SECS);
    let lossless = subscription.is_some_and(|subscription| subscription.qos > 0);
    let address = (endpoint.host.clone(), endpoint.port);
    // No delay for subscribers, whose small acknowledgements must not wait; publishers gain from larger packets.
    match endpoint.version {
        Version::V311 => {
            let mut options = rumqttc_v4::MqttOptions::new(id, address);
            options.set_max_packet_size(PACKET_LIMIT_311, PACKET_LIMIT_311);
            options.set_clean_session(!lossless || endpoint.client_id.is_none());
            options.set_keep_alive(keep_alive);
            options.set_inflight(IN_FLIGHT);
            options.set_ack_mode(rumqttc_v4::AckMode::Manual);
            if let Some(user) = &endpoint.user {
                match &endpoint.password {
                    Some(password) => options.set_credentials(user.as_str(), password.clone()),
                    None => options.set_username(user.as_str()),
                };
            }
            let (client, mut link) = rumqttc_v4::AsyncClient::builder(options).capacity(SEND_QUEUE).build();
            link.network_options.set_tcp_nodelay(subscription.is_some());
            (Sender::V311(client), Link::V311(Box::new(link)))
        }
        Version::V5 => {
            let mut options = rumqttc_v5::MqttOptions::new(id, address);
            options.set_max_packet_size(Some(PACKET_LIMIT));
            options.set_clean_start(!lossless);
            options.set_broker_session_resume_policy(rumqttc_v5::BrokerSessionResumePolicy::AllowBrokerOnly);
            options.set_session_expiry_interval(lossless.then_some(SESSION_EXPIRY_SECS));
            options.set_keep_alive(keep_alive);
            options.set_outgoing_inflight_upper_limit(IN_FLIGHT);
            options.set_ack_mode(rumqttc_v5::AckMode::Manual);
            options.set_receive_maximum(Some(RECEIVE_MAXIMUM));
            let mut network = options.network_options();
            network.set_tcp_nodelay(subscription.is_some());
            options.set_network_options(network);
            if let Some(user) = &endpoint.user {
                match &endpoint.password {
                    Some(password) => options.set_credentials(user.as_str(), password.clone()),
                    None => options.set_username(user.as_str()),
                };
            }
            let (client, link) = rumqttc_v5::AsyncClient::builder(options).capacity(SEND_QUEUE).build();
            (Sender::V5(client), Link::V5(Box::new(link)))
        }
    }
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

    pub(super) fn subscribe(&self, subscription: &Subscription) -> anyhow::Result<()> {
        match self {
            Sender::V311(client) => client.try_subscribe(subscription.filter.as_str(), qos_311(subscription.qos))?,
            Sender::V5(client) => client.try_subscribe(subscription.filter.as_str(), qos_5(subscription.qos))?,
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
    },
    Publish {
        topic: bytes::Bytes,
        payload: bytes::Bytes,
        ack: Option<Ack>,
    },
    /// An acknowledgement of ours is on the wire.
    Acknowledged,
    SubscriptionRefused(String),
    Other,
}

pub(super) enum Fault {
    /// The broker answered, and said no.
    Refused { sign_in: bool, reason: String },
    /// The connection is lost or was never made.
    Lost(String),
    /// An orderly end.
    Done,
}

impl Link {
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
        }),
        Ok(Incoming::Incoming(Packet::Publish(publish))) => Ok(Event::Publish {
            ack: Ack::of(publish.qos as Qos, publish.pkid),
            topic: publish.topic,
            payload: publish.payload,
        }),
        Ok(Incoming::Outgoing(Outgoing::PubAck(_) | Outgoing::PubRec(_))) => Ok(Event::Acknowledged),
        Ok(Incoming::Incoming(Packet::SubAck(ack))) if ack.return_codes.contains(&SubscribeReasonCode::Failure) => {
            Ok(Event::SubscriptionRefused("refused".into()))
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
        Err(ConnectionError::Io(error)) => Err(Fault::Lost(error.to_string())),
        Err(error) => Err(Fault::Lost(error.to_string())),
    }
}

async fn poll_5(link: &mut rumqttc_v5::EventLoop) -> Result<Event, Fault> {
    use rumqttc_v5::{ConnectReturnCode, ConnectionError, Event as Incoming, Outgoing, Packet, SubscribeReasonCode};
    match link.poll().await {
        Ok(Incoming::Incoming(Packet::ConnAck(ack))) => Ok(Event::Connected {
            session_present: ack.session_present,
        }),
        Ok(Incoming::Incoming(Packet::Publish(publish))) => Ok(Event::Publish {
            ack: Ack::of(publish.qos as Qos, publish.pkid),
            topic: publish.topic,
            payload: publish.payload,
        }),
        Ok(Incoming::Outgoing(Outgoing::PubAck(_) | Outgoing::PubRec(_))) => Ok(Event::Acknowledged),
        Ok(Incoming::Incoming(Packet::SubAck(ack))) => {
            let refused = ack
                .return_codes
                .iter()
                .find(|code| !matches!(code, SubscribeReasonCode::Success(_)));
            Ok(refused.map_or(Event::Other, |code| {
                Event::SubscriptionRefused(words(&format!("{code:?}")))
            }))
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
        Err(ConnectionError::Io(error)) => Err(Fault::Lost(error.to_string())),
        Err(error) => Err(Fault::Lost(error.to_string())),
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
    use super::*;

    #[test]
    fn a_subscriber_may_be_held_up() {
        for version in [Version::V311, Version::V5] {
            let endpoint = Endpoint::new("mqtt://broker", version).unwrap();
            let subscription = Subscription {
                filter: "a".into(),
                qos: 1,
            };
            for (subscription, expect) in [(Some(&subscription), 600), (None, 60)] {
                let keep_alive = match connect(&endpoint, subscription).1 {
                    Link::V311(link) => link.mqtt_options.keep_alive(),
                    Link::V5(link) => link.options.keep_alive(),
                };
                assert_eq!(keep_alive.as_secs(), expect, "{version:?}");
            }
        }
    }
}
