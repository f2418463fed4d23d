//! The pipeline file: read with positions, checked all at once, handed to the kinds as [`Section`]s.

mod check;
mod node;
mod problem;
mod resolve;
mod section;
mod units;

pub use node::{Node, NodeKind, Position, parse};
pub use problem::{Diagnostic, Problem};
pub use resolve::Override;
pub use section::Section;
pub use units::{Interval, Percent, Size};

pub(crate) use check::check;
pub use problem::did_you_mean;
pub(crate) use resolve::resolve;
