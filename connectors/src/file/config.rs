//! Settings of the `file` source as the pipeline file says them, and checked.

use schemars::JsonSchema;
use serde::Deserialize;
use taktline_engine::config::{Problem, Section};

use super::cell::Numbers;
use super::time::{self, Unit};
use crate::replay::Replay;

/// Reads CSV, Parquet and NDJSON files, long (one row per signal) or wide (one column per signal).
///
/// Records are lines: a newline inside quotes ends the record, so that one stray quote costs one row and not the file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct FileConfig {
    /// A file or a glob like `data/*.csv`, or a list of them. Files are read one after another in natural order of
    /// their names (`run-9` before `run-10`).
    path: OneOrMany,
    /// Format of the files. By default the file's ending says it: `.csv`, `.tsv`, `.txt`, `.parquet`, `.pq`, `.ndjson`,
    /// `.jsonl`.
    format: Option<Format>,
    /// `long`: a row is one sample with the signal's name in a column. `wide`: a row has one time and a column for each
    /// signal. By default long where `signal` or `value` is set or the file has columns `signal` and `value`, else
    /// wide.
    layout: Option<Layout>,
    /// What stands between the fields of a CSV line, one character or `tab`. By default `,`; `;` where the decimal mark
    /// is a comma, tab for `.tsv`.
    delimiter: Option<String>,
    /// The decimal mark of CSV numbers, `.` (default) or `,`.
    decimal: Option<Decimal>,
    /// Names of the columns of CSV files without a header line.
    columns: Option<Vec<String>>,
    /// Where a row's machine comes from. By default the column `machine` where the file has it, else the file's name.
    machine: Option<Machine>,
    /// Where a row's time comes from: `{column: ts, unit: ms}` or `{start: 2026-01-01T00:00:00Z, rate: 100}`.
    time: Time,
    /// Wide: the columns that are signals. By default all columns with a name besides machine and time. NDJSON: keys or
    /// JSON pointers like `/motor/current`.
    signals: Option<Vec<String>>,
    /// Long: the column with the signal's name. Default `signal`.
    signal: Option<String>,
    /// Long: the column with the value. Default `value`.
    value: Option<String>,
    /// Columns that are kept as text (states, program names, markers). Long: one column. In wide CSV files also each
    /// column whose first filled cell is neither number nor boolean is text; the first MiB of the file decides.
    text: Option<OneOrMany>,
    /// Cells that mean that there is no value, besides empty ones, for example `NA`.
    missing: Option<Vec<String>>,
    /// The longest line that is read, in bytes; longer ones are dead letters. Default 1048576.
    #[schemars(range(min = 1))]
    max_line: Option<u32>,
    /// How fast: `max` (default), `realtime` or `x10`, by the rows' own time. Files that are machines (`machine:
    /// {file_name: true}`) are replayed side by side.
    replay: Option<Replay>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl OneOrMany {
    fn into_vec(self) -> Vec<String> {
        match self {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        }
    }
}

/// A file format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Format {
    Csv,
    Parquet,
    Ndjson,
}

/// One row per sample, or one row per time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(super) enum Layout {
    Long,
    Wide,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
enum Decimal {
    #[serde(rename = ".")]
    Point,
    #[serde(rename = ",")]
    Comma,
}

/// Where a row's machine comes from.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Machine {
    /// A column with the machine's name.
    Column(String),
    /// All rows are of this machine.
    Constant(String),
    /// The file's name without folder and ending.
    FileName(bool),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum Time {
    Column(TimeColumn),
    Index(TimeIndex),
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TimeColumn {
    /// The column with the time.
    column: String,
    /// What it counts since 1970: `s`, `ms`, `us`, `ns`; or `rfc3339` (default) for texts like
    /// `2026-01-02T03:04:05.678Z` and, read as UTC, `2026-01-02 03:04:05`. Parquet timestamps carry their own unit.
    unit: Option<Unit>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct TimeIndex {
    /// Time of the first row.
    start: String,
    /// Rows per second. The index counts the rows of the whole source, or of each file where the file's name is the
    /// machine; rows that can't be read count too.
    rate: f64,
}

/// Where a row's time comes from, checked.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum TimeSource {
    Column { name: String, unit: Unit },
    Index { start: i64, rate: f64 },
}

/// Checked settings.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    /// The source's name in the pipeline file.
    pub source: String,
    pub paths: Vec<String>,
    pub format: Option<Format>,
    pub layout: Option<Layout>,
    pub delimiter: Option<u8>,
    pub decimal_comma: bool,
    pub columns: Option<Vec<String>>,
    pub machine: Option<Machine>,
    pub time: TimeSource,
    pub signals: Option<Vec<String>>,
    pub signal: Option<String>,
    pub value: Option<String>,
    pub text: Vec<String>,
    pub missing: Vec<String>,
    pub max_line: usize,
    pub replay: Replay,
    /// Bytes per block of text, rows per slice of a Parquet file.
    pub block_bytes: usize,
    pub block_rows: u64,
}

impl Settings {
    /// Reads and checks a section.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn of(section: &Section) -> Result<Self, Vec<Problem>> {
        let config: FileConfig = section.parse()?;
        let mut problems = Vec::new();
        let paths = config.path.into_vec();
        if paths.is_empty() || paths.iter().any(|path| path.trim().is_empty()) {
            problems.push(Problem::at("path", "names no file").hint("write a file or a glob like data/*.csv"));
        }
        for path in &paths {
            if let Err(e) = glob::Pattern::new(path) {
                problems.push(Problem::at("path", format!("`{path}` is no glob: {}", e.msg)).offset(e.pos));
            }
        }
        let decimal_comma = config.decimal == Some(Decimal::Comma);
        let delimiter = config.delimiter.as_deref().and_then(|text| {
            let byte = delimiter(text);
            if byte.is_none() {
                let problem = Problem::at("delimiter", format!("`{text}` is no delimiter"));
                problems.push(problem.hint("one character like `;`, or `tab`; no quote, letter, digit or line end"));
            }
            byte
        });
        if decimal_comma && delimiter == Some(b',') {
            let problem = Problem::at("delimiter", "can't be a comma where the decimal mark is a comma");
            problems.push(problem.hint("such files mostly have `;` between the fields"));
        }
        let delimiter = delimiter.or(decimal_comma.then_some(b';'));
        let machine = match config.machine {
            Some(Machine::FileName(false)) => None,
            Some(Machine::Constant(name)) if name.trim().is_empty() => {
                problems.push(Problem::at("machine.constant", "is empty"));
                None
            }
            other => other,
        };
        let time = time_source(config.time, &mut problems);
        let text = config.text.map(OneOrMany::into_vec).unwrap_or_default();
        let long = config.layout == Some(Layout::Long) || config.signal.is_some() || config.value.is_some();
        if config.layout == Some(Layout::Wide) {
            for (key, set) in [("signal", config.signal.is_some()), ("value", config.value.is_some())] {
                if set {
                    let problem = Problem::at(key, format!("`{key}` belongs to layout long")).on_key();
                    problems.push(problem.hint("name the columns of a wide file in `signals`"));
                }
            }
        } else if long {
            if config.signals.is_some() {
                let problem = Problem::at("signals", "`signals` belongs to layout wide").on_key();
                problems.push(problem.hint("a long file names its signals in the column `signal`"));
            }
            if text.len() > 1 {
                problems.push(Problem::at("text", "a long file has one text column"));
            }
        }
        if config.signals.as_ref().is_some_and(Vec::is_empty) && text.is_empty() {
            problems.push(Problem::at("signals", "names no column"));
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Settings {
            source: section.name.clone(),
            paths,
            format: config.format,
            layout: config.layout.or(long.then_some(Layout::Long)),
            delimiter,
            decimal_comma,
            columns: config.columns,
            machine,
            time,
            signals: config.signals,
            signal: config.signal,
            value: config.value,
            text,
            missing: config.missing.unwrap_or_default(),
            max_line: config.max_line.unwrap_or(1 << 20) as usize,
            replay: config.replay.unwrap_or(Replay::Max),
            block_bytes: 256 << 10,
            block_rows: 1 << 16,
        })
    }

    /// How numbers are written.
    pub fn numbers(&self) -> Numbers {
        Numbers {
            decimal_comma: self.decimal_comma,
            missing: self.missing.clone(),
        }
    }

    /// True when each file is a machine of its own.
    pub fn file_is_machine(&self) -> bool {
        matches!(self.machine, Some(Machine::FileName(_)))
    }
}

fn time_source(config: Time, problems: &mut Vec<Problem>) -> TimeSource {
    match config {
        Time::Column(TimeColumn { column, unit }) => TimeSource::Column {
            name: column,
            unit: unit.unwrap_or(Unit::Rfc3339),
        },
        Time::Index(TimeIndex { start, rate }) => {
            if !(rate.is_finite() && rate > 0.0) {
                problems.push(Problem::at("time.rate", format!("{rate} rows per second is no rate")));
            }
            let micros = time::rfc3339(start.as_bytes());
            if micros.is_none() {
                let problem = Problem::at("time.start", format!("`{start}` is no time"));
                problems.push(problem.hint("write it like 2026-01-01T00:00:00Z"));
            }
            TimeSource::Index {
                start: micros.unwrap_or_default(),
                rate,
            }
        }
    }
}

fn delimiter(text: &str) -> Option<u8> {
    match text.as_bytes() {
        b"tab" | b"\\t" => Some(b'\t'),
        [byte] if byte.is_ascii() && !byte.is_ascii_alphanumeric() && !b"\"\r\n.-+".contains(byte) => Some(*byte),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// The problems of a section as `path: message` lines.
    fn check(yaml: &str, expect: &[&str]) {
        let found = match Settings::of(&Section::from_yaml("plant", yaml)) {
            Ok(_) => Vec::new(),
            Err(problems) => problems
                .iter()
                .map(|p| format!("{}: {}", p.path.join("."), p.message))
                .collect(),
        };
        assert_eq!(found, expect, "{yaml}");
    }

    #[test]
    fn good_settings() {
        check("{path: a.csv, time: {column: ts, unit: ms}}", &[]);
        check(
            "{path: [a.csv, 'b/*.csv'], time: {column: ts}, machine: {column: m}}",
            &[],
        );
        check(
            "{path: a, format: csv, decimal: ',', time: {start: 2024-01-01T00:00:00Z, rate: 1}}",
            &[],
        );
        check(
            "{path: a.csv, delimiter: tab, time: {column: t}, machine: {file_name: true}, replay: x10}",
            &[],
        );
        check("{path: a.csv, layout: long, text: state, time: {column: t}}", &[]);
    }

    #[test]
    fn every_problem_is_told() {
        check("{path: '', time: {column: ts}}", &["path: names no file"]);
        check(
            "{path: 'a[', time: {column: ts}}",
            &["path: `a[` is no glob: invalid range pattern"],
        );
        check(
            "{path: [], delimiter: xx, time: {start: soon, rate: 0}}",
            &[
                "path: names no file",
                "delimiter: `xx` is no delimiter",
                "time.rate: 0 rows per second is no rate",
                "time.start: `soon` is no time",
            ],
        );
        check(
            "{path: a, decimal: ',', delimiter: ',', time: {column: t}}",
            &["delimiter: can't be a comma where the decimal mark is a comma"],
        );
        check(
            "{path: a, signal: s, signals: [x], text: [a, b], time: {column: t}}",
            &[
                "signals: `signals` belongs to layout wide",
                "text: a long file has one text column",
            ],
        );
        check(
            "{path: a, layout: wide, signal: s, value: v, time: {column: t}}",
            &[
                "signal: `signal` belongs to layout long",
                "value: `value` belongs to layout long",
            ],
        );
        check(
            "{path: a, machine: {constant: ' '}, time: {column: t}}",
            &["machine.constant: is empty"],
        );
    }
}
