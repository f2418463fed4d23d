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

/// `make fuzz`: payloads are changed again and again for `FUZZ_SECS` (20) a format, and those that a decoder answers in a new way are
/// changed further. `FUZZ_SEED` repeats a run.
#[test]
#[ignore = "runs for as long as it is told to"]
fn payloads_changed_for_a_while() {
    let setting = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (secs, seed) = (setting("FUZZ_SECS", 20), setting("FUZZ_SEED", 1));
    for format in FORMATS {
        let mut dice = Dice(seed);
        let mut corpus = vec![valid(format)];
        let mut seen = std::collections::HashSet::new();
        let (started, mut count) = (std::time::Instant::now(), 0_u64);
        while started.elapsed().as_secs() < secs {
            for _ in 0..64 {
                let payload = changed(&corpus, &mut dice);
                let made = std::panic::catch_unwind(|| fuzz_decode(format, &payload));
                let made = made.unwrap_or_else(|_| panic!("{format}: seed {seed}, payload {count}: {payload:?}"));
                let (samples, letters) = made.unwrap();
                assert!(samples + letters > 0, "{format}: {payload:?} gave nothing");
                if corpus.len() < 4096 && payload.len() < 4096 && seen.insert((samples, letters)) {
                    corpus.push(payload);
                }
                count += 1;
            }
        }
        println!("{format}: {count} payloads, {} kept", corpus.len());
    }
}

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end.max(1) as u64) as usize
    }
}

/// A payload of the corpus with up to eight changes.
fn changed(corpus: &[Vec<u8>], dice: &mut Dice) -> Vec<u8> {
    // What the formats are made of: their brackets, lengths that are too large, numbers that nothing holds.
    const PARTS: [&[u8]; 14] = [
        b"{",
        b"}",
        b"[",
        b"]",
        b"\"",
        b",",
        b"\n",
        b"null",
        b"-1e999",
        b"\xff\xff\xff\xff",
        b"\x80\x80\x80\x80\x80\x01",
        b"\0\0\0\0",
        b"\x7f\xff\xff\xff",
        b"\\u00",
    ];
    let mut payload = corpus[dice.below(corpus.len())].clone();
    for _ in 0..=dice.below(8) {
        let at = dice.below(payload.len() + 1);
        let end = (at + dice.below(16)).min(payload.len());
        match dice.below(6) {
            0 if at < payload.len() => payload[at] ^= 1 << dice.below(8),
            1 if at < payload.len() => payload[at] = dice.below(256) as u8,
            2 => drop(payload.drain(at..end)),
            3 => drop(payload.splice(at..at, PARTS[dice.below(PARTS.len())].iter().copied())),
            4 => {
                let again = payload[at..end].to_vec();
                drop(payload.splice(at..at, again));
            }
            _ => {
                let other = &corpus[dice.below(corpus.len())];
                let from = dice.below(other.len() + 1);
                payload.truncate(at);
                payload.extend_from_slice(&other[from..]);
            }
        }
    }
    payload
}
