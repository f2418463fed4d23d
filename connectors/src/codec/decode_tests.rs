#![allow(clippy::unwrap_used, clippy::expect_used)]

use arrow::array::AsArray;
use taktline_engine::Samples;
use taktline_engine::config::Section;

use super::super::message::MessageBatch;
use super::*;

/// Arrival of all messages: 2026-01-02T03:04:05Z.
const RECEIVED: i64 = 1_767_323_045_000_000;

fn decode(config: &str, messages: &[(&str, &[u8])]) -> Decoded {
    let config: DecodeConfig = Section::from_yaml("decode", config).parse().unwrap();
    let wide = config.values.is_some();
    let pattern = TopicPattern::parse(if wide {
        "acme/{machine}"
    } else {
        "acme/{machine}/{signal}"
    })
    .unwrap();
    let address = Address {
        pattern: Some(pattern),
        ..Address::default()
    };
    let reading = Reading::new("plc", address, &config, None, None).unwrap();
    let mut batch = MessageBatch::default();
    for (sequence, (topic, payload)) in messages.iter().enumerate() {
        let message = Message {
            topic,
            key: None,
            headers: &[],
            payload,
            received: RECEIVED,
            sequence: sequence as u64,
        };
        batch.push(message).unwrap();
    }
    MessageDecoder::new(reading).decode(&batch.finish().unwrap()).unwrap()
}

/// `machine/signal@µs after arrival=value|text` for each sample, `! reason` for each dead letter.
fn shown(decoded: &Decoded) -> String {
    let samples = Samples::of(&decoded.samples).unwrap();
    let mut lines = Vec::new();
    for row in 0..decoded.samples.num_rows() {
        let value = samples
            .value
            .iter()
            .nth(row)
            .flatten()
            .map_or("-".into(), |value| value.to_string());
        let text = samples.text.iter().nth(row).flatten().unwrap_or("-");
        let machine = samples.machines.value(samples.machine[row] as usize);
        let signal = samples.signals.value(samples.signal[row] as usize);
        lines.push(format!(
            "{machine}/{signal}@{}={value}|{text}",
            samples.ts[row] - RECEIVED
        ));
    }
    let reasons = decoded.dead_letters.column_by_name("reason").unwrap();
    lines.extend(
        reasons
            .as_string::<i32>()
            .iter()
            .map(|reason| format!("! {}", reason.unwrap())),
    );
    lines.join("; ")
}

#[test]
fn payloads() {
    let check = |config: &str, payload: &[u8], expect: &str| {
        let got = shown(&decode(config, &[("acme/m/s", payload)]));
        assert!(
            got.starts_with(expect),
            "{config} {:?}: {got}",
            String::from_utf8_lossy(payload)
        );
    };
    let number = "format: number";
    check(number, b"12.5", "m/s@0=12.5|-");
    check(number, b" -1e3\n", "m/s@0=-1000|-");
    check(number, b"true", "m/s@0=1|-");
    check(number, b"NaN", "m/s@0=-|-");
    check(number, b"inf", "m/s@0=-|-");
    check(number, b"", "! the payload is empty");
    check(number, b"1,5", "! `1,5` is no number");
    check(number, b"\xff\xfe", "! the number is not UTF-8");
    let text = "format: text";
    check(text, "läuft".as_bytes(), "m/s@0=-|läuft");
    check(text, b"a\xff", "! the text is not UTF-8");
    check(text, &vec![b'x'; 1 << 20], "! the text has more than 65536 bytes");
    let json = "{value: /v, time: /t, unit: ms}";
    check(json, br#"{"t":1767323045001,"v":3}"#, "m/s@1000=3|-");
    check(json, br#"{"t":"1767323045001","v":"3.5"}"#, "m/s@1000=3.5|-");
    check(json, br#"{"t":1767323045000.5,"v":true}"#, "m/s@500=1|-");
    check(json, br#"{"t":1767323045000,"v":"RUN"}"#, "m/s@0=-|RUN");
    check(json, br#"{"t":1767323045000,"v":null}"#, "m/s@0=-|-");
    check(json, br#"{"t":1767323045000}"#, "! nothing stands at `value` or `text`");
    check(
        json,
        br#"{"t":1767323045000,"v":{}}"#,
        "! an object or a list stands at `value`",
    );
    check(json, br#"{"v":1}"#, "! nothing stands at `time`");
    check(
        json,
        br#"{"t":"noon","v":1}"#,
        "! the time `noon` is no number; check `unit`",
    );
    check(json, br#"{"t":true,"v":1}"#, "! the time is neither");
    check(
        json,
        br#"{"t":1767323045000000,"v":1}"#,
        "! the time 1767323045000000000 us lies outside of 1900 to 2200; check `unit`",
    );
    check(json, br#"{"t":1767323045,"v":1}"#, "m/s@");
    check(json, br#"{"t":1767323345000,"v":1}"#, "m/s@300000000=1|-");
    check(
        json,
        br#"{"t":1767323345001,"v":1}"#,
        "! the time is more than 5 minutes ahead of the arrival; check `unit` and the sender's clock",
    );
    check(
        json,
        br#"{"t":9223372036854775807,"v":1}"#,
        "! the time is out of range",
    );
    check(json, br#"{"t":1e300,"v":1}"#, "! the time is out of range");
    check(json, br#"{"t":1767323045000,"v":NaN}"#, "! not JSON");
    check(json, b"{\"t\":1767323045000,\"v\":\"\xff\"}", "! not JSON");
    check(json, b"\x00\x01garbage", "! not JSON");
    let (s, us, ns) = (
        "{value: /v, time: /t, unit: s}",
        "{value: /v, time: /t, unit: us}",
        "{value: /v, time: /t, unit: ns}",
    );
    check(s, br#"{"t":1767323045.25,"v":1}"#, "m/s@250000=1|-");
    check(us, br#"{"t":1767323045000007,"v":1}"#, "m/s@7=1|-");
    check(ns, br#"{"t":1767323045000007999,"v":1}"#, "m/s@7=1|-");
    let rfc = "{value: /v, time: /t, unit: rfc3339}";
    check(rfc, br#"{"t":"2026-01-02T03:04:05.000001Z","v":1}"#, "m/s@1=1|-");
    check(rfc, br#"{"t":"2026-01-02T04:04:05+01:00","v":1}"#, "m/s@0=1|-");
    check(rfc, br#"{"t":"2026-01-02","v":1}"#, "! the time `2026-01-02`");
    check(
        rfc,
        br#"{"t":1767323045,"v":1}"#,
        "! the time is a number; check `unit`",
    );
    check("{value: '', text: /none}", b"4", "m/s@0=4|-");
    check("{value: /v, text: /s}", br#"{"v":1,"s":7}"#, "m/s@0=1|7");
    check("{text: /s}", br#"{"s":"on"}"#, "m/s@0=-|on");
}

#[test]
fn wide_payloads() {
    let check = |config: &str, payload: &str, expect: &str| {
        assert_eq!(
            shown(&decode(config, &[("acme/m", payload.as_bytes())])),
            expect,
            "{payload}"
        );
    };
    let root = "{values: '', time: /ts, unit: ms}";
    check(
        root,
        r#"{"ts":1767323045001,"a":1,"b":"on","n":{"x":1}}"#,
        "m/a@1000=1|-; m/b@1000=-|on",
    );
    check(
        root,
        r#"{"ts":1767323045001}"#,
        "! the object at `values` has no values",
    );
    check(root, r#"[1,2]"#, "! nothing stands at `time`");
    check("{values: /d}", r#"{"d":{"a":1.5},"e":2}"#, "m/a@0=1.5|-");
    check("{values: /d}", r#"{"e":2}"#, "! the object at `values` has no values");
}

#[test]
fn good_messages_beside_bad_ones() {
    let mega = format!("{{\"pad\":\"{}\",\"v\":5}}", "x".repeat(1 << 20));
    let deep = format!("{{\"v\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    let decoded = decode(
        "value: /v",
        &[
            ("acme/m/s", mega.as_bytes()),
            ("other/m/s", b"{}"),
            ("acme//s", b"{\"v\":1}"),
            ("acme/m/", b"{\"v\":1}"),
            ("acme/m/s", deep.as_bytes()),
            ("acme/m/s", b"{\"v\":6}"),
        ],
    );
    let got = shown(&decoded);
    assert!(
        got.starts_with("m/s@0=5|-; m/s@0=6|-; ! the topic does not fit"),
        "{got}"
    );
    assert!(
        got.contains("names no machine; ! the message names no signal; ! "),
        "{got}"
    );
    let dead = &decoded.dead_letters;
    assert_eq!(dead.num_rows(), 4);
    let offsets = dead.column_by_name("offset").unwrap().as_primitive::<UInt64Type>();
    assert_eq!(offsets.values(), &[1, 2, 3, 4]);
    assert_eq!(
        dead.column_by_name("partition").unwrap().as_string::<i32>().value(0),
        "other/m/s"
    );
    assert_eq!(
        dead.column_by_name("payload")
            .unwrap()
            .as_binary::<i32>()
            .value(3)
            .len(),
        4096
    );
}
