//! What overlapping windows hold of each signal, and how a checkpoint keeps it: what was written once is not written again.

use std::collections::VecDeque;

use anyhow::ensure;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use taktline_engine::{Saved, Snapshot};

use super::fifo::{Element, Fifo};
use super::pane::{Keep, Pane, Tally};
use crate::kernels::sketch::Sketch;
use crate::signals::Signals;

/// An element whose values a sketch counts: taken away again exactly.
pub(super) trait Sketched {
    fn add_to(&self, sketch: &mut Sketch);
    fn take_from(&self, sketch: &mut Sketch);
}

impl<T: Tally> Element<T> for Pane<T> {
    fn tally(&self, _: i64) -> T {
        self.tally.clone()
    }
}

impl<T: Tally> Sketched for Pane<T> {
    fn add_to(&self, sketch: &mut Sketch) {
        self.sketch().into_iter().for_each(|ours| sketch.merge(ours));
    }

    fn take_from(&self, sketch: &mut Sketch) {
        self.sketch().into_iter().for_each(|ours| sketch.subtract(ours));
    }
}

/// A value of its own.
impl<T: Tally> Element<T> for f64 {
    fn tally(&self, at: i64) -> T {
        let mut tally = T::default();
        tally.add(at, *self);
        tally
    }
}

impl Sketched for f64 {
    fn add_to(&self, sketch: &mut Sketch) {
        if self.is_finite() {
            sketch.add(*self);
        }
    }

    fn take_from(&self, sketch: &mut Sketch) {
        if self.is_finite() {
            sketch.remove(*self);
        }
    }
}

/// The elements of each signal that are in the newest window.
pub(super) struct Past<E, T: Tally> {
    keep: Keep,
    by_slot: Vec<Line<E, T>>,
    /// Elements that the tail of the state has; those that have gone are still there.
    written: usize,
}

struct Line<E, T: Tally> {
    fifo: Fifo<E, T>,
    /// The sketch of all elements; the tally where it was asked for.
    whole: Pane<T>,
    /// Newest elements that no checkpoint has.
    unsaved: usize,
}

/// A signal's elements in a checkpoint: slot, how many, and how many of them were merged.
pub(super) type SavedLine = (u32, u32, u32);

/// What the tail holds.
#[derive(Serialize, Deserialize)]
enum Entry<E> {
    /// Of the next slot.
    Name(String),
    /// Slot, time, element.
    Element(u32, i64, E),
}

/// So many dead elements in the tail are not worth writing the live ones again.
const FEW: usize = 64;

impl<E, T: Tally> Past<E, T>
where
    E: Element<T> + Sketched + Clone + Serialize + DeserializeOwned,
{
    pub fn new(keep: Keep) -> Self {
        Past {
            keep,
            by_slot: Vec::new(),
            written: 0,
        }
    }

    pub fn push(&mut self, slot: usize, at: i64, element: E) {
        while slot >= self.by_slot.len() {
            self.by_slot.push(Line {
                fifo: Fifo::new(),
                whole: Pane::new(self.keep),
                unsaved: 0,
            });
        }
        let line = &mut self.by_slot[slot];
        if let Some(sketch) = line.whole.sketch_mut() {
            element.add_to(sketch);
        }
        line.fifo.push(at, element);
        line.unsaved += 1;
    }

    /// Lets go of a signal's elements before `at`; false when none is left.
    pub fn drop_before(&mut self, slot: usize, at: i64) -> bool {
        let Some(line) = self.by_slot.get_mut(slot) else {
            return false;
        };
        while let Some(gone) = line.fifo.pop_before(at) {
            if let Some(sketch) = line.whole.sketch_mut() {
                gone.take_from(sketch);
            }
        }
        !line.fifo.is_empty()
    }

    /// All elements of a signal as one, if there are any.
    pub fn whole(&mut self, slot: usize) -> Option<&Pane<T>> {
        let line = self.by_slot.get_mut(slot).filter(|line| !line.fifo.is_empty())?;
        line.whole.tally = line.fifo.total();
        Some(&line.whole)
    }

    /// Where all elements stand in time.
    pub fn times(&self) -> impl Iterator<Item = i64> {
        self.by_slot
            .iter()
            .flat_map(|line| line.fifo.parts().0.iter().map(|(at, _)| *at))
    }

    /// Writes names and elements that no checkpoint has to the tail; gives what the head must hold.
    pub fn save(&mut self, signals: &mut Signals, into: &mut Snapshot) -> anyhow::Result<Vec<SavedLine>> {
        let live: usize = self.by_slot.iter().map(|line| line.fifo.parts().0.len()).sum();
        let whole = into.whole() || self.written > 2 * live + FEW;
        if whole {
            into.restart();
            self.written = 0;
        }
        for name in signals.unsaved(whole) {
            into.append(&Entry::<E>::Name(name.clone()))?;
        }
        let mut lines = Vec::new();
        for (slot, line) in (0..).zip(&mut self.by_slot) {
            let (elements, front) = line.fifo.parts();
            let new = if whole {
                elements.len()
            } else {
                line.unsaved.min(elements.len())
            };
            for (at, element) in elements.iter().skip(elements.len() - new) {
                into.append(&Entry::Element(slot, *at, element.clone()))?;
            }
            self.written += new;
            line.unsaved = 0;
            if !elements.is_empty() {
                lines.push((slot, elements.len() as u32, front as u32));
            }
        }
        Ok(lines)
    }

    /// Takes back what [`Past::save`] gave.
    pub fn restore(&mut self, signals: &mut Signals, lines: &[SavedLine], saved: &Saved) -> anyhow::Result<()> {
        let mut by_slot: Vec<VecDeque<(i64, E)>> = Vec::new();
        for entry in saved.appended()? {
            match entry {
                Entry::Name(name) => {
                    signals.restore(&name)?;
                    by_slot.push(VecDeque::new());
                }
                Entry::Element(slot, at, element) => {
                    self.written += 1;
                    let elements = by_slot.get_mut(slot as usize);
                    let Some(elements) = elements else {
                        anyhow::bail!("state that can't be read: a window of an unknown signal");
                    };
                    elements.push_back((at, element));
                }
            }
        }
        for &(slot, count, front) in lines {
            let elements = by_slot.get_mut(slot as usize).map(std::mem::take).unwrap_or_default();
            let count = count as usize;
            let whole = 0 < count && count <= elements.len();
            ensure!(whole, "state that can't be read: a window that is not whole");
            let first = elements.len() - count;
            for (at, element) in elements.iter().skip(first).cloned() {
                self.push(slot as usize, at, element);
            }
            let line = &mut self.by_slot[slot as usize];
            let (elements, _) = line.fifo.parts();
            line.fifo = Fifo::restore(elements.clone(), front as usize);
            line.unsaved = 0;
        }
        Ok(())
    }
}
