//! How long after the end of a cycle its row is there for a watcher.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use arrow::array::types::TimestampMicrosecondType;
use arrow::compute::kernels::cast_utils::Parser;

/// A `taktline tap` that is read all the time; ends with this value.
pub struct Taps {
    child: Child,
    latencies: Arc<Mutex<Vec<f64>>>,
}

impl Taps {
    /// Watches a step whose rows have an `end`.
    ///
    /// # Errors
    /// The binary can't be started.
    pub fn follow(taktline: &Path, url: &str, step: &str) -> anyhow::Result<Self> {
        let mut child = Command::new(taktline)
            .args(["tap", step, "--url", url])
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| taktline.display().to_string())?;
        let rows = BufReader::new(child.stdout.take().context("tap's output")?);
        let latencies = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&latencies);
        std::thread::spawn(move || {
            for row in rows.lines().map_while(Result::ok) {
                if let Some(latency) = latency_ms(&row) {
                    noted.lock().unwrap_or_else(PoisonError::into_inner).push(latency);
                }
            }
        });
        Ok(Taps { child, latencies })
    }

    /// In ms, those since the last call.
    pub fn take(&self) -> Vec<f64> {
        std::mem::take(&mut *self.latencies.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Taps {
    fn drop(&mut self) {
        let _ = self.child.kill(); // it may have ended
        let _ = self.child.wait();
    }
}

/// From the row's `end` to now. The row is long, for a cycle's samples are in it: only what is needed is looked at.
fn latency_ms(row: &str) -> Option<f64> {
    let (_, rest) = row.split_once("\"end\":\"")?;
    let (end, _) = rest.split_once('"')?;
    let end_us = TimestampMicrosecondType::parse(end)?;
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_micros() as i64;
    Some((now_us - end_us) as f64 / 1e3)
}
