//! Count windows: so many rows of a signal, whenever they come.

use std::sync::Arc;

use anyhow::ensure;
use serde::{Deserialize, Serialize};
use taktline_engine::{Operator, Output, Rows, Saved, Snapshot};

use super::pane::{Keep, Pane, Tally, Values};
use super::rows::{Said, Span, WindowRows};
use crate::signals::Signals;

pub(super) struct ByRows<T: Tally> {
    rows_each: u64,
    keep: Keep,
    signals: Signals,
    /// By slot.
    open: Vec<Open<T>>,
    rows: WindowRows,
}

/// A signal's open window.
#[derive(Clone, Serialize, Deserialize)]
#[serde(bound = "")]
struct Open<T: Tally> {
    /// Of its first and its newest row.
    start: i64,
    newest: i64,
    pane: Pane<T>,
}

#[derive(Serialize, Deserialize)]
#[serde(bound = "")]
struct Head<T: Tally> {
    /// Signals with rows in their windows: slot, window, and the values that it keeps.
    open: Vec<(u32, Open<T>, Values)>,
}

impl<T: Tally> ByRows<T> {
    pub fn new(rows_each: u64, keep: Keep, said: &Arc<Said>, key: &str) -> Self {
        ByRows {
            rows_each,
            keep,
            signals: Signals::new(key),
            open: Vec::new(),
            rows: WindowRows::new(said.clone()),
        }
    }

    fn grow(&mut self) {
        let keep = self.keep;
        self.open.resize_with(self.signals.len(), || Open {
            start: 0,
            newest: 0,
            pane: Pane::new(keep),
        });
    }

    fn close(&mut self, slot: usize) {
        let open = &mut self.open[slot];
        let pane = std::mem::replace(&mut open.pane, Pane::new(self.keep));
        self.rows.push(slot, Span::closed(open.start, open.newest), &pane);
    }
}

impl<T: Tally> Operator for ByRows<T> {
    fn rows(&mut self, rows: &Rows<'_>, out: &mut Output) -> anyhow::Result<()> {
        let samples = rows.samples()?;
        let only_values = samples.no_text();
        for (row, &ts) in samples.ts.iter().enumerate() {
            let value = samples.value[row];
            let slot = self.signals.slot(&samples, samples.signal[row]);
            if slot >= self.open.len() {
                self.grow();
            }
            if !only_values && !value.is_finite() && samples.text(row).is_some() {
                continue;
            }
            let open = &mut self.open[slot];
            if open.pane.tally.rows() == 0 {
                open.start = ts;
            }
            open.newest = ts;
            open.pane.add(ts, value);
            if open.pane.tally.rows() >= self.rows_each {
                self.close(slot);
            }
        }
        self.rows.emit(&mut self.signals, out)
    }

    fn end(&mut self, out: &mut Output) -> anyhow::Result<()> {
        for slot in self.signals.order().to_vec() {
            if self.open[slot].pane.tally.rows() > 0 {
                self.close(slot);
            }
        }
        self.rows.emit(&mut self.signals, out)
    }

    fn snapshot(&mut self, into: &mut Snapshot) -> anyhow::Result<()> {
        for name in self.signals.unsaved(into.whole()) {
            into.append(name)?;
        }
        let open = (0..).zip(&self.open).filter(|(_, open)| open.pane.tally.rows() > 0);
        let open = open.map(|(slot, open)| {
            let (times, values) = open.pane.since(0);
            (slot, open.clone(), (times.to_vec(), values.to_vec()))
        });
        into.head(&Head { open: open.collect() })
    }

    fn restore(&mut self, saved: &Saved) -> anyhow::Result<()> {
        let head: Head<T> = saved.head()?;
        for name in saved.appended::<String>()? {
            self.signals.restore(&name)?;
        }
        self.grow();
        for (slot, mut open, (times, values)) in head.open {
            let slot = slot as usize;
            let whole = slot < self.open.len() && times.len() == values.len() && open.pane.fits(self.keep);
            ensure!(whole, "state that can't be read: a window that is not whole");
            if self.keep.values {
                open.pane.put_back((times, values));
            }
            self.open[slot] = open;
        }
        Ok(())
    }
}
