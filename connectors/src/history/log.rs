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
use taktline_engine::fault;
use url::Url;

use super::files::DurableFiles;
use super::layout::TableLayout;
use super::mend::mend;
use super::part::Part;

/// Commits between two checkpoints of the log.
const CHECKPOINT_EVERY: Version = 100;
/// How often another writer may be first before a commit fails.
pub(super) const ATTEMPTS: usize = 20;
/// The application transaction that says which generation may write.
pub(super) const GENERATION: &str = "taktline/generation";

/// Who writes.
#[derive(Clone, Debug)]
pub(super) struct Writer {
    /// Names this sink in the log's application transactions.
    pub app: String,
    /// The generation of the run; 0: it keeps no state, and neither fences nor is fenced.
    pub generation: u64,
}

/// The log of one table.
pub(super) struct Log {
    pub(super) folder: PathBuf,
    pub(super) store: LogStoreRef,
    columns: StructType,
    pub(super) writer: Writer,
    /// The newest version that we know of.
    version: Version,
    /// The newest checkpoint of ours that the log has; of this run only where it keeps no state.
    pub(super) published: Option<u64>,
    /// True when the last commit may or may not have reached the log.
    uncertain: bool,
    /// True once older generations are shut out.
    pub(super) fenced: bool,
}

impl Log {
    /// Opens the log in `folder`; makes the table, or adds the columns it lacks.
    ///
    /// # Errors
    /// The log can't be read or written, or a column has another type.
    pub async fn open(folder: &Path, layout: &TableLayout, writer: Writer) -> anyhow::Result<Self> {
        mend(folder)?;
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
        Log::of(folder, &table, columns, writer).await
    }

    /// Opens the log of a table that is no longer written to.
    ///
    /// # Errors
    /// The log can't be read.
    pub async fn former(folder: &Path, writer: Writer) -> anyhow::Result<Self> {
        mend(folder)?;
        let mut table = table(folder)?;
        table.load().await?;
        Log::of(folder, &table, StructType::try_new([])?, writer).await
    }

    async fn of(folder: &Path, table: &DeltaTable, columns: StructType, writer: Writer) -> anyhow::Result<Self> {
        let mut log = Log {
            folder: folder.to_owned(),
            store: table.log_store(),
            columns,
            writer,
            version: 0,
            published: None,
            uncertain: false,
            fenced: false,
        };
        log.look_at(table.snapshot()?).await?;
        Ok(log)
    }

    /// Makes the parts of a checkpoint visible, all in one commit, unless the log has them.
    ///
    /// # Errors
    /// The commit failed, and may be tried again; or another run has taken over.
    pub async fn publish(&mut self, checkpoint: u64, parts: &[Part]) -> anyhow::Result<()> {
        if parts.is_empty() {
            return Ok(());
        }
        let mut state = match self.uncertain {
            true => Some(self.reread().await?),
            false => None,
        };
        for _ in 0..ATTEMPTS {
            if self.holds(checkpoint, parts, state.as_ref()) {
                return Ok(());
            }
            let operation = DeltaOperation::Write {
                mode: SaveMode::Append,
                partition_by: None,
                predicate: None,
            };
            let transactions = vec![self.progress(checkpoint)];
            if self
                .put(parts.iter().map(add).collect(), operation, transactions)
                .await?
            {
                self.published = Some(checkpoint);
                return Ok(());
            }
            // Another writer was first: see that the table is still one we can add to, and queue behind it.
            state = Some(self.reread().await?);
        }
        anyhow::bail!("another writer was first {ATTEMPTS} times in a row")
    }

    /// True when the log has the parts of this checkpoint.
    pub(super) fn holds(&self, checkpoint: u64, parts: &[Part], state: Option<&DeltaTableState>) -> bool {
        let by_number = self.published.is_some_and(|published| published >= checkpoint);
        // Runs without state count their checkpoints from the start, so that the log must be asked for the name.
        let by_name = || {
            let name = parts.first().map(|part| part.name.as_str());
            state.is_some_and(|state| state.log_data().iter().any(|file| Some(file.path().as_ref()) == name))
        };
        by_number || self.writer.generation == 0 && by_name()
    }

    pub(super) fn progress(&self, checkpoint: u64) -> Transaction {
        match self.writer.generation {
            0 => Transaction::new(format!("{}/stateless", self.writer.app), checkpoint as i64),
            _ => Transaction::new(&self.writer.app, checkpoint as i64),
        }
    }

    /// Puts the next entry of the log; false when another writer was first.
    pub(super) async fn put(
        &mut self,
        actions: Vec<Action>,
        operation: DeltaOperation,
        transactions: Vec<Transaction>,
    ) -> anyhow::Result<bool> {
        fault::point("history.commit")?;
        let entry = CommitData::new(actions, operation, HashMap::new(), transactions).get_bytes()?;
        let version = self.version + 1;
        self.uncertain = true;
        let put = self
            .store
            .write_commit_entry(version, CommitOrBytes::LogBytes(entry), uuid::Uuid::new_v4());
        match put.await {
            Ok(()) => {}
            Err(TransactionError::VersionAlreadyExists(_)) => return Ok(false),
            Err(error) => return Err(error.into()),
        }
        fault::point("history.committed")?;
        self.uncertain = false;
        self.version = version;
        self.checkpoint().await;
        Ok(true)
    }

    /// The table as the log says it is now.
    pub(super) async fn reread(&mut self) -> anyhow::Result<DeltaTableState> {
        let mut table = table(&self.folder)?;
        table.load().await?;
        let state = table.snapshot()?;
        anyhow::ensure!(
            absent(state, &self.columns)?.is_empty(),
            "another writer dropped columns"
        );
        self.look_at(state).await?;
        self.uncertain = false;
        Ok(state.clone())
    }

    async fn look_at(&mut self, state: &DeltaTableState) -> anyhow::Result<()> {
        PROTOCOL.can_write_to(state)?;
        self.version = state.version();
        if self.writer.generation == 0 {
            return Ok(());
        }
        let store = self.store.as_ref();
        let number = |found: Option<i64>| found.map(|number| number.max(0) as u64);
        let newest = number(state.transaction_version(store, GENERATION).await?);
        if let Some(newest) = newest.filter(|newest| *newest > self.writer.generation) {
            return Err(self.overtaken(newest));
        }
        self.published = number(state.transaction_version(store, &self.writer.app).await?);
        Ok(())
    }

    pub(super) fn overtaken(&self, newest: u64) -> anyhow::Error {
        let own = self.writer.generation;
        anyhow::anyhow!(
            "run {newest} has written to this table, and this is run {own}: either another run has taken over, or the state \
             in `_taktline` is not the one that belongs to this history; put that back, or write to another data directory"
        )
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

pub(super) fn add(part: &Part) -> Action {
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
