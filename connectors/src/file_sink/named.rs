//! Which files got their names, noted in the state: who reads the folder may take them away, and what is not there any more is then no loss.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::Done;
use crate::durable;

/// The files of one checkpoint that got their names, by their hidden ones.
#[derive(Debug, Default)]
pub(super) struct Named {
    /// None: the run keeps no state.
    path: Option<PathBuf>,
    noted: Noted,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Noted {
    checkpoint: u64,
    files: BTreeSet<String>,
}

impl Named {
    /// As an earlier run noted it in the sink's folder of the state.
    ///
    /// # Errors
    /// The note is there and can't be read.
    pub(super) fn read(folder: Option<&Path>) -> anyhow::Result<Self> {
        let Some(path) = folder.map(|folder| folder.join("named.json")) else {
            return Ok(Named::default());
        };
        let noted = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).with_context(|| path.display().to_string())?,
            Err(error) if error.kind() == ErrorKind::NotFound => Noted::default(),
            Err(error) => return Err(error).with_context(|| path.display().to_string()),
        };
        Ok(Named {
            path: Some(path),
            noted,
        })
    }

    /// True if this hidden file got its name at this checkpoint.
    pub(super) fn has(&self, checkpoint: u64, hidden: &str) -> bool {
        self.noted.checkpoint == checkpoint && self.noted.files.contains(hidden)
    }

    /// Adds files that got their names at a checkpoint, and forgets those of others.
    pub(super) fn note(&mut self, checkpoint: u64, hidden: impl IntoIterator<Item = String>) -> anyhow::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if self.noted.checkpoint != checkpoint {
            self.noted = Noted {
                checkpoint,
                files: BTreeSet::new(),
            };
        }
        let before = self.noted.files.len();
        self.noted.files.extend(hidden);
        if self.noted.files.len() == before {
            return Ok(());
        }
        durable::replace(path, &serde_json::to_vec(&self.noted)?).with_context(|| path.display().to_string())
    }
}

impl Done {
    /// The hidden names that it had.
    pub(super) fn hidden(&self) -> impl Iterator<Item = String> {
        [Some(self.from.clone()), self.spool.clone()].into_iter().flatten()
    }
}
