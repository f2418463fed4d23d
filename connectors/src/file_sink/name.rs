//! What files are called, and how they get their names.

use std::fs::{self, File};
use std::path::PathBuf;

use anyhow::Context;
use taktline_engine::fault;

use super::{Done, Format};

/// A folder, and whose files are meant.
#[derive(Clone, Debug)]
pub(super) struct Names {
    pub folder: PathBuf,
    /// What tells our files from those of another state in the same folder, which are none of our business: eight hexadecimal digits.
    pub state: String,
    pub generation: u64,
    pub format: Format,
}

/// What the name of a visible file tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Visible {
    /// Time and id: the same as of the hidden file it was.
    pub stem: String,
    pub checkpoint: u64,
}

impl Names {
    /// Begins a file: its stem, and its hidden name.
    pub(super) fn begin(&self, prefix: &str) -> (String, String) {
        let id = format!("{}{:08x}", self.state, uuid::Uuid::new_v4().as_fields().0);
        let stem = format!("{}-{id}", jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
        let file = format!(".{prefix}-{stem}.{:08}.open", self.generation);
        (stem, file)
    }

    /// The name that a file gets at a checkpoint.
    pub(super) fn visible(&self, prefix: &str, stem: &str, checkpoint: u64) -> String {
        let (time, id) = stem.split_once('-').unwrap_or((stem, "0000000000000000"));
        format!("{prefix}-{time}-{checkpoint:012}-{id}.{}", self.ending())
    }

    /// Reads the name of a visible file; none if it isn't of this prefix.
    pub(super) fn parse(&self, prefix: &str, name: &str) -> Option<Visible> {
        let rest = name.strip_prefix(prefix)?.strip_prefix('-')?;
        let rest = rest.strip_suffix(self.ending())?.strip_suffix('.')?;
        let mut parts = rest.split('-');
        let (time, checkpoint, id) = (parts.next()?, parts.next()?, parts.next()?);
        let fits = parts.next().is_none()
            && time.len() == 16
            && time.ends_with('Z')
            && checkpoint.len() == 12
            && id.len() == 16
            && id.starts_with(&self.state)
            && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let checkpoint = checkpoint.parse().ok()?;
        fits.then(|| Visible {
            stem: format!("{time}-{id}"),
            checkpoint,
        })
    }

    /// The generation in a hidden name of this prefix.
    pub(super) fn hidden(&self, prefix: &str, name: &str) -> Option<u64> {
        let rest = name.strip_prefix('.')?.strip_prefix(prefix)?.strip_prefix('-')?;
        let rest = rest.strip_suffix(".open").or_else(|| rest.strip_suffix(".done"))?;
        let (stem, generation) = rest.rsplit_once('.')?;
        // A longer one is of another prefix.
        let (time, id) = stem.split_once('-')?;
        (time.len() == 16 && id.len() == 16 && id.starts_with(&self.state))
            .then(|| generation.parse().ok())
            .flatten()
    }

    /// Beside a hidden file, what is made of it.
    pub(super) fn made_of(open: &str) -> String {
        format!("{}.done", open.trim_end_matches(".open"))
    }

    fn ending(&self) -> &'static str {
        match self.format {
            Format::Csv => "csv",
            Format::Ndjson => "ndjson",
            Format::Parquet => "parquet",
        }
    }

    /// Gives finished files their names. Doing it twice changes nothing, and one that `is_named` may have been taken away since.
    pub(super) fn publish(&self, done: &[Done], is_named: impl Fn(&str) -> bool) -> anyhow::Result<()> {
        for file in done {
            let (from, to) = (self.folder.join(&file.from), self.folder.join(&file.name));
            match (from.exists(), to.exists()) {
                (true, false) => {
                    fault::point("file.rename")
                        .and_then(|()| fs::rename(&from, &to))
                        .with_context(|| to.display().to_string())?;
                }
                (false, true) => {}
                (false, false) if is_named(&file.from) => {}
                (true, true) => anyhow::bail!("{} is there already, and was not written by this sink", to.display()),
                (false, false) => anyhow::bail!(
                    "{} was staged and is gone; put it back, go on from a savepoint, or begin anew with --overwrite",
                    from.display()
                ),
            }
        }
        if done.is_empty() {
            return Ok(());
        }
        self.sync()?;
        for spool in done.iter().filter_map(|file| file.spool.as_ref()) {
            self.remove(spool)?;
        }
        Ok(())
    }

    /// Removes a file that may be gone already.
    pub(super) fn remove(&self, name: &str) -> anyhow::Result<()> {
        let path = self.folder.join(name);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| path.display().to_string())
            }
            _ => Ok(()),
        }
    }

    /// Makes the names in the folder durable.
    pub(super) fn sync(&self) -> anyhow::Result<()> {
        let synced = fault::point("file.folder").and_then(|()| File::open(&self.folder)?.sync_all());
        synced.with_context(|| format!("fsync of {}", self.folder.display()))
    }
}
