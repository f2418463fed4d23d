//! The running level and spread of a signal, which outliers move slowly.

use serde::{Deserialize, Serialize};

use crate::kernels::stats::{MAD_TO_STD, mad, median};

/// Values that make the first level and spread, by median and MAD.
const START: usize = 16;
/// A value moves level and spread by at most this many spreads.
const REACH: f64 = 5.0;
/// Greatest magnitude that is told apart, so that no square overflows.
const MOST: f64 = 1e150;

/// Level and spread by exponential forgetting, each value winsorised at 5 spreads before it is learned.
///
/// One wild value moves the spread by little; a new level is followed, and the spread grows geometrically until it covers
/// it. The spread of a constant signal is 1e-9 of its level.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Scale {
    first: Vec<f64>,
    level: f64,
    variance: f64,
    rows: f64,
    memory: f64,
}

impl Scale {
    /// Forgets with a weight of `1/memory` a value, at least 1/16.
    pub fn new(memory: f64) -> Self {
        Scale {
            first: Vec::new(),
            level: 0.0,
            variance: 0.0,
            rows: 0.0,
            memory: memory.max(START as f64),
        }
    }

    /// How many spreads a finite value is away from the level, within ±1e6; NaN for the first 16 values.
    pub fn z(&self, value: f64) -> f64 {
        if self.rows == 0.0 {
            return f64::NAN;
        }
        ((value.clamp(-MOST, MOST) - self.level) / self.spread()).clamp(-1e6, 1e6)
    }

    /// Learns a finite value.
    pub fn learn(&mut self, value: f64) {
        let value = value.clamp(-MOST, MOST);
        if self.rows == 0.0 {
            self.first.push(value);
            if self.first.len() >= START {
                self.start();
            }
            return;
        }
        self.rows = (self.rows + 1.0).min(self.memory);
        let (weight, reach) = (1.0 / self.rows, REACH * self.spread());
        let distance = (value - self.level).clamp(-reach, reach);
        self.level += weight * distance;
        self.variance = (1.0 - weight) * (self.variance + weight * distance * distance);
    }

    fn start(&mut self) {
        self.level = median(&self.first);
        let spread = (MAD_TO_STD * mad(&self.first, self.level)).min(MOST);
        self.variance = spread * spread;
        self.rows = START as f64;
        self.first = Vec::new();
    }

    fn spread(&self) -> f64 {
        self.variance.sqrt().max(1e-9 * self.level.abs()).max(1e-140)
    }

    /// False where state from outside doesn't fit together.
    pub fn is_whole(&self) -> bool {
        let started = self.rows == 0.0 && self.first.len() < START || self.first.is_empty() && self.rows >= 1.0;
        let within = self.first.iter().chain([&self.level]).all(|v| v.abs() <= MOST);
        started && within && (0.0..=4.0 * MOST * MOST).contains(&self.variance) && (1.0..1e15).contains(&self.memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::anomaly::random::Random;

    fn learned(memory: f64, values: impl IntoIterator<Item = f64>) -> Scale {
        let mut scale = Scale::new(memory);
        values.into_iter().for_each(|value| scale.learn(value));
        scale
    }

    #[test]
    fn near_mean_and_deviation_of_noise() {
        let mut random = Random::new(7);
        let scale = learned(5000.0, (0..5000).map(|_| 100.0 + 3.0 * random.normal()));
        assert!(
            (scale.level - 100.0).abs() < 0.2 && (scale.spread() - 3.0).abs() < 0.2,
            "{scale:?}"
        );
    }

    #[test]
    fn odd_streams() {
        let check = |values: Vec<f64>, next: f64, expect: f64| {
            let z = learned(100.0, values).z(next);
            assert!(
                (z - expect).abs() < 1e-6 || z.is_nan() && expect.is_nan(),
                "{next}: {z}"
            );
        };
        check(vec![], 1.0, f64::NAN);
        check(vec![1.0; 15], 1.0, f64::NAN);
        check(vec![1.0; 16], 1.0, 0.0);
        check(vec![1.0; 16], 2.0, 1e6);
        check(vec![0.0; 99], 1e-9, 1e6);
        check(vec![1e308; 99], -1e308, -1e6);
        check([vec![1e308; 8], vec![-1e308; 8]].concat(), 0.0, 0.0);
    }

    #[test]
    fn a_wild_value_is_forgotten_and_a_new_level_is_followed() {
        let mut random = Random::new(7);
        let mut scale = learned(200.0, (0..400).map(|_| random.normal()));
        scale.learn(1e308);
        assert!(scale.z(5.0) > 4.0);
        (0..4000).for_each(|_| scale.learn(1000.0 + random.normal()));
        assert!(scale.z(1000.0).abs() < 1.0 && scale.z(1010.0) > 5.0, "{scale:?}");
    }
}
