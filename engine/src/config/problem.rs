//! What is wrong with a pipeline file, and where.

use std::fmt;

use super::node::Position;

/// Something wrong with a section, relative to it. Kinds return these; the plan adds file, line and column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Keys from the section down to the value: `["reference", "first"]`; empty for the section itself.
    pub path: Vec<String>,
    /// Characters into the value's text, where the value is a text with a grammar.
    pub offset: usize,
    /// True when the key itself is wrong, not its value.
    pub on_key: bool,
    /// What is wrong, lower case, without a full stop.
    pub message: String,
    /// What was meant or what to do.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem with the value at `path` (keys joined by dots; empty for the section itself).
    ///
    /// ```
    /// use taktline_engine::config::Problem;
    /// let problem = Problem::at("reference.first", "must be at least 1").hint("write first: 20");
    /// assert_eq!(problem.path, ["reference", "first"]);
    /// ```
    pub fn at(path: &str, message: impl Into<String>) -> Self {
        let path = path
            .split('.')
            .filter(|key| !key.is_empty())
            .map(str::to_owned)
            .collect();
        Problem {
            path,
            offset: 0,
            on_key: false,
            message: message.into(),
            hint: None,
        }
    }

    /// Adds what was meant or what to do.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says that the key is wrong, not its value.
    #[must_use]
    pub fn on_key(mut self) -> Self {
        self.on_key = true;
        self
    }

    /// Points `offset` characters into the value's text.
    #[must_use]
    pub fn offset(mut self, offset: usize) -> Self {
        self.offset = offset;
        self
    }

    /// Adds the nearest of the known names as the hint, or lists them.
    #[must_use]
    pub fn did_you_mean<'a>(self, wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Self {
        let hint = did_you_mean(wrong, known);
        Problem {
            hint: hint.or(self.hint),
            ..self
        }
    }
}

/// `did you mean ...?` for a near name, else the list of the known ones.
pub fn did_you_mean<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let known: Vec<&str> = known.into_iter().collect();
    let near = known
        .iter()
        .map(|name| (strsim::damerau_levenshtein(wrong, name), *name))
        .min();
    match near {
        Some((distance, name)) if distance <= 1 + wrong.chars().count() / 4 => Some(format!("did you mean `{name}`?")),
        Some(_) => Some(format!("known: {}", known.join(", "))),
        None => None,
    }
}

/// Something wrong with a pipeline file, ready to read.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Diagnostic {
    /// The file as it was named.
    pub file: String,
    /// Line and column, both from 1; line 0 for the command line.
    #[serde(flatten)]
    pub at: Position,
    /// What is wrong.
    pub message: String,
    /// What was meant or what to do.
    pub hint: Option<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at.line {
            0 => write!(f, "{}: {}", self.file, self.message)?, // given on the command line
            line => write!(f, "{}:{line}:{}: {}", self.file, self.at.column, self.message)?,
        }
        match &self.hint {
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}
