//! The source as the engine sees it: files in, rows and dead letters out.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{Array, AsArray};
use arrow::datatypes::UInt64Type;
use proptest::prelude::*;
use taktline_engine::config::Section;
use taktline_engine::{Poll, Samples, Source};

use super::*;

mod offsets;
mod parquet_files;

/// A source's whole output as text lines, one per row: `machine signal ts value [text]` and `offset reason`.
#[derive(Debug, Default, PartialEq)]
struct Output {
    rows: Vec<String>,
    dead: Vec<String>,
}

fn read_with(yaml: &str, blocks: Option<(usize, u64)>) -> anyhow::Result<Output> {
    let mut settings =
        Settings::of(&Section::from_yaml("plant", yaml)).map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
    if let Some((bytes, rows)) = blocks {
        (settings.block_bytes, settings.block_rows) = (bytes, rows);
    }
    let source = FileSource::new(settings);
    let mut output = Output::default();
    let mut decoder = source.decoder();
    for index in 0..source.partitions()?.len() {
        let mut partition = source.open(index, None, Arc::new(|| {}))?;
        loop {
            match partition.poll()? {
                Poll::Batch(raw) => output.add(&decoder.decode(&raw)?),
                Poll::Idle | Poll::Wait => std::thread::sleep(Duration::from_micros(200)),
                Poll::End => break,
            }
        }
        assert_eq!(partition.position().fraction, Some(1.0));
    }
    Ok(output)
}

impl Output {
    fn add(&mut self, decoded: &taktline_engine::Decoded) {
        let samples = Samples::of(&decoded.samples).unwrap();
        for row in 0..decoded.samples.num_rows() {
            let value = if samples.value.is_valid(row) {
                format!("{}", samples.value.value(row))
            } else {
                "-".into()
            };
            let text = if samples.text.is_valid(row) {
                format!(" {}", samples.text.value(row))
            } else {
                String::new()
            };
            let machine = samples.machines.value(samples.machine[row] as usize);
            let signal = samples.signals.value(samples.signal[row] as usize);
            self.rows
                .push(format!("{machine} {signal} {} {value}{text}", samples.ts[row]));
        }
        let dead = &decoded.dead_letters;
        let offsets = dead.column(2).as_primitive::<UInt64Type>();
        let reasons = dead.column(3).as_string::<i32>();
        self.dead
            .extend((0..dead.num_rows()).map(|row| format!("{} {}", offsets.value(row), reasons.value(row))));
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().unwrap())
    }

    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

/// Settings for one file; `rest` are the other settings.
fn settings(path: &Path, rest: &str) -> String {
    format!("{{path: '{}', {rest}}}", path.display())
}

/// Reads `text` as a file called `press.csv` (or another ending) at several block sizes.
fn check(name: &str, text: impl AsRef<[u8]>, rest: &str, rows: &[&str], dead: &[&str]) {
    let folder = Folder::new();
    let path = folder.file(name, text.as_ref());
    for block in [1, 7, 64, 256 << 10] {
        let found = read_with(&settings(&path, rest), Some((block, 2))).unwrap();
        assert_eq!(found.rows, rows, "rows of {rest} in blocks of {block}");
        assert_eq!(found.dead, dead, "dead letters of {rest} in blocks of {block}");
    }
}

fn check_error(name: &str, text: &str, rest: &str, expect: &str) {
    let folder = Folder::new();
    let path = folder.file(name, text);
    let error = format!("{:#}", read_with(&settings(&path, rest), None).unwrap_err());
    assert!(error.ends_with(expect), "{error}");
}

#[test]
fn long_csv() {
    let text = "machine,signal,ts,value\nm1,p,1,1.5\nm2,t,2,\nm1,p,3,nan\n";
    let rows = ["m1 p 1000 1.5", "m2 t 2000 -", "m1 p 3000 NaN"];
    check("a.csv", text, "time: {column: ts, unit: ms}", &rows, &[]);
    check(
        "a.csv",
        text.replace('\n', "\r\n"),
        "time: {column: ts, unit: ms}",
        &rows,
        &[],
    );
    check(
        "a.csv",
        format!("\u{feff}{}", text.trim_end()),
        "time: {column: ts, unit: ms}",
        &rows,
        &[],
    );
    check(
        "a.csv",
        text.replace('\n', "\n\n"),
        "time: {column: ts, unit: ms}",
        &rows,
        &[],
    );
    check(
        "a.tsv",
        text.replace(',', "\t"),
        "time: {column: ts, unit: ms}",
        &rows,
        &[],
    );
    let text = "Ort;Mess Größe;Zeit;Wert;Zustand\nm1;p;2024-01-01 00:00:00;1,5;\nm1;s;2024-01-01T00:00:01Z;;läuft\n";
    let rest =
        "decimal: ',', machine: {column: Ort}, signal: Mess Größe, value: Wert, text: Zustand, time: {column: Zeit}";
    check(
        "a.csv",
        text,
        rest,
        &["m1 p 1704067200000000 1.5", "m1 s 1704067201000000 - läuft"],
        &[],
    );
    check(
        "a.csv",
        "ts,signal,text\n1,s,on\n2,s,NA\n",
        "layout: long, text: text, missing: [NA], time: {column: ts, unit: us}",
        &["a s 1 - on", "a s 2 -"],
        &[],
    );
    check(
        "a.csv",
        "m1,p,1\n",
        "columns: [machine, signal, value], time: {start: 1970-01-01T00:00:00Z, rate: 1}",
        &["m1 p 0 1"],
        &[],
    );
}

#[test]
fn wide_csv() {
    let text = "t,cycle ,mode,on,,\n1,5,,True,,\n2,6,auto,False,,\n";
    let rows = [
        "a cycle 1000000 5",
        "a mode 1000000 -",
        "a on 1000000 1",
        "a cycle 2000000 6",
        "a mode 2000000 - auto",
        "a on 2000000 0",
    ];
    check("a.csv", text, "time: {column: t, unit: s}", &rows, &[]);
    check(
        "a.csv",
        text,
        "machine: {constant: p1}, signals: [cycle], time: {column: t, unit: s}",
        &["p1 cycle 1000000 5", "p1 cycle 2000000 6"],
        &[],
    );
    check(
        "a.csv",
        text,
        "machine: {column: cycle}, signals: [on], time: {column: t, unit: s}",
        &["5 on 1000000 1", "6 on 2000000 0"],
        &[],
    );
    check(
        "a.csv",
        text,
        "signals: ['cycle '], text: cycle, time: {start: 1970-01-01T00:00:00Z, rate: 2}",
        &["a cycle 0 - 5", "a cycle 500000 - 6"],
        &[],
    );
    check("a.csv", "", "time: {column: t}", &[], &[]);
    check("a.csv", "t,a\n", "time: {column: t}", &[], &[]);
}

#[test]
fn bad_rows_cost_themselves() {
    let time = "time: {column: ts, unit: us}";
    let text = "machine,signal,ts,value\nm,p,1,1\nm,p,2\nm,p,3,x\nm,p,soon,4\n\
                ,p,5,5\nm,,6,6\nm,p,7,7,7\n\"m,p,8,8\nm,p,9,\"9\"\nm,p,10,1";
    check(
        "a.csv",
        text,
        time,
        &["m p 1 1", "m p 9 9", "m p 10 1"],
        &[
            "32 3 fields instead of 4",
            "38 value `x` is no number",
            "46 `soon` is no time in us",
            "57 the machine's name is empty or no UTF-8",
            "64 the signal's name is empty or no UTF-8",
            "71 5 fields instead of 4",
            "81 1 fields instead of 4",
        ],
    );
    // Cut in the middle of the last line.
    check(
        "a.csv",
        &text[..text.len() - 3],
        time,
        &["m p 1 1", "m p 9 9"],
        &[
            "32 3 fields instead of 4",
            "38 value `x` is no number",
            "46 `soon` is no time in us",
            "57 the machine's name is empty or no UTF-8",
            "64 the signal's name is empty or no UTF-8",
            "71 5 fields instead of 4",
            "81 1 fields instead of 4",
            "100 3 fields instead of 4",
        ],
    );
    // In a wide row only the bad cell is lost, and each is told.
    check(
        "a.csv",
        "ts,a,b\n1,1,2\n2,x,3\n3,\"y\",z\n",
        "time: {column: ts, unit: us}",
        &["a a 1 1", "a b 1 2", "a b 2 3"],
        &[
            "13 column `a`: `x` is no number",
            "19 column `a`: `y` is no number",
            "19 column `b`: `z` is no number",
        ],
    );
    check(
        "a.csv",
        b"ts,a\n1,1\n\xff\xfe\x00,\"\x80\n2,2\n",
        "time: {column: ts, unit: us}",
        &["a a 1 1", "a a 2 2"],
        &["9 `\u{fffd}\u{fffd}\0` is no time in us"],
    );
    let long = "x".repeat(30);
    check(
        "a.csv",
        format!("ts,a\n1,1\n{long}\r\n2,2\n{long}"),
        "max_line: 20, time: {column: ts, unit: us}",
        &["a a 1 1", "a a 2 2"],
        &[
            "9 line of 30 bytes is longer than max_line",
            "45 line of 30 bytes is longer than max_line",
        ],
    );
}

#[test]
fn times_that_nobody_means_are_dead_letters() {
    let time = "time: {column: ts, unit: s}";
    let reason = "the time 1704067200000000000 us lies outside of 1900 to 2200; check `unit`";
    let text = "ts,a\n1704067200,1\n1704067200000,2\n";
    check(
        "a.csv",
        text,
        time,
        &["a a 1704067200000000 1"],
        &[&format!("18 {reason}")],
    );
    let text = "{\"ts\":1704067200000,\"a\":2}\n";
    check("a.ndjson", text, time, &[], &[&format!("0 {reason}")]);
}

#[test]
fn a_broken_file_costs_itself() {
    let folder = Folder::new();
    folder.file("1.csv", "ts,a\n1,1\n");
    folder.file("2.csv", b"ts,\xff\n1,1\n");
    folder.file("3.csv", "x".repeat(2 << 20));
    folder.file("4.csv", "");
    folder.file("5.csv", "ts,a\n");
    folder.file("6.parquet", "");
    folder.file("7.parquet", "nothing");
    folder.file("8.ndjson", "");
    folder.file("9.csv", "ts,a\n2,2\n");
    let path = folder.0.path().join("*");
    for replay in ["max", "x1000000"] {
        let rest = format!("replay: {replay}, machine: {{constant: m}}, time: {{column: ts, unit: us}}");
        let found = read_with(&settings(&path, &rest), None).unwrap();
        assert_eq!(found.rows, ["m a 1 1", "m a 2 2"]);
        assert_eq!(found.dead.len(), 3, "{:?}", found.dead);
        assert_eq!(found.dead[0], "0 the header is no UTF-8");
        assert_eq!(found.dead[1], "0 no line end in the first 1048576 bytes: no CSV file?");
        assert!(found.dead[2].starts_with("0 no Parquet file"), "{:?}", found.dead);
    }
    folder.file("5.csv", "tz,a\n");
    let error = read_with(&settings(&path, "time: {column: ts, unit: us}"), None).unwrap_err();
    assert!(format!("{error:#}").contains("no column `ts`"), "{error:#}");
}

#[test]
fn a_carriage_return_in_quotes_ends_no_line() {
    check(
        "a.csv",
        "machine,signal,ts,value,text\nm,s,1,1,\"a\rb\"\nm,\"s\",2,2,x\ry\n",
        "layout: long, text: text, time: {column: ts, unit: us}",
        &["m s 1 1 a\rb", "m s 2 2 x\ry"],
        &[],
    );
}

#[test]
fn ten_megabytes_without_a_line_end() {
    let folder = Folder::new();
    let text = format!("ts,a\n1,1\n{}\n2,2\n", "z,".repeat(5 << 20));
    let path = folder.file("a.csv", text);
    let found = read_with(&settings(&path, "time: {column: ts, unit: us}"), None).unwrap();
    assert_eq!(found.rows, ["a a 1 1", "a a 2 2"]);
    assert_eq!(found.dead, ["9 line of 10485760 bytes is longer than max_line"]);
}

#[test]
fn settings_that_do_not_fit_the_file() {
    check_error(
        "a.csv",
        "tz,a\n1,1\n",
        "time: {column: ts}",
        "a.csv: no column `ts`; did you mean `tz`?",
    );
    check_error(
        "a.csv",
        "ts,a\n1,1\n",
        "signals: [speed], time: {column: ts}",
        "a.csv: no column `speed`; known: ts, a",
    );
    check_error(
        "a.csv",
        "ts,a\n1,1\n",
        "signal: a, time: {column: ts}",
        "a.csv: no column `value`; known: ts, a",
    );
    check_error(
        "a.csv",
        "ts\n1\n",
        "time: {column: ts}",
        "no column is left for signals; the columns are `ts`",
    );
    check_error(
        "a.dat",
        "",
        "time: {column: ts}",
        "a.dat: the ending tells no format; set `format` to csv, parquet or ndjson",
    );
    let missing = read_with("{path: /nowhere/*.csv, time: {column: ts}}", None).unwrap_err();
    assert_eq!(missing.to_string(), "`path`: there is no file /nowhere/*.csv");
}

#[test]
fn several_files() {
    let folder = Folder::new();
    for (name, value) in [("run-10.csv", 3), ("run-9.csv", 1), ("run-9b.csv", 2)] {
        folder.file(name, format!("a\n{value}\n{value}\n"));
    }
    let path = folder.0.path().join("*.csv");
    let index = "time: {start: 1970-01-01T00:00:00Z, rate: 1}";
    let found = read_with(&settings(&path, &format!("machine: {{constant: m}}, {index}")), None).unwrap();
    assert_eq!(
        found.rows,
        [
            "m a 0 1",
            "m a 1000000 1",
            "m a 2000000 2",
            "m a 3000000 2",
            "m a 4000000 3",
            "m a 5000000 3"
        ]
    );
    for replay in ["max", "x1000"] {
        let rest = format!("replay: {replay}, machine: {{file_name: true}}, {index}");
        let found = read_with(&settings(&path, &rest), None).unwrap();
        assert_eq!(
            found.rows,
            [
                "run-9 a 0 1",
                "run-9 a 1000000 1",
                "run-9b a 0 2",
                "run-9b a 1000000 2",
                "run-10 a 0 3",
                "run-10 a 1000000 3"
            ]
        );
    }
}

#[test]
fn replay_keeps_the_pace_and_the_rows() {
    let folder = Folder::new();
    let lines: String = (0..30).map(|i| format!("{},{i}\n", i * 100)).collect();
    let path = folder.file("a.csv", format!("ts,a\n{lines}"));
    let fast = read_with(&settings(&path, "time: {column: ts, unit: ms}"), None).unwrap();
    let started = Instant::now();
    let paced = read_with(&settings(&path, "replay: x10, time: {column: ts, unit: ms}"), None).unwrap();
    let seconds = started.elapsed().as_secs_f64();
    assert_eq!(paced, fast);
    assert!((0.29..2.0).contains(&seconds), "{seconds}");
}

#[test]
fn ndjson() {
    let time = "time: {column: ts, unit: ms}";
    let text = "{\"machine\":\"m\",\"signal\":\"p\",\"ts\":1,\"value\":1.5}\nnope\n[1]\n\n\
                {\"machine\":\"m\",\"signal\":\"s\",\"ts\":2,\"value\":\"on\"}\n\
                {\"signal\":\"p\",\"ts\":\"3\",\"value\":null}\n{\"value\":1";
    check(
        "a.ndjson",
        text,
        time,
        &["m p 1000 1.5", "m s 2000 - on", "a p 3000 -"],
        &[
            "48 no JSON: expected ident at line 1 column 2",
            "53 no JSON object",
            "144 no JSON: EOF while parsing an object at line 1 column 10",
        ],
    );
    let text = "{\"ts\":1,\"a\":1,\"b\":true,\"c\":{\"d\":2}}\n{\"ts\":2,\"b\":\"NaN\",\"c\":{\"d\":[]}}\n{\"a\":1}\n";
    check(
        "a.jsonl",
        text,
        time,
        &["a a 1000 1", "a b 1000 1", "a b 2000 NaN"],
        &["68 no `ts`"],
    );
    check(
        "a.jsonl",
        text,
        "signals: [a, /c/d], time: {column: /ts, unit: ms}",
        &["a a 1000 1", "a c/d 1000 2"],
        &["36 key `c/d`: `[]` is no number", "68 no `/ts`"],
    );
}

/// Counts per signal of a real set; skipped where the data is not there.
fn check_set(file: &str, rest: &str, rows: usize, missing: usize, signals: usize) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../shared/data")
        .join(file);
    if !path.exists() {
        return eprintln!("{file} is not there: skipped");
    }
    let found = read_with(&settings(&path, rest), None).unwrap();
    assert_eq!(found.dead, Vec::<String>::new(), "{file}");
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for row in &found.rows {
        *counts.entry(row.split(' ').nth(1).unwrap()).or_default() += 1;
    }
    assert_eq!(counts.len(), signals, "{counts:?}");
    assert!(counts.values().all(|count| *count == rows), "{file}: {counts:?}");
    assert_eq!(
        found.rows.iter().filter(|row| row.ends_with(" -")).count(),
        missing,
        "{file}"
    );
}

#[test]
fn real_sets() {
    check_set(
        "cobot/ur3_cobotops.csv",
        "decimal: ',', machine: {constant: ur3}, time: {column: Timestamp}",
        7409,
        1072,
        23,
    );
    check_set(
        "batches/dryer.csv",
        "machine: {constant: dryer}, time: {start: 2024-01-01T00:00:00Z, rate: 1}",
        9220,
        0,
        12,
    );
    check_set(
        "batches/nylon.csv",
        "machine: {constant: nylon}, time: {start: 2024-01-01T00:00:00Z, rate: 1}",
        6641,
        0,
        11,
    );
    check_set("nab/nyc_taxi.csv", "time: {column: timestamp}", 10_320, 0, 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_written_is_read(
        rows in proptest::collection::vec(
            ("[a-c]{1,3}", "[a-z ,\"é]{1,6}", any::<i32>(), proptest::option::of(any::<f64>())),
            0..40,
        ),
        block in 1usize..300,
    ) {
        let rows: Vec<_> = rows.into_iter().filter(|row| !row.1.trim().is_empty()).collect();
        let folder = Folder::new();
        let mut text = String::from("machine,signal,ts,value\n");
        let mut expect = Vec::new();
        for (machine, signal, ts, value) in &rows {
            let value_text = value.map(|value| value.to_string()).unwrap_or_default();
            text += &format!("{machine},\"{}\",{ts},{value_text}\n", signal.replace('"', "\"\""));
            let value_text = value.map_or("-".into(), |value| value.to_string());
            expect.push(format!("{machine} {} {ts} {value_text}", signal.trim()));
        }
        let path = folder.file("a.csv", text);
        let found = read_with(&settings(&path, "time: {column: ts, unit: us}"), Some((block, 1))).unwrap();
        prop_assert_eq!(found.rows, expect);
        prop_assert_eq!(found.dead.len(), 0);
    }

    #[test]
    fn any_bytes_are_rows_or_dead_letters(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let folder = Folder::new();
        let text = [b"ts,a\n", bytes.as_slice()].concat();
        let lines = block::rows_in(&bytes) as usize;
        let path = folder.file("a.csv", &text);
        let columns = "signals: [a], text: [a], time: {column: ts, unit: us}";
        let whole = read_with(&settings(&path, columns), None).unwrap();
        prop_assert_eq!(whole.rows.len() + whole.dead.len(), lines);
        let cut = read_with(&settings(&path, columns), Some((5, 1))).unwrap();
        prop_assert_eq!(whole, cut);
        let path = folder.file("a.ndjson", &bytes);
        read_with(&settings(&path, "time: {column: ts, unit: us}"), None).unwrap();
    }
}
