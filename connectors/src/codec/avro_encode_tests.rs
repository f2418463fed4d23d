#![allow(clippy::unwrap_used, clippy::expect_used)]

use apache_avro::Schema;
use arrow::array::{DictionaryArray, Float64Builder, Int32Array, ListBuilder, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::Int32Type;

use super::super::config::RegistryConfig;
use super::super::encode::{EncodeConfig, EncodeFormat};
use super::super::registry::tests::TestRegistry;
use super::*;

fn rows() -> RecordBatch {
    let machine: DictionaryArray<Int32Type> = [Some("m1"), None, Some("m2")].into_iter().collect();
    let mut lists = ListBuilder::new(Float64Builder::new());
    lists.append_value([Some(1.5), None]);
    lists.append_null();
    lists.append_value([] as [Option<f64>; 0]);
    let parts: Vec<(&str, ArrayRef)> = vec![("a b", Arc::new(Int32Array::from(vec![Some(1), None, Some(-3)])))];
    let parts = StructArray::try_from(parts).unwrap();
    let ts = TimestampMicrosecondArray::from(vec![Some(1_767_323_045_000_001), None, Some(-1)]).with_timezone("UTC");
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("machine", Arc::new(machine)),
        ("ts", Arc::new(ts)),
        ("value", Arc::new(Float64Array::from(vec![Some(1.5), None, Some(-2.0)]))),
        ("count", Arc::new(UInt64Array::from(vec![300, 0, 5]))),
        (
            "open",
            Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
        ),
        ("lists", Arc::new(lists.finish())),
        ("parts", Arc::new(parts)),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

fn encoded(encoder: &mut dyn Encoder, batch: &RecordBatch) -> anyhow::Result<Vec<Vec<u8>>> {
    let mut payloads = Vec::new();
    encoder.encode(batch, &mut |row, payload| {
        assert_eq!(row, payloads.len());
        payloads.push(payload.to_vec());
        Ok(())
    })?;
    Ok(payloads)
}

/// The library reads what is written here.
fn read(schema: &str, payload: &[u8]) -> Value {
    let schema = Schema::parse_str(schema).unwrap();
    let mut rest = payload;
    let value = apache_avro::from_avro_datum(&schema, &mut rest, None).unwrap();
    assert!(rest.is_empty());
    value.try_into().unwrap()
}

#[test]
fn rows_by_their_own_columns() {
    let batch = rows();
    let json = derived("alerts", batch.schema_ref().fields()).unwrap().to_string();
    let mut encoder = AvroEncoder::new("alerts", WriteBy::Reader { schema: None });
    // Twice: the second time the schema is there already.
    encoded(&mut encoder, &batch).unwrap();
    let payloads = encoded(&mut encoder, &batch).unwrap();
    let shown: Vec<Value> = payloads.iter().map(|payload| read(&json, payload)).collect();
    let expect = json!([
        {"machine": "m1", "ts": 1_767_323_045_000_001_i64, "value": 1.5, "count": 300, "open": true, "lists": [1.5, null], "parts": {"a_b": 1}},
        {"machine": null, "ts": null, "value": null, "count": 0, "open": null, "lists": null, "parts": {"a_b": null}},
        {"machine": "m2", "ts": -1, "value": -2.0, "count": 5, "open": false, "lists": [], "parts": {"a_b": -3}},
    ]);
    assert_eq!(Value::Array(shown), expect);
}

#[test]
fn rows_by_a_schema() {
    let batch = rows();
    let check = |fields: &str, expect: Result<Value, &str>| {
        let schema = format!(r#"{{"type":"record","name":"R","fields":[{fields}]}}"#);
        let mut encoder = AvroEncoder::new(
            "x",
            WriteBy::Reader {
                schema: Some(schema.clone()),
            },
        );
        let got = encoded(&mut encoder, &batch.slice(0, 1)).map(|payloads| read(&schema, &payloads[0]));
        match (got, expect) {
            (Ok(got), Ok(expect)) => assert_eq!(got, expect, "{fields}"),
            (Err(got), Err(part)) => assert!(format!("{got:#}").contains(part), "{fields}: {got:#}"),
            (got, _) => panic!("{fields}: {got:?}"),
        }
    };
    check(r#"{"name":"count","type":"double"}"#, Ok(json!({"count": 300.0})));
    check(
        r#"{"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}}"#,
        Ok(json!({"ts": 1_767_323_045_000_i64})),
    );
    check(
        r#"{"name":"machine","type":{"type":"enum","name":"E","symbols":["m0","m1"]}}"#,
        Ok(json!({"machine": "m1"})),
    );
    check(
        r#"{"name":"machine","type":{"type":"enum","name":"E","symbols":["m0"]}}"#,
        Err("column `machine`, row 0: `m1` is no symbol"),
    );
    check(r#"{"name":"none","type":["null","string"]}"#, Ok(json!({"none": null})));
    check(
        r#"{"name":"none","type":"string"}"#,
        Err("column `none`, row 0: it is null, and the schema has no null"),
    );
    check(
        r#"{"name":"value","type":"string"}"#,
        Err("column `value`, row 0: it has another type"),
    );
    check(
        r#"{"name":"value","type":["null","string"]}"#,
        Err("union has no variant for it"),
    );
}

#[test]
fn what_is_written_is_read_again() {
    let batch = rows();
    let json = derived("alerts", batch.schema_ref().fields()).unwrap().to_string();
    let schema = AvroSchema::parse(&json, &[]).unwrap();
    let mut query = super::super::query::Query::default();
    let pointer = super::super::pointer::Pointer::parse("/lists/*").unwrap();
    let slot = query.value(&pointer).unwrap();
    let payloads = encoded(
        &mut AvroEncoder::new("alerts", WriteBy::Reader { schema: None }),
        &batch,
    )
    .unwrap();
    let mut found = super::super::query::Found::default();
    let document = super::super::avro::AvroDocument {
        schema: &schema,
        payload: &payloads[0],
    };
    super::super::query::Document::find(&document, &query, &mut found).unwrap();
    assert_eq!(found.count(1), 2);
    assert_eq!(found.get(slot, 0), Some(&super::super::query::Scalar::Float(1.5)));
}

#[test]
fn a_registry_numbers_the_schema() {
    let server = TestRegistry::start();
    let config = EncodeConfig {
        format: EncodeFormat::Avro,
        registry: Some(RegistryConfig {
            url: server.url.clone(),
            user: None,
            password: None,
            tls: None,
        }),
        ..EncodeConfig::default()
    };
    assert!(config.problems("encode").is_empty());
    let batch = rows();
    let mut encoder = config.encoder("alerts", "topic-value").unwrap();
    let first = encoded(&mut *encoder, &batch).unwrap();
    let second = encoded(&mut *encoder, &batch).unwrap();
    assert_eq!(first, second);
    let registered = server.registered();
    assert_eq!(registered.len(), 1);
    assert_eq!(registered[0].0, "topic-value");
    assert_eq!(first[0][..5], [0, 0, 0, 0, 41]);
    assert_eq!(read(&registered[0].1, &first[0][5..])["machine"], json!("m1"));
}

#[test]
fn settings() {
    let check = |yaml: &str, expect: &[&str]| {
        let config: EncodeConfig = taktline_engine::config::Section::from_yaml("encode", yaml)
            .parse()
            .unwrap();
        let paths: Vec<String> = config
            .problems("encode")
            .iter()
            .map(|problem| problem.path.join("."))
            .collect();
        assert_eq!(paths, expect, "{yaml}");
    };
    check("{}", &[]);
    check("{format: avro}", &[]);
    check("{schema: x.avsc, subject: s}", &["encode.schema", "encode.subject"]);
    check("{format: avro, subject: s}", &["encode.subject"]);
    check("{format: avro, schema: /nowhere/x}", &["encode.schema"]);
    check("{format: avro, registry: {url: ''}}", &["encode.registry.url"]);
}

#[test]
fn json_rows() {
    let batch = rows();
    let payloads = encoded(&mut *EncodeConfig::default().encoder("x", "x").unwrap(), &batch).unwrap();
    let first: Value = serde_json::from_slice(&payloads[0]).unwrap();
    assert_eq!(
        (payloads.len(), &first["machine"], &first["ts"]),
        (3, &json!("m1"), &json!("2026-01-02T03:04:05.000001Z"))
    );
}
