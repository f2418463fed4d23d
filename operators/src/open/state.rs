//! An open cycle in checkpoints: an outline for the head, and samples for the tail.

use std::borrow::Cow;

use anyhow::ensure;
use serde::{Deserialize, Serialize};

use super::{Open, Signal};
use crate::count::{Count, count};

/// An open cycle without its samples.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Outline {
    /// Under which its samples are found.
    id: u32,
    start_us: i64,
    samples: Count,
    missing: Count,
    stale: Count,
    signals: Vec<SignalOutline>,
}

#[derive(Debug, Serialize, Deserialize)]
struct SignalOutline {
    values: Count,
    missing: Count,
    stale: Count,
    text: Option<String>,
}

/// Samples of one signal in one open cycle, to be kept with those before.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Stretch<'a> {
    /// Of the cycle.
    pub id: u32,
    signal: u32,
    offsets: Cow<'a, [i64]>,
    pub values: Cow<'a, [f64]>,
}

impl Open {
    /// Samples in the tail.
    pub fn saved(&self) -> u64 {
        self.signals.iter().map(|signal| signal.saved as u64).sum()
    }

    /// The tail is begun anew.
    pub fn forget_saved(&mut self) {
        self.id = None;
        self.signals.iter_mut().for_each(|signal| signal.saved = 0);
    }

    /// All but the samples; it gets the next id if it has none.
    pub fn outline(&mut self, next_id: &mut u32) -> Outline {
        let id = *self.id.get_or_insert_with(|| {
            let id = *next_id;
            *next_id = id.saturating_add(1);
            id
        });
        let of = |signal: &Signal| SignalOutline {
            values: count(signal.values.len() as u64),
            missing: count(signal.missing),
            stale: count(signal.stale),
            text: signal.text.clone(),
        };
        Outline {
            id,
            start_us: self.start_us,
            samples: count(self.samples),
            missing: count(self.missing),
            stale: count(self.stale),
            signals: self.signals.iter().map(of).collect(),
        }
    }

    /// What the tail lacks of an open cycle with an outline.
    pub fn unsaved(&self) -> impl Iterator<Item = Stretch<'_>> {
        let numbered = self.signals.iter().zip(0..);
        numbered
            .filter(|(signal, _)| signal.saved < signal.values.len())
            .map(|(buffer, signal)| Stretch {
                id: self.id.unwrap_or_default(),
                signal,
                offsets: Cow::Borrowed(&buffer.offsets[buffer.saved..]),
                values: Cow::Borrowed(&buffer.values[buffer.saved..]),
            })
    }

    /// The tail has all samples.
    pub fn all_saved(&mut self) {
        self.signals
            .iter_mut()
            .for_each(|signal| signal.saved = signal.values.len());
    }

    /// An open cycle whose samples are still to come.
    pub fn from_outline(outline: Outline) -> Self {
        let signal = |signal: SignalOutline| Signal {
            missing: signal.missing.get(),
            stale: signal.stale.get(),
            text: signal.text,
            // As many as have to come.
            saved: signal.values.get() as usize,
            ..Signal::default()
        };
        Open {
            id: Some(outline.id),
            start_us: outline.start_us,
            samples: outline.samples.get(),
            missing: outline.missing.get(),
            stale: outline.stale.get(),
            signals: outline.signals.into_iter().map(signal).collect(),
        }
    }

    pub fn id(&self) -> Option<u32> {
        self.id
    }

    /// Takes samples back.
    pub fn extend(&mut self, stretch: &Stretch<'_>) -> anyhow::Result<()> {
        let buffer = self.signals.get_mut(stretch.signal as usize);
        let (Some(buffer), true) = (buffer, stretch.offsets.len() == stretch.values.len()) else {
            anyhow::bail!("state that can't be read: samples of an unknown signal");
        };
        buffer.grow(stretch.values.len());
        buffer.offsets.extend_from_slice(&stretch.offsets);
        buffer.values.extend_from_slice(&stretch.values);
        Ok(())
    }

    /// Checks that all samples have come, and that there are only so many signals.
    pub fn all_restored(&self, signals: usize) -> anyhow::Result<()> {
        ensure!(
            self.signals.len() <= signals,
            "state that can't be read: an open cycle of unknown signals"
        );
        for signal in &self.signals {
            let (came, wanted) = (signal.values.len(), signal.saved);
            ensure!(
                came == wanted,
                "state is incomplete: {came} of {wanted} samples of an open cycle"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::Said;
    use super::*;

    #[test]
    fn costs_no_more_once_restored() {
        let (mut open, mut next_id, mut tail) = (Open::new(0), 0, Vec::new());
        for sample in 0..2_000_usize {
            for signal in 0..3 {
                open.push(sample as i64, signal, 1.0, Said::default());
            }
            if sample % 7 == 0 {
                open.outline(&mut next_id);
                let owned = open.unsaved().map(|stretch| Stretch {
                    offsets: stretch.offsets.into_owned().into(),
                    values: stretch.values.into_owned().into(),
                    ..stretch
                });
                tail.extend(owned.collect::<Vec<Stretch<'static>>>());
                open.all_saved();
                let mut restored = Open::from_outline(open.outline(&mut next_id));
                tail.iter().for_each(|stretch| restored.extend(stretch).unwrap());
                restored.all_restored(3).unwrap();
                let bytes = restored.allocated();
                assert!(
                    bytes <= 24 * 3 * (sample + 1) + 1024 * 3,
                    "{bytes} bytes for {sample} samples"
                );
            }
        }
        assert_eq!((open.saved(), open.id()), (3 * 1996, Some(0)));
    }
}
