//! Which signals are taken, and what is made of them: names, factors, offsets.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use taktline_engine::config::Problem;

use super::config::DecodeConfig;

/// How many names of signals that are left out are said in the log.
const SAID: usize = 50;

/// What to do with signals, by the name they come with.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals {
    only: Option<Vec<Glob>>,
    /// The most particular first.
    changes: Vec<(Glob, Change)>,
    /// Names that were left out and said so, over all workers.
    said: Arc<Mutex<HashSet<String>>>,
}

/// What is made of a signal.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Change {
    pub rename: Option<String>,
    factor: f64,
    offset: f64,
}

impl Change {
    /// The value in its new unit.
    #[inline]
    pub(crate) fn scale(&self, value: f64) -> f64 {
        value * self.factor + self.offset
    }
}

/// What becomes of a signal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// It is taken as it is.
    Take,
    /// An index for [`Signals::change`].
    Change(usize),
    LeaveOut,
}

impl Signals {
    /// From the settings `only` and `signals`.
    pub(crate) fn new(config: &DecodeConfig, problems: &mut Vec<Problem>) -> Self {
        if config.only.as_ref().is_some_and(Vec::is_empty) {
            problems.push(Problem::at("decode.only", "no signal is taken").hint("leave it out to take all"));
        }
        let mut changes: Vec<(Glob, Change)> = Vec::new();
        for (name, signal) in &config.signals {
            let path = format!("decode.signals.{name}");
            if signal.rename.as_deref().is_some_and(|name| name.trim().is_empty()) {
                problems.push(Problem::at(&format!("{path}.rename"), "a signal needs a name"));
            }
            if signal.factor == Some(0.0) {
                problems.push(Problem::at(
                    &format!("{path}.factor"),
                    "a factor of 0 leaves nothing of the signal",
                ));
            }
            let change = Change {
                rename: signal.rename.clone(),
                factor: signal.factor.unwrap_or(1.0),
                offset: signal.offset.unwrap_or(0.0),
            };
            changes.push((Glob::new(name), change));
        }
        changes.sort_by_key(|(glob, _)| (glob.parts.len() > 1, std::cmp::Reverse(glob.length())));
        Signals {
            only: config
                .only
                .as_ref()
                .map(|names| names.iter().map(|name| Glob::new(name)).collect()),
            changes,
            said: Arc::default(),
        }
    }

    /// True when all signals are taken as they are.
    pub(crate) fn is_empty(&self) -> bool {
        self.only.is_none() && self.changes.is_empty()
    }

    /// What becomes of the signal of this name.
    pub(crate) fn verdict(&self, name: &str) -> Verdict {
        if let Some(only) = &self.only
            && !only.iter().any(|glob| glob.fits(name))
        {
            return Verdict::LeaveOut;
        }
        let change = self.changes.iter().position(|(glob, _)| glob.fits(name));
        change.map_or(Verdict::Take, Verdict::Change)
    }

    /// What is made of a signal whose verdict says so.
    pub(crate) fn change(&self, index: usize) -> &Change {
        &self.changes[index].1
    }

    /// Says the name of a signal that is left out, once.
    pub(crate) fn say_left_out(&self, source: &str, name: &str) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() < SAID && said.insert(name.to_owned()) {
            let more = if said.len() == SAID {
                "; further names are not said"
            } else {
                ""
            };
            tracing::info!("source {source}: signal `{name}` is left out, it is not in decode.only{more}");
        }
    }
}

/// A name in which `*` stands for any characters.
#[derive(Clone, Debug, PartialEq)]
struct Glob {
    parts: Vec<String>,
}

impl Glob {
    fn new(text: &str) -> Self {
        Glob {
            parts: text.split('*').map(str::to_owned).collect(),
        }
    }

    /// Characters that must be there.
    fn length(&self) -> usize {
        self.parts.iter().map(String::len).sum()
    }

    fn fits(&self, name: &str) -> bool {
        let [first, middle @ .., last] = self.parts.as_slice() else {
            return self.parts.first().is_some_and(|only| only == name);
        };
        let Some(mut rest) = name.strip_prefix(first.as_str()) else {
            return false;
        };
        for part in middle {
            match rest.find(part.as_str()) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last.as_str())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use taktline_engine::config::Section;

    fn signals(yaml: &str) -> (Signals, Vec<String>) {
        let config: DecodeConfig = Section::from_yaml("decode", yaml).parse().unwrap();
        let mut problems = Vec::new();
        let signals = Signals::new(&config, &mut problems);
        (signals, problems.iter().map(|problem| problem.path.join(".")).collect())
    }

    #[test]
    fn globs() {
        let check = |glob: &str, fits: &[&str], others: &[&str]| {
            let glob = Glob::new(glob);
            for name in fits {
                assert!(glob.fits(name), "{glob:?} {name}");
            }
            for name in others {
                assert!(!glob.fits(name), "{glob:?} {name}");
            }
        };
        check("temp", &["temp"], &["temp1", "atemp", ""]);
        check("temp*", &["temp", "temp_1"], &["atemp"]);
        check("*temp", &["temp", "a.temp"], &["temp1"]);
        check("a*b*c", &["abc", "a1b2c", "abbcc"], &["acb", "ab", "bc"]);
        check("*", &["", "x"], &[]);
        check("a*a", &["aa", "aba"], &["a"]);
    }

    #[test]
    fn verdicts() {
        let (rules, problems) = signals(
            "{only: [a, 't_*'], signals: {a: {rename: b}, 't_*': {factor: 0.5}, 't_oil*': {factor: 2}, t_oil: {offset: -40}}}",
        );
        assert!(problems.is_empty());
        let scaled = |name: &str| match rules.verdict(name) {
            Verdict::Change(index) => rules.change(index).scale(10.0),
            other => panic!("{name}: {other:?}"),
        };
        assert_eq!(rules.verdict("x"), Verdict::LeaveOut);
        assert!(
            matches!(rules.verdict("a"), Verdict::Change(index) if rules.change(index).rename.as_deref() == Some("b"))
        );
        assert_eq!(
            (scaled("t_oil"), scaled("t_oil2"), scaled("t_water")),
            (-30.0, 20.0, 5.0)
        );
        assert_eq!(signals("{}").0.verdict("x"), Verdict::Take);
    }

    #[test]
    fn settings() {
        let check = |yaml: &str, expect: &[&str]| assert_eq!(signals(yaml).1, expect, "{yaml}");
        check("{only: []}", &["decode.only"]);
        check("{signals: {a: {rename: ' '}}}", &["decode.signals.a.rename"]);
        check("{signals: {a: {factor: 0}}}", &["decode.signals.a.factor"]);
    }
}
