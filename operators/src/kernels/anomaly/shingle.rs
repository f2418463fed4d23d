//! The last values of one signal as a point.

use serde::{Deserialize, Serialize};

use super::scale::Scale;
use super::{Detector, PointDetector};

/// Values of a point.
pub const DIMS: usize = 4;
/// One value counts as at most this many spreads.
const REACH: f64 = 20.0;

/// A detector of points on the last 4 values of a signal, in spreads.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Shingled<D> {
    scale: Scale,
    last: Vec<f64>,
    detector: D,
}

impl<D> Shingled<D> {
    /// Over a detector of [`DIMS`] coordinates; level and spread forget with a weight of `1/memory`.
    pub fn new(memory: f64, detector: D) -> Self {
        Shingled {
            scale: Scale::new(memory),
            last: Vec::new(),
            detector,
        }
    }
}

impl<D: PointDetector> Detector for Shingled<D> {
    fn score(&mut self, value: f64) -> f64 {
        let z = self.scale.z(value).clamp(-REACH, REACH);
        self.scale.learn(value);
        if z.is_nan() {
            return z;
        }
        if self.last.len() >= DIMS {
            self.last.remove(0);
        }
        self.last.push(z);
        if self.last.len() < DIMS {
            return f64::NAN;
        }
        self.detector.score(&self.last)
    }

    fn is_whole(&self) -> bool {
        let last = self.last.len() <= DIMS && self.last.iter().all(|z| z.abs() <= REACH);
        self.scale.is_whole() && last && self.detector.is_whole()
    }
}
