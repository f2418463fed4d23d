//! Times as they stand in files and messages, to µs since 1970.

use schemars::JsonSchema;
use serde::Deserialize;

/// What a time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    // No doc comments here: with them the schema is a choice of constants instead of a list of names.
    // Seconds since 1970.
    S,
    // Milliseconds since 1970.
    Ms,
    // Microseconds since 1970.
    Us,
    // Nanoseconds since 1970.
    Ns,
    // Date and time as text; UTC where it names no zone.
    Rfc3339,
}

impl Unit {
    /// What a cell of this unit should look like, for messages.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Unit::S => "time in s",
            Unit::Ms => "time in ms",
            Unit::Us => "time in us",
            Unit::Ns => "time in ns",
            Unit::Rfc3339 => "date and time (`time.unit` says what the column counts)",
        }
    }

    /// As the pipeline file says it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Unit::S => "s",
            Unit::Ms => "ms",
            Unit::Us => "us",
            Unit::Ns => "ns",
            Unit::Rfc3339 => "rfc3339",
        }
    }

    /// The power of ten from this unit to µs.
    fn exponent(self) -> i32 {
        match self {
            Unit::S => 6,
            Unit::Ms => 3,
            Unit::Us | Unit::Rfc3339 => 0,
            Unit::Ns => -3,
        }
    }

    /// A whole count in µs, rounded down; `None` outside of what an `i64` holds.
    pub(crate) fn micros(self, count: i64) -> Option<i64> {
        match self {
            Unit::S => count.checked_mul(1_000_000),
            Unit::Ms => count.checked_mul(1_000),
            Unit::Us | Unit::Rfc3339 => Some(count),
            Unit::Ns => Some(count.div_euclid(1_000)),
        }
    }

    /// A fractional count in µs, rounded to the next one.
    pub(crate) fn micros_f64(self, count: f64) -> Option<i64> {
        let micros = (count * 10f64.powi(self.exponent())).round();
        (micros.abs() < 9.2e18).then_some(micros as i64)
    }
}

/// 1900-01-01 and 2200-01-01, in µs since 1970.
const PLAUSIBLE: std::ops::Range<i64> = -2_208_988_800_000_000..7_258_118_400_000_000;

/// Refuses a time that no machine can have meant.
///
/// # Errors
/// The time lies before 1900 or after 2199: the words for a dead letter, which name it.
#[inline]
pub(crate) fn plausible(ts: i64) -> Result<i64, String> {
    if PLAUSIBLE.contains(&ts) {
        return Ok(ts);
    }
    let shown = jiff::Timestamp::from_microsecond(ts).map_or_else(|_| format!("{ts} us"), |time| time.to_string());
    Err(format!("the time {shown} lies outside of 1900 to 2200; check `unit`"))
}

/// A whole count in µs since 1970.
///
/// # Errors
/// No machine can have meant it: the words for a dead letter, with the unit that would make sense of it.
#[inline]
pub(crate) fn counted(count: i64, unit: Unit) -> Result<i64, String> {
    match unit.micros(count) {
        Some(ts) if PLAUSIBLE.contains(&ts) => Ok(ts),
        _ => Err(wrong_unit(count as f64, unit)),
    }
}

/// A fractional count, as [`counted`].
pub(crate) fn counted_f64(count: f64, unit: Unit) -> Result<i64, String> {
    match unit.micros_f64(count) {
        Some(ts) if PLAUSIBLE.contains(&ts) => Ok(ts),
        _ => Err(wrong_unit(count, unit)),
    }
}

/// 1990-01-01 and 2100-01-01, in µs since 1970: what a count in the right unit looks like.
const LIKELY: std::ops::Range<i64> = 631_152_000_000_000..4_102_444_800_000_000;
const YEAR_US: f64 = 31_556_952e6;

fn wrong_unit(count: f64, unit: Unit) -> String {
    let year = 1970.0 + count * 10f64.powi(unit.exponent()) / YEAR_US;
    let found = if year.abs() < 1e6 {
        format!("the time would be in the year {year:.0}")
    } else {
        "the time is out of range".to_owned()
    };
    match hint(count, unit, LIKELY) {
        Some(hint) => format!("{found}; {hint}"),
        None => format!("{found}; check `unit`"),
    }
}

/// A time decades before it arrived that would be of the day of its arrival in another unit was counted in that unit: the words for
/// a dead letter. Clocks that were never set say such times too, but not in another unit that of their arrival.
pub(crate) fn long_ago(count: f64, unit: Unit, ts: i64, received: i64) -> Option<String> {
    const DAY: i64 = 86_400_000_000;
    if ts.saturating_add(3_650 * DAY) > received {
        return None;
    }
    let hint = hint(count, unit, received.saturating_sub(DAY)..received.saturating_add(DAY))?;
    let year = 1970 + (ts as f64 / YEAR_US).floor() as i64;
    Some(format!("the time would be in the year {year}; {hint}"))
}

/// The unit in which a count would be a time in this range.
fn hint(count: f64, unit: Unit, range: std::ops::Range<i64>) -> Option<String> {
    let units = [Unit::S, Unit::Ms, Unit::Us, Unit::Ns]
        .into_iter()
        .filter(|other| *other != unit);
    let times = units.filter_map(|other| Some((other.name(), other.micros_f64(count)?)));
    let (name, ts) = times.into_iter().find(|(_, ts)| range.contains(ts))?;
    let time = jiff::Timestamp::from_second(ts.div_euclid(1_000_000)).ok()?;
    Some(format!("as {name} it would be {time}: write unit: {name}"))
}

/// A time cell in µs since 1970; `None` when it is none. Fractions of a µs are cut.
pub(crate) fn parse(cell: &[u8], unit: Unit) -> Option<i64> {
    if unit == Unit::Rfc3339 {
        rfc3339(cell)
    } else {
        epoch(cell, unit)
    }
}

/// `1700000000`, `1700000000.25` or `1.7e9` in `unit`.
fn epoch(cell: &[u8], unit: Unit) -> Option<i64> {
    // 18 digits always fit.
    if !cell.is_empty() && cell.len() <= 18 && cell.iter().all(u8::is_ascii_digit) {
        return unit.micros(cell.iter().fold(0, |count, digit| count * 10 + i64::from(digit - b'0')));
    }
    let text = std::str::from_utf8(cell).ok()?;
    if let Ok(count) = text.parse::<i64>() {
        return unit.micros(count);
    }
    let (whole, fraction) = text.split_once(['.', ','])?;
    let digits = fraction.bytes().all(|byte| byte.is_ascii_digit());
    let (Ok(whole), true) = (whole.parse::<i64>(), digits && !whole.starts_with('-')) else {
        return unit.micros_f64(text.replace(',', ".").parse().ok()?);
    };
    let wanted = unit.exponent().max(0) as u32;
    let fraction = fraction.bytes().chain(std::iter::repeat(b'0')).take(wanted as usize);
    unit.micros(whole)?
        .checked_add(fraction.fold(0, |count, digit| count * 10 + i64::from(digit - b'0')))
}

/// A date and time: `2026-01-02T03:04:05.678Z`, with a blank for the `T`, with an offset, or without a zone (UTC).
pub(crate) fn rfc3339(cell: &[u8]) -> Option<i64> {
    fixed_form(cell).or_else(|| any_form(cell))
}

/// The form that files mostly have, without a detour over a library's calendar types.
fn fixed_form(cell: &[u8]) -> Option<i64> {
    let (head, tail) = cell.split_at_checked(19)?;
    let number = |range: std::ops::Range<usize>| {
        head[range].iter().try_fold(0i64, |n, byte| {
            byte.is_ascii_digit().then(|| n * 10 + i64::from(byte - b'0'))
        })
    };
    if head[4] != b'-' || head[7] != b'-' || !b"T ".contains(&head[10]) || head[13] != b':' || head[16] != b':' {
        return None;
    }
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let valid = (1..=12).contains(&month)
        && 1 <= day
        && day <= days_of_month(year, month)
        && hour < 24
        && minute < 60
        && second < 60;
    if !valid {
        return None;
    }
    let tail = tail.strip_suffix(b"Z").unwrap_or(tail);
    let micros = match tail.split_first() {
        None => 0,
        Some((b'.', digits)) if (1..=9).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit) => {
            let six = digits.iter().copied().chain(std::iter::repeat(b'0')).take(6);
            six.fold(0, |n, digit| n * 10 + i64::from(digit - b'0'))
        }
        Some(_) => return None,
    };
    let seconds = ((days_since_1970(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    Some(seconds * 1_000_000 + micros)
}

fn any_form(cell: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(cell).ok()?;
    let timestamp = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let local: jiff::civil::DateTime = text.parse().ok()?;
        Some(local.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp())
    })?;
    i64::try_from(timestamp.as_nanosecond().div_euclid(1_000)).ok()
}

fn days_of_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar, counted in years that begin with March, so that the leap day comes
/// last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    let days = 365 * year + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400);
    days + (153 * month + 2) / 5 + day - 1 - 719_468
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cells() {
        let check = |cell: &str, unit, expect| assert_eq!(parse(cell.as_bytes(), unit), expect, "{cell} {unit:?}");
        check("1700000000", Unit::S, Some(1_700_000_000_000_000));
        check("1700000000.25", Unit::S, Some(1_700_000_000_250_000));
        check("1700000000,25", Unit::S, Some(1_700_000_000_250_000));
        check("1700000000.1234567", Unit::S, Some(1_700_000_000_123_456));
        check("1.7e9", Unit::S, Some(1_700_000_000_000_000));
        check("-1.5", Unit::S, Some(-1_500_000));
        check("-0.5", Unit::S, Some(-500_000));
        check("1700000000000", Unit::Ms, Some(1_700_000_000_000_000));
        check("1700000000000.5", Unit::Ms, Some(1_700_000_000_000_500));
        check("-1", Unit::Us, Some(-1));
        check("1999", Unit::Ns, Some(1));
        check("-1", Unit::Ns, Some(-1));
        check("1700000000123456789", Unit::Ns, Some(1_700_000_000_123_456));
        check("9223372036854775807", Unit::S, None);
        check("99999999999999999999", Unit::Us, None);
        for bad in ["", "abc", "12a", ".", "1.2.3", "nan", "--1", "1.x"] {
            check(bad, Unit::S, None);
        }
        check("2014-07-01 00:00:00", Unit::Rfc3339, Some(1_404_172_800_000_000));
        check("2022-10-26T08:17:21.847Z", Unit::Rfc3339, Some(1_666_772_241_847_000));
        check(
            "2022-10-26T10:17:21.847+02:00",
            Unit::Rfc3339,
            Some(1_666_772_241_847_000),
        );
        check(
            "2024-02-29T00:00:00.1234567Z",
            Unit::Rfc3339,
            Some(1_709_164_800_123_456),
        );
        check("1969-12-31T23:59:59.999999Z", Unit::Rfc3339, Some(-1));
        for bad in [
            "",
            "2023-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-01-01T24:00:00Z",
            "1700000000",
            "soon",
            "2023-01-01T00:00:00.Z",
        ] {
            check(bad, Unit::Rfc3339, None);
        }
    }

    #[test]
    fn times_that_nobody_means() {
        let check = |cell: &str, shown: Option<&str>| {
            let found = plausible(parse(cell.as_bytes(), Unit::Rfc3339).unwrap()).err();
            let expect = shown.map(|shown| format!("the time {shown} lies outside of 1900 to 2200; check `unit`"));
            assert_eq!(found, expect, "{cell}");
        };
        check("1900-01-01T00:00:00Z", None);
        check("2199-12-31T23:59:59.999999Z", None);
        check("1899-12-31T23:59:59Z", Some("1899-12-31T23:59:59Z"));
        check("2200-01-01T00:00:00Z", Some("2200-01-01T00:00:00Z"));
        assert!(plausible(i64::MAX).unwrap_err().contains("9223372036854775807 us"));
    }

    #[test]
    fn counts_in_the_wrong_unit() {
        let check = |count: i64, unit, expect: Result<i64, &str>| {
            assert_eq!(counted(count, unit), expect.map_err(str::to_owned), "{count} {unit:?}");
            let float = counted_f64(count as f64, unit);
            assert_eq!(float.is_ok(), expect.is_ok(), "{count} {unit:?}");
        };
        let (s, ms, ns) = (1_767_323_045, 1_767_323_045_000, 1_767_323_045_000_000_000);
        check(s, Unit::S, Ok(ms * 1000));
        check(ms, Unit::Ms, Ok(ms * 1000));
        check(ns, Unit::Ns, Ok(ms * 1000));
        let hint = "the time would be in the year 57974; as ms it would be 2026-01-02T03:04:05Z: write unit: ms";
        check(ms, Unit::S, Err(hint));
        let hint = "the time is out of range; as ns it would be 2026-01-02T03:04:05Z: write unit: ns";
        check(ns, Unit::S, Err(hint));
        check(ns, Unit::Ms, Err(hint));
        let hint = "the time would be in the year 57974; as ns it would be 2026-01-02T03:04:05Z: write unit: ns";
        check(ns, Unit::Us, Err(hint));
        check(i64::MAX, Unit::S, Err("the time is out of range; check `unit`"));
        check(
            -5_000_000_000,
            Unit::S,
            Err("the time would be in the year 1812; check `unit`"),
        );
        assert_eq!(
            counted_f64(f64::NAN, Unit::S),
            Err("the time is out of range; check `unit`".into())
        );
    }

    proptest! {
        #[test]
        fn agrees_with_jiff(micros in -62_000_000_000_000_000i64..250_000_000_000_000_000) {
            let text = jiff::Timestamp::from_microsecond(micros).unwrap().to_string();
            prop_assert_eq!(rfc3339(text.as_bytes()), Some(micros));
            prop_assert_eq!(fixed_form(text.as_bytes()), any_form(text.as_bytes()));
            let blank = text.trim_end_matches('Z').replace('T', " ");
            prop_assert_eq!(rfc3339(blank.as_bytes()), Some(micros));
        }

        #[test]
        fn never_panics(cell in proptest::collection::vec(any::<u8>(), 0..40)) {
            for unit in [Unit::S, Unit::Ns, Unit::Rfc3339] {
                parse(&cell, unit);
            }
        }
    }
}
