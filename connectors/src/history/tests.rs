#![allow(clippy::unwrap_used, clippy::expect_used)]

mod two_sinks;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray, StructArray,
    TimestampMicrosecondArray, UInt64Array,
};
use arrow::buffer::OffsetBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use arrow::util::pretty::pretty_format_batches;
use deltalake::datafusion::prelude::SessionContext;
use expect_test::{Expect, expect};
use taktline_engine::config::Section;
use taktline_engine::kind::Input;
use taktline_engine::table::{self, Sample, name_type, samples_batch, timestamp};
use taktline_engine::{DeadLetters, Published, Sink, Table};

use super::*;

fn plan(dir: &Path, yaml: &str, inputs: &[Input]) -> Result<Box<dyn SinkPlan>, Vec<Problem>> {
    build(
        &Section::from_yaml("history", &format!("path: {}\n{yaml}", dir.display())),
        inputs,
    )
}

fn open(dir: &Path, inputs: &[Input]) -> Box<dyn Sink> {
    plan(dir, "", inputs).unwrap().open(&STATELESS).unwrap()
}

const STATELESS: Opening = Opening {
    generation: 0,
    publishes: true,
    folder: None,
};

/// Stages what was written and publishes it, as a checkpoint of its own.
fn publish(sink: &mut Box<dyn Sink>, checkpoint: u64) {
    let staged = sink.stage(checkpoint).unwrap();
    sink.publish(checkpoint, &[staged]).unwrap();
}

fn input(name: &str, table: Table, extends: &[&str]) -> Input {
    Input {
        name: name.into(),
        table,
        extends: extends.iter().map(ToString::to_string).collect(),
    }
}

fn plc() -> Input {
    input("plc", table::samples(), &[])
}

fn sample(second: i64) -> Sample<'static> {
    Sample {
        machine: "press-1",
        signal: "force",
        ts: second * 1_000_000 + 1,
        value: Some(second as f64),
        text: None,
    }
}

/// Cycles with a nested column that is flattened into a second table.
fn cycles(extra: &[&str]) -> Table {
    let signals: Fields = vec![
        Field::new("signal", DataType::Utf8, false),
        Field::new("mean", DataType::Float64, true),
    ]
    .into();
    let item = Arc::new(Field::new_struct("item", signals, false));
    let mut flat = vec![
        Field::new("machine", name_type(), false),
        Field::new("cycle_id", DataType::Utf8, false),
        Field::new("start", timestamp(), false),
        Field::new("samples", DataType::UInt64, false),
    ];
    flat.extend(extra.iter().map(|name| Field::new(*name, DataType::Float64, true)));
    let mut all = flat.clone();
    all.push(Field::new("signals", DataType::List(item), false));
    let published = vec![
        Published {
            name: "cycles",
            schema: Arc::new(Schema::new(flat)),
            project: |batch| Ok(batch.project(&(0..batch.num_columns() - 1).collect::<Vec<_>>())?),
        },
        Published {
            name: "cycle_signals",
            schema: cycle_signals(),
            project: project_signals,
        },
    ];
    Table {
        name: "cycles",
        schema: Arc::new(Schema::new(all)),
        published,
        extends_input: !extra.is_empty(),
    }
}

fn cycle_signals() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("cycle_id", DataType::Utf8, false),
        Field::new("signal", DataType::Utf8, false),
        Field::new("mean", DataType::Float64, true),
    ]))
}

fn project_signals(batch: &RecordBatch) -> anyhow::Result<RecordBatch> {
    let list = batch.column(batch.num_columns() - 1).as_list::<i32>();
    let of_row: Vec<i64> = (0..list.len())
        .flat_map(|row| vec![row as i64; list.value_length(row) as usize])
        .collect();
    let ids = arrow::compute::take(batch.column(1), &Int64Array::from(of_row), None)?;
    let values = list.values().as_struct();
    Ok(RecordBatch::try_new(
        cycle_signals(),
        vec![ids, values.column(0).clone(), values.column(1).clone()],
    )?)
}

fn cycle_rows(table: &Table, ids: &[&str]) -> RecordBatch {
    let n = ids.len();
    let machines: ArrayRef = Arc::new(StringArray::from(vec!["press-1"; n]));
    let DataType::List(item) = table.schema.fields().last().unwrap().data_type().clone() else {
        unreachable!()
    };
    let DataType::Struct(fields) = item.data_type().clone() else {
        unreachable!()
    };
    let names: Vec<&str> = ids.iter().flat_map(|_| ["force", "speed"]).collect();
    let means: Vec<f64> = (0..2 * n).map(|i| i as f64).collect();
    let values: Vec<ArrayRef> = vec![Arc::new(StringArray::from(names)), Arc::new(Float64Array::from(means))];
    let signals = ListArray::new(
        item,
        OffsetBuffer::from_lengths(vec![2; n]),
        Arc::new(StructArray::new(fields, values, None)),
        None,
    );
    let mut columns: Vec<ArrayRef> = vec![
        cast(&machines, &name_type()).unwrap(),
        Arc::new(StringArray::from(ids.to_vec())),
        Arc::new(TimestampMicrosecondArray::from(vec![1_700_000_000_123_456; n]).with_timezone("UTC")),
        Arc::new(UInt64Array::from(vec![100; n])),
    ];
    for _ in 0..table.schema.fields().len() - 5 {
        columns.push(Arc::new(Float64Array::from(vec![0.5; n])));
    }
    columns.push(Arc::new(signals));
    RecordBatch::try_new(table.schema.clone(), columns).unwrap()
}

/// Rows of a query over the tables in `dir`, as a reader of Delta sees them.
fn query(dir: &Path, sql: &str) -> String {
    runtime().unwrap().block_on(async {
        let session = SessionContext::new();
        for entry in fs::read_dir(dir).unwrap() {
            let folder = entry.unwrap().path();
            let url = url::Url::from_directory_path(fs::canonicalize(&folder).unwrap()).unwrap();
            let delta = deltalake::open_table(url).await.unwrap();
            let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
            session
                .register_table(name, delta.table_provider().await.unwrap())
                .unwrap();
        }
        let rows = session.sql(sql).await.unwrap().collect().await.unwrap();
        pretty_format_batches(&rows).unwrap().to_string()
    })
}

fn check(dir: &Path, sql: &str, expect: &Expect) {
    expect.assert_eq(&query(dir, sql));
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some())
        .count()
}

#[test]
fn every_table_is_there_before_its_first_row() {
    let dir = tempfile::tempdir().unwrap();
    let inputs = [
        plc(),
        input("strokes", cycles(&[]), &[]),
        input("late", table::late(), &[]),
    ];
    drop(open(dir.path(), &inputs));
    for name in ["samples", "cycles", "cycle_signals", "late"] {
        assert!(
            query(dir.path(), &format!("SELECT count(*) AS n FROM {name}")).contains("| 0 |"),
            "{name}"
        );
    }
    assert!(!holds(dir.path()).unwrap());
}

#[test]
fn rows_are_seen_once_published_and_only_then() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(dir.path(), &[plc()]);
    let count = || query(dir.path(), "SELECT count(*) AS n, max(ts) AS last FROM samples");
    for round in 0i64..3 {
        sink.write(0, &samples_batch([sample(2 * round), sample(2 * round + 1)]))
            .unwrap();
        assert!(count().contains(&format!("| {} ", 2 * round)), "written");
        let staged = [sink.stage(round as u64 + 1).unwrap()];
        sink.write(0, &samples_batch([])).unwrap();
        assert!(count().contains(&format!("| {} ", 2 * round)), "staged");
        sink.publish(round as u64 + 1, &staged).unwrap();
        sink.publish(round as u64 + 1, &staged).unwrap();
        assert!(count().contains(&format!("| {} ", 2 * round + 2)), "published");
    }
    expect![[r#"
        +---+-----------------------------+
        | n | last                        |
        +---+-----------------------------+
        | 6 | 1970-01-01T00:00:05.000001Z |
        +---+-----------------------------+"#]]
    .assert_eq(&count());
    assert_eq!(rows(dir.path()).unwrap(), 6);
    assert_eq!(files(&dir.path().join("samples")), 3);
}

#[test]
fn nested_inputs_are_kept_flat_and_an_extended_one_once() {
    let dir = tempfile::tempdir().unwrap();
    let (plain, extended) = (cycles(&[]), cycles(&["deviation", "health"]));
    let inputs = [
        input("strokes", plain.clone(), &[]),
        input("compared", cycles(&["deviation"]), &["strokes"]),
        input("health", extended.clone(), &["compared", "strokes"]),
        input("phases", plain.clone(), &[]),
        input("dead_letters", table::dead_letters(), &[]),
    ];
    let mut sink = open(dir.path(), &inputs);
    sink.write(0, &cycle_rows(&plain, &["a", "b"])).unwrap();
    sink.write(1, &cycle_rows(&cycles(&["deviation"]), &["a", "b"]))
        .unwrap();
    sink.write(2, &cycle_rows(&extended, &["a", "b"])).unwrap();
    sink.write(3, &cycle_rows(&plain, &["a.1"])).unwrap();
    let mut refused = DeadLetters::new("plc");
    refused.push("press.csv", 7, "no number", b"x;y");
    sink.write(4, &refused.finish()).unwrap();
    publish(&mut sink, 1);
    check(
        dir.path(),
        "SELECT * FROM cycles ORDER BY cycle_id",
        &expect![[r#"
            +---------+----------+-----------------------------+---------+-----------+--------+
            | machine | cycle_id | start                       | samples | deviation | health |
            +---------+----------+-----------------------------+---------+-----------+--------+
            | press-1 | a        | 2023-11-14T22:13:20.123456Z | 100     | 0.5       | 0.5    |
            | press-1 | a.1      | 2023-11-14T22:13:20.123456Z | 100     |           |        |
            | press-1 | b        | 2023-11-14T22:13:20.123456Z | 100     | 0.5       | 0.5    |
            +---------+----------+-----------------------------+---------+-----------+--------+"#]],
    );
    check(
        dir.path(),
        "SELECT * FROM cycle_signals WHERE signal = 'speed' ORDER BY cycle_id",
        &expect![[r#"
            +----------+--------+------+
            | cycle_id | signal | mean |
            +----------+--------+------+
            | a        | speed  | 1.0  |
            | a.1      | speed  | 1.0  |
            | b        | speed  | 3.0  |
            +----------+--------+------+"#]],
    );
    check(
        dir.path(),
        "SELECT * FROM dead_letters",
        &expect![[r#"
            +--------+-----------+--------+-----------+---------+
            | source | partition | offset | reason    | payload |
            +--------+-----------+--------+-----------+---------+
            | plc    | press.csv | 7      | no number | 783b79  |
            +--------+-----------+--------+-----------+---------+"#]],
    );
}

#[test]
fn columns_are_added_to_a_table_that_lacks_them() {
    let dir = tempfile::tempdir().unwrap();
    for columns in [&[][..], &["health"], &[], &["health", "deviation"]] {
        let table = cycles(columns);
        let mut sink = open(dir.path(), &[input("strokes", table.clone(), &[])]);
        sink.write(0, &cycle_rows(&table, &[&format!("with {columns:?}")]))
            .unwrap();
        publish(&mut sink, 1);
    }
    check(
        dir.path(),
        "SELECT cycle_id, health, deviation FROM cycles ORDER BY 1",
        &expect![[r#"
            +------------------------------+--------+-----------+
            | cycle_id                     | health | deviation |
            +------------------------------+--------+-----------+
            | with ["health", "deviation"] | 0.5    | 0.5       |
            | with ["health"]              | 0.5    |           |
            | with []                      |        |           |
            | with []                      |        |           |
            +------------------------------+--------+-----------+"#]],
    );
}

fn other(column: DataType) -> Table {
    Table::plain("other", Arc::new(Schema::new(vec![Field::new("x", column, false)])))
}

#[test]
fn a_changed_type_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path(), &[input("a", other(DataType::Float64), &[])]));
    let plan = plan(dir.path(), "", &[input("a", other(DataType::Utf8), &[])]).unwrap();
    let error = format!("{:#}", plan.open(&STATELESS).err().unwrap())
        .replace(&*fs::canonicalize(&dir).unwrap().to_string_lossy(), "DIR");
    expect![
        "table `other` in DIR: column `x` is double there and would be string now; write to another data directory"
    ]
    .assert_eq(&error);
}

#[test]
fn bad_settings_and_bad_inputs_are_said_together() {
    let dir = tempfile::tempdir().unwrap();
    let inputs = [
        input("a", other(DataType::Float64), &[]),
        input("b", other(DataType::Utf8), &[]),
    ];
    let problems = plan(dir.path(), "level: 20\nfile_rows: 0", &inputs).err().unwrap();
    let said: Vec<String> = problems
        .iter()
        .map(|p| format!("{}: {}", p.path.join("."), p.message))
        .collect();
    expect![[r#"
        level: must be between 1 and 19
        file_rows: must be between 1000 and 100000000
        from: table `other` from `b`: column `x` is Utf8 here and Float64 in another input"#]]
    .assert_eq(&said.join("\n"));
}

#[test]
fn a_file_in_the_way_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("data");
    fs::write(&file, "").unwrap();
    let error = plan(&file, "", &[plc()]).unwrap().open(&STATELESS).err().unwrap();
    let error = format!("{error:#}").replace(&*dir.path().to_string_lossy(), "DIR");
    expect!["data directory: DIR/data is a file, not a directory; name another `path` or move it away"]
        .assert_eq(&error);
}

#[test]
fn a_crash_before_publishing_leaves_nothing_to_see() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(dir.path(), &[plc()]);
    sink.write(0, &samples_batch([sample(1)])).unwrap();
    sink.stage(1).unwrap();
    sink.write(0, &samples_batch([sample(2)])).unwrap();
    // Neither drop nor the next run may see or lose anything.
    std::mem::forget(sink);
    assert!(!holds(dir.path()).unwrap());
    let mut sink = open(dir.path(), &[plc()]);
    sink.write(0, &samples_batch([sample(3)])).unwrap();
    publish(&mut sink, 1);
    assert_eq!(rows(dir.path()).unwrap(), 1);
    assert_eq!(files(&dir.path().join("samples")), 3, "two of them invisible");
}

#[test]
fn a_commit_that_failed_is_made_up_for_once() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(dir.path(), &[plc()]);
    sink.write(0, &samples_batch([sample(1)])).unwrap();
    let staged = [sink.stage(1).unwrap()];
    // The log vanishes: the commit can't be written, and can be once it is back.
    let (log, aside) = (dir.path().join("samples/_delta_log"), dir.path().join("samples/aside"));
    fs::rename(&log, &aside).unwrap();
    fs::write(&log, "").unwrap();
    assert!(sink.publish(1, &staged).is_err());
    fs::remove_file(&log).unwrap();
    fs::rename(&aside, &log).unwrap();
    sink.publish(1, &staged).unwrap();
    sink.write(0, &samples_batch([sample(2)])).unwrap();
    publish(&mut sink, 2);
    sink.publish(1, &staged).unwrap();
    assert_eq!(rows(dir.path()).unwrap(), 2);
    assert_eq!(fs::read_dir(&log).unwrap().count(), 3, "create and two commits");
}

#[test]
fn large_parts_are_rolled() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = plan(dir.path(), "file_rows: 1000", &[plc()])
        .unwrap()
        .open(&STATELESS)
        .unwrap();
    let batch = samples_batch((0..600).map(sample));
    for _ in 0..5 {
        sink.write(0, &batch).unwrap();
    }
    publish(&mut sink, 1);
    assert_eq!(
        (rows(dir.path()).unwrap(), files(&dir.path().join("samples"))),
        (3000, 3)
    );
    assert!(
        query(
            dir.path(),
            "SELECT count(*) FROM samples WHERE ts > '1970-01-01T00:09:59Z'"
        )
        .contains("| 5 ")
    );
}

#[test]
fn many_commits_leave_checkpoints_and_all_rows() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(dir.path(), &[plc()]);
    for second in 0..120 {
        sink.write(0, &samples_batch([sample(second)])).unwrap();
        publish(&mut sink, second as u64 + 1);
    }
    assert_eq!(rows(dir.path()).unwrap(), 120);
    assert!(dir.path().join("samples/_delta_log/_last_checkpoint").exists());
}

#[test]
fn two_writers_of_one_table_queue_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut sinks = [open(dir.path(), &[plc()]), open(dir.path(), &[plc()])];
    for second in 0..4 {
        for sink in &mut sinks {
            sink.write(0, &samples_batch([sample(second)])).unwrap();
            publish(sink, second as u64 + 1);
        }
    }
    assert_eq!(rows(dir.path()).unwrap(), 8);
}

#[test]
fn only_tables_of_ours_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = open(dir.path(), &[plc()]);
    sink.write(0, &samples_batch([sample(1)])).unwrap();
    publish(&mut sink, 1);
    drop(sink);
    drop(open(dir.path(), &[input("cycles", cycles(&[]), &[])]));
    let foreign = dir.path().join("orders/_delta_log");
    fs::create_dir_all(&foreign).unwrap();
    let commit = "{\"metaData\":{\"name\":\"orders\"}}\n{\"add\":{\"path\":\"a.parquet\"}}\n";
    fs::write(foreign.join("00000000000000000000.json"), commit).unwrap();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    fs::create_dir_all(dir.path().join("_taktline/claims")).unwrap();
    assert!(dir.path().join("samples").exists() && dir.path().join("cycles").exists());
    remove(dir.path()).unwrap();
    let mut left: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["_taktline", "notes.txt", "orders"]);
}
