//! The messages of one edge node in the order of their sequence numbers: 0 to 255, then 0 again.

/// Puts messages into order. What comes too early waits for what is missing; after a while it goes on without.
#[derive(Debug)]
pub(super) struct Order<M> {
    /// The number to come. None: not known, all is given as it comes.
    expected: Option<u8>,
    waiting: Vec<Early<M>>,
    /// Numbers that were given up; they may come after all.
    missing: Vec<u8>,
}

#[derive(Debug)]
struct Early<M> {
    number: u8,
    came: i64,
    message: M,
}

/// What to do with a message.
#[derive(Debug, PartialEq)]
pub(super) enum Place<M> {
    /// It, and then those that waited for it.
    Next(Vec<M>),
    /// It waits.
    Early,
    /// It was here before.
    Again(M),
}

/// Messages that go on without those that are missing.
#[derive(Debug, PartialEq)]
pub(super) struct Gap<M> {
    pub missing: Vec<u8>,
    pub messages: Vec<M>,
}

impl<M> Default for Order<M> {
    fn default() -> Self {
        Order {
            expected: None,
            waiting: Vec::new(),
            missing: Vec::new(),
        }
    }
}

impl<M> Order<M> {
    /// Begins anew behind a birth of this number, or without one. Gives what still waited.
    pub fn restart(&mut self, birth: Option<u8>) -> Vec<M> {
        let waited = self.sorted();
        self.expected = birth.map(|number| number.wrapping_add(1));
        self.missing.clear();
        waited
    }

    /// Takes a message that came at `now`, in µs of a clock that only goes forward.
    pub fn take(&mut self, number: u8, message: M, now: i64) -> Place<M> {
        let Some(expected) = self.expected else {
            return Place::Next(vec![message]);
        };
        if number == expected {
            let mut next = vec![message];
            let mut expected = expected.wrapping_add(1);
            while let Some(place) = self.waiting.iter().position(|early| early.number == expected) {
                next.push(self.waiting.swap_remove(place).message);
                expected = expected.wrapping_add(1);
            }
            self.expected = Some(expected);
            // So long ago, a number means the next round's.
            self.missing.retain(|missing| expected.wrapping_sub(*missing) < 128);
            return Place::Next(next);
        }
        if let Some(place) = self.missing.iter().position(|missing| *missing == number) {
            self.missing.swap_remove(place);
            return Place::Next(vec![message]);
        }
        let is_behind = number.wrapping_sub(expected) >= 128;
        if is_behind || self.waiting.iter().any(|early| early.number == number) {
            return Place::Again(message);
        }
        self.waiting.push(Early {
            number,
            came: now,
            message,
        });
        Place::Early
    }

    /// Gives up what is missing when the first message has waited for so long.
    pub fn overdue(&mut self, now: i64, timeout: i64) -> Option<Gap<M>> {
        let first = self.waiting.iter().map(|early| early.came).min()?;
        let mut number = self.expected?;
        if now - first < timeout {
            return None;
        }
        let last = self
            .waiting
            .iter()
            .map(|early| early.number.wrapping_sub(number))
            .max()?;
        let mut missing = Vec::new();
        for _ in 0..=last {
            if self.waiting.iter().all(|early| early.number != number) {
                missing.push(number);
            }
            number = number.wrapping_add(1);
        }
        let messages = self.sorted();
        self.expected = Some(number);
        self.missing.clone_from(&missing);
        Some(Gap { missing, messages })
    }

    fn sorted(&mut self) -> Vec<M> {
        let expected = self.expected.unwrap_or_default();
        self.waiting.sort_by_key(|early| early.number.wrapping_sub(expected));
        self.waiting.drain(..).map(|early| early.message).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// Messages that are their own numbers, one a µs; what comes out, and what is given up after 10 µs of waiting.
    fn check(birth: Option<u8>, numbers: &[u8], expect: &str) {
        let mut order = Order::default();
        order.restart(birth);
        let mut got = String::new();
        let mut now = 0;
        for &number in numbers {
            now += 1;
            got += &match order.take(number, number, now) {
                Place::Next(next) => format!("{next:?}"),
                Place::Early => "early".into(),
                Place::Again(number) => format!("again {number}"),
            };
            got += " ";
            if let Some(gap) = order.overdue(now, 10) {
                got += &format!("without {:?}: {:?} ", gap.missing, gap.messages);
            }
        }
        if let Some(gap) = order.overdue(now + 10, 10) {
            got += &format!("without {:?}: {:?} ", gap.missing, gap.messages);
        }
        assert_eq!(got.trim_end(), expect, "{birth:?} {numbers:?}");
    }

    #[test]
    fn messages_are_put_into_order() {
        check(Some(0), &[1, 2, 3], "[1] [2] [3]");
        check(Some(254), &[255, 0, 1], "[255] [0] [1]");
        check(Some(0), &[2, 3, 1], "early early [1, 2, 3]");
        check(Some(254), &[0, 255, 1], "early [255, 0] [1]");
        check(Some(0), &[3, 2, 1, 5, 4], "early early [1, 2, 3] early [4, 5]");
        check(Some(0), &[2, 4], "early early without [1, 3]: [2, 4]");
        check(Some(254), &[0, 2], "early early without [255, 1]: [0, 2]");
        check(Some(0), &[1, 1, 3, 3], "[1] again 1 early again 3 without [2]: [3]");
        check(None, &[7, 3, 3], "[7] [3] [3]");
    }

    #[test]
    fn what_was_given_up_may_come_after_all_and_once() {
        let mut order = Order::default();
        order.restart(Some(0));
        assert_eq!(order.take(2, 'b', 0), Place::Early);
        assert_eq!(order.overdue(9, 10), None);
        let gap = order.overdue(10, 10).unwrap();
        assert_eq!((gap.missing, gap.messages), (vec![1], vec!['b']));
        assert_eq!(order.take(1, 'a', 11), Place::Next(vec!['a']));
        assert_eq!(order.take(1, 'a', 12), Place::Again('a'));
        assert_eq!(order.take(3, 'c', 13), Place::Next(vec!['c']));
        assert_eq!(order.overdue(1000, 10), None);
    }

    #[test]
    fn a_birth_gives_what_waited() {
        let mut order = Order::default();
        order.restart(Some(250));
        for number in [1, 253, 255] {
            assert_eq!(order.take(number, number, 0), Place::Early);
        }
        assert_eq!(order.restart(Some(0)), [253, 255, 1]);
        assert_eq!(order.take(1, 1, 0), Place::Next(vec![1]));
        assert_eq!(order.restart(None), [0; 0]);
    }

    #[test]
    fn nothing_is_lost_or_doubled_however_it_is_shuffled() {
        proptest::proptest!(|(swaps in proptest::collection::vec((0usize..60, 0usize..60), 0..40))| {
            let mut numbers: Vec<u8> = (1..=60).collect();
            for (a, b) in swaps {
                numbers.swap(a, b);
            }
            let mut order = Order::default();
            order.restart(Some(0));
            let mut out = Vec::new();
            for number in numbers {
                match order.take(number, number, 0) {
                    Place::Next(next) => out.extend(next),
                    Place::Early => {}
                    Place::Again(number) => panic!("{number} came once"),
                }
            }
            proptest::prop_assert_eq!(out, (1..=60).collect::<Vec<u8>>());
        });
    }
}
