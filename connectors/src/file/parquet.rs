//! Parquet: slices of row groups to rows, without copying what can be taken as it is.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, DictionaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::{cast, concat_batches, filter_record_batch};
use arrow::datatypes::{DataType, Float64Type, Int32Type, Int64Type, Schema, TimeUnit};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use taktline_engine::{DeadLetters, table};

use super::block::BlockView;
use super::columns::{Columns, MachineFrom, Shape, Sort, TimeFrom, WideColumn, resolve};
use super::config::Settings;
use super::time::{self, Unit};
use crate::rows::Rows;

/// A Parquet file whose footer has been read.
#[derive(Clone, Debug)]
pub(super) struct ParquetFile {
    path: PathBuf,
    metadata: ArrowReaderMetadata,
    columns: Columns,
    /// Columns that are read, ascending.
    read: Vec<usize>,
}

impl ParquetFile {
    /// Reads the footer. The outer error is one of the settings, the inner one says why this is no Parquet file.
    ///
    /// # Errors
    /// The file isn't there or lacks a column.
    pub fn open(settings: &Settings, path: &Path, stem: &str) -> anyhow::Result<Result<Self, String>> {
        let file = File::open(path)?;
        let metadata = match ArrowReaderMetadata::load(&file, ArrowReaderOptions::new()) {
            Ok(metadata) => metadata,
            Err(e) => return Ok(Err(format!("no Parquet file: {e}"))),
        };
        let schema = metadata.schema().clone();
        let header: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
        let columns = resolve(settings, &header, stem, |index| {
            sort_of(schema.field(index).data_type())
        })?;
        check_types(&columns, &schema)?;
        let names = name_columns(&columns);
        let fields = schema.fields().iter().enumerate().map(|(index, field)| {
            let text = is_text(field.data_type()) && names.contains(&index);
            if text {
                Arc::new(field.as_ref().clone().with_data_type(table::name_type()))
            } else {
                field.clone()
            }
        });
        let hinted = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let options = ArrowReaderOptions::new().with_schema(hinted);
        // Without the hint the names are made into a dictionary after reading.
        let metadata = ArrowReaderMetadata::try_new(metadata.metadata().clone(), options).unwrap_or(metadata);
        let mut read = names;
        read.extend(match columns.time {
            TimeFrom::Column(index, _) => Some(index),
            TimeFrom::Index { .. } => None,
        });
        match &columns.shape {
            Shape::Long { value, text, .. } => read.extend(value.iter().chain(text)),
            Shape::Wide(wide) => read.extend(wide.iter().map(|column| column.index)),
        }
        read.sort_unstable();
        read.dedup();
        Ok(Ok(ParquetFile {
            path: path.to_owned(),
            metadata,
            columns,
            read,
        }))
    }

    /// Rows of each row group.
    pub fn groups(&self) -> Vec<u64> {
        self.metadata
            .metadata()
            .row_groups()
            .iter()
            .map(|group| group.num_rows().max(0) as u64)
            .collect()
    }

    /// The rows of a slice that lies in one row group. A slice that can't be read is one dead letter.
    pub fn decode(&self, block: BlockView<'_>, name: &str, dead: &mut DeadLetters) -> anyhow::Result<RecordBatch> {
        let slice = match self.read(block.offset, block.length as usize) {
            Ok(slice) => slice,
            Err(e) => {
                let last = block.offset + block.length.saturating_sub(1);
                dead.push(
                    name,
                    block.offset,
                    format!("rows {} to {last} can't be read: {e:#}", block.offset),
                    b"",
                );
                return Ok(RecordBatch::new_empty(table::samples().schema));
            }
        };
        let column = |index: usize| -> anyhow::Result<&ArrayRef> {
            let place = self
                .read
                .binary_search(&index)
                .ok()
                .context("a column that is not read")?;
            slice.columns().get(place).context("a column that was not read")
        };
        let ts = match self.columns.time {
            TimeFrom::Column(index, unit) => times(column(index)?, unit)?,
            TimeFrom::Index { start, rate } => {
                let rows = block.first_row..block.first_row + slice.num_rows() as u64;
                rows.map(|row| TimeFrom::of_index(start, rate, row))
                    .collect::<Vec<_>>()
                    .into()
            }
        };
        let machine = match &self.columns.machine {
            MachineFrom::Column(index) => names(column(*index)?)?,
            MachineFrom::Fixed(name) => {
                let keys = vec![0; slice.num_rows()];
                DictionaryArray::try_new(keys.into(), Arc::new(StringArray::from(vec![name.as_str()])))?
            }
        };
        let mut refuse = |row: usize, reason: &str| {
            let row = block.offset + row as u64;
            dead.push(name, row, reason, format!("row {row}").as_bytes());
        };
        match &self.columns.shape {
            Shape::Long { signal, value, text } => {
                let signal = names(column(*signal)?)?;
                let value = value
                    .map(|index| Ok(cast(column(index)?, &DataType::Float64)?))
                    .transpose();
                let text = text.map(|index| Ok(cast(column(index)?, &DataType::Utf8)?)).transpose();
                let (value, text): (anyhow::Result<_>, anyhow::Result<_>) = (value, text);
                long(machine, signal, ts, value?, text?, &mut refuse)
            }
            Shape::Wide(wide) => {
                let cells = wide.iter().map(|signal| {
                    let array = column(signal.index)?;
                    Ok(match signal.sort {
                        Sort::Number => {
                            Cells::Numbers(cast(array, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
                        }
                        Sort::Text => Cells::Texts(cast(array, &DataType::Utf8)?.as_string::<i32>().clone()),
                    })
                });
                unpivot(
                    wide,
                    &cells.collect::<anyhow::Result<Vec<_>>>()?,
                    &machine,
                    &ts,
                    &mut refuse,
                )
            }
        }
    }

    fn read(&self, offset: u64, rows: usize) -> anyhow::Result<RecordBatch> {
        let mut first = 0;
        let groups = self.groups();
        let group = groups.iter().position(|rows| {
            let here = first <= offset && offset < first + rows;
            first += if here { 0 } else { *rows };
            here
        });
        let mask = ProjectionMask::roots(self.metadata.parquet_schema(), self.read.iter().copied());
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(File::open(&self.path)?, self.metadata.clone())
            .with_row_groups(vec![group.context("the file has become shorter")?])
            .with_projection(mask)
            .with_offset((offset - first) as usize)
            .with_limit(rows)
            .with_batch_size(rows.max(1))
            .build()?;
        let schema = arrow::array::RecordBatchReader::schema(&reader);
        let mut batches = reader.collect::<Result<Vec<_>, _>>()?;
        let slice = if batches.len() == 1 {
            batches.remove(0)
        } else {
            concat_batches(&schema, &batches)?
        };
        anyhow::ensure!(slice.num_rows() == rows, "{} rows instead of {rows}", slice.num_rows());
        Ok(slice)
    }
}

fn long(
    machine: DictionaryArray<Int32Type>,
    signal: DictionaryArray<Int32Type>,
    ts: Int64Array,
    value: Option<ArrayRef>,
    text: Option<ArrayRef>,
    refuse: &mut impl FnMut(usize, &str),
) -> anyhow::Result<RecordBatch> {
    let rows = ts.len();
    let whole = [
        machine.logical_null_count(),
        signal.logical_null_count(),
        ts.null_count(),
    ]
    .iter()
    .all(|nulls| *nulls == 0)
        && ts.values().iter().all(|ts| time::plausible(*ts).is_ok());
    let keep = if whole {
        None
    } else {
        Some(kept(&machine, Some(&signal), &ts, refuse))
    };
    let (_, times, _) = ts.into_parts();
    let columns: Vec<ArrayRef> = vec![
        Arc::new(machine),
        Arc::new(signal),
        Arc::new(TimestampMicrosecondArray::new(times, None).with_timezone("UTC")),
        value.unwrap_or_else(|| new_null_array(&DataType::Float64, rows)),
        text.unwrap_or_else(|| new_null_array(&DataType::Utf8, rows)),
        new_null_array(&table::name_type(), rows),
    ];
    let schema = table::samples().schema;
    let Some(keep) = keep else {
        return Ok(RecordBatch::try_new(schema, columns)?);
    };
    // A batch with nulls where the table has none may only live until they are filtered away.
    let fields = schema
        .fields()
        .iter()
        .map(|field| field.as_ref().clone().with_nullable(true));
    let nullable = RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns)?;
    let columns = filter_record_batch(&nullable, &keep)?.columns().to_vec();
    Ok(RecordBatch::try_new(schema, columns)?)
}

/// True for rows that have all they need; the others are refused.
fn kept(
    machine: &DictionaryArray<Int32Type>,
    signal: Option<&DictionaryArray<Int32Type>>,
    ts: &Int64Array,
    refuse: &mut impl FnMut(usize, &str),
) -> BooleanArray {
    let machines = machine.logical_nulls();
    let signals = signal.and_then(|signal| signal.logical_nulls());
    let null = |nulls: &Option<arrow::buffer::NullBuffer>, row| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row));
    let keep = (0..ts.len()).map(|row| {
        let reason = if null(&machines, row) {
            "no machine"
        } else if null(&signals, row) {
            "no signal"
        } else if ts.is_null(row) {
            "no time"
        } else {
            match time::plausible(ts.value(row)) {
                Ok(_) => return true,
                Err(reason) => refuse(row, &reason),
            }
            return false;
        };
        refuse(row, reason);
        false
    });
    keep.collect::<Vec<bool>>().into()
}

enum Cells {
    Numbers(Float64Array),
    Texts(StringArray),
}

fn unpivot(
    wide: &[WideColumn],
    cells: &[Cells],
    machine: &DictionaryArray<Int32Type>,
    ts: &Int64Array,
    refuse: &mut impl FnMut(usize, &str),
) -> anyhow::Result<RecordBatch> {
    let mut rows = Rows::default();
    let signals: Vec<i32> = wide
        .iter()
        .filter_map(|column| rows.signals.number(column.name.as_bytes()))
        .collect();
    let machines = machine.values().as_string::<i32>();
    let keep = kept(machine, None, ts, refuse);
    for row in 0..ts.len() {
        if !keep.value(row) {
            continue;
        }
        let name = machines.value(machine.keys().value(row).max(0) as usize);
        let Some(name) = rows.machines.number(name.as_bytes()) else {
            refuse(row, "no machine");
            continue;
        };
        for (cells, &signal) in cells.iter().zip(&signals) {
            match cells {
                Cells::Numbers(values) => {
                    rows.push(
                        name,
                        signal,
                        ts.value(row),
                        values.is_valid(row).then(|| values.value(row)),
                    );
                }
                Cells::Texts(texts) => {
                    let text = texts.is_valid(row).then(|| texts.value(row));
                    rows.push_text(name, signal, ts.value(row), None, text);
                }
            }
        }
    }
    rows.finish()
}

/// Names as a dictionary; empty ones count as none.
fn names(array: &ArrayRef) -> anyhow::Result<DictionaryArray<Int32Type>> {
    let names = cast(array, &table::name_type())?;
    let names = names.as_dictionary::<Int32Type>();
    let values = names.values().as_string::<i32>();
    if values.iter().all(|name| name.is_some_and(|name| !name.is_empty())) {
        return Ok(names.clone());
    }
    let is_name = |key: &i32| values.is_valid(*key as usize) && !values.value(*key as usize).is_empty();
    let keys = names.keys().iter().map(|key| key.filter(is_name));
    Ok(DictionaryArray::try_new(keys.collect(), names.values().clone())?)
}

/// Times in µs; null where there is none.
fn times(array: &ArrayRef, unit: Unit) -> anyhow::Result<Int64Array> {
    let whole =
        || -> anyhow::Result<Int64Array> { Ok(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone()) };
    Ok(match array.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => whole()?,
        DataType::Timestamp(resolution, _) => {
            let unit = match resolution {
                TimeUnit::Second => Unit::S,
                TimeUnit::Millisecond => Unit::Ms,
                TimeUnit::Microsecond => Unit::Us,
                TimeUnit::Nanosecond => Unit::Ns,
            };
            whole()?.unary_opt(|count| unit.micros(count))
        }
        DataType::Date32 | DataType::Date64 => {
            let micros = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, None))?;
            cast(&micros, &DataType::Int64)?.as_primitive::<Int64Type>().clone()
        }
        data_type if data_type.is_floating() => {
            let counts = cast(array, &DataType::Float64)?;
            counts
                .as_primitive::<Float64Type>()
                .unary_opt(|count| unit.micros_f64(count))
        }
        data_type if data_type.is_integer() => whole()?.unary_opt(|count| unit.micros(count)),
        _ => {
            let texts = cast(array, &DataType::Utf8)?;
            let texts = texts.as_string::<i32>();
            texts
                .iter()
                .map(|text| text.and_then(|text| time::parse(text.trim().as_bytes(), unit)))
                .collect()
        }
    })
}

fn name_columns(columns: &Columns) -> Vec<usize> {
    let mut names = Vec::new();
    if let MachineFrom::Column(index) = columns.machine {
        names.push(index);
    }
    if let Shape::Long { signal, .. } = columns.shape {
        names.push(signal);
    }
    names
}

/// Refuses settings that can't fit the columns' types before the first row is read.
fn check_types(columns: &Columns, schema: &Schema) -> anyhow::Result<()> {
    if let TimeFrom::Column(index, unit) = columns.time {
        let field = schema.field(index);
        let is_number = field.data_type().is_numeric();
        anyhow::ensure!(
            !(is_number && unit == Unit::Rfc3339),
            "the time column `{}` holds numbers; say in `time.unit` what they count",
            field.name()
        );
        let readable = is_number || field.data_type().is_temporal() || is_text(field.data_type());
        anyhow::ensure!(
            readable,
            "the time column `{}` is of type {}",
            field.name(),
            field.data_type()
        );
    }
    if let Shape::Long { value: Some(value), .. } = columns.shape {
        let field = schema.field(value);
        let sort = sort_of(field.data_type());
        anyhow::ensure!(
            sort == Some(Sort::Number),
            "the value column `{}` is of type {}",
            field.name(),
            field.data_type()
        );
    }
    Ok(())
}

fn sort_of(data_type: &DataType) -> Option<Sort> {
    if data_type.is_numeric() || *data_type == DataType::Boolean {
        Some(Sort::Number)
    } else {
        is_text(data_type).then_some(Sort::Text)
    }
}

fn is_text(data_type: &DataType) -> bool {
    match data_type {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => is_text(values),
        _ => false,
    }
}
