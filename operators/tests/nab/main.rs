//! NAB `realKnownCause` with NAB's own scoring: every detector and `auto` on their default settings.
//!
//! `cargo test -p taktline-operators --test nab -- --nocapture` prints the table.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod score;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use score::{PROFILES, Scored, score};
use taktline_operators::kernels::anomaly::auto::{Judge, MEMORY, Method, rarity};

/// Where the data for tests lies; `None`, said on the terminal, in a checkout without it.
fn data() -> Option<PathBuf> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data"));
    let folder = std::env::var_os("TAKTLINE_DATA")
        .map_or_else(beside, PathBuf::from)
        .join("nab");
    if !folder.is_dir() {
        println!("skipped: there is no {}", folder.display());
        return None;
    }
    Some(folder)
}

struct File {
    name: String,
    values: Vec<f64>,
    windows: Vec<(usize, usize)>,
}

/// The files with a list of windows in `combined_windows.json` that lie in the folder.
fn files(folder: &Path) -> Vec<File> {
    let text = std::fs::read_to_string(folder.join("combined_windows.json")).unwrap();
    let all: BTreeMap<String, Vec<[String; 2]>> = serde_json::from_str(&text).unwrap();
    let file = |(path, windows): (String, Vec<[String; 2]>)| {
        let name = path.strip_prefix("realKnownCause/")?.to_owned();
        let text = std::fs::read_to_string(folder.join(&name)).unwrap();
        let rows: Vec<(&str, &str)> = text.lines().skip(1).map(|line| line.split_once(',').unwrap()).collect();
        // Windows have fractions of a second behind the time, all zero.
        let row = |time: &String| rows.iter().position(|(ts, _)| *ts == &time[..19]).unwrap();
        Some(File {
            values: rows.iter().map(|(_, value)| value.parse().unwrap()).collect(),
            windows: windows.iter().map(|[first, last]| (row(first), row(last))).collect(),
            name,
        })
    };
    all.into_iter().filter_map(file).collect()
}

fn judged(files: &[File], method: Method) -> Vec<Scored> {
    let scores = |file: &File| {
        let mut judge = Judge::new(method, MEMORY, &file.name);
        // What is still being learned is not odd.
        let scores = file.values.iter().map(|value| rarity(judge.probability(*value)));
        scores.map(|score| if score.is_nan() { 0.0 } else { score }).collect()
    };
    let scored = |file: &File| Scored {
        scores: scores(file),
        windows: file.windows.clone(),
    };
    files.iter().map(scored).collect()
}

#[test]
fn real_known_cause() {
    let Some(folder) = data() else { return };
    let files = files(&folder);
    assert_eq!(
        (files.len(), files.iter().map(|f| f.windows.len()).sum::<usize>()),
        (7, 19)
    );
    let mut found = BTreeMap::new();
    println!(
        "{:<20} {:>9} {:>9} {:>9}   threshold (standard)",
        "detector", "standard", "low FP", "low FN"
    );
    for method in Method::ALL {
        let scored = judged(&files, method);
        let [(all, threshold), (low_fp, _), (low_fn, _)] = PROFILES.map(|profile| score(&scored, profile));
        println!(
            "{:<20} {all:>9.1} {low_fp:>9.1} {low_fn:>9.1}   {threshold:.3}",
            method.as_str()
        );
        found.insert(method.as_str(), [all, low_fp, low_fn]);
    }
    // A little below what was seen, so that a detector that gets worse is noticed.
    let check = |method: &str, least: [f64; 3]| {
        let scores = found[method];
        assert!(
            scores.iter().zip(least).all(|(score, least)| *score >= least),
            "{method}: {scores:?}"
        );
    };
    check("auto", [55.0, 42.0, 64.0]);
    check("spectral_residual", [39.0, 28.0, 50.0]);
    check("ewma", [35.0, 27.0, 40.0]);
    check("cut_forest", [35.0, 29.0, 40.0]);
    check("prediction", [33.0, 22.0, 41.0]);
    check("half_space_trees", [25.0, 15.0, 35.0]);
    check("left_profile", [17.0, 12.0, 30.0]);
    check("cusum", [12.0, 8.0, 14.0]);
}
