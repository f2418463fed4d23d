//! Which signal of a machine says when its cycles begin: candidates from a recording.
//!
//! Heuristics, for proposals that a person looks at. Three things begin cycles: a counter or clock that goes back, a number that
//! changes and then stays, and a value that crosses a level again and again at even distances.

use super::stats::{MAD_TO_STD, mad, median, quantile};

/// Fewer cycles than these show nothing.
const FEWEST_CYCLES: usize = 3;
/// Samples of a cycle, at least.
const FEWEST_SAMPLES: f64 = 4.0;
/// The levels of a crossing, as shares of the range between the 5 % and the 95 % quantile.
const RISE_AT: f64 = 0.6;
const FALL_AT: f64 = 0.4;
/// Distances between cycles may spread so much, relative to their median.
const MOST_SPREAD: f64 = 0.6;

/// How a signal tells that a cycle begins.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Tell {
    /// The value is less than the one before.
    GoesBack,
    /// The value differs from the one before.
    Changes,
    /// From below `fall` to above `rise`; the cycle ends with the way back.
    Crosses {
        /// Above it a cycle begins.
        rise: f64,
        /// Below it the cycle ends.
        fall: f64,
    },
}

/// A way to cut a signal into cycles.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// How it tells.
    pub tell: Tell,
    /// Times at which cycles begin, µs.
    pub starts: Vec<i64>,
    /// Median distance of two starts, µs.
    pub period_us: f64,
    /// Robust spread of the distances over their median; 0 is a clockwork.
    pub spread: f64,
    /// For comparison with other signals' candidates; larger is better.
    pub score: f64,
}

/// The best way to cut cycles out of one signal, if there is one. `ts` in µs, ascending; samples without a value left out.
///
/// ```
/// use taktline_operators::kernels::trigger_search::{Tell, candidate};
/// let ts: Vec<i64> = (0..100).map(|i| i * 1_000_000).collect();
/// let clock: Vec<f64> = (0..100).map(|i| (i % 10) as f64).collect();
/// assert_eq!(candidate(&ts, &clock).map(|c| (c.tell, c.starts.len())), Some((Tell::GoesBack, 10)));
/// ```
pub fn candidate(ts: &[i64], values: &[f64]) -> Option<Candidate> {
    let finite = values.iter().all(|value| value.is_finite());
    if ts.len() != values.len() || values.len() < FEWEST_CYCLES * 2 || !finite {
        return None;
    }
    goes_back(ts, values)
        .or_else(|| changes(ts, values))
        .or_else(|| crosses(ts, values))
}

/// A saw: it counts up by even steps and begins anew near its lowest value.
fn goes_back(ts: &[i64], values: &[f64]) -> Option<Candidate> {
    let steps: Vec<f64> = values.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let ups: Vec<f64> = steps.iter().copied().filter(|step| *step >= 0.0).collect();
    let downs = steps.len() - ups.len();
    let step = median(&ups);
    let even = ups.iter().filter(|up| (*up - step).abs() <= 0.5 * step).count();
    if step <= 0.0 || even * 10 < ups.len() * 9 || (downs as f64) * FEWEST_SAMPLES > values.len() as f64 {
        return None;
    }
    let (low, high) = (quantile(values, 0.0), quantile(values, 1.0));
    let starts = places(values, |before, now| now < before);
    if starts.iter().any(|&at| values[at] > low + 0.2 * (high - low)) {
        return None;
    }
    // A clock that begins anew says nothing else, so its cycles need not be of one length.
    scored(ts, with_first(starts), Tell::GoesBack, f64::INFINITY, 3.0)
}

/// A number of a batch or a program: whole, and it stays for a while.
fn changes(ts: &[i64], values: &[f64]) -> Option<Candidate> {
    let whole = values.iter().all(|value| value.fract() == 0.0);
    let starts = with_first(places(values, |before, now| now != before));
    let mut distinct: Vec<f64> = starts.iter().map(|&at| values[at]).collect();
    distinct.sort_by(f64::total_cmp);
    distinct.dedup();
    // The states of a machine come again; the numbers of batches hardly do.
    if !whole || distinct.len() * 2 <= starts.len() {
        return None;
    }
    scored(ts, starts, Tell::Changes, f64::INFINITY, 2.0)
}

/// A value that goes up and down, with most of its time away from the middle.
fn crosses(ts: &[i64], values: &[f64]) -> Option<Candidate> {
    let (low, high) = (quantile(values, 0.05), quantile(values, 0.95));
    let range = high - low;
    if range <= 0.0 || range <= 1e-9 * low.abs().max(high.abs()) {
        return None;
    }
    let rise = rounded(low + RISE_AT * range, range);
    let fall = rounded(low + FALL_AT * range, range);
    let (mut armed, mut starts) = (values[0] < fall, Vec::new());
    for (at, value) in values.iter().enumerate() {
        if armed && *value > rise {
            starts.push(at);
            armed = false;
        } else if *value < fall {
            armed = true;
        }
    }
    let between = values.iter().filter(|value| fall <= **value && **value <= rise).count();
    let clear = 1.0 - between as f64 / values.len() as f64;
    scored(ts, starts, Tell::Crosses { rise, fall }, MOST_SPREAD, clear)
}

/// A level with no more digits than its signal's range asks for.
fn rounded(level: f64, range: f64) -> f64 {
    let unit = 10f64.powf(range.log10().floor() - 1.0);
    let digits = (1.0 - range.log10().floor()).clamp(0.0, 12.0) as usize;
    let near = (level / unit).round() * unit;
    format!("{near:.digits$}").parse().unwrap_or(near)
}

fn places(values: &[f64], begins: impl Fn(f64, f64) -> bool) -> Vec<usize> {
    (1..values.len())
        .filter(|&at| begins(values[at - 1], values[at]))
        .collect()
}

/// As a start, such triggers also fire at the first sample.
fn with_first(starts: Vec<usize>) -> Vec<usize> {
    std::iter::once(0).chain(starts).collect()
}

fn scored(ts: &[i64], starts: Vec<usize>, tell: Tell, most_spread: f64, weight: f64) -> Option<Candidate> {
    let samples: Vec<f64> = starts.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
    if starts.len() < FEWEST_CYCLES || median(&samples) < FEWEST_SAMPLES {
        return None;
    }
    let starts: Vec<i64> = starts.into_iter().map(|at| ts[at]).collect();
    let distances: Vec<f64> = starts.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
    let period_us = median(&distances);
    let spread = MAD_TO_STD * mad(&distances, period_us) / period_us;
    if period_us <= 0.0 || spread > most_spread {
        return None;
    }
    Some(Candidate {
        tell,
        score: weight / (0.1 + spread.min(1.0)),
        starts,
        period_us,
        spread,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn seconds(count: usize) -> Vec<i64> {
        (0..count as i64).map(|second| second * 1_000_000).collect()
    }

    /// The tell and the number of cycles of a function of the sample's number.
    fn check(count: usize, value: impl Fn(usize) -> f64, expect: Option<(Tell, usize)>) {
        let values: Vec<f64> = (0..count).map(value).collect();
        let found = candidate(&seconds(count), &values);
        assert_eq!(found.map(|found| (found.tell, found.starts.len())), expect);
    }

    #[test]
    fn signals_that_tell() {
        check(100, |at| (at % 20) as f64, Some((Tell::GoesBack, 5)));
        check(100, |at| (at / 20) as f64, Some((Tell::Changes, 5)));
        let square = |at: usize| if at % 20 < 8 { 100.0 } else { 0.0 };
        let crossing = Tell::Crosses { rise: 60.0, fall: 40.0 };
        check(200, square, Some((crossing, 9)));
        // Noise on it changes nothing.
        check(200, |at| square(at) + (at * 7 % 5) as f64 / 10.0, Some((crossing, 9)));
        check(
            400,
            |at| (at as f64 / 10.0).sin(),
            Some((Tell::Crosses { rise: 0.2, fall: -0.2 }, 6)),
        );
    }

    #[test]
    fn signals_that_tell_nothing() {
        check(0, |_| 0.0, None);
        check(100, |_| 7.0, None);
        check(100, |at| at as f64, None);
        // A ramp whose noise goes back at any place is no clock.
        check(100, |at| at as f64 + (at % 3) as f64 * 4.0, None);
        // Too few cycles.
        check(40, |at| (at % 20) as f64, None);
        // At random distances.
        check(300, |at| f64::from(u8::from((at * at * 7919) % 101 < 3)), None);
        check(100, |at| if at == 50 { f64::NAN } else { (at % 20) as f64 }, None);
    }

    #[test]
    fn levels_have_few_digits() {
        assert_eq!(rounded(3.7242, 10.0), 4.0);
        assert_eq!(rounded(3.7242, 9.0), 3.7);
        assert_eq!(rounded(0.0123456, 0.02), 0.012);
        assert_eq!(rounded(123_456.0, 200_000.0), 120_000.0);
    }

    proptest! {
        #[test]
        fn anything_is_answered(values: Vec<f64>) {
            let found = candidate(&seconds(values.len()), &values);
            prop_assert!(found.is_none_or(|found| found.starts.len() >= FEWEST_CYCLES && found.period_us > 0.0));
        }
    }
}
