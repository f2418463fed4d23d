//! Starts the processes of a run, and all of them again when one ends: they resume from the last checkpoint.
//!
//! [`round`] is one start of all, [`output`] their logs, [`record`] what `stop` and `status` read.

pub mod output;
pub mod record;
pub mod round;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use self::record::{Process, Record};
use self::round::{Addresses, End, Round, Start};

/// A supervisor of processes that any command may be: tests take `sh`.
pub struct Supervisor {
    /// `<data>/_taktline/cluster`.
    pub folder: PathBuf,
    /// The file that is run, for `status`.
    pub pipeline: String,
    /// The indices of those that it starts.
    pub processes: Vec<usize>,
    /// All, also those of other machines.
    pub addresses: Addresses,
    /// How long what is waited for.
    pub timing: Timing,
    /// Makes the command of one process; its stdin, stdout and stderr are the supervisor's.
    pub command: Box<dyn Fn(&Start) -> Command>,
}

/// How long a supervisor waits.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// For a heartbeat; a process that is silent for longer is stopped or hung.
    pub lease: Duration,
    /// For all to end in good order, when told to. Longer than the 30 s that a run waits for a sink whose target is away.
    pub stopping: Duration,
    /// A start that lasted this long was a good one: the next is made at once.
    pub settled: Duration,
    /// Between two looks.
    pub tick: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(10),
            stopping: Duration::from_secs(45),
            settled: Duration::from_secs(30),
            tick: Duration::from_millis(50),
        }
    }
}

/// How a supervised run ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every process ended with 0: the input has ended, or the stop was orderly.
    Done,
    /// Told to stop, and some did not end with 0 in time.
    Cut,
    /// A process says that its configuration or command line is wrong.
    Hopeless {
        /// Which.
        process: usize,
        /// Its exit code.
        code: u8,
    },
}

impl Supervisor {
    /// Runs until all processes have ended by themselves, or `stop` is set. Set again, it asks them again (a run that is asked
    /// twice ends at once).
    ///
    /// # Errors
    /// Another supervisor has one of the processes; or they can't be started.
    pub fn run(&self, stop: &AtomicBool) -> anyhow::Result<Outcome> {
        let _claim = record::claim(&self.folder, &self.processes)?;
        record::remove_stale(&self.folder, &self.processes)?;
        let (here, of, logs) = (self.processes.len(), self.addresses.of(), output::logs(&self.folder));
        tracing::info!("{here} of {of} processes are started; logs in {}", logs.display());
        let mut record = Record {
            pid: std::process::id(),
            host: record::host(),
            pipeline: self.pipeline.clone(),
            started_ms: record::now_ms(),
            of,
            processes: Vec::new(),
        };
        let outcome = self.rounds(stop, &mut record);
        record.remove(&self.folder)?;
        outcome
    }

    fn rounds(&self, stop: &AtomicBool, record: &mut Record) -> anyhow::Result<Outcome> {
        let mut backoff = Backoff::default();
        for restarts in 0.. {
            let mut round = match self.start(restarts) {
                // What worked before may work again: too many processes, no free port.
                Err(error) if restarts > 0 => {
                    let delay = backoff.next(Duration::ZERO, self.timing.settled).max(AFTER_NO_START);
                    tracing::warn!("{error:#}; all are started again in {} s", delay.as_secs());
                    if self.told_within(delay, stop) {
                        return Ok(Outcome::Cut);
                    }
                    continue;
                }
                round => round?,
            };
            self.write(record, &round, restarts);
            let end = loop {
                if stop.swap(false, Ordering::AcqRel) {
                    return self.stop(round, stop);
                }
                match round.look(self.timing.lease)? {
                    Some(end) => break end,
                    None => std::thread::sleep(self.timing.tick),
                }
            };
            let lived = round.started.elapsed();
            round.kill();
            self.write(record, &round, restarts);
            let (process, how) = match end {
                End::All => return Ok(Outcome::Done),
                End::Hopeless { process, code } => return Ok(Outcome::Hopeless { process, code }),
                End::Died { process, how } => (process, how),
            };
            let delay = backoff.next(lived, self.timing.settled);
            let when = if delay.is_zero() {
                "now".to_owned()
            } else {
                format!("in {} s", delay.as_secs())
            };
            let log = output::log_file(&self.folder, process);
            tracing::warn!(
                "process {process} {how} ({}); all are started again {when}",
                log.display()
            );
            if self.told_within(delay, stop) {
                return Ok(Outcome::Cut);
            }
        }
        Ok(Outcome::Cut)
    }

    fn start(&self, restarts: u32) -> anyhow::Result<Round> {
        let addresses = self.addresses.choose()?;
        Round::start(&self.folder, &self.processes, &addresses, restarts, &*self.command)
    }

    fn stop(&self, mut round: Round, stop: &AtomicBool) -> anyhow::Result<Outcome> {
        tracing::info!("stopping: what was read is in the last checkpoint");
        round.ask_to_end();
        let until = Instant::now() + self.timing.stopping;
        while Instant::now() < until {
            if stop.swap(false, Ordering::AcqRel) {
                round.ask_to_end();
            }
            match round.look(self.timing.stopping)? {
                Some(End::All) => return Ok(Outcome::Done),
                // The others still have their own good end.
                _ if round.children.iter().all(|one| one.pid().is_none()) => break,
                _ => std::thread::sleep(self.timing.tick),
            }
        }
        for one in &round.children {
            if one.pid().is_some() {
                tracing::warn!(
                    "process {} did not end within {:?} and is killed",
                    one.process,
                    self.timing.stopping
                );
            } else if one.failed() {
                tracing::warn!("process {} did not end in good order", one.process);
            }
        }
        round.kill();
        Ok(Outcome::Cut)
    }

    /// True when told to stop in that time.
    fn told_within(&self, delay: Duration, stop: &AtomicBool) -> bool {
        let until = Instant::now() + delay;
        loop {
            if stop.swap(false, Ordering::AcqRel) {
                return true;
            }
            match until.checked_duration_since(Instant::now()) {
                Some(left) if !left.is_zero() => std::thread::sleep(left.min(self.timing.tick)),
                _ => return false,
            }
        }
    }

    /// A full disk must not end a run that can go on: the record is for people.
    fn write(&self, record: &mut Record, round: &Round, restarts: u32) {
        let started_ms = record::now_ms();
        let process = |(at, one): (usize, &round::Running)| Process {
            process: one.process,
            pid: one.pid(),
            address: one.address.clone(),
            restarts,
            started_ms: match record.processes.get(at) {
                Some(before) if before.restarts == restarts => before.started_ms,
                _ => started_ms,
            },
        };
        let processes = round.children.iter().enumerate().map(process).collect();
        record.processes = processes;
        if let Err(error) = record.write(&self.folder) {
            tracing::warn!(
                "{}: {error}; `taktline cluster status` shows what was",
                self.folder.display()
            );
        }
    }
}

/// With nothing started there is nothing to wait for at once.
const AFTER_NO_START: Duration = Duration::from_secs(1);

/// The longest time between two starts.
const LONGEST_DELAY_SECS: u64 = 30;

/// At once after a good start; else 0, 1, 2, 4 .. 30 s.
#[derive(Default)]
struct Backoff {
    bad_starts: u32,
}

impl Backoff {
    fn next(&mut self, lived: Duration, settled: Duration) -> Duration {
        if lived >= settled {
            self.bad_starts = 0;
        }
        let secs = match self.bad_starts {
            0 => 0,
            n => 1_u64
                .checked_shl(n - 1)
                .unwrap_or(LONGEST_DELAY_SECS)
                .min(LONGEST_DELAY_SECS),
        };
        self.bad_starts = self.bad_starts.saturating_add(1);
        Duration::from_secs(secs)
    }
}
