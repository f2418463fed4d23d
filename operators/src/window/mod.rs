//! `window`: what each signal did over stretches of time or of rows.
//!
//! | settings | windows | `start`, `end` |
//! | --- | --- | --- |
//! | `every: 10s` | tumbling: at multiples of `every` since 1970 (UTC) | the window, without its end |
//! | `every: 1s, length: 60s` | hopping: of `length`, beginning at multiples of `every` | the window, without its end |
//! | `session: 5s` | of a machine: until all its signals are silent for longer | times of its first and last row |
//! | `rows: 100` | of a signal: so many rows, fewer when the input ends | times of its first and last row |
//! | `last: 10s` | of a signal: a row for each row, of the time up to it | `end` is the row's time, `start` is no part of it |
//!
//! A window without rows of a signal has no row in the table. Rows with a text alone are no rows of a window. A value that is
//! not finite counts as `missing` and nowhere else; a result beyond the range of float64 (the squares of 1e308) is null, and so is
//! one that the values don't have: the slope of one value, the kurtosis of a constant.
//!
//! | `of` | meaning |
//! | --- | --- |
//! | `mean`, `min`, `max`, `sum`, `first`, `last` | of the values |
//! | `std` | standard deviation of the population |
//! | `median`, `p1` … `p99` | interpolated like NumPy's; wrong by 0.8 % of the value at most, by a mergeable sketch |
//! | `rate` | a counter's rise per second; where it falls it began again at 0 |
//! | `slope` | of the least-squares line, per second |
//! | `time_mean` | each value weighted by how long it held: until the next one, the last until the window's `end` |
//! | `rms`, `crest` | root mean square; the greatest distance from 0 by it |
//! | `kurtosis` | fourth moment by the square of the second: 3 for a normal distribution |
//! | `zero_crossings` | how often the sign changed |
//!
//! `bands` are root mean squares by frequency, by an FFT of the values brought to their mean rate by linear interpolation
//! ([`crate::kernels::spectrum`]). They need at least 8 values, and at most 2²⁰ of a signal in a window.
//!
//! With `early: 1s` a window that is still open tells what it knows at each multiple of 1s that rows of the signal came before,
//! and rows say in the column `final` whether their window is over.
//!
//! An open window takes 56 bytes a signal; 192 where `of` names `first`, `last`, `sum`, `rate`, `slope`, `time_mean`, `kurtosis`
//! or `zero_crossings`; with percentiles a sketch beside it. Hopping windows take up to two of these for each hop in `length`;
//! `last` takes 16 bytes a row, and up to one of these each. What windows say can be changed while they are open, unless more
//! must be kept for it; how they are cut can't.

mod aggregate;
mod by_rows;
mod fifo;
mod hop;
mod pane;
mod past;
mod rows;
mod sliding;
mod stretch;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use taktline_engine::config::{Interval, Problem, Section};
use taktline_engine::kind::{Input, StepKind};
use taktline_engine::{Operator, Order, Step, Table};

use aggregate::{Aggregate, DEFAULT, Name};
use by_rows::ByRows;
use hop::{Hop, Hops};
use pane::{Basic, Full, Keep, Tally};
use rows::{Said, band_name};
use sliding::Sliding;
use stretch::{Cut, Stretches};

/// The kind's row in the table.
pub const KIND: StepKind = StepKind {
    name: "window",
    summary: "what each signal did over tumbling, hopping, sliding, session or count windows",
    schema: || schemars::schema_for!(WindowConfig),
    reads: &["samples"],
    build,
};

/// Settings of a `window` step: one of `every`, `session`, `rows` and `last`, and what the windows say.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct WindowConfig {
    /// A window begins at each multiple of this since 1970 (UTC): `1s`.
    pub every: Option<Interval>,
    /// How long a window is, where it is longer than `every`, so that windows overlap: `60s`.
    pub length: Option<Interval>,
    /// A window lasts until the machine is silent for longer than this: `5s`.
    pub session: Option<Interval>,
    /// A window has this many rows of a signal: `100`.
    #[schemars(range(min = 1))]
    pub rows: Option<u64>,
    /// For each row a window of the time up to it: `10s`.
    pub last: Option<Interval>,
    /// What to say of the values; `[count, mean, min, max, std]` if not given.
    pub of: Option<Vec<Name>>,
    /// Frequencies in Hz, from and to, between which to say how strongly the signal swings: `[[0, 50], [50, 200]]`.
    pub bands: Option<Vec<[f64; 2]>>,
    /// Tell of windows that are still open as often as this.
    pub early: Option<Interval>,
    /// How long rows may be out of order; 1s if not given. Later ones go to the table `late`.
    pub lateness: Option<Interval>,
}

/// Longer windows overlap more often than is of use.
const MOST_OVERLAP: i64 = 100_000;

/// How a step cuts.
#[derive(Clone, Copy, Debug)]
enum Windows {
    Stretches(Cut),
    Hops(Hop),
    ByRows(u64),
    Sliding(i64),
}

fn build(section: &Section, _: &Input) -> Result<Box<dyn Step>, Vec<Problem>> {
    let config: WindowConfig = section.parse()?;
    let mut problems = Vec::new();
    let windows = windows(&config, &mut problems);
    let of = aggregates(config.of.as_deref(), &mut problems);
    let bands = bands(config.bands.unwrap_or_default(), &mut problems);
    let overlap = matches!(windows, Some(Windows::Hops(_) | Windows::Sliding(_)));
    if overlap && !bands.is_empty() {
        let hint = "take them of another step, with `every` alone, `session` or `rows`";
        problems.push(
            Problem::at("bands", "can't be told of windows that overlap")
                .on_key()
                .hint(hint),
        );
    }
    let early_us = config.early.map(Interval::micros);
    if early_us.is_some_and(|early_us| early_us <= 0) {
        problems.push(Problem::at("early", "must be longer than 0"));
    }
    if early_us.is_some() && !matches!(windows, Some(Windows::Stretches(_)) | None) {
        let hint = "`early` stands beside `every` without `length`, or beside `session`";
        problems.push(
            Problem::at("early", "has no meaning for these windows")
                .on_key()
                .hint(hint),
        );
    }
    let Some(windows) = windows.filter(|_| problems.is_empty()) else {
        return Err(problems);
    };
    let said = Arc::new(Said::new(&of, bands.clone(), early_us.is_some()));
    Ok(Box::new(WindowStep {
        windows,
        early_us,
        lateness_us: config.lateness.map_or(1_000_000, Interval::micros),
        full: of.iter().any(|aggregate| !aggregate.is_basic()),
        keep: Keep {
            sketch: of.iter().any(|aggregate| aggregate.is_percentile()),
            values: !bands.is_empty(),
        },
        table: Table::plain("windows", said.schema()),
        said,
    }))
}

fn windows(config: &WindowConfig, problems: &mut Vec<Problem>) -> Option<Windows> {
    let ways = [
        ("every", config.every.is_some()),
        ("session", config.session.is_some()),
        ("rows", config.rows.is_some()),
        ("last", config.last.is_some()),
    ];
    let given: Vec<&str> = ways.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
    match given.as_slice() {
        [] => {
            let hint = "give one of `every`, `session`, `rows` and `last`, for example every: 10s";
            problems.push(Problem::at("", "nothing says where windows end").hint(hint));
        }
        [first, others @ ..] => problems.extend(
            others
                .iter()
                .map(|other| Problem::at(other, format!("stands instead of `{first}`, not beside it")).on_key()),
        ),
    }
    if config.length.is_some() && config.every.is_none() {
        problems.push(
            Problem::at("length", "needs `every`")
                .on_key()
                .hint("write how often a window begins"),
        );
    }
    let lengths = [
        ("every", config.every),
        ("length", config.length),
        ("session", config.session),
        ("last", config.last),
    ];
    for (name, length) in lengths {
        if length.is_some_and(|length| length.micros() <= 0) {
            problems.push(Problem::at(name, "must be longer than 0"));
        }
    }
    let micros = Interval::micros;
    let every = config.every.filter(|every| every.micros() > 0).map(micros);
    if let (Some(every_us), Some(length_us)) = (every, config.length.map(micros)) {
        if length_us < every_us {
            let hint = "rows between two windows would be in none";
            problems.push(Problem::at("length", "is shorter than `every`").hint(hint));
        }
        if length_us / every_us > MOST_OVERLAP {
            problems.push(Problem::at(
                "length",
                format!("is more than {MOST_OVERLAP} times as long as `every`"),
            ));
        }
    }
    match (every, config.session, config.rows, config.last) {
        (Some(every_us), ..) => Some(match config.length.map(micros) {
            Some(length_us) if length_us != every_us => Windows::Hops(Hop { every_us, length_us }),
            _ => Windows::Stretches(Cut::Every(every_us)),
        }),
        (_, Some(gap), ..) => Some(Windows::Stretches(Cut::Session(gap.micros()))),
        (.., Some(rows), _) => Some(Windows::ByRows(rows)),
        (.., Some(last)) => Some(Windows::Sliding(last.micros())),
        _ => None,
    }
}

fn aggregates(names: Option<&[Name]>, problems: &mut Vec<Problem>) -> Vec<Aggregate> {
    let Some(names) = names else {
        return DEFAULT.to_vec();
    };
    if names.is_empty() {
        problems.push(Problem::at("of", "names nothing").hint("leave it out for count, mean, min, max and std"));
    }
    let mut of: Vec<Aggregate> = Vec::new();
    for (place, Name(name)) in names.iter().enumerate() {
        let path = format!("of.{place}");
        match name.parse::<Aggregate>() {
            Ok(aggregate) if of.contains(&aggregate) => {
                problems.push(Problem::at(&path, format!("`{name}` is there already")));
            }
            Ok(aggregate) => of.push(aggregate),
            Err(message) => {
                let known = Aggregate::names().chain(["p1", "p5", "p95", "p99"]);
                problems.push(Problem::at(&path, message).did_you_mean(name, known));
            }
        }
    }
    of
}

fn bands(bands: Vec<[f64; 2]>, problems: &mut Vec<Problem>) -> Vec<[f64; 2]> {
    let mut names: Vec<String> = Vec::new();
    for (place, band) in bands.iter().enumerate() {
        let (path, [low, high]) = (format!("bands.{place}"), band);
        if !(0.0 <= *low && low < high && high.is_finite()) {
            let hint = "write from and to in Hz, for example [50, 200]";
            problems.push(Problem::at(&path, format!("[{low}, {high}] is no band")).hint(hint));
        }
        if names.contains(&band_name(band)) {
            problems.push(Problem::at(&path, format!("[{low}, {high}] is there already")));
        }
        names.push(band_name(band));
    }
    bands
}

struct WindowStep {
    windows: Windows,
    early_us: Option<i64>,
    lateness_us: i64,
    /// Whether more than [`Basic`] must be known.
    full: bool,
    keep: Keep,
    said: Arc<Said>,
    table: Table,
}

impl Step for WindowStep {
    fn output(&self) -> &Table {
        &self.table
    }

    fn order(&self) -> Order {
        Order::Time {
            lateness_us: self.lateness_us,
        }
    }

    fn patience_us(&self) -> i64 {
        match self.windows {
            Windows::Stretches(Cut::Every(every_us)) => every_us,
            // A row that comes just then belongs to the session still.
            Windows::Stretches(Cut::Session(gap_us)) => gap_us.saturating_add(1),
            Windows::Hops(hop) => hop.length_us,
            Windows::ByRows(_) | Windows::Sliding(_) => 0,
        }
    }

    fn state(&self) -> String {
        let windows = match self.windows {
            Windows::Stretches(Cut::Every(every_us)) => format!("every {every_us}us"),
            Windows::Stretches(Cut::Session(gap_us)) => format!("session of {gap_us}us"),
            Windows::Hops(hop) => format!("every {}us of {}us", hop.every_us, hop.length_us),
            Windows::ByRows(rows) => format!("{rows} rows"),
            Windows::Sliding(last_us) => format!("last {last_us}us"),
        };
        let mut state = format!("window/2 {windows}");
        for (part, kept) in [
            (", course", self.full),
            (", sketch", self.keep.sketch),
            (", values", self.keep.values),
        ] {
            state += if kept { part } else { "" };
        }
        self.early_us
            .map_or_else(|| state.clone(), |early_us| format!("{state}, early {early_us}us"))
    }

    fn operator(&self, key: &str) -> Box<dyn Operator> {
        if self.full {
            self.operator_of::<Full>(key)
        } else {
            self.operator_of::<Basic>(key)
        }
    }
}

impl WindowStep {
    fn operator_of<T: Tally>(&self, key: &str) -> Box<dyn Operator> {
        let (keep, said) = (self.keep, &self.said);
        match self.windows {
            Windows::Stretches(cut) => Box::new(Stretches::<T>::new(cut, self.early_us, keep, said, key)),
            Windows::Hops(hop) => Box::new(Hops::<T>::new(hop, keep, said, key)),
            Windows::ByRows(rows) => Box::new(ByRows::<T>::new(rows, keep, said, key)),
            Windows::Sliding(last_us) => Box::new(Sliding::<T>::new(last_us, keep, said, key)),
        }
    }
}
