//! What a machine's comparison keeps over a restart.
//!
//! The tail holds the cycles that a reference is learned from, each written once, and a learned reference that stays. A
//! sliding reference isn't written: it is learned again from its cycles and the place of its template, which gives the same.
//! Once more of the tail is needless than needed, it is begun anew. Only counts are written at each checkpoint.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::ensure;
use serde::{Deserialize, Serialize};
use taktline_engine::{Saved, Snapshot};

use super::{Comparer, Kept, ReferenceConfig, Slot};
use crate::count::{Count, count};
use crate::reference::{CycleData, Reference};

#[derive(Serialize, Deserialize)]
enum Record<'a> {
    /// A cycle of a recipe, to learn from.
    Cycle(Cow<'a, str>, Cow<'a, CycleData>),
    /// The learned reference of a recipe, in place of its cycles.
    Reference(Cow<'a, str>, Cow<'a, Reference>),
}

#[derive(Serialize, Deserialize)]
struct Head {
    came: Count,
    compared: Count,
    /// Of recipes whose reference slides.
    sliding: Vec<Sliding>,
}

#[derive(Serialize, Deserialize)]
struct Sliding {
    recipe: String,
    /// So many of the newest cycles make the reference.
    cycles: u32,
    /// Place of the template among them.
    template: u32,
}

impl Kept {
    /// How many records it takes.
    fn records(&self) -> usize {
        match &self.slot {
            Slot::Learning(cycles) => cycles.len(),
            Slot::Fixed(_) => 1,
            Slot::Sliding { cycles, .. } => cycles.len(),
        }
    }

    /// Appends the newest `unsaved` records.
    fn append(&self, recipe: &str, into: &mut Snapshot) -> anyhow::Result<()> {
        let mut cycle = |cycle: &Arc<CycleData>| into.append(&Record::Cycle(recipe.into(), Cow::Borrowed(&**cycle)));
        let saved = self.records() - self.unsaved.min(self.records());
        match &self.slot {
            Slot::Learning(cycles) => cycles[saved..].iter().try_for_each(cycle),
            Slot::Sliding { cycles, .. } => cycles.iter().skip(saved).try_for_each(&mut cycle),
            Slot::Fixed(_) if saved == 1 => Ok(()),
            Slot::Fixed(reference) => into.append(&Record::Reference(recipe.into(), Cow::Borrowed(&**reference))),
        }
    }
}

impl Comparer {
    pub(super) fn write(&mut self, into: &mut Snapshot) -> anyhow::Result<()> {
        let mut sliding = Vec::new();
        // References of a file come from there again.
        if !self.is_from_file() {
            let needed: usize = self
                .slots
                .values()
                .map(|kept| kept.records().saturating_sub(kept.unsaved))
                .sum();
            if into.whole() || self.written.saturating_sub(needed) > needed {
                into.restart();
                self.written = 0;
                self.slots.values_mut().for_each(|kept| kept.unsaved = kept.records());
            }
            for (recipe, kept) in &mut self.slots {
                kept.append(recipe, into)?;
                self.written += kept.unsaved.min(kept.records());
                kept.unsaved = 0;
                if let Slot::Sliding { cycles, template, .. } = &kept.slot {
                    let place = cycles.iter().position(|cycle| Arc::ptr_eq(cycle, template));
                    sliding.push(Sliding {
                        recipe: recipe.clone(),
                        cycles: cycles.len() as u32,
                        template: place.unwrap_or(0) as u32,
                    });
                }
            }
        }
        into.head(&Head {
            came: count(self.came),
            compared: count(self.compared),
            sliding,
        })
    }

    pub(super) fn read(&mut self, saved: &Saved) -> anyhow::Result<()> {
        let head: Head = saved.head()?;
        (self.came, self.compared) = (head.came.get(), head.compared.get());
        if self.is_from_file() {
            return Ok(());
        }
        let mut learning: BTreeMap<String, Vec<Arc<CycleData>>> = BTreeMap::new();
        for record in saved.appended::<Record<'static>>()? {
            self.written += 1;
            match record {
                Record::Cycle(recipe, cycle) => {
                    cycle.check()?;
                    learning
                        .entry(recipe.into_owned())
                        .or_default()
                        .push(Arc::new(cycle.into_owned()));
                }
                Record::Reference(recipe, reference) => {
                    reference.check()?;
                    learning.remove(&*recipe);
                    self.slots.insert(
                        recipe.into_owned(),
                        Kept::saved(Slot::Fixed(Arc::new(reference.into_owned()))),
                    );
                }
            }
        }
        let slides = matches!(self.settings.config.reference, ReferenceConfig::Last(_));
        for Sliding {
            recipe,
            cycles,
            template,
        } in head.sliding
        {
            let all = learning.remove(&recipe).unwrap_or_default();
            let (wanted, place) = (cycles as usize, template as usize);
            ensure!(
                slides && place < wanted && wanted <= all.len(),
                "state is incomplete: {} of {wanted} cycles of a sliding reference",
                all.len()
            );
            let newest = all[all.len() - wanted..].to_vec();
            let slot = Slot::around(newest, place, self.settings.measure, &mut self.scratch);
            self.slots.insert(recipe, Kept::saved(slot));
        }
        let still = learning
            .into_iter()
            .map(|(recipe, cycles)| (recipe, Kept::saved(Slot::Learning(cycles))));
        self.slots.extend(still);
        Ok(())
    }

    fn is_from_file(&self) -> bool {
        matches!(self.settings.config.reference, ReferenceConfig::Path(_))
    }
}
