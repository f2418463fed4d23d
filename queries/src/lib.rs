//! Queries: the history as tables that answer SQL.
//!
//! - [`context()`]: the Delta tables of a data directory, and files beside them, as one DataFusion session.
//! - [`sql()`]: one query, read-only, with its rows written as a [`Format`].
//!
//! Knows Delta tables by their folders only: which tables a pipeline keeps is the business of its operators.

mod context;
mod format;
mod sql;
#[cfg(test)]
mod tests;

pub use context::context;
pub use format::Format;
pub use sql::sql;
