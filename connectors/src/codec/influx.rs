//! Lines of the InfluxDB line protocol: `measurement,tag=value field=1.5,other=2i 1700000000000000000`.
//!
//! A line is read as a document with `measurement`, `tags`, `fields` and `time`.

use std::borrow::Cow;

use serde::de::value::Error;
use serde::de::{Deserializer, Visitor};
use serde::forward_to_deserialize_any;

use super::leaf::{Leaf, Object};
use super::query::{Document, Found, Query, Scalar};

/// A line.
#[derive(Debug, PartialEq)]
pub(crate) struct Line<'j> {
    measurement: Cow<'j, str>,
    tags: Vec<(Cow<'j, str>, Scalar<'j>)>,
    fields: Vec<(Cow<'j, str>, Scalar<'j>)>,
    time: Option<i64>,
}

impl<'j> Line<'j> {
    /// Reads a line; `None` for an empty one and for a comment.
    ///
    /// # Errors
    /// The words for a dead letter.
    pub(crate) fn parse(line: &'j [u8]) -> Result<Option<Self>, String> {
        let text = std::str::from_utf8(line).map_err(|e| format!("the line is not UTF-8: {e}"))?;
        let text = text.trim_ascii();
        if text.is_empty() || text.starts_with('#') {
            return Ok(None);
        }
        let mut cursor = Cursor { text, at: 0 };
        let measurement = cursor.word(", ");
        if measurement.is_empty() {
            return Err("the line names no measurement".into());
        }
        let mut tags = Vec::new();
        while cursor.take(b',') {
            let key = cursor.word(",= ");
            if key.is_empty() || !cursor.take(b'=') {
                return Err(format!("tag {} has no `key=value`", tags.len() + 1));
            }
            tags.push((key, Scalar::Text(cursor.word(", "))));
        }
        if !cursor.blanks() {
            return Err("the line has no fields".into());
        }
        let mut fields = Vec::new();
        loop {
            let key = cursor.word(",= ");
            if key.is_empty() || !cursor.take(b'=') {
                return Err(format!("field {} has no `key=value`", fields.len() + 1));
            }
            let value = cursor.field_value(&key)?;
            fields.push((key, value));
            if !cursor.take(b',') {
                break;
            }
        }
        let blank = cursor.blanks();
        let rest = &cursor.text[cursor.at..];
        if !blank && !rest.is_empty() {
            return Err(format!("`{}` stands behind the fields", super::short(rest)));
        }
        let time = match rest {
            "" => None,
            _ => Some(
                rest.parse()
                    .map_err(|_| format!("the time `{}` is no whole number", super::short(rest)))?,
            ),
        };
        Ok(Some(Line {
            measurement,
            tags,
            fields,
            time,
        }))
    }
}

struct Cursor<'j> {
    text: &'j str,
    at: usize,
}

impl<'j> Cursor<'j> {
    fn take(&mut self, byte: u8) -> bool {
        let found = self.text.as_bytes().get(self.at) == Some(&byte);
        self.at += usize::from(found);
        found
    }

    fn blanks(&mut self) -> bool {
        let rest = &self.text[self.at..];
        let blanks = rest.len() - rest.trim_start_matches(' ').len();
        self.at += blanks;
        blanks > 0
    }

    /// Up to one of the ends that no backslash stands before. A backslash before anything else is itself.
    fn word(&mut self, ends: &str) -> Cow<'j, str> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut escaped = false;
        while let Some(byte) = bytes.get(self.at) {
            if *byte == b'\\' && bytes.get(self.at + 1).is_some_and(|next| b",= ".contains(next)) {
                escaped = true;
                self.at += 2;
            } else if ends.as_bytes().contains(byte) {
                break;
            } else {
                self.at += 1;
            }
        }
        let word = &self.text[start..self.at];
        if escaped {
            word.replace("\\,", ",").replace("\\=", "=").replace("\\ ", " ").into()
        } else {
            word.into()
        }
    }

    fn field_value(&mut self, key: &str) -> Result<Scalar<'j>, String> {
        if self.take(b'"') {
            return self.quoted(key);
        }
        let word = self.word(", ");
        let bad = || {
            format!(
                "the value `{}` of field `{}` can't be read",
                super::short(&word),
                super::short(key)
            )
        };
        match &*word {
            "t" | "T" | "true" | "True" | "TRUE" => return Ok(Scalar::Bool(true)),
            "f" | "F" | "false" | "False" | "FALSE" => return Ok(Scalar::Bool(false)),
            _ => {}
        }
        if let Some(digits) = word.strip_suffix('i') {
            return digits.parse().map(Scalar::Int).map_err(|_| bad());
        }
        if let Some(digits) = word.strip_suffix('u') {
            let number: u64 = digits.parse().map_err(|_| bad())?;
            return Ok(i64::try_from(number).map_or(Scalar::Float(number as f64), Scalar::Int));
        }
        // Neither `nan` nor `inf` is a number in this protocol.
        let is_number = word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
            && word.ends_with(|c: char| c.is_ascii_digit() || c == '.');
        let number = is_number
            .then(|| fast_float2::parse::<f64, _>(word.as_bytes()).ok())
            .flatten();
        number.map(Scalar::Float).ok_or_else(bad)
    }

    /// The rest of a text, behind its opening quote.
    fn quoted(&mut self, key: &str) -> Result<Scalar<'j>, String> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut escaped = false;
        loop {
            match bytes.get(self.at) {
                None => {
                    return Err(format!(
                        "the text of field `{}` has no closing quote",
                        super::short(key)
                    ));
                }
                Some(b'\\') if matches!(bytes.get(self.at + 1), Some(b'"' | b'\\')) => {
                    escaped = true;
                    self.at += 2;
                }
                Some(b'"') => break,
                Some(_) => self.at += 1,
            }
        }
        let word = &self.text[start..self.at];
        self.at += 1;
        Ok(Scalar::Text(if escaped { unescape(word).into() } else { word.into() }))
    }
}

fn unescape(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    let mut chars = word.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('"' | '\\')) => out.push(next),
                Some(next) => out.extend(['\\', next]),
                None => out.push('\\'),
            },
            _ => out.push(c),
        }
    }
    out
}

impl<'j> Document<'j> for Line<'j> {
    fn find(&self, query: &Query, found: &mut Found<'j>) -> Result<(), String> {
        let time = self.time.map(|time| ("time", Part::Leaf(Scalar::Int(time))));
        let parts = [
            ("measurement", Part::Leaf(Scalar::Text(self.measurement.clone()))),
            ("tags", Part::Members(&self.tags)),
            ("fields", Part::Members(&self.fields)),
        ];
        query
            .walk(Object::new(parts.into_iter().chain(time)), found)
            .map_err(|e| e.to_string())
    }
}

/// A part of a line.
enum Part<'l, 'j> {
    Leaf(Scalar<'j>),
    /// Tags or fields.
    Members(&'l [(Cow<'j, str>, Scalar<'j>)]),
}

impl<'j> Deserializer<'j> for Part<'_, 'j> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Part::Leaf(scalar) => Leaf(scalar).deserialize_any(visitor),
            Part::Members(members) => {
                let members = members.iter().map(|(name, value)| (name, Leaf(value.clone())));
                Object::new(members).deserialize_any(visitor)
            }
        }
    }

    forward_to_deserialize_any! {
        <V: Visitor<'j>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn shown(scalar: &Scalar<'_>) -> String {
        match scalar {
            Scalar::Text(text) => format!("{text:?}"),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn lines() {
        let check = |line: &str, expect: &str| {
            let got = match Line::parse(line.as_bytes()) {
                Ok(None) => "nothing".to_owned(),
                Err(reason) => format!("! {reason}"),
                Ok(Some(line)) => {
                    let list = |members: &[(Cow<'_, str>, Scalar<'_>)]| {
                        let members: Vec<String> = members
                            .iter()
                            .map(|(name, value)| format!("{name}={}", shown(value)))
                            .collect();
                        members.join(",")
                    };
                    let time = line.time.map_or("-".into(), |time| time.to_string());
                    format!(
                        "{} [{}] [{}] {time}",
                        line.measurement,
                        list(&line.tags),
                        list(&line.fields)
                    )
                }
            };
            assert_eq!(got, expect, "{line}");
        };
        check("press v=1", "press [] [v=Float(1.0)] -");
        check(
            "press,line=l1,machine=m\\ 1 v=1.5,n=-2i,u=3u,b=t,s=\"a \\\"b\\\" c\" 1700000000000000000",
            "press [line=\"l1\",machine=\"m 1\"] [v=Float(1.5),n=Int(-2),u=Int(3),b=Bool(true),s=\"a \\\"b\\\" c\"] 1700000000000000000",
        );
        check(
            "a\\,b\\ c,k\\=x=v\\,w f\\ g=FALSE -5",
            "a,b c [k=x=\"v,w\"] [f g=Bool(false)] -5",
        );
        check("m v=\"x,y=1 2\" 7\r", "m [] [v=\"x,y=1 2\"] 7");
        check(
            "m v=1e3,w=+2.,x=.5",
            "m [] [v=Float(1000.0),w=Float(2.0),x=Float(0.5)] -",
        );
        check("m v=18446744073709551615u", "m [] [v=Float(1.8446744073709552e19)] -");
        check("m v=\"C:\\x\\\\\"", "m [] [v=\"C:\\\\x\\\\\"] -");
        check("", "nothing");
        check("# comment", "nothing");
        check("m", "! the line has no fields");
        check("m ", "! the line has no fields");
        check(",t=1 v=1", "! the line names no measurement");
        check("m,t v=1", "! tag 1 has no `key=value`");
        check("m v", "! field 1 has no `key=value`");
        check("m v=1,", "! field 2 has no `key=value`");
        check("m v=", "! the value `` of field `v` can't be read");
        check("m v=nan", "! the value `nan` of field `v` can't be read");
        check("m v=-inf", "! the value `-inf` of field `v` can't be read");
        check("m v=1.5i", "! the value `1.5i` of field `v` can't be read");
        check("m v=\"abc", "! the text of field `v` has no closing quote");
        check("m v=\"abc\"x", "! `x` stands behind the fields");
        check("m v=1 soon", "! the time `soon` is no whole number");
        check("m v=1 1 2", "! the time `1 2` is no whole number");
        assert!(Line::parse(b"m v=\xff").unwrap_err().contains("not UTF-8"));
    }

    #[test]
    fn never_panics() {
        proptest::proptest!(|(line in "[mv,= \\\\\"1ie.#ä-]{0,40}")| { let _ = Line::parse(line.as_bytes()); });
    }
}
