//! Rows to payloads: what sinks send.

use std::path::PathBuf;
use std::sync::Arc;

use arrow::array::RecordBatch;
use schemars::JsonSchema;
use serde::Deserialize;
use taktline_engine::config::Problem;

use super::avro_encode::{AvroEncoder, WriteBy};
use super::config::RegistryConfig;
use super::json;
use super::registry::Registry;

/// How to write a payload.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EncodeConfig {
    /// What a payload is: `json` an object of the row's columns, `avro` a record of them. Default json
    #[serde(default)]
    pub format: EncodeFormat,
    /// Avro: file with the schema to write with (`.avsc`); its fields are the columns of the same names. Default: made from the
    /// columns
    pub schema: Option<PathBuf>,
    /// Avro: the schema registry where the schema is registered; payloads then begin with its number
    pub registry: Option<RegistryConfig>,
    /// Avro: the subject in the registry. Default: as the sink says
    pub subject: Option<String>,
}

/// What a payload is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EncodeFormat {
    // An object of the row's columns
    #[default]
    Json,
    // A record of the row's columns
    Avro,
}

impl EncodeConfig {
    /// What is wrong with the settings, below `path`; asks no registry.
    pub(crate) fn problems(&self, path: &str) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.format == EncodeFormat::Json {
            let set = [
                ("schema", self.schema.is_some()),
                ("registry", self.registry.is_some()),
                ("subject", self.subject.is_some()),
            ];
            for (key, _) in set.into_iter().filter(|(_, set)| *set) {
                let problem = Problem::at(&format!("{path}.{key}"), format!("`{key}` is for avro only")).on_key();
                problems.push(problem.hint("write format: avro"));
            }
            return problems;
        }
        if let Some(file) = &self.schema
            && let Err(e) = std::fs::read_to_string(file)
                .map_err(|e| e.to_string())
                .and_then(|json| super::avro::AvroSchema::parse(&json, &[]))
        {
            problems.push(Problem::at(
                &format!("{path}.schema"),
                format!("{}: {e}", file.display()),
            ));
        }
        match &self.registry {
            Some(registry) => problems.extend(
                Registry::new(registry, &format!("{path}.registry"))
                    .err()
                    .unwrap_or_default(),
            ),
            None if self.subject.is_some() => {
                let problem = Problem::at(&format!("{path}.subject"), "there is a `subject` but no `registry`");
                problems.push(problem.hint("write registry: {url: 'http://registry:8081'}"));
            }
            None => {}
        }
        problems
    }

    /// An encoder for rows of the table `table`; `subject` is the registry's subject where none is set (for a Kafka topic
    /// `TOPIC-value`). Use one for each input.
    ///
    /// # Errors
    /// What [`EncodeConfig::problems`] says, or the schema file has gone since.
    pub(crate) fn encoder(&self, table: &str, subject: &str) -> anyhow::Result<Box<dyn Encoder>> {
        if self.format == EncodeFormat::Json {
            return Ok(Box::new(JsonEncoder::default()));
        }
        let schema = self.schema.as_ref().map(std::fs::read_to_string).transpose()?;
        let write_by = match &self.registry {
            None => WriteBy::Reader { schema },
            Some(registry) => {
                let registry = Registry::new(registry, "registry").map_err(|problems| {
                    anyhow::anyhow!("{}", problems.first().map_or("", |problem| &problem.message))
                })?;
                WriteBy::Registry {
                    registry: Arc::new(registry),
                    subject: self.subject.clone().unwrap_or_else(|| subject.to_owned()),
                    schema,
                }
            }
        };
        Ok(Box::new(AvroEncoder::new(table, write_by)))
    }
}

/// Makes a payload of each row.
///
/// It **must** give every row of the batch once, in order, with its index. It **may** ask a schema registry, and so block; a
/// registry that is away is waited for before it is an error.
pub(crate) trait Encoder: Send {
    /// Gives each row's index and payload to `each`.
    ///
    /// # Errors
    /// A column has no form in this format, the registry refused the schema, or `each` gave up.
    fn encode(
        &mut self,
        batch: &RecordBatch,
        each: &mut dyn FnMut(usize, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()>;
}

/// Rows as JSON objects: times are RFC 3339, nulls are written.
#[derive(Default)]
pub(crate) struct JsonEncoder {
    lines: Vec<u8>,
}

impl Encoder for JsonEncoder {
    fn encode(
        &mut self,
        batch: &RecordBatch,
        each: &mut dyn FnMut(usize, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.lines.clear();
        json::write_rows(batch, &mut self.lines)?;
        // The writer escapes line breaks in texts, so that each line is a row.
        let lines = self.lines.split(|byte| *byte == b'\n');
        lines
            .take(batch.num_rows())
            .enumerate()
            .try_for_each(|(row, line)| each(row, line))
    }
}
