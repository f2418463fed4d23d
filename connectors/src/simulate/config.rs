//! Settings of the `simulate` source as the pipeline file says them, and checked.

use schemars::JsonSchema;
use serde::Deserialize;
use taktline_engine::config::{Interval, Problem, Section};

use super::fault::{Fault, FaultKind};
use super::press_line::{PressLine, SIGNALS};
use crate::replay::Replay;

/// A simulated press line: each press sends `pressure`, `position`, `temperature`, `vibration` and `motor_current`, and
/// makes one stroke per cycle. The same settings give the same values for ever.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SimulateConfig {
    /// How many presses: `press-1`, `press-2` and so on. Default 1.
    #[schemars(range(min = 1, max = 100_000))]
    machines: Option<u32>,
    /// Samples per second of each signal. Default 100.
    rate: Option<f64>,
    /// Time from stroke to stroke. Default 3s.
    period: Option<Interval>,
    /// Another seed gives other noise. Default 1.
    seed: Option<u64>,
    /// Time of the first sample, like 2026-01-01T00:00:00Z. Default: that time with `replay: max`, else now.
    start: Option<String>,
    /// How long it goes on, in the line's own time. For ever by default.
    duration: Option<Interval>,
    /// How fast: `realtime` (default), `x10`, or `max`.
    replay: Option<Replay>,
    /// What goes wrong, and when.
    #[serde(default)]
    faults: Vec<FaultConfig>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct FaultConfig {
    /// What goes wrong: `wear` (vibration), `leak` (pressure), `stuck`, `missed_stroke`, `drift` or `drop_out`.
    #[schemars(schema_with = "kind_names")]
    kind: FaultKind,
    /// The press. Default press-1.
    machine: Option<String>,
    /// The sensor, for `stuck` and `drop_out` (default vibration) and `drift` (default temperature).
    signal: Option<String>,
    /// When it begins, after the start.
    at: Interval,
    /// How long it stays. For ever by default; `missed_stroke`: one cycle.
    #[serde(rename = "for")]
    length: Option<Interval>,
    /// How bad it is; 1 (default) is clearly visible.
    size: Option<f64>,
}

/// The kinds as a plain list of names, so that a wrong one is answered with the nearest.
fn kind_names(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let names = ["wear", "leak", "stuck", "missed_stroke", "drift", "drop_out"];
    schemars::json_schema!({"type": "string", "enum": names})
}

/// Checked settings.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub line: PressLine,
    pub machines: usize,
    pub rate_hz: f64,
    /// µs since 1970; `None` for now.
    pub start: Option<i64>,
    /// Samples of each signal; `None` for ever.
    pub samples: Option<u64>,
    pub replay: Replay,
}

const FIXED_START: i64 = 1_767_225_600_000_000;

impl Settings {
    /// Reads and checks a section.
    ///
    /// # Errors
    /// All that is wrong with it.
    pub fn of(section: &Section) -> Result<Self, Vec<Problem>> {
        let config: SimulateConfig = section.parse()?;
        let mut problems = Vec::new();
        let machines = config.machines.unwrap_or(1) as usize;
        if !(1..=100_000).contains(&machines) {
            problems.push(Problem::at("machines", "must be 1 to 100000"));
        }
        let rate_hz = config.rate.unwrap_or(100.0);
        if !(rate_hz.is_finite() && (1e-3..=1e6).contains(&rate_hz)) {
            problems
                .push(Problem::at("rate", format!("{rate_hz} samples per second is no rate")).hint("0.001 to 1000000"));
        }
        let period_secs = config.period.map_or(3.0, secs);
        if period_secs <= 0.0 {
            problems.push(Problem::at("period", "must be more than nothing"));
        }
        let replay = config.replay.unwrap_or(Replay::Times(1.0));
        let start = match &config.start {
            None => (replay == Replay::Max).then_some(FIXED_START),
            Some(text) => match text.parse::<jiff::Timestamp>() {
                Ok(start) => Some(start.as_microsecond()),
                Err(_) => {
                    let problem = Problem::at("start", format!("`{text}` is no time"));
                    problems.push(problem.hint("write it like 2026-01-01T00:00:00Z"));
                    None
                }
            },
        };
        let faults: Vec<Fault> = config
            .faults
            .iter()
            .enumerate()
            .filter_map(|(index, fault)| checked(fault, index, machines, &mut problems))
            .collect();
        if !problems.is_empty() {
            return Err(problems);
        }
        Ok(Settings {
            line: PressLine::new(config.seed.unwrap_or(1), rate_hz, period_secs).with_faults(faults),
            machines,
            rate_hz,
            start,
            samples: config.duration.map(|duration| (secs(duration) * rate_hz).ceil() as u64),
            replay,
        })
    }
}

fn checked(config: &FaultConfig, index: usize, machines: usize, problems: &mut Vec<Problem>) -> Option<Fault> {
    let before = problems.len();
    let machine = match &config.machine {
        None => Some(0),
        Some(name) => (0..machines).find(|machine| PressLine::machine_name(*machine) == *name),
    };
    if machine.is_none() {
        let problem = Problem::at(&format!("faults.{index}.machine"), "there is no such press");
        problems.push(problem.hint(format!("press-1 to press-{machines}")));
    }
    let signal = config
        .signal
        .as_ref()
        .and_then(|name| SIGNALS.iter().position(|signal| signal == name));
    match &config.signal {
        Some(name) if signal.is_none() => {
            let problem = Problem::at(&format!("faults.{index}.signal"), format!("unknown signal `{name}`"));
            problems.push(problem.did_you_mean(name, SIGNALS));
        }
        Some(_) if !config.kind.takes_signal() && signal != Some(config.kind.usual_signal()) => {
            let usual = SIGNALS[config.kind.usual_signal()];
            let problem = Problem::at(
                &format!("faults.{index}.signal"),
                format!("this fault is about {usual}"),
            );
            problems.push(problem.hint("stuck, drift and drop_out take a signal"));
        }
        _ => {}
    }
    let size = config.size.unwrap_or(1.0);
    if !(size.is_finite() && size > 0.0) {
        problems.push(Problem::at(&format!("faults.{index}.size"), "must be more than 0"));
    }
    (problems.len() == before).then_some(Fault {
        kind: config.kind,
        machine: machine?,
        signal,
        at_secs: secs(config.at),
        for_secs: config.length.map(secs),
        size,
    })
}

fn secs(interval: Interval) -> f64 {
    interval.micros() as f64 / 1e6
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn check(yaml: &str, expect: &[&str]) {
        let found = match Settings::of(&Section::from_yaml("line", yaml)) {
            Ok(_) => Vec::new(),
            Err(problems) => problems
                .iter()
                .map(|p| format!("{}: {}", p.path.join("."), p.message))
                .collect(),
        };
        assert_eq!(found, expect, "{yaml}");
    }

    #[test]
    fn settings() {
        check("{}", &[]);
        check(
            "{machines: 4, rate: 50, period: 2s, seed: 7, replay: max, duration: 10s, start: 2026-01-01T00:00:00Z}",
            &[],
        );
        check(
            "{machines: 2, faults: [{kind: stuck, machine: press-2, signal: position, at: 60s, for: 5s, size: 2}]}",
            &[],
        );
        check(
            "{machines: 0, rate: 0, period: 0s, start: soon}",
            &[
                "machines: must be 1 to 100000",
                "rate: 0 samples per second is no rate",
                "period: must be more than nothing",
                "start: `soon` is no time",
            ],
        );
        check(
            "{faults: [{kind: leak, at: 1s, machine: press-2, signal: position, size: 0}, \
             {kind: drift, at: 1s, signal: presure}]}",
            &[
                "faults.0.machine: there is no such press",
                "faults.0.signal: this fault is about pressure",
                "faults.0.size: must be more than 0",
                "faults.1.signal: unknown signal `presure`",
            ],
        );
    }
}
