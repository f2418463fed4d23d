//! LB_Keogh of a stretch and the query, from both sides, with what each point costs.

use crate::kernels::lanes::{Kernel, LANES, Lanes, load};

/// LB_Keogh of a stretch, normalised on the way, and the query: the costs of the stretch's points outside the query's envelope; with the
/// exact ones of the first and last points. `None` when they are beyond the limit.
pub(super) struct Outside<'a> {
    pub values: &'a [f64],
    pub query: &'a [f64],
    pub lower: &'a [f64],
    pub upper: &'a [f64],
    pub mean: f64,
    pub scale: f64,
    pub limit: f64,
    pub costs: &'a mut [f64],
}

/// The same from the other side: of the query's points outside the envelope of the stretch.
pub(super) struct OfData<'a>(pub Outside<'a>);

impl Kernel for Outside<'_> {
    type Output = Option<f64>;

    #[inline(always)]
    fn run<L: Lanes>(self) -> Option<f64> {
        self.sum::<L, false>()
    }
}

impl Kernel for OfData<'_> {
    type Output = Option<f64>;

    #[inline(always)]
    fn run<L: Lanes>(self) -> Option<f64> {
        self.0.sum::<L, true>()
    }
}

impl Outside<'_> {
    #[inline(always)]
    fn sum<L: Lanes, const OF_DATA: bool>(self) -> Option<f64> {
        const LOOK_EVERY: usize = 4 * LANES;
        let length = self.values.len();
        let (mean, scale, zero) = (L::all(self.mean), L::all(self.scale), L::all(0.0));
        let end = |at: usize| {
            let difference = (self.values[at] - self.mean) * self.scale - self.query[at];
            difference * difference
        };
        let (first, last) = (end(0), end(length - 1));
        let mut sum = 0.0;
        let mut at = 0;
        while at < length {
            let until = (at + LOOK_EVERY).min(length);
            let mut sums = zero;
            while at + LANES <= until {
                let (mut value, mut lower, mut upper): (L, L, L) = (
                    load(if OF_DATA { self.query } else { self.values }, at),
                    load(self.lower, at),
                    load(self.upper, at),
                );
                if OF_DATA {
                    (lower, upper) = (lower.minus(mean).times(scale), upper.minus(mean).times(scale));
                } else {
                    value = value.minus(mean).times(scale);
                }
                let outside = value.minus(upper).most(lower.minus(value)).most(zero);
                let costs = outside.times(outside);
                if let Some(block) = self.costs[at..].first_chunk_mut() {
                    costs.store(block);
                }
                sums = sums.plus(costs);
                at += LANES;
            }
            sum += sums.sum();
            while at < until {
                let normal = |value: f64| (value - self.mean) * self.scale;
                let (value, lower, upper) = if OF_DATA {
                    (self.query[at], normal(self.lower[at]), normal(self.upper[at]))
                } else {
                    (normal(self.values[at]), self.lower[at], self.upper[at])
                };
                let outside = (value - upper).max(lower - value).max(0.0);
                self.costs[at] = outside * outside;
                sum += self.costs[at];
                at += 1;
            }
            if sum > self.limit {
                return None;
            }
        }
        // These two are aligned with each other, whatever the path.
        sum += first - self.costs[0];
        self.costs[0] = first;
        if length > 1 {
            sum += last - self.costs[length - 1];
            self.costs[length - 1] = last;
        }
        (sum <= self.limit).then_some(sum)
    }
}
