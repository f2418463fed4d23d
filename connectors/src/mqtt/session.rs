//! A session that a broker has kept, from the client's side.

use std::pin::Pin;

use rumqttc_v5::{
    AckMode, MqttOptions, PersistedAckMode, PersistedSession, SessionStore, SessionStoreError, SessionStoreKey,
};

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, SessionStoreError>> + Send + 'a>>;

/// Tells the client that a kept session has nothing of its own in it. Without a word about it, the client would take the broker's
/// messages but neither subscribe nor publish (QoS 1) in a session that another process began. What the broker gave that
/// process and has no answer to, it gives again; that is all that such a session holds.
#[derive(Debug)]
pub(super) struct Unwritten {
    session_expiry_interval: Option<u32>,
    outgoing_inflight_upper_limit: Option<u16>,
    ack_mode: PersistedAckMode,
}

impl Unwritten {
    /// The store hands out what these options would have written.
    pub(super) fn of(options: &MqttOptions) -> Self {
        Unwritten {
            session_expiry_interval: options.session_expiry_interval(),
            outgoing_inflight_upper_limit: options.get_outgoing_inflight_upper_limit(),
            ack_mode: match options.ack_mode() {
                AckMode::Automatic => PersistedAckMode::Automatic,
                AckMode::Manual => PersistedAckMode::Manual,
            },
        }
    }
}

impl SessionStore for Unwritten {
    fn load<'a>(&'a self, key: &'a SessionStoreKey) -> Answer<'a, Option<PersistedSession>> {
        let session = PersistedSession {
            format_version: 1,
            client_id: key.client_id().to_owned(),
            clean_start: false,
            session_expiry_interval: self.session_expiry_interval,
            outgoing_inflight_upper_limit: self.outgoing_inflight_upper_limit,
            ack_mode: self.ack_mode,
            last_pkid: 0,
            last_puback: 0,
            replay: Vec::new(),
            incoming_qos2: Vec::new(),
        };
        Box::pin(async move { Ok(Some(session)) })
    }

    fn save<'a>(&'a self, _: &'a SessionStoreKey, _: &'a PersistedSession) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    fn clear<'a>(&'a self, _: &'a SessionStoreKey) -> Answer<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}
