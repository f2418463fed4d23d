//! What stands in a document as what a sample holds: times, values, texts.

use std::borrow::Cow;

use super::query::Scalar;
use super::short;
use crate::time::{self, Unit};

/// The longest a text in a sample may be, in bytes.
pub(super) const TEXT_LIMIT: usize = 64 << 10;
/// How far ahead of its arrival a message may say it was made: clocks differ, but not by more.
const FUTURE_LIMIT_US: i64 = 300_000_000;

/// A value and a text, either of which may be absent.
pub(crate) type Content<'j> = (Option<f64>, Option<Cow<'j, str>>);

/// The time at `time`, in µs since 1970.
///
/// # Errors
/// The words for a dead letter.
pub(crate) fn time_of(scalar: Option<&Scalar<'_>>, unit: Option<Unit>, received: i64) -> Result<i64, String> {
    let (ts, count) = match (scalar, unit) {
        (None | Some(Scalar::Null), _) => return Err("nothing stands at `time`".into()),
        (Some(Scalar::Bool(_) | Scalar::Nested), _) => return Err("the time is neither a number nor a text".into()),
        (Some(Scalar::Time(ts)), _) => (time::plausible(*ts)?, None),
        (Some(_), None) => return Err("the payload doesn't say what its time counts; write `unit: ms`".into()),
        (Some(Scalar::Text(text)), Some(Unit::Rfc3339)) => {
            let text = text.trim();
            let ts = text.contains(':').then(|| time::rfc3339(text.as_bytes())).flatten();
            let ts = ts.ok_or_else(|| format!("the time `{}` is no date and time; check `unit`", short(text)))?;
            (time::plausible(ts)?, None)
        }
        (Some(Scalar::Int(_) | Scalar::Float(_)), Some(Unit::Rfc3339)) => {
            return Err("the time is a number; check `unit`".into());
        }
        (Some(Scalar::Int(count)), Some(unit)) => (time::counted(*count, unit)?, Some((*count as f64, unit))),
        (Some(Scalar::Float(count)), Some(unit)) => (time::counted_f64(*count, unit)?, Some((*count, unit))),
        (Some(Scalar::Text(text)), Some(unit)) => {
            let text = text.trim();
            let count = text.parse::<f64>();
            let count = count.map_err(|_| format!("the time `{}` is no number; check `unit`", short(text)))?;
            // The digits are exact where a float isn't.
            let exact = time::parse(text.as_bytes(), unit).and_then(|ts| time::plausible(ts).ok());
            (
                exact.map_or_else(|| time::counted_f64(count, unit), Ok)?,
                Some((count, unit)),
            )
        }
    };
    if let Some((count, unit)) = count
        && let Some(reason) = time::long_ago(count, unit, ts, received)
    {
        return Err(reason);
    }
    if ts > received.saturating_add(FUTURE_LIMIT_US) {
        return Err("the time is more than 5 minutes ahead of the arrival; check `unit` and the sender's clock".into());
    }
    Ok(ts)
}

/// What stands at `value` and at `text`, as a sample has it.
///
/// # Errors
/// The words for a dead letter.
pub(crate) fn content<'f>(value: Option<&'f Scalar<'_>>, text: Option<&'f Scalar<'_>>) -> Result<Content<'f>, String> {
    if value.is_none() && text.is_none() {
        return Err("nothing stands at `value` or `text`".into());
    }
    let (number, from_value) = match value {
        None => (None, None),
        Some(scalar) => as_number(scalar).ok_or("an object or a list stands at `value`")?,
    };
    let text = match text {
        None => from_value,
        Some(scalar) => as_text(scalar).ok_or("an object or a list stands at `text`")?,
    };
    if text.as_ref().is_some_and(|text| text.len() > TEXT_LIMIT) {
        return Err(format!("the text has more than {TEXT_LIMIT} bytes"));
    }
    // JSON has no such numbers, but other formats do, and so do texts.
    Ok((number.filter(|number| number.is_finite()), text))
}

/// A scalar as a value, or as a text where it is no number. None if it is nested.
fn as_number<'f>(scalar: &'f Scalar<'_>) -> Option<Content<'f>> {
    Some(match scalar {
        Scalar::Null => (None, None),
        Scalar::Bool(b) => (Some(f64::from(u8::from(*b))), None),
        Scalar::Int(i) => (Some(*i as f64), None),
        Scalar::Float(f) => (Some(*f), None),
        Scalar::Text(text) => match text.trim().parse::<f64>() {
            Ok(number) => (Some(number), None),
            Err(_) => (None, Some(text.as_ref().into())),
        },
        Scalar::Time(_) => (None, as_text(scalar)?),
        Scalar::Nested => return None,
    })
}

fn as_text<'f>(scalar: &'f Scalar<'_>) -> Option<Option<Cow<'f, str>>> {
    Some(match scalar {
        Scalar::Null => None,
        Scalar::Bool(b) => Some(b.to_string().into()),
        Scalar::Int(i) => Some(i.to_string().into()),
        Scalar::Float(f) => Some(f.to_string().into()),
        Scalar::Text(text) => Some(text.as_ref().into()),
        Scalar::Time(micros) => Some(
            jiff::Timestamp::from_microsecond(*micros)
                .map_or_else(|_| micros.to_string(), |time| time.to_string())
                .into(),
        ),
        Scalar::Nested => return None,
    })
}
