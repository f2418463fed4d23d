//! A queue that knows the merged tally of all it holds, for three merges an element however many there are.
//!
//! Two stacks (Tangwongsan, Hirzel & Schneider, VLDB 8, 2015): the older elements have their suffixes merged, the newer ones
//! one running tally. What is merged with what follows from the elements alone, so a restored queue gives the same bits.

use std::collections::VecDeque;

use super::pane::Tally;

/// What a queue holds.
pub(super) trait Element<T> {
    /// Its own tally; `at` is where it stands in time, µs.
    fn tally(&self, at: i64) -> T;
}

pub(super) struct Fifo<E, T> {
    /// With their times, oldest first.
    elements: VecDeque<(i64, E)>,
    /// For each of the first elements the tally of it and those after it in here; the oldest is last.
    front: Vec<T>,
    /// Of the elements that are not in `front`.
    back: T,
}

impl<E: Element<T>, T: Tally> Fifo<E, T> {
    pub fn new() -> Self {
        Fifo {
            elements: VecDeque::new(),
            front: Vec::new(),
            back: T::default(),
        }
    }

    /// A queue of these elements, of which the first `front` had been merged already.
    pub fn restore(elements: VecDeque<(i64, E)>, front: usize) -> Self {
        let mut fifo = Fifo {
            elements,
            ..Fifo::new()
        };
        fifo.merge_front(front.min(fifo.elements.len()));
        for (at, element) in fifo.elements.iter().skip(front) {
            fifo.back.merge(&element.tally(*at));
        }
        fifo
    }

    pub fn push(&mut self, at: i64, element: E) {
        self.back.merge(&element.tally(at));
        self.elements.push_back((at, element));
    }

    /// Takes the oldest element if it stands before `at`.
    pub fn pop_before(&mut self, at: i64) -> Option<E> {
        self.elements.front().filter(|(oldest, _)| *oldest < at)?;
        if self.front.is_empty() {
            self.merge_front(self.elements.len());
            self.back = T::default();
        }
        self.front.pop();
        self.elements.pop_front().map(|(_, element)| element)
    }

    /// The tally of all elements.
    pub fn total(&self) -> T {
        let mut total = self.front.last().cloned().unwrap_or_default();
        total.merge(&self.back);
        total
    }

    pub fn is_empty(&self) -> bool {
        self.elements.is_empty()
    }

    /// All elements, and how many of them were merged.
    pub fn parts(&self) -> (&VecDeque<(i64, E)>, usize) {
        (&self.elements, self.front.len())
    }

    fn merge_front(&mut self, elements: usize) {
        self.front.reserve(elements);
        let mut later = T::default();
        for (at, element) in self.elements.iter().take(elements).rev() {
            let mut suffix = element.tally(*at);
            suffix.merge(&later);
            self.front.push(suffix.clone());
            later = suffix;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::pane::Basic;
    use super::*;

    proptest! {
        #[test]
        fn the_total_is_that_of_what_it_holds(steps in prop::collection::vec((0_i64..4, -9.0..9.0f64), 1..80), span in 1_i64..20) {
            let (mut fifo, mut held, mut ts) = (Fifo::<f64, Basic>::new(), Vec::new(), 0);
            for (step, value) in steps {
                ts += step;
                fifo.push(ts, value);
                held.push((ts, value));
                while fifo.pop_before(ts - span).is_some() {}
                held.retain(|(at, _)| *at >= ts - span);
                let mut naive = Basic::default();
                held.iter().for_each(|(at, value)| naive.add(*at, *value));
                let (total, naive) = (*fifo.total().moments(), *naive.moments());
                prop_assert_eq!((total.count, total.min, total.max), (naive.count, naive.min, naive.max));
                prop_assert!((total.mean - naive.mean).abs() < 1e-9 && (total.std() - naive.std()).abs() < 1e-6);
                let (elements, front) = fifo.parts();
                prop_assert_eq!(Fifo::<f64, Basic>::restore(elements.clone(), front).total(), fifo.total());
            }
        }
    }
}
