//! The head of a text file with delimited columns.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, ensure};

use super::payload::unit_of_text;
use super::{Proposal, quoted};
use crate::time::Unit;

/// Bytes of a file that are looked at.
const HEAD: u64 = 1 << 20;
/// Lines of them.
const LINES: usize = 1000;

const MACHINES: [&str; 6] = ["machine", "machine_id", "device", "device_id", "asset", "unit_id"];
const SIGNALS: [&str; 5] = ["signal", "sensor", "tag", "metric", "variable"];
const VALUES: [&str; 3] = ["value", "val", "reading"];

/// The lines of a `file` source for a file: CSV by its head; Parquet and NDJSON name their columns themselves.
///
/// # Errors
/// The file can't be read, or has no columns.
pub fn propose(path: &Path) -> anyhow::Result<Proposal> {
    let mut head = Vec::new();
    let file = std::fs::File::open(path).with_context(|| path.display().to_string())?;
    file.take(HEAD).read_to_end(&mut head)?;
    let stem = path
        .file_stem()
        .map_or("machine-1".into(), |stem| stem.to_string_lossy().into_owned());
    let mut proposal = Proposal::default();
    proposal.line(format!("path: {}", quoted(&path.display().to_string())), None);
    let text = String::from_utf8_lossy(&head);
    // The last line may be cut.
    let whole = if head.len() as u64 == HEAD {
        text.rsplit_once('\n').map_or(&*text, |(whole, _)| whole)
    } else {
        &*text
    };
    let lines: Vec<&str> = whole
        .lines()
        .filter(|line| !line.trim().is_empty())
        .take(LINES)
        .collect();
    ensure!(
        lines.len() > 1,
        "{}: a header and a row are needed to guess by",
        path.display()
    );
    columns(&lines, &stem, &mut proposal);
    Ok(proposal)
}

fn columns(lines: &[&str], stem: &str, proposal: &mut Proposal) {
    let delimiter = delimiter(lines);
    let split = |line: &str| -> Vec<String> {
        line.split(delimiter)
            .map(|cell| cell.trim().trim_matches('"').trim().to_owned())
            .collect()
    };
    let header = split(lines[0]);
    let rows: Vec<Vec<String>> = lines[1..].iter().map(|line| split(line)).collect();
    let named: Vec<&str> = header
        .iter()
        .map(String::as_str)
        .filter(|name| !name.is_empty())
        .collect();
    proposal
        .seen
        .push(format!("{} columns: {}", named.len(), named.join(", ")));
    match delimiter {
        ',' => {}
        '\t' => proposal.line("delimiter: tab", None),
        other => proposal.line(format!("delimiter: {:?}", other.to_string()), None),
    }
    let comma = |cell: &String| cell.contains(',') && cell.replacen(',', ".", 1).parse::<f64>().is_ok();
    if delimiter != ',' && rows.iter().flatten().any(comma) {
        proposal.line("decimal: \",\"", Some("numbers are written like 1,5".into()));
    }
    let find = |names: &[&str]| {
        let is = |name: &&String| names.contains(&name.to_lowercase().as_str());
        header.iter().find(is)
    };
    match find(&MACHINES) {
        Some(name) => proposal.line(format!("machine: {{column: {}}}", quoted(name)), None),
        None => {
            let reason = "no column names a machine: all rows are of one".to_owned();
            proposal.line(format!("machine: {{constant: {}}}", quoted(stem)), Some(reason));
        }
    }
    match time_column(&header, &rows) {
        Some((name, unit)) => {
            let reason = format!("`{name}` looks like a time");
            proposal.line(
                format!("time: {{column: {}, unit: {}}}", quoted(name), unit.name()),
                Some(reason),
            );
        }
        None => {
            let reason =
                "no column looks like a time: rows are taken to come once a second; set `rate` to what is true"
                    .to_owned();
            proposal.line("time: {start: 2024-01-01T00:00:00Z, rate: 1}", Some(reason));
        }
    }
    match (find(&SIGNALS), find(&VALUES)) {
        (Some(signal), Some(value)) => {
            let reason = "a row is one reading of one signal".to_owned();
            let line = format!("layout: long, signal: {}, value: {}", quoted(signal), quoted(value));
            line.split(", ").enumerate().for_each(|(at, line)| {
                proposal.line(line, (at == 0).then(|| reason.clone()));
            });
        }
        _ => proposal.line(
            "layout: wide",
            Some("a row has one time and a column for each signal".into()),
        ),
    }
}

/// The one that stands equally often, and most often, in all lines.
fn delimiter(lines: &[&str]) -> char {
    let fewest = |mark: char| lines.iter().map(|line| line.matches(mark).count()).min().unwrap_or(0);
    let even = |mark: char| lines.iter().all(|line| line.matches(mark).count() == fewest(mark));
    let marks = [';', '\t', '|', ','];
    let ranked = marks.into_iter().filter(|mark| fewest(*mark) > 0);
    ranked.max_by_key(|mark| (even(*mark), fewest(*mark))).unwrap_or(',')
}

fn time_column<'h>(header: &'h [String], rows: &[Vec<String>]) -> Option<(&'h str, Unit)> {
    header.iter().enumerate().find_map(|(at, name)| {
        let cells: Vec<&str> = rows.iter().filter_map(|row| row.get(at)).map(String::as_str).collect();
        let unit = |cell: &&str| unit_of_text(cell);
        let first = cells.first().and_then(unit)?;
        let most = cells.iter().filter(|cell| unit(cell) == Some(first)).count();
        (most * 10 >= cells.len() * 9).then_some((name.as_str(), first))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let mut proposal = Proposal::default();
        columns(&text.lines().collect::<Vec<_>>(), "press", &mut proposal);
        let lines: Vec<String> = proposal.lines.into_iter().map(|(line, _)| line).collect();
        assert_eq!(lines.join("; "), expect, "{text}");
    }

    #[test]
    fn heads_of_files() {
        check(
            "machine,signal,ts,value\nm,force,1767225600000,1\nm,force,1767225600001,2",
            "machine: {column: machine}; time: {column: ts, unit: ms}; layout: long; signal: signal; value: value",
        );
        check(
            "Timestamp;temp;force\n2026-01-01 00:00:00;1,5;2\n2026-01-01 00:00:01;1,6;2",
            "delimiter: \";\"; decimal: \",\"; machine: {constant: press}; time: {column: Timestamp, unit: rfc3339}; layout: wide",
        );
        check(
            "batch_id,temp,ClockTime\n1,19.5,0\n1,19.6,1",
            "machine: {constant: press}; time: {start: 2024-01-01T00:00:00Z, rate: 1}; layout: wide",
        );
        check(
            "a\tb\n1\t2",
            "delimiter: tab; machine: {constant: press}; time: {start: 2024-01-01T00:00:00Z, rate: 1}; layout: wide",
        );
    }
}
