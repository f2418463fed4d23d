//! Samples of one step as plain columns, on their way from frames to operators.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Float64Array, Int32Array, RecordBatch, StringArray, TimestampMicrosecondArray,
    new_null_array,
};
use arrow::datatypes::{DataType, Int32Type};

use serde::{Deserialize, Serialize};

use super::keys::Keys;
use super::names::Names;
use crate::table;

/// Rows as columns of equal length.
#[derive(Default)]
pub(crate) struct Columns {
    pub ts: Vec<i64>,
    pub signal: Vec<i32>,
    pub value: Vec<f64>,
    pub text: Words,
    pub quality: Words,
}

/// Words that few rows have: empty as long as no row has one.
#[derive(Default)]
pub(crate) struct Words(Vec<Option<Arc<str>>>);

/// [`Columns`] in a checkpoint: signals by name.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct SavedColumns {
    names: Vec<String>,
    ts: Vec<i64>,
    signal: Vec<u32>,
    value: Vec<f64>,
    text: Vec<Option<String>>,
    quality: Vec<Option<String>>,
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
            text: self.text.save(),
            quality: self.quality.save(),
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
            && [&saved.text, &saved.quality]
                .iter()
                .all(|words| words.is_empty() || words.len() == rows)
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
            text: Words::restore(&saved.text),
            quality: Words::restore(&saved.quality),
        })
    }

    /// This many rows of nothing, to be [`Columns::put`].
    pub fn sized(rows: usize) -> Self {
        Columns {
            ts: vec![0; rows],
            signal: vec![0; rows],
            value: vec![0.0; rows],
            text: Words::default(),
            quality: Words::default(),
        }
    }

    pub fn len(&self) -> usize {
        self.ts.len()
    }

    /// Appends the rows `range` of `other`.
    pub fn append(&mut self, other: &Columns, range: Range<usize>) {
        self.text.append(self.ts.len(), &other.text, range.clone());
        self.quality.append(self.ts.len(), &other.quality, range.clone());
        self.ts.extend_from_slice(&other.ts[range.clone()]);
        self.signal.extend_from_slice(&other.signal[range.clone()]);
        self.value.extend_from_slice(&other.value[range]);
    }

    /// Removes the first `rows` rows.
    pub fn remove_first(&mut self, rows: usize) {
        self.ts.drain(..rows);
        self.signal.drain(..rows);
        self.value.drain(..rows);
        self.text.remove_first(rows);
        self.quality.remove_first(rows);
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
        self.text.reorder(&order, range.start);
        self.quality.reorder(&order, range.start);
    }

    /// The rows as a `samples` batch; `runs` says whose they are.
    pub fn into_batch(self, runs: &[(u32, Range<usize>)], keys: &Keys, signals: &Names) -> anyhow::Result<RecordBatch> {
        let rows = self.ts.len();
        let mut machine = vec![0i32; rows];
        for (place, (_, range)) in runs.iter().enumerate() {
            machine[range.clone()].fill(place as i32);
        }
        let machines = StringArray::from_iter_values(runs.iter().map(|(key, _)| keys.name(*key)));
        let machine = DictionaryArray::try_new(Int32Array::from(machine), Arc::new(machines))?;
        let signal = DictionaryArray::try_new(Int32Array::from(self.signal), Arc::new(signals.array().clone()))?;
        Ok(RecordBatch::try_new(
            table::samples().schema,
            vec![
                Arc::new(machine),
                Arc::new(signal),
                Arc::new(TimestampMicrosecondArray::from(self.ts).with_timezone("UTC")),
                Arc::new(Float64Array::from(self.value)),
                self.text.into_array(rows),
                self.quality.into_names(rows),
            ],
        )?)
    }
}

impl Words {
    /// Says the word of one of `rows` rows.
    pub fn put(&mut self, row: usize, rows: usize, word: &str) {
        self.0.resize(rows, None);
        self.0[row] = Some(word.into());
    }

    /// Appends those of the rows `range` of `other` to those of `rows` rows.
    fn append(&mut self, rows: usize, other: &Words, range: Range<usize>) {
        if self.0.is_empty() && other.0.is_empty() {
            return;
        }
        self.0.resize(rows, None);
        match other.0.get(range.clone()) {
            Some(words) => self.0.extend_from_slice(words),
            None => self.0.resize(rows + range.len(), None),
        }
    }

    fn remove_first(&mut self, rows: usize) {
        if !self.0.is_empty() {
            self.0.drain(..rows);
        }
    }

    fn reorder(&mut self, order: &[usize], start: usize) {
        if !self.0.is_empty() {
            reorder(&mut self.0, order, start);
        }
    }

    fn save(&self) -> Vec<Option<String>> {
        let words = self.0.iter();
        words.map(|word| word.as_deref().map(str::to_owned)).collect()
    }

    fn restore(saved: &[Option<String>]) -> Self {
        Words(saved.iter().map(|word| word.as_deref().map(Into::into)).collect())
    }

    fn into_array(mut self, rows: usize) -> ArrayRef {
        if self.0.is_empty() {
            return new_null_array(&DataType::Utf8, rows);
        }
        self.0.resize(rows, None);
        Arc::new(StringArray::from_iter(self.0.iter().map(Option::as_deref)))
    }

    /// As an array of names: few different words.
    fn into_names(mut self, rows: usize) -> ArrayRef {
        if self.0.is_empty() {
            return new_null_array(&table::name_type(), rows);
        }
        self.0.resize(rows, None);
        let names: DictionaryArray<Int32Type> = self.0.iter().map(Option::as_deref).collect();
        Arc::new(names)
    }
}

fn reorder<T: Clone>(column: &mut [T], order: &[usize], start: usize) {
    let sorted: Vec<T> = order.iter().map(|row| column[*row].clone()).collect();
    column[start..start + sorted.len()].clone_from_slice(&sorted);
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quality(ts: i64) -> Option<String> {
        [None, Some("stale"), None, Some("bad"), None][ts as usize % 5].map(str::to_owned)
    }

    fn rows(times: &[i64]) -> Columns {
        let mut columns = Columns::sized(times.len());
        for (row, ts) in times.iter().enumerate() {
            columns.ts[row] = *ts;
            if let Some(word) = quality(*ts) {
                columns.quality.put(row, times.len(), &word);
            }
        }
        columns
    }

    proptest! {
        /// Words stay with their rows, however rows are brought together, sorted, taken away and restored.
        #[test]
        fn words_stay_with_their_rows(
            parts in prop::collection::vec(prop::collection::vec(0_i64..20, 0..6), 1..6),
            skip in 0_usize..3,
            taken in 0_usize..9,
        ) {
            let mut all = Columns::default();
            for part in &parts {
                let part = rows(part);
                all.append(&part, skip.min(part.len())..part.len());
            }
            all.sort(0..all.len());
            all.remove_first(taken.min(all.len()));
            let (count, saved) = (all.len(), all.quality.save());
            let restored = Words::restore(&saved).into_names(count);
            let names = restored.as_any().downcast_ref::<DictionaryArray<Int32Type>>().unwrap();
            let names = names.downcast_dict::<StringArray>().unwrap();
            let found: Vec<Option<String>> = names.into_iter().map(|word| word.map(str::to_owned)).collect();
            let expect: Vec<Option<String>> = all.ts.iter().map(|ts| quality(*ts)).collect();
            prop_assert_eq!(found, expect);
        }
    }
}
