//! Payloads to samples.

use arrow::array::RecordBatch;
use schemars::JsonSchema;
use serde::Deserialize;
use taktline_engine::config::Problem;
use taktline_engine::{DeadLetters, Decoded, Decoder};

use super::json::{Found, Pointer, Query, Scalar};
use super::message::{Message, Messages};
use super::topic::{Template, TopicPattern};
use crate::rows::Rows;
use crate::time::{self, Unit};

/// The longest a text in a sample may be, in bytes.
const TEXT_LIMIT: usize = 64 << 10;
/// How far ahead of its arrival a message may say it was made: clocks differ, but not by more.
const FUTURE_LIMIT_US: i64 = 300_000_000;

/// How to read a payload.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DecodeConfig {
    /// What a payload is: a JSON document, a bare number or a text. Default json
    #[serde(default)]
    pub format: Format,
    /// JSON pointer to the time, for example `/timestamp_ms`. Default: the time of arrival
    pub time: Option<String>,
    /// Unit of the time
    pub unit: Option<Unit>,
    /// JSON pointer to the value. A number or a boolean is taken as a number, a text that isn't one as a text
    pub value: Option<String>,
    /// JSON pointer to a text: a state or marker
    pub text: Option<String>,
    /// JSON pointer to an object of which each member is a signal; write "" for the whole payload
    pub values: Option<String>,
}

/// What a payload is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// A JSON document
    #[default]
    Json,
    /// A bare number, `true` or `false`
    Number,
    /// A text
    Text,
}

/// Where a message says what it is about, besides its payload.
#[derive(Clone, Debug, Default)]
pub(crate) struct Address {
    /// The topic's levels, and what they are called. None: the topic says nothing but its name.
    pub pattern: Option<TopicPattern>,
    /// Messages have keys: `{key}`.
    pub keyed: bool,
    /// Headers that were asked for: `{header.NAME}`, or `{NAME}` as the source writes it.
    pub headers: Vec<String>,
}

impl Address {
    /// The names for templates: first those of the topic's levels, then `topic`, `key` and the headers.
    fn names(&self) -> Vec<String> {
        let levels = self.pattern.iter().flat_map(|pattern| pattern.names().iter().cloned());
        let topic = self.pattern.is_none().then(|| "topic".to_owned());
        let key = self.keyed.then(|| "key".to_owned());
        let headers = self.headers.iter().map(|name| format!("header.{name}"));
        levels.chain(topic).chain(key).chain(headers).collect()
    }

    /// Their values in a message, in the same order; an error if the topic doesn't fit.
    fn values<'m>(&self, message: &Message<'m>, found: &mut Vec<&'m str>) -> Result<(), String> {
        let text =
            |bytes: &'m [u8], what: &str| std::str::from_utf8(bytes).map_err(|_| format!("the {what} is not UTF-8"));
        found.clear();
        match &self.pattern {
            None => found.push(message.topic),
            Some(pattern) if pattern.matches(message.topic, found) => {}
            Some(_) => return Err("the topic does not fit the pattern".into()),
        }
        if self.keyed {
            found.push(text(message.key.unwrap_or_default(), "key")?);
        }
        for name in &self.headers {
            let value = message.headers.iter().find(|(known, _)| known == name);
            found.push(text(value.map_or(&[], |(_, value)| value), "header")?);
        }
        Ok(())
    }
}

/// Everything a decoder knows; made once and cloned for each worker.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    source: String,
    address: Address,
    machine: Template,
    signal: Template,
    format: Format,
    unit: Option<Unit>,
    query: Query,
    time: Option<usize>,
    value: Option<usize>,
    text: Option<usize>,
}

/// The name of a wide payload's member in the `signal` template.
const MEMBER: &str = "member";

impl Reading {
    /// Checks the settings against each other.
    pub(crate) fn new(
        source: &str,
        address: Address,
        config: &DecodeConfig,
        machine: Option<&str>,
        signal: Option<&str>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut query = Query::default();
        let mut pointer = |key: &str, text: &Option<String>| {
            let text = text.as_ref()?;
            let path = format!("decode.{key}");
            if config.format != Format::Json {
                problems.push(Problem::at(&path, "only a JSON payload has pointers").hint("write format: json"));
                return None;
            }
            match Pointer::parse(text) {
                Ok(pointer) => {
                    query.pointers.push(pointer);
                    Some(query.pointers.len() - 1)
                }
                Err(message) => {
                    problems.push(Problem::at(&path, message));
                    None
                }
            }
        };
        let (time, value) = (pointer("time", &config.time), pointer("value", &config.value));
        let (text, values) = (pointer("text", &config.text), pointer("values", &config.values));
        query.members_of = values;
        let one = config.value.is_some() || config.text.is_some();
        let wide = config.values.is_some();
        if config.format == Format::Json && !one && !wide {
            let hint = "write value: /value, or value: \"\" for a payload that is a bare JSON number";
            problems.push(Problem::at("decode", "a JSON payload needs a pointer to its value").hint(hint));
        }
        if one && wide {
            problems.push(Problem::at(
                "decode.values",
                "`values` stands alone, without `value` and `text`",
            ));
        }
        if config.time.is_some() && config.unit.is_none() {
            let hint = "write unit: ms (or s, us, ns, rfc3339)";
            problems.push(Problem::at("decode.time", "the time needs a `unit`").hint(hint));
        }
        if config.time.is_none() && config.unit.is_some() {
            problems.push(Problem::at("decode.unit", "there is a `unit` but no `time`").hint("write time: /timestamp"));
        }
        let names = address.names();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut with_member = names.clone();
        if wide {
            with_member.push(MEMBER);
        }
        let default_signal = if wide { "{member}" } else { "{signal}" };
        let machine = template("machine", machine, "{machine}", &names);
        let signal = template("signal", signal, default_signal, &with_member);
        match (machine, signal, problems.is_empty()) {
            (Ok(machine), Ok(signal), true) => Ok(Reading {
                source: source.to_owned(),
                address,
                machine,
                signal,
                format: config.format,
                unit: config.unit,
                query,
                time,
                value,
                text,
            }),
            (machine, signal, _) => {
                problems.extend(machine.err());
                problems.extend(signal.err());
                Err(problems)
            }
        }
    }
}

fn template(key: &str, text: Option<&str>, default: &str, names: &[&str]) -> Result<Template, Problem> {
    use super::topic::TemplateError::{Brace, Unknown};
    Template::parse(text.unwrap_or(default), names).map_err(|error| match (error, text) {
        (Unknown(name), None) => Problem::at("topic", format!("no level of the topic is named `{{{name}}}`")).hint(
            format!("write {{{name}}} in place of a level, or say what the {key} is by `{key}:`"),
        ),
        (Unknown(name), Some(_)) => {
            Problem::at(key, format!("the topic has no level `{{{name}}}`")).did_you_mean(&name, names.iter().copied())
        }
        (Brace, _) => Problem::at(key, "a brace has no partner").hint("write {name}"),
    })
}

/// A value and a text, either of which may be absent.
type Content<'j> = (Option<f64>, Option<std::borrow::Cow<'j, str>>);

/// Decodes raw batches of messages.
pub(crate) struct MessageDecoder {
    reading: Reading,
    dead: DeadLetters,
    rows: Columns,
}

impl MessageDecoder {
    pub(crate) fn new(reading: Reading) -> Self {
        let dead = DeadLetters::new(reading.source.clone());
        MessageDecoder {
            reading,
            dead,
            rows: Columns::default(),
        }
    }
}

impl Decoder for MessageDecoder {
    fn decode(&mut self, raw: &RecordBatch) -> anyhow::Result<Decoded> {
        let messages = Messages::of(raw)?;
        let mut headers = Vec::new();
        for row in 0..messages.len() {
            let message = messages.get(row, &mut headers);
            if let Err(reason) = self.reading.read(&message, &mut self.rows) {
                self.dead.push(message.topic, message.sequence, reason, message.payload);
            }
        }
        Ok(Decoded {
            samples: self.rows.rows.finish()?,
            dead_letters: self.dead.finish(),
        })
    }
}

impl Reading {
    /// Reads one message into the columns, or says why not; then nothing was added.
    fn read(&self, message: &Message<'_>, rows: &mut Columns) -> Result<(), String> {
        let (payload, received) = (message.payload, message.received);
        let mut levels = Vec::with_capacity(8);
        self.address.values(message, &mut levels)?;
        self.machine.render(|index| levels[index], &mut rows.machine_name);
        if rows.machine_name.is_empty() {
            return Err("the message names no machine".into());
        }
        let content = match self.format {
            Format::Number => bare_number(payload)?,
            Format::Text => {
                let text = std::str::from_utf8(payload).map_err(|e| format!("the text is not UTF-8: {e}"))?;
                (None, Some(bounded(text.into())?))
            }
            Format::Json => return self.read_json(payload, received, &levels, rows),
        };
        rows.push(&self.signal, &levels, "", received, content)
    }

    fn read_json(&self, payload: &[u8], received: i64, levels: &[&str], rows: &mut Columns) -> Result<(), String> {
        let mut found = self.query.find(payload).map_err(|e| format!("not JSON: {e}"))?;
        let ts = match self.time {
            None => received,
            Some(index) => self.time_of(found.scalars[index].take(), received)?,
        };
        if self.query.members_of.is_some() {
            return self.read_members(found, ts, levels, rows);
        }
        let value = self.value.and_then(|index| found.scalars[index].take());
        let text = self.text.and_then(|index| found.scalars[index].take());
        if value.is_none() && text.is_none() {
            return Err("nothing stands at `value` or `text`".into());
        }
        let (number, from_value) = match value {
            None => (None, None),
            Some(scalar) => content(scalar).ok_or("an object or a list stands at `value`")?,
        };
        let text = match text {
            None => from_value,
            Some(scalar) => as_text(scalar).ok_or("an object or a list stands at `text`")?,
        };
        rows.push(&self.signal, levels, "", ts, (number, text.map(bounded).transpose()?))
    }

    /// Each scalar member is a sample; nested members are skipped.
    fn read_members(&self, found: Found<'_>, ts: i64, levels: &[&str], rows: &mut Columns) -> Result<(), String> {
        let mut members = Vec::with_capacity(found.members.len());
        for (name, scalar) in found.members {
            let Some((number, text)) = content(scalar) else {
                continue;
            };
            members.push((name, (number, text.map(bounded).transpose()?)));
        }
        if members.is_empty() {
            return Err("the object at `values` has no values".into());
        }
        for (name, content) in members {
            rows.push(&self.signal, levels, &name, ts, content)?;
        }
        Ok(())
    }

    fn time_of(&self, scalar: Option<Scalar<'_>>, received: i64) -> Result<i64, String> {
        let ts = match scalar {
            None | Some(Scalar::Null) => return Err("nothing stands at `time`".into()),
            Some(Scalar::Text(text)) if self.unit == Some(Unit::Rfc3339) => {
                let time: jiff::Timestamp = text.parse().map_err(|e| format!("the time `{}`: {e}", short(&text)))?;
                Some(time.as_microsecond())
            }
            Some(Scalar::Int(_) | Scalar::Float(_)) if self.unit == Some(Unit::Rfc3339) => {
                return Err("the time is a number; check `unit`".into());
            }
            Some(Scalar::Int(time)) => self.unit.and_then(|unit| unit.micros(time)),
            Some(Scalar::Float(time)) => self.unit.and_then(|unit| unit.micros_f64(time)),
            Some(Scalar::Text(text)) if text.trim().parse::<f64>().is_err() => {
                return Err(format!("the time `{}` is no number; check `unit`", short(&text)));
            }
            Some(Scalar::Text(text)) => self.unit.and_then(|unit| time::parse(text.trim().as_bytes(), unit)),
            Some(Scalar::Bool(_) | Scalar::Nested) => return Err("the time is neither a number nor a text".into()),
        };
        let ts = time::plausible(ts.ok_or("the time is out of range; check `unit`")?)?;
        if ts > received.saturating_add(FUTURE_LIMIT_US) {
            return Err(
                "the time is more than 5 minutes ahead of the arrival; check `unit` and the sender's clock".into(),
            );
        }
        Ok(ts)
    }
}

fn bare_number<'j>(payload: &[u8]) -> Result<Content<'j>, String> {
    let text = std::str::from_utf8(payload)
        .map_err(|e| format!("the number is not UTF-8: {e}"))?
        .trim();
    match text {
        "true" => Ok((Some(1.0), None)),
        "false" => Ok((Some(0.0), None)),
        "" => Err("the payload is empty".into()),
        _ => Ok((
            Some(text.parse().map_err(|_| format!("`{}` is no number", short(text)))?),
            None,
        )),
    }
}

/// A scalar as a value, or as a text where it is no number. None if it is nested.
fn content(scalar: Scalar<'_>) -> Option<Content<'_>> {
    Some(match scalar {
        Scalar::Null => (None, None),
        Scalar::Bool(b) => (Some(f64::from(u8::from(b))), None),
        Scalar::Int(i) => (Some(i as f64), None),
        Scalar::Float(f) => (Some(f), None),
        Scalar::Text(text) => match text.trim().parse::<f64>() {
            Ok(number) => (Some(number), None),
            Err(_) => (None, Some(text)),
        },
        Scalar::Nested => return None,
    })
}

fn as_text(scalar: Scalar<'_>) -> Option<Option<std::borrow::Cow<'_, str>>> {
    Some(match scalar {
        Scalar::Null => None,
        Scalar::Bool(b) => Some(b.to_string().into()),
        Scalar::Int(i) => Some(i.to_string().into()),
        Scalar::Float(f) => Some(f.to_string().into()),
        Scalar::Text(text) => Some(text),
        Scalar::Nested => return None,
    })
}

fn bounded(text: std::borrow::Cow<'_, str>) -> Result<std::borrow::Cow<'_, str>, String> {
    if text.len() > TEXT_LIMIT {
        Err(format!("the text has more than {TEXT_LIMIT} bytes"))
    } else {
        Ok(text)
    }
}

/// At most 40 characters of a text, for messages.
fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

/// Rows being built, and room for the names of the next one.
#[derive(Default)]
struct Columns {
    machine_name: String,
    signal_name: String,
    rows: Rows,
}

impl Columns {
    /// Adds a sample of the machine in `machine_name`.
    fn push(
        &mut self,
        signal: &Template,
        levels: &[&str],
        member: &str,
        ts: i64,
        (value, text): Content<'_>,
    ) -> Result<(), String> {
        signal.render(
            |index| levels.get(index).copied().unwrap_or(member),
            &mut self.signal_name,
        );
        let machine = self.rows.machines.number(self.machine_name.as_bytes());
        let machine = machine.ok_or("the message names no machine")?;
        let signal = self.rows.signals.number(self.signal_name.as_bytes());
        let signal = signal.ok_or("the message names no signal")?;
        let value = value.filter(|value| value.is_finite());
        self.rows.push_text(machine, signal, ts, value, text.as_deref());
        Ok(())
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
