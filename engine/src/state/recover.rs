//! The newest checkpoint that is whole.

use anyhow::bail;

use super::{Claim, Damaged, Manifest, StateDir, States, load};

/// A checkpoint to go on from.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// What it is made of.
    pub manifest: Manifest,
    /// A sentence for each newer checkpoint that is damaged.
    pub passed_over: Vec<String>,
}

impl StateDir {
    /// The newest checkpoint of the chain whose manifest is right and whose files are there with their lengths. Their
    /// checksums are found right or wrong by [`load`]; [`StateDir::recover`] does both.
    ///
    /// # Errors
    /// When there are checkpoints, but none is whole.
    pub fn latest(&self, claim: &Claim) -> anyhow::Result<Option<Found>> {
        let found = self.newest(claim, |manifest| self.files_are_there(manifest))?;
        Ok(found.map(|(found, ())| found))
    }

    /// The newest checkpoint of the chain that can be read to its last byte, and the keys' state in it.
    ///
    /// # Errors
    /// When there are checkpoints, but none is whole.
    pub fn recover(
        &self,
        claim: &Claim,
        wanted: &(dyn Fn(&str) -> bool + Sync),
    ) -> anyhow::Result<Option<(Found, States)>> {
        self.newest(claim, |manifest| load(self, manifest, wanted))
    }

    fn newest<T>(
        &self,
        claim: &Claim,
        read: impl Fn(&Manifest) -> anyhow::Result<T>,
    ) -> anyhow::Result<Option<(Found, T)>> {
        let chain = claim.chain()?;
        let mut passed_over = Vec::new();
        for id in &chain.ids {
            let manifest = self.manifest(id.checkpoint, id.generation);
            match manifest.and_then(|manifest| read(&manifest).map(|read| (manifest, read))) {
                Ok((manifest, read)) => {
                    if !claim.has_committed() {
                        claim.resume_from(Some(&manifest))?; // so that the damaged ones never count again
                    }
                    return Ok(Some((Found { manifest, passed_over }, read)));
                }
                Err(error) if error.is::<Damaged>() => passed_over.push(format!("{id} is passed over: {error}")),
                Err(error) => return Err(error),
            }
        }
        passed_over.extend(chain.remarks);
        match claim.base() {
            None if passed_over.is_empty() => Ok(None),
            // To begin anew in silence would publish everything twice.
            _ => bail!(
                "no checkpoint in {} is whole; go on from a savepoint, or begin anew with --overwrite\n  {}",
                self.root.display(),
                if passed_over.is_empty() {
                    "their manifests are gone".to_owned()
                } else {
                    passed_over.join("\n  ")
                }
            ),
        }
    }
}
