//! The cycle that is nearest to all others.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::series::{CycleData, Measure, Series};
use super::{FEWEST_FOR_SPREAD, FLOOR, units};
use crate::kernels::dtw::Scratch;
use crate::kernels::stats::median;

/// The medoid is sought on at most this many points a signal, since that takes N²/2 distances.
const MEDOID_POINTS: usize = 500;

/// The cycle with the least sum of distances to the others, each signal's distances over their median so that signals
/// weigh alike. Only cycles with the most signals stand for election; the first of equals wins.
pub(crate) fn medoid(cycles: &[Arc<CycleData>], measure: Measure, scratch: &mut Scratch) -> usize {
    if cycles.len() < FEWEST_FOR_SPREAD {
        return (0..cycles.len())
            .max_by_key(|i| (cycles[*i].signals.len(), cycles.len() - i))
            .unwrap_or(0);
    }
    let names: BTreeSet<&String> = cycles.iter().flat_map(|cycle| cycle.signals.keys()).collect();
    let mut sums = vec![0.0; cycles.len()];
    for name in names {
        let thin = |s: &Series| Series::new(&s.offsets, &s.values, MEDOID_POINTS);
        let series: Vec<(usize, Series)> = cycles
            .iter()
            .enumerate()
            .filter_map(|(i, c)| Some((i, thin(c.signals.get(name)?))))
            .collect();
        let mut pairs = Vec::with_capacity(series.len() * series.len() / 2);
        for (at, (i, a)) in series.iter().enumerate() {
            pairs.extend(
                series[at + 1..]
                    .iter()
                    .map(|(j, b)| (*i, *j, measure.distance(a, b, scratch))),
            );
        }
        let scale = median(&pairs.iter().map(|(.., distance)| *distance).collect::<Vec<f64>>()).max(FLOOR);
        for (i, j, distance) in pairs {
            let distance = units(distance, scale.min(f64::MAX));
            sums[i] += distance;
            sums[j] += distance;
        }
    }
    let most = cycles.iter().map(|cycle| cycle.signals.len()).max().unwrap_or(0);
    let able = (0..cycles.len()).filter(|i| cycles[*i].signals.len() == most);
    able.min_by(|a, b| sums[*a].total_cmp(&sums[*b])).unwrap_or(0)
}
