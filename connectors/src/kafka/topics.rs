//! Which topics, and where to begin: settings that are more than a scalar.

use std::borrow::Cow;

use regex_lite::Regex;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// Topics by name, or by a pattern.
#[derive(Clone, Debug)]
pub struct Topics(Vec<Topic>);

#[derive(Clone, Debug)]
enum Topic {
    Name(String),
    Pattern(Regex),
}

impl Topics {
    /// Topics that are named.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|topic| match topic {
            Topic::Name(name) => Some(name.as_str()),
            Topic::Pattern(_) => None,
        })
    }

    pub(crate) fn has_pattern(&self) -> bool {
        self.0.iter().any(|topic| matches!(topic, Topic::Pattern(_)))
    }

    /// True for the topics that are to be read.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.0.iter().any(|topic| match topic {
            Topic::Name(wanted) => wanted == name,
            // Kafka's own topics are never meant.
            Topic::Pattern(pattern) => !name.starts_with("__") && pattern.is_match(name),
        })
    }
}

impl std::fmt::Display for Topics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, topic) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            match topic {
                Topic::Name(name) => f.write_str(name)?,
                Topic::Pattern(pattern) => f.write_str(pattern.as_str())?,
            }
        }
        Ok(())
    }
}

/// The longest name that Kafka allows.
pub(crate) const TOPIC_LIMIT: usize = 249;

/// True for what Kafka takes as a topic's name.
pub(crate) fn is_topic(name: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !name.is_empty() && name.len() <= TOPIC_LIMIT && name.chars().all(legal) && name != "." && name != ".."
}

impl<'de> Deserialize<'de> for Topics {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let texts: Vec<String> = match Value::deserialize(deserializer)? {
            Value::String(text) => vec![text],
            Value::Array(list) => list
                .iter()
                .map(|name| {
                    name.as_str()
                        .map(str::to_owned)
                        .ok_or_else(|| D::Error::custom(format!("`{name}` is no name of a topic")))
                })
                .collect::<Result<_, _>>()?,
            other => return Err(D::Error::custom(format!("`{other}` is no name of a topic"))),
        };
        if texts.is_empty() {
            return Err(D::Error::custom("there must be at least one topic"));
        }
        let topic = |text: String| match text.strip_prefix('^') {
            Some(_) => Regex::new(&text)
                .map(Topic::Pattern)
                .map_err(|e| D::Error::custom(format!("`{text}` is no pattern: {e}"))),
            None if is_topic(&text) => Ok(Topic::Name(text)),
            None => Err(D::Error::custom(format!(
                "`{text}` is no name of a topic; it has letters, digits, `.`, `_` and `-`, and a pattern begins with `^`"
            ))),
        };
        texts.into_iter().map(topic).collect::<Result<_, _>>().map(Topics)
    }
}

impl JsonSchema for Topics {
    fn schema_name() -> Cow<'static, str> {
        "KafkaTopics".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}],
            "examples": ["press", ["press-1", "press-2"], "^press-.*"],
        })
    }
}

/// Where to begin without a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// With the first message that is still there
    #[default]
    Earliest,
    /// With what comes from now on
    Latest,
    /// With the first message at this time or later; ms since 1970
    At(i64),
}

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.as_str() {
            "earliest" => Ok(Start::Earliest),
            "latest" => Ok(Start::Latest),
            time => {
                let time: jiff::Timestamp = time.parse().map_err(|_| {
                    serde::de::Error::custom(format!(
                        "`{text}` is neither earliest nor latest nor a time such as 2026-01-31T06:00:00Z"
                    ))
                })?;
                Ok(Start::At(time.as_millisecond().max(0)))
            }
        }
    }
}

impl JsonSchema for Start {
    fn schema_name() -> Cow<'static, str> {
        "KafkaStart".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "examples": ["earliest", "latest", "2026-01-31T06:00:00Z"]})
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let check = |topics: &str, name: &str, expect: bool| {
            let topics: Topics = serde_json::from_str(topics).unwrap();
            assert_eq!(topics.wants(name), expect, "{topics} {name}");
        };
        check("\"press\"", "press", true);
        check("\"press\"", "press-1", false);
        check("\"^press-.*\"", "press-1", true);
        check("\"^press-.*\"", "my-press-1", false);
        check("\"^.*\"", "__consumer_offsets", false);
        check("[\"a\", \"^b\"]", "bc", true);
    }

    #[test]
    fn names_of_topics() {
        let check = |name: &str, expect: bool| assert_eq!(is_topic(name), expect, "{name}");
        check("a.b-c_D9", true);
        check("", false);
        check("..", false);
        check("a/b", false);
        check(&"x".repeat(250), false);
    }

    #[test]
    fn starts() {
        let check = |text: &str, expect: Option<Start>| {
            assert_eq!(serde_json::from_value(Value::from(text)).ok(), expect, "{text}");
        };
        check("earliest", Some(Start::Earliest));
        check("latest", Some(Start::Latest));
        check("2026-01-02T03:04:05+01:00", Some(Start::At(1_767_319_445_000)));
        check("1969-01-02T03:04:05Z", Some(Start::At(0)));
        check("2026-01-02", None);
        check("now", None);
    }
}
