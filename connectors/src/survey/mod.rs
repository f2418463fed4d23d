//! What is there? Guesses about messages and files, for `taktline init`: a source section with the reasons beside it.
//!
//! - `payload`: what one kind of payload is: format, time, values, names.
//! - [`messages`]: topics, their levels and rates.
//! - [`file`](mod@file): the head of a file; `csv`: its marks, where it is delimited text.
//!
//! Guesses may be wrong; each is written so that a person sees what it rests on.

mod csv;
pub mod file;
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
        self.lines.push((text.into(), reason.as_deref().map(one_line)));
    }

    fn see(&mut self, text: &str) {
        self.seen.push(one_line(text));
    }
}

/// A text that came from outside as it may stand in a comment: payloads have line breaks, and more that would end it.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if is_printable(c) { c } else { ' ' }).collect()
}

/// A text as a YAML scalar.
pub fn quoted(text: &str) -> String {
    // What begins with a digit may be a number in one of YAML's many ways to write them.
    let plain = text.starts_with(|c: char| c.is_alphabetic() || c == '_' || c == '/')
        && text.chars().all(|c| c.is_alphanumeric() || "_-./:".contains(c))
        && text.parse::<f64>().is_err()
        && !text.ends_with(':')
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_lowercase().as_str());
    if plain { text.to_owned() } else { in_quotes(text) }
}

/// A text as a YAML scalar in double quotes, which can hold every character.
pub fn in_quotes(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
    out
}

/// False for what YAML takes only as an escape, or as the end of a line.
fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_in_yaml() {
        let check = |text: &str, expect: &str| assert_eq!(quoted(text), expect, "{text:?}");
        check("press-1", "press-1");
        check("/data/öl.csv", "/data/öl.csv");
        check("kafka:9092", "kafka:9092");
        check("10.0.0.1:9092", "\"10.0.0.1:9092\"");
        check("0x1F", "\"0x1F\"");
        check("12", "\"12\"");
        check("nan", "\"nan\"");
        check("No", "\"No\"");
        check("", "\"\"");
        check("a: b #c", "\"a: b #c\"");
        check("it's \"x\"\\y", "\"it's \\\"x\\\"\\\\y\"");
        check("\u{feff}Zeit", "\"\\U0000feffZeit\"");
        check("a\nb\u{7f}", "\"a\\U0000000ab\\U0000007f\"");
        check("prëss 😀", "\"prëss 😀\"");
        assert_eq!(one_line("{\n \"a\": 1\r\n}\u{2028}"), "{  \"a\": 1  } ");
    }
}
