//! Knows a message that the broker gives again.
//!
//! A broker gives a message again when it has read no acknowledgement of it: on a new connection of the same session, under the
//! same packet id, and marked as given before. What we have of that packet id tells whether we took it: the same topic and payload
//! mean that we did. A broker may use a packet id anew once it has read the acknowledgement; within half the ids there are, it
//! doesn't come to use one a second time.
//!
//! What others send a second time is a new message to the broker. [`Repeats`] knows it by topic and payload alone, where it is asked to.

use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};

/// Deliveries that are looked back on. No broker has more on their way to us.
pub(super) const WINDOW: u64 = 32_768;

/// The newest delivery under each packet id.
pub(super) struct Deliveries {
    newest: Vec<Delivery>,
    /// One more for each delivery.
    count: u64,
}

#[derive(Clone, Copy, Default)]
struct Delivery {
    fingerprint: u64,
    /// What the count was; 0: there was none.
    number: u64,
}

impl Default for Deliveries {
    fn default() -> Self {
        Deliveries {
            newest: vec![Delivery::default(); 1 << 16],
            count: WINDOW,
        }
    }
}

impl Deliveries {
    /// Notes a delivery. True if we have had it.
    pub(super) fn note(&mut self, packet: u16, fingerprint: u64, again: bool) -> bool {
        let count = self.count + 1;
        let had = &mut self.newest[usize::from(packet)];
        let known = again && had.fingerprint == fingerprint && count - had.number <= WINDOW;
        *had = Delivery {
            fingerprint,
            number: count,
        };
        self.count = count;
        known
    }

    /// Notes a delivery of an earlier run, `age` deliveries before its newest.
    pub(super) fn recall(&mut self, age: u64, packet: u16, fingerprint: u64) {
        let number = self.count.saturating_sub(age);
        let had = &mut self.newest[usize::from(packet)];
        if had.number < number {
            *had = Delivery { fingerprint, number };
        }
    }
}

/// The newest messages by their fingerprints alone.
#[derive(Default)]
pub(super) struct Repeats {
    newest: VecDeque<u64>,
    known: HashSet<u64, BuildHasherDefault<Mixed>>,
}

impl Repeats {
    /// Notes a message. True if it is among the newest already.
    pub(super) fn note(&mut self, fingerprint: u64) -> bool {
        if !self.known.insert(fingerprint) {
            return true;
        }
        self.newest.push_back(fingerprint);
        if self.newest.len() as u64 > WINDOW
            && let Some(oldest) = self.newest.pop_front()
        {
            self.known.remove(&oldest);
        }
        false
    }

    /// Notes a message of an earlier run that is older than all before.
    pub(super) fn recall(&mut self, fingerprint: u64) {
        if (self.newest.len() as u64) < WINDOW && self.known.insert(fingerprint) {
            self.newest.push_front(fingerprint);
        }
    }
}

/// A fingerprint is its own hash.
#[derive(Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }
}

/// A number that two different messages have in common once in 2⁶⁴ times. It stands in journals: a change of it makes an upgrade keep
/// twice what the broker gives again at that moment.
pub(super) fn fingerprint(topic: &str, payload: &[u8]) -> u64 {
    let head = mix(topic.len() as u64, payload.len() as u64);
    absorb(absorb(head, topic.as_bytes()), payload)
}

fn absorb(mut state: u64, bytes: &[u8]) -> u64 {
    let mut words = bytes.chunks_exact(8);
    for word in &mut words {
        let mut eight = [0; 8];
        eight.copy_from_slice(word);
        state = mix(state, u64::from_le_bytes(eight));
    }
    let mut last = [0; 8];
    last[..words.remainder().len()].copy_from_slice(words.remainder());
    mix(state, u64::from_le_bytes(last))
}

/// Multiplies to 128 bits and folds, so that each bit of the input moves half the bits of the output (as in wyhash).
fn mix(state: u64, word: u64) -> u64 {
    let product = u128::from(state ^ 0x9e37_79b9_7f4a_7c15) * u128::from(word ^ 0xe703_7ed1_a0b4_28db);
    (product as u64) ^ ((product >> 64) as u64) ^ state.rotate_left(29)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn only_what_we_had_and_is_given_again_is_known() {
        let mut deliveries = Deliveries::default();
        let mut check = |packet, fingerprint, again, expect: bool| {
            assert_eq!(
                deliveries.note(packet, fingerprint, again),
                expect,
                "{packet} {fingerprint} {again}"
            );
        };
        check(1, 7, true, false); // given to nobody before
        check(1, 7, false, false); // the same reading once more
        check(1, 7, true, true);
        check(1, 7, true, true); // and again, after a second loss
        check(2, 7, true, false);
        check(1, 8, true, false); // another message under this id
        check(1, 7, true, false);
    }

    #[test]
    fn a_window_back_is_too_long_ago() {
        for (between, expect) in [(WINDOW - 1, true), (WINDOW, false)] {
            let mut deliveries = Deliveries::default();
            deliveries.note(9, 7, false);
            for other in 0..between {
                deliveries.note(10 + (other % 30_000) as u16, other, false);
            }
            assert_eq!(deliveries.note(9, 7, true), expect, "{between}");
        }
    }

    #[test]
    fn an_earlier_run_is_recalled_newest_first() {
        let mut deliveries = Deliveries::default();
        for (age, packet, fingerprint) in [(0, 5, 50), (1, 4, 40), (2, 5, 51), (WINDOW, 6, 60)] {
            deliveries.recall(age, packet, fingerprint);
        }
        assert!(deliveries.note(5, 50, true));
        assert!(deliveries.note(4, 40, true));
        assert!(!deliveries.note(6, 60, true));
        assert!(!deliveries.note(5, 51, true));
    }

    #[test]
    fn repeats_are_known_by_what_they_say() {
        let mut repeats = Repeats::default();
        repeats.recall(3);
        repeats.recall(2);
        assert!(repeats.note(3) && repeats.note(2));
        for fingerprint in 10..10 + WINDOW - 2 {
            assert!(!repeats.note(fingerprint));
        }
        assert!(repeats.note(2) && repeats.note(10));
        assert!(!repeats.note(1)); // pushes the oldest out
        assert!(!repeats.note(2) && repeats.note(1));
        assert_eq!(repeats.known.len() as u64, WINDOW);
    }

    #[test]
    fn messages_that_differ_a_little_differ_in_their_fingerprints() {
        let mut seen = HashSet::new();
        for number in 0..100_000 {
            assert!(seen.insert(fingerprint("a/b", format!("{{\"value\":{number}}}").as_bytes())));
        }
        for length in 0..100 {
            assert!(seen.insert(fingerprint("a/b", &vec![0; length])), "{length}");
        }
        assert!(seen.insert(fingerprint("a/bc", b"d")));
        assert!(seen.insert(fingerprint("a/b", b"cd")));
        // It stands in journals.
        assert_eq!(fingerprint("acme/m/s", b"1.5"), fingerprint("acme/m/s", b"1.5"));
    }
}
