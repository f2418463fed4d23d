//! Tables of small scenes: cycles in, compared cycles out.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Write;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float64Type, UInt32Type, UInt64Type};
use proptest::prelude::*;

use super::*;
use crate::cycles::{Cycle, CyclesBuilder, Lacking, Outcome, SIGNALS};

/// Cycles of two signals of 25 samples: a pressure at the given levels above a ramp, and a speed that hardly changes.
pub(crate) struct Scene {
    pub levels: Vec<f64>,
    /// The cycle from which on there is no speed.
    pub absent_from: Option<usize>,
    pub missing: u64,
    /// Of the last cycle's speed only.
    pub speed_missing: u64,
    pub settings: String,
    /// Recipe of each cycle, where there are recipes.
    pub recipes: Vec<Option<&'static str>>,
    pub outcomes: Vec<Outcome>,
    /// Cycles in each call.
    pub chunk: usize,
}

impl Default for Scene {
    fn default() -> Self {
        Scene {
            levels: vec![0.0, 0.1, 0.2, 0.1],
            absent_from: None,
            missing: 0,
            speed_missing: 0,
            settings: "{reference: {first: 3}}".into(),
            recipes: Vec::new(),
            outcomes: Vec::new(),
            chunk: usize::MAX,
        }
    }
}

fn lacking(missing: u64) -> Lacking {
    Lacking { missing, stale: 0 }
}

fn input() -> Input {
    Input {
        name: "strokes".into(),
        table: cycles::table(cycles::schema(), false),
        extends: Vec::new(),
    }
}

fn try_build(yaml: &str, input: &Input) -> Result<Box<dyn Step>, Vec<Problem>> {
    build(&Section::from_yaml("compared", yaml), input)
}

fn run(yaml: &str, batch: &RecordBatch, chunk: usize) -> (Input, Vec<RecordBatch>) {
    let step = try_build(yaml, &input()).unwrap_or_else(|problems| panic!("{problems:?}"));
    let mut operator = step.operator("m");
    let mut out = Output::default();
    let mut row = 0;
    while row < batch.num_rows() {
        let end = row.saturating_add(chunk).min(batch.num_rows());
        operator.rows(&Rows::new(batch, row..end), &mut out).expect("rows");
        row = end;
    }
    let batches = out.take();
    for batch in &batches {
        assert_eq!(batch.schema(), step.output().schema);
        for published in &step.output().published {
            assert_eq!(
                (published.project)(batch).expect("published").schema(),
                published.schema
            );
        }
    }
    (
        Input {
            name: "compared".into(),
            table: step.output().clone(),
            extends: vec!["strokes".into()],
        },
        batches,
    )
}

fn cycle(builder: &mut CyclesBuilder, index: usize, outcome: Outcome, missing: u64) {
    let start_us = 1_700_000_000_000_000 + index as i64 * 60_000_000;
    builder.cycle(&Cycle {
        machine: "m",
        step: "strokes",
        parent_id: None,
        start_us,
        end_us: start_us + 30_000_000,
        outcome,
        samples: 50,
        lacking: lacking(missing),
    });
}

pub(crate) fn compared(scene: Scene) -> (Input, Vec<RecordBatch>) {
    let mut builder = CyclesBuilder::default();
    let offsets: Vec<i64> = (0..25).map(|i| i * 1_000_000).collect();
    for (index, level) in scene.levels.iter().enumerate() {
        let ramp = |shift: f64| (0..25).map(|i| f64::from(i) + shift).collect::<Vec<f64>>();
        builder.signal("pressure", Lacking::default(), None, &offsets, &ramp(*level));
        if let Some(recipe) = scene.recipes.get(index) {
            builder.signal("recipe", Lacking::default(), *recipe, &[], &[]);
        }
        if scene.absent_from.is_none_or(|from| index < from) {
            let missing = if index + 1 == scene.levels.len() {
                scene.speed_missing
            } else {
                0
            };
            builder.signal(
                "speed",
                lacking(missing),
                None,
                &offsets,
                &ramp((index % 3) as f64 / 10.0),
            );
        }
        let outcome = scene.outcomes.get(index).copied().unwrap_or(Outcome::Complete);
        cycle(&mut builder, index, outcome, scene.missing);
    }
    run(&scene.settings, &builder.finish().expect("cycles"), scene.chunk)
}

fn texts(batches: &[RecordBatch], name: &str) -> Vec<Option<String>> {
    let of = |batch: &RecordBatch| -> Vec<Option<String>> {
        let column = batch.column_by_name(name).expect(name);
        column.as_string::<i32>().iter().map(|t| t.map(str::to_owned)).collect()
    };
    batches.iter().flat_map(of).collect()
}

fn numbers(batches: &[RecordBatch], name: &str) -> Vec<Option<f64>> {
    let of = |batch: &RecordBatch| -> Vec<Option<f64>> {
        batch
            .column_by_name(name)
            .expect(name)
            .as_primitive::<Float64Type>()
            .iter()
            .collect()
    };
    batches.iter().flat_map(of).collect()
}

/// A number of a signal in the cycle at `row` of a single batch.
fn signal_number(batches: &[RecordBatch], row: usize, signal: &str, name: &str) -> Option<f64> {
    let list = batches[0]
        .column_by_name(SIGNALS)
        .expect(SIGNALS)
        .as_list::<i32>()
        .value(row);
    let signals = list.as_struct();
    let names = signals.column_by_name("signal").expect("signal").as_string::<i32>();
    let at = (0..names.len()).find(|i| names.value(*i) == signal).expect(signal);
    let column = signals.column_by_name(name).expect(name);
    match column.data_type() {
        _ if column.is_null(at) => None,
        DataType::UInt64 => Some(column.as_primitive::<UInt64Type>().value(at) as f64),
        DataType::UInt32 => Some(f64::from(column.as_primitive::<UInt32Type>().value(at))),
        _ => Some(column.as_primitive::<Float64Type>().value(at)),
    }
}

fn words(scene: Scene) -> Vec<String> {
    texts(&compared(scene).1, "comparison").into_iter().flatten().collect()
}

#[test]
fn learns_then_compares() {
    let (_, rows) = compared(Scene {
        levels: vec![0.0, 0.1, 0.2, 0.1, 5.0],
        ..Scene::default()
    });
    let words = texts(&rows, "comparison").into_iter().flatten().collect::<Vec<_>>();
    assert_eq!(words, ["learning", "learning", "learning", "compared", "compared"]);
    assert_eq!(texts(&rows, "reference")[0].as_deref(), Some("first 3"));
    let deviation = numbers(&rows, "deviation");
    assert!(deviation[..3].iter().all(Option::is_none) && deviation[3] < deviation[4]);
    assert!(numbers(&rows, "deviation_limit")[3] > numbers(&rows, "deviation_median")[3]);
    assert_eq!(signal_number(&rows, 4, "pressure", "rank"), Some(1.0));
    assert!(signal_number(&rows, 4, "pressure", "contribution") > Some(0.9));
    assert_eq!(signal_number(&rows, 0, "pressure", "distance"), None);
}

#[test]
fn only_complete_cycles_count() {
    use Outcome::{Complete as C, Gap as G, Timeout as T, Truncated as U};
    let found = words(Scene {
        levels: vec![0.0; 6],
        outcomes: vec![C, T, C, G, C, U],
        ..Scene::default()
    });
    assert_eq!(
        found,
        [
            "learning",
            "not complete",
            "learning",
            "not complete",
            "learning",
            "not complete"
        ]
    );
}

#[test]
fn absent_signals_get_a_row() {
    let (_, rows) = compared(Scene {
        absent_from: Some(3),
        ..Scene::default()
    });
    let absent = rows[0]
        .column_by_name("absent_signals")
        .expect("a column")
        .as_primitive::<UInt32Type>()
        .values()
        .to_vec();
    assert_eq!(absent, [0, 0, 0, 1]);
    assert_eq!(signal_number(&rows, 3, "speed", "samples"), Some(0.0));
    for name in ["distance", "distance_units", "contribution", "rank", "mean"] {
        assert_eq!(signal_number(&rows, 3, "speed", name), None, "{name}");
    }
    assert_eq!(signal_number(&rows, 3, "pressure", "contribution"), Some(1.0));
    assert_eq!(signal_number(&rows, 2, "speed", "samples"), Some(25.0));
}

#[test]
fn a_signal_that_the_reference_lacks_is_not_compared() {
    let mut builder = CyclesBuilder::default();
    for index in 0..4 {
        if index == 3 {
            builder.signal("new", Lacking::default(), None, &[0, 1], &[1.0, 2.0]);
        }
        builder.signal("old", Lacking::default(), None, &[0, 1], &[1.0, 2.0 + index as f64]);
        builder.signal("state", Lacking::default(), Some("on"), &[], &[]);
        cycle(&mut builder, index, Outcome::Complete, 0);
    }
    let (_, rows) = run("{reference: {first: 3}}", &builder.finish().expect("cycles"), 9);
    assert_eq!(signal_number(&rows, 3, "new", "distance"), None);
    assert_eq!(signal_number(&rows, 3, "state", "rank"), None);
    assert_eq!(signal_number(&rows, 3, "old", "contribution"), Some(1.0));
}

#[test]
fn each_recipe_has_its_own_reference() {
    let recipes = vec![Some("A"), Some("B"), Some("A"), None, Some("B"), Some("A")];
    let settings = "{reference: {first: 2}, per: recipe}".into();
    let scene = Scene {
        levels: vec![0.0, 50.0, 0.1, 0.0, 50.1, 0.2],
        recipes,
        settings,
        ..Scene::default()
    };
    let (_, rows) = compared(scene);
    let words = texts(&rows, "comparison").into_iter().flatten().collect::<Vec<_>>();
    assert_eq!(
        words,
        [
            "learning",
            "learning",
            "learning",
            "no reference",
            "learning",
            "compared"
        ]
    );
    assert_eq!(texts(&rows, "reference")[4].as_deref(), Some("first 2 of recipe B"));
    assert!(signal_number(&rows, 5, "pressure", "deviation_max") < Some(1.0));
}

#[test]
fn a_named_cycle_counts_from_when_it_passes() {
    let id = cycles::cycle_id("m", 1_700_000_000_000_000 + 60_000_000);
    let settings = format!("{{reference: {{cycle: '{id}'}}}}");
    let (_, rows) = compared(Scene {
        levels: vec![0.0, 0.0, 1.0],
        settings,
        ..Scene::default()
    });
    let words = texts(&rows, "comparison").into_iter().flatten().collect::<Vec<_>>();
    assert_eq!(words, ["no reference", "learning", "compared"]);
    assert_eq!(numbers(&rows, "deviation")[2], None, "one cycle has no spread");
    assert!(signal_number(&rows, 2, "pressure", "distance") > Some(0.0));
    assert_eq!(signal_number(&rows, 2, "pressure", "distance_units"), None);
    assert!(signal_number(&rows, 2, "pressure", "contribution").is_some());
}

#[test]
fn a_sliding_reference_follows_good_cycles_only() {
    let drift = |step: f64| {
        (0..40)
            .map(|i| f64::from(i) * step + f64::from(i % 4) / 10.0)
            .collect::<Vec<f64>>()
    };
    let last = |levels: Vec<f64>| {
        let settings = "{reference: {last: 8}, ignore: [speed]}".into();
        numbers(
            &compared(Scene {
                levels,
                settings,
                ..Scene::default()
            })
            .1,
            "deviation",
        )
    };
    let first = |levels: Vec<f64>| {
        let settings = "{reference: {first: 8}, ignore: [speed]}".into();
        numbers(
            &compared(Scene {
                levels,
                settings,
                ..Scene::default()
            })
            .1,
            "deviation",
        )
    };
    let (slides, stays) = (last(drift(0.01)), first(drift(0.01)));
    assert_eq!(slides[8], stays[8], "the first compared cycle sees the same reference");
    assert!(slides[39] < stays[39], "{:?} {:?}", slides[39], stays[39]);
    // A jump is beyond the limit, so it never becomes the reference.
    let jump: Vec<f64> = (0..30)
        .map(|i| f64::from(i % 4) / 10.0 + if i < 12 { 0.0 } else { 50.0 })
        .collect();
    let found = last(jump);
    assert!(found[12] > Some(10.0) && found[29] > Some(10.0));
}

#[test]
fn a_reference_from_a_file() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    writeln!(file, "cycle_id,signal,ts,value").expect("written");
    for (cycle, level) in [0.0, 0.1, 0.2].into_iter().enumerate() {
        for i in 0..25 {
            writeln!(file, "c{cycle},pressure,{},{}", i * 1_000_000, f64::from(i) + level).expect("written");
        }
    }
    let settings = format!("{{reference: {{path: {}}}}}", file.path().display());
    let (_, rows) = compared(Scene {
        levels: vec![0.1, 9.0],
        settings,
        ..Scene::default()
    });
    let deviation = numbers(&rows, "deviation");
    assert!(deviation[0] < Some(0.01) && deviation[1] > Some(10.0), "{deviation:?}");
    assert_eq!(signal_number(&rows, 0, "speed", "distance"), None);
}

#[test]
fn allow_list_and_ignore() {
    for settings in [
        "{reference: {first: 3}, signals: [pressure]}",
        "{reference: {first: 3}, ignore: [speed]}",
    ] {
        let (_, rows) = compared(Scene {
            settings: settings.into(),
            ..Scene::default()
        });
        assert_eq!(signal_number(&rows, 3, "speed", "distance"), None, "{settings}");
        assert_eq!(
            signal_number(&rows, 3, "pressure", "contribution"),
            Some(1.0),
            "{settings}"
        );
    }
}

#[test]
fn settings_are_refused_with_their_path() {
    let check = |yaml: &str, path: &str, message: &str| {
        let problems = try_build(yaml, &input()).err().unwrap_or_default();
        let found = problems
            .first()
            .map(|p| (p.path.join("."), p.message.clone()))
            .unwrap_or_default();
        assert!(found.0 == path && found.1.starts_with(message), "{yaml}: {found:?}");
    };
    check("{}", "", "");
    check("{reference: {last: 200}, distance: euclidean, window: 0%}", "", "");
    check("{reference: {first: 0}}", "reference.first", "must be 1 to 200");
    check("{reference: {last: 201}}", "reference.last", "must be 1 to 200");
    check("{reference: {cycle: ' '}}", "reference.cycle", "must be a cycle_id");
    check("{reference: {path: no/such.csv}}", "reference.path", "no/such.csv: ");
    check("{max_points: 1}", "max_points", "must be at least 2");
    check("{signals: []}", "signals", "names no signal");
    check("{signals: [a], ignore: [a]}", "signals", "names no signal");
    let again = compared(Scene::default()).0;
    let problems = try_build("{}", &again).err().expect("refused");
    assert_eq!(problems[0].message, "the input has been compared already");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn the_cut_into_calls_does_not_matter(
        levels in prop::collection::vec(0.0..3.0f64, 1..24),
        chunk in 1usize..9,
        absent in 0usize..24,
        last in any::<bool>(),
    ) {
        let scene = |chunk| Scene {
            levels: levels.clone(),
            absent_from: Some(absent),
            settings: format!("{{reference: {{{}: 5}}}}", if last { "last" } else { "first" }),
            chunk,
            ..Scene::default()
        };
        let whole = |chunk| {
            let (input, batches) = compared(scene(chunk));
            arrow::compute::concat_batches(&input.table.schema, &batches).expect("one batch")
        };
        prop_assert_eq!(whole(chunk), whole(usize::MAX));
    }
}
