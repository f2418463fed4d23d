//! What is known of one signal over one stretch of time; panes that follow each other merge into windows.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::count::counted;
use crate::kernels::course::Course;
use crate::kernels::moments::{Higher, Moments};
use crate::kernels::resample::resample;
use crate::kernels::sketch::Sketch;
use crate::kernels::spectrum;

/// What is added to row by row: small and of fixed size. A window that says no more than [`Basic`] knows pays for no more.
pub(super) trait Tally: Clone + Default + Serialize + DeserializeOwned + 'static {
    /// Adds a row; a value that is not finite counts as missing.
    fn add(&mut self, ts: i64, value: f64);

    /// Adds the tally that comes after this one.
    fn merge(&mut self, later: &Self);

    /// Rows without a finite value.
    fn missing(&self) -> u64;

    /// Of the finite values.
    fn moments(&self) -> &Moments;

    /// How they run, and their kurtosis, where that is kept.
    fn course(&self) -> Option<(&Course, f64)> {
        None
    }

    /// Finite or missing.
    fn rows(&self) -> u64 {
        self.moments().count + self.missing()
    }
}

/// Count, mean, extremes and deviation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Basic {
    moments: Moments,
    #[serde(with = "counted")]
    missing: u64,
}

impl Tally for Basic {
    #[inline]
    fn add(&mut self, _: i64, value: f64) {
        if value.is_finite() {
            self.moments.add(value);
        } else {
            self.missing += 1;
        }
    }

    fn merge(&mut self, later: &Self) {
        self.moments.merge(&later.moments);
        self.missing += later.missing;
    }

    fn missing(&self) -> u64 {
        self.missing
    }

    fn moments(&self) -> &Moments {
        &self.moments
    }
}

/// All that has a fixed size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Full {
    basic: Basic,
    higher: Higher,
    course: Course,
}

impl Tally for Full {
    fn add(&mut self, ts: i64, value: f64) {
        if value.is_finite() {
            self.higher.add(&self.basic.moments, value);
            self.course.add(ts, value);
        }
        self.basic.add(ts, value);
    }

    fn merge(&mut self, later: &Self) {
        self.higher
            .merge(&self.basic.moments, &later.basic.moments, &later.higher);
        self.course.merge(&later.course);
        self.basic.merge(&later.basic);
    }

    fn missing(&self) -> u64 {
        self.basic.missing
    }

    fn moments(&self) -> &Moments {
        &self.basic.moments
    }

    fn course(&self) -> Option<(&Course, f64)> {
        Some((&self.course, self.higher.kurtosis(&self.basic.moments)))
    }
}

/// What grows with the values, and is kept only where it is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Keep {
    /// For median and percentiles.
    pub sketch: bool,
    /// The values themselves, for bands.
    pub values: bool,
}

/// Times in µs and values, as many of each.
pub(super) type Values = (Vec<i64>, Vec<f64>);

/// One signal over one stretch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(bound = "")]
pub(super) struct Pane<T: Tally> {
    pub tally: T,
    more: Option<Box<More>>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct More {
    sketch: Option<Sketch>,
    /// Times and values, of which a checkpoint keeps the new ones only; see [`Pane::since`].
    #[serde(skip)]
    values: Option<Values>,
}

/// Values that a window keeps of a signal for its bands: 16 MB. One with more has none.
const MOST_VALUES: usize = 1 << 20;

impl<T: Tally> Pane<T> {
    /// An empty one.
    pub fn new(keep: Keep) -> Self {
        let more = (keep != Keep::default()).then(|| {
            Box::new(More {
                sketch: keep.sketch.then(Sketch::default),
                values: keep.values.then(Default::default),
            })
        });
        Pane {
            tally: T::default(),
            more,
        }
    }

    #[inline]
    pub fn add(&mut self, ts: i64, value: f64) {
        self.tally.add(ts, value);
        if self.more.is_some() && value.is_finite() {
            self.add_more(ts, value);
        }
    }

    fn add_more(&mut self, ts: i64, value: f64) {
        let Some(more) = &mut self.more else { return };
        if let Some(sketch) = &mut more.sketch {
            sketch.add(value);
        }
        if let Some((times, values)) = &mut more.values
            && values.len() <= MOST_VALUES
        {
            times.push(ts);
            values.push(value);
        }
    }

    pub fn sketch_mut(&mut self) -> Option<&mut Sketch> {
        self.more.as_mut()?.sketch.as_mut()
    }

    pub fn sketch(&self) -> Option<&Sketch> {
        self.more.as_ref()?.sketch.as_ref()
    }

    /// The quantile of its values; NaN where none is known.
    pub fn quantile(&self, share: f64) -> f64 {
        self.sketch().map_or(f64::NAN, |sketch| sketch.quantile(share))
    }

    /// Root mean squares by frequency; NaN where they can't be known.
    pub fn bands(&self, bands: &[[f64; 2]]) -> Vec<f64> {
        let kept = self.more.as_ref().and_then(|more| more.values.as_ref());
        let Some((times, values)) = kept
            .filter(|(times, values)| values.len() <= MOST_VALUES && values.len() > 1 && times.last() > times.first())
        else {
            return vec![f64::NAN; bands.len()];
        };
        let span_us = times[times.len() - 1].saturating_sub(times[0]);
        let rate_hz = (values.len() - 1) as f64 / (span_us as f64 / 1e6);
        spectrum::bands(&resample(times, values, values.len()), rate_hz, bands)
    }

    /// The values from number `from` on, to be kept with those that were kept before.
    pub fn since(&self, from: usize) -> (&[i64], &[f64]) {
        let kept = self.more.as_ref().and_then(|more| more.values.as_ref());
        kept.map_or((&[], &[]), |(times, values)| {
            (
                times.get(from..).unwrap_or_default(),
                values.get(from..).unwrap_or_default(),
            )
        })
    }

    /// True for a pane that came back from a checkpoint and has what is kept.
    pub fn fits(&self, keep: Keep) -> bool {
        self.more.is_some() == (keep != Keep::default()) && self.sketch().is_some() == keep.sketch
    }

    /// Takes back what [`Pane::since`] gave.
    pub fn put_back(&mut self, kept: Values) {
        if let Some(more) = &mut self.more {
            more.values = Some(kept);
        }
    }
}
