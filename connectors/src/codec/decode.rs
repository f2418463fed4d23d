//! Payloads to samples: the decoder that all message sources share.

use std::iter::Peekable;

use arrow::array::RecordBatch;
use taktline_engine::{DeadLetters, Decoded, Decoder};

pub(crate) use super::address::Address;
pub use super::config::DecodeConfig;
pub(crate) use super::reading::Reading;

use super::arrow_ipc;
use super::avro::AvroDocument;
use super::columns::{Allowed, Columns};
use super::config::Framing;
use super::csv::{CsvForm, lines};
use super::influx::Line;
use super::json::JsonDocument;
use super::leaf::Leaf;
use super::letters::{Letters, Refusals};
use super::message::{Message, Messages};
use super::protobuf::{self, ProtobufDocument};
use super::query::{Document, Found, Query, Scalar, Slot};
use super::reading::{Form, Payload, WrittenBy};
use super::sample::{content, time_of};
use super::short;
use crate::rows::Rows;
use crate::time::Unit;

/// Decodes raw batches of messages.
pub(crate) struct MessageDecoder {
    reading: Reading,
    dead: DeadLetters,
    rows: Columns,
}

impl MessageDecoder {
    pub(crate) fn new(reading: Reading) -> Self {
        let dead = DeadLetters::new(reading.source.clone());
        MessageDecoder {
            rows: Columns::new(reading.address_names()),
            reading,
            dead,
        }
    }
}

impl Decoder for MessageDecoder {
    fn decode(&mut self, raw: &RecordBatch) -> anyhow::Result<Decoded> {
        let messages = Messages::of(raw)?;
        let mut headers = Vec::new();
        let mut found = std::mem::take(&mut self.rows.found).recycle();
        for row in 0..messages.len() {
            let payload = messages.payload(row);
            let message = messages.get(row, &mut headers);
            let mut letters = Letters::new(&mut self.dead, &message);
            let asked = Asked::default();
            self.reading
                .read(&message, payload, asked, &mut found, &mut self.rows, &mut letters)?;
            letters.finish();
        }
        self.rows.found = found.recycle();
        Ok(Decoded {
            samples: self.rows.rows.finish()?,
            dead_letters: self.dead.finish(),
        })
    }

    fn left_out(&mut self) -> u64 {
        std::mem::take(&mut self.rows.left_out)
    }
}

/// What a sender says about its payload besides, and which of its signals are taken.
#[derive(Clone, Copy, Default)]
pub(crate) struct Asked<'w> {
    /// What its times count, in place of the setting.
    pub unit: Option<Unit>,
    pub allowed: Option<Allowed<'w>>,
}

/// What became of a payload.
pub(crate) struct Judged {
    pub rows: Rows,
    /// Samples of signals that aren't in `decode.only`.
    pub left_out: u64,
}

/// What is at hand while the documents of one message are read.
struct Work<'w, 'm> {
    /// The address's values, in the order of its names.
    levels: &'w [&'w str],
    received: i64,
    asked: Asked<'w>,
    found: &'w mut Found<'m>,
    columns: &'w mut Columns,
}

/// Why a message as a whole was not read.
enum Unread {
    /// The words for a dead letter.
    Because(String),
    /// A schema registry is away: the run can't go on.
    Away(anyhow::Error),
}

impl From<String> for Unread {
    fn from(reason: String) -> Self {
        Unread::Because(reason)
    }
}

impl From<&str> for Unread {
    fn from(reason: &str) -> Self {
        Unread::Because(reason.to_owned())
    }
}

impl Reading {
    /// Reads one message at once, for a source whose senders wait for the verdict on their rows.
    ///
    /// # Errors
    /// A schema registry is away.
    pub(crate) fn judge(
        &self,
        message: &Message<'_>,
        asked: Asked<'_>,
        refusals: &mut dyn Refusals,
    ) -> anyhow::Result<Judged> {
        let mut columns = Columns::new(self.address_names());
        let mut found = Found::default();
        self.read(message, message.payload, asked, &mut found, &mut columns, refusals)?;
        Ok(Judged {
            rows: columns.rows,
            left_out: columns.left_out,
        })
    }

    /// Reads one message into the columns; what is bad about it goes to `refusals`.
    ///
    /// # Errors
    /// A schema registry is away.
    fn read<'m>(
        &self,
        message: &Message<'_>,
        payload: &'m [u8],
        asked: Asked<'_>,
        found: &mut Found<'m>,
        columns: &mut Columns,
        letters: &mut dyn Refusals,
    ) -> anyhow::Result<()> {
        let mut levels = Vec::with_capacity(8);
        if let Err(reason) = self.address.values(message, &mut levels) {
            letters.refuse(0, &reason, None);
            return Ok(());
        }
        let mut work = Work {
            levels: &levels,
            received: message.received,
            asked,
            found,
            columns,
        };
        match self.payload(payload, &mut work, letters) {
            Ok(()) => {}
            Err(Unread::Because(reason)) => letters.refuse(0, &reason, None),
            Err(Unread::Away(error)) => return Err(error),
        }
        Ok(())
    }

    /// Cuts a payload into documents and reads each.
    fn payload<'m>(
        &self,
        payload: &'m [u8],
        work: &mut Work<'_, 'm>,
        letters: &mut dyn Refusals,
    ) -> Result<(), Unread> {
        if payload.is_empty() && !matches!(self.payload, Payload::Text | Payload::Protobuf(_)) {
            return Err("the payload is empty".into());
        }
        let (id, payload) = self.unframe(payload)?;
        let mut bad = |reason: &str| letters.refuse(0, reason, None);
        match &self.payload {
            Payload::Json => self.document(&JsonDocument(payload), work, &mut bad),
            Payload::Number => self.document(&Bare(number(payload)?), work, &mut bad),
            Payload::Text => self.document(&Bare(text(payload)?), work, &mut bad),
            Payload::Scalar => self.document(&Bare(number(payload).or_else(|_| text(payload))?), work, &mut bad),
            Payload::Avro(written_by) => {
                let schema = match written_by {
                    WrittenBy::File(schema) => schema.clone(),
                    WrittenBy::Registry(registry) => registry.schema(id).map_err(Unread::Away)??,
                };
                let schema = &*schema;
                self.document(&AvroDocument { schema, payload }, work, &mut bad);
            }
            Payload::Protobuf(descriptor) => {
                let message = protobuf::read(descriptor, payload)?;
                let mut found = std::mem::take(work.found).recycle();
                let mut inner = Work {
                    levels: work.levels,
                    received: work.received,
                    asked: work.asked,
                    found: &mut found,
                    columns: &mut *work.columns,
                };
                self.document(&ProtobufDocument(&message), &mut inner, &mut bad);
                *work.found = found.recycle();
            }
            Payload::Arrow => {
                let mut stream = arrow_ipc::Stream::open(payload)?;
                let mut rows = 0;
                while let Some(batch) = stream.next()? {
                    for row in 0..batch.rows() {
                        let bad = &mut |reason: &str| letters.refuse(rows + row, reason, None);
                        self.document(&batch.row(row), work, bad);
                    }
                    rows += batch.rows();
                }
                if rows == 0 {
                    return Err("the Arrow stream has no rows".into());
                }
            }
            Payload::Ndjson => {
                for (index, line) in some_lines(payload)? {
                    let bad = &mut |reason: &str| letters.refuse(index, reason, Some(line));
                    self.document(&JsonDocument(line), work, bad);
                }
            }
            Payload::Influx => {
                let mut any = false;
                for (index, line) in some_lines(payload)? {
                    let bad = &mut |reason: &str| letters.refuse(index, reason, Some(line));
                    match Line::parse(line) {
                        Ok(None) => continue,
                        Ok(Some(parsed)) => self.document(&parsed, work, bad),
                        Err(reason) => bad(&reason),
                    }
                    any = true;
                }
                if !any {
                    return Err("the payload has comments only".into());
                }
            }
            Payload::Csv(form) => self.csv(form, payload, work, letters)?,
        }
        Ok(())
    }

    fn csv<'m>(
        &self,
        form: &CsvForm,
        payload: &'m [u8],
        work: &mut Work<'_, 'm>,
        letters: &mut dyn Refusals,
    ) -> Result<(), Unread> {
        let mut lines = some_lines(payload)?;
        let header: Vec<String>;
        let columns = match &form.columns {
            Some(columns) => columns,
            None => {
                let (_, line) = lines.next().unwrap_or_default();
                header = form
                    .split(line)?
                    .into_iter()
                    .map(|name| name.trim().to_owned())
                    .collect();
                if lines.peek().is_none() {
                    return Err("there is a header and no line".into());
                }
                &header
            }
        };
        for (index, line) in lines {
            let bad = &mut |reason: &str| letters.refuse(index, reason, Some(line));
            match form.line(columns, line) {
                Ok(parsed) => self.document(&parsed, work, bad),
                Err(reason) => bad(&reason),
            }
        }
        Ok(())
    }

    /// The payload behind its framing, and the number of its schema if that is named.
    fn unframe<'m>(&self, payload: &'m [u8]) -> Result<(u32, &'m [u8]), String> {
        match self.framing {
            Framing::None => Ok((0, payload)),
            Framing::Confluent => {
                let wrong = "the payload does not begin with a zero byte and a schema's number; check `decode.framing`";
                let rest = payload.strip_prefix(&[0]).ok_or(wrong)?;
                let (id, rest) = rest.split_first_chunk::<4>().ok_or(wrong)?;
                let rest = match self.payload {
                    Payload::Protobuf(_) => protobuf::skip_indexes(rest)?,
                    _ => rest,
                };
                Ok((u32::from_be_bytes(*id), rest))
            }
            Framing::SingleObject => {
                let wrong = "the payload is no single object of Avro; check `decode.framing`";
                let rest = payload.strip_prefix(&[0xc3, 0x01]).ok_or(wrong)?;
                let (fingerprint, rest) = rest.split_first_chunk::<8>().ok_or(wrong)?;
                match &self.payload {
                    Payload::Avro(WrittenBy::File(schema)) if schema.fingerprint != *fingerprint => {
                        Err("the payload was written with another schema than `decode.schema`".into())
                    }
                    _ => Ok((0, rest)),
                }
            }
        }
    }

    /// Finds a document's form and reads its samples.
    fn document<'m>(&self, document: &dyn Document<'m>, work: &mut Work<'_, 'm>, bad: &mut dyn FnMut(&str)) {
        let form = match self.forms.as_slice() {
            [only] => document.find(&only.query, work.found).map(|()| Some(only)),
            forms => choose(forms, document, work.found),
        };
        match form {
            Ok(Some(form)) => self.samples(form, work, bad),
            Ok(None) => bad("the payload has none of the shapes of `decode.preset`"),
            Err(reason) => bad(&reason),
        }
    }

    /// Makes rows of what a query found. What is bad about the document or an element of it costs one dead letter.
    fn samples(&self, form: &Form, work: &mut Work<'_, '_>, bad: &mut dyn FnMut(&str)) {
        let Work {
            levels,
            received,
            asked,
            found,
            columns,
        } = work;
        for name in &form.names {
            found.as_texts(*name);
        }
        let found = &*found;
        let last = form.query.last_level();
        let time_level = form.time.map_or(0, |slot| slot.level);
        let (mut time, mut machine, mut signal) = (Once::default(), Once::default(), Once::default());
        // What holds for all samples is judged before it is asked whether there are any.
        if last > 0
            && time_level == 0
            && time
                .of(0, || form.time_at(found, 0, *received, asked.unit), &mut *bad)
                .is_none()
        {
            return;
        }
        let machine_of = |columns: &mut Columns, at| columns.machine(form, levels, found, at);
        if last > 0 && form.machine.level == 0 && machine.of(0, || machine_of(columns, 0), &mut *bad).is_none() {
            return;
        }
        for level in 0..last {
            for record in found.childless(level) {
                bad(&form.place(level, record, &form.nothing_below(level)));
            }
        }
        for record in 0..found.count(last) {
            let above = |level| found.above(record, last, level);
            let at = above(time_level);
            let ts = time.of(
                at,
                || form.time_at(found, at, *received, asked.unit),
                |reason| bad(&form.place(time_level, at, reason)),
            );
            let Some(ts) = ts else { continue };
            let (at, level) = (above(form.machine.level), form.machine.level);
            let machine = machine.of(
                at,
                || machine_of(columns, at),
                |reason| bad(&form.place(level, at, reason)),
            );
            let Some(machine) = machine else { continue };
            let (at, level) = (above(form.signal.level), form.signal.level);
            let taken = || columns.signal(self, form, levels, found, at, asked.allowed);
            let signal = signal.of(at, taken, |reason| bad(&form.place(level, at, reason)));
            let (signal, change) = match signal {
                None => continue,
                Some(None) => {
                    columns.left_out += 1;
                    continue;
                }
                Some(Some(signal)) => signal,
            };
            let get = |slot: Option<Slot>| slot.and_then(|slot| found.get(slot, above(slot.level)));
            match content(get(form.value), get(form.text)) {
                Ok((value, text)) => {
                    let value = match change {
                        Some(index) => value
                            .map(|value| self.signals.change(index).scale(value))
                            .filter(|value| value.is_finite()),
                        None => value,
                    };
                    columns.rows.push_text(machine, signal, ts, value, text.as_deref());
                }
                Err(reason) => bad(&form.place(last, record, &reason)),
            }
        }
    }
}

/// The first form whose pointers all lead to something.
fn choose<'f, 'm>(
    forms: &'f [Form],
    document: &dyn Document<'m>,
    found: &mut Found<'m>,
) -> Result<Option<&'f Form>, String> {
    let is_list = document.is_list();
    for form in forms
        .iter()
        .filter(|form| form.is_list.is_none_or(|wanted| wanted == is_list))
    {
        document.find(&form.query, found)?;
        if form.required.iter().all(|slot| found.has(*slot)) {
            return Ok(Some(form));
        }
    }
    Ok(None)
}

impl Form {
    fn time_at(&self, found: &Found<'_>, record: usize, received: i64, asked: Option<Unit>) -> Result<i64, String> {
        let Some(slot) = self.time else {
            return Ok(received);
        };
        match found.get(slot, record) {
            None if self.time_may_be_absent => Ok(received),
            // What a number counts is no matter of a date.
            scalar if self.unit == Some(Unit::Rfc3339) => time_of(scalar, self.unit, received),
            scalar => time_of(scalar, asked.or(self.unit), received),
        }
    }

    /// A reason with the element that it is about.
    fn place(&self, level: usize, record: usize, reason: &str) -> String {
        match level {
            0 => reason.to_owned(),
            _ => format!("element {} of `{}`: {reason}", record + 1, self.query.list(level)),
        }
    }

    /// Why a record has no records of the next level in it.
    fn nothing_below(&self, level: usize) -> String {
        if self.wide && level + 1 == self.query.last_level() {
            "the object at `values` has no values".to_owned()
        } else {
            format!("nothing stands at `{}`", self.query.list(level + 1))
        }
    }
}

/// What is made once for all samples of a record.
struct Once<T> {
    record: usize,
    value: Option<T>,
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Once {
            record: usize::MAX,
            value: None,
        }
    }
}

impl<T: Copy> Once<T> {
    #[inline]
    fn of(&mut self, record: usize, make: impl FnOnce() -> Result<T, String>, bad: impl FnOnce(&str)) -> Option<T> {
        if self.record != record {
            self.record = record;
            self.value = make().map_err(|reason| bad(&reason)).ok();
        }
        self.value
    }
}

/// A payload that is its value.
struct Bare<'j>(Scalar<'j>);

impl<'j> Document<'j> for Bare<'j> {
    fn find(&self, query: &Query, found: &mut Found<'j>) -> Result<(), String> {
        query.walk(Leaf(self.0.clone()), found).map_err(|e| e.to_string())
    }
}

fn number<'j>(payload: &[u8]) -> Result<Scalar<'j>, String> {
    let text = std::str::from_utf8(payload).map_err(|e| format!("the number is not UTF-8: {e}"))?;
    match text.trim() {
        "true" => Ok(Scalar::Bool(true)),
        "false" => Ok(Scalar::Bool(false)),
        "" => Err("the payload is empty".into()),
        text => match text.parse() {
            Ok(number) => Ok(Scalar::Float(number)),
            Err(_) => Err(format!("`{}` is no number", short(text))),
        },
    }
}

fn text(payload: &[u8]) -> Result<Scalar<'_>, String> {
    match std::str::from_utf8(payload) {
        Ok(text) => Ok(Scalar::Text(text.into())),
        Err(e) => Err(format!("the text is not UTF-8: {e}")),
    }
}

/// The lines of a payload, of which there must be one, with their places.
fn some_lines(payload: &[u8]) -> Result<Peekable<impl Iterator<Item = (usize, &[u8])>>, &'static str> {
    let mut lines = lines(payload).peekable();
    match lines.peek() {
        Some(_) => Ok(lines),
        None => Err("the payload is empty"),
    }
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
