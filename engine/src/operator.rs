//! The operator contract: one instance per key, rows in, rows out.

use std::ops::Range;

use arrow::array::{Array, AsArray, RecordBatch};

use crate::snapshot::{Saved, Snapshot};
use crate::table::{Samples, Table};

/// A configured step of the pipeline: what it emits and how one key's operator is made.
///
/// It is shared by all workers and **must** be immutable.
pub trait Step: Send + Sync {
    /// The table that the step emits.
    fn output(&self) -> &Table;

    /// The order in which the step wants its rows.
    fn order(&self) -> Order;

    /// How far beyond a key's newest row its time may be advanced while it is silent, in µs. A cycle that times out needs
    /// it; rows that come after all and lie before that time are late. 0: time stands still without rows.
    fn patience_us(&self) -> i64 {
        0
    }

    /// What the state of this step is, as text: a version of its encoding and those settings without which the state makes
    /// no sense. State of another text is not given to [`Operator::restore`].
    fn state(&self) -> String;

    /// The operator of one key.
    fn operator(&self, key: &str) -> Box<dyn Operator>;
}

/// The order in which rows reach an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `samples` by (time, partition, offset): a row waits until its key's watermark, which trails the newest row by
    /// `lateness_us`, has passed it. Rows behind the watermark go to `late`.
    Time {
        /// How long a row may be out of order, in µs of event time.
        lateness_us: i64,
    },
    /// As the step before emitted them.
    Arrival,
}

/// The state of one key in one step.
///
/// It gets rows in the order that [`Step::order`] asked for and emits rows. It has no clock, thread, channel or
/// capability, and **must** give the same rows whatever the cut of its input into calls. It **never** panics on values:
/// an absent value is NaN, infinities occur.
pub trait Operator {
    /// Rows of this key, at least one.
    ///
    /// # Errors
    /// Only what can't be expressed as a row; it ends the run.
    fn rows(&mut self, rows: &Rows<'_>, out: &mut Output) -> anyhow::Result<()>;

    /// Event time of this key is complete up to `watermark_us`: no row before it will come. Called after the rows it
    /// covers, also when no row came but time passed. Only for steps with [`Order::Time`].
    ///
    /// # Errors
    /// As for [`Operator::rows`].
    fn advance(&mut self, watermark_us: i64, out: &mut Output) -> anyhow::Result<()> {
        let _ = (watermark_us, out);
        Ok(())
    }

    /// The input has ended: emit what is open.
    ///
    /// # Errors
    /// As for [`Operator::rows`].
    fn end(&mut self, out: &mut Output) -> anyhow::Result<()> {
        let _ = out;
        Ok(())
    }

    /// Gives the state: after [`Operator::restore`] of it in a new operator of this key, everything goes on as if
    /// nothing had happened. Asked at a checkpoint when the key had rows or its time moved since the last. Rows appended once
    /// ([`Snapshot::append`]) **must not** be appended again, unless [`Snapshot::whole`] asks for all.
    ///
    /// # Errors
    /// The state can't be encoded.
    fn snapshot(&mut self, into: &mut Snapshot) -> anyhow::Result<()>;

    /// Takes back the state that [`Operator::snapshot`] gave, before the first row. Signal numbers may be others than then; names stay.
    ///
    /// # Errors
    /// The state can't be read.
    fn restore(&mut self, saved: &Saved) -> anyhow::Result<()>;

    /// Asked once after [`Operator::end`]: a sentence for the end of the run where this key needs one, for example why
    /// no cycle was found.
    fn remark(&self) -> Option<String> {
        None
    }
}

/// Contiguous rows of one key.
#[derive(Clone)]
pub struct Rows<'a> {
    batch: &'a RecordBatch,
    range: Range<usize>,
}

impl<'a> Rows<'a> {
    /// The rows `range` of `batch`.
    pub fn new(batch: &'a RecordBatch, range: Range<usize>) -> Self {
        Rows { batch, range }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// True when there are none; the engine never hands out such.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// A batch of just these rows (no copy).
    pub fn batch(&self) -> RecordBatch {
        self.batch.slice(self.range.start, self.range.len())
    }

    /// These rows as columns of the `samples` table.
    ///
    /// Signal numbers are stable: one worker gives a signal of a step the same number for the whole run, and numbers
    /// count up from 0, so an operator may keep its signals in a `Vec`.
    ///
    /// # Errors
    /// The rows are of another table.
    pub fn samples(&self) -> anyhow::Result<SampleRows<'a>> {
        let all = Samples::of(self.batch)?;
        let range = self.range.clone();
        Ok(SampleRows {
            ts: &all.ts[range.clone()],
            signal: &all.signal[range.clone()],
            value: &all.value.values()[range],
            first: self.range.start,
            columns: all,
        })
    }
}

/// One key's samples as slices of the same length.
#[derive(Clone, Copy)]
pub struct SampleRows<'a> {
    /// Event time in µs, ascending.
    pub ts: &'a [i64],
    /// Signal number; see [`SampleRows::signal_name`].
    pub signal: &'a [i32],
    /// Reading; NaN where there is none.
    pub value: &'a [f64],
    first: usize,
    columns: Samples<'a>,
}

impl<'a> SampleRows<'a> {
    /// The name behind a signal number.
    pub fn signal_name(&self, signal: i32) -> &'a str {
        self.columns.signals.value(signal as usize)
    }

    /// How many signal numbers are known so far.
    pub fn signal_count(&self) -> usize {
        self.columns.signals.len()
    }

    /// The text of row `row`, where it has one.
    pub fn text(&self, row: usize) -> Option<&'a str> {
        let row = self.first + row;
        (!self.columns.text.is_null(row)).then(|| self.columns.text.value(row))
    }

    /// True when no row has text, so that a loop can skip asking.
    pub fn no_text(&self) -> bool {
        self.columns.text.null_count() == self.columns.text.len()
    }

    /// How good the reading of row `row` is, where its source said it.
    pub fn quality(&self, row: usize) -> Option<&'a str> {
        let qualities = self.columns.quality.values().as_string_opt::<i32>()?;
        let number = self.columns.quality.key(self.first + row)?;
        Some(qualities.value(number))
    }

    /// True when no row has a quality, so that a loop can skip asking.
    pub fn no_quality(&self) -> bool {
        self.columns.quality.null_count() == self.columns.quality.len()
    }
}

/// Where an operator puts the rows it emits.
#[derive(Default)]
pub struct Output {
    batches: Vec<RecordBatch>,
}

impl Output {
    /// Emits a batch of the step's output table; an empty one is ignored.
    pub fn emit(&mut self, batch: RecordBatch) {
        if batch.num_rows() > 0 {
            self.batches.push(batch);
        }
    }

    /// How many batches were emitted and not taken yet.
    pub(crate) fn len(&self) -> usize {
        self.batches.len()
    }

    /// Takes what was emitted, in order.
    pub fn take(&mut self) -> Vec<RecordBatch> {
        std::mem::take(&mut self.batches)
    }
}
