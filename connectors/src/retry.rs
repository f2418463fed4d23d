//! Trying again: how long to wait, and saying it once.

use std::time::Duration;

/// Waits that double, half of each at random, so that many who wait don't come back at the same moment.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    first: Duration,
    last: Duration,
    next: Duration,
}

impl Backoff {
    pub(crate) fn new(first: Duration, last: Duration) -> Self {
        Backoff {
            first,
            last,
            next: first,
        }
    }

    /// Begins with the shortest wait again.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }

    /// How long to wait now.
    pub(crate) fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (self.next * 2).min(self.last);
        let share = f64::from(uuid::Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
        wait.mul_f64(0.5 + share / 2.0)
    }
}

/// What a target was last said to be, so that each change is logged once.
#[derive(Debug, Default)]
pub(crate) struct Condition {
    trouble: Option<String>,
}

impl Condition {
    /// True when this trouble wasn't said yet.
    pub(crate) fn worsens(&mut self, trouble: &str) -> bool {
        let is_new = self.trouble.as_deref() != Some(trouble);
        self.trouble = Some(trouble.to_owned());
        is_new
    }

    /// True when there was trouble until now.
    pub(crate) fn mends(&mut self) -> bool {
        self.trouble.take().is_some()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_last() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        let check = |wait: Duration, most: u64| {
            let ms = wait.as_millis() as u64;
            assert!(most / 2 <= ms && ms <= most, "{ms} of {most}");
        };
        for most in [100, 200, 350, 350] {
            check(backoff.wait(), most);
        }
        backoff.reset();
        check(backoff.wait(), 100);
    }

    #[test]
    fn a_change_is_said_once() {
        let mut condition = Condition::default();
        assert!(!condition.mends());
        assert!(condition.worsens("away"));
        assert!(!condition.worsens("away"));
        assert!(condition.worsens("refused"));
        assert!(condition.mends() && !condition.mends());
    }
}
