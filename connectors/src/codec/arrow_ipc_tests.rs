#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, DictionaryArray, Float32Array, Float64Array, Float64Builder, Int8Array,
    Int32Array, LargeStringArray, ListBuilder, NullArray, RecordBatch, StringArray, TimestampNanosecondArray,
    TimestampSecondArray, UInt16Array, UInt64Array,
};
use arrow::datatypes::{Int8Type, Int32Type};
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use proptest::prelude::*;

use super::*;

fn stream(batches: &[RecordBatch]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    drop(writer);
    bytes
}

/// Each row as its cells; the reason where a stream can't be read.
fn shown(bytes: &[u8]) -> Result<Vec<String>, String> {
    let mut stream = Stream::open(bytes)?;
    let mut rows = Vec::new();
    while let Some(batch) = stream.next()? {
        for row in 0..batch.rows() {
            let cells = batch.columns.iter().map(|column| match column.cell(row)? {
                Scalar::Text(text) => Ok(format!("{}='{text}'", column.name)),
                other => Ok(format!("{}={other:?}", column.name)),
            });
            rows.push(cells.collect::<Result<Vec<_>, String>>()?.join(" "));
        }
    }
    Ok(rows)
}

fn columns(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter(columns).unwrap()
}

#[test]
fn what_the_library_writes() {
    let check = |column: ArrayRef, expect: &[&str]| {
        let rows = shown(&stream(&[columns(vec![("c", column.clone())])]));
        assert_eq!(rows.unwrap(), expect, "{column:?}");
    };
    check(Arc::new(Int8Array::from(vec![-1])), &["c=Int(-1)"]);
    check(Arc::new(UInt16Array::from(vec![65_535])), &["c=Int(65535)"]);
    check(
        Arc::new(Int32Array::from(vec![Some(-5), None])),
        &["c=Int(-5)", "c=Null"],
    );
    check(
        Arc::new(UInt64Array::from(vec![u64::MAX])),
        &["c=Float(1.8446744073709552e19)"],
    );
    check(Arc::new(Float32Array::from(vec![0.5])), &["c=Float(0.5)"]);
    check(
        Arc::new(Float64Array::from(vec![Some(1.5), None, Some(-2.0)])),
        &["c=Float(1.5)", "c=Null", "c=Float(-2.0)"],
    );
    check(
        Arc::new(BooleanArray::from(vec![Some(true), Some(false), None])),
        &["c=Bool(true)", "c=Bool(false)", "c=Null"],
    );
    check(
        Arc::new(StringArray::from(vec![Some("ä"), None, Some("")])),
        &["c='ä'", "c=Null", "c=''"],
    );
    check(Arc::new(LargeStringArray::from(vec!["x"])), &["c='x'"]);
    check(Arc::new(Date32Array::from(vec![1])), &["c=Time(86400000000)"]);
    check(Arc::new(TimestampSecondArray::from(vec![5])), &["c=Time(5000000)"]);
    check(
        Arc::new(TimestampNanosecondArray::from(vec![5999]).with_timezone("UTC")),
        &["c=Time(5)"],
    );
    let dictionary: DictionaryArray<Int8Type> = [Some("b"), None, Some("a"), Some("b")].into_iter().collect();
    check(Arc::new(dictionary), &["c='b'", "c=Null", "c='a'", "c='b'"]);
    check(Arc::new(StringArray::from(Vec::<&str>::new())), &[]);
}

#[test]
fn several_batches() {
    let batch = |names: &[&str], values: &[f64]| {
        let names: DictionaryArray<Int32Type> = names.iter().copied().collect();
        columns(vec![
            ("n", Arc::new(names)),
            ("v", Arc::new(Float64Array::from(values.to_vec()))),
        ])
    };
    let rows = shown(&stream(&[batch(&["a", "b"], &[1.0, 2.0]), batch(&["c"], &[3.0])]));
    assert_eq!(
        rows.unwrap(),
        ["n='a' v=Float(1.0)", "n='b' v=Float(2.0)", "n='c' v=Float(3.0)"]
    );
    // A dictionary that grows.
    let batches = [batch(&["a"], &[1.0]), batch(&["a", "b"], &[2.0, 3.0])];
    let options = IpcWriteOptions::default().with_dictionary_handling(arrow::ipc::writer::DictionaryHandling::Delta);
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new_with_options(&mut bytes, &batches[0].schema(), options).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    drop(writer);
    assert_eq!(
        shown(&bytes).unwrap(),
        ["n='a' v=Float(1.0)", "n='a' v=Float(2.0)", "n='b' v=Float(3.0)"]
    );
    // A column of nulls has no buffers.
    let beside: [(&str, ArrayRef); 2] = [
        ("n", Arc::new(NullArray::new(1))),
        ("v", Arc::new(Int8Array::from(vec![1]))),
    ];
    assert_eq!(shown(&stream(&[columns(beside.into())])).unwrap(), ["n=Null v=Int(1)"]);
    // A slice has its own offsets.
    let long = columns(vec![("s", Arc::new(StringArray::from(vec!["a", "bb", "ccc"])))]);
    assert_eq!(shown(&stream(&[long.slice(1, 2)])).unwrap(), ["s='bb'", "s='ccc'"]);
}

#[test]
fn what_is_not_read_is_said() {
    let check = |bytes: &[u8], expect: &str| {
        let error = shown(bytes).unwrap_err();
        assert!(error.contains(expect), "{error}");
    };
    check(b"ARROW1\0\0", "a stream is wanted");
    check(b"{\"v\":1}", "the Arrow stream is cut off");
    check(&[0xff; 8], "the Arrow stream is cut off");
    check(&[8, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8], "not Arrow IPC");
    check(
        &stream(&[columns(vec![("n", Arc::new(NullArray::new(2)))])]),
        "2 Arrow rows in 0 bytes",
    );
    let mut lists = ListBuilder::new(Float64Builder::new());
    lists.append_value([Some(1.5)]);
    let lists = columns(vec![("l", Arc::new(lists.finish()))]);
    check(
        &stream(&[lists]),
        "the Arrow column `l` has the type List, which is not read",
    );
    let numbers: DictionaryArray<Int32Type> =
        DictionaryArray::new(Int32Array::from(vec![0]), Arc::new(Int32Array::from(vec![5])));
    check(
        &stream(&[columns(vec![("d", Arc::new(numbers))])]),
        "has a dictionary of something else than texts",
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn changed_streams_never_panic(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let names: DictionaryArray<Int32Type> = ["a", "b"].into_iter().collect();
        let batch = columns(vec![
            ("n", Arc::new(names)),
            ("v", Arc::new(Float64Array::from(vec![Some(1.0), None]))),
            ("s", Arc::new(StringArray::from(vec!["x", "yy"]))),
            ("t", Arc::new(TimestampSecondArray::from(vec![1, 2]))),
            ("b", Arc::new(BooleanArray::from(vec![true, false]))),
        ]);
        let mut bytes = stream(&[batch]);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = shown(&bytes);
    }
}
