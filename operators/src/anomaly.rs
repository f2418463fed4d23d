//! `anomaly`: how rare each sample, window or cycle is beside its own past, and a threshold for a rate of false alarms.
//!
//! `score` is a tenth of the negative decimal logarithm of the probability that a row of the past was as odd: 0.3 is one row in
//! a thousand, 0.5 one in 10⁵, 1 one in 10¹⁰ or rarer. `threshold` is the score that `false_alarms` allows at the pace of the
//! rows, and `anomaly` says that the score reaches it. Each row is scored before it is learned. What was learned is
//! forgotten: a row weighs 1/e after `remember` more of them, so drift slower than that is followed.
//!
//! | input | what is scored |
//! | --- | --- |
//! | `samples` | the value, signal by signal |
//! | `windows` | one column (`of`), signal by signal |
//! | `cycles` | all columns together (`of`: of each signal, and of the cycle), complete cycles only |
//!
//! A value that isn't finite is not scored and not learned: its row has no score. A row with a text and no value gives
//! no row.

mod output;
mod rate;
mod values;
mod vectors;

use std::sync::Arc;

use anyhow::ensure;
use arrow::datatypes::{DataType, Schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taktline_engine::config::{Interval, Problem, Section};
use taktline_engine::kind::{Input, StepKind};
use taktline_engine::{Operator, Order, Step, Table};

use crate::cycles::SignalStats;
use crate::kernels::anomaly::auto::{MEMORY, Method};
use output::schema;
use rate::{FalseAlarms, Pace};
use values::Values;
use vectors::Vectors;

/// The kind's row in the table.
pub const KIND: StepKind = StepKind {
    name: "anomaly",
    summary: "scores how rare each sample, window or cycle is, with a threshold for a rate of false alarms",
    schema: || schemars::schema_for!(AnomalyConfig),
    reads: &["samples", "windows", "cycles"],
    build,
};

/// Cycles are fewer than samples.
const CYCLE_MEMORY: f64 = 500.0;
const WARM_UP: u32 = 200;
const CYCLE_WARM_UP: u32 = 40;

/// Settings of an `anomaly` step.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AnomalyConfig {
    /// What looks for anomalies. Default: auto, which combines several. Over cycles it is always auto.
    #[serde(default)]
    detector: Method,
    /// How many false alarms are accepted, of each signal: `1 per day`, `2 per week`, `1 per 10000 rows`. Default: 1 per day.
    #[serde(default)]
    false_alarms: FalseAlarms,
    /// Rows of a signal, or cycles, that are only learned. Default: 200, and 40 for cycles. A detector may need more.
    warm_up: Option<u32>,
    /// Rows of a signal, or cycles, after which one weighs 1/e of a new one. Default: 2000, and 500 for cycles.
    remember: Option<u32>,
    /// Columns to score. Of windows one, by default `mean`; of cycles those of each signal and of the cycle, by default `mean`, `std`,
    /// `min`, `max` and `duration_s`.
    of: Option<Vec<String>>,
    /// Look only at these signals.
    signals: Option<Vec<String>>,
    /// Don't look at these signals.
    #[serde(default)]
    ignore: Vec<String>,
    /// How long samples may be out of order; 1s if not given. Later ones go to the table `late`.
    lateness: Option<Interval>,
}

fn build(section: &Section, input: &Input) -> Result<Box<dyn Step>, Vec<Problem>> {
    let config: AnomalyConfig = section.parse()?;
    let reads = Reads::of(input);
    let mut problems = Vec::new();
    if reads == Reads::Cycles && config.detector != Method::Auto {
        let message = format!(
            "`{}` looks at one signal, a cycle has many columns",
            config.detector.as_str()
        );
        problems.push(Problem::at("detector", message).hint("leave it out, or read windows or samples"));
    }
    if reads == Reads::Samples && config.of.is_some() {
        problems.push(Problem::at("of", "samples have one value").hint("name signals by `signals`"));
    }
    if reads != Reads::Samples && config.lateness.is_some() {
        problems.push(Problem::at("lateness", "is for samples only"));
    }
    if config.remember.is_some_and(|rows| !(32..=10_000_000).contains(&rows)) {
        problems.push(Problem::at("remember", "must be 32 to 10000000"));
    }
    if let Some(signals) = &config.signals
        && signals.iter().all(|name| config.ignore.contains(name))
    {
        problems.push(Problem::at("signals", "names no signal to look at").hint("leave it out to look at all"));
    }
    let of = config.of.unwrap_or_else(|| reads.columns());
    if reads != Reads::Samples {
        problems.extend(reads.wrong_columns(&of, input));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let (memory, warm_up) = if reads == Reads::Cycles {
        (CYCLE_MEMORY, CYCLE_WARM_UP)
    } else {
        (MEMORY, WARM_UP)
    };
    let settings = Settings {
        reads,
        detector: config.detector,
        false_alarms: config.false_alarms,
        warm_up: config.warm_up.unwrap_or(warm_up),
        memory: config.remember.map_or(memory, f64::from),
        of,
        signals: config.signals,
        ignore: config.ignore,
    };
    Ok(Box::new(AnomalyStep {
        lateness_us: config.lateness.map_or(1_000_000, Interval::micros),
        settings: Arc::new(settings),
        table: Table::plain("anomalies", schema()),
    }))
}

/// What the step reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reads {
    Samples,
    Windows,
    Cycles,
}

impl Reads {
    fn of(input: &Input) -> Self {
        match input.table.name {
            "windows" => Reads::Windows,
            "cycles" => Reads::Cycles,
            _ => Reads::Samples,
        }
    }

    /// What is scored where nothing is said.
    fn columns(self) -> Vec<String> {
        let names: &[&str] = match self {
            Reads::Samples => &["value"],
            Reads::Windows => &["mean"],
            Reads::Cycles => &["mean", "std", "min", "max", "duration_s"],
        };
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn wrong_columns(self, of: &[String], input: &Input) -> Vec<Problem> {
        let mut problems = Vec::new();
        if of.is_empty() {
            problems.push(Problem::at("of", "names no column").hint("leave it out to score the usual ones"));
        }
        if self == Reads::Windows && of.len() > 1 {
            problems.push(Problem::at("of", "of windows one column is scored").hint("make one step for each"));
        }
        for name in of {
            let per_signal = self == Reads::Cycles && SignalStats::NAMES.contains(&name.as_str());
            if !per_signal && !is_number(&input.table.schema, name) {
                problems.push(Problem::at("of", format!("`{}` has no number `{name}`", input.name)));
            }
        }
        problems
    }
}

fn is_number(schema: &Schema, name: &str) -> bool {
    schema
        .field_with_name(name)
        .is_ok_and(|field| field.data_type() == &DataType::Float64)
}

/// The settings that run.
struct Settings {
    reads: Reads,
    detector: Method,
    false_alarms: FalseAlarms,
    warm_up: u32,
    memory: f64,
    of: Vec<String>,
    signals: Option<Vec<String>>,
    ignore: Vec<String>,
}

impl Settings {
    fn looks_at(&self, signal: &str) -> bool {
        let has = |names: &[String]| names.iter().any(|name| name == signal);
        self.signals.as_deref().is_none_or(has) && !has(&self.ignore)
    }
}

struct AnomalyStep {
    lateness_us: i64,
    settings: Arc<Settings>,
    table: Table,
}

impl Step for AnomalyStep {
    fn output(&self) -> &Table {
        &self.table
    }

    fn order(&self) -> Order {
        match self.settings.reads {
            Reads::Samples => Order::Time {
                lateness_us: self.lateness_us,
            },
            Reads::Windows | Reads::Cycles => Order::Arrival,
        }
    }

    /// What was learned is of these columns, by this detector, at this rate.
    fn state(&self) -> String {
        let Settings {
            detector, memory, of, ..
        } = self.settings.as_ref();
        format!("anomaly/1 {} of {} over {memory}", detector.as_str(), of.join(", "))
    }

    fn operator(&self, key: &str) -> Box<dyn Operator> {
        let settings = self.settings.clone();
        match self.settings.reads {
            Reads::Cycles => Box::new(Vectors::new(settings, key)),
            Reads::Samples | Reads::Windows => Box::new(Values::new(settings, key)),
        }
    }
}

/// What one signal, or one machine's cycles, have of rows and their pace.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Progress {
    learned: u32,
    pace: Pace,
}

impl Progress {
    /// The score and threshold of a row at `ts_us` whose rarity is `score` (NaN where there is none).
    fn judge(&mut self, ts_us: i64, score: f64, settings: &Settings) -> (f64, f64) {
        self.pace.see(ts_us);
        let warm = self.learned >= settings.warm_up;
        self.learned = self.learned.saturating_add(1);
        let threshold = settings.false_alarms.threshold(&self.pace);
        if warm {
            (score, threshold)
        } else {
            (f64::NAN, threshold)
        }
    }

    fn check(&self) -> anyhow::Result<()> {
        ensure!(self.pace.is_whole(), "state that can't be read: a pace that can't be");
        Ok(())
    }
}

#[cfg(test)]
mod tests;
