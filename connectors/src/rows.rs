//! Collects rows of the `samples` table column by column.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::builder::NullBufferBuilder;
use arrow::array::{
    ArrayRef, DictionaryArray, Float64Array, Int32Array, RecordBatch, StringArray, StringBuilder,
    StringDictionaryBuilder, TimestampMicrosecondArray, new_null_array,
};
use arrow::datatypes::{DataType, Int32Type};
use taktline_engine::table;

/// Rows of the `samples` table in the making.
#[derive(Default)]
pub(crate) struct Rows {
    /// Machine names; keys for [`Rows::push`].
    pub machines: Names,
    /// Signal names; keys for [`Rows::push`].
    pub signals: Names,
    machine: Vec<i32>,
    signal: Vec<i32>,
    ts: Vec<i64>,
    value: Vec<f64>,
    valid: Option<NullBufferBuilder>,
    text: Option<StringBuilder>,
    quality: Option<StringDictionaryBuilder<Int32Type>>,
}

impl Rows {
    /// How many rows there are.
    pub fn len(&self) -> usize {
        self.ts.len()
    }

    /// Adds a reading; `None` where the source had none.
    #[inline]
    pub fn push(&mut self, machine: i32, signal: i32, ts: i64, value: Option<f64>) {
        self.push_text(machine, signal, ts, value, None);
    }

    /// Adds a row that may have a text.
    #[inline]
    pub fn push_text(&mut self, machine: i32, signal: i32, ts: i64, value: Option<f64>, text: Option<&str>) {
        if value.is_none() || self.valid.is_some() {
            self.validity().append(value.is_some());
        }
        if text.is_some() || self.text.is_some() {
            self.texts().append_option(text);
        }
        if let Some(quality) = &mut self.quality {
            quality.append_null();
        }
        self.machine.push(machine);
        self.signal.push(signal);
        self.ts.push(ts);
        self.value.push(value.unwrap_or_default());
    }

    /// Adds a row that may have a text, and says how good its reading is.
    pub fn push_quality(
        &mut self,
        (machine, signal, ts): (i32, i32, i64),
        (value, text): (Option<f64>, Option<&str>),
        quality: &str,
    ) {
        let rows = self.ts.len();
        let mut qualities = self.quality.take().unwrap_or_else(|| {
            let mut qualities = StringDictionaryBuilder::new();
            (0..rows).for_each(|_| qualities.append_null());
            qualities
        });
        qualities.append_value(quality);
        self.push_text(machine, signal, ts, value, text);
        self.quality = Some(qualities);
    }

    /// Texts, null in all rows so far if this is the first.
    fn texts(&mut self) -> &mut StringBuilder {
        let rows = self.ts.len();
        self.text.get_or_insert_with(|| {
            let mut texts = StringBuilder::new();
            (0..rows).for_each(|_| texts.append_null());
            texts
        })
    }

    fn validity(&mut self) -> &mut NullBufferBuilder {
        let rows = self.ts.len();
        self.valid.get_or_insert_with(|| {
            let mut valid = NullBufferBuilder::new(rows + 1);
            valid.append_n_non_nulls(rows);
            valid
        })
    }

    /// The rows so far as a batch; starts anew, names included.
    pub fn finish(&mut self) -> anyhow::Result<RecordBatch> {
        let rows = std::mem::take(self);
        let count = rows.ts.len();
        let valid = rows.valid.and_then(NullBufferBuilder::build);
        let text: ArrayRef = match rows.text {
            Some(mut text) => Arc::new(text.finish()),
            None => new_null_array(&DataType::Utf8, count),
        };
        let quality: ArrayRef = match rows.quality {
            Some(mut quality) => Arc::new(quality.finish()),
            None => new_null_array(&table::name_type(), count),
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(rows.machines.column(rows.machine)?),
            Arc::new(rows.signals.column(rows.signal)?),
            Arc::new(TimestampMicrosecondArray::from(rows.ts).with_timezone("UTC")),
            Arc::new(Float64Array::new(rows.value.into(), valid)),
            text,
            quality,
        ];
        Ok(RecordBatch::try_new(table::samples().schema, columns)?)
    }
}

/// Names with a number each, in order of first use.
#[derive(Default)]
pub(crate) struct Names {
    names: Vec<Box<str>>,
    numbers: HashMap<Box<str>, i32>,
    /// The name that last came after each; files mostly repeat their names in one order, so this guess spares the map.
    follower: Vec<i32>,
    last: usize,
}

impl Names {
    /// The number of a name; `None` when it is empty or no UTF-8. Blanks around it don't count.
    #[inline]
    pub fn number(&mut self, name: &[u8]) -> Option<i32> {
        if let Some(&guess) = self.follower.get(self.last)
            && self.names[guess as usize].as_bytes() == name
        {
            self.last = guess as usize;
            return Some(guess);
        }
        self.look_up(name)
    }

    fn look_up(&mut self, name: &[u8]) -> Option<i32> {
        let name = std::str::from_utf8(name.trim_ascii())
            .ok()
            .filter(|name| !name.is_empty())?;
        let number = match self.numbers.get(name) {
            Some(number) => *number,
            None => {
                let number = self.names.len() as i32;
                self.names.push(name.into());
                self.numbers.insert(name.into(), number);
                self.follower.push(number);
                number
            }
        };
        if let Some(follower) = self.follower.get_mut(self.last) {
            *follower = number;
        }
        self.last = number as usize;
        Some(number)
    }

    fn column(self, keys: Vec<i32>) -> anyhow::Result<DictionaryArray<Int32Type>> {
        let names = StringArray::from_iter_values(&self.names);
        Ok(DictionaryArray::try_new(Int32Array::from(keys), Arc::new(names))?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use arrow::array::{Array, AsArray};

    use super::*;

    #[test]
    fn only_the_rows_that_say_so_have_a_text_or_a_quality() {
        let mut rows = Rows::default();
        let (machine, signal) = (rows.machines.number(b"m").unwrap(), rows.signals.number(b"s").unwrap());
        rows.push(machine, signal, 1, Some(1.0));
        rows.push_quality((machine, signal, 2), (None, None), "stale");
        rows.push_text(machine, signal, 3, None, Some("on"));
        rows.push_quality((machine, signal, 4), (Some(4.0), Some("x")), "bad");
        assert_eq!(rows.len(), 4);
        let batch = rows.finish().unwrap();
        let quality = batch.column(5).as_dictionary::<Int32Type>();
        let quality = quality.downcast_dict::<StringArray>().unwrap();
        let quality: Vec<Option<&str>> = quality.into_iter().collect();
        assert_eq!(quality, [None, Some("stale"), None, Some("bad")]);
        let text: Vec<Option<&str>> = batch.column(4).as_string::<i32>().iter().collect();
        assert_eq!(text, [None, None, Some("on"), Some("x")]);
        let value = batch.column(3);
        assert_eq!(
            (0..4).map(|row| value.is_valid(row)).collect::<Vec<_>>(),
            [true, false, false, true]
        );
        assert!(rows.finish().unwrap().column(5).is_empty());
    }
}
