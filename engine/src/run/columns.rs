//! Samples of one step as plain columns, on their way from frames to operators.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    DictionaryArray, Float64Array, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array,
};

use serde::{Deserialize, Serialize};

use super::keys::Keys;
use super::names::Names;
use crate::table;

/// Rows as columns of equal length. Texts are rare: their column is empty as long as no row has one.
#[derive(Default)]
pub(crate) struct Columns {
    pub ts: Vec<i64>,
    pub signal: Vec<i32>,
    pub value: Vec<f64>,
    text: Vec<Option<Arc<str>>>,
}

/// [`Columns`] in a checkpoint: signals by name.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct SavedColumns {
    names: Vec<String>,
    ts: Vec<i64>,
    signal: Vec<u32>,
    value: Vec<f64>,
    text: Vec<Option<String>>,
}

impl Columns {
    /// These rows for a checkpoint.
    pub fn save(&self, signals: &Names) -> SavedColumns {
        let mut numbers: Vec<i32> = self.signal.clone();
        numbers.sort_unstable();
        numbers.dedup();
        let place = |signal: &i32| numbers.partition_point(|number| number < signal) as u32;
        SavedColumns {
            ts: self.ts.clone(),
            signal: self.signal.iter().map(place).collect(),
            value: self.value.clone(),
            text: self
                .text
                .iter()
                .map(|text| text.as_deref().map(str::to_owned))
                .collect(),
            names: numbers
                .iter()
                .map(|number| signals.array().value(*number as usize).to_owned())
                .collect(),
        }
    }

    /// The rows that [`Columns::save`] gave.
    pub fn restore(saved: &SavedColumns, signals: &mut Names) -> anyhow::Result<Self> {
        let rows = saved.ts.len();
        let whole = saved.signal.len() == rows
            && saved.value.len() == rows
            && (saved.text.is_empty() || saved.text.len() == rows)
            && saved.signal.iter().all(|signal| (*signal as usize) < saved.names.len());
        anyhow::ensure!(whole, "waiting rows that don't fit together");
        let numbers = if rows == 0 {
            Vec::new()
        } else {
            signals.add(&saved.names)
        };
        Ok(Columns {
            ts: saved.ts.clone(),
            signal: saved
                .signal
                .iter()
                .map(|signal| numbers[*signal as usize] as i32)
                .collect(),
            value: saved.value.clone(),
            text: saved.text.iter().map(|text| text.as_deref().map(Into::into)).collect(),
        })
    }

    /// This many rows of nothing, to be [`Columns::put`].
    pub fn sized(rows: usize) -> Self {
        Columns {
            ts: vec![0; rows],
            signal: vec![0; rows],
            value: vec![0.0; rows],
            text: Vec::new(),
        }
    }

    pub fn len(&self) -> usize {
        self.ts.len()
    }

    pub fn put_text(&mut self, row: usize, text: &str) {
        self.text.resize(self.ts.len(), None);
        self.text[row] = Some(text.into());
    }

    /// Appends the rows `range` of `other`.
    pub fn append(&mut self, other: &Columns, range: Range<usize>) {
        if !other.text.is_empty() || !self.text.is_empty() {
            self.text.resize(self.ts.len(), None);
            let texts = other.text.get(range.clone()).map(<[_]>::to_vec);
            self.text.extend(texts.unwrap_or_else(|| vec![None; range.len()]));
        }
        self.ts.extend_from_slice(&other.ts[range.clone()]);
        self.signal.extend_from_slice(&other.signal[range.clone()]);
        self.value.extend_from_slice(&other.value[range]);
    }

    /// Removes the first `rows` rows.
    pub fn remove_first(&mut self, rows: usize) {
        self.ts.drain(..rows);
        self.signal.drain(..rows);
        self.value.drain(..rows);
        if !self.text.is_empty() {
            self.text.drain(..rows);
        }
    }

    /// Sorts the rows `range` by time; rows of the same time keep their order.
    pub fn sort(&mut self, range: Range<usize>) {
        if self.ts[range.clone()].is_sorted() {
            return;
        }
        let mut order: Vec<usize> = range.clone().collect();
        order.sort_by_key(|row| self.ts[*row]);
        reorder(&mut self.ts, &order, range.start);
        reorder(&mut self.signal, &order, range.start);
        reorder(&mut self.value, &order, range.start);
        if !self.text.is_empty() {
            reorder(&mut self.text, &order, range.start);
        }
    }

    /// The rows as a `samples` batch; `runs` says whose they are. Quality stays with the source's edge.
    pub fn into_batch(self, runs: &[(u32, Range<usize>)], keys: &Keys, signals: &Names) -> anyhow::Result<RecordBatch> {
        let rows = self.ts.len();
        let mut machine = vec![0i32; rows];
        for (place, (_, range)) in runs.iter().enumerate() {
            machine[range.clone()].fill(place as i32);
        }
        let machines = StringArray::from_iter_values(runs.iter().map(|(key, _)| keys.name(*key)));
        let text = if self.text.is_empty() {
            new_null_array(&arrow::datatypes::DataType::Utf8, rows)
        } else {
            let mut text = self.text;
            text.resize(rows, None);
            Arc::new(StringArray::from_iter(text.iter().map(Option::as_deref)))
        };
        let machine = DictionaryArray::try_new(Int32Array::from(machine), Arc::new(machines))?;
        let signal = DictionaryArray::try_new(Int32Array::from(self.signal), Arc::new(signals.array().clone()))?;
        Ok(RecordBatch::try_new(
            table::samples().schema,
            vec![
                Arc::new(machine),
                Arc::new(signal),
                Arc::new(TimestampMicrosecondArray::from(self.ts).with_timezone("UTC")),
                Arc::new(Float64Array::from(self.value)),
                text,
                new_null_array(&table::name_type(), rows),
            ],
        )?)
    }
}

fn reorder<T: Clone>(column: &mut [T], order: &[usize], start: usize) {
    let sorted: Vec<T> = order.iter().map(|row| column[*row].clone()).collect();
    column[start..start + sorted.len()].clone_from_slice(&sorted);
}
