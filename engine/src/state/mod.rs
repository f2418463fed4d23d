//! The checkpoint store: what a run leaves in `<data>/_taktline` so that the next one goes on where it stopped.
//!
//! - [`Claim`]: one run owns the directory at a time; its number is the generation.
//! - `chain`: which checkpoints count, and which a stopped run wrote after it had lost the directory.
//! - [`Manifest`]: what a checkpoint is made of. Written last, it makes the checkpoint real.
//! - [`FileWriter`], [`Record`], [`load`]: the state of the keys.
//! - `recover`: the newest checkpoint that is whole.
//! - `savepoint`, `collect`: what is kept for ever, and what is thrown away.
//! - `sealed`, `place`: small files that are whole or absent, and show a flipped bit.
//!
//! No decision here compares two readings of a wall clock, so a clock that jumps changes nothing.

use std::path::{Path, PathBuf};

use anyhow::Context;

mod chain;
mod claim;
mod collect;
mod folder;
mod heart;
mod load;
mod manifest;
mod newcomer;
mod place;
mod record;
mod recover;
mod remove;
mod savepoint;
mod sealed;

pub use chain::CheckpointId;
pub use claim::Claim;
pub use collect::Collected;
pub use load::{Kept, States, load};
pub use manifest::{FORMAT, Manifest, Offset, Staged, StateFile};
pub use newcomer::Holder;
pub use record::{Change, FileWriter, Record};
pub use recover::Found;
pub use sealed::Damaged;

/// The state directory of a data directory.
#[derive(Clone, Debug)]
pub struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// The one below this data directory. Touches nothing.
    #[must_use]
    pub fn at(data: &Path) -> StateDir {
        StateDir {
            root: data.join("_taktline"),
        }
    }

    /// Whether a run has left a claim or a checkpoint here. What [`StateDir::remove`] leaves doesn't count.
    #[must_use]
    pub fn exists(&self) -> bool {
        let has =
            |folder: PathBuf| folder::names(&folder).is_ok_and(|names| names.iter().any(|n| n.ends_with(".json")));
        has(self.claims()) || has(self.checkpoints())
    }

    /// Where the journals of sources are.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.root.join("journal")
    }

    /// Where sinks keep what they stage.
    #[must_use]
    pub fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }

    /// Notes that the sinks have published everything up to this checkpoint, and the run has ended.
    ///
    /// # Errors
    /// It can't be written.
    pub fn note_published(&self, checkpoint: u64) -> anyhow::Result<()> {
        let path = self.published_path();
        std::fs::write(&path, checkpoint.to_string()).with_context(|| path.display().to_string())
    }

    /// The checkpoint that was published when the last run ended in good order.
    ///
    /// # Errors
    /// It can't be read.
    pub fn published(&self) -> anyhow::Result<Option<u64>> {
        let path = self.published_path();
        match std::fs::read_to_string(&path) {
            Ok(text) => Ok(text.trim().parse().ok()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    fn published_path(&self) -> PathBuf {
        self.root.join("published")
    }

    fn claims(&self) -> PathBuf {
        self.root.join("claims")
    }

    fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }

    fn states(&self) -> PathBuf {
        self.root.join("state")
    }

    fn named(&self) -> PathBuf {
        self.root.join("savepoints")
    }
}

#[cfg(test)]
mod tests;
