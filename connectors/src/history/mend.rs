//! A Delta log whose newest entry was torn by a crash of the machine.
//!
//! Our own entries are whole before they have a name; those of other writers may not be. An entry that isn't whole was
//! never acknowledged to anybody, and as long as it is there no reader can open the table.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::files::sync_folder;

/// Moves the newest entries of the log of the table in `folder` away as long as they aren't whole.
///
/// # Errors
/// The log can't be read, or an entry not moved.
pub(super) fn mend(folder: &Path) -> io::Result<()> {
    let log = folder.join("_delta_log");
    while let Some(newest) = newest(&log)? {
        if is_whole(&fs::read(&newest)?) {
            return Ok(());
        }
        let name = newest.file_name().unwrap_or_default().to_string_lossy();
        let aside = folder.join(format!("torn-{}-{name}", uuid::Uuid::new_v4()));
        fs::rename(&newest, &aside)?;
        sync_folder(&log)?;
        sync_folder(folder)?;
        tracing::warn!(
            "{}: the newest entry of the Delta log was torn by a crash; it is now {}, and the table is as it was before it",
            newest.display(),
            aside.display()
        );
    }
    Ok(())
}

fn newest(log: &Path) -> io::Result<Option<PathBuf>> {
    if !log.is_dir() {
        return Ok(None);
    }
    let mut newest: Option<PathBuf> = None;
    for entry in fs::read_dir(log)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let version = name.strip_suffix(".json");
        let is_entry =
            version.is_some_and(|version| version.len() == 20 && version.bytes().all(|b| b.is_ascii_digit()));
        if is_entry && newest.as_ref().is_none_or(|known| *known < path) {
            newest = Some(path);
        }
    }
    Ok(newest)
}

/// True for lines of JSON objects, at least one.
fn is_whole(entry: &[u8]) -> bool {
    let mut lines = entry
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.trim_ascii().is_empty())
        .peekable();
    lines.peek().is_some() && lines.all(|line| matches!(serde_json::from_slice(line), Ok(Value::Object(_))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_entries() {
        let check = |entry: &str, expect: bool| assert_eq!(is_whole(entry.as_bytes()), expect, "{entry:?}");
        check("{\"add\":{}}\n{\"txn\":{}}", true);
        check("{\"add\":{}}\n", true);
        check("{\"add\":{}}\n{\"tx", false);
        check("{\"add\":{}}\n\0\0\0\0", false);
        check("\0\0\0", false);
        check("17", false);
        check("", false);
        check("\n", false);
    }
}
