#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Float64Array, ListArray, RecordBatch, StringArray, TimestampMicrosecondArray,
};
use arrow::datatypes::Float64Type;
use deltalake::DeltaTableBuilder;
use deltalake::kernel::StructType;
use deltalake::kernel::engine::arrow_conversion::TryIntoKernel;
use expect_test::{Expect, expect};
use tempfile::TempDir;
use url::Url;

use crate::{Format, context, sql};

/// A Delta table in `folder` with these rows.
async fn keep(folder: &Path, columns: Vec<(&str, ArrayRef)>) {
    fs::create_dir_all(folder).unwrap();
    let rows =
        RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, rows)| (name, rows, true))).unwrap();
    let schema: StructType = rows.schema().as_ref().try_into_kernel().unwrap();
    let url = Url::from_directory_path(folder).unwrap();
    let table = DeltaTableBuilder::from_url(url).unwrap().build().unwrap();
    let table = table.create().with_columns(schema.fields().cloned()).await.unwrap();
    table.write(vec![rows]).await.unwrap();
}

async fn history() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let times = |us: Vec<i64>| Arc::new(TimestampMicrosecondArray::from(us).with_timezone("UTC")) as ArrayRef;
    let values = vec![Some(vec![Some(1.0), None, Some(2.5)]), None];
    let cycles: Vec<(&str, ArrayRef)> = vec![
        (
            "machine",
            Arc::new(StringArray::from(vec!["press-1", "Presse \"2\", rot"])),
        ),
        ("start", times(vec![1_700_000_000_123_456, 1_700_000_060_000_000])),
        ("end", times(vec![1_700_000_001_623_456, 1_700_000_062_000_000])),
        ("health", Arc::new(Float64Array::from(vec![Some(97.5), None]))),
        (
            "top",
            Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>(values)),
        ),
    ];
    keep(&dir.path().join("cycles"), cycles).await;
    let payloads: Vec<&[u8]> = vec!["1;größer".as_bytes(), &[0xff, 0x00]];
    keep(
        &dir.path().join("dead_letters"),
        vec![("payload", Arc::new(BinaryArray::from(payloads)))],
    )
    .await;
    fs::write(dir.path().join("note.txt"), "no table").unwrap();
    dir
}

/// What a query writes, or the error it ends in.
async fn answer(dir: &Path, extra: &[(&str, PathBuf)], format: Format, query: &str) -> String {
    let extra: Vec<(String, PathBuf)> = extra
        .iter()
        .map(|(name, file)| ((*name).to_owned(), file.clone()))
        .collect();
    let mut out = Vec::new();
    let result = match context(dir, &extra).await {
        Ok(session) => sql(&session, query, format, &mut out).await,
        Err(error) => Err(error),
    };
    match result {
        Ok(()) => String::from_utf8(out).unwrap(),
        Err(error) => format!("error: {error:#}").replace(&*dir.to_string_lossy(), "DIR"),
    }
}

async fn check(format: Format, query: &str, expect: Expect) {
    expect.assert_eq(&answer(history().await.path(), &[], format, query).await);
}

const ALL: &str = r#"SELECT *, "end" - start AS took FROM cycles ORDER BY start"#;

#[tokio::test]
async fn as_table() {
    check(
        Format::Table,
        ALL,
        expect![[r#"
        +-----------------+-----------------------------+-----------------------------+--------+----------------+------+
        | machine         | start                       | end                         | health | top            | took |
        +-----------------+-----------------------------+-----------------------------+--------+----------------+------+
        | press-1         | 2023-11-14T22:13:20.123456Z | 2023-11-14T22:13:21.623456Z | 97.5   | [1.0,null,2.5] | 1.5s |
        | Presse "2", rot | 2023-11-14T22:14:20Z        | 2023-11-14T22:14:22Z        |        |                | 2s   |
        +-----------------+-----------------------------+-----------------------------+--------+----------------+------+
        2 rows
    "#]],
    )
    .await;
}

#[tokio::test]
async fn durations() {
    let query =
        "SELECT start - TIMESTAMP '2023-11-14T22:13:20.123456Z' AS a, start - (start - INTERVAL '50 hours') AS b,
        start - (start + INTERVAL '90 minutes') AS c FROM cycles ORDER BY start";
    check(
        Format::Table,
        query,
        expect![[r#"
        +------------+---------------+--------------+
        | a          | b             | c            |
        +------------+---------------+--------------+
        | 0s         | 2d 2h 0min 0s | -1h 30min 0s |
        | 59.876544s | 2d 2h 0min 0s | -1h 30min 0s |
        +------------+---------------+--------------+
        2 rows
    "#]],
    )
    .await;
}

#[tokio::test]
async fn as_csv() {
    check(
        Format::Csv,
        ALL,
        expect![[r#"
        machine,start,end,health,top,took
        press-1,2023-11-14T22:13:20.123456Z,2023-11-14T22:13:21.623456Z,97.5,"[1.0,null,2.5]",PT1.5S
        "Presse ""2"", rot",2023-11-14T22:14:20Z,2023-11-14T22:14:22Z,,,PT2S
    "#]],
    )
    .await;
}

#[tokio::test]
async fn as_json() {
    check(Format::Json, ALL, expect![[r#"
        [{"machine":"press-1","start":"2023-11-14T22:13:20.123456Z","end":"2023-11-14T22:13:21.623456Z","health":97.5,"top":[1.0,null,2.5],"took":"PT1.5S"},{"machine":"Presse \"2\", rot","start":"2023-11-14T22:14:20Z","end":"2023-11-14T22:14:22Z","health":null,"top":null,"took":"PT2S"}]
    "#]]).await;
}

#[tokio::test]
async fn bytes_and_numbers_that_are_none() {
    let query = "SELECT payload, CAST('NaN' AS DOUBLE) AS nan FROM dead_letters";
    check(
        Format::Csv,
        query,
        expect![[r#"
        payload,nan
        1;größer,NaN
        \xff00,NaN
    "#]],
    )
    .await;
    check(
        Format::Json,
        query,
        expect![[r#"
        [{"payload":"1;größer","nan":null},{"payload":"\\xff00","nan":null}]
    "#]],
    )
    .await;
}

#[tokio::test]
async fn no_rows() {
    let query = "SELECT machine, top FROM cycles WHERE health < 0";
    check(
        Format::Table,
        query,
        expect![[r#"
        +---------+-----+
        | machine | top |
        +---------+-----+
        +---------+-----+
        0 rows
    "#]],
    )
    .await;
    check(
        Format::Csv,
        query,
        expect![[r#"
        machine,top
    "#]],
    )
    .await;
    check(
        Format::Json,
        query,
        expect![[r#"
        []
    "#]],
    )
    .await;
}

#[tokio::test]
async fn a_long_table_says_that_there_is_more() {
    let text = answer(
        history().await.path(),
        &[],
        Format::Table,
        "SELECT * FROM generate_series(1, 30000)",
    )
    .await;
    assert!(
        text.ends_with("\nfirst 10000 rows; there are more: add LIMIT, or use --format csv\n"),
        "{text}"
    );
    let text = answer(
        history().await.path(),
        &[],
        Format::Csv,
        "SELECT * FROM generate_series(1, 30000)",
    )
    .await;
    assert_eq!(text.lines().count(), 30_001);
}

#[tokio::test]
async fn what_people_ask() {
    for (query, expect) in [
        (
            "SELECT round(avg(health), 1), abs(-2), sqrt(4), power(2, 3) FROM cycles",
            expect![[r#"
            "round(avg(cycles.health),Int64(1))",abs(Int64(-2)),sqrt(Int64(4)),"power(Int64(2),Int64(3))"
            97.5,2,2.0,8.0
        "#]],
        ),
        (
            "SELECT date_trunc('hour', start) AS hour, count(*) FROM cycles GROUP BY 1",
            expect![[r#"
            hour,count(*)
            2023-11-14T22:00:00Z,2
        "#]],
        ),
        (
            "SELECT date_bin(INTERVAL '1 minute', start), extract(epoch FROM \"end\" - start) FROM cycles",
            expect![[r#"
            "date_bin(IntervalMonthDayNano(""IntervalMonthDayNano { months: 0, days: 0, nanoseconds: 60000000000 }""),cycles.start)","date_part(Utf8(""EPOCH""),cycles.end - cycles.start)"
            2023-11-14T22:13:00Z,1.5
            2023-11-14T22:14:00Z,2.0
        "#]],
        ),
        (
            "SELECT upper(machine), split_part(machine, '-', 1), regexp_like(machine, '^press') FROM cycles",
            expect![[r#"
            upper(cycles.machine),"split_part(cycles.machine,Utf8(""-""),Int64(1))","regexp_like(cycles.machine,Utf8(""^press""))"
            PRESS-1,press,true
            "PRESSE ""2"", ROT","Presse ""2"", rot",false
        "#]],
        ),
        (
            "SELECT array_length(top), top[1], list_max(top) FROM cycles ORDER BY start",
            expect![[r#"
            array_length(cycles.top),cycles.top[Int64(1)],list_max(cycles.top)
            3,1.0,2.5
            ,,
        "#]],
        ),
        (
            "SELECT unnest(top) FROM cycles",
            expect![[r#"
            UNNEST(cycles.top)
            1.0
            ""
            2.5
        "#]],
        ),
        (
            "SELECT machine, lag(start) OVER (ORDER BY start) AS before, row_number() OVER (ORDER BY start) FROM cycles",
            expect![[r#"
            machine,before,row_number() ORDER BY [cycles.start ASC NULLS LAST] RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
            press-1,,1
            "Presse ""2"", rot",2023-11-14T22:13:20.123456Z,2
        "#]],
        ),
        (
            "SELECT median(health), stddev_pop(health), approx_percentile_cont(health, 0.9), corr(health, health) FROM cycles",
            expect![[r#"
            median(cycles.health),stddev_pop(cycles.health),"approx_percentile_cont(cycles.health,Float64(0.9))","corr(cycles.health,cycles.health)"
            97.5,0.0,97.5,
        "#]],
        ),
        (
            "WITH slow AS (SELECT * FROM cycles) SELECT count(*) FILTER (WHERE health > 50) FROM slow",
            expect![[r#"
            count(*) FILTER (WHERE slow.health > Int64(50))
            1
        "#]],
        ),
        (
            "SELECT start, end, end - start FROM cycles WHERE end > now() - INTERVAL '1 day'",
            expect![[r#"
            start,end,cycles.end - cycles.start
        "#]],
        ),
        (
            "SELECT machine, end - start AS took FROM cycles c WHERE c.end - c.start > INTERVAL '1.6 seconds'",
            expect![[r#"
            machine,took
            "Presse ""2"", rot",PT2S
        "#]],
        ),
        (
            "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1",
            expect![[r#"
            table_name
            cycles
            dead_letters
        "#]],
        ),
        (
            "DESCRIBE dead_letters",
            expect![[r#"
            column_name,data_type,is_nullable
            payload,BinaryView,YES
        "#]],
        ),
        (
            "SELECT 1 -- comment",
            expect![[r#"
            Int64(1)
            1
        "#]],
        ),
        (
            "SELECT 1;",
            expect![[r#"
            Int64(1)
            1
        "#]],
        ),
    ] {
        check(Format::Csv, query, expect).await;
    }
}

#[tokio::test]
async fn what_is_refused() {
    for (query, expect) in [
        (
            "SELECT * FROM cycle",
            expect!["error: there is no table `cycle`; did you mean `cycles`?"],
        ),
        (
            "SELECT * FROM weather w JOIN cycles c ON w.x = c.start",
            expect!["error: there is no table `weather`; known: cycles, dead_letters"],
        ),
        (
            "SELECT helth FROM cycles",
            expect!["error: there is no column `helth`; did you mean `health`?"],
        ),
        (
            "SELECT c.helth FROM cycles c",
            expect!["error: there is no column `helth`; did you mean `health`?"],
        ),
        (
            "SELEC 1",
            expect!["error: Expected: an SQL statement, found: SELEC at Line: 1, Column: 1"],
        ),
        ("SELECT 1 FROM", expect!["error: Expected: identifier, found: EOF"]),
        (
            "",
            expect!["error: No SQL statements were provided in the query string"],
        ),
        (
            "SELECT 1; SELECT 2",
            expect!["error: The context currently only supports a single SQL statement"],
        ),
        (
            "SELECT nosuch(health) FROM cycles",
            expect!["error: Invalid function 'nosuch'."],
        ),
        (
            "SELECT machine + 1 FROM cycles",
            expect!["error: Cannot coerce arithmetic expression Utf8View + Int64 to valid types"],
        ),
        (
            "SELECT health FROM cycles GROUP BY machine",
            expect![[
                r#"error: Column in SELECT must be in GROUP BY or an aggregate function: While expanding wildcard, column "cycles.health" must appear in the GROUP BY clause or must be part of an aggregate function, currently only "cycles.machine" appears in the SELECT clause satisfies this requirement"#
            ]],
        ),
        (
            "INSERT INTO dead_letters VALUES ('x')",
            expect!["error: queries only read: Insert Into is refused; write SELECT, WITH, SHOW, DESCRIBE or EXPLAIN"],
        ),
        (
            "DELETE FROM cycles",
            expect!["error: queries only read: Delete is refused; write SELECT, WITH, SHOW, DESCRIBE or EXPLAIN"],
        ),
        (
            "DROP TABLE cycles",
            expect!["error: queries only read: DropTable is refused; write SELECT, WITH, SHOW, DESCRIBE or EXPLAIN"],
        ),
        (
            "CREATE TABLE t AS SELECT 1",
            expect![
                "error: queries only read: CreateMemoryTable is refused; write SELECT, WITH, SHOW, DESCRIBE or EXPLAIN"
            ],
        ),
        (
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            expect![
                "error: queries only read: CreateExternalTable is refused; write SELECT, WITH, SHOW, DESCRIBE or EXPLAIN"
            ],
        ),
        (
            "COPY cycles TO 'x.csv'",
            expect!["error: queries only read: COPY is refused; write SELECT, WITH, SHOW, DESCRIBE or EXPLAIN"],
        ),
        (
            "SET datafusion.execution.batch_size = 1",
            expect!["error: queries only read: SetVariable is refused; write SELECT, WITH, SHOW, DESCRIBE or EXPLAIN"],
        ),
        (
            "EXPLAIN ANALYZE INSERT INTO dead_letters VALUES ('x')",
            expect!["error: queries only read: Insert Into is refused; write SELECT, WITH, SHOW, DESCRIBE or EXPLAIN"],
        ),
        (
            "SELECT * FROM '/etc/passwd'",
            expect!["error: there is no table `/etc/passwd`; known: cycles, dead_letters"],
        ),
        (
            "SELECT CAST(machine AS DOUBLE) FROM cycles",
            expect!["error: Cast error: Cannot cast string 'press-1' to value of Float64 type"],
        ),
    ] {
        check(Format::Csv, query, expect).await;
    }
}

#[tokio::test]
async fn files_beside_the_history() {
    let dir = history().await;
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let comma = file("good [1].csv", "machine,limit\npress-1,90\n");
    let semicolon = file("good.CSV", "machine;limit\npress-1;90,5\n");
    let lines = file("good.ndjson", "{\"machine\": \"press-1\", \"limit\": 90}\n");
    let odd = file("good.xlsx", "");
    let bare = TempDir::new().unwrap();
    let join = "SELECT c.machine, g.\"limit\" FROM cycles c JOIN good g ON g.machine = c.machine";
    for (extra, dir, query, expect) in [
        (
            ("good", comma.clone()),
            dir.path(),
            join,
            expect![[r#"
            machine,limit
            press-1,90
        "#]],
        ),
        (
            ("Good", semicolon),
            dir.path(),
            join,
            expect![[r#"
            machine,limit
            press-1,"90,5"
        "#]],
        ),
        (
            ("good", lines),
            dir.path(),
            join,
            expect![[r#"
            machine,limit
            press-1,90
        "#]],
        ),
        (
            ("good", comma.clone()),
            &bare.path().join("none"),
            "SELECT count(*) FROM good",
            expect![[r#"
            count(*)
            1
        "#]],
        ),
        (
            ("good", odd),
            dir.path(),
            join,
            expect!["error: --table good=DIR/good.xlsx: ends in none of .parquet, .csv, .tsv, .ndjson, .jsonl, .json"],
        ),
        (
            ("good", dir.path().join("nosuch.csv")),
            dir.path(),
            join,
            expect!["error: --table good=DIR/nosuch.csv: No such file or directory (os error 2)"],
        ),
        (
            ("cycles", comma.clone()),
            dir.path(),
            join,
            expect!["error: --table cycles=DIR/good [1].csv: there is a table `cycles` already; choose another name"],
        ),
        (
            ("a.b", comma),
            dir.path(),
            join,
            expect!["error: --table a.b=DIR/good [1].csv: `a.b` is no table name; use letters, digits and _"],
        ),
    ] {
        expect.assert_eq(&answer(dir, &[extra], Format::Csv, query).await);
    }
}

#[tokio::test]
async fn no_history() {
    let dir = TempDir::new().unwrap();
    let none = answer(&dir.path().join("nosuch"), &[], Format::Table, "SELECT 1").await;
    expect!["error: the data directory DIR does not exist; make a history with `taktline run FILE --data DIR`, or name another with --data"].assert_eq(&none.replace(&*dir.path().to_string_lossy(), "DIR"));
    expect!["error: the data directory DIR has no tables yet; make a history with `taktline run FILE --data DIR`, or name another with --data"].assert_eq(&answer(dir.path(), &[], Format::Table, "SELECT 1").await);
}
