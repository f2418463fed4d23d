//! The verdict on each row of a body: samples, or why not.

use std::borrow::Cow;

use super::catalogue::Stream;
use crate::rows::Rows;

/// The longest a text in a sample may be, in bytes.
const TEXT_LIMIT: usize = 64 << 10;
/// The longest a machine's or signal's name may be, in bytes.
const NAME_LIMIT: usize = 256;
/// What a dead letter keeps of a payload, in bytes.
const PAYLOAD_LIMIT: usize = 4096;

/// A row, or a part of one, that isn't taken.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refused {
    /// Where it stood in the body, from 0.
    pub index: u64,
    pub reason: String,
    /// The row as it came.
    pub payload: Vec<u8>,
}

/// A value and a text, either of which may be absent.
pub(super) type Content<'j> = (Option<f64>, Option<Cow<'j, str>>);

/// Collects the samples of a body, and what is refused.
pub(super) struct Verdicts<'s> {
    pub stream: &'s Stream,
    /// When the body came; µs since 1970.
    pub received: i64,
    pub rows: Rows,
    pub samples: usize,
    pub refused: Vec<Refused>,
}

impl<'s> Verdicts<'s> {
    pub(super) fn new(stream: &'s Stream, received: i64) -> Self {
        Verdicts {
            stream,
            received,
            rows: Rows::default(),
            samples: 0,
            refused: Vec::new(),
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
        if text.as_ref().is_some_and(|text| text.len() > TEXT_LIMIT) {
            return Err(format!("the text of `{signal}` has more than {TEXT_LIMIT} bytes"));
        }
        self.stream.check(signal)?;
        let machine = self
            .rows
            .machines
            .number(machine.as_bytes())
            .ok_or("the row names no machine")?;
        let signal = self
            .rows
            .signals
            .number(signal.as_bytes())
            .ok_or("the row names no signal")?;
        let value = value.filter(|value| value.is_finite());
        self.rows.push_text(machine, signal, ts, value, text.as_deref());
        self.samples += 1;
        Ok(())
    }

    pub(super) fn refuse(&mut self, index: usize, reason: impl Into<String>, payload: &[u8]) {
        let kept = payload.len().min(PAYLOAD_LIMIT);
        self.refused.push(Refused {
            index: index as u64,
            reason: reason.into(),
            payload: payload[..kept].to_vec(),
        });
    }

    /// The machine of a row that names none.
    pub(super) fn machine(&self) -> &'s str {
        self.stream.machine.as_deref().unwrap_or(&self.stream.name)
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
