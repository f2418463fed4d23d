//! Kinds: the tables of sources, steps and sinks that a pipeline file may name.

use crate::config::{Problem, Section};
use crate::operator::Step;
use crate::sink::SinkPlan;
use crate::source::Source;
use crate::table::Table;

/// What a kind makes of its settings, or all that is wrong with them.
pub type Built<T> = Result<Box<T>, Vec<Problem>>;

/// A source kind: name → configuration → source.
pub struct SourceKind {
    /// What `kind:` says in the file.
    pub name: &'static str,
    /// One sentence for `taktline kinds`.
    pub summary: &'static str,
    /// JSON schema of its settings; also checks them.
    pub schema: fn() -> schemars::Schema,
    /// Makes the source, or says all that is wrong.
    pub build: fn(&Section) -> Built<dyn Source>,
}

/// A step kind: name → configuration and input tables → step.
pub struct StepKind {
    /// What `kind:` says in the file.
    pub name: &'static str,
    /// One sentence for `taktline kinds`.
    pub summary: &'static str,
    /// JSON schema of its settings; also checks them.
    pub schema: fn() -> schemars::Schema,
    /// The tables (by [`Table::name`]) it can read.
    pub reads: &'static [&'static str],
    /// Makes the step, or says all that is wrong. All inputs have the same schema.
    pub build: fn(&Section, &Input) -> Built<dyn Step>,
}

/// A sink kind: name → configuration and input tables → sink.
pub struct SinkKind {
    /// What `kind:` says in the file.
    pub name: &'static str,
    /// One sentence for `taktline kinds`.
    pub summary: &'static str,
    /// JSON schema of its settings; also checks them.
    pub schema: fn() -> schemars::Schema,
    /// True when it also takes the `late` and `dead_letters` rows of the whole pipeline.
    pub takes_refused: bool,
    /// Makes the sink, or says all that is wrong.
    pub build: fn(&Section, &[Input]) -> Built<dyn SinkPlan>,
}

/// An edge into a step or sink.
#[derive(Clone, Debug)]
pub struct Input {
    /// Name of the source or step that emits it; `late` and `dead_letters` for refused rows.
    pub name: String,
    /// What it carries.
    pub table: Table,
    /// The source or step whose rows this one extends, and so on upwards, nearest first.
    pub extends: Vec<String>,
}

/// All kinds that this binary knows.
pub struct Catalog {
    /// Source kinds, in the order they are listed.
    pub sources: &'static [SourceKind],
    /// Step kinds.
    pub steps: &'static [StepKind],
    /// Sink kinds.
    pub sinks: &'static [SinkKind],
}
