//! The payload of Sparkplug B messages: metrics with their types, as the protocol's protobuf definition says.
//!
//! Only what a payload says; births, deaths, aliases and sequence numbers are the source's to keep.

use std::borrow::Cow;

use prost::Message as _;

/// A payload of a birth, death, data or command message.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Payload {
    /// When it was sent, in ms since 1970.
    #[prost(uint64, optional, tag = "1")]
    pub timestamp: Option<u64>,
    #[prost(message, repeated, tag = "2")]
    pub metrics: Vec<Metric>,
    /// 0 to 255, then 0 again; deaths of nodes have none.
    #[prost(uint64, optional, tag = "3")]
    pub seq: Option<u64>,
    #[prost(string, optional, tag = "4")]
    pub uuid: Option<String>,
    #[prost(bytes = "vec", optional, tag = "5")]
    pub body: Option<Vec<u8>>,
}

/// One reading. A birth gives name, alias and type; data may give the alias alone.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Metric {
    #[prost(string, optional, tag = "1")]
    pub name: Option<String>,
    #[prost(uint64, optional, tag = "2")]
    pub alias: Option<u64>,
    /// When it was read, in ms since 1970; without it the payload's time counts.
    #[prost(uint64, optional, tag = "3")]
    pub timestamp: Option<u64>,
    /// One of [`DataType`].
    #[prost(uint32, optional, tag = "4")]
    pub datatype: Option<u32>,
    /// True for what was stored while the connection was down.
    #[prost(bool, optional, tag = "5")]
    pub is_historical: Option<bool>,
    #[prost(bool, optional, tag = "6")]
    pub is_transient: Option<bool>,
    #[prost(bool, optional, tag = "7")]
    pub is_null: Option<bool>,
    #[prost(message, optional, tag = "9")]
    pub properties: Option<PropertySet>,
    #[prost(oneof = "MetricValue", tags = "10, 11, 12, 13, 14, 15, 16, 17, 18")]
    pub value: Option<MetricValue>,
}

/// What a metric holds. Signed integers stand in the unsigned fields as two's complement.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum MetricValue {
    #[prost(uint32, tag = "10")]
    Int(u32),
    #[prost(uint64, tag = "11")]
    Long(u64),
    #[prost(float, tag = "12")]
    Float(f32),
    #[prost(double, tag = "13")]
    Double(f64),
    #[prost(bool, tag = "14")]
    Boolean(bool),
    #[prost(string, tag = "15")]
    String(String),
    #[prost(bytes, tag = "16")]
    Bytes(Vec<u8>),
    /// A table, not read further.
    #[prost(bytes, tag = "17")]
    DataSet(Vec<u8>),
    /// A structure, not read further.
    #[prost(bytes, tag = "18")]
    Template(Vec<u8>),
}

/// Properties of a metric: engineering unit, quality.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PropertySet {
    #[prost(string, repeated, tag = "1")]
    pub keys: Vec<String>,
    /// One for each key.
    #[prost(message, repeated, tag = "2")]
    pub values: Vec<PropertyValue>,
}

/// A property. Nested sets are not read.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PropertyValue {
    #[prost(uint32, optional, tag = "1")]
    pub datatype: Option<u32>,
    #[prost(bool, optional, tag = "2")]
    pub is_null: Option<bool>,
    #[prost(oneof = "Property", tags = "3, 4, 5, 6, 7, 8")]
    pub value: Option<Property>,
}

/// What a property holds.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(crate) enum Property {
    #[prost(uint32, tag = "3")]
    Int(u32),
    #[prost(uint64, tag = "4")]
    Long(u64),
    #[prost(float, tag = "5")]
    Float(f32),
    #[prost(double, tag = "6")]
    Double(f64),
    #[prost(bool, tag = "7")]
    Boolean(bool),
    #[prost(string, tag = "8")]
    String(String),
}

/// The types of metrics that a sample can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum DataType {
    Unknown = 0,
    Int8 = 1,
    Int16 = 2,
    Int32 = 3,
    Int64 = 4,
    UInt8 = 5,
    UInt16 = 6,
    UInt32 = 7,
    UInt64 = 8,
    Float = 9,
    Double = 10,
    Boolean = 11,
    String = 12,
    DateTime = 13,
    Text = 14,
    Uuid = 15,
    DataSet = 16,
    Bytes = 17,
    File = 18,
    Template = 19,
}

impl Payload {
    /// Reads a payload.
    ///
    /// # Errors
    /// It is no Sparkplug B payload: the words for a dead letter.
    pub(crate) fn read(bytes: &[u8]) -> Result<Self, String> {
        Payload::decode(bytes).map_err(|e| format!("not a Sparkplug B payload: {e}"))
    }

    /// As bytes.
    pub(crate) fn write(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}

impl Metric {
    /// The value as a sample has it, under the type that this metric or its birth names: a number, or a text.
    ///
    /// # Errors
    /// The type is a table, a structure or bytes, which a sample can't hold.
    pub(crate) fn content(&self, datatype: Option<u32>) -> Result<(Option<f64>, Option<Cow<'_, str>>), String> {
        if self.is_null == Some(true) {
            return Ok((None, None));
        }
        let datatype = self
            .datatype
            .or(datatype)
            .and_then(|code| DataType::try_from(code as i32).ok());
        let number = match &self.value {
            None => return Ok((None, None)),
            Some(MetricValue::Int(bits)) => match datatype {
                Some(DataType::Int8) => f64::from(*bits as u8 as i8),
                Some(DataType::Int16) => f64::from(*bits as u16 as i16),
                Some(DataType::Int32) => f64::from(*bits as i32),
                _ => f64::from(*bits),
            },
            Some(MetricValue::Long(bits)) => match datatype {
                Some(DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64) => *bits as i64 as f64,
                _ => *bits as f64,
            },
            Some(MetricValue::Float(number)) => f64::from(*number),
            Some(MetricValue::Double(number)) => *number,
            Some(MetricValue::Boolean(flag)) => f64::from(u8::from(*flag)),
            Some(MetricValue::String(text)) => return Ok((None, Some(text.as_str().into()))),
            Some(MetricValue::Bytes(_)) => return Err("a metric of bytes is no sample".into()),
            Some(MetricValue::DataSet(_)) => return Err("a metric of type DataSet is no sample".into()),
            Some(MetricValue::Template(_)) => return Err("a metric of type Template is no sample".into()),
        };
        Ok((number.is_finite().then_some(number), None))
    }

    /// The property of this name, for example `engUnit` or `Quality`.
    pub(crate) fn property(&self, name: &str) -> Option<&Property> {
        let properties = self.properties.as_ref()?;
        let index = properties.keys.iter().position(|key| key == name)?;
        properties.values.get(index)?.value.as_ref()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn metric(datatype: DataType, value: MetricValue) -> Metric {
        Metric {
            name: Some("pressure".into()),
            datatype: Some(datatype as u32),
            value: Some(value),
            ..Metric::default()
        }
    }

    #[test]
    fn values() {
        let check = |datatype, value: MetricValue, expect: &str| {
            let metric = metric(datatype, value);
            let got = match metric.content(None) {
                Ok((Some(number), None)) => number.to_string(),
                Ok((None, Some(text))) => text.into_owned(),
                Ok(other) => format!("{other:?}"),
                Err(reason) => format!("! {reason}"),
            };
            assert_eq!(got, expect, "{metric:?}");
        };
        check(DataType::Int8, MetricValue::Int(0xff), "-1");
        check(DataType::Int8, MetricValue::Int(0xffff_ffff), "-1");
        check(DataType::Int16, MetricValue::Int(0xffff_fffe), "-2");
        check(DataType::Int32, MetricValue::Int(0xffff_fffd), "-3");
        check(DataType::Int64, MetricValue::Long(u64::MAX), "-1");
        check(DataType::Int32, MetricValue::Long(u64::MAX), "-1");
        check(DataType::UInt32, MetricValue::Int(u32::MAX), "4294967295");
        check(DataType::UInt64, MetricValue::Long(5), "5");
        check(DataType::Float, MetricValue::Float(1.5), "1.5");
        check(DataType::Double, MetricValue::Double(-2.5), "-2.5");
        check(DataType::Double, MetricValue::Double(f64::NAN), "(None, None)");
        check(DataType::Boolean, MetricValue::Boolean(true), "1");
        check(DataType::String, MetricValue::String("RUN".into()), "RUN");
        check(
            DataType::DateTime,
            MetricValue::Long(1_700_000_000_000),
            "1700000000000",
        );
        check(
            DataType::Bytes,
            MetricValue::Bytes(vec![1]),
            "! a metric of bytes is no sample",
        );
        check(
            DataType::DataSet,
            MetricValue::DataSet(vec![]),
            "! a metric of type DataSet is no sample",
        );
    }

    #[test]
    fn the_type_may_come_from_the_birth() {
        let data = Metric {
            alias: Some(7),
            value: Some(MetricValue::Int(0xffff_ffff)),
            ..Metric::default()
        };
        assert_eq!(data.content(Some(DataType::Int32 as u32)).unwrap().0, Some(-1.0));
        assert_eq!(data.content(None).unwrap().0, Some(4_294_967_295.0));
        let null = Metric {
            is_null: Some(true),
            ..data
        };
        assert_eq!(null.content(None).unwrap(), (None, None));
    }

    #[test]
    fn what_goes_in_comes_out() {
        let payload = Payload {
            timestamp: Some(1_700_000_000_000),
            seq: Some(255),
            metrics: vec![Metric {
                alias: Some(3),
                is_historical: Some(true),
                properties: Some(PropertySet {
                    keys: vec!["engUnit".into()],
                    values: vec![PropertyValue {
                        value: Some(Property::String("bar".into())),
                        ..PropertyValue::default()
                    }],
                }),
                ..metric(DataType::Double, MetricValue::Double(4.5))
            }],
            ..Payload::default()
        };
        let read = Payload::read(&payload.write()).unwrap();
        assert_eq!(read, payload);
        assert_eq!(
            read.metrics[0].property("engUnit"),
            Some(&Property::String("bar".into()))
        );
        assert_eq!(read.metrics[0].property("Quality"), None);
    }

    /// Bytes as another implementation writes them: metric `t`, alias 1, type Int32, int_value 5; time 1, seq 0.
    #[test]
    fn known_bytes() {
        let bytes = [
            0x08, 0x01, 0x12, 0x09, 0x0a, 0x01, b't', 0x10, 0x01, 0x20, 0x03, 0x50, 0x05, 0x18, 0x00,
        ];
        let payload = Payload::read(&bytes).unwrap();
        assert_eq!((payload.timestamp, payload.seq), (Some(1), Some(0)));
        let metric = &payload.metrics[0];
        assert_eq!((metric.name.as_deref(), metric.alias), (Some("t"), Some(1)));
        assert_eq!(metric.content(None).unwrap().0, Some(5.0));
    }

    #[test]
    fn anything_else_is_refused_without_a_panic() {
        assert!(
            Payload::read(b"{\"value\":1}")
                .unwrap_err()
                .starts_with("not a Sparkplug B payload")
        );
        proptest::proptest!(|(bytes: Vec<u8>)| {
            if let Ok(payload) = Payload::read(&bytes) {
                for metric in &payload.metrics {
                    let _ = metric.content(None);
                }
            }
        });
    }
}
