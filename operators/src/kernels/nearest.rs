//! The nearest series of a library by DTW, found without aligning most of them.
//!
//! Lower bounds are taken from the cheapest to the dearest (the cascade of Rakthanmanon et al. 2012): LB_Keogh of all, from
//! the query's side; then, in the order of these bounds, LB_Keogh from the other side, LB_Webb, and DTW itself, each only
//! while it can still be below the worst of the neighbours found so far. The answer is that of aligning all.

use super::dtw::{Scratch, finite, limit, window};
use super::lower_bounds::{Envelope, Envelopes, keogh, keogh_rest, kim, webb};

/// A series of the library that is near.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Neighbour {
    /// Its place in the library.
    pub place: usize,
    /// Its distance, as [`super::dtw::dtw`] gives it.
    pub distance: f64,
}

/// Series to compare with, prepared once for many queries.
#[derive(Clone, Debug, Default)]
pub struct Library {
    percent: f64,
    series: Vec<Known>,
    scratch: Scratch,
    cascade: Cascade,
}

/// What the dearer bounds need, kept between calls.
#[derive(Clone, Debug, Default)]
struct Cascade {
    /// Of a series of another length than the query's.
    of_known: Envelopes,
    query_seen: Envelope,
    rest: Vec<f64>,
}

#[derive(Clone, Debug)]
struct Known {
    values: Vec<f64>,
    /// As a query of the same length sees it; that of another length is answered by envelopes made for it.
    envelopes: Envelopes,
    finite: bool,
}

impl Library {
    /// An empty one; `percent` of the longer of two series is the window.
    pub fn new(percent: f64) -> Self {
        Library {
            percent,
            ..Library::default()
        }
    }

    /// Adds a series. One with values that are not finite keeps its place, and is nobody's neighbour.
    pub fn push(&mut self, series: &[f64]) {
        let (rows, finite) = (series.len(), finite(series));
        let envelopes = Envelopes::new(series, rows, window(self.percent, rows, rows));
        self.series.push(Known {
            values: series.to_vec(),
            envelopes,
            finite,
        });
    }

    /// How many series it has.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }

    /// The `count` nearest, nearest first, of equals the one with the lower place. Fewer when fewer have a finite distance: none has
    /// one from a query with values that are not finite.
    ///
    /// ```
    /// use taktline_operators::kernels::nearest::Library;
    /// let mut library = Library::new(10.0);
    /// library.push(&[0.0, 1.0, 2.0, 1.0]);
    /// library.push(&[0.0, 5.0, 5.0, 1.0]);
    /// let nearest = library.nearest(&[0.0, 5.0, 4.0, 1.0], 1);
    /// assert_eq!((nearest[0].place, nearest[0].distance), (1, 1.0));
    /// ```
    pub fn nearest(&mut self, query: &[f64], count: usize) -> Vec<Neighbour> {
        let mut best: Vec<Neighbour> = Vec::with_capacity(count.min(self.len()) + 1);
        if count == 0 || !finite(query) {
            return best;
        }
        let same = window(self.percent, query.len(), query.len());
        let query_seen = Envelope::new(query, query.len(), same);
        let bound = |known: &Known| match known.values.len() == query.len() {
            true => keogh(query, &known.values, &known.envelopes.own, f64::INFINITY),
            // Envelopes for another length would cost more than they spare here.
            false => kim(query, &known.values),
        };
        let finite = self.series.iter().enumerate().filter(|(_, known)| known.finite);
        let mut order: Vec<(f64, usize)> = finite.map(|(place, known)| (bound(known), place)).collect();
        order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        for (bound, place) in order {
            let worst = if best.len() < count {
                f64::INFINITY
            } else {
                best[count - 1].distance
            };
            if bound > limit(worst) {
                break;
            }
            let known = &self.series[place];
            let window = window(self.percent, query.len(), known.values.len());
            let distance = if worst < f64::INFINITY {
                let Some(rest) = self
                    .cascade
                    .rest(query, known, &query_seen, window, bound, limit(worst))
                else {
                    continue;
                };
                self.scratch.dtw_knowing(query, &known.values, window, worst, rest)
            } else {
                self.scratch.dtw(query, &known.values, window, worst)
            };
            let Some(distance) = distance else {
                continue;
            };
            if distance < f64::INFINITY {
                let neighbour = Neighbour { place, distance };
                let at = best.partition_point(|other| (other.distance, other.place) < (distance, place));
                best.insert(at, neighbour);
                best.truncate(count);
            }
        }
        best
    }
}

impl Cascade {
    /// What the points of the query from each on cost at least; `None` when a bound says that the series is too far away.
    fn rest(
        &mut self,
        query: &[f64],
        known: &Known,
        query_seen: &Envelope,
        window: usize,
        bound: f64,
        limit: f64,
    ) -> Option<&[f64]> {
        let values = &known.values[..];
        let (bound, of_known, seen) = if values.len() == query.len() {
            (bound, &known.envelopes, query_seen)
        } else {
            self.of_known = Envelopes::new(values, query.len(), window);
            self.query_seen = Envelope::new(query, values.len(), window);
            let bound = keogh(query, values, &self.of_known.own, f64::INFINITY);
            (bound, &self.of_known, &self.query_seen)
        };
        let too_far =
            bound > limit || keogh(values, query, seen, limit) > limit || webb(bound, values, of_known, seen) > limit;
        if too_far {
            return None;
        }
        keogh_rest(query, &of_known.own, &mut self.rest);
        Some(&self.rest)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::dtw::dtw;

    /// All of them, aligned.
    fn naive(library: &[Vec<f64>], query: &[f64], percent: f64, count: usize) -> Vec<Neighbour> {
        let distance = |known: &[f64]| dtw(query, known, window(percent, query.len(), known.len()), f64::INFINITY);
        let distances = library.iter().map(|known| distance(known).unwrap_or(f64::INFINITY));
        let mut all: Vec<Neighbour> = distances
            .enumerate()
            .map(|(place, distance)| Neighbour { place, distance })
            .filter(|neighbour| neighbour.distance < f64::INFINITY)
            .collect();
        all.sort_by(|a, b| a.distance.total_cmp(&b.distance));
        all.truncate(count);
        all
    }

    fn check(library: &[Vec<f64>], query: &[f64], percent: f64, count: usize) {
        let mut prepared = Library::new(percent);
        library.iter().for_each(|series| prepared.push(series));
        let expect = naive(library, query, percent, count);
        assert_eq!(prepared.nearest(query, count), expect, "{query:?} of {library:?}");
    }

    #[test]
    fn small_cases() {
        check(&[], &[1.0], 10.0, 3);
        check(&[vec![], vec![1.0]], &[], 10.0, 3);
        check(&vec![vec![1.0, 2.0]; 4], &[1.0, 2.0], 10.0, 2);
        check(&[vec![1.0; 5], vec![], vec![2.0]], &[1.5; 4], 10.0, 1);
        check(&[vec![1.0; 9], vec![2.0; 9]], &[1.4; 9], 10.0, 0);
        check(
            &[vec![1.0, f64::NAN], vec![5.0, 5.0], vec![f64::INFINITY, 0.0]],
            &[1.0, 2.0],
            10.0,
            3,
        );
        check(&[vec![1.0], vec![5.0]], &[f64::NAN], 10.0, 3);
        check(
            &[vec![1e308; 20], vec![-1e308; 20], vec![0.0; 20]],
            &[1e308; 20],
            10.0,
            3,
        );
    }

    /// Cycles of one shape, warped and shifted, with noise; of one length or of several.
    fn library() -> impl Strategy<Value = Vec<Vec<f64>>> {
        let cycle = |(length, speed, noise): (usize, f64, Vec<f64>)| -> Vec<f64> {
            (0..length)
                .map(|i| (i as f64 * speed).sin() * 3.0 + noise[i % noise.len()])
                .collect()
        };
        let noise = || prop::collection::vec(-1.0..1.0f64, 1..20);
        let one = prop::collection::vec((Just(40usize), 0.05..0.3f64, noise()).prop_map(cycle), 1..20);
        let several = prop::collection::vec((1..50usize, 0.05..0.3f64, noise()).prop_map(cycle), 1..20);
        prop_oneof![one, several]
    }

    proptest! {
        #[test]
        fn it_is_the_naive_one(mut library in library(), percent in 0.0..40.0f64, count in 1..5usize) {
            let query = library.swap_remove(0);
            check(&library, &query, percent, count);
        }
    }
}
