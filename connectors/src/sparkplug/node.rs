//! One edge node and its devices: messages into order, aliases into names, deaths into stale samples.

use std::collections::{BTreeMap, VecDeque};

use super::catalogue::{Catalogue, Content, Known, Usage, bd_seq};
use super::host::{Out, Who};
use super::order::{Order, Place};
use super::topic::Kind;
use taktline_engine::table::STALE;

use crate::codec::sparkplug::{Metric, Payload, Property};
use crate::time;

/// A message of an edge node.
#[derive(Debug)]
pub(super) struct Heard {
    pub topic: String,
    pub kind: Kind,
    /// None: the node itself.
    pub device: Option<String>,
    pub payload: Payload,
    /// The beginning of the payload as it came, for a dead letter.
    pub head: Vec<u8>,
    /// When it came, µs since 1970.
    pub received: i64,
    /// Its number in this run.
    pub sequence: u64,
    /// When it came, in µs of a clock that only goes forward.
    pub now: i64,
}

/// How long to wait for what, in µs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    /// For messages that came too late, before a rebirth is asked for.
    pub reorder_us: i64,
    /// Between two requests of a rebirth.
    pub rebirth_us: i64,
    /// For a birth, before data that only it can explain is refused.
    pub birth_us: i64,
}

/// Messages of one node that may wait for a birth.
const HELD: usize = 1000;
/// How far ahead of its arrival a metric may say it was read: clocks differ, but not by more.
const FUTURE_LIMIT_US: i64 = 300_000_000;
/// The longest a text in a sample may be, in bytes.
const TEXT_LIMIT: usize = 64 << 10;

/// An edge node.
#[derive(Debug, Default)]
pub(super) struct Node {
    own: Catalogue,
    devices: BTreeMap<String, Catalogue>,
    /// The session that the last birth began.
    session: Option<u64>,
    order: Order<Heard>,
    /// Data that waits for a birth.
    held: VecDeque<Heard>,
    /// A birth is wanted, and was asked for last at this time.
    wants_birth: bool,
    asked: Option<i64>,
}

impl Node {
    /// Takes a message as it comes.
    pub fn hear(&mut self, who: Who<'_>, heard: Heard, out: &mut Out) {
        match (heard.kind, heard.device.is_some()) {
            (Kind::Birth, false) => return self.born(who, &heard, out),
            (Kind::Death, false) => return self.died(who, &heard, out),
            _ => {}
        }
        let Some(number) = heard.payload.seq.and_then(|seq| u8::try_from(seq).ok()) else {
            return self.go(who, heard, out);
        };
        let now = heard.now;
        match self.order.take(number, heard, now) {
            Place::Next(next) => next.into_iter().for_each(|heard| self.go(who, heard, out)),
            Place::Early => {}
            Place::Again(heard) => {
                let reason = format!(
                    "the sequence number {number} was here before: the message was given twice, or came much too late"
                );
                out.refuse(&heard, &reason);
            }
        }
    }

    /// Takes a message whose turn it is.
    fn go(&mut self, who: Who<'_>, heard: Heard, out: &mut Out) {
        match heard.kind {
            Kind::Birth => {
                let device = heard.device.clone().unwrap_or_default();
                self.devices.entry(device).or_default();
                self.wants_birth |= !self.own.has_birth; // it begins the numbers
                self.named(who, &heard, out);
            }
            Kind::Death => {
                let catalogue = heard.device.as_ref().and_then(|device| self.devices.get_mut(device));
                let time = time_of(heard.payload.timestamp, heard.received).unwrap_or(heard.received);
                if let Some(catalogue) = catalogue {
                    stale(who.with(heard.device.as_deref()), catalogue, time, out);
                }
            }
            Kind::Data => self.data(who, heard, out),
        }
    }

    /// A birth of the node: a new beginning for its numbers, and of a new session if it says so.
    fn born(&mut self, who: Who<'_>, heard: &Heard, out: &mut Out) {
        let number = heard.payload.seq.and_then(|seq| u8::try_from(seq).ok());
        let waited = self.order.restart(Some(number.unwrap_or(0)));
        waited.into_iter().for_each(|heard| self.go(who, heard, out));
        let session = bd_seq(&heard.payload.metrics);
        if session.zip(self.session).is_some_and(|(now, before)| now != before) {
            // Its death was not heard.
            let time = time_of(heard.payload.timestamp, heard.received).unwrap_or(heard.received);
            self.all_stale(who, time - 1, out);
        }
        self.session = session.or(self.session);
        self.wants_birth = false;
        self.named(who, heard, out);
    }

    /// A birth names metrics: what waited for it goes first, since it is older.
    fn named(&mut self, who: Who<'_>, heard: &Heard, out: &mut Out) {
        let device = heard.device.as_deref();
        let who = who.with(device);
        let Some(catalogue) = catalogue(&mut self.own, &mut self.devices, device) else {
            return;
        };
        let gone = catalogue.birth(&heard.payload.metrics);
        let time = time_of(heard.payload.timestamp, heard.received).unwrap_or(heard.received);
        push_stale(who, catalogue, &gone, time, out);
        let (mut waiting, held) = std::mem::take(&mut self.held)
            .into_iter()
            .partition::<VecDeque<_>, _>(|held| held.device.as_deref() == device);
        self.held = held;
        while let Some(held) = waiting.pop_front() {
            if catalogue.unknown(&held.payload.metrics).is_some() {
                waiting.push_front(held);
                self.wants_birth = true;
                break;
            }
            samples(who, catalogue, &held, out);
        }
        self.held.extend(waiting);
        samples(who, catalogue, heard, out);
    }

    /// A death of the node. The broker sends it when it loses the node, and may do so late, when the node is back.
    fn died(&mut self, who: Who<'_>, heard: &Heard, out: &mut Out) {
        let session = bd_seq(&heard.payload.metrics);
        if session.zip(self.session).is_some_and(|(dead, living)| dead != living) {
            return;
        }
        let waited = self.order.restart(None);
        waited.into_iter().for_each(|heard| self.go(who, heard, out));
        self.wants_birth = false; // it comes with the node
        // The time in it is that of the connection's begin.
        self.all_stale(who, heard.received, out);
    }

    fn all_stale(&mut self, who: Who<'_>, time: i64, out: &mut Out) {
        stale(who, &mut self.own, time, out);
        for (device, catalogue) in &mut self.devices {
            stale(who.with(Some(device.as_str())), catalogue, time, out);
        }
    }

    fn data(&mut self, who: Who<'_>, heard: Heard, out: &mut Out) {
        let device = heard.device.as_deref();
        if let Some(device) = device
            && !self.devices.contains_key(device)
        {
            self.devices.insert(device.to_owned(), Catalogue::default());
        }
        let begun = self.own.has_birth;
        let Some(catalogue) = catalogue(&mut self.own, &mut self.devices, device) else {
            return;
        };
        let has_birth = begun && catalogue.has_birth;
        let is_unknown = catalogue.unknown(&heard.payload.metrics).is_some();
        self.wants_birth |= is_unknown || !has_birth;
        // What comes later stays behind it.
        if is_unknown || self.held.iter().any(|held| held.device == heard.device) {
            if self.held.len() >= HELD
                && let Some(oldest) = self.held.pop_front()
            {
                let reason = format!(
                    "more than {HELD} messages wait for a birth of `{}/{}`",
                    who.group, who.node
                );
                out.refuse(&oldest, &reason);
            }
            self.held.push_back(heard);
            return;
        }
        catalogue.is_alive = true;
        samples(who.with(device), catalogue, &heard, out);
    }

    /// Lets time pass: `now` in µs of a clock that only goes forward, `wall` in µs since 1970. True when the node is to be asked for a birth.
    pub fn tick(&mut self, who: Who<'_>, (now, wall): (i64, i64), patience: Patience, out: &mut Out) -> bool {
        if let Some(gap) = self.order.overdue(now, patience.reorder_us) {
            let numbers: Vec<String> = gap.missing.iter().map(u8::to_string).collect();
            let reason = format!(
                "possible gap: the messages {} of `{}/{}` did not come within {} (`reorder_timeout`); a rebirth was asked for",
                numbers.join(", "),
                who.group,
                who.node,
                seconds(patience.reorder_us)
            );
            if let Some(first) = gap.messages.first() {
                out.refuse_topic(&first.topic, first.sequence, &reason);
            }
            self.wants_birth = true;
            gap.messages.into_iter().for_each(|heard| self.go(who, heard, out));
        }
        while let Some(held) = self.held.pop_front_if(|held| now - held.now >= patience.birth_us) {
            let reason = format!(
                "no birth of `{}/{}` named its metrics within {} (`birth_timeout`): check that the edge node takes the command Node \
                 Control/Rebirth, and that `user` may publish it",
                who.group,
                who.node,
                seconds(patience.birth_us)
            );
            out.refuse(&held, &reason);
        }
        let is_over =
            |catalogue: &Catalogue| (catalogue.unsure_since).is_some_and(|since| now - since >= patience.birth_us);
        if is_over(&self.own) {
            self.wants_birth = false;
            self.session = None;
            self.all_stale(who, wall, out);
        }
        for (device, catalogue) in &mut self.devices {
            if is_over(catalogue) {
                stale(who.with(Some(device.as_str())), catalogue, wall, out);
            }
        }
        let asks = self.wants_birth && self.asked.is_none_or(|asked| now - asked >= patience.rebirth_us);
        if asks {
            self.asked = Some(now);
        }
        asks
    }

    /// The broker was away, and with it what it would have said of this node.
    pub fn distrust(&mut self, who: Who<'_>, now: i64, out: &mut Out) {
        let waited = self.order.restart(None);
        waited.into_iter().for_each(|heard| self.go(who, heard, out));
        self.wants_birth |= self.own.is_alive || self.devices.values().any(|device| device.is_alive);
        self.own.distrust(now);
        self.devices.values_mut().for_each(|device| device.distrust(now));
    }

    /// The run ends: what still waits for a birth, or for its turn, is told of.
    pub fn end(&mut self, who: Who<'_>, out: &mut Out) {
        let waited = self.order.restart(None);
        waited.into_iter().for_each(|heard| self.go(who, heard, out));
        for held in self.held.drain(..) {
            let reason = format!(
                "the run ended before a birth of `{}/{}` named its metrics",
                who.group, who.node
            );
            out.refuse(&held, &reason);
        }
    }
}

fn catalogue<'n>(
    own: &'n mut Catalogue,
    devices: &'n mut BTreeMap<String, Catalogue>,
    device: Option<&str>,
) -> Option<&'n mut Catalogue> {
    match device {
        None => Some(own),
        Some(device) => devices.get_mut(device),
    }
}

/// Marks all metrics stale that were not before.
fn stale(who: Who<'_>, catalogue: &mut Catalogue, time: i64, out: &mut Out) {
    let gone = catalogue.death();
    push_stale(who, catalogue, &gone, time, out);
}

fn push_stale(who: Who<'_>, catalogue: &mut Catalogue, gone: &[String], time: i64, out: &mut Out) {
    if gone.is_empty() {
        return;
    }
    // Behind the last sample, whatever the clocks say.
    let time = catalogue.newest.map_or(time, |newest| time.max(newest));
    catalogue.newest = Some(time);
    let Some(machine) = out.machine(who) else { return };
    for name in gone {
        if let Some(signal) = out.signal(who, name) {
            out.rows.push_quality((machine, signal, time), (None, None), STALE);
        }
    }
}

/// The samples of a message whose metrics are all known.
fn samples(who: Who<'_>, catalogue: &mut Catalogue, heard: &Heard, out: &mut Out) {
    let Some(machine) = out.machine(who) else {
        return out.refuse(heard, "the message names no machine; check `machine`");
    };
    let mut skipped = Vec::new();
    let mut newest = catalogue.newest;
    for metric in &heard.payload.metrics {
        let Some(known) = catalogue.find(metric) else { continue };
        let is_birth = heard.kind == Kind::Birth;
        match sample(metric, known, heard, is_birth) {
            Sample::None => {}
            Sample::Skipped(reason) => {
                out.skipped += 1;
                skipped.extend(reason.map(|reason| format!("`{}`: {reason}", known.name)));
            }
            Sample::Refused(reason) => {
                let reason = format!("metric `{}`: {reason}", known.name);
                out.refuse(heard, &reason);
            }
            Sample::Of { ts, value, text } => {
                let Some(signal) = out.signal(who, &known.name) else {
                    out.refuse(heard, "a metric has no name; check `signal`");
                    continue;
                };
                newest = newest.max(Some(ts));
                match quality(metric) {
                    Some(quality) => out.rows.push_quality((machine, signal, ts), (value, text), &quality),
                    None => out.rows.push_text(machine, signal, ts, value, text),
                }
            }
        }
    }
    catalogue.newest = newest;
    if !skipped.is_empty() {
        let reason = format!("metrics that are skipped: {}", skipped.join(", "));
        out.refuse(heard, &reason);
    }
}

enum Sample<'m> {
    /// For the protocol, or known already.
    None,
    /// Of a type that a sample can't hold; with the reason the first time.
    Skipped(Option<String>),
    Refused(String),
    Of {
        ts: i64,
        value: Option<f64>,
        text: Option<&'m str>,
    },
}

fn sample<'m>(metric: &'m Metric, known: &mut Known, heard: &Heard, is_birth: bool) -> Sample<'m> {
    match known.usage {
        Usage::Control => return Sample::None,
        Usage::Skipped => return Sample::Skipped(None),
        Usage::Sample => {}
    }
    let (value, text) = match metric.content(known.datatype) {
        Ok(content) => content,
        Err(reason) => {
            known.usage = Usage::Skipped;
            return Sample::Skipped(Some(reason));
        }
    };
    let text = match text {
        Some(std::borrow::Cow::Borrowed(text)) => Some(text),
        Some(std::borrow::Cow::Owned(_)) => return Sample::Refused("its text can't be read".into()),
        None => None,
    };
    if text.is_some_and(|text| text.len() > TEXT_LIMIT) {
        return Sample::Refused(format!("the text has more than {TEXT_LIMIT} bytes"));
    }
    let ts = match time_of(metric.timestamp.or(heard.payload.timestamp), heard.received) {
        Ok(ts) => ts,
        Err(reason) => return Sample::Refused(reason),
    };
    let content = match (value, text) {
        (Some(value), _) => Content::Number(value.to_bits()),
        (None, Some(text)) => Content::Text(text.to_owned()),
        (None, None) => Content::Null,
    };
    let now = Some((ts, content));
    if is_birth && known.newest == now {
        return Sample::None;
    }
    if known.newest.as_ref().is_none_or(|(newest, _)| *newest <= ts) {
        known.newest = now;
    }
    Sample::Of { ts, value, text }
}

/// A time in ms since 1970 as µs; that of the arrival where there is none.
fn time_of(ms: Option<u64>, received: i64) -> Result<i64, String> {
    let Some(ms) = ms else { return Ok(received) };
    let micros = i64::try_from(ms).ok().and_then(|ms| ms.checked_mul(1000));
    let micros = micros.and_then(|micros| time::plausible(micros).ok());
    let ts =
        micros.ok_or_else(|| format!("its time {ms} lies far outside of this time; Sparkplug counts ms since 1970"))?;
    if ts > received.saturating_add(FUTURE_LIMIT_US) {
        return Err("its time is more than 5 minutes ahead of the arrival; check the edge node's clock".into());
    }
    Ok(ts)
}

/// What the property `Quality` says: the codes of OPC, or a text.
fn quality(metric: &Metric) -> Option<String> {
    let code = match metric.property("Quality")? {
        Property::Int(code) => u64::from(*code),
        Property::Long(code) => *code,
        Property::String(text) => return Some(text.clone()),
        _ => return None,
    };
    Some(match code {
        192 => "good".into(),
        0 => "bad".into(),
        500 => STALE.into(),
        code => code.to_string(),
    })
}

fn seconds(micros: i64) -> String {
    format!("{} s", micros as f64 / 1e6)
}
