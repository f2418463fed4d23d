//! Keeps the processes of a run below their limit of resident memory.
//!
//! Queues are bounded by counts; the limit is about bytes. Near it epochs go one at a time, so that the rows on their way are few,
//! and checkpoints come early, so that sinks let go of what they gather. When memory is above the limit all the same, it is what the steps
//! remember: waiting would not help, and the run ends with an error that says so.
//!
//! Each process watches its own memory and tells the leader, which tells all: the rows that fill one may be read by another.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

/// From this share of the limit on, one epoch is on its way at a time.
const NEAR_FROM: f64 = 0.8;

/// Below this share it is enough again.
const ENOUGH_BELOW: f64 = 0.75;

/// How long memory may stay above the limit.
const PATIENCE: Duration = Duration::from_secs(5);

/// And at so many looks: what a slow sink had left may just have gone.
const LOOKS: u32 = 3;

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How a process stands to its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Memory {
    #[default]
    Enough,
    Near,
    /// Above for long, with nothing on its way.
    Exceeded {
        resident_bytes: u64,
        limit_bytes: u64,
    },
}

/// The steps of a run remember more than `memory.limit` allows: with this limit another start would be of no use.
#[derive(Debug, thiserror::Error)]
#[error(
    "process {process} takes {} MiB of memory with no row on its way, and memory.limit is {} MiB: the program and what the steps remember. \
     Raise memory.limit, lower the max of cycles, or let silent machines go with keys.forget_after",
    resident_bytes >> 20,
    limit_bytes >> 20
)]
pub struct MemoryExceeded {
    /// Which process, from 0.
    pub process: usize,
    /// What it takes.
    pub resident_bytes: u64,
    /// What it may take.
    pub limit_bytes: u64,
}

/// The eye of one process on its memory.
pub(crate) struct MemoryWatch {
    limit_bytes: u64,
    memory: Memory,
    looked: Option<Instant>,
    /// Since when it was above the limit at each look with nothing on its way, and how many these were.
    above: Option<(Instant, u32)>,
}

impl MemoryWatch {
    pub fn new(limit_bytes: u64) -> Self {
        MemoryWatch {
            limit_bytes,
            memory: Memory::Enough,
            looked: None,
            above: None,
        }
    }

    /// How memory stands, when that has changed. `alone` says that nothing is on its way: only then is memory what the steps remember.
    pub fn turn(&mut self, alone: bool) -> Option<Memory> {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return None;
        }
        let memory = self.look(Instant::now(), resident_bytes(), alone);
        (memory != std::mem::replace(&mut self.memory, memory)).then_some(memory)
    }

    fn look(&mut self, now: Instant, resident: u64, alone: bool) -> Memory {
        self.looked = Some(now);
        if let Memory::Exceeded { .. } = self.memory {
            return self.memory; // the run ends
        }
        let share = resident as f64 / self.limit_bytes as f64;
        let memory = match self.memory {
            Memory::Near if share >= ENOUGH_BELOW => Memory::Near,
            _ if share >= NEAR_FROM => Memory::Near,
            _ => Memory::Enough,
        };
        if !alone {
            return memory; // it may be what waits for a slow sink
        }
        if resident < self.limit_bytes {
            self.above = None;
            return memory;
        }
        let (since, looks) = self.above.get_or_insert((now, 0));
        *looks += 1;
        if now.duration_since(*since) >= PATIENCE && *looks >= LOOKS {
            return Memory::Exceeded {
                resident_bytes: resident,
                limit_bytes: self.limit_bytes,
            };
        }
        memory
    }
}

/// 0 on a system that doesn't tell, which has no limit then.
fn resident_bytes() -> u64 {
    memory_stats::memory_stats().map_or(0, |memory| memory.physical_mem as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory over time, in seconds and bytes of a limit of 1000: how it stood at each, `e`nough, `n`ear or e`x`ceeded.
    fn check(alone: bool, memory: &[(u64, u64)], expect: &str) {
        let begun = Instant::now();
        let mut watch = MemoryWatch::new(1000);
        let stood: String = memory
            .iter()
            .map(|(secs, resident)| {
                watch.memory = watch.look(begun + Duration::from_secs(*secs), *resident, alone);
                match watch.memory {
                    Memory::Enough => 'e',
                    Memory::Near => 'n',
                    Memory::Exceeded { .. } => 'x',
                }
            })
            .collect();
        assert_eq!(stood, expect, "{memory:?}");
    }

    #[test]
    fn the_watch_follows_memory() {
        check(
            true,
            &[(0, 799), (1, 800), (2, 999), (3, 751), (4, 749), (5, 799)],
            "ennnee",
        );
        // Above for a while, but not all the time.
        check(true, &[(0, 1000), (4, 1200), (5, 900), (6, 1000), (10, 1000)], "nnnnn");
        check(true, &[(0, 1000), (4, 1000), (5, 1000), (6, 0)], "nnxx");
        // What waits for a slow sink is no reason to end.
        check(false, &[(0, 1000), (30, 1000), (60, 1000)], "nnn");
    }

    #[test]
    fn memory_of_this_process_is_known() {
        let bytes = resident_bytes();
        assert!(1 << 20 < bytes && bytes < 1 << 40, "{bytes}");
    }
}
