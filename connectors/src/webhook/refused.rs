//! What a target refused, kept where somebody can find it.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The most bytes that are kept.
const LIMIT: u64 = 64 << 20;

/// A file of refused rows.
pub(super) struct Refused {
    path: Option<PathBuf>,
}

impl Refused {
    /// In this folder, which is made when it is needed. None: the run keeps nothing.
    pub(super) fn new(folder: Option<&Path>) -> Self {
        Refused {
            path: folder.map(|folder| folder.join("refused.ndjson")),
        }
    }

    /// Keeps rows with the reason, and says where they are.
    pub(super) fn keep<'r>(&self, rows: impl Iterator<Item = &'r [u8]>, reason: &str) -> String {
        let Some(path) = &self.path else {
            return "they are lost: the run keeps no state".into();
        };
        match append(path, rows, reason) {
            Ok(()) => format!("they are kept in {}", path.display()),
            Err(error) => format!("they are lost: {}: {error}", path.display()),
        }
    }
}

fn append<'r>(path: &Path, rows: impl Iterator<Item = &'r [u8]>, reason: &str) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = File::options().create(true).append(true).open(path)?;
    if file.metadata()?.len() > LIMIT {
        return Err(std::io::Error::other(format!(
            "it has more than {LIMIT} bytes; move it away"
        )));
    }
    let reason = serde_json::Value::from(reason).to_string();
    let mut text = Vec::new();
    for row in rows {
        text.extend_from_slice(b"{\"reason\":");
        text.extend_from_slice(reason.as_bytes());
        text.extend_from_slice(b",\"row\":");
        text.extend_from_slice(row);
        text.extend_from_slice(b"}\n");
    }
    file.write_all(&text)?;
    file.sync_all()
}
