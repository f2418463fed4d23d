//! How long a cycle lasts, of a machine without a signal that says so: the period of its samples by autocorrelation.
//!
//! A straight line is taken away first. A lag counts where the correlation of the series with itself has a peak, after it
//! has gone below zero; of peaks nearly as high as the highest, the shortest lag is the period, and not a multiple of it.

use super::dtw::finite;

/// Fewer cycles than these show no period.
const FEWEST_CYCLES: usize = 3;
/// A lower correlation is no period.
const LEAST_STRENGTH: f64 = 0.3;
/// A peak at a multiple may be higher by chance; one of this share of the highest is as good.
const AS_GOOD: f64 = 0.85;
/// Of a series without a period, one correlation in 10,000 lies beyond so many standard errors.
const STANDARD_ERRORS: f64 = 3.9;

/// How a series repeats itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Period {
    /// The length of a cycle in samples, with a fraction.
    pub samples: f64,
    /// The correlation of neighbouring cycles, up to 1.
    pub strength: f64,
}

/// The period of evenly spaced values, of at most `most` samples and a third of the series. `None` where there is none to be
/// seen, or a value is not finite. Takes values × lags steps.
///
/// ```
/// use taktline_operators::kernels::period::period;
/// let values: Vec<f64> = (0..200).map(|at| if at % 25 < 10 { 1.0 } else { 0.0 }).collect();
/// assert_eq!(period(&values, 100).map(|period| period.samples.round()), Some(25.0));
/// ```
pub fn period(values: &[f64], most: usize) -> Option<Period> {
    let most = most.min(values.len() / FEWEST_CYCLES);
    if most < 2 || !finite(values) {
        return None;
    }
    let correlations = autocorrelation(&without_line(values), most + 1);
    let below = correlations.iter().position(|correlation| *correlation < 0.0)?;
    let least = LEAST_STRENGTH.max(STANDARD_ERRORS / (values.len() as f64).sqrt());
    let is_peak = |lag: &usize| {
        let [before, here, after] = [lag - 1, *lag, lag + 1].map(|lag| correlations[lag]);
        before < here && here >= after && here >= least
    };
    let peaks: Vec<usize> = (below.max(1)..=most).filter(is_peak).collect();
    let highest = peaks.iter().map(|lag| correlations[*lag]).reduce(f64::max)?;
    let lag = peaks.into_iter().find(|lag| correlations[*lag] >= AS_GOOD * highest)?;
    let mut samples = top(&correlations, lag);
    // Peaks after more cycles are as exact, so what they say of one cycle is more so.
    for cycles in 2.. {
        let (near, reach) = (samples * f64::from(cycles), samples / 4.0);
        let range = (near - reach).ceil() as usize..(near + reach) as usize + 1;
        let highest = range.clone().max_by(|a, b| {
            let at = |lag: &usize| correlations.get(*lag).copied().unwrap_or(f64::NEG_INFINITY);
            at(a).total_cmp(&at(b))
        });
        match highest.filter(|lag| range.end <= most && is_peak(lag)) {
            Some(lag) => samples = top(&correlations, lag) / f64::from(cycles),
            None => break,
        }
    }
    Some(Period {
        samples,
        strength: correlations[lag],
    })
}

/// The top of the parabola through a peak and its neighbours.
fn top(correlations: &[f64], lag: usize) -> f64 {
    let [before, here, after] = [lag - 1, lag, lag + 1].map(|lag| correlations[lag]);
    let curve = before - 2.0 * here + after;
    lag as f64
        + if curve < 0.0 {
            0.5 * (before - after) / curve
        } else {
            0.0
        }
}

/// The values without their regression line, of a size that squares well.
fn without_line(values: &[f64]) -> Vec<f64> {
    let largest = values.iter().fold(0.0f64, |largest, value| largest.max(value.abs()));
    let size = if largest > 0.0 { largest } else { 1.0 };
    let n = values.len() as f64;
    let middle = (n - 1.0) / 2.0;
    let mean = values.iter().map(|value| value / size).sum::<f64>() / n;
    let (mut up, mut across) = (0.0, 0.0);
    for (at, value) in values.iter().enumerate() {
        let x = at as f64 - middle;
        up += x * (value / size - mean);
        across += x * x;
    }
    let slope = if across > 0.0 { up / across } else { 0.0 };
    let line = |at: usize| mean + slope * (at as f64 - middle);
    let rest: Vec<f64> = values
        .iter()
        .enumerate()
        .map(|(at, value)| value / size - line(at))
        .collect();
    // What rounding leaves of a straight line has no period.
    let tiny = |rest: &f64| rest.abs() <= 1e-12;
    if rest.iter().all(tiny) {
        vec![0.0; rest.len()]
    } else {
        rest
    }
}

/// The correlation of the series with itself at lags of 0 to `most`; 0 where one of both parts is 0 throughout.
fn autocorrelation(values: &[f64], most: usize) -> Vec<f64> {
    // Sums of squares of the first values, for the norms of both parts.
    let mut squares = vec![0.0];
    let mut sum = 0.0;
    for value in values {
        sum += value * value;
        squares.push(sum);
    }
    let n = values.len();
    let at = |lag: usize| {
        let product: f64 = values.iter().zip(&values[lag..]).map(|(a, b)| a * b).sum();
        let norms = squares[n - lag] * (squares[n] - squares[lag]);
        if norms > 0.0 { product / norms.sqrt() } else { 0.0 }
    };
    (0..=most.min(n - 1)).map(at).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The period of a function of the sample's number, to a tenth of a sample.
    fn check(count: usize, value: impl Fn(f64) -> f64, expect: Option<f64>) {
        let values: Vec<f64> = (0..count).map(|at| value(at as f64)).collect();
        let found = period(&values, count);
        let near = |found: f64| expect.is_some_and(|expect| (found - expect).abs() <= 0.1);
        let right = found.map_or(expect.is_none(), |found| near(found.samples));
        assert!(right, "{found:?}, not {expect:?}");
    }

    fn noise(at: f64) -> f64 {
        let random = (at * 12.9898).sin() * 43758.5453;
        random - random.floor() - 0.5
    }

    const TURN: f64 = std::f64::consts::TAU;

    #[test]
    fn series_with_a_period() {
        check(400, |at| (at * TURN / 40.0).sin(), Some(40.0));
        check(400, |at| (at * TURN / 37.5).sin(), Some(37.5));
        check(400, |at| at % 20.0, Some(20.0));
        check(300, |at| if at % 60.0 < 5.0 { 1.0 } else { 0.0 }, Some(60.0));
        // Noise, a level, a drift and another size.
        check(1000, |at| (at * TURN / 50.0).sin() + noise(at), Some(50.0));
        check(1000, |at| 1e6 + 0.01 * at + (at * TURN / 50.0).sin(), Some(50.0));
        check(1000, |at| 1e300 * (at * TURN / 50.0).sin(), Some(50.0));
        // A stronger ripple within the cycle is not the cycle.
        let ripple = |at: f64| (at * TURN / 100.0).sin() + 0.8 * (at * TURN / 25.0).sin();
        check(1000, ripple, Some(100.0));
    }

    #[test]
    fn series_without() {
        check(0, |_| 0.0, None);
        check(1, |_| 1.0, None);
        check(100, |_| 7.0, None);
        check(1000, |at| 3.0 * at + 0.1, None);
        check(1000, noise, None);
        check(1000, |at| if at == 500.0 { f64::NAN } else { (at / 8.0).sin() }, None);
        check(
            1000,
            |at| if at == 500.0 { f64::INFINITY } else { (at / 8.0).sin() },
            None,
        );
        // Two cycles are too few.
        check(100, |at| (at * TURN / 50.0).sin(), None);
        // Longer than what is looked for.
        let values: Vec<f64> = (0..400).map(|at| (f64::from(at) * TURN / 40.0).sin()).collect();
        assert_eq!(period(&values, 30), None);
    }

    proptest! {
        #[test]
        fn anything_is_answered(values: Vec<f64>, most in 0..100usize) {
            let found = period(&values, most);
            prop_assert!(found.is_none_or(|found| found.samples > 1.0 && found.strength <= 1.0 + 1e-9));
        }

        #[test]
        fn correlations_are_the_naive_ones(values in prop::collection::vec(-5.0..5.0f64, 2..40)) {
            let n = values.len();
            for (lag, found) in autocorrelation(&values, n).into_iter().enumerate() {
                let (a, b) = (&values[..n - lag], &values[lag..]);
                let dot = |a: &[f64], b: &[f64]| (0..n - lag).map(|at| a[at] * b[at]).sum::<f64>();
                let expect = dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
                prop_assert!(expect.is_nan() || (found - expect).abs() < 1e-6, "{found}, not {expect}");
            }
        }
    }
}
