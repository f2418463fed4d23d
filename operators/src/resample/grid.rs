//! The times of the grid, and what a signal's samples say at one of them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::By;

/// The settings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grid {
    pub every_us: i64,
    pub by: By,
    /// 0 for means.
    pub max_gap_us: i64,
}

impl Grid {
    /// The first time that a sample has a part in.
    pub fn first(self, ts: i64) -> i64 {
        let before = ts.saturating_sub(ts.rem_euclid(self.every_us));
        if self.by == By::Mean || before == ts {
            before
        } else {
            before.saturating_add(self.every_us)
        }
    }

    /// True when all signals' values at `at` are known: no row before `watermark_us` comes any more.
    pub fn is_due(self, at: i64, watermark_us: i64, lines: &[Line]) -> bool {
        match self.by {
            By::Hold => at < watermark_us,
            By::Mean => at.saturating_add(self.every_us) <= watermark_us,
            By::Linear => at < watermark_us && lines.iter().all(|line| line.is_known(at, watermark_us, self)),
        }
    }

    /// The next time after `at` that may have rows: none before there are new samples.
    pub fn next(self, at: i64, lines: &[Line]) -> Option<i64> {
        let next = at.checked_add(self.every_us)?;
        let mut after: Option<i64> = None;
        for line in lines {
            let (before, first_after) = line.around(at);
            if before.is_some_and(|ts| next.saturating_sub(ts) <= self.max_gap_us) {
                return Some(next);
            }
            after = after.into_iter().chain(first_after).min();
        }
        after.map(|ts| self.first(ts).max(next))
    }
}

/// The samples of one signal that rows to come are made of: the newest of those before the next time of the grid, and all
/// after it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Line {
    samples: VecDeque<(i64, f64)>,
}

impl Line {
    /// Adds a sample, which is not before the last one.
    pub fn push(&mut self, ts: i64, value: f64) {
        self.samples.push_back((ts, value));
    }

    /// True for samples that are in the order of time, as they come back from a checkpoint.
    pub fn is_sorted(&self) -> bool {
        self.samples.iter().is_sorted_by_key(|(ts, _)| *ts)
    }

    /// The times of the newest sample at or before `at`, and of the first one after it.
    fn around(&self, at: i64) -> (Option<i64>, Option<i64>) {
        let place = self.samples.partition_point(|(ts, _)| *ts <= at);
        let time = |place: usize| self.samples.get(place).map(|(ts, _)| *ts);
        (place.checked_sub(1).and_then(time), time(place))
    }

    fn is_known(&self, at: i64, watermark_us: i64, grid: Grid) -> bool {
        match self.around(at) {
            (Some(before), None) => before == at || before.saturating_add(grid.max_gap_us) < watermark_us,
            _ => true,
        }
    }

    /// The value at `at`, if there is one; lets go of the samples that no later time needs.
    pub fn value(&mut self, at: i64, grid: Grid) -> Option<f64> {
        if grid.by == By::Mean {
            let end = at.saturating_add(grid.every_us);
            let within = self.samples.partition_point(|(ts, _)| *ts < end);
            let mut mean = 0.0;
            for (n, (_, value)) in (1..).zip(self.samples.drain(..within)) {
                mean += (value - mean) / f64::from(n);
            }
            return (within > 0).then_some(mean);
        }
        let place = self.samples.partition_point(|(ts, _)| *ts <= at);
        self.samples.drain(..place.saturating_sub(1));
        let &(before, value) = self.samples.front().filter(|(ts, _)| *ts <= at)?;
        if grid.by == By::Hold || before == at {
            return (at.saturating_sub(before) <= grid.max_gap_us).then_some(value);
        }
        let &(after, next) = self.samples.get(1)?;
        let span = after.saturating_sub(before);
        let share = at.saturating_sub(before) as f64 / span as f64;
        // A weighted mean, not a slope: from -1e308 to 1e308 stays finite.
        (span <= grid.max_gap_us).then_some(value * (1.0 - share) + next * share)
    }
}
