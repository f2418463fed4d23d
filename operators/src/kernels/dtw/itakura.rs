//! DTW in Itakura's parallelogram: tight at both ends, wide in the middle.

use super::{finite, square};

/// The distance of `a` and `b` where no part runs more than `slope` times as fast as the whole, or slower than that (Itakura
/// 1975, scaled to the two lengths). A slope of 1 leaves the diagonal only. Where series are so short that the
/// parallelogram has a gap, a row begins beside the end of the one before it, so there is always a path.
///
/// Two empty series are 0 apart, an empty and another one infinitely far. A value that is not finite, or a slope that is not
/// at least 1, makes the distance NaN.
///
/// ```
/// use taktline_operators::kernels::dtw::dtw_itakura;
/// assert_eq!(dtw_itakura(&[0.0, 1.0, 2.0, 2.0, 3.0], &[0.0, 1.0, 1.0, 2.0, 3.0], 2.0), 0.0);
/// assert_eq!(dtw_itakura(&[0.0, 1.0, 2.0, 2.0, 3.0], &[0.0, 1.0, 1.0, 2.0, 3.0], 1.0), 1.0);
/// ```
pub fn dtw_itakura(a: &[f64], b: &[f64], slope: f64) -> f64 {
    let (n, m) = (a.len(), b.len());
    if !(finite(a) && finite(b) && slope >= 1.0) {
        return f64::NAN;
    }
    if n == 0 || m == 0 {
        return if n == m { 0.0 } else { f64::INFINITY };
    }
    let mut above = vec![f64::INFINITY; m + 1];
    let mut row = above.clone();
    above[0] = 0.0;
    for (value, (low, high)) in a.iter().zip(ranges(n, m, slope)) {
        row.fill(f64::INFINITY);
        for j in low..=high {
            row[j + 1] = above[j].min(above[j + 1]).min(row[j]) + square(value - b[j]);
        }
        std::mem::swap(&mut above, &mut row);
    }
    above[m].sqrt()
}

/// The columns of each row, both ends included.
fn ranges(n: usize, m: usize, slope: f64) -> Vec<(usize, usize)> {
    let last = (m - 1) as f64;
    // Room for rounding: a cell on the border belongs to it.
    const ROOM: f64 = 1e-9;
    let mut ranges: Vec<(usize, usize)> = Vec::with_capacity(n);
    for i in 0..n {
        let gone = if n == 1 { 1.0 } else { i as f64 / (n - 1) as f64 };
        let left = 1.0 - gone;
        let low = (gone / slope).max(1.0 - left * slope) * last - ROOM;
        let high = (gone * slope).min(1.0 - left / slope) * last + ROOM;
        let (low, high) = (low.max(0.0).ceil() as usize, high.min(last).floor() as usize);
        let reached = ranges.last().map_or(0, |(_, high)| high + 1).min(m - 1);
        // Never back: where lengths differ much, a row may have no column of its own.
        ranges.push((low.min(reached), high.max(low.min(reached))));
    }
    ranges
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::dtw::dtw;

    /// All cells, each with the definition.
    fn naive(a: &[f64], b: &[f64], slope: f64) -> f64 {
        let (n, m) = (a.len(), b.len());
        let share = |at: usize, of: usize| if of == 1 { 1.0 } else { at as f64 / (of - 1) as f64 };
        let inside = |i: usize, j: usize| {
            let (x, y) = (share(i, n), share(j, m));
            let within = |x: f64, y: f64| x / slope <= y + 1e-9 && y <= x * slope + 1e-9;
            within(x, y) && within(1.0 - x, 1.0 - y)
        };
        let mut cost = vec![vec![f64::INFINITY; m + 1]; n + 1];
        cost[0][0] = 0.0;
        for i in 0..n {
            for j in 0..m {
                if inside(i, j) {
                    cost[i + 1][j + 1] = cost[i][j].min(cost[i][j + 1]).min(cost[i + 1][j]) + square(a[i] - b[j]);
                }
            }
        }
        cost[n][m].sqrt()
    }

    #[test]
    fn small_cases() {
        let check = |a: &[f64], b: &[f64], slope: f64, expect: f64| {
            let found = dtw_itakura(a, b, slope);
            assert!(
                found == expect || found.is_nan() && expect.is_nan(),
                "{a:?} {b:?} {slope}: {found}, not {expect}"
            );
        };
        check(&[], &[], 2.0, 0.0);
        check(&[], &[1.0], 2.0, f64::INFINITY);
        check(&[1.0], &[4.0], 2.0, 3.0);
        check(&[1.0], &[1.0; 9], 2.0, 0.0);
        check(&[1.0; 9], &[1.0], 2.0, 0.0);
        check(&[1.0, f64::NAN], &[1.0], 2.0, f64::NAN);
        check(&[1.0], &[1.0], 0.9, f64::NAN);
        check(&[1.0], &[1.0], f64::NAN, f64::NAN);
        check(&[1.0, 2.0, 5.0], &[1.0, 2.0, 5.0], f64::INFINITY, 0.0);
        check(&[1e308, 0.0], &[-1e308, 0.0], 2.0, f64::INFINITY);
    }

    proptest! {
        #[test]
        fn it_is_the_naive_one(
            a in prop::collection::vec(-5.0..5.0f64, 2..40),
            b in prop::collection::vec(-5.0..5.0f64, 40),
            slope in 1.0..4.0f64,
        ) {
            prop_assert_eq!(dtw_itakura(&a, &b[..a.len()], slope), naive(&a, &b[..a.len()], slope));
            // It always has a path, and none that DTW doesn't have.
            let found = dtw_itakura(&a, &b, slope);
            prop_assert!(found < f64::INFINITY);
            prop_assert!(dtw(&a, &b, usize::MAX, f64::INFINITY).is_some_and(|free| free <= found));
        }
    }
}
