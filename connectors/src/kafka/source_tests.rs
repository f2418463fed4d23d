#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;

#[test]
fn settings() {
    let check = |yaml: &str, expect: &[&str]| {
        let section = Section::from_yaml("plc", &format!("brokers: 'kafka:9092'\n{yaml}"));
        let problems = build(&section).err().unwrap_or_default();
        let paths: Vec<String> = problems.iter().map(|problem| problem.path.join(".")).collect();
        assert_eq!(paths, expect, "{yaml}");
    };
    let number = "decode: {format: number}\nsignal: force";
    check(&format!("topics: press\n{number}"), &[]);
    check(&format!("topics: [press-1, press-2]\n{number}"), &[]);
    check(&format!("topics: '^press-.*'\nreaders: 4\n{number}"), &[]);
    check(&format!("topics: press\nstart: latest\n{number}"), &[]);
    check(&format!("topics: press\nstart: 2026-01-31T06:00:00Z\n{number}"), &[]);
    check(
        &format!("topics: press\ntls: {{}}\nuser: u\npassword: p\nmechanism: scram-sha-256\n{number}"),
        &[],
    );
    check(&format!("topics: []\n{number}"), &["topics"]);
    check(&format!("topics: 'a b'\n{number}"), &["topics"]);
    check(&format!("topics: '^(a'\n{number}"), &["topics"]);
    check(&format!("topics: press\nstart: yesterday\n{number}"), &["start"]);
    check(&format!("topics: press\nreaders: 0\n{number}"), &["readers"]);
    check(&format!("topics: press\nreaders: 65\n{number}"), &["readers"]);
    check(&format!("topics: press\npassword: p\n{number}"), &["password"]);
    check(
        &format!("topics: press\ntls: {{certificate: a.pem}}\n{number}"),
        &["tls.certificate"],
    );
    check("topics: press\ndecode: {format: number}", &["signal"]);
    check(
        "topics: press\ndecode: {format: number}\nsignal: '{header.s}'\nmachine: '{topic}'",
        &[],
    );
    check(
        "topics: press\ndecode: {format: number}\nsignal: '{headr.s}'",
        &["signal"],
    );
    check("topics: press\ndecode: {values: ''}", &[]);
}

#[test]
fn a_signal_that_nothing_names_is_said_in_the_words_of_kafka() {
    let section = Section::from_yaml("plc", "{brokers: k, topics: t, decode: {format: number}}");
    let problems = build(&section).err().unwrap();
    assert!(
        problems[0].hint.as_ref().unwrap().contains("{header.signal}"),
        "{problems:?}"
    );
}

#[test]
fn headers_of_templates() {
    let check = |templates: &[&str], expect: &[&str]| assert_eq!(headers_in(templates), expect);
    check(&["{key}", "force"], &[]);
    check(&["{header.line}-{header.m}", "{header.line}"], &["line", "m"]);
    check(&["{header.x"], &[]);
}

#[test]
fn the_arrival_is_what_can_be() {
    let now = received(None);
    let check = |ms: Option<i64>, expect: bool| assert_eq!(received(ms) != now && received(ms) < now, expect, "{ms:?}");
    check(Some(1_767_323_045_000), true);
    assert!(received(Some(0)) >= now);
    assert!(received(Some(-1)) >= now);
    // µs that were sent as ms: a year beyond 50,000.
    assert!(received(Some(now)) < now + AHEAD_LIMIT_US);
}

#[test]
fn a_reader_that_never_looked_begins_where_start_says() {
    use serde_json::json;
    let section = Section::from_yaml(
        "plc",
        "{brokers: k, topics: t, readers: 3, start: latest, signal: s, decode: {format: number}}",
    );
    let source = build(&section).unwrap_or_else(|problems| panic!("{problems:?}"));
    let check = |reader: &str, known: &[(&str, Value)], expect: Option<Value>| {
        let known = known
            .iter()
            .map(|(name, offset)| ((*name).to_owned(), offset.clone()))
            .collect();
        assert_eq!(source.read_on(reader, &known), expect, "{reader} {known:?}");
    };
    let (one, two, three) = ("reader 1 of 3", "reader 2 of 3", "reader 3 of 3");
    let readers: Vec<usize> = (0..5)
        .map(|partition| place::reader_of(&place::key("t", partition), 3))
        .collect();
    let of = |reader: usize| readers.iter().position(|found| *found == reader).unwrap();
    let (mine, other) = (format!("t/{}", of(1)), format!("t/{}", of(0)));
    check(two, &[], None);
    check(two, &[(one, Value::Null), (two, Value::Null)], None);
    check(two, &[(one, json!({other.clone(): 7})), (two, Value::Null)], None);
    check(
        one,
        &[(one, json!({other.clone(): 7})), (two, Value::Null)],
        Some(json!({other.clone(): 7})),
    );
    // What it found, be it nothing, counts; and so does what readers of another number found for it.
    check(
        two,
        &[(one, json!({other.clone(): 7})), (two, json!({}))],
        Some(json!({other.clone(): 7})),
    );
    check(
        two,
        &[("reader 1 of 1", json!({mine.clone(): 5})), (two, Value::Null)],
        Some(json!({mine.clone(): 5})),
    );
    // A reader that wasn't there when another number of them looked: its partitions are new.
    check(
        three,
        &[("reader 1 of 1", json!({mine.clone(): 5}))],
        Some(json!({mine: 5})),
    );
}
