//! Other ways of aligning two series, in one frame: by common points (LCSS), edits (EDR), edits with a gap value (ERP) and
//! moves, splits and merges (MSM).
//!
//! The window is that of [`super::dtw`], in samples. A value that is not finite, or a setting that makes no sense (a negative or NaN
//! tolerance or price, a gap that is not finite), makes the result NaN. Each takes as many steps as the band has cells.

use super::dtw::{Band, finite};

/// 1 less the share of the shorter series that is in the longest common subsequence: points in order that differ by at most
/// `tolerance` (Vlachos, Kollios & Gunopulos 2002). Between 0 and 1; two empty series are 0 apart, an empty and another one 1.
///
/// ```
/// use taktline_operators::kernels::elastic::lcss;
/// assert_eq!(lcss(&[1.0, 9.0, 2.0, 3.0], &[1.0, 2.0, 7.0, 3.0], 0.5, 2), 0.25);
/// ```
pub fn lcss(a: &[f64], b: &[f64], tolerance: f64, window: usize) -> f64 {
    if !(finite(a) && finite(b) && tolerance >= 0.0) {
        return f64::NAN;
    }
    let shorter = a.len().min(b.len());
    if shorter == 0 {
        return if a.len() == b.len() { 0.0 } else { 1.0 };
    }
    // As a cost: less one for each common point.
    let common = align(
        (a.len(), b.len()),
        window,
        |_| 0.0,
        |_| 0.0,
        |i, j, near| {
            if (a[i] - b[j]).abs() <= tolerance {
                near.both - 1.0
            } else {
                near.both.min(near.up).min(near.left)
            }
        },
    );
    1.0 + common / shorter as f64
}

/// How many points must be changed, added or left out until all differ by at most `tolerance` (Chen, Özsu & Oria 2005).
///
/// ```
/// use taktline_operators::kernels::elastic::edr;
/// assert_eq!(edr(&[1.0, 9.0, 2.0, 3.0], &[1.0, 2.0, 7.0, 3.0], 0.5, 2), 2.0);
/// ```
pub fn edr(a: &[f64], b: &[f64], tolerance: f64, window: usize) -> f64 {
    if !(finite(a) && finite(b) && tolerance >= 0.0) {
        return f64::NAN;
    }
    let count = |points: usize| points as f64;
    align((a.len(), b.len()), window, count, count, |i, j, near| {
        let change = if (a[i] - b[j]).abs() <= tolerance { 0.0 } else { 1.0 };
        (near.both + change).min(near.up + 1.0).min(near.left + 1.0)
    })
}

/// Summed difference of matched points; one without a partner is matched with `gap` (Chen & Ng 2004). A metric.
///
/// ```
/// use taktline_operators::kernels::elastic::erp;
/// assert_eq!(erp(&[1.0, 9.0, 2.0], &[1.0, 2.0], 0.0, 2), 9.0);
/// ```
pub fn erp(a: &[f64], b: &[f64], gap: f64, window: usize) -> f64 {
    if !(finite(a) && finite(b) && gap.is_finite()) {
        return f64::NAN;
    }
    let alone = |series: &[f64], points: usize| series[..points].iter().map(|value| (value - gap).abs()).sum();
    align(
        (a.len(), b.len()),
        window,
        |i| alone(a, i),
        |j| alone(b, j),
        |i, j, near| {
            let matched = near.both + (a[i] - b[j]).abs();
            matched
                .min(near.up + (a[i] - gap).abs())
                .min(near.left + (b[j] - gap).abs())
        },
    )
}

/// What it takes to make one series the other by moving values (at their difference) and by splitting points in two or merging two, at
/// `price` and what the value lies outside of its neighbours (Stefan, Athitsos & Das 2013). A metric. An empty and another
/// series are infinitely far apart.
///
/// ```
/// use taktline_operators::kernels::elastic::msm;
/// assert_eq!(msm(&[1.0, 1.0, 2.0], &[1.0, 2.0], 0.1, 2), 0.1);
/// ```
pub fn msm(a: &[f64], b: &[f64], price: f64, window: usize) -> f64 {
    if !(finite(a) && finite(b) && price >= 0.0) {
        return f64::NAN;
    }
    // A point is made of its neighbour in its own series; between it and the partner nothing is moved.
    let split = |new: f64, neighbour: f64, partner: f64| {
        let between = neighbour.min(partner) <= new && new <= neighbour.max(partner);
        let moved = (new - neighbour).abs().min((new - partner).abs());
        if between { price } else { price + moved }
    };
    let none = |points: usize| if points == 0 { 0.0 } else { f64::INFINITY };
    align((a.len(), b.len()), window, none, none, |i, j, near| {
        let up = if i > 0 {
            near.up + split(a[i], a[i - 1], b[j])
        } else {
            f64::INFINITY
        };
        let left = if j > 0 {
            near.left + split(b[j], b[j - 1], a[i])
        } else {
            f64::INFINITY
        };
        (near.both + (a[i] - b[j]).abs()).min(up).min(left)
    })
}

/// The costs around a cell; infinite outside the band.
struct Near {
    both: f64,
    up: f64,
    left: f64,
}

/// The cost of the last cell. `first_rows` and `first_columns` say what so many first points of one series cost with none of the other.
fn align(
    (n, m): (usize, usize),
    window: usize,
    first_rows: impl Fn(usize) -> f64,
    first_columns: impl Fn(usize) -> f64,
    cell: impl Fn(usize, usize, Near) -> f64,
) -> f64 {
    if n == 0 || m == 0 {
        return if m == 0 { first_rows(n) } else { first_columns(m) };
    }
    let band = Band::new(n, m, window);
    let mut above = vec![f64::INFINITY; m + 1];
    for (j, cost) in above.iter_mut().enumerate().take(band.after.saturating_add(1)) {
        *cost = first_columns(j);
    }
    let mut row = vec![f64::INFINITY; m + 1];
    for i in 0..n {
        let (low, high) = band.columns(i);
        row.fill(f64::INFINITY);
        if i < band.before {
            row[0] = first_rows(i + 1);
        }
        for j in low..=high {
            let near = Near {
                both: above[j],
                up: above[j + 1],
                left: row[j],
            };
            row[j + 1] = cell(i, j, near);
        }
        std::mem::swap(&mut above, &mut row);
    }
    above[m]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Naive<'a> = &'a dyn Fn(&[f64], &[f64]) -> f64;

    /// By recursion from the last points, as the papers define it.
    fn lcss_naive(a: &[f64], b: &[f64]) -> f64 {
        let (Some((x, rest_a)), Some((y, rest_b))) = (a.split_last(), b.split_last()) else {
            return 0.0;
        };
        if (x - y).abs() <= 1.0 {
            1.0 + lcss_naive(rest_a, rest_b)
        } else {
            lcss_naive(rest_a, b).max(lcss_naive(a, rest_b))
        }
    }

    fn edr_naive(a: &[f64], b: &[f64]) -> f64 {
        let (Some((x, rest_a)), Some((y, rest_b))) = (a.split_last(), b.split_last()) else {
            return (a.len() + b.len()) as f64;
        };
        let change = f64::from(u8::from((x - y).abs() > 1.0));
        (edr_naive(rest_a, rest_b) + change)
            .min(edr_naive(rest_a, b) + 1.0)
            .min(edr_naive(a, rest_b) + 1.0)
    }

    fn erp_naive(a: &[f64], b: &[f64]) -> f64 {
        let (Some((x, rest_a)), Some((y, rest_b))) = (a.split_last(), b.split_last()) else {
            return a.iter().chain(b).map(|value| (value - 0.5).abs()).sum();
        };
        let both = erp_naive(rest_a, rest_b) + (x - y).abs();
        both.min(erp_naive(rest_a, b) + (x - 0.5).abs())
            .min(erp_naive(a, rest_b) + (y - 0.5).abs())
    }

    fn msm_naive(a: &[f64], b: &[f64]) -> f64 {
        let cost = |new: f64, neighbour: f64, partner: f64| {
            if neighbour <= new && new <= partner || partner <= new && new <= neighbour {
                0.3
            } else {
                0.3 + (new - neighbour).abs().min((new - partner).abs())
            }
        };
        match (a, b) {
            ([x], [y]) => (x - y).abs(),
            ([x], [rest @ .., before, y]) => msm_naive(a, &[rest, &[*before]].concat()) + cost(*y, *before, *x),
            ([rest @ .., before, x], [y]) => msm_naive(&[rest, &[*before]].concat(), b) + cost(*x, *before, *y),
            ([rest_a @ .., before_a, x], [rest_b @ .., before_b, y]) => {
                let (rest_a, rest_b) = ([rest_a, &[*before_a]].concat(), [rest_b, &[*before_b]].concat());
                let move_it = msm_naive(&rest_a, &rest_b) + (x - y).abs();
                let split = msm_naive(&rest_a, b) + cost(*x, *before_a, *y);
                move_it.min(split).min(msm_naive(a, &rest_b) + cost(*y, *before_b, *x))
            }
            ([], []) => 0.0,
            _ => f64::INFINITY,
        }
    }

    /// All four with the settings of the naive ones.
    fn check(a: &[f64], b: &[f64]) {
        let shorter = a.len().min(b.len()).max(1) as f64;
        let of_lcss = |a: &[f64], b: &[f64]| match a.is_empty() && b.is_empty() {
            true => 0.0,
            false => 1.0 - lcss_naive(a, b) / shorter,
        };
        let free = usize::MAX;
        let cases: [(&str, f64, Naive<'_>); 4] = [
            ("lcss", lcss(a, b, 1.0, free), &of_lcss),
            ("edr", edr(a, b, 1.0, free), &edr_naive),
            ("erp", erp(a, b, 0.5, free), &erp_naive),
            ("msm", msm(a, b, 0.3, free), &msm_naive),
        ];
        for (name, found, naive) in cases {
            let expect = naive(a, b);
            assert!(
                found == expect || (found - expect).abs() < 1e-9,
                "{name} {found}, not {expect}: {a:?} {b:?}"
            );
        }
    }

    #[test]
    fn small_cases() {
        check(&[], &[]);
        check(&[], &[1.0, 2.0]);
        check(&[3.0], &[]);
        check(&[3.0], &[1.0, 2.0, 3.0]);
        for wrong in [f64::NAN, f64::INFINITY] {
            let a = [1.0, wrong];
            let all = [
                lcss(&a, &[1.0], 1.0, 1),
                edr(&a, &[1.0], 1.0, 1),
                erp(&a, &[1.0], 0.0, 1),
                msm(&a, &[1.0], 1.0, 1),
            ];
            assert!(all.iter().all(|found| found.is_nan()), "{all:?}");
        }
        assert!(lcss(&[1.0], &[1.0], -1.0, 1).is_nan() && edr(&[1.0], &[1.0], f64::NAN, 1).is_nan());
        assert!(erp(&[1.0], &[1.0], f64::INFINITY, 1).is_nan() && msm(&[1.0], &[1.0], -0.1, 1).is_nan());
        assert_eq!(erp(&[1e308, 1e308], &[-1e308, 0.0], 0.0, 2), f64::INFINITY);
        // A window of 0 leaves the diagonal.
        assert_eq!(erp(&[0.0, 5.0, 1.0], &[5.0, 1.0, 0.0], 0.0, 0), 10.0);
        assert_eq!(edr(&[0.0, 5.0, 1.0], &[5.0, 1.0, 0.0], 0.5, 0), 3.0);
        assert_eq!(msm(&[0.0, 5.0, 1.0], &[5.0, 1.0, 0.0], 0.1, 0), 10.0);
        assert_eq!(lcss(&[0.0, 5.0, 1.0], &[5.0, 1.0, 0.0], 0.5, 0), 1.0);
    }

    fn series() -> impl Strategy<Value = Vec<f64>> {
        prop::collection::vec(prop_oneof![-3.0..3.0f64, (-2i32..3).prop_map(f64::from)], 0..7)
    }

    proptest! {
        #[test]
        fn they_are_the_naive_ones(a in series(), b in series()) {
            check(&a, &b);
        }

        #[test]
        fn a_window_never_makes_them_nearer(a in series(), b in series(), window in 0..8usize) {
            let of = |window: usize| [lcss(&a, &b, 1.0, window), edr(&a, &b, 1.0, window), erp(&a, &b, 0.5, window), msm(&a, &b, 0.3, window)];
            prop_assert!(of(window).iter().zip(of(usize::MAX)).all(|(narrow, free)| *narrow >= free));
        }
    }
}
