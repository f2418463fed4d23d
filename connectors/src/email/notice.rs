//! What is to be mailed, and how much may be.

use std::time::Instant;

use serde::{Deserialize, Serialize};

/// The most rows whose texts a mail holds.
const NOTICES: usize = 100;
/// The longest subject and text of a row, in characters.
const SUBJECT: usize = 200;
const TEXT: usize = 4000;

/// A row as a mail.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Notice {
    pub subject: String,
    pub text: String,
}

/// Rows that wait to be mailed: all are counted, the first hundred are kept.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Waiting {
    pub count: u64,
    pub notices: Vec<Notice>,
}

impl Waiting {
    pub(super) fn push(&mut self, notice: impl FnOnce() -> Notice) {
        self.count += 1;
        if self.notices.len() < NOTICES {
            let Notice { subject, text } = notice();
            // A subject is one line.
            let subject = subject
                .chars()
                .map(|c| if c.is_control() { ' ' } else { c })
                .take(SUBJECT);
            self.notices.push(Notice {
                subject: subject.collect(),
                text: text.chars().take(TEXT).collect(),
            });
        }
    }

    pub(super) fn append(&mut self, other: Waiting) {
        self.count += other.count;
        let room = NOTICES - self.notices.len().min(NOTICES);
        self.notices.extend(other.notices.into_iter().take(room));
    }

    /// Subject and text of the mail for all of them.
    pub(super) fn mail(&self) -> (String, String) {
        match self.notices.as_slice() {
            [one] if self.count == 1 => (one.subject.clone(), one.text.clone()),
            notices => {
                let first = notices.first().map_or("", |notice| notice.subject.as_str());
                let subject = format!("{} rows: {first}", self.count);
                let mut text: String = notices
                    .iter()
                    .map(|notice| format!("{}\n{}\n\n", notice.subject, notice.text.trim_end()))
                    .collect();
                let more = self.count - notices.len() as u64;
                if more > 0 {
                    text += &format!("... and {more} more\n");
                }
                (subject, text)
            }
        }
    }
}

/// Mails that may go out: so many at once, filled up over an hour.
pub(super) struct Budget {
    per_hour: f64,
    left: f64,
    at: Instant,
}

impl Budget {
    pub(super) fn new(per_hour: u32, now: Instant) -> Self {
        let per_hour = f64::from(per_hour);
        Budget {
            per_hour,
            left: per_hour,
            at: now,
        }
    }

    pub(super) fn has_one(&mut self, now: Instant) -> bool {
        let hours = now.saturating_duration_since(self.at).as_secs_f64() / 3600.0;
        self.left = (self.left + hours * self.per_hour).min(self.per_hour);
        self.at = now;
        self.left >= 1.0
    }

    pub(super) fn take(&mut self, now: Instant) {
        self.has_one(now);
        self.left = (self.left - 1.0).max(0.0);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn waiting(count: usize) -> Waiting {
        let mut waiting = Waiting::default();
        for row in 0..count {
            waiting.push(|| Notice {
                subject: format!("s{row}\nx"),
                text: format!("t{row}\n"),
            });
        }
        waiting
    }

    #[test]
    fn mails() {
        let check = |count, expect: (&str, &str)| {
            let (subject, text) = waiting(count).mail();
            assert_eq!((subject.as_str(), text.as_str()), expect);
        };
        check(1, ("s0 x", "t0\n"));
        check(2, ("2 rows: s0 x", "s0 x\nt0\n\ns1 x\nt1\n\n"));
        let (subject, text) = waiting(10_000).mail();
        assert_eq!(subject, "10000 rows: s0 x");
        assert!(text.ends_with("s99 x\nt99\n\n... and 9900 more\n"), "{text}");
        let mut both = waiting(60);
        both.append(waiting(60));
        assert_eq!((both.count, both.notices.len()), (120, 100));
    }

    #[test]
    fn an_hour_has_so_many() {
        let start = Instant::now();
        let mut budget = Budget::new(2, start);
        let mut sent = |secs: u64| {
            let now = start + Duration::from_secs(secs);
            let may = budget.has_one(now);
            if may {
                budget.take(now);
            }
            may
        };
        let got: Vec<bool> = [0, 0, 0, 1000, 1801, 1802, 20_000, 20_000, 20_000]
            .map(&mut sent)
            .into();
        assert_eq!(got, [true, true, false, false, true, false, true, true, false]);
    }
}
