//! `dedup`: lets the first row of each machine, signal and time through.
//!
//! Rows come twice where a broker or a gateway gives again what it isn't sure was taken, and where two sources read the same
//! signal. The first one to arrive stays, whatever the values. Times are remembered as far back as `within` from the
//! signal's newest; a row older than that can't be known and goes through. Rows keep their order and all their columns.
//! A history that is given the step and its input keeps the rows of the step.

use std::collections::{BTreeMap, VecDeque};

use arrow::array::BooleanArray;
use arrow::compute::filter_record_batch;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taktline_engine::config::{Interval, Problem, Section};
use taktline_engine::kind::{Input, StepKind};
use taktline_engine::{Operator, Order, Output, Rows, Saved, Snapshot, Step, Table};

/// The kind's row in the table.
pub const KIND: StepKind = StepKind {
    name: "dedup",
    summary: "lets one row of each machine, signal and time through",
    schema: || schemars::schema_for!(DedupConfig),
    reads: &["samples"],
    build,
};

/// Settings of a `dedup` step.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DedupConfig {
    /// How far behind a signal's newest row its times are remembered, at 8 bytes a row; 1min if not given.
    pub within: Option<Interval>,
}

fn build(section: &Section, input: &Input) -> Result<Box<dyn Step>, Vec<Problem>> {
    let config: DedupConfig = section.parse()?;
    let within_us = config.within.map_or(60_000_000, Interval::micros);
    if within_us <= 0 {
        return Err(vec![Problem::at("within", "must be longer than 0")]);
    }
    Ok(Box::new(DedupStep {
        within_us,
        table: Table {
            extends_input: true,
            ..input.table.clone()
        },
    }))
}

struct DedupStep {
    within_us: i64,
    table: Table,
}

impl Step for DedupStep {
    fn output(&self) -> &Table {
        &self.table
    }

    fn order(&self) -> Order {
        Order::Arrival
    }

    /// With another `within` more or fewer times are known, and all are right.
    fn state(&self) -> String {
        "dedup/1".into()
    }

    fn operator(&self, _: &str) -> Box<dyn Operator> {
        Box::new(Dedup {
            within_us: self.within_us,
            seen: BTreeMap::new(),
            written: 0,
        })
    }
}

struct Dedup {
    within_us: i64,
    /// By signal.
    seen: BTreeMap<String, Seen>,
    /// Times in the tail of the state, those forgotten since included.
    written: usize,
}

/// The times of one signal's rows.
#[derive(Default)]
struct Seen {
    /// Ascending, and no further apart than `within`.
    times: VecDeque<i64>,
    /// What no checkpoint has. None where it has become more than `times`, which are written then.
    unsaved: Option<Vec<i64>>,
}

/// So many forgotten times in the tail are not worth writing the known ones again.
const FEW: usize = 64;

impl Seen {
    /// True for a time that is new, which is remembered.
    fn is_new(&mut self, ts: i64, within_us: i64) -> bool {
        let newest = self.times.back().copied();
        if newest.is_some_and(|newest| ts < newest.saturating_sub(within_us)) {
            return true;
        }
        if newest.is_none_or(|newest| newest < ts) {
            self.times.push_back(ts);
            let oldest = ts.saturating_sub(within_us);
            while self.times.front().is_some_and(|first| *first < oldest) {
                self.times.pop_front();
            }
        } else {
            match self.times.binary_search(&ts) {
                Ok(_) => return false,
                Err(place) => self.times.insert(place, ts),
            }
        }
        self.unsaved = self
            .unsaved
            .take()
            .filter(|unsaved| unsaved.len() < self.times.len() + FEW);
        if let Some(unsaved) = &mut self.unsaved {
            unsaved.push(ts);
        }
        true
    }
}

impl Operator for Dedup {
    fn rows(&mut self, rows: &Rows<'_>, out: &mut Output) -> anyhow::Result<()> {
        let samples = rows.samples()?;
        // In arrival order a signal's number is another in each call.
        let mut slots: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (row, signal) in samples.signal.iter().enumerate() {
            slots.entry(*signal).or_default().push(row);
        }
        let mut new = vec![false; samples.ts.len()];
        for (signal, rows) in slots {
            let name = samples.signal_name(signal);
            if !self.seen.contains_key(name) {
                let seen = Seen {
                    unsaved: Some(Vec::new()),
                    ..Seen::default()
                };
                self.seen.insert(name.to_owned(), seen);
            }
            if let Some(seen) = self.seen.get_mut(name) {
                rows.iter()
                    .for_each(|row| new[*row] = seen.is_new(samples.ts[*row], self.within_us));
            }
        }
        let batch = rows.batch();
        if new.iter().all(|new| *new) {
            out.emit(batch);
        } else {
            out.emit(filter_record_batch(&batch, &BooleanArray::from(new))?);
        }
        Ok(())
    }

    fn snapshot(&mut self, into: &mut Snapshot) -> anyhow::Result<()> {
        let known: usize = self.seen.values().map(|seen| seen.times.len()).sum();
        let overgrown = self.seen.values().any(|seen| seen.unsaved.is_none()) || self.written > 2 * known + FEW;
        let whole = into.whole() || overgrown;
        if whole {
            into.restart();
            self.written = 0;
        }
        for (name, seen) in &mut self.seen {
            let unsaved = seen.unsaved.replace(Vec::new()).unwrap_or_default();
            let times = if whole {
                seen.times.iter().copied().collect()
            } else {
                unsaved
            };
            if !times.is_empty() {
                self.written += times.len();
                into.append(&Entry {
                    signal: name.clone(),
                    times,
                })?;
            }
        }
        into.head(&())
    }

    fn restore(&mut self, saved: &Saved) -> anyhow::Result<()> {
        for Entry { signal, times } in saved.appended()? {
            self.written += times.len();
            let seen = self.seen.entry(signal).or_default();
            for ts in times {
                seen.is_new(ts, self.within_us);
            }
            seen.unsaved = Some(Vec::new());
        }
        Ok(())
    }
}

/// Times of a signal, in the tail of the state.
#[derive(Serialize, Deserialize)]
struct Entry {
    signal: String,
    times: Vec<i64>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use taktline_engine::table::{Sample, Samples, samples, samples_batch};

    /// Rows of signal, µs and value, in calls of `chunk`; gives those that go through.
    fn run(yaml: &str, rows: &[(&'static str, i64, f64)], chunk: usize) -> Vec<(String, i64, f64)> {
        let input = Input {
            name: "plc".into(),
            table: samples(),
            extends: Vec::new(),
        };
        let mut operator = build(&Section::from_yaml("d", yaml), &input)
            .ok()
            .unwrap()
            .operator("m");
        let mut out = Output::default();
        for rows in rows.chunks(chunk) {
            let sample = |&(signal, ts, value): &(&'static str, i64, f64)| Sample {
                machine: "m",
                signal,
                ts,
                value: Some(value),
                text: None,
            };
            // Each call numbers its signals anew.
            let batch = samples_batch(rows.iter().map(sample));
            operator.rows(&Rows::new(&batch, 0..rows.len()), &mut out).unwrap();
        }
        let mut found = Vec::new();
        for batch in out.take() {
            let samples = Samples::of(&batch).unwrap();
            for row in 0..batch.num_rows() {
                let signal = samples.signals.value(samples.signal[row] as usize).to_owned();
                found.push((signal, samples.ts[row], samples.value.value(row)));
            }
        }
        found
    }

    fn check(rows: &[(&'static str, i64, f64)], expect: &[f64]) {
        for chunk in [1, 2, rows.len()] {
            let values: Vec<f64> = run("{within: 10us}", rows, chunk).iter().map(|row| row.2).collect();
            assert_eq!(values, expect, "in calls of {chunk}");
        }
    }

    #[test]
    fn the_first_stays() {
        check(
            &[
                ("a", 5, 1.0),
                ("a", 5, 2.0),
                ("b", 5, 3.0),
                ("a", 4, 4.0),
                ("a", 4, 5.0),
            ],
            &[1.0, 3.0, 4.0],
        );
        // What is too old to be known goes through, at the edge it is known.
        check(&[("a", 10, 1.0), ("a", 20, 2.0), ("a", 10, 3.0)], &[1.0, 2.0]);
        check(
            &[("a", 10, 1.0), ("a", 21, 2.0), ("a", 10, 3.0), ("a", 10, 4.0)],
            &[1.0, 2.0, 3.0, 4.0],
        );
        check(
            &[("a", i64::MIN, 1.0), ("a", i64::MAX, 2.0), ("a", i64::MAX, 3.0)],
            &[1.0, 2.0],
        );
    }

    proptest! {
        #[test]
        fn it_is_a_set_where_all_is_within(rows in prop::collection::vec((0..3_usize, 0..20_i64), 1..60), chunk in 1_usize..9) {
            let rows: Vec<_> = (0..).zip(rows).map(|(n, (signal, ts))| (["a", "b", "c"][signal], ts, f64::from(n))).collect();
            let mut known = BTreeSet::new();
            let mut expect: Vec<f64> = rows.iter().filter(|(signal, ts, _)| known.insert((*signal, *ts))).map(|row| row.2).collect();
            let mut found: Vec<f64> = run("{within: 20us}", &rows, chunk).iter().map(|row| row.2).collect();
            expect.sort_by(f64::total_cmp);
            found.sort_by(f64::total_cmp);
            prop_assert_eq!(found, expect);
        }
    }
}
