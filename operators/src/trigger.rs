//! Triggers: moments at which something happens to one signal.
//!
//! | written | fires |
//! | --- | --- |
//! | `pressure rises above 5` | when a value is above 5 after one that wasn't |
//! | `pressure falls below 3` | when a value is below 3 after one that wasn't |
//! | `… by 0.5` | as above, but armed again only at 4.5 or less (3.5 or more) |
//! | `… for 200ms` | as above, if it then stays beyond for that long; the moment is that of the crossing |
//! | `batch_id changes` | when a value or text differs from the one before; as a start also at the first one ever |
//! | `ClockTime goes back` | when a value is less than the one before; as a start also at the first one ever |
//! | `event is 'START'` | at every sample of this text (or number): a marker message |
//! | `state becomes 'RUN'` | when the text (or number) is this one after it was another, or at first |
//!
//! Names with blanks stand in double quotes. A missing sample is never looked at.

mod memory;

use serde::{Deserialize, Serialize};
use taktline_engine::config::{Interval, Problem};

pub(crate) use memory::Memory;

use crate::token::{Token, Word, Wrong, tokens};

/// A trigger as it was written.
#[derive(Clone, Debug)]
pub struct Trigger {
    text: String,
    signal: String,
    event: Event,
    /// µs that a crossing must last; 0 where it counts at once.
    hold_us: i64,
}

#[derive(Clone, Debug, PartialEq)]
enum Event {
    /// `above` is 1 for rising, -1 for falling, so that both read `sign * value > sign * level`.
    Crosses {
        sign: f64,
        level: f64,
        by: f64,
    },
    Changes,
    GoesBack,
    Is(Content),
    Becomes(Content),
}

/// What one sample holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Content {
    Number(f64),
    Text(String),
}

impl Trigger {
    /// Reads a trigger.
    ///
    /// # Errors
    /// What is wrong, at `path` of the step's settings with the place inside the text.
    pub fn parse(path: &str, text: &str) -> Result<Self, Problem> {
        let hint = "write for example: pressure rises above 5, batch_id changes, event is 'START', ClockTime goes back";
        let wrong = |(at, message): Wrong| Problem::at(path, message).offset(at).hint(hint);
        let tokens = tokens(text).map_err(wrong)?;
        parse(&tokens, text).map_err(wrong)
    }

    /// The trigger as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The signal it looks at.
    pub fn signal(&self) -> &str {
        &self.signal
    }

    /// How long a crossing must last, in µs; 0 where it counts at once.
    pub fn hold_us(&self) -> i64 {
        self.hold_us
    }

    /// True when it looks for a text, which only samples have.
    pub fn needs_text(&self) -> bool {
        matches!(
            &self.event,
            Event::Is(Content::Text(_)) | Event::Becomes(Content::Text(_))
        )
    }
}

fn parse(tokens: &[Token], text: &str) -> Result<Trigger, Wrong> {
    let end = text.chars().count();
    let at = |index: usize| tokens.get(index).map_or(end, |token| token.at);
    let is = |index: usize, keyword: &str| tokens.get(index).is_some_and(|token| token.word.is(keyword));
    let number = |index: usize| match tokens.get(index).map(|token| &token.word) {
        Some(Word::Number(number)) => Ok(*number),
        _ => Err((at(index), "expected a number".to_owned())),
    };
    let signal = tokens.first().and_then(|token| token.word.name());
    let signal = signal
        .ok_or_else(|| (0, "expected the name of a signal".to_owned()))?
        .to_owned();
    let crosses = |sign| {
        Ok::<_, Wrong>(Event::Crosses {
            sign,
            level: number(3)?,
            by: 0.0,
        })
    };
    let (mut event, mut next) = if is(1, "rises") && is(2, "above") {
        (crosses(1.0)?, 4)
    } else if is(1, "falls") && is(2, "below") {
        (crosses(-1.0)?, 4)
    } else if is(1, "changes") {
        (Event::Changes, 2)
    } else if is(1, "goes") && is(2, "back") {
        (Event::GoesBack, 3)
    } else if is(1, "is") || is(1, "becomes") {
        let content = match tokens.get(2).map(|token| &token.word) {
            Some(Word::Text(text)) => Content::Text(text.clone()),
            Some(Word::Number(number)) => Content::Number(*number),
            _ => return Err((at(2), "expected a 'text' or a number".into())),
        };
        (
            if is(1, "is") {
                Event::Is(content)
            } else {
                Event::Becomes(content)
            },
            3,
        )
    } else if is(1, "rises") || is(1, "falls") || is(1, "goes") {
        return Err((at(2), "expected `rises above`, `falls below` or `goes back`".into()));
    } else {
        let verbs = "expected `rises above`, `falls below`, `changes`, `goes back`, `is` or `becomes`";
        let blanks = if tokens.len() > 2 {
            "; a name with blanks stands in double quotes"
        } else {
            ""
        };
        return Err((at(1), format!("{verbs}{blanks}")));
    };
    let mut hold_us = 0;
    if let Event::Crosses { by, .. } = &mut event {
        if is(next, "by") {
            *by = number(next + 1)?;
            if *by < 0.0 {
                return Err((at(next + 1), "the hysteresis must not be negative".into()));
            }
            next += 2;
        }
        if is(next, "for") {
            let length = tokens
                .get(next + 1)
                .and_then(|token| token.word.name())
                .unwrap_or_default();
            let length: Interval = length
                .parse()
                .map_err(|_| (at(next + 1), "expected a length of time, like 200ms".into()))?;
            hold_us = length.micros();
            next += 2;
        }
    }
    if next < tokens.len() {
        return Err((at(next), "expected the end of the condition".into()));
    }
    Ok(Trigger {
        text: text.to_owned(),
        signal,
        event,
        hold_us,
    })
}

/// A trigger at work on one key.
#[derive(Debug)]
pub struct TriggerState {
    trigger: Trigger,
    /// Whether the first content ever counts as a change.
    first_counts: bool,
    armed: bool,
    last: Option<Content>,
    pending: Option<i64>,
    fired: bool,
    /// True before the first value.
    fresh: bool,
    seen: Seen,
}

/// What a trigger has seen, for a remark on why nothing was found.
#[derive(Clone, Copy, Debug)]
struct Seen {
    fired: u64,
    crossed: u64,
    values: u64,
    texts: u64,
    min: f64,
    max: f64,
    longest_us: i64,
}

impl TriggerState {
    /// Before the first sample.
    pub fn new(trigger: &Trigger, first_counts: bool) -> Self {
        let (min, max) = (f64::INFINITY, f64::NEG_INFINITY);
        let seen = Seen {
            fired: 0,
            crossed: 0,
            values: 0,
            texts: 0,
            min,
            max,
            longest_us: 0,
        };
        TriggerState {
            trigger: trigger.clone(),
            first_counts,
            armed: false,
            last: None,
            pending: None,
            fired: false,
            fresh: true,
            seen,
        }
    }

    /// The trigger.
    pub fn trigger(&self) -> &Trigger {
        &self.trigger
    }

    /// True once since it fired.
    pub fn take_fired(&mut self) -> bool {
        std::mem::take(&mut self.fired)
    }

    /// The crossing that has still to last.
    pub fn pending(&self) -> Option<i64> {
        self.pending
    }

    /// The last µs at which the pending crossing can still be broken: it counts as soon as time is later than this.
    pub fn due_us(&self) -> Option<i64> {
        self.pending.map(|since| since.saturating_add(self.trigger.hold_us))
    }

    /// The pending crossing has lasted; its moment.
    pub fn confirm(&mut self) -> Option<i64> {
        let since = self.pending.take()?;
        self.seen.fired += 1;
        self.seen.longest_us = self.seen.longest_us.max(self.trigger.hold_us);
        Some(since)
    }

    /// Forgets a pending crossing.
    pub fn forget(&mut self) {
        self.pending = None;
    }

    /// Begins with new rows that have nothing to do with those before; only what was seen for a remark stays.
    pub fn begin_again(&mut self) {
        self.armed = false;
        self.last = None;
        self.pending = None;
        self.fired = false;
        self.fresh = true;
    }

    /// A sample of the trigger's signal; NaN, an infinity or no text where there is none.
    pub fn see(&mut self, ts: i64, value: f64, text: Option<&str>) {
        match text {
            Some(text) => {
                self.seen.texts += 1;
                self.see_text(text);
            }
            None if value.is_finite() => {
                self.seen.values += 1;
                self.seen.min = self.seen.min.min(value);
                self.seen.max = self.seen.max.max(value);
                self.see_value(ts, value);
                self.fresh = false;
            }
            None => {}
        }
    }

    fn see_value(&mut self, ts: i64, value: f64) {
        let last = match self.last {
            Some(Content::Number(last)) => Some(last),
            _ => None,
        };
        let fires = match &self.trigger.event {
            Event::Crosses { sign, level, by } => {
                let distance = sign * (value - level);
                return self.cross(ts, distance, *by);
            }
            Event::Changes => match &self.last {
                Some(before) => *before != Content::Number(value),
                None => self.first_counts,
            },
            Event::GoesBack => last.map_or(self.first_counts && self.last.is_none(), |last| value < last),
            Event::Is(content) => *content == Content::Number(value),
            Event::Becomes(content) => *content == Content::Number(value) && last != Some(value),
        };
        self.last = Some(Content::Number(value));
        self.fire(fires);
    }

    fn see_text(&mut self, text: &str) {
        let same = |content: &Content| matches!(content, Content::Text(other) if other == text);
        let as_before = self.last.as_ref().is_some_and(same);
        let fires = match &self.trigger.event {
            Event::Crosses { .. } | Event::GoesBack => return,
            Event::Changes => !as_before && (self.first_counts || self.last.is_some()),
            Event::Is(content) => same(content),
            Event::Becomes(content) => same(content) && !as_before,
        };
        if !as_before {
            self.last = Some(Content::Text(text.to_owned()));
        }
        self.fire(fires);
    }

    /// `distance` beyond the level, in the trigger's direction.
    fn cross(&mut self, ts: i64, distance: f64, by: f64) {
        if distance <= 0.0 {
            if let Some(since) = self.pending.take() {
                self.seen.longest_us = self.seen.longest_us.max(ts.saturating_sub(since));
                // It never counted, so the way back needs no hysteresis.
                self.armed = true;
            }
            // The first value ever arms where it lies; after a crossing the hysteresis has to be passed.
            self.armed |= distance <= -by || self.fresh;
        } else if self.armed {
            self.armed = false;
            self.seen.crossed += 1;
            if self.trigger.hold_us > 0 {
                self.pending = Some(ts);
            } else {
                self.fire(true);
            }
        }
    }

    fn fire(&mut self, fires: bool) {
        self.fired |= fires;
        self.seen.fired += u64::from(fires);
    }

    /// Why it may have found too little: how often it was met, its signal's range, the nearest miss. `known` are the
    /// signals that did occur.
    pub fn remark<'a>(&self, known: impl IntoIterator<Item = &'a str>) -> String {
        let Trigger {
            text,
            signal,
            event,
            hold_us,
        } = &self.trigger;
        let Seen {
            fired,
            crossed,
            values,
            texts,
            min,
            max,
            longest_us,
        } = self.seen;
        if values + texts == 0 {
            let known = Problem::at("", "").did_you_mean(signal, known).hint;
            let known = known
                .map(|hint| format!("; {}", hint.replace("known:", "signals that do:")))
                .unwrap_or_default();
            return format!("`{text}`: no sample of `{signal}` has a value or text{known}");
        }
        let mut remark = format!("`{text}` was met {fired} times");
        if *hold_us > 0 {
            let seconds = |us: i64| us as f64 / 1e6;
            remark += &format!(
                " ({crossed} crossings, the longest lasted {} s of {} s)",
                seconds(longest_us),
                seconds(*hold_us)
            );
        }
        if values > 0 {
            remark += &format!("; {values} values of `{signal}` range from {min} to {max}");
        }
        if texts > 0 {
            remark += &format!("; {texts} texts of `{signal}`, the last one '{}'", self.last_text());
        }
        if let Event::Crosses { sign, level, .. } = event {
            let nearest = if *sign > 0.0 { max } else { min };
            let short = sign * (level - nearest);
            if short >= 0.0 {
                remark += &format!("; the nearest miss is {nearest}, {short} short of {level}");
            } else if crossed == 0 {
                remark += &format!("; it never came from the other side of {level}");
            }
        }
        remark
    }

    fn last_text(&self) -> &str {
        match &self.last {
            Some(Content::Text(text)) => text,
            _ => "",
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn refused(text: &str, expect: &str) {
        let problem = Trigger::parse("start", text).unwrap_err();
        assert_eq!(format!("{}: {}", problem.offset, problem.message), expect, "{text}");
    }

    #[test]
    fn crosses_at_the_ends_of_time() {
        let mut state = TriggerState::new(&Trigger::parse("start", "p rises above 5 for 1s").unwrap(), true);
        for (ts, value) in [(i64::MIN, 0.0), (i64::MIN, 9.0), (i64::MAX, 0.0)] {
            state.see(ts, value, None);
        }
        assert_eq!((state.pending(), state.seen.longest_us), (None, i64::MAX));
    }

    /// Feeds one value a ms and tells at which of them the trigger's moments lie.
    fn check(text: &str, values: &[f64], expect: &[i64]) {
        let mut state = TriggerState::new(&Trigger::parse("start", text).unwrap(), true);
        let mut found = Vec::new();
        for (index, value) in values.iter().enumerate() {
            let ts = index as i64 * 1000;
            if state.due_us().is_some_and(|due| ts > due) {
                found.extend(state.confirm().map(|since| since / 1000));
            }
            state.see(ts, *value, None);
            found.extend(state.take_fired().then_some(ts / 1000));
        }
        assert_eq!(found, expect, "{text}");
    }

    fn check_texts(text: &str, texts: &[&str], expect: &[usize]) {
        let mut state = TriggerState::new(&Trigger::parse("start", text).unwrap(), true);
        let mut found = Vec::new();
        for (index, text) in texts.iter().enumerate() {
            state.see(0, f64::NAN, Some(text));
            found.extend(state.take_fired().then_some(index));
        }
        assert_eq!(found, expect, "{text}");
    }

    #[test]
    fn values() {
        let nan = f64::NAN;
        check("p rises above 5", &[0.0, 5.0, 5.1, 9.0, nan, 4.9, 6.0], &[2, 6]);
        check("p rises above 5", &[9.0, 8.0, nan, 7.0, 5.0, 5.5], &[5]);
        check("p rises above 5", &[0.0, f64::INFINITY, 4.0], &[]);
        check("p falls below 3", &[5.0, 3.0, 2.9, 1.0, 3.0, 2.0], &[2, 5]);
        check("p rises above -5e-1", &[-1.0, -0.4], &[1]);
        check("p rises above 5 by 0.5", &[4.8, 5.1, 4.9, 5.1, 4.5, 5.1], &[1, 5]);
        check("p falls below 3 by 1", &[3.5, 2.9, 3.1, 2.9, 4.0, 2.0], &[1, 5]);
        check(
            "p rises above 5 for 2ms",
            &[0.0, 6.0, 6.0, 4.0, 6.0, 6.0, 6.0, 6.0, 6.0],
            &[4],
        );
        check(
            "p rises above 5 by 2 for 2ms",
            &[0.0, 6.0, 4.0, 6.0, 7.0, 7.0, 7.0, 4.0, 6.0, 6.0, 6.0, 6.0],
            &[3],
        );
        check("p changes", &[1.0, 1.0, nan, 1.0, 2.0, 1.0], &[0, 4, 5]);
        check("p goes back", &[0.0, 1.0, 1.0, 2.0, 0.0, nan, 1.0], &[0, 4]);
        check("p is 3", &[3.0, 3.0, 2.0, 3.0], &[0, 1, 3]);
        check("p becomes 3", &[3.0, 3.0, nan, 3.0, 2.0, 3.0], &[0, 5]);
    }

    #[test]
    fn texts() {
        check_texts("e is 'START'", &["START", "START", "END", "start", "START"], &[0, 1, 4]);
        check_texts("e becomes 'RUN'", &["RUN", "RUN", "STOP", "RUN"], &[0, 3]);
        check_texts("e changes", &["a", "a", "b", "a"], &[0, 2, 3]);
        check_texts("e rises above 5", &["9"], &[]);
    }

    #[test]
    fn grammar() {
        let trigger = Trigger::parse("start", "\"tool load\" Rises Above +1.5e1 by 2 for 0.2s").unwrap();
        assert_eq!((trigger.signal(), trigger.hold_us), ("tool load", 200_000));
        assert_eq!(
            trigger.event,
            Event::Crosses {
                sign: 1.0,
                level: 15.0,
                by: 2.0
            }
        );
        refused("", "0: expected the name of a signal");
        refused("5 changes", "0: expected the name of a signal");
        refused(
            "p",
            "1: expected `rises above`, `falls below`, `changes`, `goes back`, `is` or `becomes`",
        );
        refused("p rises 5", "8: expected `rises above`, `falls below` or `goes back`");
        refused("p rises above x", "14: expected a number");
        refused("p rises above", "13: expected a number");
        refused("p rises above 5 for 200", "20: expected a length of time, like 200ms");
        refused("p rises above 5 by -1", "19: the hysteresis must not be negative");
        refused("p changes now", "10: expected the end of the condition");
        refused("p is x", "5: expected a 'text' or a number");
        let blanks = "; a name with blanks stands in double quotes";
        let verbs = "5: expected `rises above`, `falls below`, `changes`, `goes back`, `is` or `becomes`";
        refused("tool load changes", &format!("{verbs}{blanks}"));
    }

    #[test]
    fn remarks() {
        let remark = |text: &str, values: &[f64]| {
            let mut state = TriggerState::new(&Trigger::parse("start", text).unwrap(), true);
            values
                .iter()
                .enumerate()
                .for_each(|(i, v)| state.see(i as i64 * 1000, *v, None));
            state.remark(["pressure", "position"])
        };
        assert_eq!(
            remark("pressure rises above 5", &[0.5, 4.5]),
            "`pressure rises above 5` was met 0 times; 2 values of `pressure` range from 0.5 to 4.5; the nearest miss is 4.5, \
             0.5 short of 5"
        );
        assert_eq!(
            remark("presure rises above 5", &[]),
            "`presure rises above 5`: no sample of `presure` has a value or text; did you mean `pressure`?"
        );
        assert_eq!(
            remark("pressure falls below 5", &[3.0, 4.5]),
            "`pressure falls below 5` was met 0 times; 2 values of `pressure` range from 3 to 4.5; it never came from the other \
             side of 5"
        );
        assert_eq!(
            remark("pressure rises above 5 for 9ms", &[3.0, 6.0, 6.0, 2.0]),
            "`pressure rises above 5 for 9ms` was met 0 times (1 crossings, the longest lasted 0.002 s of 0.009 s); 4 values of \
             `pressure` range from 2 to 6"
        );
    }
}
