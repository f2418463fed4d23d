//! Brings the rows of each key together for steps that take rows as they come.

use std::ops::Range;

use arrow::array::{AsArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::Int32Type;

use super::keys::Keys;
use crate::table::KEY;

/// All keys of one step on one worker.
pub(crate) struct InArrival {
    pub keys: Keys,
}

/// Rows in key order, and which are whose.
pub(crate) struct Arrived {
    pub batch: RecordBatch,
    pub runs: Vec<(u32, Range<usize>)>,
}

impl InArrival {
    pub fn new() -> Self {
        InArrival { keys: Keys::default() }
    }

    /// Takes an epoch's batches, in order.
    pub fn epoch(&mut self, batches: &[RecordBatch]) -> anyhow::Result<Arrived> {
        let all = concat_batches(&batches[0].schema(), batches)?;
        let machines = all
            .column_by_name(KEY)
            .and_then(|column| column.as_dictionary_opt::<Int32Type>());
        let machines = machines.ok_or_else(|| anyhow::anyhow!("rows without the column `{KEY}`"))?;
        let names = machines
            .values()
            .as_string_opt::<i32>()
            .ok_or_else(|| anyhow::anyhow!("`{KEY}` holds no text"))?;
        let numbers = self.keys.translate(names, machines.keys().values());
        let keys: Vec<u32> = machines
            .keys()
            .values()
            .iter()
            .map(|key| numbers[*key as usize])
            .collect();
        let mut order: Vec<u32> = (0..keys.len() as u32).collect();
        order.sort_by_key(|row| keys[*row as usize]); // stable: a key's rows keep their order
        let batch = if order.is_sorted() {
            all
        } else {
            take_record_batch(&all, &UInt32Array::from(order.clone()))?
        };
        let mut runs = Vec::new();
        for run in order.chunk_by(|a, b| keys[*a as usize] == keys[*b as usize]) {
            let start = runs.last().map_or(0, |(_, range): &(u32, Range<usize>)| range.end);
            runs.push((keys[run[0] as usize], start..start + run.len()));
        }
        Ok(Arrived { batch, runs })
    }
}
