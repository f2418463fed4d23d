//! Faults of a simulated press, and what each does to the sensors.

use serde::Deserialize;

use super::press_line::{PRESSURE, TEMPERATURE, VIBRATION};

/// What is wrong with a press.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// A worn bearing: vibration grows over a minute and becomes rougher.
    Wear,
    /// A leaking cylinder: the pressure no longer reaches its height.
    Leak,
    /// A sensor shows its last value for ever.
    Stuck,
    /// One cycle without a stroke; with `for`, all cycles that begin in that time.
    MissedStroke,
    /// A sensor drifts away, by `size` times its usual noise and more each minute.
    Drift,
    /// A sensor sends nothing.
    DropOut,
}

impl FaultKind {
    /// The signal that the fault is about where none is named.
    pub fn usual_signal(self) -> usize {
        match self {
            FaultKind::Wear | FaultKind::Stuck | FaultKind::DropOut => VIBRATION,
            FaultKind::Leak | FaultKind::MissedStroke => PRESSURE,
            FaultKind::Drift => TEMPERATURE,
        }
    }

    /// True where another signal may be named.
    pub fn takes_signal(self) -> bool {
        matches!(self, FaultKind::Stuck | FaultKind::Drift | FaultKind::DropOut)
    }
}

/// A fault of one press.
#[derive(Clone, Debug)]
pub struct Fault {
    /// What is wrong.
    pub kind: FaultKind,
    /// The machine, counted from 0.
    pub machine: usize,
    /// The signal, an index into [`SIGNALS`](super::SIGNALS); the kind's usual one if `None`.
    pub signal: Option<usize>,
    /// When it begins, in seconds after the start.
    pub at_secs: f64,
    /// How long it stays; for ever if `None`.
    pub for_secs: Option<f64>,
    /// How bad it is; 1 is clearly visible.
    pub size: f64,
}

/// What all faults of a machine do to one sensor at one moment.
#[derive(Clone, Debug)]
pub(super) struct Effect {
    pub dropped_out: bool,
    pub stuck_since_secs: Option<f64>,
    pub missed_stroke: bool,
    pub pressure_factor: f64,
    pub noise_factor: f64,
    pub offset: f64,
}

impl Default for Effect {
    fn default() -> Self {
        Effect {
            dropped_out: false,
            stuck_since_secs: None,
            missed_stroke: false,
            pressure_factor: 1.0,
            noise_factor: 1.0,
            offset: 0.0,
        }
    }
}

/// What a drift of size 1 adds at once and per minute, in each signal's unit.
const DRIFT: [f64; 5] = [1.0, 10.0, 4.0, 0.8, 2.0];

impl Fault {
    /// Adds this fault's effect on `signal` at `secs` after the start, for a machine that is `shift_secs` ahead.
    pub(super) fn apply(&self, signal: usize, secs: f64, shift_secs: f64, period_secs: f64, effect: &mut Effect) {
        // A missed stroke is a matter of whole cycles: the one that begins at or after the fault's time.
        let (begin, length) = if self.kind == FaultKind::MissedStroke {
            let begin = ((self.at_secs + shift_secs) / period_secs).ceil() * period_secs - shift_secs;
            (begin, Some(self.for_secs.unwrap_or(period_secs).max(period_secs)))
        } else {
            (self.at_secs, self.for_secs)
        };
        let since = secs - begin;
        if since < 0.0 || length.is_some_and(|length| since >= length) {
            return;
        }
        let about_this = signal == self.signal.unwrap_or_else(|| self.kind.usual_signal());
        let growth = (0.5 + since / 60.0).min(2.0);
        match self.kind {
            FaultKind::MissedStroke => effect.missed_stroke = true,
            FaultKind::Leak => effect.pressure_factor *= (1.0 - 0.25 * self.size * growth).max(0.5),
            _ if !about_this => {}
            FaultKind::Wear => {
                effect.offset += 1.2 * self.size * growth;
                effect.noise_factor *= 1.0 + 8.0 * self.size * growth;
            }
            FaultKind::Stuck => effect.stuck_since_secs = Some(begin),
            FaultKind::Drift => effect.offset += DRIFT[signal] * self.size * (1.0 + since / 60.0),
            FaultKind::DropOut => effect.dropped_out = true,
        }
    }
}
