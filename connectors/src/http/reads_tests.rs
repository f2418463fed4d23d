#![allow(clippy::unwrap_used, clippy::expect_used)]

use taktline_engine::config::Section;

use super::*;
use crate::http::catalogue::{Stream, StreamConfig};
use crate::http::verdicts::shown;

const NOW: i64 = 1_767_323_045_000_000;

fn reads(decode: &str, names: (Option<&str>, Option<&str>)) -> Result<Reads, Vec<Problem>> {
    let decode: DecodeConfig = Section::from_yaml("decode", decode).parse().unwrap();
    Reads::new("plc", None, &decode, names)
}

fn judged(reads: &Reads, stream: &str, came: &Came<'_>) -> String {
    let config: StreamConfig = serde_json::from_str(stream).unwrap();
    let stream = Stream::new("press-1", &config).unwrap();
    let mut verdicts = Verdicts::new(&stream, reads.signals(), NOW);
    match reads.judge(came, &mut verdicts) {
        Ok(()) if verdicts.left_out > 0 => format!("{} left out\n", verdicts.left_out) + &shown(verdicts),
        Ok(()) => shown(verdicts),
        Err(fault) => format!("{fault:?}"),
    }
}

fn check(decode: &str, names: (Option<&str>, Option<&str>), body: &str, expect: &[&str]) {
    let reads = reads(decode, names).unwrap_or_else(|problems| panic!("{decode}: {problems:?}"));
    let came = Came {
        headers: &HeaderMap::new(),
        body: body.as_bytes(),
        unit: None,
        as_lines: false,
    };
    let got = judged(&reads, "{}", &came);
    assert_eq!(got, expect.join("\n"), "{decode}: {body}");
}

#[test]
fn signals_of_our_own_forms_are_chosen_renamed_and_scaled() {
    let rules = "{only: [t, p], signals: {t: {rename: temperature, factor: 0.5, offset: -10}}}";
    let none = (None, None);
    let expect = ["1 left out", "press-1 temperature 0 0", "press-1 p 0 7"];
    check(rules, none, r#"{"t": 20, "p": 7, "q": 1}"#, &expect);
    check(rules, none, "x t=20,p=7,q=1", &expect);
    check(rules, none, r#"[{"signal": "q", "value": 1}]"#, &["1 left out", ""]);
    check("{}", none, r#"{"q": 1}"#, &["press-1 q 0 1"]);
}

#[test]
fn bodies_are_read_as_decode_says() {
    let none = (None, None);
    check(
        "{time: /at, unit: s, values: /v}",
        none,
        r#"{"at": 1767323044, "v": {"t": 1, "p": 2}}"#,
        &["press-1 t -1000000 1", "press-1 p -1000000 2"],
    );
    check(
        "{format: csv, columns: [machine, t], machine: /machine}",
        none,
        "m1,1\n\nm2\nm3,3",
        &[
            "m1 t 0 1",
            "m3 t 0 3",
            "refused 2: the line has 1 fields, `decode.columns` names 2; check `decode.delimiter`",
        ],
    );
    check(
        "{format: influx, only: [modbus.t]}",
        (Some("{tag.line}-{machine}"), Some("{measurement}.{member}")),
        "# gw\nmodbus,line=l1 t=1,q=2\nmodbus t=2",
        &[
            "1 left out",
            "l1-press-1 modbus.t 0 1",
            "refused 2: the message names no machine",
        ],
    );
    check(
        "{format: number}",
        (None, Some("{stream}")),
        "21.5",
        &["press-1 press-1 0 21.5"],
    );
    check(
        "{preset: umh}",
        (None, Some("t")),
        "[",
        &["refused 0: not JSON: EOF while parsing a list at line 1 column 1"],
    );
}

#[test]
fn what_a_request_says_and_what_a_stream_registered_count_also_for_decode() {
    let reads = reads(
        "{time: /ts, unit: ms, values: '', signals: {t: {rename: u}}}",
        (None, None),
    )
    .unwrap();
    let mut came = Came {
        headers: &HeaderMap::new(),
        body: br#"{"ts": 1767323044, "t": 1, "p": 2}"#,
        unit: Some(Unit::S),
        as_lines: false,
    };
    let got = judged(&reads, r#"{"machine": "m", "signals": ["t"]}"#, &came);
    let refused = "refused 0: element 2 of `/*`: the stream `press-1` has no signal `p`";
    assert!(got.starts_with(&format!("m u -1000000 1\n{refused}")), "{got}");
    // Where InfluxDB takes lines, lines are read, with the same signals.
    (came.body, came.unit, came.as_lines) = (b"m t=1", None, true);
    assert_eq!(judged(&reads, "{}", &came), "m u 0 1");
}

#[test]
fn settings() {
    let check = |decode: &str, names: (Option<&str>, Option<&str>), expect: &[&str]| {
        let problems = reads(decode, names).err().unwrap_or_default();
        let paths: Vec<String> = problems.iter().map(|problem| problem.path.join(".")).collect();
        assert_eq!(paths, expect, "{decode}: {problems:?}");
    };
    let none = (None, None);
    check("{signals: {t: {factor: 2}}}", none, &[]);
    check("{values: ''}", none, &[]);
    check("{signals: {t: {factor: 0}}}", none, &["decode.signals.t.factor"]);
    check("{values: '', only: []}", none, &["decode.only"]);
    check("{columns: [a]}", none, &["decode.columns"]);
    check("{unit: s}", none, &["decode.unit"]);
    check("{}", (Some("m"), Some("s")), &["machine", "signal"]);
    check("{format: number}", none, &["signal"]);
    check("{format: influx}", (Some("{tag"), None), &["machine"]);
    let registry = "{format: avro, values: '', registry: {url: 'http://r'}}";
    check(registry, none, &["decode.registry"]);
}
