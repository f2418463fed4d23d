//! `simulate`: a press line as a source, for demos, tests and benchmarks.
//!
//! - [`PressLine`]: the model; usable without a source.
//! - [`Fault`]: what can be wrong with a press.
//! - `config`: the settings. `source`: the source around the model.

mod config;
mod fault;
mod press_line;
mod source;

pub use fault::{Fault, FaultKind};
pub use press_line::{MOTOR_CURRENT, POSITION, PRESSURE, PressLine, SIGNALS, TEMPERATURE, VIBRATION};
pub use source::KIND;
