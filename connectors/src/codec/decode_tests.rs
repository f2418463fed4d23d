#![allow(clippy::unwrap_used, clippy::expect_used)]

use arrow::array::AsArray;
use arrow::datatypes::UInt64Type;
use taktline_engine::Samples;
use taktline_engine::config::Section;

use super::super::message::MessageBatch;
use super::super::topic::TopicPattern;
use super::*;

/// Arrival of all messages: 2026-01-02T03:04:05Z.
const RECEIVED: i64 = 1_767_323_045_000_000;

/// Decodes messages under a `decode` section; the topic names the machine, and the signal where the payload doesn't.
fn decode(config: &str, messages: &[(&str, &[u8])]) -> Decoded {
    let names = if messages[0].0.matches('/').count() == 1 {
        "acme/{machine}"
    } else {
        "acme/{machine}/{signal}"
    };
    decode_by(config, names, None, None, messages).0
}

fn decode_by(
    config: &str,
    pattern: &str,
    machine: Option<&str>,
    signal: Option<&str>,
    messages: &[(&str, &[u8])],
) -> (Decoded, u64) {
    let config: DecodeConfig = Section::from_yaml("decode", config).parse().unwrap();
    let address = Address {
        pattern: Some(TopicPattern::parse(pattern).unwrap()),
        ..Address::default()
    };
    let reading = Reading::new("plc", address, &config, machine, signal).unwrap();
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
    let mut decoder = MessageDecoder::new(reading);
    let decoded = decoder.decode(&batch.finish().unwrap()).unwrap();
    (decoded, decoder.left_out())
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
    check(number, b"   ", "! the payload is empty");
    let scalar = "format: scalar";
    check(scalar, b"12.5", "m/s@0=12.5|-");
    check(scalar, b"false", "m/s@0=0|-");
    check(scalar, b"RUN", "m/s@0=-|RUN");
    check(scalar, b"", "! the payload is empty");
    check(scalar, b"\xff", "! the text is not UTF-8");
    check(number, b"\xff\xfe", "! the number is not UTF-8");
    let text = "format: text";
    check(text, b"", "m/s@0=-|");
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
        "! the time would be in the year 57974; as us it would be 2026-01-02T03:04:05Z: write unit: us",
    );
    let seconds = "! the time would be in the year 1970; as s it would be 2026-01-02T03:04:05Z: write unit: s";
    check(json, br#"{"t":1767323045,"v":1}"#, seconds);
    check(json, br#"{"t":"1767323045.5","v":1}"#, seconds);
    check(json, br#"{"t":1667323045,"v":1}"#, "m/s@"); // a clock that was never set
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
    check(json, b"", "! the payload is empty");
    check(json, b"null", "! nothing stands at `time`");
    check(json, br#"{"t":1767323045000,"v":1,"v":2}"#, "m/s@0=2|-");
    check(json, br#"{"t":1767323045000,"v":"NaN"}"#, "m/s@0=-|-");
    check(json, br#"{"t":1767323045000,"v":"-Infinity"}"#, "m/s@0=-|-");
    check(
        json,
        br#"{"t":1767323045000,"v":1e999}"#,
        "! not JSON: number out of range",
    );
    check(
        json,
        br#"{"t":"1767323045000000000","v":1}"#,
        "! the time is out of range; as ns it would be 2026",
    );
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
    check("{value: /v}", b"\xef\xbb\xbf{\"v\":1}", "m/s@0=1|-"); // with a byte order mark
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

/// One message on `acme/m`, with what it gives.
fn check_one(config: &str, payload: &[u8], expect: &str) {
    let got = shown(&decode(config, &[("acme/m", payload)]));
    assert_eq!(got, expect, "{config} {:?}", String::from_utf8_lossy(payload));
}

#[test]
fn lists() {
    let long = "{time: /s/*/t, unit: ms, value: /s/*/v, signal: /s/*/n}";
    let check = |payload: &str, expect: &str| check_one(long, payload.as_bytes(), expect);
    check(
        r#"{"s":[{"n":"a","t":1767323045001,"v":1},{"v":"on","t":1767323045002,"n":"b"}]}"#,
        "m/a@1000=1|-; m/b@2000=-|on",
    );
    // One bad element costs one dead letter.
    check(
        r#"{"s":[{"n":"a","t":1767323045001,"v":1},{"n":"b","t":1767323045001},{"n":"c","v":3},{"t":1767323045001,"v":4},{"n":"e","t":1767323045001,"v":5}]}"#,
        "m/a@1000=1|-; m/e@1000=5|-; ! element 2 of `/s/*`: nothing stands at `value` or `text`; \
         ! element 3 of `/s/*`: nothing stands at `time`; ! element 4 of `/s/*`: the message names no signal",
    );
    check(r#"{"s":[]}"#, "! nothing stands at `/s/*`");
    check(r#"{"x":1}"#, "! nothing stands at `/s/*`");
    check(r#"{"s":[5]}"#, "! element 1 of `/s/*`: nothing stands at `time`");
    // What stands before or after the list applies to all.
    let beside = "{time: /ts, unit: ms, value: /s/*, signal: /name, machine: /dev}";
    check_one(
        beside,
        br#"{"dev":"d1","s":[1,2],"name":"x","ts":1767323045001}"#,
        "d1/x@1000=1|-; d1/x@1000=2|-",
    );
    check_one(
        beside,
        br#"{"dev":7,"s":[1],"ts":1767323045001}"#,
        "! the message names no signal",
    );
    check_one(
        beside,
        br#"{"dev":7,"s":[1],"name":"x","ts":1767323045001}"#,
        "7/x@1000=1|-",
    );
    check_one(
        beside,
        br#"{"s":[1],"name":"x","ts":1767323045001}"#,
        "! the message names no machine",
    );
    // A bad time for all samples is one dead letter.
    check_one(
        beside,
        br#"{"dev":"d","s":[1,2,3],"name":"x","ts":1}"#,
        "d/x@-1767323044999000=1|-; d/x@-1767323044999000=2|-; d/x@-1767323044999000=3|-",
    );
    check_one(
        beside,
        br#"{"dev":"d","s":[1,2,3],"name":"x","ts":1767323045001000}"#,
        "! the time would be in the year 57974; as us it would be 2026-01-02T03:04:05Z: write unit: us",
    );
    let wide = "{values: /*/values, time: /*/ts, unit: ms}";
    check_one(
        wide,
        br#"[{"ts":1767323045001,"values":{"a":1,"b":2}},{"ts":true,"values":{"a":3,"b":4}},{"ts":1767323045003}]"#,
        "m/a@1000=1|-; m/b@1000=2|-; ! element 3 of `/*`: the object at `values` has no values; \
         ! element 2 of `/*`: the time is neither a number nor a text",
    );
    let by_name = "{value: /*/v, signal: '/*', machine: /machine}";
    check_one(
        by_name,
        br#"{"machine":"p","a":{"v":1},"b":{"v":2}}"#,
        "p/a@0=1|-; p/b@0=2|-",
    );
}

#[test]
fn names_from_the_payload() {
    let check = |config: &str, machine, signal, payload: &str, expect: &str| {
        let decoded = decode_by(
            config,
            "acme/{line}/{machine}",
            machine,
            signal,
            &[("acme/l1/topic", payload.as_bytes())],
        )
        .0;
        assert_eq!(shown(&decoded), expect, "{config} {payload}");
    };
    let payload = r#"{"d":{"name":"dev"},"x":{"a":1}}"#;
    check("{values: /x}", None, None, payload, "topic/a@0=1|-");
    check("{values: /x, machine: /d/name}", None, None, payload, "dev/a@0=1|-");
    check(
        "{values: /x}",
        Some("{line}-{/d/name}"),
        Some("{machine}.{member}"),
        payload,
        "l1-dev/topic.a@0=1|-",
    );
    check("{value: /x/a, signal: /d/name}", None, None, payload, "topic/dev@0=1|-");
    check(
        "{value: /x/a}",
        None,
        Some("{/d/none}"),
        payload,
        "! the message names no signal",
    );
    let long = format!(r#"{{"d":{{"name":"{}"}},"x":{{"a":1}}}}"#, "n".repeat(2000));
    check(
        "{values: /x, machine: /d/name}",
        None,
        None,
        &long,
        &format!(
            "! the name of the machine has more than 1024 bytes: `{}`",
            "n".repeat(40)
        ),
    );
}

#[test]
fn presets() {
    let check =
        |preset: &str, payload: &str, expect: &str| check_one(&format!("preset: {preset}"), payload.as_bytes(), expect);
    let tag = shown(&decode(
        "preset: umh",
        &[("acme/m/s", br#"{"timestamp_ms":1767323045001,"value":5}"#)],
    ));
    assert_eq!(tag, "m/s@1000=5|-");
    check(
        "umh_tags",
        r#"{"timestamp_ms":1767323045001,"a":1,"b":"x"}"#,
        "m/a@1000=1|-; m/b@1000=-|x",
    );
    check("wide", r#"{"a":1,"b":2}"#, "m/a@0=1|-; m/b@0=2|-");
    check_one(
        "{preset: wide, time: /t, unit: s}",
        br#"{"t":1767323045,"b":2}"#,
        "m/b@0=2|-",
    );
    check(
        "thingsboard",
        r#"{"ts":1767323045001,"values":{"a":1}}"#,
        "m/a@1000=1|-",
    );
    check(
        "thingsboard",
        r#"[{"ts":1767323045001,"values":{"a":1}},{"ts":1767323045002,"values":{"a":2}}]"#,
        "m/a@1000=1|-; m/a@2000=2|-",
    );
    check("thingsboard", r#"{"temp":1,"meta":{"x":1}}"#, "m/temp@0=1|-");
    check(
        "thingsboard",
        r#"[{"temp":1},{"temp":2}]"#,
        "m/temp@0=1|-; m/temp@0=2|-",
    );
    check(
        "thingsboard",
        r#"{"ts":"bad","values":{"a":1}}"#,
        "! the time `bad` is no number; check `unit`",
    );
    check(
        "thingsboard",
        r#"{"ts":1767323045001,"values":{}}"#,
        "! the object at `values` has no values",
    );
    check("thingsboard", "5", "! the object at `values` has no values");
    check_one(
        "{preset: thingsboard, unit: s}",
        br#"{"ts":1767323045,"values":{"a":1}}"#,
        "m/a@0=1|-",
    );
    let gateway = r#"{"Device A":[{"ts":1767323045001,"values":{"t":42,"h":80}}],"Device B":[{"ts":1767323045002,"values":{"t":1}}]}"#;
    check(
        "thingsboard_gateway",
        gateway,
        "Device A/t@1000=42|-; Device A/h@1000=80|-; Device B/t@2000=1|-",
    );
    check("thingsboard_gateway", r#"{"Device A":[{"t":42}]}"#, "Device A/t@0=42|-");
    let point = r#"{"timestamp":"2026-01-02T03:04:05.001Z","values":[{"dataPointId":"rpm","value":"600","qualityCode":"0"},{"dataPointId":"curve","value":"1,2","qualityCode":"0"}]}"#;
    let expect = "m/rpm@1000=600|-; m/curve@1000=-|1,2";
    check("siemens", &format!(r#"{{"timeseries":[{point}]}}"#), expect);
    check("siemens", point, expect);
    check("siemens", &format!("[{point}]"), expect);
    check(
        "siemens",
        r#"{"seq":1,"vals":[{"id":"101","qc":3,"ts":"2026-01-02T03:04:05.001Z","val":12}]}"#,
        "m/101@1000=12|-",
    );
    check(
        "siemens",
        r#"[{"_time":"2026-01-02T03:04:05.001Z","a":1,"b":2}]"#,
        "m/a@1000=1|-; m/b@1000=2|-",
    );
    check(
        "siemens",
        r#"{"other":1}"#,
        "! the payload has none of the shapes of `decode.preset`",
    );
}

#[test]
fn lines_of_json() {
    let config = "{format: ndjson, values: '', time: /t, unit: ms}";
    check_one(
        config,
        b"{\"t\":1767323045001,\"a\":1}\r\n\n{bad\n{\"t\":1767323045002,\"a\":2}",
        "m/a@1000=1|-; m/a@2000=2|-; ! not JSON: key must be a string at line 1 column 2",
    );
    check_one(config, b"\n \n", "! the payload is empty");
    let decoded = decode(config, &[("acme/m", b"{\"t\":1767323045001,\"a\":1}\n{bad\n")]);
    let payload = decoded
        .dead_letters
        .column_by_name("payload")
        .unwrap()
        .as_binary::<i32>();
    assert_eq!(payload.value(0), b"{bad"); // the line, not the message
}

#[test]
fn lines_of_columns() {
    let config = "{format: csv, columns: [ts, a, '', b], time: /ts, unit: ms}";
    check_one(
        config,
        b"1767323045001,1.5,x,on\n1767323045002,,x,NaN\n",
        "m/a@1000=1.5|-; m/b@1000=-|on; m/a@2000=-|-; m/b@2000=-|-",
    );
    check_one(
        config,
        b"1767323045001,1\n",
        "! the line has 2 fields, `decode.columns` names 4; check `decode.delimiter`",
    );
    check_one(config, b"x,1,2,3\n", "! the time `x` is no number; check `unit`");
    check_one(
        config,
        b"1767323045001,\xff,,1",
        "! the line is not UTF-8: invalid utf-8 sequence of 1 bytes from index 14",
    );
    check_one(
        "{format: csv, header: true}",
        b"\xef\xbb\xbfa;x,b\r\n1,\"2\"\r\n",
        "m/a;x@0=1|-; m/b@0=2|-",
    );
    check_one(
        "{format: csv, header: true}",
        b"a,b\n",
        "! there is a header and no line",
    );
    check_one(
        "{format: csv, decimal: ',', columns: [m, s, v], machine: /m, signal: /s, value: /v}",
        b"p1;temp;12,5\np1;state;a,b",
        "p1/temp@0=12.5|-; p1/state@0=-|a,b",
    );
    check_one(
        "{format: csv, columns: [t, v], delimiter: tab, time: /t, unit: rfc3339}",
        b"2026-01-02 03:04:05\t1",
        "m/v@0=1|-",
    );
}

#[test]
fn line_protocol() {
    let check = |config: &str, signal, payload: &str, expect: &str| {
        let decoded = decode_by(
            config,
            "acme/{machine}",
            None,
            signal,
            &[("acme/m", payload.as_bytes())],
        )
        .0;
        assert_eq!(shown(&decoded), expect, "{config} {payload}");
    };
    let influx = "format: influx";
    check(
        influx,
        None,
        "press,line=l1 p=1.5,state=\"on\" 1767323045001000000",
        "m/p@1000=1.5|-; m/state@1000=-|on",
    );
    check(influx, None, "press p=1i", "m/p@0=1|-");
    check(
        "{format: influx, unit: s}",
        None,
        "press p=t 1767323044",
        "m/p@-1000000=1|-",
    );
    check(influx, Some("{measurement}_{member}"), "cpu idle=9", "m/cpu_idle@0=9|-");
    check(
        influx,
        Some("{tag.a b}.{member}"),
        "cpu,a\\ b=x idle=9",
        "m/x.idle@0=9|-",
    );
    check(
        influx,
        Some("{tag.none}"),
        "cpu idle=9",
        "! the message names no signal",
    );
    check(
        "{format: influx, machine: /tags/host}",
        None,
        "cpu,host=h1 idle=9\ncpu,host=h2 idle=8",
        "h1/idle@0=9|-; h2/idle@0=8|-",
    );
    check(
        influx,
        None,
        "# c\nbad\ncpu idle=9",
        "m/idle@0=9|-; ! the line has no fields",
    );
    check(influx, None, "# c\n", "! the payload has comments only");
    check(
        influx,
        None,
        "cpu idle=9 1767323045001",
        "! the time would be in the year 1970; as ms it would be 2026-01-02T03:04:05Z: write unit: ms",
    );
}

#[test]
fn signals_are_chosen_and_changed() {
    let config = "{values: '', only: ['t_*', p], signals: {t_oil: {rename: oil, factor: 0.5, offset: 1, unit: '°C'}}}";
    let payload = br#"{"t_oil":10,"t_x":3,"p":"on","other":1,"q":2}"#;
    let (decoded, left_out) = decode_by(
        config,
        "acme/{machine}",
        None,
        None,
        &[("acme/m", payload), ("acme/m", b"{\"q\":1}")],
    );
    assert_eq!(shown(&decoded), "m/oil@0=6|-; m/t_x@0=3|-; m/p@0=-|on");
    assert_eq!(left_out, 3);
    let overflow = "{values: '', signals: {a: {factor: 1.0e+300}}}";
    check_one(overflow, br#"{"a":1e300}"#, "m/a@0=-|-");
}

#[test]
fn a_flood_of_bad_samples_stays_small() {
    let mut payload = b"{\"s\":[".to_vec();
    payload.extend(b"{},".repeat(20_000));
    payload.extend(b"{\"v\":1}]}");
    let decoded = decode("value: /s/*/v", &[("acme/m/s", &payload)]);
    let dead = &decoded.dead_letters;
    assert_eq!((decoded.samples.num_rows(), dead.num_rows()), (1, 10_001));
    let reasons = dead.column_by_name("reason").unwrap().as_string::<i32>();
    assert_eq!(reasons.value(10_000), "10000 more bad samples in this message");
    let payloads = dead.column_by_name("payload").unwrap().as_binary::<i32>();
    assert_eq!((payloads.value(0).len(), payloads.value(1).len()), (4096, 0));
}

#[test]
fn a_huge_payload_is_one_message() {
    let mut huge = b"{\"pad\":\"".to_vec();
    huge.resize(100 << 20, b'x');
    huge.extend(b"\",\"v\":5}");
    let cut = &huge[..huge.len() - 1];
    let decoded = decode(
        "value: /v",
        &[("acme/m/s", &huge), ("acme/m/s", cut), ("acme/m/s", b"{\"v\":6}")],
    );
    let got = shown(&decoded);
    assert!(got.starts_with("m/s@0=5|-; m/s@0=6|-; ! not JSON: EOF"), "{got}");
    let kept = decoded
        .dead_letters
        .column_by_name("payload")
        .unwrap()
        .as_binary::<i32>();
    assert_eq!(kept.value(0).len(), 4096);
}

#[test]
fn settings() {
    let check = |yaml: &str, expect: &[&str]| {
        let config: DecodeConfig = Section::from_yaml("decode", yaml).parse().unwrap();
        let address = Address {
            pattern: Some(TopicPattern::parse("{machine}/{signal}").unwrap()),
            ..Address::default()
        };
        let problems = Reading::new("plc", address, &config, None, None)
            .err()
            .unwrap_or_default();
        let paths: Vec<String> = problems.iter().map(|problem| problem.path.join(".")).collect();
        assert_eq!(paths, expect, "{yaml}: {problems:?}");
    };
    check("{value: /v}", &[]);
    check("{format: json}", &["decode"]);
    check("{value: v}", &["decode.value"]);
    check("{value: /a/*, text: /b/*}", &["decode.text"]);
    check("{format: scalar, preset: wide}", &["decode.preset"]);
    check("{preset: umh, values: ''}", &["decode.values"]);
    check("{preset: thingsboard, unit: s}", &[]);
    check("{value: /v, columns: [a]}", &["decode.columns"]);
    check(
        "{value: /v, schema: x.avsc, message: m}",
        &["decode.schema", "decode.message"],
    );
    check("{format: csv}", &["decode"]);
    check("{format: csv, columns: [a], header: true}", &["decode.header"]);
    check("{format: csv, columns: ['']}", &["decode.columns"]);
    check("{format: csv, columns: [a, b, a]}", &["decode.columns"]);
    check("{format: csv, columns: [a], delimiter: x}", &["decode.delimiter"]);
    check(
        "{format: csv, columns: [a], delimiter: ',', decimal: ','}",
        &["decode.delimiter"],
    );
    check("{format: csv, columns: [a], time: /a}", &["decode.time"]);
    check("{format: influx, unit: ms}", &[]);
    check("{format: arrow, time: /ts}", &[]);
    check("{format: avro, value: /v}", &["decode"]);
    check("{format: avro, value: /v, schema: /nowhere/x.avsc}", &["decode.schema"]);
    check(
        "{format: avro, value: /v, schema: x, registry: {url: 'http://r'}}",
        &["decode.schema"],
    );
    check(
        "{format: avro, value: /v, registry: {url: 'r:1', password: x}}",
        &["decode.registry.url", "decode.registry.password"],
    );
    check(
        "{format: avro, value: /v, registry: {url: 'http://r'}, framing: none}",
        &["decode.framing"],
    );
    check("{format: avro, value: /v, registry: {url: 'http://r'}}", &[]);
    check("{format: protobuf, value: /v}", &["decode"]);
    check(
        "{format: protobuf, value: /v, descriptor: /nowhere/x, message: m}",
        &["decode.descriptor"],
    );
    check("{value: /v, framing: confluent}", &[]);
    check("{value: /v, framing: single_object}", &["decode.framing"]);
    check("{value: /v, only: []}", &["decode.only"]);
}

#[test]
fn framed_json() {
    let config = "{value: /v, framing: confluent}";
    let check = |payload: &[u8], expect: &str| {
        assert_eq!(shown(&decode(config, &[("acme/m/s", payload)])), expect);
    };
    check(b"\0\0\0\0\x07{\"v\":1}", "m/s@0=1|-");
    let unframed = "! the payload does not begin with a zero byte and a schema's number; check `decode.framing`";
    check(b"{\"v\":1}", unframed);
    check(b"\0\0\0", unframed);
}
