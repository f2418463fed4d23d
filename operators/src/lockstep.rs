//! Two operators in step: one runs through, the other is replaced again and again by a new one with its state. Both must
//! emit the same rows, bit for bit.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod alert;
mod anomaly;
mod broken;
mod compare;
mod cycle;
mod shape;
mod window;

use std::sync::Arc;

use arrow::array::{DictionaryArray, RecordBatch};
use arrow::datatypes::Int32Type;
use proptest::prelude::*;
use taktline_engine::config::Section;
use taktline_engine::kind::{Input, StepKind};
use taktline_engine::table::{STALE, Sample, Table, samples_batch};
use taktline_engine::{Operator, Output, Rows, Saved, Snapshot, Step};

/// What the driver does with an operator.
#[derive(Clone, Debug)]
enum Call {
    Samples(Vec<Sample<'static>>),
    Rows(RecordBatch),
    Time(i64),
    End,
}

/// What happens after a call to the operator that doesn't run through.
#[derive(Clone, Copy, Debug)]
enum Act {
    GoOn,
    Save {
        whole: bool,
    },
    /// Saved, dropped, and restored into a new one, whose worker gives signals other numbers.
    Replace {
        whole: bool,
        turn: usize,
    },
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        2 => Just(Act::GoOn),
        3 => any::<bool>().prop_map(|whole| Act::Save { whole }),
        1 => Just(Act::Save { whole: false }),
        2 => (any::<bool>(), 0..9_usize).prop_map(|(whole, turn)| Act::Replace { whole, turn }),
    ]
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    prop::collection::vec(act(), 1..12)
}

fn step(kind: &StepKind, yaml: &str, table: Table) -> Box<dyn Step> {
    let input = Input {
        name: "input".into(),
        table,
        extends: Vec::new(),
    };
    (kind.build)(&Section::from_yaml("s", yaml), &input).unwrap_or_else(|problems| panic!("{yaml}: {problems:?}"))
}

/// An operator, and the numbers that its worker gives to signals: the places of their names.
struct Worker {
    operator: Box<dyn Operator>,
    names: Vec<&'static str>,
}

/// Signals of the tests.
const NAMES: [&str; 4] = ["b", "d", "a", "c"];

impl Worker {
    fn new(step: &dyn Step, turn: usize) -> Self {
        let mut names = NAMES.to_vec();
        names.rotate_left(turn % NAMES.len());
        if turn >= NAMES.len() {
            names.reverse();
        }
        Worker {
            operator: step.operator("m"),
            names,
        }
    }

    fn call(&mut self, call: &Call) -> anyhow::Result<Vec<RecordBatch>> {
        let mut out = Output::default();
        match call {
            Call::Samples(samples) => {
                let numbered = self.names.iter().map(|signal| Sample {
                    signal,
                    ..Sample::default()
                });
                let rows: Vec<Sample<'_>> = numbered.chain(samples.iter().copied()).collect();
                // Some of those without a reading are stale.
                let stale =
                    |row: &Sample<'_>| row.value.is_some_and(f64::is_nan) && row.text.is_none() && row.ts % 2000 == 0;
                let batch = with_stale(&samples_batch(rows.iter().copied()), rows.iter().map(stale));
                let rows = Rows::new(&batch, self.names.len()..batch.num_rows());
                self.operator.rows(&rows, &mut out)?;
            }
            Call::Rows(batch) => self.operator.rows(&Rows::new(batch, 0..batch.num_rows()), &mut out)?,
            Call::Time(us) => self.operator.advance(*us, &mut out)?,
            Call::End => self.operator.end(&mut out)?,
        }
        Ok(out.take())
    }

    fn save(&mut self, whole: bool, before: Option<Saved>) -> Saved {
        // The first snapshot of a key is always whole.
        let mut snapshot = Snapshot::new(whole || before.is_none());
        self.operator.snapshot(&mut snapshot).expect("a snapshot");
        snapshot.saved(before)
    }
}

/// The rows of a `samples` batch of which these are stale.
pub(crate) fn with_stale(samples: &RecordBatch, stale: impl Iterator<Item = bool>) -> RecordBatch {
    let quality: DictionaryArray<Int32Type> = stale.map(|stale| stale.then_some(STALE)).collect();
    let mut columns = samples.columns().to_vec();
    columns[5] = Arc::new(quality);
    RecordBatch::try_new(samples.schema(), columns).expect("the columns of `samples`")
}

fn lockstep(step: &dyn Step, calls: &[Call], acts: &[Act]) {
    let (mut steady, mut moved) = (Worker::new(step, 0), Worker::new(step, 0));
    let mut saved = None;
    for (call, act) in calls.iter().zip(acts.iter().cycle()) {
        assert_eq!(steady.call(call).unwrap(), moved.call(call).unwrap(), "{call:?}");
        match *act {
            Act::GoOn => {}
            Act::Save { whole } => saved = Some(moved.save(whole, saved)),
            Act::Replace { whole, turn } => {
                let state = moved.save(whole, saved);
                moved = Worker::new(step, turn);
                moved.operator.restore(&state).expect("restored");
                saved = Some(state);
            }
        }
    }
    assert_eq!(steady.operator.remark(), moved.operator.remark());
    // Also what would only have shown later.
    assert_eq!(steady.save(true, None), moved.save(true, None));
}

/// Rows of three signals in calls of `chunk`: pause in ms, signal and value. 0 is NaN, 9 a text, in turns.
fn sample_calls(rows: &[(i64, usize, i32)], chunk: usize, silence_ms: i64) -> Vec<Call> {
    let mut ts = 0;
    let sample = |(pause, signal, value): &(i64, usize, i32)| {
        ts += pause * 1000;
        let text = (*value == 9).then(|| ["on", "off"][ts as usize / 1000 % 2]);
        let value = if matches!(value, 0 | 9) {
            f64::NAN
        } else {
            f64::from(*value)
        };
        Sample {
            machine: "m",
            signal: ["a", "b", "c"][*signal],
            ts,
            value: Some(value),
            text,
        }
    };
    let samples: Vec<Sample<'static>> = rows.iter().map(sample).collect();
    let mut calls = Vec::new();
    for (number, chunk) in samples.chunks(chunk).enumerate() {
        calls.push(Call::Samples(chunk.to_vec()));
        if number % 3 != 2 {
            calls.push(Call::Time(chunk[chunk.len() - 1].ts));
        }
    }
    calls.push(Call::Time(ts + silence_ms * 1000));
    calls.push(Call::End);
    calls
}

fn sample_rows() -> impl Strategy<Value = Vec<(i64, usize, i32)>> {
    prop::collection::vec((0_i64..4, 0_usize..3, 0..10_i32), 1..60)
}
