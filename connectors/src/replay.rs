//! How fast a replay goes: `max`, `realtime` or `x10`, and the clock that paces it.

use std::borrow::Cow;
use std::str::FromStr;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

/// How fast rows are replayed.
///
/// `max` as fast as they can be read, `realtime` as their times say, `x10` ten times as fast as that.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Replay {
    /// Without waiting.
    Max,
    /// This many times as fast as the rows' own time.
    Times(f64),
}

impl FromStr for Replay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no speed; write max, realtime or x10");
        match text.trim() {
            "max" => Ok(Replay::Max),
            "realtime" => Ok(Replay::Times(1.0)),
            other => {
                let number = other.strip_prefix(['x', '×']).ok_or_else(wrong)?;
                let speed: f64 = number.trim().parse().map_err(|_| wrong())?;
                if speed.is_finite() && speed > 0.0 {
                    Ok(Replay::Times(speed))
                } else {
                    Err(wrong())
                }
            }
        }
    }
}

impl<'de> Deserialize<'de> for Replay {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Replay {
    fn schema_name() -> Cow<'static, str> {
        "Replay".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^(max|realtime|[x×][0-9.]+)$", "examples": ["max", "realtime", "x10"]})
    }
}

/// The clock of a replay, shared by all that is played side by side.
#[derive(Debug)]
pub struct Pace {
    speed: f64,
    start: OnceLock<(Instant, i64)>,
}

impl Pace {
    /// `speed` times as fast as the rows' own time.
    pub fn new(speed: f64) -> Self {
        Pace {
            speed,
            start: OnceLock::new(),
        }
    }

    /// Starts now with the time `first` (µs); what has started stays.
    pub fn start(&self, first: i64) {
        self.start.get_or_init(|| (Instant::now(), first));
    }

    /// How long it still takes until `ts` (µs) is due; nothing when it is due or the clock hasn't started.
    pub fn until(&self, ts: i64) -> Duration {
        let Some((started, first)) = self.start.get() else {
            return Duration::ZERO;
        };
        let due_secs = ts.saturating_sub(*first).max(0) as f64 / 1e6 / self.speed;
        // A hundred years are as good as for ever, and fit a `Duration`.
        Duration::from_secs_f64(due_secs.min(3.2e9)).saturating_sub(started.elapsed())
    }

    /// `wall` of waiting in µs of the rows' time, at least 1.
    pub fn span(&self, wall: Duration) -> i64 {
        ((wall.as_secs_f64() * self.speed * 1e6) as i64).max(1)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn speeds() {
        let check = |text: &str, expect: Option<Replay>| assert_eq!(text.parse::<Replay>().ok(), expect, "{text}");
        check("max", Some(Replay::Max));
        check("realtime", Some(Replay::Times(1.0)));
        check("x10", Some(Replay::Times(10.0)));
        check("×2.5", Some(Replay::Times(2.5)));
        check("x0", None);
        check("x", None);
        check("10", None);
        check("xinf", None);
        check("", None);
    }

    #[test]
    fn a_pace_waits_for_what_is_ahead_only() {
        let pace = Pace::new(10.0);
        assert_eq!(pace.until(5), Duration::ZERO);
        pace.start(1_000_000);
        assert_eq!(pace.until(0), Duration::ZERO);
        let wait = pace.until(101_000_000).as_secs_f64();
        assert!((9.5..=10.0).contains(&wait), "{wait}");
        assert!(pace.until(i64::MAX) > Duration::from_secs(1_000_000));
        assert_eq!(pace.span(Duration::from_millis(50)), 500_000);
    }
}
