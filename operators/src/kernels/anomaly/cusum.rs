//! Cumulative sums: shifts of the level that are too small to see in one value.

use serde::{Deserialize, Serialize};

use super::Detector;
use super::scale::Scale;

/// What each value must be off by to count, in spreads: half the shift that is looked for.
const SLACK: f64 = 0.5;
/// One value counts as at most this many spreads.
const REACH: f64 = 5.0;
/// A sum grows no further, so that it comes back when the level does.
const MOST: f64 = 50.0;

/// Two-sided CUSUM (Page 1954) around a forgetting level, which makes it the Page-Hinkley test: the greater of the two
/// sums, in spreads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Cusum {
    scale: Scale,
    above: f64,
    below: f64,
}

impl Cusum {
    /// Level and spread forget with a weight of `1/memory`.
    pub fn new(memory: f64) -> Self {
        Cusum {
            scale: Scale::new(memory),
            above: 0.0,
            below: 0.0,
        }
    }
}

impl Detector for Cusum {
    fn score(&mut self, value: f64) -> f64 {
        let z = self.scale.z(value).clamp(-REACH, REACH);
        self.scale.learn(value);
        if z.is_nan() {
            return z;
        }
        self.above = (self.above + z - SLACK).clamp(0.0, MOST);
        self.below = (self.below - z - SLACK).clamp(0.0, MOST);
        self.above.max(self.below)
    }

    fn is_whole(&self) -> bool {
        self.scale.is_whole() && [self.above, self.below].iter().all(|sum| (0.0..=MOST).contains(sum))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::anomaly::random::Random;

    /// The same by its definition: the greatest sum of a stretch that ends now.
    fn naive(zs: &[f64]) -> f64 {
        let greatest = |sign: f64| {
            let sum = |from: usize| zs[from..].iter().map(|z| sign * z - SLACK).sum::<f64>();
            (0..zs.len()).map(sum).fold(0.0, f64::max)
        };
        greatest(1.0).max(greatest(-1.0))
    }

    #[test]
    fn equals_the_greatest_stretch() {
        let (mut cusum, mut scale, mut random) = (Cusum::new(50.0), Scale::new(50.0), Random::new(1));
        let mut zs = Vec::new();
        for row in 0..200 {
            let value = random.normal() + if row > 150 { 0.7 } else { 0.0 };
            let (score, z) = (cusum.score(value), scale.z(value));
            scale.learn(value);
            if !z.is_nan() {
                zs.push(z.clamp(-REACH, REACH));
                assert!((score - naive(&zs)).abs() < 1e-9, "{row}");
            }
        }
    }
}
