//! One Delta log: create it, add columns to it, commit parts to it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties, TableReference};
use deltalake::kernel::{Action, Add, StructField, StructType, Transaction};
use deltalake::logstore::LogStoreRef;
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::table::state::DeltaTableState;
use deltalake::{DeltaTable, DeltaTableBuilder};
use url::Url;

use super::files::DurableFiles;
use super::layout::TableLayout;
use super::part::Part;

/// The log of one table, and what is on its way into it.
pub(super) struct Log {
    store: LogStoreRef,
    state: DeltaTableState,
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
        let wanted: StructType = layout
            .stored
            .as_ref()
            .try_into_kernel()
            .context("columns that Delta can't keep")?;
        if table.verify_deltatable_existence().await? {
            table.load().await?;
            table = add_columns(table, &wanted).await?;
        } else {
            let columns = wanted.fields().cloned();
            let create = table.create().with_table_name(layout.name).with_columns(columns);
            table = create.with_save_mode(SaveMode::Ignore).await?;
        }
        let store = table.log_store();
        let state = table.snapshot()?.clone();
        let last = state.transaction_version(store.as_ref(), app).await?;
        Ok(Log {
            store,
            state,
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
        if !self.attempted.is_empty() {
            self.state.update(&self.store, None).await?;
            let last = self.state.transaction_version(self.store.as_ref(), &self.app).await?;
            if last.is_some_and(|last| self.next <= last) {
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
        let transaction = Transaction::new(&self.app, self.next);
        let properties = CommitProperties::default().with_application_transaction(transaction);
        let operation = DeltaOperation::Write {
            mode: SaveMode::Append,
            partition_by: None,
            predicate: None,
        };
        let commit = CommitBuilder::from(properties)
            .with_actions(self.attempted.iter().map(add).collect())
            .build(Some(&self.state as &dyn TableReference), self.store.clone(), operation)
            .await?;
        self.state = commit.snapshot;
        self.committed();
        Ok(())
    }

    fn committed(&mut self) {
        self.attempted.clear();
        self.next += 1;
    }
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
    let known = table.snapshot()?.schema();
    let mut absent: Vec<StructField> = Vec::new();
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
    if absent.is_empty() {
        return Ok(table);
    }
    Ok(table.add_columns().with_fields(absent).await?)
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
