//! The head of a text file with delimited columns.

use super::Proposal;
use super::file::Head;

/// Its cells, and the lines of a `file` source about its marks.
pub(super) fn read(lines: &[&str], proposal: &mut Proposal) -> Head {
    let delimiter = delimiter(lines);
    let split = |line: &&str| -> Vec<String> {
        line.split(delimiter)
            .map(|cell| cell.trim().trim_matches('"').trim().to_owned())
            .collect()
    };
    let mut rows: Vec<Vec<String>> = lines.iter().map(split).collect();
    let head = Head {
        columns: rows.remove(0),
        rows,
    };
    match delimiter {
        ',' => {}
        '\t' => proposal.line("delimiter: tab", None),
        other => proposal.line(format!("delimiter: {:?}", other.to_string()), None),
    }
    let comma = |cell: &String| cell.contains(',') && cell.replacen(',', ".", 1).parse::<f64>().is_ok();
    if delimiter != ',' && head.rows.iter().flatten().any(comma) {
        proposal.line("decimal: \",\"", Some("numbers are written like 1,5".into()));
    }
    head
}

/// The one that stands equally often, and most often, in all lines.
fn delimiter(lines: &[&str]) -> char {
    let fewest = |mark: char| lines.iter().map(|line| line.matches(mark).count()).min().unwrap_or(0);
    let even = |mark: char| lines.iter().all(|line| line.matches(mark).count() == fewest(mark));
    let marks = [';', '\t', '|', ','];
    let ranked = marks.into_iter().filter(|mark| fewest(*mark) > 0);
    ranked.max_by_key(|mark| (even(*mark), fewest(*mark))).unwrap_or(',')
}
