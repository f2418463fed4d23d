//! One Delta log: create it, add columns to it, commit parts to it.
//!
//! A commit is one file of JSON lines, made here and put by `deltalake`'s log store. Its `CommitBuilder` would read the
//! state back after each commit, which takes the longer the more files there are; a sink that only ever adds files of a
//! schema it checked at the start needs none of that.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::{CommitData, PROTOCOL, TransactionError};
use deltalake::kernel::{Action, Add, StructField, StructType, Transaction, Version};
use deltalake::logstore::{CommitOrBytes, LogStoreRef};
use deltalake::protocol::checkpoints::{cleanup_metadata, create_checkpoint};
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::table::state::DeltaTableState;
use deltalake::{DeltaTable, DeltaTableBuilder};
use url::Url;

use super::files::DurableFiles;
use super::layout::TableLayout;
use super::part::Part;

/// Commits between two checkpoints of the log.
const CHECKPOINT_EVERY: Version = 100;
/// How often another writer may be first before a commit fails.
const ATTEMPTS: usize = 20;

/// The log of one table, and what is on its way into it.
pub(super) struct Log {
    folder: PathBuf,
    store: LogStoreRef,
    columns: StructType,
    /// The newest version that we know of.
    version: Version,
    /// Names this sink in the log's application transactions.
    app: String,
    /// Application transaction of the next commit.
    next: i64,
    /// Parts of a commit that may or may not have reached the log.
    attempted: Vec<Part>,
}

impl Log {
    /// Opens the log in `folder`; makes the table, or adds the columns it lacks.
    ///
    /// # Errors
    /// The log can't be read or written, or a column has another type.
    pub async fn open(folder: &Path, layout: &TableLayout, app: &str) -> anyhow::Result<Self> {
        let mut table = table(folder)?;
        let columns: StructType = layout
            .stored
            .as_ref()
            .try_into_kernel()
            .context("columns that Delta can't keep")?;
        if table.verify_deltatable_existence().await? {
            table.load().await?;
            table = add_columns(table, &columns).await?;
        } else {
            let create = table
                .create()
                .with_table_name(layout.name)
                .with_columns(columns.fields().cloned());
            table = create.with_save_mode(SaveMode::Ignore).await?;
        }
        let (store, state) = (table.log_store(), table.snapshot()?);
        PROTOCOL.can_write_to(state)?;
        let last = state.transaction_version(store.as_ref(), app).await?;
        Ok(Log {
            folder: folder.to_owned(),
            version: state.version(),
            store,
            columns,
            app: app.to_owned(),
            next: last.map_or(0, |last| last + 1),
            attempted: Vec::new(),
        })
    }

    /// Makes parts visible, all in one commit, and forgets them. Parts of a commit that failed are committed first,
    /// unless the log has them.
    ///
    /// # Errors
    /// The commit failed; it may be tried again.
    pub async fn commit(&mut self, staged: &mut Vec<Part>) -> anyhow::Result<()> {
        if let Some(part) = self.attempted.first().map(|part| part.name.clone()) {
            // By the name of the part, since another writer might use this sink's name.
            if self.reread().await?.log_data().iter().any(|file| file.path() == part) {
                self.committed();
            } else {
                self.attempt().await?;
            }
        }
        if !staged.is_empty() {
            self.attempted.append(staged);
            self.attempt().await?;
        }
        Ok(())
    }

    async fn attempt(&mut self) -> anyhow::Result<()> {
        let actions = self.attempted.iter().map(add).collect();
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: None,
            predicate: None,
        };
        let transaction = Transaction::new(&self.app, self.next);
        let entry = CommitData::new(actions, operation, HashMap::new(), vec![transaction]).get_bytes()?;
        for _ in 0..ATTEMPTS {
            let bytes = CommitOrBytes::LogBytes(entry.clone());
            match self
                .store
                .write_commit_entry(self.version + 1, bytes, uuid::Uuid::new_v4())
                .await
            {
                Ok(()) => {
                    self.version += 1;
                    self.committed();
                    self.checkpoint().await;
                    return Ok(());
                }
                // Another writer was first: see that the table is still one we can add to, and queue behind it.
                Err(TransactionError::VersionAlreadyExists(_)) => {
                    self.reread().await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        anyhow::bail!("another writer was first {ATTEMPTS} times in a row")
    }

    fn committed(&mut self) {
        self.attempted.clear();
        self.next += 1;
    }

    /// The table as the log says it is now.
    async fn reread(&mut self) -> anyhow::Result<DeltaTableState> {
        let mut table = table(&self.folder)?;
        table.load().await?;
        let state = table.snapshot()?;
        PROTOCOL.can_write_to(state)?;
        anyhow::ensure!(
            absent(state, &self.columns)?.is_empty(),
            "another writer dropped columns"
        );
        self.version = state.version();
        Ok(state.clone())
    }

    /// Sums the log up from time to time, so that readers need not read all of it. The rows are visible either way.
    async fn checkpoint(&self) {
        if (self.version + 1).is_multiple_of(CHECKPOINT_EVERY)
            && let Err(error) = checkpoint(&self.folder, self.version).await
        {
            tracing::warn!(folder = %self.folder.display(), "no checkpoint of the Delta log: {error:#}");
        }
    }
}

async fn checkpoint(folder: &Path, version: Version) -> anyhow::Result<()> {
    let mut table = table(folder)?;
    table.load_version(version).await?;
    create_checkpoint(&table, None).await?;
    cleanup_metadata(&table, None).await?;
    Ok(())
}

fn add(part: &Part) -> Action {
    Action::Add(Add {
        path: part.name.clone(),
        partition_values: HashMap::new(),
        size: part.size as i64,
        modification_time: part.modified_ms,
        data_change: true,
        stats: Some(part.stats.clone()),
        ..Add::default()
    })
}

fn table(folder: &Path) -> anyhow::Result<DeltaTable> {
    let url =
        Url::from_directory_path(folder).map_err(|()| anyhow::anyhow!("{} is no absolute path", folder.display()))?;
    Ok(DeltaTableBuilder::from_url(url.clone())?
        .with_storage_backend(Arc::new(DurableFiles::new()), url)
        .build()?)
}

async fn add_columns(table: DeltaTable, wanted: &StructType) -> anyhow::Result<DeltaTable> {
    let absent = absent(table.snapshot()?, wanted)?;
    if absent.is_empty() {
        return Ok(table);
    }
    Ok(table.add_columns().with_fields(absent).await?)
}

/// The columns that the table lacks.
///
/// # Errors
/// A column has another type there.
fn absent(state: &DeltaTableState, wanted: &StructType) -> anyhow::Result<Vec<StructField>> {
    let known = state.schema();
    let mut absent = Vec::new();
    for field in wanted.fields() {
        match known.field(field.name()) {
            None => absent.push(field.clone()),
            Some(old) if old.data_type() == field.data_type() => {}
            Some(old) => anyhow::bail!(
                "column `{}` is {} there and would be {} now; write to another data directory",
                field.name(),
                old.data_type(),
                field.data_type()
            ),
        }
    }
    Ok(absent)
}

/// Rows that the log in `folder` says the table has.
///
/// # Errors
/// The log can't be read.
pub(super) async fn rows(folder: &Path) -> anyhow::Result<u64> {
    let mut table = table(&std::fs::canonicalize(folder)?)?;
    table.load().await?;
    // A file without statistics has at least one row.
    let files = table.snapshot()?.log_data();
    Ok(files
        .iter()
        .map(|file| file.num_records().map_or(1, |rows| rows as u64))
        .sum())
}
