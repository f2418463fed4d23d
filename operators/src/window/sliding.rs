//! A row for each row: what its signal did in the time up to it.

use std::sync::Arc;

use taktline_engine::{Operator, Output, Rows, Saved, Snapshot};

use super::pane::{Keep, Tally};
use super::past::{Past, SavedLine};
use super::rows::{Said, Span, WindowRows};
use crate::signals::Signals;

pub(super) struct Sliding<T: Tally> {
    last_us: i64,
    signals: Signals,
    past: Past<f64, T>,
    rows: WindowRows,
}

impl<T: Tally> Sliding<T> {
    pub fn new(last_us: i64, keep: Keep, said: &Arc<Said>, key: &str) -> Self {
        Sliding {
            last_us,
            signals: Signals::new(key),
            past: Past::new(keep),
            rows: WindowRows::new(said.clone()),
        }
    }
}

impl<T: Tally> Operator for Sliding<T> {
    fn rows(&mut self, rows: &Rows<'_>, out: &mut Output) -> anyhow::Result<()> {
        let samples = rows.samples()?;
        let only_values = samples.no_text();
        for (row, &ts) in samples.ts.iter().enumerate() {
            let value = samples.value[row];
            let slot = self.signals.slot(&samples, samples.signal[row]);
            if !only_values && !value.is_finite() && samples.text(row).is_some() {
                continue;
            }
            let start = ts.saturating_sub(self.last_us);
            self.past.drop_before(slot, start.saturating_add(1));
            self.past.push(slot, ts, value);
            if let Some(whole) = self.past.whole(slot) {
                self.rows.push(slot, Span::closed(start, ts), whole);
            }
        }
        self.rows.emit(&mut self.signals, out)
    }

    fn snapshot(&mut self, into: &mut Snapshot) -> anyhow::Result<()> {
        let lines = self.past.save(&mut self.signals, into)?;
        into.head(&lines)
    }

    fn restore(&mut self, saved: &Saved) -> anyhow::Result<()> {
        let lines: Vec<SavedLine> = saved.head()?;
        self.past.restore(&mut self.signals, &lines, saved)
    }
}
