//! Rows of cells as documents: what serde needs to walk through them.

use std::borrow::Cow;

use serde::de::value::{Error, StrDeserializer};
use serde::de::{DeserializeSeed, Deserializer, Error as _, IntoDeserializer, MapAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::query::Scalar;

/// A scalar.
pub(crate) struct Leaf<'j>(pub Scalar<'j>);

impl<'j> Deserializer<'j> for Leaf<'j> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Scalar::Null => visitor.visit_unit(),
            Scalar::Bool(value) => visitor.visit_bool(value),
            Scalar::Int(value) => visitor.visit_i64(value),
            Scalar::Float(value) => visitor.visit_f64(value),
            Scalar::Text(Cow::Borrowed(text)) => visitor.visit_borrowed_str(text),
            Scalar::Text(Cow::Owned(text)) => visitor.visit_string(text),
            Scalar::Time(micros) => visitor.visit_i128(micros.into()),
            Scalar::Nested => visitor.visit_bytes(&[]),
        }
    }

    forward_to_deserialize_any! {
        <V: Visitor<'j>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// An object of these members.
pub(crate) struct Object<I, V> {
    members: I,
    value: Option<V>,
}

impl<'j, I, N, V> Object<I, V>
where
    I: Iterator<Item = (N, V)>,
    N: AsRef<str>,
    V: Deserializer<'j, Error = Error>,
{
    pub(crate) fn new(members: I) -> Self {
        Object { members, value: None }
    }
}

impl<'j, I, N, V> Deserializer<'j> for Object<I, V>
where
    I: Iterator<Item = (N, V)>,
    N: AsRef<str>,
    V: Deserializer<'j, Error = Error>,
{
    type Error = Error;

    fn deserialize_any<W: Visitor<'j>>(self, visitor: W) -> Result<W::Value, Error> {
        visitor.visit_map(self)
    }

    forward_to_deserialize_any! {
        <W: Visitor<'j>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'j, I, N, V> MapAccess<'j> for Object<I, V>
where
    I: Iterator<Item = (N, V)>,
    N: AsRef<str>,
    V: Deserializer<'j, Error = Error>,
{
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'j>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some((name, value)) = self.members.next() else {
            return Ok(None);
        };
        self.value = Some(value);
        let name: StrDeserializer<'_, Error> = name.as_ref().into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<S: DeserializeSeed<'j>>(&mut self, seed: S) -> Result<S::Value, Error> {
        match self.value.take() {
            Some(value) => seed.deserialize(value),
            None => Err(Error::custom("a value was asked for before its name")),
        }
    }
}
