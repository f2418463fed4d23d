//! Reads `cycles` batches.

use arrow::array::{Array, AsArray, Float64Array, RecordBatch, StringArray};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type, TimestampMicrosecondType, UInt64Type};
use taktline_engine::table::KEY;

use super::{Outcome, SIGNALS, SignalCycle, SignalStats, column};

/// A batch of cycles, extended or not, as rows.
pub struct CycleRows<'a> {
    machine: (&'a [i32], &'a StringArray),
    cycle_id: &'a StringArray,
    outcome: &'a StringArray,
    start: &'a [i64],
    end: &'a [i64],
    ends: &'a [i32],
    name: &'a StringArray,
    missing: &'a [u64],
    stats: Vec<&'a Float64Array>,
    text: &'a StringArray,
    value_ends: &'a [i32],
    offsets: &'a [i64],
    values: &'a [f64],
}

impl<'a> CycleRows<'a> {
    /// Borrows the columns of a batch.
    ///
    /// # Errors
    /// A column of [`schema`](super::schema) is absent or of another type.
    pub fn of(batch: &'a RecordBatch) -> anyhow::Result<Self> {
        let wrong = |name: &str| anyhow::anyhow!("column `{name}` is of another type");
        let text = |name: &str| column(batch, name)?.as_string_opt::<i32>().ok_or_else(|| wrong(name));
        let machine = column(batch, KEY)?
            .as_dictionary_opt::<Int32Type>()
            .ok_or_else(|| wrong(KEY))?;
        let list = column(batch, SIGNALS)?
            .as_list_opt::<i32>()
            .ok_or_else(|| wrong(SIGNALS))?;
        let signals = list.values().as_struct_opt().ok_or_else(|| wrong(SIGNALS))?;
        let inner = |name: &str| {
            signals
                .column_by_name(name)
                .ok_or_else(|| anyhow::anyhow!("`signals` lacks `{name}`"))
        };
        let inner_text = |name: &str| inner(name)?.as_string_opt::<i32>().ok_or_else(|| wrong(name));
        let inner_list = |name: &str| inner(name)?.as_list_opt::<i32>().ok_or_else(|| wrong(name));
        let time = |name: &str| {
            let array = column(batch, name)?.as_primitive_opt::<TimestampMicrosecondType>();
            Ok::<_, anyhow::Error>(array.ok_or_else(|| wrong(name))?.values().as_ref())
        };
        let mut stats = Vec::with_capacity(SignalStats::NAMES.len());
        for name in SignalStats::NAMES {
            stats.push(
                inner(name)?
                    .as_primitive_opt::<Float64Type>()
                    .ok_or_else(|| wrong(name))?,
            );
        }
        let (offsets, values) = (inner_list("offsets")?, inner_list("values")?);
        anyhow::ensure!(
            offsets.value_offsets() == values.value_offsets(),
            "`offsets` and `values` differ in length"
        );
        Ok(CycleRows {
            machine: (
                machine.keys().values(),
                machine.values().as_string_opt().ok_or_else(|| wrong(KEY))?,
            ),
            cycle_id: text("cycle_id")?,
            outcome: text("outcome")?,
            start: time("start")?,
            end: time("end")?,
            ends: list.value_offsets(),
            name: inner_text("signal")?,
            missing: inner("missing")?
                .as_primitive_opt::<UInt64Type>()
                .ok_or_else(|| wrong("missing"))?
                .values(),
            stats,
            text: inner_text("text")?,
            value_ends: values.value_offsets(),
            offsets: offsets
                .values()
                .as_primitive_opt::<Int64Type>()
                .ok_or_else(|| wrong("offsets"))?
                .values(),
            values: values
                .values()
                .as_primitive_opt::<Float64Type>()
                .ok_or_else(|| wrong("values"))?
                .values(),
        })
    }

    /// Number of cycles.
    pub fn len(&self) -> usize {
        self.start.len()
    }

    /// True when there are none.
    pub fn is_empty(&self) -> bool {
        self.start.is_empty()
    }

    /// Machine of cycle `row`.
    pub fn machine(&self, row: usize) -> &'a str {
        self.machine.1.value(self.machine.0[row] as usize)
    }

    /// Id of cycle `row`.
    pub fn cycle_id(&self, row: usize) -> &'a str {
        self.cycle_id.value(row)
    }

    /// How cycle `row` ended; compare with [`Outcome::as_str`].
    pub fn outcome(&self, row: usize) -> &'a str {
        self.outcome.value(row)
    }

    /// True when cycle `row` ended by its own condition and lasted long enough.
    pub fn is_complete(&self, row: usize) -> bool {
        self.outcome(row) == Outcome::Complete.as_str()
    }

    /// First moment of cycle `row`, µs since 1970.
    pub fn start_us(&self, row: usize) -> i64 {
        self.start[row]
    }

    /// Last moment of cycle `row`, µs since 1970.
    pub fn end_us(&self, row: usize) -> i64 {
        self.end[row]
    }

    /// The signals of cycle `row`, sorted by name.
    pub fn signals(&self, row: usize) -> impl ExactSizeIterator<Item = SignalCycle<'a>> + '_ {
        (self.ends[row] as usize..self.ends[row + 1] as usize).map(|index| {
            let range = self.value_ends[index] as usize..self.value_ends[index + 1] as usize;
            let stat = |column: &Float64Array| {
                if column.is_null(index) {
                    f64::NAN
                } else {
                    column.value(index)
                }
            };
            SignalCycle {
                name: self.name.value(index),
                missing: self.missing[index],
                stats: SignalStats::from_array(std::array::from_fn(|i| stat(self.stats[i]))),
                text: (!self.text.is_null(index)).then(|| self.text.value(index)),
                offsets: &self.offsets[range.clone()],
                values: &self.values[range],
            }
        })
    }
}
