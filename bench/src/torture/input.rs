//! Input made from a seed: machines that repeat themselves, rows out of order, rows that come late, lines that are no rows.
//!
//! Each machine is a producer. At each tick it sends its signals and a record: `producer sequence checksum`, the checksum over
//! the tick's values. So a row that was changed, and not only one that is missing, shows without an oracle.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::dice::Dice;

/// 2026-01-01T00:00:00Z in µs.
const START_US: i64 = 1_767_225_600_000_000;
/// Between two ticks of a machine.
const TICK_US: i64 = 50_000;
/// The rows' time goes so many times as fast as the wall's.
const SPEED: u64 = 10;
/// Machines in one file beside each other, and machines with a file of their own.
const TOGETHER: usize = 4;
const ALONE: usize = 3;

/// Writes the files and a pipeline that reads them in about `secs` seconds. Gives the pipeline.
///
/// # Errors
/// A file can't be written.
pub fn write(work: &Path, seed: u64, secs: u64) -> anyhow::Result<PathBuf> {
    let mut dice = Dice::new(seed, "input");
    let ticks = (secs * SPEED * 1_000_000) as i64 / TICK_US;
    let mut together: Vec<Row> = (0..TOGETHER)
        .flat_map(|n| machine(&format!("press-{n}"), ticks, &mut dice))
        .collect();
    together.sort_by_key(|row| row.arrives);
    let parts = together.chunks(together.len().div_ceil(3));
    for (number, rows) in parts.enumerate() {
        save(work, &format!("line-{number}.csv"), &lines(rows, &mut dice))?;
    }
    for n in 0..ALONE {
        let name = format!("pump-{n}");
        let mut rows = machine(&name, ticks, &mut dice);
        rows.sort_by_key(|row| row.arrives);
        save(work, &format!("{name}.csv"), &lines(&rows, &mut dice))?;
    }
    let text = pipeline(work);
    save(work, "pipeline.yaml", &text)
}

struct Row {
    arrives: i64,
    line: String,
}

fn machine(name: &str, ticks: i64, dice: &mut Dice) -> Vec<Row> {
    let period_us = dice.pick(1_500..4_500) as i64 * 1_000;
    let drifts_from = ticks * 2 / 3;
    let mut rows = Vec::new();
    for tick in 0..ticks {
        let ts = START_US + tick * TICK_US;
        let phase = (tick * TICK_US).rem_euclid(period_us) as f64 / period_us as f64;
        let stroke = (std::f64::consts::PI * ((phase - 0.1) / 0.8).clamp(0.0, 1.0)).sin();
        let worn = (tick - drifts_from).max(0) as f64 / ticks as f64;
        let noise = dice.share();
        let pressure = format!("{:.4}", 1.0 + 99.0 * stroke.powi(2) * (1.0 - worn) + noise);
        let position = format!("{:.4}", 250.0 * stroke + 40.0 * worn + noise);
        // Most rows of a tick come a little out of order, a few too late.
        let delay = if dice.once_in(400) {
            6_000_000
        } else {
            dice.pick(0..300_000) as i64
        };
        let record = record(name, tick as u64, &pressure, &position);
        for (signal, value, text) in [
            ("pressure", pressure.as_str(), ""),
            ("position", position.as_str(), ""),
            ("record", "", record.as_str()),
        ] {
            let arrives = ts + delay + dice.pick(0..100_000) as i64;
            rows.push(Row {
                arrives,
                line: format!("{name},{signal},{ts},{value},{text}\n"),
            });
        }
    }
    rows
}

/// What a producer says about a tick.
pub fn record(producer: &str, sequence: u64, first: &str, second: &str) -> String {
    let crc = crc32fast::hash(format!("{producer} {sequence} {first} {second}").as_bytes());
    format!("{producer} {sequence} {crc:08x}")
}

fn lines(rows: &[Row], dice: &mut Dice) -> String {
    let mut text = String::from("machine,signal,ts,value,text\n");
    for row in rows {
        text.push_str(&row.line);
        if dice.once_in(700) {
            let _ = writeln!(text, "press-0,pressure,no time at all,{}", dice.pick(0..1_000_000)); // into a text: can't fail
        }
    }
    text
}

fn save(work: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = work.join(name);
    std::fs::write(&path, text).with_context(|| path.display().to_string())?;
    Ok(path)
}

fn pipeline(work: &Path) -> String {
    let work = work.display();
    let csv = "layout: long, signal: signal, value: value, text: text, time: {column: ts, unit: us}";
    let history = "[line, pumps, strokes, compared, health, worn, windows, shifts]";
    format!(
        r#"version: 1
checkpoint: {{every: 50ms}}
sources:
  line:  {{kind: file, path: "{work}/line-*.csv", machine: {{column: machine}}, {csv}, replay: x{SPEED}}}
  pumps: {{kind: file, path: "{work}/pump-*.csv", machine: {{file_name: true}}, {csv}, replay: x{SPEED}}}
steps:
  strokes:  {{kind: cycle, from: [line, pumps], start: "pressure rises above 10", end: "pressure falls below 6", lateness: 1s}}
  compared: {{kind: compare, from: strokes, reference: {{first: 5}}, distance: dtw, ignore: [record]}}
  health:   {{kind: health, from: compared}}
  worn:     {{kind: alert, from: health, when: "health < 60", for: 2 of 3 cycles, clear: "health > 70"}}
  windows:  {{kind: window, from: [line, pumps], every: 2s, lateness: 1s}}
  shifts:   {{kind: cycle, from: pumps, length: 17s, lateness: 8s}}
sinks:
  history: {{kind: history, from: {history}}}
"#
    )
}
