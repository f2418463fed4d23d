//! What a supervisor leaves in the data directory for `stop`, `status` and a second supervisor: a lock for each process it has,
//! and a file that says what runs.

use std::fs::{File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde::{Deserialize, Serialize};

/// One supervisor and its processes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Of the supervisor.
    pub pid: u32,
    /// The machine it is on.
    pub host: String,
    /// The file that is run.
    pub pipeline: String,
    /// Milliseconds since 1970.
    pub started_ms: u64,
    /// How many processes the run has, on all machines.
    pub of: usize,
    /// Those that this supervisor starts.
    pub processes: Vec<Process>,
}

/// One process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its index.
    pub process: usize,
    /// Null between two starts.
    pub pid: Option<u32>,
    /// Where its peers find it.
    pub address: String,
    /// How often it was started again.
    pub restarts: u32,
    /// Of this start, in milliseconds since 1970.
    pub started_ms: u64,
}

/// Now, as records say it.
#[must_use]
pub fn now_ms() -> u64 {
    UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64)
}

/// Since then; nothing when the clock went back.
#[must_use]
pub fn since(time: SystemTime) -> std::time::Duration {
    time.elapsed().unwrap_or_default()
}

/// This machine's name, as far as it has one.
#[must_use]
pub fn host() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| String::new(), |name| name.trim().to_owned())
}

/// Processes that nobody else supervises as long as this lives; the system frees them however the supervisor ends.
#[derive(Debug)]
pub struct Claim(#[expect(dead_code, reason = "its locks are what it is for")] Vec<File>);

/// Claims the processes of a data directory.
///
/// # Errors
/// Names the supervisor that has one of them.
pub fn claim(folder: &Path, processes: &[usize]) -> anyhow::Result<Claim> {
    std::fs::create_dir_all(super::output::logs(folder)).with_context(|| folder.display().to_string())?;
    let mut locks = Vec::new();
    for &process in processes {
        let path = lock_file(folder, process);
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .with_context(|| path.display().to_string())?;
        match file.try_lock() {
            Ok(()) => locks.push(file),
            Err(TryLockError::WouldBlock) => anyhow::bail!(taken(folder, process)?),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("{} can't be locked", path.display()));
            }
        }
    }
    Ok(Claim(locks))
}

fn taken(folder: &Path, process: usize) -> anyhow::Result<String> {
    let by = read_all(folder)?;
    let by = by
        .iter()
        .find(|record| record.processes.iter().any(|one| one.process == process));
    let by = by.map_or_else(String::new, |record| format!(", pid {} on {}", record.pid, record.host));
    Ok(format!(
        "process {process} of {} has a supervisor already{by}; `taktline cluster stop` ends it",
        folder.display()
    ))
}

fn lock_file(folder: &Path, process: usize) -> PathBuf {
    folder.join(format!("process-{process}.lock"))
}

/// Does the supervisor of this record still run?
///
/// # Errors
/// When its lock can't be looked at.
pub fn runs(folder: &Path, record: &Record) -> io::Result<bool> {
    let Some(first) = record.processes.first() else {
        return Ok(false);
    };
    match File::open(lock_file(folder, first.process)) {
        Ok(file) => match file.try_lock_shared() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// `supervisor.json` for the one that has process 0, `supervisor-<first process>.json` for those of other machines.
#[must_use]
pub fn record_file(folder: &Path, first: usize) -> PathBuf {
    folder.join(match first {
        0 => "supervisor.json".to_owned(),
        first => format!("supervisor-{first}.json"),
    })
}

impl Record {
    fn file(&self, folder: &Path) -> PathBuf {
        record_file(folder, self.processes.first().map_or(0, |first| first.process))
    }

    /// Takes the place of the one before, whole.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        let file = self.file(folder);
        let beside = file.with_extension("json.new");
        let mut out = File::create(&beside)?;
        out.write_all(&serde_json::to_vec_pretty(self)?)?;
        out.sync_all()?;
        std::fs::rename(&beside, &file)?;
        File::open(folder)?.sync_all()
    }

    /// Removes it: its supervisor ends.
    ///
    /// # Errors
    /// When it can't be removed.
    pub fn remove(&self, folder: &Path) -> io::Result<()> {
        remove(&self.file(folder))
    }
}

/// Removes the records of supervisors that ended without doing so and had one of `processes`, which are claimed now.
///
/// # Errors
/// When the folder can't be read or changed.
pub fn remove_stale(folder: &Path, processes: &[usize]) -> anyhow::Result<()> {
    for record in read_all(folder)? {
        if record.processes.iter().any(|one| processes.contains(&one.process)) {
            record.remove(folder)?;
        }
    }
    Ok(())
}

fn remove(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// All records of a data directory, also of supervisors that were killed; by first process.
///
/// # Errors
/// A folder or file that can't be read, or is no record.
pub fn read_all(folder: &Path) -> anyhow::Result<Vec<Record>> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| folder.display().to_string())?,
    };
    let mut records: Vec<Record> = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        if !name
            .to_str()
            .is_some_and(|name| name.starts_with("supervisor") && name.ends_with(".json"))
        {
            continue;
        }
        let path = entry.path();
        let text = match std::fs::read(&path) {
            // Its supervisor has just ended.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            text => text.with_context(|| path.display().to_string())?,
        };
        records.push(serde_json::from_slice(&text).with_context(|| path.display().to_string())?);
    }
    records.sort_by_key(|record| record.processes.first().map(|first| first.process));
    Ok(records)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used)]

    use super::*;

    fn record(processes: &[usize]) -> Record {
        let process = |&process| Process {
            process,
            pid: Some(12),
            address: "127.0.0.1:4000".into(),
            restarts: 0,
            started_ms: now_ms(),
        };
        Record {
            pid: 11,
            host: host(),
            pipeline: "press.yaml".into(),
            started_ms: now_ms(),
            of: 4,
            processes: processes.iter().map(process).collect(),
        }
    }

    #[test]
    fn a_claimed_process_is_refused_by_name_and_freed_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let first = claim(dir.path(), &[0, 1]).unwrap();
        let written = record(&[0, 1]);
        written.write(dir.path()).unwrap();
        assert!(runs(dir.path(), &written).unwrap());
        let other = claim(dir.path(), &[2, 3]).unwrap();
        let error = claim(dir.path(), &[1]).unwrap_err().to_string();
        assert!(error.contains("process 1") && error.contains("pid 11"), "{error}");
        drop((first, other));
        assert!(!runs(dir.path(), &written).unwrap());
        claim(dir.path(), &[0, 1, 2, 3]).unwrap();
    }

    #[test]
    fn several_machines_records_stand_side_by_side() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (record(&[0, 1]), record(&[2, 3]));
        second.write(dir.path()).unwrap();
        first.write(dir.path()).unwrap();
        assert_eq!(read_all(dir.path()).unwrap(), [first.clone(), second.clone()]);
        assert!(dir.path().join("supervisor.json").exists());
        remove_stale(dir.path(), &[3]).unwrap();
        assert_eq!(read_all(dir.path()).unwrap(), [first]);
    }
}
