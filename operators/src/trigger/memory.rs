//! What a trigger has to remember over a restart.

use serde::{Deserialize, Serialize};

use super::{Content, Event, Seen, Trigger, TriggerState};
use crate::count::{Count, count};

/// A trigger's state without the trigger.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Memory {
    armed: bool,
    last: Option<Content>,
    pending: Option<i64>,
    fired: bool,
    fresh: bool,
    fired_times: Count,
    crossed: Count,
    values: Count,
    texts: Count,
    min: f64,
    max: f64,
    longest_us: i64,
}

impl Trigger {
    /// What it looks at and for, without levels and times: its memory serves any other trigger with the same.
    pub(crate) fn watches(&self) -> String {
        let what = match &self.event {
            Event::Crosses { sign, .. } if *sign > 0.0 => "rises",
            Event::Crosses { .. } => "falls",
            Event::Changes => "changes",
            Event::GoesBack => "goes back",
            Event::Is(_) => "is",
            Event::Becomes(_) => "becomes",
        };
        format!("{:?} {what}", self.signal)
    }
}

impl TriggerState {
    pub(crate) fn memory(&self) -> Memory {
        let seen = &self.seen;
        Memory {
            armed: self.armed,
            last: self.last.clone(),
            pending: self.pending,
            fired: self.fired,
            fresh: self.fresh,
            fired_times: count(seen.fired),
            crossed: count(seen.crossed),
            values: count(seen.values),
            texts: count(seen.texts),
            min: seen.min,
            max: seen.max,
            longest_us: seen.longest_us,
        }
    }

    pub(crate) fn remember(&mut self, memory: Memory) {
        self.armed = memory.armed;
        self.last = memory.last;
        self.pending = memory.pending;
        self.fired = memory.fired;
        self.fresh = memory.fresh;
        self.seen = Seen {
            fired: memory.fired_times.get(),
            crossed: memory.crossed.get(),
            values: memory.values.get(),
            texts: memory.texts.get(),
            min: memory.min,
            max: memory.max,
            longest_us: memory.longest_us,
        };
    }
}
