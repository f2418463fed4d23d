//! The samples of a cycle that is still open.

mod state;

pub(crate) use state::{Outline, Stretch};

use crate::cycles::{Cycle, CyclesBuilder, Lacking, Outcome};

/// What a row says besides its value.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said<'t> {
    pub text: Option<&'t str>,
    /// Its source no longer knows the reading.
    pub stale: bool,
}

/// An open cycle: 16 bytes a sample, half as much again while a buffer grows. Signals go by the key's own numbers.
#[derive(Clone, Debug)]
pub(crate) struct Open {
    /// First moment.
    pub start_us: i64,
    /// Under which checkpoints know it; none before the first.
    id: Option<u32>,
    samples: u64,
    missing: u64,
    stale: u64,
    signals: Vec<Signal>,
}

#[derive(Clone, Debug, Default)]
struct Signal {
    offsets: Vec<i64>,
    values: Vec<f64>,
    missing: u64,
    stale: u64,
    text: Option<String>,
    /// So many of the samples are in checkpoints already.
    saved: usize,
}

/// Samples a buffer begins with.
const FIRST_CAPACITY: usize = 8;

impl Open {
    pub fn new(start_us: i64) -> Self {
        Open {
            start_us,
            id: None,
            samples: 0,
            missing: 0,
            stale: 0,
            signals: Vec::new(),
        }
    }

    /// Adds a row.
    #[inline]
    pub fn push(&mut self, ts: i64, signal: usize, value: f64, said: Said<'_>) {
        if signal >= self.signals.len() {
            self.signals.resize_with(signal + 1, Signal::default);
        }
        let buffer = &mut self.signals[signal];
        if value.is_finite() {
            if buffer.values.len() == buffer.values.capacity() {
                buffer.grow(1);
            }
            buffer.offsets.push(ts.saturating_sub(self.start_us));
            buffer.values.push(value);
            self.samples += 1;
        } else if said.text.is_none() {
            buffer.missing += 1;
            self.missing += 1;
        } else {
            self.samples += 1;
        }
        if said.stale {
            buffer.stale += 1;
            self.stale += 1;
        }
        if let Some(text) = said.text {
            buffer.set_text(text);
        }
    }

    /// Adds the rows of a later stretch.
    pub fn append(&mut self, later: Open) {
        if later.signals.len() > self.signals.len() {
            self.signals.resize_with(later.signals.len(), Signal::default);
        }
        let shift = later.start_us.saturating_sub(self.start_us);
        // By value: each buffer is freed as soon as it has been copied.
        for (buffer, more) in self.signals.iter_mut().zip(later.signals) {
            buffer.grow(more.values.len());
            buffer
                .offsets
                .extend(more.offsets.iter().map(|offset| offset.saturating_add(shift)));
            buffer.values.extend_from_slice(&more.values);
            buffer.missing += more.missing;
            buffer.stale += more.stale;
            if let Some(text) = &more.text {
                buffer.set_text(text);
            }
        }
        self.samples += later.samples;
        self.missing += later.missing;
        self.stale += later.stale;
    }

    /// Rows with a value or a text.
    pub fn samples(&self) -> u64 {
        self.samples
    }

    /// Writes the cycle as a row. `names` are the signal names by number, `order` the numbers sorted by name.
    pub fn close(mut self, head: Head<'_>, names: &[String], order: &[usize], out: &mut CyclesBuilder) {
        out.reserve(self.signals.iter().map(|signal| signal.values.len()).sum());
        for &number in order {
            // Taken, so that a signal is freed as soon as it has been copied.
            let Some(signal) = self.signals.get_mut(number).map(std::mem::take) else {
                continue;
            };
            // A stale row without a reading is a missing one, too.
            if signal.values.is_empty() && signal.missing == 0 && signal.text.is_none() {
                continue;
            }
            let lacking = Lacking {
                missing: signal.missing,
                stale: signal.stale,
            };
            out.signal(
                &names[number],
                lacking,
                signal.text.as_deref(),
                &signal.offsets,
                &signal.values,
            );
        }
        let Head {
            machine,
            step,
            parent_id,
            end_us,
            outcome,
        } = head;
        let lacking = Lacking {
            missing: self.missing,
            stale: self.stale,
        };
        out.cycle(&Cycle {
            machine,
            step,
            parent_id,
            start_us: self.start_us,
            end_us,
            outcome,
            samples: self.samples,
            lacking,
        });
    }

    /// Bytes allocated for samples and signals.
    #[cfg(test)]
    pub fn allocated(&self) -> usize {
        let samples: usize = self
            .signals
            .iter()
            .map(|s| 8 * (s.offsets.capacity() + s.values.capacity()))
            .sum();
        samples + self.signals.capacity() * size_of::<Signal>()
    }
}

/// What a closing cycle is told about itself.
#[derive(Clone, Copy)]
pub(crate) struct Head<'a> {
    pub machine: &'a str,
    pub step: &'a str,
    pub parent_id: Option<&'a str>,
    pub end_us: i64,
    pub outcome: Outcome,
}

impl Signal {
    /// Makes room for `more`, by half at least: doubling would cost up to 32 bytes a sample.
    #[cold]
    fn grow(&mut self, more: usize) {
        let spare = self.values.capacity() - self.values.len();
        if spare < more {
            let room = more.max(FIRST_CAPACITY).max(self.values.len() / 2);
            self.offsets.reserve_exact(room);
            self.values.reserve_exact(room);
        }
    }

    fn set_text(&mut self, text: &str) {
        let own = self.text.get_or_insert_default();
        own.clear();
        own.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_at_most_24_bytes_a_sample_and_1_kib_a_signal() {
        for signals in [1, 3, 50] {
            let mut open = Open::new(0);
            for sample in 0..20_000_usize {
                for signal in 0..signals {
                    open.push(sample as i64, signal, 1.0, Said::default());
                }
                let allowed = 24 * (sample + 1) * signals + 1024 * signals;
                assert!(
                    open.allocated() <= allowed,
                    "{} bytes for {sample} samples of {signals} signals",
                    open.allocated()
                );
            }
        }
    }
}
