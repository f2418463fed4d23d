//! Robust z: the distance from the median in median absolute deviations.

use serde::{Deserialize, Serialize};

use super::Detector;
use crate::kernels::stats::{MAD_TO_STD, mad, median};

/// Values that make the first median.
const START: usize = 16;
/// Steps that make stochastic approximation efficient on normal data: 1/(2f) with f the density at the median and,
/// on a logarithmic scale, at the MAD.
const STEPS: [f64; 2] = [1.85, 1.17];

/// Robust z (Iglewicz & Hoaglin 1993) on a forgetting median and MAD, followed by stochastic approximation (Tierney
/// 1983): each value moves them by a step of the same size, however far away it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RobustZ {
    first: Vec<f64>,
    median: f64,
    mad: f64,
    rows: f64,
    memory: f64,
}

impl RobustZ {
    /// Median and MAD move with a weight of `1/memory`.
    pub fn new(memory: f64) -> Self {
        RobustZ {
            first: Vec::new(),
            median: 0.0,
            mad: 0.0,
            rows: 0.0,
            memory: memory.max(START as f64),
        }
    }

    fn least(&self) -> f64 {
        (1e-9 * self.median.abs()).max(1e-140)
    }
}

impl Detector for RobustZ {
    fn score(&mut self, value: f64) -> f64 {
        let value = value.clamp(-1e150, 1e150);
        if self.rows == 0.0 {
            self.first.push(value);
            if self.first.len() >= START {
                self.median = median(&self.first);
                self.mad = mad(&self.first, self.median).max(self.least());
                self.rows = START as f64;
                self.first = Vec::new();
            }
            return f64::NAN;
        }
        let distance = value - self.median;
        let score = (distance.abs() / (MAD_TO_STD * self.mad)).min(1e6);
        self.rows = (self.rows + 1.0).min(self.memory);
        let [level, spread] = STEPS.map(|step| step / self.rows);
        if distance != 0.0 {
            self.median = (self.median + level * self.mad.copysign(distance)).clamp(-1e150, 1e150);
        }
        let wider = if distance.abs() > self.mad { spread } else { -spread };
        self.mad = (self.mad * wider.exp()).clamp(self.least(), 1e151);
        score
    }

    fn is_whole(&self) -> bool {
        let started = self.rows == 0.0 && self.first.len() < START || self.first.is_empty() && self.rows >= 1.0;
        let within = self.first.iter().chain([&self.median]).all(|v| v.abs() <= 1e150);
        let mad = self.rows == 0.0 || (1e-140..=1e151).contains(&self.mad);
        started && within && mad && (1.0..1e15).contains(&self.memory)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::anomaly::random::Random;

    #[test]
    fn near_the_exact_median_and_mad() {
        for draw in [
            |random: &mut Random| random.normal(),
            |random: &mut Random| -(1.0 - random.share()).ln(),
            |random: &mut Random| 50.0 + 1e-3 * random.share(),
        ] {
            let (mut robust, mut random) = (RobustZ::new(4000.0), Random::new(5));
            let values: Vec<f64> = (0..8000).map(|_| draw(&mut random)).collect();
            for value in &values {
                robust.score(*value);
            }
            let exact = median(&values);
            let spread = mad(&values, exact);
            assert!((robust.median - exact).abs() < 0.15 * spread, "{robust:?} {exact}");
            assert!((robust.mad / spread - 1.0).abs() < 0.15, "{robust:?} {spread}");
        }
    }
}
