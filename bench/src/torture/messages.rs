//! Messages of a broker under kills: of Mosquitto through the journal, of Kafka from its log.
//!
//! The oracle is what the producers know to be acknowledged: each (producer, sequence) must be among the samples with the right
//! checksum, once, also one that the broker gave again because its acknowledgement had not arrived. Each window holds as many samples as
//! history has, and what is written to Kafka again is there once too.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde_json::Value;

use crate::dice::Dice;
use crate::history;
use crate::input::record;
use crate::lines::{Line, OUT};
use crate::points;
use crate::program::{Program, Running, Start};
use crate::verdict::Verdict;

const PRODUCERS: usize = 3;
/// Messages that a producer sends at once, and how long it rests then.
const BURST: u64 = 10;
const REST: Duration = Duration::from_millis(40);
const PATIENCE: Duration = Duration::from_secs(120);

/// Kills so many times while messages come in, at random or at `faults`, then waits for all of them and counts.
///
/// # Errors
/// The broker or a process can't be started or read.
pub fn torture(
    line: Line,
    taktline: &Path,
    seed: u64,
    kills: u64,
    faults: Option<&[String]>,
    work: &Path,
) -> anyhow::Result<Verdict> {
    let line = Arc::new(line);
    let pipeline = work.join("messages.yaml");
    std::fs::write(&pipeline, text(&line, seed)).with_context(|| pipeline.display().to_string())?;
    let program = Program {
        taktline: taktline.to_owned(),
        pipeline,
        processes: 1,
    };
    let data = work.join("messages");
    let mut dice = Dice::new(seed, "messages");
    let mut verdict = Verdict::default();
    let how = |dice: &mut Dice, fault| Start {
        workers: dice.pick(1..5),
        fault,
        for_ever: true,
        ..Start::default()
    };
    let mut running = program.start(&data, &how(&mut dice, None))?;
    subscribed(&line, taktline, &data, &mut running)?;
    let stop = Arc::new(AtomicBool::new(false));
    let producers: Vec<_> = (0..PRODUCERS).map(|n| produce(&line, n, &stop)).collect();
    let mut reached: BTreeMap<&str, u64> = faults
        .unwrap_or_default()
        .iter()
        .map(|point| (point.as_str(), 0))
        .collect();
    let mut point: Option<&str> = None;
    while verdict.kills < kills && verdict.good() {
        let limit = if point.is_some() { 3_000 } else { 1_200 };
        match running.ends_within(dice.millis(0..limit))? {
            None => running.kill()?,
            Some(status) => match point {
                Some(point) if status.signal() == Some(9) => *reached.entry(point).or_default() += 1,
                _ => {
                    verdict
                        .faults
                        .push(format!("a run ended with {status}:\n{}", running.last_words()));
                    break;
                }
            },
        }
        verdict.kills += 1;
        point = faults.and_then(|faults| Some(faults.get(dice.pick(0..faults.len() as u64) as usize)?.as_str()));
        let most = 1 << dice.pick(0..7);
        let fault = point.map(|point| points::setting(point, dice.pick(0..most), "kill"));
        running = program.start(&data, &how(&mut dice, fault))?;
    }
    if point.is_some() {
        // The last run, undisturbed.
        running.kill()?;
        running = program.start(&data, &how(&mut dice, None))?;
    }
    // Messages go on until there is something behind the samples to compare too.
    until("windows", &mut running, || {
        Ok(data.join("windows/_delta_log").is_dir()
            && !history::rows(taktline, &data, "SELECT 1 FROM windows LIMIT 1")?.is_empty())
    })?;
    stop.store(true, Ordering::Release);
    let mut sent = Vec::new();
    for producer in producers {
        sent.push(producer.join().map_err(|_| anyhow::anyhow!("a producer panicked"))??);
    }
    let total: u64 = sent.iter().sum();
    arrived(taktline, &data, total, &mut running)?;
    running.terminate()?;
    match running.ends_within(PATIENCE)? {
        Some(status) if status.success() => {}
        status => verdict
            .faults
            .push(format!("a stop ended with {status:?}:\n{}", running.last_words())),
    }
    count(&mut verdict, &line, taktline, &data, &sent)?;
    let never: Vec<&str> = reached
        .iter()
        .filter(|(_, times)| **times == 0)
        .map(|(point, _)| *point)
        .collect();
    if !never.is_empty() {
        verdict.notes.push(format!("never reached: {}", never.join(", ")));
    }
    Ok(verdict)
}

fn text(line: &Line, seed: u64) -> String {
    let (source, sinks) = line.sections(seed);
    format!(
        r#"version: 1
checkpoint: {{every: 100ms}}
sources:
  plc: {{{source}}}
steps:
  windows: {{kind: window, from: plc, every: 1s, lateness: 2s}}
  cycles:  {{kind: cycle, from: plc, length: 3s, lateness: 2s}}
sinks:
  history: {{kind: history, from: [plc, windows, cycles]}}
{sinks}"#
    )
}

/// Waits until a message comes through: then the subscription stands, and the broker keeps what comes from now on.
fn subscribed(line: &Line, taktline: &Path, data: &Path, running: &mut Running) -> anyhow::Result<()> {
    let mut producer = line.producer("probe")?;
    until("a first message", running, || {
        producer.publish(&payload("probe", 0))?;
        producer.flush()?;
        Ok(samples(taktline, data)? > 0)
    })
}

fn arrived(taktline: &Path, data: &Path, total: u64, running: &mut Running) -> anyhow::Result<()> {
    let query = "SELECT DISTINCT machine, text FROM samples WHERE machine <> 'probe'";
    until("all messages", running, || {
        Ok(samples(taktline, data)? >= total && history::rows(taktline, data, query)?.len() as u64 >= total)
    })
}

fn samples(taktline: &Path, data: &Path) -> anyhow::Result<u64> {
    if !data.join("samples").join("_delta_log").is_dir() {
        return Ok(0);
    }
    let rows = history::rows(taktline, data, "SELECT count(*) AS n FROM samples")?;
    Ok(rows.first().and_then(|row| row["n"].as_u64()).unwrap_or_default())
}

/// Looks until it is so. A look that fails counts as no: a run that begins has tables whose logs are still empty.
fn until(what: &str, running: &mut Running, mut there: impl FnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let until = Instant::now() + PATIENCE;
    loop {
        let look = there();
        if matches!(look, Ok(true)) {
            return Ok(());
        }
        let ended = running.ends_within(Duration::from_millis(200))?;
        if ended.is_some() || Instant::now() > until {
            // What is missing is counted, so that it shows which.
            println!(
                "waited in vain for {what}: {look:?}, {ended:?}\n{}",
                running.last_words()
            );
            return Ok(());
        }
    }
}

fn payload(producer: &str, sequence: u64) -> Vec<u8> {
    let value = sequence as f64 + 0.25;
    let ts = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_micros() as i64);
    let record = record(producer, sequence, &value.to_string(), "");
    serde_json::json!({"ts": ts, "value": value, "record": record})
        .to_string()
        .into_bytes()
}

/// Publishes until it is told to stop. Gives how many the broker has acknowledged.
fn produce(line: &Arc<Line>, number: usize, stop: &Arc<AtomicBool>) -> JoinHandle<anyhow::Result<u64>> {
    let (line, stop) = (Arc::clone(line), Arc::clone(stop));
    std::thread::spawn(move || {
        let name = format!("producer-{number}");
        let mut producer = line.producer(&name)?;
        let mut sequence = 0;
        while !stop.load(Ordering::Acquire) {
            for _ in 0..BURST {
                producer.publish(&payload(&name, sequence))?;
                sequence += 1;
            }
            producer.flush()?;
            std::thread::sleep(REST);
        }
        Ok(sequence)
    })
}

fn count(verdict: &mut Verdict, line: &Line, taktline: &Path, data: &Path, sent: &[u64]) -> anyhow::Result<()> {
    let query = "SELECT machine, ts, value, text FROM samples WHERE machine <> 'probe'";
    let rows = history::rows(taktline, data, query)?;
    let again = once(verdict, "samples", &rows, sent);
    verdict.runs += 1;
    let messages = sent.iter().sum::<u64>();
    verdict.twice += again;
    verdict
        .notes
        .push(format!("{messages} messages, {again} of them twice in history"));
    if let Some(rows) = line.written()? {
        let rows: Vec<Value> = rows.into_iter().filter(|row| row["machine"] != "probe").collect();
        let again = once(verdict, OUT, &rows, sent);
        verdict.twice += again;
        verdict
            .notes
            .push(format!("{} messages in {OUT}, {again} of them twice", rows.len()));
    }
    windows(verdict, taktline, data)
}

/// Holds rows with machine, value and text against what was sent: lost and different ones. Gives how many are there again.
fn once(verdict: &mut Verdict, place: &str, rows: &[Value], sent: &[u64]) -> u64 {
    let mut seen: HashMap<(String, u64), u64> = HashMap::new();
    for row in rows {
        let said = row["text"].as_str().unwrap_or_default();
        let machine = row["machine"].as_str().unwrap_or_default();
        let sequence = said
            .split(' ')
            .nth(1)
            .and_then(|number| number.parse().ok())
            .unwrap_or_default();
        let value = row["value"].as_f64().unwrap_or_default().to_string();
        if said != record(machine, sequence, &value, "") {
            verdict.different += 1;
            verdict.faults.push(format!("{place}: different: {row}"));
        }
        *seen.entry((machine.to_owned(), sequence)).or_default() += 1;
    }
    for (number, sent) in sent.iter().enumerate() {
        let name = format!("producer-{number}");
        let missing: Vec<u64> = (0..*sent)
            .filter(|sequence| !seen.contains_key(&(name.clone(), *sequence)))
            .collect();
        verdict.lost += missing.len() as u64;
        if let Some(first) = missing.first() {
            verdict.faults.push(format!(
                "{place}: {} of {sent} messages of {name} are lost, first {first}",
                missing.len()
            ));
        }
    }
    verdict.rows += rows.len() as u64;
    seen.values().map(|times| times - 1).sum()
}

/// Each window holds the samples that history has of its time, but for late ones; and stands there once.
fn windows(verdict: &mut Verdict, taktline: &Path, data: &Path) -> anyhow::Result<()> {
    let late = data.join("late").join("_delta_log").is_dir();
    let late = if late {
        "SELECT machine, signal, ts FROM late WHERE step = 'windows'"
    } else {
        ""
    };
    let mut counts: HashMap<(String, String, String), (i64, u64)> = HashMap::new();
    let key = |row: &Value, time: &str| {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        // Windows begin at whole seconds.
        (
            text("machine"),
            text("signal"),
            text(time).chars().take("2026-01-01T00:00:00".len()).collect::<String>(),
        )
    };
    for row in history::rows(taktline, data, "SELECT machine, signal, ts FROM samples")? {
        counts.entry(key(&row, "ts")).or_default().0 += 1;
    }
    if !late.is_empty() {
        for row in history::rows(taktline, data, late)? {
            counts.entry(key(&row, "ts")).or_default().0 -= 1;
        }
    }
    let rows = history::rows(taktline, data, "SELECT machine, signal, start, count FROM windows")?;
    verdict.rows += rows.len() as u64;
    for row in &rows {
        let (samples, times) = counts.entry(key(row, "start")).or_default();
        *times += 1;
        if *times > 1 {
            verdict.twice += 1;
            verdict.faults.push(format!("windows: twice: {row}"));
        }
        if row["count"].as_i64() != Some(*samples) {
            verdict.different += 1;
            verdict
                .faults
                .push(format!("windows: different: {row}, and there are {samples} samples"));
        }
    }
    anyhow::ensure!(!rows.is_empty(), "there are no windows to compare");
    Ok(())
}
