#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use arrow::array::{ArrayRef, DictionaryArray, Float64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::Int32Type;
use proptest::prelude::*;

use super::*;

/// A payload of each format that gives samples and no dead letter.
fn valid(format: &str) -> Vec<u8> {
    match format {
        "json" => br#"{"ts":1767323045000,"a":1,"b":"on","c":[1]}"#.to_vec(),
        "json_list" => br#"{"s":{"x":{"t":1767323045000,"v":{"a":1}},"y":{"t":1767323045000,"v":{"b":2}}}}"#.to_vec(),
        "thingsboard" => br#"[{"ts":1767323045000,"values":{"a":1}}]"#.to_vec(),
        "siemens" => {
            br#"{"timeseries":[{"timestamp":"2026-01-02T03:04:05Z","values":[{"dataPointId":"a","value":"1"}]}]}"#
                .to_vec()
        }
        "ndjson" => b"{\"ts\":1767323045000,\"a\":1}\n{\"ts\":1767323045000,\"a\":2}\n".to_vec(),
        "number" => b"12.5".to_vec(),
        "text" | "scalar" => b"RUN".to_vec(),
        "csv" => b"1767323045000,1,\"x\"\n1767323045000,2,y\n".to_vec(),
        "csv_header" => b"ts,a\n1767323045000,1\n".to_vec(),
        "influx" => b"m,t=x a=1,b=2i,c=\"on\" 1767323045000000000\n".to_vec(),
        "avro" => avro(),
        "protobuf" => vec![0x11, 0, 0, 0, 0, 0, 0, 0xf8, 0x3f],
        "arrow" => arrow_stream(),
        "sparkplug" => vec![
            0x08, 0x01, 0x12, 0x09, 0x0a, 0x01, b't', 0x10, 0x01, 0x20, 0x03, 0x50, 0x05, 0x18, 0x00,
        ],
        other => panic!("{other}"),
    }
}

fn avro() -> Vec<u8> {
    let schema = apache_avro::Schema::parse_str(AVRO).unwrap();
    use apache_avro::types::{Record, Value};
    let mut record = Record::new(&schema).unwrap();
    record.put("ts", Value::TimestampMillis(1_767_323_045_000));
    record.put("v", Value::Union(1, Box::new(Value::Double(1.5))));
    let inner = [("k".to_owned(), Value::Union(2, Box::new(Value::Long(5))))];
    record.put("list", Value::Array(vec![Value::Map(inner.into_iter().collect())]));
    record.put("d", Value::Decimal(vec![1, 2].into()));
    apache_avro::to_avro_datum(&schema, record).unwrap()
}

fn arrow_stream() -> Vec<u8> {
    let names: DictionaryArray<Int32Type> = ["a", "b"].into_iter().collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        (
            "at",
            Arc::new(TimestampMillisecondArray::from(vec![1_767_323_045_000; 2])),
        ),
        ("v", Arc::new(Float64Array::from(vec![Some(1.0), None]))),
        ("s", Arc::new(StringArray::from(vec![Some("x"), None]))),
        ("d", Arc::new(names)),
    ];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let mut bytes = Vec::new();
    let mut writer = arrow::ipc::writer::StreamWriter::try_new(&mut bytes, &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    drop(writer);
    bytes
}

#[test]
fn valid_payloads_are_read() {
    for format in FORMATS {
        let (samples, letters) = fuzz_decode(format, &valid(format)).unwrap();
        assert!(
            samples > 0 && letters == 0,
            "{format}: {samples} samples, {letters} dead letters"
        );
    }
    assert!(fuzz_decode("none", b"").is_err());
}

/// No panic, and every message is samples or a dead letter.
fn check(format: &str, payload: &[u8]) -> Result<(), TestCaseError> {
    let (samples, letters) = fuzz_decode(format, payload).unwrap();
    prop_assert!(samples + letters > 0, "{format}: {payload:?} gave nothing");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn any_bytes(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        for format in FORMATS {
            check(format, &payload)?;
        }
    }

    #[test]
    fn valid_payloads_with_changes(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        for format in FORMATS {
            let mut payload = valid(format);
            for (at, byte) in &changes {
                let at = at.index(payload.len());
                payload[at] = *byte;
            }
            if let Some(cut) = cut {
                payload.truncate(cut.index(payload.len()));
            }
            check(format, &payload)?;
        }
    }
}
