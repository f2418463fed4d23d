//! The scoring of the Numenta Anomaly Benchmark (Lavin & Ahmad 2015), as version 1.1 of its `sweeper.py` computes it.
//!
//! A labelled window counts once, by the earliest detection in it; a detection outside costs more the further it is behind
//! the last window. One threshold for all files is the best that there is, for each profile. 100 is a detection in
//! the first row of each window and none elsewhere, 0 is no detection at all.

use std::collections::BTreeMap;

/// The first 15 % of a file, of at most 5,000 rows, are for learning.
const PROBATION: f64 = 0.15;
const PROBATION_OF_ROWS: f64 = 5000.0;

/// Costs of a profile.
#[derive(Clone, Copy)]
pub struct Profile {
    pub name: &'static str,
    pub true_positive: f64,
    pub false_positive: f64,
    pub false_negative: f64,
}

pub const PROFILES: [Profile; 3] = [
    Profile {
        name: "standard",
        true_positive: 1.0,
        false_positive: 0.11,
        false_negative: 1.0,
    },
    Profile {
        name: "reward_low_FP_rate",
        true_positive: 1.0,
        false_positive: 0.22,
        false_negative: 1.0,
    },
    Profile {
        name: "reward_low_FN_rate",
        true_positive: 1.0,
        false_positive: 0.11,
        false_negative: 2.0,
    },
];

/// Scores of a file's rows, and the first and last row of its labelled windows, in order.
pub struct Scored {
    pub scores: Vec<f64>,
    pub windows: Vec<(usize, usize)>,
}

/// The normalised score of a detector over all files at its best threshold, and that threshold.
pub fn score(files: &[Scored], profile: Profile) -> (f64, f64) {
    let mut points: Vec<Point> = Vec::new();
    for (file, scored) in files.iter().enumerate() {
        points.extend(weighted(file, scored, profile));
    }
    points.sort_by(|a, b| b.score.total_cmp(&a.score));
    let windows = files.iter().map(|file| file.windows.len()).sum::<usize>() as f64;
    // What a null detector gets: each window that isn't wholly in the probation is missed.
    let mut by_window: BTreeMap<(usize, usize), f64> = points
        .iter()
        .filter_map(|point| Some((point.window?, -profile.false_negative)))
        .collect();
    let null = by_window.values().sum::<f64>();
    let (mut best, mut false_positives) = ((null, 1.1), 0.0);
    for group in points.chunk_by(|a, b| a.score == b.score) {
        for point in group {
            match point.window.and_then(|window| by_window.get_mut(&window)) {
                Some(part) => *part = part.max(point.weight),
                None => false_positives += point.weight,
            }
        }
        let total = by_window.values().sum::<f64>() + false_positives;
        if total > best.0 {
            best = (total, group[0].score);
        }
    }
    let perfect = windows * profile.true_positive;
    (100.0 * (best.0 - null) / (perfect - null), best.1)
}

/// A row behind the probation: what a detection there is worth.
struct Point {
    score: f64,
    window: Option<(usize, usize)>,
    weight: f64,
}

fn weighted(file: usize, scored: &Scored, profile: Profile) -> impl Iterator<Item = Point> {
    let rows = scored.scores.len();
    let probation = (PROBATION * rows as f64).floor().min(PROBATION * PROBATION_OF_ROWS) as usize;
    let mut before: Option<(usize, usize)> = None;
    let point = move |row: usize| {
        let inside = scored
            .windows
            .iter()
            .position(|(first, last)| (*first..=*last).contains(&row));
        let weight = match (inside.map(|number| scored.windows[number]), before) {
            (Some((first, last)), _) => {
                if row == last {
                    before = Some((first, last));
                }
                let width = (last - first + 1) as f64;
                let place = -((last - row + 1) as f64) / width;
                scaled_sigmoid(place) / scaled_sigmoid(-1.0) * profile.true_positive
            }
            (None, Some((first, last))) => {
                // A window's width less one: what `sweeper.py` divides by.
                scaled_sigmoid((row - last) as f64 / (last - first) as f64) * profile.false_positive
            }
            (None, None) => -profile.false_positive,
        };
        Point {
            score: scored.scores[row],
            window: inside.map(|number| (file, number)),
            weight,
        }
    };
    (0..rows).map(point).skip(probation)
}

/// What a detection is worth by its place: -1 is a window's first row, 0 its last, above 0 behind it.
fn scaled_sigmoid(place: f64) -> f64 {
    if place > 3.0 {
        -1.0
    } else {
        2.0 / (1.0 + (5.0 * place).exp()) - 1.0
    }
}

fn check(detections: &[usize], windows: &[(usize, usize)], expect: [f64; 3]) {
    let mut scores = vec![0.0; 1000];
    detections.iter().for_each(|row| scores[*row] = 1.0);
    let file = [Scored {
        scores,
        windows: windows.to_vec(),
    }];
    for (profile, expect) in PROFILES.into_iter().zip(expect) {
        let found = score(&file, profile).0;
        assert!((found - expect).abs() < 1e-9, "{}: {found}, not {expect}", profile.name);
    }
}

#[test]
fn perfect_and_null() {
    let windows = [(200, 209), (600, 619)];
    check(&[200, 600], &windows, [100.0; 3]);
    check(&[], &windows, [0.0; 3]);
    // All in the probation, which doesn't count.
    check(&[3, 149], &windows, [0.0; 3]);
}

#[test]
fn computed_by_hand() {
    let windows = [(200, 209), (600, 619)];
    let sigmoid = |place: f64| (1.0 - (5.0 * place).exp()) / (1.0 + (5.0 * place).exp());
    // One window of two: half of all there is to gain.
    check(&[200], &windows, [50.0; 3]);
    // The last row of the first window lies a tenth of it before its end; later detections in it add nothing.
    let late = sigmoid(-0.1) / sigmoid(-1.0);
    let [standard, low_fn] = [(late + 1.0) / 4.0, (late + 2.0) / 6.0].map(|share| 100.0 * share);
    check(&[209], &windows, [standard, standard, low_fn]);
    check(&[200, 205, 209], &windows, [50.0; 3]);
    // All but a false alarm, which costs this share of its weight.
    let but = |share: f64| [11.0 / 4.0, 22.0 / 4.0, 11.0 / 6.0].map(|cost| 100.0 - cost * share);
    // Before any window it costs all.
    check(&[170, 200, 600], &windows, but(1.0));
    // Nine rows behind a window of ten it is one width away; three widths away it costs all.
    check(&[200, 218, 600], &windows, but(-sigmoid(1.0)));
    check(&[200, 238, 600], &windows, but(1.0));
}
