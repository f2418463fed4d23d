//! Many columns at once: a row that is odd as a whole, a small lasting shift, a broken relation between columns.

use serde::{Deserialize, Serialize};

use super::pca::evidence;
use super::scale::Scale;
use super::symmetric::{Square, eigen, solve};
use super::tail::Tail;

/// The weight of the newest row in the moving average.
const WEIGHT: f64 = 0.2;
/// One value counts as at most this many spreads when it is scored, and when it is learned.
const REACH: f64 = 20.0;
const LEARNED: f64 = 5.0;
/// The share of variance that the components of the SPE carry.
const CARRIED: f64 = 0.9;
/// Components are taken anew after so many rows.
const REFRESH: u32 = 16;
/// Most columns; what is beyond is not looked at.
pub const MOST_COLUMNS: usize = 64;

/// Which statistic is the rarest for a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statistic {
    /// Hotelling's T² of the row itself.
    T2,
    /// T² of the moving average: MEWMA (Lowry et al. 1992), for small shifts that last.
    Mewma,
    /// Squared prediction error of the principal components: relations between columns.
    Spe,
}

impl Statistic {
    const ALL: [Statistic; 3] = [Statistic::T2, Statistic::Mewma, Statistic::Spe];

    /// The word in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Statistic::T2 => "t2",
            Statistic::Mewma => "mewma",
            Statistic::Spe => "spe",
        }
    }
}

/// What is said of a row.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    /// How often a row of the past was as odd: three times the least of the three tail probabilities (Bonferroni).
    pub probability: f64,
    /// The rarest statistic.
    pub statistic: Statistic,
    /// Its value.
    pub value: f64,
    /// What each column adds to it; the sum is the value.
    pub parts: Vec<f64>,
}

/// T², MEWMA and SPE over columns whose level, spread and correlation are learned on the way.
///
/// Constant memory: the square of the columns. Correlations are shrunk towards none by
/// `columns / (columns + rows)` (as Ledoit & Wolf 2004 do), so that fewer rows than columns give a defined answer.
/// A column may be absent (NaN: it adds nothing) and may join later.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Mewma {
    scales: Vec<Scale>,
    /// Forgetting means of products of two columns, row by row.
    products: Vec<f64>,
    average: Vec<f64>,
    rows: f64,
    memory: f64,
    components: Vec<(f64, Vec<f64>)>,
    age: u32,
    tails: [Tail; 3],
}

impl Mewma {
    /// Everything learned is forgotten with a weight of `1/memory` a row.
    pub fn new(memory: f64) -> Self {
        let tail = Tail::new(memory);
        Mewma {
            scales: Vec::new(),
            products: Vec::new(),
            average: Vec::new(),
            rows: 0.0,
            memory: memory.max(1.0),
            components: Vec::new(),
            age: 0,
            tails: [tail.clone(), tail.clone(), tail],
        }
    }

    /// Scores a row, then learns it; `None` for the first 36 or so, and for a row without a value. A value that isn't finite is absent.
    pub fn score(&mut self, row: &[f64]) -> Option<Verdict> {
        let row = &row[..row.len().min(MOST_COLUMNS)];
        if row.iter().all(|x| !x.is_finite()) {
            return None;
        }
        self.widen(row.len());
        let size = self.scales.len();
        let mut z = vec![0.0; size];
        let mut started = false;
        for ((z, x), scale) in z.iter_mut().zip(row).zip(&mut self.scales) {
            if x.is_finite() {
                let found = scale.z(*x);
                started |= !found.is_nan();
                *z = if found.is_nan() {
                    0.0
                } else {
                    found.clamp(-REACH, REACH)
                };
                scale.learn(*x);
            }
        }
        if !started {
            return None;
        }
        let verdict = self.judge(&z);
        self.learn(&z);
        verdict
    }

    fn judge(&mut self, z: &[f64]) -> Option<Verdict> {
        for (average, z) in self.average.iter_mut().zip(z) {
            *average += WEIGHT * (z - *average);
        }
        // Two rows are the least that say anything of a relation.
        if self.rows < 2.0 {
            return None;
        }
        let correlation = self.correlation();
        if self.components.is_empty() || self.age >= REFRESH {
            self.components = carrying(&correlation);
            self.age = 0;
        }
        let quadratic = |x: &[f64], factor: f64| -> Vec<f64> {
            let solved = solve(&correlation, x).unwrap_or_else(|| x.to_vec());
            solved.iter().zip(x).map(|(a, b)| factor * a * b).collect()
        };
        let parts = [
            quadratic(z, 1.0),
            quadratic(&self.average, (2.0 - WEIGHT) / WEIGHT),
            evidence(&self.components, z).spe_parts,
        ];
        let mut best: Option<Verdict> = None;
        for ((parts, tail), statistic) in parts.into_iter().zip(&mut self.tails).zip(Statistic::ALL) {
            let value = parts.iter().sum::<f64>().max(0.0);
            let probability = (3.0 * tail.probability(value)).min(1.0);
            tail.learn(value);
            if !probability.is_nan() && best.as_ref().is_none_or(|best| probability < best.probability) {
                best = Some(Verdict {
                    probability,
                    statistic,
                    value,
                    parts,
                });
            }
        }
        best
    }

    fn learn(&mut self, z: &[f64]) {
        self.age += 1;
        self.rows = (self.rows + 1.0).min(self.memory);
        let weight = 1.0 / self.rows;
        let size = z.len();
        for (i, a) in z.iter().enumerate() {
            for (j, b) in z.iter().enumerate() {
                let product = a.clamp(-LEARNED, LEARNED) * b.clamp(-LEARNED, LEARNED);
                self.products[i * size + j] += weight * (product - self.products[i * size + j]);
            }
        }
    }

    fn widen(&mut self, size: usize) {
        let old = self.scales.len();
        if size <= old {
            return;
        }
        self.scales.resize_with(size, || Scale::new(self.memory));
        self.average.resize(size, 0.0);
        let mut products = vec![0.0; size * size];
        for (row, known) in self.products.chunks_exact(old.max(1)).enumerate() {
            products[row * size..row * size + old].copy_from_slice(known);
        }
        self.products = products;
        self.components.clear();
    }

    /// The shrunk correlation; 1 on the diagonal, also for a column that never changed.
    fn correlation(&self) -> Square {
        let size = self.scales.len();
        let kept = self.rows / (self.rows + size as f64);
        let mut matrix = Square::zero(size);
        for i in 0..size {
            for j in 0..size {
                let both = (self.products[i * size + i] * self.products[j * size + j]).sqrt();
                let value = if both > 1e-12 {
                    kept * (self.products[i * size + j] / both).clamp(-1.0, 1.0)
                } else {
                    0.0
                };
                *matrix.at_mut(i, j) = if i == j { 1.0 } else { value };
            }
        }
        matrix
    }

    /// False where state from outside doesn't fit together.
    pub fn is_whole(&self) -> bool {
        let size = self.scales.len();
        let sized = size <= MOST_COLUMNS && self.products.len() == size * size && self.average.len() == size;
        let numbers = self
            .products
            .iter()
            .chain(&self.average)
            .all(|x| x.abs() <= REACH * REACH);
        let components = self.components.iter().all(|(variance, direction)| {
            *variance > 0.0 && direction.len() == size && direction.iter().all(|p| p.abs() <= 2.0)
        });
        let whole = self.scales.iter().all(Scale::is_whole) && self.tails.iter().all(Tail::is_whole);
        sized
            && numbers
            && components
            && whole
            && (0.0..1e15).contains(&self.rows)
            && (1.0..1e15).contains(&self.memory)
    }
}

/// The greatest components that together carry [`CARRIED`] of the variance.
fn carrying(correlation: &Square) -> Vec<(f64, Vec<f64>)> {
    let mut components = eigen(correlation);
    let mut carried = 0.0;
    let enough = components.iter().position(|(variance, _)| {
        carried += variance;
        carried >= CARRIED * correlation.size as f64
    });
    // The least one is always left out, else there would be no SPE.
    components.truncate(
        enough
            .map_or(0, |place| place + 1)
            .min(correlation.size.saturating_sub(1)),
    );
    components.retain(|(variance, _)| *variance > 1e-12);
    components
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::kernels::anomaly::random::Random;

    fn row(random: &mut Random) -> Vec<f64> {
        let x = random.normal();
        vec![10.0 + x, 2.0 * x + 0.1 * random.normal(), 1e6 * random.normal(), 7.0]
    }

    fn learned(rows: usize) -> (Mewma, Random) {
        let (mut mewma, mut random) = (Mewma::new(500.0), Random::new(3));
        (0..rows).for_each(|_| drop(mewma.score(&row(&mut random))));
        (mewma, random)
    }

    #[test]
    fn names_the_statistic_and_the_column() {
        let check = |odd: &[f64], statistic: Statistic, column: usize| {
            let verdict = learned(600).0.score(odd).unwrap();
            assert!(verdict.probability < 1e-3, "{verdict:?}");
            let first = (0..4).max_by(|a, b| verdict.parts[*a].total_cmp(&verdict.parts[*b]));
            assert_eq!((verdict.statistic, first), (statistic, Some(column)), "{verdict:?}");
            assert!((verdict.parts.iter().sum::<f64>() - verdict.value).abs() < 1e-9 * verdict.value);
        };
        check(&[10.0, 0.0, 9e6, 7.0], Statistic::T2, 2);
        check(&[10.0, 0.0, 0.0, 8.0], Statistic::T2, 3);
    }

    #[test]
    fn a_small_shift_that_lasts_is_seen_by_the_average() {
        let (mut mewma, mut random) = learned(600);
        let shifted = |random: &mut Random| {
            let mut row = row(random);
            row[2] += 2e6;
            row
        };
        let verdicts: Vec<Verdict> = (0..8).map(|_| mewma.score(&shifted(&mut random)).unwrap()).collect();
        let seen = verdicts.iter().find(|v| v.probability < 1e-3).unwrap();
        assert_eq!(seen.statistic, Statistic::Mewma);
    }

    #[test]
    fn odd_rows() {
        let (mut mewma, mut random) = (Mewma::new(100.0), Random::new(1));
        assert!(mewma.score(&[]).is_none() && mewma.score(&[f64::NAN, f64::INFINITY]).is_none());
        for number in 0..400 {
            let x = random.normal();
            let row = match number % 7 {
                0 => vec![x],
                1 => vec![1e308, -1e308, x],
                2 => vec![f64::NAN, x, x],
                _ => vec![x, 1.0, -x, x, f64::NEG_INFINITY],
            };
            if let Some(verdict) = mewma.score(&row) {
                assert!((0.0..=1.0).contains(&verdict.probability), "{verdict:?}");
                assert!(verdict.parts.iter().all(|part| part.is_finite()), "{verdict:?}");
            }
            assert!(mewma.is_whole());
        }
        assert!(
            mewma
                .score(&vec![1.0; 500])
                .is_none_or(|verdict| verdict.parts.len() == MOST_COLUMNS)
        );
    }
}
