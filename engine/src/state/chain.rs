//! Which checkpoints count.
//!
//! A run that was stopped (SIGSTOP) and has lost the directory may still get one manifest into place. So each claim
//! has a *base*, the checkpoint that its run went on from, decided when the claim was in place already. The chain is:
//! a run's own manifests, then its base and what lies below that in the base's generation, then that generation's
//! base, and so on. A manifest whose commit succeeded is always in it, since its run saw no newer claim afterwards;
//! one that came after the base was decided never is.

use std::fmt;
use std::path::PathBuf;

use anyhow::bail;
use serde::{Deserialize, Serialize};

use super::sealed::{self, Damaged};
use super::{StateDir, folder};

/// A checkpoint's number, and the generation of the run that wrote it.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckpointId {
    /// Its number.
    pub checkpoint: u64,
    /// The run that wrote it.
    pub generation: u64,
}

impl fmt::Display for CheckpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "checkpoint {} of generation {}", self.checkpoint, self.generation)
    }
}

/// What a generation went on from.
#[derive(Serialize, Deserialize, Debug)]
pub(super) struct Base {
    pub base: Option<CheckpointId>,
}

/// The checkpoints of the chain, newest first, damaged ones too; and what had to be said about the claims.
#[derive(Default)]
pub(super) struct Chain {
    pub ids: Vec<CheckpointId>,
    pub remarks: Vec<String>,
}

impl StateDir {
    /// The chain of `generation`, whose base is known.
    pub(super) fn chain(&self, generation: u64, base: Option<CheckpointId>) -> anyhow::Result<Chain> {
        let all = self.ids()?;
        let mut chain = Chain::default();
        chain
            .ids
            .extend(all.iter().rev().filter(|id| id.generation == generation));
        let (mut above, mut next) = (generation, base);
        while let Some(bound) = next {
            if bound.generation >= above {
                break; // only a damaged base points up
            }
            above = bound.generation;
            let counts = |id: &&CheckpointId| id.generation == above && id.checkpoint <= bound.checkpoint;
            chain.ids.extend(all.iter().rev().filter(counts));
            next = match self.base(above) {
                Ok(found) => found.and_then(|found| found.base), // gone: collected with all that was below it
                Err(error) if error.is::<Damaged>() => {
                    chain
                        .remarks
                        .push(format!("checkpoints before generation {above} can't be told: {error}"));
                    None
                }
                Err(error) => return Err(error),
            };
        }
        Ok(chain)
    }

    /// What a new generation goes on from: the newest manifest of the newest generation that has any, or that
    /// generation's base.
    pub(super) fn head(&self, below: u64) -> anyhow::Result<Option<CheckpointId>> {
        let all = self.ids()?;
        for claim in self
            .claim_files()?
            .iter()
            .rev()
            .filter(|claim| claim.generation < below)
        {
            if claim.cleared {
                return Ok(None);
            }
            let own = all.iter().rev().find(|id| id.generation == claim.generation);
            if own.is_some() {
                return Ok(own.copied());
            }
            match self.base(claim.generation) {
                Ok(Some(found)) => return Ok(found.base),
                Ok(None) => {} // it ended before it had a base, so it never wrote anything
                Err(error) if error.is::<Damaged>() => {
                    bail!(
                        "{error}; remove it to go on from the newest checkpoint of the run before, or use --overwrite"
                    )
                }
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    /// All manifests by their names, sorted by number.
    pub(super) fn ids(&self) -> anyhow::Result<Vec<CheckpointId>> {
        let mut ids: Vec<_> = folder::names(&self.checkpoints())?
            .iter()
            .filter_map(|name| id_of(name))
            .collect();
        ids.sort_unstable();
        Ok(ids)
    }

    pub(super) fn base(&self, generation: u64) -> anyhow::Result<Option<Base>> {
        let path = self.base_path(generation);
        match path.exists() {
            true => sealed::unseal(&path, &sealed::read_text(&path)?).map(Some),
            false => Ok(None),
        }
    }

    pub(super) fn base_path(&self, generation: u64) -> PathBuf {
        self.claims().join(format!("{generation:08}.base"))
    }
}

/// `000000000012-00000003.json`.
fn id_of(name: &str) -> Option<CheckpointId> {
    let (checkpoint, generation) = name.strip_suffix(".json")?.split_once('-')?;
    Some(CheckpointId {
        checkpoint: checkpoint.parse().ok()?,
        generation: generation.parse().ok()?,
    })
}
