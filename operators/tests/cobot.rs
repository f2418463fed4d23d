//! A real robot (UCI 963): cycles with a protective stop or a lost grip are odder than those without.
//!
//! A model is fitted on half of the cycles without either; the other half and all the rest are held against it, then the halves
//! change places. AUC: how often a cycle with the label is odder than one without.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::PathBuf;

use taktline_operators::cycles::SignalStats;
use taktline_operators::kernels::anomaly::pca::Pca;

/// Where the data for tests lies; `None`, said on the terminal, in a checkout without it.
fn data() -> Option<PathBuf> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data"));
    let folder = std::env::var_os("TAKTLINE_DATA")
        .map_or_else(beside, PathBuf::from)
        .join("cobot");
    if !folder.is_dir() {
        println!("skipped: there is no {}", folder.display());
        return None;
    }
    Some(folder)
}

/// A cycle: mean, std, min and max of each of the 19 signals and the number of rows; whether there was a stop, or the grip was lost.
struct Cycle {
    vector: Vec<f64>,
    stop: bool,
    lost: bool,
}

fn cycles(folder: PathBuf) -> Vec<Cycle> {
    let text = std::fs::read_to_string(folder.join("ur3_cobotops.csv")).expect("the table");
    let rows: Vec<Vec<&str>> = text.lines().skip(1).map(|line| line.split(';').collect()).collect();
    let runs = rows.chunk_by(|a, b| a[21] == b[21]);
    let number = |cell: &str| cell.replace(',', ".").parse::<f64>().ok();
    let is_true = |cell: &str| cell.trim().eq_ignore_ascii_case("true");
    let cycle = |run: &[Vec<&str>]| {
        let mut vector = vec![run.len() as f64];
        for column in 2..21 {
            let values: Vec<f64> = run.iter().filter_map(|row| number(row[column])).collect();
            let stats = SignalStats::of(&vec![0; values.len()], &values);
            vector.extend([stats.mean, stats.std, stats.min, stats.max]);
        }
        Cycle {
            vector,
            stop: run.iter().any(|row| is_true(row[22])),
            lost: run.iter().any(|row| is_true(row[23])),
        }
    };
    runs.map(cycle).collect()
}

/// The share of pairs in which the odd one scores higher; ties count half.
fn auc(odd: &[f64], good: &[f64]) -> f64 {
    let pairs = odd.iter().flat_map(|o| good.iter().map(move |g| (o, g)));
    let wins: f64 = pairs
        .map(|(o, g)| {
            if o > g {
                1.0
            } else if o == g {
                0.5
            } else {
                0.0
            }
        })
        .sum();
    wins / (odd.len() * good.len()) as f64
}

#[test]
fn a_model_of_good_cycles() {
    let Some(folder) = data() else { return };
    let cycles = cycles(folder);
    assert_eq!(cycles.len(), 249);
    assert_eq!(cycles.iter().filter(|c| c.stop).count(), 85);
    assert_eq!(cycles.iter().filter(|c| c.lost).count(), 51);
    let good: Vec<&Cycle> = cycles.iter().filter(|c| !c.stop && !c.lost).collect();
    let mut sums = [0.0; 3];
    for half in 0..2 {
        let of = |rest: usize| {
            good.iter()
                .skip(rest)
                .step_by(2)
                .map(|c| c.vector.clone())
                .collect::<Vec<_>>()
        };
        let model = Pca::fit(&of(half), 15).expect("a model");
        // Each statistic in units of what half of the good cycles keep.
        let (t2, spe) = model.limits(&of(half), 0.5);
        let oddness = |vector: &Vec<f64>| model.evidence(vector).map_or(f64::NAN, |e| e.t2 / t2 + e.spe / spe);
        let known: Vec<f64> = of(1 - half).iter().map(oddness).collect();
        let labelled = |is: fn(&Cycle) -> bool| {
            cycles
                .iter()
                .filter(|c| is(c))
                .map(|c| oddness(&c.vector))
                .collect::<Vec<f64>>()
        };
        let found = [
            labelled(|c| c.stop || c.lost),
            labelled(|c| c.stop),
            labelled(|c| c.lost),
        ];
        for (sum, odd) in sums.iter_mut().zip(&found) {
            *sum += auc(odd, &known) / 2.0;
        }
    }
    let [either, stop, lost] = sums;
    println!("AUC of T² + SPE: either {either:.3}, protective stop {stop:.3}, grip lost {lost:.3}");
    assert!(either > 0.9 && stop > 0.9 && lost > 0.9);
}
