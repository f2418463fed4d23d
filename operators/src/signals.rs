//! A key's signals: their slots, their names, and the order in which rows tell them.

use std::sync::Arc;

use anyhow::ensure;
use arrow::array::{ArrayRef, DictionaryArray, Int32Array, StringArray};
use arrow::datatypes::Int32Type;
use taktline_engine::SampleRows;

use crate::slots::Slots;

/// The signals that a key has seen.
pub(crate) struct Signals {
    machine: ArrayRef,
    slots: Slots,
    /// By slot.
    names: Vec<String>,
    /// The names as a column has them; behind `names` until it is asked for.
    dictionary: ArrayRef,
    /// Slots sorted by name.
    order: Vec<usize>,
    /// How many names a checkpoint has.
    saved: usize,
}

impl Signals {
    pub fn new(machine: &str) -> Self {
        Signals {
            machine: Arc::new(StringArray::from(vec![machine])),
            slots: Slots::default(),
            names: Vec::new(),
            dictionary: Arc::new(StringArray::from(Vec::<&str>::new())),
            order: Vec::new(),
            saved: 0,
        }
    }

    /// The slot of a row's signal; the next free one for a signal that is new.
    #[inline]
    pub fn slot(&mut self, samples: &SampleRows<'_>, number: i32) -> usize {
        let (names, order) = (&mut self.names, &mut self.order);
        self.slots
            .of(number, || slot_of(names, order, samples.signal_name(number)))
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Slots in the order of their names.
    pub fn order(&self) -> &[usize] {
        &self.order
    }

    /// The columns `machine` and `signal` of rows of these slots.
    pub fn columns(&mut self, slots: Vec<i32>) -> anyhow::Result<[ArrayRef; 2]> {
        if self.dictionary.len() < self.names.len() {
            self.dictionary = Arc::new(StringArray::from(self.names.clone()));
        }
        let machine = Int32Array::from(vec![0; slots.len()]);
        let machine = DictionaryArray::<Int32Type>::try_new(machine, self.machine.clone())?;
        let signal = DictionaryArray::<Int32Type>::try_new(Int32Array::from(slots), self.dictionary.clone())?;
        Ok([Arc::new(machine), Arc::new(signal)])
    }

    /// Names that no checkpoint has, in the order of their slots; all where it asks for the `whole`.
    pub fn unsaved(&mut self, whole: bool) -> &[String] {
        let from = if whole { 0 } else { self.saved };
        self.saved = self.names.len();
        &self.names[from..]
    }

    /// Takes back a name, after those of lower slots.
    pub fn restore(&mut self, name: &str) -> anyhow::Result<()> {
        let slot = slot_of(&mut self.names, &mut self.order, name);
        ensure!(slot == self.saved, "state that can't be read: `{name}` twice");
        self.saved += 1;
        self.slots = Slots::unknown(self.names.len());
        Ok(())
    }
}

/// The slot of a signal by name, the next one if it has none. `order` are the slots sorted by name.
fn slot_of(names: &mut Vec<String>, order: &mut Vec<usize>, name: &str) -> usize {
    match order.binary_search_by(|&slot| names[slot].as_str().cmp(name)) {
        Ok(place) => order[place],
        Err(place) => {
            order.insert(place, names.len());
            names.push(name.to_owned());
            names.len() - 1
        }
    }
}
