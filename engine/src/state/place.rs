//! A small file that is whole or absent: write it beside its place, sync it, give it its name, sync the folder.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;

use super::folder;
use crate::fault;

/// Ends the names of files that aren't in place yet.
pub(super) const BESIDE: &str = ".tmp";

/// A file that is written and durable, but has not got its name. Dropped before that, it is removed.
pub(super) struct Beside<'a> {
    part: &'static str,
    path: &'a Path,
    folder: &'a Path,
    beside: PathBuf,
    pub file: File,
}

impl<'a> Beside<'a> {
    /// `part` is the first half of the names of the fault points.
    pub fn write(part: &'static str, path: &'a Path, bytes: &[u8]) -> anyhow::Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let (beside, file) = open(folder).with_context(|| format!("can't make a file in {}", folder.display()))?;
        let mut this = Beside {
            part,
            path,
            folder,
            beside,
            file,
        };
        fault::point(&format!("{part}.write"))
            .and_then(|()| this.file.write_all(bytes))
            .map_err(|error| not_written(error, bytes.len() as u64, path))?;
        fault::point(&format!("{part}.sync"))
            .and_then(|()| this.file.sync_all())
            .map_err(|error| not_written(error, bytes.len() as u64, path))?;
        Ok(this)
    }

    /// Gives it its name; false when the name is taken.
    pub fn link(self) -> anyhow::Result<bool> {
        match fault::point(&format!("{}.link", self.part)).and_then(|()| fs::hard_link(&self.beside, self.path)) {
            Ok(()) => self.named().map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error).with_context(|| format!("can't link {}", self.path.display())),
        }
    }

    /// Gives it its name, whoever had it.
    pub fn replace(self) -> anyhow::Result<()> {
        fault::point(&format!("{}.link", self.part))
            .and_then(|()| fs::rename(&self.beside, self.path))
            .with_context(|| format!("can't replace {}", self.path.display()))?;
        self.named()
    }

    fn named(&self) -> anyhow::Result<()> {
        fault::point(&format!("{}.folder", self.part))
            .with_context(|| format!("can't sync the folder {}", self.folder.display()))?;
        folder::sync(self.folder)
    }
}

impl Drop for Beside<'_> {
    fn drop(&mut self) {
        // A leftover harms nobody; `collect` removes it.
        let _ = fs::remove_file(&self.beside);
    }
}

fn open(folder: &Path) -> io::Result<(PathBuf, File)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let beside = folder.join(format!(".{}-{number}{BESIDE}", std::process::id()));
        match OpenOptions::new().read(true).write(true).create_new(true).open(&beside) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            opened => return opened.map(|file| (beside, file)),
        }
    }
}

/// A write that ended in an error, with its size and its way out when the disk is full.
pub(super) fn not_written(error: io::Error, bytes: u64, path: &Path) -> anyhow::Error {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let path = path.display();
    anyhow::Error::new(error).context(match full {
        true => format!("no room on the disk for {bytes} bytes of {path}; free some and start again"),
        false => format!("can't write {bytes} bytes to {path}"),
    })
}
