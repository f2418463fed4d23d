//! 1-NN classification with DTW on sets of the UCR and UEA archives gives the published errors to the digit.
//!
//! Source of the errors: UCR Archive 2018 summary (columns "ED (w=0)", "DTW (learned_w)", "DTW (w=100)") and, for the
//! accuracies of BasicMotions, Bagnall et al. 2018, "The UEA multivariate time series classification archive".

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;

use taktline_operators::kernels::dtw::{Scratch, window};
use taktline_operators::kernels::nearest::Library;

/// Where the data for tests lies; `None`, said on the terminal, in a checkout without it.
fn data() -> Option<PathBuf> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data"));
    let folder = std::env::var_os("TAKTLINE_DATA")
        .map_or_else(beside, PathBuf::from)
        .join("ucr");
    if !folder.is_dir() {
        println!("skipped: there is no {}", folder.display());
        return None;
    }
    Some(folder)
}

struct Case {
    channels: Vec<Vec<f64>>,
    class: String,
}

impl Case {
    fn channels(&self) -> Vec<&[f64]> {
        self.channels.iter().map(Vec::as_slice).collect()
    }
}

/// A `.ts` file: `@` lines, then a case per line, channels and at last the class between colons.
fn read(folder: &std::path::Path, name: &str) -> Vec<Case> {
    let text = std::fs::read_to_string(folder.join(name)).expect("a .ts file");
    let lines = text
        .lines()
        .skip_while(|line| *line != "@data")
        .skip(1)
        .filter(|line| !line.trim().is_empty());
    let case = |line: &str| {
        let (channels, class) = line.rsplit_once(':').expect("a class");
        let numbers = |text: &str| text.split(',').map(|n| n.trim().parse().expect("a number")).collect();
        Case {
            channels: channels.split(':').map(numbers).collect(),
            class: class.trim().to_owned(),
        }
    };
    lines.map(case).collect()
}

type Distance = fn(&mut Scratch, &[&[f64]], &[&[f64]], usize, f64) -> Option<f64>;

/// The share of test cases whose nearest training case (the first of equals) is of another class.
fn error(set: &str, percent: f64, distance: Distance) -> Option<f64> {
    let folder = data()?;
    let (train, test) = (
        read(&folder, &format!("{set}_TRAIN.ts")),
        read(&folder, &format!("{set}_TEST.ts")),
    );
    let mut scratch = Scratch::default();
    let wrong = test.iter().filter(|case| {
        let (mut best, mut class) = (f64::INFINITY, "");
        for known in &train {
            let (a, b) = (case.channels(), known.channels());
            let window = window(percent, a[0].len(), b[0].len());
            if let Some(d) = distance(&mut scratch, &a, &b, window, best).filter(|d| *d < best) {
                (best, class) = (d, &known.class);
            }
        }
        class != case.class
    });
    Some(wrong.count() as f64 / test.len() as f64)
}

/// The same by the cascade of lower bounds, of one channel.
fn error_by_bounds(set: &str, percent: f64) -> Option<f64> {
    let folder = data()?;
    let (train, test) = (
        read(&folder, &format!("{set}_TRAIN.ts")),
        read(&folder, &format!("{set}_TEST.ts")),
    );
    let mut library = Library::new(percent);
    train.iter().for_each(|case| library.push(&case.channels[0]));
    let wrong = test.iter().filter(|case| {
        let nearest = library.nearest(&case.channels[0], 1);
        nearest
            .first()
            .is_none_or(|found| train[found.place].class != case.class)
    });
    Some(wrong.count() as f64 / test.len() as f64)
}

fn check(set: &str, percent: f64, published: &str) {
    for error in [
        error(set, percent, Scratch::dtw_dependent),
        error_by_bounds(set, percent),
    ]
    .into_iter()
    .flatten()
    {
        assert_eq!(format!("{error:.4}"), published, "{set}, window {percent} %");
    }
}

#[test]
fn gun_point() {
    check("GunPoint", 0.0, "0.0867");
    check("GunPoint", 100.0, "0.0933");
}

#[test]
fn italy_power_demand() {
    check("ItalyPowerDemand", 0.0, "0.0447");
    check("ItalyPowerDemand", 100.0, "0.0496");
}

#[test]
fn coffee() {
    check("Coffee", 0.0, "0.0000");
    check("Coffee", 100.0, "0.0000");
}

#[test]
fn ecg200() {
    check("ECG200", 0.0, "0.1200");
    check("ECG200", 100.0, "0.2300");
}

#[test]
fn plane() {
    check("Plane", 5.0, "0.0000");
}

#[test]
fn synthetic_control() {
    check("SyntheticControl", 6.0, "0.0167");
    check("SyntheticControl", 100.0, "0.0067");
}

#[test]
fn basic_motions() {
    let accuracy = |distance| error("BasicMotions", 100.0, distance).map(|e| format!("{:.3}", 1.0 - e));
    if let Some(independent) = accuracy(Scratch::dtw_independent) {
        assert_eq!(independent, "1.000", "DTW_I");
        assert_eq!(accuracy(Scratch::dtw_dependent).as_deref(), Some("0.975"), "DTW_D");
    }
}
