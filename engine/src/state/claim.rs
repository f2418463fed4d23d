//! One run owns the state directory at a time.
//!
//! A claim is a file with the generation's number, made with create-if-absent. Its owner keeps it locked and touches
//! it every second. The lock goes with its process; a process that is stopped keeps its lock, but touches nothing,
//! and loses the directory after a lease. It learns that from [`Claim::check`].

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::chain::{Base, Chain};
use super::heart::Heart;
use super::newcomer::{Owner, Seen};
use super::place::Beside;
use super::{CheckpointId, FORMAT, Manifest, StateDir, folder, sealed};

/// The right to write checkpoints. Dropped, it is given back.
pub struct Claim {
    dir: StateDir,
    generation: u64,
    next_checkpoint: u64,
    took_over: Option<String>,
    base: Mutex<Option<CheckpointId>>,
    committed: AtomicBool,
    heart: Heart,
    /// Locked for as long as it is open.
    file: File,
    /// Files that nothing named when `collect` first saw them, and when that was.
    pub(super) orphans: Mutex<HashMap<PathBuf, Instant>>,
}

impl StateDir {
    /// Claims the directory, which is made when there is none. With another run's lock on it, this takes until that
    /// run shows life (about a second) or hasn't for the `lease`.
    ///
    /// # Errors
    /// When a live run holds it, and when it can't be written.
    pub fn claim(&self, pipeline: &str, lease: Duration) -> anyhow::Result<Claim> {
        for folder in [self.claims(), self.checkpoints(), self.states(), self.named()] {
            folder::make(&folder)?;
        }
        let (generation, file, took_over) = self.take(pipeline, lease)?;
        let beat = (lease / 4).min(Duration::from_secs(1));
        let heart = file
            .try_clone()
            .and_then(|file| Heart::start(file, beat))
            .context("can't start the heartbeat")?;
        // Only now, with the claim in place: whoever commits from here on sees it, and whoever did before is in this
        // list.
        let base = self.head(generation)?;
        let claim = Claim {
            dir: self.clone(),
            generation,
            next_checkpoint: self.highest_number()?.max(base.map_or(0, |base| base.checkpoint)) + 1,
            took_over,
            base: Mutex::new(base),
            committed: AtomicBool::new(false),
            heart,
            file,
            orphans: Mutex::default(),
        };
        claim.write_base(base)?;
        claim.check()?;
        Ok(claim)
    }

    /// Whether `generation` still owns the directory, for the processes of a run that don't hold the claim themselves.
    ///
    /// # Errors
    /// When another run has taken over.
    pub fn check(&self, generation: u64) -> anyhow::Result<()> {
        match self.claim_files()?.pop().map(|newest| newest.generation) {
            Some(newest) if newest == generation => Ok(()),
            Some(newest) if newest > generation => {
                let (root, who) = (self.root.display(), self.describe(newest));
                bail!("another run has taken over {root}: {who}; this run (generation {generation}) must end")
            }
            _ => bail!(
                "{} was removed under its run, which must end",
                self.claim_path(generation).display()
            ),
        }
    }

    fn take(&self, pipeline: &str, lease: Duration) -> anyhow::Result<(u64, File, Option<String>)> {
        loop {
            let newest = self.claim_files()?.pop();
            let mut took_over = None;
            if let Some(newest) = newest.as_ref().filter(|newest| !newest.cleared) {
                let (who, root) = (self.describe(newest.generation), self.root.display());
                match self.watch(newest.generation, lease)? {
                    Seen::Free => {}
                    Seen::Alive => {
                        bail!("{root} is in use by {who}; stop that run first, or use another data directory")
                    }
                    Seen::Stalled => {
                        took_over = Some(format!(
                            "{who} holds {root} but showed no life for {lease:?}; took over from it"
                        ));
                    }
                }
            }
            let generation = newest.map_or(0, |newest| newest.generation) + 1;
            if let Some(file) = self.link_claim(generation, pipeline)? {
                return Ok((generation, file, took_over));
            }
            // Another newcomer was faster; look at that one.
        }
    }

    fn link_claim(&self, generation: u64, pipeline: &str) -> anyhow::Result<Option<File>> {
        let path = self.claim_path(generation);
        let owner = Owner {
            generation,
            pipeline: pipeline.to_owned(),
            host: host(),
            pid: std::process::id(),
        };
        let beside = Beside::write("claim", &path, &sealed::seal(&owner)?)?;
        // Locked before it has its name, so that nobody ever finds it free.
        beside
            .file
            .try_lock()
            .with_context(|| format!("can't lock a file in {}", self.claims().display()))?;
        let file = beside.file.try_clone().with_context(|| path.display().to_string())?;
        Ok(beside.link()?.then_some(file))
    }

    /// The highest number that a checkpoint ever had here, as far as can be seen.
    fn highest_number(&self) -> anyhow::Result<u64> {
        let manifests = self.ids()?.into_iter().map(|id| id.checkpoint);
        let states = folder::names(&self.states())?;
        let states = states.iter().filter_map(|name| name.split_once('-')?.0.parse().ok());
        let savepoints = self.savepoint_numbers()?;
        Ok(manifests.chain(states).chain(savepoints).max().unwrap_or(0))
    }
}

impl Claim {
    /// The run's number, one above that of the run before.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// One above every number that a checkpoint had when the claim was made.
    #[must_use]
    pub fn next_checkpoint(&self) -> u64 {
        self.next_checkpoint
    }

    /// The warning to give when the run before was stopped rather than gone.
    #[must_use]
    pub fn took_over(&self) -> Option<&str> {
        self.took_over.as_deref()
    }

    /// Whether this run still owns the directory.
    ///
    /// # Errors
    /// When another run has taken over, and when the heartbeat can't be written, so that one soon will.
    pub fn check(&self) -> anyhow::Result<()> {
        self.dir.check(self.generation)?;
        let path = self.dir.claim_path(self.generation);
        let own = self.file.metadata().with_context(|| path.display().to_string())?;
        match std::fs::metadata(&path) {
            Ok(named) if (named.dev(), named.ino()) == (own.dev(), own.ino()) => {}
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("can't look at {}", path.display()));
            }
            _ => bail!(
                "{} was removed while generation {} was running; this run must end",
                path.display(),
                self.generation
            ),
        }
        match self.heart.trouble() {
            Some(trouble) => bail!(
                "{} can't be touched, so another run would take over: {trouble}",
                path.display()
            ),
            None => Ok(()),
        }
    }

    /// Makes a checkpoint real: writes its manifest. What it names must be durable before.
    ///
    /// # Errors
    /// After any of them the run must end. The checkpoint may count or not; the next run's recovery decides.
    pub fn commit(&self, manifest: &Manifest) -> anyhow::Result<()> {
        ensure!(
            manifest.generation == self.generation && manifest.format == FORMAT,
            "{} in format {} was given to generation {}",
            manifest.id(),
            manifest.format,
            self.generation
        );
        self.check()?;
        let path = self.dir.manifest_path(manifest.id());
        if !Beside::write("manifest", &path, &sealed::seal(manifest)?)?.link()? {
            bail!("{} is there already; a checkpoint is written once", path.display());
        }
        self.committed.store(true, Ordering::Release);
        // A newer claim may have come in between, and then it hasn't counted this one.
        self.check()
    }

    /// Records that this run goes on from an earlier checkpoint than the newest (a savepoint), or from none. `latest`
    /// and `recover` do so themselves. What was committed after it no longer counts, so call this before a sink takes
    /// that back.
    ///
    /// # Errors
    /// When this run has committed already, and when it can't be written.
    pub fn resume_from(&self, manifest: Option<&Manifest>) -> anyhow::Result<()> {
        ensure!(
            !self.committed.load(Ordering::Acquire),
            "generation {} has checkpoints of its own already",
            self.generation
        );
        let base = manifest.map(Manifest::id);
        if base == self.base() {
            return Ok(());
        }
        self.check()?;
        if let Some(manifest) = manifest {
            ensure!(
                manifest.generation < self.generation,
                "{} can't be resumed by generation {}",
                manifest.id(),
                self.generation
            );
            // A savepoint's own manifest may have been collected, or be damaged.
            let path = self.dir.manifest_path(manifest.id());
            Beside::write("base", &path, &sealed::seal(manifest)?)?.replace()?;
        }
        self.write_base(base)?;
        *self.base.lock().unwrap_or_else(PoisonError::into_inner) = base;
        Ok(())
    }

    fn write_base(&self, base: Option<CheckpointId>) -> anyhow::Result<()> {
        Beside::write(
            "base",
            &self.dir.base_path(self.generation),
            &sealed::seal(&Base { base })?,
        )?
        .replace()
    }

    pub(super) fn base(&self) -> Option<CheckpointId> {
        *self.base.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn has_committed(&self) -> bool {
        self.committed.load(Ordering::Acquire)
    }

    pub(super) fn chain(&self) -> anyhow::Result<Chain> {
        self.dir.chain(self.generation, self.base())
    }

    /// As a process does that was sent SIGSTOP.
    #[cfg(test)]
    pub(super) fn stop_heartbeat(&mut self) {
        self.heart.stop();
    }
}

fn host() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim() {
        "" => "this host".to_owned(),
        name => name.to_owned(),
    }
}
