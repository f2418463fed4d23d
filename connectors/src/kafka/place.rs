//! Offsets by topic and partition, and which reader reads what.

use std::collections::BTreeMap;

use anyhow::Context;
use serde_json::{Map, Value};

/// A topic and a partition of it, as one key: `topic/3`. A topic's name has no slash.
pub(crate) fn key(topic: &str, partition: i32) -> String {
    format!("{topic}/{partition}")
}

/// The topic and the partition of a key.
pub(crate) fn split(key: &str) -> Option<(&str, i32)> {
    let (topic, partition) = key.rsplit_once('/')?;
    Some((topic, partition.parse().ok()?))
}

/// Which of the readers reads a partition. Fixed for ever, and not Kafka's own, so that a hash of keys and this one don't meet.
pub(crate) fn reader_of(key: &str, readers: usize) -> usize {
    // FNV-1a, then the last step of SplitMix64: names that differ in the last digit only must not fall together.
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) % readers as u64) as usize
}

/// Next offsets by key.
pub(crate) type Offsets = BTreeMap<String, i64>;

/// The offsets as a checkpoint has them.
pub(crate) fn to_json(offsets: &Offsets) -> Value {
    Value::Object(
        offsets
            .iter()
            .map(|(key, next)| (key.clone(), (*next).into()))
            .collect(),
    )
}

/// The offsets of a checkpoint; none where no partition had been found yet.
///
/// # Errors
/// The value is no such offset.
pub(crate) fn from_json(value: &Value) -> anyhow::Result<Option<Offsets>> {
    let of = |object: &Map<String, Value>| {
        let entries = object.iter().map(|(key, next)| {
            let next = next.as_i64().filter(|next| *next >= 0);
            split(key)?;
            Some((key.clone(), next?))
        });
        entries.collect::<Option<Offsets>>()
    };
    match value {
        Value::Null => Ok(None),
        Value::Object(object) => Ok(Some(
            of(object).with_context(|| format!("`{value}` is no offset of Kafka"))?,
        )),
        _ => anyhow::bail!("`{value}` is no offset of Kafka; it was made by a source of another kind"),
    }
}

/// One offset out of those that all readers gave, at this checkpoint or, where their number was another one, at earlier ones. Offsets
/// only grow, so the greater one is the newer one.
pub(crate) fn merge<'v>(offsets: impl Iterator<Item = &'v Value>) -> Option<Value> {
    let mut merged: Option<Map<String, Value>> = None;
    for known in offsets.filter_map(Value::as_object) {
        let merged = merged.get_or_insert_default();
        for (key, next) in known {
            let newer = merged.get(key).is_none_or(|before| before.as_i64() < next.as_i64());
            if newer {
                merged.insert(key.clone(), next.clone());
            }
        }
    }
    merged.map(Value::Object)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys() {
        assert_eq!(key("a.b-c_d", 12), "a.b-c_d/12");
        assert_eq!(split("a.b-c_d/12"), Some(("a.b-c_d", 12)));
        assert_eq!(split("a"), None);
        assert_eq!(split("a/x"), None);
    }

    #[test]
    fn offsets_survive_json() {
        let check = |value: Value, expect: Option<Option<&[(&str, i64)]>>| {
            let got = from_json(&value).ok();
            let expect = expect.map(|offsets| {
                offsets.map(|offsets| offsets.iter().map(|(key, next)| ((*key).to_owned(), *next)).collect())
            });
            assert_eq!(got, expect, "{value}");
            if let Some(Some(offsets)) = got {
                assert_eq!(to_json(&offsets), value);
            }
        };
        check(Value::Null, Some(None));
        check(json!({}), Some(Some(&[])));
        check(json!({"t/0": 5, "t/1": 0}), Some(Some(&[("t/0", 5), ("t/1", 0)])));
        check(json!({"t/0": -1}), None);
        check(json!({"t/0": "5"}), None);
        check(json!({"t": 5}), None);
        check(json!(7), None);
    }

    #[test]
    fn merged_offsets_are_the_newest() {
        let check = |known: &[Value], expect: Option<Value>| assert_eq!(merge(known.iter()), expect);
        check(&[], None);
        check(&[Value::Null], None);
        check(&[json!({})], Some(json!({})));
        check(
            &[json!({"t/0": 5}), json!({"t/1": 1}), Value::Null],
            Some(json!({"t/0": 5, "t/1": 1})),
        );
        check(
            &[json!({"t/0": 5, "t/1": 7}), json!({"t/0": 9, "t/1": 3})],
            Some(json!({"t/0": 9, "t/1": 7})),
        );
    }

    #[test]
    fn readers_share_fairly_and_for_ever() {
        let mut counts = [0; 3];
        for partition in 0..300 {
            counts[reader_of(&key("press", partition), 3)] += 1;
        }
        assert!(counts.iter().all(|count| 70 < *count && *count < 130), "{counts:?}");
        // A checkpoint counts on these.
        let found: Vec<usize> = (0..8).map(|partition| reader_of(&key("press", partition), 3)).collect();
        assert_eq!(found, FIXED);
    }

    const FIXED: [usize; 8] = [1, 0, 1, 1, 0, 2, 2, 0];
}
