//! The table `windows`, and its rows on their way out.

use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, TimestampMicrosecondArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use taktline_engine::Output;
use taktline_engine::table::{KEY, name_type, timestamp};

use super::aggregate::Aggregate;
use super::pane::{Pane, Tally};
use crate::cycles::nan_is_null;
use crate::signals::Signals;

/// What a step's windows say; shared by its keys.
pub(super) struct Said {
    /// But for `count`, which has its column always.
    of: Vec<Aggregate>,
    bands: Vec<[f64; 2]>,
    /// Whether rows say that they are final.
    early: bool,
    schema: SchemaRef,
}

impl Said {
    pub fn new(of: &[Aggregate], bands: Vec<[f64; 2]>, early: bool) -> Self {
        let of: Vec<Aggregate> = of.iter().copied().filter(|a| *a != Aggregate::Count).collect();
        let mut fields = vec![
            Field::new(KEY, name_type(), false),
            Field::new("signal", name_type(), false),
            Field::new("start", timestamp(), false),
            Field::new("end", timestamp(), false),
            Field::new("count", DataType::UInt64, false),
            Field::new("missing", DataType::UInt64, false),
        ];
        fields.extend(of.iter().map(|a| Field::new(a.to_string(), DataType::Float64, true)));
        fields.extend(
            bands
                .iter()
                .map(|band| Field::new(band_name(band), DataType::Float64, true)),
        );
        if early {
            fields.push(Field::new("final", DataType::Boolean, false));
        }
        Said {
            of,
            bands,
            early,
            schema: Arc::new(Schema::new(fields)),
        }
    }

    pub fn schema(&self) -> SchemaRef {
        self.schema.clone()
    }
}

/// `band_0_50`; a `p` stands for the point, which SQL would take for its own.
pub(super) fn band_name([low, high]: &[f64; 2]) -> String {
    format!("band_{low}_{high}").replace('.', "p")
}

/// Of which stretch a row tells.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub start: i64,
    pub end: i64,
    /// Until when the last value holds.
    pub until: i64,
    pub last: bool,
}

impl Span {
    /// A window that is over.
    pub fn closed(start: i64, end: i64) -> Self {
        Span {
            start,
            end,
            until: end,
            last: true,
        }
    }
}

/// Rows to emit.
pub(super) struct WindowRows {
    said: Arc<Said>,
    signal: Vec<i32>,
    start: Vec<i64>,
    end: Vec<i64>,
    count: Vec<u64>,
    missing: Vec<u64>,
    /// By aggregate, then by band.
    numbers: Vec<Vec<f64>>,
    last: Vec<bool>,
}

impl WindowRows {
    pub fn new(said: Arc<Said>) -> Self {
        WindowRows {
            signal: Vec::new(),
            start: Vec::new(),
            end: Vec::new(),
            count: Vec::new(),
            missing: Vec::new(),
            numbers: vec![Vec::new(); said.of.len() + said.bands.len()],
            last: Vec::new(),
            said,
        }
    }

    /// A signal's row.
    pub fn push<T: Tally>(&mut self, slot: usize, span: Span, pane: &Pane<T>) {
        self.signal.push(slot as i32);
        self.start.push(span.start);
        self.end.push(span.end);
        self.count.push(pane.tally.moments().count);
        self.missing.push(pane.tally.missing());
        let said = &self.said;
        let (numbers, bands) = self.numbers.split_at_mut(said.of.len());
        for (column, aggregate) in numbers.iter_mut().zip(&said.of) {
            column.push(in_range(aggregate.of(pane, span.until)));
        }
        if !bands.is_empty() {
            for (column, number) in bands.iter_mut().zip(pane.bands(&said.bands)) {
                column.push(in_range(number));
            }
        }
        self.last.push(span.last);
    }

    /// Emits what was pushed.
    pub fn emit(&mut self, signals: &mut Signals, out: &mut Output) -> anyhow::Result<()> {
        if self.signal.is_empty() {
            return Ok(());
        }
        let ready = std::mem::replace(self, WindowRows::new(self.said.clone()));
        let time = |us: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(us).with_timezone("UTC")) as ArrayRef;
        let [machine, signal] = signals.columns(ready.signal)?;
        let mut columns: Vec<ArrayRef> = vec![
            machine,
            signal,
            time(ready.start),
            time(ready.end),
            Arc::new(UInt64Array::from(ready.count)),
            Arc::new(UInt64Array::from(ready.missing)),
        ];
        let numbers = ready
            .numbers
            .into_iter()
            .map(|column| Arc::new(nan_is_null(column)) as ArrayRef);
        columns.extend(numbers);
        if self.said.early {
            columns.push(Arc::new(BooleanArray::from(ready.last)));
        }
        out.emit(RecordBatch::try_new(self.said.schema(), columns)?);
        Ok(())
    }
}

/// NaN, which becomes null, for what has left the range of float64.
fn in_range(number: f64) -> f64 {
    if number.is_finite() { number } else { f64::NAN }
}
