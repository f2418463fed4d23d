//! Avro: schemas as flat tables of types, and payloads read by them without building values first.
//!
//! The library's own reader takes cut payloads for complete ones and trusts the lengths in them, so only its schema parser is used.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::rabin::Rabin;
use apache_avro::schema::{Name, Namespace};
use serde::de::value::{Error, StrDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::query::{Document, Found, Query};
use crate::time::Unit;

/// How deep a payload may nest; a schema may refer to itself.
const DEPTH_LIMIT: usize = 64;

/// A schema, ready to read and write with.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct AvroSchema {
    pub(super) types: Vec<Type>,
    pub(super) root: usize,
    /// As the single-object encoding names it.
    pub(super) fingerprint: [u8; 8],
}

/// A type; others are indices.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Type {
    Null,
    Boolean,
    /// `int` and `long`, which are written alike.
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(Vec<Box<str>>),
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    Record(Vec<(Box<str>, usize)>),
    /// Bytes, or so many of them, as a number to be divided by a power of ten.
    Decimal {
        size: Option<usize>,
        scale: i32,
    },
    /// A time since 1970.
    Time(Unit),
    /// Days since 1970.
    Date,
}

impl AvroSchema {
    /// A schema from its JSON, with the schemas that it refers to.
    ///
    /// # Errors
    /// It is no Avro schema.
    pub(crate) fn parse(json: &str, references: &[String]) -> Result<Self, String> {
        let text = |e: apache_avro::Error| format!("no Avro schema: {e}");
        let (schema, others) = if references.is_empty() {
            (Schema::parse_str(json).map_err(text)?, Vec::new())
        } else {
            Schema::parse_str_with_list(json, references).map_err(text)?
        };
        let mut compiler = Compiler::default();
        for other in &others {
            compiler.compile(other, &None)?;
        }
        let root = compiler.compile(&schema, &None)?;
        let mut fingerprint = [0; 8];
        let bytes = schema.fingerprint::<Rabin>().bytes;
        fingerprint.copy_from_slice(bytes.get(..8).ok_or("the schema has no fingerprint")?);
        Ok(AvroSchema {
            types: compiler.types,
            root,
            fingerprint,
        })
    }
}

#[derive(Default)]
struct Compiler {
    types: Vec<Type>,
    named: HashMap<Name, usize>,
}

impl Compiler {
    fn add(&mut self, kind: Type) -> usize {
        self.types.push(kind);
        self.types.len() - 1
    }

    fn named(&mut self, name: &Name, within: &Namespace, kind: Type) -> (usize, Namespace) {
        let name = name.fully_qualified_name(within);
        let index = self.add(kind);
        let namespace = name.namespace.clone();
        self.named.insert(name, index);
        (index, namespace)
    }

    fn compile(&mut self, schema: &Schema, within: &Namespace) -> Result<usize, String> {
        let kind = match schema {
            Schema::Null => Type::Null,
            Schema::Boolean => Type::Boolean,
            Schema::Int | Schema::Long | Schema::TimeMillis | Schema::TimeMicros => Type::Long,
            Schema::Float => Type::Float,
            Schema::Double => Type::Double,
            Schema::Bytes | Schema::BigDecimal => Type::Bytes,
            Schema::String | Schema::Uuid => Type::String,
            Schema::Date => Type::Date,
            Schema::TimestampMillis | Schema::LocalTimestampMillis => Type::Time(Unit::Ms),
            Schema::TimestampMicros | Schema::LocalTimestampMicros => Type::Time(Unit::Us),
            Schema::TimestampNanos | Schema::LocalTimestampNanos => Type::Time(Unit::Ns),
            Schema::Duration => Type::Fixed(12),
            Schema::Array(array) => Type::Array(self.compile(&array.items, within)?),
            Schema::Map(map) => Type::Map(self.compile(&map.types, within)?),
            Schema::Union(union) => {
                let variants = union.variants().iter().map(|variant| self.compile(variant, within));
                Type::Union(variants.collect::<Result<_, _>>()?)
            }
            Schema::Decimal(decimal) => {
                let size = match &*decimal.inner {
                    Schema::Fixed(fixed) => {
                        self.named(&fixed.name, within, Type::Fixed(fixed.size));
                        Some(fixed.size)
                    }
                    _ => None,
                };
                let scale = i32::try_from(decimal.scale).unwrap_or(0);
                Type::Decimal { size, scale }
            }
            Schema::Enum(symbols) => {
                let kind = Type::Enum(symbols.symbols.iter().map(|symbol| symbol.as_str().into()).collect());
                return Ok(self.named(&symbols.name, within, kind).0);
            }
            Schema::Fixed(fixed) => return Ok(self.named(&fixed.name, within, Type::Fixed(fixed.size)).0),
            Schema::Record(record) => {
                // Its place is there before its fields are: they may refer to it.
                let (index, namespace) = self.named(&record.name, within, Type::Null);
                let mut fields = Vec::with_capacity(record.fields.len());
                for field in &record.fields {
                    fields.push((field.name.as_str().into(), self.compile(&field.schema, &namespace)?));
                }
                self.types[index] = Type::Record(fields);
                return Ok(index);
            }
            Schema::Ref { name } => {
                let found = self
                    .named
                    .get(&name.fully_qualified_name(within))
                    .or(self.named.get(name));
                return found
                    .copied()
                    .ok_or_else(|| format!("the schema names a type `{}` that it does not have", name.name));
            }
        };
        Ok(self.add(kind))
    }
}

/// A payload with the schema it was written with.
pub(crate) struct AvroDocument<'s, 'j> {
    pub schema: &'s AvroSchema,
    pub payload: &'j [u8],
}

impl<'j> Document<'j> for AvroDocument<'_, 'j> {
    fn find(&self, query: &Query, found: &mut Found<'j>) -> Result<(), String> {
        let mut rest = self.payload;
        let datum = Datum {
            types: &self.schema.types,
            at: self.schema.root,
            rest: &mut rest,
            depth: 0,
        };
        query
            .walk(datum, found)
            .map_err(|e| format!("not Avro of this schema: {e}"))?;
        match rest.len() {
            0 => Ok(()),
            left => Err(format!(
                "not Avro of this schema: {left} bytes are left behind the value"
            )),
        }
    }
}

/// A value of the type at `at`; reading it takes it from `rest`.
struct Datum<'s, 'c, 'j> {
    types: &'s [Type],
    at: usize,
    rest: &'c mut &'j [u8],
    depth: usize,
}

fn take<'j>(rest: &mut &'j [u8], count: usize) -> Result<&'j [u8], Error> {
    let (taken, left) = rest
        .split_at_checked(count)
        .ok_or_else(|| Error::custom(format!("it ends {} bytes early", count - rest.len())))?;
    *rest = left;
    Ok(taken)
}

fn long(rest: &mut &[u8]) -> Result<i64, Error> {
    let mut bits: u64 = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(rest, 1)?[0];
        bits |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok((bits >> 1) as i64 ^ -((bits & 1) as i64));
        }
    }
    Err(Error::custom("a number has more than 10 bytes"))
}

fn length(rest: &mut &[u8]) -> Result<usize, Error> {
    let length = long(rest)?;
    usize::try_from(length).map_err(|_| Error::custom(format!("a length is {length}")))
}

fn bytes<'j>(rest: &mut &'j [u8]) -> Result<&'j [u8], Error> {
    let length = length(rest)?;
    take(rest, length)
}

fn text<'j>(rest: &mut &'j [u8]) -> Result<&'j str, Error> {
    std::str::from_utf8(bytes(rest)?).map_err(|_| Error::custom("a text is not UTF-8"))
}

impl<'j> Deserializer<'j> for Datum<'_, '_, 'j> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'j>>(mut self, visitor: V) -> Result<V::Value, Error> {
        if self.depth > DEPTH_LIMIT {
            return Err(Error::custom(format!("it is nested deeper than {DEPTH_LIMIT}")));
        }
        let rest = &mut *self.rest;
        match &self.types[self.at] {
            Type::Null => visitor.visit_unit(),
            Type::Boolean => match take(rest, 1)? {
                [0] => visitor.visit_bool(false),
                [1] => visitor.visit_bool(true),
                _ => Err(Error::custom("a boolean is neither 0 nor 1")),
            },
            Type::Long => visitor.visit_i64(long(rest)?),
            Type::Float => {
                let bits = take(rest, 4)?.try_into().map_err(Error::custom)?;
                visitor.visit_f64(f32::from_le_bytes(bits).into())
            }
            Type::Double => {
                let bits = take(rest, 8)?.try_into().map_err(Error::custom)?;
                visitor.visit_f64(f64::from_le_bytes(bits))
            }
            Type::Bytes => visitor.visit_borrowed_bytes(bytes(rest)?),
            Type::String => visitor.visit_borrowed_str(text(rest)?),
            Type::Fixed(size) => visitor.visit_borrowed_bytes(take(rest, *size)?),
            Type::Enum(symbols) => {
                let index = length(rest)?;
                match symbols.get(index) {
                    Some(symbol) => visitor.visit_str(symbol),
                    None => Err(Error::custom(format!("an enum has no symbol {index}"))),
                }
            }
            Type::Time(unit) => match unit.micros(long(rest)?) {
                Some(micros) => visitor.visit_i128(micros.into()),
                None => Err(Error::custom("a time is out of range")),
            },
            Type::Date => visitor.visit_i128(i128::from(long(rest)?) * 86_400_000_000),
            Type::Decimal { size, scale } => {
                let digits = match size {
                    Some(size) => take(rest, *size)?,
                    None => bytes(rest)?,
                };
                visitor.visit_f64(decimal(digits) / 10f64.powi(*scale))
            }
            Type::Union(variants) => {
                let index = length(rest)?;
                match variants.get(index) {
                    Some(variant) => self.below(*variant).deserialize_any(visitor),
                    None => Err(Error::custom(format!("a union has no variant {index}"))),
                }
            }
            Type::Record(fields) => visitor.visit_map(Record {
                fields: fields.iter(),
                value: 0,
                datum: self,
            }),
            Type::Array(items) => visitor.visit_seq(Blocks {
                items: *items,
                left: 0,
                datum: self,
            }),
            Type::Map(values) => visitor.visit_map(Blocks {
                items: *values,
                left: 0,
                datum: self,
            }),
        }
    }

    forward_to_deserialize_any! {
        <V: Visitor<'j>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// A number in two's complement, the highest byte first.
fn decimal(digits: &[u8]) -> f64 {
    let negative = digits.first().is_some_and(|byte| *byte >= 0x80);
    let magnitude = digits.iter().fold(0.0, |number, byte| {
        let byte = if negative { !*byte } else { *byte };
        number * 256.0 + f64::from(byte)
    });
    if negative { -magnitude - 1.0 } else { magnitude }
}

impl<'s, 'j> Datum<'s, '_, 'j> {
    /// What lies inside.
    fn below(&mut self, at: usize) -> Datum<'s, '_, 'j> {
        Datum {
            types: self.types,
            at,
            rest: self.rest,
            depth: self.depth + 1,
        }
    }
}

struct Record<'s, 'c, 'j> {
    fields: std::slice::Iter<'s, (Box<str>, usize)>,
    value: usize,
    datum: Datum<'s, 'c, 'j>,
}

impl<'j> MapAccess<'j> for Record<'_, '_, 'j> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'j>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((name, value)) = self.fields.next() else {
            return Ok(None);
        };
        self.value = *value;
        let name: StrDeserializer<'_, Error> = (**name).into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'j>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.datum.below(self.value))
    }
}

/// The blocks of an array or a map.
struct Blocks<'s, 'c, 'j> {
    items: usize,
    /// Items left in this block.
    left: usize,
    datum: Datum<'s, 'c, 'j>,
}

impl Blocks<'_, '_, '_> {
    fn has_next(&mut self) -> Result<bool, Error> {
        if self.left == 0 {
            let rest = &mut *self.datum.rest;
            let count = long(rest)?;
            if count < 0 {
                long(rest)?; // the block's size in bytes, for readers that jump over it
            }
            let count = count.unsigned_abs();
            // Items without bytes would let a few bytes stand for a very long list.
            if count > rest.len() as u64 {
                return Err(Error::custom(format!(
                    "a list of {count} items in {} bytes",
                    rest.len()
                )));
            }
            self.left = count as usize;
            if self.left == 0 {
                return Ok(false);
            }
        }
        self.left -= 1;
        Ok(true)
    }
}

impl<'j> SeqAccess<'j> for Blocks<'_, '_, 'j> {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'j>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        if !self.has_next()? {
            return Ok(None);
        }
        seed.deserialize(self.datum.below(self.items)).map(Some)
    }
}

impl<'j> MapAccess<'j> for Blocks<'_, '_, 'j> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'j>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        if !self.has_next()? {
            return Ok(None);
        }
        let name = text(self.datum.rest)?;
        seed.deserialize(serde::de::value::BorrowedStrDeserializer::new(name))
            .map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'j>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.datum.below(self.items))
    }
}

#[cfg(test)]
#[path = "avro_tests.rs"]
mod tests;
