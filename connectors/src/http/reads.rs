//! How bodies become rows: in our own forms, or as the `decode` section says.

use axum::http::{HeaderMap, StatusCode};
use taktline_engine::config::Problem;

use super::arrow;
use super::body::Format;
use super::fault::Fault;
use super::json::JsonRows;
use super::line::{LineParts, LineRows};
use super::members::Members;
use super::verdicts::{Refusing, Verdicts};
use crate::codec::config;
use crate::codec::decode::{Address, Asked, DecodeConfig, Reading};
use crate::codec::message::Message;
use crate::codec::reading::foreign_settings;
use crate::codec::signals::Signals;
use crate::time::Unit;

/// How the bodies of a source become rows.
pub(super) struct Reads {
    source: String,
    /// What a number in a time counts, where the request doesn't say.
    unit: Unit,
    signals: Signals,
    members: Members,
    parts: LineParts,
    /// In place of our own forms, where `decode` names pointers or a format.
    reading: Option<Reading>,
    /// True where the reading is of lines.
    of_lines: bool,
}

/// A body that came, and what its request says about it.
pub(super) struct Came<'b> {
    pub headers: &'b HeaderMap,
    pub body: &'b [u8],
    /// What its times count.
    pub unit: Option<Unit>,
    /// It came where InfluxDB takes lines.
    pub as_lines: bool,
}

impl Reads {
    /// Checks the settings against each other. `names` are the templates for machine and signal.
    pub(super) fn new(
        source: &str,
        unit: Option<Unit>,
        decode: &DecodeConfig,
        names: (Option<&str>, Option<&str>),
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let own = is_own(decode);
        let mut reading = None;
        if own {
            foreign_settings(decode, &mut problems);
            check_own(decode, names, &mut problems);
        } else {
            let address = Address {
                stream: true,
                ..Address::default()
            };
            let read = Reading::new(source, address, decode, names.0, names.1);
            reading = read
                .map_err(|found| problems.extend(found.into_iter().map(in_our_words)))
                .ok();
            check_read(decode, unit, &mut problems);
        }
        if unit == Some(Unit::Rfc3339) {
            let message = "this says what numbers count; texts are read as date and time in any case";
            problems.push(Problem::at("unit", message).hint("write s, ms, us or ns"));
        }
        let mut signal_problems = Vec::new();
        let signals = Signals::new(decode, &mut signal_problems);
        if own {
            problems.extend(signal_problems);
        }
        let wrong = |message: String| vec![Problem::at("decode", message)];
        let (members, parts) = (Members::new().map_err(wrong)?, LineParts::new().map_err(wrong)?);
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Reads {
            source: source.to_owned(),
            unit: unit.unwrap_or(Unit::Ms),
            signals,
            members,
            parts,
            reading,
            of_lines: decode.format == config::Format::Influx,
        })
    }

    /// The source, and what it makes of signals.
    pub(super) fn signals(&self) -> (&str, &Signals) {
        (&self.source, &self.signals)
    }

    /// Judges the rows of a body.
    ///
    /// # Errors
    /// The body as a whole can't be read; nothing of it was taken.
    pub(super) fn judge(&self, came: &Came<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Fault> {
        if let Some(reading) = self.reading.as_ref().filter(|_| self.of_lines || !came.as_lines) {
            return read(reading, came, verdicts);
        }
        let format = match came.as_lines {
            true => Format::Lines,
            false => Format::of(came.headers, came.body)?,
        };
        let unit = came.unit.unwrap_or(self.unit);
        let json = JsonRows {
            members: &self.members,
            unit,
        };
        match format {
            Format::Json => json.document(came.body, verdicts).map_err(Fault::bad),
            Format::JsonLines => {
                json.lines(came.body, verdicts);
                Ok(())
            }
            Format::Lines => {
                let lines = LineRows {
                    parts: &self.parts,
                    unit: came.unit.unwrap_or(Unit::Ns),
                    by_measurement: came.as_lines,
                };
                lines.read(came.body, verdicts);
                Ok(())
            }
            Format::Arrow => arrow::read(came.body, &self.members, unit, verdicts).map_err(Fault::bad),
        }
    }
}

/// Reads a body as `decode` says.
fn read(reading: &Reading, came: &Came<'_>, verdicts: &mut Verdicts<'_>) -> Result<(), Fault> {
    let stream = verdicts.stream;
    let message = Message {
        topic: &stream.name,
        key: Some(verdicts.machine().as_bytes()),
        headers: &[],
        payload: came.body,
        received: verdicts.received,
        sequence: 0,
    };
    let asked = Asked {
        unit: came.unit,
        allowed: Some(&|signal| stream.check(signal)),
    };
    let mut refusing = Refusing {
        verdicts,
        body: Some(came.body),
    };
    let judged = reading.judge(&message, asked, &mut refusing);
    let judged = judged.map_err(|error| Fault::new(StatusCode::SERVICE_UNAVAILABLE, format!("{error:#}")))?;
    (verdicts.rows, verdicts.left_out) = (judged.rows, judged.left_out);
    Ok(())
}

/// True where only signals are chosen or changed: the bodies have our own forms.
fn is_own(decode: &DecodeConfig) -> bool {
    let pointers = [
        &decode.time,
        &decode.value,
        &decode.text,
        &decode.values,
        &decode.machine,
        &decode.signal,
    ];
    decode.format == config::Format::Json
        && decode.preset.is_none()
        && decode.framing.is_none()
        && pointers.iter().all(|pointer| pointer.is_none())
}

fn check_own(decode: &DecodeConfig, names: (Option<&str>, Option<&str>), problems: &mut Vec<Problem>) {
    if decode.unit.is_some() {
        let message = "there is a `unit` but no `time`";
        problems.push(Problem::at("decode.unit", message).hint("write `unit` beside `decode`"));
    }
    for (key, _) in [("machine", names.0), ("signal", names.1)]
        .iter()
        .filter(|(_, name)| name.is_some())
    {
        let message = format!("rows name their {key} themselves where `decode` has no pointers and no `format`");
        problems.push(Problem::at(key, message).hint("write decode: {format: influx} for line protocol"));
    }
}

fn check_read(decode: &DecodeConfig, unit: Option<Unit>, problems: &mut Vec<Problem>) {
    if unit.is_some() {
        let message = "`decode` says how bodies are read, also what their times count";
        problems.push(Problem::at("unit", message).hint("write decode: {unit: ...}"));
    }
    if decode.registry.is_some() {
        let message = "a sender waits for the verdict on its rows and can't wait for a registry";
        problems.push(Problem::at("decode.registry", message).hint("write schema: reading.avsc"));
    }
}

/// Streams have no levels to name, and a machine in any case.
fn in_our_words(problem: Problem) -> Problem {
    if problem.path != ["topic"] {
        return problem;
    }
    Problem::at("signal", "nothing says which signal a body is about")
        .hint("write signal: pressure, or say in `decode` where the body names it")
}

#[cfg(test)]
#[path = "reads_tests.rs"]
mod tests;
