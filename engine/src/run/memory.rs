//! Keeps the processes of a run below their limit of resident memory.
//!
//! Queues are bounded by counts; the limit is about bytes. Near it epochs go one at a time, so that the rows on their way are few,
//! and checkpoints come early, so that sinks let go of what they gather. At the limit there is at most one epoch a second. When memory
//! stays above it with nothing on its way, it is what the steps remember: waiting would not help, and the run ends with an error that says so.
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

/// And at so many looks with nothing on its way, so far apart: what a slow sink had left may just have gone, and the allocator gives it back
/// a little later.
const LOOKS: u32 = 3;
const APART: Duration = Duration::from_secs(1);

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How a process stands to its limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Memory {
    #[default]
    Enough,
    Near,
    Above,
    /// Above for long, with nothing on its way.
    Exceeded(MemoryExceeded),
}

/// How fast epochs follow each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Pace {
    /// As many are on their way as may be.
    #[default]
    Full,
    /// One at a time.
    Single,
    /// One at a time, and at most one a second. Not none: a checkpoint needs its epoch to end.
    Slow,
}

impl Memory {
    /// What a run makes of it.
    pub fn pace(self) -> Pace {
        match self {
            Memory::Enough => Pace::Full,
            Memory::Near => Pace::Single,
            Memory::Above | Memory::Exceeded(_) => Pace::Slow,
        }
    }
}

/// The steps of a run remember more than `memory.limit` allows: with this limit another start would be of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
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
    process: usize,
    limit_bytes: u64,
    memory: Memory,
    looked: Option<Instant>,
    above: Option<Above>,
}

/// It was above the limit at each look with nothing on its way.
struct Above {
    since: Instant,
    last: Instant,
    looks: u32,
}

impl MemoryWatch {
    pub fn new(process: usize, limit_bytes: u64) -> Self {
        MemoryWatch {
            process,
            limit_bytes,
            memory: Memory::Enough,
            looked: None,
            above: None,
        }
    }

    /// How memory stands, when that has changed. `alone` says that nothing is on its way: only then is memory what the steps remember.
    pub fn turn(&mut self, alone: impl FnOnce() -> bool) -> Option<Memory> {
        if self.looked.is_some_and(|looked| looked.elapsed() < LOOK_EVERY) {
            return None;
        }
        let memory = self.look(Instant::now(), resident_bytes(), alone());
        (memory != std::mem::replace(&mut self.memory, memory)).then_some(memory)
    }

    fn look(&mut self, now: Instant, resident_bytes: u64, alone: bool) -> Memory {
        self.looked = Some(now);
        if let Memory::Exceeded(_) = self.memory {
            return self.memory; // the run ends
        }
        let share = resident_bytes as f64 / self.limit_bytes as f64;
        let stays_near = self.memory != Memory::Enough && share >= ENOUGH_BELOW;
        let memory = if share >= 1.0 {
            Memory::Above
        } else if share >= NEAR_FROM || stays_near {
            Memory::Near
        } else {
            Memory::Enough
        };
        if memory != Memory::Above {
            self.above = None;
        } else if alone && self.stays_above(now) {
            return Memory::Exceeded(MemoryExceeded {
                process: self.process,
                resident_bytes,
                limit_bytes: self.limit_bytes,
            });
        }
        memory
    }

    /// True when it was seen above the limit long and often enough.
    fn stays_above(&mut self, now: Instant) -> bool {
        let above = self.above.get_or_insert(Above {
            since: now,
            last: now,
            looks: 1,
        });
        if now.duration_since(above.last) >= APART {
            above.last = now;
            above.looks += 1;
        }
        now.duration_since(above.since) >= PATIENCE && above.looks >= LOOKS
    }
}

/// 0 on a system that doesn't tell, which has no limit then.
fn resident_bytes() -> u64 {
    memory_stats::memory_stats().map_or(0, |memory| memory.physical_mem as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory over time, in milliseconds and bytes of a limit of 1000: how it stood at each, `e`nough, `n`ear, `a`bove or e`x`ceeded.
    fn check(alone: bool, memory: &[(u64, u64)], expect: &str) {
        let begun = Instant::now();
        let mut watch = MemoryWatch::new(0, 1000);
        let stood: String = memory
            .iter()
            .map(|(ms, resident)| {
                watch.memory = watch.look(begun + Duration::from_millis(*ms), *resident, alone);
                match watch.memory {
                    Memory::Enough => 'e',
                    Memory::Near => 'n',
                    Memory::Above => 'a',
                    Memory::Exceeded(_) => 'x',
                }
            })
            .collect();
        assert_eq!(stood, expect, "{memory:?}");
    }

    #[test]
    fn the_watch_follows_memory() {
        check(
            true,
            &[
                (0, 799),
                (1, 800),
                (2, 999),
                (3, 751),
                (4, 749),
                (5, 799),
                (6, 1000),
                (7, 760),
            ],
            "ennneean",
        );
        // Above for a while, but not all the time.
        check(
            true,
            &[(0, 1000), (4000, 1200), (5000, 900), (6000, 1000), (10_000, 1000)],
            "aanaa",
        );
        check(true, &[(0, 1000), (4000, 1000), (5000, 1000), (6000, 0)], "aaxx");
        // Looks at the end of a long time are one.
        check(
            true,
            &[(0, 1000), (60_000, 1000), (60_005, 1000), (61_000, 1000)],
            "aaax",
        );
        // What waits for a slow sink is no reason to end.
        check(false, &[(0, 1000), (30_000, 1000), (60_000, 1000)], "aaa");
    }

    #[test]
    fn memory_of_this_process_is_known() {
        let bytes = resident_bytes();
        assert!(1 << 20 < bytes && bytes < 1 << 40, "{bytes}");
    }
}
