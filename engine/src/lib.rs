//! The engine: data model, pipeline plan and timely dataflow.
//!
//! From the bottom up:
//!
//! - [`table`]: what flows along an edge, and its published form.
//! - [`Source`], [`Operator`] (with [`Step`]), [`Sink`]: the spine, each a contract in a file of its own.
//! - [`config`]: the pipeline file with positions, its problems, scalars with units.
//! - [`kind`]: the tables of kinds that a binary knows.
//! - [`state`]: checkpoints on disk: claims, manifests, state files.
//! - [`journal`]: what a source that can't replay has given, durable before it is acknowledged.
//! - [`fault`]: faults on demand, for tests.
//! - [`plan`]: a file and the kinds make a validated graph with a schema on every edge.
//! - [`look`](mod@look): a source's rows without a run.
//! - [`run`](mod@run): the plan as a timely dataflow, with metrics and taps.
//!
//! The engine knows no operator, connector or history table by name.

pub mod config;
pub mod fault;
pub mod journal;
pub mod kind;
pub mod look;
pub mod metrics;
pub mod plan;
pub mod run;
pub mod state;
pub mod table;

mod dead_letters;
mod frame;
mod operator;
mod sink;
mod snapshot;
mod source;
mod taps;

pub use dead_letters::DeadLetters;
pub use operator::{Operator, Order, Output, Rows, SampleRows, Step};
pub use run::{Fabric, MemoryExceeded, Options, Remark, Resume, Run, StateOptions, abort_on_panic};
pub use sink::{Opening, Sink, SinkPlan};
pub use snapshot::{Saved, Snapshot};
pub use source::{Decoded, Decoder, Partition, Poll, Position, Source, Wake};
pub use table::{Published, Samples, Table};
