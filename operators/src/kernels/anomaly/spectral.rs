//! Spectral residual: what stands out of a stretch whose spectrum is smooth.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::Detector;
use super::scale::Scale;

/// Points that are transformed: values, and estimates that continue them.
const POINTS: usize = 64;
/// Estimates behind the newest value, so that it doesn't lie at the edge (κ in the paper).
const AHEAD: usize = 5;
/// Values transformed.
const VALUES: usize = POINTS - AHEAD;
/// Frequencies averaged (q in the paper).
const AVERAGED: usize = 3;
/// Saliencies before the newest value that it is held against (z in the paper).
const LOCAL: usize = 21;

/// Spectral residual (Ren et al. 2019, after Hou & Zhang 2007) of the newest of the last 59 values: by how much its
/// saliency exceeds the mean of the 21 before it, as a share of that mean.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SpectralResidual {
    scale: Scale,
    /// Oldest first, in spreads.
    values: Vec<f64>,
}

impl SpectralResidual {
    /// Level and spread forget with a weight of `1/memory`.
    pub fn new(memory: f64) -> Self {
        SpectralResidual {
            scale: Scale::new(memory),
            values: Vec::new(),
        }
    }
}

impl Detector for SpectralResidual {
    fn score(&mut self, value: f64) -> f64 {
        let z = self.scale.z(value).clamp(-20.0, 20.0);
        self.scale.learn(value);
        if z.is_nan() {
            return z;
        }
        if self.values.len() >= VALUES {
            self.values.remove(0);
        }
        self.values.push(z);
        if self.values.len() < VALUES {
            return f64::NAN;
        }
        let saliency = saliency(&continued(&self.values));
        let before = saliency[VALUES - 1 - LOCAL..VALUES - 1].iter().sum::<f64>() / LOCAL as f64;
        ((saliency[VALUES - 1] - before) / before.max(1e-9)).clamp(0.0, 1e6)
    }

    fn is_whole(&self) -> bool {
        self.scale.is_whole() && self.values.len() <= VALUES && self.values.iter().all(|z| z.abs() <= 20.0)
    }
}

/// The values and behind them one estimate, repeated: a line through those before the newest, as in the authors' program. The newest
/// has no part in it, else the estimates would outdo a spike.
fn continued(values: &[f64]) -> [f64; POINTS] {
    let before = &values[VALUES - 2 - AHEAD..VALUES - 1];
    let slope = |back: usize| (before[AHEAD] - before[AHEAD - back]) / back as f64;
    let slopes: f64 = (1..=AHEAD).map(slope).sum();
    let mut points = [before[1] + slopes; POINTS];
    points[..VALUES].copy_from_slice(values);
    points
}

/// The saliency map: the points again after their log spectrum lost its running mean.
fn saliency(points: &[f64; POINTS]) -> [f64; POINTS] {
    let (mut re, mut im) = (*points, [0.0; POINTS]);
    fft(&mut re, &mut im);
    let size: [f64; POINTS] = std::array::from_fn(|i| re[i].hypot(im[i]));
    let log = size.map(|size| size.max(1e-8).ln());
    let factor = |i: usize| {
        let from = (i + 1).saturating_sub(AVERAGED);
        let mean = log[from..=i].iter().sum::<f64>() / (i + 1 - from) as f64;
        // The phase of nothing is 0.
        (log[i] - mean).exp() / size[i].max(1e-8)
    };
    for (i, (re, im)) in re.iter_mut().zip(&mut im).enumerate() {
        (*re, *im) = (*re * factor(i), -*im * factor(i));
    }
    // The inverse by the forward transform of the conjugate; only magnitudes are asked for.
    fft(&mut re, &mut im);
    std::array::from_fn(|i| re[i].hypot(im[i]) / POINTS as f64)
}

/// Sine and cosine of the angles -2πk/64.
static ROOTS: LazyLock<[(f64, f64); POINTS / 2]> =
    LazyLock::new(|| std::array::from_fn(|k| (-std::f64::consts::TAU * k as f64 / POINTS as f64).sin_cos()));

/// The discrete Fourier transform in place, by decimation in time (Cooley & Tukey 1965).
fn fft(re: &mut [f64; POINTS], im: &mut [f64; POINTS]) {
    for i in 0..POINTS {
        let j = i.reverse_bits() >> (usize::BITS - POINTS.trailing_zeros());
        if i < j {
            re.swap(i, j);
            im.swap(i, j);
        }
    }
    let mut half = 1;
    while half < POINTS {
        for k in 0..half {
            let (sin, cos) = ROOTS[k * (POINTS / 2) / half];
            for i in (k..POINTS).step_by(2 * half) {
                let j = i + half;
                let (x, y) = (re[j] * cos - im[j] * sin, re[j] * sin + im[j] * cos);
                (re[j], im[j]) = (re[i] - x, im[i] - y);
                (re[i], im[i]) = (re[i] + x, im[i] + y);
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::anomaly::random::Random;

    proptest! {
        #[test]
        fn equals_the_transform_by_its_definition(points in prop::array::uniform32(-9.0..9.0f64)) {
            let mut re = [0.0; POINTS];
            re[..32].copy_from_slice(&points);
            let (given, mut im) = (re, [0.0; POINTS]);
            fft(&mut re, &mut im);
            for (k, (re, im)) in re.iter().zip(&im).enumerate() {
                let angle = |i: usize| -std::f64::consts::TAU * (i * k) as f64 / POINTS as f64;
                let cos: f64 = (0..POINTS).map(|i| given[i] * angle(i).cos()).sum();
                let sin: f64 = (0..POINTS).map(|i| given[i] * angle(i).sin()).sum();
                prop_assert!((re - cos).abs() < 1e-9 && (im - sin).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn a_spike_is_salient() {
        let (mut detector, mut random) = (SpectralResidual::new(500.0), Random::new(6));
        let mut value = |row: i32| random.normal() + if row == 800 { 15.0 } else { 0.0 };
        let scores: Vec<f64> = (0..1000).map(|row| detector.score(value(row))).collect();
        let before = scores[400..800].iter().copied().fold(0.0, f64::max);
        assert!(scores[800] > before, "{} {before}", scores[800]);
    }
}
