//! JSON files that carry their own checksum: its line first, then the text that it is of.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// A file of the store that is not what was written. Whoever finds it may go on with an earlier checkpoint.
#[derive(Debug)]
pub struct Damaged {
    path: PathBuf,
    what: String,
}

impl Damaged {
    pub(super) fn error(path: &Path, what: impl Into<String>) -> anyhow::Error {
        anyhow::Error::new(Damaged {
            path: path.to_owned(),
            what: what.into(),
        })
    }
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path.display(), self.what)
    }
}

impl std::error::Error for Damaged {}

/// The file's bytes.
pub(super) fn seal<T: Serialize>(value: &T) -> anyhow::Result<Vec<u8>> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok([first_line(&text).as_bytes(), text.as_bytes()].concat())
}

/// The file's text, its checksum found right.
pub(super) fn read_text(path: &Path) -> anyhow::Result<String> {
    let bytes = std::fs::read(path).map_err(|error| not_read(error, path))?;
    let whole = String::from_utf8(bytes).map_err(|_| Damaged::error(path, "is damaged: it isn't text"))?;
    let Some((line, text)) = whole.split_once('\n') else {
        return Err(Damaged::error(path, "is damaged: it is cut off in its first line"));
    };
    // Compared as text, so that no two spellings of a checksum pass.
    match first_line(text).strip_suffix('\n') == Some(line) {
        true => Ok(text.to_owned()),
        false => Err(Damaged::error(path, "is damaged: its checksum is wrong")),
    }
}

/// The value that was sealed.
pub(super) fn unseal<T: DeserializeOwned>(path: &Path, text: &str) -> anyhow::Result<T> {
    serde_json::from_str(text).map_err(|error| Damaged::error(path, format!("is not what it should be: {error}")))
}

/// A file that is gone or on a bad sector is damage; anything else (rights, too many open files) is no fault of the
/// file.
pub(super) fn not_read(error: io::Error, path: &Path) -> anyhow::Error {
    if error.kind() == io::ErrorKind::NotFound {
        return Damaged::error(path, "is gone");
    }
    if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) {
        return Damaged::error(path, "can't be read from the disk");
    }
    anyhow::Error::new(error).context(format!("can't read {}", path.display()))
}

fn first_line(text: &str) -> String {
    format!("crc32 {:08x}\n", crc32fast::hash(text.as_bytes()))
}
