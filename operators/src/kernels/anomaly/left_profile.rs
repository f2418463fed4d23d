//! Left matrix profile: a stretch that resembles nothing that was before it.

use serde::{Deserialize, Serialize};

use super::Detector;
use super::scale::Scale;

/// Values of a stretch.
const LENGTH: usize = 32;
/// Values that are remembered: the constant memory of it.
const HISTORY: usize = 2048;
/// One value counts as at most this many spreads.
const REACH: f64 = 10.0;

/// The distance of the newest 32 values from the nearest stretch among the last 2048, per value and in spreads of the
/// signal.
///
/// This is the left matrix profile as DAMP uses it (Lu et al. 2022) over a bounded history, with two differences. Stretches are
/// not normalised each by itself: in a machine the level counts, and noise on a flat stretch doesn't. The search starts at the
/// stretch behind the last nearest one, so that most others are abandoned after a few values; the distance is exact.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LeftProfile {
    scale: Scale,
    /// Oldest first, in spreads; up to half as many again as the history, so that it moves rarely.
    values: Vec<f64>,
    nearest: u32,
}

impl LeftProfile {
    /// Level and spread forget with a weight of `1/memory`.
    pub fn new(memory: f64) -> Self {
        LeftProfile {
            scale: Scale::new(memory),
            values: Vec::new(),
            nearest: 0,
        }
    }
}

impl Detector for LeftProfile {
    fn score(&mut self, value: f64) -> f64 {
        let z = self.scale.z(value).clamp(-REACH, REACH);
        self.scale.learn(value);
        if z.is_nan() {
            return z;
        }
        if self.values.len() >= HISTORY + HISTORY / 2 {
            let surplus = self.values.len() - HISTORY + 1;
            self.values.drain(..surplus);
            self.nearest = self.nearest.saturating_sub(surplus as u32);
        }
        self.values.push(z);
        if self.values.len() < 4 * LENGTH {
            return f64::NAN;
        }
        let oldest = self.values.len().saturating_sub(HISTORY);
        let (square, place) = nearest(
            &self.values[oldest..],
            (self.nearest as usize + 1).saturating_sub(oldest),
        );
        self.nearest = (place + oldest) as u32;
        (square / LENGTH as f64).sqrt()
    }

    fn is_whole(&self) -> bool {
        let values = self.values.iter().all(|z| z.abs() <= REACH);
        self.scale.is_whole() && values && self.values.len() <= 2 * HISTORY && self.nearest as usize <= 2 * HISTORY
    }
}

/// The squared distance of the last stretch from the nearest one that ends before it begins, and where that begins.
/// `values` hold at least two stretches; `guess` is where a near one may begin.
fn nearest(values: &[f64], guess: usize) -> (f64, usize) {
    let (past, newest) = values.split_at(values.len() - LENGTH);
    let guess = guess.min(past.len() - LENGTH);
    let mut best = (square(&past[guess..], newest, f64::INFINITY), guess);
    for (from, last) in past[LENGTH - 1..].iter().enumerate() {
        let step = last - newest[LENGTH - 1];
        // Most stretches are abandoned by their newest value alone.
        if step * step < best.0 {
            let found = square(&past[from..], newest, best.0);
            best = if found < best.0 { (found, from) } else { best };
        }
    }
    best
}

/// The sum of squared differences from the newest value backwards, or some number above `best` if it is above that.
fn square(stretch: &[f64], newest: &[f64], best: f64) -> f64 {
    let mut sum = 0.0;
    for (a, b) in stretch[..LENGTH].rchunks_exact(4).zip(newest.rchunks_exact(4)) {
        sum += a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f64>();
        if sum > best {
            break;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn equals_the_search_of_all(values in prop::collection::vec(-3.0..3.0f64, 64..200), guess in 0_usize..300) {
            let newest = &values[values.len() - LENGTH..];
            let distance = |past: &[f64]| past.iter().zip(newest).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
            let all = values[..values.len() - LENGTH].windows(LENGTH).map(distance);
            let expect = all.fold(f64::INFINITY, f64::min);
            prop_assert!((nearest(&values, guess).0 - expect).abs() < 1e-9);
        }
    }

    #[test]
    fn a_new_shape_of_known_values_is_far() {
        let mut profile = LeftProfile::new(1000.0);
        let mut scores = Vec::new();
        for row in 0..6000 {
            let at = if (5000..5040).contains(&row) { 10_000 - row } else { row };
            scores.push(profile.score((f64::from(at % 100) / 100.0).powi(2)));
        }
        assert!(scores[3000..5000].iter().all(|score| *score < 0.05));
        assert!(scores[5000..5040].iter().any(|score| *score > 0.3));
    }
}
