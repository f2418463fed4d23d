//! Edge nodes in a few words: what they say, and what comes of it.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use arrow::array::{Array, AsArray, StringArray};
use taktline_engine::Samples;

use super::*;
use crate::codec::sparkplug::{Metric, MetricValue, Property, PropertySet, PropertyValue};

const PATIENCE: Patience = Patience {
    reorder_us: 2_000,
    rebirth_us: 10_000,
    birth_us: 30_000,
};
/// When the first message comes, ms since 1970.
const BEGIN_MS: i64 = 5_000;

fn host() -> Host {
    let machine = Template::parse("{group}/{node}/{device}", &MACHINE_NAMES).unwrap();
    let signal = Template::parse("{metric}", &SIGNAL_NAMES).unwrap();
    Host::new("line", (machine, signal), PATIENCE)
}

/// Each step and what comes of it. Steps: `NDATA 3 @1000 #1=2.5 p=on q#7=null`: kind (with a device: `DDATA/press`), sequence number (or
/// `-`), time in ms, metrics as name, alias and value; `wait 5`: ms; `lost`; `end`.
fn check(steps: &[(&str, &[&str])]) {
    let (mut host, mut now, mut sequence) = (host(), 0, 0);
    for (step, expect) in steps {
        now += 1;
        let words: Vec<&str> = step.split(' ').collect();
        match words.as_slice() {
            ["wait", ms] => now += ms.parse::<i64>().unwrap(),
            ["lost"] => host.distrust(now * 1000),
            ["end"] => host.end(),
            [topic, rest @ ..] => {
                let (kind, device) = topic.split_once('/').unwrap_or((topic, ""));
                let below = if device.is_empty() {
                    String::new()
                } else {
                    format!("/{device}")
                };
                host.take(&Came {
                    topic: &format!("spBv1.0/plant/{kind}/edge{below}"),
                    payload: &payload(rest),
                    received: (BEGIN_MS + now) * 1000,
                    sequence,
                    now: now * 1000,
                });
                sequence += 1;
            }
            [] => panic!(),
        }
        let asked = host.tick(now * 1000, (BEGIN_MS + now) * 1000);
        let mut got = rows(&mut host);
        got.extend(asked.into_iter().map(|(group, node)| format!("ask {group}/{node}")));
        assert_eq!(got.len(), expect.len(), "{step}: {got:#?}");
        for (got, expect) in got.iter().zip(*expect) {
            let fits = match expect.strip_prefix("! ") {
                Some(part) => got.starts_with("! ") && got.contains(part),
                None => got == expect,
            };
            assert!(fits, "{step}: {got}, not {expect}");
        }
    }
}

fn payload(words: &[&str]) -> Vec<u8> {
    let mut payload = Payload::default();
    for word in words {
        if let Some(time) = word.strip_prefix('@') {
            payload.timestamp = Some(time.parse().unwrap());
        } else if let Some((name, value)) = word.split_once('=') {
            payload.metrics.push(metric(name, value));
        } else if *word == "garbage" {
            return vec![0xff; 3];
        } else if *word != "-" {
            payload.seq = Some(word.parse().unwrap());
        }
    }
    payload.write()
}

fn metric(name: &str, value: &str) -> Metric {
    let (name, alias) = name.split_once('#').unwrap_or((name, ""));
    let (value, quality) = value.split_once('~').unwrap_or((value, ""));
    let mut metric = Metric {
        name: (!name.is_empty()).then(|| name.replace('_', " ")),
        alias: alias.parse().ok(),
        ..Metric::default()
    };
    if let Ok(code) = quality.parse() {
        let value = PropertyValue {
            value: Some(Property::Int(code)),
            ..PropertyValue::default()
        };
        metric.properties = Some(PropertySet {
            keys: vec!["Quality".into()],
            values: vec![value],
        });
    }
    let (value, at) = value.split_once('@').unwrap_or((value, ""));
    metric.timestamp = at.parse().ok();
    match value {
        "null" => metric.is_null = Some(true),
        "table" => metric.value = Some(MetricValue::DataSet(Vec::new())),
        _ if name == "bdSeq" => metric.value = Some(MetricValue::Long(value.parse().unwrap())),
        _ => {
            metric.value = Some(match value.parse() {
                Ok(number) => MetricValue::Double(number),
                Err(_) => MetricValue::String(value.into()),
            });
        }
    }
    metric
}

/// `machine signal ms value-or-text [quality]`, and `! reason` of dead letters.
fn rows(host: &mut Host) -> Vec<String> {
    let [samples, dead] = host.finish().unwrap();
    let mut rows = Vec::new();
    if let Some(batch) = samples {
        let samples = Samples::of(&batch).unwrap();
        let quality = samples.quality.downcast_dict::<StringArray>().unwrap();
        let quality: Vec<Option<&str>> = quality.into_iter().collect();
        for row in 0..batch.num_rows() {
            let value = match (samples.value.is_valid(row), samples.text.is_valid(row)) {
                (true, _) => samples.value.value(row).to_string(),
                (false, true) => samples.text.value(row).to_owned(),
                _ => "-".into(),
            };
            let machine = samples.machines.value(samples.machine[row] as usize);
            let signal = samples.signals.value(samples.signal[row] as usize);
            let quality = quality[row].map(|quality| format!(" {quality}")).unwrap_or_default();
            rows.push(format!(
                "{machine} {signal} {} {value}{quality}",
                samples.ts[row] / 1000
            ));
        }
    }
    if let Some(batch) = dead {
        let reasons = batch.column_by_name("reason").unwrap().as_string::<i32>();
        rows.extend(reasons.iter().flatten().map(|reason| format!("! {reason}")));
    }
    rows
}

const BORN: (&str, &[&str]) = (
    "NBIRTH 0 @1000 bdSeq=1 Node_Control/Rebirth=0 p#1=1.5 s#2=RUN",
    &["plant/edge p 1000 1.5", "plant/edge s 1000 RUN"],
);
const DEVICE_BORN: (&str, &[&str]) = ("DBIRTH/press 1 @1000 t#1=20", &["plant/edge/press t 1000 20"]);

#[test]
fn births_name_what_data_gives_by_alias() {
    check(&[
        BORN,
        DEVICE_BORN,
        (
            "NDATA 2 @1100 #1=2.5 #2=STOP",
            &["plant/edge p 1100 2.5", "plant/edge s 1100 STOP"],
        ),
        ("DDATA/press 3 @1100 #1=21@1050", &["plant/edge/press t 1050 21"]),
        (
            "DDATA/press 4 @1200 #1=null t=22~0",
            &["plant/edge/press t 1200 -", "plant/edge/press t 1200 22 bad"],
        ),
        ("DDATA/press 5 #1=23", &["plant/edge/press t 5006 23"]),
        // Controls and the number of the session are no samples.
        ("NDATA 6 @1300 bdSeq=1 Node_Control/Rebirth=0", &[]),
    ]);
}

#[test]
fn a_rebirth_repeats_nothing() {
    check(&[
        BORN,
        ("NDATA 1 @1100 #1=2.5", &["plant/edge p 1100 2.5"]),
        ("NBIRTH 0 @1200 bdSeq=1 p#5=2.5@1100 s#6=RUN@1000", &[]),
        ("NDATA 1 @1300 #5=3", &["plant/edge p 1300 3"]),
    ]);
}

#[test]
fn missing_messages_are_waited_for_and_then_a_rebirth_is_asked_for() {
    check(&[
        BORN,
        ("NDATA 2 @1200 #1=2", &[]),
        ("NDATA 3 @1300 #1=3", &[]),
        (
            "NDATA 1 @1100 #1=1",
            &["plant/edge p 1100 1", "plant/edge p 1200 2", "plant/edge p 1300 3"],
        ),
        ("NDATA 6 @1600 #1=6", &[]),
        (
            "wait 1",
            &[
                "plant/edge p 1600 6",
                "! possible gap: the messages 4, 5 of `plant/edge` did not come within 0.002 s",
                "ask plant/edge",
            ],
        ),
        ("NDATA 5 @1500 #1=5", &["plant/edge p 1500 5"]),
        ("NDATA 5 @1500 #1=5", &["! was here before"]),
        // Not again before the interval is over.
        ("wait 4", &[]),
        ("wait 5", &["ask plant/edge"]),
        (
            "NBIRTH 0 @1700 bdSeq=1 Node_Control/Rebirth=0 p#1=6 s#2=RUN",
            &["plant/edge p 1700 6", "plant/edge s 1700 RUN"],
        ),
        ("wait 50", &[]),
    ]);
}

#[test]
fn data_waits_for_the_birth_that_explains_it() {
    check(&[
        ("NDATA 7 @1000 #1=1", &["ask plant/edge"]),
        ("NDATA 8 @1100 #1=2", &[]),
        (
            "NBIRTH 0 @1200 bdSeq=1 p#1=2",
            &["plant/edge p 1000 1", "plant/edge p 1100 2", "plant/edge p 1200 2"],
        ),
        ("NDATA 1 @1300 #1=3", &["plant/edge p 1300 3"]),
        // A device whose birth was missed; what comes by name behind it waits too.
        ("DDATA/press 2 @1400 #1=4", &[]),
        ("DDATA/press 3 @1450 t=5", &[]),
        ("DDATA/robot 4 @1450 t=5", &["plant/edge/robot t 1450 5"]),
        ("wait 4", &["ask plant/edge"]),
        ("wait 17", &["ask plant/edge"]),
        (
            "wait 5",
            &[
                "! no birth of `plant/edge` named its metrics within 0.03 s",
                "! no birth",
            ],
        ),
    ]);
}

#[test]
fn a_device_without_its_node_is_taken_and_the_node_asked() {
    check(&[
        (
            "DBIRTH/press 5 @1000 t#1=20",
            &["plant/edge/press t 1000 20", "ask plant/edge"],
        ),
        ("DDATA/press 9 @1100 #1=21", &["plant/edge/press t 1100 21"]),
        ("wait 10", &["ask plant/edge"]),
    ]);
}

#[test]
fn data_that_nothing_explains_is_bounded() {
    let mut host = host();
    for number in 0..1001 {
        host.take(&Came {
            topic: "spBv1.0/plant/NDATA/edge",
            payload: &payload(&["-", "#1=1"]),
            received: 0,
            sequence: number,
            now: 0,
        });
    }
    assert_eq!(
        rows(&mut host),
        ["! more than 1000 messages wait for a birth of `plant/edge`"]
    );
    host.end();
    assert_eq!(rows(&mut host).len(), 1000);
}

#[test]
fn deaths_make_stale() {
    check(&[
        BORN,
        DEVICE_BORN,
        ("DBIRTH/robot 2 @1000 a#1=1", &["plant/edge/robot a 1000 1"]),
        ("DDEATH/robot 3 @1100", &["plant/edge/robot a 1100 - stale"]),
        // A will of an earlier connection.
        ("NDEATH - @900 bdSeq=0", &[]),
        (
            "NDEATH - @900 bdSeq=1",
            &[
                "plant/edge p 5006 - stale",
                "plant/edge s 5006 - stale",
                "plant/edge/press t 5006 - stale",
            ],
        ),
        ("NDEATH - @900 bdSeq=1", &[]),
        // The old aliases mean nothing now.
        ("NDATA 9 @1200 #1=1", &["ask plant/edge"]),
        (
            "NBIRTH 0 @6000 bdSeq=2 q#1=1",
            &["plant/edge q 1200 1", "plant/edge q 6000 1"],
        ),
        // A death that was not heard.
        (
            "NBIRTH 0 @7000 bdSeq=3 q#1=2",
            &["plant/edge q 6999 - stale", "plant/edge q 7000 2"],
        ),
    ]);
}

#[test]
fn a_lost_connection_makes_births_void() {
    check(&[
        BORN,
        DEVICE_BORN,
        ("lost", &["ask plant/edge"]),
        ("NDATA 9 @1200 #1=7", &[]),
        (
            "NBIRTH 0 @1300 bdSeq=1 q#1=8",
            &[
                "plant/edge p 1300 - stale",
                "plant/edge s 1300 - stale",
                "plant/edge q 1200 7",
                "plant/edge q 1300 8",
            ],
        ),
        ("NDATA 1 @1400 #1=9", &["plant/edge q 1400 9"]),
        // The device doesn't come back.
        ("wait 30", &["plant/edge/press t 5037 - stale"]),
        ("lost", &["ask plant/edge"]),
        // Nor does the node.
        ("wait 30", &["plant/edge q 5069 - stale"]),
        ("wait 100", &[]),
        ("lost", &[]),
    ]);
}

#[test]
fn one_bad_metric_costs_one_row() {
    check(&[
        (
            "NBIRTH 0 @1000 p#1=1 table#2=table",
            &[
                "plant/edge p 1000 1",
                "! metrics that are skipped: `table`: a metric of type DataSet is no sample",
            ],
        ),
        ("NDATA 1 @1100 #2=table #1=2", &["plant/edge p 1100 2"]),
        (
            "NDATA 2 @1100 #1=3@99999999999999 #1=4",
            &[
                "plant/edge p 1100 4",
                "! metric `p`: its time 99999999999999 lies far outside",
            ],
        ),
        (
            "NDATA 3 @9999999 #1=5",
            &["! metric `p`: its time is more than 5 minutes ahead"],
        ),
        ("NDATA garbage", &["! not a Sparkplug B payload"]),
        ("NWAT 4", &["! the topic is none of an edge node"]),
        ("NDATA 4 @1200 #1=6", &["plant/edge p 1200 6"]),
        ("end", &[]),
    ]);
}

#[test]
fn what_waits_at_the_end_is_told_of() {
    check(&[
        BORN,
        ("NDATA 2 @1200 #1=2", &[]),
        ("end", &["plant/edge p 1200 2"]),
        ("DDATA/press - @1200 #1=2", &["ask plant/edge"]),
        ("end", &["! the run ended before a birth"]),
    ]);
}

#[test]
fn anything_is_taken_without_a_panic() {
    proptest::proptest!(|(bytes: Vec<u8>, seq in proptest::option::of(0u64..300), kind in 0usize..6)| {
        let mut host = host();
        let kind = ["NBIRTH/e", "DBIRTH/e/d", "NDATA/e", "DDATA/e/d", "NDEATH/e", "DDEATH/e/d"][kind];
        let (kind, below) = kind.split_once('/').unwrap();
        let topic = format!("spBv1.0/g/{kind}/{below}");
        let mut payload = Payload::read(&bytes).unwrap_or_default();
        payload.seq = seq;
        for bytes in [bytes, payload.write()] {
            for now in 0..3 {
                host.take(&Came { topic: &topic, payload: &bytes, received: 0, sequence: 0, now });
                host.tick(now * 20_000, 0);
            }
        }
        host.end();
        host.finish().unwrap();
    });
}
