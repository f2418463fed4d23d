//! Hopping windows: rows are added to panes once, and a window merges the panes it spans.
//!
//! Panes are cut where a window begins or ends (Krishnamurthy, Wu & Franklin, SIGMOD 2006): at most two for each hop,
//! whatever length and hop have in common.

use std::sync::Arc;

use anyhow::ensure;
use serde::{Deserialize, Serialize};
use taktline_engine::{Operator, Output, Rows, Saved, Snapshot};

use super::pane::{Keep, Pane, Tally};
use super::past::{Past, SavedLine};
use super::rows::{Said, Span, WindowRows};
use crate::signals::Signals;

/// Windows of `length_us` that begin at multiples of `every_us`, which is not longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Hop {
    pub every_us: i64,
    pub length_us: i64,
}

impl Hop {
    /// Start and end of the pane of a time.
    fn pane(self, us: i64) -> (i64, i64) {
        let into_us = us.rem_euclid(self.every_us);
        let (start, rest) = (us.saturating_sub(into_us), self.length_us % self.every_us);
        let (low, high) = if into_us < rest {
            (0, rest)
        } else {
            (rest, self.every_us)
        };
        (start.saturating_add(low), start.saturating_add(high))
    }

    /// The first end of a window after a time.
    fn next_end(self, us: i64) -> i64 {
        let past_us = us.wrapping_sub(self.length_us).rem_euclid(self.every_us);
        us.saturating_add(self.every_us - past_us)
    }
}

pub(super) struct Hops<T: Tally> {
    hop: Hop,
    keep: Keep,
    signals: Signals,
    /// Start and end of the open pane.
    open: Option<(i64, i64)>,
    /// By slot: the open pane.
    panes: Vec<Pane<T>>,
    past: Past<Pane<T>, T>,
    /// The end of the oldest window that has rows and is not closed.
    next_end: Option<i64>,
    rows: WindowRows,
}

#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
struct Head<T: Tally> {
    open: Option<(i64, i64)>,
    next_end: Option<i64>,
    /// Signals with rows in the open pane.
    panes: Vec<(u32, Pane<T>)>,
    past: Vec<SavedLine>,
}

impl<T: Tally> Operator for Hops<T> {
    fn rows(&mut self, rows: &Rows<'_>, out: &mut Output) -> anyhow::Result<()> {
        let samples = rows.samples()?;
        let only_values = samples.no_text();
        let mut from = 0;
        while from < samples.ts.len() {
            self.pass(samples.ts[from]);
            let to = from + self.reach(&samples.ts[from..]);
            for row in from..to {
                let slot = self.signals.slot(&samples, samples.signal[row]);
                if slot >= self.panes.len() {
                    self.panes.resize_with(self.signals.len(), || Pane::new(self.keep));
                }
                let value = samples.value[row];
                if only_values || value.is_finite() || samples.text(row).is_none() {
                    self.panes[slot].add(samples.ts[row], value);
                }
            }
            from = to;
        }
        self.rows.emit(&mut self.signals, out)
    }

    fn advance(&mut self, watermark_us: i64, out: &mut Output) -> anyhow::Result<()> {
        self.pass(watermark_us);
        self.rows.emit(&mut self.signals, out)
    }

    fn end(&mut self, out: &mut Output) -> anyhow::Result<()> {
        self.put_away();
        while let Some(end) = self.next_end {
            self.close(end);
        }
        self.rows.emit(&mut self.signals, out)
    }

    fn snapshot(&mut self, into: &mut Snapshot) -> anyhow::Result<()> {
        let past = self.past.save(&mut self.signals, into)?;
        let panes = (0..).zip(&self.panes).filter(|(_, pane)| pane.tally.rows() > 0);
        into.head(&Head {
            open: self.open,
            next_end: self.next_end,
            panes: panes.map(|(slot, pane)| (slot, pane.clone())).collect(),
            past,
        })
    }

    fn restore(&mut self, saved: &Saved) -> anyhow::Result<()> {
        let head: Head<T> = saved.head()?;
        self.past.restore(&mut self.signals, &head.past, saved)?;
        self.panes.resize_with(self.signals.len(), || Pane::new(self.keep));
        for (slot, pane) in head.panes {
            let known = (slot as usize) < self.panes.len() && pane.fits(self.keep);
            ensure!(known, "state that can't be read: a window of an unknown signal");
            self.panes[slot as usize] = pane;
        }
        let times = self.past.times().chain(head.open.map(|(start, _)| start));
        let (length_us, next_end) = (self.hop.length_us, head.next_end);
        // What is not in the next window would be waited for without end.
        let spanned = |at: i64| next_end.is_some_and(|end| at < end && end.saturating_sub(length_us) <= at);
        ensure!(
            times.into_iter().all(spanned),
            "state that can't be read: windows without their rows"
        );
        (self.open, self.next_end) = (head.open, head.next_end);
        Ok(())
    }
}

impl<T: Tally> Hops<T> {
    pub fn new(hop: Hop, keep: Keep, said: &Arc<Said>, key: &str) -> Self {
        Hops {
            hop,
            keep,
            signals: Signals::new(key),
            open: None,
            panes: Vec::new(),
            past: Past::new(keep),
            next_end: None,
            rows: WindowRows::new(said.clone()),
        }
    }

    /// No row before `us` comes any more.
    fn pass(&mut self, us: i64) {
        if self.open.is_some_and(|(_, end)| end <= us) {
            self.put_away();
        }
        while let Some(end) = self.next_end.filter(|end| *end <= us) {
            self.close(end);
        }
    }

    /// Of rows that begin with one of the open pane, how many belong to it. Opens one where none is open.
    fn reach(&mut self, ts: &[i64]) -> usize {
        let (start, end) = *self.open.get_or_insert(self.hop.pane(ts[0]));
        self.next_end.get_or_insert(self.hop.next_end(start));
        // The end of time, which no pane is after.
        ts.partition_point(|ts| *ts < end).max(1)
    }

    /// The open pane is over: its windows hold it now.
    fn put_away(&mut self) {
        let Some((start, _)) = self.open.take() else { return };
        for (slot, pane) in self.panes.iter_mut().enumerate() {
            if pane.tally.rows() > 0 {
                let pane = std::mem::replace(pane, Pane::new(self.keep));
                self.past.push(slot, start, pane);
            }
        }
    }

    /// Closes the window that ends at `end`, and lets go of what no later one spans.
    fn close(&mut self, end: i64) {
        let start = end.saturating_sub(self.hop.length_us);
        let next = start.saturating_add(self.hop.every_us);
        let mut goes_on = false;
        for &slot in self.signals.order() {
            if let Some(pane) = self.past.whole(slot) {
                self.rows.push(slot, Span::closed(start, end), pane);
                goes_on |= self.past.drop_before(slot, next);
            }
        }
        let later = end.saturating_add(self.hop.every_us);
        self.next_end = (goes_on && later > end).then_some(later);
    }
}
