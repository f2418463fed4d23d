//! State files: the records of the keys that changed, as one worker wrote them for one checkpoint.
//!
//! A file is [`MAGIC`], then for each record its length (u32, little endian) and its postcard bytes. Its own length
//! and CRC-32 stand in the manifest, whose `format` is also its version.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;

use anyhow::Context;
use serde::{Deserialize, Serialize, Serializer};

use super::{StateDir, StateFile, folder, place};
use crate::fault;

pub(super) const MAGIC: &[u8; 8] = b"taktstat";

/// So much is collected before it is written.
const CHUNK: usize = 1 << 20;

/// What a checkpoint has to say about a key.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Record<'a> {
    /// The step's id.
    pub step: &'a str,
    /// Which of the step's tables of keys.
    pub slot: u8,
    /// The key.
    pub key: &'a str,
    /// What becomes of the tails that were written before.
    pub change: Change,
    /// Takes the place of the head before.
    #[serde(serialize_with = "as_bytes")]
    pub head: &'a [u8],
    /// Comes after the tails before.
    #[serde(serialize_with = "as_bytes")]
    pub tail: &'a [u8],
}

/// What becomes of what was written before for the same step, slot and key.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The tails stay, and this one comes after them.
    Append,
    /// The tails are forgotten; this one is the first.
    Restart,
    /// The key is forgotten. Head and tail of the record mean nothing.
    Gone,
}

/// Writes one state file. Dropped before `finish`, it removes the file.
pub struct FileWriter {
    dir: StateDir,
    name: String,
    path: PathBuf,
    checkpoint: u64,
    file: File,
    buffer: Vec<u8>,
    written: u64,
    crc: crc32fast::Hasher,
    records: u64,
    finished: bool,
}

impl FileWriter {
    /// A worker's file for a checkpoint.
    ///
    /// # Errors
    /// When it can't be made, or is there already.
    pub fn create(dir: &StateDir, generation: u64, checkpoint: u64, worker: usize) -> anyhow::Result<FileWriter> {
        let name = format!("{checkpoint:012}-{generation:08}-{worker:04}.state");
        let path = dir.state_path(&name);
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let file = file.with_context(|| format!("can't make {}", path.display()))?;
        let (dir, buffer, crc) = (dir.clone(), MAGIC.to_vec(), crc32fast::Hasher::new());
        Ok(FileWriter {
            dir,
            name,
            path,
            checkpoint,
            file,
            buffer,
            written: 0,
            crc,
            records: 0,
            finished: false,
        })
    }

    /// Adds a record.
    ///
    /// # Errors
    /// When the disk is full or broken, and for a record of 4 GiB.
    pub fn write(&mut self, record: &Record<'_>) -> anyhow::Result<()> {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 4]);
        postcard::to_io(record, &mut self.buffer)?;
        let bytes = self.buffer.len() - start - 4;
        let length = u32::try_from(bytes).with_context(|| {
            format!(
                "the state of {:?} in step {:?} has {bytes} bytes, 4 GiB are too many",
                record.key, record.step
            )
        })?;
        self.buffer[start..start + 4].copy_from_slice(&length.to_le_bytes());
        self.records += 1;
        if self.buffer.len() >= CHUNK {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Makes the file durable, and its name. `None`, and no file, when no record was written.
    ///
    /// # Errors
    /// When the disk is full or broken. The run must end then.
    pub fn finish(mut self) -> anyhow::Result<Option<StateFile>> {
        if self.records == 0 {
            return Ok(None);
        }
        self.flush()?;
        fault::point("state.sync")
            .and_then(|()| self.file.sync_all())
            .map_err(|error| place::not_written(error, self.written, &self.path))?;
        folder::sync(&self.dir.states())?;
        self.finished = true;
        let (name, crc) = (std::mem::take(&mut self.name), self.crc.clone().finalize());
        Ok(Some(StateFile {
            name,
            checkpoint: self.checkpoint,
            bytes: self.written,
            crc,
        }))
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let bytes = self.written + self.buffer.len() as u64;
        fault::point("state.write")
            .and_then(|()| self.file.write_all(&self.buffer))
            .map_err(|error| place::not_written(error, bytes, &self.path))?;
        self.crc.update(&self.buffer);
        self.written = bytes;
        self.buffer.clear();
        Ok(())
    }
}

impl Drop for FileWriter {
    fn drop(&mut self) {
        if !self.finished {
            // A leftover harms nobody; `collect` removes it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// The same bytes as serde's way for a slice, written in one go.
fn as_bytes<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_bytes(bytes)
}
