//! The source contract: partitions read bytes, a decoder makes rows of them.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use serde_json::Value;

/// A configured source. Lives for the whole run and is shared by all workers.
///
/// A source reads in two halves, so that reading stays cheap and the costly half runs on every worker: a
/// [`Partition`] yields *raw* batches in order, a [`Decoder`] turns each of them into `samples` rows.
///
/// It **must** list the same partitions in the same order on every worker and in every run over the same input. It
/// **must not** start reading before [`Source::open`].
pub trait Source: Send + Sync {
    /// The names of the partitions.
    ///
    /// # Errors
    /// The input isn't there or can't be listed; the message names it and the setting.
    fn partitions(&self) -> anyhow::Result<Vec<String>>;

    /// Opens a partition by its index in [`Source::partitions`], at its beginning or at an offset that
    /// [`Partition::offset`] once gave. `wake` may be called from any thread when there is more to poll.
    ///
    /// # Errors
    /// The partition can't be read, or not from there (the file is another one now); the message says so.
    fn open(&self, partition: usize, from: Option<&Value>, wake: Wake) -> anyhow::Result<Box<dyn Partition>>;

    /// Opens a partition only to look at what comes. Outside **must not** be told that anything has arrived, and a run that reads the
    /// same source **must not** be disturbed: no client id, group or port of it.
    ///
    /// # Errors
    /// As for [`Source::open`].
    fn look(&self, partition: usize, wake: Wake) -> anyhow::Result<Box<dyn Partition>> {
        self.open(partition, None, wake)
    }

    /// The offset that a partition is opened at, out of `known`: what this source's partitions gave at the checkpoint, by name, and those
    /// that are no longer listed when they were. By default its own. A source whose partitions divide the same input among them, and may
    /// be more or fewer now, puts it together here. Asked only of sources that are [`Source::replayable`].
    fn read_on(&self, partition: &str, known: &BTreeMap<String, Value>) -> Option<Value> {
        known.get(partition).cloned()
    }

    /// A decoder; each worker has its own.
    fn decoder(&self) -> Box<dyn Decoder>;

    /// True when the input ends by itself (files), false when it goes on for ever (a broker).
    fn bounded(&self) -> bool;

    /// True when the same rows can be read again from an offset (files), false when they are gone (MQTT): the engine then
    /// puts its journal between, and no partition of this source is asked for an offset.
    fn replayable(&self) -> bool;
}

/// Tells the engine that a partition has something to poll.
pub type Wake = std::sync::Arc<dyn Fn() + Send + Sync>;

/// One ordered part of a source, read by one worker.
///
/// It **must** return from [`Partition::poll`] at once: waiting happens on a thread or task of its own behind a bounded
/// queue. It **must** yield raw batches in a fixed order; a bounded partition yields the same batches, cut at the same
/// places, in every run. It **may** hold a raw batch back as long as its queue is bounded. After [`Poll::End`] it is
/// not polled again. Dropping it stops reading.
pub trait Partition: Send {
    /// The next raw batch, if there is one now. At most about 1 MiB or 16,384 rows at a time.
    ///
    /// # Errors
    /// Reading can't go on. What was read before is kept and published; the run then ends with this error.
    fn poll(&mut self) -> anyhow::Result<Poll>;

    /// Stop reading: no more is taken from outside. True when something is left that outside believes to be ours (a message
    /// that was acknowledged): poll then gives it, and [`Poll::End`] after it. False lets the partition be dropped at once.
    fn stop(&mut self) -> bool {
        false
    }

    /// Where the next poll reads on: [`Source::open`] with it yields exactly the raw batches after the last one polled, cut at the same
    /// places if the partition is bounded. JSON, for people to read in a checkpoint.
    fn offset(&self) -> Value {
        Value::Null
    }

    /// The first `batches` raw batches that were polled, counted from the start, are durable: outside may be told that they
    /// are ours. Asked only of sources that are not [`Source::replayable`].
    ///
    /// # Errors
    /// Outside can't be told; the run goes on, and outside will give them again.
    fn acknowledge(&mut self, batches: u64) -> anyhow::Result<()> {
        let _ = batches;
        Ok(())
    }

    /// Called once, before the first poll, where the journal was written to by an earlier run: gives its newest raw batches, newest first, as
    /// far as they are still there. By them a partition knows what outside gives a second time. It **may** stop at any of them.
    fn recall(&mut self, newest: &mut dyn Iterator<Item = RecordBatch>) {
        let _ = newest;
    }

    /// A checkpoint with this offset is real: outside may be told, for others to see. Asked only of sources that are
    /// [`Source::replayable`].
    fn committed(&mut self, offset: &Value) {
        let _ = offset;
    }

    /// How many messages or rows wait outside to be read, where that is known.
    fn lag(&self) -> Option<u64> {
        None
    }

    /// Where reading has come to, as text for people (`dryer.csv:1200`), and how far in `[0, 1]` where that is known.
    fn position(&self) -> Position;
}

/// What a partition has for the current epoch.
#[derive(Debug)]
pub enum Poll {
    /// A raw batch with at least one row. The epoch is over for this partition.
    Batch(RecordBatch),
    /// Nothing in this epoch; time goes on without it (a broker that is silent, a replay that isn't due).
    Idle,
    /// More is coming but isn't here yet: the epoch waits for it, so that a bounded input falls into the same epochs in
    /// every run.
    Wait,
    /// No more, ever.
    End,
}

/// Where a partition has come to.
#[derive(Clone, Debug, Default)]
pub struct Position {
    /// For people: file and row, topic and count.
    pub text: String,
    /// Share of the input that has been read, where the input has an end.
    pub fraction: Option<f64>,
}

/// Turns raw batches into rows.
///
/// It **must** be a pure function of the batch and its own configuration: batches of one partition go to different
/// workers. It **never** panics on input and never drops a row silently: what it can't read goes to
/// [`Decoded::dead_letters`].
pub trait Decoder: Send {
    /// Decodes one raw batch.
    ///
    /// # Errors
    /// Only for a raw batch that this source could not have made, or a file that vanished; it ends the run.
    fn decode(&mut self, raw: &RecordBatch) -> anyhow::Result<Decoded>;

    /// Rows that were read and left out because the configuration says so (a list of allowed signals), since the last call.
    fn left_out(&mut self) -> u64 {
        0
    }
}

/// The rows of one raw batch, in the order of the input.
#[derive(Debug)]
pub struct Decoded {
    /// Rows of the `samples` table; may be empty.
    pub samples: RecordBatch,
    /// Rows of the `dead_letters` table; may be empty. Build them with [`crate::DeadLetters`].
    pub dead_letters: RecordBatch,
}
