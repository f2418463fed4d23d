//! References of small cycles, and strange cycles held against them.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use proptest::prelude::*;

use super::*;

const DTW: Measure = Measure {
    dtw: true,
    window: 10.0,
};
const EUCLIDEAN: Measure = Measure {
    dtw: false,
    window: 10.0,
};

fn cycle(signals: &[(&str, &[f64])]) -> Arc<CycleData> {
    let series = |values: &[f64]| {
        let offsets: Vec<i64> = (0..values.len() as i64).map(|i| i * 1_000_000).collect();
        Series::new(&offsets, values, 10_000)
    };
    Arc::new(CycleData {
        signals: signals.iter().map(|(n, v)| ((*n).to_owned(), series(v))).collect(),
    })
}

fn ramp(level: f64) -> Vec<f64> {
    (0..20).map(|i| f64::from(i) + level).collect()
}

fn learn(cycles: &[Arc<CycleData>], measure: Measure) -> Reference {
    Reference::learn(cycles, None, measure, &mut Scratch::default())
}

#[test]
fn the_medoid_is_no_outlier() {
    for levels in [[0.0, 9.0, 0.1], [0.0, 0.2, 0.1], [5.0, 0.0, 0.1]] {
        let cycles: Vec<_> = levels.iter().map(|l| cycle(&[("p", &ramp(*l))])).collect();
        assert_eq!(medoid(&cycles, EUCLIDEAN, &mut Scratch::default()), 2, "{levels:?}");
    }
    let less = cycle(&[("p", &ramp(0.1))]);
    let full = cycle(&[("p", &ramp(7.0)), ("q", &ramp(0.0))]);
    assert_eq!(
        medoid(&[less.clone(), less, full], DTW, &mut Scratch::default()),
        2,
        "most signals first"
    );
}

#[test]
fn units_and_limits() {
    let levels = [0.0, 1.0, -1.0, 2.0, -2.0];
    let cycles: Vec<_> = levels.iter().map(|l| cycle(&[("p", &ramp(*l))])).collect();
    let reference = learn(&cycles, EUCLIDEAN);
    // Distances to the template are |level| × √20; their median is 1.5 × √20.
    let median = 1.0;
    assert!((reference.deviation_median - median).abs() < 1e-12);
    assert!(
        (reference.deviation_limit - (median + 3.0 * 1.4826 / 3.0)).abs() < 1e-12,
        "MAD is 1/3"
    );
    let found = reference.compare(&cycle(&[("p", &ramp(3.0))]), EUCLIDEAN, &mut Scratch::default());
    assert!((found.deviation - 2.0).abs() < 1e-12);
    let signal = &found.signals["p"];
    assert!((signal.distance - 3.0 * 20f64.sqrt()).abs() < 1e-12 && signal.dtw.is_nan());
    assert!((signal.deviation_max - 3.0).abs() < 1e-12 && (signal.deviation_mean - 3.0).abs() < 1e-12);
    // The standard deviation is √2, so the band is ± 4.24 wide.
    assert_eq!(signal.outside, 0.0);
    assert!((signal.differences[0] - 3.0).abs() < 1e-12 && signal.differences[1].abs() < 1e-12);
    let far = reference.compare(&cycle(&[("p", &ramp(5.0))]), EUCLIDEAN, &mut Scratch::default());
    assert_eq!(far.signals["p"].outside, 1.0);
}

#[test]
fn outliers_have_no_say_but_habits_do() {
    // Most lie about one step away; then one, and then four of them are far away.
    let typical = [1.0, 1.1, 0.9, 1.0, 1.2, 0.8];
    let check = |far: &[f64], least: f64, most: f64| {
        let found = spread(&[&typical, far].concat(), 0.0);
        assert!(least <= found && found <= most, "{far:?}: {found}");
    };
    check(&[1.0; 4], 0.99, 1.01);
    check(&[500.0], 0.99, 1.1);
    check(&[500.0; 4], 160.0, 170.0);
    assert_eq!((spread(&[], 100.0), spread(&[0.0; 5], 0.0)), (0.1, FLOOR));
}

#[test]
fn strange_cycles_are_compared_without_panic_or_nan() {
    let constant = vec![4.0; 20];
    let good: Vec<_> = [0.0, 0.1, 0.2, 0.3]
        .map(|l| cycle(&[("c", &constant), ("p", &ramp(l))]))
        .into();
    let reference = learn(&good, DTW);
    let long: Vec<f64> = (0..2000).map(|i| f64::from(i) / 100.0).collect();
    for (values, least) in [
        (&[5.0][..], 1.0),
        (&[1e308, -1e308, 1e308], MOST_UNITS / 2.0),
        (&[1e-320; 5], 1.0),
        (&long, 0.0),
        (&constant, 1.0),
    ] {
        let found = reference.compare(&cycle(&[("c", values), ("p", values)]), DTW, &mut Scratch::default());
        assert!(
            found.deviation >= least && found.deviation <= MOST_UNITS,
            "{}: {}",
            values.len(),
            found.deviation
        );
        let sum: f64 = found.signals.values().map(|s| s.contribution).sum();
        assert!((sum - 1.0).abs() < 1e-12);
    }
    let none = reference.compare(&cycle(&[("q", &constant)]), DTW, &mut Scratch::default());
    assert!(none.deviation.is_nan() && none.signals.is_empty());
    let huge: Vec<_> = [1e308, -1e308, 1e307].map(|v| cycle(&[("p", &[v, -v, v])])).into();
    let found = learn(&huge, DTW).compare(&huge[0], DTW, &mut Scratch::default());
    assert!(found.deviation.is_finite());
}

#[test]
fn few_references_know_no_spread() {
    let reference = learn(&[cycle(&[("p", &ramp(0.0)), ("q", &ramp(100.0))])], DTW);
    assert!(reference.deviation_median.is_nan() && reference.deviation_limit.is_nan());
    let found = reference.compare(
        &cycle(&[("p", &ramp(1.0)), ("q", &ramp(101.0))]),
        DTW,
        &mut Scratch::default(),
    );
    let (p, q) = (&found.signals["p"], &found.signals["q"]);
    assert!(found.deviation.is_nan() && p.units.is_nan() && p.outside.is_nan() && p.distance > 0.0);
    assert_eq!(
        (p.rank, q.rank),
        (Some(1), Some(2)),
        "the same distance weighs more on a low level"
    );
}

#[test]
fn alike_references_allow_a_little() {
    let reference = learn(&[0, 1, 2].map(|_| cycle(&[("p", &ramp(0.0))])), DTW);
    assert_eq!((reference.deviation_median, reference.deviation_limit), (0.0, 1.0));
    let same = reference.compare(&cycle(&[("p", &ramp(0.0))]), DTW, &mut Scratch::default());
    assert_eq!((same.deviation, same.signals["p"].contribution), (0.0, 1.0));
}

#[test]
fn long_series_are_thinned() {
    let offsets: Vec<i64> = (0..1001).collect();
    let values: Vec<f64> = offsets.iter().map(|t| *t as f64).collect();
    let thin = Series::new(&offsets, &values, 11);
    assert_eq!(thin.offsets, [0, 100, 200, 300, 400, 500, 600, 700, 800, 900, 1000]);
    assert!(
        thin.values
            .iter()
            .zip(&thin.offsets)
            .all(|(v, t)| (v - *t as f64).abs() < 1e-9)
    );
    assert_eq!(thin.stats.mean, 500.0, "statistics are of all samples");
}

proptest! {
    #[test]
    fn contributions_add_up(
        levels in prop::collection::vec(-1e3..1e3f64, 1..12),
        shift in -1e3..1e3f64,
        dtw in any::<bool>(),
    ) {
        let measure = Measure { dtw, window: 10.0 };
        let good = |l: &f64| cycle(&[("a", &ramp(*l)), ("b", &[*l]), ("c", &[1.0; 9])]);
        let cycles: Vec<_> = levels.iter().map(good).collect();
        let new = cycle(&[("a", &ramp(shift)), ("b", &[shift; 3]), ("c", &[1.0; 7])]);
        let found = learn(&cycles, measure).compare(&new, measure, &mut Scratch::default());
        let sum: f64 = found.signals.values().map(|s| s.contribution).sum();
        prop_assert!((sum - 1.0).abs() < 1e-12);
        let mut ranks: Vec<u32> = found.signals.values().filter_map(|s| s.rank).collect();
        ranks.sort_unstable();
        prop_assert_eq!(ranks, vec![1, 2, 3]);
    }
}

#[test]
fn a_series_from_end_to_end_of_time_is_thinned() {
    let series = Series::new(&[i64::MIN, 0, i64::MAX], &[1.0, 2.0, 3.0], 2);
    assert_eq!((series.values.len(), series.offsets[0]), (2, i64::MIN));
}
