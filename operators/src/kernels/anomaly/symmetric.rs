//! Symmetric matrices of a few dozen rows: eigenvectors, and solving.

/// A square matrix, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct Square {
    /// Rows and columns.
    pub size: usize,
    /// `size * size` numbers.
    pub values: Vec<f64>,
}

impl Square {
    /// All zero.
    pub fn zero(size: usize) -> Self {
        Square {
            size,
            values: vec![0.0; size * size],
        }
    }

    /// The number in a row and column.
    pub fn at(&self, row: usize, column: usize) -> f64 {
        self.values[row * self.size + column]
    }

    /// The same, to be set.
    pub fn at_mut(&mut self, row: usize, column: usize) -> &mut f64 {
        &mut self.values[row * self.size + column]
    }
}

/// Eigenvalues of a symmetric matrix, greatest first, and its eigenvectors in the same order, each of length one.
///
/// Cyclic Jacobi rotations (Golub & Van Loan, Matrix Computations, 8.5), at most 60 sweeps; numbers must be finite. The
/// sign of a vector is that which makes its greatest coordinate positive.
pub fn eigen(matrix: &Square) -> Vec<(f64, Vec<f64>)> {
    let size = matrix.size;
    let mut a = matrix.clone();
    let mut v = Square::zero(size);
    (0..size).for_each(|i| *v.at_mut(i, i) = 1.0);
    let total: f64 = a.values.iter().map(|x| x * x).sum();
    for _ in 0..60 {
        let off: f64 = (0..size)
            .flat_map(|i| (0..i).map(move |j| (i, j)))
            .map(|(i, j)| a.at(i, j).powi(2))
            .sum();
        if off <= 1e-28 * total {
            break;
        }
        for p in 0..size {
            for q in p + 1..size {
                rotate(&mut a, &mut v, p, q);
            }
        }
    }
    let mut found: Vec<(f64, Vec<f64>)> = (0..size)
        .map(|column| {
            let vector: Vec<f64> = (0..size).map(|row| v.at(row, column)).collect();
            let greatest = vector
                .iter()
                .fold(0.0_f64, |best, x| if x.abs() > best.abs() { *x } else { best });
            (
                a.at(column, column),
                vector.iter().map(|x| x * greatest.signum()).collect(),
            )
        })
        .collect();
    found.sort_by(|a, b| b.0.total_cmp(&a.0));
    found
}

/// Makes the number at (p, q) zero.
fn rotate(a: &mut Square, v: &mut Square, p: usize, q: usize) {
    let off = a.at(p, q);
    if off == 0.0 {
        return;
    }
    let theta = (a.at(q, q) - a.at(p, p)) / (2.0 * off);
    let tangent = theta.signum() / (theta.abs() + (1.0 + theta * theta).sqrt());
    let cos = 1.0 / (1.0 + tangent * tangent).sqrt();
    let sin = tangent * cos;
    for k in 0..a.size {
        let (x, y) = (a.at(k, p), a.at(k, q));
        (*a.at_mut(k, p), *a.at_mut(k, q)) = (cos * x - sin * y, sin * x + cos * y);
    }
    for k in 0..a.size {
        let (x, y) = (a.at(p, k), a.at(q, k));
        (*a.at_mut(p, k), *a.at_mut(q, k)) = (cos * x - sin * y, sin * x + cos * y);
        let (x, y) = (v.at(k, p), v.at(k, q));
        (*v.at_mut(k, p), *v.at_mut(k, q)) = (cos * x - sin * y, sin * x + cos * y);
    }
}

/// Solves `matrix · x = right` by Cholesky's factors; `None` where the matrix isn't positive definite.
pub fn solve(matrix: &Square, right: &[f64]) -> Option<Vec<f64>> {
    let size = matrix.size;
    let mut l = Square::zero(size);
    for i in 0..size {
        for j in 0..=i {
            let products = (0..j).map(|k| l.at(i, k) * l.at(j, k));
            let rest = matrix.at(i, j) - products.sum::<f64>();
            if i > j {
                *l.at_mut(i, j) = rest / l.at(j, j);
            } else if rest > 0.0 && rest.is_finite() {
                *l.at_mut(i, i) = rest.sqrt();
            } else {
                return None;
            }
        }
    }
    let mut x = right.to_vec();
    for i in 0..size {
        let known: f64 = (0..i).map(|k| l.at(i, k) * x[k]).sum();
        x[i] = (x[i] - known) / l.at(i, i);
    }
    for i in (0..size).rev() {
        let known: f64 = (i + 1..size).map(|k| l.at(k, i) * x[k]).sum();
        x[i] = (x[i] - known) / l.at(i, i);
    }
    Some(x)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `b · bᵀ`, which is never negative.
    fn gram(b: &[f64], size: usize) -> Square {
        let mut a = Square::zero(size);
        for i in 0..size {
            for j in 0..size {
                *a.at_mut(i, j) = (0..size).map(|k| b[i * size + k] * b[j * size + k]).sum();
            }
        }
        a
    }

    proptest! {
        #[test]
        fn eigenvectors_are_only_stretched(b in prop::collection::vec(-3.0..3.0f64, 25)) {
            let a = gram(&b, 5);
            let found = eigen(&a);
            prop_assert!(found.is_sorted_by(|a, b| a.0 >= b.0));
            for (i, (value, vector)) in found.iter().enumerate() {
                for row in 0..5 {
                    let image: f64 = (0..5).map(|k| a.at(row, k) * vector[k]).sum();
                    prop_assert!((image - value * vector[row]).abs() < 1e-9 * (1.0 + found[0].0));
                }
                for (j, (_, other)) in found.iter().enumerate() {
                    let product: f64 = vector.iter().zip(other).map(|(a, b)| a * b).sum();
                    prop_assert!((product - f64::from(i == j)).abs() < 1e-9);
                }
            }
        }

        #[test]
        fn solutions_solve(b in prop::collection::vec(-3.0..3.0f64, 16), right in prop::array::uniform4(-3.0..3.0f64)) {
            let mut a = gram(&b, 4);
            (0..4).for_each(|i| *a.at_mut(i, i) += 0.1);
            let x = solve(&a, &right).expect("positive definite");
            for (row, right) in right.iter().enumerate() {
                let image: f64 = (0..4).map(|k| a.at(row, k) * x[k]).sum();
                prop_assert!((image - right).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn odd_matrices() {
        assert!(eigen(&Square::zero(0)).is_empty());
        assert_eq!(eigen(&Square::zero(1)), [(0.0, vec![1.0])]);
        assert_eq!(solve(&Square::zero(2), &[1.0, 1.0]), None);
        assert_eq!(
            solve(
                &Square {
                    size: 1,
                    values: vec![f64::NAN]
                },
                &[1.0]
            ),
            None
        );
        assert_eq!(solve(&Square::zero(0), &[]), Some(vec![]));
    }
}
