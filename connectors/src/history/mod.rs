//! `history`: every table of the pipeline as a Delta table under one data directory.
//!
//! - `layout`: which tables there are, with which columns, and where each input's rows go.
//! - `part`: one Parquet file, invisible until it is committed.
//! - `log`: one Delta log: create, add columns, commit; `recovery`: what is to be done in it after a crash; `mend`: what a
//!   crash of the machine left of its end.
//! - `files`: local files that are durable once they are visible.
//! - `tables`: the tables of a data directory, from outside.
//!
//! Rows are written to part files as they come, closed and synced by `stage`, and made visible by `publish` with one
//! Delta commit per table, which carries the checkpoint as an application transaction. A crash before the commit leaves
//! part files that no reader sees, for `recover` to publish or to remove.

mod files;
mod layout;
mod log;
mod mend;
mod part;
mod recovery;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use arrow::array::RecordBatch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taktline_engine::config::{Problem, Section};
use taktline_engine::kind::{Input, SinkKind};
use taktline_engine::state::Staged;
use taktline_engine::{Opening, Sink, SinkPlan};
use tokio::runtime::Runtime;

pub use tables::{holds, remove, rows};

use layout::Layout;
use log::{Log, Writer};
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
    fn open(&self, opening: &Opening) -> anyhow::Result<Box<dyn Sink>> {
        let root = directory(&self.config.path)?;
        let runtime = runtime()?;
        let writer = Writer {
            app: self.app.clone(),
            generation: opening.generation,
        };
        let mut tables = Vec::new();
        for table in &self.layout.tables {
            let folder = root.join(table.name);
            make_folder(&folder).with_context(|| format!("table `{}`", table.name))?;
            let log = match opening.publishes {
                true => Some(
                    runtime
                        .block_on(Log::open(&folder, table, writer.clone()))
                        .with_context(|| format!("table `{}` in {}", table.name, root.display()))?,
                ),
                false => None,
            };
            let properties = part::properties(&table.written, self.config.level)?;
            let writing = PartWriter::new(folder, opening.generation, table.written.clone(), properties);
            tables.push(Keeping {
                name: table.name,
                writing,
                log,
                closed: Vec::new(),
            });
        }
        files::sync_folder(&root).with_context(|| format!("{}", root.display()))?;
        Ok(Box::new(HistorySink {
            layout: self.layout.clone(),
            file_rows: self.config.file_rows,
            root,
            writer,
            tables,
            runtime,
        }))
    }
}

struct HistorySink {
    layout: Arc<Layout>,
    file_rows: usize,
    root: PathBuf,
    writer: Writer,
    tables: Vec<Keeping>,
    runtime: Runtime,
}

/// One table that is being written.
struct Keeping {
    name: &'static str,
    writing: PartWriter,
    /// Parts that were closed since the last `stage`.
    closed: Vec<Part>,
    /// Where this process publishes.
    log: Option<Log>,
}

/// What a process staged: parts by table.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Token {
    tables: BTreeMap<String, Vec<Part>>,
}

impl Token {
    /// What all processes staged, together.
    fn merged(staged: &[Staged]) -> anyhow::Result<BTreeMap<String, Vec<Part>>> {
        let mut tables: BTreeMap<String, Vec<Part>> = BTreeMap::new();
        for Staged(value) in staged {
            let token = Option::<Token>::deserialize(value).context("what the history staged can't be read")?;
            for (name, mut parts) in token.unwrap_or_default().tables {
                tables.entry(name).or_default().append(&mut parts);
            }
        }
        Ok(tables)
    }
}

impl Sink for HistorySink {
    fn recover(&mut self, checkpoint: u64, staged: &[Staged]) -> anyhow::Result<()> {
        let mut parts = Token::merged(staged)?;
        for table in &mut self.tables {
            let place = table.place();
            let parts = parts.remove(table.name).unwrap_or_default();
            let recovered = self.runtime.block_on(table.log()?.recover(checkpoint, &parts));
            recovered.with_context(|| place)?;
        }
        for name in self.former_tables(&parts)? {
            let folder = self.root.join(&name);
            let parts = parts.remove(&name).unwrap_or_default();
            let recovered = self.runtime.block_on(async {
                let mut log = Log::former(&folder, self.writer.clone()).await?;
                log.recover(checkpoint, &parts).await
            });
            recovered.with_context(|| format!("table `{name}` in {}", folder.display()))?;
        }
        Ok(())
    }

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

    fn stage(&mut self, checkpoint: u64) -> anyhow::Result<Staged> {
        let mut token = Token::default();
        for table in &mut self.tables {
            let place = table.place();
            let part = table.writing.close().with_context(|| place.clone())?;
            table.closed.extend(part);
            if table.closed.is_empty() {
                continue;
            }
            let mut parts = std::mem::take(&mut table.closed);
            table.writing.place(&mut parts, checkpoint).with_context(|| place)?;
            token.tables.insert(table.name.to_owned(), parts);
        }
        Ok(Staged(serde_json::to_value(token)?))
    }

    fn publish(&mut self, checkpoint: u64, staged: &[Staged]) -> anyhow::Result<()> {
        let parts = Token::merged(staged)?;
        if let Some(name) = parts
            .keys()
            .find(|name| self.tables.iter().all(|table| table.name != **name))
        {
            anyhow::bail!("another process staged rows for a table `{name}` that this pipeline doesn't have");
        }
        let commits = self.tables.iter_mut().filter_map(|table| {
            let parts = parts.get(table.name)?;
            Some(async move {
                let place = table.place();
                table.log()?.publish(checkpoint, parts).await.with_context(|| place)
            })
        });
        let results = self.runtime.block_on(futures::future::join_all(commits));
        results.into_iter().collect()
    }
}

impl HistorySink {
    /// Tables that the pipeline once had, or that another sink of it has: those with something staged, and those of ours in
    /// the data directory.
    fn former_tables(&self, staged: &BTreeMap<String, Vec<Part>>) -> anyhow::Result<Vec<String>> {
        let mut names: Vec<String> = staged.keys().cloned().collect();
        let place = || format!("data directory {}", self.root.display());
        for entry in std::fs::read_dir(&self.root).with_context(place)? {
            let folder = entry.with_context(place)?.path();
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_ours = || tables::is_ours(&folder).with_context(|| format!("table in {}", folder.display()));
            if self.tables.iter().all(|table| table.name != name) && !names.contains(&name) && is_ours()? {
                names.push(name);
            }
        }
        Ok(names)
    }
}

impl Keeping {
    fn place(&self) -> String {
        format!("table `{}` in {}", self.name, self.writing.folder().display())
    }

    fn log(&mut self) -> anyhow::Result<&mut Log> {
        self.log.as_mut().context("this process doesn't publish")
    }
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
