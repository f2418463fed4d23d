//! The tables of a data directory, as `taktline sql` gives them.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

/// Every table with its rows as JSON texts, sorted.
pub type Tables = BTreeMap<String, Vec<String>>;

/// Reads all.
///
/// # Errors
/// The directory or a table can't be read.
pub fn read(taktline: &Path, data: &Path) -> anyhow::Result<Tables> {
    let mut tables = Tables::new();
    if !data.exists() {
        return Ok(tables);
    }
    for entry in std::fs::read_dir(data).with_context(|| data.display().to_string())? {
        let folder = entry?.path();
        if !folder.join("_delta_log").is_dir() {
            continue;
        }
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let rows = rows(taktline, data, &format!("SELECT * FROM \"{name}\""))?;
        let mut rows: Vec<String> = rows.iter().map(Value::to_string).collect();
        rows.sort_unstable();
        if !rows.is_empty() {
            tables.insert(name, rows);
        }
    }
    Ok(tables)
}

/// True when a table was begun, but a kill came before its first commit: SQL can't be asked until the next run has made it.
///
/// # Errors
/// The directory can't be read.
pub fn half_begun(data: &Path) -> anyhow::Result<bool> {
    for entry in std::fs::read_dir(data).with_context(|| data.display().to_string())? {
        let log = entry?.path().join("_delta_log");
        if log.is_dir() && std::fs::read_dir(&log)?.next().is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The rows of one query.
///
/// # Errors
/// It can't be answered.
pub fn rows(taktline: &Path, data: &Path, query: &str) -> anyhow::Result<Vec<Value>> {
    let mut command = Command::new(taktline);
    command.args(["sql", query, "--format", "json", "--data"]).arg(data);
    let said = command.output().context("taktline sql")?;
    let stderr = String::from_utf8_lossy(&said.stderr);
    anyhow::ensure!(said.status.success(), "{query} on {}: {stderr}", data.display());
    serde_json::from_slice(&said.stdout).with_context(|| format!("{query} on {}", data.display()))
}
