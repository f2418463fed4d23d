//! `history`: every table of the pipeline as a Delta table under one data directory.
//!
//! - `layout`: which tables there are, with which columns, and where each input's rows go.
//! - `part`: one Parquet file, invisible until it is committed.
//! - `log`: one Delta log: create, add columns, commit.
//! - `files`: local files that are durable once they are visible.
//!
//! Rows are written to part files as they come, closed and synced by `stage`, and made visible by `publish` with one
//! Delta commit per table. A crash before the commit leaves part files that no reader sees.

mod files;
mod layout;
mod log;
mod part;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use arrow::array::RecordBatch;
use schemars::JsonSchema;
use serde::Deserialize;
use taktline_engine::config::{Interval, Problem, Section};
use taktline_engine::kind::{Input, SinkKind};
use taktline_engine::{Sink, SinkPlan};
use tokio::runtime::Runtime;

use layout::Layout;
use log::Log;
use part::{Part, PartWriter};

/// What the names of our application transactions in a Delta log begin with.
const APP: &str = "taktline/";

/// The `history` sink.
pub const KIND: SinkKind = SinkKind {
    name: "history",
    summary: "keeps every table as a Delta table under one data directory, for SQL",
    schema: || schemars::schema_for!(HistoryConfig),
    takes_refused: true,
    build,
};

/// Keeps samples, cycles, alerts and all other tables as Delta tables that `taktline sql`, DuckDB, Spark and Polars read.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HistoryConfig {
    /// The data directory; made when it is absent. Each table is a folder in it.
    #[serde(default = "default_path")]
    path: String,
    /// How often new rows become visible while the run goes on.
    #[serde(default = "default_publish_every")]
    publish_every: Interval,
    /// Zstandard level of the files: 1 is fast, 19 is small.
    #[serde(default = "default_level")]
    level: i32,
    /// Rows after which a new file is begun.
    #[serde(default = "default_file_rows")]
    file_rows: usize,
}

fn default_path() -> String {
    "taktline-data".to_owned()
}

fn default_publish_every() -> Interval {
    Interval::from_micros(5_000_000)
}

fn default_level() -> i32 {
    1
}

fn default_file_rows() -> usize {
    1 << 20
}

fn build(section: &Section, inputs: &[Input]) -> Result<Box<dyn SinkPlan>, Vec<Problem>> {
    let config: HistoryConfig = section.parse()?;
    let mut problems = Vec::new();
    if config.path.is_empty() {
        problems.push(Problem::at("path", "is empty").hint("name a directory, like taktline-data"));
    }
    if config.path.contains("://") {
        problems.push(
            Problem::at("path", "an object store is not supported yet")
                .hint("name a local directory, like taktline-data"),
        );
    }
    if config.publish_every.micros() < 100_000 {
        problems.push(Problem::at(
            "publish_every",
            "must be at least 100ms: every table gets a file each time",
        ));
    }
    if !(1..=19).contains(&config.level) {
        problems.push(Problem::at("level", "must be between 1 and 19"));
    }
    if !(1000..=100_000_000).contains(&config.file_rows) {
        problems.push(Problem::at("file_rows", "must be between 1000 and 100000000"));
    }
    let layout = Layout::of(inputs).map_err(|mut found| problems.append(&mut found));
    match layout {
        Ok(layout) if problems.is_empty() => Ok(Box::new(History {
            app: format!("{APP}{}", section.name),
            config,
            layout: Arc::new(layout),
        })),
        _ => Err(problems),
    }
}

struct History {
    app: String,
    config: HistoryConfig,
    layout: Arc<Layout>,
}

impl SinkPlan for History {
    fn open(&self) -> anyhow::Result<Box<dyn Sink>> {
        let root = directory(&self.config.path)?;
        let runtime = runtime()?;
        let mut tables = Vec::new();
        for table in &self.layout.tables {
            let folder = root.join(table.name);
            make_folder(&folder).with_context(|| format!("table `{}`", table.name))?;
            let log = runtime
                .block_on(Log::open(&folder, table, &self.app))
                .with_context(|| format!("table `{}` in {}", table.name, root.display()))?;
            let properties = part::properties(&table.written, self.config.level)?;
            let writing = PartWriter::new(folder, table.written.clone(), properties);
            tables.push(Keeping {
                name: table.name,
                writing,
                log,
                closed: Vec::new(),
                staged: Vec::new(),
            });
        }
        files::sync_folder(&root).with_context(|| format!("{}", root.display()))?;
        Ok(Box::new(HistorySink {
            layout: self.layout.clone(),
            file_rows: self.config.file_rows,
            tables,
            runtime,
        }))
    }

    fn publish_every(&self) -> Duration {
        Duration::from_micros(self.config.publish_every.micros().unsigned_abs())
    }
}

struct HistorySink {
    layout: Arc<Layout>,
    file_rows: usize,
    tables: Vec<Keeping>,
    runtime: Runtime,
}

/// One table that is being written.
struct Keeping {
    name: &'static str,
    writing: PartWriter,
    /// Parts that were rolled since the last `stage`.
    closed: Vec<Part>,
    /// Parts that the next `publish` commits.
    staged: Vec<Part>,
    log: Log,
}

impl Sink for HistorySink {
    fn write(&mut self, input: usize, batch: &RecordBatch) -> anyhow::Result<()> {
        for route in self.layout.routes.get(input).into_iter().flatten() {
            let table = &mut self.tables[route.table];
            let written = &self.layout.tables[route.table].written;
            let rows = route
                .rows(batch, written)
                .with_context(|| format!("table `{}`", table.name))?;
            table.writing.write(&rows).with_context(|| table.place())?;
            if table.writing.rows() >= self.file_rows {
                let part = table.writing.close().with_context(|| table.place())?;
                table.closed.extend(part);
            }
        }
        Ok(())
    }

    fn stage(&mut self) -> anyhow::Result<()> {
        for table in &mut self.tables {
            let part = table.writing.close().with_context(|| table.place())?;
            table.closed.extend(part);
            if !table.closed.is_empty() {
                files::sync_folder(table.writing.folder()).with_context(|| table.place())?;
                table.staged.append(&mut table.closed);
            }
        }
        Ok(())
    }

    fn publish(&mut self) -> anyhow::Result<()> {
        let commits = self.tables.iter_mut().map(|table| async {
            let place = table.place();
            table.log.commit(&mut table.staged).await.with_context(|| place)
        });
        let results = self.runtime.block_on(futures::future::join_all(commits));
        results.into_iter().collect()
    }
}

impl Keeping {
    fn place(&self) -> String {
        format!("table `{}` in {}", self.name, self.writing.folder().display())
    }
}

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
fn is_ours(folder: &Path) -> std::io::Result<bool> {
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

/// The data directory as an absolute path, made where absent.
fn directory(path: &str) -> anyhow::Result<PathBuf> {
    make_folder(Path::new(path)).context("data directory")?;
    std::fs::canonicalize(path).with_context(|| format!("data directory {path}"))
}

fn make_folder(folder: &Path) -> anyhow::Result<()> {
    if folder.exists() && !folder.is_dir() {
        anyhow::bail!(
            "{} is a file, not a directory; name another `path` or move it away",
            folder.display()
        );
    }
    std::fs::create_dir_all(folder).with_context(|| format!("{} can't be made", folder.display()))?;
    let probe = folder.join(format!(".taktline-{}", uuid::Uuid::new_v4()));
    std::fs::write(&probe, b"").with_context(|| format!("{} can't be written", folder.display()))?;
    std::fs::remove_file(&probe).with_context(|| format!("{} can't be written", folder.display()))
}

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("history")
        .enable_all()
        .build()
        .context("threads for the history")
}
