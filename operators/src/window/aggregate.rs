//! What a window says about its values.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

use super::pane::{Pane, Tally};

/// One column of a window's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aggregate {
    Count,
    Mean,
    Min,
    Max,
    Std,
    First,
    Last,
    Sum,
    Rate,
    Slope,
    TimeMean,
    Rms,
    Crest,
    Kurtosis,
    ZeroCrossings,
    /// 1..=99.
    Percentile(u8),
}

/// Those with a name of their own.
const NAMED: [(&str, Aggregate); 16] = [
    ("count", Aggregate::Count),
    ("mean", Aggregate::Mean),
    ("min", Aggregate::Min),
    ("max", Aggregate::Max),
    ("std", Aggregate::Std),
    ("first", Aggregate::First),
    ("last", Aggregate::Last),
    ("sum", Aggregate::Sum),
    ("median", Aggregate::Percentile(50)),
    ("rate", Aggregate::Rate),
    ("slope", Aggregate::Slope),
    ("time_mean", Aggregate::TimeMean),
    ("rms", Aggregate::Rms),
    ("crest", Aggregate::Crest),
    ("kurtosis", Aggregate::Kurtosis),
    ("zero_crossings", Aggregate::ZeroCrossings),
];

/// Where `of` is not given.
pub(super) const DEFAULT: [Aggregate; 5] = [
    Aggregate::Count,
    Aggregate::Mean,
    Aggregate::Min,
    Aggregate::Max,
    Aggregate::Std,
];

impl Aggregate {
    /// All names but those of percentiles.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMED.iter().map(|(name, _)| *name)
    }

    /// True when [`super::pane::Basic`] is enough for it.
    pub fn is_basic(self) -> bool {
        DEFAULT.contains(&self) || matches!(self, Aggregate::Rms | Aggregate::Crest) || self.is_percentile()
    }

    pub fn is_percentile(self) -> bool {
        matches!(self, Aggregate::Percentile(_))
    }

    /// Its number; NaN where the values have none. `end_us`: until when the last value holds.
    pub fn of<T: Tally>(self, pane: &Pane<T>, end_us: i64) -> f64 {
        let basic = pane.tally.moments();
        if basic.count == 0 {
            return f64::NAN;
        }
        match self {
            Aggregate::Count => basic.count as f64,
            Aggregate::Mean => basic.mean,
            Aggregate::Min => basic.min,
            Aggregate::Max => basic.max,
            Aggregate::Std => basic.std(),
            Aggregate::Rms => basic.rms(),
            Aggregate::Crest => basic.crest(),
            // Half a bucket may lie beyond the extremes, which are known.
            Aggregate::Percentile(percent) => {
                let quantile = pane.quantile(f64::from(percent) / 100.0);
                if quantile.is_nan() {
                    quantile
                } else {
                    quantile.max(basic.min).min(basic.max)
                }
            }
            _ => pane.tally.course().map_or(f64::NAN, |(course, kurtosis)| match self {
                Aggregate::First => course.first(),
                Aggregate::Last => course.last(),
                Aggregate::Sum => course.sum(),
                Aggregate::Rate => course.rate(),
                Aggregate::Slope => course.slope(),
                Aggregate::TimeMean => course.time_mean(end_us),
                Aggregate::ZeroCrossings => course.crossings() as f64,
                _ => kurtosis,
            }),
        }
    }
}

impl fmt::Display for Aggregate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (NAMED.iter().find(|(_, aggregate)| aggregate == self), self) {
            (Some((name, _)), _) => f.write_str(name),
            (None, Aggregate::Percentile(percent)) => write!(f, "p{percent}"),
            (None, _) => Err(fmt::Error),
        }
    }
}

impl FromStr for Aggregate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((_, aggregate)) = NAMED.iter().find(|(name, _)| *name == text) {
            return Ok(*aggregate);
        }
        let percent = text.strip_prefix('p').and_then(|digits| digits.parse::<u8>().ok());
        match percent {
            Some(percent @ 1..=99) => Ok(Aggregate::Percentile(percent)),
            _ => Err(format!("`{text}` is nothing that a window says")),
        }
    }
}

/// A name in the file: kept as text, so that a wrong one is said with its place.
#[derive(Debug)]
pub struct Name(pub(super) String);

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Name)
    }
}

impl JsonSchema for Name {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Aggregate".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = Aggregate::names().chain(["p5", "p95", "p99"]).collect();
        json_schema!({"type": "string", "examples": names})
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for name in Aggregate::names().chain(["p1", "p95", "p99"]) {
            assert_eq!(name.parse::<Aggregate>().unwrap().to_string(), name);
        }
        assert_eq!("p50".parse::<Aggregate>().unwrap().to_string(), "median");
        for wrong in ["p0", "p100", "p", "p99.9", "average", ""] {
            assert!(wrong.parse::<Aggregate>().is_err(), "{wrong}");
        }
    }
}
