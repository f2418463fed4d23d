//! Topic patterns with named levels (`acme/{line}/{machine}/{signal}`) and templates that use the names.

use taktline_engine::config::Problem;

/// A topic pattern: what to subscribe to, and which level of a topic carries which name.
#[derive(Clone, Debug)]
pub(crate) struct TopicPattern {
    levels: Vec<Level>,
    names: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
enum Level {
    Text(String),
    /// `{name}`: an index into the names.
    Name(usize),
    /// `+`
    Any,
    /// `#`, only as the last level
    Rest,
}

impl TopicPattern {
    /// Parses a pattern.
    ///
    /// # Errors
    /// What is wrong with it, without a path.
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let problem = |offset: usize, message: String| {
            Problem::at("topic", message)
                .offset(offset)
                .hint("write levels and names: acme/{line}/{machine}/{signal}")
        };
        let mut pattern = TopicPattern {
            levels: Vec::new(),
            names: Vec::new(),
        };
        let count = text.split('/').count();
        let mut offset = 0;
        for (index, level) in text.split('/').enumerate() {
            let parsed = match level {
                "" => return Err(problem(offset, format!("level {} of `{text}` is empty", index + 1))),
                "+" => Level::Any,
                "#" if index + 1 == count => Level::Rest,
                "#" => return Err(problem(offset, "`#` may only be the last level".into())),
                "$share" => return Err(problem(offset, "shared subscriptions aren't supported".into())),
                _ => match level.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
                    Some(name) if is_name(name) => {
                        if pattern.names.iter().any(|known| known == name) {
                            return Err(problem(offset, format!("the name `{name}` stands in two levels")));
                        }
                        pattern.names.push(name.to_owned());
                        Level::Name(pattern.names.len() - 1)
                    }
                    Some(name) => {
                        return Err(problem(
                            offset,
                            format!("`{{{name}}}` has no name of letters, digits and _"),
                        ));
                    }
                    None if level.contains(['{', '}', '+', '#', '\0']) => {
                        let message = format!("the level `{level}` must be a text, `{{name}}` or `+` as a whole");
                        return Err(problem(offset, message));
                    }
                    None => Level::Text(level.to_owned()),
                },
            };
            pattern.levels.push(parsed);
            offset += level.chars().count() + 1;
        }
        Ok(pattern)
    }

    /// The topic filter to subscribe to.
    pub(crate) fn filter(&self) -> String {
        let levels: Vec<&str> = self.levels.iter().map(Level::filter).collect();
        levels.join("/")
    }

    /// The names, in the order of the levels.
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// The levels of a topic that carry names, in the order of [`TopicPattern::names`]; false if the topic doesn't fit.
    pub(crate) fn matches<'t>(&self, topic: &'t str, found: &mut Vec<&'t str>) -> bool {
        found.clear();
        let mut levels = topic.split('/');
        for level in &self.levels {
            if *level == Level::Rest {
                return true;
            }
            let Some(part) = levels.next() else { return false };
            match level {
                Level::Text(text) if text != part => return false,
                Level::Name(_) => found.push(part),
                _ => {}
            }
        }
        levels.next().is_none()
    }
}

impl Level {
    fn filter(&self) -> &str {
        match self {
            Level::Text(text) => text,
            Level::Name(_) | Level::Any => "+",
            Level::Rest => "#",
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// A text with names in braces: `{line}-{machine}`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Template {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    /// An index into the names.
    Name(usize),
}

/// Why a template can't be used.
#[derive(Debug, PartialEq)]
pub(crate) enum TemplateError {
    /// A name that isn't known.
    Unknown(String),
    /// A brace without its partner.
    Brace,
}

impl Template {
    /// Parses a template over these names.
    pub(crate) fn parse<S: AsRef<str>>(text: &str, names: &[S]) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(open) = rest.find(['{', '}']) {
            let (before, braced) = rest.split_at(open);
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            let close = braced
                .find('}')
                .filter(|_| braced.starts_with('{'))
                .ok_or(TemplateError::Brace)?;
            let name = &braced[1..close];
            let index = names.iter().position(|known| known.as_ref() == name);
            parts.push(Part::Name(
                index.ok_or_else(|| TemplateError::Unknown(name.to_owned()))?,
            ));
            rest = &braced[close + 1..];
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Template { parts })
    }

    /// True when it uses the name of this index.
    pub(crate) fn uses(&self, index: usize) -> bool {
        self.parts.contains(&Part::Name(index))
    }

    /// Writes the template with these values of the names.
    pub(crate) fn render<'v>(&self, value: impl Fn(usize) -> &'v str, out: &mut String) {
        out.clear();
        for part in &self.parts {
            out.push_str(match part {
                Part::Text(text) => text,
                Part::Name(index) => value(*index),
            });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let check = |pattern: &str, expect: Result<&str, &str>| {
            let got = TopicPattern::parse(pattern)
                .map(|p| p.filter())
                .map_err(|p| (p.path.join("."), p.message));
            match expect {
                Ok(filter) => assert_eq!(got.as_deref(), Ok(filter), "{pattern}"),
                Err(part) => {
                    let (path, message) = got.unwrap_err();
                    assert_eq!(path, "topic", "{pattern}");
                    assert!(message.contains(part), "{pattern}: {message}");
                }
            }
        };
        check("acme/{line}/{machine}/{signal}", Ok("acme/+/+/+"));
        check("a/{machine}/#", Ok("a/+/#"));
        check("a/+/{machine}", Ok("a/+/+"));
        check("#", Ok("#"));
        check("plain", Ok("plain"));
        check("", Err("level 1 of `` is empty"));
        check("/a", Err("is empty"));
        check("a//b", Err("level 2"));
        check("a/", Err("level 2"));
        check("{a}x/b", Err("`{a}x`"));
        check("x{a}/b", Err("as a whole"));
        check("{a/b}", Err("as a whole"));
        check("a+/b", Err("as a whole"));
        check("a/#/b", Err("only be the last"));
        check("a/b#", Err("as a whole"));
        check("{}/b", Err("no name"));
        check("{a b}/c", Err("no name"));
        check("{a}/{a}", Err("two levels"));
        check("$share/g/a", Err("shared"));
    }

    #[test]
    fn matching() {
        let check = |pattern: &str, topic: &str, expect: Option<&[&str]>| {
            let mut found = Vec::new();
            let fits = TopicPattern::parse(pattern).unwrap().matches(topic, &mut found);
            assert_eq!(fits.then_some(found.as_slice()), expect, "{pattern} {topic}");
        };
        check("acme/{line}/{machine}", "acme/l1/m1", Some(&["l1", "m1"]));
        check("acme/{line}/{machine}", "acme/l1", None);
        check("acme/{line}/{machine}", "acme/l1/m1/x", None);
        check("acme/{line}/{machine}", "other/l1/m1", None);
        check("acme/{machine}/#", "acme/m1", Some(&["m1"]));
        check("acme/{machine}/#", "acme/m1/a/b", Some(&["m1"]));
        check("+/{machine}", "x/m1", Some(&["m1"]));
        check("+/{machine}", "x/", Some(&[""]));
    }

    #[test]
    fn templates() {
        let check = |text: &str, expect: Result<&str, TemplateError>| {
            let got = Template::parse(text, &["line", "machine"]).map(|template| {
                let mut out = String::new();
                template.render(|index| ["L", "M"][index], &mut out);
                out
            });
            assert_eq!(got, expect.map(str::to_owned), "{text}");
        };
        check("{machine}", Ok("M"));
        check("{line}-{machine}", Ok("L-M"));
        check("press", Ok("press"));
        check("", Ok(""));
        check("{lin}", Err(TemplateError::Unknown("lin".into())));
        check("{line", Err(TemplateError::Brace));
        check("line}", Err(TemplateError::Brace));
    }
}
