//! Which points the best alignment matches, and what each channel adds to its cost.

use super::{Band, finite, square};

/// The distance of `a` and `b` and the pairs of indices that the best alignment matches, from `(0, 0)` to the last two.
/// Takes one byte per cell of the band. Among equal paths the most diagonal one is given. No path when a series is
/// empty or the distance is NaN.
///
/// ```
/// use taktline_operators::kernels::dtw::dtw_path;
/// let (distance, path) = dtw_path(&[0.0, 1.0, 2.0], &[0.0, 1.0, 1.0, 2.0], 1);
/// assert_eq!((distance, path), (0.0, vec![(0, 0), (1, 1), (1, 2), (2, 3)]));
/// ```
pub fn dtw_path(a: &[f64], b: &[f64], window: usize) -> (f64, Vec<(usize, usize)>) {
    dtw_path_dependent(&[a], &[b], window)
}

/// As [`dtw_path`], of series with the same channels and one alignment for all of them; a series is as long as its shortest channel.
pub fn dtw_path_dependent(a: &[&[f64]], b: &[&[f64]], window: usize) -> (f64, Vec<(usize, usize)>) {
    let length = |channels: &[&[f64]]| channels.iter().map(|channel| channel.len()).min().unwrap_or(0);
    let (n, m) = (length(a), length(b));
    if !a.iter().chain(b).all(|channel| finite(channel)) {
        return (f64::NAN, Vec::new());
    }
    if n == 0 || m == 0 {
        return (if n == m { 0.0 } else { f64::INFINITY }, Vec::new());
    }
    let band = Band::new(n, m, window);
    let mut above = vec![f64::INFINITY; m + 1];
    let mut row = above.clone();
    above[0] = 0.0;
    let mut moves: Vec<Vec<Move>> = Vec::with_capacity(n);
    for i in 0..n {
        let (low, high) = band.columns(i);
        row.fill(f64::INFINITY);
        let mut chosen = Vec::with_capacity(high + 1 - low);
        for j in low + 1..=high + 1 {
            let (mut best, mut from) = (above[j - 1], Move::Both);
            for (cost, step) in [(above[j], Move::Row), (row[j - 1], Move::Column)] {
                if cost < best {
                    (best, from) = (cost, step);
                }
            }
            let cost: f64 = a.iter().zip(b).map(|(a, b)| square(a[i] - b[j - 1])).sum();
            row[j] = best + cost;
            chosen.push(from);
        }
        moves.push(chosen);
        std::mem::swap(&mut above, &mut row);
    }
    let (mut i, mut j) = (n - 1, m - 1);
    let mut path = vec![(i, j)];
    while (i, j) != (0, 0) {
        // On the border there is one way only, also where all costs overflow.
        let step = if i == 0 {
            Move::Column
        } else if j == 0 {
            Move::Row
        } else {
            moves[i][j - band.columns(i).0]
        };
        i -= usize::from(step != Move::Column);
        j -= usize::from(step != Move::Row);
        path.push((i, j));
    }
    path.reverse();
    (above[m].sqrt(), path)
}

/// The summed squared cost of each channel along a path of [`dtw_path_dependent`]; together they are the square of its distance.
///
/// ```
/// use taktline_operators::kernels::dtw::{channel_costs, dtw_path_dependent};
/// let (a, b) = ([&[0.0, 1.0][..], &[5.0, 5.0]], [&[0.0, 1.0][..], &[5.0, 7.0]]);
/// let (distance, path) = dtw_path_dependent(&a, &b, 1);
/// assert_eq!((distance, channel_costs(&a, &b, &path)), (2.0, vec![0.0, 4.0]));
/// ```
pub fn channel_costs(a: &[&[f64]], b: &[&[f64]], path: &[(usize, usize)]) -> Vec<f64> {
    let cost = |(a, b): (&&[f64], &&[f64])| path.iter().map(|(i, j)| square(a[*i] - b[*j])).sum();
    a.iter().zip(b).map(cost).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Move {
    Both,
    Row,
    Column,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::kernels::dtw::Scratch;

    fn series() -> impl Strategy<Value = Vec<f64>> {
        prop_oneof![
            prop::collection::vec(-10.0..10.0f64, 0..40),
            prop::collection::vec((-2i32..3).prop_map(f64::from), 0..40),
        ]
    }

    fn check(a: &[&[f64]], b: &[&[f64]], window: usize) {
        let (distance, path) = dtw_path_dependent(a, b, window);
        assert_eq!(
            Some(distance),
            Scratch::default().dtw_dependent(a, b, window, f64::INFINITY)
        );
        let steps = path.windows(2).map(|p| (p[1].0 - p[0].0, p[1].1 - p[0].1));
        assert!(steps.into_iter().all(|step| matches!(step, (0, 1) | (1, 0) | (1, 1))));
        if let (Some(first), Some(last)) = (path.first(), path.last()) {
            assert_eq!((*first, *last), ((0, 0), (a[0].len() - 1, b[0].len() - 1)));
            let cost: f64 = channel_costs(a, b, &path).iter().sum();
            assert!((cost.sqrt() - distance).abs() < 1e-9);
        }
    }

    #[test]
    fn small_cases() {
        assert_eq!(dtw_path(&[], &[], 1), (0.0, vec![]));
        assert_eq!(dtw_path(&[], &[1.0], 1), (f64::INFINITY, vec![]));
        assert!(dtw_path(&[f64::NAN], &[1.0], 1).0.is_nan());
        let huge = dtw_path(&[1e308, 0.0], &[-1e308, 0.0], 1);
        assert_eq!((huge.0, huge.1.last()), (f64::INFINITY, Some(&(1, 1))));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]

        #[test]
        fn it_is_a_path_of_that_cost(a in series(), b in series(), window in 0usize..40) {
            check(&[&a], &[&b], window);
            let second = |first: &[f64]| -> Vec<f64> { first.iter().map(|x| x * x - 3.0).collect() };
            check(&[&a, &second(&a)], &[&b, &second(&b)], window);
        }
    }
}
