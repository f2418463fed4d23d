//! A key's own numbers for its signals.
//!
//! A worker numbers the signals of all its machines; a key that kept a place for each of them would cost as much as the
//! fleet. So each key counts the signals it has seen itself: 0, 1, 2 … are its *slots*.

/// A slot whose number isn't known yet.
const UNKNOWN: i32 = -1;

/// From a worker's signal number to a slot: 16 bytes a signal seen.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// (number, slot), sorted by number.
    known: Vec<(i32, u32)>,
    /// By slot: its number, and the slot that came after it last time.
    after: Vec<(i32, u32)>,
    last: u32,
}

impl Slots {
    /// So many slots of former numbers: after a restart a worker gives its signals others.
    pub fn unknown(slots: usize) -> Self {
        Slots {
            after: vec![(UNKNOWN, 0); slots],
            ..Slots::default()
        }
    }

    /// The slot of a number; `slot_of` is asked for one not seen before, and gives the next free slot if the signal has
    /// none.
    ///
    /// Rows of one machine repeat their signals in nearly the same order, so the signal that followed last time is
    /// tried first: a few ns a row.
    #[inline]
    pub fn of(&mut self, number: i32, slot_of: impl FnOnce() -> usize) -> usize {
        let guess = self.after.get(self.last as usize).map_or(0, |(_, next)| *next);
        if self.after.get(guess as usize).is_some_and(|(is, _)| *is == number) {
            self.last = guess;
            return guess as usize;
        }
        self.search(number, slot_of)
    }

    #[cold]
    fn search(&mut self, number: i32, slot_of: impl FnOnce() -> usize) -> usize {
        let slot = match self.known.binary_search_by_key(&number, |(known, _)| *known) {
            Ok(place) => self.known[place].1,
            Err(place) => {
                let slot = slot_of();
                self.known.insert(place, (number, slot as u32));
                if slot < self.after.len() {
                    self.after[slot].0 = number;
                } else {
                    self.after.push((number, 0));
                }
                slot as u32
            }
        };
        if let Some((_, next)) = self.after.get_mut(self.last as usize) {
            *next = slot;
        }
        self.last = slot;
        slot as usize
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equals_counting_first_occurrences(numbers in prop::collection::vec(0..12_i32, 0..60)) {
            let (mut slots, mut seen) = (Slots::default(), Vec::new());
            for number in numbers {
                let mut new = false;
                let slot = slots.of(number * 1000, || {
                    new = true;
                    seen.len()
                });
                prop_assert_eq!(new, !seen.contains(&number));
                if new {
                    seen.push(number);
                }
                prop_assert_eq!(seen[slot], number);
            }
        }
    }
}
