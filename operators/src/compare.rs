//! `compare`: holds each cycle against reference cycles, signal by signal.
//!
//! Only `complete` cycles make references and are compared. A cycle is always compared before it may become part of a
//! reference. How references are learned and distances taken stands in `reference.rs`.

mod absent;
mod state;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array, StringArray, UInt32Array};
use arrow::datatypes::{DataType, Field, SchemaRef};
use schemars::JsonSchema;
use serde::Deserialize;
use taktline_engine::config::{Percent, Problem, Section};
use taktline_engine::kind::{Input, StepKind};
use taktline_engine::{Operator, Order, Output, Rows, Saved, Snapshot, Step, Table};

use crate::cycles::{self, CycleRows, SignalCycle, nan_is_null};
use crate::kernels::dtw::{Scratch, dtw_path, window};
use crate::reference::{Comparison, CycleData, Measure, Reference, SignalComparison, medoid, read};

/// The table row of this kind.
pub const KIND: StepKind = StepKind {
    name: "compare",
    summary: "Holds each cycle against reference cycles: distances, deviation, contributions and rank of each signal.",
    schema: || schemars::schema_for!(CompareConfig),
    reads: &["cycles"],
    build,
};

/// Most cycles of a reference: the search for the template takes N²/2 distances a signal.
const MOST_CYCLES: usize = 200;
/// Most recipes of a machine, so that a counter given as `per` can't fill the memory.
const MOST_RECIPES: usize = 256;

/// Settings of a `compare` step.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CompareConfig {
    /// Which cycles are the reference. Default: the first 20.
    #[serde(default)]
    reference: ReferenceConfig,
    /// The distance that counts. Euclidean is always given; DTW costs time and is given where it counts.
    #[serde(default)]
    distance: Distance,
    /// How far DTW may shift, in percent of the longer series. Default: 10%.
    #[serde(default = "default_window")]
    window: Percent,
    /// A signal that names the recipe or program: each of its texts (or last values) has a reference of its own.
    per: Option<String>,
    /// Compare only these signals.
    signals: Option<Vec<String>>,
    /// Don't compare these signals.
    #[serde(default)]
    ignore: Vec<String>,
    /// Longer signals are interpolated onto this many points before they are compared. Default: 10000.
    #[serde(default = "default_max_points")]
    max_points: usize,
}

/// Which cycles are the reference.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum ReferenceConfig {
    /// The first N complete cycles of each machine.
    First(usize),
    /// The last N good cycles of each machine: complete, and within the control limit. It follows slow changes. Each
    /// cycle costs about 2 N distances a signal.
    Last(usize),
    /// The cycle with this `cycle_id`, from when it passes. One cycle has no spread: it gives distances, but no units.
    Cycle(String),
    /// A CSV file with the columns cycle_id, signal, ts (RFC 3339 or µs) and value, and text where recipes are texts.
    Path(String),
}

impl Default for ReferenceConfig {
    fn default() -> Self {
        ReferenceConfig::First(20)
    }
}

/// A distance of two series.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Distance {
    /// Dynamic time warping.
    #[default]
    Dtw,
    /// Point by point, resampled to the template's length.
    Euclidean,
}

fn default_window() -> Percent {
    Percent::new(10.0)
}

fn default_max_points() -> usize {
    10_000
}

fn build(section: &Section, input: &Input) -> Result<Box<dyn Step>, Vec<Problem>> {
    let config: CompareConfig = section.parse()?;
    let mut problems = Vec::new();
    let measure = Measure {
        dtw: config.distance == Distance::Dtw,
        window: config.window.percent(),
    };
    if config.max_points < 2 {
        problems.push(Problem::at("max_points", "must be at least 2"));
    }
    if input.table.schema.column_with_name("deviation").is_some() {
        problems.push(Problem::at("", "the input has been compared already").hint("read the cycle step itself"));
    }
    if let Some(signals) = &config.signals
        && signals.iter().all(|name| config.ignore.contains(name))
    {
        problems.push(Problem::at("signals", "names no signal to compare").hint("leave it out to compare all"));
    }
    let (mut label, mut fixed) = (String::new(), BTreeMap::new());
    match &config.reference {
        ReferenceConfig::First(n) | ReferenceConfig::Last(n) => {
            let word = if matches!(config.reference, ReferenceConfig::First(_)) {
                "first"
            } else {
                "last"
            };
            if !(1..=MOST_CYCLES).contains(n) {
                problems.push(Problem::at(
                    &format!("reference.{word}"),
                    format!("must be 1 to {MOST_CYCLES}"),
                ));
            }
            label = format!("{word} {n}");
        }
        ReferenceConfig::Cycle(id) if id.trim().is_empty() => {
            problems.push(
                Problem::at("reference.cycle", "must be a cycle_id").hint("like press-1@2026-01-02T03:04:05.678901Z"),
            );
        }
        ReferenceConfig::Cycle(id) => label = format!("cycle {id}"),
        ReferenceConfig::Path(path) if problems.is_empty() => {
            label = format!("file {path}");
            match from_file(path, &config, measure) {
                Ok(references) => fixed = references,
                Err(e) => problems.push(Problem::at("reference.path", format!("{path}: {e:#}"))),
            }
        }
        ReferenceConfig::Path(_) => {}
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    let number = |name: &str| Field::new(name, DataType::Float64, true);
    let cycle = [
        text("reference", true),
        text("comparison", false),
        number("deviation"),
        number("deviation_median"),
        number("deviation_limit"),
        Field::new("absent_signals", DataType::UInt32, false),
    ];
    let signal = SIGNAL_NUMBERS
        .map(|(name, _)| number(name))
        .into_iter()
        .chain([Field::new("rank", DataType::UInt32, true)]);
    let output = cycles::table(cycles::extended(&input.table.schema, cycle, signal), true);
    Ok(Box::new(Compare(Arc::new(Settings {
        config,
        measure,
        label,
        fixed,
        output,
    }))))
}

type Pick = fn(&SignalComparison) -> f64;

/// The number columns of a signal, in order; `rank` follows.
const SIGNAL_NUMBERS: [(&str, Pick); 12] = [
    ("distance", |s| s.distance),
    ("distance_units", |s| s.units),
    ("euclidean", |s| s.euclidean),
    ("dtw", |s| s.dtw),
    ("deviation_max", |s| s.deviation_max),
    ("deviation_mean", |s| s.deviation_mean),
    ("outside", |s| s.outside),
    ("mean_difference", |s| s.differences[0]),
    ("std_difference", |s| s.differences[1]),
    ("min_difference", |s| s.differences[2]),
    ("max_difference", |s| s.differences[3]),
    ("contribution", |s| s.contribution),
];

/// A reference for each recipe of the file; under "" without `per`.
fn from_file(path: &str, config: &CompareConfig, measure: Measure) -> anyhow::Result<BTreeMap<String, Arc<Reference>>> {
    let mut groups: BTreeMap<String, Vec<Arc<CycleData>>> = BTreeMap::new();
    for mut cycle in read(Path::new(path), config.max_points)? {
        let recipe = match &config.per {
            None => String::new(),
            Some(per) => match cycle.last.remove(per) {
                Some(recipe) => recipe,
                None => anyhow::bail!("a cycle lacks the signal `{per}`, which names the recipe"),
            },
        };
        cycle.data.signals.retain(|name, _| config.compares(name));
        groups.entry(recipe).or_default().push(Arc::new(cycle.data));
    }
    anyhow::ensure!(
        groups.values().all(|cycles| cycles.len() <= MOST_CYCLES),
        "a reference has at most {MOST_CYCLES} cycles"
    );
    let mut scratch = Scratch::default();
    let learn = |cycles: Vec<_>| Arc::new(Reference::learn(&cycles, None, measure, &mut scratch));
    let references: Vec<Arc<Reference>> = groups.values().cloned().map(learn).collect();
    Ok(groups.into_keys().zip(references).collect())
}

impl CompareConfig {
    fn compares(&self, signal: &str) -> bool {
        let listed = self
            .signals
            .as_ref()
            .is_none_or(|names| names.iter().any(|name| name == signal));
        listed && !self.ignore.iter().any(|name| name == signal) && self.per.as_deref() != Some(signal)
    }
}

struct Settings {
    config: CompareConfig,
    measure: Measure,
    /// The reference in words.
    label: String,
    /// References known from the beginning, by recipe.
    fixed: BTreeMap<String, Arc<Reference>>,
    output: Table,
}

struct Compare(Arc<Settings>);

impl Step for Compare {
    fn output(&self) -> &Table {
        &self.0.output
    }

    fn order(&self) -> Order {
        Order::Arrival
    }

    /// A learned reference holds for the settings that it was learned with.
    fn state(&self) -> String {
        let Settings {
            config, measure, label, ..
        } = &*self.0;
        let distance = if measure.dtw {
            format!("dtw {}%", measure.window)
        } else {
            "euclidean".to_owned()
        };
        let mut state = format!("compare/1 to {label}, {distance}");
        if let Some(per) = &config.per {
            state += &format!(", per {per:?}");
        }
        let sorted = |names: &[String]| names.iter().cloned().collect::<BTreeSet<String>>();
        if let Some(signals) = &config.signals {
            state += &format!(", signals {:?}", sorted(signals));
        }
        if !config.ignore.is_empty() {
            state += &format!(", without {:?}", sorted(&config.ignore));
        }
        state
    }

    fn operator(&self, _: &str) -> Box<dyn Operator> {
        let fixed = |reference: &Arc<Reference>| Kept::saved(Slot::Fixed(reference.clone()));
        let ready = |(recipe, reference): (&String, &Arc<Reference>)| (recipe.clone(), fixed(reference));
        let slots = self.0.fixed.iter().map(ready).collect();
        Box::new(Comparer {
            settings: self.0.clone(),
            slots,
            came: 0,
            compared: 0,
            written: 0,
            scratch: Scratch::default(),
        })
    }
}

/// The state of one machine.
struct Comparer {
    settings: Arc<Settings>,
    /// By recipe; under "" without `per`.
    slots: BTreeMap<String, Kept>,
    scratch: Scratch,
    /// Cycles that came, and those of them that were compared.
    came: u64,
    compared: u64,
    /// Records in the tail of the state.
    written: usize,
}

/// The reference of one recipe, and how much of it isn't in a checkpoint yet.
struct Kept {
    slot: Slot,
    /// Its newest cycles, or 1 for the reference itself.
    unsaved: usize,
}

impl Kept {
    fn saved(slot: Slot) -> Self {
        Kept { slot, unsaved: 0 }
    }
}

/// The reference of one recipe.
enum Slot {
    Learning(Vec<Arc<CycleData>>),
    Fixed(Arc<Reference>),
    Sliding {
        cycles: VecDeque<Arc<CycleData>>,
        template: Arc<CycleData>,
        reference: Arc<Reference>,
    },
}

/// What is said of one cycle.
struct Verdict {
    label: Option<String>,
    comparison: &'static str,
    against: Option<(Arc<Reference>, Comparison)>,
}

impl Operator for Comparer {
    fn rows(&mut self, rows: &Rows<'_>, out: &mut Output) -> anyhow::Result<()> {
        let batch = rows.batch();
        let cycles = CycleRows::of(&batch)?;
        let verdicts: Vec<Verdict> = (0..cycles.len()).map(|row| self.judge(&cycles, row)).collect();
        self.came += verdicts.len() as u64;
        self.compared += verdicts.iter().filter(|verdict| verdict.against.is_some()).count() as u64;
        let (mut absent_names, mut absent_counts) = (Vec::new(), Vec::new());
        for (row, verdict) in verdicts.iter().enumerate() {
            let wanted = verdict.against.iter().flat_map(|(reference, _)| reference.names());
            let held: BTreeMap<&str, usize> = cycles.signals(row).map(|s| (s.name, s.values.len())).collect();
            let lacking: Vec<&str> = wanted
                .filter(|name| held.get(name).is_none_or(|samples| *samples == 0))
                .collect();
            absent_counts.push(lacking.len() as u32);
            let without_row = lacking.into_iter().filter(|name| !held.contains_key(name));
            absent_names.push(without_row.map(str::to_owned).collect::<Vec<String>>());
        }
        let complete = absent::with_absent(&batch, &absent_names)?;
        let cycles = CycleRows::of(&complete)?;
        let mut found: Vec<Option<&SignalComparison>> = Vec::new();
        for (row, verdict) in verdicts.iter().enumerate() {
            let of = |signal: SignalCycle<'_>| verdict.against.as_ref().and_then(|(_, c)| c.signals.get(signal.name));
            found.extend(cycles.signals(row).map(of));
        }
        let schema: &SchemaRef = &self.settings.output.schema;
        out.emit(cycles::extend(
            &complete,
            schema,
            cycle_columns(&verdicts, absent_counts),
            signal_columns(&found),
        )?);
        Ok(())
    }

    fn snapshot(&mut self, into: &mut Snapshot) -> anyhow::Result<()> {
        self.write(into)
    }

    fn restore(&mut self, saved: &Saved) -> anyhow::Result<()> {
        self.read(saved)
    }

    fn remark(&self) -> Option<String> {
        let why = "the reference never came to be; the column `comparison` tells of each";
        (self.came > 0 && self.compared == 0).then(|| format!("none of {} cycles was compared: {why}", self.came))
    }
}

fn cycle_columns(verdicts: &[Verdict], absent: Vec<u32>) -> Vec<ArrayRef> {
    let number = |pick: fn(&Reference, &Comparison) -> f64| -> ArrayRef {
        let of = |v: &Verdict| v.against.as_ref().map_or(f64::NAN, |(reference, c)| pick(reference, c));
        Arc::new(nan_is_null(verdicts.iter().map(of).collect()))
    };
    vec![
        Arc::new(verdicts.iter().map(|v| v.label.as_deref()).collect::<StringArray>()),
        Arc::new(verdicts.iter().map(|v| Some(v.comparison)).collect::<StringArray>()),
        number(|_, comparison| comparison.deviation),
        number(|reference, _| reference.deviation_median),
        number(|reference, _| reference.deviation_limit),
        Arc::new(UInt32Array::from(absent)),
    ]
}

fn signal_columns(found: &[Option<&SignalComparison>]) -> Vec<ArrayRef> {
    let number = |(_, pick): (&str, Pick)| -> ArrayRef {
        let column: Float64Array = nan_is_null(found.iter().map(|s| s.map_or(f64::NAN, pick)).collect());
        Arc::new(column)
    };
    let rank: ArrayRef = Arc::new(found.iter().map(|s| s.and_then(|s| s.rank)).collect::<UInt32Array>());
    SIGNAL_NUMBERS.into_iter().map(number).chain([rank]).collect()
}

impl Comparer {
    /// Compares a cycle, then lets it take its part in the reference.
    fn judge(&mut self, cycles: &CycleRows<'_>, row: usize) -> Verdict {
        let settings = self.settings.clone();
        let config = &settings.config;
        let without = |label, comparison| Verdict {
            label,
            comparison,
            against: None,
        };
        if !cycles.is_complete(row) {
            return without(None, "not complete");
        }
        let recipe = match &config.per {
            None => String::new(),
            Some(per) => match cycles.signals(row).find(|s| s.name == per).and_then(recipe) {
                Some(recipe) => recipe,
                None => return without(None, "no reference"),
            },
        };
        let label = match &config.per {
            None => settings.label.clone(),
            Some(per) => format!("{} of {per} {recipe}", settings.label),
        };
        let compared = cycles.signals(row).filter(|s| config.compares(s.name));
        let data = Arc::new(CycleData::of(compared, config.max_points));
        let full = self.slots.len() >= MOST_RECIPES;
        if let Some(Slot::Fixed(reference) | Slot::Sliding { reference, .. }) =
            self.slots.get(&recipe).map(|kept| &kept.slot)
        {
            let reference = reference.clone();
            let comparison = reference.compare(&data, settings.measure, &mut self.scratch);
            let whole = comparison.signals.len() == reference.names().count();
            let beyond = comparison.deviation > reference.deviation_limit;
            if whole && !beyond {
                self.slide(&recipe, data);
            }
            return Verdict {
                label: Some(label),
                comparison: "compared",
                against: Some((reference, comparison)),
            };
        }
        let wanted = match &config.reference {
            ReferenceConfig::First(n) | ReferenceConfig::Last(n) => *n,
            ReferenceConfig::Cycle(id) if id == cycles.cycle_id(row) => 1,
            ReferenceConfig::Cycle(_) | ReferenceConfig::Path(_) => return without(Some(label), "no reference"),
        };
        if full && !self.slots.contains_key(&recipe) {
            return without(Some(label), "no reference");
        }
        let learning = || Kept::saved(Slot::Learning(Vec::new()));
        let Kept { slot, unsaved } = self.slots.entry(recipe).or_insert_with(learning);
        if let Slot::Learning(learning) = slot {
            learning.push(data);
            *unsaved += 1;
            if learning.len() >= wanted {
                let learned = std::mem::take(learning);
                let slides = matches!(config.reference, ReferenceConfig::Last(_));
                *slot = Slot::learned(learned, slides, settings.measure, &mut self.scratch);
                if !slides {
                    *unsaved = 1;
                }
            }
        }
        without(Some(label), "learning")
    }

    /// Takes a good cycle into a sliding reference, in place of the oldest.
    fn slide(&mut self, recipe: &str, data: Arc<CycleData>) {
        let measure = self.settings.measure;
        let Some(Kept { slot, unsaved }) = self.slots.get_mut(recipe) else {
            return;
        };
        let Slot::Sliding {
            cycles,
            template,
            reference,
        } = slot
        else {
            return;
        };
        *unsaved += 1;
        cycles.pop_front();
        cycles.push_back(data);
        // The template stays until it leaves the window; only then is the medoid sought anew.
        let place = cycles.iter().position(|cycle| Arc::ptr_eq(cycle, template));
        match place {
            Some(_) => {
                *reference = Arc::new(Reference::learn(
                    cycles.make_contiguous(),
                    place,
                    measure,
                    &mut self.scratch,
                ))
            }
            None => {
                let cycles = std::mem::take(cycles).into();
                *slot = Slot::learned(cycles, true, measure, &mut self.scratch);
            }
        }
    }
}

impl Slot {
    fn learned(cycles: Vec<Arc<CycleData>>, slides: bool, measure: Measure, scratch: &mut Scratch) -> Slot {
        let place = medoid(&cycles, measure, scratch);
        if slides {
            return Slot::around(cycles, place, measure, scratch);
        }
        Slot::Fixed(Arc::new(Reference::learn(&cycles, Some(place), measure, scratch)))
    }

    /// A sliding reference of these cycles whose template lies at `place`.
    fn around(cycles: Vec<Arc<CycleData>>, place: usize, measure: Measure, scratch: &mut Scratch) -> Slot {
        let reference = Arc::new(Reference::learn(&cycles, Some(place), measure, scratch));
        Slot::Sliding {
            template: cycles[place].clone(),
            cycles: cycles.into(),
            reference,
        }
    }
}

/// The recipe that a signal names.
fn recipe(signal: SignalCycle<'_>) -> Option<String> {
    signal
        .text
        .map(str::to_owned)
        .or_else(|| signal.values.last().map(f64::to_string))
}

/// Which samples of a cycle DTW matches with which of the template: the distance, and pairs of indices into
/// `values` and `template`.
pub fn alignment(values: &[f64], template: &[f64], width: Percent) -> (f64, Vec<(usize, usize)>) {
    dtw_path(values, template, window(width.percent(), values.len(), template.len()))
}

#[cfg(test)]
pub(crate) mod tests;
