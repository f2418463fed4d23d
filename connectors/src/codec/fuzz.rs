//! Any bytes through any decoder, for tests.

use std::sync::{Arc, OnceLock};

use taktline_engine::Decoder;

use super::address::Address;
use super::avro::AvroSchema;
use super::config::{DecodeConfig, Format, Framing, Preset};
use super::csv::CsvForm;
use super::decode::MessageDecoder;
use super::message::{Message, MessageBatch};
use super::reading::{Payload, Reading, WrittenBy};
use super::sparkplug;

/// The decoders that [`fuzz_decode`] knows.
const FORMATS: &[&str] = &[
    "json",
    "json_list",
    "thingsboard",
    "siemens",
    "ndjson",
    "number",
    "text",
    "scalar",
    "csv",
    "csv_header",
    "influx",
    "avro",
    "protobuf",
    "arrow",
    "sparkplug",
];

/// The schema of the Avro payloads here: with everything that can nest.
const AVRO: &str = r#"{"type": "record", "name": "R", "fields": [
    {"name": "ts", "type": {"type": "long", "logicalType": "timestamp-millis"}},
    {"name": "v", "type": ["null", "double", "string", {"type": "enum", "name": "E", "symbols": ["A", "B"]}]},
    {"name": "list", "type": {"type": "array", "items": {"type": "map", "values": ["null", "R", "long"]}}},
    {"name": "d", "type": {"type": "bytes", "logicalType": "decimal", "precision": 10, "scale": 2}}]}"#;

/// Decodes one payload; gives the samples and the dead letters it made. Panics only where a decoder does.
///
/// # Errors
/// There is no such format, or the decoder ended the run, which no payload may make it do.
fn fuzz_decode(format: &str, payload: &[u8]) -> anyhow::Result<(usize, usize)> {
    if format == "sparkplug" {
        return Ok(match sparkplug::Payload::read(payload) {
            Ok(read) => (
                read.metrics
                    .iter()
                    .filter(|metric| metric.content(None).is_ok())
                    .count()
                    .max(1),
                0,
            ),
            Err(_) => (0, 1),
        });
    }
    static READINGS: OnceLock<Vec<(&'static str, Option<Reading>)>> = OnceLock::new();
    let readings = READINGS.get_or_init(|| FORMATS.iter().map(|format| (*format, reading(format))).collect());
    let known = readings.iter().find(|(known, _)| *known == format);
    let Some((_, Some(reading))) = known else {
        anyhow::bail!("there is no format `{format}` to fuzz");
    };
    let mut batch = MessageBatch::default();
    batch.push(Message {
        topic: "t",
        key: None,
        headers: &[],
        payload,
        received: 1_767_323_045_000_000,
        sequence: 0,
    })?;
    let decoded = MessageDecoder::new(reading.clone()).decode(&batch.finish()?)?;
    Ok((decoded.samples.num_rows(), decoded.dead_letters.num_rows()))
}

fn reading(format: &str) -> Option<Reading> {
    let text = |text: &str| Some(text.to_owned());
    let of = |format: Format| DecodeConfig {
        format,
        ..DecodeConfig::default()
    };
    let in_ms = |format: Format, time: &str, values: &str| DecodeConfig {
        time: text(time),
        unit: Some(crate::time::Unit::Ms),
        values: text(values),
        ..of(format)
    };
    let preset = |preset: Preset| DecodeConfig {
        preset: Some(preset),
        ..DecodeConfig::default()
    };
    let (config, payload) = match format {
        "json" => (in_ms(Format::Json, "/ts", ""), None),
        "json_list" => {
            let config = DecodeConfig {
                signal: text("/s/*"),
                ..in_ms(Format::Json, "/s/*/t", "/s/*/v")
            };
            (config, None)
        }
        "thingsboard" => (preset(Preset::Thingsboard), None),
        "siemens" => (preset(Preset::Siemens), None),
        "ndjson" => (in_ms(Format::Ndjson, "/ts", ""), None),
        "number" => (of(Format::Number), None),
        "text" => (of(Format::Text), None),
        "scalar" => (of(Format::Scalar), None),
        "csv" | "csv_header" => {
            let columns = ["ts", "a", "b"].map(str::to_owned).to_vec();
            let form = CsvForm {
                columns: (format == "csv").then_some(columns),
                delimiter: b',',
                decimal_comma: false,
            };
            (in_ms(Format::Json, "/ts", ""), Some(Payload::Csv(form)))
        }
        "influx" => (of(Format::Influx), None),
        "avro" => {
            let schema = AvroSchema::parse(AVRO, &[]).ok()?;
            let config = in_ms(Format::Json, "/ts", "");
            (config, Some(Payload::Avro(WrittenBy::File(Arc::new(schema)))))
        }
        "protobuf" => {
            let pool = prost_reflect::DescriptorPool::global();
            let message = pool.get_message_by_name("google.protobuf.Value")?;
            (of(Format::Json).with_values(), Some(Payload::Protobuf(message)))
        }
        "arrow" => (of(Format::Arrow), None),
        _ => return None,
    };
    let wide = config.values.is_some() || matches!(config.format, Format::Arrow | Format::Influx);
    let signal = (!wide && config.preset.is_none()).then_some("s");
    let mut reading = Reading::new("fuzz", Address::default(), &config, Some("m"), signal).ok()?;
    reading.payload = payload.unwrap_or(reading.payload);
    reading.framing = Framing::None;
    Some(reading)
}

impl DecodeConfig {
    fn with_values(self) -> Self {
        DecodeConfig {
            values: Some(String::new()),
            ..self
        }
    }
}

#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod tests;
