//! Pure functions over slices; no dataflow, no tables.
//!
//! - [`dtw`]: dynamic time warping, exact, with a window, early abandoning and the alignment path.
//! - [`euclidean`]: distance and norm of points in order.
//! - [`resample`]: a series onto evenly spaced points.
//! - [`stats`]: median, quantiles, robust spread.
//! - [`trigger_search`]: which signal says when cycles begin.

pub mod dtw;
pub mod euclidean;
mod lanes;
pub mod resample;
pub mod stats;
pub mod trigger_search;
