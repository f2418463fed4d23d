//! The columns that a decoder builds: names rendered and judged, rows in the making.

use std::collections::HashMap;

use super::query::{Found, Scalar, Slot};
use super::reading::{Form, Named, Reading};
use super::short;
use super::signals::Verdict;
use crate::rows::Rows;

/// The longest name of a machine or a signal, in bytes.
const NAME_LIMIT: usize = 1024;
/// How many names of signals a decoder remembers the verdict on.
const VERDICTS: usize = 10_000;

/// Rows being built, and room that is used again for each message.
#[derive(Default)]
pub(super) struct Columns {
    pub rows: Rows,
    /// The name being rendered.
    name: String,
    /// How many names the address gives to templates.
    address_names: usize,
    pub found: Found<'static>,
    verdicts: HashMap<String, Verdict>,
    /// Samples of signals that aren't allowed.
    pub left_out: u64,
}

/// Says why a signal isn't taken from its sender, by the name that it comes with.
pub(crate) type Allowed<'w> = &'w dyn Fn(&str) -> Result<(), String>;

/// A signal's number, and what is made of its values; none if it is left out.
pub(super) type Taken = Option<(i32, Option<usize>)>;

impl Columns {
    pub fn new(address_names: usize) -> Self {
        Columns {
            address_names,
            ..Columns::default()
        }
    }

    pub fn machine(&mut self, form: &Form, levels: &[&str], found: &Found<'_>, record: usize) -> Result<i32, String> {
        self.render(form, &form.machine, levels, found, record)
            .map_err(|()| "the message names no machine".to_owned())?;
        self.check_name("machine")?;
        let number = self.rows.machines.number(self.name.as_bytes());
        number.ok_or_else(|| "the message names no machine".to_owned())
    }

    pub fn signal(
        &mut self,
        reading: &Reading,
        form: &Form,
        levels: &[&str],
        found: &Found<'_>,
        record: usize,
        allowed: Option<Allowed<'_>>,
    ) -> Result<Taken, String> {
        let unnamed = "the message names no signal";
        self.render(form, &form.signal, levels, found, record)
            .map_err(|()| unnamed.to_owned())?;
        self.check_name("signal")?;
        if let Some(allowed) = allowed {
            allowed(&self.name)?;
        }
        let mut change = None;
        if !reading.signals.is_empty() {
            match self.verdict(reading) {
                Verdict::LeaveOut => return Ok(None),
                Verdict::Take => {}
                Verdict::Change(index) => change = Some(index),
            }
        }
        let renamed = change.and_then(|index| reading.signals.change(index).rename.as_deref());
        let number = self.rows.signals.number(renamed.unwrap_or(&self.name).as_bytes());
        number
            .map(|number| Some((number, change)))
            .ok_or_else(|| unnamed.to_owned())
    }

    /// Renders a name; an error if the payload doesn't give a part of it.
    #[inline]
    fn render(
        &mut self,
        form: &Form,
        named: &Named,
        levels: &[&str],
        found: &Found<'_>,
        record: usize,
    ) -> Result<(), ()> {
        let given = self.address_names;
        let text = |slot: Slot| match found.get(slot, found.above(record, named.level, slot.level)) {
            Some(Scalar::Text(text)) if !text.is_empty() => Some(&**text),
            _ => None,
        };
        if named.slots.iter().any(|slot| text(*slot).is_none()) {
            return Err(());
        }
        let value = |index: usize| match index.checked_sub(given) {
            None => levels[index],
            Some(index) => text(form.names[index]).unwrap_or_default(),
        };
        named.template.render(value, &mut self.name);
        Ok(())
    }

    fn check_name(&self, what: &str) -> Result<(), String> {
        match self.name.len() {
            0..=NAME_LIMIT => Ok(()),
            _ => Err(format!(
                "the name of the {what} has more than {NAME_LIMIT} bytes: `{}`",
                short(&self.name)
            )),
        }
    }

    /// What becomes of the signal in `name`.
    fn verdict(&mut self, reading: &Reading) -> Verdict {
        if let Some(known) = self.verdicts.get(&self.name) {
            return *known;
        }
        let verdict = reading.signals.verdict(&self.name);
        if verdict == Verdict::LeaveOut {
            reading.signals.say_left_out(&reading.source, &self.name);
        }
        if self.verdicts.len() >= VERDICTS {
            self.verdicts.clear();
        }
        self.verdicts.insert(self.name.clone(), verdict);
        verdict
    }
}
