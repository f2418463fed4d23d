//! What producers know to be acknowledged, held against what is found in some place.
//!
//! A message's text is a record: machine and signal, sequence, and a checksum over these and its value. So one that was changed shows, and not only
//! one that is missing.

use std::collections::HashMap;

use anyhow::Context;
use serde::Deserialize;

use crate::input::record;
use crate::verdict::Verdict;

/// The messages 0 to `count` of a machine's signal.
#[derive(Debug)]
pub struct Sent {
    pub machine: String,
    pub signal: &'static str,
    pub count: u64,
}

/// A message as it was found.
#[derive(Clone, Debug, Deserialize)]
pub struct Found {
    pub machine: String,
    pub signal: String,
    pub value: f64,
    pub text: String,
}

/// Sent until the first one comes through; not counted.
pub const PROBE: &str = "probe";

/// The text of a message.
pub fn text(machine: &str, signal: &str, sequence: u64, value: f64) -> String {
    record(&format!("{machine}/{signal}"), sequence, &value.to_string(), "")
}

impl Found {
    /// Reads a row as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn read(json: &[u8]) -> anyhow::Result<Self> {
        serde_json::from_slice(json).with_context(|| String::from_utf8_lossy(json).into_owned())
    }

    fn sequence(&self) -> u64 {
        let number = self.text.split(' ').nth(1).and_then(|number| number.parse().ok());
        number.unwrap_or(u64::MAX)
    }
}

/// Counts lost and different messages of a place. Gives how many are there again.
pub fn count(verdict: &mut Verdict, place: &str, found: &[Found], sent: &[Sent]) -> u64 {
    let mut seen: HashMap<(&str, &str), Vec<u64>> = HashMap::new();
    for one in sent {
        seen.insert((&one.machine, one.signal), vec![0; one.count as usize]);
    }
    for row in found.iter().filter(|row| row.machine != PROBE) {
        verdict.rows += 1;
        let sequence = row.sequence();
        let times = seen
            .get_mut(&(row.machine.as_str(), row.signal.as_str()))
            .and_then(|times| times.get_mut(sequence as usize));
        match times {
            Some(times) if row.text == text(&row.machine, &row.signal, sequence, row.value) => *times += 1,
            _ => {
                verdict.different += 1;
                verdict.faults.push(format!("{place}: different: {row:?}"));
            }
        }
    }
    let mut again = 0;
    for one in sent {
        let times = &seen[&(one.machine.as_str(), one.signal)];
        let mut missing = (0..).zip(times).filter(|(_, times)| **times == 0);
        if let Some((first, _)) = missing.next() {
            let lost = 1 + missing.count() as u64;
            verdict.lost += lost;
            verdict.faults.push(format!(
                "{place}: {lost} of {} messages of {}/{} are lost, first {first}",
                one.count, one.machine, one.signal
            ));
        }
        again += times.iter().map(|times| times.saturating_sub(1)).sum::<u64>();
    }
    again
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn row(machine: &str, sequence: u64, value: f64) -> Found {
        Found {
            machine: machine.into(),
            signal: "mqtt".into(),
            value,
            text: text(machine, "mqtt", sequence, sequence as f64),
        }
    }

    /// `lost different again` of three messages of `m`.
    fn check(found: &[Found], expect: &str) {
        let sent = [Sent {
            machine: "m".into(),
            signal: "mqtt",
            count: 3,
        }];
        let mut verdict = Verdict::default();
        let again = count(&mut verdict, "samples", found, &sent);
        let Verdict { lost, different, .. } = verdict;
        assert_eq!(format!("{lost} {different} {again}"), expect, "{found:?}");
        assert_eq!(verdict.good(), lost + different == 0);
    }

    #[test]
    fn messages_are_counted_one_by_one() {
        let m = |sequence| row("m", sequence, sequence as f64);
        check(&[m(2), m(0), m(1)], "0 0 0");
        check(&[m(2), m(0)], "1 0 0");
        check(&[m(2), m(0), m(1), m(2), m(2)], "0 0 2");
        check(&[m(0), m(1), row("m", 2, 2.5)], "1 1 0");
        check(&[m(0), m(1), m(2), m(3)], "0 1 0");
        check(&[m(0), m(1), m(2), row("other", 0, 0.0)], "0 1 0");
        check(&[m(0), m(1), m(2), row(PROBE, 7, 7.0)], "0 0 0");
        check(&[], "3 0 0");
    }
}
