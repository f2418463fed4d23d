//! Signals of one step on one worker as small numbers.

use std::collections::HashMap;

use arrow::array::{Array, StringArray};

/// Gives every name a number that stays, counting up from 0.
pub(crate) struct Names {
    numbers: HashMap<Box<str>, u32>,
    array: StringArray,
}

impl Names {
    pub fn new() -> Self {
        Names {
            numbers: HashMap::new(),
            array: StringArray::from(Vec::<&str>::new()),
        }
    }

    /// For each entry of a dictionary its number; 0 for entries that no key uses. After an exchange a dictionary still has the
    /// names of rows that went to other workers.
    pub fn translate(&mut self, dictionary: &StringArray, keys: &[i32]) -> Vec<u32> {
        let before = self.numbers.len();
        let mut used = vec![false; dictionary.len()];
        keys.iter().for_each(|key| used[*key as usize] = true);
        let number = |(i, used)| if used { self.number(dictionary.value(i)) } else { 0 };
        let numbers = used.into_iter().enumerate().map(number).collect();
        if self.numbers.len() > before {
            self.refresh();
        }
        numbers
    }

    /// The numbers of these names, new ones for those that have none.
    pub fn add(&mut self, names: &[String]) -> Vec<u32> {
        let numbers = names.iter().map(|name| self.number(name)).collect();
        self.refresh();
        numbers
    }

    fn number(&mut self, name: &str) -> u32 {
        if let Some(number) = self.numbers.get(name) {
            return *number;
        }
        let number = self.numbers.len() as u32;
        self.numbers.insert(name.into(), number);
        number
    }

    fn refresh(&mut self) {
        let mut names = vec![""; self.numbers.len()];
        for (name, number) in &self.numbers {
            names[*number as usize] = name;
        }
        self.array = StringArray::from(names);
    }

    /// All names, each at its number.
    pub fn array(&self) -> &StringArray {
        &self.array
    }
}
