//! Kills at the fault points: at every write, fsync, link, commit and acknowledgement, on the way in, in the work, in recovery.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::process::ExitStatusExt;
use std::time::Duration;

use crate::killing::Bench;
use crate::lines::Line;
use crate::program::Start;
use crate::verdict::Verdict;

/// Those that a run over files passes.
const OF_FILES: &[&str] = &[
    "claim.write",
    "claim.sync",
    "claim.link",
    "claim.folder",
    "base.write",
    "base.sync",
    "base.link",
    "base.folder",
    "state.write",
    "state.sync",
    "manifest.write",
    "manifest.sync",
    "manifest.link",
    "manifest.folder",
    "history.write",
    "history.sync",
    "history.rename",
    "history.folder",
    "history.commit",
    "history.committed",
    "log.write",
    "log.sync",
    "log.link",
    "log.folder",
    "collect.remove",
];

/// Those that only a source passes which can't be read twice.
const OF_JOURNAL: &[&str] = &[
    "journal.write",
    "journal.sync",
    "journal.rotate",
    "journal.acknowledge",
    "journal.release",
    "journal.repair",
];

/// Those of the outbox of the sink `kafka`, and around its transactions.
const OF_KAFKA_SINK: &[&str] = &[
    "kafka.outbox.create",
    "kafka.outbox.write",
    "kafka.outbox.sync",
    "kafka.begin",
    "kafka.sent",
    "kafka.commit",
    "kafka.committed",
    "kafka.published",
];

/// Those that the sink `file` passes.
const OF_FILE_SINK: &[&str] = &["file.create", "file.write", "file.sync", "file.rename", "file.folder"];

/// All, or those that were asked for.
pub fn of_files(asked: &[String]) -> Vec<String> {
    chosen(OF_FILES, asked)
}

/// Those of these lines and of more sinks than history, or those that were asked for.
pub fn of_messages(lines: &[Line], sinks: bool, asked: &[String]) -> Vec<String> {
    let mut all: Vec<&str> = Vec::new();
    if lines.iter().any(|line| !matches!(line, Line::Kafka(_))) {
        all.extend(OF_JOURNAL);
    }
    for line in lines {
        all.extend_from_slice(match line {
            Line::Mqtt(_) => &["mqtt.acknowledge"],
            Line::Kafka(_) => OF_KAFKA_SINK,
            Line::Http(_) => &["http.acknowledge"],
        });
    }
    if sinks {
        all.extend(OF_FILE_SINK);
    }
    chosen(&all, asked)
}

fn chosen(all: &[&str], asked: &[String]) -> Vec<String> {
    if asked.is_empty() {
        all.iter().map(|point| (*point).to_owned()).collect()
    } else {
        asked.to_vec()
    }
}

/// After `passed` times, the point does `what`.
pub fn setting(point: &str, passed: u64, what: &str) -> String {
    match passed {
        0 => format!("{point}=return({what})"),
        passed => format!("{point}={passed}*off->return({what})"),
    }
}

/// How long a point has to be reached.
const REACHED_WITHIN: Duration = Duration::from_secs(3);

/// Passes over all points until there were so many kills; at least one pass of kills, of I/O errors and of a full disk.
///
/// # Errors
/// A process can't be started or read.
pub fn kill(bench: &mut Bench, points: &[String], kills: u64) -> anyhow::Result<Verdict> {
    let mut reached: BTreeMap<String, u64> = points.iter().map(|point| (point.clone(), 0)).collect();
    let mut survived = BTreeSet::new();
    let mut passes = 0_usize;
    while (passes < 3 || bench.verdict.kills < kills) && bench.verdict.good() {
        // An error must end the run too, or be mended; never cost a row.
        let what = ["kill", "broken", "full"][passes % 3];
        let mut order = points.to_vec();
        bench.dice.shuffle(&mut order);
        let mut data = bench.fresh();
        for point in &order {
            // First with a random number of times passed; then at once, for what is passed seldom.
            let most = 1 << bench.dice.pick(1..6);
            let passed = bench.dice.pick(0..most);
            for passed in BTreeSet::from([passed, 0]).into_iter().rev() {
                let fault = Some(setting(point, passed, what));
                let how = Start { fault, ..bench.how() };
                let mut running = bench.program.start(&data, &how)?;
                let end = running.ends_within(REACHED_WITHIN)?;
                let Some(status) = end else {
                    running.kill()?;
                    bench.verdict.kills += 1;
                    continue;
                };
                if status.success() {
                    bench.finish(&data)?;
                    data = bench.fresh();
                    continue;
                }
                let told = status.signal() == Some(9) || (what != "kill" && status.code() == Some(1));
                if !told {
                    bench.ended_badly(&data, &format!("a run with a fault at {point}"), Some(status), &running);
                } else if what == "broken" && !running.last_words().contains(&format!("fault at {point}")) {
                    survived.insert(format!("{point} (the message does not name it)"));
                }
                bench.verdict.kills += 1;
                *reached.entry(point.clone()).or_default() += 1;
                break;
            }
            if !bench.verdict.good() {
                break;
            }
        }
        bench.finish(&data)?;
        passes += 1;
    }
    let never: Vec<&str> = reached
        .iter()
        .filter(|(_, times)| **times == 0)
        .map(|(point, _)| point.as_str())
        .collect();
    let mut verdict = std::mem::take(&mut bench.verdict);
    verdict
        .notes
        .push(format!("{} fault points, {passes} passes", points.len()));
    if !never.is_empty() {
        verdict.notes.push(format!("never reached: {}", never.join(", ")));
    }
    if !survived.is_empty() {
        let survived: Vec<String> = survived.into_iter().collect();
        verdict.notes.push(format!("ended otherwise: {}", survived.join(", ")));
    }
    Ok(verdict)
}
