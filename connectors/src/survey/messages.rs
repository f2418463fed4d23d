//! Topics: which there are, what their levels name, what they carry.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::RecordBatch;

use super::payload::{Fields, Shape, shape};
use super::{Proposal, in_quotes, quoted};
use crate::codec::message::Messages;

/// Payloads of a topic that are looked at.
const EXAMPLES: usize = 8;
/// Topics that are listed.
const LISTED: usize = 20;
/// Characters of an example that are shown.
const SHOWN: usize = 80;

/// What came on one topic.
#[derive(Default)]
struct Topic {
    messages: u64,
    bytes: u64,
    examples: Vec<Vec<u8>>,
    keys: BTreeSet<Vec<u8>>,
}

/// The lines `topic`, `machine`, `signal` and `decode` for messages with topics of several levels (MQTT); none if nothing came that
/// can be read.
///
/// # Errors
/// The batches hold no messages.
pub fn by_topic(raw: &[RecordBatch], listened_secs: f64) -> anyhow::Result<Option<Proposal>> {
    let (topics, _) = gather(raw)?;
    let mut proposal = Proposal::default();
    list(&topics, listened_secs, &mut proposal);
    if topics.keys().any(|topic| topic.starts_with("spBv1.0/")) {
        proposal.see("topics of Sparkplug B are there: the source `kind: sparkplug` reads them");
    }
    let Some((shape, members)) = main_kind(&topics) else {
        return Ok(None);
    };
    let one_value = !matches!(
        &shape,
        Shape::Json(Fields { values: Some(_), .. }) | Shape::LineProtocol
    );
    let levels = Levels::of(&members);
    let named = matches!(&shape, Shape::Json(Fields { machine: Some(_), .. }));
    let signal_named = matches!(&shape, Shape::Json(Fields { signal: Some(_), .. })) || !one_value;
    let (pattern, machine) = levels.pattern(!named, !signal_named);
    let reason = format!("{} of {} topics fit it", members.len(), topics.len());
    proposal.line(format!("topic: {}", in_quotes(&pattern)), Some(reason));
    if let (false, false) = (machine, named) {
        let reason = "no level of the topics tells machines apart".to_owned();
        proposal.line("machine: machine-1", Some(reason));
    }
    decode(&shape, &mut proposal);
    Ok(Some(proposal))
}

/// The same for messages with keys and a topic without meaning (Kafka). Rates are by the messages' own times: those that were kept come
/// faster than they were sent.
///
/// # Errors
/// The batches hold no messages.
pub fn by_key(raw: &[RecordBatch]) -> anyhow::Result<Option<Proposal>> {
    let (topics, sent_in_secs) = gather(raw)?;
    let mut proposal = Proposal::default();
    list(&topics, sent_in_secs, &mut proposal);
    let Some((shape, members)) = main_kind(&topics) else {
        return Ok(None);
    };
    let keys: BTreeSet<&Vec<u8>> = members.iter().flat_map(|name| &topics[*name].keys).collect();
    let readable = keys
        .iter()
        .all(|key| std::str::from_utf8(key).is_ok_and(|key| !key.is_empty()));
    let named = matches!(&shape, Shape::Json(Fields { machine: Some(_), .. }));
    if !named {
        let (machine, reason) = if !keys.is_empty() && readable {
            ("\"{key}\"", format!("{} keys came", keys.len()))
        } else {
            ("\"{topic}\"", "there are no keys that name a machine".to_owned())
        };
        proposal.line(format!("machine: {machine}"), Some(reason));
    }
    if let Shape::Json(Fields {
        signal: None,
        value: Some(value),
        ..
    }) = &shape
    {
        let name = value
            .rsplit('/')
            .next()
            .filter(|name| !name.is_empty())
            .unwrap_or("value");
        proposal.line(
            format!("signal: {}", quoted(name)),
            Some("the payload names none".into()),
        );
    }
    if matches!(shape, Shape::Number | Shape::Text) {
        proposal.line("signal: value", Some("the payload names none".into()));
    }
    decode(&shape, &mut proposal);
    Ok(Some(proposal))
}

/// Why none of these messages can be read, as far as the first of them tells.
///
/// # Errors
/// The batches hold no messages.
pub fn unreadable(raw: &[RecordBatch]) -> anyhow::Result<String> {
    let (topics, _) = gather(raw)?;
    let examples = topics.values().flat_map(|topic| &topic.examples);
    let Some(first) = examples.into_iter().find(|payload| !payload.is_empty()) else {
        return Ok("all of them are empty".into());
    };
    let shown: String = first.escape_ascii().map(char::from).take(SHOWN).collect();
    let hint = match first.first() {
        Some(0) => {
            "; a zero byte and a number before the record is how serializers with a schema registry write Avro: \
                    decode: {format: avro, registry: {url: ...}}"
        }
        _ => "; Avro, Protobuf, Arrow and CSV need a `decode` section by hand",
    };
    Ok(format!("the first is {shown}{hint}"))
}

/// By topic, and the seconds from the first message to the last.
fn gather(raw: &[RecordBatch]) -> anyhow::Result<(BTreeMap<String, Topic>, f64)> {
    let mut topics: BTreeMap<String, Topic> = BTreeMap::new();
    let (mut first, mut last) = (i64::MAX, i64::MIN);
    for batch in raw {
        let messages = Messages::of(batch)?;
        let mut headers = Vec::new();
        for row in 0..messages.len() {
            let message = messages.get(row, &mut headers);
            (first, last) = (first.min(message.received), last.max(message.received));
            if !topics.contains_key(message.topic) {
                topics.insert(message.topic.to_owned(), Topic::default());
            }
            let Some(topic) = topics.get_mut(message.topic) else {
                continue;
            };
            topic.messages += 1;
            topic.bytes += message.payload.len() as u64;
            if topic.examples.len() < EXAMPLES {
                topic.examples.push(message.payload.to_vec());
            }
            if let Some(key) = message.key
                && topic.keys.len() < 10_000
            {
                topic.keys.insert(key.to_vec());
            }
        }
    }
    Ok((topics, last.saturating_sub(first).max(0) as f64 / 1e6))
}

fn list(topics: &BTreeMap<String, Topic>, seconds: f64, proposal: &mut Proposal) {
    let all: u64 = topics.values().map(|topic| topic.messages).sum();
    // So few that they say nothing of a rate.
    let seconds = seconds.max(1.0);
    proposal.see(&format!(
        "{all} messages on {} topics in {seconds:.1} s, {:.0} a second",
        topics.len(),
        all as f64 / seconds
    ));
    for (name, topic) in topics.iter().take(LISTED) {
        let example = topic.examples.first().map(Vec::as_slice).unwrap_or_default();
        let example: String = String::from_utf8_lossy(example).chars().take(SHOWN).collect();
        let rate = topic.messages as f64 / seconds;
        proposal.see(&format!("  {name}: {rate:.1} a second, like {example}"));
    }
    if topics.len() > LISTED {
        proposal.see(&format!("  and {} more", topics.len() - LISTED));
    }
}

/// The kind of payload that most messages have, among topics with as many levels, and its topics.
fn main_kind(topics: &BTreeMap<String, Topic>) -> Option<(Shape, Vec<&str>)> {
    let mut kinds: Vec<(Shape, usize, u64, Vec<&str>)> = Vec::new();
    for (name, topic) in topics {
        let shape = shape(topic.examples.iter().map(Vec::as_slice));
        let depth = name.split('/').count();
        if shape == Shape::Unknown || name.starts_with("spBv1.0/") {
            continue;
        }
        match kinds.iter_mut().find(|kind| kind.0 == shape && kind.1 == depth) {
            Some(kind) => {
                kind.2 += topic.messages;
                kind.3.push(name);
            }
            None => kinds.push((shape, depth, topic.messages, vec![name])),
        }
    }
    let most = kinds.into_iter().max_by_key(|kind| kind.2)?;
    Some((most.0, most.3))
}

/// The levels of topics that have as many.
struct Levels<'t> {
    /// Of each level all texts.
    texts: Vec<BTreeSet<&'t str>>,
}

impl<'t> Levels<'t> {
    fn of(topics: &[&'t str]) -> Self {
        let mut texts: Vec<BTreeSet<&str>> = Vec::new();
        for topic in topics {
            for (at, level) in topic.split('/').enumerate() {
                if texts.len() <= at {
                    texts.push(BTreeSet::new());
                }
                texts[at].insert(level);
            }
        }
        Levels { texts }
    }

    /// The pattern, and whether a level names the machine. The signal is the last level; the machine the last one before it that tells
    /// topics apart, or else the one before it.
    fn pattern(&self, wants_machine: bool, wants_signal: bool) -> (String, bool) {
        let count = self.texts.len();
        let signal = wants_signal.then(|| count - 1);
        let before = signal.unwrap_or(count);
        let apart = (0..before).rev().find(|&at| self.texts[at].len() > 1);
        let machine = apart.or(before.checked_sub(1)).filter(|_| wants_machine);
        let mut names = Vec::new();
        for (at, texts) in self.texts.iter().enumerate() {
            names.push(match texts.first() {
                _ if Some(at) == signal => "{signal}".to_owned(),
                _ if Some(at) == machine => "{machine}".to_owned(),
                Some(text) if texts.len() == 1 && !text.contains(['{', '}', '+', '#']) && !text.is_empty() => {
                    (*text).to_owned()
                }
                _ => "+".to_owned(),
            });
        }
        (names.join("/"), machine.is_some())
    }
}

fn decode(shape: &Shape, proposal: &mut Proposal) {
    let fields = match shape {
        Shape::Number => return proposal.line("decode: {format: number}", Some("payloads are bare numbers".into())),
        Shape::Text | Shape::Unknown => {
            return proposal.line("decode: {format: text}", Some("payloads are texts".into()));
        }
        Shape::LineProtocol => {
            return proposal.line("decode: {format: influx}", Some("payloads are InfluxDB lines".into()));
        }
        Shape::Json(fields) => fields,
    };
    let mut settings = vec!["format: json".to_owned()];
    let reason = match &fields.time {
        Some((pointer, unit)) => {
            settings.push(format!("time: {}, unit: {}", quoted(pointer), unit.name()));
            format!("`{pointer}` looks like a time")
        }
        None => "no member looks like a time: that of arrival is taken".to_owned(),
    };
    let pointers = [
        ("value", &fields.value),
        ("values", &fields.values),
        ("machine", &fields.machine),
        ("signal", &fields.signal),
    ];
    for (key, pointer) in pointers {
        if let Some(pointer) = pointer {
            settings.push(format!("{key}: {}", quoted(pointer)));
        }
    }
    proposal.line(format!("decode: {{{}}}", settings.join(", ")), Some(reason));
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::codec::message::{Message, MessageBatch};

    fn batch(messages: &[(&str, Option<&str>, &str)]) -> RecordBatch {
        let mut batch = MessageBatch::default();
        for (topic, key, payload) in messages {
            let message = Message {
                topic,
                key: key.map(str::as_bytes),
                headers: &[],
                payload: payload.as_bytes(),
                received: 0,
                sequence: 0,
            };
            batch.push(message).unwrap();
        }
        batch.finish().unwrap()
    }

    fn lines(proposal: Option<Proposal>) -> String {
        let lines = proposal.map(|proposal| proposal.lines).unwrap_or_default();
        lines.into_iter().map(|(line, _)| line).collect::<Vec<_>>().join("; ")
    }

    fn topics(messages: &[(&str, &str)], expect: &str) {
        let messages: Vec<_> = messages
            .iter()
            .map(|(topic, payload)| (*topic, None, *payload))
            .collect();
        assert_eq!(lines(by_topic(&[batch(&messages)], 1.0).unwrap()), expect);
    }

    #[test]
    fn levels_and_payloads() {
        topics(
            &[
                ("plant/l1/press-1/force", r#"{"ts":1767225600000,"value":1}"#),
                ("plant/l1/press-1/travel", r#"{"ts":1767225600000,"value":1}"#),
                ("plant/l1/press-2/force", r#"{"ts":1767225600000,"value":1}"#),
            ],
            r#"topic: "plant/l1/{machine}/{signal}"; decode: {format: json, time: /ts, unit: ms, value: /value}"#,
        );
        topics(
            &[("a/press-1/force", "1.5"), ("a/press-1/travel", "2")],
            r#"topic: "a/{machine}/{signal}"; decode: {format: number}"#,
        );
        topics(
            &[("a/m1", r#"{"x":1,"y":2}"#), ("a/m2", r#"{"x":1,"y":2}"#), ("b", "RUN")],
            r#"topic: "a/{machine}"; decode: {format: json, values: ""}"#,
        );
        topics(
            &[("temperature", "1.5")],
            r#"topic: "{signal}"; machine: machine-1; decode: {format: number}"#,
        );
        topics(&[], "");
        topics(&[("a", "")], "");
    }

    #[test]
    fn what_can_not_be_read_is_shown() {
        let check = |payloads: &[&str], part: &str| {
            let messages: Vec<_> = payloads.iter().map(|payload| ("t", None, *payload)).collect();
            assert!(by_key(&[batch(&messages)]).unwrap().is_none(), "{payloads:?}");
            let said = unreadable(&[batch(&messages)]).unwrap();
            assert!(said.contains(part), "{said}");
        };
        check(&["\0\0\0\0\u{1}press"], "\\x00\\x00\\x00\\x00\\x01press; a zero byte");
        check(&["", "{broken"], "{broken; Avro, Protobuf");
        check(&["", ""], "all of them are empty");
        check(&[], "all of them are empty");
    }

    #[test]
    fn keys() {
        let json = r#"{"ts":1767225600000,"value":1}"#;
        let with_keys = batch(&[("t", Some("m1"), json), ("t", Some("m2"), json)]);
        assert_eq!(
            lines(by_key(&[with_keys]).unwrap()),
            r#"machine: "{key}"; signal: value; decode: {format: json, time: /ts, unit: ms, value: /value}"#
        );
        let named = r#"{"machine":"m","signal":"s","ts":1767225600000,"value":1}"#;
        assert_eq!(
            lines(by_key(&[batch(&[("t", None, named)])]).unwrap()),
            r#"decode: {format: json, time: /ts, unit: ms, value: /value, machine: /machine, signal: /signal}"#
        );
    }
}
