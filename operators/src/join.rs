//! `join`: gives each row the values that slow signals of its machine had at its time.
//!
//! An as-of join: a slow signal (a recipe, an ambient temperature, an order from another source) counts from its row on,
//! until its next one or for `max_age`. Rows of slow signals give no rows of their own. Rows of one time are taken in the order
//! of the file's sources: a slow row counts for those after it. A slow value that is not finite, and one of the other sort than
//! asked for, is not looked at. A sample is joined with signals of its own machine only; cycles can't be joined, but hold all
//! signals of theirs.
//!
//! The rows are samples with a column for each slow signal (`_` for a blank in its name), so every step that reads samples
//! reads them, `alert` with the new columns. History keeps them as the table `joined`.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::ensure;
use arrow::array::{ArrayRef, BooleanArray, Float64Array, RecordBatch, StringArray};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, Field, Schema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taktline_engine::config::{Interval, Problem, Section};
use taktline_engine::kind::{Input, StepKind};
use taktline_engine::table::{Published, samples};
use taktline_engine::{Operator, Order, Output, Rows, SampleRows, Saved, Snapshot, Step, Table};

/// The kind's row in the table.
pub const KIND: StepKind = StepKind {
    name: "join",
    summary: "gives each row the values of slow signals as of its time",
    schema: || schemars::schema_for!(JoinConfig),
    reads: &["samples"],
    build,
};

/// Settings of a `join` step.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct JoinConfig {
    /// The slow signals, and whether their value or their text is wanted: `{recipe: text, ambient: value}`.
    pub with: BTreeMap<String, Sort>,
    /// For how long a slow row counts; until the next one if not given.
    pub max_age: Option<Interval>,
    /// How long rows may be out of order; 1s if not given. Later ones go to the table `late`.
    pub lateness: Option<Interval>,
}

/// What of a slow signal's rows is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sort {
    /// Its reading.
    Value,
    /// Its state or marker.
    Text,
}

fn build(section: &Section, input: &Input) -> Result<Box<dyn Step>, Vec<Problem>> {
    let config: JoinConfig = section.parse()?;
    let mut problems = Vec::new();
    if config.with.is_empty() {
        problems.push(Problem::at("with", "names no signal"));
    }
    let plain = samples();
    let mut fields: Vec<Field> = plain
        .schema
        .fields()
        .iter()
        .map(|field| field.as_ref().clone())
        .collect();
    for (name, sort) in &config.with {
        let column = column_name(name);
        if fields.iter().any(|field| *field.name() == column) {
            let message = format!("there is a column `{column}` already");
            problems.push(Problem::at("with", message).hint("give the signal another name where it is read"));
        }
        let data_type = match sort {
            Sort::Value => DataType::Float64,
            Sort::Text => DataType::Utf8,
        };
        fields.push(Field::new(column, data_type, true));
    }
    if config.max_age.is_some_and(|max_age| max_age.micros() <= 0) {
        problems.push(Problem::at("max_age", "must be longer than 0"));
    }
    if input.table.schema != plain.schema {
        let message = format!("`{}` has columns that would be lost", input.name);
        problems.push(Problem::at("", message).hint("join all slow signals in one step"));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let schema = Arc::new(Schema::new(fields));
    Ok(Box::new(JoinStep {
        slow: config.with.into_iter().collect(),
        max_age_us: config.max_age.map(Interval::micros),
        lateness_us: config.lateness.map_or(1_000_000, Interval::micros),
        table: Table {
            schema: schema.clone(),
            published: vec![Published {
                name: "joined",
                schema,
                project: |batch| Ok(batch.clone()),
            }],
            ..plain
        },
    }))
}

/// The signal's name with `_` for the characters that a Delta table has in no column.
fn column_name(signal: &str) -> String {
    signal.replace([' ', ',', ';', '{', '}', '(', ')', '=', '\n', '\t'], "_")
}

struct JoinStep {
    /// In the order of their names.
    slow: Arc<[(String, Sort)]>,
    max_age_us: Option<i64>,
    lateness_us: i64,
    table: Table,
}

impl Step for JoinStep {
    fn output(&self) -> &Table {
        &self.table
    }

    fn order(&self) -> Order {
        Order::Time {
            lateness_us: self.lateness_us,
        }
    }

    fn state(&self) -> String {
        format!("join/1 with {:?}", self.slow)
    }

    fn operator(&self, _: &str) -> Box<dyn Operator> {
        Box::new(Join {
            slow: self.slow.clone(),
            max_age_us: self.max_age_us,
            table: self.table.clone(),
            slots: Vec::new(),
            newest: vec![None; self.slow.len()],
        })
    }
}

struct Join {
    slow: Arc<[(String, Sort)]>,
    max_age_us: Option<i64>,
    table: Table,
    /// By signal number: which of the slow ones it is.
    slots: Vec<Option<usize>>,
    /// By slow signal.
    newest: Vec<Option<Known>>,
}

/// What a slow signal's newest row said.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Known {
    ts: i64,
    value: f64,
    text: Option<String>,
}

impl Operator for Join {
    fn rows(&mut self, rows: &Rows<'_>, out: &mut Output) -> anyhow::Result<()> {
        let samples = rows.samples()?;
        for number in self.slots.len()..samples.signal_count() {
            let name = samples.signal_name(number as i32);
            self.slots.push(self.slow.iter().position(|(slow, _)| slow == name));
        }
        let mut fast = Vec::with_capacity(samples.ts.len());
        let mut values: Vec<Vec<Option<f64>>> = vec![Vec::new(); self.slow.len()];
        let mut texts: Vec<Vec<Option<String>>> = vec![Vec::new(); self.slow.len()];
        for (row, ts) in samples.ts.iter().enumerate() {
            let slow = self.slots[samples.signal[row] as usize];
            fast.push(slow.is_none());
            if let Some(slow) = slow {
                self.learn(slow, &samples, row);
                continue;
            }
            for (slow, (_, sort)) in self.slow.iter().enumerate() {
                let counts = |known: &&Known| self.max_age_us.is_none_or(|age| ts.saturating_sub(known.ts) <= age);
                let known = self.newest[slow].as_ref().filter(counts);
                match sort {
                    Sort::Value => values[slow].push(known.map(|known| known.value)),
                    Sort::Text => texts[slow].push(known.and_then(|known| known.text.clone())),
                }
            }
        }
        let kept = filter_record_batch(&rows.batch(), &BooleanArray::from(fast))?;
        let mut columns = kept.columns().to_vec();
        for ((values, texts), (_, sort)) in values.into_iter().zip(texts).zip(self.slow.iter()) {
            columns.push(match sort {
                Sort::Value => Arc::new(Float64Array::from(values)) as ArrayRef,
                Sort::Text => Arc::new(StringArray::from(texts)),
            });
        }
        out.emit(RecordBatch::try_new(self.table.schema.clone(), columns)?);
        Ok(())
    }

    fn snapshot(&mut self, into: &mut Snapshot) -> anyhow::Result<()> {
        into.head(&self.newest)
    }

    fn restore(&mut self, saved: &Saved) -> anyhow::Result<()> {
        self.newest = saved.head()?;
        ensure!(
            self.newest.len() == self.slow.len(),
            "state that can't be read: of other signals"
        );
        Ok(())
    }
}

impl Join {
    /// A slow signal says something new, or nothing.
    fn learn(&mut self, slow: usize, samples: &SampleRows<'_>, row: usize) {
        let (value, text) = (samples.value[row], samples.text(row));
        let says = match self.slow[slow].1 {
            Sort::Value => value.is_finite(),
            Sort::Text => text.is_some(),
        };
        if says {
            self.newest[slow] = Some(Known {
                ts: samples.ts[row],
                value,
                text: text.map(str::to_owned),
            });
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use arrow::util::pretty::pretty_format_columns;
    use taktline_engine::table::{Sample, samples_batch};

    fn built(yaml: &str, table: Table) -> Result<Box<dyn Step>, Vec<Problem>> {
        let input = Input {
            name: "plc".into(),
            table,
            extends: Vec::new(),
        };
        build(&Section::from_yaml("j", yaml), &input)
    }

    /// Rows of signal, µs, value and text give lines of `ts ambient recipe`.
    fn check(yaml: &str, rows: &[(&'static str, i64, f64, &'static str)], expect: &[&str]) {
        for chunk in [1, 2, rows.len()] {
            let sample = |&(signal, ts, value, text): &(&'static str, i64, f64, &'static str)| Sample {
                machine: "m",
                signal,
                ts,
                value: Some(value),
                text: (!text.is_empty()).then_some(text),
            };
            let batch = samples_batch(rows.iter().map(sample));
            let mut operator = built(yaml, samples()).ok().unwrap().operator("m");
            let mut out = Output::default();
            for from in (0..rows.len()).step_by(chunk) {
                let to = (from + chunk).min(rows.len());
                operator.rows(&Rows::new(&batch, from..to), &mut out).unwrap();
            }
            let mut lines = Vec::new();
            for batch in out.take() {
                let column = |name: &str| {
                    let shown = pretty_format_columns(name, &[batch.column_by_name(name).unwrap().clone()]).unwrap();
                    let cells = shown.to_string();
                    let cells = cells.lines().skip(3).filter(|line| !line.starts_with('+'));
                    cells
                        .map(|cell| cell.trim_matches(['|', ' ']).to_owned())
                        .collect::<Vec<String>>()
                };
                let (value, ambient, recipe) = (column("value"), column("ambient"), column("recipe"));
                lines.extend(
                    (0..batch.num_rows()).map(|row| format!("{} {} {}", value[row], ambient[row], recipe[row])),
                );
            }
            assert_eq!(lines, expect, "in calls of {chunk}");
        }
    }

    #[test]
    fn as_of() {
        let nan = f64::NAN;
        let rows = [
            ("p", 0, 1.0, ""),
            ("ambient", 10, 20.5, ""),
            ("p", 10, 2.0, ""),
            ("recipe", 15, nan, "A"),
            ("ambient", 16, nan, "broken"),
            ("recipe", 17, 3.0, ""),
            ("p", 20, 3.0, ""),
            ("p", 21, 4.0, ""),
            ("ambient", 30, -1e308, ""),
            ("p", 30, 5.0, ""),
        ];
        let with = "with: {recipe: text, ambient: value}";
        let huge = format!("5.0 {:?} A", -1e308);
        check(
            &format!("{{{with}}}"),
            &rows,
            &["1.0  ", "2.0 20.5 ", "3.0 20.5 A", "4.0 20.5 A", &huge],
        );
        let huge = format!("5.0 {:?} ", -1e308);
        check(
            &format!("{{{with}, max_age: 10us}}"),
            &rows,
            &["1.0  ", "2.0 20.5 ", "3.0 20.5 A", "4.0  A", &huge],
        );
    }

    #[test]
    fn refused() {
        let check = |yaml: &str, expect: &str| {
            let problems = built(yaml, samples()).err().unwrap_or_default();
            assert_eq!(
                format!("{}: {}", problems[0].path.join("."), problems[0].message),
                expect
            );
        };
        check("{with: {}}", "with: names no signal");
        check("{with: {ts: value}}", "with: there is a column `ts` already");
        check(
            "{with: {a b: value, a_b: text}}",
            "with: there is a column `a_b` already",
        );
        check("{with: {a: value}, max_age: 0s}", "max_age: must be longer than 0");
        let joined = built("{with: {a: value}}", samples()).ok().unwrap().output().clone();
        assert_eq!(built("{with: {b: value}}", joined).err().unwrap().len(), 1);
    }
}
