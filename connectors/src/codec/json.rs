//! JSON: scalars at pointers without building a tree, rows as JSON objects.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{Schema, TimestampMicrosecondType};
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A JSON pointer (RFC 6901): `/reading/value`, `/list/0`; the empty text is the whole document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

/// The deepest a pointer may reach; what lies deeper is skipped without recursion.
const DEPTH_LIMIT: usize = 32;

impl Pointer {
    /// Parses a pointer.
    ///
    /// # Errors
    /// It does not begin with `/`, or is too deep.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Pointer(Vec::new()));
        }
        let rest = text
            .strip_prefix('/')
            .ok_or_else(|| format!("`{text}` is no JSON pointer; write /{text}"))?;
        let tokens: Vec<String> = rest
            .split('/')
            .map(|token| token.replace("~1", "/").replace("~0", "~"))
            .collect();
        if tokens.len() > DEPTH_LIMIT {
            return Err(format!("a JSON pointer may have at most {DEPTH_LIMIT} parts"));
        }
        Ok(Pointer(tokens))
    }
}

/// What stands at a pointer.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar<'j> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A text.
    Text(Cow<'j, str>),
    /// An object or a list.
    Nested,
}

/// What to look for in a document. At most 32 pointers.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// Where to look.
    pub pointers: Vec<Pointer>,
    /// Which of them names an object whose members are all wanted.
    pub members_of: Option<usize>,
}

/// What a query found.
#[derive(Debug, Default, PartialEq)]
pub struct Found<'j> {
    /// One for each pointer; none where the document has nothing there.
    pub scalars: Vec<Option<Scalar<'j>>>,
    /// Members of the object at [`Query::members_of`], without those that another pointer names.
    pub members: Vec<(Cow<'j, str>, Scalar<'j>)>,
}

impl Query {
    /// Reads a document once and picks out what is wanted.
    ///
    /// # Errors
    /// The payload is not one JSON document; the message says where.
    pub fn find<'j>(&self, json: &'j [u8]) -> Result<Found<'j>, serde_json::Error> {
        let mut found = Found {
            scalars: vec![None; self.pointers.len()],
            members: Vec::new(),
        };
        let mut deserializer = serde_json::Deserializer::from_slice(json);
        let all = (0..self.pointers.len()).fold(0, |mask, index| mask | 1 << index);
        Walk {
            query: self,
            active: all,
            depth: 0,
            found: &mut found,
        }
        .deserialize(&mut deserializer)?;
        deserializer.end()?;
        Ok(found)
    }
}

/// One step down the document: `active` has a bit for each pointer that leads through here.
struct Walk<'q, 'j> {
    query: &'q Query,
    active: u32,
    depth: usize,
    found: &'q mut Found<'j>,
}

#[derive(Deserialize)]
struct Key<'j>(#[serde(borrow)] Cow<'j, str>);

impl<'j> Walk<'_, 'j> {
    fn ends_here(&self) -> impl Iterator<Item = usize> + use<'j> {
        let (active, depth) = (self.active, self.depth);
        let ends: Vec<bool> = self
            .query
            .pointers
            .iter()
            .map(|pointer| pointer.0.len() == depth)
            .collect();
        ends.into_iter()
            .enumerate()
            .filter(move |(index, end)| *end && active & 1 << index != 0)
            .map(|(index, _)| index)
    }

    fn put(&mut self, scalar: Scalar<'j>) {
        for index in self.ends_here() {
            self.found.scalars[index] = Some(scalar.clone());
        }
    }

    /// The pointers that lead through this child.
    fn through(&self, child: &str) -> u32 {
        let pointers = self.query.pointers.iter().enumerate();
        let leads = |pointer: &Pointer| pointer.0.get(self.depth).is_some_and(|token| token == child);
        pointers
            .filter(|(_, pointer)| leads(pointer))
            .fold(0, |mask, (index, _)| mask | 1 << index)
            & self.active
    }
}

impl<'j> DeserializeSeed<'j> for Walk<'_, 'j> {
    type Value = ();

    fn deserialize<D: Deserializer<'j>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'j> Visitor<'j> for Walk<'_, 'j> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E: Error>(mut self) -> Result<(), E> {
        self.put(Scalar::Null);
        Ok(())
    }

    fn visit_bool<E: Error>(mut self, value: bool) -> Result<(), E> {
        self.put(Scalar::Bool(value));
        Ok(())
    }

    fn visit_i64<E: Error>(mut self, value: i64) -> Result<(), E> {
        self.put(Scalar::Int(value));
        Ok(())
    }

    fn visit_u64<E: Error>(mut self, value: u64) -> Result<(), E> {
        self.put(i64::try_from(value).map_or(Scalar::Float(value as f64), Scalar::Int));
        Ok(())
    }

    fn visit_f64<E: Error>(mut self, value: f64) -> Result<(), E> {
        self.put(Scalar::Float(value));
        Ok(())
    }

    fn visit_str<E: Error>(mut self, value: &str) -> Result<(), E> {
        self.put(Scalar::Text(Cow::Owned(value.to_owned())));
        Ok(())
    }

    fn visit_borrowed_str<E: Error>(mut self, value: &'j str) -> Result<(), E> {
        self.put(Scalar::Text(Cow::Borrowed(value)));
        Ok(())
    }

    fn visit_map<A: MapAccess<'j>>(mut self, mut map: A) -> Result<(), A::Error> {
        self.put(Scalar::Nested);
        let all_members = self
            .query
            .members_of
            .is_some_and(|index| self.ends_here().any(|end| end == index));
        while let Some(Key(key)) = map.next_key::<Key<'j>>()? {
            let active = self.through(&key);
            if active != 0 {
                map.next_value_seed(Walk {
                    query: self.query,
                    active,
                    depth: self.depth + 1,
                    found: self.found,
                })?;
            } else if all_members {
                let value = map.next_value_seed(One)?;
                self.found.members.push((key, value));
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'j>>(mut self, mut list: A) -> Result<(), A::Error> {
        self.put(Scalar::Nested);
        for index in 0_usize.. {
            let active = if self.active.count_ones() == 0 {
                0
            } else {
                self.through(&index.to_string())
            };
            let more = if active == 0 {
                list.next_element::<IgnoredAny>()?.is_some()
            } else {
                let walk = Walk {
                    query: self.query,
                    active,
                    depth: self.depth + 1,
                    found: self.found,
                };
                list.next_element_seed(walk)?.is_some()
            };
            if !more {
                break;
            }
        }
        Ok(())
    }
}

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
        f.write_str("JSON")
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

/// Writes each row as a JSON object and a line break. Timestamps are RFC 3339, nulls are written.
///
/// # Errors
/// A column's type has no form in JSON.
pub fn write_rows(batch: &RecordBatch, out: &mut Vec<u8>) -> anyhow::Result<()> {
    use arrow::json::writer::{LineDelimited, WriterBuilder};
    let mut writer = WriterBuilder::new()
        .with_explicit_nulls(true)
        .build::<_, LineDelimited>(out);
    writer.write(&offset_zones(batch)?)?;
    writer.finish()?;
    Ok(())
}

/// The batch with its timestamps at the offset `+00:00` in place of the zone `UTC`: formatting names of zones needs a
/// time zone database that we leave out.
pub(crate) fn offset_zones(batch: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let mut fields = Vec::with_capacity(batch.num_columns());
    let mut columns = Vec::with_capacity(batch.num_columns());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let times = column.as_primitive_opt::<TimestampMicrosecondType>();
        let column: ArrayRef = match times.filter(|times| times.timezone() == Some("UTC")) {
            Some(times) => Arc::new(times.clone().with_timezone("+00:00")),
            None => column.clone(),
        };
        fields.push(field.as_ref().clone().with_data_type(column.data_type().clone()));
        columns.push(column);
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn query(pointers: &[&str], members_of: Option<usize>) -> Query {
        Query {
            pointers: pointers.iter().map(|text| Pointer::parse(text).unwrap()).collect(),
            members_of,
        }
    }

    #[test]
    fn pointers() {
        assert!(Pointer::parse("value").is_err());
        assert!(Pointer::parse(&"/a".repeat(33)).is_err());
        assert_eq!(Pointer::parse("/a~1b/c~0d").unwrap().0, ["a/b", "c~d"]);
        assert_eq!(Pointer::parse("/").unwrap().0, [""]);
    }

    #[test]
    fn finds_scalars() {
        let check = |json: &str, pointers: &[&str], expect: &str| {
            let found = query(pointers, None).find(json.as_bytes());
            let got = match found {
                Ok(found) => format!("{:?}", found.scalars),
                Err(e) => format!("error: {e}"),
            };
            assert!(got.starts_with(expect), "{json}: {got}");
        };
        check("3", &[""], "[Some(Int(3))]");
        check("{\"v\":1.5,\"t\":7}", &["/v", "/t"], "[Some(Float(1.5)), Some(Int(7))]");
        check(
            "{\"a\":{\"b\":[0,{\"c\":true}]}}",
            &["/a/b/1/c", "/a"],
            "[Some(Bool(true)), Some(Nested)]",
        );
        check(
            "{\"v\":null,\"s\":\"a\\u00e4\"}",
            &["/v", "/s"],
            "[Some(Null), Some(Text(\"aä\"))]",
        );
        check("{\"v\":1,\"v\":2}", &["/v"], "[Some(Int(2))]");
        check(
            "{\"v\":18446744073709551615}",
            &["/v"],
            "[Some(Float(1.8446744073709552e19))]",
        );
        check("{\"v\":1}", &["/v/x", "/w"], "[None, None]");
        check("[1,2]", &["/1", "/2"], "[Some(Int(2)), None]");
        check("{\"v\":NaN}", &["/v"], "error: ");
        check("{\"v\":1} x", &["/v"], "error: trailing");
        check("{\"v\":1", &["/v"], "error: EOF");
        check("", &[""], "error: EOF");
    }

    #[test]
    fn finds_members() {
        let json = br#"{"ts":1,"a":1.5,"b":"on","c":null,"d":{"e":1},"f":[2]}"#;
        let found = query(&["", "/ts"], Some(0)).find(json).unwrap();
        let members: Vec<String> = found
            .members
            .iter()
            .map(|(name, value)| format!("{name}={value:?}"))
            .collect();
        assert_eq!(
            members,
            ["a=Float(1.5)", "b=Text(\"on\")", "c=Null", "d=Nested", "f=Nested"]
        );
        assert_eq!(found.scalars[1], Some(Scalar::Int(1)));
    }

    #[test]
    fn deep_and_broken_input_neither_panics_nor_recurses() {
        let deep = format!("{{\"x\":{}{},\"v\":1}}", "[".repeat(200_000), "]".repeat(200_000));
        let found = query(&["/v"], None).find(deep.as_bytes());
        assert!(found.is_err() || found.unwrap().scalars[0] == Some(Scalar::Int(1)));
        assert!(query(&["/v"], None).find(&[0xff, 0xfe, 0]).is_err());
        assert!(query(&["/v"], None).find(b"{\"v\":\"\xff\"}").is_err());
        proptest::proptest!(|(bytes: Vec<u8>)| { let _ = query(&["/a", ""], Some(1)).find(&bytes); });
    }
}
