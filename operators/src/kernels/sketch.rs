//! Quantiles of many values in little memory: counts in buckets whose width is a share of their values.
//!
//! The buckets are those of DDSketch with linearly interpolated logarithm (Masson, Rim & Lee, VLDB 12, 2019): 64 between each
//! power of two and the next, so a value is known to within [`ERROR`] of itself. The bucket of a value is the top of its bits, the
//! same on every machine. Counts are whole numbers, so parts are merged and taken away again exactly.

use serde::{Deserialize, Serialize};

use crate::count::counted;

/// By how much of its value a quantile may be wrong: half a bucket. Below 2e-308 in size it is an absolute error of 2e-310.
pub const ERROR: f64 = 1.0 / 128.0;

/// Bits of the fraction that a bucket leaves open: 6 of 52 tell the bucket.
const OPEN_BITS: u32 = 46;

/// Counts by bucket: at most 16 bytes a different bucket, and never more buckets than values. A signal that stays within a
/// factor of 1,000 has at most 640.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sketch {
    /// (bucket, how many), sorted by bucket; none with 0.
    buckets: Vec<(i32, Many)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Many(#[serde(with = "counted")] u64);

/// The bucket of a finite value: in the order of the values, 0 for 0.
fn bucket(value: f64) -> i32 {
    let of_size = (value.abs().to_bits() >> OPEN_BITS) as i32;
    match value {
        v if v > 0.0 => of_size + 1,
        v if v < 0.0 => -of_size - 1,
        _ => 0,
    }
}

/// The middle of a bucket.
fn middle(bucket: i32) -> f64 {
    if bucket == 0 {
        return 0.0;
    }
    let lowest = u64::from(bucket.unsigned_abs() - 1) << OPEN_BITS;
    let size = f64::from_bits(lowest | 1 << (OPEN_BITS - 1));
    if bucket > 0 { size } else { -size }
}

impl Sketch {
    /// Adds a finite value.
    pub fn add(&mut self, value: f64) {
        self.put(bucket(value), 1);
    }

    /// Takes away a value that was added.
    pub fn remove(&mut self, value: f64) {
        self.take(bucket(value), 1);
    }

    /// Adds the values of another part.
    pub fn merge(&mut self, other: &Sketch) {
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
            return;
        }
        other
            .buckets
            .iter()
            .for_each(|(bucket, many)| self.put(*bucket, many.0));
    }

    /// Takes away the values of a part that was merged.
    pub fn subtract(&mut self, other: &Sketch) {
        other
            .buckets
            .iter()
            .for_each(|(bucket, many)| self.take(*bucket, many.0));
    }

    fn put(&mut self, bucket: i32, many: u64) {
        match self.buckets.binary_search_by_key(&bucket, |(b, _)| *b) {
            Ok(place) => self.buckets[place].1.0 += many,
            Err(place) => self.buckets.insert(place, (bucket, Many(many))),
        }
    }

    fn take(&mut self, bucket: i32, many: u64) {
        if let Ok(place) = self.buckets.binary_search_by_key(&bucket, |(b, _)| *b) {
            let left = self.buckets[place].1.0.saturating_sub(many);
            self.buckets[place].1.0 = left;
            if left == 0 {
                self.buckets.remove(place);
            }
        }
    }

    /// How many values it holds.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|(_, many)| many.0).sum()
    }

    /// The `share` quantile (0..=1), interpolated between the two nearest values (NumPy's default, type 7 of Hyndman & Fan
    /// 1996). Each of the two is wrong by at most [`ERROR`] of itself. NaN for no values.
    ///
    /// ```
    /// use taktline_operators::kernels::sketch::Sketch;
    /// let mut sketch = Sketch::default();
    /// (1..=1000).for_each(|n| sketch.add(f64::from(n)));
    /// assert!((sketch.quantile(0.95) - 950.05).abs() < 0.01 * 950.05);
    /// ```
    pub fn quantile(&self, share: f64) -> f64 {
        let count = self.count();
        if count == 0 {
            return f64::NAN;
        }
        let place = share.clamp(0.0, 1.0) * (count - 1) as f64;
        let (mut below, mut low) = (0, None);
        for (bucket, many) in &self.buckets {
            below += many.0;
            if low.is_none() && below as f64 > place.floor() {
                low = Some(middle(*bucket));
            }
            if below as f64 > place.ceil() {
                let (high, part) = (middle(*bucket), place - place.floor());
                let low = low.unwrap_or(high);
                return if low == high {
                    low
                } else {
                    low * (1.0 - part) + high * part
                };
            }
        }
        f64::NAN
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(values: &[f64]) -> Sketch {
        let mut sketch = Sketch::default();
        values.iter().for_each(|value| sketch.add(*value));
        sketch
    }

    #[test]
    fn small_cases() {
        assert!(Sketch::default().quantile(0.5).is_nan());
        let near = |values: &[f64], share, expect: f64| {
            let found = of(values).quantile(share);
            assert!((found - expect).abs() <= ERROR * expect.abs(), "{found} {expect}");
        };
        near(&[7.0], 0.5, 7.0);
        near(&[7.0; 5], 0.95, 7.0);
        near(&[-3.0, -1.0], 0.0, -3.0);
        near(&[-1.0, 0.0, 1.0], 0.5, 0.0);
        near(&[0.0, -0.0], 0.5, 0.0);
        near(&[1e308, 1e308], 0.5, 1e308);
        near(&[-1e308, 1e308, 5.0], 0.5, 5.0);
        near(&[f64::MAX], 1.0, f64::MAX);
        assert!(of(&[f64::MIN_POSITIVE / 8.0]).quantile(0.5) < 1e-308);
    }

    /// Values of both signs over 24 powers of ten.
    fn value() -> impl Strategy<Value = f64> {
        (-1.0..1.0f64, -12..12_i32).prop_map(|(digits, exponent)| digits * 10_f64.powi(exponent))
    }

    proptest! {
        #[test]
        fn quantiles_are_near(values in prop::collection::vec(value(), 1..80), share in 0.0..1.0f64) {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let place = share * (values.len() - 1) as f64;
            let (low, high) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            let exact = crate::kernels::stats::quantile(&values, share);
            let found = of(&values).quantile(share);
            let error = ERROR * low.abs().max(high.abs()) * (1.0 + 1e-9);
            prop_assert!((found - exact).abs() <= error, "{} {}", found, exact);
        }

        #[test]
        fn parts_make_the_whole_and_can_be_taken_away(
            left in prop::collection::vec(value(), 0..40),
            right in prop::collection::vec(value(), 0..40),
        ) {
            let mut merged = of(&left);
            merged.merge(&of(&right));
            prop_assert_eq!(&merged, &of(&[left.clone(), right.clone()].concat()));
            merged.subtract(&of(&left));
            prop_assert_eq!(&merged, &of(&right));
            right.iter().for_each(|value| merged.remove(*value));
            prop_assert_eq!(merged, Sketch::default());
        }

        #[test]
        fn buckets_are_in_the_order_of_values(a in value(), b in value()) {
            prop_assert!(a > b || bucket(a) <= bucket(b));
        }
    }
}
