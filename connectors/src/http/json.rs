//! JSON bodies: rows as objects, in a list or one on a line.
//!
//! A row is long (`{"signal": "pressure", "value": 7.5}`) or wide (`{"pressure": 7.5, "state": "run"}`: each member a signal). Both
//! may have `machine`, and the time as `ts`, `time`, `timestamp` or `timestamp_ms`.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::precision::{self, Precision};
use super::rows::{Content, Verdicts};
use crate::codec::query::Scalar;

const MACHINE: &str = "machine";
const SIGNAL: &str = "signal";
const VALUE: &str = "value";
const TEXT: &str = "text";

/// Reads rows from JSON.
pub(super) struct JsonRows {
    precision: Precision,
}

impl JsonRows {
    pub(super) fn new(precision: Precision) -> Self {
        JsonRows { precision }
    }

    /// A list of rows, or rows one after another.
    ///
    /// # Errors
    /// The body as a whole is no JSON; then nothing of it may be used.
    pub(super) fn document(&self, body: &[u8], verdicts: &mut Verdicts<'_>) -> Result<(), String> {
        match body.trim_ascii_start().first() {
            Some(b'[') => {
                for (index, element) in elements(body)?.into_iter().enumerate() {
                    self.row(index, element, verdicts);
                }
                Ok(())
            }
            Some(b'{') => self.objects(body, verdicts),
            _ => Err("the body is no JSON object and no list of them".into()),
        }
    }

    /// A row on each line; blank lines don't count.
    pub(super) fn lines(&self, body: &[u8], verdicts: &mut Verdicts<'_>) {
        for (index, line) in body.split(|byte| *byte == b'\n').enumerate() {
            if !line.trim_ascii().is_empty() {
                self.row(index, line.trim_ascii(), verdicts);
            }
        }
    }

    /// One object, which may stand on many lines, or one on each line.
    fn objects(&self, body: &[u8], verdicts: &mut Verdicts<'_>) -> Result<(), String> {
        match serde_json::from_slice::<serde::de::IgnoredAny>(body) {
            Ok(_) => {
                self.row(0, body.trim_ascii(), verdicts);
                Ok(())
            }
            Err(error) => {
                let body = body.trim_ascii();
                let first = body
                    .split(|byte| *byte == b'\n')
                    .next()
                    .unwrap_or_default()
                    .trim_ascii_end();
                if first.len() == body.len() || !first.ends_with(b"}") {
                    return Err(format!("not JSON: {error}"));
                }
                self.lines(body, verdicts);
                Ok(())
            }
        }
    }

    fn row(&self, index: usize, row: &[u8], verdicts: &mut Verdicts<'_>) {
        let taken = members(row).and_then(|members| self.take(index, row, members, verdicts));
        if let Err(reason) = taken {
            verdicts.refuse(index, reason, row);
        }
    }

    /// Takes a row by its members. An error refuses it as a whole; single members are refused on the way.
    pub(super) fn take(
        &self,
        index: usize,
        row: &[u8],
        members: Vec<Member<'_>>,
        verdicts: &mut Verdicts<'_>,
    ) -> Result<(), String> {
        let mut ts = verdicts.received;
        let mut machine: Cow<'_, str> = verdicts.machine().into();
        let mut signal = None;
        for (name, scalar) in &members {
            match name.as_ref() {
                MACHINE if *scalar == Scalar::Null => {}
                MACHINE => machine = name_of(scalar).ok_or("`machine` is no text")?.into(),
                SIGNAL => signal = Some(name_of(scalar).ok_or("`signal` is no text")?),
                "ts" | "time" | "timestamp" => ts = self.time(scalar, self.precision, verdicts.received)?,
                "timestamp_ms" => ts = self.time(scalar, Precision::MS, verdicts.received)?,
                _ => {}
            }
        }
        if let Some(signal) = signal {
            let content = long_content(members)?;
            return verdicts.take(&machine, &signal, ts, content);
        }
        let mut some = false;
        for (name, scalar) in members {
            if matches!(name.as_ref(), MACHINE | "ts" | "time" | "timestamp" | "timestamp_ms") {
                continue;
            }
            some = true;
            let taken = content(scalar)
                .ok_or_else(|| {
                    format!(
                        "`{name}` is an object, a list or a time; a signal's value is a number, a boolean or a text"
                    )
                })
                .and_then(|content| verdicts.take(&machine, &name, ts, content));
            if let Err(reason) = taken {
                verdicts.refuse(index, reason, row);
            }
        }
        if some {
            Ok(())
        } else {
            Err("the row has no signal".into())
        }
    }

    fn time(&self, scalar: &Scalar<'_>, precision: Precision, received: i64) -> Result<i64, String> {
        match scalar {
            Scalar::Int(count) => precision.time(*count, received),
            Scalar::Float(count) => precision.time_f64(*count, received),
            Scalar::Text(text) => match text.trim().parse::<i64>() {
                Ok(count) => precision.time(count, received),
                Err(_) => precision::from_text(text, received),
            },
            Scalar::Null => Ok(received),
            Scalar::Time(ts) => precision::not_ahead(crate::time::plausible(*ts)?, received),
            Scalar::Bool(_) | Scalar::Nested => Err("the time is neither a number nor a text".into()),
        }
    }
}

/// A member of an object.
pub(super) type Member<'j> = (Cow<'j, str>, Scalar<'j>);

/// The members of one object, without building a tree of those that are nested.
fn members(row: &[u8]) -> Result<Vec<Member<'_>>, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(row);
    let members = deserializer.deserialize_map(Members).and_then(|members| {
        deserializer.end()?;
        Ok(members)
    });
    members.map_err(|e| match e.classify() {
        serde_json::error::Category::Data => format!("a row is an object, like {{\"temperature\": 21.5}}: {e}"),
        _ => format!("not JSON: {e}"),
    })
}

struct Members;

impl<'j> Visitor<'j> for Members {
    type Value = Vec<Member<'j>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(Key(name)) = map.next_key::<Key<'j>>()? {
            members.push((name, map.next_value_seed(One)?));
        }
        Ok(members)
    }
}

#[derive(Deserialize)]
struct Key<'j>(#[serde(borrow)] Cow<'j, str>);

/// A single value, whatever it is.
struct One;

impl<'j> DeserializeSeed<'j> for One {
    type Value = Scalar<'j>;

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<Scalar<'j>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'j> Visitor<'j> for One {
    type Value = Scalar<'j>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Scalar<'j>, E> {
        Ok(Scalar::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Scalar<'j>, E> {
        Ok(Scalar::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Scalar<'j>, E> {
        Ok(Scalar::Int(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Scalar<'j>, E> {
        Ok(i64::try_from(value).map_or(Scalar::Float(value as f64), Scalar::Int))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Scalar<'j>, E> {
        Ok(Scalar::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Scalar<'j>, E> {
        Ok(Scalar::Text(Cow::Owned(value.to_owned())))
    }

    fn visit_borrowed_str<E: Error>(self, value: &'j str) -> Result<Scalar<'j>, E> {
        Ok(Scalar::Text(Cow::Borrowed(value)))
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<Scalar<'j>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nested)
    }

    fn visit_seq<A: SeqAccess<'j>>(self, mut list: A) -> Result<Scalar<'j>, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Scalar::Nested)
    }
}

fn name_of(scalar: &Scalar<'_>) -> Option<String> {
    match scalar {
        Scalar::Text(text) => Some(text.clone().into_owned()),
        Scalar::Int(number) => Some(number.to_string()),
        _ => None,
    }
}

fn long_content<'j>(members: Vec<Member<'j>>) -> Result<Content<'j>, String> {
    let (mut found, mut value, mut text) = (false, None, None);
    for (name, scalar) in members {
        match name.as_ref() {
            VALUE => {
                let from_value;
                (value, from_value) = content(scalar).ok_or("an object or a list stands at `value`")?;
                text = text.or(from_value);
                found = true;
            }
            TEXT => {
                text = match scalar {
                    Scalar::Text(own) => Some(own),
                    Scalar::Null => text,
                    _ => return Err("`text` is no text".into()),
                };
                found = true;
            }
            _ => {}
        }
    }
    found
        .then_some((value, text))
        .ok_or_else(|| "the row has no `value` and no `text`".into())
}

/// A scalar as a value, or as a text where it is no number. None if it is neither.
fn content(scalar: Scalar<'_>) -> Option<Content<'_>> {
    Some(match scalar {
        Scalar::Null => (None, None),
        Scalar::Bool(b) => (Some(f64::from(u8::from(b))), None),
        Scalar::Int(i) => (Some(i as f64), None),
        Scalar::Float(f) => (Some(f), None),
        Scalar::Text(text) => match text.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => (Some(number), None),
            _ => (None, Some(text)),
        },
        Scalar::Time(_) | Scalar::Nested => return None,
    })
}

/// The elements of a list, each as it stands. They are not looked into, so that a bad one costs itself only.
fn elements(body: &[u8]) -> Result<Vec<&[u8]>, String> {
    let body = body.trim_ascii();
    let (mut found, mut start, mut depth) = (Vec::new(), 1, 0_usize);
    let (mut in_text, mut escaped, mut ended) = (false, false, false);
    for (at, byte) in body.iter().enumerate() {
        if ended {
            return Err("something stands behind the list".into());
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => depth += 1,
            b',' if depth == 1 => {
                found.push(body[start..at].trim_ascii());
                start = at + 1;
            }
            b']' | b'}' => {
                depth = depth.checked_sub(1).ok_or("a bracket closes what was not opened")?;
                if depth == 0 {
                    let last = body[start..at].trim_ascii();
                    if !last.is_empty() || !found.is_empty() {
                        found.push(last);
                    }
                    ended = true;
                }
            }
            _ => {}
        }
    }
    if ended {
        Ok(found)
    } else {
        Err("the list is not closed: the body may have been cut".into())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::http::catalogue::{Stream, StreamConfig};
    use crate::http::rows::shown;

    const NOW: i64 = 1_767_323_045_000_000;

    fn read(body: &[u8], lines: bool) -> String {
        let config: StreamConfig = serde_json::from_str(r#"{"signals": ["t", "p", "state"]}"#).unwrap();
        let stream = Stream::new("press-1", &config).unwrap();
        let mut verdicts = Verdicts::new(&stream, NOW);
        let json = JsonRows::new(Precision::MS);
        if lines {
            json.lines(body, &mut verdicts);
        } else if let Err(error) = json.document(body, &mut verdicts) {
            return format!("error: {error}");
        }
        shown(verdicts)
    }

    #[test]
    fn documents() {
        let check = |body: &str, expect: &[&str]| assert_eq!(read(body.as_bytes(), false), expect.join("\n"), "{body}");
        check(r#"{"t": 21.5}"#, &["press-1 t 0 21.5"]);
        check("\n {\"t\":\n 21.5}\n", &["press-1 t 0 21.5"]);
        check(
            r#"{"t": 21, "p": true, "state": "run", "ts": 1767323044000, "machine": "m"}"#,
            &["m t -1000000 21", "m p -1000000 1", "m state -1000000 'run'"],
        );
        check(
            r#"[{"signal": "t", "value": 1}, {"signal": "state", "text": "a,]\"", "time": "2026-01-02T03:04:04Z"}]"#,
            &["press-1 t 0 1", "press-1 state -1000000 'a,]\"'"],
        );
        check("{\"t\": 1}\n{\"t\": 2}\n", &["press-1 t 0 1", "press-1 t 0 2"]);
        check(r#"{"signal": "t", "value": null}"#, &["press-1 t 0 -"]);
        check("[]", &[]);
        check(r#"{"t": 1, "timestamp_ms": 1767323045000.5}"#, &["press-1 t 500 1"]);
    }

    #[test]
    fn a_bad_row_costs_one_row() {
        let check = |body: &str, expect: &[&str]| {
            let got = read(body.as_bytes(), false);
            let lines: Vec<&str> = got.lines().collect();
            assert_eq!(lines.len(), expect.len(), "{body}: {got}");
            for (line, part) in lines.iter().zip(expect) {
                assert!(line.contains(part), "{body}: {line}: {part}");
            }
        };
        check(
            r#"[{"t": 1}, {"t": }, 7, [{"t": 1}], {"x": 1, "p": 2}, {"ts": "soon", "t": 1}, {"t": [1]}, {}]"#,
            &[
                "press-1 t 0 1",
                "press-1 p 0 2",
                "refused 1: not JSON",
                "refused 2: a row is an object",
                "refused 3: a row is an object",
                "refused 4: the stream `press-1` has no signal `x`",
                "refused 5: the time `soon` is no date and time",
                "refused 6: `t` is an object, a list or a time",
                "refused 7: the row has no signal",
            ],
        );
        check(r#"[{"t": 1},,{"t": 2}]"#, &["t 0 1", "t 0 2", "refused 1: not JSON"]);
        check(
            r#"{"ts": 1767323045, "t": 1}"#,
            &["refused 0: the time is read in ms and is far from now; in s it would be"],
        );
        check(r#"{"signal": "t"}"#, &["refused 0: the row has no `value`"]);
        check(
            r#"{"signal": "t", "value": {}}"#,
            &["refused 0: an object or a list stands at `value`"],
        );
        check(r#"{"machine": [], "t": 1}"#, &["refused 0: `machine` is no text"]);
        check(r#"{"machine": null, "t": 1}"#, &["press-1 t 0 1"]);
        check(r#"{"machine": "", "t": 1}"#, &["refused 0: the row names no machine"]);
        check(
            "{\"t\": 1}\n{\"t\": \n{\"t\": 3}",
            &["t 0 1", "t 0 3", "refused 1: not JSON: EOF"],
        );
    }

    #[test]
    fn a_body_that_is_no_json_is_an_error() {
        let check = |body: &str, part: &str| {
            let got = read(body.as_bytes(), false);
            assert!(got.starts_with("error: ") && got.contains(part), "{body}: {got}");
        };
        check("", "no JSON object");
        check("21.5", "no JSON object");
        check(r#"[{"t": 1}"#, "not closed");
        check(r#"[{"t": 1}] x"#, "behind the list");
        check(r#"{"t": 1"#, "not JSON: EOF");
        check("{\"t\":\n1", "not JSON: EOF");
    }

    #[test]
    fn lines_count_from_0_with_the_blank_ones() {
        assert_eq!(
            read(b"{\"t\":1}\n\n{\"t\":2}\r\nnope\n", true)
                .lines()
                .collect::<Vec<_>>(),
            [
                "press-1 t 0 1",
                "press-1 t 0 2",
                "refused 3: not JSON: expected ident at line 1 column 2"
            ]
        );
    }

    #[test]
    fn deep_and_broken_bodies_neither_panic_nor_recurse() {
        let deep = format!("[{}{}]", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(deep.as_bytes(), false).contains("refused 0"));
        proptest::proptest!(|(bytes: Vec<u8>)| { read(&bytes, false); read(&bytes, true); });
        proptest::proptest!(|(text in "[\\[\\]{},:\"\\\\t1 \n]{0,60}")| { read(text.as_bytes(), false); });
    }
}
