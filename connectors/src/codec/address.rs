//! Where a message says what it is about, besides its payload: topic, key, headers.

use super::message::Message;
use super::topic::TopicPattern;

/// Where a message says what it is about, besides its payload.
#[derive(Clone, Debug, Default)]
pub(crate) struct Address {
    /// The topic's levels, and what they are called. None: the topic says nothing but its name.
    pub pattern: Option<TopicPattern>,
    /// Messages have keys: `{key}`.
    pub keyed: bool,
    /// The topic is a stream of the HTTP source, the key the machine of rows that name none: `{stream}`, `{machine}`.
    pub stream: bool,
    /// Headers that were asked for: `{header.NAME}`, or `{NAME}` as the source writes it.
    pub headers: Vec<String>,
}

impl Address {
    /// The names for templates: first those of the topic's levels, then `topic`, `key` and the headers.
    pub(super) fn names(&self) -> Vec<String> {
        let levels = self.pattern.iter().flat_map(|pattern| pattern.names().iter().cloned());
        if self.stream {
            return ["stream", "machine"].map(str::to_owned).to_vec();
        }
        let topic = self.pattern.is_none().then(|| "topic".to_owned());
        let key = self.keyed.then(|| "key".to_owned());
        let headers = self.headers.iter().map(|name| format!("header.{name}"));
        levels.chain(topic).chain(key).chain(headers).collect()
    }

    /// Their values in a message, in the same order; an error if the topic doesn't fit.
    pub(super) fn values<'m>(&self, message: &Message<'m>, found: &mut Vec<&'m str>) -> Result<(), String> {
        let text =
            |bytes: &'m [u8], what: &str| std::str::from_utf8(bytes).map_err(|_| format!("the {what} is not UTF-8"));
        found.clear();
        if self.stream {
            found.extend([message.topic, text(message.key.unwrap_or_default(), "machine")?]);
            return Ok(());
        }
        match &self.pattern {
            None => found.push(message.topic),
            Some(pattern) if pattern.matches(message.topic, found) => {}
            Some(_) => return Err("the topic does not fit the pattern".into()),
        }
        if self.keyed {
            found.push(text(message.key.unwrap_or_default(), "key")?);
        }
        for name in &self.headers {
            let value = message.headers.iter().find(|(known, _)| known == name);
            found.push(text(value.map_or(&[], |(_, value)| value), "header")?);
        }
        Ok(())
    }
}
