//! T² and SPE of a principal component model, with contributions.

use super::symmetric::{Square, eigen};
use crate::kernels::stats::quantile;

/// Principal components of standardised columns, fitted on normal rows.
#[derive(Clone, Debug)]
pub struct Pca {
    mean: Vec<f64>,
    /// Standard deviation of each column; 0 for one that never changed.
    spread: Vec<f64>,
    /// Variance and direction of each component, greatest first.
    components: Vec<(f64, Vec<f64>)>,
}

/// A row held against a model: two statistics, and what each column adds to them.
#[derive(Clone, Debug, PartialEq)]
pub struct Evidence {
    /// Hotelling's T²: how far the row is from the mean within the model's directions, in their variances.
    pub t2: f64,
    /// Squared prediction error (Q): what lies outside of these directions, in squared spreads of the columns.
    pub spe: f64,
    /// What each column adds to T²; the sum is T². A column may take away.
    pub t2_parts: Vec<f64>,
    /// What each column adds to the SPE; the sum is the SPE.
    pub spe_parts: Vec<f64>,
}

impl Pca {
    /// Fits `components` directions on rows of equal length (Jackson & Mudholkar 1979). Rows with a value that isn't
    /// finite are left out. `None` for fewer than two rows, or rows of several lengths.
    pub fn fit(rows: &[Vec<f64>], components: usize) -> Option<Self> {
        let size = rows.first()?.len();
        if rows.iter().any(|row| row.len() != size) {
            return None;
        }
        let rows: Vec<&Vec<f64>> = rows.iter().filter(|row| row.iter().all(|x| x.abs() <= 1e150)).collect();
        if rows.len() < 2 {
            return None;
        }
        let n = rows.len() as f64;
        let column = |i: usize| rows.iter().map(move |row| row[i]);
        let mean: Vec<f64> = (0..size).map(|i| column(i).sum::<f64>() / n).collect();
        let variance = |i: usize| column(i).map(|x| (x - mean[i]).powi(2)).sum::<f64>() / (n - 1.0);
        let spread: Vec<f64> = (0..size).map(|i| variance(i).sqrt()).collect();
        let unfitted = Pca {
            mean,
            spread,
            components: Vec::new(),
        };
        let mut correlation = Square::zero(size);
        for row in rows {
            let z = unfitted.standardised(row);
            for (i, a) in z.iter().enumerate() {
                for (j, b) in z.iter().enumerate() {
                    *correlation.at_mut(i, j) += a * b / (n - 1.0);
                }
            }
        }
        let mut components_of = eigen(&correlation);
        components_of.truncate(components);
        components_of.retain(|(variance, _)| *variance > 1e-12);
        Some(Pca {
            components: components_of,
            ..unfitted
        })
    }

    /// A row's statistics; `None` where it has another length than the fitted rows or a value that isn't finite.
    pub fn evidence(&self, row: &[f64]) -> Option<Evidence> {
        if row.len() != self.mean.len() || row.iter().any(|x| !x.is_finite()) {
            return None;
        }
        Some(evidence(&self.components, &self.standardised(row)))
    }

    /// The limits that this share of rows keeps: empirical quantiles of T² and SPE over normal rows, better ones than
    /// those fitted on.
    pub fn limits(&self, rows: &[Vec<f64>], share: f64) -> (f64, f64) {
        let all: Vec<Evidence> = rows.iter().filter_map(|row| self.evidence(row)).collect();
        let of = |get: fn(&Evidence) -> f64| quantile(&all.iter().map(get).collect::<Vec<f64>>(), share);
        (of(|e| e.t2), of(|e| e.spe))
    }

    fn standardised(&self, row: &[f64]) -> Vec<f64> {
        let columns = row.iter().zip(&self.mean).zip(&self.spread);
        columns
            .map(|((x, mean), spread)| {
                if *spread > 0.0 {
                    ((x - mean) / spread).clamp(-1e6, 1e6)
                } else {
                    0.0
                }
            })
            .collect()
    }
}

/// T² and SPE of a standardised row: `t2 = Σ (pₖ·z)² / λₖ`, split by column as `zᵢ Σ pₖᵢ (pₖ·z) / λₖ`; SPE of what the
/// components leave (Miller, Swanson, Heckler 1998).
pub(crate) fn evidence(components: &[(f64, Vec<f64>)], z: &[f64]) -> Evidence {
    let (mut left, mut weighted) = (z.to_vec(), vec![0.0; z.len()]);
    for (variance, direction) in components {
        let score: f64 = direction.iter().zip(z).map(|(p, z)| p * z).sum();
        for (i, p) in direction.iter().enumerate() {
            left[i] -= score * p;
            weighted[i] += p * score / variance;
        }
    }
    let t2_parts: Vec<f64> = weighted.iter().zip(z).map(|(w, z)| w * z).collect();
    let spe_parts: Vec<f64> = left.iter().map(|e| e * e).collect();
    Evidence {
        t2: t2_parts.iter().sum::<f64>().max(0.0),
        spe: spe_parts.iter().sum(),
        t2_parts,
        spe_parts,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::kernels::anomaly::random::Random;

    /// Rows in which the second column is twice the first and the third is noise.
    fn rows() -> Vec<Vec<f64>> {
        let mut random = Random::new(3);
        let mut row = || {
            let x = random.normal();
            vec![10.0 + x, 2.0 * x + 0.1 * random.normal(), random.normal()]
        };
        (0..500).map(|_| row()).collect()
    }

    #[test]
    fn a_broken_relation_is_in_the_spe_and_a_far_row_in_t2() {
        let model = Pca::fit(&rows(), 2).unwrap();
        let (t2, spe) = model.limits(&rows(), 0.99);
        let broken = model.evidence(&[11.0, -2.0, 0.0]).unwrap();
        assert!(
            broken.spe > 10.0 * spe && broken.spe_parts[2] < 0.1 * broken.spe,
            "{broken:?}"
        );
        let far = model.evidence(&[15.0, 10.0, 0.0]).unwrap();
        assert!(far.t2 > t2 && far.spe < spe, "{far:?}");
    }

    #[test]
    fn all_components_give_the_whole_distance() {
        // With every direction T² is the Mahalanobis distance, and nothing is left.
        let model = Pca::fit(&rows(), 3).unwrap();
        let evidence = model.evidence(&[11.0, 1.0, 3.0]).unwrap();
        let z = model.standardised(&[11.0, 1.0, 3.0]);
        let mut correlation = Square::zero(3);
        for (variance, direction) in &model.components {
            for i in 0..3 {
                for j in 0..3 {
                    *correlation.at_mut(i, j) += variance * direction[i] * direction[j];
                }
            }
        }
        let solved = super::super::symmetric::solve(&correlation, &z).unwrap();
        let distance: f64 = solved.iter().zip(&z).map(|(a, b)| a * b).sum();
        assert!((evidence.t2 - distance).abs() < 1e-6 * distance && evidence.spe < 1e-9);
        assert!((evidence.t2_parts.iter().sum::<f64>() - evidence.t2).abs() < 1e-9 * distance);
    }

    #[test]
    fn odd_rows() {
        assert!(Pca::fit(&[], 2).is_none() && Pca::fit(&[vec![1.0]], 2).is_none());
        assert!(Pca::fit(&[vec![1.0], vec![1.0, 2.0]], 2).is_none());
        assert!(Pca::fit(&[vec![1.0], vec![f64::NAN]], 2).is_none());
        let constant = Pca::fit(&[vec![1.0, 2.0], vec![1.0, 3.0]], 2).unwrap();
        assert_eq!(constant.evidence(&[5.0, 2.5]).unwrap().t2, 0.0);
        assert!(constant.evidence(&[f64::INFINITY, 2.5]).is_none() && constant.evidence(&[2.5]).is_none());
        assert!(constant.evidence(&[1e308, -1e308]).unwrap().t2.is_finite());
        assert!(constant.limits(&[], 0.99).0.is_nan());
    }
}
