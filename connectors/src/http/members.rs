//! What a row means that comes as an object: of JSON, or of an Arrow stream's columns.
//!
//! A row is long (`{"signal": "pressure", "value": 7.5}`) or wide (`{"pressure": 7.5, "state": "run"}`: each member a signal). Both
//! may have `machine`, and the time as `ts`, `time`, `timestamp` or `timestamp_ms`.

use std::borrow::Cow;

use super::verdicts::Verdicts;
use crate::codec::pointer::Pointer;
use crate::codec::query::{Document, Found, Query, Scalar, Slot};
use crate::codec::sample::{content, time_of};
use crate::codec::short;
use crate::time::Unit;

const MACHINE: &str = "machine";
const SIGNAL: &str = "signal";
const VALUE: &str = "value";
const TEXT: &str = "text";

/// Finds the members of a row.
#[derive(Clone, Debug)]
pub(super) struct Members {
    query: Query,
    /// The row itself, to see that it is an object.
    whole: Slot,
    name: Slot,
    scalar: Slot,
}

impl Members {
    pub(super) fn new() -> Result<Self, String> {
        let mut query = Query::default();
        let each = Pointer::parse("/*")?;
        Ok(Members {
            whole: query.value(&Pointer::parse("")?)?,
            name: query.name(&each)?,
            scalar: query.value(&each)?,
            query,
        })
    }

    /// Takes a row, or refuses it or members of it. `shown` is the row as a dead letter shows it; numbers in its time count `unit`.
    pub(super) fn take<'j>(
        &self,
        (index, row): (usize, &dyn Document<'j>),
        unit: Unit,
        found: &mut Found<'j>,
        verdicts: &mut Verdicts<'_>,
        shown: impl Fn(&Found<'j>) -> Cow<'j, [u8]>,
    ) {
        let taken = row.find(&self.query, found);
        let taken = taken.and_then(|()| match found.get(self.whole, 0) {
            Some(Scalar::Nested) if !row.is_list() => self.judge(index, unit, found, verdicts, &shown),
            _ => Err("a row is an object, like {\"temperature\": 21.5}".into()),
        });
        if let Err(reason) = taken {
            verdicts.refuse(index, reason, &shown(found));
        }
    }

    /// The members that were found.
    pub(super) fn of<'f, 'j>(&self, found: &'f Found<'j>) -> impl Iterator<Item = (&'f str, &'f Scalar<'j>)> {
        (0..found.count(self.scalar.level)).filter_map(|record| match found.get(self.name, record)? {
            Scalar::Text(name) => Some((name.as_ref(), found.get(self.scalar, record)?)),
            _ => None,
        })
    }

    /// An error refuses the row as a whole; single members are refused on the way.
    fn judge<'j>(
        &self,
        index: usize,
        unit: Unit,
        found: &Found<'j>,
        verdicts: &mut Verdicts<'_>,
        shown: &impl Fn(&Found<'j>) -> Cow<'j, [u8]>,
    ) -> Result<(), String> {
        let received = verdicts.received;
        let mut ts = received;
        let mut machine: Cow<'_, str> = verdicts.machine().into();
        let mut signal = None;
        let (mut value, mut text) = (None, None);
        for (name, scalar) in self.of(found) {
            match name {
                MACHINE if *scalar == Scalar::Null => {}
                MACHINE => machine = name_of(scalar).ok_or("`machine` is no text")?,
                SIGNAL => signal = Some(name_of(scalar).ok_or("`signal` is no text")?),
                "ts" | "time" | "timestamp" => ts = time(scalar, unit, received)?,
                "timestamp_ms" => ts = time(scalar, Unit::Ms, received)?,
                VALUE => value = Some(scalar),
                TEXT => text = Some(scalar),
                _ => {}
            }
        }
        if let Some(signal) = signal {
            let text = text.filter(|text| value.is_none() || **text != Scalar::Null);
            return verdicts.take(&machine, &signal, ts, content(value, text)?);
        }
        let mut some = false;
        for (name, scalar) in self.of(found) {
            if matches!(name, MACHINE | "ts" | "time" | "timestamp" | "timestamp_ms") {
                continue;
            }
            some = true;
            let taken = match scalar {
                Scalar::Nested => Err(format!(
                    "`{name}` is an object or a list; a signal's value is a number, a boolean or a text"
                )),
                scalar => content(Some(scalar), None).and_then(|content| verdicts.take(&machine, name, ts, content)),
            };
            if let Err(reason) = taken {
                verdicts.refuse(index, reason, &shown(found));
            }
        }
        if some {
            Ok(())
        } else {
            Err("the row has no signal".into())
        }
    }
}

/// A time that is a number, or a date and time; nothing is the time of the arrival.
pub(super) fn time(scalar: &Scalar<'_>, unit: Unit, received: i64) -> Result<i64, String> {
    let read = |unit| time_of(Some(scalar), Some(unit), received);
    match scalar {
        Scalar::Null => Ok(received),
        Scalar::Time(_) => read(unit),
        Scalar::Text(text) if text.contains(':') => read(Unit::Rfc3339),
        Scalar::Text(text) if text.trim().parse::<f64>().is_err() => Err(format!(
            "the time `{}` is neither a number nor a date and time, like 2026-01-02T03:04:05.678Z",
            short(text)
        )),
        _ => read(unit).map_err(|reason| format!("{reason}; a request can say it, too: ?precision=s, ms, us or ns")),
    }
}

fn name_of<'f>(scalar: &'f Scalar<'_>) -> Option<Cow<'f, str>> {
    match scalar {
        Scalar::Text(text) => Some(text.as_ref().into()),
        Scalar::Int(number) => Some(number.to_string().into()),
        _ => None,
    }
}
