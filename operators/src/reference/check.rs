//! Whether a reference that was read holds together: lengths that the distances rely on.

use anyhow::ensure;

use super::{CycleData, Reference, Series};

impl Series {
    fn check(&self) -> anyhow::Result<()> {
        let (times, values) = (self.offsets.len(), self.values.len());
        ensure!(
            times == values && values > 0,
            "state that can't be read: {times} times of {values} values"
        );
        Ok(())
    }
}

impl CycleData {
    /// # Errors
    /// A signal lacks a time or a value.
    pub fn check(&self) -> anyhow::Result<()> {
        self.signals.values().try_for_each(Series::check)
    }
}

impl Reference {
    /// # Errors
    /// A signal's grid or bands are of other lengths than its template.
    pub fn check(&self) -> anyhow::Result<()> {
        for signal in self.signals.values() {
            signal.template.check()?;
            let points = signal.template.values.len();
            let lengths = [signal.grid.len(), signal.band_mean.len(), signal.band_half.len()];
            ensure!(
                lengths == [points; 3] || lengths == [points, points, 0],
                "state that can't be read: a template of {points} points with bands of {lengths:?}"
            );
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::kernels::dtw::Scratch;
    use crate::reference::Measure;

    #[test]
    fn lengths() {
        let series = Series::new(&[0, 1], &[1.0, 2.0], 9);
        let cycle = CycleData {
            signals: [("p".to_owned(), series)].into(),
        };
        let measure = Measure {
            dtw: true,
            window: 10.0,
        };
        let learned = |cycles: usize| {
            let cycles: Vec<Arc<CycleData>> = (0..cycles).map(|_| Arc::new(cycle.clone())).collect();
            Reference::learn(&cycles, None, measure, &mut Scratch::default())
        };
        assert!(cycle.check().is_ok() && learned(1).check().is_ok() && learned(3).check().is_ok());
        let mut odd = learned(3);
        odd.signals.values_mut().for_each(|signal| signal.band_half.truncate(1));
        assert!(odd.check().is_err());
        for keep in [0, 1] {
            let mut odd = cycle.clone();
            odd.signals
                .values_mut()
                .for_each(|signal| signal.offsets.truncate(keep));
            assert!(odd.check().is_err());
        }
    }
}
