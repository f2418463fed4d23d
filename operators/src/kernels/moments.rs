//! Count, mean, extremes and spread of a series, one value after the other or part by part.
//!
//! Welford's update (Technometrics 4, 1962) and the merges of Chan, Golub & LeVeque (1983) and Pébay (SAND2008-6212, 2008), so
//! that a mean of 1e9 costs the deviation none of its digits. All deviations are of the population. Values must be finite;
//! a result that leaves the range of float64 is infinite or NaN.

use serde::{Deserialize, Serialize};

use crate::count::counted;

/// What the first two moments of a series need: 40 bytes, whatever its length.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Moments {
    /// Values so far.
    #[serde(with = "counted")]
    pub count: u64,
    /// Their mean; 0 for none.
    pub mean: f64,
    /// Sum of their squared distances from the mean.
    pub squares: f64,
    /// The least; infinity for none.
    pub min: f64,
    /// The greatest; minus infinity for none.
    pub max: f64,
}

impl Default for Moments {
    fn default() -> Self {
        Moments {
            count: 0,
            mean: 0.0,
            squares: 0.0,
            min: f64::INFINITY,
            max: f64::NEG_INFINITY,
        }
    }
}

impl Moments {
    /// Adds a value.
    #[inline]
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        let distance = value - self.mean;
        self.mean += distance / self.count as f64;
        self.squares += distance * (value - self.mean);
        self.min = if value < self.min { value } else { self.min };
        self.max = if value > self.max { value } else { self.max };
    }

    /// Adds the values of another part.
    pub fn merge(&mut self, other: &Moments) {
        if self.count == 0 || other.count == 0 {
            if self.count == 0 {
                *self = *other;
            }
            return;
        }
        let (ours, theirs) = (self.count as f64, other.count as f64);
        let share = theirs / (ours + theirs);
        let distance = other.mean - self.mean;
        self.count += other.count;
        self.mean += distance * share;
        self.squares += other.squares + distance * distance * ours * share;
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
    }

    /// Standard deviation of the population, at least 0; NaN for no values and where their squares leave the range.
    pub fn std(&self) -> f64 {
        if self.min == self.max {
            return 0.0;
        }
        let variance = self.squares / self.count as f64;
        // Rounding may leave a hair less than 0.
        if variance.is_finite() {
            variance.max(0.0).sqrt()
        } else {
            f64::NAN
        }
    }

    /// Root of the mean of the squared values; NaN for no values.
    pub fn rms(&self) -> f64 {
        self.mean.hypot(self.std())
    }

    /// Crest factor: the greatest distance from 0 by the root mean square. NaN for no values, and where all are 0.
    pub fn crest(&self) -> f64 {
        self.min.abs().max(self.max.abs()) / self.rms()
    }
}

/// What the third and fourth moment need beside [`Moments`] of the same values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Higher {
    cubes: f64,
    fourths: f64,
}

impl Higher {
    /// Adds a value; `before` are the moments without it.
    pub fn add(&mut self, before: &Moments, value: f64) {
        let one = Moments {
            count: 1,
            mean: value,
            ..Moments::default()
        };
        self.merge(before, &one, &Higher::default());
    }

    /// Adds the values of another part; `ours` and `theirs` are the moments of the two parts before they are merged.
    pub fn merge(&mut self, ours: &Moments, theirs: &Moments, other: &Higher) {
        if ours.count == 0 || theirs.count == 0 {
            if ours.count == 0 {
                *self = *other;
            }
            return;
        }
        let (a, b) = (ours.count as f64, theirs.count as f64);
        let n = a + b;
        let step = (theirs.mean - ours.mean) / n;
        let (m2a, m2b) = (ours.squares, theirs.squares);
        let fourths = step.powi(4) * a * b * n * (a * a - a * b + b * b)
            + 6.0 * step * step * (a * a * m2b + b * b * m2a)
            + 4.0 * step * (a * other.cubes - b * self.cubes);
        self.fourths += other.fourths + fourths;
        self.cubes += other.cubes + step.powi(3) * a * b * n * (a - b) + 3.0 * step * (a * m2b - b * m2a);
    }

    /// Kurtosis: the fourth moment by the square of the second, 3 for a normal distribution. NaN for fewer than two
    /// different values.
    pub fn kurtosis(&self, moments: &Moments) -> f64 {
        if moments.count == 0 || moments.min == moments.max {
            return f64::NAN;
        }
        moments.count as f64 * self.fourths / (moments.squares * moments.squares)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> (Moments, Higher) {
        let (mut moments, mut higher) = (Moments::default(), Higher::default());
        for value in values {
            higher.add(&moments, *value);
            moments.add(*value);
        }
        (moments, higher)
    }

    /// Mean, std, rms, crest and kurtosis in two passes; the oracle.
    fn naive(values: &[f64]) -> [f64; 5] {
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let moment = |power| values.iter().map(|v| (v - mean).powi(power)).sum::<f64>() / n;
        let rms = (values.iter().map(|v| v * v).sum::<f64>() / n).sqrt();
        let peak = values.iter().fold(0.0, |peak: f64, v| peak.max(v.abs()));
        [mean, moment(2).sqrt(), rms, peak / rms, moment(4) / moment(2).powi(2)]
    }

    fn numbers((moments, higher): (Moments, Higher)) -> [f64; 5] {
        let kurtosis = higher.kurtosis(&moments);
        [moments.mean, moments.std(), moments.rms(), moments.crest(), kurtosis]
    }

    #[test]
    fn small_cases() {
        // A sine over whole turns: rms √½, crest √2, kurtosis 3/2.
        let sine: Vec<f64> = (0..1000)
            .map(|i| (f64::from(i) * std::f64::consts::TAU / 100.0).sin())
            .collect();
        let expect = [0.0, 0.5_f64.sqrt(), 0.5_f64.sqrt(), 2.0_f64.sqrt(), 1.5];
        assert!(
            numbers(of(&sine))
                .iter()
                .zip(expect)
                .all(|(a, b)| (a - b).abs() < 1e-12)
        );
        // Constant, one value, none.
        assert_eq!(numbers(of(&[0.1; 7]))[..4], [0.1, 0.0, 0.1, 1.0]);
        assert!(numbers(of(&[0.1; 7]))[4].is_nan() && numbers(of(&[5.0]))[4].is_nan());
        assert!(of(&[]).0.std().is_nan() && of(&[]).0.crest().is_nan() && of(&[0.0]).0.crest().is_nan());
        // Out of the range of float64: not finite, and no panic.
        let huge = of(&[1e308, -1e308, 1e308]);
        assert!(!huge.0.mean.is_finite() && !huge.1.kurtosis(&huge.0).is_finite());
        assert_eq!(of(&[1e308, 1e308]).0.rms(), 1e308);
    }

    proptest! {
        #[test]
        fn parts_make_the_whole(values in prop::collection::vec(-100.0..100.0f64, 2..60), level in -1e6..1e6f64, cut in 0..60_usize) {
            let values: Vec<f64> = values.iter().map(|v| v + level).collect();
            let (left, right) = values.split_at(cut.min(values.len()));
            let (mut merged, later) = (of(left), of(right));
            merged.1.merge(&merged.0, &later.0, &later.1);
            merged.0.merge(&later.0);
            prop_assert_eq!((merged.0.count, merged.0.min, merged.0.max), {
                let whole = of(&values).0;
                (whole.count, whole.min, whole.max)
            });
            // Of what is lost to rounding the level is the measure.
            let close = |a: f64, b: f64, scale: f64| (a - b).abs() <= 1e-9 * scale.max(b.abs());
            for numbers in [numbers(merged), numbers(of(&values))] {
                let naive = naive(&values);
                prop_assert!(close(numbers[0], naive[0], level.abs()), "{:?} {:?}", numbers, naive);
                prop_assert!((1..5).all(|i| close(numbers[i], naive[i], 1e3)), "{:?} {:?}", numbers, naive);
            }
        }
    }
}
