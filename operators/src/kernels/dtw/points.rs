//! Two series as the diagonals read them, eight points at once: one of them reversed, both with margins.

use super::diagonal::MOST_FEW;
use crate::kernels::lanes::{Block, LANES, Lanes, load};

/// What surrounds each series, so that whole blocks can be read at its ends.
pub(super) const MARGIN: usize = (MOST_FEW + 2) * LANES;
/// Appends a series with its margins.
pub(super) fn with_margins<'a>(to: &mut Vec<f64>, series: impl Iterator<Item = &'a f64>) {
    to.resize(to.len() + MARGIN, 0.0);
    to.extend(series);
    to.resize(to.len() + MARGIN, 0.0);
}

/// Both series, channel after channel, each with its margins.
#[derive(Clone, Copy)]
pub(super) struct Points<'a> {
    pub a: &'a [f64],
    pub b: &'a [f64],
    pub rows: usize,
    pub columns: usize,
}

impl<'a> Points<'a> {
    /// The points of so many blocks from these places on.
    #[inline(always)]
    pub fn stretch(self, (a, b): (usize, usize), blocks: usize) -> Stretch<'a> {
        let series = |series: &'a [f64], at: usize| series[at..at + blocks * LANES].as_chunks().0;
        Stretch {
            a: series(self.a, a),
            b: series(self.b, b),
            next_b: series(self.b, b + 1),
            places: (a, b),
            points: self,
        }
    }
}

/// The points of neighbouring blocks, of an even diagonal and the odd one after it.
#[derive(Clone, Copy)]
pub(super) struct Stretch<'a> {
    a: &'a [Block],
    b: &'a [Block],
    next_b: &'a [Block],
    places: (usize, usize),
    points: Points<'a>,
}

impl Stretch<'_> {
    /// The costs of the cells of a block, even and odd.
    #[inline(always)]
    pub fn costs<L: Lanes, const SEVERAL: bool>(&self, at: usize) -> (L, L) {
        let a = L::load(&self.a[at]);
        let mut even = square(a.minus(L::load(&self.b[at])));
        let mut odd = square(a.minus(L::load(&self.next_b[at])));
        if SEVERAL {
            let points = self.points;
            let (stride_a, stride_b) = (points.rows + 2 * MARGIN, points.columns + 2 * MARGIN);
            for channel in 1..points.a.len() / stride_a {
                let a = load::<L>(points.a, self.places.0 + at * LANES + channel * stride_a);
                let b = self.places.1 + at * LANES + channel * stride_b;
                even = even.plus(square(a.minus(load(points.b, b))));
                odd = odd.plus(square(a.minus(load(points.b, b + 1))));
            }
        }
        (even, odd)
    }
}

#[inline(always)]
fn square<L: Lanes>(lanes: L) -> L {
    lanes.times(lanes)
}
