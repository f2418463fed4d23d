//! A pipeline over recorded samples instead of its own sources: its tests, and backfill.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Context;
use taktline_engine::config::{Node, NodeKind, parse};
use taktline_queries::Format;
use tempfile::TempDir;

use crate::load::Wrong;

/// Replaces every source by recorded samples: a CSV file with the columns machine, signal, ts, value and, if it has one, text. The first
/// source replays all of them; the others read nothing.
///
/// # Errors
/// A file can't be read.
pub fn replace_sources(root: &mut Node, samples: &str, nothing: &Path) -> anyhow::Result<()> {
    let NodeKind::Map(parts) = &mut root.kind else {
        return Ok(()); // what it is instead is said when it is compiled
    };
    let mut path = samples.to_owned();
    for (_, part) in parts.iter_mut().filter(|(key, _)| key.name == "sources") {
        let NodeKind::Map(sources) = &mut part.kind else {
            continue;
        };
        for (_, source) in sources {
            let path = std::mem::replace(&mut path, nothing.display().to_string());
            let mut recorded = serde_json::json!({"kind": "file", "path": path, "machine": {"column": "machine"},
                "time": {"column": "ts", "unit": "rfc3339"}, "signal": "signal", "value": "value", "layout": "long"});
            if has_text(&path)? {
                recorded["text"] = "text".into();
            }
            *source = parse("replay", &recorded.to_string()).map_err(|d| Wrong(vec![d]))?;
        }
    }
    Ok(())
}

fn has_text(path: &str) -> anyhow::Result<bool> {
    let mut header = String::new();
    let file = std::fs::File::open(path).with_context(|| path.to_owned())?;
    BufReader::new(file).read_line(&mut header)?;
    Ok(header.trim_end().split(',').any(|column| column == "text"))
}

/// The samples of a backfill: a file as it is, or those of a data directory's history, written to a file in time order.
pub struct Backfill {
    /// The CSV file.
    pub samples: PathBuf,
    _kept: Option<TempDir>,
}

impl Backfill {
    /// From a CSV file or a data directory.
    ///
    /// # Errors
    /// There is neither, or the history has no samples.
    pub fn from(path: &Path) -> anyhow::Result<Self> {
        if path.is_file() {
            return Ok(Backfill {
                samples: path.to_owned(),
                _kept: None,
            });
        }
        let kept = tempfile::tempdir().context("a directory for the samples")?;
        let samples = kept.path().join("samples.csv");
        let mut out = std::io::BufWriter::new(std::fs::File::create(&samples)?);
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            let context = taktline_queries::context(path, &[]).await?;
            let query = "SELECT machine, signal, ts, value, text FROM samples ORDER BY ts, machine, signal";
            taktline_queries::sql(&context, query, Format::Csv, &mut out).await
        })?;
        std::io::Write::flush(&mut out)?;
        Ok(Backfill {
            samples,
            _kept: Some(kept),
        })
    }
}
