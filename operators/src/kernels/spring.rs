//! Stretches of an endless series that look like a template, found as samples come: SPRING (Sakurai, Faloutsos & Yamamuro
//! 2007).
//!
//! The distance is that of [`super::dtw`] without a window. Each sample costs as many steps as the template has points, however
//! long the series is, and nothing of the series is kept. Of stretches that overlap, only the nearest is told, as soon as no better one
//! can come.
//!
//! A sample that is NaN is not looked at. One that is infinite, or whose square overflows, ends all stretches before it.

use serde::{Deserialize, Serialize};

use super::dtw::finite;

/// A template and how near to it a stretch must be.
#[derive(Clone, Debug, PartialEq)]
pub struct Spring {
    template: Vec<f64>,
    /// The most summed cost, the square of the most distance.
    limit: f64,
}

/// A stretch that is near enough.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The place of its first sample, as the caller gave it.
    pub start: i64,
    /// And of its last one.
    pub end: i64,
    /// The distance to the template.
    pub distance: f64,
}

/// What is known of one series: for each point of the template the best stretch that ends at it with the newest sample.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    costs: Vec<f64>,
    starts: Vec<i64>,
    /// The nearest stretch that is near enough and not told yet, with its cost.
    best: Option<(f64, i64, i64)>,
}

impl Spring {
    /// `None` where the template is empty or not finite, or `most` is no distance.
    pub fn new(template: &[f64], most: f64) -> Option<Self> {
        let makes_sense = !template.is_empty() && finite(template) && most >= 0.0;
        makes_sense.then(|| Spring {
            template: template.to_vec(),
            limit: most * most,
        })
    }

    /// Takes a sample and tells the stretch that is found thereby, which ended before it. `place` is the sample's number or time; it
    /// never goes down. Progress made with a template of another length is begun anew.
    ///
    /// ```
    /// use taktline_operators::kernels::spring::{Progress, Spring};
    /// let spring = Spring::new(&[1.0, 5.0, 1.0], 0.5).unwrap();
    /// let mut progress = Progress::default();
    /// let found: Vec<_> = [0.0, 1.0, 1.0, 5.0, 5.0, 1.0, 0.0, 0.0]
    ///     .iter()
    ///     .enumerate()
    ///     .filter_map(|(at, value)| spring.push(&mut progress, at as i64, *value))
    ///     .collect();
    /// assert_eq!((found[0].start, found[0].end, found[0].distance), (2, 5, 0.0));
    /// ```
    pub fn push(&self, progress: &mut Progress, place: i64, value: f64) -> Option<Found> {
        let points = self.template.len();
        if progress.costs.len() != points || progress.starts.len() != points {
            *progress = Progress {
                costs: vec![f64::INFINITY; points],
                starts: vec![place; points],
                best: None,
            };
        }
        if value.is_nan() {
            return None;
        }
        progress.step(&self.template, place, value);
        let found = match progress.best {
            Some((cost, _, end)) if !progress.can_become_better(cost, end) => progress.tell(),
            _ => None,
        };
        let cost = progress.costs[points - 1];
        if cost <= self.limit && progress.best.is_none_or(|(best, ..)| cost < best) {
            progress.best = Some((cost, progress.starts[points - 1], place));
        }
        found
    }

    /// The stretch that is still waiting for a better one, where no more samples come.
    pub fn end(&self, progress: &mut Progress) -> Option<Found> {
        progress.tell()
    }
}

impl Progress {
    /// One column of the cost matrix; a stretch may begin at each sample.
    fn step(&mut self, template: &[f64], place: i64, value: f64) {
        // What was in the cell below, before the sample and after it: a stretch that begins here costs nothing yet.
        let (mut before, mut after) = ((0.0, place), (0.0, place));
        for ((cost, start), point) in self.costs.iter_mut().zip(&mut self.starts).zip(template) {
            let old = (*cost, *start);
            let mut best = after;
            if old.0 < best.0 {
                best = old;
            }
            if before.0 < best.0 {
                best = before;
            }
            (*cost, *start) = (best.0 + (value - point) * (value - point), best.1);
            (before, after) = (old, (*cost, *start));
        }
    }

    /// Whether a stretch that overlaps the best one can still cost less.
    fn can_become_better(&self, cost: f64, end: i64) -> bool {
        let mut open = self.costs.iter().zip(&self.starts);
        open.any(|(open, start)| *open < cost && *start <= end)
    }

    /// Tells the best stretch; what overlaps it is forgotten.
    fn tell(&mut self) -> Option<Found> {
        let (cost, start, end) = self.best.take()?;
        for (cost, start) in self.costs.iter_mut().zip(&self.starts) {
            if *start <= end {
                *cost = f64::INFINITY;
            }
        }
        Some(Found {
            start,
            end,
            distance: cost.sqrt(),
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::dtw::dtw;

    fn found(series: &[f64], template: &[f64], most: f64) -> Vec<Found> {
        let spring = Spring::new(template, most).unwrap();
        let mut progress = Progress::default();
        let mut found = Vec::new();
        for (at, value) in series.iter().enumerate() {
            found.extend(spring.push(&mut progress, at as i64, *value));
            // A checkpoint after each sample changes nothing.
            progress = postcard::from_bytes(&postcard::to_allocvec(&progress).unwrap()).unwrap();
        }
        found.extend(spring.end(&mut progress));
        found
    }

    /// The least distance of the stretches that end at each sample.
    fn naive(series: &[f64], template: &[f64]) -> Vec<f64> {
        let of = |start: usize, end: usize| dtw(&series[start..=end], template, usize::MAX, f64::INFINITY).unwrap();
        let ends = 0..series.len();
        ends.map(|end| (0..=end).map(|start| of(start, end)).fold(f64::INFINITY, f64::min))
            .collect()
    }

    fn check(series: &[f64], template: &[f64], most: f64) {
        let (found, nearest) = (found(series, template, most), naive(series, template));
        let told = format!("{found:?} in {series:?} of {template:?}");
        assert_eq!(
            found.is_empty(),
            nearest.iter().all(|distance| *distance > most),
            "{told}"
        );
        if let Some(first) = found.first() {
            assert_eq!(first.distance, nearest[first.end as usize], "{told}");
        }
        let mut after = -1;
        for stretch in found {
            let (start, end) = (stretch.start as usize, stretch.end as usize);
            assert!(after < stretch.start && start <= end, "{told}");
            let exact = dtw(&series[start..=end], template, usize::MAX, f64::INFINITY).unwrap();
            assert!(exact <= stretch.distance && stretch.distance <= most, "{told}");
            after = stretch.end;
        }
    }

    #[test]
    fn the_example_of_the_paper() {
        // Figure 4: of squared differences, with a limit of 15 on their sum.
        let found = found(
            &[5.0, 12.0, 6.0, 10.0, 6.0, 5.0, 13.0],
            &[11.0, 6.0, 9.0, 4.0],
            15f64.sqrt(),
        );
        assert_eq!(
            found,
            [Found {
                start: 1,
                end: 4,
                distance: 6f64.sqrt()
            }]
        );
    }

    #[test]
    fn small_cases() {
        assert_eq!(Spring::new(&[], 1.0), None);
        assert_eq!(Spring::new(&[f64::NAN], 1.0), None);
        assert_eq!(Spring::new(&[1.0], -1.0), None);
        assert_eq!(Spring::new(&[1.0], f64::NAN), None);
        let places = |series: &[f64], template: &[f64], most: f64| -> Vec<(i64, i64)> {
            found(series, template, most)
                .iter()
                .map(|found| (found.start, found.end))
                .collect()
        };
        assert_eq!(places(&[], &[1.0], 1.0), []);
        assert_eq!(places(&[2.0], &[2.0], 0.0), [(0, 0)]);
        assert_eq!(places(&[5.0; 4], &[5.0; 3], 0.0), [(0, 0), (1, 1), (2, 2), (3, 3)]);
        assert_eq!(places(&[0.0, 1.0, f64::NAN, 2.0, 0.0], &[1.0, 2.0], 0.1), [(1, 3)]);
        assert_eq!(places(&[0.0, 1.0, f64::INFINITY, 2.0, 0.0], &[1.0, 2.0], 0.1), []);
        assert_eq!(places(&[1e308, -1e308, 1.0, 2.0], &[1.0, 2.0], 0.1), [(2, 3)]);
        // Progress of another template is of no use.
        let mut progress = Progress::default();
        Spring::new(&[1.0, 2.0], 0.1).unwrap().push(&mut progress, 0, 1.0);
        let other = Spring::new(&[1.0, 2.0, 3.0], 0.1).unwrap();
        assert_eq!(other.push(&mut progress, 1, 2.0), None);
        assert_eq!(progress.costs.len(), 3);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(500))]

        #[test]
        fn it_tells_what_the_naive_one_finds(
            series in prop::collection::vec((-4i32..5).prop_map(f64::from), 0..40),
            template in prop::collection::vec((-4i32..5).prop_map(f64::from), 1..8),
            most in 0.0..4.0f64,
        ) {
            check(&series, &template, most);
        }
    }
}
