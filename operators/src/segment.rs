//! Cuts one key's rows into cycles.
//!
//! All rows of one moment go to the same cycle: a wide row becomes several rows of one time, and the trigger's signal may
//! be any of them. So rows are taken moment by moment, and the last moment of a call waits until a later one comes.
//!
//! Between two moments time has passed, and up to three things may have become due, in the order of their times: a
//! crossing has lasted long enough (`… for 200ms`), the cycle has reached `max`, the machine has been silent for `gap`.

mod state;

use std::sync::Arc;

use crate::cycles::{CyclesBuilder, Outcome};
use crate::open::{Head, Open, Said};
use crate::trigger::{Trigger, TriggerState};

/// How to cut.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    pub by: Boundaries,
    pub min_us: Option<i64>,
    pub max_us: Option<i64>,
    pub gap_us: Option<i64>,
    /// A cycle with so many samples ends as `timeout`.
    pub most_samples: u64,
    /// Signals to keep; all if empty.
    pub keep: Vec<String>,
}

/// Where cycles begin and end.
#[derive(Clone, Debug)]
pub(crate) enum Boundaries {
    /// From a start to an end, or to the next start.
    Triggers {
        start: Box<Trigger>,
        end: Option<Box<Trigger>>,
    },
    /// Stretches of this many µs since 1970.
    Length(i64),
}

/// One key being cut.
pub(crate) struct Segmenter {
    cut: Arc<Cut>,
    step: Arc<str>,
    machine: String,
    parent_id: Option<String>,
    start: Option<TriggerState>,
    end: Option<TriggerState>,
    names: Vec<String>,
    order: Vec<usize>,
    /// Per signal number: a sum of `STARTS`, `ENDS`, `KEPT`.
    roles: Vec<u8>,
    open: Option<Open>,
    /// Rows since a crossing that has still to last: of the next cycle, or after this one's end.
    after: Option<Open>,
    /// What of `after` lies before the open cycle's `max`, kept when time has passed it.
    before_max: Option<Open>,
    last_ts: Option<i64>,
    /// Where the cycle around the rows begins; no cycle by length starts before it.
    within_us: Option<i64>,
    /// The last moment of a cycle that ended before its length had passed.
    broken_us: Option<i64>,
    moment: Moment,
    emitted: u64,
    tail: state::Tail,
}

const STARTS: u8 = 1;
const ENDS: u8 = 2;
const KEPT: u8 = 4;

/// The rows of the latest time, until a later one comes.
#[derive(Default)]
struct Moment {
    ts: i64,
    signal: Vec<i32>,
    value: Vec<f64>,
    text: Vec<Option<Box<str>>>,
    stale: Vec<bool>,
}

/// Rows of one key as slices of the same length.
#[derive(Clone, Copy)]
pub(crate) struct Slices<'a> {
    pub ts: &'a [i64],
    pub signal: &'a [i32],
    pub value: &'a [f64],
}

impl Segmenter {
    pub fn new(cut: Arc<Cut>, step: Arc<str>, machine: &str) -> Self {
        let (start, end) = match &cut.by {
            Boundaries::Triggers { start, end } => (
                Some(TriggerState::new(start, true)),
                end.as_ref().map(|end| TriggerState::new(end, false)),
            ),
            Boundaries::Length(_) => (None, None),
        };
        Segmenter {
            cut,
            step,
            machine: machine.to_owned(),
            parent_id: None,
            start,
            end,
            names: Vec::new(),
            order: Vec::new(),
            roles: Vec::new(),
            open: None,
            after: None,
            before_max: None,
            last_ts: None,
            within_us: None,
            broken_us: None,
            moment: Moment::default(),
            emitted: 0,
            tail: state::Tail::default(),
        }
    }

    /// Begins a cycle whose rows are cut into phases; what the triggers have seen before is not looked back at.
    pub fn within(&mut self, parent_id: &str, start_us: i64) {
        self.parent_id = Some(parent_id.to_owned());
        (self.within_us, self.broken_us) = (Some(start_us), None);
        for trigger in self.start.iter_mut().chain(&mut self.end) {
            trigger.begin_again();
        }
        self.last_ts = None;
    }

    /// The name of the next signal; the key numbers its own from 0.
    fn name_signal(&mut self, name: &str) {
        let is = |trigger: &Option<TriggerState>| trigger.as_ref().is_some_and(|t| t.trigger().signal() == name);
        let kept = self.cut.keep.is_empty() || self.cut.keep.iter().any(|kept| kept == name);
        let role = |yes: bool, role: u8| if yes { role } else { 0 };
        self.roles
            .push(role(is(&self.start), STARTS) | role(is(&self.end), ENDS) | role(kept, KEPT));
        let names = &self.names;
        let place = self.order.partition_point(|&other| names[other].as_str() < name);
        self.order.insert(place, names.len());
        self.names.push(name.to_owned());
    }

    /// The number of a signal by name, a new one if it has none.
    pub fn number_of(&mut self, name: &str) -> usize {
        match self
            .order
            .binary_search_by(|&number| self.names[number].as_str().cmp(name))
        {
            Ok(place) => self.order[place],
            Err(_) => {
                self.name_signal(name);
                self.names.len() - 1
            }
        }
    }

    /// Takes rows sorted by time, at or after those of former calls.
    pub fn rows<'t>(&mut self, rows: Slices<'_>, said: impl Fn(usize) -> Said<'t>, out: &mut CyclesBuilder) {
        let Slices { ts, signal, value } = rows;
        let mut from = 0;
        if !self.moment.signal.is_empty() {
            from = ts.iter().take_while(|t| **t == self.moment.ts).count();
            self.moment.extend(signal, value, 0..from, &said);
            if from == ts.len() {
                return;
            }
            self.finish_moment(out);
        }
        let Some(&last) = ts.last() else { return };
        while ts[from] != last {
            let now = ts[from];
            let to = from + ts[from..].iter().take_while(|t| **t == now).count();
            self.moment_rows(now, &signal[from..to], &value[from..to], |row| said(from + row), out);
            from = to;
        }
        self.moment.ts = last;
        self.moment.extend(signal, value, from..ts.len(), &said);
    }

    /// No row before `watermark_us` will come.
    pub fn advance(&mut self, watermark_us: i64, out: &mut CyclesBuilder) {
        if !self.moment.signal.is_empty() && self.moment.ts < watermark_us {
            self.finish_moment(out);
        }
        if self.moment.signal.is_empty() {
            self.pass(watermark_us, out);
        }
    }

    /// No more rows; an open cycle ends with its last row, or as its surroundings say.
    pub fn end(&mut self, around: Option<(i64, Outcome)>, out: &mut CyclesBuilder) {
        self.finish_moment(out);
        let Some(last) = self.last_ts else { return };
        self.pass(last, out);
        let ending = if self.open.is_some() && self.end.is_some() {
            &self.end
        } else {
            &self.start
        };
        if ending
            .as_ref()
            .and_then(TriggerState::due_us)
            .is_some_and(|due| due <= last)
        {
            self.confirm(out);
        }
        for trigger in self.start.iter_mut().chain(&mut self.end) {
            trigger.forget();
        }
        self.resume(out);
        let end_by_start = self.end.is_none();
        let (end_us, outcome) = match around {
            Some((end_us, outcome)) if end_by_start => (end_us, outcome),
            _ => (last, Outcome::Truncated),
        };
        if let Some(open) = self.open.take() {
            self.close(open, end_us, outcome, out);
        }
    }

    /// Why there is no cycle, if there is none.
    pub fn remark(&self) -> Option<String> {
        let start = self.start.as_ref().filter(|_| self.emitted == 0)?;
        let why = start.remark(self.order.iter().map(|&number| self.names[number].as_str()));
        Some(format!("no cycle: {why}"))
    }

    fn finish_moment(&mut self, out: &mut CyclesBuilder) {
        if self.moment.signal.is_empty() {
            return;
        }
        let mut moment = std::mem::take(&mut self.moment);
        let said = |row: usize| Said {
            text: moment.text[row].as_deref(),
            stale: moment.stale[row],
        };
        self.moment_rows(moment.ts, &moment.signal, &moment.value, said, out);
        moment.clear();
        self.moment = moment;
    }

    /// All rows of the time `now`.
    fn moment_rows<'t>(
        &mut self,
        now: i64,
        signal: &[i32],
        value: &[f64],
        said: impl Fn(usize) -> Said<'t>,
        out: &mut CyclesBuilder,
    ) {
        self.pass(now, out);
        self.last_ts = Some(now);
        for (row, &number) in signal.iter().enumerate() {
            let role = self.roles[number as usize];
            if role & (STARTS | ENDS) == 0 {
                continue;
            }
            if let (true, Some(start)) = (role & STARTS != 0, &mut self.start) {
                start.see(now, value[row], said(row).text);
            }
            if let (true, Some(end)) = (role & ENDS != 0, &mut self.end) {
                end.see(now, value[row], said(row).text);
            }
        }
        let ends_now = self.decide(now, out);
        let target = match (&mut self.after, &mut self.open) {
            (Some(after), _) => after,
            (None, Some(open)) => open,
            (None, None) => return,
        };
        for (row, &number) in signal.iter().enumerate() {
            let number = number as usize;
            if self.roles[number] & KEPT != 0 {
                target.push(now, number, value[row], said(row));
            }
        }
        if ends_now && let Some(open) = self.open.take() {
            self.close(open, now, Outcome::Complete, out);
        }
        // The row of an ending crossing still belongs to the cycle, those after it wait.
        let end_pending = self.end.as_ref().and_then(TriggerState::pending);
        if self.open.is_some() && end_pending == Some(now) {
            self.after = Some(Open::new(now));
        }
        self.bound(now, out);
    }

    /// What the triggers' news mean; true when the open cycle ends with this moment's rows.
    fn decide(&mut self, now: i64, out: &mut CyclesBuilder) -> bool {
        if let Boundaries::Length(length) = self.cut.by {
            if self.open.is_none() {
                let stretch = now.saturating_sub(now.rem_euclid(length));
                // What goes on after a gap is another cycle, with another start.
                let broken = self.broken_us.is_some_and(|broken| stretch <= broken);
                let start = stretch.max(self.within_us.unwrap_or(stretch));
                self.open = Some(Open::new(if broken { now } else { start }));
            }
            return false;
        }
        self.resume_if_broken(out);
        let started = self.start.as_mut().is_some_and(TriggerState::take_fired);
        let ended = self.end.as_mut().is_some_and(TriggerState::take_fired);
        let start_pending = self.start.as_ref().and_then(TriggerState::pending);
        match &self.open {
            Some(_) if self.end.is_some() && !ended => return false,
            Some(_) if ended && !started => return true,
            _ => {}
        }
        if started {
            // The moment belongs to the cycle that it starts.
            if let Some(open) = self.open.take() {
                self.close(open, now, Outcome::Complete, out);
            }
            self.open = Some(Open::new(now));
        } else if start_pending == Some(now) {
            self.after = Some(Open::new(now));
        }
        false
    }

    /// Does what has become due before `now`, in the order of time.
    fn pass(&mut self, now: i64, out: &mut CyclesBuilder) {
        loop {
            let trigger = if self.open.is_some() && self.end.is_some() {
                &self.end
            } else {
                &self.start
            };
            let held = trigger.as_ref().and_then(TriggerState::due_us).unwrap_or(i64::MAX);
            let silent = match (
                self.cut.gap_us,
                self.last_ts,
                self.open.is_some() || self.after.is_some(),
            ) {
                (Some(gap), Some(last), true) => last.saturating_add(gap),
                _ => i64::MAX,
            };
            // A cycle that may already have ended, or a next one that may have begun, has to be known first.
            let full = match (&self.open, &self.after) {
                (Some(open), None) => self.full_us(open),
                (Some(open), Some(after)) => {
                    let full = self.full_us(open);
                    if now > full && self.before_max.is_none() {
                        let later = Open::new(after.start_us);
                        self.before_max = self.after.replace(later);
                    }
                    i64::MAX
                }
                (None, _) => i64::MAX,
            };
            if now <= held.min(silent).min(full) {
                return;
            }
            if full <= held && full <= silent {
                let Some(open) = self.open.take() else { return };
                match self.cut.by {
                    Boundaries::Length(_) => self.close(open, full.saturating_add(1), Outcome::Complete, out),
                    Boundaries::Triggers { .. } => self.close(open, full, Outcome::Timeout, out),
                }
            } else if silent < held {
                self.fall_silent(out);
            } else {
                self.confirm(out);
            }
        }
    }

    /// The last µs that the open cycle can hold.
    fn full_us(&self, open: &Open) -> i64 {
        match (&self.cut.by, self.cut.max_us) {
            (Boundaries::Length(length), _) => {
                let start = open.start_us;
                start.saturating_add(length - 1 - start.rem_euclid(*length))
            }
            (_, Some(max)) => open.start_us.saturating_add(max),
            _ => i64::MAX,
        }
    }

    /// A crossing has lasted.
    fn confirm(&mut self, out: &mut CyclesBuilder) {
        let ends = self.open.is_some() && self.end.is_some();
        let trigger = if ends { &mut self.end } else { &mut self.start };
        let Some(since) = trigger.as_mut().and_then(TriggerState::confirm) else {
            return;
        };
        let before_max = self.before_max.take();
        // A start that was crossed while a cycle was open has no rows of its own and starts nothing.
        let Some(later) = self.after.take() else { return };
        let after = match before_max {
            Some(mut rows) if !ends => {
                rows.append(later);
                rows
            }
            _ => later,
        };
        if let Some(open) = self.open.take() {
            self.close(open, since, Outcome::Complete, out);
        }
        self.open = (!ends).then_some(after);
    }

    fn fall_silent(&mut self, out: &mut CyclesBuilder) {
        for trigger in self.start.iter_mut().chain(&mut self.end) {
            trigger.forget();
        }
        self.resume(out);
        if let (Some(open), Some(last)) = (self.open.take(), self.last_ts) {
            self.close(open, last, Outcome::Gap, out);
        }
        self.broken_us = self.last_ts;
    }

    /// Ends what holds too many samples with the moment `now`.
    fn bound(&mut self, now: i64, out: &mut CyclesBuilder) {
        let parts = [&self.open, &self.before_max, &self.after];
        let samples: u64 = parts.into_iter().flatten().map(Open::samples).sum();
        if samples < self.cut.most_samples {
            return;
        }
        for trigger in self.start.iter_mut().chain(&mut self.end) {
            trigger.forget();
        }
        self.resume(out);
        if let Some(open) = self.open.take() {
            self.close(open, now, Outcome::Timeout, out);
        }
        self.broken_us = Some(now);
    }

    fn resume_if_broken(&mut self, out: &mut CyclesBuilder) {
        let Some(after) = &self.after else { return };
        let trigger = if self.open.is_some() && self.end.is_some() {
            &self.end
        } else {
            &self.start
        };
        if trigger.as_ref().and_then(TriggerState::pending) != Some(after.start_us) {
            self.resume(out);
        }
    }

    /// A crossing has not lasted: its rows belong to the open cycle after all, as far as `max` allows.
    fn resume(&mut self, out: &mut CyclesBuilder) {
        let Some(after) = self.after.take() else { return };
        let before_max = self.before_max.take();
        let Some(mut open) = self.open.take() else { return };
        match before_max {
            Some(rows) => {
                open.append(rows);
                let end_us = self.full_us(&open);
                self.close(open, end_us, Outcome::Timeout, out);
            }
            None => {
                open.append(after);
                self.open = Some(open);
            }
        }
    }

    /// Bytes allocated for the samples of open cycles.
    #[cfg(test)]
    pub fn allocated(&self) -> usize {
        let parts = [&self.open, &self.before_max, &self.after];
        parts.into_iter().flatten().map(Open::allocated).sum()
    }

    fn close(&mut self, open: Open, end_us: i64, outcome: Outcome, out: &mut CyclesBuilder) {
        let short = outcome == Outcome::Complete
            && self
                .cut
                .min_us
                .is_some_and(|min| end_us.saturating_sub(open.start_us) < min);
        let outcome = if short { Outcome::Short } else { outcome };
        let parent_id = self.parent_id.as_deref();
        let head = Head {
            machine: &self.machine,
            step: &self.step,
            parent_id,
            end_us,
            outcome,
        };
        open.close(head, &self.names, &self.order, out);
        self.emitted += 1;
    }
}

impl Moment {
    fn extend<'t>(
        &mut self,
        signal: &[i32],
        value: &[f64],
        rows: std::ops::Range<usize>,
        said: &impl Fn(usize) -> Said<'t>,
    ) {
        self.signal.extend_from_slice(&signal[rows.clone()]);
        self.value.extend_from_slice(&value[rows.clone()]);
        for row in rows {
            let said = said(row);
            self.text.push(said.text.map(Box::from));
            self.stale.push(said.stale);
        }
    }

    fn clear(&mut self) {
        self.signal.clear();
        self.value.clear();
        self.text.clear();
        self.stale.clear();
    }
}
