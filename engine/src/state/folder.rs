//! Folders: their names, and making them last.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::Context;

/// The names in a folder, sorted; none when there is no folder.
pub(super) fn names(folder: &Path) -> anyhow::Result<Vec<String>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("can't list {}", folder.display())),
    };
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("can't list {}", folder.display()))?;
        // A name that isn't text is none of ours.
        names.extend(entry.file_name().into_string());
    }
    names.sort_unstable();
    Ok(names)
}

/// Makes the folder and those above it, and their names durable.
pub(super) fn make(folder: &Path) -> anyhow::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
    if let Some(above) = above {
        make(above)?;
    }
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("can't make the folder {}", folder.display()));
        }
        _ => {}
    }
    sync(above.unwrap_or(Path::new(".")))
}

/// Makes the names in a folder durable.
pub(super) fn sync(folder: &Path) -> anyhow::Result<()> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("can't sync the folder {}", folder.display()))
}

/// Removes a file; false when it was gone already.
pub(super) fn remove(path: &Path) -> anyhow::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("can't remove {}", path.display())),
    }
}
