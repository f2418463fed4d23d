//! The plan: a validated graph with a schema on every edge. Nothing after it checks a name again.

mod compile;
mod describe;
mod durability;
mod schema;

use std::time::Duration;

use crate::journal;
use crate::kind::Input;
use crate::operator::Step;
use crate::sink::SinkPlan;
use crate::source::Source;
use crate::table::Table;

pub use compile::{compile, read};
pub use schema::schema;

/// A pipeline that can run.
pub struct Plan {
    /// The pipeline's name: its `name:` or the file's name without ending.
    pub name: String,
    /// Sources in the order of the file.
    pub sources: Vec<PlannedSource>,
    /// Steps, each after its inputs.
    pub steps: Vec<PlannedStep>,
    /// Sinks in the order of the file.
    pub sinks: Vec<PlannedSink>,
    /// Time between two checkpoints.
    pub checkpoint_every: Duration,
    /// How journals are kept; folder and fence are the run's.
    pub journal: journal::Settings,
    /// How long a silent key of a live source is remembered; for ever if none.
    pub forget_after: Option<Duration>,
    /// Resident memory that a process of the run may take; no limit if none.
    pub memory_limit_bytes: Option<u64>,
}

/// A source of a plan.
pub struct PlannedSource {
    /// Its name in the file.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// The source.
    pub source: Box<dyn Source>,
}

/// A step of a plan.
pub struct PlannedStep {
    /// Its name in the file.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Where its rows come from.
    pub inputs: Vec<Edge>,
    /// The step.
    pub step: Box<dyn Step>,
}

/// A sink of a plan.
pub struct PlannedSink {
    /// Its name in the file.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// Where its rows come from, in the order in which [`crate::Sink::write`] numbers them.
    pub inputs: Vec<Edge>,
    /// The sink.
    pub sink: Box<dyn SinkPlan>,
}

/// What flows: the output of a source or step by its index in the plan, or refused rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Edge {
    /// The samples of a source.
    Source(usize),
    /// The output of a step.
    Step(usize),
    /// Rows that came too late, of all steps.
    Late,
    /// What could not be read, of all sources.
    DeadLetters,
}

impl Plan {
    /// Name of an edge: that of its source or step; `late`, `dead_letters`.
    pub fn edge_name(&self, edge: Edge) -> &str {
        match edge {
            Edge::Source(i) => &self.sources[i].name,
            Edge::Step(i) => &self.steps[i].name,
            Edge::Late => "late",
            Edge::DeadLetters => "dead_letters",
        }
    }

    /// The table on an edge.
    pub fn table(&self, edge: Edge) -> Table {
        match edge {
            Edge::Source(_) => crate::table::samples(),
            Edge::Step(i) => self.steps[i].step.output().clone(),
            Edge::Late => crate::table::late(),
            Edge::DeadLetters => crate::table::dead_letters(),
        }
    }

    /// The edge of this name.
    pub fn edge(&self, name: &str) -> Option<Edge> {
        let source = self.sources.iter().position(|s| s.name == name).map(Edge::Source);
        source.or_else(|| self.steps.iter().position(|s| s.name == name).map(Edge::Step))
    }

    /// An edge as the input of a step or sink.
    pub(crate) fn input(&self, edge: Edge) -> Input {
        Input {
            name: self.edge_name(edge).to_owned(),
            table: self.table(edge),
            extends: self.extended_by(edge),
        }
    }

    /// The edges whose rows this one's rows extend, nearest first.
    fn extended_by(&self, edge: Edge) -> Vec<String> {
        let mut extended = Vec::new();
        let mut next = 0;
        let mut edges = vec![edge];
        while let Some(edge) = edges.get(next).copied() {
            next += 1;
            if let Edge::Step(i) = edge
                && self.steps[i].step.output().extends_input
            {
                edges.extend(&self.steps[i].inputs);
                extended.extend(
                    self.steps[i]
                        .inputs
                        .iter()
                        .map(|input| self.edge_name(*input).to_owned()),
                );
            }
        }
        extended
    }
}
