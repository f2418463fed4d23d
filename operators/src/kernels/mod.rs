//! Pure functions over slices; no dataflow, no tables.
//!
//! - [`anomaly`]: streaming detectors, tail probabilities, T² and SPE.
//! - [`course`]: ends, sum, rise, slope, time-weighted mean and sign changes of a signal.
//! - [`dtw`]: dynamic time warping, exact, with a window, early abandoning and the alignment path, of one channel or several.
//! - [`elastic`]: LCSS, EDR, ERP and MSM.
//! - [`euclidean`]: distance and norm of points in order.
//! - [`lower_bounds`]: what an alignment costs at least, in linear time.
//! - [`moments`]: count, mean, extremes, deviation and kurtosis.
//! - [`nearest`]: the nearest series of a library.
//! - [`period`]: how long a cycle lasts, by autocorrelation.
//! - [`resample`]: a series onto evenly spaced points.
//! - [`sbd`]: how well two series agree when one is shifted as a whole.
//! - [`search`]: where in a long series a query fits best.
//! - [`sketch`]: quantiles of many values in little memory.
//! - [`spectrum`]: how strongly a signal swings between two frequencies.
//! - [`spring`]: stretches of an endless series that look like a template.
//! - [`stats`]: median, quantiles, robust spread.
//! - [`trigger_search`]: which signal says when cycles begin.

pub mod anomaly;
pub mod course;
pub mod dtw;
pub mod elastic;
pub mod euclidean;
mod lanes;
pub mod lower_bounds;
pub mod moments;
pub mod nearest;
pub mod period;
pub mod resample;
pub mod sbd;
pub mod search;
pub mod sketch;
pub mod spectrum;
pub mod spring;
pub mod stats;
pub mod trigger_search;
