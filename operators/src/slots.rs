//! A key's own numbers for its signals.
//!
//! A worker numbers the signals of all its machines; a key that kept a place for each of them would cost as much as the
//! fleet. So each key counts the signals it has seen itself: 0, 1, 2 … are its *slots*.

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
    /// The slot of a number; the next free one for a number not seen before, then `new` is called.
    ///
    /// Rows of one machine repeat their signals in nearly the same order, so the signal that followed last time is
    /// tried first: a few ns a row.
    #[inline]
    pub fn of(&mut self, number: i32, new: impl FnOnce()) -> usize {
        let guess = self.after.get(self.last as usize).map_or(0, |(_, next)| *next);
        if self.after.get(guess as usize).is_some_and(|(is, _)| *is == number) {
            self.last = guess;
            return guess as usize;
        }
        self.search(number, new)
    }

    #[cold]
    fn search(&mut self, number: i32, new: impl FnOnce()) -> usize {
        let slot = match self.known.binary_search_by_key(&number, |(known, _)| *known) {
            Ok(place) => self.known[place].1,
            Err(place) => {
                let slot = self.after.len() as u32;
                self.known.insert(place, (number, slot));
                self.after.push((number, 0));
                new();
                slot
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
                let slot = slots.of(number * 1000, || new = true);
                prop_assert_eq!(new, !seen.contains(&number));
                if new {
                    seen.push(number);
                }
                prop_assert_eq!(seen[slot], number);
            }
        }
    }
}
