//! Running pipelines: stopped in the middle, watched, asked, fed with garbage.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use support::{any, ok, sql, taktline};

fn write(dir: &Path, name: &str, text: impl AsRef<[u8]>) -> String {
    let path = dir.join(name);
    std::fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Starts a run with its API on a free port; gives the process and the API's address.
fn start(args: &[&str]) -> (Child, String) {
    let mut child = taktline()
        .args(args)
        .args(["--listen", "127.0.0.1:0"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while stderr.read_line(&mut line).unwrap() > 0 {
        if let Some((_, address)) = line.trim().split_once("http://") {
            let address = format!("http://{address}");
            std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::stderr()));
            return (child, address);
        }
        line.clear();
    }
    panic!("the run ended before it listened: {}", child.wait().unwrap());
}

/// Asks until the answer is as wanted.
fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(20)); // between two looks, not to wait for anything
    }
}

fn get(url: &str) -> String {
    ureq::get(url).call().unwrap().body_mut().read_to_string().unwrap()
}

fn terminate(child: &mut Child) -> std::process::ExitStatus {
    Command::new("kill")
        .args(["-TERM", &child.id().to_string()])
        .status()
        .unwrap();
    child.wait().unwrap()
}

/// A counter in the metrics of a node.
fn counter(metrics: &str, name: &str, node: &str) -> u64 {
    let label = format!("node=\"{node}\"");
    let line = metrics
        .lines()
        .find(|line| line.starts_with(name) && line.contains(&label));
    line.and_then(|line| line.rsplit(' ').next())
        .map_or(0, |value| value.parse::<f64>().unwrap() as u64)
}

#[test]
fn sigterm_in_the_middle_loses_nothing_and_the_next_run_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = String::from("machine,signal,ts,value\n");
    for i in 0..100_000 {
        rows += &format!(
            "press-{},pressure,{},{}\n",
            i % 3,
            1_700_000_000_000_000_i64 + i * 1000,
            i % 100
        );
    }
    let rows = write(dir.path(), "rows.csv", rows);
    let pipeline = write(
        dir.path(),
        "p.yaml",
        format!(
            "version: 1\nsources:\n  rows: {{kind: file, path: {rows}, layout: long, machine: {{column: machine}}, signal: signal, \
             value: value, time: {{column: ts, unit: us}}, replay: realtime}}\n\
             steps:\n  cycles: {{kind: cycle, from: rows, length: 10s}}\n\
             sinks:\n  history: {{kind: history, from: [rows, cycles]}}\n"
        ),
    );
    let data = dir.path().join("data");
    let (mut child, url) = start(&["run", &pipeline, "--data", data.to_str().unwrap()]);
    until("samples flow", || {
        counter(&get(&format!("{url}/metrics")), "taktline_rows_out_total", "rows") > 2_000
    });
    assert!(get(&format!("{url}/health")).contains("running"));
    let read = counter(&get(&format!("{url}/metrics")), "taktline_rows_out_total", "rows");
    assert!(terminate(&mut child).success());
    let kept: u64 = sql(&data, "SELECT count(*) FROM samples").parse().unwrap();
    assert!((read..100_000).contains(&kept), "read {read}, kept {kept}");
    // What is kept is the beginning of the input, without a hole; the cycles that were open are not closed.
    let no_hole =
        "SELECT count(DISTINCT ts), 1 + (CAST(max(ts) AS BIGINT) - CAST(min(ts) AS BIGINT)) / 1000 FROM samples";
    assert_eq!(sql(&data, no_hole), format!("{kept},{kept}"));
    let truncated = "SELECT count(*) FROM cycles WHERE outcome = 'truncated'";
    assert_eq!(sql(&data, truncated), "0");
    ok(&[
        "run",
        &pipeline,
        "--data",
        data.to_str().unwrap(),
        "--workers",
        "3",
        "--until-end",
        "--set",
        "sources.rows.replay=max",
    ]);
    assert_eq!(sql(&data, no_hole), "100000,100000");
    assert_eq!(sql(&data, "SELECT sum(samples) FROM cycles"), "100000");
    assert_eq!(sql(&data, truncated), "3");
}

#[test]
fn a_savepoint_is_named_and_gone_back_to() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = write(
        dir.path(),
        "p.yaml",
        "version: 1\nsources: {presses: {kind: simulate, machines: 2, replay: realtime}}\n\
         steps: {windows: {kind: window, from: presses, every: 100ms}}\n\
         checkpoint: {every: 100ms}\nsinks: {history: {kind: history, from: [presses, windows]}}\n",
    );
    let data = dir.path().join("data");
    let at = data.to_str().unwrap();
    let rows = || sql(&data, "SELECT count(*) FROM samples").parse::<u64>().unwrap_or(0);
    let (mut child, url) = start(&["run", &pipeline, "--data", at]);
    until("rows are shown", || {
        data.join("samples/_delta_log").is_dir() && rows() > 100
    });
    let said = ok(&["checkpoint", "monday", "--url", &url]);
    assert!(said.starts_with("monday is checkpoint "), "{said}");
    let (code, _, stderr) = any(&["checkpoint", "mon/day", "--url", &url]);
    assert!(code == 1 && stderr.contains("can't be a name"), "{stderr}");
    let then = rows();
    until("more rows are shown", || rows() > then + 1000);
    assert!(terminate(&mut child).success());
    let (code, _, stderr) = any(&["run", &pipeline, "--data", at, "--from", "tuesday"]);
    assert!(code == 1 && stderr.contains("monday"), "{stderr}");
    // Back to monday: what the journal holds since is read again.
    let (mut child, _) = start(&["run", &pipeline, "--data", at, "--from", "monday"]);
    until("the journal is read again", || rows() > then + 1000);
    assert!(terminate(&mut child).success());
    let twice = "SELECT count(*) - count(DISTINCT concat(machine, signal, CAST(ts AS TEXT))) FROM samples";
    assert_eq!(sql(&data, twice), "0");
}

#[test]
fn a_running_step_can_be_watched() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = write(
        dir.path(),
        "p.yaml",
        "version: 1\nsources: {presses: {kind: simulate, machines: 2, period: 500ms, replay: realtime}}\n\
         steps: {strokes: {kind: cycle, from: presses, start: \"pressure rises above 5\", end: \"pressure falls below 3\", lateness: 0s}}\n",
    );
    let (mut child, url) = start(&["run", &pipeline]);
    let mut tap = taktline()
        .args(["tap", "strokes", "--url", &url])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(tap.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let row: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(row["cycle_id"].as_str().unwrap().starts_with("press-"), "{row}");
    let (code, _, stderr) = any(&["tap", "stroke", "--url", &url]);
    assert!(code == 1 && stderr.contains("did you mean `strokes`?"), "{stderr}");
    let machines: serde_json::Value = serde_json::from_str(&get(&format!("{url}/api/machines"))).unwrap();
    assert_eq!(machines.as_array().unwrap().len(), 2);
    assert!(get(&url).contains("<html"), "the page");
    assert!(terminate(&mut child).success());
    tap.wait().unwrap();
}

#[test]
fn garbage_costs_its_rows_and_no_more() {
    let dir = tempfile::tempdir().unwrap();
    let mut bytes = b"machine,signal,ts,value\n".to_vec();
    let mut bad = 0;
    for i in 0..1000 {
        bytes.extend(format!("m,s,{},{i}\n", 1_700_000_000 + i).as_bytes());
        if i % 100 == 50 {
            bytes.extend(b"m,s,not a time,1\nm,s\n\xff\xfe\x00garbage\n\"m,s,1,2\n");
            bad += 4;
        }
    }
    bytes.resize(bytes.len() + (10 << 20), b'x');
    bytes.extend(b"\nm,s,1700002000,NaN\nm,s,1700002001,inf\nm,s,1700002002,\nm,s,17000020"); // and cut
    bad += 2;
    let rows = write(dir.path(), "rows.csv", bytes);
    let pipeline = write(
        dir.path(),
        "p.yaml",
        format!(
            "version: 1\nsources:\n  rows: {{kind: file, path: {rows}, layout: long, machine: {{column: machine}}, signal: signal, \
             value: value, time: {{column: ts, unit: s}}}}\n\
             steps:\n  windows: {{kind: window, from: rows, every: 10s}}\n\
             sinks:\n  history: {{kind: history, from: [rows, windows]}}\n"
        ),
    );
    let data = dir.path().join("data");
    let summary = ok(&[
        "run",
        &pipeline,
        "--until-end",
        "--data",
        data.to_str().unwrap(),
        "--format",
        "json",
    ]);
    let summary: serde_json::Value = serde_json::from_str(&summary).unwrap();
    assert_eq!(summary["nodes"][0]["dead_letters"], bad);
    let of = |query: &str, expected: &str| assert_eq!(sql(&data, query), expected, "{query}");
    of("SELECT count(*) FROM samples", "1003");
    of(
        "SELECT count(*), max(octet_length(encode(payload, 'hex'))) / 2 FROM dead_letters",
        &format!("{bad},4096"),
    );
    of("SELECT sum(count), sum(missing) FROM windows", "1000,3");
}

#[test]
fn a_pipelines_own_tests() {
    let dir = tempfile::tempdir().unwrap();
    let mut rows = String::from("machine,signal,ts,value\n");
    for i in 0..40 {
        let ts = format!("2026-01-01T00:00:{:02}.{}Z", i / 10, i % 10);
        rows += &format!("press-1,pressure,{ts},{}\n", if i % 10 < 5 { 1 } else { 9 });
    }
    let replay = write(dir.path(), "good.csv", rows);
    let pipeline = |cycles: u32| {
        write(
            dir.path(),
            "p.yaml",
            format!(
                "version: 1\nsources: {{plc: {{kind: mqtt, url: \"mqtt://nowhere:1883\", topic: \"{{machine}}/{{signal}}\", decode: {{format: number}}}}}}\n\
                 steps:\n  strokes: {{kind: cycle, from: plc, start: \"pressure rises above 5\", end: \"pressure falls below 3\"}}\n\
                 sinks: {{out: {{kind: stdout, from: strokes}}}}\n\
                 tests:\n  - {{name: good strokes, replay: {replay}, expect: {{cycles: {cycles}, strokes: {cycles}}}}}\n"
            ),
        )
    };
    assert!(ok(&["test", &pipeline(4)]).starts_with("ok     good strokes"));
    let (code, stdout, _) = any(&["test", &pipeline(5)]);
    assert!(code == 1 && stdout.contains("cycles: expected 5, found 4"), "{stdout}");
}

#[test]
fn no_cycles_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = write(
        dir.path(),
        "p.yaml",
        "version: 1\nsources: {presses: {kind: simulate, machines: 1, duration: 10s, replay: max}}\n\
         steps: {strokes: {kind: cycle, from: presses, start: \"pressure rises above 50\"}}\n",
    );
    let (code, _, stderr) = any(&["run", &pipeline, "--until-end"]);
    assert_eq!(code, 0);
    assert!(
        stderr.contains("was met 0 times") && stderr.contains("nearest miss"),
        "{stderr}"
    );
}

#[test]
fn sql_reads_files_beside_history() {
    let dir = tempfile::tempdir().unwrap();
    let orders = write(dir.path(), "orders.csv", "id,part\n1,gear\n2,shaft\n");
    let table = format!("orders={orders}");
    let rows = ok(&[
        "sql",
        "SELECT part FROM orders ORDER BY id DESC",
        "--table",
        &table,
        "--format",
        "json",
    ]);
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&rows).unwrap()[0]["part"],
        "shaft"
    );
    let (code, _, stderr) = any(&["sql", "SELECT * FROM order", "--table", &table]);
    assert_eq!(code, 1);
    assert!(!stderr.contains("panicked"), "{stderr}");
    let (code, _, nothing) = any(&["sql", "SELECT 1", "--data", "/nowhere"]);
    assert_eq!(code, 1);
    assert!(nothing.contains("/nowhere"), "{nothing}");
}

#[test]
fn rows_on_stdout() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = write(
        dir.path(),
        "p.yaml",
        "version: 1\nsources: {presses: {kind: simulate, machines: 1, duration: 10s, replay: max}}\n\
         steps: {windows: {kind: window, from: presses, every: 1s}}\nsinks: {out: {kind: stdout, from: windows}}\n",
    );
    let rows = ok(&["run", &pipeline, "--until-end"]);
    assert_eq!(rows.lines().count(), 50, "ten seconds of five signals");
    let first: serde_json::Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    assert_eq!(first["count"], 100);
}

#[test]
fn the_schema_accepts_the_example_pipelines() {
    let schema: serde_json::Value = serde_json::from_str(&ok(&["schema"])).unwrap();
    let text = schema.to_string();
    // Every reference has its definition; two kinds with a type of one name don't share it.
    for part in text.split("\"#/$defs/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(schema["$defs"].get(name).is_some(), "{name}");
    }
    assert!(schema["$defs"].get("elsewhere").is_some());
    for pipeline in ["cobot", "demo", "demo-line", "dryer", "nylon", "plant"] {
        ok(&["validate", &format!("config/pipelines/{pipeline}.yaml")]);
    }
}

#[test]
fn a_reference_that_never_comes_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let pipeline = write(
        dir.path(),
        "p.yaml",
        r#"
version: 1
sources: {presses: {kind: simulate, machines: 1, duration: 10s, replay: max}}
steps:
  strokes: {kind: cycle, from: presses, start: "pressure rises above 5", end: "pressure falls below 3"}
  compared: {kind: compare, from: strokes, reference: {cycle: nowhere}}
"#,
    );
    let (code, _, stderr) = any(&["run", &pipeline, "--until-end"]);
    assert_eq!(code, 0);
    assert!(
        stderr.contains("press-1: none of") && stderr.contains("was compared"),
        "{stderr}"
    );
}
