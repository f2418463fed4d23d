//! A rate of false alarms, and the threshold that it allows at the pace of the rows.

use std::borrow::Cow;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

use crate::kernels::anomaly::auto::rarity;

/// Gaps that make the mean gap.
const GAPS: f64 = 1000.0;
/// A gap counts as at most so many mean gaps, so that a night without rows doesn't change the pace.
const REACH: f64 = 10.0;

/// How many alarms without a cause are accepted: `1 per day`, `2 per week`, `1 per 10000 rows`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum FalseAlarms {
    /// Alarms in a µs of event time.
    PerMicrosecond(f64),
    /// Alarms in a row, a window or a cycle.
    PerRow(f64),
}

impl Default for FalseAlarms {
    fn default() -> Self {
        FalseAlarms::PerMicrosecond(1.0 / 86_400e6)
    }
}

impl FalseAlarms {
    /// The score that is reached so often by chance; NaN while the pace isn't known. At most 1: rarer isn't told apart.
    pub fn threshold(self, pace: &Pace) -> f64 {
        let probability = match self {
            FalseAlarms::PerMicrosecond(rate) => rate * pace.gap_us,
            FalseAlarms::PerRow(rate) => rate,
        };
        if probability > 0.0 {
            rarity(probability.min(1.0))
        } else {
            f64::NAN
        }
    }
}

const TIMES: [(&str, f64); 6] = [
    ("second", 1e6),
    ("minute", 60e6),
    ("hour", 3600e6),
    ("day", 86_400e6),
    ("week", 7.0 * 86_400e6),
    ("month", 30.0 * 86_400e6),
];

impl FromStr for FalseAlarms {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no rate; write 1 per day, 2 per week or 1 per 10000 rows");
        let number = |word: &str| {
            word.parse::<f64>()
                .ok()
                .filter(|n| n.is_finite() && *n > 0.0)
                .ok_or_else(wrong)
        };
        let words: Vec<&str> = text.split_whitespace().collect();
        let (alarms, many, unit) = match words.as_slice() {
            [alarms, "per", unit] => (number(alarms)?, 1.0, *unit),
            [alarms, "per", many, unit] => (number(alarms)?, number(many)?, *unit),
            _ => return Err(wrong()),
        };
        let unit = unit.strip_suffix('s').unwrap_or(unit);
        if ["row", "sample", "window", "cycle"].contains(&unit) {
            return if alarms < many {
                Ok(FalseAlarms::PerRow(alarms / many))
            } else {
                Err(wrong())
            };
        }
        let (_, micros) = TIMES.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        Ok(FalseAlarms::PerMicrosecond(alarms / (many * micros)))
    }
}

impl<'de> Deserialize<'de> for FalseAlarms {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for FalseAlarms {
    fn schema_name() -> Cow<'static, str> {
        "FalseAlarms".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "examples": ["1 per day", "2 per week", "1 per 10000 rows"]})
    }
}

/// The mean time between rows, of about the last thousand.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Pace {
    last_us: Option<i64>,
    gap_us: f64,
    gaps: f64,
}

impl Pace {
    /// Takes the time of a row; one that isn't later than the last says nothing.
    pub fn see(&mut self, ts_us: i64) {
        let gap = self.last_us.map_or(0, |last| ts_us.saturating_sub(last)) as f64;
        if self.last_us.is_none_or(|last| ts_us > last) {
            self.last_us = Some(ts_us);
        }
        if gap > 0.0 {
            self.gaps = (self.gaps + 1.0).min(GAPS);
            let gap = if self.gaps > 1.0 {
                gap.min(REACH * self.gap_us)
            } else {
                gap
            };
            self.gap_us += (gap - self.gap_us) / self.gaps;
        }
    }

    /// False where state from outside doesn't fit together.
    pub fn is_whole(&self) -> bool {
        (0.0..1e19).contains(&self.gap_us) && (0.0..=GAPS).contains(&self.gaps)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn rates() {
        let check = |text: &str, expect: &str| {
            let found = text
                .parse::<FalseAlarms>()
                .map_or_else(|e| e, |rate| format!("{rate:?}"));
            assert_eq!(found, expect, "{text}");
        };
        check("1 per second", "PerMicrosecond(1e-6)");
        check("2 per 2 seconds", "PerMicrosecond(1e-6)");
        check("0.5 per 500 rows", "PerRow(0.001)");
        check("1 per 10 cycles", "PerRow(0.1)");
        let wrong = |text: &str| format!("`{text}` is no rate; write 1 per day, 2 per week or 1 per 10000 rows");
        for text in [
            "",
            "1",
            "1 day",
            "0 per day",
            "-1 per day",
            "1 per fortnight",
            "inf per day",
            "1 per row",
            "x per day",
        ] {
            check(text, &wrong(text));
        }
        assert_eq!("1 per day".parse::<FalseAlarms>().unwrap(), FalseAlarms::default());
    }

    #[test]
    fn thresholds() {
        let check = |rate: &str, times: &[i64], expect: f64| {
            let mut pace = Pace::default();
            times.iter().for_each(|ts| pace.see(*ts));
            let found = rate.parse::<FalseAlarms>().unwrap().threshold(&pace);
            assert!(
                (found - expect).abs() < 1e-9 || found.is_nan() && expect.is_nan(),
                "{rate}: {found}"
            );
            assert!(pace.is_whole());
        };
        check("1 per 1000 rows", &[], 0.3);
        check("1 per second", &[], f64::NAN);
        check("1 per second", &[5, 5, 5], f64::NAN);
        check("1 per second", &[0, 1000, 2000, 2000, 1500, 3000], 0.3);
        // A night counts as ten gaps.
        check("1 per second", &[0, 1000, 86_400_000_000], -0.1 * 5.5e-3_f64.log10());
        check("1 per second", &[i64::MIN, i64::MAX], 0.0);
        check("1 per 1000 months", &[0, 1], 1.0);
    }
}
