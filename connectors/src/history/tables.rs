//! The tables of a data directory, from outside: how many rows they have, and which of them are ours.

use std::path::Path;

use anyhow::Context;

use super::{APP, log, runtime};

/// How many rows the Delta tables under a data directory hold; 0 where there is no such directory.
///
/// # Errors
/// The directory or a table's log can't be read.
pub fn rows(path: &Path) -> anyhow::Result<u64> {
    if !path.exists() {
        return Ok(0);
    }
    let entries = std::fs::read_dir(path).with_context(|| format!("data directory {}", path.display()))?;
    let runtime = runtime()?;
    let mut rows = 0;
    for entry in entries {
        let folder = entry
            .with_context(|| format!("data directory {}", path.display()))?
            .path();
        if folder.join("_delta_log").is_dir() {
            rows += runtime
                .block_on(log::rows(&folder))
                .with_context(|| format!("table in {}", folder.display()))?;
        }
    }
    Ok(rows)
}

/// True when a data directory already has rows.
///
/// # Errors
/// As for [`rows`].
pub fn holds(path: &Path) -> anyhow::Result<bool> {
    Ok(rows(path)? > 0)
}

/// Removes the Delta tables under a data directory that a `history` wrote to, and nothing else.
///
/// # Errors
/// The directory can't be read, or a table not removed.
pub fn remove(path: &Path) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(path).with_context(|| format!("data directory {}", path.display()))? {
        let folder = entry
            .with_context(|| format!("data directory {}", path.display()))?
            .path();
        if is_ours(&folder).with_context(|| format!("table in {}", folder.display()))? {
            std::fs::remove_dir_all(&folder).with_context(|| format!("table in {}", folder.display()))?;
        }
    }
    Ok(())
}

/// True for a Delta table that has a commit of ours, or our name for it and no rows yet.
pub(super) fn is_ours(folder: &Path) -> std::io::Result<bool> {
    let log = folder.join("_delta_log");
    if !log.is_dir() {
        return Ok(false);
    }
    let ours = format!("\"appId\":\"{APP}");
    let name = format!(
        "\"name\":\"{}\"",
        folder.file_name().unwrap_or_default().to_string_lossy()
    );
    let (mut named, mut empty) = (false, true);
    for entry in std::fs::read_dir(log)? {
        let path = entry?.path();
        if path.extension().is_none_or(|ending| ending != "json") {
            empty &= path.extension().is_none_or(|ending| ending != "parquet");
            continue;
        }
        let commit = std::fs::read_to_string(path)?;
        if commit.contains(&ours) {
            return Ok(true);
        }
        named |= commit.contains(&name);
        empty &= !commit.contains("{\"add\":");
    }
    Ok(named && empty)
}
