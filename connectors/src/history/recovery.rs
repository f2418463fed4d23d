//! What is to be done in a Delta log before a run goes on: shut older runs out, take back, publish, clean up.

use std::collections::HashSet;
use std::fs;
use std::io::ErrorKind;

use anyhow::Context;
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
    /// As for [`Log::publish`]; the table was written by a run that this run's state knows nothing of; or a part of
    /// `parts` that the log doesn't have is gone.
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
                self.see(checkpoint, parts)?;
                actions.extend(parts.iter().map(add));
                transactions.push(self.progress(checkpoint));
            } else if self.published.is_some_and(|published| published > checkpoint) {
                // A number that is used again must not look published; another sink of this table may have removed the rows.
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
                return self.sweep(&state, checkpoint).await;
            }
        }
        anyhow::bail!("another writer was first {ATTEMPTS} times in a row")
    }

    /// Sees that what is about to be committed is there, whole: a commit that names a missing file is a table that nobody
    /// can read.
    fn see(&self, checkpoint: u64, parts: &[Part]) -> anyhow::Result<()> {
        for part in parts {
            let path = self.folder.join(&part.name);
            let place = path.display();
            let size = match fs::metadata(&path) {
                Ok(file) => file.len(),
                Err(error) if error.kind() == ErrorKind::NotFound => anyhow::bail!(
                    "{place} was staged for checkpoint {checkpoint} and is gone; put it back, go on from a savepoint, or \
                     begin anew with --overwrite"
                ),
                Err(error) => return Err(error).with_context(|| place.to_string()),
            };
            anyhow::ensure!(
                size == part.size,
                "{place} was staged for checkpoint {checkpoint} with {} bytes and has {size}; put it back, go on from a \
                 savepoint, or begin anew with --overwrite",
                part.size
            );
        }
        Ok(())
    }

    /// Removes files of older generations that were never committed and can't be any more. What was staged for
    /// `checkpoint` stays until a later start: another sink of this data directory may still have to commit it. Files that
    /// were taken back stay for readers of older versions.
    async fn sweep(&self, state: &DeltaTableState, checkpoint: u64) -> anyhow::Result<()> {
        let mut known: HashSet<String> = state.log_data().iter().map(|file| file.path().into_owned()).collect();
        let gone: Vec<String> = state
            .all_tombstones(self.store.as_ref())
            .map_ok(|file| file.path().into_owned())
            .try_collect()
            .await?;
        known.extend(gone);
        let shut_out = 1..self.writer.generation;
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let useless = PartName::parse(&name)
                .is_some_and(|part| shut_out.contains(&part.generation) && part.checkpoint != Some(checkpoint));
            if useless && !known.contains(&name) {
                match fs::remove_file(entry.path()) {
                    Ok(()) => tracing::info!("{}: removed; it was never published", entry.path().display()),
                    Err(error) => tracing::warn!("{}: left behind by an earlier run: {error}", entry.path().display()),
                }
            }
        }
        Ok(())
    }
}
