//! Kills at random times: during the start, the recovery, the work and the end.

use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;

use crate::dice::Dice;
use crate::history::{self, Tables};
use crate::program::{self, Program, Running, Start};
use crate::verdict::Verdict;

/// A program, its input and what an undisturbed run makes of that.
#[derive(Debug)]
pub struct Bench {
    /// What is run.
    pub program: Program,
    /// Chance.
    pub dice: Dice,
    /// What was found so far.
    pub verdict: Verdict,
    oracle: Tables,
    work: PathBuf,
    folders: u64,
}

/// Longer than any good run.
const PATIENCE: Duration = Duration::from_secs(300);

impl Bench {
    /// Makes the undisturbed run.
    ///
    /// # Errors
    /// It doesn't end well.
    pub fn new(program: Program, seed: u64, work: &Path) -> anyhow::Result<Self> {
        let mut bench = Bench {
            program,
            dice: Dice::new(seed, "kills"),
            verdict: Verdict::default(),
            oracle: Tables::new(),
            work: work.to_owned(),
            folders: 0,
        };
        let data = work.join("undisturbed");
        let alone = Program {
            taktline: bench.program.taktline.clone(),
            pipeline: bench.program.pipeline.clone(),
            processes: 1,
        };
        let mut running = alone.start(
            &data,
            &Start {
                workers: 2,
                ..Start::default()
            },
        )?;
        let status = running.ends_within(PATIENCE)?;
        anyhow::ensure!(
            status.is_some_and(|status| status.success()),
            "the undisturbed run did not end well ({status:?}):\n{}",
            running.last_words()
        );
        bench.oracle = history::read(&bench.program.taktline, &data)?;
        let sizes: Vec<String> = bench
            .oracle
            .iter()
            .map(|(name, rows)| format!("{name} {}", rows.len()))
            .collect();
        println!("undisturbed: {}", sizes.join(", "));
        for table in [
            "samples",
            "windows",
            "cycles",
            "cycle_signals",
            "alerts",
            "late",
            "dead_letters",
        ] {
            anyhow::ensure!(
                bench.oracle.contains_key(table),
                "the undisturbed run has no rows of {table}"
            );
        }
        bench.verdict.check_records("undisturbed", &bench.oracle);
        Ok(bench)
    }

    /// A data directory that isn't there yet.
    pub fn fresh(&mut self) -> PathBuf {
        self.folders += 1;
        self.work.join(format!("killed-{}", self.folders))
    }

    /// Another number of workers each time, and of processes.
    pub fn how(&mut self) -> Start {
        let fewer = self.program.processes > 1 && self.dice.once_in(4);
        Start {
            workers: self.dice.pick(1..5),
            processes: if fewer {
                self.dice.pick(1..self.program.processes as u64) as usize
            } else {
                0
            },
            ..Start::default()
        }
    }

    /// Runs to the end, once more for nothing, and compares.
    ///
    /// # Errors
    /// A process can't be started or read.
    pub fn finish(&mut self, data: &Path) -> anyhow::Result<()> {
        for what in ["the last run", "a run after the end"] {
            let how = self.how();
            let mut running = self.program.start(data, &how)?;
            match running.ends_within(PATIENCE)? {
                Some(status) if status.success() => {}
                status => {
                    self.ended_badly(data, what, status, &running);
                    break;
                }
            }
        }
        let name = data.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let found = history::read(&self.program.taktline, data)?;
        let before = self.verdict.faults.len();
        self.verdict.compare(&name, &self.oracle, &found, true);
        self.verdict.check_records(&name, &found);
        self.verdict.runs += 1;
        println!(
            "{name}: {} kills so far, {}",
            self.verdict.kills,
            if self.verdict.good() { "equal" } else { "WRONG" }
        );
        if self.verdict.faults.len() == before {
            std::fs::remove_dir_all(data).with_context(|| data.display().to_string())?;
        }
        Ok(())
    }

    /// What a killed run has published is a part of what an undisturbed one has.
    ///
    /// # Errors
    /// A table can't be read.
    pub fn look(&mut self, data: &Path) -> anyhow::Result<()> {
        if !data.exists() || history::half_begun(data)? {
            return Ok(());
        }
        let found = history::read(&self.program.taktline, data)?;
        let name = data.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let run = format!("{name} after kill {}", self.verdict.kills);
        self.verdict.compare(&run, &self.oracle, &found, false);
        Ok(())
    }

    /// Notes a run that should have ended well, or gone on.
    pub fn ended_badly(&mut self, data: &Path, what: &str, status: Option<std::process::ExitStatus>, run: &Running) {
        let how = status.map_or_else(|| "does not end".to_owned(), |status| format!("ended with {status}"));
        let (data, kills) = (data.display(), self.verdict.kills);
        let fault = format!("{data}, after kill {kills}: {what} {how}:\n{}", run.last_words());
        println!("{fault}");
        self.verdict.faults.push(fault);
    }
}

/// Kills so many times, over as many data directories as that takes.
///
/// # Errors
/// A process can't be started or read.
pub fn kill(bench: &mut Bench, kills: u64) -> anyhow::Result<Verdict> {
    while bench.verdict.kills < kills && bench.verdict.good() {
        let data = bench.fresh();
        if bench.program.processes > 1 {
            cluster(bench, &data, kills)?;
        } else {
            single(bench, &data, kills)?;
        }
        bench.finish(&data)?;
    }
    Ok(std::mem::take(&mut bench.verdict))
}

fn single(bench: &mut Bench, data: &Path, kills: u64) -> anyhow::Result<()> {
    while bench.verdict.kills < kills {
        let how = bench.how();
        let mut running = bench.program.start(data, &how)?;
        let span = match bench.dice.pick(0..10) {
            0 | 1 => bench.dice.millis(0..60), // the start and the recovery
            2..7 => bench.dice.millis(0..600),
            _ => bench.dice.millis(400..2_500),
        };
        match running.ends_within(span)? {
            // A stop in good order now and then: what is open must stay open over it.
            None if bench.dice.once_in(12) => {
                if !stop(bench, data, &mut running)? {
                    return Ok(());
                }
                continue;
            }
            None => running.kill()?,
            Some(status) if status.success() => return Ok(()),
            status => {
                bench.ended_badly(data, "a run", status, &running);
                return Ok(());
            }
        }
        bench.verdict.kills += 1;
        if bench.dice.once_in(25) {
            bench.look(data)?;
        }
    }
    Ok(())
}

fn cluster(bench: &mut Bench, data: &Path, kills: u64) -> anyhow::Result<()> {
    let how = bench.how();
    let mut running = bench.program.start(data, &how)?;
    while bench.verdict.kills < kills {
        let span = match bench.dice.pick(0..4) {
            0 => bench.dice.millis(0..300),
            _ => bench.dice.millis(300..3_000),
        };
        match running.ends_within(span)? {
            None => {}
            Some(status) if status.success() => return Ok(()),
            status => {
                bench.ended_badly(data, "the supervisor", status, &running);
                return Ok(());
            }
        }
        let mut pids = running.pids()?;
        // None: it has only begun, or is a process alone.
        if pids.is_empty() || bench.dice.once_in(6) {
            running.kill()?;
            bench.verdict.kills += 1;
            let how = bench.how();
            running = bench.program.start(data, &how)?;
            continue;
        }
        bench.dice.shuffle(&mut pids);
        let victims = if bench.dice.once_in(5) { pids.len() } else { 1 };
        for pid in pids.iter().take(victims) {
            if program::signal(*pid, Signal::KILL)? {
                bench.verdict.kills += 1;
            }
        }
    }
    // Its processes must not be there when the next one is started.
    stop(bench, data, &mut running).map(|_| ())
}

/// Stops in good order; false when it won't.
fn stop(bench: &mut Bench, data: &Path, running: &mut Running) -> anyhow::Result<bool> {
    running.terminate()?;
    match running.ends_within(PATIENCE)? {
        // Told before it listened to signals, it ends as every program does; its supervisor then says so with a 1.
        Some(status) if status.success() || status.signal() == Some(15) => Ok(true),
        Some(status) if status.code() == Some(1) && bench.program.processes > 1 => Ok(true),
        status => {
            bench.ended_badly(data, "a run that was told to stop", status, running);
            Ok(false)
        }
    }
}
