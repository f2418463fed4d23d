//! Scalars with a unit: `800ms`, `64MiB`, `10%`.

use std::borrow::Cow;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};

/// A length of time, written as a number and a unit: `250us`, `800ms`, `6s`, `5min`, `2h`, `1d`. Never negative.
///
/// ```
/// use taktline_engine::config::Interval;
/// assert_eq!("1.5s".parse::<Interval>().unwrap().micros(), 1_500_000);
/// assert!("6".parse::<Interval>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Interval(i64);

impl Interval {
    /// An interval of this many µs.
    pub const fn from_micros(micros: i64) -> Self {
        Interval(micros)
    }

    /// Its length in µs.
    pub const fn micros(self) -> i64 {
        self.0
    }
}

const UNITS: [(&str, f64); 8] = [
    ("us", 1.0),
    ("µs", 1.0),
    ("ms", 1e3),
    ("s", 1e6),
    ("min", 60e6),
    ("m", 60e6),
    ("h", 3600e6),
    ("d", 86_400e6),
];

impl FromStr for Interval {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let split = text
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let meant = || format!("`{text}` is no length of time; write a number and a unit, like 800ms, 6s or 5min");
        let number: f64 = number.parse().map_err(|_| meant())?;
        let (_, factor) = UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(meant)?;
        let micros = (number * factor).round();
        if micros > i64::MAX as f64 / 4.0 {
            return Err(format!("`{text}` is too long"));
        }
        Ok(Interval(micros as i64))
    }
}

impl<'de> Deserialize<'de> for Interval {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Interval {
    fn schema_name() -> Cow<'static, str> {
        "Interval".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "interval", "examples": ["800ms", "6s", "5min"]})
    }
}

/// A number of bytes, written with a unit: `64MiB`, `1GiB`, `500MB`.
///
/// ```
/// use taktline_engine::config::Size;
/// assert_eq!("1.5KiB".parse::<Size>().unwrap().bytes(), 1536);
/// assert!("6".parse::<Size>().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

impl Size {
    /// This many bytes.
    pub const fn from_bytes(bytes: u64) -> Self {
        Size(bytes)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

const SIZES: [(&str, f64); 9] = [
    ("B", 1.0),
    ("kB", 1e3),
    ("MB", 1e6),
    ("GB", 1e9),
    ("TB", 1e12),
    ("KiB", 1024.0),
    ("MiB", 1_048_576.0),
    ("GiB", 1_073_741_824.0),
    ("TiB", 1_099_511_627_776.0),
];

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let split = text.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, unit) = text.split_at(split.unwrap_or(text.len()));
        let meant = || format!("`{text}` is no number of bytes; write a number and a unit, like 64MiB or 1GiB");
        let number: f64 = number.parse().map_err(|_| meant())?;
        let (_, factor) = SIZES.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(meant)?;
        let bytes = (number * factor).round();
        if bytes > 1e18 {
            return Err(format!("`{text}` is too much"));
        }
        Ok(Size(bytes as u64))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "size", "examples": ["64MiB", "1GiB"]})
    }
}

/// A share, written in percent: `10%`.
///
/// ```
/// use taktline_engine::config::Percent;
/// assert_eq!("10%".parse::<Percent>().unwrap().share(), 0.1);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Percent(f64);

impl Percent {
    /// A share of this many percent.
    pub const fn new(percent: f64) -> Self {
        Percent(percent)
    }

    /// The share, 1 for 100 %.
    pub fn share(self) -> f64 {
        self.0 / 100.0
    }

    /// The number before the `%`.
    pub fn percent(self) -> f64 {
        self.0
    }
}

impl FromStr for Percent {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.trim().strip_suffix('%').and_then(|n| n.trim().parse::<f64>().ok());
        match number {
            Some(n) if (0.0..=100.0).contains(&n) => Ok(Percent(n)),
            _ => Err(format!("`{text}` is no share; write 0% to 100%")),
        }
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Percent {
    fn schema_name() -> Cow<'static, str> {
        "Percent".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "percent", "examples": ["10%"]})
    }
}
