//! `union`: several sources or steps of the same columns as one.
//!
//! Every step and sink can read several inputs; this gives them a name, so that they are listed once. Rows stay as they are, in the
//! order in which they arrive. A history that is given the union and its inputs keeps each row once.

use schemars::JsonSchema;
use serde::Deserialize;
use taktline_engine::config::{Problem, Section};
use taktline_engine::kind::{Input, StepKind};
use taktline_engine::{Operator, Order, Output, Rows, Saved, Snapshot, Step, Table};

/// The kind's row in the table.
pub const KIND: StepKind = StepKind {
    name: "union",
    summary: "several sources or steps of the same columns as one",
    schema: || schemars::schema_for!(UnionConfig),
    reads: &[],
    build,
};

/// A `union` step has no settings but `from`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UnionConfig {}

fn build(section: &Section, input: &Input) -> Result<Box<dyn Step>, Vec<Problem>> {
    let UnionConfig {} = section.parse()?;
    Ok(Box::new(Union {
        table: Table {
            extends_input: true,
            ..input.table.clone()
        },
    }))
}

struct Union {
    table: Table,
}

impl Step for Union {
    fn output(&self) -> &Table {
        &self.table
    }

    fn order(&self) -> Order {
        Order::Arrival
    }

    fn state(&self) -> String {
        "union/1".into()
    }

    fn operator(&self, _: &str) -> Box<dyn Operator> {
        Box::new(Through)
    }
}

/// Rows as they are.
struct Through;

impl Operator for Through {
    fn rows(&mut self, rows: &Rows<'_>, out: &mut Output) -> anyhow::Result<()> {
        out.emit(rows.batch());
        Ok(())
    }

    fn snapshot(&mut self, into: &mut Snapshot) -> anyhow::Result<()> {
        into.head(&())
    }

    fn restore(&mut self, _: &Saved) -> anyhow::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use taktline_engine::table::{Sample, samples, samples_batch};

    #[test]
    fn rows_stay_as_they_are() {
        let input = Input {
            name: "a".into(),
            table: samples(),
            extends: Vec::new(),
        };
        let step = build(&Section::from_yaml("u", "{}"), &input).ok().unwrap();
        let sample = |ts| Sample {
            machine: "m",
            signal: "a",
            ts,
            value: None,
            text: Some("on"),
        };
        let batch = samples_batch([5, 3, 5].map(sample));
        let mut out = Output::default();
        step.operator("m").rows(&Rows::new(&batch, 1..3), &mut out).unwrap();
        assert_eq!(out.take(), [batch.slice(1, 2)]);
        assert_eq!(step.output().schema, samples().schema);
    }
}
