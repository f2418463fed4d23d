//! The cost matrix along its anti-diagonals: the cells of one depend only on the two before it, so many are computed at once.
//! The result is bit for bit that of the loop over rows.

use super::Band;

/// Three anti-diagonals, kept between calls so that a hot loop doesn't allocate.
#[derive(Clone, Debug, Default)]
pub(super) struct Diagonals {
    cells: [Vec<f64>; 3],
    reversed: Vec<f64>,
}

impl Diagonals {
    /// The least cost of aligning two series that are not empty and finite; `None` as soon as it is known to be greater than `limit`.
    pub(super) fn cost(&mut self, a: &[f64], b: &[f64], band: Band, limit: f64) -> Option<f64> {
        self.reversed.clear();
        self.reversed.extend(b.iter().rev());
        for cells in &mut self.cells {
            cells.clear();
            cells.resize(a.len() + 2, f64::INFINITY);
        }
        // Where every path begins: before the first cell of both.
        self.cells[1][0] = 0.0;
        let Diagonals { cells, reversed } = self;
        sweep(a, reversed, band, limit, cells)
    }
}

/// Row `i` of a diagonal stands at `i + 1`; the places on both sides of its ends are infinite.
fn sweep(a: &[f64], reversed: &[f64], band: Band, limit: f64, cells: &mut [Vec<f64>; 3]) -> Option<f64> {
    let (n, m) = (a.len(), reversed.len());
    let [one, two, three] = cells;
    // What was before, what was before that, and what is made.
    let (mut last, mut older, mut made) = (&mut one[..], &mut two[..], &mut three[..]);
    for diagonal in 0..n + m - 1 {
        let (low, high) = band.rows(diagonal, n);
        let width = high + 1 - low;
        // On a diagonal the columns go down as the rows go up.
        let from = m - 1 + low - diagonal.min(m - 1 + low);
        let series = a[low..=high].iter().zip(&reversed[from..from + width]);
        let before = last[low + 1..].iter().zip(&last[low..]).zip(&older[low..]);
        for ((cell, (x, y)), ((left, up), both)) in made[low + 1..=high + 1].iter_mut().zip(series).zip(before) {
            *cell = least(least(*left, *up), *both) + (x - y) * (x - y);
        }
        made[low] = f64::INFINITY;
        made[high + 2] = f64::INFINITY;
        if limit < f64::INFINITY && diagonal % CHECK_EVERY == 0 {
            // Every path has a cell on one of two neighbouring diagonals.
            let beyond = |cells: &[f64]| cells.iter().all(|cost| *cost > limit);
            if beyond(&made[low..=high + 2]) && beyond(&last[low..=high + 2]) {
                return None;
            }
        }
        let oldest = older;
        older = last;
        last = made;
        made = oldest;
    }
    Some(last[n])
}

/// Looking costs about as much as making a diagonal.
const CHECK_EVERY: usize = 8;

#[inline(always)]
fn least(a: f64, b: f64) -> f64 {
    if a < b { a } else { b }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every cell, one after the other.
    fn naive(a: &[f64], b: &[f64], band: Band) -> f64 {
        let mut cells = vec![vec![f64::INFINITY; b.len() + 1]; a.len() + 1];
        cells[0][0] = 0.0;
        for i in 0..a.len() {
            let (low, high) = band.columns(i);
            for j in low..=high {
                let best = least(least(cells[i][j], cells[i][j + 1]), cells[i + 1][j]);
                cells[i + 1][j + 1] = best + (a[i] - b[j]) * (a[i] - b[j]);
            }
        }
        cells[a.len()][b.len()]
    }

    fn series() -> impl Strategy<Value = Vec<f64>> {
        proptest::collection::vec(-10.0..10.0_f64, 1..60)
    }

    proptest! {
        #[test]
        fn it_is_the_naive_one(a in series(), b in series(), window in 0..70_usize) {
            let band = Band::new(a.len(), b.len(), window);
            let mut diagonals = Diagonals::default();
            let expect = naive(&a, &b, band);
            prop_assert_eq!(diagonals.cost(&a, &b, band, f64::INFINITY), Some(expect));
            // What is left over from another call doesn't matter.
            prop_assert_eq!(diagonals.cost(&a, &b, band, expect), Some(expect));
            let abandoned = diagonals.cost(&a, &b, band, expect * 0.5);
            prop_assert!(abandoned.is_none_or(|cost| cost == expect));
        }
    }
}
