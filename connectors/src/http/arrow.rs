//! Arrow IPC bodies: record batches in the stream format. A row means what a JSON object of its columns would mean.

use std::borrow::Cow;

use super::json::{JsonRows, Member};
use super::rows::Verdicts;
use crate::codec::arrow_ipc::Stream;
use crate::codec::pointer::Pointer;
use crate::codec::query::{Document, Found, Query, Scalar};

/// Reads rows from a stream of record batches.
///
/// # Errors
/// The body is no such stream; then nothing of it may be used.
pub(super) fn read(body: &[u8], rows: &JsonRows, verdicts: &mut Verdicts<'_>) -> Result<(), String> {
    let mut query = Query::default();
    let (name, value) = query.members(&Pointer::parse("")?)?;
    let mut stream = Stream::open(body)?;
    let mut index = 0;
    while let Some(batch) = stream.next()? {
        for row in 0..batch.rows() {
            let mut found = Found::default();
            batch.row(row).find(&query, &mut found)?;
            let members: Vec<Member<'_>> = (0..found.count(value.level))
                .filter_map(|record| match found.get(name, record)? {
                    Scalar::Text(name) => Some((name.clone(), found.get(value, record)?.clone())),
                    _ => None,
                })
                .collect();
            let shown = shown(&members);
            if let Err(reason) = rows.take(index, &shown, members, verdicts) {
                verdicts.refuse(index, reason, &shown);
            }
            index += 1;
        }
    }
    Ok(())
}

/// A row as JSON, for dead letters.
fn shown(members: &[Member<'_>]) -> Vec<u8> {
    let text = |text: &Cow<'_, str>| serde_json::Value::from(text.as_ref()).to_string();
    let members = members.iter().map(|(name, value)| {
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
    use crate::http::catalogue::{Stream as Known, StreamConfig};
    use crate::http::precision::Precision;
    use crate::http::rows::shown;

    const NOW: i64 = 1_767_323_045_000_000;

    fn stream(batches: &[RecordBatch]) -> Vec<u8> {
        let mut writer = StreamWriter::try_new(Vec::new(), batches[0].schema_ref()).unwrap();
        batches.iter().for_each(|batch| writer.write(batch).unwrap());
        writer.into_inner().unwrap()
    }

    fn take(body: &[u8]) -> String {
        let known = Known::new("press-1", &StreamConfig::default()).unwrap();
        let mut verdicts = Verdicts::new(&known, NOW);
        match read(body, &JsonRows::new(Precision::MS), &mut verdicts) {
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
        let ahead = "refused 2: the time is more than 5 minutes ahead of its arrival; check the sender's clock, and `precision` or `unit`";
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
