//! Runs the real binary.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // each test file uses a part

pub mod mosquitto;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The `taktline` that was built with these tests, started in the repository's root.
pub fn taktline() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taktline"));
    command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .env("TAKTLINE_LOG", "warn");
    command
}

/// Runs it with these arguments; it must succeed. Gives stdout.
pub fn ok(args: &[&str]) -> String {
    let output = taktline().args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}\n{}", text(&output.stderr));
    text(&output.stdout)
}

/// Runs it with these arguments. Gives the exit code, stdout and stderr.
pub fn any(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } = taktline().args(args).output().unwrap();
    (status.code().unwrap_or(-1), text(&stdout), text(&stderr))
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// SQL over a data directory, as CSV without the header.
pub fn sql(data: &Path, query: &str) -> String {
    let csv = ok(&["sql", query, "--data", data.to_str().unwrap(), "--format", "csv"]);
    csv.split_once('\n')
        .map(|(_, rows)| rows.trim_end().to_owned())
        .unwrap_or_default()
}

/// A real data set, or a printed line that the case is skipped.
pub fn data(file: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data").join(file);
    if path.exists() {
        return Some(path);
    }
    eprintln!("skipped: {} is not there", path.display());
    None
}
