//! The `kafka` sink: each row once, in transactions.
//!
//! Rows of a checkpoint wait in an outbox on disk until the checkpoint is real. Then they are sent in a transaction that also carries a
//! record of how far the sink is. After a crash that record tells what is published and what is not.

use std::path::PathBuf;

use anyhow::Context;
use arrow::array::RecordBatch;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use taktline_engine::config::{Problem, Section};
use taktline_engine::kind::{Input, SinkKind};
use taktline_engine::state::Staged;
use taktline_engine::{Opening, Published, Sink, SinkPlan};

use super::connect::{Brokers, Mechanism};
use super::courier::{Courier, Post, Sending};
use super::outbox::{self, Letter, Lot, Outbox};
use super::topics::{TOPIC_LIMIT, is_topic};
use crate::cells::{Cells, RowTemplate, flat, flat_schema, flattened, showable};
use crate::codec::encode::{EncodeConfig, Encoder};
use crate::durable;
use crate::tls::TlsConfig;

/// The `kafka` sink.
pub const KIND: SinkKind = SinkKind {
    name: "kafka",
    summary: "sends each row to a topic of Kafka, exactly once",
    schema: || schemars::schema_for!(KafkaSinkConfig),
    takes_refused: false,
    build,
};

/// Sends rows to Kafka. A reader that asks for `read_committed` sees every row once, also after crashes: the rows of a checkpoint are
/// sent together with a record of the progress in one transaction. A checkpoint of more than 16 MiB is sent in several, one after
/// another. Kafka takes nothing back: after a start `--from` an older savepoint, rows that later checkpoints had sent are sent again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KafkaSinkConfig {
    /// Addresses of some of the brokers: `kafka:9092`, or `a:9092,b:9092`
    pub brokers: String,
    /// Topic, with columns in braces: `alerts`, or `alerts-{machine}`. What a topic's name can't have becomes `_`
    pub topic: String,
    /// Key of a message, with columns in braces: rows of one key stay in order. Default `{machine}`, where there is that column
    pub key: Option<String>,
    /// How to write a payload. Default: a JSON object of the columns
    #[serde(default)]
    pub encode: EncodeConfig,
    /// `exactly_once`: rows are seen when their checkpoint is real. `at_least_once`: they are sent at once, and those since the last
    /// checkpoint again after a crash. Without a data directory it is always that. Default exactly_once
    #[serde(default)]
    pub delivery: Delivery,
    /// Topic that remembers what was published. It is made when it isn't there; it must be compacted. Default `taktline-progress`
    #[serde(default = "progress_topic")]
    pub progress_topic: String,
    /// How messages are compressed. Default lz4
    #[serde(default)]
    pub compression: Compression,
    /// User to sign in as, with SASL. With transactions it needs the right to the transactional ids that begin with `taktline-`
    pub user: Option<String>,
    /// Password of the user: `{env: NAME}` or `{file: /run/secrets/x}`
    pub password: Option<String>,
    /// How to sign in: `plain`, `scram-sha-256` or `scram-sha-512`. Default plain
    pub mechanism: Option<Mechanism>,
    /// How the connection is secured; `tls: {}` trusts whom the system trusts. Default: not at all
    pub tls: Option<TlsConfig>,
}

fn progress_topic() -> String {
    "taktline-progress".into()
}

/// How often a row may be sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delivery {
    /// Once, when its checkpoint is real
    #[default]
    ExactlyOnce,
    /// At once, and again after a crash
    AtLeastOnce,
}

/// How messages are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// Not at all
    None,
    /// gzip
    Gzip,
    /// Snappy
    Snappy,
    /// LZ4
    #[default]
    Lz4,
    /// Zstandard
    Zstd,
}

impl Compression {
    fn name(self) -> &'static str {
        match self {
            Compression::None => "none",
            Compression::Gzip => "gzip",
            Compression::Snappy => "snappy",
            Compression::Lz4 => "lz4",
            Compression::Zstd => "zstd",
        }
    }
}

fn build(section: &Section, inputs: &[Input]) -> Result<Box<dyn SinkPlan>, Vec<Problem>> {
    let config: KafkaSinkConfig = section.parse()?;
    let mut problems = Vec::new();
    let sign_in = (config.user, config.password);
    let brokers =
        Brokers::new(&config.brokers, sign_in, config.mechanism, config.tls).map_err(|found| problems.extend(found));
    let without_columns = config.topic.split(['{', '}']).step_by(2).collect::<String>();
    if config.topic.is_empty() || !without_columns.is_empty() && !is_topic(&without_columns) {
        let message = format!("`{}` is no name of a topic", config.topic);
        problems.push(
            Problem::at("topic", message).hint("write letters, digits, `.`, `_`, `-` and columns: alerts-{machine}"),
        );
    }
    if !is_topic(&config.progress_topic) {
        let message = format!("`{}` is no name of a topic", config.progress_topic);
        problems.push(Problem::at("progress_topic", message));
    }
    problems.extend(config.encode.problems("encode"));
    let mut addresses = Vec::new();
    for input in inputs {
        let mut template = |setting: &str, text: &str| {
            RowTemplate::parse(setting, text, input)
                .map_err(|problem| problems.push(problem))
                .ok()
        };
        let topic = template("topic", &config.topic);
        let by_machine = flat_schema(input).column_with_name("machine").map(|_| "{machine}");
        let key = config.key.as_deref().or(by_machine).map(|text| template("key", text));
        if let Some(topic) = topic {
            addresses.push(Addressing {
                topic,
                key: key.flatten(),
                table: input.table.name,
                flat: flat(input).cloned(),
            });
        }
    }
    match brokers {
        Ok(brokers) if problems.is_empty() => Ok(Box::new(KafkaSinkPlan {
            sending: Sending {
                name: section.name.clone(),
                brokers,
                compression: config.compression.name(),
            },
            delivery: config.delivery,
            progress_topic: config.progress_topic,
            encode: config.encode,
            subject: format!("{}-value", config.topic.replace(['{', '}'], "")),
            addresses,
        })),
        _ => Err(problems),
    }
}

struct KafkaSinkPlan {
    sending: Sending,
    delivery: Delivery,
    progress_topic: String,
    encode: EncodeConfig,
    /// What a schema registry calls the values of the topic.
    subject: String,
    addresses: Vec<Addressing>,
}

impl SinkPlan for KafkaSinkPlan {
    fn open(&self, opening: &Opening) -> anyhow::Result<Box<dyn Sink>> {
        let name = &self.sending.name;
        self.sending.brokers.check_files()?;
        let way = match (&opening.folder, self.delivery) {
            (Some(folder), Delivery::ExactlyOnce) => {
                let courier = if opening.publishes {
                    let id = format!("taktline-{name}-{}", durable::identity(folder)?);
                    let topic = self.progress_topic.clone();
                    Some(Courier::new(self.sending.clone(), topic, folder.clone(), id))
                } else {
                    None
                };
                Way::Once(Box::new(Once {
                    name: name.clone(),
                    generation: opening.generation,
                    outbox: Outbox::new(folder.clone(), opening.generation),
                    courier,
                    gone_back_to: None,
                }))
            }
            (None, Delivery::ExactlyOnce) => {
                tracing::warn!("{name}: without a data directory rows are sent at least once (`delivery`)");
                Way::Often(Post::open(&self.sending)?, None)
            }
            (folder, Delivery::AtLeastOnce) => Way::Often(Post::open(&self.sending)?, folder.clone()),
        };
        let inputs = self.addresses.iter().map(|address| {
            let encoder = self.encode.encoder(address.table, &self.subject)?;
            Ok((address.clone(), encoder))
        });
        Ok(Box::new(KafkaSink {
            inputs: inputs.collect::<anyhow::Result<_>>()?,
            way,
        }))
    }
}

/// Where rows of one input go.
#[derive(Clone)]
struct Addressing {
    topic: RowTemplate,
    key: Option<RowTemplate>,
    table: &'static str,
    flat: Option<Published>,
}

struct KafkaSink {
    /// One for each input.
    inputs: Vec<(Addressing, Box<dyn Encoder>)>,
    way: Way,
}

/// How rows get to Kafka.
enum Way {
    Once(Box<Once>),
    /// Beside it the folder in which an earlier run may have left rows.
    Often(Post, Option<PathBuf>),
}

struct Once {
    name: String,
    generation: u64,
    outbox: Outbox,
    /// Only in the process that publishes.
    courier: Option<Courier>,
    /// The checkpoint that this run goes on from, until it is known that nothing later was published.
    gone_back_to: Option<u64>,
}

impl Sink for KafkaSink {
    fn recover(&mut self, checkpoint: u64, staged: &[Staged]) -> anyhow::Result<()> {
        match &mut self.way {
            Way::Once(once) => once.recover(checkpoint, &lots(staged)?),
            Way::Often(_, None) => Ok(()),
            Way::Often(_, Some(folder)) => {
                for lot in lots(staged)? {
                    anyhow::ensure!(
                        !outbox::is_there(folder, &lot)?,
                        "{} rows wait in {} since the last run was cut off; run once more with delivery: exactly_once",
                        lot.rows,
                        folder.display()
                    );
                }
                Ok(())
            }
        }
    }

    fn write(&mut self, input: usize, batch: &RecordBatch) -> anyhow::Result<()> {
        let (address, encoder) = self
            .inputs
            .get_mut(input)
            .with_context(|| format!("there is no input {input}"))?;
        let batch = &*flattened(address.flat.as_ref(), batch)?;
        let shown = showable(batch)?;
        let cells = Cells::of(&shown);
        let way = &mut self.way;
        let mut letter = Letter {
            topic: String::new(),
            key: None,
            payload: Vec::new(),
        };
        encoder.encode(batch, &mut |row, payload| {
            letter.topic = address.topic.render_with(&cells, row, topic_part);
            make_topic(&mut letter.topic);
            letter.key = address.key.as_ref().map(|key| key.render(&cells, row).into_bytes());
            match way {
                Way::Once(once) => once.outbox.push(&letter.topic, letter.key.as_deref(), payload),
                Way::Often(post, _) => {
                    letter.payload.clear();
                    letter.payload.extend_from_slice(payload);
                    post.send(&letter)
                }
            }
        })
    }

    fn stage(&mut self, _: u64) -> anyhow::Result<Staged> {
        match &mut self.way {
            Way::Once(once) => {
                let lot = once.outbox.finish()?;
                Ok(Staged(lot.map_or(Ok(Value::Null), serde_json::to_value)?))
            }
            Way::Often(post, _) => {
                post.flush()?;
                Ok(Staged(Value::Null))
            }
        }
    }

    fn publish(&mut self, checkpoint: u64, staged: &[Staged]) -> anyhow::Result<()> {
        match &mut self.way {
            Way::Once(once) => once.publish(checkpoint, &lots(staged)?),
            Way::Often(..) => Ok(()),
        }
    }
}

/// What the processes staged, in the order of the manifest.
fn lots(staged: &[Staged]) -> anyhow::Result<Vec<Lot>> {
    let given = staged.iter().filter(|staged| !staged.0.is_null());
    given
        .map(|staged| {
            serde_json::from_value(staged.0.clone())
                .context("another kind of sink staged under this name; give this one another name")
        })
        .collect()
}

impl Once {
    fn recover(&mut self, checkpoint: u64, lots: &[Lot]) -> anyhow::Result<()> {
        let Some(courier) = &mut self.courier else {
            return Ok(());
        };
        self.gone_back_to = Some(checkpoint);
        outbox::remove_orphans(courier.folder(), self.generation, lots)?;
        let mut there = 0;
        for lot in lots {
            there += usize::from(outbox::is_there(courier.folder(), lot)?);
        }
        if there == 0 {
            // Files go when their rows are published. Nothing waits, so nobody needs to wait for a broker now.
            return Ok(());
        }
        if there < lots.len() && !courier.progress()?.covers(checkpoint) {
            tracing::error!(
                "{}: {} of {} files with rows of checkpoint {checkpoint} are gone from {} and can't be published",
                self.name,
                lots.len() - there,
                lots.len(),
                courier.folder().display()
            );
        }
        let mut left = Vec::with_capacity(there);
        for lot in lots {
            if outbox::is_there(courier.folder(), lot)? {
                left.push(lot.clone());
            }
        }
        self.publish(checkpoint, &left)
    }

    fn publish(&mut self, checkpoint: u64, lots: &[Lot]) -> anyhow::Result<()> {
        let courier = self.courier.as_mut().context("this process does not publish")?;
        if lots.is_empty() {
            return Ok(());
        }
        let progress = courier.progress()?;
        if let Some(back) = self.gone_back_to.take_if(|back| *back < checkpoint)
            && progress.checkpoint > back
        {
            // Also where an older copy of the state was put in place, so that numbers of checkpoints come a second time.
            courier.forget_progress();
            tracing::warn!(
                "{}: rows up to checkpoint {} are in Kafka, which takes nothing back, and this run went on from checkpoint {back}: \
                 what came between is sent again",
                self.name,
                progress.checkpoint
            );
        }
        courier.deliver(checkpoint, lots)
    }
}

/// A value as a part of a topic's name.
fn topic_part(value: &str) -> String {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if value.is_empty() {
        "_".into()
    } else {
        value.chars().map(|c| if legal(c) { c } else { '_' }).collect()
    }
}

/// Of parts that a topic's name may have, a name that Kafka takes: a machine's odd name must not end the run.
fn make_topic(name: &mut String) {
    name.truncate(TOPIC_LIMIT);
    if !is_topic(name) {
        *name = name.replace('.', "_");
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
        check("{brokers: 'k:9092', topic: alerts}", &[]);
        check(
            "{brokers: 'k:9092', topic: 'alerts-{machine}', key: '{machine}/{signal}'}",
            &[],
        );
        check(
            "{brokers: 'k:9092', topic: '{machine}', delivery: at_least_once, compression: zstd}",
            &[],
        );
        check("{brokers: 'k:9092', topic: 'a/b'}", &["topic"]);
        check("{brokers: 'k:9092', topic: ''}", &["topic"]);
        check("{brokers: 'k:9092', topic: 'a-{machin}'}", &["topic"]);
        check("{brokers: 'k:9092', topic: 'a', key: '{x'}", &["key"]);
        check("{brokers: 'k:9092', topic: 'a', key: '{x}'}", &["key"]);
        check(
            "{brokers: 'k:x', topic: 'a', progress_topic: '/'}",
            &["brokers", "progress_topic"],
        );
        check("{brokers: 'k', topic: 'a', encode: {format: xml}}", &["encode.format"]);
    }

    #[test]
    fn parts_of_topics() {
        let check = |value: &str, expect: &str| assert_eq!(topic_part(value), expect);
        check("press-1", "press-1");
        check("a/b c#ä", "a_b_c__");
        check("", "_");
    }

    #[test]
    fn whole_names_of_topics() {
        let check = |name: &str, expect: &str| {
            let mut made = name.to_owned();
            make_topic(&mut made);
            assert_eq!(made, expect);
            assert!(is_topic(&made), "{made}");
        };
        check("alerts-press.1", "alerts-press.1");
        check(".", "_");
        check("..", "__");
        check(&"x".repeat(300), &"x".repeat(TOPIC_LIMIT));
    }

    #[test]
    fn rows_that_wait_for_exactly_once_are_not_forgotten_by_at_least_once() {
        let dir = tempfile::tempdir().unwrap();
        let mut outbox = Outbox::new(dir.path().to_owned(), 1);
        outbox.push("t", None, b"1").unwrap();
        let lot = outbox.finish().unwrap().unwrap();
        let staged = [Staged(serde_json::to_value(&lot).unwrap())];
        let section = Section::from_yaml("ops", "{brokers: 'k:9092', topic: t, delivery: at_least_once}");
        let opening = Opening {
            generation: 2,
            publishes: true,
            folder: Some(dir.path().to_owned()),
        };
        let plan = build(&section, &[])
            .map_err(|problems| format!("{problems:?}"))
            .unwrap();
        let mut sink = plan.open(&opening).unwrap();
        let said = sink.recover(1, &staged).unwrap_err().to_string();
        assert!(
            said.contains("1 rows wait in") && said.contains("exactly_once"),
            "{said}"
        );
        outbox::remove(dir.path(), &[lot]).unwrap();
        sink.recover(1, &staged).unwrap();
    }
}
