//! What a payload is, from some examples of it.

use serde_json::Value;

use crate::time::Unit;

/// How payloads of one kind are read.
#[derive(Clone, Debug, PartialEq)]
pub enum Shape {
    /// A bare number or boolean.
    Number,
    /// A text.
    Text,
    /// InfluxDB line protocol.
    LineProtocol,
    /// A JSON document.
    Json(Fields),
    /// Neither: it is counted, not read.
    Unknown,
}

/// Where things stand in a JSON document.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Fields {
    /// The time and its unit.
    pub time: Option<(String, Unit)>,
    /// The one value.
    pub value: Option<String>,
    /// Else the object whose members are values.
    pub values: Option<String>,
    /// A text that names the machine, and one that names the signal.
    pub machine: Option<String>,
    pub signal: Option<String>,
}

/// Names that say what stands there, in order of trust.
const TIMES: [&str; 9] = [
    "timestamp",
    "ts",
    "time",
    "timestamp_ms",
    "datetime",
    "date",
    "_time",
    "t",
    "@timestamp",
];
const VALUES: [&str; 5] = ["value", "val", "v", "reading", "data"];
const MACHINES: [&str; 9] = [
    "machine",
    "machine_id",
    "device",
    "device_id",
    "deviceId",
    "asset",
    "equipment",
    "station",
    "host",
];
const SIGNALS: [&str; 8] = [
    "signal",
    "sensor",
    "sensor_id",
    "tag",
    "metric",
    "name",
    "variable",
    "channel",
];

/// Years that a machine's clock may show: 2000 to 2100, in s.
const SECONDS: std::ops::Range<f64> = 946_684_800.0..4_102_444_800.0;

/// Objects and lists that are looked into.
const DEPTH: usize = 4;

/// What these payloads of one kind are.
pub fn shape<'p>(payloads: impl IntoIterator<Item = &'p [u8]>) -> Shape {
    let mut documents = Vec::new();
    let mut found: Vec<Shape> = Vec::new();
    for payload in payloads {
        let text = std::str::from_utf8(payload).map(str::trim);
        found.push(match text {
            Err(_) | Ok("") => Shape::Unknown,
            // Bytes of a binary format that happen to be UTF-8.
            Ok(text) if text.contains(|c: char| c.is_control() && !c.is_whitespace()) => Shape::Unknown,
            Ok(text) if text == "true" || text == "false" || text.parse::<f64>().is_ok() => Shape::Number,
            Ok(text) if text.starts_with(['{', '[']) => match serde_json::from_str::<Value>(text) {
                Ok(document) => {
                    documents.push(document);
                    continue;
                }
                Err(_) => Shape::Unknown,
            },
            Ok(text) if is_line_protocol(text) => Shape::LineProtocol,
            Ok(_) => Shape::Text,
        });
    }
    if documents.len() * 2 > found.len() {
        return fields(&documents).map_or(Shape::Unknown, Shape::Json);
    }
    let most = |shape: &Shape| found.iter().filter(|other| *other == shape).count();
    found
        .iter()
        .max_by_key(|shape| most(shape))
        .cloned()
        .unwrap_or(Shape::Unknown)
}

/// `measurement,tag=x field=1,other=2 1700000000`
fn is_line_protocol(text: &str) -> bool {
    let line = text.lines().next().unwrap_or_default();
    let mut parts = line.split(' ');
    let (Some(name), Some(fields)) = (parts.next(), parts.next()) else {
        return false;
    };
    let named = |part: &str| {
        part.split_once('=')
            .is_some_and(|(key, value)| !key.is_empty() && !value.is_empty())
    };
    !name.is_empty() && name.split(',').skip(1).all(named) && fields.split(',').all(named)
}

/// A scalar and where it stands.
struct Leaf<'v> {
    pointer: String,
    name: &'v str,
    value: &'v Value,
}

/// Where things stand in documents of one form; none if there is no value in them.
fn fields(documents: &[Value]) -> Option<Fields> {
    let first = documents.first()?;
    let mut leaves = Vec::new();
    collect(first, String::new(), "", 0, &mut leaves);
    let time = time(&leaves, documents);
    let at_time = |leaf: &&Leaf<'_>| time.as_ref().is_none_or(|(pointer, _)| *pointer != leaf.pointer);
    let numbers: Vec<&Leaf<'_>> = (leaves.iter().filter(at_time))
        .filter(|leaf| leaf.value.is_number() || leaf.value.is_boolean())
        .filter(|leaf| !is_time(leaf.value))
        .collect();
    let named = |names: &[&str]| {
        let texts = leaves.iter().filter(at_time).filter(|leaf| leaf.value.is_string());
        let ranked = texts.filter_map(|leaf| Some((names.iter().position(|name| *name == leaf.name)?, leaf)));
        ranked
            .min_by_key(|(rank, _)| *rank)
            .map(|(_, leaf)| leaf.pointer.clone())
    };
    let named_value: Vec<&Leaf<'_>> = numbers
        .iter()
        .copied()
        .filter(|leaf| VALUES.contains(&leaf.name))
        .collect();
    let one = match (numbers.as_slice(), named_value.as_slice()) {
        ([only], _) | (_, [only]) => Some(only.pointer.clone()),
        _ => None,
    };
    let values = match &one {
        Some(_) => None,
        None => Some(parent(&numbers.first()?.pointer).to_owned()),
    };
    let signal = one.is_some().then(|| named(&SIGNALS)).flatten();
    Some(Fields {
        value: one,
        values,
        machine: named(&MACHINES),
        signal,
        time,
    })
}

fn parent(pointer: &str) -> &str {
    pointer.rsplit_once('/').map_or("", |(parent, _)| parent)
}

fn collect<'v>(value: &'v Value, pointer: String, name: &'v str, depth: usize, leaves: &mut Vec<Leaf<'v>>) {
    match value {
        Value::Object(members) if depth < DEPTH => {
            for (name, member) in members {
                let token = name.replace('~', "~0").replace('/', "~1");
                collect(member, format!("{pointer}/{token}"), name, depth + 1, leaves);
            }
        }
        // All elements of a list are read alike.
        Value::Array(elements) if depth < DEPTH => {
            if let Some(element) = elements.iter().find(|element| element.is_object()) {
                collect(element, format!("{pointer}/*"), name, depth + 1, leaves);
            }
        }
        Value::Object(_) | Value::Array(_) | Value::Null => {}
        value => leaves.push(Leaf { pointer, name, value }),
    }
}

fn time(leaves: &[Leaf<'_>], documents: &[Value]) -> Option<(String, Unit)> {
    let rank = |leaf: &&Leaf<'_>| {
        let name = leaf.name.to_lowercase();
        TIMES.iter().position(|known| *known == name).unwrap_or(TIMES.len())
    };
    let mut times: Vec<&Leaf<'_>> = leaves.iter().filter(|leaf| is_time(leaf.value)).collect();
    times.sort_by_key(rank);
    let leaf = times.first()?;
    let of = |document: &Value| at(document, &leaf.pointer).and_then(unit);
    let unit = unit(leaf.value)?;
    // A number that is a time in one document and something else in the next is none.
    let all = documents.iter().all(|document| of(document) == Some(unit));
    all.then(|| (leaf.pointer.clone(), unit))
}

/// The value at a pointer, of the first element of each list.
fn at<'v>(document: &'v Value, pointer: &str) -> Option<&'v Value> {
    pointer
        .split('/')
        .skip(1)
        .try_fold(document, |value, token| match value {
            Value::Array(elements) => elements.first(),
            value => value.get(token.replace("~1", "/").replace("~0", "~")),
        })
}

fn is_time(value: &Value) -> bool {
    unit(value).is_some()
}

/// The unit in which a value is a time of our age.
fn unit(value: &Value) -> Option<Unit> {
    match value {
        Value::Number(number) => unit_of(number.as_f64()?),
        Value::String(text) => unit_of_text(text),
        _ => None,
    }
}

pub(super) fn unit_of_text(text: &str) -> Option<Unit> {
    if text.parse::<jiff::Timestamp>().is_ok() {
        return Some(Unit::Rfc3339);
    }
    let dated = text.len() >= 19 && text.parse::<jiff::civil::DateTime>().is_ok();
    dated.then_some(Unit::Rfc3339).or_else(|| unit_of(text.parse().ok()?))
}

/// As [`unit`], for a number.
fn unit_of(number: f64) -> Option<Unit> {
    [(Unit::S, 1.0), (Unit::Ms, 1e3), (Unit::Us, 1e6), (Unit::Ns, 1e9)]
        .into_iter()
        .find(|(_, per_second)| SECONDS.contains(&(number / per_second)))
        .map(|(unit, _)| unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(payload: &str, expect: &str) {
        let shown = match shape([payload.as_bytes()]) {
            Shape::Json(fields) => {
                let pointers = [fields.value, fields.values, fields.machine, fields.signal];
                let time = fields.time.map(|(pointer, unit)| format!("{pointer} {unit:?}"));
                let all = std::iter::once(time).chain(pointers);
                all.map(|text| text.unwrap_or_else(|| "-".into()))
                    .collect::<Vec<_>>()
                    .join(", ")
            }
            other => format!("{other:?}"),
        };
        assert_eq!(shown, expect, "{payload}");
    }

    #[test]
    fn payloads_of_plants() {
        check("21.5", "Number");
        check("true", "Number");
        check("RUN", "Text");
        check(
            "press,line=a temperature=21.5,force=3i 1767225600000000000",
            "LineProtocol",
        );
        check("temperature=3", "Text");
        check("", "Unknown");
        check("{broken", "Unknown");
        check("\0\0\0\0\u{1}press", "Unknown");
        // time, value, values, machine, signal
        check(
            r#"{"timestamp_ms":1767225600000,"value":3.5}"#,
            "/timestamp_ms Ms, /value, -, -, -",
        );
        check(
            r#"{"ts":"2026-01-01T00:00:00Z","temp":1,"force":2}"#,
            "/ts Rfc3339, -, , -, -",
        );
        check(r#"{"ts":1767225600,"values":{"a":1,"b":2}}"#, "/ts S, -, /values, -, -");
        check(
            r#"{"device":"m1","sensor":"temp","v":3,"q":192,"t":1767225600000000}"#,
            "/t Us, /v, -, /device, /sensor",
        );
        check(
            r#"{"device":"m1","data":[{"t":1767225600000,"v":1.0},{"t":1767225600010,"v":2.0}]}"#,
            "/data/*/t Ms, /data/*/v, -, /device, -",
        );
        check(r#"{"running":true}"#, "-, /running, -, -, -");
        check(r#"{"state":"RUN"}"#, "Unknown");
        check(r#"{"a/b":1}"#, "-, /a~1b, -, -, -");
    }
}
