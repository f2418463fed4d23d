//! Beginning anew in the same directory.

use std::fs;
use std::time::Duration;

use anyhow::Context;

use super::{StateDir, folder};

/// How long a run that holds the directory may be silent before it counts as stopped.
const LEASE: Duration = Duration::from_secs(10);

impl StateDir {
    /// Removes all state: checkpoints, savepoints, journals. One small file stays, so that generations go on rising and
    /// a run that was stopped before doesn't take the next one for itself.
    ///
    /// # Errors
    /// When a live run holds the directory, and when something can't be removed.
    pub fn remove(&self) -> anyhow::Result<()> {
        if !self.root.exists() {
            return Ok(());
        }
        let claim = self.claim("", LEASE)?;
        claim.resume_from(None)?; // from here on nothing below counts, however far this gets
        for name in folder::names(&self.root)?.iter().filter(|name| *name != "claims") {
            let path = self.root.join(name);
            let removed = if path.is_dir() {
                fs::remove_dir_all(&path)
            } else {
                fs::remove_file(&path)
            };
            removed.with_context(|| format!("can't remove {}", path.display()))?;
        }
        folder::sync(&self.root)?;
        let own = self.claim_path(claim.generation());
        let claims = self.claims();
        for path in folder::names(&claims)?
            .iter()
            .map(|name| claims.join(name))
            .filter(|path| *path != own)
        {
            folder::remove(&path)?;
        }
        claim.check()?;
        fs::rename(&own, own.with_extension("cleared")).with_context(|| format!("can't rename {}", own.display()))?;
        folder::sync(&claims)
    }
}
