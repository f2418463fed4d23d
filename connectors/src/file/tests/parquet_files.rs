//! Parquet files through the whole source.

use std::path::PathBuf;
use std::sync::Arc;

use ::parquet::arrow::ArrowWriter;
use ::parquet::file::properties::WriterProperties;
use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray,
    TimestampNanosecondArray,
};

use super::{Folder, read_with, settings};

fn parquet_file(folder: &Folder, columns: Vec<(&str, ArrayRef)>, group: usize) -> PathBuf {
    let batch =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap();
    let path = folder.0.path().join("a.parquet");
    let properties = WriterProperties::builder()
        .set_max_row_group_row_count(Some(group))
        .build();
    let mut writer =
        ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    path
}

#[test]
fn parquet_long_and_wide() {
    let folder = Folder::new();
    let names = |names: &[Option<&str>]| Arc::new(StringArray::from(names.to_vec())) as ArrayRef;
    let path = parquet_file(
        &folder,
        vec![
            ("machine", names(&[Some("m"), Some("m"), None, Some("n"), Some("")])),
            (
                "signal",
                names(&[Some("p"), Some("q"), Some("p"), Some("p"), Some("p")]),
            ),
            (
                "value",
                Arc::new(Float64Array::from(vec![
                    Some(1.5),
                    None,
                    Some(3.0),
                    Some(4.0),
                    Some(5.0),
                ])),
            ),
            (
                "ts",
                Arc::new(TimestampMillisecondArray::from(vec![
                    Some(1),
                    Some(2),
                    Some(3),
                    None,
                    Some(5),
                ])),
            ),
        ],
        3,
    );
    for rows in [1, 2, 100] {
        let found = read_with(&settings(&path, "time: {column: ts}"), Some((1, rows))).unwrap();
        assert_eq!(found.rows, ["m p 1000 1.5", "m q 2000 -"]);
        assert_eq!(found.dead, ["2 no machine", "3 no time", "4 no machine"]);
    }
    let path = parquet_file(
        &folder,
        vec![
            ("t", Arc::new(TimestampNanosecondArray::from(vec![1_999, 2_000, 3_000]))),
            ("n", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))),
            ("on", Arc::new(BooleanArray::from(vec![true, false, true]))),
            ("mode", names(&[Some("auto"), None, Some("hand")])),
        ],
        2,
    );
    let wide = [
        "a n 1 1",
        "a on 1 1",
        "a mode 1 - auto",
        "a n 2 -",
        "a on 2 0",
        "a mode 2 -",
        "a n 3 3",
        "a on 3 1",
        "a mode 3 - hand",
    ];
    for rows in [1, 100] {
        let found = read_with(&settings(&path, "time: {column: t}"), Some((1, rows))).unwrap();
        assert_eq!(
            (found.rows, found.dead),
            (wide.iter().map(ToString::to_string).collect(), vec![])
        );
    }
    let found = read_with(&settings(&path, "replay: x1000, time: {column: t}"), None).unwrap();
    assert_eq!(found.rows, wide);
    let found = read_with(
        &settings(&path, "signals: [on], time: {start: 1970-01-01T00:00:00Z, rate: 1}"),
        Some((1, 2)),
    )
    .unwrap();
    assert_eq!(found.rows, ["a on 0 1", "a on 1000000 0", "a on 2000000 1"]);
    let error = read_with(&settings(&path, "time: {column: n}"), None).unwrap_err();
    assert!(
        format!("{error:#}").ends_with("the time column `n` holds numbers; say in `time.unit` what they count"),
        "{error:#}"
    );
    let bytes = std::fs::read(&path).unwrap();
    let path = folder.file("cut.parquet", &bytes[..bytes.len() / 2]);
    let found = read_with(&settings(&path, "time: {column: t}"), None).unwrap();
    assert_eq!((found.rows.len(), found.dead.len()), (0, 1), "{found:?}");
}

#[test]
fn a_wide_file_without_machines() {
    let folder = Folder::new();
    let path = parquet_file(
        &folder,
        vec![
            ("machine", Arc::new(StringArray::from(vec![None::<&str>, None]))),
            ("t", Arc::new(TimestampNanosecondArray::from(vec![1_999, 2_000]))),
            ("n", Arc::new(Int64Array::from(vec![1, 2]))),
        ],
        2,
    );
    let found = read_with(&settings(&path, "time: {column: t}"), None).unwrap();
    assert_eq!(
        (found.rows.len(), found.dead),
        (0, vec!["0 no machine".into(), "1 no machine".into()])
    );
}

#[test]
fn times_that_nobody_means() {
    for long in [false, true] {
        let folder = Folder::new();
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            ("t", Arc::new(Int64Array::from(vec![1_704_067_200, 1_704_067_200_000]))),
            ("value", Arc::new(Int64Array::from(vec![1, 2]))),
        ];
        if long {
            columns.push(("signal", Arc::new(StringArray::from(vec!["value", "value"]))));
        }
        let path = parquet_file(&folder, columns, 2);
        let found = read_with(&settings(&path, "time: {column: t, unit: s}"), None).unwrap();
        assert_eq!(found.rows, ["a value 1704067200000000 1"]);
        let reason = "1 the time 1704067200000000000 us lies outside of 1900 to 2200; check `unit`";
        assert_eq!(found.dead, [reason]);
    }
}
