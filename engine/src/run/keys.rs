//! The keys of one step on one worker as small numbers, which are used again when a key has been forgotten.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, StringArray};

/// Gives every key a number below [`Keys::slots`].
#[derive(Default)]
pub(crate) struct Keys {
    numbers: HashMap<Arc<str>, u32>,
    names: Vec<Option<Arc<str>>>,
    free: Vec<u32>,
    /// Keys that got their numbers since they were last taken.
    met: Vec<u32>,
}

impl Keys {
    /// For each entry of a dictionary its number; 0 for entries that no row uses. After an exchange a dictionary still has the
    /// names of rows that went to other workers.
    pub fn translate(&mut self, dictionary: &StringArray, rows: &[i32]) -> Vec<u32> {
        let mut used = vec![false; dictionary.len()];
        rows.iter().for_each(|row| used[*row as usize] = true);
        let number = |(i, used)| if used { self.number(dictionary.value(i)) } else { 0 };
        used.into_iter().enumerate().map(number).collect()
    }

    /// The number of a key, a new one if it has none.
    pub fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let name: Arc<str> = name.into();
        let number = self.free.pop().unwrap_or(self.names.len() as u32);
        if number as usize == self.names.len() {
            self.names.push(None);
        }
        self.names[number as usize] = Some(Arc::clone(&name));
        self.numbers.insert(name, number);
        self.met.push(number);
        number
    }

    /// Numbers are below this.
    pub fn slots(&self) -> usize {
        self.names.len()
    }

    /// The key behind a number; empty for one that is not in use.
    pub fn name(&self, number: u32) -> &str {
        self.names[number as usize].as_deref().unwrap_or_default()
    }

    /// The keys in use, by number.
    pub fn in_use(&self) -> impl Iterator<Item = (u32, &str)> {
        let names = self.names.iter().enumerate();
        names.filter_map(|(number, name)| Some((number as u32, name.as_deref()?)))
    }

    /// Takes the numbers of the keys that came since the last call.
    pub fn take_met(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.met)
    }

    /// Forgets a key; its number will be another's.
    pub fn forget(&mut self, number: u32) {
        if let Some(name) = self.names[number as usize].take() {
            self.numbers.remove(&name);
            self.free.push(number);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forgotten_key_leaves_its_number_to_the_next() {
        let mut keys = Keys::default();
        let dictionary = StringArray::from(vec!["a", "unused", "b"]);
        assert_eq!(keys.translate(&dictionary, &[2, 0, 2]), [0, 0, 1]);
        assert_eq!(keys.take_met(), [0, 1]);
        keys.forget(0);
        assert_eq!((keys.name(0), keys.name(1)), ("", "b"));
        assert_eq!((keys.number("c"), keys.number("a"), keys.slots()), (0, 2, 3));
        assert_eq!(keys.in_use().map(|(_, name)| name).collect::<Vec<_>>(), ["c", "b", "a"]);
        assert_eq!(keys.take_met(), [0, 2]);
    }
}
