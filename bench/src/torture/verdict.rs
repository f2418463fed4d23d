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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    /// `lost twice different` of one table.
    fn check(expected: &[&str], found: &[&str], whole: bool, expect: &str) {
        let rows = |rows: &[&str]| rows.iter().map(|row| (*row).to_owned()).collect::<Vec<_>>();
        let table = |found: &[&str]| Tables::from([("cycles".to_owned(), rows(found))]);
        let mut verdict = Verdict::default();
        verdict.compare("run", &table(expected), &table(found), whole);
        let Verdict {
            lost, twice, different, ..
        } = verdict;
        assert_eq!(format!("{lost} {twice} {different}"), expect, "{expected:?} {found:?}");
        assert_eq!(verdict.good(), expect == "0 0 0");
    }

    #[test]
    fn rows_are_compared_one_by_one() {
        check(&["a", "b", "b"], &["a", "b", "b"], true, "0 0 0");
        check(&["a", "b", "c"], &["a", "c"], true, "1 0 0");
        check(&["a", "b", "c"], &["a", "c"], false, "0 0 0");
        check(&["a", "b"], &["a", "a", "b", "b", "b"], true, "0 3 0");
        check(&["a", "b", "b"], &["a", "b", "b", "b"], false, "0 1 0");
        check(&["a", "c"], &["a", "b", "c"], true, "0 0 1");
        check(&["a"], &["b"], true, "1 0 1");
        check(&[], &["a"], false, "0 0 1");
        check(&["a", "b"], &[], true, "2 0 0");
    }

    #[test]
    fn a_table_that_is_missing_is_lost_and_one_too_many_is_different() {
        let table = |name: &str| Tables::from([(name.to_owned(), vec!["a".to_owned()])]);
        let mut verdict = Verdict::default();
        verdict.compare("run", &table("cycles"), &table("windows"), true);
        assert_eq!((verdict.lost, verdict.twice, verdict.different), (1, 0, 1));
    }

    #[test]
    fn a_changed_value_and_a_missing_part_show_without_an_oracle() {
        let record = input::record("press-0", 7, "1.2500", "2.5000");
        let row = |signal: &str, value: &str, text: &str| {
            format!(r#"{{"machine":"press-0","signal":"{signal}","ts":"t","value":{value},"text":"{text}"}}"#)
        };
        let check = |pressure: &str, rows: usize, expect: u64| {
            let all = [
                row("pressure", pressure, ""),
                row("position", "2.5", ""),
                row("record", "null", &record),
            ];
            let found = Tables::from([("samples".to_owned(), all[..rows].to_vec())]);
            let mut verdict = Verdict::default();
            verdict.check_records("run", &found);
            assert_eq!(verdict.different, expect, "{pressure} {rows}");
        };
        check("1.25", 3, 0);
        check("1.26", 3, 1);
        check("1.25", 2, 1);
    }
}
