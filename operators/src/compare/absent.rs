//! Rows for signals that the reference has and a cycle lacks: they are said, not left out.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, RecordBatch, StringArray, StructArray, UInt32Array, UInt64Array,
    new_empty_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, UInt64Type};

use crate::cycles::SIGNALS;

/// `batch` with a signal of 0 samples for each name in `absent` (one list per row), sorted in among the others.
///
/// # Errors
/// `batch` is no batch of cycles.
pub(super) fn with_absent(batch: &RecordBatch, absent: &[Vec<String>]) -> anyhow::Result<RecordBatch> {
    if absent.iter().all(Vec::is_empty) {
        return Ok(batch.clone());
    }
    let wrong = || anyhow::anyhow!("`signals` is no list of signals");
    let index = batch.schema_ref().index_of(SIGNALS)?;
    let list = batch.column(index).as_list_opt::<i32>().ok_or_else(wrong)?;
    let signals = list.values().as_struct_opt().ok_or_else(wrong)?;
    let known = signals
        .column_by_name("signal")
        .and_then(|c| c.as_string_opt::<i32>())
        .ok_or_else(wrong)?;
    let (mut sources, mut names, mut ends) = (Vec::new(), Vec::new(), vec![0]);
    for (bounds, absent) in list.value_offsets().windows(2).zip(absent) {
        let present = (bounds[0] as u32..bounds[1] as u32).map(|at| (known.value(at as usize), Some(at)));
        let mut all: Vec<(&str, Option<u32>)> =
            present.chain(absent.iter().map(|name| (name.as_str(), None))).collect();
        all.sort_by_key(|(name, _)| *name);
        for (name, source) in all {
            names.push(name);
            sources.push(source);
        }
        ends.push(sources.len() as i32);
    }
    let sources = UInt32Array::from(sources);
    let names: ArrayRef = Arc::new(StringArray::from(names));
    let mut columns = Vec::with_capacity(signals.num_columns());
    for (field, column) in signals.fields().iter().zip(signals.columns()) {
        columns.push(if field.name() == "signal" {
            names.clone()
        } else {
            filled(column, field.is_nullable(), &sources)?
        });
    }
    let signals: ArrayRef = Arc::new(StructArray::try_new(signals.fields().clone(), columns, None)?);
    let DataType::List(item) = list.data_type() else {
        return Err(wrong());
    };
    let mut columns = batch.columns().to_vec();
    columns[index] = Arc::new(ListArray::try_new(
        item.clone(),
        OffsetBuffer::new(ends.into()),
        signals,
        None,
    )?);
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

/// The entries of `column` at `sources`; where there is none, null if the column may be, else 0 or an empty list.
fn filled(column: &ArrayRef, nullable: bool, sources: &UInt32Array) -> anyhow::Result<ArrayRef> {
    let taken = take(column, sources, None)?;
    if nullable {
        return Ok(taken);
    }
    match column.data_type() {
        DataType::UInt64 => {
            let numbers = taken.as_primitive::<UInt64Type>();
            Ok(Arc::new(
                numbers.iter().map(|n| Some(n.unwrap_or(0))).collect::<UInt64Array>(),
            ))
        }
        DataType::List(item) => {
            let lists = taken.as_list::<i32>();
            let lengths = (0..lists.len()).map(|i| {
                if lists.is_null(i) {
                    0
                } else {
                    lists.value_length(i) as usize
                }
            });
            let parts: Vec<ArrayRef> = (0..lists.len())
                .filter(|i| lists.is_valid(*i))
                .map(|i| lists.value(i))
                .collect();
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            let empty = || Ok(new_empty_array(item.data_type()));
            let values = if parts.is_empty() {
                empty()
            } else {
                arrow::compute::concat(&parts)
            }?;
            Ok(Arc::new(ListArray::try_new(
                item.clone(),
                OffsetBuffer::from_lengths(lengths),
                values,
                None,
            )?))
        }
        other => anyhow::bail!("a signal's column of type {other} must be nullable"),
    }
}
