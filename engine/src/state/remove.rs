//! Beginning anew in the same directory.

use std::fs;
use std::io::ErrorKind;
use std::time::Duration;

use anyhow::Context;

use super::{StateDir, folder};

/// How long a run that holds the directory may be silent before it counts as stopped.
const LEASE: Duration = Duration::from_secs(10);

impl StateDir {
    /// Removes all state: checkpoints, savepoints, journals, what sinks have staged. One small file stays, so that generations go on rising and
    /// a run that was stopped before doesn't take the next one for itself; and what others keep beside the state, like the
    /// logs and locks of a supervisor that is about to run.
    ///
    /// # Errors
    /// When a live run holds the directory, and when something can't be removed.
    pub fn remove(&self) -> anyhow::Result<()> {
        if !self.root.exists() {
            return Ok(());
        }
        let claim = self.claim("", LEASE)?;
        claim.resume_from(None)?; // from here on nothing below counts, however far this gets
        for path in [
            self.checkpoints(),
            self.states(),
            self.named(),
            self.journal(),
            self.staging(),
        ] {
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("can't remove {}", path.display()));
                }
                _ => {}
            }
        }
        folder::remove(&self.published_path())?; // numbers begin anew, and it names one
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
