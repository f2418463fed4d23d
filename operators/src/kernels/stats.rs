//! Order statistics of a few numbers: median, quantiles, and a spread that outliers don't move.

/// The factor that makes the median absolute deviation of a normal distribution its standard deviation.
pub const MAD_TO_STD: f64 = 1.4826;

/// The `share` quantile (0..=1) of values, interpolated linearly between the two nearest (NumPy's default, type 7 of
/// Hyndman & Fan 1996). NaN for no values or where one is NaN.
///
/// ```
/// use taktline_operators::kernels::stats::quantile;
/// assert_eq!(quantile(&[4.0, 1.0, 2.0, 3.0], 0.25), 1.75);
/// ```
pub fn quantile(values: &[f64], share: f64) -> f64 {
    if values.is_empty() || values.iter().any(|v| v.is_nan()) {
        return f64::NAN;
    }
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = share.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    let part = place - place.floor();
    if low == high {
        low
    } else {
        low * (1.0 - part) + high * part
    }
}

/// The median; NaN for no values or where one is NaN.
pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The median distance to `center`, usually the median; not scaled.
pub fn mad(values: &[f64], center: f64) -> f64 {
    let distances: Vec<f64> = values
        .iter()
        .map(|v| if *v == center { 0.0 } else { (v - center).abs() })
        .collect();
    median(&distances)
}

/// Arithmetic mean; NaN for no values.
pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_cases() {
        assert!(
            median(&[]).is_nan() && median(&[1.0, f64::NAN]).is_nan() && mean(&[]).is_nan() && mad(&[], 0.0).is_nan()
        );
        assert_eq!(median(&[3.0]), 3.0);
        assert_eq!(median(&[3.0, 1.0]), 2.0);
        assert_eq!(median(&[f64::INFINITY, f64::INFINITY, 1.0]), f64::INFINITY);
        assert_eq!(quantile(&[1.0, 2.0, 3.0], 7.0), 3.0);
        assert_eq!(mad(&[1.0, 2.0, 10.0], 2.0), 1.0);
        assert_eq!(mad(&[f64::INFINITY; 3], f64::INFINITY), 0.0);
        assert_eq!(mean(&[1.0, 2.0, 6.0]), 3.0);
    }

    proptest! {
        #[test]
        fn half_lie_on_each_side(values in prop::collection::vec(-10.0..10.0f64, 1..40)) {
            let middle = median(&values);
            prop_assert!(values.iter().filter(|v| **v < middle).count() * 2 <= values.len());
            prop_assert!(values.iter().filter(|v| **v > middle).count() * 2 <= values.len());
        }
    }
}
