//! Dynamic time warping: the least cost of aligning two series, each point with one or more points of the other.
//!
//! Point cost is the squared difference; the distance is the root of the summed cost (Sakoe & Chiba 1978). The window
//! is counted in samples as `dtaidistance` and the UCR archive do: row `i` of `n` may be aligned with columns
//! `i - max(0, n - m) - w` to `i + max(0, m - n) + w` of `m`, so that `w = 0` on equal lengths is the Euclidean
//! distance and unequal lengths always have an alignment.
//!
//! Defined for all input: two empty series are 0 apart, an empty and another one are infinitely far apart, a value that
//! is NaN or infinite makes the distance NaN. Squares beyond 1.8e308 make it infinite.

mod diagonal;
mod itakura;
mod path;
mod points;

use diagonal::Diagonals;
pub use itakura::dtw_itakura;
pub use path::{channel_costs, dtw_path, dtw_path_dependent};

/// The window in samples for `percent` of the longer of two lengths, rounded up (as in the UCR archive).
///
/// ```
/// use taktline_operators::kernels::dtw::window;
/// assert_eq!(window(10.0, 95, 100), 10);
/// assert_eq!(window(5.0, 144, 144), 8);
/// ```
pub fn window(percent: f64, n: usize, m: usize) -> usize {
    // Multiplied first: 10 % of 30 is 3, while 0.1 × 30 may come out above 3 and round up to 4.
    (percent * n.max(m) as f64 / 100.0).ceil() as usize
}

/// The distance of `a` and `b`; `None` when it is greater than `bound` (give infinity for no bound).
///
/// ```
/// use taktline_operators::kernels::dtw::dtw;
/// assert_eq!(dtw(&[0.0, 1.0, 2.0], &[0.0, 1.0, 1.0, 2.0], 1, f64::INFINITY), Some(0.0));
/// assert_eq!(dtw(&[0.0, 0.0], &[3.0, 4.0], 0, 4.9), None);
/// ```
pub fn dtw(a: &[f64], b: &[f64], window: usize, bound: f64) -> Option<f64> {
    Scratch::default().dtw(a, b, window, bound)
}

/// What a distance needs beside its series, kept between calls so that a hot loop doesn't allocate.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    diagonals: Diagonals,
}

impl Scratch {
    /// As [`dtw`].
    pub fn dtw(&mut self, a: &[f64], b: &[f64], window: usize, bound: f64) -> Option<f64> {
        self.dtw_dependent(&[a], &[b], window, bound)
    }

    /// As [`dtw`], of finite series that are not empty. `rest` holds what the points of `a` from each on add to the cost at least,
    /// so that more can be left out.
    pub(super) fn dtw_knowing(&mut self, a: &[f64], b: &[f64], window: usize, bound: f64, rest: &[f64]) -> Option<f64> {
        let band = Band::new(a.len(), b.len(), window);
        let cost = self.diagonals.cost(&[a], &[b], band, limit(bound), rest)?;
        within(cost, bound)
    }

    /// Dependent DTW of series with several channels: one alignment for all channels, point cost summed over them
    /// (`DTW_D` of Shokoohi-Yekta et al. 2017). `a` and `b` have the same channels; a series is as long as its shortest
    /// channel.
    pub fn dtw_dependent(&mut self, a: &[&[f64]], b: &[&[f64]], window: usize, bound: f64) -> Option<f64> {
        if !a.iter().chain(b).all(|channel| finite(channel)) {
            return Some(f64::NAN);
        }
        let length = |channels: &[&[f64]]| channels.iter().map(|c| c.len()).min().unwrap_or(0);
        let (n, m) = (length(a), length(b));
        if n == 0 || m == 0 {
            return within(if n == m { 0.0 } else { f64::INFINITY }, bound);
        }
        let cost = self.diagonals.cost(a, b, Band::new(n, m, window), limit(bound), &[])?;
        within(cost, bound)
    }

    /// Independent DTW of series with several channels: each channel is aligned on its own and the squared distances
    /// add up (`DTW_I` of Shokoohi-Yekta et al. 2017).
    pub fn dtw_independent(&mut self, a: &[&[f64]], b: &[&[f64]], window: usize, bound: f64) -> Option<f64> {
        let mut sum = 0.0;
        for (a, b) in a.iter().zip(b) {
            // The slack keeps rounding from abandoning what is just within the bound; the last line decides.
            let rest = (limit(bound) - sum).max(0.0).sqrt();
            sum += square(self.dtw(a, b, window, rest)?);
        }
        within(sum, bound)
    }
}

/// Looks at all values, which is quicker than stopping at the first that is not.
pub(super) fn finite(series: &[f64]) -> bool {
    series.iter().fold(true, |all, value| all & value.is_finite())
}

/// The cells that paths may use: which columns each row.
#[derive(Clone, Copy)]
pub(super) struct Band {
    rows: usize,
    columns: usize,
    /// How far `column - row` may go below 0.
    pub before: usize,
    /// And above.
    pub after: usize,
}

impl Band {
    pub fn new(rows: usize, columns: usize, window: usize) -> Self {
        Band {
            rows,
            columns,
            before: rows.saturating_sub(columns).saturating_add(window),
            after: columns.saturating_sub(rows).saturating_add(window),
        }
    }

    /// Both ends included.
    pub fn columns(self, row: usize) -> (usize, usize) {
        (
            row.saturating_sub(self.before),
            row.saturating_add(self.after).min(self.columns - 1),
        )
    }
}

/// The most summed cost that can be within a bound; with room for rounding.
pub(super) fn limit(bound: f64) -> f64 {
    square(bound) * (1.0 + 1e-9)
}

fn within(cost: f64, bound: f64) -> Option<f64> {
    let distance = cost.sqrt();
    if distance > bound { None } else { Some(distance) }
}

fn square(x: f64) -> f64 {
    x * x
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NONE: f64 = f64::INFINITY;

    /// The whole matrix by the definition; the oracle.
    fn naive(a: &[f64], b: &[f64], w: usize) -> f64 {
        let (n, m, w) = (a.len() as i64, b.len() as i64, w as i64);
        if n == 0 && m == 0 {
            return 0.0;
        }
        let mut cost = vec![vec![f64::INFINITY; b.len() + 1]; a.len() + 1];
        cost[0][0] = 0.0;
        for i in 0..n {
            for j in 0..m {
                if i - 0.max(n - m) - w <= j && j <= i + 0.max(m - n) + w {
                    let (r, c) = (i as usize, j as usize);
                    let best = cost[r][c].min(cost[r][c + 1]).min(cost[r + 1][c]);
                    cost[r + 1][c + 1] = best + (a[r] - b[c]).powi(2);
                }
            }
        }
        cost[a.len()][b.len()].sqrt()
    }

    #[test]
    fn small_cases() {
        let check = |a: &[f64], b: &[f64], w: usize, expect: f64| {
            let found = dtw(a, b, w, NONE).unwrap();
            assert!(
                found == expect || (found.is_nan() && expect.is_nan()),
                "{a:?} {b:?} {w}: {found}, not {expect}"
            );
        };
        check(&[], &[], 0, 0.0);
        check(&[], &[1.0], 3, NONE);
        check(&[1.0], &[], 3, NONE);
        check(&[1.0], &[4.0], 0, 3.0);
        check(&[0.0, 0.0], &[3.0, 4.0], 0, 5.0);
        check(&[5.0], &[5.0; 100], 0, 0.0);
        check(&[0.0, 1.0, 0.0], &[0.0, 0.0, 1.0], 0, 2f64.sqrt());
        check(&[0.0, 1.0, 0.0], &[0.0, 0.0, 1.0], 1, 1.0);
        check(&[1.0, f64::NAN], &[1.0, 2.0], 1, f64::NAN);
        check(&[1.0, 2.0], &[1.0, NONE], 1, f64::NAN);
        check(&[1e308, 1e308], &[-1e308, 0.0], 1, NONE);
        check(&[1.0, 2.0], &[1.0, 2.0], usize::MAX, 0.0);
    }

    #[test]
    fn bounds() {
        assert_eq!(dtw(&[0.0, 0.0], &[3.0, 4.0], 0, 5.0), Some(5.0));
        assert_eq!(dtw(&[0.0, 0.0], &[3.0, 4.0], 0, 4.999), None);
        assert_eq!(dtw(&[], &[1.0], 0, 1.0), None);
        assert_eq!(dtw(&[1.0], &[1.0], 0, 0.0), Some(0.0));
        assert!(dtw(&[f64::NAN], &[1.0], 0, 1.0).unwrap().is_nan());
    }

    #[test]
    fn windows() {
        for (percent, n, m, expect) in [
            (0.0, 50, 50, 0),
            (10.0, 30, 10, 3),
            (10.0, 31, 10, 4),
            (100.0, 7, 7, 7),
            (10.0, 0, 0, 0),
        ] {
            assert_eq!(window(percent, n, m), expect, "{percent} % of {n}, {m}");
        }
    }

    #[test]
    fn several_channels() {
        let (a, b) = ([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]);
        let channels = |x: &'static [[f64; 3]; 2]| [&x[0][..], &x[1][..]];
        let (a, b) = (Box::leak(Box::new(a)), Box::leak(Box::new(b)));
        let mut scratch = Scratch::default();
        assert_eq!(
            scratch.dtw_independent(&channels(a), &channels(b), 1, NONE),
            Some(2f64.sqrt())
        );
        assert_eq!(scratch.dtw_dependent(&channels(a), &channels(b), 0, NONE), Some(2.0));
        assert_eq!(scratch.dtw_independent(&channels(a), &channels(b), 1, 1.4), None);
        assert_eq!(scratch.dtw_dependent(&channels(a), &channels(a), 3, 0.0), Some(0.0));
    }

    fn series() -> impl Strategy<Value = Vec<f64>> {
        prop_oneof![
            prop::collection::vec(-10.0..10.0f64, 0..30),
            prop::collection::vec((-2i32..3).prop_map(f64::from), 0..30),
            prop::collection::vec(-10.0..10.0f64, 0..160),
        ]
    }

    /// Narrow ones, and such that the band leaves the registers.
    fn window_of() -> impl Strategy<Value = usize> {
        prop_oneof![0usize..12, 0usize..160]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn equals_naive(a in series(), b in series(), w in window_of()) {
            let expect = naive(&a, &b, w);
            prop_assert_eq!(dtw(&a, &b, w, NONE), Some(expect));
            prop_assert_eq!(dtw(&b, &a, w, NONE).map(|d| (d - expect).abs() < 1e-9 || d == expect), Some(true));
        }

        #[test]
        fn abandons_only_beyond_the_bound(a in series(), b in series(), w in window_of(), share in 0.0..2.0f64) {
            let exact = naive(&a, &b, w);
            let mut scratch = Scratch::default();
            for bound in [exact, exact * share, 0.0, 5.0] {
                if !bound.is_nan() {
                    prop_assert_eq!(scratch.dtw(&a, &b, w, bound), (exact <= bound).then_some(exact));
                }
            }
        }
    }
}
