//! What is thrown away.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::{CheckpointId, Claim, Damaged, Manifest, StateDir, folder, manifest, place};
use crate::fault;

/// What was thrown away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Manifests of checkpoints.
    pub manifests: usize,
    /// State files.
    pub state_files: usize,
    /// Their bytes.
    pub state_bytes: u64,
    /// Claims of earlier runs.
    pub claims: usize,
    /// Files that a crash left half written.
    pub unfinished: usize,
    /// The oldest checkpoint of the chain that stays; 0 when nothing was looked at. Savepoints don't count: a journal can't grow for as
    /// long as one of them is there.
    pub oldest_needed: u64,
    /// Savepoints that are damaged and so protect no files: a sentence for each.
    pub remarks: Vec<String>,
}

impl StateDir {
    /// Throws away what nothing needs. It keeps the newest `keep` checkpoints of the chain that are whole (at least
    /// one), all savepoints, their state files, and the claims that say which checkpoints count. A state file that no
    /// manifest ever named goes when this run has known it for `grace`; that is measured without the wall clock, and
    /// begins anew with each run.
    ///
    /// # Errors
    /// When another run has taken over, or a file can't be removed.
    pub fn collect(&self, claim: &Claim, keep: usize, grace: Duration) -> anyhow::Result<Collected> {
        let mut done = Collected::default();
        claim.check()?;
        let sorted = self.sort_manifests(claim, keep.max(1))?;
        if sorted.kept.is_empty() {
            return Ok(done); // before the first checkpoint, or with none that is whole: touch nothing
        }
        done.oldest_needed = sorted
            .kept
            .iter()
            .map(|manifest| manifest.checkpoint)
            .min()
            .unwrap_or(0);
        let mut needed: HashSet<String> = sorted.kept.iter().flat_map(names).collect();
        for name in self.savepoints()? {
            match manifest::read(&self.named().join(format!("{name}.json"))) {
                Ok(manifest) => needed.extend(names(&manifest)),
                Err(error) if error.is::<Damaged>() => {
                    done.remarks.push(format!("savepoint {name:?} is lost: {error}"))
                }
                Err(error) => return Err(error), // a newer binary's, perhaps: its files must stay
            }
        }
        let mut freed: HashSet<String> = HashSet::new();
        for (id, manifest) in &sorted.unneeded {
            freed.extend(manifest.iter().flat_map(names));
            done.manifests += usize::from(remove(claim, &self.manifest_path(*id))?);
        }
        let mut waiting = Waiting {
            claim,
            grace,
            seen: HashMap::new(),
        };
        self.collect_states(&mut waiting, &needed, &freed, sorted.newest, &mut done)?;
        self.collect_claims(claim, &sorted.kept, &mut done)?;
        self.collect_unfinished(&mut waiting, &mut done)?;
        waiting.remember();
        Ok(done)
    }

    /// Which manifests stay and which don't. A damaged one among those that stay is left where it is, as evidence.
    fn sort_manifests(&self, claim: &Claim, keep: usize) -> anyhow::Result<Sorted> {
        let all = self.ids()?;
        let newest = all
            .iter()
            .filter(|id| id.generation == claim.generation())
            .map(|id| id.checkpoint)
            .max();
        let mut sorted = Sorted {
            newest,
            kept: Vec::new(),
            unneeded: Vec::new(),
        };
        let chain = claim.chain()?.ids;
        for id in &chain {
            let manifest = whole(self.manifest(id.checkpoint, id.generation))?;
            if sorted.kept.len() == keep {
                sorted.unneeded.push((*id, manifest));
            } else if let Some(manifest) = manifest
                && whole(self.files_are_there(&manifest))?.is_some()
            {
                sorted.kept.push(manifest);
            }
        }
        let in_chain: HashSet<_> = chain.into_iter().collect();
        let outside = all
            .into_iter()
            .filter(|id| !in_chain.contains(id) && id.generation < claim.generation());
        // The file names in these are left to the grace: their run may not have ended yet.
        sorted.unneeded.extend(outside.map(|id| (id, None)));
        sorted.unneeded.sort_unstable_by_key(|(id, _)| *id); // oldest first, so that a crash leaves no hole
        Ok(sorted)
    }

    fn collect_states(
        &self,
        waiting: &mut Waiting<'_>,
        needed: &HashSet<String>,
        freed: &HashSet<String>,
        newest: Option<u64>,
        done: &mut Collected,
    ) -> anyhow::Result<()> {
        for name in folder::names(&self.states())?
            .iter()
            .filter(|name| !needed.contains(*name))
        {
            let Some((checkpoint, generation)) = parse(name) else {
                continue;
            };
            let being_written =
                generation == waiting.claim.generation() && newest.is_none_or(|newest| checkpoint > newest);
            let path = self.state_path(name);
            if being_written || !(freed.contains(name) || waiting.is_over(&path)) {
                continue;
            }
            let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
            if remove(waiting.claim, &path)? {
                done.state_files += 1;
                done.state_bytes += bytes;
            }
        }
        Ok(())
    }

    /// Claims below this run's that no kept checkpoint was written under.
    fn collect_claims(&self, claim: &Claim, kept: &[Manifest], done: &mut Collected) -> anyhow::Result<()> {
        let needed: HashSet<u64> = kept.iter().map(|manifest| manifest.generation).collect();
        for name in folder::names(&self.claims())? {
            let generation = name.split_once('.').and_then(|(generation, _)| generation.parse().ok());
            if generation.is_some_and(|generation| generation < claim.generation() && !needed.contains(&generation)) {
                let removed = remove(claim, &self.claims().join(&name))?;
                done.claims += usize::from(removed && !name.ends_with(".base"));
            }
        }
        Ok(())
    }

    fn collect_unfinished(&self, waiting: &mut Waiting<'_>, done: &mut Collected) -> anyhow::Result<()> {
        for folder in [self.claims(), self.checkpoints(), self.named()] {
            for name in folder::names(&folder)?
                .iter()
                .filter(|name| name.ends_with(place::BESIDE))
            {
                let path = folder.join(name);
                if waiting.is_over(&path) {
                    done.unfinished += usize::from(remove(waiting.claim, &path)?);
                }
            }
        }
        Ok(())
    }
}

struct Sorted {
    /// The newest number that this run has committed.
    newest: Option<u64>,
    kept: Vec<Manifest>,
    unneeded: Vec<(CheckpointId, Option<Manifest>)>,
}

/// The grace time of files that nothing names. It runs on the monotonic clock of this process: a file's own time, or
/// the wall clock, could jump and make a file look old that is being written.
struct Waiting<'a> {
    claim: &'a Claim,
    grace: Duration,
    seen: HashMap<PathBuf, Instant>,
}

impl Waiting<'_> {
    fn is_over(&mut self, path: &Path) -> bool {
        let before = self
            .claim
            .orphans
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(path)
            .copied();
        let first = *self
            .seen
            .entry(path.to_owned())
            .or_insert(before.unwrap_or_else(Instant::now));
        first.elapsed() >= self.grace
    }

    /// What wasn't seen this time is forgotten.
    fn remember(self) {
        *self.claim.orphans.lock().unwrap_or_else(PoisonError::into_inner) = self.seen;
    }
}

/// `None` for what is damaged.
fn whole<T>(read: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
    match read {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.is::<Damaged>() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The check comes before each, so that a run that was stopped in here removes at most one file more.
fn remove(claim: &Claim, path: &Path) -> anyhow::Result<bool> {
    claim.check()?;
    fault::point("collect.remove").with_context(|| format!("can't remove {}", path.display()))?;
    folder::remove(path)
}

fn names(manifest: &Manifest) -> impl Iterator<Item = String> + '_ {
    manifest.files.iter().map(|file| file.name.clone())
}

/// Checkpoint and generation of `000000000012-00000003-0001.state`.
fn parse(name: &str) -> Option<(u64, u64)> {
    let mut parts = name.strip_suffix(".state")?.split('-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}
