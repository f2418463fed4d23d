//! A series onto evenly spaced points, so that series of different lengths can be compared point by point.

/// Values at `n` evenly spaced points between the first and the last time, by linear interpolation; in NumPy's words
/// `interp(linspace(0, 1, n), (t - t[0]) / (t[-1] - t[0]), v)`.
///
/// `times` ascend and are as many as `values`. A single sample, or samples that all have the same time, give `n` times
/// the first value; no samples give NaN. Where a time occurs more than once, the last of its values counts from there.
///
/// ```
/// use taktline_operators::kernels::resample::resample;
/// assert_eq!(resample(&[0, 10, 40], &[0.0, 1.0, 4.0], 5), [0.0, 1.0, 2.0, 3.0, 4.0]);
/// ```
pub fn resample(times: &[i64], values: &[f64], n: usize) -> Vec<f64> {
    let (Some(&t0), Some(&t1), Some(&first)) = (times.first(), times.last(), values.first()) else {
        return vec![f64::NAN; n];
    };
    let span = t1.saturating_sub(t0) as f64;
    if values.len() == 1 || span <= 0.0 {
        return vec![first; n];
    }
    let mut out = Vec::with_capacity(n);
    let relative = |index: usize| times[index].saturating_sub(t0) as f64 / span;
    let last = values.len() - 1;
    // The last sample at or before the point.
    let mut left = 0;
    for k in 0..n {
        let x = if n == 1 { 0.0 } else { k as f64 / (n - 1) as f64 };
        while left < last && relative(left + 1) <= x {
            left += 1;
        }
        if left == last {
            out.push(values[last]);
            continue;
        }
        let (x0, x1) = (relative(left), relative(left + 1));
        let share = (x - x0) / (x1 - x0);
        // A weighted mean, not a slope: a step from -1e308 to 1e308 stays finite.
        out.push(values[left] * (1.0 - share) + values[left + 1] * share);
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Each point by a search from the start; the oracle.
    fn naive(times: &[i64], values: &[f64], n: usize) -> Vec<f64> {
        let (t0, t1) = (times[0] as f64, times[times.len() - 1] as f64);
        let at = |k: usize| {
            let t = t0 + (t1 - t0) * k as f64 / (n.max(2) - 1) as f64;
            let right = times
                .iter()
                .position(|time| *time as f64 > t)
                .unwrap_or(times.len() - 1)
                .max(1);
            let (x0, x1) = (times[right - 1] as f64, times[right] as f64);
            values[right - 1] + (values[right] - values[right - 1]) * (t - x0) / (x1 - x0)
        };
        (0..n).map(at).collect()
    }

    #[test]
    fn small_cases() {
        let check = |times: &[i64], values: &[f64], n, expect: &[f64]| assert_eq!(resample(times, values, n), expect);
        check(&[7], &[3.0], 3, &[3.0, 3.0, 3.0]);
        check(&[7, 7], &[3.0, 4.0], 2, &[3.0, 3.0]);
        check(&[0, 1], &[3.0, 4.0], 0, &[]);
        check(&[0, 1], &[3.0, 4.0], 1, &[3.0]);
        check(&[0, 1, 2], &[1.0, 2.0, 3.0], 3, &[1.0, 2.0, 3.0]);
        check(&[0, 5, 5, 10], &[0.0, 1.0, 9.0, 9.0], 3, &[0.0, 9.0, 9.0]);
        check(&[0, 10], &[-1e308, 1e308], 3, &[-1e308, 0.0, 1e308]);
        check(&[i64::MIN, i64::MAX], &[1.0, 2.0], 2, &[1.0, 2.0]);
        assert!(resample(&[], &[], 2).iter().all(|v| v.is_nan()));
    }

    proptest! {
        #[test]
        fn equals_naive(steps in prop::collection::vec((1i64..50, -10.0..10.0f64), 2..40), n in 2usize..60) {
            let mut time = 0;
            let times: Vec<i64> = steps.iter().map(|(step, _)| { time += step; time }).collect();
            let values: Vec<f64> = steps.iter().map(|(_, value)| *value).collect();
            let (found, expect) = (resample(&times, &values, n), naive(&times, &values, n));
            prop_assert!(found.iter().zip(&expect).all(|(a, b)| (a - b).abs() < 1e-9), "{:?} {:?}", found, expect);
        }
    }
}
