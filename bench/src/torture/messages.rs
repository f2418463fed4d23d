//! Messages under kills: of Mosquitto and of HTTP senders through the journal, of Kafka from its log, all into one pipeline.
//!
//! The oracle is what the producers know to be acknowledged: each message must be among the samples with the right checksum, once, also one
//! that the broker or the sender gave again because its acknowledgement had not arrived. Each window holds as many samples as history has, and
//! what is written to Kafka again is there once too. Producers of all lines send for the same machines.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;

use crate::acknowledged::{self, PROBE, Sent};
use crate::dice::Dice;
use crate::lines::{Line, Producer};
use crate::program::{Program, Running, Start};
use crate::sinks::Sinks;
use crate::verdict::Verdict;
use crate::{delta, history, kafka, points, windows};

/// Machines, each with a producer on every line.
const MACHINES: usize = 3;
/// Messages that a producer sends at once, and how long it rests then.
const BURST: u64 = 10;
const REST: Duration = Duration::from_millis(40);
/// After so many messages values begin again.
const WAVE: u64 = 300;
/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// What is killed, and how often.
pub struct Torture<'t> {
    pub taktline: &'t Path,
    pub seed: u64,
    pub kills: u64,
    /// At these fault points; none: at random times.
    pub faults: Option<&'t [String]>,
    /// Where data and logs are.
    pub work: &'t Path,
}

/// Kills while messages come in, then waits for all of them and counts.
///
/// # Errors
/// A broker or a process can't be started or read.
pub fn torture(lines: &[Line], sinks: Option<&Sinks>, how: &Torture<'_>) -> anyhow::Result<Verdict> {
    let Torture { taktline, work, .. } = *how;
    let pipeline = work.join("messages.yaml");
    std::fs::write(&pipeline, text(lines, sinks, how.seed)).with_context(|| pipeline.display().to_string())?;
    let program = Program {
        taktline: taktline.to_owned(),
        pipeline,
        processes: 1,
    };
    let data = work.join("messages");
    let mut dice = Dice::new(how.seed, "messages");
    let mut verdict = Verdict::default();
    let mut running = program.start(&data, &start(&mut dice, None))?;
    for line in lines {
        subscribed(line, taktline, &data, &mut running)?;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let mut producers = Vec::new();
    for line in lines {
        for number in 0..MACHINES {
            let machine = format!("machine-{number}");
            let producer = line.producer(&machine)?;
            producers.push(produce(producer, machine, line.name(), &stop));
        }
    }
    kill(&program, &data, how, &mut dice, &mut running, &mut verdict)?;
    // Messages go on until there is something behind the samples to compare too.
    let tables = ["windows", "alerts"];
    for table in tables.iter().take(1 + usize::from(sinks.is_some())) {
        until(table, &mut running, || {
            let query = format!("SELECT 1 FROM {table} LIMIT 1");
            Ok(begun(&data, table) && !history::rows(taktline, &data, &query)?.is_empty())
        })?;
    }
    stop.store(true, Ordering::Release);
    let mut sent = Vec::new();
    for producer in producers {
        sent.push(producer.join().map_err(|_| anyhow::anyhow!("a producer panicked"))??);
    }
    arrived(taktline, &data, &sent, &mut running)?;
    running.terminate()?;
    match running.ends_within(PATIENCE)? {
        Some(status) if status.success() => {}
        status => verdict
            .faults
            .push(format!("a stop ended with {status:?}:\n{}", running.last_words())),
    }
    count(&mut verdict, lines, &data, &sent)?;
    windows::compare(&mut verdict, taktline, &data)?;
    if let Some(sinks) = sinks {
        sinks.count(&mut verdict, taktline, &data, &sent)?;
    }
    Ok(verdict)
}

fn start(dice: &mut Dice, fault: Option<String>) -> Start {
    Start {
        workers: dice.pick(1..5),
        fault,
        for_ever: true,
        ..Start::default()
    }
}

/// Kills and starts again, so many times. The last run is not disturbed.
fn kill(
    program: &Program,
    data: &Path,
    how: &Torture<'_>,
    dice: &mut Dice,
    running: &mut Running,
    verdict: &mut Verdict,
) -> anyhow::Result<()> {
    let faults = how.faults.unwrap_or_default();
    let mut reached: BTreeMap<&str, u64> = faults.iter().map(|point| (point.as_str(), 0)).collect();
    let mut point: Option<&str> = None;
    let mut at_work = 0;
    while verdict.kills < how.kills {
        // Some of the kills hit the start and the recovery, most the work.
        let works = !dice.once_in(3) && works(data, running)?;
        at_work += u64::from(works);
        let span = match (works, point) {
            (true, Some(_)) => 0..3_000,
            _ => 0..1_200,
        };
        match running.ends_within(dice.millis(span))? {
            None => running.kill()?,
            Some(status) => match point {
                Some(point) if status.signal() == Some(9) => *reached.entry(point).or_default() += 1,
                _ => {
                    let words = running.last_words();
                    verdict.faults.push(format!("a run ended with {status}:\n{words}"));
                    break;
                }
            },
        }
        verdict.kills += 1;
        point = faults
            .get(dice.pick(0..faults.len() as u64) as usize)
            .map(String::as_str);
        let most = 1 << dice.pick(0..7);
        let fault = point.map(|point| points::setting(point, dice.pick(0..most), "kill"));
        *running = program.start(data, &start(dice, fault))?;
    }
    if point.is_some() {
        running.kill()?;
        *running = program.start(data, &start(dice, None))?;
    }
    let never: Vec<&str> = reached
        .iter()
        .filter(|(_, times)| **times == 0)
        .map(|(point, _)| *point)
        .collect();
    verdict.notes.push(format!(
        "{at_work} kills after a checkpoint of the run, the others in its start or recovery"
    ));
    if !never.is_empty() {
        verdict.notes.push(format!("never reached: {}", never.join(", ")));
    }
    Ok(())
}

/// Waits for a checkpoint of this run; false when it ends before.
fn works(data: &Path, running: &mut Running) -> anyhow::Result<bool> {
    let before = checkpoints(data)?;
    let until = Instant::now() + PATIENCE;
    while checkpoints(data)?.is_subset(&before) {
        anyhow::ensure!(
            Instant::now() < until,
            "a run makes no checkpoint:\n{}",
            running.last_words()
        );
        if running.ends_within(Duration::from_millis(20))?.is_some() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The names of the manifests.
fn checkpoints(data: &Path) -> anyhow::Result<BTreeSet<OsString>> {
    let folder = data.join("_taktline/checkpoints");
    let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    Ok(names
        .filter(|name| Path::new(name).extension().is_some_and(|ending| ending == "json"))
        .collect())
}

fn text(lines: &[Line], sinks: Option<&Sinks>, seed: u64) -> String {
    let names: Vec<&str> = lines.iter().map(Line::name).collect();
    let from = names.join(", ");
    let sources: String = lines
        .iter()
        .map(|line| format!("  {}: {{{}}}\n", line.name(), line.source(seed)))
        .collect();
    let copies: String = lines
        .iter()
        .filter_map(|line| match line {
            Line::Kafka(kafka) => Some(format!("  out: {{{}}}\n", kafka.sink(&from))),
            _ => None,
        })
        .chain(sinks.map(|sinks| sinks.sections(&from)))
        .collect();
    format!(
        r#"version: 1
checkpoint: {{every: 100ms}}
sources:
{sources}steps:
  windows: {{kind: window, from: [{from}], every: 1s, lateness: 2s}}
  cycles:  {{kind: cycle, from: [{from}], length: 3s, lateness: 2s}}
  high:    {{kind: alert, from: windows, when: "min > 100"}}
sinks:
  history: {{kind: history, from: [{from}, windows, cycles, high]}}
{copies}"#
    )
}

/// Waits until a message comes through: then the subscription stands, and the broker keeps what comes from now on.
fn subscribed(line: &Line, taktline: &Path, data: &Path, running: &mut Running) -> anyhow::Result<()> {
    let mut producer = line.producer(PROBE)?;
    let name = line.name();
    let query = format!("SELECT 1 FROM samples WHERE machine = '{PROBE}' AND signal = '{name}' LIMIT 1");
    until(&format!("a first message of {name}"), running, || {
        producer.publish(&payload(PROBE, name, 0))?;
        producer.flush()?;
        Ok(begun(data, "samples") && !history::rows(taktline, data, &query)?.is_empty())
    })
}

/// Waits until history has every message.
fn arrived(taktline: &Path, data: &Path, sent: &[Sent], running: &mut Running) -> anyhow::Result<()> {
    let total: u64 = sent.iter().map(|sent| sent.count).sum();
    let query = format!("SELECT count(DISTINCT text) AS n FROM samples WHERE machine <> '{PROBE}'");
    until("all messages", running, || {
        let rows = history::rows(taktline, data, &query)?;
        Ok(rows.first().and_then(|row| row["n"].as_u64()) >= Some(total))
    })
}

fn begun(data: &Path, table: &str) -> bool {
    data.join(table).join("_delta_log").is_dir()
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

fn payload(machine: &str, signal: &str, sequence: u64) -> Vec<u8> {
    let value = (sequence % WAVE) as f64 + 0.25;
    let ts = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| d.as_micros() as i64);
    let text = acknowledged::text(machine, signal, sequence, value);
    serde_json::json!({"signal": signal, "ts": ts, "value": value, "text": text})
        .to_string()
        .into_bytes()
}

/// Publishes until it is told to stop. Gives what was acknowledged.
fn produce(
    mut producer: Box<dyn Producer>,
    machine: String,
    signal: &'static str,
    stop: &Arc<AtomicBool>,
) -> JoinHandle<anyhow::Result<Sent>> {
    let stop = Arc::clone(stop);
    std::thread::spawn(move || {
        let mut count = 0;
        while !stop.load(Ordering::Acquire) {
            for _ in 0..BURST {
                producer.publish(&payload(&machine, signal, count))?;
                count += 1;
            }
            producer.flush()?;
            std::thread::sleep(REST);
        }
        Ok(Sent { machine, signal, count })
    })
}

fn count(verdict: &mut Verdict, lines: &[Line], data: &Path, sent: &[Sent]) -> anyhow::Result<()> {
    let total: u64 = sent.iter().map(|sent| sent.count).sum();
    let again = acknowledged::count(verdict, "samples", &delta::messages(&data.join("samples"))?, sent);
    verdict.runs += 1;
    verdict.twice += again;
    verdict
        .notes
        .push(format!("{total} messages, {again} of them twice in history"));
    for line in lines {
        if let Line::Kafka(kafka) = line {
            let found = kafka.written()?;
            let again = acknowledged::count(verdict, kafka::OUT, &found, sent);
            verdict.twice += again;
            verdict.notes.push(format!(
                "{} messages in {}, {again} of them twice",
                found.len(),
                kafka::OUT
            ));
        }
    }
    Ok(())
}
