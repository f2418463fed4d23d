//! Arrow IPC bodies: record batches in the stream format. A row means what a JSON object of its columns would mean.

use std::borrow::Cow;

use super::members::Members;
use super::verdicts::Verdicts;
use crate::codec::arrow_ipc::Stream;
use crate::codec::query::{Found, Scalar};
use crate::time::Unit;

/// Reads rows from a stream of record batches.
///
/// # Errors
/// The body is no such stream; then nothing of it may be used.
pub(super) fn read(body: &[u8], members: &Members, unit: Unit, verdicts: &mut Verdicts<'_>) -> Result<(), String> {
    let mut stream = Stream::open(body)?;
    let (mut index, mut found) = (0, Found::default());
    while let Some(batch) = stream.next()? {
        for row in 0..batch.rows() {
            let shown = |found: &Found<'_>| Cow::Owned(shown(members.of(found)));
            members.take((index, &batch.row(row)), unit, &mut found, verdicts, shown);
            index += 1;
        }
    }
    Ok(())
}

/// A row as JSON, for dead letters.
fn shown<'f>(members: impl Iterator<Item = (&'f str, &'f Scalar<'f>)>) -> Vec<u8> {
    let text = |text: &str| serde_json::Value::from(text).to_string();
    let members = members.map(|(name, value)| {
        let value = match value {
            Scalar::Null | Scalar::Nested => "null".to_owned(),
            Scalar::Bool(value) => value.to_string(),
            Scalar::Int(value) | Scalar::Time(value) => value.to_string(),
            Scalar::Float(value) => serde_json::Value::from(*value).to_string(),
            Scalar::Text(value) => text(value),
        };
        format!("{}:{value}", text(name))
    });
    format!("{{{}}}", members.collect::<Vec<_>>().join(",")).into_bytes()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{
        ArrayRef, Int32Array, Int64Array, ListArray, RecordBatch, StringArray, TimestampMillisecondArray,
    };
    use arrow::datatypes::Int64Type;
    use arrow::ipc::writer::{FileWriter, StreamWriter};
    use taktline_engine::table::{Sample, samples_batch};

    use super::*;
    use crate::codec::signals::Signals;
    use crate::http::catalogue::{Stream as Known, StreamConfig};
    use crate::http::verdicts::shown;

    const NOW: i64 = 1_767_323_045_000_000;

    fn stream(batches: &[RecordBatch]) -> Vec<u8> {
        let mut writer = StreamWriter::try_new(Vec::new(), batches[0].schema_ref()).unwrap();
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        writer.into_inner().unwrap()
    }

    fn take(body: &[u8]) -> String {
        let known = Known::new("press-1", &StreamConfig::default()).unwrap();
        let signals = Signals::default();
        let mut verdicts = Verdicts::new(&known, ("plc", &signals), NOW);
        match read(body, &Members::new().unwrap(), Unit::Ms, &mut verdicts) {
            Ok(()) => shown(verdicts),
            Err(error) => format!("error: {error}"),
        }
    }

    fn long() -> RecordBatch {
        let row = |signal, ts, value, text| Sample {
            machine: "m",
            signal,
            ts,
            value,
            text,
        };
        samples_batch([
            row("t", NOW - 5, Some(1.5), None),
            row("state", NOW, None, Some("run")),
            row("t", NOW + 1_000_000_000, Some(1.0), None),
        ])
    }

    fn wide() -> RecordBatch {
        let columns: Vec<(&str, ArrayRef)> = vec![
            (
                "time",
                Arc::new(TimestampMillisecondArray::from(vec![Some(NOW / 1000 - 1), None])),
            ),
            ("p", Arc::new(Int32Array::from(vec![Some(7), None]))),
            ("state", Arc::new(StringArray::from(vec!["a", "b"]))),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    #[test]
    fn batches() {
        let ahead =
            "refused 2: the time is more than 5 minutes ahead of the arrival; check `unit` and the sender's clock";
        assert_eq!(
            take(&stream(&[long()])),
            format!("m t -5 1.5\nm state 0 'run'\n{ahead}")
        );
        let two = "press-1 p -1000 7\npress-1 state -1000 'a'\npress-1 p 0 -\npress-1 state 0 'b'";
        assert_eq!(take(&stream(&[wide()])), two);
        assert_eq!(take(&stream(&[wide(), wide()])), format!("{two}\n{two}"));
        let counts = RecordBatch::try_from_iter([
            ("ts", Arc::new(Int64Array::from(vec![NOW / 1000 - 1])) as ArrayRef),
            ("p", Arc::new(Int64Array::from(vec![1]))),
        ]);
        assert_eq!(take(&stream(&[counts.unwrap()])), "press-1 p -1000 1");
        let empty = RecordBatch::try_from_iter([("ts", Arc::new(Int64Array::from(vec![NOW / 1000])) as ArrayRef)]);
        assert_eq!(take(&stream(&[empty.unwrap()])), "refused 0: the row has no signal");
    }

    #[test]
    fn what_is_no_stream_is_an_error() {
        let mut writer = FileWriter::try_new(Vec::new(), long().schema_ref()).unwrap();
        writer.write(&long()).unwrap();
        assert!(take(&writer.into_inner().unwrap()).contains("stream is wanted"));
        let list = ListArray::from_iter_primitive::<Int64Type, _, _>([Some([Some(1)])]);
        let nested = RecordBatch::try_from_iter([("l", Arc::new(list) as ArrayRef)]);
        assert!(take(&stream(&[nested.unwrap()])).starts_with("error: the Arrow column `l`"));
        let whole = stream(&[wide()]);
        assert!(take(&whole[..whole.len() / 2]).starts_with("error: "));
    }

    #[test]
    fn no_flipped_bit_panics() {
        for whole in [stream(&[long()]), stream(&[wide()])] {
            for at in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[at] ^= 1 << (at % 8);
                take(&bytes);
            }
        }
    }
}
