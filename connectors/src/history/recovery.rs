//! What is to be done in a Delta log before a run goes on: shut older runs out, take back, publish, clean up.

use std::collections::HashSet;

use deltalake::kernel::{Action, Transaction};
use deltalake::protocol::DeltaOperation;
use deltalake::table::state::DeltaTableState;
use futures::TryStreamExt;

use super::log::{ATTEMPTS, GENERATION, Log, add};
use super::part::{Part, PartName};

impl Log {
    /// Shuts older generations out, takes back what checkpoints after `checkpoint` published, and publishes `parts`
    /// unless the log has them; all in one commit. Then files that nothing can need any more are removed.
    ///
    /// # Errors
    /// As for [`Log::publish`], or the table was written by a run that this run's state knows nothing of.
    pub async fn recover(&mut self, checkpoint: u64, parts: &[Part]) -> anyhow::Result<()> {
        for _ in 0..ATTEMPTS {
            let state = self.reread().await?;
            let mut actions = Vec::new();
            let mut rows = 0;
            for file in state.log_data().iter() {
                let Some(name) = PartName::parse(&file.path()).filter(|name| name.generation > 0) else {
                    continue;
                };
                if name.generation >= self.writer.generation && !self.fenced {
                    return Err(self.overtaken(name.generation));
                }
                if name.checkpoint.is_some_and(|number| number > checkpoint) {
                    rows += file.num_records().unwrap_or_default();
                    actions.push(Action::Remove(file.remove_action(true)));
                }
            }
            if !actions.is_empty() {
                tracing::warn!(
                    "{}: {rows} rows that were published after checkpoint {checkpoint} are taken back",
                    self.folder.display()
                );
            }
            let mut transactions = Vec::new();
            if !parts.is_empty() && !self.holds(checkpoint, parts, Some(&state)) {
                actions.extend(parts.iter().map(add));
                transactions.push(self.progress(checkpoint));
            }
            if !self.fenced {
                transactions.push(Transaction::new(GENERATION, self.writer.generation as i64));
            }
            let operation = DeltaOperation::Delete {
                predicate: Some(format!("checkpoint > {checkpoint}")),
            };
            if (actions.is_empty() && transactions.is_empty()) || self.put(actions, operation, transactions).await? {
                self.fenced = true;
                let state = self.reread().await?;
                return self.sweep(&state, parts).await;
            }
        }
        anyhow::bail!("another writer was first {ATTEMPTS} times in a row")
    }

    /// Removes files of older generations that were never committed: they are shut out, and what their last checkpoint
    /// staged has been committed. Files that were taken back stay for readers of older versions.
    async fn sweep(&self, state: &DeltaTableState, staged: &[Part]) -> anyhow::Result<()> {
        let mut known: HashSet<String> = state.log_data().iter().map(|file| file.path().into_owned()).collect();
        let gone: Vec<String> = state
            .all_tombstones(self.store.as_ref())
            .map_ok(|file| file.path().into_owned())
            .try_collect()
            .await?;
        known.extend(gone);
        known.extend(staged.iter().map(|part| part.name.clone()));
        for entry in std::fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let older =
                PartName::parse(&name).is_some_and(|part| (1..self.writer.generation).contains(&part.generation));
            if older && !known.contains(&name) {
                match std::fs::remove_file(entry.path()) {
                    Ok(()) => tracing::info!("{}: removed; it was never published", entry.path().display()),
                    Err(error) => tracing::warn!("{}: left behind by an earlier run: {error}", entry.path().display()),
                }
            }
        }
        Ok(())
    }
}
