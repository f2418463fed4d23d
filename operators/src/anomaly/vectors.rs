//! Cycles: all columns of a cycle are judged together.

use std::sync::Arc;

use anyhow::ensure;
use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Float64Type;
use serde::{Deserialize, Serialize};
use taktline_engine::{Operator, Output, Rows, Saved, Snapshot};

use super::output::{Row, batch};
use super::{Progress, Settings};
use crate::cycles::{CycleRows, SignalStats};
use crate::kernels::anomaly::auto::rarity;
use crate::kernels::anomaly::mewma::{MOST_COLUMNS, Mewma, Verdict};

/// One machine's cycles.
pub(super) struct Vectors {
    settings: Arc<Settings>,
    machine: String,
    state: State,
}

#[derive(Serialize, Deserialize)]
struct State {
    /// Signal and its column, or a column of the cycle and nothing; in the order in which they came.
    columns: Vec<(String, String)>,
    mewma: Mewma,
    progress: Progress,
    /// Whether there were more columns than are looked at.
    crowded: bool,
}

impl Vectors {
    pub fn new(settings: Arc<Settings>, key: &str) -> Self {
        let state = State {
            columns: Vec::new(),
            mewma: Mewma::new(settings.memory),
            progress: Progress::default(),
            crowded: false,
        };
        Vectors {
            settings,
            machine: key.to_owned(),
            state,
        }
    }

    /// The numbers of a cycle at the places of their columns; NaN for a column that it lacks.
    fn vector(&mut self, batch: &RecordBatch, cycles: &CycleRows<'_>, row: usize) -> Vec<f64> {
        let mut vector = vec![f64::NAN; self.state.columns.len()];
        let settings = self.settings.clone();
        let statistic = |name: &String| SignalStats::NAMES.iter().position(|known| known == name);
        for name in settings.of.iter().filter(|name| statistic(name).is_none()) {
            let numbers = batch
                .column_by_name(name)
                .and_then(|array| array.as_primitive_opt::<Float64Type>());
            if let Some(numbers) = numbers.filter(|numbers| numbers.is_valid(row)) {
                self.put(&mut vector, name, "", numbers.value(row));
            }
        }
        for signal in cycles.signals(row).filter(|signal| settings.looks_at(signal.name)) {
            let numbers = signal.stats.to_array();
            for (name, place) in settings.of.iter().filter_map(|name| Some((name, statistic(name)?))) {
                self.put(&mut vector, signal.name, name, numbers[place]);
            }
        }
        vector
    }

    fn put(&mut self, vector: &mut Vec<f64>, signal: &str, column: &str, number: f64) {
        let columns = &mut self.state.columns;
        if let Some(place) = columns.iter().position(|(s, c)| s == signal && c == column) {
            vector[place] = number;
        } else if columns.len() < MOST_COLUMNS {
            columns.push((signal.to_owned(), column.to_owned()));
            vector.push(number);
        } else {
            self.state.crowded = true;
        }
    }
}

impl Operator for Vectors {
    fn rows(&mut self, rows: &Rows<'_>, out: &mut Output) -> anyhow::Result<()> {
        let input = rows.batch();
        let cycles = CycleRows::of(&input)?;
        let mut judged: Vec<(Option<Verdict>, f64, f64)> = Vec::with_capacity(cycles.len());
        for row in 0..cycles.len() {
            let mut verdict = None;
            let (mut score, mut threshold) = (f64::NAN, f64::NAN);
            if cycles.is_complete(row) {
                let vector = self.vector(&input, &cycles, row);
                verdict = self.state.mewma.score(&vector);
                let rare = verdict.as_ref().map_or(f64::NAN, |verdict| rarity(verdict.probability));
                (score, threshold) = self.state.progress.judge(cycles.end_us(row), rare, &self.settings);
            }
            judged.push((verdict, score, threshold));
        }
        let columns = &self.state.columns;
        let row = |(row, (verdict, score, threshold)): (usize, &(Option<Verdict>, f64, f64))| {
            // Learning, or nothing to score: no evidence is shown.
            let verdict = verdict.as_ref().filter(|_| !score.is_nan());
            let parts = verdict.map_or(&[][..], |verdict| &verdict.parts);
            Row {
                signal: None,
                ts_us: cycles.end_us(row),
                value: verdict.map_or(f64::NAN, |verdict| verdict.value),
                score: *score,
                threshold: *threshold,
                detector: verdict.map_or(self.settings.detector.as_str(), |verdict| verdict.statistic.as_str()),
                cycle_id: Some(cycles.cycle_id(row)),
                parts: columns
                    .iter()
                    .zip(parts)
                    .map(|((signal, column), part)| (signal.as_str(), column.as_str(), *part))
                    .collect(),
            }
        };
        let rows: Vec<Row<'_>> = judged.iter().enumerate().map(row).collect();
        out.emit(batch(&self.machine, &rows)?);
        Ok(())
    }

    fn snapshot(&mut self, into: &mut Snapshot) -> anyhow::Result<()> {
        into.head(&self.state)
    }

    fn restore(&mut self, saved: &Saved) -> anyhow::Result<()> {
        let state: State = saved.head()?;
        state.progress.check()?;
        let whole = state.mewma.is_whole() && state.columns.len() <= MOST_COLUMNS;
        ensure!(whole, "state that can't be read: columns that don't fit together");
        self.state = state;
        Ok(())
    }

    fn remark(&self) -> Option<String> {
        let machine = &self.machine;
        self.state
            .crowded
            .then(|| format!("{machine}: only {MOST_COLUMNS} columns are looked at; name fewer by `of` or `signals`"))
    }
}
