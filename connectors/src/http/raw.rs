//! Raw batches: samples that were judged already, what was refused, and the requests that brought them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, BooleanArray, RecordBatch, StringBuilder, UInt64Builder, new_null_array,
};
use arrow::compute::{filter_record_batch, is_null};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt64Type};
use taktline_engine::{DeadLetters, Decoded, Decoder, Samples, table};

use super::keys::Request;
use super::verdicts::Refused;
use crate::rows::Rows;

/// Columns that are as in `samples`: machine, signal, ts, value, text.
const SAMPLE_COLUMNS: usize = 5;
const STREAM: usize = 5;
const INDEX: usize = 6;
const REASON: usize = 7;
const PAYLOAD: usize = 8;
const REQUEST: usize = 9;

/// A signal's name in rows that are no samples.
const NO_SIGNAL: &str = "-";

fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let samples = table::samples().schema;
        let mut fields: Vec<_> = samples.fields().iter().take(SAMPLE_COLUMNS).cloned().collect();
        let own = [
            ("stream", DataType::Utf8),
            ("index", DataType::UInt64),
            ("reason", DataType::Utf8),
            ("payload", DataType::Binary),
            ("request", DataType::Utf8),
        ];
        fields.extend(own.map(|(name, kind)| Arc::new(Field::new(name, kind, true))));
        Arc::new(Schema::new(fields))
    });
    SCHEMA.clone()
}

/// What one request brings.
pub(super) struct Content {
    pub stream: Arc<str>,
    pub received: i64,
    /// Rows of the `samples` table.
    pub samples: RecordBatch,
    pub refused: Vec<Refused>,
    pub request: Option<Arc<Request>>,
}

impl Content {
    pub(super) fn rows(&self) -> usize {
        self.samples.num_rows() + self.refused.len()
    }

    pub(super) fn bytes(&self) -> usize {
        let refused = |refused: &Refused| refused.payload.len() + refused.reason.len() + 32;
        self.samples.num_rows() * 24
            + self.samples.column(4).get_buffer_memory_size()
            + self.refused.iter().map(refused).sum::<usize>()
    }
}

/// One raw batch of all these.
pub(super) fn batch<'c>(contents: impl IntoIterator<Item = &'c Content>) -> anyhow::Result<RecordBatch> {
    let mut rows = Rows::default();
    let mut notes = Notes::default();
    for content in contents {
        let request = content.request.as_deref().map(serde_json::to_string).transpose()?;
        let mut request = request.as_deref();
        add_samples(&content.samples, &mut rows)?;
        for _ in 0..content.samples.num_rows() {
            notes.push(None, request.take());
        }
        for refused in &content.refused {
            let machine = number(rows.machines.number(content.stream.as_bytes()))?;
            let signal = number(rows.signals.number(NO_SIGNAL.as_bytes()))?;
            rows.push(machine, signal, content.received, None);
            notes.push(Some((&content.stream, refused)), request.take());
        }
    }
    let mut columns = rows.finish()?.columns()[..SAMPLE_COLUMNS].to_vec();
    columns.extend(notes.finish());
    Ok(RecordBatch::try_new(schema(), columns)?)
}

fn number(number: Option<i32>) -> anyhow::Result<i32> {
    number.ok_or_else(|| anyhow::anyhow!("a name is empty"))
}

/// Samples of another batch, with the numbers that their names have here.
fn add_samples(batch: &RecordBatch, rows: &mut Rows) -> anyhow::Result<()> {
    let samples = Samples::of(batch)?;
    let machines = samples
        .machines
        .iter()
        .map(|name| number(rows.machines.number(name.unwrap_or_default().as_bytes())));
    let machines: Vec<i32> = machines.collect::<Result<_, _>>()?;
    let signals = samples
        .signals
        .iter()
        .map(|name| number(rows.signals.number(name.unwrap_or_default().as_bytes())));
    let signals: Vec<i32> = signals.collect::<Result<_, _>>()?;
    let contents = samples.value.iter().zip(samples.text);
    for (row, (value, text)) in contents.enumerate() {
        let (machine, signal) = (
            machines[samples.machine[row] as usize],
            signals[samples.signal[row] as usize],
        );
        rows.push_text(machine, signal, samples.ts[row], value, text);
    }
    Ok(())
}

/// What rows have besides a sample.
#[derive(Default)]
struct Notes {
    stream: StringBuilder,
    index: UInt64Builder,
    reason: StringBuilder,
    payload: BinaryBuilder,
    request: StringBuilder,
}

impl Notes {
    fn push(&mut self, refused: Option<(&str, &Refused)>, request: Option<&str>) {
        self.stream.append_option(refused.map(|(stream, _)| stream));
        self.index.append_option(refused.map(|(_, refused)| refused.index));
        self.reason.append_option(refused.map(|(_, refused)| &refused.reason));
        self.payload.append_option(refused.map(|(_, refused)| &refused.payload));
        self.request.append_option(request);
    }

    fn finish(mut self) -> [ArrayRef; 5] {
        [
            Arc::new(self.stream.finish()),
            Arc::new(self.index.finish()),
            Arc::new(self.reason.finish()),
            Arc::new(self.payload.finish()),
            Arc::new(self.request.finish()),
        ]
    }
}

fn check(raw: &RecordBatch) -> anyhow::Result<()> {
    anyhow::ensure!(
        raw.schema_ref().fields() == schema().fields(),
        "this is no raw batch of an http source: an earlier version may have written it"
    );
    Ok(())
}

/// The requests with a key that a raw batch holds.
pub(super) fn requests(raw: &RecordBatch) -> anyhow::Result<Vec<Request>> {
    check(raw)?;
    let requests = raw.column(REQUEST).as_string::<i32>();
    if requests.null_count() == requests.len() {
        return Ok(Vec::new());
    }
    requests
        .iter()
        .flatten()
        .map(|request| Ok(serde_json::from_str(request)?))
        .collect()
}

/// Gives on what was judged already.
pub(super) struct PushDecoder {
    dead: DeadLetters,
    /// Samples that were left out when they were judged, since somebody asked last.
    left_out: Arc<AtomicU64>,
}

impl PushDecoder {
    pub(super) fn new(source: &str, left_out: Arc<AtomicU64>) -> Self {
        PushDecoder {
            dead: DeadLetters::new(source),
            left_out,
        }
    }
}

impl Decoder for PushDecoder {
    fn decode(&mut self, raw: &RecordBatch) -> anyhow::Result<Decoded> {
        check(raw)?;
        let reasons = raw.column(REASON).as_string::<i32>();
        let mut samples = raw.clone();
        if reasons.null_count() < reasons.len() {
            let taken: BooleanArray = is_null(reasons)?;
            samples = filter_record_batch(raw, &taken)?;
            let streams = raw.column(STREAM).as_string::<i32>();
            let indices = raw.column(INDEX).as_primitive::<UInt64Type>();
            let payloads = raw.column(PAYLOAD).as_binary::<i32>();
            for row in (0..raw.num_rows()).filter(|row| reasons.is_valid(*row)) {
                let (stream, index) = (streams.value(row), indices.value(row));
                self.dead.push(stream, index, reasons.value(row), payloads.value(row));
            }
        }
        let mut columns = samples.columns()[..SAMPLE_COLUMNS].to_vec();
        columns.push(new_null_array(&table::name_type(), samples.num_rows()));
        Ok(Decoded {
            samples: RecordBatch::try_new(table::samples().schema, columns)?,
            dead_letters: self.dead.finish(),
        })
    }

    fn left_out(&mut self) -> u64 {
        self.left_out.swap(0, Ordering::Relaxed)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use taktline_engine::table::{Sample, samples_batch};

    use super::*;
    use crate::http::fault::Answer;

    fn content(stream: &str, machine: &str, refused: &[u64], key: Option<&str>) -> Content {
        let row = |signal, value| Sample {
            machine,
            signal,
            ts: 7,
            value: Some(value),
            text: None,
        };
        let refused = refused.iter().map(|index| Refused {
            index: *index,
            reason: format!("wrong {index}"),
            payload: b"x".to_vec(),
        });
        Content {
            stream: stream.into(),
            received: 7,
            samples: samples_batch([row("t", 1.0), row("p", 2.0)]),
            refused: refused.collect(),
            request: key.map(|key| {
                Arc::new(Request {
                    key: key.into(),
                    body: "b".into(),
                    answer: Answer::default(),
                })
            }),
        }
    }

    #[test]
    fn what_goes_in_comes_out() {
        let contents = [
            content("s1", "m", &[], None),
            content("s2", "n", &[3, 4], Some("k1")),
            content("s3", "m", &[], Some("k2")),
        ];
        let raw = batch(&contents).unwrap();
        assert_eq!(raw.num_rows(), contents.iter().map(Content::rows).sum::<usize>());
        let keys: Vec<String> = requests(&raw).unwrap().into_iter().map(|request| request.key).collect();
        assert_eq!(keys, ["k1", "k2"]);
        let decoded = PushDecoder::new("plc", Arc::default()).decode(&raw).unwrap();
        let samples = Samples::of(&decoded.samples).unwrap();
        let machines: Vec<&str> = samples
            .machine
            .iter()
            .map(|key| samples.machines.value(*key as usize))
            .collect();
        assert_eq!(machines, ["m", "m", "n", "n", "m", "m"]);
        assert_eq!(samples.value.values(), &[1.0, 2.0, 1.0, 2.0, 1.0, 2.0]);
        assert_eq!(decoded.dead_letters.num_rows(), 2);
        assert_eq!(decoded.dead_letters.column(1).as_string::<i32>().value(1), "s2");
        assert_eq!(decoded.dead_letters.column(3).as_string::<i32>().value(1), "wrong 4");
        let names: Vec<&str> = samples.machines.iter().flatten().collect();
        assert_eq!(names, ["m", "n", "s2"], "each name once");
        assert!(
            PushDecoder::new("plc", Arc::default())
                .decode(&raw.project(&[0, 1]).unwrap())
                .is_err()
        );
    }
}
