//! Windows over messages, held against the samples that history has.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;

use crate::history;
use crate::verdict::Verdict;

/// Each window holds the samples that history has of its time, but for late ones; and stands there once.
///
/// # Errors
/// A table can't be read, or there are no windows.
pub fn compare(verdict: &mut Verdict, taktline: &Path, data: &Path) -> anyhow::Result<()> {
    let late = data.join("late").join("_delta_log").is_dir();
    let late = if late {
        "SELECT machine, signal, ts FROM late WHERE step = 'windows'"
    } else {
        ""
    };
    let mut counts: HashMap<(String, String, String), (i64, u64)> = HashMap::new();
    let key = |row: &Value, time: &str| {
        let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
        // Windows begin at whole seconds.
        (
            text("machine"),
            text("signal"),
            text(time).chars().take("2026-01-01T00:00:00".len()).collect::<String>(),
        )
    };
    for row in history::rows(taktline, data, "SELECT machine, signal, ts FROM samples")? {
        counts.entry(key(&row, "ts")).or_default().0 += 1;
    }
    if !late.is_empty() {
        for row in history::rows(taktline, data, late)? {
            counts.entry(key(&row, "ts")).or_default().0 -= 1;
        }
    }
    let rows = history::rows(taktline, data, "SELECT machine, signal, start, count FROM windows")?;
    verdict.rows += rows.len() as u64;
    for row in &rows {
        let (samples, times) = counts.entry(key(row, "start")).or_default();
        *times += 1;
        if *times > 1 {
            verdict.twice += 1;
            verdict.faults.push(format!("windows: twice: {row}"));
        }
        if row["count"].as_i64() != Some(*samples) {
            verdict.different += 1;
            verdict
                .faults
                .push(format!("windows: different: {row}, and there are {samples} samples"));
        }
    }
    anyhow::ensure!(!rows.is_empty(), "there are no windows to compare");
    Ok(())
}
