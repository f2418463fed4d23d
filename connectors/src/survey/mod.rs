//! What is there? Guesses about messages and files, for `taktline init`: a source section with the reasons beside it.
//!
//! - `payload`: what one kind of payload is: format, time, values, names.
//! - [`messages`]: topics, their levels and rates.
//! - [`csv`]: the head of a text file.
//!
//! Guesses may be wrong; each is written so that a person sees what it rests on.

pub mod csv;
pub mod messages;
mod payload;

/// A source section of a pipeline file: lines of YAML, each with why it says so.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Proposal {
    /// `key: value`, and a reason where there is one to give.
    pub lines: Vec<(String, Option<String>)>,
    /// What was seen, in sentences for a person.
    pub seen: Vec<String>,
}

impl Proposal {
    fn line(&mut self, text: impl Into<String>, reason: Option<String>) {
        self.lines.push((text.into(), reason));
    }
}

/// A text as a YAML scalar.
pub fn quoted(text: &str) -> String {
    let plain = !text.is_empty()
        && text.chars().all(|c| c.is_alphanumeric() || "_-./:".contains(c))
        && text.parse::<f64>().is_err()
        && !text.ends_with(':')
        && !text.starts_with(['-', ':', '.'])
        && !["true", "false", "null", "yes", "no", "on", "off"].contains(&text.to_lowercase().as_str());
    if plain { text.to_owned() } else { format!("{:?}", text) }
}
