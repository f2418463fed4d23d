//! How a signal runs over time: its ends, sum, rise, slope, time-weighted mean and sign changes, value by value or part by
//! part.
//!
//! The slope is that of the least-squares line, kept as a running covariance (Welford 1962, merged as in Chan, Golub &
//! LeVeque 1983). Values must be finite and in the order of time; a result that leaves the range of float64 is infinite or NaN.

use serde::{Deserialize, Serialize};

use crate::count::counted;

/// One stretch of a signal: 120 bytes, whatever its length.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Course {
    #[serde(with = "counted")]
    count: u64,
    first_us: i64,
    last_us: i64,
    first: f64,
    last: f64,
    sum: f64,
    rises: f64,
    /// How long values held until the next came, and their mean over that time.
    held_secs: f64,
    held_mean: f64,
    #[serde(with = "counted")]
    crossings: u64,
    /// -1, 0 or 1: of the first and the last value that is not 0.
    first_sign: i8,
    last_sign: i8,
    /// Of times, in seconds since `first_us`, and of values.
    mean_secs: f64,
    mean: f64,
    secs_squares: f64,
    products: f64,
}

impl Course {
    /// Adds a value at `ts` µs, which is not before the last one.
    pub fn add(&mut self, ts: i64, value: f64) {
        let sign = i8::from(value > 0.0) - i8::from(value < 0.0);
        if self.count == 0 {
            *self = Course {
                count: 1,
                first_us: ts,
                last_us: ts,
                first: value,
                last: value,
                sum: value,
                first_sign: sign,
                last_sign: sign,
                mean: value,
                ..Course::default()
            };
            return;
        }
        self.hold(self.last, secs(self.last_us, ts));
        self.rises += rise(self.last, value);
        self.cross(sign, sign);
        self.sum += value;
        self.count += 1;
        let (n, at) = (self.count as f64, secs(self.first_us, ts));
        let (from_secs, from_mean) = (at - self.mean_secs, value - self.mean);
        self.mean_secs += from_secs / n;
        self.mean += from_mean / n;
        self.secs_squares += from_secs * (at - self.mean_secs);
        self.products += from_secs * (value - self.mean);
        (self.last_us, self.last) = (ts, value);
    }

    /// Adds the part that comes after this one.
    pub fn merge(&mut self, later: &Course) {
        if self.count == 0 || later.count == 0 {
            if self.count == 0 {
                *self = *later;
            }
            return;
        }
        self.hold(self.last, secs(self.last_us, later.first_us));
        self.hold(later.held_mean, later.held_secs);
        self.rises += rise(self.last, later.first) + later.rises;
        self.cross(later.first_sign, later.last_sign);
        self.crossings += later.crossings;
        self.sum += later.sum;
        let (ours, theirs) = (self.count as f64, later.count as f64);
        let share = theirs / (ours + theirs);
        let apart_secs = later.mean_secs + secs(self.first_us, later.first_us) - self.mean_secs;
        let apart = later.mean - self.mean;
        self.mean_secs += apart_secs * share;
        self.mean += apart * share;
        self.secs_squares += later.secs_squares + apart_secs * apart_secs * ours * share;
        self.products += later.products + apart_secs * apart * ours * share;
        self.count += later.count;
        (self.last_us, self.last) = (later.last_us, later.last);
    }

    fn hold(&mut self, value: f64, span_secs: f64) {
        if span_secs > 0.0 {
            self.held_secs += span_secs;
            self.held_mean += (value - self.held_mean) * (span_secs / self.held_secs);
        }
    }

    /// Zeros don't count: a signal that comes down to 0 and goes up again has crossed nothing.
    fn cross(&mut self, first_sign: i8, last_sign: i8) {
        self.crossings += u64::from(i16::from(self.last_sign) * i16::from(first_sign) < 0);
        if self.first_sign == 0 {
            self.first_sign = first_sign;
        }
        if last_sign != 0 {
            self.last_sign = last_sign;
        }
    }

    /// The first value; NaN for none.
    pub fn first(&self) -> f64 {
        self.or_nan(self.first)
    }

    /// The last value; NaN for none.
    pub fn last(&self) -> f64 {
        self.or_nan(self.last)
    }

    /// The sum; NaN for no values.
    pub fn sum(&self) -> f64 {
        self.or_nan(self.sum)
    }

    /// How often the sign changed.
    pub fn crossings(&self) -> u64 {
        self.crossings
    }

    /// A counter's rise per second, from the first value to the last. One that falls has begun again at 0, so its new value is
    /// the rise. NaN for values of fewer than two times.
    pub fn rate(&self) -> f64 {
        self.rises / positive(secs(self.first_us, self.last_us))
    }

    /// Slope of the least-squares line, per second. NaN for values of fewer than two times.
    pub fn slope(&self) -> f64 {
        self.products / positive(self.secs_squares)
    }

    /// The mean over time: each value holds until the next, the last one until `end_us`. Where no time passes, the last
    /// value; NaN for none.
    pub fn time_mean(&self, end_us: i64) -> f64 {
        let mut all = *self;
        all.hold(self.last, secs(self.last_us, end_us));
        self.or_nan(if all.held_secs > 0.0 { all.held_mean } else { self.last })
    }

    fn or_nan(&self, number: f64) -> f64 {
        if self.count > 0 { number } else { f64::NAN }
    }
}

/// Itself where it is more than 0, so that nothing is divided by 0.
fn positive(number: f64) -> f64 {
    if number > 0.0 { number } else { f64::NAN }
}

fn secs(from_us: i64, to_us: i64) -> f64 {
    to_us.saturating_sub(from_us) as f64 / 1e6
}

fn rise(from: f64, to: f64) -> f64 {
    if to >= from { to - from } else { to.max(0.0) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(rows: &[(i64, f64)]) -> Course {
        let mut course = Course::default();
        rows.iter().for_each(|(ts, value)| course.add(*ts, *value));
        course
    }

    fn numbers(course: &Course, end_us: i64) -> [f64; 7] {
        [
            course.first(),
            course.last(),
            course.sum(),
            course.crossings() as f64,
            course.rate(),
            course.slope(),
            course.time_mean(end_us),
        ]
    }

    /// The same by their definitions; the oracle.
    fn naive(rows: &[(i64, f64)], end_us: i64) -> [f64; 7] {
        let n = rows.len() as f64;
        let (first, last) = (rows[0], rows[rows.len() - 1]);
        let sum: f64 = rows.iter().map(|(_, v)| v).sum();
        let signs: Vec<f64> = rows
            .iter()
            .map(|(_, v)| *v)
            .filter(|v| *v != 0.0)
            .map(f64::signum)
            .collect();
        let crossings = signs.windows(2).filter(|pair| pair[0] != pair[1]).count() as f64;
        let rises: f64 = rows
            .windows(2)
            .map(|pair| {
                if pair[1].1 < pair[0].1 {
                    pair[1].1.max(0.0)
                } else {
                    pair[1].1 - pair[0].1
                }
            })
            .sum();
        let at = |ts: i64| (ts - first.0) as f64 / 1e6;
        let mean_at = rows.iter().map(|(ts, _)| at(*ts)).sum::<f64>() / n;
        let with = |f: &dyn Fn(f64, f64) -> f64| {
            rows.iter()
                .map(|(ts, v)| f(at(*ts) - mean_at, v - sum / n))
                .sum::<f64>()
        };
        let slope = with(&|t, v| t * v) / with(&|t, _| t * t);
        let nexts = rows.iter().skip(1).map(|(ts, _)| *ts).chain([end_us]);
        let area: f64 = rows
            .iter()
            .zip(nexts)
            .map(|((ts, v), next)| v * (next - ts) as f64 / 1e6)
            .sum();
        let rate = rises / at(last.0);
        [first.1, last.1, sum, crossings, rate, slope, area / at(end_us)]
    }

    #[test]
    fn small_cases() {
        let check = |rows: &[(i64, f64)], end_us, expect: [f64; 7]| {
            let found = numbers(&of(rows), end_us);
            let same = found
                .iter()
                .zip(expect)
                .all(|(a, b)| (a - b).abs() < 1e-12 || (a.is_nan() && b.is_nan()));
            assert!(same, "{found:?} {expect:?}");
        };
        let nan = f64::NAN;
        // A counter that began again; 7 holds for 3 of 4 seconds.
        check(
            &[(0, 4.0), (1_000_000, 7.0), (4_000_000, 2.0)],
            4_000_000,
            [4.0, 2.0, 13.0, 0.0, 1.25, -10.0 / 13.0, 6.25],
        );
        // 0 is no sign.
        assert_eq!(of(&[(0, 1.0), (1, 0.0), (2, 1.0), (3, 0.0), (4, -1.0)]).crossings(), 1);
        check(&[(5, 3.0)], 5, [3.0, 3.0, 3.0, 0.0, nan, nan, 3.0]);
        check(&[(5, 3.0), (5, 4.0)], 5, [3.0, 4.0, 7.0, 0.0, nan, nan, 4.0]);
        check(&[], 5, [nan, nan, nan, 0.0, nan, nan, nan]);
        // As far apart as can be, and as large: no panic.
        let huge = of(&[(i64::MIN, -1e308), (i64::MAX, 1e308)]);
        assert_eq!((huge.first(), huge.last(), huge.crossings()), (-1e308, 1e308, 1));
        assert!(!huge.rate().is_finite());
    }

    proptest! {
        #[test]
        fn parts_make_the_whole(
            steps in prop::collection::vec((1_i64..3_000_000, -20..20_i32), 2..40),
            cut in 0..40_usize,
            rest in 0_i64..1_000_000,
        ) {
            let mut ts = 1_700_000_000_000_000;
            let rows: Vec<_> = steps.iter().map(|(step, value)| { ts += step; (ts, f64::from(*value)) }).collect();
            let (left, right) = rows.split_at(cut.min(rows.len()));
            let mut merged = of(left);
            merged.merge(&of(right));
            let expect = naive(&rows, ts + rest);
            for found in [numbers(&merged, ts + rest), numbers(&of(&rows), ts + rest)] {
                let close = found.iter().zip(expect).all(|(a, b)| (a - b).abs() <= 1e-9 * b.abs().max(1.0));
                prop_assert!(close, "{:?} {:?}", found, expect);
            }
        }
    }
}
