//! `health`: a score of 0 to 100 for each compared cycle, fitted on its reference cycles.
//!
//! With deviation `d` and the reference's median `m` and control limit `l`:
//!
//! | where | health |
//! | --- | --- |
//! | `d ≤ m` | 100 |
//! | `m < d ≤ l` | `100 - 40 (d - m) / (l - m)` |
//! | `l < d` | `60 exp(-(d - l) / (l - m))`, in whole thousandths |
//!
//! It never rises with the deviation. It is `unknown` where the data doesn't support a score: the cycle was not
//! compared, its reference has fewer than three cycles, it lacks a signal of the reference, or too many of its samples
//! are missing, of all signals together or of one that was compared.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListBuilder, RecordBatch, StringArray, StringBuilder, UInt32Array};
use arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef, UInt32Type, UInt64Type};
use schemars::JsonSchema;
use serde::Deserialize;
use taktline_engine::config::{Percent, Problem, Section};
use taktline_engine::kind::{Input, StepKind};
use taktline_engine::{Operator, Order, Output, Rows, Saved, Snapshot, Step, Table};

use crate::cycles::{self, CycleRows, SIGNALS, SignalCycle, nan_is_null};

/// The table row of this kind.
pub const KIND: StepKind = StepKind {
    name: "health",
    summary: "Scores each compared cycle from 0 to 100, with a risk class and the signals that deviate most.",
    schema: || schemars::schema_for!(HealthConfig),
    reads: &["cycles"],
    build,
};

/// How many signals are named.
const TOP: usize = 3;

/// Settings of a `health` step.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthConfig {
    /// The share of samples that may be missing, of a cycle and of each compared signal without texts; beyond it
    /// health is unknown. Default: 20%.
    #[serde(default = "default_max_missing")]
    max_missing: Percent,
    /// Health below this is a medium risk, at or above it a low one. Default: 80.
    #[serde(default = "default_medium")]
    medium: f64,
    /// Health below this is a high risk. Default: 60, which is the control limit.
    #[serde(default = "default_high")]
    high: f64,
}

fn default_max_missing() -> Percent {
    Percent::new(20.0)
}

fn default_medium() -> f64 {
    80.0
}

fn default_high() -> f64 {
    60.0
}

fn build(section: &Section, input: &Input) -> Result<Box<dyn Step>, Vec<Problem>> {
    let config: HealthConfig = section.parse()?;
    let mut problems = Vec::new();
    for (key, value) in [("medium", config.medium), ("high", config.high)] {
        if !(0.0..=100.0).contains(&value) {
            problems.push(Problem::at(key, "must be 0 to 100"));
        }
    }
    if problems.is_empty() && config.medium < config.high {
        problems.push(Problem::at("medium", "must not be below `high`"));
    }
    let schema = &input.table.schema;
    if let Err(column) = Columns::of(&RecordBatch::new_empty(schema.clone())) {
        let message = format!("`{}` has no {column}", input.name);
        problems.push(Problem::at("", message).hint("put a compare step before it and read from that"));
    } else if schema.column_with_name("health").is_some() {
        problems.push(
            Problem::at("", format!("`{}` has a health already", input.name)).hint("read the compare step itself"),
        );
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    Ok(Box::new(Health {
        output: cycles::table(extended(schema), true),
        config: Arc::new(config),
    }))
}

fn extended(schema: &Schema) -> SchemaRef {
    let names = DataType::List(Arc::new(Field::new("item", DataType::Utf8, true)));
    let fields = [
        Field::new("health", DataType::Float64, true),
        Field::new("risk", DataType::Utf8, false),
        Field::new("top_signal", DataType::Utf8, true),
        Field::new("top_signals", names, false),
    ];
    cycles::extended(schema, fields, [])
}

struct Health {
    config: Arc<HealthConfig>,
    output: Table,
}

impl Step for Health {
    fn output(&self) -> &Table {
        &self.output
    }

    fn order(&self) -> Order {
        Order::Arrival
    }

    /// A score depends on its row alone.
    fn state(&self) -> String {
        "health/1".to_owned()
    }

    fn operator(&self, _: &str) -> Box<dyn Operator> {
        Box::new(Scorer {
            config: self.config.clone(),
            schema: self.output.schema.clone(),
        })
    }
}

struct Scorer {
    config: Arc<HealthConfig>,
    schema: SchemaRef,
}

impl Operator for Scorer {
    fn rows(&mut self, rows: &Rows<'_>, out: &mut Output) -> anyhow::Result<()> {
        let batch = rows.batch();
        let columns = Columns::of(&batch).map_err(|column| anyhow::anyhow!("the input has no {column}"))?;
        let mut health: Vec<f64> = (0..batch.num_rows())
            .map(|row| columns.health(row, &self.config))
            .collect();
        let (mut first, mut top) = (StringBuilder::new(), ListBuilder::new(StringBuilder::new()));
        let (cycles, mut at) = (CycleRows::of(&batch)?, columns.first_signal);
        for (row, health) in health.iter_mut().enumerate() {
            let mut ranked: Vec<(u32, &str)> = Vec::new();
            for signal in cycles.signals(row) {
                if columns.rank.is_valid(at) && self.config.lacks(&signal) {
                    *health = f64::NAN;
                }
                ranked.extend(columns.rank.is_valid(at).then(|| (columns.rank.value(at), signal.name)));
                at += 1;
            }
            ranked.sort_unstable();
            first.append_option(ranked.first().map(|(_, name)| *name));
            ranked
                .iter()
                .take(TOP)
                .for_each(|(_, name)| top.values().append_value(name));
            top.append(true);
        }
        let risk = health
            .iter()
            .map(|health| Some(self.config.risk(*health)))
            .collect::<StringArray>();
        let added: Vec<ArrayRef> = vec![
            Arc::new(nan_is_null(health)),
            Arc::new(risk),
            Arc::new(first.finish()),
            Arc::new(top.finish()),
        ];
        out.emit(cycles::extend(&batch, &self.schema, added, Vec::new())?);
        Ok(())
    }

    fn snapshot(&mut self, _: &mut Snapshot) -> anyhow::Result<()> {
        Ok(())
    }

    fn restore(&mut self, _: &Saved) -> anyhow::Result<()> {
        Ok(())
    }
}

impl HealthConfig {
    /// Whether too much of a signal is missing. One with texts isn't judged: how many there were isn't known.
    fn lacks(&self, signal: &SignalCycle<'_>) -> bool {
        let (samples, missing) = (signal.values.len() as f64, signal.missing as f64);
        signal.text.is_none() && missing > self.max_missing.share() * (samples + missing)
    }

    fn risk(&self, health: f64) -> &'static str {
        if health.is_nan() {
            "unknown"
        } else if health >= self.medium {
            "low"
        } else if health >= self.high {
            "medium"
        } else {
            "high"
        }
    }
}

/// Health of a deviation under a reference's median and limit, all in units; NaN where one of them is.
fn score(deviation: f64, median: f64, limit: f64) -> f64 {
    if deviation.is_nan() || median.is_nan() || limit.is_nan() {
        f64::NAN
    } else if deviation <= median {
        100.0
    } else if deviation <= limit {
        100.0 - 40.0 * ((deviation - median) / (limit - median))
    } else {
        let health = 60.0 * (-(deviation - limit) / (limit - median).max(f64::MIN_POSITIVE)).exp();
        // A thousandth is fine enough; rounded down, so that beyond the limit is always below 60.
        (health * 1000.0).floor() / 1000.0
    }
}

/// The columns that a score needs.
struct Columns {
    numbers: [arrow::array::Float64Array; 3],
    absent: UInt32Array,
    samples: arrow::array::UInt64Array,
    missing: arrow::array::UInt64Array,
    rank: UInt32Array,
    /// Where the first row's signals begin in `rank`.
    first_signal: usize,
}

impl Columns {
    /// The columns of a batch, or which one is absent or of another type.
    fn of(batch: &RecordBatch) -> Result<Self, String> {
        let column = |name: &str| batch.column_by_name(name).ok_or_else(|| format!("column `{name}`"));
        let number = |name: &str| {
            column(name)?
                .as_primitive_opt::<Float64Type>()
                .cloned()
                .ok_or_else(|| format!("number `{name}`"))
        };
        let count = |name: &str| {
            column(name)?
                .as_primitive_opt::<UInt64Type>()
                .cloned()
                .ok_or_else(|| format!("count `{name}`"))
        };
        let small = |array: &ArrayRef| array.as_primitive_opt::<UInt32Type>().cloned();
        let list = column(SIGNALS)?.as_list_opt::<i32>().ok_or("list `signals`")?;
        let rank = list.values().as_struct_opt().and_then(|s| s.column_by_name("rank"));
        Ok(Columns {
            numbers: [
                number("deviation")?,
                number("deviation_median")?,
                number("deviation_limit")?,
            ],
            absent: small(column("absent_signals")?).ok_or("count `absent_signals`")?,
            samples: count("samples")?,
            missing: count("missing")?,
            rank: rank.and_then(small).ok_or("`rank` of its signals")?,
            first_signal: list.value_offsets()[0] as usize,
        })
    }

    fn health(&self, row: usize, config: &HealthConfig) -> f64 {
        let (samples, missing) = (self.samples.value(row) as f64, self.missing.value(row) as f64);
        if self.absent.value(row) > 0 || missing > config.max_missing.share() * (samples + missing) {
            return f64::NAN;
        }
        let [deviation, median, limit] = self.numbers.each_ref().map(|column| {
            if column.is_valid(row) {
                column.value(row)
            } else {
                f64::NAN
            }
        });
        score(deviation, median, limit)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::compare::tests::{Scene, compared};

    const NAN: f64 = f64::NAN;

    #[test]
    fn scores_and_risks() {
        let config: HealthConfig = Section::from_yaml("h", "{}").parse().expect("defaults");
        let check = |deviation, median, limit, expect: f64, risk| {
            let found = score(deviation, median, limit);
            assert!(
                (found - expect).abs() < 1e-9 || (found.is_nan() && expect.is_nan()),
                "{deviation}: {found}"
            );
            assert_eq!(config.risk(found), risk, "{deviation}");
        };
        check(0.0, 1.0, 2.0, 100.0, "low");
        check(1.0, 1.0, 2.0, 100.0, "low");
        check(1.5, 1.0, 2.0, 80.0, "low");
        check(1.6, 1.0, 2.0, 76.0, "medium");
        check(2.0, 1.0, 2.0, 60.0, "medium");
        check(3.0, 1.0, 2.0, 22.072, "high"); // 60 / e
        check(1e6, 1.0, 2.0, 0.0, "high");
        check(NAN, 1.0, 2.0, NAN, "unknown");
        check(1.0, NAN, NAN, NAN, "unknown");
    }

    #[test]
    fn settings() {
        let input = compared(Scene::default());
        let check = |yaml: &str, expect: &str| {
            let problems = build(&Section::from_yaml("h", yaml), &input.0)
                .err()
                .unwrap_or_default();
            assert_eq!(problems.first().map_or("", |p| p.message.as_str()), expect, "{yaml}");
        };
        check("{}", "");
        check("{medium: 70, high: 50, max_missing: 5%}", "");
        check("{medium: 170}", "must be 0 to 100");
        check("{medium: 40}", "must not be below `high`");
        let plain = Input {
            name: "strokes".into(),
            table: cycles::table(cycles::schema(), false),
            extends: Vec::new(),
        };
        let problems = build(&Section::from_yaml("h", "{}"), &plain).err().expect("refused");
        assert_eq!(problems[0].message, "`strokes` has no column `deviation`");
        assert!(problems[0].path.is_empty());
    }

    fn health(scene: Scene) -> Vec<(Option<f64>, String, Option<String>, usize)> {
        let (input, batches) = compared(scene);
        let step = build(&Section::from_yaml("h", "{}"), &input).unwrap_or_else(|problems| panic!("{problems:?}"));
        let mut operator = step.operator("m");
        let mut out = Output::default();
        for batch in &batches {
            for row in 0..batch.num_rows() {
                operator.rows(&Rows::new(batch, row..row + 1), &mut out).expect("rows");
            }
        }
        let mut found = Vec::new();
        for batch in out.take() {
            assert_eq!(batch.schema(), step.output().schema);
            for published in &step.output().published {
                assert_eq!(
                    (published.project)(&batch).expect("published").schema(),
                    published.schema
                );
            }
            let column = |name: &str| batch.column_by_name(name).expect(name).clone();
            let (health, risk, top, tops) = (
                column("health"),
                column("risk"),
                column("top_signal"),
                column("top_signals"),
            );
            let (health, top) = (health.as_primitive::<Float64Type>(), top.as_string::<i32>());
            found.push((
                health.is_valid(0).then(|| health.value(0)),
                risk.as_string::<i32>().value(0).to_owned(),
                top.is_valid(0).then(|| top.value(0).to_owned()),
                tops.as_list::<i32>().value(0).len(),
            ));
        }
        found
    }

    #[test]
    fn learning_is_unknown_then_good_is_low_and_bad_is_high() {
        let found = health(Scene {
            levels: vec![0.0, 0.1, 0.2, 0.1, 9.0],
            ..Scene::default()
        });
        assert_eq!(found[0], (None, "unknown".into(), None, 0));
        assert_eq!((found[3].1.as_str(), found[3].3), ("low", 2));
        let (score, risk, top, _) = &found[4];
        assert!(score.expect("a score") < 1.0 && risk == "high");
        assert_eq!(top.as_deref(), Some("pressure"));
    }

    #[test]
    fn what_is_missing_makes_it_unknown() {
        let absent = health(Scene {
            levels: vec![0.0, 0.1, 0.2, 0.1],
            absent_from: Some(3),
            ..Scene::default()
        });
        assert_eq!((absent[3].0, absent[3].1.as_str()), (None, "unknown"));
        let missing = |missing| {
            health(Scene {
                levels: vec![0.0, 0.1, 0.2, 0.1],
                missing,
                ..Scene::default()
            })
        };
        // 50 samples a cycle: 12 of 62 are below 20 %, 13 of 63 are above.
        assert_eq!(
            (missing(12)[3].1.as_str(), missing(13)[3].1.as_str()),
            ("low", "unknown")
        );
    }

    #[test]
    fn what_one_signal_lacks_makes_it_unknown() {
        let risk = |speed_missing| {
            let scene = Scene {
                speed_missing,
                ..Scene::default()
            };
            health(scene)[3].1.clone()
        };
        // 25 samples of the signal: 6 of 31 are below 20 %, 7 of 32 are above.
        assert_eq!((risk(6).as_str(), risk(7).as_str()), ("low", "unknown"));
    }

    proptest! {
        #[test]
        fn never_rises_with_deviation(median in 0.0..10.0f64, width in 1e-6..10.0f64, two in any::<[u16; 2]>()) {
            let (less, more) = (f64::from(two[0].min(two[1])) / 1e3, f64::from(two[0].max(two[1])) / 1e3);
            let (good, bad) = (score(less, median, median + width), score(more, median, median + width));
            prop_assert!(good >= bad && (0.0..=100.0).contains(&good) && (0.0..=100.0).contains(&bad));
        }
    }
}
