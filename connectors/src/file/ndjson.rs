//! NDJSON: one JSON object per line.
//!
//! A JSON number or boolean is a reading, a string is a text, null is a missing sample, and a key that isn't there
//! is no sample. Objects and lists inside a line are read only where a pointer like `/motor/current` names something in them.

use serde_json::{Map, Value};
use taktline_engine::DeadLetters;

use super::block::{BlockView, is_blank};
use super::cell::{Cell, Numbers};
use super::columns::TimeFrom;
use super::config::{Layout, Machine, Settings, TimeSource};
use super::csv::shown;
use super::time::{self, Unit};
use crate::rows::Rows;

/// Decodes blocks of NDJSON text.
pub(super) struct NdjsonDecoder {
    settings: Settings,
    numbers: Numbers,
}

impl NdjsonDecoder {
    pub fn new(settings: &Settings) -> Self {
        NdjsonDecoder {
            settings: settings.clone(),
            numbers: settings.numbers(),
        }
    }

    /// Appends the block's rows; what can't be read goes to `dead` under the file's name.
    pub fn decode(&self, stem: &str, block: BlockView<'_>, name: &str, rows: &mut Rows, dead: &mut DeadLetters) {
        let mut start = 0;
        let mut row = block.first_row;
        for end in memchr::memchr_iter(b'\n', block.bytes).chain([block.bytes.len()]) {
            let line = &block.bytes[start..end];
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !is_blank(line) {
                let offset = block.offset + start as u64;
                let mut refuse = |reason: &str| dead.push(name, offset, reason, line);
                if line.len() > self.settings.max_line {
                    refuse(&format!("line of {} bytes is longer than max_line", line.len()));
                } else {
                    self.line(line, stem, row, rows, &mut refuse);
                }
                row += 1;
            }
            start = end + 1;
        }
    }

    fn line(&self, line: &[u8], stem: &str, row: u64, rows: &mut Rows, refuse: &mut impl FnMut(&str)) {
        let object = match serde_json::from_slice(line) {
            Ok(Value::Object(object)) => Value::Object(object),
            Ok(_) => return refuse("no JSON object"),
            Err(e) => return refuse(&format!("no JSON: {e}")),
        };
        let Value::Object(entries) = &object else { return };
        let ts = match self.time(&object, row) {
            Ok(ts) => ts,
            Err(reason) => return refuse(&reason),
        };
        let machine = match &self.settings.machine {
            Some(Machine::Column(key)) => at(&object, key).and_then(name_of),
            Some(Machine::Constant(name)) => Some(name.clone()),
            Some(Machine::FileName(_)) => Some(stem.to_owned()),
            None => match entries.get(taktline_engine::table::KEY) {
                Some(value) => name_of(value),
                None => Some(stem.to_owned()),
            },
        };
        let Some(machine) = machine.and_then(|name| rows.machines.number(name.as_bytes())) else {
            return refuse("no machine");
        };
        let long = match self.settings.layout {
            Some(layout) => layout == Layout::Long,
            None => self.settings.signals.is_none() && entries.contains_key("signal") && entries.contains_key("value"),
        };
        if long {
            self.long(&object, machine, ts, rows, refuse)
        } else {
            self.wide(&object, entries, machine, ts, rows, refuse)
        }
    }

    fn time(&self, object: &Value, row: u64) -> Result<i64, String> {
        let (key, unit) = match &self.settings.time {
            TimeSource::Index { start, rate } => return Ok(TimeFrom::of_index(*start, *rate, row)),
            TimeSource::Column { name, unit } => (name, *unit),
        };
        let value = at(object, key).ok_or_else(|| format!("no `{key}`"))?;
        let ts = match value {
            Value::String(text) => time::parse(text.trim().as_bytes(), unit),
            Value::Number(_) if unit == Unit::Rfc3339 => None,
            Value::Number(number) => match number.as_i64() {
                Some(count) => unit.micros(count),
                // The number's own digits are exact where a float isn't.
                None => time::parse(number.to_string().as_bytes(), unit),
            },
            _ => None,
        };
        ts.ok_or_else(|| format!("`{}` is no {}", shown(value.to_string().as_bytes()), unit.words()))
            .and_then(time::plausible)
    }

    fn long(&self, object: &Value, machine: i32, ts: i64, rows: &mut Rows, refuse: &mut impl FnMut(&str)) {
        let key = |name: &Option<String>, default| at(object, name.as_deref().unwrap_or(default));
        let signal = key(&self.settings.signal, "signal").and_then(name_of);
        let Some(signal) = signal.and_then(|name| rows.signals.number(name.as_bytes())) else {
            return refuse("no signal");
        };
        let text = self
            .settings
            .text
            .first()
            .and_then(|key| at(object, key))
            .and_then(Value::as_str);
        match (key(&self.settings.value, "value"), text) {
            (None, None) => refuse("no value"),
            (None, text) => rows.push_text(machine, signal, ts, None, text),
            (Some(value), text) => match self.reading(value) {
                Some((value, own)) => rows.push_text(machine, signal, ts, value, text.or(own)),
                None => refuse(&format!("value `{}` is no number", shown(value.to_string().as_bytes()))),
            },
        }
    }

    fn wide(
        &self,
        object: &Value,
        entries: &Map<String, Value>,
        machine: i32,
        ts: i64,
        rows: &mut Rows,
        refuse: &mut impl FnMut(&str),
    ) {
        let Some(names) = &self.settings.signals else {
            for (key, value) in entries {
                if !self.is_taken(key) && !matches!(value, Value::Object(_) | Value::Array(_)) {
                    self.wide_value(key, value, machine, ts, rows, refuse);
                }
            }
            return;
        };
        let more = self.settings.text.iter().filter(|name| !names.contains(name));
        for name in names.iter().chain(more) {
            if let Some(value) = at(object, name) {
                self.wide_value(name.trim_start_matches('/'), value, machine, ts, rows, refuse);
            }
        }
    }

    fn wide_value(
        &self,
        name: &str,
        value: &Value,
        machine: i32,
        ts: i64,
        rows: &mut Rows,
        refuse: &mut impl FnMut(&str),
    ) {
        let Some(signal) = rows.signals.number(name.as_bytes()) else {
            return refuse("a key is empty");
        };
        match self.reading(value) {
            Some((value, text)) => rows.push_text(machine, signal, ts, value, text),
            None => refuse(&format!(
                "key `{name}`: `{}` is no number",
                shown(value.to_string().as_bytes())
            )),
        }
    }

    fn is_taken(&self, key: &str) -> bool {
        let is = |name: &str| name.strip_prefix('/').unwrap_or(name) == key;
        let machine = match &self.settings.machine {
            Some(Machine::Column(name)) => is(name),
            Some(_) => false,
            None => is(taktline_engine::table::KEY),
        };
        machine || matches!(&self.settings.time, TimeSource::Column { name, .. } if is(name))
    }

    /// A value as reading and text; `None` for objects and lists.
    fn reading<'v>(&self, value: &'v Value) -> Option<(Option<f64>, Option<&'v str>)> {
        match value {
            Value::Null => Some((None, None)),
            Value::Bool(on) => Some((Some(f64::from(u8::from(*on))), None)),
            Value::Number(number) => Some((number.as_f64(), None)),
            // JSON has no word for these three, so writers put them into quotes.
            Value::String(text) if matches!(text.as_str(), "NaN" | "Infinity" | "-Infinity") => {
                match self.numbers.parse(text.as_bytes()) {
                    Cell::Number(value) => Some((Some(value), None)),
                    _ => Some((None, None)),
                }
            }
            Value::String(text) if self.numbers.is_missing(text.as_bytes()) => Some((None, None)),
            Value::String(text) => Some((None, Some(text))),
            Value::Object(_) | Value::Array(_) => None,
        }
    }
}

/// A top-level key, or what a JSON pointer points at.
fn at<'v>(object: &'v Value, key: &str) -> Option<&'v Value> {
    if key.starts_with('/') {
        object.pointer(key)
    } else {
        object.get(key)
    }
}

fn name_of(value: &Value) -> Option<String> {
    match value {
        Value::String(name) => Some(name.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}
