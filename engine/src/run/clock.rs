//! The wall clock, read here and nowhere else in a run.

use std::time::{SystemTime, UNIX_EPOCH};

/// µs since 1970; 0 for a clock that stands before.
pub(crate) fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_micros() as i64)
}
