//! The `webhook` sink: rows as JSON to a URL, at least once.
//!
//! `delivery` sends a body until the target has taken or refused it, `refused` keeps what it refused.

mod delivery;
mod refused;

use std::collections::BTreeMap;
use std::time::Duration;

use arrow::array::{Array, AsArray, RecordBatch};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use taktline_engine::config::{Interval, Problem, Section};
use taktline_engine::kind::{Input, SinkKind};
use taktline_engine::state::Staged;
use taktline_engine::{Opening, Published, Sink, SinkPlan};

use crate::cells::{Cells, RowTemplate, flat, flattened, showable};
use crate::codec::json;
use crate::tls::TlsConfig;
use delivery::{Delivery, Outcome, Target};
use refused::Refused;

/// The `webhook` sink.
pub const KIND: SinkKind = SinkKind {
    name: "webhook",
    summary: "sends rows as JSON to a URL, signed, at least once",
    schema: || schemars::schema_for!(WebhookConfig),
    takes_refused: false,
    build,
};

/// Sends rows to a URL, at least once and in order.
///
/// A request holds one row as a JSON object, or up to `batch` rows as a list. Its `Idempotency-Key` is the same each time the same rows are
/// sent; for an alert it is made of `alert_id` and `state`. While the target is away, answers 5xx or 429, or doesn't let us in (401, 403, 404,
/// 405, 407), the request is sent again with growing waits, as `Retry-After` says, and what follows waits too: with `give_up_after` for so long, else
/// until it is taken. Any other 4xx refuses the rows: they are logged as an error, counted (`taktline_rows_refused_total`) and kept in
/// `staging/NAME/refused.ndjson` below the data directory, and the next rows go on.
///
/// With a `secret` each request has `Taktline-Timestamp` (seconds since 1970) and `Taktline-Signature: v1=HEX`, the HMAC-SHA256 of
/// the timestamp, a dot and the body. To verify: compute it over `timestamp + "." + body` with the same secret, compare in constant time, and
/// refuse timestamps older than five minutes.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WebhookConfig {
    /// Where to send: `https://hooks.example.com/taktline`, also as `{env: NAME}`
    pub url: String,
    /// POST (default) or PUT
    #[serde(default)]
    pub method: Method,
    /// Headers to add: `{X-Team: maintenance}`
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// Token to show as `Authorization: Bearer TOKEN`: `{env: NAME}` or `{file: /run/secrets/x}`
    pub token: Option<String>,
    /// Secret to sign requests with: `{env: NAME}` or `{file: /run/secrets/x}`
    pub secret: Option<String>,
    /// What to send for a row in place of all its columns: an object whose texts have columns in braces. For chats: `{text: "{machine}: {message}"}`
    pub body: Option<BTreeMap<String, Value>>,
    /// The most rows in a request. Default 1: an object; more: a list
    #[schemars(range(min = 1, max = 10_000))]
    pub batch: Option<usize>,
    /// How long the target may take to answer. Default 10s
    pub timeout: Option<Interval>,
    /// After how long of trying a request is given up: an error, and its rows are kept with the refused ones. Default: never
    pub give_up_after: Option<Interval>,
    /// How the connection is secured
    pub tls: Option<TlsConfig>,
}

/// How to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    /// POST
    #[default]
    Post,
    /// PUT
    Put,
}

const TIMEOUT: Interval = Interval::from_micros(10_000_000);
const BATCH_LIMIT: usize = 10_000;

fn build(section: &Section, inputs: &[Input]) -> Result<Box<dyn SinkPlan>, Vec<Problem>> {
    let config: WebhookConfig = section.parse()?;
    let mut problems = Vec::new();
    let batch = config.batch.unwrap_or(1);
    if !(1..=BATCH_LIMIT).contains(&batch) {
        problems.push(Problem::at("batch", format!("must be 1 to {BATCH_LIMIT}")));
    }
    if config.body.is_some() && batch > 1 {
        problems.push(Problem::at("batch", "a `body` is made for one row").hint("leave `batch` or `body` out"));
    }
    if config.secret.as_deref() == Some("") {
        problems.push(Problem::at("secret", "an empty secret signs nothing"));
    }
    if let Err(problem) = check_url(&config.url) {
        problems.push(problem);
    }
    let mut headers = Vec::new();
    for (name, value) in &config.headers {
        match delivery::header(name, value) {
            Ok(header) => headers.push(header),
            Err(message) => problems.push(Problem::at(&format!("headers.{name}"), message)),
        }
    }
    if let Some(token) = &config.token {
        match delivery::header("authorization", &format!("Bearer {token}")) {
            Ok(header) => headers.push(header),
            Err(message) => problems.push(Problem::at("token", message)),
        }
    }
    let tls = config.tls.unwrap_or_default();
    problems.extend(tls.problems("tls"));
    let mut bodies = Vec::new();
    for input in inputs {
        match config.body.as_ref().map(|body| Body::parse(body, input)).transpose() {
            Ok(body) => bodies.push(body),
            Err(problem) => problems.push(problem),
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let micros = |interval: Interval| Duration::from_micros(interval.micros().unsigned_abs());
    Ok(Box::new(WebhookPlan {
        target: Target {
            name: section.name.clone(),
            url: config.url,
            put: config.method == Method::Put,
            headers,
            secret: config.secret,
            timeout: micros(config.timeout.unwrap_or(TIMEOUT)),
            give_up_after: config.give_up_after.map(micros),
            tls,
        },
        batch,
        inputs: inputs
            .iter()
            .zip(bodies)
            .map(|(input, body)| Sent {
                flat: flat(input).cloned(),
                body,
            })
            .collect(),
    }))
}

fn check_url(url: &str) -> Result<(), Problem> {
    let problem = |message: String| Problem::at("url", message).hint("write https://host/path");
    let parsed = url::Url::parse(url).map_err(|e| problem(format!("this is no address: {e}")))?;
    if !matches!(parsed.scheme(), "http" | "https") || parsed.host_str().is_none_or(str::is_empty) {
        return Err(problem(format!("`{}` is neither http nor https", parsed.scheme())));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        let message = "an address must hold no user and no password";
        return Err(Problem::at("url", message).hint("use `token`, or `headers: {Authorization: {env: NAME}}`"));
    }
    Ok(())
}

struct WebhookPlan {
    target: Target,
    batch: usize,
    inputs: Vec<Sent>,
}

/// How the rows of an input are sent.
#[derive(Clone)]
struct Sent {
    flat: Option<Published>,
    body: Option<Body>,
}

impl SinkPlan for WebhookPlan {
    fn open(&self, opening: &Opening) -> anyhow::Result<Box<dyn Sink>> {
        Ok(Box::new(WebhookSink {
            delivery: Delivery::new(self.target.clone())?,
            refused: Refused::new(opening.folder.as_deref()),
            batch: self.batch,
            inputs: self.inputs.clone(),
            waiting: Vec::new(),
            refused_rows: 0,
        }))
    }
}

struct WebhookSink {
    delivery: Delivery,
    refused: Refused,
    batch: usize,
    inputs: Vec<Sent>,
    /// Rows that don't fill a request yet.
    waiting: Vec<Row>,
    /// Rows that the target refused, until the engine has counted them.
    refused_rows: u64,
}

/// A row as JSON, and what it is known by.
struct Row {
    id: String,
    json: Vec<u8>,
}

impl Sink for WebhookSink {
    fn write(&mut self, input: usize, batch: &RecordBatch) -> anyhow::Result<()> {
        let sent = self
            .inputs
            .get(input)
            .ok_or_else(|| anyhow::anyhow!("there is no input {input}"))?;
        let mut rows = sent.rows(batch)?;
        while !rows.is_empty() {
            let room = self.batch - self.waiting.len();
            let rest = rows.split_off(room.min(rows.len()));
            self.waiting.append(&mut rows);
            rows = rest;
            if self.waiting.len() == self.batch {
                self.send()?;
            }
        }
        Ok(())
    }

    fn stage(&mut self, _: u64) -> anyhow::Result<Staged> {
        self.send()?;
        Ok(Staged(Value::Null))
    }

    fn refused(&mut self) -> u64 {
        std::mem::take(&mut self.refused_rows)
    }
}

impl WebhookSink {
    fn send(&mut self) -> anyhow::Result<()> {
        let rows = std::mem::take(&mut self.waiting);
        if rows.is_empty() {
            return Ok(());
        }
        let body = match (self.batch, rows.as_slice()) {
            (1, [row]) => row.json.clone(),
            (_, rows) => list(rows),
        };
        let id = match rows.as_slice() {
            [row] => row.id.clone(),
            rows => digest(rows.iter().map(|row| row.id.as_bytes())),
        };
        match self.delivery.send(&id, &body)? {
            Outcome::Taken => Ok(()),
            Outcome::Refused(reason) => {
                let place = self.refused.keep(rows.iter().map(|row| row.json.as_slice()), &reason);
                tracing::error!(
                    "{}: {} rows were not taken: {reason}; {place}",
                    self.delivery.name(),
                    rows.len()
                );
                self.refused_rows += rows.len() as u64;
                Ok(())
            }
        }
    }
}

fn list(rows: &[Row]) -> Vec<u8> {
    let mut body = vec![b'['];
    for (index, row) in rows.iter().enumerate() {
        if index > 0 {
            body.push(b',');
        }
        body.extend(&row.json);
    }
    body.push(b']');
    body
}

impl Sent {
    fn rows(&self, batch: &RecordBatch) -> anyhow::Result<Vec<Row>> {
        let batch = &*flattened(self.flat.as_ref(), batch)?;
        let mut text = Vec::new();
        json::write_rows(batch, &mut text)?;
        let ids = ids(batch);
        let shown = showable(batch)?;
        let cells = Cells::of(&shown);
        // The writer escapes line breaks in texts, so that each line is a row.
        let lines = text.split(|byte| *byte == b'\n').take(batch.num_rows());
        let rows = lines.enumerate().map(|(row, line)| {
            let id = ids.as_ref().and_then(|ids| ids(row)).unwrap_or_else(|| digest([line]));
            let json = match &self.body {
                None => line.to_vec(),
                Some(body) => serde_json::to_vec(&body.render(&cells, row))?,
            };
            Ok(Row { id, json })
        });
        rows.collect()
    }
}

type IdOf<'b> = Box<dyn Fn(usize) -> Option<String> + 'b>;

/// Alerts have an id that is the same in every replay; both of their rows have it.
fn ids(batch: &RecordBatch) -> Option<IdOf<'_>> {
    let ids = batch.column_by_name("alert_id")?.as_string_opt::<i32>()?;
    let states = batch
        .column_by_name("state")
        .and_then(|column| column.as_string_opt::<i32>());
    Some(Box::new(move |row| {
        let id = ids.is_valid(row).then(|| ids.value(row))?;
        let state = states
            .filter(|states| states.is_valid(row))
            .map(|states| format!("-{}", states.value(row)));
        Some(format!("{id}{}", state.unwrap_or_default()))
    }))
}

fn digest<'b>(parts: impl IntoIterator<Item = &'b [u8]>) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        digest.update(part);
        digest.update([0]);
    }
    delivery::hexadecimal(&digest.finalize()[..16])
}

/// A JSON object whose texts are templates.
#[derive(Clone)]
enum Body {
    Text(RowTemplate),
    List(Vec<Body>),
    Object(Vec<(String, Body)>),
    /// Numbers and the like.
    Fixed(Value),
}

impl Body {
    fn parse(body: &BTreeMap<String, Value>, input: &Input) -> Result<Self, Problem> {
        let members = body.iter().map(|(name, value)| {
            let parsed = Body::of(&format!("body.{name}"), value, input)?;
            Ok((name.clone(), parsed))
        });
        Ok(Body::Object(members.collect::<Result<_, Problem>>()?))
    }

    fn of(path: &str, value: &Value, input: &Input) -> Result<Self, Problem> {
        Ok(match value {
            Value::String(text) => Body::Text(RowTemplate::parse(path, text, input)?),
            Value::Array(items) => {
                let items = items.iter().enumerate();
                let items = items.map(|(index, item)| Body::of(&format!("{path}.{index}"), item, input));
                Body::List(items.collect::<Result<_, _>>()?)
            }
            Value::Object(members) => {
                let members = members.iter().map(|(name, value)| {
                    let parsed = Body::of(&format!("{path}.{name}"), value, input)?;
                    Ok((name.clone(), parsed))
                });
                Body::Object(members.collect::<Result<_, Problem>>()?)
            }
            other => Body::Fixed(other.clone()),
        })
    }

    fn render(&self, cells: &Cells<'_>, row: usize) -> Value {
        match self {
            Body::Text(template) => template.render(cells, row).into(),
            Body::List(items) => items.iter().map(|item| item.render(cells, row)).collect(),
            Body::Object(members) => {
                let members = members
                    .iter()
                    .map(|(name, body)| (name.clone(), body.render(cells, row)));
                Value::Object(members.collect())
            }
            Body::Fixed(value) => value.clone(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use taktline_engine::table::{Sample, samples, samples_batch};

    use super::*;

    fn input() -> Input {
        Input {
            name: "plc".into(),
            table: samples(),
            extends: Vec::new(),
        }
    }

    #[test]
    fn settings() {
        let check = |yaml: &str, expect: &[&str]| {
            let problems = build(&Section::from_yaml("ops", yaml), &[input()])
                .err()
                .unwrap_or_default();
            let paths: Vec<String> = problems.iter().map(|problem| problem.path.join(".")).collect();
            assert_eq!(paths, expect, "{yaml}: {problems:?}");
        };
        check("url: http://host/x", &[]);
        check(
            "url: https://host/x\nmethod: PUT\nheaders: {X-A: b}\ntoken: t\nsecret: s\nbatch: 100\ntimeout: 5s\ngive_up_after: 1h",
            &[],
        );
        check(
            "url: https://host\nbody: {text: '{machine}: {value}', n: 1, list: ['{ts}', {a: '{signal}'}]}",
            &[],
        );
        check("url: host/x", &["url"]);
        check("url: ftp://host/x", &["url"]);
        check("url: http://u:p@host/x", &["url"]);
        check("url: http://host\nbatch: 0", &["batch"]);
        check("url: http://host\nbatch: 2\nbody: {text: '{machine}'}", &["batch"]);
        check("url: http://host\nbody: {text: '{machin}'}", &["body.text"]);
        check("url: http://host\nbody: {a: [{b: '{x}'}]}", &["body.a.0.b"]);
        check(
            "url: http://host\nheaders: {'a b': c, x: \"a\\nb\"}",
            &["headers.a b", "headers.x"],
        );
        check("url: http://host\nsecret: ''\ntoken: \"a\\nb\"", &["secret", "token"]);
        check("url: http://host\ntls: {key: k.pem}", &["tls.key"]);
    }

    #[test]
    fn rows_and_their_ids() {
        let row = |value| Sample {
            machine: "m",
            signal: "t",
            ts: 0,
            value: Some(value),
            text: None,
        };
        let batch = samples_batch([row(1.0), row(2.0), row(1.0)]);
        let sent = |body: Option<&str>| Sent {
            flat: flat(&input()).cloned(),
            body: body.map(|body| Body::parse(&serde_json::from_str(body).unwrap(), &input()).unwrap()),
        };
        let plain = sent(None).rows(&batch).unwrap();
        assert_eq!(plain[0].id, plain[2].id);
        assert_ne!(plain[0].id, plain[1].id);
        assert!(
            plain[0]
                .json
                .starts_with(b"{\"machine\":\"m\",\"signal\":\"t\",\"ts\":\"1970-01-01T00:00:00Z\",\"value\":1.0")
        );
        let chat = sent(Some(r#"{"text": "{machine}: \"{value}\"", "n": 1, "l": ["{signal}"]}"#))
            .rows(&batch)
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&chat[1].json),
            r#"{"l":["t"],"n":1,"text":"m: \"2.0\""}"#
        );
        assert_eq!(chat[1].id, plain[1].id);
    }
}
