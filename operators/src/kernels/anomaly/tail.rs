//! How rare a raw score is beside its own past.

use serde::{Deserialize, Serialize};

use crate::kernels::stats::quantile;

/// Scores that make the first quantiles.
const START: usize = 20;
/// The share of scores above the last quantile: those make the tail.
const ABOVE: f64 = 0.05;
/// Shares below the followed quantiles, and how much of its size a quantile may move for a weight of one.
const QUANTILES: [(f64, f64); 3] = [(0.5, 2.0), (0.8, 2.0), (1.0 - ABOVE, 4.0)];
/// The prior's weight, counted in scores above the last quantile.
const PRIOR: f64 = 10.0;
/// An excess counts as at most this many mean excesses when it is learned.
const REACH: f64 = 10.0;
/// A score's quantiles never fall below this.
const LEAST: f64 = 1e-12;

/// The tail probability of a stream of scores, in constant memory, forgetting at a rate.
///
/// Three quantiles (50 %, 80 %, 95 %) are followed by stochastic approximation (Tierney 1983) with steps in proportion to their size. Beyond the last one
/// the excess is a generalised Pareto distribution (Pickands 1975; for streams Siffer et al. 2017), fitted by moments
/// with a shape of 0 to 0.4: a rate far below one over the number of rows is an extrapolation, and a tail lighter than an
/// exponential one gives fewer alarms than accepted.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Tail {
    first: Vec<f64>,
    quantiles: [f64; 3],
    /// Mean and mean square of the excess.
    mean: f64,
    square: f64,
    rows: f64,
    excesses: f64,
    memory: f64,
}

impl Tail {
    /// Forgets with a weight of `1/memory` a score, at least 1/20.
    pub fn new(memory: f64) -> Self {
        Tail {
            first: Vec::new(),
            quantiles: [LEAST; 3],
            mean: LEAST,
            square: LEAST * LEAST,
            rows: 0.0,
            excesses: 0.0,
            memory: memory.max(START as f64),
        }
    }

    /// The probability that a score of the past is at least `score` (finite, at least 0), in `1e-300..=1`; NaN for
    /// the first 20 scores.
    pub fn probability(&self, score: f64) -> f64 {
        if self.rows == 0.0 {
            return f64::NAN;
        }
        let last = self.quantiles[2];
        if score > last {
            return (ABOVE * self.beyond(score - last)).max(1e-300);
        }
        let (mut from, mut above) = (0.0, 1.0);
        for (value, (share, _)) in self.quantiles.into_iter().zip(QUANTILES) {
            if score <= value {
                let part = (score - from) / (value - from).max(LEAST);
                return above - (above - (1.0 - share)) * part.clamp(0.0, 1.0);
            }
            (from, above) = (value, 1.0 - share);
        }
        ABOVE
    }

    /// Learns a score, finite and at least 0.
    pub fn learn(&mut self, score: f64) {
        if self.rows == 0.0 {
            self.first.push(score);
            if self.first.len() >= START {
                self.start();
            }
            return;
        }
        self.rows = (self.rows + 1.0).min(self.memory);
        let weight = 1.0 / self.rows;
        let excess = score - self.quantiles[2];
        if excess > 0.0 {
            let excess = excess.min(REACH * self.mean);
            self.excesses = (self.excesses + 1.0).min(ABOVE * self.memory);
            let weight = 1.0 / (self.excesses + PRIOR);
            self.mean = (self.mean + weight * (excess - self.mean)).max(LEAST);
            self.square = (self.square + weight * (excess * excess - self.square)).max(LEAST * LEAST);
        }
        let mut least = LEAST;
        for (value, (share, step)) in self.quantiles.iter_mut().zip(QUANTILES) {
            let over = if score > *value { share } else { share - 1.0 };
            *value = (*value * (step * weight * over).exp()).clamp(least, 1e300);
            least = *value;
        }
    }

    fn start(&mut self) {
        for (value, (share, _)) in self.quantiles.iter_mut().zip(QUANTILES) {
            *value = quantile(&self.first, share).clamp(LEAST, 1e150);
        }
        // What an exponential distribution would have beyond, from the distance of its quantiles.
        let spread = (self.quantiles[2] - self.quantiles[0]) / (0.5 / ABOVE).ln();
        self.mean = spread.max(0.1 * self.quantiles[2]);
        self.square = 2.0 * self.mean * self.mean;
        self.rows = START as f64;
        self.first = Vec::new();
    }

    /// The probability of an excess of at least this, of those there are.
    fn beyond(&self, excess: f64) -> f64 {
        let variance = (self.square - self.mean * self.mean).max(LEAST * LEAST);
        let ratio = self.mean * self.mean / variance;
        let shape = (0.5 * (1.0 - ratio)).clamp(0.0, 0.4);
        // The scale that keeps the mean excess for this shape.
        let scale = self.mean * (1.0 - shape);
        if shape < 1e-6 {
            (-excess / scale).exp()
        } else {
            (1.0 + shape * excess / scale).powf(-1.0 / shape)
        }
    }

    /// False where state from outside doesn't fit together.
    pub fn is_whole(&self) -> bool {
        let started = self.rows == 0.0 && self.first.len() < START || self.first.is_empty() && self.rows >= 1.0;
        let numbers = [self.mean, self.square, self.quantiles[0]];
        let positive = numbers.iter().all(|v| v.is_finite() && *v > 0.0);
        let first = self.first.iter().all(|v| v.is_finite() && *v >= 0.0);
        let rows = self.excesses >= 0.0 && self.excesses < 1e15 && self.memory >= 1.0 && self.memory < 1e15;
        started && positive && first && rows && self.quantiles.is_sorted() && self.quantiles[2] <= 1e300
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::anomaly::random::Random;

    /// How often scores of a distribution, each judged before it is learned, are rarer than `probability`.
    fn realised(probability: f64, mut draw: impl FnMut(&mut Random) -> f64) -> f64 {
        let (mut tail, mut random) = (Tail::new(5000.0), Random::new(3));
        let rows = 200_000;
        let rare = (0..rows).filter(|_| {
            let score = draw(&mut random);
            let rare = tail.probability(score) <= probability;
            tail.learn(score);
            rare
        });
        rare.count() as f64 / f64::from(rows)
    }

    #[test]
    fn the_probability_is_how_often_it_happens() {
        for probability in [0.5, 0.2, 0.05, 0.01, 0.001] {
            let check = |name: &str, found: f64| {
                // A normal tail is lighter than the lightest that is fitted, so there are fewer alarms than accepted.
                assert!(
                    (0.4..2.0).contains(&(found / probability)),
                    "{name}: {found} for {probability}"
                );
            };
            check("normal", realised(probability, |random| random.normal().abs()));
            check(
                "exponential",
                realised(probability, |random| -(1.0 - random.share()).ln()),
            );
            check(
                "heavy",
                realised(probability, |random| (1.0 - random.share()).powf(-0.25) - 1.0),
            );
            check("tiny", realised(probability, |random| 1e-6 * random.normal().abs()));
        }
    }

    #[test]
    fn odd_streams() {
        let learned = |scores: Vec<f64>| {
            let mut tail = Tail::new(100.0);
            scores.into_iter().for_each(|score| tail.learn(score));
            tail
        };
        assert!(learned(vec![1.0; 19]).probability(1.0).is_nan());
        for scores in [vec![0.0; 500], vec![1.0; 500], vec![1e300; 500], vec![f64::MAX; 500]] {
            let tail = learned(scores);
            for score in [0.0, 1e-300, 1.0, 1e300, f64::MAX] {
                let probability = tail.probability(score);
                assert!((1e-300..=1.0).contains(&probability), "{probability}");
            }
        }
        assert!(learned(vec![0.0; 500]).probability(1.0) < 1e-9);
        assert!(learned(vec![1.0; 500]).probability(1.5) < 0.05);
    }
}
