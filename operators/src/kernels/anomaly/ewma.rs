//! Exponentially weighted moving average chart: small lasting shifts of the level.

use serde::{Deserialize, Serialize};

use super::Detector;
use super::scale::Scale;

/// The weight of the newest value.
const WEIGHT: f64 = 0.2;
/// One value counts as at most this many spreads.
const REACH: f64 = 20.0;

/// EWMA chart (Roberts 1959): the distance of a moving average from the level, in its own standard deviations.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ewma {
    scale: Scale,
    average: f64,
}

impl Ewma {
    /// Level and spread forget with a weight of `1/memory`.
    pub fn new(memory: f64) -> Self {
        Ewma {
            scale: Scale::new(memory),
            average: 0.0,
        }
    }
}

impl Detector for Ewma {
    fn score(&mut self, value: f64) -> f64 {
        let z = self.scale.z(value).clamp(-REACH, REACH);
        self.scale.learn(value);
        if z.is_nan() {
            return z;
        }
        self.average += WEIGHT * (z - self.average);
        self.average.abs() / (WEIGHT / (2.0 - WEIGHT)).sqrt()
    }

    fn is_whole(&self) -> bool {
        self.scale.is_whole() && self.average.abs() <= REACH
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::anomaly::random::Random;

    #[test]
    fn equals_the_sum_of_weighted_values() {
        let (mut ewma, mut scale, mut random) = (Ewma::new(50.0), Scale::new(50.0), Random::new(1));
        let mut seen: Vec<f64> = Vec::new();
        for _ in 0..300 {
            let value = random.normal();
            let (score, z) = (ewma.score(value), scale.z(value));
            scale.learn(value);
            if !z.is_nan() {
                seen.insert(0, z);
                let weighted = (0..).zip(&seen).map(|(age, z)| 0.2 * 0.8_f64.powi(age) * z);
                assert!((score - weighted.sum::<f64>().abs() * 3.0).abs() < 1e-9);
            }
        }
    }
}
