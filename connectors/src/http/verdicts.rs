//! The verdict on each row of a body: samples, or why not.

use super::catalogue::Stream;
use crate::codec::letters::Refusals;
use crate::codec::sample::Content;
use crate::codec::signals::{Signals, Verdict};
use crate::rows::Rows;

/// The longest a machine's or signal's name may be, in bytes.
const NAME_LIMIT: usize = 256;
/// What a dead letter keeps of a payload, in bytes.
const PAYLOAD_LIMIT: usize = 4096;
/// How many refusals of one body are kept; the rest is counted in one more.
const REFUSED_LIMIT: usize = 10_000;

/// A row, or a part of one, that isn't taken.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refused {
    /// Where it stood in the body, from 0.
    pub index: u64,
    pub reason: String,
    /// The row as it came.
    pub payload: Vec<u8>,
}

/// Collects the samples of a body, and what is refused.
pub(super) struct Verdicts<'s> {
    pub stream: &'s Stream,
    /// The source, and what it makes of signals.
    signals: (&'s str, &'s Signals),
    /// When the body came; µs since 1970.
    pub received: i64,
    pub rows: Rows,
    /// Samples that the settings leave out.
    pub left_out: u64,
    refused: Vec<Refused>,
    refused_count: usize,
}

impl<'s> Verdicts<'s> {
    pub(super) fn new(stream: &'s Stream, signals: (&'s str, &'s Signals), received: i64) -> Self {
        Verdicts {
            stream,
            signals,
            received,
            rows: Rows::default(),
            left_out: 0,
            refused: Vec::new(),
            refused_count: 0,
        }
    }

    /// Takes a sample, or says why not.
    pub(super) fn take(
        &mut self,
        machine: &str,
        signal: &str,
        ts: i64,
        (value, text): Content<'_>,
    ) -> Result<(), String> {
        for (what, name) in [("machine", machine), ("signal", signal)] {
            if name.len() > NAME_LIMIT || name.contains(char::is_control) {
                return Err(format!(
                    "the {what}'s name has more than {NAME_LIMIT} bytes or control characters"
                ));
            }
        }
        self.stream.check(signal)?;
        let (source, signals) = self.signals;
        let change = match signals.verdict(signal) {
            Verdict::Take => None,
            Verdict::Change(index) => Some(signals.change(index)),
            Verdict::LeaveOut => {
                signals.say_left_out(source, signal);
                self.left_out += 1;
                return Ok(());
            }
        };
        let signal = change.and_then(|change| change.rename.as_deref()).unwrap_or(signal);
        let value = value.map(|value| change.map_or(value, |change| change.scale(value)));
        let machine = self.rows.machines.number(machine.as_bytes());
        let machine = machine.ok_or("the row names no machine")?;
        let signal = self.rows.signals.number(signal.as_bytes());
        let signal = signal.ok_or("the row names no signal")?;
        let value = value.filter(|value| value.is_finite());
        self.rows.push_text(machine, signal, ts, value, text.as_deref());
        Ok(())
    }

    pub(super) fn refuse(&mut self, index: usize, reason: impl Into<String>, payload: &[u8]) {
        self.refused_count += 1;
        if self.refused_count > REFUSED_LIMIT {
            return;
        }
        let kept = payload.len().min(PAYLOAD_LIMIT);
        self.refused.push(Refused {
            index: index as u64,
            reason: reason.into(),
            payload: payload[..kept].to_vec(),
        });
    }

    /// What was refused, and how much in all.
    pub(super) fn refused(&mut self) -> (Vec<Refused>, usize) {
        let more = self.refused_count.saturating_sub(REFUSED_LIMIT);
        let last = self.refused.last().map_or(0, |refused| refused.index);
        let rest = (more > 0).then(|| Refused {
            index: last,
            reason: format!("{more} more bad rows or values in this body"),
            payload: Vec::new(),
        });
        self.refused.extend(rest);
        (std::mem::take(&mut self.refused), self.refused_count)
    }

    /// The machine of a row that names none.
    pub(super) fn machine(&self) -> &'s str {
        self.stream.machine.as_deref().unwrap_or(&self.stream.name)
    }
}

/// Takes the refusals of a decoder. What isn't a line of its own is kept with the first of them only.
pub(super) struct Refusing<'v, 's, 'b> {
    pub verdicts: &'v mut Verdicts<'s>,
    pub body: Option<&'b [u8]>,
}

impl Refusals for Refusing<'_, '_, '_> {
    fn refuse(&mut self, index: usize, reason: &str, line: Option<&[u8]>) {
        let payload = line.or_else(|| self.body.take()).unwrap_or_default();
        self.verdicts.refuse(index, reason, payload);
    }
}

/// What became of a body, one line each, for tests: times are µs after the arrival.
#[cfg(test)]
#[allow(clippy::unwrap_used)]
pub(super) fn shown(mut verdicts: Verdicts<'_>) -> String {
    let received = verdicts.received;
    let batch = verdicts.rows.finish().unwrap();
    let samples = taktline_engine::Samples::of(&batch).unwrap();
    let rows = (0..batch.num_rows()).map(|row| {
        let names = (
            samples.machines.value(samples.machine[row] as usize),
            samples.signals.value(samples.signal[row] as usize),
        );
        let value = samples.value.iter().nth(row).flatten();
        let text = samples.text.iter().nth(row).flatten();
        let content = match (value, text) {
            (None, None) => "-".to_owned(),
            (Some(value), None) => value.to_string(),
            (None, Some(text)) => format!("'{text}'"),
            (Some(value), Some(text)) => format!("{value} '{text}'"),
        };
        format!("{} {} {} {content}", names.0, names.1, samples.ts[row] - received)
    });
    let refused = verdicts
        .refused
        .iter()
        .map(|refused| format!("refused {}: {}", refused.index, refused.reason));
    rows.chain(refused).collect::<Vec<_>>().join("\n")
}
