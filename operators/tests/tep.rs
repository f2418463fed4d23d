//! Tennessee Eastman: T² and SPE fitted on normal operation see faults 4 and 14 as published, and name the cause of fault 4.
//!
//! Published missed detections (Russell, Chiang, Braatz 2000, "Fault detection in industrial processes using canonical
//! variate analysis and dynamic PCA", table of PCA): fault 4 T² .956, SPE .038; fault 5 .775, .746; fault 14 .158, .000. They fit on
//! other rows than those here.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::{Path, PathBuf};

use taktline_operators::kernels::anomaly::pca::{Evidence, Pca};

/// Components by parallel analysis, as in the published study.
const COMPONENTS: usize = 11;
/// Faults begin here.
const ONSET: usize = 160;
/// Columns from 0: XMEAS(1..=41), then XMV(1..=11).
const XMEAS_9: usize = 8;
const XMV_10: usize = 50;

/// Where the data for tests lies; `None`, said on the terminal, in a checkout without it.
fn data() -> Option<PathBuf> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data"));
    let folder = std::env::var_os("TAKTLINE_DATA")
        .map_or_else(beside, PathBuf::from)
        .join("tep");
    if !folder.is_dir() {
        println!("skipped: there is no {}", folder.display());
        return None;
    }
    Some(folder)
}

fn read(file: PathBuf) -> Vec<Vec<f64>> {
    let text = std::fs::read_to_string(file).expect("a file of numbers");
    let row = |line: &str| line.split_whitespace().map(|n| n.parse().expect("a number")).collect();
    text.lines().filter(|line| !line.trim().is_empty()).map(row).collect()
}

/// Normal operation, its model, and the 99 % limits of T² and SPE on it.
fn fitted(folder: &Path) -> (Pca, f64, f64) {
    let normal = read(folder.join("d00_te.dat"));
    assert_eq!((normal.len(), normal[0].len()), (960, 52));
    let model = Pca::fit(&normal, COMPONENTS).expect("a model");
    let (t2, spe) = model.limits(&normal, 0.99);
    (model, t2, spe)
}

fn evidence(folder: &Path, model: &Pca, fault: &str) -> Vec<Evidence> {
    let rows = read(folder.join(format!("{fault}_te.dat")));
    rows[ONSET..]
        .iter()
        .map(|row| model.evidence(row).expect("52 numbers"))
        .collect()
}

#[test]
fn missed_detections() {
    let Some(folder) = data() else { return };
    let (model, t2, spe) = fitted(&folder);
    let check = |fault: &str, t2_from_to: (f64, f64), spe_from_to: (f64, f64)| {
        let rows = evidence(&folder, &model, fault);
        let missed = |within: &dyn Fn(&Evidence) -> bool| {
            rows.iter().filter(|row| within(row)).count() as f64 / rows.len() as f64
        };
        let (by_t2, by_spe) = (missed(&|row| row.t2 <= t2), missed(&|row| row.spe <= spe));
        println!("{fault}: missed by T² {by_t2:.3}, by SPE {by_spe:.3}");
        assert!(
            (t2_from_to.0..=t2_from_to.1).contains(&by_t2),
            "{fault}: T² misses {by_t2}"
        );
        assert!(
            (spe_from_to.0..=spe_from_to.1).contains(&by_spe),
            "{fault}: SPE misses {by_spe}"
        );
    };
    check("d04", (0.9, 1.0), (0.0, 0.05));
    check("d05", (0.7, 0.85), (0.65, 0.8));
    check("d14", (0.1, 0.25), (0.0, 0.005));
}

#[test]
fn the_cause_of_fault_4_is_named() {
    let Some(folder) = data() else { return };
    let (model, _, _) = fitted(&folder);
    let rows = evidence(&folder, &model, "d04");
    let top = |rows: &[Evidence], parts: fn(&Evidence) -> &Vec<f64>| {
        let sum = |column: usize| rows.iter().map(|row| parts(row)[column]).sum::<f64>();
        let mut columns: Vec<usize> = (0..52).collect();
        columns.sort_by(|a, b| sum(*b).total_cmp(&sum(*a)));
        columns
    };
    let name = |column: &usize| {
        if *column < 41 {
            format!("XMEAS({})", column + 1)
        } else {
            format!("XMV({})", column - 40)
        }
    };
    let spe = top(&rows, |row| &row.spe_parts);
    println!(
        "fault 4, SPE: {}",
        spe[..4].iter().map(name).collect::<Vec<_>>().join(", ")
    );
    assert_eq!(spe[..2], [XMV_10, XMEAS_9]);
}
