//! Numbers that come back from a checkpoint.

use serde::{Deserialize, Serialize};

/// A count that was read from outside: small enough that adding to it never overflows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub(crate) struct Count(u64);

/// One a µs makes so many in nine years.
const MOST: u64 = 1 << 48;

impl Count {
    pub fn get(self) -> u64 {
        self.0
    }
}

impl From<Count> for u64 {
    fn from(count: Count) -> u64 {
        count.0
    }
}

impl TryFrom<u64> for Count {
    type Error = String;

    fn try_from(count: u64) -> Result<Self, String> {
        if count <= MOST {
            Ok(Count(count))
        } else {
            Err(format!("a count of {count}"))
        }
    }
}

/// A count of this process.
pub(crate) fn count(count: u64) -> Count {
    Count(count.min(MOST))
}

/// `#[serde(with = "counted")]`: a count that is kept as a [`Count`], for structs that hot loops add to.
pub(crate) mod counted {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    use super::{Count, count};

    pub fn serialize<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        count(*number).serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        Ok(Count::deserialize(deserializer)?.get())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn what_could_overflow_is_refused() {
        let read = |number: u64| serde_json::from_str::<Count>(&number.to_string());
        assert_eq!(read(MOST).unwrap().get(), MOST);
        assert!(read(MOST + 1).is_err() && read(u64::MAX).is_err());
        assert_eq!(count(u64::MAX).get(), MOST);
    }
}
