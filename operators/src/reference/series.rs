//! A cycle as the comparison sees it, and the distance of two of its signals.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::cycles::{SignalCycle, SignalStats};
use crate::kernels::dtw::{Scratch, window};
use crate::kernels::euclidean::euclidean;
use crate::kernels::resample::resample;

/// The finite samples of a signal in a cycle.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Series {
    pub offsets: Vec<i64>,
    pub values: Vec<f64>,
    pub stats: SignalStats,
}

impl Series {
    pub fn new(offsets: &[i64], values: &[f64], most_points: usize) -> Self {
        let stats = SignalStats::of(offsets, values);
        if values.len() <= most_points {
            return Series {
                offsets: offsets.to_vec(),
                values: values.to_vec(),
                stats,
            };
        }
        let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
        let step = last.saturating_sub(first) as f64 / (most_points - 1).max(1) as f64;
        let times = (0..most_points)
            .map(|k| first.saturating_add((step * k as f64).round() as i64))
            .collect();
        Series {
            offsets: times,
            values: resample(offsets, values, most_points),
            stats,
        }
    }
}

/// A cycle's signals by name; those without values (texts) are not in it.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct CycleData {
    pub signals: BTreeMap<String, Series>,
}

impl CycleData {
    pub fn of<'a>(signals: impl Iterator<Item = SignalCycle<'a>>, most_points: usize) -> Self {
        let series = |s: SignalCycle<'_>| (s.name.to_owned(), Series::new(s.offsets, s.values, most_points));
        CycleData {
            signals: signals.filter(|s| !s.values.is_empty()).map(series).collect(),
        }
    }
}

/// Which distance, and how it is taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measure {
    /// False for the Euclidean distance.
    pub dtw: bool,
    /// DTW's window in percent of the longer series.
    pub window: f64,
}

impl Measure {
    pub fn dtw(self, a: &Series, b: &Series, scratch: &mut Scratch) -> f64 {
        let window = window(self.window, a.values.len(), b.values.len());
        scratch
            .dtw(&a.values, &b.values, window, f64::INFINITY)
            .unwrap_or(f64::INFINITY)
    }

    fn euclidean(a: &Series, template: &Series) -> f64 {
        let n = template.values.len();
        let on_grid = |series: &Series| resample(&series.offsets, &series.values, n);
        euclidean(&on_grid(a), &on_grid(template))
    }

    pub fn distance(self, a: &Series, template: &Series, scratch: &mut Scratch) -> f64 {
        if self.dtw {
            self.dtw(a, template, scratch)
        } else {
            Measure::euclidean(a, template)
        }
    }
}
