//! References: learned from cycles, and cycles held against them.
//!
//! A reference is one real cycle, the *template*, and what the other reference cycles say about how far a good cycle
//! may be from it. The template is the medoid of the reference cycles, so that an outlier among them can't become it.
//!
//! | of each signal | from the reference cycles |
//! | --- | --- |
//! | spread | median distance of the others to the template; at least ⅓ of the 80 % quantile, 0.1 % of its norm, 1e-9 |
//! | band | mean ± 3 standard deviations per point of the template, at least 0.1 % of its root mean square |
//! | statistics | their means |
//!
//! The quantile is for a signal that rests in most reference cycles and moves in some: moving is good then too. Up to a
//! fifth of the reference cycles may be outliers without a say.
//!
//! Distances over the spread are in *units*, so that signals compare. A cycle's deviation is the root mean square of
//! its signals' units. The deviations of the reference cycles themselves (without the template) give the median and the
//! control limit: median + 3 × 1.4826 × MAD, a Shewhart limit with robust estimates (Rousseeuw & Croux 1993), at least
//! 2 × median and at least 1 unit: the medoid was chosen for being near to just these cycles, so an ordinary new cycle is
//! farther away than they are, and few cycles say little of their own scatter.

mod check;
mod file;
mod medoid;
mod series;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use file::read;
pub(crate) use medoid::medoid;
use serde::{Deserialize, Serialize};
pub(crate) use series::{CycleData, Measure, Series};

use crate::cycles::SignalStats;
use crate::kernels::dtw::Scratch;
use crate::kernels::euclidean::{euclidean, norm};
use crate::kernels::resample::resample;
use crate::kernels::stats::{MAD_TO_STD, mad, mean, median, quantile};

/// Units are capped here: beyond it a signal is simply somewhere else.
pub(crate) const MOST_UNITS: f64 = 1e6;
/// With fewer reference cycles nothing is known of their spread.
const FEWEST_FOR_SPREAD: usize = 3;
/// The control limit is at least this many times the median.
const LEAST_LIMIT: f64 = 2.0;
const FLOOR_SHARE: f64 = 1e-3;
const FLOOR: f64 = 1e-9;

/// What cycles are held against.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Reference {
    /// Typical deviation of a reference cycle, in units; NaN when there are too few.
    pub deviation_median: f64,
    /// Control limit of the deviation, in units; NaN when there are too few.
    pub deviation_limit: f64,
    signals: BTreeMap<String, SignalReference>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct SignalReference {
    template: Series,
    /// The template on as many evenly spaced points.
    grid: Vec<f64>,
    /// Norm of the template.
    level: f64,
    /// NaN when it is unknown.
    spread: f64,
    band_mean: Vec<f64>,
    /// Empty when it is unknown.
    band_half: Vec<f64>,
    /// Means of the references' mean, std, min and max.
    stats: [f64; 4],
}

impl Reference {
    /// Learns from at least one cycle; `template` is the index of the one to hold on to, `None` seeks the medoid.
    pub fn learn(cycles: &[Arc<CycleData>], template: Option<usize>, measure: Measure, scratch: &mut Scratch) -> Self {
        let template = template.unwrap_or_else(|| medoid(cycles, measure, scratch));
        let known = cycles.len() >= FEWEST_FOR_SPREAD;
        let mut squares = vec![(0.0, 0u32); cycles.len()];
        let mut signals = BTreeMap::new();
        for (name, series) in &cycles[template].signals {
            let others: Vec<(usize, &Series)> = cycles
                .iter()
                .enumerate()
                .filter_map(|(i, c)| Some((i, c.signals.get(name)?)))
                .collect();
            let mut learned = SignalReference::learn(series, others.iter().map(|(_, s)| *s), known);
            if known {
                let away =
                    |&(i, s): &(usize, &Series)| (i != template).then(|| (i, measure.distance(s, series, scratch)));
                let distances: Vec<(usize, f64)> = others.iter().filter_map(away).collect();
                learned.spread = spread(&distances.iter().map(|(_, d)| *d).collect::<Vec<f64>>(), learned.level);
                for (i, distance) in distances {
                    squares[i].0 += units(distance, learned.spread).powi(2);
                    squares[i].1 += 1;
                }
            }
            signals.insert(name.clone(), learned);
        }
        let deviations: Vec<f64> = squares
            .iter()
            .filter(|(_, n)| *n > 0)
            .map(|(sum, n)| (sum / f64::from(*n)).sqrt())
            .collect();
        let deviation_median = median(&deviations);
        let shewhart = deviation_median + 3.0 * MAD_TO_STD * mad(&deviations, deviation_median);
        let deviation_limit = if deviation_median.is_nan() {
            f64::NAN
        } else {
            shewhart.max(LEAST_LIMIT * deviation_median).max(1.0)
        };
        Reference {
            deviation_median,
            deviation_limit,
            signals,
        }
    }

    /// The names of the signals that a cycle should have.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.signals.keys().map(String::as_str)
    }

    /// Holds a cycle against this reference.
    pub fn compare(&self, cycle: &CycleData, measure: Measure, scratch: &mut Scratch) -> Comparison {
        let mut signals: BTreeMap<String, SignalComparison> = BTreeMap::new();
        let mut weights: Vec<(f64, String)> = Vec::new();
        let (mut squares, mut count) = (0.0, 0u32);
        for (name, reference) in &self.signals {
            let Some(series) = cycle.signals.get(name) else {
                continue;
            };
            let (found, relative) = reference.compare(series, measure, scratch);
            if !found.units.is_nan() {
                squares += found.units.powi(2);
                count += 1;
            }
            let weight = if found.units.is_nan() { relative } else { found.units };
            weights.push((weight.powi(2), name.clone()));
            signals.insert(name.clone(), found);
        }
        let all: f64 = weights.iter().map(|(weight, _)| weight).sum();
        weights.sort_by(|(a, x), (b, y)| b.total_cmp(a).then_with(|| x.cmp(y)));
        let equal = 1.0 / weights.len() as f64;
        for (rank, (weight, name)) in weights.iter().enumerate() {
            if let Some(signal) = signals.get_mut(name) {
                signal.contribution = if all > 0.0 { weight / all } else { equal };
                signal.rank = Some(rank as u32 + 1);
            }
        }
        let deviation = if count == 0 {
            f64::NAN
        } else {
            (squares / f64::from(count)).sqrt()
        };
        Comparison { deviation, signals }
    }
}

impl SignalReference {
    fn learn<'a>(template: &Series, all: impl Iterator<Item = &'a Series> + Clone, known: bool) -> Self {
        let n = template.values.len();
        let on_grid: Vec<Vec<f64>> = all.clone().map(|s| resample(&s.offsets, &s.values, n)).collect();
        let at = |k: usize| on_grid.iter().map(move |series| series[k]);
        let count = on_grid.len() as f64;
        let band_mean: Vec<f64> = (0..n).map(|k| at(k).map(|v| v / count).sum()).collect();
        let level = norm(&template.values).min(f64::MAX);
        let floor = (FLOOR_SHARE * level / (n as f64).sqrt()).max(FLOOR);
        let std = |k: usize| (at(k).map(|v| (v - band_mean[k]).powi(2) / count).sum::<f64>()).sqrt();
        let band_half = if known {
            (0..n).map(|k| (3.0 * std(k)).max(floor)).collect()
        } else {
            Vec::new()
        };
        let of = |pick: fn(&SignalStats) -> f64| mean(&all.clone().map(|s| pick(&s.stats)).collect::<Vec<f64>>());
        SignalReference {
            grid: resample(&template.offsets, &template.values, n),
            level,
            spread: f64::NAN,
            band_mean,
            band_half,
            stats: [of(|s| s.mean), of(|s| s.std), of(|s| s.min), of(|s| s.max)],
            template: template.clone(),
        }
    }

    /// The comparison without contribution and rank, and the distance relative to the template's norm.
    fn compare(&self, series: &Series, measure: Measure, scratch: &mut Scratch) -> (SignalComparison, f64) {
        let on_grid = resample(&series.offsets, &series.values, self.grid.len());
        let euclidean = euclidean(&on_grid, &self.grid);
        let dtw = if measure.dtw {
            measure.dtw(series, &self.template, scratch)
        } else {
            f64::NAN
        };
        let distance = if measure.dtw { dtw } else { euclidean };
        let points = self.grid.len() as f64;
        let away = on_grid
            .iter()
            .zip(&self.band_mean)
            .map(|(value, mean)| (value - mean).abs());
        let outside = away
            .clone()
            .zip(&self.band_half)
            .filter(|(away, half)| away > half)
            .count() as f64
            / points;
        let stats = [series.stats.mean, series.stats.std, series.stats.min, series.stats.max];
        let found = SignalComparison {
            distance,
            units: units(distance, self.spread),
            euclidean,
            dtw,
            deviation_max: away.clone().fold(0.0, f64::max),
            deviation_mean: away.map(|a| a / points).sum(),
            outside: if self.band_half.is_empty() { f64::NAN } else { outside },
            differences: std::array::from_fn(|i| stats[i] - self.stats[i]),
            contribution: f64::NAN,
            rank: None,
        };
        (found, units(distance, self.level.max(FLOOR)))
    }
}

/// A cycle held against a reference. NaN stands for unknown.
#[derive(Clone, Debug, Default)]
pub(crate) struct Comparison {
    /// Root mean square of the signals' units.
    pub deviation: f64,
    /// Signals that both have.
    pub signals: BTreeMap<String, SignalComparison>,
}

/// A signal of a cycle held against the template's.
#[derive(Clone, Debug)]
pub(crate) struct SignalComparison {
    pub distance: f64,
    pub units: f64,
    pub euclidean: f64,
    pub dtw: f64,
    pub deviation_max: f64,
    pub deviation_mean: f64,
    pub outside: f64,
    /// Of mean, std, min and max.
    pub differences: [f64; 4],
    pub contribution: f64,
    pub rank: Option<u32>,
}

/// How far a good cycle is from the template of norm `level`, from the distances of the others.
fn spread(distances: &[f64], level: f64) -> f64 {
    // No other cycle has the signal: the floor stands alone.
    let typical = if distances.is_empty() {
        0.0
    } else {
        median(distances).max(quantile(distances, 0.8) / 3.0)
    };
    typical.max(FLOOR_SHARE * level).clamp(FLOOR, f64::MAX)
}

fn units(distance: f64, spread: f64) -> f64 {
    if spread.is_nan() || distance.is_nan() {
        f64::NAN
    } else {
        (distance / spread).min(MOST_UNITS)
    }
}

#[cfg(test)]
mod tests;
