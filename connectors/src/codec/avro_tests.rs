#![allow(clippy::unwrap_used, clippy::expect_used)]

use apache_avro::types::Value;

use super::super::pointer::Pointer;
use super::super::query::Scalar;
use super::*;

/// What stands at a pointer.
fn at(schema: &str, payload: &[u8], pointer: &str) -> Result<String, String> {
    let schema = AvroSchema::parse(schema, &[])?;
    let mut query = Query::default();
    let slot = query.value(&Pointer::parse(pointer)?)?;
    let mut found = Found::default();
    AvroDocument {
        schema: &schema,
        payload,
    }
    .find(&query, &mut found)?;
    let shown = (0..found.count(slot.level)).map(|record| match found.get(slot, record) {
        None => "-".to_owned(),
        Some(Scalar::Text(text)) => format!("'{text}'"),
        Some(other) => format!("{other:?}"),
    });
    Ok(shown.collect::<Vec<_>>().join(","))
}

/// What the library writes is read here.
#[test]
fn values() {
    let check = |kind: &str, value: Value, pointer: &str, expect: &str| {
        let schema = Schema::parse_str(kind).unwrap();
        let payload = apache_avro::to_avro_datum(&schema, value).unwrap();
        assert_eq!(at(kind, &payload, pointer).unwrap(), expect, "{kind}");
        // Every cut is an error and not half a value.
        for end in 0..payload.len() {
            let cut = at(kind, &payload[..end], pointer);
            assert!(cut.unwrap_err().contains("not Avro"), "{kind} cut at {end}");
        }
        let longer = [&payload[..], b"x"].concat();
        assert!(
            at(kind, &longer, pointer).unwrap_err().contains("left behind"),
            "{kind}"
        );
    };
    check("\"long\"", Value::Long(i64::MIN), "", "Int(-9223372036854775808)");
    check("\"int\"", Value::Int(-5), "", "Int(-5)");
    check("\"double\"", Value::Double(-1.5), "", "Float(-1.5)");
    check("\"float\"", Value::Float(0.5), "", "Float(0.5)");
    check("\"boolean\"", Value::Boolean(true), "", "Bool(true)");
    check("\"string\"", Value::String("läuft".into()), "", "'läuft'");
    check("\"bytes\"", Value::Bytes(vec![1, 2]), "", "Nested");
    check(
        r#"{"type":"fixed","name":"F","size":3}"#,
        Value::Fixed(3, vec![1, 2, 3]),
        "",
        "Nested",
    );
    check(
        r#"{"type":"enum","name":"E","symbols":["A","B"]}"#,
        Value::Enum(1, "B".into()),
        "",
        "'B'",
    );
    check(
        r#"["null","double"]"#,
        Value::Union(0, Box::new(Value::Null)),
        "",
        "Null",
    );
    check(
        r#"["null","double"]"#,
        Value::Union(1, Box::new(Value::Double(2.0))),
        "",
        "Float(2.0)",
    );
    let millis = r#"{"type":"long","logicalType":"timestamp-millis"}"#;
    check(millis, Value::TimestampMillis(5), "", "Time(5000)");
    let nanos = r#"{"type":"long","logicalType":"timestamp-nanos"}"#;
    check(nanos, Value::TimestampNanos(5999), "", "Time(5)");
    check(
        r#"{"type":"int","logicalType":"date"}"#,
        Value::Date(1),
        "",
        "Time(86400000000)",
    );
    let decimal = r#"{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}"#;
    check(decimal, Value::Decimal(vec![0xff, 0x38].into()), "", "Float(-2.0)");
    check(decimal, Value::Decimal(vec![0x00, 0xff].into()), "", "Float(2.55)");
    let list = r#"{"type":"array","items":"long"}"#;
    check(
        list,
        Value::Array(vec![Value::Long(1), Value::Long(2)]),
        "/*",
        "Int(1),Int(2)",
    );
    let map = r#"{"type":"map","values":"long"}"#;
    check(
        map,
        Value::Map([("k".to_owned(), Value::Long(1))].into()),
        "/k",
        "Int(1)",
    );
    let record = r#"{"type":"record","name":"R","namespace":"n","fields":[{"name":"a","type":"long"},
        {"name":"next","type":["null","R"]},{"name":"e","type":{"type":"enum","name":"E","symbols":["X"]}},{"name":"f","type":"E"}]}"#;
    let inner = |next| {
        Value::Record(vec![
            ("a".into(), Value::Long(7)),
            ("next".into(), next),
            ("e".into(), Value::Enum(0, "X".into())),
            ("f".into(), Value::Enum(0, "X".into())),
        ])
    };
    let one = inner(Value::Union(0, Box::new(Value::Null)));
    let two = inner(Value::Union(1, Box::new(one)));
    check(record, two.clone(), "/next/a", "Int(7)");
    check(record, two, "/next/f", "'X'");
}

#[test]
fn what_no_writer_writes() {
    let check = |kind: &str, payload: &[u8], expect: &str| {
        let error = at(kind, payload, "").unwrap_err();
        assert!(error.contains(expect), "{kind} {payload:?}: {error}");
    };
    check("\"long\"", &[0xff; 11], "more than 10 bytes");
    check("\"string\"", &[0x03], "a length is -2");
    check("\"string\"", &[0xfe, 0xff, 0xff, 0xff, 0x0f], "bytes early");
    check("\"string\"", &[0x02, 0xff], "not UTF-8");
    check("\"boolean\"", &[2], "neither 0 nor 1");
    check(r#"["null","long"]"#, &[4], "no variant 2");
    check(r#"{"type":"enum","name":"E","symbols":["A"]}"#, &[2], "no symbol 1");
    // A few bytes that stand for a very long list of nothing.
    check(
        r#"{"type":"array","items":"null"}"#,
        &[0xfe, 0xff, 0xff, 0xff, 0xff, 0x0f, 0],
        "a list of",
    );
    let deep = r#"{"type":"record","name":"R","fields":[{"name":"r","type":["null","R"]}]}"#;
    check(deep, &[2; 1000], "nested deeper than 64");
}

#[test]
fn schemas() {
    let check = |json: &str, expect: &str| {
        let error = AvroSchema::parse(json, &[]).unwrap_err();
        assert!(error.contains(expect), "{json}: {error}");
    };
    check("nonsense", "no Avro schema");
    check(
        r#"{"type":"record","name":"R","fields":[{"name":"x","type":"Other"}]}"#,
        "no Avro schema",
    );
    let library = Schema::parse_str("\"long\"").unwrap().fingerprint::<Rabin>().bytes;
    assert_eq!(AvroSchema::parse("\"long\"", &[]).unwrap().fingerprint, library[..]);
}
