//! The `mqtt` sink: each row as a JSON object on a topic made from its columns.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use arrow::array::RecordBatch;
use futures::executor::block_on;
use schemars::JsonSchema;
use serde::Deserialize;
use taktline_engine::config::{Problem, Section};
use taktline_engine::kind::{Input, SinkKind};
use taktline_engine::state::Staged;
use taktline_engine::{Opening, Published, Sink, SinkPlan};

use super::client::Connection;
use super::endpoint::{Endpoint, SignIn, Version};
use super::link::{Qos, Receipt, Undelivered};
use crate::cells::{Cells, RowTemplate, flat, flattened, showable};
use crate::codec::json;
use crate::tls::TlsConfig;

/// The `mqtt` sink.
pub const KIND: SinkKind = SinkKind {
    name: "mqtt",
    summary: "publishes each row as a JSON object to an MQTT broker",
    schema: || schemars::schema_for!(MqttSinkConfig),
    takes_refused: false,
    build,
};

/// Publishes rows to an MQTT broker.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MqttSinkConfig {
    /// Address of the broker: `mqtt://host:1883`, or `mqtts://host:8883` with TLS
    pub url: String,
    /// Topic, with columns in braces: `alerts/{machine}`
    pub topic: String,
    /// Version of the protocol. Default 5
    #[serde(default)]
    pub version: Version,
    /// Client id; one that no other client uses. Default: random
    pub client_id: Option<String>,
    /// User to sign in as
    pub user: Option<String>,
    /// Password of the user, or a token: `{env: NAME}` or `{file: /run/secrets/x}`
    pub password: Option<String>,
    /// Certificates for an `mqtts` address. Default: those that the system trusts
    pub tls: Option<TlsConfig>,
    /// Delivery: 0 at most once, 1 at least once, 2 exactly once as long as the connection holds. Default 1
    #[serde(default = "default_qos")]
    #[schemars(range(min = 0, max = 2))]
    pub qos: u8,
    /// True if the broker should keep the last message of each topic for new subscribers. Default false
    #[serde(default)]
    pub retain: bool,
}

fn default_qos() -> u8 {
    1
}

fn build(section: &Section, inputs: &[Input]) -> Result<Box<dyn SinkPlan>, Vec<Problem>> {
    let config: MqttSinkConfig = section.parse()?;
    let mut problems = Vec::new();
    if config.qos > 2 {
        problems.push(Problem::at("qos", "must be 0, 1 or 2"));
    }
    if config.topic.is_empty() || config.topic.contains(['+', '#', '\0']) {
        let hint = "write levels and columns: alerts/{machine}";
        problems.push(Problem::at("topic", "a topic to publish to has no wildcards and isn't empty").hint(hint));
    }
    let sign_in = SignIn {
        version: config.version,
        client_id: config.client_id,
        user: config.user,
        password: config.password,
        tls: config.tls,
    };
    let endpoint = Endpoint::new(&config.url, sign_in).map_err(|found| problems.extend(found));
    let mut topics = Vec::new();
    for input in inputs {
        match RowTemplate::parse("topic", &config.topic, input) {
            Ok(topic) => topics.push((topic, flat(input).cloned())),
            Err(problem) => problems.push(problem),
        }
    }
    match endpoint {
        Ok(endpoint) if problems.is_empty() => {
            let plan = MqttSinkPlan {
                name: section.name.clone(),
                endpoint,
                topics,
                qos: config.qos,
                retain: config.retain,
            };
            Ok(Box::new(plan))
        }
        _ => Err(problems),
    }
}

struct MqttSinkPlan {
    name: String,
    endpoint: Endpoint,
    topics: Vec<(RowTemplate, Option<Published>)>,
    qos: Qos,
    retain: bool,
}

impl SinkPlan for MqttSinkPlan {
    fn open(&self, _: &Opening) -> anyhow::Result<Box<dyn Sink>> {
        let outbox = Outbox::start(&self.name, &self.endpoint, self.qos, self.retain)?;
        Ok(Box::new(MqttSink {
            topics: self.topics.clone(),
            outbox,
            json: Vec::new(),
        }))
    }
}

struct MqttSink {
    /// One for each input, and how its rows are sent.
    topics: Vec<(RowTemplate, Option<Published>)>,
    outbox: Outbox,
    json: Vec<u8>,
}

impl Sink for MqttSink {
    fn write(&mut self, input: usize, batch: &RecordBatch) -> anyhow::Result<()> {
        let (template, flat) = self
            .topics
            .get(input)
            .ok_or_else(|| anyhow::anyhow!("there is no input {input}"))?;
        let batch = &*flattened(flat.as_ref(), batch)?;
        self.json.clear();
        json::write_rows(batch, &mut self.json)?;
        let shown = showable(batch)?;
        let cells = Cells::of(&shown);
        // The writer escapes line breaks in texts, so that each line is a row.
        for (row, payload) in self
            .json
            .split(|byte| *byte == b'\n')
            .take(batch.num_rows())
            .enumerate()
        {
            let topic = template.render_with(&cells, row, level);
            self.outbox.send(&topic, payload)?;
        }
        Ok(())
    }

    fn stage(&mut self, _: u64) -> anyhow::Result<Staged> {
        self.outbox.flush()?;
        Ok(Staged(serde_json::Value::Null))
    }
}

/// A value as one level of a topic: what has a meaning in topics becomes `_`.
fn level(value: &str) -> String {
    if value.is_empty() {
        "_".into()
    } else {
        value.replace(['/', '+', '#', '\0'], "_")
    }
}

/// The most bytes that a packet has beside topic and payload.
const AROUND: usize = 16;
/// Messages that the broker hasn't acknowledged yet.
const IN_FLIGHT: usize = 1024;

/// Sends messages in order, keeps each until the broker has it, and sends it again where a connection was lost before.
pub(crate) struct Outbox {
    name: String,
    connection: Connection,
    qos: Qos,
    retain: bool,
    in_flight: VecDeque<(String, Vec<u8>, Receipt)>,
}

impl Outbox {
    pub(crate) fn start(name: &str, endpoint: &Endpoint, qos: Qos, retain: bool) -> anyhow::Result<Self> {
        let connection = Connection::start(name, endpoint, None, None, |_| ControlFlow::Continue(()))?;
        Ok(Outbox {
            name: name.to_owned(),
            connection,
            qos,
            retain,
            in_flight: VecDeque::new(),
        })
    }

    /// Sends a message; blocks while too many are on their way.
    ///
    /// One that is larger than the broker takes is left out, and said: sending it would end the connection, each time again.
    pub(crate) fn send(&mut self, topic: &str, payload: &[u8]) -> anyhow::Result<()> {
        let limits = block_on(self.connection.limits())?;
        anyhow::ensure!(
            self.qos <= limits.qos,
            "the broker takes no message of QoS {}; write qos: {}",
            self.qos,
            limits.qos
        );
        let (bytes, largest) = (topic.len() + payload.len() + AROUND, limits.packet_bytes);
        if bytes > largest {
            tracing::error!(
                "{}: a row for `{topic}` was not sent: it has {bytes} bytes, and the broker takes {largest}; raise its limit (Mosquitto: \
                 `max_packet_size`)",
                self.name
            );
            return Ok(());
        }
        while self.in_flight.len() >= IN_FLIGHT {
            block_on(self.settle_first())?;
        }
        let receipt = block_on(self.connection.publish(topic, payload, self.qos, self.retain))?;
        self.in_flight.push_back((topic.to_owned(), payload.to_vec(), receipt));
        Ok(())
    }

    /// Blocks until the broker has acknowledged everything.
    pub(crate) fn flush(&mut self) -> anyhow::Result<()> {
        while !self.in_flight.is_empty() {
            block_on(self.settle_first())?;
        }
        Ok(())
    }

    async fn settle_first(&mut self) -> anyhow::Result<()> {
        let Some((topic, payload, receipt)) = self.in_flight.pop_front() else {
            return Ok(());
        };
        match receipt.wait().await {
            Ok(()) => Ok(()),
            Err(Undelivered::Refused(reason)) => {
                anyhow::bail!(
                    "the broker refused a message to `{topic}`: {reason}; check `topic` and the rights of `user`"
                )
            }
            Err(Undelivered::Again) => {
                anyhow::ensure!(self.connection.is_running(), "the MQTT connection's thread has ended");
                let receipt = self.connection.publish(&topic, &payload, self.qos, self.retain).await?;
                self.in_flight.push_back((topic, payload, receipt));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn settings() {
        let input = Input {
            name: "plc".into(),
            table: taktline_engine::table::samples(),
            extends: Vec::new(),
        };
        let check = |yaml: &str, expect: &[&str]| {
            let section = Section::from_yaml("ops", yaml);
            let problems = build(&section, std::slice::from_ref(&input)).err().unwrap_or_default();
            let paths: Vec<String> = problems.iter().map(|problem| problem.path.join(".")).collect();
            assert_eq!(paths, expect, "{yaml}");
        };
        check("{url: 'mqtt://b', topic: 'a/{machine}/{signal}'}", &[]);
        check("{url: 'mqtt://b', topic: 'a/{machin}'}", &["topic"]);
        check("{url: 'mqtt://b', topic: 'a/{machine'}", &["topic"]);
        check("{url: 'mqtt://b', topic: 'a/+'}", &["topic"]);
        check("{url: 'mqtt://b', topic: '', qos: 3}", &["qos", "topic"]);
        check("{url: 'b', topic: 'a'}", &["url"]);
        check("{url: 'mqtts://b', topic: 'a', tls: {ca: ca.pem}}", &[]);
        check(
            "{url: 'mqtt://b', topic: 'a', tls: {certificate: c.pem}}",
            &["tls.certificate", "tls"],
        );
    }

    #[test]
    fn levels() {
        assert_eq!(level("press-1"), "press-1");
        assert_eq!(level("a/b+c#"), "a_b_c_");
        assert_eq!(level(""), "_");
    }
}
