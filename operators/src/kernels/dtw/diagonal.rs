//! The cost matrix along its anti-diagonals: the cells of one depend only on the two before it, so eight are computed at
//! once. The distances are bit for bit those of the loop over rows.
//!
//! A cell stands in the lane of its `column - row`. Then its neighbour on the diagonal before the last is the old content of
//! its own lane, and the two on the last diagonal are those of the lanes beside it, which belong to the diagonals of
//! the other parity. Cells outside the matrix need no care: nothing finite leads into those before the first row or
//! column, and nothing leads back from those after the last.

use std::ops::Range;

use super::Band;
use super::points::{MARGIN, Points, with_margins};
use crate::kernels::lanes::{Block, Kernel, LANES, Lanes, widest};

/// A band of so many blocks stays in registers.
pub(super) const MOST_FEW: usize = 3;
/// Pairs of diagonals between two looks at what can still be within the limit: as many as it takes to come one block further.
const LOOK_EVERY: usize = LANES;
const FAR: Block = [f64::INFINITY; LANES];

/// A block of costs, in a cache line of its own: blocks across two lines take half as long again.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
struct Cells(Block);

/// The two diagonals that are kept, and both series with margins; kept between calls so that a hot loop doesn't allocate.
#[derive(Clone, Debug, Default)]
pub(super) struct Diagonals {
    even: Vec<Cells>,
    odd: Vec<Cells>,
    /// Reversed.
    a: Vec<f64>,
    b: Vec<f64>,
}

impl Diagonals {
    /// The least cost of aligning two series of the same channels, finite and not empty; `None` as soon as it is known to be
    /// greater than `limit`. Channels may be longer than the band. `rest` says what the points of `a` from each on cost at
    /// least, if anything is known of that.
    pub fn cost(&mut self, a: &[&[f64]], b: &[&[f64]], band: Band, limit: f64, rest: &[f64]) -> Option<f64> {
        if a.len() == 1 {
            widest(self.sweep::<false>(a, b, band, limit, rest))
        } else {
            widest(self.sweep::<true>(a, b, band, limit, rest))
        }
    }

    fn sweep<'a, const SEVERAL: bool>(
        &'a mut self,
        a: &[&[f64]],
        b: &[&[f64]],
        band: Band,
        limit: f64,
        rest: &'a [f64],
    ) -> Sweep<'a, SEVERAL> {
        let (rows, columns) = (band.rows, band.columns);
        let before = band.before.min(rows - 1);
        let width = before + band.after.min(columns - 1) + 1;
        self.a.clear();
        self.b.clear();
        for (a, b) in a.iter().zip(b) {
            with_margins(&mut self.a, a[..rows].iter().rev());
            with_margins(&mut self.b, b[..columns].iter());
        }
        for cells in [&mut self.even, &mut self.odd] {
            cells.clear();
            cells.resize(width.div_ceil(2).div_ceil(LANES), Cells(FAR));
        }
        Sweep {
            points: Points {
                a: &self.a,
                b: &self.b,
                rows,
                columns,
            },
            before,
            width,
            limit,
            rest,
            even: &mut self.even,
            odd: &mut self.odd,
        }
    }
}

/// `SEVERAL` says whether there are several channels; one channel alone is twice as fast without a loop over them.
/// Lane `p` of `even` has the cells with `column - row + before == 2 p`, of `odd` those with `2 p + 1`.
struct Sweep<'a, const SEVERAL: bool> {
    points: Points<'a>,
    before: usize,
    /// How many values `column - row` takes in the band.
    width: usize,
    limit: f64,
    /// What the rows from each on cost at least; 0 after its end.
    rest: &'a [f64],
    even: &'a mut [Cells],
    odd: &'a mut [Cells],
}

impl<const SEVERAL: bool> Kernel for Sweep<'_, SEVERAL> {
    type Output = Option<f64>;

    #[inline(always)]
    fn run<L: Lanes>(mut self) -> Option<f64> {
        let before = self.before;
        let lane = before / 2;
        if before.is_multiple_of(2) {
            // The cell before the first one, from which every path begins.
            self.even[lane / LANES].0[lane % LANES] = 0.0;
        } else {
            // Diagonals go in pairs, even and odd; the first has no even one before it.
            let mut first = FAR;
            let places = (MARGIN + self.points.rows - 1, MARGIN);
            self.points
                .stretch(places, 1)
                .costs::<L, SEVERAL>(0)
                .0
                .store(&mut first);
            self.odd[lane / LANES].0[lane % LANES] = first[0];
        }
        let within = match self.even.len() {
            1 => self.few::<L, 1>(),
            2 => self.few::<L, 2>(),
            3 => self.few::<L, MOST_FEW>(),
            _ => self.many::<L>(),
        };
        let end = self.points.columns - 1 + before - (self.points.rows - 1);
        let cells = if end.is_multiple_of(2) { self.even } else { self.odd };
        within.then(|| cells[end / 2 / LANES].0[end / 2 % LANES])
    }
}

impl<const SEVERAL: bool> Sweep<'_, SEVERAL> {
    /// What is added to the costs of the last blocks, even and odd: infinite in lanes beyond the band.
    #[inline(always)]
    fn beyond<L: Lanes>(&self) -> (L, L) {
        let first = (self.even.len() - 1) * LANES;
        let of = |lanes: usize| -> Block {
            std::array::from_fn(|lane| if first + lane < lanes { 0.0 } else { f64::INFINITY })
        };
        (L::load(&of(self.width.div_ceil(2))), L::load(&of(self.width / 2)))
    }

    /// The even diagonals of all pairs; the first has the parity of `before`.
    #[inline(always)]
    fn diagonals(&self) -> std::iter::StepBy<Range<usize>> {
        (self.before % 2..self.points.rows + self.points.columns - 1).step_by(2)
    }

    /// Where the points of a lane stand on an even diagonal; on the odd one after it, `b` is one further.
    #[inline(always)]
    fn place(&self, diagonal: usize, lane: usize) -> (usize, usize) {
        let a = MARGIN + self.points.rows - 1 + lane - (diagonal + self.before) / 2;
        let b = MARGIN + lane + diagonal / 2 - self.before / 2;
        (a, b)
    }

    /// All cells of a narrow band, its diagonals in registers. False when none is within the limit.
    #[inline(always)]
    fn few<L: Lanes, const N: usize>(&mut self) -> bool {
        let (beyond_even, beyond_odd) = self.beyond::<L>();
        let far = L::all(f64::INFINITY);
        // Plain loops: a closure that isn't inlined would be compiled without the wide instructions.
        let (mut even, mut odd) = ([far; N], [far; N]);
        for at in 0..N {
            even[at] = L::load(&self.even[at].0);
            odd[at] = L::load(&self.odd[at].0);
        }
        for (turn, diagonal) in self.diagonals().enumerate() {
            let stretch = self.points.stretch(self.place(diagonal, 0), N);
            let mut costs = [(far, far); N];
            for (at, costs) in costs.iter_mut().enumerate() {
                *costs = stretch.costs::<L, SEVERAL>(at);
            }
            costs[N - 1] = (costs[N - 1].0.plus(beyond_even), costs[N - 1].1.plus(beyond_odd));
            let mut left = far;
            for at in 0..N {
                let best = even[at].least(odd[at]).least(odd[at].lower(left));
                left = odd[at];
                even[at] = best.plus(costs[at].0);
            }
            for at in 0..N {
                let above = if at + 1 == N { far } else { even[at + 1] };
                odd[at] = odd[at].least(even[at]).least(even[at].upper(above)).plus(costs[at].1);
            }
            if turn % LOOK_EVERY == 0 && self.limit < f64::INFINITY {
                let mut alive = false;
                for at in 0..N {
                    alive |= even[at].least(odd[at]).any_within(self.limit_of(diagonal, at));
                }
                if !alive {
                    return false;
                }
            }
        }
        for at in 0..N {
            even[at].store(&mut self.even[at].0);
            odd[at].store(&mut self.odd[at].0);
        }
        true
    }

    /// The cells of a wide band from which the limit can still be kept. False when there is none.
    ///
    /// Blocks whose cells are all beyond the limit are left out at both ends, as columns are in "EAPruned" (Herrmann & Webb 2021).
    #[inline(always)]
    fn many<L: Lanes>(&mut self) -> bool {
        let (rows, columns, before) = (self.points.rows, self.points.columns, self.before);
        let blocks = self.even.len();
        let lanes = self.width.div_ceil(2);
        let pruned = self.limit < f64::INFINITY;
        let mut alive = if pruned {
            let start = before / 2 / LANES;
            start.saturating_sub(1)..(start + 2).min(blocks)
        } else {
            0..blocks
        };
        for (turn, diagonal) in self.diagonals().enumerate() {
            // Lanes in the matrix: row and column not below 0, nor beyond the last.
            let row = (diagonal + before) / 2;
            let low = (before / 2)
                .saturating_sub(diagonal / 2 + 1)
                .max((row + 1).saturating_sub(rows));
            let high = row
                .min(lanes - 1)
                .min((2 * (columns - 1) + before).saturating_sub(diagonal) / 2);
            let range = (low / LANES).max(alive.start)..(high / LANES + 1).min(alive.end);
            if range.is_empty() {
                continue;
            }
            self.pair::<L>(diagonal, range.clone());
            if pruned && turn % LOOK_EVERY == LOOK_EVERY - 1 {
                let Some((first, last)) = self.within::<L>(diagonal, range.clone()) else {
                    return false;
                };
                alive = first.saturating_sub(1)..(last + 2).min(blocks);
                for cells in [&mut *self.even, &mut *self.odd] {
                    cells[range.start..alive.start.max(range.start)].fill(Cells(FAR));
                    cells[alive.end.min(range.end)..range.end].fill(Cells(FAR));
                }
            }
        }
        true
    }

    /// What the cells of a block of these two diagonals may cost at most: the limit, less what the rows after them cost at least.
    #[inline(always)]
    fn limit_of(&self, diagonal: usize, block: usize) -> f64 {
        let next_row = (diagonal + self.before) / 2 + 1;
        let rest = self.rest.get(next_row.saturating_sub(block * LANES));
        self.limit - rest.copied().unwrap_or(0.0)
    }

    /// The first and the last of these blocks with a cell within the limit.
    #[inline(always)]
    fn within<L: Lanes>(&self, diagonal: usize, range: Range<usize>) -> Option<(usize, usize)> {
        let mut found = None;
        for at in range {
            let cells = L::load(&self.even[at].0).least(L::load(&self.odd[at].0));
            if cells.any_within(self.limit_of(diagonal, at)) {
                found = Some((found.map_or(at, |(first, _)| first), at));
            }
        }
        found
    }

    /// An even diagonal and the odd one after it, block after block; the odd one lags by a block, since it needs what is above.
    #[inline(always)]
    fn pair<L: Lanes>(&mut self, diagonal: usize, range: Range<usize>) {
        let far = L::all(f64::INFINITY);
        let (beyond_even, beyond_odd) = self.beyond::<L>();
        let stretch = self
            .points
            .stretch(self.place(diagonal, range.start * LANES), range.len());
        let above = self.even.get(range.end).map_or(far, |cells| L::load(&cells.0));
        let mut left = if range.start == 0 {
            far
        } else {
            L::load(&self.odd[range.start - 1].0)
        };
        let last = if range.end == self.even.len() {
            range.len() - 1
        } else {
            usize::MAX
        };
        let (even, odd) = (&mut self.even[range.clone()], &mut self.odd[range]);
        let mut below = (far, far, far);
        for at in 0..odd.len().min(even.len()) {
            let (mut cost, mut cost_odd) = stretch.costs::<L, SEVERAL>(at);
            if at == last {
                (cost, cost_odd) = (cost.plus(beyond_even), cost_odd.plus(beyond_odd));
            }
            let (both, both_odd) = (L::load(&even[at].0), L::load(&odd[at].0));
            let new = both.least(both_odd).least(both_odd.lower(left)).plus(cost);
            new.store(&mut even[at].0);
            if at > 0 {
                lagging(below, new).store(&mut odd[at - 1].0);
            }
            left = both_odd;
            below = (both_odd.least(new), new, cost_odd);
        }
        if let Some(cells) = odd.last_mut() {
            lagging(below, above).store(&mut cells.0);
        }
    }
}

/// An odd block, from the least of its neighbours to the left and on the diagonal, the even block, and the costs.
#[inline(always)]
fn lagging<L: Lanes>((best, even, cost): (L, L, L), above: L) -> L {
    best.least(even.upper(above)).plus(cost)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::lanes::each_form;

    /// Every cell, one after the other.
    fn naive(a: &[&[f64]], b: &[&[f64]], band: Band) -> f64 {
        let mut cells = vec![vec![f64::INFINITY; band.columns + 1]; band.rows + 1];
        cells[0][0] = 0.0;
        for i in 0..band.rows {
            let (low, high) = band.columns(i);
            for j in low..=high {
                let best = cells[i][j].min(cells[i][j + 1]).min(cells[i + 1][j]);
                let cost: f64 = a.iter().zip(b).map(|(a, b)| (a[i] - b[j]) * (a[i] - b[j])).sum();
                cells[i + 1][j + 1] = best + cost;
            }
        }
        cells[band.rows][band.columns]
    }

    fn series() -> impl Strategy<Value = Vec<f64>> {
        proptest::collection::vec(-10.0..10.0_f64, 1..150)
    }

    fn check<const SEVERAL: bool>(a: &[&[f64]], b: &[&[f64]], window: usize) {
        let length = |channels: &[&[f64]]| channels.iter().map(|channel| channel.len()).min().unwrap_or(0);
        let band = Band::new(length(a), length(b), window);
        let expect = naive(a, b, band);
        let mut diagonals = Diagonals::default();
        // What is left over from another call doesn't matter.
        for (limit, found) in [(f64::INFINITY, Some(expect)), (expect, Some(expect))] {
            let forms = each_form(|run| run.run(diagonals.sweep::<SEVERAL>(a, b, band, limit, &[])));
            assert!(forms.iter().all(|form| *form == found), "{forms:?}, not {expect}");
        }
        let forms = each_form(|run| run.run(diagonals.sweep::<SEVERAL>(a, b, band, expect * 0.5, &[])));
        assert!(
            forms.iter().all(|form| form.is_none_or(|cost| cost > expect * 0.5)),
            "{forms:?} of {expect}"
        );
    }

    proptest! {
        #[test]
        fn it_is_the_naive_one(a in series(), b in series(), window in 0..160_usize) {
            check::<false>(&[&a], &[&b], window);
        }

        #[test]
        fn also_of_several_channels(a in series(), b in series(), window in 0..160_usize) {
            let second = |first: &[f64]| -> Vec<f64> { first.iter().map(|x| 3.0 - x * x).collect() };
            check::<true>(&[&a, &second(&a), &a], &[&b, &second(&b), &b], window);
        }
    }
}
