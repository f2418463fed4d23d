//! A segmenter's state in checkpoints.
//!
//! The tail holds signal names and samples, each written once; the head all the rest. Samples carry the id of the buffer
//! they were pushed to and the head says which buffers are alive, so a closed cycle needs no writing. Once more of the tail
//! is of the dead than of the living, it is begun anew. So also the rows after a crossing that has still to last (`for`)
//! are written as they come: they may be many, and where they join the open cycle they are written a second time at most.

use std::borrow::Cow;

use anyhow::ensure;
use serde::{Deserialize, Serialize};
use taktline_engine::{Saved, Snapshot};

use super::{Moment, Segmenter};
use crate::count::{Count, count};
use crate::open::{Open, Outline, Stretch};
use crate::trigger::Memory;

/// What of this key is in the tail.
#[derive(Debug, Default)]
pub(super) struct Tail {
    names: usize,
    samples: u64,
    next_id: u32,
}

#[derive(Serialize, Deserialize)]
enum Record<'a> {
    Names(Cow<'a, [String]>),
    Samples(Stretch<'a>),
}

/// Signal, value, text, and whether it is stale.
type MomentRow = (u32, f64, Option<Box<str>>, bool);

#[derive(Serialize, Deserialize)]
struct Head {
    start: Option<Memory>,
    end: Option<Memory>,
    open: Option<Outline>,
    before_max: Option<Outline>,
    after: Option<Outline>,
    parent_id: Option<String>,
    last_ts: Option<i64>,
    within_us: Option<i64>,
    broken_us: Option<i64>,
    moment_us: i64,
    /// Usually one row a signal; they can't be in the tail, since each checkpoint has others.
    moment: Vec<MomentRow>,
    emitted: Count,
}

impl Segmenter {
    /// Gives the state to a checkpoint.
    pub fn snapshot(&mut self, into: &mut Snapshot) -> anyhow::Result<()> {
        let mut parts = [&mut self.open, &mut self.before_max, &mut self.after];
        let alive: u64 = parts.iter().flat_map(|part| part.as_ref()).map(Open::saved).sum();
        if into.whole() || self.tail.samples.saturating_sub(alive) > alive {
            into.restart();
            self.tail = Tail::default();
            parts
                .iter_mut()
                .flat_map(|part| part.as_mut())
                .for_each(Open::forget_saved);
        }
        let tail = &mut self.tail;
        if tail.names < self.names.len() {
            into.append(&Record::Names(Cow::Borrowed(&self.names[tail.names..])))?;
            tail.names = self.names.len();
        }
        let mut outlines = [None, None, None];
        for (part, outline) in parts.into_iter().zip(&mut outlines) {
            let Some(open) = part else { continue };
            *outline = Some(open.outline(&mut tail.next_id));
            for stretch in open.unsaved() {
                tail.samples += stretch.values.len() as u64;
                into.append(&Record::Samples(stretch))?;
            }
            open.all_saved();
        }
        let [open, before_max, after] = outlines;
        let moment = &self.moment;
        let rows = (0..moment.signal.len()).map(|row| {
            let text = moment.text[row].clone();
            (moment.signal[row] as u32, moment.value[row], text, moment.stale[row])
        });
        into.head(&Head {
            start: self.start.as_ref().map(|trigger| trigger.memory()),
            end: self.end.as_ref().map(|trigger| trigger.memory()),
            open,
            before_max,
            after,
            parent_id: self.parent_id.clone(),
            last_ts: self.last_ts,
            within_us: self.within_us,
            broken_us: self.broken_us,
            moment_us: moment.ts,
            moment: rows.collect(),
            emitted: count(self.emitted),
        })
    }

    /// Takes back what [`Segmenter::snapshot`] gave, before the first row.
    pub fn restore(&mut self, saved: &Saved) -> anyhow::Result<()> {
        let head: Head = saved.head()?;
        let mut parts = [head.open, head.before_max, head.after].map(|outline| outline.map(Open::from_outline));
        for record in saved.appended::<Record<'static>>()? {
            match record {
                Record::Names(names) => {
                    for name in names.iter() {
                        ensure!(
                            self.number_of(name) == self.tail.names,
                            "state that can't be read: `{name}` twice"
                        );
                        self.tail.names += 1;
                    }
                }
                Record::Samples(stretch) => {
                    self.tail.samples += stretch.values.len() as u64;
                    self.tail.next_id = self.tail.next_id.max(stretch.id.saturating_add(1));
                    let mut alive = parts.iter_mut().flatten();
                    if let Some(open) = alive.find(|open| open.id() == Some(stretch.id)) {
                        open.extend(&stretch)?;
                    }
                }
            }
        }
        for open in parts.iter_mut().flatten() {
            self.tail.next_id = self.tail.next_id.max(open.id().unwrap_or(0).saturating_add(1));
            open.all_restored(self.names.len())?;
        }
        [self.open, self.before_max, self.after] = parts;
        for (trigger, memory) in [(&mut self.start, head.start), (&mut self.end, head.end)] {
            if let (Some(trigger), Some(memory)) = (trigger, memory) {
                trigger.remember(memory);
            }
        }
        let known = |row: &MomentRow| (row.0 as usize) < self.names.len();
        ensure!(
            head.moment.iter().all(known),
            "state that can't be read: a row of an unknown signal"
        );
        self.moment = Moment {
            ts: head.moment_us,
            ..Moment::default()
        };
        for (signal, value, text, stale) in head.moment {
            self.moment.signal.push(signal as i32);
            self.moment.value.push(value);
            self.moment.text.push(text);
            self.moment.stale.push(stale);
        }
        self.parent_id = head.parent_id;
        (self.last_ts, self.within_us, self.broken_us) = (head.last_ts, head.within_us, head.broken_us);
        self.emitted = head.emitted.get();
        Ok(())
    }

    /// How many signals have a number.
    pub fn signals(&self) -> usize {
        self.names.len()
    }
}
