//! Distance and norm of points in order, without overflow where the result itself is finite.

/// The Euclidean distance of two series of the same length; NaN when lengths differ or a value is NaN.
///
/// ```
/// use taktline_operators::kernels::euclidean::euclidean;
/// assert_eq!(euclidean(&[0.0, 0.0], &[3.0, 4.0]), 5.0);
/// ```
pub fn euclidean(a: &[f64], b: &[f64]) -> f64 {
    if a.len() != b.len() {
        return f64::NAN;
    }
    let sum: f64 = a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum();
    if sum.is_infinite() {
        scaled(a.iter().zip(b).map(|(a, b)| a - b))
    } else {
        sum.sqrt()
    }
}

/// The Euclidean norm; 0 for no values, NaN where one is NaN.
pub fn norm(values: &[f64]) -> f64 {
    let sum: f64 = values.iter().map(|v| v * v).sum();
    if sum.is_infinite() {
        scaled(values.iter().copied())
    } else {
        sum.sqrt()
    }
}

/// Root of the sum of squares, taken of shares of the largest value.
fn scaled(values: impl Iterator<Item = f64> + Clone) -> f64 {
    let largest = values.clone().fold(0.0f64, |largest, v| largest.max(v.abs()));
    if largest.is_infinite() {
        return f64::INFINITY;
    }
    largest * values.map(|v| (v / largest) * (v / largest)).sum::<f64>().sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let check = |a: &[f64], b: &[f64], expect: f64| {
            let found = euclidean(a, b);
            assert!(
                (found - expect).abs() <= 1e-15 * expect || found == expect || (found.is_nan() && expect.is_nan()),
                "{found}"
            );
        };
        check(&[], &[], 0.0);
        check(&[1.0], &[1.0, 2.0], f64::NAN);
        check(&[f64::NAN], &[1.0], f64::NAN);
        check(&[1e200, 0.0], &[0.0, 0.0], 1e200);
        check(&[1e308], &[-1e308], f64::INFINITY);
        check(&[1e-200, 0.0], &[0.0, 0.0], 0.0);
    }

    #[test]
    fn norms() {
        assert_eq!(norm(&[]), 0.0);
        assert_eq!(norm(&[3.0, -4.0]), 5.0);
        assert!((norm(&[3e200, -4e200]) - 5e200).abs() < 1e186);
        assert!(norm(&[f64::NAN, 1.0]).is_nan());
    }
}
