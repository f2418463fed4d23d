//! Where messages come from: a Mosquitto, whose messages can't be read twice; a Kafka, whose can; senders that push over HTTP.

use std::path::Path;

use crate::broker::{Broker, Publisher};
use crate::kafka::Kafka;
use crate::pushing::Pusher;

/// Where messages come from.
pub enum Line {
    Mqtt(Broker),
    Kafka(Kafka),
    /// The port that the pipeline listens at.
    Http(u16),
}

/// A client that publishes for one machine.
pub trait Producer: Send {
    /// Sends a message, or keeps it until [`Producer::flush`].
    ///
    /// # Errors
    /// The connection is lost.
    fn publish(&mut self, payload: &[u8]) -> anyhow::Result<()>;

    /// Waits until everything is acknowledged.
    ///
    /// # Errors
    /// It isn't.
    fn flush(&mut self) -> anyhow::Result<()>;
}

impl Line {
    /// A Mosquitto, with its files in `work`.
    ///
    /// # Errors
    /// It can't be started.
    pub fn mqtt(work: &Path) -> anyhow::Result<Self> {
        Ok(Line::Mqtt(Broker::start(work)?))
    }

    /// A Kafka with empty topics.
    ///
    /// # Errors
    /// It can't be started.
    pub fn kafka() -> anyhow::Result<Self> {
        Ok(Line::Kafka(Kafka::start()?))
    }

    /// A port for the pipeline to listen at.
    ///
    /// # Errors
    /// There is none.
    pub fn http() -> anyhow::Result<Self> {
        Ok(Line::Http(crate::broker::free_port()?))
    }

    /// The name of the source, and of the signal that its messages carry.
    pub fn name(&self) -> &'static str {
        match self {
            Line::Mqtt(_) => "mqtt",
            Line::Kafka(_) => "kafka",
            Line::Http(_) => "http",
        }
    }

    /// The section of the source.
    pub fn source(&self, seed: u64) -> String {
        let decode = "decode: {format: json, time: /ts, unit: us, value: /value, text: /text}";
        match self {
            Line::Mqtt(broker) => format!(
                "kind: mqtt, url: \"mqtt://127.0.0.1:{}\", topic: \"torture/{{machine}}/{{signal}}\", client_id: torture-{seed}, {decode}",
                broker.port
            ),
            Line::Kafka(kafka) => format!("{}, signal: kafka, {decode}", kafka.source()),
            Line::Http(port) => format!("kind: http, listen: \"127.0.0.1:{port}\", unit: us"),
        }
    }

    /// A client that publishes for one machine.
    ///
    /// # Errors
    /// The broker is away.
    pub fn producer(&self, machine: &str) -> anyhow::Result<Box<dyn Producer>> {
        Ok(match self {
            Line::Mqtt(broker) => Box::new(OnTopic {
                publisher: Publisher::connect(broker.port, machine)?,
                topic: format!("torture/{machine}/mqtt"),
            }),
            Line::Kafka(kafka) => Box::new(kafka.producer(machine)?),
            Line::Http(port) => Box::new(Pusher::to(*port, machine)),
        })
    }
}

struct OnTopic {
    publisher: Publisher,
    topic: String,
}

impl Producer for OnTopic {
    fn publish(&mut self, payload: &[u8]) -> anyhow::Result<()> {
        self.publisher.publish(&self.topic, payload)
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.publisher.flush()
    }
}
