//! Protobuf payloads, read by the descriptors that `protoc` writes.

use std::borrow::Cow;
use std::path::Path;

use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, ReflectMessage, Value,
};
use serde::de::value::Error;
use serde::de::{Deserializer, SeqAccess, Visitor};
use serde::forward_to_deserialize_any;

use super::leaf::{Leaf, Object};
use super::query::{Document, Found, Query, Scalar};

/// The descriptor of a message type, out of a file.
///
/// # Errors
/// The setting below `decode` that is wrong, and why.
pub(crate) fn descriptor(file: &Path, message: &str) -> Result<MessageDescriptor, (&'static str, String)> {
    let name = file.display();
    let bytes = std::fs::read(file).map_err(|e| ("descriptor", format!("{name}: {e}")))?;
    let pool = DescriptorPool::decode(bytes.as_slice()).map_err(|e| {
        let way_out = "write it by protoc --include_imports --descriptor_set_out=FILE";
        ("descriptor", format!("{name}: no descriptors: {e}; {way_out}"))
    })?;
    pool.get_message_by_name(message).ok_or_else(|| {
        let known: Vec<String> = pool
            .all_messages()
            .map(|message| message.full_name().to_owned())
            .collect();
        let hint = taktline_engine::config::did_you_mean(message, known.iter().map(String::as_str));
        let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        ("message", format!("{name} has no message `{message}`{hint}"))
    })
}

/// A payload as a message.
///
/// # Errors
/// The words for a dead letter.
pub(crate) fn read(descriptor: &MessageDescriptor, payload: &[u8]) -> Result<DynamicMessage, String> {
    DynamicMessage::decode(descriptor.clone(), payload)
        .map_err(|e| format!("not a Protobuf message `{}`: {e}", descriptor.full_name()))
}

/// What stands before the payload in a schema registry's framing, behind the schema's number: which message of the schema it is.
pub(crate) fn skip_indexes(payload: &[u8]) -> Result<&[u8], String> {
    let mut rest = payload;
    let mut next = || prost::encoding::decode_varint(&mut rest).map(|bits| (bits >> 1) as i64 ^ -((bits & 1) as i64));
    let cut = |_| "the message indexes behind the schema's number are cut off".to_owned();
    let count = next().map_err(cut)?;
    if !(0..=64).contains(&count) {
        return Err(format!(
            "there are {count} message indexes behind the schema's number; check `decode.framing`"
        ));
    }
    for _ in 0..count {
        next().map_err(cut)?;
    }
    Ok(rest)
}

/// A message as a document.
pub(crate) struct ProtobufDocument<'j>(pub &'j DynamicMessage);

impl<'j> Document<'j> for ProtobufDocument<'j> {
    fn find(&self, query: &Query, found: &mut Found<'j>) -> Result<(), String> {
        query.walk(Part::Message(self.0), found).map_err(|e| e.to_string())
    }
}

/// A value with what its field says about it.
enum Part<'j> {
    Message(&'j DynamicMessage),
    Value(&'j Value, Kind),
    /// A field that isn't there but has a default.
    Default(Value, Kind),
}

impl<'j> Deserializer<'j> for Part<'j> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'j>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Part::Message(message) => deserialize_message(message, visitor),
            Part::Default(value, kind) => match scalar(&value, &kind) {
                Some(scalar) => Leaf(owned(scalar)).deserialize_any(visitor),
                None => visitor.visit_unit(),
            },
            Part::Value(value, kind) => match value {
                Value::Message(message) => deserialize_message(message, visitor),
                Value::List(items) => visitor.visit_seq(Items {
                    items: items.iter(),
                    kind,
                }),
                Value::Map(entries) => {
                    // The order must not depend on hashes.
                    let mut entries: Vec<(&MapKey, &Value)> = entries.iter().collect();
                    entries.sort_by_key(|(key, _)| *key);
                    let kind = match &kind {
                        Kind::Message(entry) if entry.is_map_entry() => entry.map_entry_value_field().kind(),
                        other => other.clone(),
                    };
                    let members = entries
                        .into_iter()
                        .map(move |(key, value)| (name_of(key), Part::Value(value, kind.clone())));
                    Object::new(members).deserialize_any(visitor)
                }
                _ => match scalar(value, &kind) {
                    Some(scalar) => Leaf(scalar).deserialize_any(visitor),
                    None => visitor.visit_bytes(&[]),
                },
            },
        }
    }

    forward_to_deserialize_any! {
        <V: Visitor<'j>>
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct newtype_struct seq
        tuple tuple_struct map struct enum identifier ignored_any
    }
}

fn deserialize_message<'j, V: Visitor<'j>>(message: &'j DynamicMessage, visitor: V) -> Result<V::Value, Error> {
    if let Some(known) = well_known(message) {
        return Leaf(known).deserialize_any(visitor);
    }
    let mut set: Vec<(FieldDescriptor, &'j Value)> = message.fields().collect();
    set.sort_by_key(|(field, _)| field.number());
    let present: Vec<u32> = set.iter().map(|(field, _)| field.number()).collect();
    // A number that is 0 is not in the payload, and is there all the same.
    let implied: Vec<FieldDescriptor> = (message.descriptor().fields())
        .filter(|field| !field.supports_presence() && !field.is_list() && !field.is_map())
        .filter(|field| !present.contains(&field.number()))
        .collect();
    let set = set.into_iter().map(|(field, value)| {
        let part = Part::Value(value, field.kind());
        (field.name().to_owned(), part)
    });
    let implied = implied.into_iter().map(|field| {
        let part = Part::Default(Value::default_value_for_field(&field), field.kind());
        (field.name().to_owned(), part)
    });
    Object::new(set.chain(implied)).deserialize_any(visitor)
}

/// Messages of Protobuf's own library that stand for a scalar: times and wrapped values.
fn well_known<'j>(message: &'j DynamicMessage) -> Option<Scalar<'j>> {
    let descriptor = message.descriptor();
    let number = |name: &str| match message.get_field_by_name(name)?.as_ref() {
        Value::I64(number) => Some(*number),
        Value::I32(number) => Some(i64::from(*number)),
        _ => None,
    };
    match descriptor.full_name() {
        "google.protobuf.Timestamp" => {
            let (seconds, nanos) = (number("seconds")?, number("nanos")?);
            let micros = seconds.checked_mul(1_000_000)?.checked_add(nanos.div_euclid(1_000));
            Some(micros.map_or(Scalar::Nested, Scalar::Time))
        }
        "google.protobuf.DoubleValue"
        | "google.protobuf.FloatValue"
        | "google.protobuf.Int64Value"
        | "google.protobuf.UInt64Value"
        | "google.protobuf.Int32Value"
        | "google.protobuf.UInt32Value"
        | "google.protobuf.BoolValue"
        | "google.protobuf.StringValue" => {
            let field = descriptor.get_field_by_name("value")?;
            scalar(&message.get_field(&field), &field.kind()).map(owned)
        }
        _ => None,
    }
}

fn scalar<'v>(value: &'v Value, kind: &Kind) -> Option<Scalar<'v>> {
    Some(match value {
        Value::Bool(flag) => Scalar::Bool(*flag),
        Value::I32(number) => Scalar::Int((*number).into()),
        Value::I64(number) => Scalar::Int(*number),
        Value::U32(number) => Scalar::Int((*number).into()),
        Value::U64(number) => i64::try_from(*number).map_or(Scalar::Float(*number as f64), Scalar::Int),
        Value::F32(number) => Scalar::Float((*number).into()),
        Value::F64(number) => Scalar::Float(*number),
        Value::String(text) => Scalar::Text(text.as_str().into()),
        Value::EnumNumber(number) => match kind.as_enum().and_then(|known| known.get_value(*number)) {
            Some(symbol) => Scalar::Text(symbol.name().to_owned().into()),
            None => Scalar::Int((*number).into()),
        },
        Value::Bytes(_) | Value::Message(_) | Value::List(_) | Value::Map(_) => return None,
    })
}

fn owned<'j>(scalar: Scalar<'_>) -> Scalar<'j> {
    match scalar {
        Scalar::Text(text) => Scalar::Text(text.into_owned().into()),
        Scalar::Null => Scalar::Null,
        Scalar::Bool(flag) => Scalar::Bool(flag),
        Scalar::Int(number) => Scalar::Int(number),
        Scalar::Float(number) => Scalar::Float(number),
        Scalar::Time(micros) => Scalar::Time(micros),
        Scalar::Nested => Scalar::Nested,
    }
}

fn name_of(key: &MapKey) -> Cow<'_, str> {
    match key {
        MapKey::Bool(flag) => flag.to_string().into(),
        MapKey::I32(number) => number.to_string().into(),
        MapKey::I64(number) => number.to_string().into(),
        MapKey::U32(number) => number.to_string().into(),
        MapKey::U64(number) => number.to_string().into(),
        MapKey::String(text) => text.as_str().into(),
    }
}

struct Items<'j> {
    items: std::slice::Iter<'j, Value>,
    kind: Kind,
}

impl<'j> SeqAccess<'j> for Items<'j> {
    type Error = Error;

    fn next_element_seed<S: serde::de::DeserializeSeed<'j>>(&mut self, seed: S) -> Result<Option<S::Value>, Error> {
        match self.items.next() {
            Some(item) => seed.deserialize(Part::Value(item, self.kind.clone())).map(Some),
            None => Ok(None),
        }
    }
}

#[cfg(test)]
#[path = "protobuf_tests.rs"]
mod tests;
