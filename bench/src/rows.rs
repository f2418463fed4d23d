//! The rows that are measured on.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Float64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use parquet::arrow::ArrowWriter;

const MACHINES: usize = 50;
/// Of each machine.
pub const SIGNALS: [&str; 4] = ["pressure", "position", "temperature", "vibration"];
const RATE_HZ: i64 = 100;
/// A stroke of 5 s has 500 samples of each signal.
const PERIOD_S: f64 = 5.0;
/// 2026-01-01T00:00:00Z in µs.
const START_US: i64 = 1_767_225_600_000_000;

/// The same `count` rows as CSV and as Parquet under `dir`; made when they are not there.
pub fn files(dir: &Path, count: usize) -> anyhow::Result<(PathBuf, PathBuf)> {
    std::fs::create_dir_all(dir)?;
    let (csv, parquet) = (
        dir.join(format!("rows-{count}.csv")),
        dir.join(format!("rows-{count}.parquet")),
    );
    if !csv.exists() || !parquet.exists() {
        write(&csv, &parquet, count)?;
    }
    Ok((csv, parquet))
}

/// The same rows as CSV alone, for more rows than one wants to keep twice.
pub fn csv(dir: &Path, count: usize) -> anyhow::Result<PathBuf> {
    std::fs::create_dir_all(dir)?;
    let path = dir.join(format!("rows-{count}.csv"));
    if !path.exists() {
        let unfinished = path.with_extension("part");
        let mut text = BufWriter::with_capacity(1 << 20, File::create(&unfinished)?);
        writeln!(text, "machine,signal,ts,value")?;
        for (machine, signal, ts, value) in all().take(count) {
            writeln!(text, "machine-{machine:02},{signal},{ts},{value}")?;
        }
        text.flush()?;
        std::fs::rename(unfinished, &path)?;
    }
    Ok(path)
}

fn write(csv: &Path, parquet: &Path, count: usize) -> anyhow::Result<()> {
    let timestamp = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let schema = Arc::new(Schema::new(vec![
        Field::new("machine", DataType::Utf8, false),
        Field::new("signal", DataType::Utf8, false),
        Field::new("ts", timestamp, false),
        Field::new("value", DataType::Float64, false),
    ]));
    let unfinished = csv.with_extension("part");
    let mut text = BufWriter::with_capacity(1 << 20, File::create(&unfinished)?);
    let mut columns = ArrowWriter::try_new(File::create(parquet)?, schema.clone(), None)?;
    writeln!(text, "machine,signal,ts,value")?;
    let mut rows = all().take(count).peekable();
    while rows.peek().is_some() {
        let (mut machines, mut signals, mut times, mut values) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (machine, signal, ts, value) in rows.by_ref().take(1 << 17) {
            writeln!(text, "machine-{machine:02},{signal},{ts},{value}")?;
            machines.push(format!("machine-{machine:02}"));
            signals.push(signal);
            times.push(ts);
            values.push(value);
        }
        let batch = RecordBatch::try_new(
            schema.clone(),
            vec![
                Arc::new(StringArray::from(machines)),
                Arc::new(StringArray::from(signals)),
                Arc::new(TimestampMicrosecondArray::from(times).with_timezone("UTC")),
                Arc::new(Float64Array::from(values)),
            ],
        )?;
        columns.write(&batch)?;
    }
    text.flush()?;
    columns.close()?;
    Ok(std::fs::rename(unfinished, csv)?)
}

/// Series: each machine's signals.
pub const SERIES: usize = MACHINES * SIGNALS.len();

/// The number of a series, below [`SERIES`].
pub fn series(machine: usize, signal: &str) -> usize {
    machine * SIGNALS.len() + SIGNALS.iter().position(|name| *name == signal).unwrap_or(0)
}

/// Machine, signal, µs and value, in the order of time; machines a little out of step with each other, and noise from a fixed
/// sequence.
pub fn all() -> impl Iterator<Item = (usize, &'static str, i64, f64)> {
    let mut noise = 1_u64;
    (0..)
        .flat_map(|tick: i64| {
            (0..MACHINES).flat_map(move |machine| (0..SIGNALS.len()).map(move |s| (tick, machine, s)))
        })
        .map(move |(tick, machine, signal)| {
            noise = noise
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let jitter = (noise >> 40) as f64 / (1 << 24) as f64 - 0.5;
            let ts = START_US + tick * 1_000_000 / RATE_HZ;
            let value = ideal(signal, phase(machine, tick as f64 / RATE_HZ as f64)) + 0.1 * jitter;
            (machine, SIGNALS[signal], ts, (value * 1000.0).round() / 1000.0)
        })
}

/// The value of a signal so many seconds after the beginning, without noise.
pub fn at(machine: usize, signal: &str, secs: f64) -> f64 {
    let signal = SIGNALS.iter().position(|name| *name == signal).unwrap_or(0);
    let value = ideal(signal, phase(machine, secs));
    (value * 1000.0).round() / 1000.0
}

fn phase(machine: usize, secs: f64) -> f64 {
    (secs + machine as f64 * 0.07).rem_euclid(PERIOD_S) / PERIOD_S
}

fn ideal(signal: usize, phase: f64) -> f64 {
    let stroke = (std::f64::consts::PI * ((phase - 0.1) / 0.8).clamp(0.0, 1.0)).sin();
    match signal {
        0 => 1.0 + 99.0 * stroke.powi(2),
        1 => 250.0 * stroke,
        2 => 60.0 + 3.0 * phase,
        _ => 0.5 + 2.0 * stroke,
    }
}
