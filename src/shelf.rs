//! The last cycles of each machine as the page shows them, in bounded memory.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Cycles as JSON text, which takes a tenth of what values would.
pub struct Shelf {
    /// Most cycles of one machine.
    most: usize,
    /// Most bytes of all; with many machines each has fewer cycles.
    most_bytes: usize,
    cycles: HashMap<Arc<str>, VecDeque<(u64, Box<str>)>>,
    /// Cycles by age, also of some that are gone already.
    order: VecDeque<(Arc<str>, u64)>,
    next: u64,
    kept: usize,
    bytes: usize,
}

impl Shelf {
    /// An empty one.
    pub fn new(most: usize, most_bytes: usize) -> Self {
        Shelf {
            most,
            most_bytes,
            cycles: HashMap::new(),
            order: VecDeque::new(),
            next: 0,
            kept: 0,
            bytes: 0,
        }
    }

    /// Keeps a cycle of a machine; the oldest go when there is no room.
    pub fn put(&mut self, machine: &Arc<str>, cycle: Box<str>) {
        self.kept += 1;
        self.bytes += cycle.len();
        self.order.push_back((Arc::clone(machine), self.next));
        let own = self.cycles.entry(Arc::clone(machine)).or_default();
        own.push_back((self.next, cycle));
        self.next += 1;
        if own.len() > self.most {
            self.drop_first(machine);
        }
        while self.bytes > self.most_bytes {
            let Some((oldest, number)) = self.order.pop_front() else {
                break;
            };
            if self.first(&oldest) == Some(number) {
                self.drop_first(&oldest);
            }
        }
        if self.order.len() > 2 * self.kept + 1000 {
            let (cycles, mut order) = (&self.cycles, std::mem::take(&mut self.order));
            let there = |machine: &str, number| {
                cycles
                    .get(machine)
                    .and_then(VecDeque::front)
                    .is_some_and(|(first, _)| *first <= number)
            };
            order.retain(|(machine, number)| there(machine, *number));
            self.order = order;
        }
    }

    /// The cycles of a machine, oldest first.
    pub fn of(&self, machine: &str) -> impl Iterator<Item = &str> {
        self.cycles
            .get(machine)
            .into_iter()
            .flatten()
            .map(|(_, cycle)| &**cycle)
    }

    /// Forgets a machine.
    pub fn forget(&mut self, machine: &str) {
        for (_, cycle) in self.cycles.remove(machine).unwrap_or_default() {
            self.kept -= 1;
            self.bytes -= cycle.len();
        }
    }

    fn first(&self, machine: &str) -> Option<u64> {
        Some(self.cycles.get(machine)?.front()?.0)
    }

    fn drop_first(&mut self, machine: &str) {
        let dropped = self.cycles.get_mut(machine).and_then(VecDeque::pop_front);
        if let Some((_, cycle)) = dropped {
            self.kept -= 1;
            self.bytes -= cycle.len();
        }
        if self.cycles.get(machine).is_some_and(VecDeque::is_empty) {
            self.cycles.remove(machine);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of<'a>(shelf: &'a Shelf, machine: &str) -> Vec<&'a str> {
        shelf.of(machine).collect()
    }

    #[test]
    fn the_oldest_go_when_there_is_no_room() {
        let mut shelf = Shelf::new(2, 6);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        for cycle in ["a1", "a2", "a3"] {
            shelf.put(&a, cycle.into());
        }
        assert_eq!(of(&shelf, "a"), ["a2", "a3"], "two of one machine");
        shelf.put(&b, "b1".into());
        shelf.put(&b, "b2".into());
        assert_eq!(
            (of(&shelf, "a"), of(&shelf, "b")),
            (vec!["a3"], vec!["b1", "b2"]),
            "six bytes of all"
        );
        shelf.forget("b");
        shelf.put(&a, "a4".into());
        assert_eq!((of(&shelf, "a"), of(&shelf, "b").len()), (vec!["a3", "a4"], 0));
        assert_eq!((shelf.kept, shelf.bytes), (2, 4));
    }

    #[test]
    fn what_is_gone_leaves_no_trace() {
        let mut shelf = Shelf::new(1, 1 << 20);
        let (a, b): (Arc<str>, Arc<str>) = ("a".into(), "b".into());
        shelf.put(&b, "silent".into());
        for _ in 0..10_000 {
            shelf.put(&a, "x".into());
        }
        assert!(shelf.order.len() < 2000, "{}", shelf.order.len());
        assert_eq!(of(&shelf, "b"), ["silent"]);
    }
}
