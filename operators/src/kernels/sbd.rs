//! Shape-based distance: how well two series agree when one is shifted as a whole (Paparrizos & Gravano 2015, k-Shape).

use super::dtw::finite;

/// The shift at which two series agree best.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shape {
    /// 1 less the normalised cross-correlation: 0 for the same shape, 2 for the opposite one.
    pub distance: f64,
    /// By how many samples `b` must be delayed to lie on `a`; of equals the least shift.
    pub shift: isize,
}

/// The shape-based distance of two series, which should have mean 0 (the paper also makes their deviation 1, which changes nothing
/// here). Takes as many steps as the product of the lengths.
///
/// Two series of zeros, or without values, are 0 apart; one of them and another series 1. NaN where a value is not finite.
///
/// ```
/// use taktline_operators::kernels::sbd::{Shape, sbd};
/// let found = sbd(&[0.0, 0.0, 1.0, -1.0], &[1.0, -1.0, 0.0, 0.0]);
/// assert!(found.distance.abs() < 1e-15);
/// assert_eq!(found.shift, 2);
/// ```
pub fn sbd(a: &[f64], b: &[f64]) -> Shape {
    if !(finite(a) && finite(b)) {
        return Shape {
            distance: f64::NAN,
            shift: 0,
        };
    }
    let (a, b) = (unit(a), unit(b));
    let (n, m) = (a.len() as isize, b.len() as isize);
    if a.is_empty() || b.is_empty() {
        let distance = if a.is_empty() && b.is_empty() { 0.0 } else { 1.0 };
        return Shape { distance, shift: 0 };
    }
    let correlation = |shift: isize| -> f64 {
        let (from_a, from_b) = (shift.max(0) as usize, (-shift).max(0) as usize);
        a[from_a..].iter().zip(&b[from_b..]).map(|(a, b)| a * b).sum()
    };
    let mut best = (correlation(0), 0);
    for far in 1..n.max(m) {
        for shift in [far, -far] {
            let possible = shift < n && -shift < m;
            let found = if possible {
                correlation(shift)
            } else {
                f64::NEG_INFINITY
            };
            if found > best.0 {
                best = (found, shift);
            }
        }
    }
    Shape {
        distance: (1.0 - best.0).max(0.0),
        shift: best.1,
    }
}

/// The series with a norm of 1; no values where all are 0.
fn unit(series: &[f64]) -> Vec<f64> {
    let largest = series.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    if largest == 0.0 {
        return Vec::new();
    }
    // Shares of the largest, so that no square overflows or vanishes.
    let norm = series
        .iter()
        .map(|value| (value / largest) * (value / largest))
        .sum::<f64>()
        .sqrt();
    series.iter().map(|value| value / largest / norm).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By the definition, over all shifts.
    fn naive(a: &[f64], b: &[f64]) -> f64 {
        let norm = |series: &[f64]| series.iter().map(|x| x * x).sum::<f64>().sqrt();
        let (n, m) = (a.len() as i64, b.len() as i64);
        let at = |shift: i64| -> f64 {
            (0..n)
                .filter(|i| (0..m).contains(&(i - shift)))
                .map(|i| a[i as usize] * b[(i - shift) as usize])
                .sum()
        };
        1.0 - (1 - m..n).map(at).fold(f64::NEG_INFINITY, f64::max) / (norm(a) * norm(b))
    }

    #[test]
    fn small_cases() {
        let check = |a: &[f64], b: &[f64], distance: f64, shift: isize| {
            let found = sbd(a, b);
            let near = (found.distance - distance).abs() < 1e-12 || found.distance.is_nan() && distance.is_nan();
            assert!(near && found.shift == shift, "{a:?} {b:?}: {found:?}");
        };
        check(&[], &[], 0.0, 0);
        check(&[0.0, 0.0], &[], 0.0, 0);
        check(&[0.0, 0.0], &[1.0], 1.0, 0);
        check(&[2.0], &[3.0], 0.0, 0);
        check(&[2.0], &[-3.0], 2.0, 0);
        check(&[0.0, 0.0, 1.0], &[5.0], 0.0, 2);
        check(&[5.0], &[0.0, 0.0, 1.0], 0.0, -2);
        check(&[1.0, f64::NAN], &[1.0], f64::NAN, 0);
        check(&[1.0, f64::INFINITY], &[1.0], f64::NAN, 0);
        check(&[1e308, -1e308], &[1e-308, -1e-308], 0.0, 0);
    }

    proptest! {
        #[test]
        fn it_is_the_naive_one(
            a in prop::collection::vec(0.1..5.0f64, 1..40),
            b in prop::collection::vec(-5.0..5.0f64, 1..40),
        ) {
            let expect = naive(&a, &b);
            prop_assert!(expect.is_nan() || (sbd(&a, &b).distance - expect).abs() < 1e-12);
            prop_assert!(expect.is_nan() || (sbd(&b, &a).distance - expect).abs() < 1e-12);
        }
    }
}
