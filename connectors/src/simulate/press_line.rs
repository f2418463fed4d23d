//! The press line as a model: what its sensors show at any moment, from nothing but the seed and the time.

use std::f64::consts::TAU;

use super::fault::{Effect, Fault};

/// The signals of a press, in the order in which [`PressLine`] counts them.
pub const SIGNALS: [&str; 5] = ["pressure", "position", "temperature", "vibration", "motor_current"];

/// Index into [`SIGNALS`].
pub const PRESSURE: usize = 0;
/// Index into [`SIGNALS`].
pub const POSITION: usize = 1;
/// Index into [`SIGNALS`].
pub const TEMPERATURE: usize = 2;
/// Index into [`SIGNALS`].
pub const VIBRATION: usize = 3;
/// Index into [`SIGNALS`].
pub const MOTOR_CURRENT: usize = 4;

/// A line of presses that all make one stroke per cycle.
///
/// A value is a pure function of the seed, the machine and the sample's index: any part of the line can be computed
/// anywhere and in any order, and the same settings give the same values for ever.
///
/// A stroke takes 60 % of a cycle. Pressure (bar) idles near 1 and goes to about 12, so that a cycle `start: "pressure
/// rises above 5"`, `end: "pressure falls below 3"` finds each stroke. Position (mm) goes down by 200 and up again,
/// temperature (°C) swings slowly around 45, vibration (mm/s) and motor current (A) rise under load.
///
/// ```
/// use taktline_connectors::simulate::PressLine;
/// let line = PressLine::new(7, 100.0, 3.0);
/// let stroke: Vec<f64> = (0..300).filter_map(|sample| line.value(0, 0, sample)).collect();
/// assert!(stroke.iter().any(|bar| *bar > 10.0) && stroke.iter().any(|bar| *bar < 2.0));
/// ```
#[derive(Clone, Debug)]
pub struct PressLine {
    seed: u64,
    rate_hz: f64,
    period_secs: f64,
    faults: Vec<Fault>,
}

impl PressLine {
    /// A line without faults, with `rate_hz` samples per second and signal and one stroke per `period_secs`.
    pub fn new(seed: u64, rate_hz: f64, period_secs: f64) -> Self {
        PressLine {
            seed,
            rate_hz,
            period_secs,
            faults: Vec::new(),
        }
    }

    /// The same line with these faults.
    #[must_use]
    pub fn with_faults(mut self, faults: Vec<Fault>) -> Self {
        self.faults = faults;
        self
    }

    /// The name of a machine, counted from 0: `press-1`, `press-2` and so on.
    pub fn machine_name(machine: usize) -> String {
        format!("press-{}", machine + 1)
    }

    /// Time of a sample in µs after the start.
    pub fn micros(&self, sample: u64) -> i64 {
        (sample as f64 * 1e6 / self.rate_hz).round() as i64
    }

    /// What a sensor shows; `None` while it has dropped out. `machine` counts from 0, `signal` is an index into
    /// [`SIGNALS`].
    pub fn value(&self, machine: usize, signal: usize, sample: u64) -> Option<f64> {
        let secs = sample as f64 / self.rate_hz;
        let mut effect = Effect::default();
        for fault in self.faults.iter().filter(|fault| fault.machine == machine) {
            fault.apply(signal, secs, self.shift_secs(machine), self.period_secs, &mut effect);
        }
        if effect.dropped_out {
            return None;
        }
        let (sample, secs) = match effect.stuck_since_secs {
            Some(since) => ((since * self.rate_hz).ceil() as u64, since),
            None => (sample, secs),
        };
        let clean = self.clean(machine, signal, secs, &effect);
        let noise = NOISE[signal] * self.normal(machine, signal, sample);
        Some(clean + effect.offset + noise * effect.noise_factor)
    }

    /// A sensor without noise.
    fn clean(&self, machine: usize, signal: usize, secs: f64, effect: &Effect) -> f64 {
        let cycles = (secs + self.shift_secs(machine)) / self.period_secs;
        let (cycle, at) = (cycles.floor(), cycles.fract());
        // No two strokes are equal: a little more or less force, a little quicker or slower.
        let force = 1.0 + 0.015 * self.normal(machine, 1, cycle as u64);
        let length = STROKE_SHARE * (1.0 + 0.01 * self.normal(machine, 2, cycle as u64)).clamp(0.9, 1.1);
        let through = ((at - STROKE_BEGIN) / length).clamp(0.0, 1.0);
        let load = if effect.missed_stroke { 0.0 } else { plateau(through) };
        let travel = if effect.missed_stroke {
            0.0
        } else {
            (0.5 - 0.5 * (TAU * through).cos()).powf(0.8)
        };
        let slow = (TAU * secs / 1800.0 + machine as f64).sin();
        match signal {
            PRESSURE => 1.0 + 11.0 * load * force * effect.pressure_factor,
            POSITION => 200.0 * (1.0 - travel),
            TEMPERATURE => 45.0 + 0.1 * slow + 0.8 * travel,
            VIBRATION => 0.6 + 2.2 * load * force + 0.5 * load * (TAU * 24.0 * secs).sin(),
            _ => 4.0 + 14.0 * load * force + 3.0 * travel,
        }
    }

    /// How far a machine is ahead of the line: machines don't strike together.
    fn shift_secs(&self, machine: usize) -> f64 {
        0.04 * self.period_secs * self.uniform(machine, 0, u64::MAX)
    }

    /// A standard normal number that belongs to this machine, stream and index.
    fn normal(&self, machine: usize, stream: usize, index: u64) -> f64 {
        let bits = self.bits(machine, stream, index);
        // The sum of four uniform numbers is near enough, and needs no logarithm.
        let sum: u64 = (0..4).map(|part| (bits >> (16 * part)) & 0xffff).sum();
        (sum as f64 / 65_536.0 - 2.0) * 3f64.sqrt()
    }

    fn uniform(&self, machine: usize, stream: usize, index: u64) -> f64 {
        (self.bits(machine, stream, index) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn bits(&self, machine: usize, stream: usize, index: u64) -> u64 {
        let place = ((machine as u64) << 8) ^ stream as u64;
        mix(mix(self.seed ^ place.wrapping_mul(0x9e37_79b9_7f4a_7c15)) ^ index)
    }
}

/// Where in a cycle the stroke begins, and how much of the cycle it takes.
const STROKE_BEGIN: f64 = 0.05;
const STROKE_SHARE: f64 = 0.6;

/// Standard deviation of each signal's noise, in its unit.
const NOISE: [f64; 5] = [0.08, 0.4, 0.1, 0.05, 0.12];

/// Steep up, high, steep down, 0 at both ends.
fn plateau(through: f64) -> f64 {
    let edge = |x: f64| {
        let x = (x / 0.15).clamp(0.0, 1.0);
        x * x * (3.0 - 2.0 * x)
    };
    edge(through) * edge(1.0 - through) * (0.9 + 0.1 * (TAU * through).sin())
}

/// Stirs 64 bits so that neighbours have nothing in common (the finaliser of SplitMix64, Steele et al. 2014).
fn mix(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::super::fault::FaultKind;
    use super::*;

    const RATE: f64 = 100.0;
    const PERIOD: f64 = 3.0;

    fn series(line: &PressLine, signal: usize, from_secs: f64, secs: f64) -> Vec<Option<f64>> {
        let from = (from_secs * RATE) as u64;
        (from..from + (secs * RATE) as u64)
            .map(|sample| line.value(0, signal, sample))
            .collect()
    }

    fn strokes(values: &[Option<f64>]) -> usize {
        let mut up = false;
        let mut strokes = 0;
        for value in values.iter().flatten() {
            if !up && *value > 5.0 {
                (up, strokes) = (true, strokes + 1);
            } else if up && *value < 3.0 {
                up = false;
            }
        }
        strokes
    }

    #[test]
    fn one_stroke_per_cycle() {
        for seed in 0..5 {
            let line = PressLine::new(seed, RATE, PERIOD);
            assert_eq!(strokes(&series(&line, PRESSURE, 0.0, 300.0)), 100, "seed {seed}");
        }
        let fast = PressLine::new(1, 20.0, 3.0);
        let values: Vec<_> = (0..6000).map(|sample| fast.value(3, PRESSURE, sample)).collect();
        assert_eq!(strokes(&values), 100);
    }

    #[test]
    fn values_belong_to_seed_machine_and_index() {
        let (a, b) = (PressLine::new(1, RATE, PERIOD), PressLine::new(2, RATE, PERIOD));
        assert_eq!(a.value(3, 2, 77), a.clone().value(3, 2, 77));
        assert_ne!(a.value(3, 2, 77), b.value(3, 2, 77));
        assert_ne!(a.value(3, 2, 77), a.value(4, 2, 77));
        let noise: Vec<f64> = (0..10_000).map(|index| a.normal(0, 0, index)).collect();
        let mean = noise.iter().sum::<f64>() / 1e4;
        let variance = noise.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 1e4;
        assert!(mean.abs() < 0.05 && (variance - 1.0).abs() < 0.05, "{mean} {variance}");
    }

    /// Root mean square of the change that a fault makes to each signal from 60 s on, in units of that signal's own
    /// spread from stroke to stroke.
    fn changes(fault: Fault) -> Vec<f64> {
        let good = PressLine::new(1, RATE, PERIOD);
        let bad = good.clone().with_faults(vec![fault]);
        let spread = |signal: usize| {
            let (one, next) = (series(&good, signal, 0.0, 30.0), series(&good, signal, 30.0, 30.0));
            rms(&one, &next)
        };
        (0..SIGNALS.len())
            .map(|signal| rms(&series(&good, signal, 62.0, 30.0), &series(&bad, signal, 62.0, 30.0)) / spread(signal))
            .collect()
    }

    fn rms(a: &[Option<f64>], b: &[Option<f64>]) -> f64 {
        let square = |(a, b): (&Option<f64>, &Option<f64>)| (a.unwrap_or_default() - b.unwrap_or_default()).powi(2);
        (a.iter().zip(b).map(square).sum::<f64>() / a.len() as f64).sqrt()
    }

    #[test]
    fn each_fault_changes_its_signal_most() {
        let check = |kind: FaultKind, signal: Option<usize>, expect: usize| {
            let fault = Fault {
                kind,
                machine: 0,
                signal,
                at_secs: 60.0,
                for_secs: None,
                size: 1.0,
            };
            let changes = changes(fault.clone());
            let most = (0..changes.len())
                .max_by(|a, b| changes[*a].total_cmp(&changes[*b]))
                .unwrap();
            assert_eq!(most, expect, "{kind:?}: {changes:?}");
            assert!(changes[most] > 1.5, "{kind:?}: {changes:?}");
        };
        check(FaultKind::Leak, None, PRESSURE);
        check(FaultKind::Wear, None, VIBRATION);
        check(FaultKind::Drift, None, TEMPERATURE);
        check(FaultKind::Stuck, Some(MOTOR_CURRENT), MOTOR_CURRENT);
        check(FaultKind::DropOut, Some(POSITION), POSITION);
    }

    #[test]
    fn stuck_missed_and_dropped_out() {
        let line = |kind, signal, for_secs| {
            let fault = Fault {
                kind,
                machine: 0,
                signal,
                at_secs: 60.0,
                for_secs,
                size: 1.0,
            };
            PressLine::new(1, RATE, PERIOD).with_faults(vec![fault])
        };
        let stuck = series(&line(FaultKind::Stuck, None, Some(5.0)), VIBRATION, 60.0, 6.0);
        assert!(stuck[..500].iter().all(|value| *value == stuck[0]) && stuck[550] != stuck[0]);
        let missed = line(FaultKind::MissedStroke, None, None);
        assert_eq!(strokes(&series(&missed, PRESSURE, 0.0, 300.0)), 99);
        let gone = line(FaultKind::DropOut, Some(TEMPERATURE), Some(1.0));
        assert_eq!(
            series(&gone, TEMPERATURE, 59.0, 3.0)
                .iter()
                .filter(|value| value.is_none())
                .count(),
            100
        );
        assert!(series(&gone, PRESSURE, 59.0, 3.0).iter().all(Option::is_some));
    }
}
