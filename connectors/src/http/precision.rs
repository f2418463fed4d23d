//! What a number in a time counts, and whether the time can be meant.

use crate::time::{self, Unit};

/// How far ahead of its arrival a row may say it was made: clocks differ, but not by more.
const FUTURE_LIMIT_US: i64 = 300_000_000;
/// A time this near to its arrival is taken for a time of now.
const NOW_US: i64 = 2 * 86_400_000_000;

/// A count since 1970, as `precision` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Precision {
    name: &'static str,
    /// µs in one.
    times: i64,
    /// How many make one µs.
    over: i64,
}

const KNOWN: [Precision; 6] = [
    Precision::new("ns", 1, 1_000),
    Precision::new("us", 1, 1),
    Precision::new("ms", 1_000, 1),
    Precision::new("s", 1_000_000, 1),
    Precision::new("m", 60_000_000, 1),
    Precision::new("h", 3_600_000_000, 1),
];

impl Precision {
    pub(super) const NS: Precision = KNOWN[0];
    pub(super) const MS: Precision = KNOWN[2];

    const fn new(name: &'static str, times: i64, over: i64) -> Self {
        Precision { name, times, over }
    }

    /// As it stands in a request: `ns`, `us`, `ms`, `s`, and `n`, `u`, `µ`, `m`, `h`, which InfluxDB 1 knew too.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let name = match text {
            "n" => "ns",
            "u" | "µ" | "µs" => "us",
            other => other,
        };
        let found = KNOWN.iter().find(|known| known.name == name).copied();
        found.ok_or_else(|| format!("`precision={text}` is not known; write ns, us, ms or s"))
    }

    /// The setting `unit`; none for texts.
    pub(super) fn of(unit: Unit) -> Option<Self> {
        match unit {
            Unit::Ns => Some(KNOWN[0]),
            Unit::Us => Some(KNOWN[1]),
            Unit::Ms => Some(KNOWN[2]),
            Unit::S => Some(KNOWN[3]),
            Unit::Rfc3339 => None,
        }
    }

    /// A whole count in µs, rounded down.
    pub(super) fn micros(self, count: i64) -> Option<i64> {
        count.checked_mul(self.times).map(|micros| micros.div_euclid(self.over))
    }

    /// A fractional count in µs.
    fn micros_f64(self, count: f64) -> Option<i64> {
        let micros = (count * self.times as f64 / self.over as f64).round();
        (micros.abs() < 9.2e18).then_some(micros as i64)
    }

    /// A whole count as a time that can be meant.
    pub(super) fn time(self, count: i64, received: i64) -> Result<i64, String> {
        self.sane(self.micros(count), received, |precision| precision.micros(count))
    }

    /// A fractional count as a time that can be meant.
    pub(super) fn time_f64(self, count: f64, received: i64) -> Result<i64, String> {
        self.sane(self.micros_f64(count), received, |precision| {
            precision.micros_f64(count)
        })
    }

    fn sane(self, ts: Option<i64>, received: i64, read: impl Fn(Precision) -> Option<i64>) -> Result<i64, String> {
        let near = |ts: i64| ts.abs_diff(received) <= NOW_US as u64;
        if let Some(ts) = ts.filter(|ts| near(*ts)) {
            return not_ahead(ts, received);
        }
        let meant = KNOWN[..4].iter().find(|other| read(**other).is_some_and(near));
        if let Some(meant) = meant {
            return Err(format!(
                "the time is read in {} and is far from now; in {} it would be now: send ?precision={} or set `unit`",
                self.name, meant.name, meant.name
            ));
        }
        let ts = ts.ok_or("the time is out of range; check `precision` and `unit`")?;
        not_ahead(time::plausible(ts)?, received)
    }
}

/// A date and time as text.
pub(super) fn from_text(text: &str, received: i64) -> Result<i64, String> {
    let ts = time::rfc3339(text.trim().as_bytes());
    let ts = ts.ok_or_else(|| {
        let shown: String = text.chars().take(40).collect();
        format!("the time `{shown}` is no date and time; write 2026-01-02T03:04:05.678Z, or a number")
    })?;
    not_ahead(time::plausible(ts)?, received)
}

/// A time that isn't far ahead of its arrival.
pub(super) fn not_ahead(ts: i64, received: i64) -> Result<i64, String> {
    if ts > received.saturating_add(FUTURE_LIMIT_US) {
        return Err(
            "the time is more than 5 minutes ahead of its arrival; check the sender's clock, and `precision` or `unit`"
                .into(),
        );
    }
    Ok(ts)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    const NOW: i64 = 1_767_323_045_678_901;

    #[test]
    fn counts() {
        let check = |precision: &str, count: i64, expect: Result<i64, &str>| {
            let got = Precision::parse(precision).and_then(|precision| precision.time(count, NOW));
            match (got, expect) {
                (Ok(got), Ok(expect)) => assert_eq!(got, expect, "{count} {precision}"),
                (Err(got), Err(part)) => assert!(got.contains(part), "{count} {precision}: {got}"),
                (got, _) => panic!("{count} {precision}: {got:?}"),
            }
        };
        check("ns", 1_767_323_045_678_901_234, Ok(NOW));
        check("us", NOW, Ok(NOW));
        check("ms", 1_767_323_045_678, Ok(1_767_323_045_678_000));
        check("s", 1_767_323_045, Ok(1_767_323_045_000_000));
        check("m", 29_455_384, Ok(1_767_323_040_000_000));
        check("ms", 1_400_000_000_000, Ok(1_400_000_000_000_000));
        check("s", 0, Ok(0));
        check("ns", -1, Ok(-1));
        check("s", 1_767_323_045_678, Err("in ms it would be now: send ?precision=ms"));
        check("ms", 1_767_323_045, Err("in s it would be now"));
        check("ms", NOW, Err("in us it would be now"));
        check("s", i64::MAX, Err("out of range"));
        check("s", 9_000_000_000, Err("outside of 1900 to 2200"));
        check("s", 1_767_323_045 + 400, Err("5 minutes ahead"));
        check("s", 1_967_323_045, Err("5 minutes ahead"));
        check("days", 1, Err("`precision=days` is not known"));
        assert_eq!(
            Precision::MS.time_f64(1_767_323_045_678.9, NOW),
            Ok(1_767_323_045_678_900)
        );
        assert!(Precision::MS.time_f64(f64::NAN, NOW).is_err());
        assert!(Precision::MS.time_f64(1e300, NOW).is_err());
    }

    #[test]
    fn texts() {
        assert_eq!(from_text("2026-01-02T03:04:05.678901Z", NOW), Ok(NOW));
        assert!(from_text("yesterday", NOW).unwrap_err().contains("`yesterday`"));
        assert!(from_text("2199-01-02T03:04:05Z", NOW).unwrap_err().contains("ahead"));
    }
}
