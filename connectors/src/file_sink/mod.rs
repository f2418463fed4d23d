//! The `file` sink: rows as CSV, NDJSON or Parquet files, exactly once.
//!
//! Rows are appended to hidden files, which are synced at each checkpoint; the checkpoint says how long they are. A file that is old or
//! large enough is staged and gets its name when the checkpoint is real. After a crash hidden files are cut to what the
//! checkpoint says, and get their names. From the bottom up: `named` (what got its name), `name`, `spool` (a hidden file), `parquet`, `recovery`.

mod name;
mod named;
mod parquet;
mod recovery;
mod spool;

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use arrow::array::RecordBatch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taktline_engine::config::{Interval, Problem, Section, Size};
use taktline_engine::kind::{Input, SinkKind};
use taktline_engine::state::Staged;
use taktline_engine::{Opening, Published, Sink, SinkPlan};

use crate::durable;
use name::Names;
use named::Named;
use spool::Spool;

/// The `file` sink.
pub const KIND: SinkKind = SinkKind {
    name: "file",
    summary: "writes rows to CSV, NDJSON or Parquet files, exactly once",
    schema: || schemars::schema_for!(FileSinkConfig),
    takes_refused: false,
    build,
};

/// Writes rows to files in a folder.
///
/// A file appears whole, under a name that is never used again: `SINK-INPUT-TIME-CHECKPOINT-ID.csv`, so that names sort by time. It appears with the first
/// checkpoint after it is `every` old, or has `size` bytes or `rows` rows, and when the run ends; until then it is hidden. What has appeared
/// may be taken away at any time. Several pipelines may write to one folder. When the run
/// keeps state, each row is in the files exactly once, also after a crash. A kind of step that has several tables writes several files.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FileSinkConfig {
    /// The folder; made if it isn't there. In a cluster all processes must see it
    pub path: PathBuf,
    /// Format of the files. Default csv, with a header
    #[serde(default)]
    pub format: Format,
    /// After how long a file is finished. Default 1h
    pub every: Option<Interval>,
    /// At how many bytes a file is finished; for Parquet, before it is compressed. Default 128MiB
    pub size: Option<Size>,
    /// At how many rows a file is finished. Default: no limit
    #[schemars(range(min = 1))]
    pub rows: Option<u64>,
}

/// Format of the files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Comma-separated values with a header; columns that are lists are left out
    #[default]
    Csv,
    /// A JSON object on each line
    Ndjson,
    /// Parquet, compressed with zstd
    Parquet,
}

const EVERY: Interval = Interval::from_micros(3_600_000_000);
const SIZE: Size = Size::from_bytes(128 << 20);

fn build(section: &Section, inputs: &[Input]) -> Result<Box<dyn SinkPlan>, Vec<Problem>> {
    let config: FileSinkConfig = section.parse()?;
    let mut problems = Vec::new();
    if config.path.as_os_str().is_empty() {
        problems.push(Problem::at("path", "must not be empty").hint("write a folder: export"));
    }
    if config.size.is_some_and(|size| size.bytes() == 0) {
        problems.push(Problem::at("size", "must be at least 1B"));
    }
    if config.rows == Some(0) {
        problems.push(Problem::at("rows", "must be at least 1"));
    }
    let mut kinds = Vec::new();
    for (index, input) in inputs.iter().enumerate() {
        for table in &input.table.published {
            let mut prefix = format!("{}-{}", section.name, input.name);
            if input.table.published.len() > 1 {
                prefix = format!("{prefix}-{}", table.name);
            }
            kinds.push(Written {
                input: index,
                prefix,
                table: table.clone(),
            });
        }
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Box::new(FilePlan {
        folder: config.path,
        rules: Rules {
            format: config.format,
            every: Duration::from_micros(config.every.unwrap_or(EVERY).micros().unsigned_abs()),
            bytes: config.size.unwrap_or(SIZE).bytes(),
            rows: config.rows.unwrap_or(u64::MAX),
        },
        written: kinds,
    }))
}

/// A table that is written, and what its files are called.
#[derive(Clone)]
struct Written {
    input: usize,
    prefix: String,
    table: Published,
}

#[derive(Clone, Copy)]
struct Rules {
    format: Format,
    every: Duration,
    bytes: u64,
    rows: u64,
}

struct FilePlan {
    folder: PathBuf,
    rules: Rules,
    written: Vec<Written>,
}

impl SinkPlan for FilePlan {
    fn open(&self, opening: &Opening) -> anyhow::Result<Box<dyn Sink>> {
        let place = || format!("folder {} (`path`)", self.folder.display());
        fs::create_dir_all(&self.folder).with_context(place)?;
        let folder = fs::canonicalize(&self.folder).with_context(place)?;
        let state = match &opening.folder {
            Some(folder) => durable::identity(folder)?,
            None => uuid::Uuid::new_v4().simple().to_string(),
        };
        let tracks = self.written.iter().map(|written| Track {
            written: written.clone(),
            open: None,
            full: Vec::new(),
        });
        Ok(Box::new(FileSink {
            names: Names {
                folder,
                state: state[..8].to_owned(),
                generation: opening.generation,
                format: self.rules.format,
            },
            named: Named::read(opening.folder.as_deref())?,
            rules: self.rules,
            publishes: opening.publishes,
            tracks: tracks.collect(),
            staged: None,
            published: None,
        }))
    }
}

struct FileSink {
    names: Names,
    named: Named,
    rules: Rules,
    publishes: bool,
    tracks: Vec<Track>,
    /// The last checkpoint that was staged, if no row came since; and the last that was published.
    staged: Option<u64>,
    published: Option<u64>,
}

/// The files of one table.
struct Track {
    written: Written,
    /// What rows are appended to.
    open: Option<Spool>,
    /// What has as many rows as it may.
    full: Vec<Spool>,
}

/// What a checkpoint says about the files.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Token {
    /// Files that get their names.
    done: Vec<Done>,
    /// Files that go on.
    open: Vec<Open>,
}

/// A finished file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Done {
    /// Its hidden name.
    from: String,
    name: String,
    /// What it was made from, if that is another file.
    spool: Option<String>,
}

/// A hidden file, and how much of it counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Open {
    file: String,
    prefix: String,
    stem: String,
    format: Format,
    bytes: u64,
    rows: u64,
}

impl Token {
    fn of(staged: &[Staged]) -> anyhow::Result<Self> {
        let mut all = Token::default();
        // A kind of sink that stages nothing may have had this name before.
        for staged in staged.iter().filter(|staged| !staged.0.is_null()) {
            let token: Token = serde_json::from_value(staged.0.clone())
                .context("another kind of sink staged under this name; give this one another name")?;
            all.done.extend(token.done);
            all.open.extend(token.open);
        }
        Ok(all)
    }

    fn hidden(&self) -> impl Iterator<Item = String> {
        let open = self.open.iter().map(|open| open.file.clone());
        self.done.iter().flat_map(Done::hidden).chain(open)
    }
}

impl Sink for FileSink {
    fn recover(&mut self, checkpoint: u64, staged: &[Staged]) -> anyhow::Result<()> {
        let token = Token::of(staged)?;
        let is_named = |hidden: &str| self.named.has(checkpoint, hidden);
        self.names.publish(&token.done, is_named)?;
        let prefixes: Vec<&str> = self.tracks.iter().map(|track| track.written.prefix.as_str()).collect();
        recovery::recover(&self.names, &prefixes, checkpoint, &token, is_named)?;
        self.named.note(checkpoint, token.hidden())
    }

    fn write(&mut self, input: usize, batch: &RecordBatch) -> anyhow::Result<()> {
        self.staged = None;
        for track in self.tracks.iter_mut().filter(|track| track.written.input == input) {
            let rows = (track.written.table.project)(batch)?;
            if rows.num_rows() == 0 {
                continue;
            }
            let spool = match &mut track.open {
                Some(spool) => spool,
                none => none.insert(Spool::create(&self.names, &track.written.prefix, &rows.schema())?),
            };
            spool.write(&rows)?;
            if spool.bytes() >= self.rules.bytes || spool.rows() >= self.rules.rows {
                track.full.extend(track.open.take());
            }
        }
        Ok(())
    }

    fn stage(&mut self, checkpoint: u64) -> anyhow::Result<Staged> {
        let mut token = Token::default();
        for track in &mut self.tracks {
            if track.open.as_ref().is_some_and(|spool| spool.age() >= self.rules.every) {
                track.full.extend(track.open.take());
            }
            for spool in track.full.drain(..) {
                token.done.push(spool.finish(&self.names, checkpoint)?);
            }
            if let Some(spool) = &mut track.open {
                token.open.push(spool.sync()?);
            }
        }
        self.names.sync()?;
        self.staged = Some(checkpoint);
        Ok(Staged(serde_json::to_value(token)?))
    }

    fn publish(&mut self, checkpoint: u64, staged: &[Staged]) -> anyhow::Result<()> {
        let done = Token::of(staged)?.done;
        self.names.publish(&done, |_| false)?;
        self.named.note(checkpoint, done.iter().flat_map(Done::hidden))?;
        self.published = Some(checkpoint);
        Ok(())
    }
}

impl Drop for FileSink {
    /// The end of a run: what is open and belongs to a checkpoint that is real need not wait for the next run.
    fn drop(&mut self) {
        let all_real = self.publishes && self.staged.is_some() && self.staged == self.published;
        if !all_real && self.names.generation > 0 {
            return; // the next run knows how much of it counts
        }
        let checkpoint = self.published.unwrap_or_default();
        for track in &mut self.tracks {
            for spool in track.full.drain(..).chain(track.open.take()) {
                let shown = spool.shown();
                let finished = spool.finish(&self.names, checkpoint).and_then(|done| {
                    self.names.publish(std::slice::from_ref(&done), |_| false)?;
                    self.named.note(checkpoint, done.hidden())
                });
                if let Err(error) = finished {
                    tracing::error!("{shown}: {error:#}; its rows are not visible");
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
