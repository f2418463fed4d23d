//! Steps of a pipeline: one file per kind, one row per kind in [`KINDS`].
//!
//! - [`cycle`]: cuts samples into cycles (and cycles into phases) where a [`trigger`] fires; makes the [`cycles`] table.
//! - [`compare`]: holds cycles against a `reference` learned from good ones, signal by signal.
//! - [`health`]: a score of 0 to 100 and a risk for each compared cycle.
//! - [`window`]: what signals did over tumbling, hopping, sliding, session and count windows.
//! - [`resample`], [`join`], [`dedup`], [`union`]: samples brought onto one grid, joined with slow signals, once each, and as one.
//! - [`anomaly`]: how rare each sample, window or cycle is beside its own past.
//! - [`alert`]: opens and closes alerts by a [`condition`] over the rows of any step.
//! - [`kernels`]: pure functions over slices (distances, statistics).
//!
//! A file knows those below it: `segment` (the cutting itself, one moment after the other) works on `open` (the samples
//! of an open cycle) and [`trigger`]; `slots` number a key's signals, `signals` name them; both grammars read words of `token`.
//!
//! What an operator gives to checkpoints stands in a file `state.rs` beside it where it is more than a few lines; signals go
//! by name there, since a worker's numbers don't outlive it. `lockstep` tests all of it.
#![warn(missing_docs)]

pub mod alert;
pub mod anomaly;
pub mod compare;
pub mod condition;
mod count;
pub mod cycle;
pub mod cycles;
pub mod dedup;
pub mod health;
pub mod join;
pub mod kernels;
#[cfg(test)]
mod lockstep;
mod open;
mod reference;
pub mod resample;
mod segment;
mod signals;
mod slots;
mod token;
pub mod trigger;
pub mod union;
pub mod window;

/// The kinds of steps, in the order of a pipeline.
pub const KINDS: &[taktline_engine::kind::StepKind] = &[
    cycle::KIND,
    compare::KIND,
    health::KIND,
    window::KIND,
    resample::KIND,
    join::KIND,
    dedup::KIND,
    union::KIND,
    anomaly::KIND,
    alert::KIND,
];
