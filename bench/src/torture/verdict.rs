//! What the kills did: rows lost, rows twice, rows that are different.

use std::fmt;

use serde_json::Value;

use crate::history::Tables;
use crate::input;

/// The sum over all runs.
#[derive(Debug, Default)]
pub struct Verdict {
    /// How often it was killed.
    pub kills: u64,
    /// Data directories that were compared.
    pub runs: u64,
    /// Rows that were compared.
    pub rows: u64,
    /// In the oracle only.
    pub lost: u64,
    /// More often than in the oracle.
    pub twice: u64,
    /// In the run only.
    pub different: u64,
    /// Everything else that must not be, and the first rows of the above.
    pub faults: Vec<String>,
    /// What a reader should know.
    pub notes: Vec<String>,
}

/// Rows that are shown of a table that is wrong.
const SHOWN: usize = 3;

impl Verdict {
    /// True when nothing is wrong.
    pub fn good(&self) -> bool {
        self.faults.is_empty() && self.lost + self.twice + self.different == 0
    }

    /// Adds another's.
    pub fn add(&mut self, other: Verdict) {
        self.kills += other.kills;
        self.runs += other.runs;
        self.rows += other.rows;
        self.lost += other.lost;
        self.twice += other.twice;
        self.different += other.different;
        self.faults.extend(other.faults);
        self.notes.extend(other.notes);
    }

    /// Compares a run's tables with the oracle's. `whole`: the run has ended, nothing may be missing.
    pub fn compare(&mut self, run: &str, oracle: &Tables, found: &Tables, whole: bool) {
        let names = oracle
            .keys()
            .chain(found.keys().filter(|name| !oracle.contains_key(*name)));
        for name in names {
            let none = Vec::new();
            let (expected, rows) = (oracle.get(name).unwrap_or(&none), found.get(name).unwrap_or(&none));
            self.rows += rows.len() as u64;
            self.merge(&format!("{run}: {name}"), expected, rows, whole);
        }
    }

    /// Both are sorted.
    fn merge(&mut self, place: &str, expected: &[String], rows: &[String], whole: bool) {
        let (mut lost, mut twice, mut different) = (Vec::new(), Vec::new(), Vec::new());
        let (mut left, mut right) = (0, 0);
        while left < expected.len() || right < rows.len() {
            match (expected.get(left), rows.get(right)) {
                (Some(a), Some(b)) if a == b => (left, right) = (left + 1, right + 1),
                (Some(a), b) if b.is_none_or(|b| a < b) => {
                    lost.push(a);
                    left += 1;
                }
                (_, Some(b)) => {
                    let known = left > 0 && expected[left - 1] == *b;
                    if known { &mut twice } else { &mut different }.push(b);
                    right += 1;
                }
                (_, None) => break,
            }
        }
        if !whole {
            lost.clear();
        }
        for (what, rows, count) in [
            ("lost", lost, &mut self.lost),
            ("twice", twice, &mut self.twice),
            ("different", different, &mut self.different),
        ] {
            *count += rows.len() as u64;
            let shown = rows.iter().take(SHOWN);
            self.faults.extend(shown.map(|row| format!("{place}: {what}: {row}")));
        }
    }

    /// Holds every record among the samples against the values of its tick, without an oracle.
    pub fn check_records(&mut self, run: &str, found: &Tables) {
        let Some(samples) = found.get("samples") else { return };
        let mut ticks: std::collections::HashMap<(String, String), [Option<String>; 3]> = Default::default();
        for row in samples {
            let Ok(row) = serde_json::from_str::<Value>(row) else {
                continue;
            };
            let text = |key: &str| row[key].as_str().unwrap_or_default().to_owned();
            let (at, filled) = match text("signal").as_str() {
                "pressure" => (0, row["value"].as_f64().map(|value| format!("{value:.4}"))),
                "position" => (1, row["value"].as_f64().map(|value| format!("{value:.4}"))),
                _ => (2, Some(text("text"))),
            };
            ticks.entry((text("machine"), text("ts"))).or_default()[at] = filled;
        }
        for ((machine, ts), [pressure, position, said]) in ticks {
            let (Some(pressure), Some(position), Some(said)) = (pressure, position, said) else {
                self.different += 1;
                self.faults
                    .push(format!("{run}: {machine} at {ts}: a part of the record is missing"));
                continue;
            };
            let sequence = said
                .split(' ')
                .nth(1)
                .and_then(|number| number.parse().ok())
                .unwrap_or_default();
            if said != input::record(&machine, sequence, &pressure, &position) {
                self.different += 1;
                let fault = format!("{run}: {machine} at {ts}: {pressure}, {position} are not those of `{said}`");
                self.faults.push(fault);
            }
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        for fault in self.faults.iter().take(20) {
            writeln!(f, "{fault}")?;
        }
        let Verdict {
            kills,
            runs,
            rows,
            lost,
            twice,
            different,
            ..
        } = self;
        let other = match self.good() {
            true => String::new(),
            false => format!(", {} faults", self.faults.len()),
        };
        write!(
            f,
            "{kills} kills, {runs} runs, {rows} rows compared: {lost} rows lost, {twice} twice, {different} different{other}"
        )
    }
}
