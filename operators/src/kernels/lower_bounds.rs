//! Numbers that the cost of an alignment can't be below, found in linear time: what is further away than the best so far
//! need not be aligned.
//!
//! All are costs, squares of distances as [`super::dtw`] defines them, of two finite series and one window. They hold up to
//! rounding (relative 1e-12), so compare with a little slack.

use super::dtw::Band;
use super::lanes::{Kernel, LANES, Lanes, load, widest};

/// Between which values each row of the other series finds its partners (Keogh & Ratanamahatana 2005).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Envelope {
    /// The least value within reach of a row.
    pub lower: Vec<f64>,
    /// The greatest.
    pub upper: Vec<f64>,
}

impl Envelope {
    /// The envelope of a series as another one of `rows` points sees it through the window. Takes rows × log window steps.
    ///
    /// ```
    /// use taktline_operators::kernels::lower_bounds::Envelope;
    /// let envelope = Envelope::new(&[1.0, 5.0, 2.0, 0.0], 4, 1);
    /// assert_eq!(envelope.upper, [5.0, 5.0, 5.0, 2.0]);
    /// assert_eq!(envelope.lower, [1.0, 1.0, 0.0, 0.0]);
    /// ```
    pub fn new(series: &[f64], rows: usize, window: usize) -> Self {
        if series.is_empty() || rows == 0 {
            return Envelope::default();
        }
        let band = Band::new(rows, series.len(), window);
        let (before, after) = (band.before.min(rows - 1), band.after.min(series.len() - 1));
        let extreme = |outside: f64, least: bool| {
            // What is within reach of row `i` begins at `i`.
            let mut values = vec![outside; rows + before + after];
            for (value, point) in values[before..].iter_mut().zip(series) {
                *value = *point;
            }
            let reach = before + after + 1;
            widest(Slide {
                values: &mut values,
                reach,
                least,
            });
            values.truncate(rows);
            values
        };
        Envelope {
            lower: extreme(f64::INFINITY, true),
            upper: extreme(f64::NEG_INFINITY, false),
        }
    }
}

/// Puts the extreme of `reach` values, from each place on, in that place: of 1, then of 2, of 4, … values.
struct Slide<'a> {
    values: &'a mut [f64],
    reach: usize,
    least: bool,
}

impl Kernel for Slide<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self) {
        let values = self.values;
        let mut reached = 1;
        while reached < self.reach {
            let step = reached.min(self.reach - reached);
            // Places from `end` on lack values after them; nobody asks for their extremes.
            let end = values.len().saturating_sub(step);
            let mut at = 0;
            while at + LANES <= end {
                let ahead: L = load(values, at + step);
                let here: L = load(values, at);
                let extreme = if self.least {
                    here.least(ahead)
                } else {
                    here.most(ahead)
                };
                if let Some(block) = values[at..].first_chunk_mut() {
                    extreme.store(block);
                }
                at += LANES;
            }
            for at in at..end {
                let (here, ahead) = (values[at], values[at + step]);
                let ahead_it_is = if self.least { ahead < here } else { ahead > here };
                values[at] = if ahead_it_is { ahead } else { here };
            }
            reached += step;
        }
    }
}

/// Cost of the first and of the last points, which each path aligns (the constant part of LB_Kim; Rakthanmanon et al. 2012).
/// 0 when a series is empty.
pub fn kim(a: &[f64], b: &[f64]) -> f64 {
    let (Some((first_a, first_b)), Some((last_a, last_b))) = (a.first().zip(b.first()), a.last().zip(b.last())) else {
        return 0.0;
    };
    let last = if a.len() == 1 && b.len() == 1 {
        0.0
    } else {
        square(last_a - last_b)
    };
    square(first_a - first_b) + last
}

/// LB_Keogh: how far the points of `a`, all but the first and the last, lie outside `b`'s envelope of as many rows; and
/// [`kim`]'s cost of the ends. Stops where the sum is beyond `limit` and gives it.
///
/// ```
/// use taktline_operators::kernels::lower_bounds::{Envelope, keogh};
/// let (a, b) = ([0.0, 9.0, 0.0], [0.0, 5.0, 1.0]);
/// assert_eq!(keogh(&a, &b, &Envelope::new(&b, 3, 1), f64::INFINITY), 1.0 + 16.0);
/// ```
pub fn keogh(a: &[f64], b: &[f64], envelope: &Envelope, limit: f64) -> f64 {
    let ends = kim(a, b);
    if a.len() <= 2 || b.is_empty() || ends > limit {
        return ends;
    }
    let inner = 1..a.len() - 1;
    let (values, lower, upper) = (
        &a[inner.clone()],
        &envelope.lower[inner.clone()],
        &envelope.upper[inner],
    );
    widest(Outside {
        values,
        lower,
        upper,
        sum: ends,
        limit,
    })
}

/// What the points of `a` from each on lie outside `b`'s envelope, in place of what `rest` held: LB_Keogh, summed from the end
/// (the cumulative bound of Rakthanmanon et al. 2012).
pub fn keogh_rest(a: &[f64], envelope: &Envelope, rest: &mut Vec<f64>) {
    rest.clear();
    let ends = envelope.lower.iter().zip(&envelope.upper);
    rest.extend(
        a.iter()
            .zip(ends)
            .map(|(value, (lower, upper))| square((value - upper).max(lower - value).max(0.0))),
    );
    sum_from_the_end(rest);
}

/// Each becomes the sum of itself and all after it.
pub(super) fn sum_from_the_end(costs: &mut [f64]) {
    let mut sum = 0.0;
    for cost in costs.iter_mut().rev() {
        sum += *cost;
        *cost = sum;
    }
}

struct Outside<'a> {
    values: &'a [f64],
    lower: &'a [f64],
    upper: &'a [f64],
    sum: f64,
    limit: f64,
}

/// Blocks between two looks at the limit.
const LOOK_EVERY: usize = 16;

impl Kernel for Outside<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<L: Lanes>(self) -> f64 {
        let zero = L::all(0.0);
        let mut sum = self.sum;
        let (values, rest) = self.values.as_chunks::<LANES>();
        let (lower, rest_lower) = self.lower.as_chunks::<LANES>();
        let (upper, rest_upper) = self.upper.as_chunks::<LANES>();
        let blocks = values.len().min(lower.len()).min(upper.len());
        let mut at = 0;
        while at < blocks {
            let mut sums = zero;
            for at in at..(at + LOOK_EVERY).min(blocks) {
                let value = L::load(&values[at]);
                let above = value.minus(L::load(&upper[at]));
                let below = L::load(&lower[at]).minus(value);
                let outside = above.most(below).most(zero);
                sums = sums.plus(outside.times(outside));
            }
            sum += sums.sum();
            if sum > self.limit {
                return sum;
            }
            at += LOOK_EVERY;
        }
        for ((value, lower), upper) in rest.iter().zip(rest_lower).zip(rest_upper) {
            sum += square((value - upper).max(lower - value).max(0.0));
        }
        sum
    }
}

/// What [`webb`] needs of `b`: its envelope over the rows of `a`, and the envelope of that over the columns of `b`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Envelopes {
    /// Of the series itself.
    pub own: Envelope,
    /// The greatest of the lower ones within reach of each point: `U^(L^B)`.
    pub upper_of_lower: Vec<f64>,
    /// The least of the upper ones: `L^(U^B)`.
    pub lower_of_upper: Vec<f64>,
}

impl Envelopes {
    /// As another series of `rows` points sees it.
    pub fn new(series: &[f64], rows: usize, window: usize) -> Self {
        let own = Envelope::new(series, rows, window);
        Envelopes {
            upper_of_lower: Envelope::new(&own.lower, series.len(), window).upper,
            lower_of_upper: Envelope::new(&own.upper, series.len(), window).lower,
            own,
        }
    }
}

/// LB_Webb (Webb & Petitjean 2021), with the exact cost of the first and last points in place of paths over three: what LB_Keogh
/// counts for `a`, and what `b` costs beyond that. `keogh_ab` is [`keogh`] of `a` and `b`'s envelope, not stopped by a limit;
/// `a_seen` is `a`'s envelope over the points of `b`.
///
/// A point of `b` above all of its partners costs at least the square of how far. A partner may have been counted already for
/// being below `b`'s lower envelope; then what was counted for it is left out, which is at most the square up to the
/// greatest lower envelope within reach.
pub fn webb(keogh_ab: f64, b: &[f64], of_b: &Envelopes, a_seen: &Envelope) -> f64 {
    if b.len() <= 2 {
        return keogh_ab;
    }
    let inner = 1..b.len() - 1;
    let beyond = Beyond {
        values: &b[inner.clone()],
        lower: &a_seen.lower[inner.clone()],
        upper: &a_seen.upper[inner.clone()],
        counted_above: &of_b.upper_of_lower[inner.clone()],
        counted_below: &of_b.lower_of_upper[inner],
    };
    keogh_ab + widest(beyond)
}

struct Beyond<'a> {
    values: &'a [f64],
    lower: &'a [f64],
    upper: &'a [f64],
    counted_above: &'a [f64],
    counted_below: &'a [f64],
}

impl Kernel for Beyond<'_> {
    type Output = f64;

    #[inline(always)]
    fn run<L: Lanes>(self) -> f64 {
        let zero = L::all(0.0);
        let mut sums = zero;
        let mut sum = 0.0;
        let blocks = self.values.len() / LANES;
        for at in (0..blocks).map(|block| block * LANES) {
            let value: L = load(self.values, at);
            let (lower, upper): (L, L) = (load(self.lower, at), load(self.upper, at));
            let above = value.minus(upper).most(zero);
            let counted = load::<L>(self.counted_above, at).minus(upper).most(zero).least(above);
            let below = lower.minus(value).most(zero);
            let counted_below = lower.minus(load(self.counted_below, at)).most(zero).least(below);
            sums = sums.plus(above.times(above).minus(counted.times(counted)));
            sums = sums.plus(below.times(below).minus(counted_below.times(counted_below)));
        }
        for at in blocks * LANES..self.values.len() {
            let (value, lower, upper) = (self.values[at], self.lower[at], self.upper[at]);
            let above = (value - upper).max(0.0);
            let below = (lower - value).max(0.0);
            let counted = (self.counted_above[at] - upper).max(0.0).min(above);
            let counted_below = (lower - self.counted_below[at]).max(0.0).min(below);
            sum += square(above) - square(counted) + square(below) - square(counted_below);
        }
        // Where squares overflow, their difference says nothing.
        let sum = sum + sums.sum();
        if sum.is_nan() { 0.0 } else { sum }
    }
}

fn square(x: f64) -> f64 {
    x * x
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::dtw::{Scratch, dtw};

    fn naive_envelope(series: &[f64], rows: usize, window: usize) -> Envelope {
        let (n, m) = (rows as i64, series.len() as i64);
        let window = window as i64;
        let reach = |i: i64| {
            let low = (i - 0.max(n - m) - window).clamp(0, m - 1);
            let high = (i + 0.max(m - n) + window).clamp(0, m - 1);
            &series[low as usize..=high as usize]
        };
        Envelope {
            lower: (0..n)
                .map(|i| reach(i).iter().copied().fold(f64::INFINITY, f64::min))
                .collect(),
            upper: (0..n)
                .map(|i| reach(i).iter().copied().fold(f64::NEG_INFINITY, f64::max))
                .collect(),
        }
    }

    fn naive_keogh(a: &[f64], b: &[f64], envelope: &Envelope) -> f64 {
        let inner =
            (1..a.len().max(1) - 1).map(|i| square((a[i] - envelope.upper[i]).max(envelope.lower[i] - a[i]).max(0.0)));
        kim(a, b) + inner.sum::<f64>()
    }

    fn series() -> impl Strategy<Value = Vec<f64>> {
        let steps = prop::collection::vec(-1.0..1.0f64, 1..80);
        let walk = |steps: Vec<f64>| {
            steps
                .iter()
                .scan(0.0, |at, step| {
                    *at += step;
                    Some(*at)
                })
                .collect()
        };
        prop_oneof![prop::collection::vec(-10.0..10.0f64, 1..80), steps.prop_map(walk)]
    }

    /// Every bound of a pair, none of which may be beyond the exact cost.
    fn check(a: &[f64], b: &[f64], window: usize) {
        let exact = dtw(a, b, window, f64::INFINITY).map_or(f64::NAN, square);
        let of_b = Envelopes::new(b, a.len(), window);
        let a_seen = Envelope::new(a, b.len(), window);
        let keogh_ab = keogh(a, b, &of_b.own, f64::INFINITY);
        let keogh_ba = keogh(b, a, &a_seen, f64::INFINITY);
        let webb = webb(keogh_ab, b, &of_b, &a_seen);
        for (name, bound) in [
            ("kim", kim(a, b)),
            ("keogh", keogh_ab),
            ("keogh back", keogh_ba),
            ("webb", webb),
        ] {
            assert!(
                bound <= exact * (1.0 + 1e-12) || bound == exact,
                "{name} {bound} of {exact}: {a:?} {b:?} {window}"
            );
        }
        assert!(webb >= keogh_ab);
        let mut rest = vec![7.0];
        keogh_rest(a, &of_b.own, &mut rest);
        let mut scratch = Scratch::default();
        let exact_distance = exact.sqrt();
        assert_eq!(
            scratch.dtw_knowing(a, b, window, exact_distance, &rest),
            Some(exact_distance)
        );
        assert!(
            scratch
                .dtw_knowing(a, b, window, exact_distance * 0.99, &rest)
                .is_none_or(|found| found == exact_distance && found == 0.0 || found == f64::INFINITY)
        );
        assert!((keogh_ab - naive_keogh(a, b, &of_b.own)).abs() <= 1e-12 * keogh_ab || keogh_ab == f64::INFINITY);
    }

    #[test]
    fn small_cases() {
        for (a, b) in [
            (&[1.0][..], &[4.0][..]),
            (&[1.0], &[4.0, 2.0, 7.0]),
            (&[3.0, 3.0, 3.0], &[3.0, 3.0, 3.0]),
            (&[1e308; 20], &[-1e308; 20]),
            (&[1e308, -1e308, 0.0, 1.0], &[0.0; 30]),
        ] {
            check(a, b, 0);
            check(a, b, 2);
            check(b, a, usize::MAX);
        }
        assert_eq!(kim(&[], &[1.0]), 0.0);
        assert_eq!(Envelope::new(&[], 3, 1), Envelope::default());
        assert_eq!(
            keogh(&[0.0; 100], &[9.0; 100], &Envelope::new(&[9.0; 100], 100, 3), 100.0),
            81.0 * 2.0
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn none_is_beyond_the_distance(a in series(), b in series(), window in 0..90usize) {
            check(&a, &b, window);
            // Of one length, as most are.
            let n = a.len().min(b.len());
            check(&a[..n], &b[..n], window / 8);
        }

        #[test]
        fn envelopes_are_naive_ones(b in series(), rows in 1..80usize, window in 0..90usize) {
            prop_assert_eq!(Envelope::new(&b, rows, window), naive_envelope(&b, rows, window));
        }
    }
}
