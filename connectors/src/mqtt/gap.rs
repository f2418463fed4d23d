//! When messages may be missing because the broker had no session for us.

/// Follows the sessions of one source.
pub(crate) struct Sessions {
    /// What the broker keeps from one connection to the next, and from one run to the next.
    kept: bool,
    outlives: bool,
    /// The cause of a gap where the broker keeps nothing.
    not_kept: &'static str,
    /// There was a connection before, in this run or in an earlier one.
    earlier: Option<Earlier>,
    /// When something came last, µs since 1970.
    last: Option<i64>,
}

#[derive(Clone, Copy, PartialEq)]
enum Earlier {
    ThisRun,
    EarlierRun,
}

impl Sessions {
    /// `kept`: the broker keeps messages from one connection to the next; `outlives`: and from one run to the next; `not_kept`: why
    /// it doesn't, where it doesn't, and the way out.
    pub(crate) fn new(kept: bool, outlives: bool, not_kept: &'static str) -> Self {
        Sessions {
            kept,
            outlives,
            not_kept,
            earlier: None,
            last: None,
        }
    }

    /// An earlier run had messages, the last of them at this time.
    pub(crate) fn recall(&mut self, last: Option<i64>) {
        self.earlier = Some(Earlier::EarlierRun);
        self.last = last;
    }

    /// A message came.
    pub(crate) fn message(&mut self, received: i64) {
        self.last = Some(received);
    }

    /// The broker was reached. Gives the words for a dead letter if messages may be missing.
    pub(crate) fn connected(&mut self, session_present: bool, at: i64) -> Option<String> {
        let earlier = self.earlier.replace(Earlier::ThisRun)?;
        if session_present {
            return None;
        }
        let was_kept = match earlier {
            Earlier::ThisRun => self.kept,
            Earlier::EarlierRun => self.outlives,
        };
        let cause = if was_kept {
            "the broker had forgotten the session of `client_id`; let it keep sessions (in Mosquitto `persistence true`) for long \
             enough (`session_expiry`)"
        } else {
            self.not_kept
        };
        let from = match self.last {
            Some(last) => format!("between {} and ", time(last)),
            None => "before ".to_owned(),
        };
        let at = time(at);
        Some(format!(
            "possible gap: what was published {from}{at} may be missing: {cause}"
        ))
    }
}

fn time(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).map_or_else(|_| format!("{micros} us"), |time| format!("{time:.3}"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// Whether each connection in turn leaves a gap, as first letter of its cause.
    fn check(sessions: &mut Sessions, present: &[bool], expect: &[&str]) {
        let got: Vec<String> = (present.iter())
            .map(|&present| sessions.connected(present, 1_000_000).unwrap_or_default())
            .collect();
        assert_eq!(got.len(), expect.len());
        for (got, expect) in got.iter().zip(expect) {
            assert!(
                got.contains(expect) && (got.is_empty() == expect.is_empty()),
                "{present:?}: {got}"
            );
        }
    }

    fn sessions(kept: bool, outlives: bool) -> Sessions {
        Sessions::new(kept, outlives, "it keeps nothing")
    }

    #[test]
    fn a_session_that_was_not_found_is_a_possible_gap() {
        check(
            &mut sessions(true, true),
            &[false, true, false, true],
            &["", "", "forgotten", ""],
        );
        check(&mut sessions(true, false), &[false, false], &["", "forgotten"]);
        check(&mut sessions(false, false), &[false, false], &["", "keeps nothing"]);
        let mut after = sessions(true, true);
        after.recall(Some(0));
        check(
            &mut after,
            &[false],
            &["between 1970-01-01T00:00:00.000Z and 1970-01-01T00:00:01.000Z"],
        );
        let mut after = sessions(true, true);
        after.recall(None);
        check(&mut after, &[true, false], &["", "before 1970"]);
        let mut after = sessions(true, false);
        after.recall(None);
        check(&mut after, &[false], &["keeps nothing"]);
    }
}
