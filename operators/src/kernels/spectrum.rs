//! How strongly a signal swings between two frequencies.
//!
//! The periodogram of evenly spaced values: mean taken off, Hann window, zeros up to a power of two, FFT (Cooley & Tukey 1965,
//! radix 2, in place). Scaled as the density of Welch (1967), so that a sine of amplitude A gives A/√2 in the band that holds it.

use std::f64::consts::TAU;

/// Fewer values have no spectrum.
const FEWEST: usize = 8;

/// The root mean square of the part of `values` (taken at `rate_hz`) between the frequencies `low <= f < high` of each band, in
/// the unit of the values. Frequencies above half the rate can't be seen: a band that begins there is NaN, one that goes
/// beyond counts what can be seen. NaN for fewer than 8 values and where one is not finite; 0 for a constant.
///
/// ```
/// use taktline_operators::kernels::spectrum::bands;
/// let sine: Vec<f64> = (0..1000).map(|i| (std::f64::consts::TAU * 20.0 * f64::from(i) / 1000.0).sin()).collect();
/// let found = bands(&sine, 1000.0, &[[10.0, 30.0], [100.0, 200.0]]);
/// assert!((found[0] - 0.5f64.sqrt()).abs() < 1e-3 && found[1] < 1e-3);
/// ```
pub fn bands(values: &[f64], rate_hz: f64, bands: &[[f64; 2]]) -> Vec<f64> {
    let largest = values.iter().fold(0.0, |largest: f64, v| largest.max(v.abs()));
    if values.len() < FEWEST || !rate_hz.is_finite() || rate_hz <= 0.0 || values.iter().any(|v| !v.is_finite()) {
        return vec![f64::NAN; bands.len()];
    }
    let (low, high) = values
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
            (v.min(low), v.max(high))
        });
    // By the largest, so that 1e308 has a square.
    let scaled: Vec<f64> = if low == high {
        vec![0.0; values.len()]
    } else {
        values.iter().map(|v| v / largest).collect()
    };
    let power = power(&scaled);
    let bin_hz = rate_hz / (2 * (power.len() - 1)) as f64;
    let at = |hz: f64| ((hz / bin_hz).ceil().min(power.len() as f64)) as usize;
    let band = |[low, high]: &[f64; 2]| {
        if *low > rate_hz / 2.0 {
            return f64::NAN;
        }
        power[at(*low)..at(*high).max(at(*low))].iter().sum::<f64>().sqrt() * largest
    };
    bands.iter().map(band).collect()
}

/// Mean square of each frequency from 0 to half the rate.
fn power(values: &[f64]) -> Vec<f64> {
    let (n, size) = (values.len(), values.len().next_power_of_two());
    let mean = values.iter().sum::<f64>() / n as f64;
    let weight = |i: usize| 0.5 - 0.5 * (TAU * (i as f64 + 0.5) / n as f64).cos();
    let (mut re, mut im) = (vec![0.0; size], vec![0.0; size]);
    let mut weights = 0.0;
    for (i, value) in values.iter().enumerate() {
        re[i] = (value - mean) * weight(i);
        weights += weight(i) * weight(i);
    }
    fft(&mut re, &mut im);
    let scale = 1.0 / (weights * size as f64);
    (0..=size / 2)
        .map(|k| {
            // Every frequency but the first and the last stands for its mirror too.
            let sides = if k == 0 || k == size / 2 { 1.0 } else { 2.0 };
            sides * (re[k] * re[k] + im[k] * im[k]) * scale
        })
        .collect()
}

/// The discrete Fourier transform of a power of two of complex numbers, in place.
fn fft(re: &mut [f64], im: &mut [f64]) {
    let size = re.len();
    let bits = size.trailing_zeros();
    for i in 0..size {
        let mirrored = i.reverse_bits() >> (usize::BITS - bits).min(usize::BITS - 1);
        if i < mirrored {
            re.swap(i, mirrored);
            im.swap(i, mirrored);
        }
    }
    let turns: Vec<(f64, f64)> = (0..size / 2)
        .map(|k| (-TAU * k as f64 / size as f64).sin_cos())
        .collect();
    let mut half = 1;
    while half < size {
        let stride = size / (2 * half);
        for block in (0..size).step_by(2 * half) {
            for k in 0..half {
                let (sin, cos) = turns[k * stride];
                let (a, b) = (block + k, block + k + half);
                let (r, i) = (re[b] * cos - im[b] * sin, re[b] * sin + im[b] * cos);
                (re[b], im[b]) = (re[a] - r, im[a] - i);
                (re[a], im[a]) = (re[a] + r, im[a] + i);
            }
        }
        half *= 2;
    }
}

#[cfg(test)]
mod tests {
    use std::f64::consts::PI;

    use proptest::prelude::*;

    use super::*;

    fn close(a: f64, b: f64, error: f64) -> bool {
        (a - b).abs() <= error
    }

    #[test]
    fn two_sines_in_their_bands() {
        // 2 at 30 Hz and 0.5 at 170 Hz on a level of 1000; 1000 values, which is no power of two.
        let value = |i: i32| {
            let t = f64::from(i) / 1000.0;
            1000.0 + 2.0 * (TAU * 30.0 * t).sin() + 0.5 * (TAU * 170.0 * t + PI / 3.0).sin()
        };
        let values: Vec<f64> = (0..1000).map(value).collect();
        let found = bands(
            &values,
            1000.0,
            &[[0.0, 100.0], [100.0, 300.0], [300.0, 5000.0], [600.0, 700.0]],
        );
        assert!(close(found[0], 2.0_f64.sqrt(), 1e-3), "{found:?}");
        assert!(close(found[1], 0.125_f64.sqrt(), 1e-3), "{found:?}");
        assert!(close(found[2], 0.0, 1e-3) && found[3].is_nan(), "{found:?}");
    }

    #[test]
    fn bad_input() {
        let all = [[0.0, 1e9]];
        assert!(bands(&[1.0; 7], 10.0, &all)[0].is_nan() && bands(&[], 10.0, &all)[0].is_nan());
        assert!(bands(&[f64::NAN; 20], 10.0, &all)[0].is_nan() && bands(&[1.0; 20], 0.0, &all)[0].is_nan());
        assert_eq!(bands(&[0.1; 20], 10.0, &all), [0.0]);
        assert_eq!(bands(&[0.0; 20], 10.0, &all), [0.0]);
        let huge: Vec<f64> = (0..64).map(|i| if i % 2 == 0 { 1e308 } else { -1e308 }).collect();
        let found = bands(&huge, 10.0, &all)[0];
        assert!((0.99e308..1.01e308).contains(&found), "{found}");
    }

    proptest! {
        #[test]
        fn the_transform_is_that_of_its_definition(values in prop::collection::vec((-5.0..5.0f64, -5.0..5.0f64), 32), log in 0..6_u32) {
            let size = 1 << log;
            let (mut re, mut im): (Vec<f64>, Vec<f64>) = values[..size].iter().copied().unzip();
            fft(&mut re, &mut im);
            for k in 0..size {
                let (mut r, mut i) = (0.0, 0.0);
                for (n, (a, b)) in values[..size].iter().enumerate() {
                    let (sin, cos) = (-TAU * (k * n) as f64 / size as f64).sin_cos();
                    r += a * cos - b * sin;
                    i += a * sin + b * cos;
                }
                prop_assert!(close(re[k], r, 1e-9) && close(im[k], i, 1e-9), "{} of {}", k, size);
            }
        }

        #[test]
        fn all_bands_together_are_the_whole(values in prop::collection::vec(-5.0..5.0f64, 8..100), cut in 0.1..0.4f64) {
            let parts = bands(&values, 1.0, &[[0.0, cut], [cut, 1.0]]);
            let whole = bands(&values, 1.0, &[[0.0, 1.0]])[0];
            prop_assert!(close(parts[0].hypot(parts[1]), whole, 1e-9));
            // Parseval: the weighted mean square of the values themselves.
            let n = values.len() as f64;
            let mean = values.iter().sum::<f64>() / n;
            let weights: Vec<f64> = (0..values.len()).map(|i| (PI * (i as f64 + 0.5) / n).sin().powi(2)).collect();
            let squares: f64 = values.iter().zip(&weights).map(|(v, w)| ((v - mean) * w).powi(2)).sum();
            let weight: f64 = weights.iter().map(|w| w * w).sum();
            prop_assert!(close(whole, (squares / weight).sqrt(), 1e-9));
        }
    }
}
