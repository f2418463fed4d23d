//! Checkpoints with a name, which are never collected.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};

use super::place::Beside;
use super::{Found, Manifest, StateDir, folder, manifest, sealed};

impl StateDir {
    /// The savepoint of this name.
    ///
    /// # Errors
    /// When there is none (naming those there are), and when it or one of its files is damaged.
    pub fn savepoint(&self, name: &str) -> anyhow::Result<Found> {
        let path = self.savepoint_path(name)?;
        if !path.exists() {
            match self.savepoints()?.join(", ").as_str() {
                "" => bail!(
                    "there is no savepoint {name:?}, nor any other, in {}",
                    self.root.display()
                ),
                names => bail!(
                    "there is no savepoint {name:?} in {}; there are: {names}",
                    self.root.display()
                ),
            }
        }
        let manifest = manifest::read(&path)?;
        self.files_are_there(&manifest)?;
        Ok(Found {
            manifest,
            passed_over: Vec::new(),
        })
    }

    /// The names of all savepoints, sorted.
    ///
    /// # Errors
    /// When the folder can't be listed.
    pub fn savepoints(&self) -> anyhow::Result<Vec<String>> {
        let names = folder::names(&self.named())?;
        Ok(names
            .iter()
            .filter_map(|name| name.strip_suffix(".json"))
            .map(str::to_owned)
            .collect())
    }

    /// Names a checkpoint. It must be one that `collect` still keeps, such as the newest.
    ///
    /// # Errors
    /// For a name that is taken, or is no name; and when the checkpoint's files are gone.
    pub fn name_savepoint(&self, name: &str, manifest: &Manifest) -> anyhow::Result<PathBuf> {
        let path = self.savepoint_path(name)?;
        if !Beside::write("savepoint", &path, &sealed::seal(manifest)?)?.link()? {
            bail!(
                "there is a savepoint {name:?} already ({}); remove it, or choose another name",
                path.display()
            );
        }
        // Looked at when it has its name: from then on `collect` leaves its files alone.
        if let Err(error) = self.files_are_there(manifest) {
            folder::remove(&path)?;
            return Err(error.context(format!("{} can't be named {name:?} any more", manifest.id())));
        }
        Ok(path)
    }

    /// Sets the savepoints aside whose rows were taken back when checkpoint `by` went back to `restored`: nothing would bring those rows
    /// again. Gives their names.
    ///
    /// # Errors
    /// A file can't be renamed.
    pub fn abandon_savepoints(&self, restored: u64, by: u64) -> anyhow::Result<Vec<String>> {
        let mut abandoned = Vec::new();
        for name in self.savepoints()? {
            let path = self.savepoint_path(&name)?;
            if manifest::read(&path).is_ok_and(|manifest| restored < manifest.checkpoint && manifest.checkpoint < by) {
                let aside = path.with_extension("abandoned");
                std::fs::rename(&path, &aside).with_context(|| path.display().to_string())?;
                abandoned.push(name);
            }
        }
        Ok(abandoned)
    }

    /// The numbers of the checkpoints that have a name. A savepoint that can't be read has none.
    pub(super) fn savepoint_numbers(&self) -> anyhow::Result<Vec<u64>> {
        let names = self.savepoints()?;
        let manifests = names
            .iter()
            .filter_map(|name| manifest::read(&self.named().join(format!("{name}.json"))).ok());
        Ok(manifests.map(|manifest| manifest.checkpoint).collect())
    }

    fn savepoint_path(&self, name: &str) -> anyhow::Result<PathBuf> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        ensure!(
            (1..=64).contains(&name.len()) && name.chars().all(fits) && !name.starts_with('.'),
            "{name:?} is no name for a savepoint; use 1 to 64 of A-Z a-z 0-9 . _ - and no dot in front"
        );
        Ok(self.named().join(format!("{name}.json")))
    }
}
