//! Distances of 20 real dryer batches agree with an independent computation in Python (`golden/dryer_distances.py`), by
//! the kernels alone and through the whole `compare` step.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::PathBuf;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Float64Type;
use serde::Deserialize;
use taktline_engine::config::Section;
use taktline_engine::kind::Input;
use taktline_engine::{Output, Rows};
use taktline_operators::cycles::{self, Cycle, CyclesBuilder, Lacking, Outcome};
use taktline_operators::kernels::{dtw, euclidean, resample};

#[derive(Deserialize)]
struct Golden {
    template: u32,
    percent: f64,
    distances: Vec<Distances>,
}

#[derive(Deserialize)]
struct Distances {
    batch: u32,
    tag: String,
    dtw: f64,
    euclidean: f64,
}

type Batches = BTreeMap<u32, BTreeMap<String, Vec<f64>>>;

fn golden() -> Golden {
    serde_json::from_str(include_str!("golden/dryer_distances.json")).expect("golden numbers")
}

/// The batches by number; `None`, said on the terminal, in a checkout without the data.
fn batches() -> Option<Batches> {
    let beside = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../shared/data"));
    let path = std::env::var_os("TAKTLINE_DATA")
        .map_or_else(beside, PathBuf::from)
        .join("batches/dryer.csv");
    let Ok(text) = std::fs::read_to_string(&path) else {
        println!("skipped: there is no {}", path.display());
        return None;
    };
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().expect("a header").split(',').collect();
    let mut batches = Batches::new();
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let batch = batches.entry(cells[0].parse().expect("a batch")).or_default();
        for (name, cell) in names
            .iter()
            .zip(cells)
            .filter(|(name, _)| !["batch_id", "ClockTime"].contains(name))
        {
            batch
                .entry((*name).to_owned())
                .or_default()
                .push(cell.parse().expect("a number"));
        }
    }
    assert_eq!(batches.len(), 71);
    Some(batches)
}

fn seconds(n: usize) -> Vec<i64> {
    (0..n as i64).map(|i| i * 1_000_000).collect()
}

fn check(name: &str, expect: &Distances, found: f64, golden: f64) {
    assert!(
        (found - golden).abs() <= 1e-9 * golden.max(1.0),
        "batch {} {}: {name} {found}, not {golden}",
        expect.batch,
        expect.tag
    );
}

#[test]
fn kernels_agree() {
    let (Some(batches), golden) = (batches(), golden()) else {
        return;
    };
    assert_eq!(golden.distances.len(), 200);
    for expect in &golden.distances {
        let (a, b) = (
            &batches[&expect.batch][&expect.tag],
            &batches[&golden.template][&expect.tag],
        );
        let window = dtw::window(golden.percent, a.len(), b.len());
        check(
            "dtw",
            expect,
            dtw::dtw(a, b, window, f64::INFINITY).expect("a distance"),
            expect.dtw,
        );
        let (by_path, path) = dtw::dtw_path(a, b, window);
        check("dtw by its path", expect, by_path, expect.dtw);
        assert_eq!(path.last(), Some(&(a.len() - 1, b.len() - 1)));
        let resampled = resample::resample(&seconds(a.len()), a, b.len());
        check(
            "euclidean",
            expect,
            euclidean::euclidean(&resampled, b),
            expect.euclidean,
        );
    }
}

#[test]
fn the_compare_step_agrees() {
    let (Some(batches), golden) = (batches(), golden()) else {
        return;
    };
    let mut builder = CyclesBuilder::default();
    let start_us = |batch: u32| i64::from(batch) * 3_600_000_000;
    for (number, tags) in &batches {
        for (tag, values) in tags {
            builder.signal(tag, Lacking::default(), None, &seconds(values.len()), values);
        }
        let samples = tags.values().map(|v| v.len() as u64).sum();
        let (start_us, end_us) = (start_us(*number), start_us(*number) + 1_000_000);
        let (outcome, parent_id) = (Outcome::Complete, None);
        builder.cycle(&Cycle {
            machine: "dryer",
            step: "batches",
            parent_id,
            start_us,
            end_us,
            outcome,
            samples,
            lacking: Lacking::default(),
        });
    }
    let rows = builder.finish().expect("cycles");
    let input = Input {
        name: "batches".into(),
        table: cycles::table(cycles::schema(), false),
        extends: Vec::new(),
    };
    let id = cycles::cycle_id("dryer", start_us(golden.template));
    let yaml = format!(
        "{{reference: {{cycle: '{id}'}}, distance: dtw, window: {}%}}",
        golden.percent
    );
    let step = (taktline_operators::compare::KIND.build)(&Section::from_yaml("compared", &yaml), &input)
        .unwrap_or_else(|problems| panic!("{problems:?}"));
    let mut out = Output::default();
    step.operator("dryer")
        .rows(&Rows::new(&rows, 0..rows.num_rows()), &mut out)
        .expect("rows");
    let signals = step
        .output()
        .published
        .iter()
        .find(|p| p.name == "cycle_signals")
        .expect("cycle_signals");
    let mut found = BTreeMap::new();
    for batch in out.take() {
        let rows = (signals.project)(&batch).expect("rows");
        let text = |name: &str| rows.column_by_name(name).expect(name).as_string::<i32>().clone();
        let number = |name: &str| {
            rows.column_by_name(name)
                .expect(name)
                .as_primitive::<Float64Type>()
                .clone()
        };
        let (ids, names, dtw, euclidean) = (
            text("cycle_id"),
            text("signal"),
            number("distance"),
            number("euclidean"),
        );
        for row in 0..rows.num_rows() {
            let key = (ids.value(row).to_owned(), names.value(row).to_owned());
            found.insert(key, dtw.is_valid(row).then(|| (dtw.value(row), euclidean.value(row))));
        }
    }
    for expect in &golden.distances {
        let key = (cycles::cycle_id("dryer", start_us(expect.batch)), expect.tag.clone());
        let (dtw, euclidean) = found[&key].expect("compared");
        check("dtw", expect, dtw, expect.dtw);
        check("euclidean", expect, euclidean, expect.euclidean);
    }
}
