//! `alert`: opens an alert when a condition has held for some rows or some time, closes it when that is over.
//!
//! A row for which the condition is neither true nor false, because a column is null, counts neither way. In a table with
//! a column `signal` each signal has its own alert. An alert that is open when the input ends stays open.
//!
//! `samples` are read in the order of arrival, unlike windows and cycles, which sort them by time: an alert doesn't
//! wait for late rows. A row that goes back in time counts as a row, and its time adds nothing to how long a condition
//! has held. Where a machine's samples come from several partitions or out of order, read a `window` step instead if
//! each replay has to give the same alerts.

use std::collections::{BTreeMap, VecDeque};
use std::str::FromStr;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taktline_engine::config::{Interval, Problem, Section};
use taktline_engine::kind::{Input, StepKind};
use taktline_engine::table::{KEY, name_type, timestamp, timestamps};
use taktline_engine::{Operator, Order, Output, Rows, Saved, Snapshot, Step, Table};

use crate::condition::Condition;

/// The kind's row in the table.
pub const KIND: StepKind = StepKind {
    name: "alert",
    summary: "opens and closes alerts by a condition over the columns of its input",
    schema: || schemars::schema_for!(AlertConfig),
    reads: &["samples", "cycles", "windows", "anomalies"],
    build,
};

/// Settings of an `alert` step.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertConfig {
    /// The condition over the input's columns: `health < 60`, `outcome = 'timeout' or deviation > 3`.
    pub when: String,
    /// How long it must hold: `3 cycles`, `2 of 5 cycles` or a length of time such as `10s`; 1 row if not given.
    #[serde(rename = "for")]
    pub lasting: Option<String>,
    /// The condition that closes the alert; if not given, it closes as soon as `when` and `for` no longer hold.
    pub clear: Option<String>,
    /// How bad it is; `warning` if not given.
    #[serde(default)]
    pub severity: Severity,
    /// What to tell people; the condition if not given.
    pub message: Option<String>,
}

/// How bad an alert is.
#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Look at it soon.
    #[default]
    Warning,
    /// Look at it now.
    Critical,
}

impl Severity {
    const fn as_str(self) -> &'static str {
        match self {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Critical => "critical",
        }
    }
}

/// How long a condition must hold.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Lasting {
    /// For this many of the last `among` rows.
    Rows { needed: usize, among: usize },
    /// For this many µs between rows.
    Micros(i64),
}

impl FromStr for Lasting {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no span; write 3 cycles, 2 of 5 cycles or 10s");
        let count = |word: &str| word.parse::<usize>().map_err(|_| wrong());
        let words: Vec<&str> = text.split_whitespace().collect();
        let is_row = |word: &str| ["cycle", "cycles", "row", "rows", "window", "windows"].contains(&word);
        let (needed, among) = match words.as_slice() {
            [needed, rows] if is_row(rows) => (count(needed)?, count(needed)?),
            [needed, "of", among, rows] if is_row(rows) => (count(needed)?, count(among)?),
            _ => {
                return text
                    .parse::<Interval>()
                    .map(|span| Lasting::Micros(span.micros()))
                    .map_err(|_| wrong());
            }
        };
        match needed {
            0 => Err("the number of rows must be at least 1".into()),
            _ if needed > among => Err(format!("{needed} of {among} can never be")),
            _ if among > 10_000 => Err("more than 10000 rows are not looked back at".into()),
            _ => Ok(Lasting::Rows { needed, among }),
        }
    }
}

/// `alerts`: two rows per alert, when it opens and when it closes.
///
/// | column | type | meaning |
/// | --- | --- | --- |
/// | `alert_id` | UTF-8 | the same for both rows and in every replay |
/// | `machine` | dictionary of UTF-8 | who |
/// | `step` | UTF-8 | the step that raised it |
/// | `severity` | UTF-8 | `info`, `warning` or `critical` |
/// | `state` | UTF-8 | `open` or `closed` |
/// | `ts` | timestamp µs, UTC | when this happened: the row's `end`, or `ts` |
/// | `opened`, `closed` | timestamp µs, UTC | when it opened, and closed (null while open) |
/// | `cycle_id` | UTF-8, nullable | the row's cycle |
/// | `top_signal` | UTF-8, nullable | the row's signal, or the one that deviates most |
/// | `condition`, `message` | UTF-8 | why |
pub fn schema() -> SchemaRef {
    static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
        let text = |name| Field::new(name, DataType::Utf8, false);
        Arc::new(Schema::new(vec![
            text("alert_id"),
            Field::new(KEY, name_type(), false),
            text("step"),
            text("severity"),
            text("state"),
            Field::new("ts", timestamp(), false),
            Field::new("opened", timestamp(), false),
            Field::new("closed", timestamp(), true),
            Field::new("cycle_id", DataType::Utf8, true),
            Field::new("top_signal", DataType::Utf8, true),
            text("condition"),
            text("message"),
        ]))
    });
    SCHEMA.clone()
}

fn build(section: &Section, input: &Input) -> Result<Box<dyn Step>, Vec<Problem>> {
    let config: AlertConfig = section.parse()?;
    let schema_in = &input.table.schema;
    let mut problems = Vec::new();
    let mut condition = |path: &str, text: &str| {
        Condition::parse(path, text, schema_in)
            .map_err(|found| problems.extend(found))
            .ok()
    };
    let when = condition("when", &config.when);
    let clear = config.clear.as_ref().and_then(|text| condition("clear", text));
    let lasting = config.lasting.as_deref().unwrap_or("1 cycle").parse();
    let lasting = lasting
        .map_err(|message: String| problems.push(Problem::at("for", message)))
        .ok();
    let time = ["end", "ts"].into_iter().find(|name| schema_in.index_of(name).is_ok());
    if time.is_none() {
        problems.push(Problem::at(
            "",
            format!("rows of `{}` have no time (`end` or `ts`)", input.name),
        ));
    }
    let (Some(when), Some(lasting), Some(time), true) = (when, lasting, time, problems.is_empty()) else {
        return Err(problems);
    };
    let span = config
        .lasting
        .map(|lasting| format!(" for {lasting}"))
        .unwrap_or_default();
    let message = config.message.unwrap_or_else(|| format!("{}{span}", config.when));
    let rule = Rule {
        name: section.name.clone(),
        when,
        clear,
        lasting,
        severity: config.severity,
        message,
        time,
        by_signal: schema_in.index_of("signal").is_ok(),
    };
    Ok(Box::new(AlertStep {
        rule: Arc::new(rule),
        table: Table::plain("alerts", schema()),
    }))
}

struct Rule {
    name: String,
    when: Condition,
    clear: Option<Condition>,
    lasting: Lasting,
    severity: Severity,
    message: String,
    /// The column that tells a row's time.
    time: &'static str,
    /// Whether rows have a signal, so that each has its own alert.
    by_signal: bool,
}

struct AlertStep {
    rule: Arc<Rule>,
    table: Table,
}

impl Step for AlertStep {
    fn output(&self) -> &Table {
        &self.table
    }

    fn order(&self) -> Order {
        Order::Arrival
    }

    /// With other conditions and spans an open alert stays open until the new ones close it.
    fn state(&self) -> String {
        format!("alert/1{}", if self.rule.by_signal { " by signal" } else { "" })
    }

    fn operator(&self, key: &str) -> Box<dyn Operator> {
        Box::new(Alerts {
            rule: self.rule.clone(),
            machine: key.to_owned(),
            by_signal: BTreeMap::new(),
        })
    }
}

struct Alerts {
    rule: Arc<Rule>,
    machine: String,
    /// By the row's signal; by the empty text in a table without signals.
    by_signal: BTreeMap<String, Watch>,
}

/// What is known of one alert.
#[derive(Default, Serialize, Deserialize)]
struct Watch {
    /// Whether the condition held in the last rows, newest last.
    recent: VecDeque<bool>,
    /// Since when it has held without a break.
    since: Option<i64>,
    open: Option<Opened>,
}

#[derive(Serialize, Deserialize)]
struct Opened {
    id: String,
    at: i64,
}

/// What a row does to an alert.
#[derive(Clone, Copy, PartialEq)]
enum Change {
    Open,
    Close,
}

impl Watch {
    /// Takes a row with its truth (and that of `clear`, where there is one).
    fn see(&mut self, lasting: Lasting, ts: i64, holds: Option<bool>, clear: Option<Option<bool>>) -> Option<Change> {
        if let Some(holds) = holds {
            let among = if let Lasting::Rows { among, .. } = lasting {
                among
            } else {
                0
            };
            self.recent.push_back(holds);
            while self.recent.len() > among {
                self.recent.pop_front();
            }
            self.since = if holds { self.since.or(Some(ts)) } else { None };
        }
        let lasted = match lasting {
            Lasting::Rows { needed, .. } => self.recent.iter().filter(|holds| **holds).count() >= needed,
            Lasting::Micros(span) => self.since.is_some_and(|since| ts.saturating_sub(since) >= span),
        };
        match (&self.open, clear) {
            (None, _) => (holds == Some(true) && lasted).then_some(Change::Open),
            (Some(_), Some(clear)) => (clear == Some(true)).then_some(Change::Close),
            (Some(_), None) => (holds.is_some() && !lasted).then_some(Change::Close),
        }
    }
}

impl Operator for Alerts {
    fn rows(&mut self, rows: &Rows<'_>, out: &mut Output) -> anyhow::Result<()> {
        let batch = rows.batch();
        let rule = self.rule.clone();
        let when = rule.when.evaluate(&batch)?;
        let clear = rule.clear.as_ref().map(|clear| clear.evaluate(&batch)).transpose()?;
        let times = timestamps(&batch, rule.time)?;
        let (signal, cycle_id) = (texts(&batch, "signal")?, texts(&batch, "cycle_id")?);
        let top_signal = texts(&batch, "top_signal")?;
        let mut events = Vec::new();
        for (row, &ts) in times.iter().enumerate() {
            let signal = text(&signal, row);
            let watch = match self.by_signal.get_mut(signal.unwrap_or_default()) {
                Some(watch) => watch,
                None => self.by_signal.entry(signal.unwrap_or_default().to_owned()).or_default(),
            };
            let clears = clear.as_ref().map(|clear| clear[row]);
            let Some(change) = watch.see(rule.lasting, ts, when[row], clears) else {
                continue;
            };
            let cycle_id = text(&cycle_id, row);
            let top_signal = text(&top_signal, row).or(signal);
            let (opened, closed) = match (change, watch.open.take()) {
                (Change::Close, Some(opened)) => {
                    *watch = Watch::default();
                    (opened, Some(ts))
                }
                _ => {
                    let place = cycle_id.map_or_else(|| ts.to_string(), str::to_owned);
                    let id = alert_id(&[&rule.name, &self.machine, signal.unwrap_or_default(), &place]);
                    watch.open = Some(Opened { id: id.clone(), at: ts });
                    (Opened { id, at: ts }, None)
                }
            };
            events.push(Event {
                id: opened.id,
                ts,
                opened: opened.at,
                closed,
                cycle_id,
                top_signal,
            });
        }
        if !events.is_empty() {
            out.emit(self.batch(&events)?);
        }
        Ok(())
    }

    fn snapshot(&mut self, into: &mut Snapshot) -> anyhow::Result<()> {
        into.head(&self.by_signal)
    }

    fn restore(&mut self, saved: &Saved) -> anyhow::Result<()> {
        self.by_signal = saved.head()?;
        Ok(())
    }
}

struct Event<'a> {
    id: String,
    ts: i64,
    opened: i64,
    closed: Option<i64>,
    cycle_id: Option<&'a str>,
    top_signal: Option<&'a str>,
}

impl Alerts {
    fn batch(&self, events: &[Event<'_>]) -> anyhow::Result<RecordBatch> {
        let rule = &self.rule;
        let same = |text: &str| Arc::new(StringArray::from(vec![text; events.len()])) as ArrayRef;
        let each = |get: fn(&Event<'_>) -> Option<String>| {
            Arc::new(events.iter().map(get).collect::<StringArray>()) as ArrayRef
        };
        let time = |get: fn(&Event<'_>) -> Option<i64>| {
            Arc::new(
                events
                    .iter()
                    .map(get)
                    .collect::<TimestampMicrosecondArray>()
                    .with_timezone("UTC"),
            ) as ArrayRef
        };
        let state = |event: &Event<'_>| Some(if event.closed.is_some() { "closed" } else { "open" }.to_owned());
        let columns = vec![
            each(|event| Some(event.id.clone())),
            cast(&same(&self.machine), &name_type())?,
            same(&rule.name),
            same(rule.severity.as_str()),
            each(state),
            time(|event| Some(event.ts)),
            time(|event| Some(event.opened)),
            time(|event| event.closed),
            each(|event| event.cycle_id.map(str::to_owned)),
            each(|event| event.top_signal.map(str::to_owned)),
            same(rule.when.text()),
            same(&rule.message),
        ];
        Ok(RecordBatch::try_new(schema(), columns)?)
    }
}

/// A text column, if the batch has it.
fn texts(batch: &RecordBatch, name: &str) -> anyhow::Result<Option<ArrayRef>> {
    Ok(batch
        .column_by_name(name)
        .map(|array| cast(array, &DataType::Utf8))
        .transpose()?)
}

fn text(column: &Option<ArrayRef>, row: usize) -> Option<&str> {
    column
        .as_ref()
        .filter(|array| array.is_valid(row))
        .map(|array| array.as_string::<i32>().value(row))
}

/// The 64-bit FNV-1a hash of the parts in hexadecimal: fixed, so that a replay gives the same id.
/// Source: Fowler, Noll, Vo; RFC 9923.
fn alert_id(parts: &[&str]) -> String {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().flat_map(|part| part.bytes().chain([0])) {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{hash:016x}")
}

#[cfg(test)]
#[path = "alert_tests.rs"]
mod tests;
