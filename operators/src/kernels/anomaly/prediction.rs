//! Prediction error: a value that doesn't follow from those before it.

use serde::{Deserialize, Serialize};

use super::Detector;
use super::scale::Scale;

/// Values before the predicted one.
const ORDER: usize = 8;
/// How far one value moves the weights.
const STEP: f64 = 0.05;
/// One value counts as at most this many spreads.
const REACH: f64 = 10.0;

/// Linear prediction from the last 8 values, learned by normalised least mean squares (Widrow & Hoff 1960; Nagumo &
/// Noda 1967): the error in its own spreads. Before it has learned, it predicts the last value.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Prediction {
    input: Scale,
    error: Scale,
    weights: [f64; ORDER + 1],
    /// Newest first, in spreads; the last is the constant.
    last: [f64; ORDER + 1],
    filled: u32,
}

impl Prediction {
    /// Level and spread of values and errors forget with a weight of `1/memory`.
    pub fn new(memory: f64) -> Self {
        let (mut weights, mut last) = ([0.0; ORDER + 1], [0.0; ORDER + 1]);
        (weights[0], last[ORDER]) = (1.0, 1.0);
        Prediction {
            input: Scale::new(memory),
            error: Scale::new(memory),
            weights,
            last,
            filled: 0,
        }
    }
}

impl Detector for Prediction {
    fn score(&mut self, value: f64) -> f64 {
        let z = self.input.z(value).clamp(-REACH, REACH);
        self.input.learn(value);
        if z.is_nan() {
            return z;
        }
        let mut score = f64::NAN;
        if self.filled as usize >= ORDER {
            let products = self.weights.iter().zip(&self.last).map(|(w, x)| w * x);
            let error = z - products.sum::<f64>().clamp(-2.0 * REACH, 2.0 * REACH);
            score = self.error.z(error).abs();
            self.error.learn(error);
            let power: f64 = self.last.iter().map(|x| x * x).sum();
            let step = STEP * error / (power + 0.1);
            for (weight, x) in self.weights.iter_mut().zip(&self.last) {
                *weight = (*weight + step * x).clamp(-1e3, 1e3);
            }
        }
        self.last.copy_within(..ORDER - 1, 1);
        self.last[0] = z;
        self.filled = (self.filled + 1).min(ORDER as u32);
        score
    }

    fn is_whole(&self) -> bool {
        let weights = self.weights.iter().all(|w| w.abs() <= 1e3);
        let last = self.last.iter().all(|x| x.abs() <= REACH);
        self.input.is_whole() && self.error.is_whole() && weights && last
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::anomaly::random::Random;

    #[test]
    fn learns_a_wave_and_sees_a_break_in_it() {
        let (mut prediction, mut random) = (Prediction::new(1000.0), Random::new(2));
        let mut scores = Vec::new();
        for row in 0..3000 {
            let wave = (f64::from(row) * 0.7).sin();
            // The break stays well within the range of the signal.
            let value = if row == 2900 {
                wave - wave.signum()
            } else {
                wave + 0.01 * random.normal()
            };
            scores.push(prediction.score(value));
        }
        assert!(scores[2900] > 20.0, "{}", scores[2900]);
        assert!(scores[2000..2900].iter().all(|score| *score < 10.0));
    }
}
