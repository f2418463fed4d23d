//! Pointers into documents: RFC 6901, and `*` for each element of a list or each member of an object.

/// The deepest a pointer may reach; what lies deeper is skipped without recursion.
const DEPTH_LIMIT: usize = 32;
/// The most lists within lists that a pointer may lead through.
const LIST_LIMIT: usize = 8;

/// A pointer: `/reading/value`, `/list/0`, `/samples/*/value`; the empty text is the whole document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer {
    pub(super) levels: Vec<Level>,
    /// As it was written.
    pub(super) text: String,
}

/// One step down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Level {
    /// A member, or an element of a list by its index.
    Child(String),
    /// `*`: each of them.
    Each,
}

impl Pointer {
    /// Parses a pointer.
    ///
    /// # Errors
    /// It does not begin with `/`, or is too deep.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let pointer = |levels| Pointer {
            levels,
            text: text.to_owned(),
        };
        if text.is_empty() {
            return Ok(pointer(Vec::new()));
        }
        let rest = text
            .strip_prefix('/')
            .ok_or_else(|| format!("`{text}` is no pointer; write /{text}"))?;
        let levels: Vec<Level> = rest
            .split('/')
            .map(|level| match level {
                "*" => Level::Each,
                _ => Level::Child(level.replace("~1", "/").replace("~0", "~")),
            })
            .collect();
        if levels.len() > DEPTH_LIMIT {
            return Err(format!("a pointer may have at most {DEPTH_LIMIT} levels"));
        }
        if levels.iter().filter(|level| **level == Level::Each).count() > LIST_LIMIT {
            return Err(format!("a pointer may have at most {LIST_LIMIT} levels `*`"));
        }
        Ok(pointer(levels))
    }

    /// True when it ends with `*`, so that each element or member has a name of its own.
    pub(crate) fn ends_with_each(&self) -> bool {
        self.levels.last() == Some(&Level::Each)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn pointers() {
        let check = |text: &str, expect: &[&str]| {
            let got = Pointer::parse(text).unwrap().levels;
            let got: Vec<&str> = got
                .iter()
                .map(|level| match level {
                    Level::Child(name) => name.as_str(),
                    Level::Each => "EACH",
                })
                .collect();
            assert_eq!(got, expect, "{text}");
        };
        check("", &[]);
        check("/", &[""]);
        check("/a~1b/c~0d", &["a/b", "c~d"]);
        check("/a/*/b", &["a", "EACH", "b"]);
        check("/**", &["**"]);
        assert!(Pointer::parse("value").unwrap_err().contains("write /value"));
        assert!(Pointer::parse(&"/a".repeat(33)).unwrap_err().contains("32"));
        assert!(Pointer::parse(&"/*".repeat(9)).unwrap_err().contains("8"));
    }
}
