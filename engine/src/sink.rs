//! The sink contract: write, stage, publish.

use std::path::PathBuf;

use arrow::array::RecordBatch;

use crate::state::Staged;

/// A configured sink, shared by all workers.
pub trait SinkPlan: Send + Sync {
    /// Opens the sink; called once per process, before the first row.
    ///
    /// # Errors
    /// The target can't be reached or written; the message names it and the setting.
    fn open(&self, opening: &Opening) -> anyhow::Result<Box<dyn Sink>>;
}

/// What a sink is told when it is opened.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    /// The generation of this run; a newer one fences it. 0: the run keeps no state.
    pub generation: u64,
    /// True in the one process of a run that publishes.
    pub publishes: bool,
    /// Where the sink may keep what it stages, shared by all processes of the run; it is not made yet. None if the run keeps no state.
    pub folder: Option<PathBuf>,
}

/// Takes rows out of the engine. Runs on a thread of its own and **may** block: the engine bounds the rows on their way
/// to it, and a slow sink slows the sources.
///
/// Rows are written as they come. At a checkpoint every process stages, then the checkpoint becomes real, then one process
/// publishes what all staged. A crash between any two of these ends in [`Sink::recover`].
pub trait Sink: Send {
    /// Called once, before the first row, in the process that publishes and when the run keeps state: exactly the checkpoints up to `checkpoint`
    /// shall be visible. `staged` is what it staged, to be published if that had not been done; what later checkpoints published is taken
    /// back. From here on, writers of older generations **must** fail.
    ///
    /// # Errors
    /// As for [`Sink::publish`].
    fn recover(&mut self, checkpoint: u64, staged: &[Staged]) -> anyhow::Result<()> {
        let _ = (checkpoint, staged);
        Ok(())
    }

    /// Takes rows of the edge with this index in the sink's `inputs`. They need not be durable or visible on return.
    ///
    /// # Errors
    /// The rows can't be taken; the run ends with this error.
    fn write(&mut self, input: usize, batch: &RecordBatch) -> anyhow::Result<()>;

    /// Makes everything written since the last stage durable, and gives what [`Sink::publish`] needs to make it visible: perhaps
    /// in another process, perhaps after a crash. A sink that can't hide rows **must** see them safe at its target here.
    ///
    /// # Errors
    /// As for [`Sink::write`].
    fn stage(&mut self, checkpoint: u64) -> anyhow::Result<Staged>;

    /// Makes visible what all processes staged for `checkpoint`. Doing it twice **must** show the rows once.
    ///
    /// # Errors
    /// As for [`Sink::write`], or another run has taken over.
    fn publish(&mut self, checkpoint: u64, staged: &[Staged]) -> anyhow::Result<()> {
        let _ = (checkpoint, staged);
        Ok(())
    }

    /// Rows that the target refused for good since the last call: they are not there, the next ones went on.
    fn refused(&mut self) -> u64 {
        0
    }
}
