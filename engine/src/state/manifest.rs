//! What a checkpoint is made of.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::bail;
use serde::{Deserialize, Serialize};

use super::sealed::{self, Damaged, not_read};
use super::{CheckpointId, StateDir};

/// The format of manifests and state files that this binary writes. It reads no newer one.
pub const FORMAT: u32 = 1;

/// A checkpoint: where the sources stood, what the sinks had staged, and the files with the state of the keys.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Manifest {
    /// [`FORMAT`] of the binary that wrote it.
    pub format: u32,
    /// Its number, never used twice.
    pub checkpoint: u64,
    /// The run that wrote it.
    pub generation: u64,
    /// The pipeline's name.
    pub pipeline: String,
    /// When, in µs since 1970. For people only.
    pub created_us: i64,
    /// Whether the input had ended, so that there is nothing to go on with.
    pub ended: bool,
    /// Step id → what its state is (kind, version, shape), compared as text.
    pub steps: BTreeMap<String, String>,
    /// Source → partition → where it stood.
    pub sources: BTreeMap<String, BTreeMap<String, Offset>>,
    /// Sink → what each process staged.
    pub sinks: BTreeMap<String, Vec<Staged>>,
    /// The state of the keys, oldest file first.
    pub files: Vec<StateFile>,
    /// The earlier checkpoint that this one repeats under its own number, after a run went back: sinks show that
    /// one's rows.
    #[serde(default)]
    pub restores: Option<u64>,
}

/// Where a partition stood.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Offset {
    /// How many batches it had given.
    pub sequence: u64,
    /// Its own words for the place.
    pub at: serde_json::Value,
}

/// What a sink staged, in its own words.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(transparent)]
pub struct Staged(pub serde_json::Value);

/// A file with the state of keys.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct StateFile {
    /// Its name in the folder `state`.
    pub name: String,
    /// The checkpoint that it was written for.
    pub checkpoint: u64,
    /// Its length.
    pub bytes: u64,
    /// The CRC-32 of all of it.
    pub crc: u32,
}

impl Manifest {
    /// Which checkpoint it is.
    #[must_use]
    pub fn id(&self) -> CheckpointId {
        CheckpointId {
            checkpoint: self.checkpoint,
            generation: self.generation,
        }
    }
}

impl StateDir {
    /// The manifest of a checkpoint, as the leading process of a cluster has named it.
    ///
    /// # Errors
    /// [`Damaged`] when it is gone or its checksum is wrong; another one for a newer format.
    pub fn manifest(&self, checkpoint: u64, generation: u64) -> anyhow::Result<Manifest> {
        let id = CheckpointId { checkpoint, generation };
        let path = self.manifest_path(id);
        let manifest = read(&path)?;
        if manifest.id() != id {
            return Err(Damaged::error(&path, format!("holds {} instead", manifest.id())));
        }
        Ok(manifest)
    }

    pub(super) fn manifest_path(&self, id: CheckpointId) -> PathBuf {
        self.checkpoints()
            .join(format!("{:012}-{:08}.json", id.checkpoint, id.generation))
    }

    pub(super) fn state_path(&self, name: &str) -> PathBuf {
        self.states().join(name)
    }

    /// Damaged when one of its state files is gone or has another length. Their checksums are left to `load`, which
    /// reads them.
    pub(super) fn files_are_there(&self, manifest: &Manifest) -> anyhow::Result<()> {
        for file in &manifest.files {
            let path = self.state_path(&file.name);
            let bytes = std::fs::metadata(&path).map_err(|error| not_read(error, &path))?.len();
            if bytes != file.bytes {
                return Err(Damaged::error(
                    &path,
                    format!("is damaged: it has {bytes} of {} bytes", file.bytes),
                ));
            }
        }
        Ok(())
    }
}

/// Reads a manifest or a savepoint.
pub(super) fn read(path: &Path) -> anyhow::Result<Manifest> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let text = sealed::read_text(path)?;
    let Format { format } = sealed::unseal(path, &text)?;
    if format > FORMAT {
        bail!(
            "{} has format {format}, this taktline reads up to {FORMAT}; use a newer taktline",
            path.display()
        );
    }
    let manifest: Manifest = sealed::unseal(path, &text)?;
    match manifest
        .files
        .iter()
        .find(|file| file.name.contains(['/', '\0']) || file.name.starts_with('.'))
    {
        Some(file) => Err(Damaged::error(
            path,
            format!("names {:?}, which is no state file", file.name),
        )),
        None => Ok(manifest),
    }
}
