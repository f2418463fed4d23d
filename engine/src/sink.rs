//! The sink contract: write, stage, publish.

use std::time::Duration;

use arrow::array::RecordBatch;

/// A configured sink, shared by all workers.
pub trait SinkPlan: Send + Sync {
    /// Opens the sink; called once per process, before the first row.
    ///
    /// # Errors
    /// The target can't be reached or written; the message names it and the setting.
    fn open(&self) -> anyhow::Result<Box<dyn Sink>>;

    /// How often staged rows are published while the run goes on.
    fn publish_every(&self) -> Duration {
        Duration::from_secs(1)
    }
}

/// Takes rows out of the engine. Runs on a thread of its own and **may** block: the engine bounds the rows on their way
/// to it, and a slow sink slows the sources.
pub trait Sink: Send {
    /// Takes rows of the edge with this index in the sink's `inputs`. They need not be durable or visible on return.
    ///
    /// # Errors
    /// The rows can't be taken; the run ends with this error.
    fn write(&mut self, input: usize, batch: &RecordBatch) -> anyhow::Result<()>;

    /// Makes everything written so far durable, still invisible to readers.
    ///
    /// # Errors
    /// As for [`Sink::write`].
    fn stage(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Makes everything staged visible. Publishing the same staged rows twice **must** show them once.
    ///
    /// # Errors
    /// As for [`Sink::write`].
    fn publish(&mut self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Called once, after the last row: stages and publishes what is left. Unlike [`Sink::publish`] it **must not** wait for
    /// ever for a target that is away.
    ///
    /// # Errors
    /// As for [`Sink::write`], or what could not be published in time.
    fn close(&mut self) -> anyhow::Result<()> {
        self.stage()?;
        self.publish()
    }
}
