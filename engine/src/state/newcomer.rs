//! Who holds the directory, and whether that run is alive: what a newcomer finds out before it claims.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::{StateDir, folder, sealed};

/// What a claim's file says.
#[derive(Serialize, Deserialize, Debug)]
pub(super) struct Owner {
    pub generation: u64,
    pub pipeline: String,
    pub host: String,
    pub pid: u32,
}

/// The run that holds the directory.
#[derive(Clone, Debug, PartialEq)]
pub struct Holder {
    /// Its process.
    pub pid: u32,
    /// Where that runs.
    pub host: String,
    /// Its number.
    pub generation: u64,
    /// What it runs.
    pub pipeline: String,
    /// Since it last said that it lives, by this machine's clock. For people only.
    pub touched_secs: u64,
}

/// A claim's file by its name.
pub(super) struct ClaimFile {
    pub generation: u64,
    /// What `remove` leaves behind, so that generations go on rising.
    pub cleared: bool,
}

/// What a newcomer saw of the newest claim.
#[derive(Debug, PartialEq)]
pub(super) enum Seen {
    Free,
    Alive,
    Stalled,
}

impl StateDir {
    /// Who holds the directory now; `None` when it is free.
    ///
    /// # Errors
    /// When the newest claim can't be read.
    pub fn holder(&self) -> anyhow::Result<Option<Holder>> {
        let Some(newest) = self.claim_files()?.pop().filter(|newest| !newest.cleared) else {
            return Ok(None);
        };
        let path = self.claim_path(newest.generation);
        let Some(file) = open(&path)? else { return Ok(None) };
        if is_free(&file, &path)? {
            return Ok(None);
        }
        let Owner {
            generation,
            pipeline,
            host,
            pid,
        } = sealed::unseal(&path, &sealed::read_text(&path)?)?;
        let touched = file
            .metadata()
            .and_then(|file| file.modified())
            .with_context(|| path.display().to_string())?;
        let touched_secs = SystemTime::now().duration_since(touched).unwrap_or_default().as_secs();
        Ok(Some(Holder {
            pid,
            host,
            generation,
            pipeline,
            touched_secs,
        }))
    }

    /// Watches the newest claim until it is free or its owner has shown life, for `lease` at most.
    ///
    /// No clock is compared: its time of change has to become another one. The looks are counted, and not the time,
    /// so that a pause of newcomer and owner together (of the whole machine, of a container) is no silence of the
    /// owner.
    pub(super) fn watch(&self, generation: u64, lease: Duration) -> anyhow::Result<Seen> {
        let path = self.claim_path(generation);
        let pause = (lease / 40).clamp(Duration::from_millis(5), Duration::from_millis(100));
        let looks = lease.as_nanos().div_ceil(pause.as_nanos());
        let mut first = None;
        for look in 0..=looks {
            if look > 0 {
                sleep(pause);
            }
            // Opened anew, so that a shared folder shows what is there now.
            let Some(file) = open(&path)? else {
                return Ok(Seen::Free);
            };
            if is_free(&file, &path)? {
                return Ok(Seen::Free);
            }
            let touched = file
                .metadata()
                .and_then(|file| file.modified())
                .with_context(|| path.display().to_string())?;
            if *first.get_or_insert(touched) != touched {
                return Ok(Seen::Alive);
            }
        }
        Ok(Seen::Stalled)
    }

    /// "process 12 on press-3 (generation 7, pipeline "presses")".
    pub(super) fn describe(&self, generation: u64) -> String {
        let path = self.claim_path(generation);
        match sealed::read_text(&path).and_then(|text| sealed::unseal::<Owner>(&path, &text)) {
            Ok(Owner {
                pipeline, host, pid, ..
            }) => {
                format!("process {pid} on {host} (generation {generation}, pipeline {pipeline:?})")
            }
            Err(error) => format!("an unknown process (generation {generation}; {error:#})"),
        }
    }

    /// All claims, oldest first.
    pub(super) fn claim_files(&self) -> anyhow::Result<Vec<ClaimFile>> {
        let parse = |name: &String| {
            let (generation, kind) = name.split_once('.')?;
            let cleared = match kind {
                "json" => false,
                "cleared" => true,
                _ => return None,
            };
            Some(ClaimFile {
                generation: generation.parse().ok()?,
                cleared,
            })
        };
        let mut claims: Vec<_> = folder::names(&self.claims())?.iter().filter_map(parse).collect();
        claims.sort_unstable_by_key(|claim| claim.generation);
        Ok(claims)
    }

    pub(super) fn claim_path(&self, generation: u64) -> PathBuf {
        self.claims().join(format!("{generation:08}.json"))
    }
}

fn open(path: &Path) -> anyhow::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("can't read {}", path.display())),
    }
}

/// Asks with a shared lock, so that two who ask at once don't take each other for the owner.
fn is_free(file: &File, path: &Path) -> anyhow::Result<bool> {
    match file.try_lock_shared() {
        Ok(()) => Ok(true), // let go when the file is closed
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("can't lock {}", path.display())),
    }
}
