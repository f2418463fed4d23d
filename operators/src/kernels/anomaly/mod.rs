//! Anomaly detectors for streams: each value is scored, then learned; memory is constant.
//!
//! - [`auto`]: a [`Judge`](auto::Judge) of one signal: detectors, the rarity of their scores, events.
//! - [`ewma`], [`cusum`], [`robust`]: the level. [`prediction`]: the step from the values before. [`spectral`],
//!   [`left_profile`]: the shape of a stretch. [`half_space`], [`cut_forest`]: sparse regions, for points of any
//!   dimension, and by [`shingle`] for the last values of one signal.
//! - [`mewma`]: T², T² of a moving average and SPE over many columns, with contributions; [`pca`]: T² and SPE fitted
//!   on a batch; [`symmetric`]: the matrices behind them.
//! - [`tail`]: a raw score's probability beside its own past; [`scale`]: level and spread; [`random`]: seeded numbers.
//!
//! Values beyond ±1e150 count as ±1e150, so that no square overflows. NaN and infinities are for the caller to leave out.

pub mod auto;
pub mod cusum;
pub mod cut_forest;
pub mod ewma;
pub mod half_space;
pub mod left_profile;
pub mod mewma;
pub mod pca;
pub mod prediction;
pub mod random;
pub mod robust;
pub mod scale;
pub mod shingle;
pub mod spectral;
pub mod symmetric;
pub mod tail;

/// Scores values of one signal, one after the other.
pub trait Detector {
    /// The raw score of a finite value: at least 0, greater is odder; NaN while too little was seen. The value is
    /// learned after it was scored. **Never** panics, and gives the same scores for the same values.
    fn score(&mut self, value: f64) -> f64;

    /// False where state read from outside doesn't fit together; such must not be asked for scores.
    fn is_whole(&self) -> bool;
}

/// Scores points of several coordinates; as [`Detector`] otherwise.
pub trait PointDetector {
    /// The raw score of a point of finite coordinates; NaN, and not learned, for one of another length than before.
    fn score(&mut self, point: &[f64]) -> f64;

    /// As [`Detector::is_whole`].
    fn is_whole(&self) -> bool;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use taktline_engine::Snapshot;

    use super::auto::{Judge, Method, rarity};
    use super::random::Random;

    fn value() -> impl Strategy<Value = f64> {
        prop_oneof![
            6 => -3.0..3.0f64,
            2 => Just(1.0),
            1 => prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e308, -1e308, 1e-308, 0.0, f64::MAX]),
        ]
    }

    fn streams() -> impl Strategy<Value = Vec<f64>> {
        let any = prop::collection::vec(value(), 0..400);
        let constant = (value(), 1_usize..400, value()).prop_map(|(first, rows, last)| {
            let mut values = vec![first; rows];
            values.push(last);
            values
        });
        prop_oneof![2 => any, 1 => constant]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn any_stream_has_an_answer(values in streams(), at in 0_usize..400) {
            for method in Method::ALL {
                let (mut judge, mut known) = (Judge::new(method, 100.0, "m"), false);
                for (row, value) in values.iter().enumerate() {
                    let probability = judge.probability(*value);
                    if value.is_finite() {
                        // Once there is an answer there always is.
                        prop_assert!(!known || !probability.is_nan(), "{method:?} {row} {value}");
                        known |= !probability.is_nan();
                        let valid = probability.is_nan() || (0.0..=1.0).contains(&probability);
                        prop_assert!(valid, "{method:?} {row} {value}: {probability}");
                    } else {
                        prop_assert!(probability.is_nan());
                    }
                    if row == at {
                        prop_assert!(judge.is_whole(), "{method:?} {row}");
                        let mut snapshot = Snapshot::new(true);
                        snapshot.head(&judge).unwrap();
                        judge = snapshot.saved(None).head().unwrap();
                        prop_assert!(judge.is_whole(), "{method:?} {row}");
                    }
                }
            }
        }
    }

    #[test]
    fn false_alarms_are_as_many_as_the_score_says() {
        for method in Method::ALL {
            let (mut judge, mut random) = (Judge::new(method, 2000.0, "m"), Random::new(11));
            let scores: Vec<f64> = (0..20_000)
                .map(|_| rarity(judge.probability(random.normal())))
                .collect();
            // 1 in 10, and 1 in 1000: half to twice of it, less what an event hides.
            for (score, most) in [(0.1, 0.2), (0.3, 0.003)] {
                let share = scores.iter().filter(|s| **s >= score).count() as f64 / scores.len() as f64;
                assert!(share <= most, "{method:?}: {share} at {score}");
            }
        }
    }

    #[test]
    fn a_jump_is_found_once_by_every_detector_that_looks_for_jumps() {
        for method in [
            Method::Auto,
            Method::Ewma,
            Method::Cusum,
            Method::RobustZ,
            Method::Prediction,
            Method::CutForest,
        ] {
            let (mut judge, mut random) = (Judge::new(method, 2000.0, "m"), Random::new(11));
            let value = |row: i32, random: &mut Random| random.normal() + if row >= 5000 { 12.0 } else { 0.0 };
            let scores: Vec<f64> = (0..5100)
                .map(|row| rarity(judge.probability(value(row, &mut random))))
                .collect();
            let greatest = (3000..5100).max_by(|a, b| scores[*a].total_cmp(&scores[*b]));
            assert!(
                greatest.is_some_and(|row| (5000..5020).contains(&row)),
                "{method:?} {greatest:?}"
            );
        }
    }
}
