//! Rows and the alerts that they open and close.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use super::*;
use arrow::array::Float64Array;
use arrow::datatypes::TimestampMicrosecondType;

fn table() -> Table {
    let fields = vec![
        Field::new(KEY, name_type(), false),
        Field::new("cycle_id", DataType::Utf8, false),
        Field::new("end", timestamp(), false),
        Field::new("health", DataType::Float64, true),
        Field::new("top_signal", DataType::Utf8, true),
    ];
    Table::plain("cycles", Arc::new(Schema::new(fields)))
}

/// One row a second; NaN is null.
fn batch(health: &[f64]) -> RecordBatch {
    let machine: ArrayRef = Arc::new(StringArray::from(vec!["m"; health.len()]));
    let ids: Vec<String> = (0..health.len()).map(|i| format!("m@{i}")).collect();
    let end: Vec<i64> = (0..health.len() as i64).map(|i| i * 1_000_000).collect();
    let columns: Vec<ArrayRef> = vec![
        cast(&machine, &name_type()).unwrap(),
        Arc::new(StringArray::from(ids)),
        Arc::new(TimestampMicrosecondArray::from(end).with_timezone("UTC")),
        Arc::new(Float64Array::from_iter(
            health.iter().map(|h| (!h.is_nan()).then_some(*h)),
        )),
        Arc::new(StringArray::from(vec!["pressure"; health.len()])),
    ];
    RecordBatch::try_new(table().schema, columns).unwrap()
}

fn made(yaml: &str, table: Table) -> Result<Box<dyn Step>, Vec<Problem>> {
    build(
        &Section::from_yaml("worn", yaml),
        &Input {
            name: "health".into(),
            table,
            extends: Vec::new(),
        },
    )
}

fn run(yaml: &str, batch: &RecordBatch, table: Table, chunk: usize) -> Vec<RecordBatch> {
    let mut operator = made(yaml, table).unwrap().operator("m");
    let mut out = Output::default();
    for from in (0..batch.num_rows()).step_by(chunk) {
        let to = (from + chunk).min(batch.num_rows());
        operator.rows(&Rows::new(batch, from..to), &mut out).unwrap();
    }
    operator.end(&mut out).unwrap();
    out.take()
}

/// `+3` opens at second 3, `-5` closes at second 5.
fn check(yaml: &str, health: &[f64], expect: &str) {
    for chunk in [1, 2, 3, health.len()] {
        let mut found = Vec::new();
        for batch in run(yaml, &batch(health), table(), chunk) {
            let ts = batch.column(5).as_primitive::<TimestampMicrosecondType>();
            let state = batch.column(4).as_string::<i32>();
            let sign = |row| if state.value(row) == "open" { '+' } else { '-' };
            found.extend((0..batch.num_rows()).map(|row| format!("{}{}", sign(row), ts.value(row) / 1_000_000)));
        }
        assert_eq!(found.join(" "), expect, "{yaml} in calls of {chunk}");
    }
}

#[test]
fn opens_and_closes() {
    let nan = f64::NAN;
    check("{when: health < 60}", &[70.0, 50.0, 40.0, 65.0, 50.0], "+1 -3 +4");
    check(
        "{when: health < 60, for: 3 cycles}",
        &[50.0, 50.0, 70.0, 50.0, 50.0, 50.0, 70.0],
        "+5 -6",
    );
    check(
        "{when: health < 60, for: 3 cycles}",
        &[50.0, nan, 50.0, nan, 50.0, nan, nan],
        "+4",
    );
    check(
        "{when: health < 60, for: 2 of 3 cycles}",
        &[50.0, 70.0, 50.0, 70.0, 70.0, 50.0, 50.0],
        "+2 -3 +6",
    );
    check(
        "{when: health < 60, for: 2s}",
        &[50.0, 50.0, nan, 50.0, 90.0, 50.0, 50.0, 90.0],
        "+3 -4",
    );
    check(
        "{when: health < 60, clear: health > 70}",
        &[50.0, 65.0, 50.0, nan, 71.0, 65.0, 50.0],
        "+0 -4 +6",
    );
    check("{when: health is unknown}", &[50.0, nan, 50.0], "+1 -2");
}

#[test]
fn both_rows_have_one_id_that_never_changes() {
    let batches = run(
        "{when: health < 60, severity: critical}",
        &batch(&[50.0, 70.0]),
        table(),
        2,
    );
    let text = |column: usize, row: usize| batches[0].column(column).as_string::<i32>().value(row).to_owned();
    assert_eq!(
        (text(0, 0), text(0, 1)),
        (alert_id(&["worn", "m", "", "m@0"]), text(0, 0))
    );
    assert_eq!(alert_id(&[]), "cbf29ce484222325");
    assert_eq!(
        (text(3, 0), text(8, 1), text(9, 0), text(11, 0)),
        ("critical".into(), "m@1".into(), "pressure".into(), "health < 60".into())
    );
    let closed = batches[0].column(7);
    assert_eq!((closed.is_null(0), closed.is_null(1)), (true, false));
}

#[test]
fn each_signal_of_a_window_has_its_own_alert() {
    let fields = vec![
        Field::new("signal", DataType::Utf8, false),
        Field::new("ts", timestamp(), false),
        Field::new("mean", DataType::Float64, true),
    ];
    let table = Table::plain("windows", Arc::new(Schema::new(fields)));
    let columns: Vec<ArrayRef> = vec![
        Arc::new(StringArray::from(vec!["a", "b", "a", "b"])),
        Arc::new(TimestampMicrosecondArray::from(vec![0, 0, 1, 1]).with_timezone("UTC")),
        Arc::new(Float64Array::from(vec![9.0, 1.0, 9.0, 1.0])),
    ];
    let batch = RecordBatch::try_new(table.schema.clone(), columns).unwrap();
    let alerts = run("{when: mean > 5, for: 2 windows}", &batch, table, 4);
    assert_eq!(
        (
            alerts.len(),
            alerts[0].num_rows(),
            alerts[0].column(9).as_string::<i32>().value(0)
        ),
        (1, 1, "a")
    );
}

#[test]
fn samples_at_the_ends_of_time() {
    use taktline_engine::table::{Sample, samples, samples_batch};
    assert!(KIND.reads.contains(&"samples"));
    let sample = |signal, ts, value, text| Sample {
        machine: "m",
        signal,
        ts,
        value,
        text,
    };
    let rows = [
        sample("p", i64::MIN, Some(9.0), None),
        sample("q", 0, Some(1.0), None),
        sample("e", 5, None, Some("STOP")),
        sample("p", i64::MAX, Some(9.0), None),
        sample("p", i64::MIN, Some(9.0), None),
    ];
    let batch = samples_batch(rows);
    let check = |yaml: &str, expect: &[&str]| {
        let mut found = Vec::new();
        for alerts in run(yaml, &batch, samples(), 2) {
            found.extend((0..alerts.num_rows()).map(|row| {
                let text = |column: usize| alerts.column(column).as_string::<i32>().value(row).to_owned();
                let ts = alerts.column(5).as_primitive::<TimestampMicrosecondType>().value(row);
                format!("{} {} {ts}", text(4), text(9))
            }));
        }
        assert_eq!(found, expect, "{yaml}");
    };
    check(
        "{when: value > 5, for: 10s}",
        &[&format!("open p {}", i64::MAX), &format!("closed p {}", i64::MIN)],
    );
    check("{when: text = 'STOP' and signal = 'e'}", &["open e 5"]);
}

#[test]
fn refused() {
    let refused = |yaml: &str, expect: &[&str]| {
        let problems = made(yaml, table()).err().unwrap();
        let found: Vec<String> = problems
            .iter()
            .map(|p| format!("{}: {}", p.path.join("."), p.message))
            .collect();
        assert_eq!(found, expect, "{yaml}");
    };
    refused(
        "{when: helth < 6, clear: health >, for: 3 weeks}",
        &[
            "when: there is no column `helth`",
            "clear: expected a column, a number or a 'text'",
            "for: `3 weeks` is no span; write 3 cycles, 2 of 5 cycles or 10s",
        ],
    );
    refused("{when: health < 6, for: 3 of 2 cycles}", &["for: 3 of 2 can never be"]);
    refused(
        "{when: health < 6, for: 0 cycles}",
        &["for: the number of rows must be at least 1"],
    );
}
