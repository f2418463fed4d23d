//! Windows that follow each other: tumbling ones and sessions. One is open at a time, for all signals of the machine.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use anyhow::ensure;
use serde::{Deserialize, Serialize};
use taktline_engine::{Operator, Output, Rows, SampleRows, Saved, Snapshot};

use super::pane::{Keep, Pane, Tally, Values};
use super::rows::{Said, Span, WindowRows};
use crate::signals::Signals;

/// Where a window ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// At the next multiple of so many µs.
    Every(i64),
    /// When the machine has been silent for longer than so many µs.
    Session(i64),
}

/// The open window.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Open {
    start: i64,
    /// Its newest row.
    newest: i64,
    /// When its next early rows are due; none before there are new rows.
    mark: Option<i64>,
}

impl Open {
    /// From this time on rows don't belong to it.
    fn end(&self, cut: Cut) -> i64 {
        match cut {
            Cut::Every(every_us) => self.start.saturating_add(every_us),
            Cut::Session(gap_us) => self.newest.saturating_add(gap_us).saturating_add(1),
        }
    }

    /// What its rows say where it ends.
    fn shown_end(&self, cut: Cut) -> i64 {
        match cut {
            Cut::Every(every_us) => self.start.saturating_add(every_us),
            Cut::Session(_) => self.newest,
        }
    }
}

pub(super) struct Stretches<T: Tally> {
    cut: Cut,
    early_us: Option<i64>,
    keep: Keep,
    signals: Signals,
    open: Option<Open>,
    /// By slot.
    panes: Vec<Pane<T>>,
    /// By slot: rows that the last early row told of.
    told: Vec<u64>,
    /// By slot: values of the open window that a checkpoint has.
    saved: Vec<usize>,
    /// Whether a checkpoint has values of windows that are over.
    stale: bool,
    rows: WindowRows,
}

/// The state but for names and kept values, which the tail holds.
#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
struct Head<T: Tally> {
    open: Option<Open>,
    /// Signals with rows: slot, rows told, pane.
    panes: Vec<(u32, u64, Pane<T>)>,
}

#[derive(Serialize, Deserialize)]
enum Entry {
    /// Of the next slot.
    Name(String),
    /// Of a slot in the open window.
    Values(u32, Vec<i64>, Vec<f64>),
}

impl<T: Tally> Operator for Stretches<T> {
    fn rows(&mut self, rows: &Rows<'_>, out: &mut Output) -> anyhow::Result<()> {
        let samples = rows.samples()?;
        let mut from = 0;
        while from < samples.ts.len() {
            self.pass(samples.ts[from]);
            let to = from + self.reach(&samples.ts[from..]);
            self.add(&samples, from..to);
            from = to;
        }
        self.rows.emit(&mut self.signals, out)
    }

    fn advance(&mut self, watermark_us: i64, out: &mut Output) -> anyhow::Result<()> {
        self.pass(watermark_us);
        self.rows.emit(&mut self.signals, out)
    }

    fn end(&mut self, out: &mut Output) -> anyhow::Result<()> {
        self.close();
        self.rows.emit(&mut self.signals, out)
    }

    fn snapshot(&mut self, into: &mut Snapshot) -> anyhow::Result<()> {
        let whole = into.whole() || std::mem::take(&mut self.stale);
        if whole {
            into.restart();
            self.saved.fill(0);
        }
        for name in self.signals.unsaved(whole) {
            into.append(&Entry::Name(name.clone()))?;
        }
        for (slot, (pane, saved)) in (0..).zip(self.panes.iter().zip(&mut self.saved)) {
            let (times, values) = pane.since(*saved);
            if !values.is_empty() {
                into.append(&Entry::Values(slot, times.to_vec(), values.to_vec()))?;
                *saved += values.len();
            }
        }
        let panes = (0..).zip(self.panes.iter().zip(&self.told));
        into.head(&Head {
            open: self.open,
            panes: panes
                .filter(|(_, (pane, _))| pane.tally.rows() > 0)
                .map(|(slot, (pane, told))| (slot, *told, pane.clone()))
                .collect(),
        })
    }

    fn restore(&mut self, saved: &Saved) -> anyhow::Result<()> {
        let head: Head<T> = saved.head()?;
        let mut kept: BTreeMap<u32, Values> = BTreeMap::new();
        for entry in saved.appended()? {
            match entry {
                Entry::Name(name) => self.signals.restore(&name)?,
                Entry::Values(slot, times, values) => {
                    ensure!(
                        times.len() == values.len(),
                        "state that can't be read: values without times"
                    );
                    let all = kept.entry(slot).or_default();
                    all.0.extend(times);
                    all.1.extend(values);
                }
            }
        }
        self.grow();
        self.open = head.open;
        for (slot, told, pane) in head.panes {
            let index = slot as usize;
            let known = index < self.panes.len() && pane.fits(self.keep);
            ensure!(known, "state that can't be read: a window of an unknown signal");
            self.panes[index] = pane;
            self.told[index] = told;
            if self.keep.values {
                let kept = kept.remove(&slot).unwrap_or_default();
                self.saved[index] = kept.1.len();
                self.panes[index].put_back(kept);
            }
        }
        Ok(())
    }
}

impl<T: Tally> Stretches<T> {
    pub fn new(cut: Cut, early_us: Option<i64>, keep: Keep, said: &Arc<Said>, key: &str) -> Self {
        Stretches {
            cut,
            early_us,
            keep,
            signals: Signals::new(key),
            open: None,
            panes: Vec::new(),
            told: Vec::new(),
            saved: Vec::new(),
            stale: false,
            rows: WindowRows::new(said.clone()),
        }
    }

    /// No row before `us` comes any more.
    fn pass(&mut self, us: i64) {
        let Some(open) = &mut self.open else { return };
        let end = open.end(self.cut);
        if let Some(mark) = open.mark.filter(|mark| *mark <= us && *mark < end) {
            open.mark = None;
            let span = Span {
                start: open.start,
                end: open.shown_end(self.cut),
                until: mark.min(open.shown_end(self.cut)),
                last: false,
            };
            self.tell_early(span);
        }
        if end <= us {
            self.close();
        }
    }

    /// Of rows that begin with one of the open window, how many belong to it and come before the next early rows. Opens one
    /// where none is open.
    fn reach(&mut self, ts: &[i64]) -> usize {
        let start = match self.cut {
            Cut::Every(every_us) => ts[0].saturating_sub(ts[0].rem_euclid(every_us)),
            Cut::Session(_) => ts[0],
        };
        let mark = self.early_us.map(|early_us| next_multiple(ts[0], early_us));
        let open = self.open.get_or_insert(Open {
            start,
            newest: ts[0],
            mark,
        });
        open.mark = mark;
        let before = mark.unwrap_or(i64::MAX);
        let to = match self.cut {
            Cut::Every(_) => {
                let end = open.end(self.cut).min(before);
                ts.partition_point(|ts| *ts < end)
            }
            Cut::Session(gap_us) => {
                let goes_on = |pair: &[i64]| pair[1].saturating_sub(pair[0]) <= gap_us && pair[1] < before;
                1 + ts.windows(2).take_while(|pair| goes_on(pair)).count()
            }
        };
        // The end of time, which no window is after.
        let to = to.max(1);
        open.newest = ts[to - 1];
        to
    }

    /// Adds rows of the open window to their signals.
    fn add(&mut self, samples: &SampleRows<'_>, rows: Range<usize>) {
        let only_values = samples.no_text();
        for row in rows {
            let slot = self.signals.slot(samples, samples.signal[row]);
            if slot >= self.panes.len() {
                self.grow();
            }
            let value = samples.value[row];
            if only_values || value.is_finite() || samples.text(row).is_none() {
                self.panes[slot].add(samples.ts[row], value);
            }
        }
    }

    #[cold]
    fn grow(&mut self) {
        let signals = self.signals.len();
        self.panes.resize_with(signals, || Pane::new(self.keep));
        self.told.resize(signals, 0);
        self.saved.resize(signals, 0);
    }

    /// Tells of the signals with new rows.
    fn tell_early(&mut self, span: Span) {
        for &slot in self.signals.order() {
            let rows = self.panes[slot].tally.rows();
            if rows > self.told[slot] {
                self.told[slot] = rows;
                self.rows.push(slot, span, &self.panes[slot]);
            }
        }
    }

    /// Closes the open window, if there is one.
    fn close(&mut self) {
        let Some(open) = self.open.take() else { return };
        let span = Span::closed(open.start, open.shown_end(self.cut));
        for &slot in self.signals.order() {
            if self.panes[slot].tally.rows() > 0 {
                let pane = std::mem::replace(&mut self.panes[slot], Pane::new(self.keep));
                self.rows.push(slot, span, &pane);
                self.told[slot] = 0;
                self.stale |= std::mem::take(&mut self.saved[slot]) > 0;
            }
        }
    }
}

/// The first multiple of `step_us` after `us`.
pub(super) fn next_multiple(us: i64, step_us: i64) -> i64 {
    us.saturating_sub(us.rem_euclid(step_us)).saturating_add(step_us)
}
