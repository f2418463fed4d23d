//! Where in a long series a query fits best: DTW with every stretch of the query's length, both with mean 0 and standard
//! deviation 1 (the task of the UCR suite, Rakthanmanon et al. 2012).
//!
//! Few stretches are aligned. LB_Kim of eight stretches at a time leaves out most; LB_Keogh from both sides most of the rest; what
//! one of these knows of the points to come lets DTW stop early. A constant stretch is 0 throughout. Stretches with a value
//! that is not finite are left out.

mod chunk;
mod outside;

use chunk::Chunk;
use outside::{OfData, Outside};

use super::dtw::{Scratch, finite, limit};
use super::lanes::widest;
use super::lower_bounds::{Envelope, sum_from_the_end};

/// Stretches that are looked at together: their points and bounds stay in the nearest caches.
const CHUNK: usize = 4096;
/// Values beyond this are scaled down first, so that no square overflows.
const LARGE: f64 = 1e100;
/// A stretch is constant where it deviates less than this share of its values.
const CONSTANT: f64 = 1e-12;

/// A stretch of a series, and how far it is from the query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Match {
    /// The place of its first point.
    pub start: usize,
    /// DTW's distance of the normalised stretch and the normalised query.
    pub distance: f64,
}

/// A query, prepared for many series.
#[derive(Clone, Debug)]
pub struct Search {
    query: Vec<f64>,
    window: usize,
    envelope: Envelope,
    scratch: Scratch,
    chunk: Chunk,
    stretch: Vec<f64>,
    costs: Vec<f64>,
    other_costs: Vec<f64>,
}

impl Search {
    /// Looks for `query`, with a window in samples.
    pub fn new(query: &[f64], window: usize) -> Self {
        let query = normalised(query);
        Search {
            envelope: Envelope::new(&query, query.len(), window),
            query,
            window,
            scratch: Scratch::default(),
            chunk: Chunk::default(),
            stretch: Vec::new(),
            costs: Vec::new(),
            other_costs: Vec::new(),
        }
    }

    /// The nearest stretch, of equals the first; `None` where there is no stretch of finite values as long as the query, or the
    /// query is empty or not finite.
    ///
    /// ```
    /// use taktline_operators::kernels::search::Search;
    /// let series = [0.0, 0.0, 1.0, 0.0, 0.0, 10.0, 30.0, 10.0];
    /// let found = Search::new(&[1.0, 3.0, 1.0], 1).best(&series).unwrap();
    /// assert_eq!(found.start, 1);
    /// assert!(found.distance < 1e-12);
    /// ```
    pub fn best(&mut self, series: &[f64]) -> Option<Match> {
        let length = self.query.len();
        if length == 0 || !finite(&self.query) {
            return None;
        }
        let mut best = None;
        let mut start = 0;
        for run in series.split(|value| !value.is_finite()) {
            if run.len() >= length {
                self.run(start, run, &mut best);
            }
            start += run.len() + 1;
        }
        // Anew, without what rounding the running sums has left.
        let found: Match = best?;
        let stretch = normalised(&series[found.start..found.start + length]);
        let distance = self.scratch.dtw(&stretch, &self.query, self.window, f64::INFINITY)?;
        Some(Match { distance, ..found })
    }

    /// A run of finite values that begins at `start`.
    fn run(&mut self, start: usize, run: &[f64], best: &mut Option<Match>) {
        let largest = run.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
        if largest > LARGE {
            let scaled: Vec<f64> = run.iter().map(|value| value / largest).collect();
            return self.run(start, &scaled, best);
        }
        let length = self.query.len();
        for first in (0..=run.len() - length).step_by(CHUNK) {
            let points = &run[first..run.len().min(first + CHUNK + length - 1)];
            self.chunk.look_at(points, &self.query);
            // The most promising one first: then the others have a bound to fall behind.
            let kim = &self.chunk.kim;
            let promising = (0..kim.len()).min_by(|a, b| kim[*a].total_cmp(&kim[*b])).unwrap_or(0);
            for at in std::iter::once(promising).chain(0..self.chunk.kim.len()) {
                let bound = best.map_or(f64::INFINITY, |best| best.distance);
                if self.chunk.kim[at] > limit(bound) {
                    continue;
                }
                if let Some(distance) = self.distance(points, at, bound) {
                    let place = start + first + at;
                    if best.is_none_or(|best| (distance, place) < (best.distance, best.start)) {
                        *best = Some(Match { start: place, distance });
                    }
                }
            }
        }
    }

    /// The distance of the stretch at a place of the chunk, if it is within the bound.
    fn distance(&mut self, points: &[f64], at: usize, bound: f64) -> Option<f64> {
        let (length, limit) = (self.query.len(), limit(bound));
        let (mean, scale) = (self.chunk.mean[at], self.chunk.scale[at]);
        let values = &points[at..at + length];
        let within = |costs: &mut Vec<f64>, query: &[f64], envelope: &Envelope, of_data: bool, at: usize| {
            costs.resize(length, 0.0);
            let (lower, upper) = (&envelope.lower[at..at + length], &envelope.upper[at..at + length]);
            let outside = |costs| Outside {
                values,
                query,
                lower,
                upper,
                mean,
                scale,
                limit,
                costs,
            };
            if of_data {
                widest(OfData(outside(costs)))
            } else {
                widest(outside(costs))
            }
        };
        let forth = within(&mut self.costs, &self.query, &self.envelope, false, 0)?;
        let of_points = self
            .chunk
            .envelope
            .get_or_insert_with(|| Envelope::new(points, points.len(), self.window));
        let back = within(&mut self.other_costs, &self.query, of_points, true, at)?;
        self.stretch.clear();
        self.stretch.extend(values.iter().map(|value| (value - mean) * scale));
        let (rows, columns, rest) = if forth >= back {
            (&self.stretch, &self.query, &mut self.costs)
        } else {
            (&self.query, &self.stretch, &mut self.other_costs)
        };
        sum_from_the_end(rest);
        self.scratch.dtw_knowing(rows, columns, self.window, bound, rest)
    }
}

#[inline(always)]
fn square(x: f64) -> f64 {
    x * x
}

/// With mean 0 and standard deviation 1; 0 throughout where it is constant.
fn normalised(series: &[f64]) -> Vec<f64> {
    let largest = series.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    let shrink = if largest > LARGE { 1.0 / largest } else { 1.0 };
    let series: Vec<f64> = series.iter().map(|value| value * shrink).collect();
    let (mean, scale) = moments(&series);
    series.iter().map(|value| (value - mean) * scale).collect()
}

/// The mean, and one over the standard deviation or 0.
fn moments(series: &[f64]) -> (f64, f64) {
    let share = 1.0 / series.len() as f64;
    let mean = series.iter().sum::<f64>() * share;
    let variance = series.iter().map(|value| square(value - mean)).sum::<f64>() * share;
    let constant = variance.sqrt() <= CONSTANT * mean.abs();
    (mean, if constant { 0.0 } else { 1.0 / variance.sqrt() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::dtw::dtw;

    /// The distances of all stretches.
    fn naive(series: &[f64], query: &[f64], window: usize) -> Vec<Option<f64>> {
        let query = normalised(query);
        let distance =
            |stretch: &[f64]| dtw(&normalised(stretch), &query, window, f64::INFINITY).filter(|d| !d.is_nan());
        series.windows(query.len().max(1)).map(distance).collect()
    }

    /// Rounding may prefer another of stretches that are as near.
    fn check(series: &[f64], query: &[f64], window: usize) {
        let all = naive(series, query, window);
        let expect = all
            .iter()
            .flatten()
            .copied()
            .reduce(f64::min)
            .filter(|_| !query.is_empty());
        let found = Search::new(query, window).best(series);
        assert_eq!(found.is_some(), expect.is_some(), "{found:?}, not {expect:?}");
        if let (Some(found), Some(expect)) = (found, expect) {
            assert_eq!(Some(found.distance), all[found.start]);
            assert!(found.distance <= expect + 1e-7, "{found:?}, not {expect}");
        }
    }

    #[test]
    fn small_cases() {
        let ramp: Vec<f64> = (0..50).map(f64::from).collect();
        check(&[], &[1.0], 1);
        check(&[1.0], &[], 1);
        check(&[1.0, 2.0], &[1.0, 2.0, 3.0], 1);
        check(&ramp, &[7.0], 0);
        check(&ramp, &[7.0, 7.0], 0);
        check(&[5.0; 40], &[1.0, 2.0, 1.0], 9);
        check(&ramp, &ramp[..7], usize::MAX);
        let mut broken = ramp.clone();
        (broken[10], broken[30], broken[31]) = (f64::NAN, f64::INFINITY, 1e308);
        check(&broken, &[1.0, 2.0, 4.0, 2.0], 1);
        check(&broken, &[1.0, f64::NAN], 1);
        check(&[f64::NAN; 9], &[1.0, 2.0], 1);
        check(&[1e308, -1e308, 1e308, 3.0, 1e308], &[1e308, -1e308, 1e308], 1);
    }

    #[test]
    fn it_is_found_in_another_chunk_whatever_its_level() {
        let noise = |at: usize| ((at * 7919) % 1009) as f64 / 1009.0;
        let mut series: Vec<f64> = (0..3 * CHUNK).map(noise).collect();
        let query: Vec<f64> = (0..64).map(|at| (at as f64 / 5.0).sin()).collect();
        for (at, value) in query.iter().enumerate() {
            series[2 * CHUNK + 17 + at] = 1e6 + 3.0 * value;
        }
        let found = Search::new(&query, 3).best(&series).unwrap();
        assert_eq!(found.start, 2 * CHUNK + 17);
        assert!(found.distance < 1e-6);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn it_is_the_naive_one(
            steps in prop::collection::vec((-1.0..1.0f64).prop_map(|x| (x * 4.0).round()), 1..300),
            query in prop::collection::vec(-3.0..3.0f64, 1..60),
            window in 0..20usize,
            noise in 0.0..1.0f64,
        ) {
            let step = |(at, level): &mut (f64, f64), step: &f64| {
                *at += 1.0;
                *level += step;
                Some(*level + noise * (*at * 12.9898).sin())
            };
            let series: Vec<f64> = steps.iter().scan((0.0, 0.0), step).collect();
            check(&series, &query, window);
        }
    }
}
