//! Keeps a process below its limit of resident memory.
//!
//! Queues are bounded by counts; the limit is about bytes. Near it epochs go one at a time, so that the rows on their way are few,
//! and checkpoints come early, so that sinks let go of what they gather. When memory is above the limit all the same, it is what the steps
//! remember: waiting would not help, and the run ends with an error that says so.

use std::time::{Duration, Instant};

use anyhow::bail;

/// From this share of the limit on, one epoch is on its way at a time.
const NARROW_AT: f64 = 0.8;

/// How long memory may stay above the limit.
const PATIENCE: Duration = Duration::from_secs(5);

/// And at so many looks: what a slow sink had left may just have gone.
const LOOKS: u32 = 3;

/// How often memory is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The limit of one process, as one worker's feed sees it.
pub(crate) struct MemoryGate {
    limit_bytes: Option<u64>,
    narrow: bool,
    looked: Option<Instant>,
    /// Since when it was above the limit at each look with nothing on its way, and how many these were.
    above: Option<(Instant, u32)>,
}

impl MemoryGate {
    pub fn new(limit_bytes: Option<u64>) -> Self {
        MemoryGate {
            limit_bytes,
            narrow: false,
            looked: None,
            above: None,
        }
    }

    /// True when an epoch may be opened only once those before it are done. `alone` says that nothing is on its way: only then is memory
    /// what the steps remember.
    ///
    /// # Errors
    /// Memory stays above the limit with nothing on its way.
    pub fn narrow(&mut self, alone: bool) -> anyhow::Result<bool> {
        let Some(limit) = self.limit_bytes else {
            return Ok(false);
        };
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOK_EVERY) {
            self.look(Instant::now(), (resident_bytes(), limit), alone)?;
        }
        Ok(self.narrow)
    }

    fn look(&mut self, now: Instant, (resident, limit): (u64, u64), alone: bool) -> anyhow::Result<()> {
        self.looked = Some(now);
        self.narrow = resident as f64 >= limit as f64 * NARROW_AT;
        if !alone {
            return Ok(()); // it may be what waits for a slow sink
        }
        if resident < limit {
            self.above = None;
            return Ok(());
        }
        let (since, looks) = self.above.get_or_insert((now, 0));
        *looks += 1;
        if now.duration_since(*since) >= PATIENCE && *looks >= LOOKS {
            bail!(
                "the process takes {} MiB of memory with no row on its way, and memory.limit is {} MiB: it is what the steps \
                 remember. Raise memory.limit, lower the max of cycles, or let silent machines go with keys.forget_after",
                resident >> 20,
                limit >> 20
            );
        }
        Ok(())
    }
}

/// 0 on a system that doesn't tell, which has no limit then.
fn resident_bytes() -> u64 {
    memory_stats::memory_stats().map_or(0, |memory| memory.physical_mem as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory over time, in seconds and bytes of a limit of 1000: whether the gate was narrow at each, up to the error.
    fn check(alone: bool, memory: &[(u64, u64)], expect: &[bool], ends: bool) {
        let begun = Instant::now();
        let mut gate = MemoryGate::new(Some(1000));
        let mut narrow = Vec::new();
        let looked = memory.iter().try_for_each(|(secs, resident)| {
            gate.look(begun + Duration::from_secs(*secs), (*resident, 1000), alone)?;
            narrow.push(gate.narrow);
            anyhow::Ok(())
        });
        assert_eq!((narrow.as_slice(), looked.is_err()), (expect, ends), "{memory:?}");
    }

    #[test]
    fn the_gate_follows_memory() {
        check(
            true,
            &[(0, 799), (1, 800), (2, 999), (3, 500)],
            &[false, true, true, false],
            false,
        );
        // Above for a while, but not all the time.
        check(
            true,
            &[(0, 1000), (4, 1200), (5, 900), (6, 1000), (10, 1000)],
            &[true; 5],
            false,
        );
        check(true, &[(0, 1000), (4, 1000), (5, 1000), (6, 0)], &[true; 2], true);
        // What waits for a slow sink is no reason to end.
        check(false, &[(0, 1000), (30, 1000), (60, 1000)], &[true; 3], false);
    }

    #[test]
    fn memory_of_this_process_is_known() {
        let bytes = resident_bytes();
        assert!(1 << 20 < bytes && bytes < 1 << 40, "{bytes}");
    }
}
