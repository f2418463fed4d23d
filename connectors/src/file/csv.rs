//! CSV: the header, and lines to rows.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use taktline_engine::DeadLetters;

use super::block::{BlockView, is_blank};
use super::cell::{Cell, Numbers};
use super::columns::{Columns, MachineFrom, Shape, Sort, TimeFrom, WideColumn, resolve};
use super::config::Settings;
use super::time;
use crate::rows::Rows;

/// How far into a file the sorts of its columns are looked for.
const SORT_BYTES: u64 = 1 << 20;

/// A CSV file whose header has been read.
#[derive(Clone, Debug)]
pub(super) struct CsvFile {
    pub columns: Columns,
    /// Where the first row begins, in bytes.
    pub data_start: u64,
    delimiter: u8,
}

impl CsvFile {
    /// Reads the header; `None` for an empty file. The inner error says why this is no CSV file.
    ///
    /// # Errors
    /// The file can't be read or lacks a column.
    pub fn open(settings: &Settings, path: &Path, stem: &str) -> anyhow::Result<Result<Option<Self>, String>> {
        let mut head = Vec::new();
        let limit = SORT_BYTES.max(settings.max_line as u64);
        File::open(path)?.take(limit).read_to_end(&mut head)?;
        let bom = if head.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        let text = &head[bom..];
        if text.trim_ascii().is_empty() {
            return Ok(Ok(None));
        }
        let is_tsv = path
            .extension()
            .is_some_and(|ending| ending.eq_ignore_ascii_case("tsv"));
        let delimiter = settings.delimiter.unwrap_or(if is_tsv { b'\t' } else { b',' });
        let mut splitter = Splitter::new(delimiter);
        let (header, start) = match &settings.columns {
            Some(names) => (names.clone(), 0),
            None => {
                let end = memchr::memchr(b'\n', text);
                let whole = end.is_some() || (head.len() as u64) < limit;
                if !whole {
                    return Ok(Err(format!("no line end in the first {limit} bytes: no CSV file?")));
                }
                let line = without_cr(&text[..end.unwrap_or(text.len())]);
                let (bytes, spans) = splitter.split(line);
                let names = spans.iter().map(|span| String::from_utf8(bytes[span.range()].to_vec()));
                let Ok(names) = names.collect::<Result<Vec<_>, _>>() else {
                    return Ok(Err("the header is no UTF-8".into()));
                };
                (names, end.map_or(text.len(), |end| end + 1))
            }
        };
        let numbers = settings.numbers();
        let sorts = std::cell::LazyCell::new(|| {
            sorts(
                &text[start..],
                (head.len() as u64) < limit,
                header.len(),
                &numbers,
                &mut splitter,
            )
        });
        let columns = resolve(settings, &header, stem, |index| sorts.get(index).map(|(sort, _)| *sort))?;
        for warning in warnings(settings, path, &columns, |index| {
            sorts.get(index).and_then(|(_, cell)| cell.as_deref())
        }) {
            tracing::warn!("{warning}");
        }
        Ok(Ok(Some(CsvFile {
            columns,
            data_start: (bom + start) as u64,
            delimiter,
        })))
    }
}

/// What people write where there is no value; compared without regard to case.
const PLACEHOLDERS: [&str; 16] = [
    "n/a", "#n/a", "na", "n.a.", "k.a.", "null", "none", "nil", "-", "--", "---", "?", ".", "missing", "bad", "error",
];

/// Says which columns became texts because of a word that mostly stands for no value.
fn warnings<'s>(
    settings: &Settings,
    path: &Path,
    columns: &Columns,
    placeholder: impl Fn(usize) -> Option<&'s str>,
) -> Vec<String> {
    let Shape::Wide(wide) = &columns.shape else {
        return Vec::new();
    };
    let chosen = |column: &WideColumn| settings.text.iter().any(|name| name.trim() == column.name);
    let told = wide.iter().filter(|column| !chosen(column)).filter_map(|column| {
        let word = placeholder(column.index)?;
        Some(format!(
            "{}: column `{}` is read as text, since `{word}` is its first filled cell; write missing: ['{word}'] if its \
             cells are numbers, or text: [{}] to keep it so",
            path.display(),
            column.name,
            column.name
        ))
    });
    told.collect()
}

/// Each column's sort by its first filled cell, and that cell if it is a placeholder; a column without one holds numbers.
fn sorts(
    text: &[u8],
    whole: bool,
    fields: usize,
    numbers: &Numbers,
    splitter: &mut Splitter,
) -> Vec<(Sort, Option<String>)> {
    let mut found: Vec<Option<(Sort, Option<String>)>> = vec![None; fields];
    let end = if whole {
        text.len()
    } else {
        memchr::memrchr(b'\n', text).unwrap_or(0)
    };
    for line in text[..end].split(|byte| *byte == b'\n') {
        let (bytes, spans) = splitter.split(without_cr(line));
        if spans.len() != fields {
            continue;
        }
        for (sort, span) in found.iter_mut().zip(spans) {
            if sort.is_none() {
                let cell = &bytes[span.range()];
                *sort = match numbers.parse(cell) {
                    Cell::Number(_) => Some((Sort::Number, None)),
                    Cell::Bad => {
                        let word = String::from_utf8_lossy(cell.trim_ascii());
                        let is_placeholder = PLACEHOLDERS.iter().any(|known| known.eq_ignore_ascii_case(&word));
                        Some((Sort::Text, is_placeholder.then(|| word.into_owned())))
                    }
                    Cell::Empty => None,
                };
            }
        }
        if found.iter().all(Option::is_some) {
            break;
        }
    }
    found
        .into_iter()
        .map(|sort| sort.unwrap_or((Sort::Number, None)))
        .collect()
}

/// Decodes blocks of CSV text.
pub(super) struct CsvDecoder {
    numbers: Numbers,
    max_line: usize,
    spans: Vec<Span>,
}

impl CsvDecoder {
    pub fn new(settings: &Settings) -> Self {
        CsvDecoder {
            numbers: settings.numbers(),
            max_line: settings.max_line,
            spans: Vec::new(),
        }
    }

    /// Appends the block's rows; what can't be read goes to `dead` under the file's name.
    pub fn decode(
        &mut self,
        file: &CsvFile,
        block: BlockView<'_>,
        name: &str,
        rows: &mut Rows,
        dead: &mut DeadLetters,
    ) {
        let mut splitter = Splitter::new(file.delimiter);
        let mut spans = std::mem::take(&mut self.spans);
        let mut reader = LineReader::new(&file.columns, &self.numbers, rows);
        let text = block.bytes;
        let quotes = memchr::memchr(b'"', text).is_some();
        let mut row = block.first_row;
        let (mut line_start, mut field_start) = (0, 0);
        spans.clear();
        for at in memchr::memchr2_iter(file.delimiter, b'\n', text).chain([text.len()]) {
            let ends_field = text.get(at) == Some(&file.delimiter);
            if ends_field {
                spans.push(Span::of(field_start, at));
                field_start = at + 1;
                continue;
            }
            let line = without_cr(&text[line_start..at]);
            if !is_blank(line) {
                let offset = block.offset + line_start as u64;
                let mut refuse = |reason: &str| dead.push(name, offset, reason, line);
                if line.len() > self.max_line {
                    refuse(&format!("line of {} bytes is longer than max_line", line.len()));
                } else if quotes && memchr::memchr(b'"', line).is_some() {
                    let (bytes, spans) = splitter.split(line);
                    reader.line(bytes, spans, row, &mut refuse);
                } else {
                    spans.push(Span::of(field_start, line_start + line.len()));
                    reader.line(text, &spans, row, &mut refuse);
                }
                row += 1;
            }
            spans.clear();
            (line_start, field_start) = (at + 1, at + 1);
        }
        self.spans = spans;
    }
}

/// Turns the fields of one line into rows.
struct LineReader<'a> {
    columns: &'a Columns,
    numbers: &'a Numbers,
    rows: &'a mut Rows,
    /// The machine's number where it is the same in the whole file.
    machine: Option<i32>,
    /// Numbers of the signals of a wide file.
    signals: Vec<i32>,
}

impl<'a> LineReader<'a> {
    fn new(columns: &'a Columns, numbers: &'a Numbers, rows: &'a mut Rows) -> Self {
        let machine = match &columns.machine {
            MachineFrom::Fixed(name) => rows.machines.number(name.as_bytes()),
            MachineFrom::Column(_) => None,
        };
        let signals = match &columns.shape {
            Shape::Wide(wide) => wide
                .iter()
                .filter_map(|column| rows.signals.number(column.name.as_bytes()))
                .collect(),
            Shape::Long { .. } => Vec::new(),
        };
        LineReader {
            columns,
            numbers,
            rows,
            machine,
            signals,
        }
    }

    #[inline]
    fn line(&mut self, bytes: &[u8], spans: &[Span], row: u64, refuse: &mut impl FnMut(&str)) {
        if spans.len() != self.columns.fields {
            return refuse(&format!("{} fields instead of {}", spans.len(), self.columns.fields));
        }
        let cell = |index: usize| &bytes[spans[index].range()];
        let machine = match (&self.columns.machine, self.machine) {
            (MachineFrom::Column(index), _) => self.rows.machines.number(cell(*index)),
            (_, fixed) => fixed,
        };
        let Some(machine) = machine else {
            return refuse("the machine's name is empty or no UTF-8");
        };
        let ts = match self.columns.time {
            TimeFrom::Index { start, rate } => TimeFrom::of_index(start, rate, row),
            TimeFrom::Column(index, unit) => match time::parse(cell(index).trim_ascii(), unit) {
                Some(ts) => ts,
                None => return refuse(&format!("`{}` is no {}", shown(cell(index)), unit.words())),
            },
        };
        if let Err(reason) = time::plausible(ts) {
            return refuse(&reason);
        }
        match &self.columns.shape {
            Shape::Long { signal, value, text } => {
                let Some(signal) = self.rows.signals.number(cell(*signal)) else {
                    return refuse("the signal's name is empty or no UTF-8");
                };
                let value = match value.map(|index| (index, self.numbers.parse(cell(index)))) {
                    None | Some((_, Cell::Empty)) => None,
                    Some((_, Cell::Number(value))) => Some(value),
                    Some((index, Cell::Bad)) => return refuse(&format!("value `{}` is no number", shown(cell(index)))),
                };
                let Some(text) = text else {
                    return self.rows.push(machine, signal, ts, value);
                };
                let text = cell(*text).trim_ascii();
                match std::str::from_utf8(text) {
                    Ok(_) if self.numbers.is_missing(text) => self.rows.push(machine, signal, ts, value),
                    Ok(text) => self.rows.push_text(machine, signal, ts, value, Some(text)),
                    Err(_) => refuse("the text is no UTF-8"),
                }
            }
            Shape::Wide(wide) => {
                for (column, &signal) in wide.iter().zip(&self.signals) {
                    let bad =
                        |what: &str| format!("column `{}`: `{}` is no {what}", column.name, shown(cell(column.index)));
                    match wide_cell(column, cell(column.index), self.numbers) {
                        Ok((value, None)) => self.rows.push(machine, signal, ts, value),
                        Ok((value, text)) => self.rows.push_text(machine, signal, ts, value, text),
                        Err(what) => refuse(&bad(what)),
                    }
                }
            }
        }
    }
}

#[inline]
fn wide_cell<'c>(
    column: &WideColumn,
    cell: &'c [u8],
    numbers: &Numbers,
) -> Result<(Option<f64>, Option<&'c str>), &'static str> {
    if column.sort == Sort::Number {
        return match numbers.parse(cell) {
            Cell::Number(value) => Ok((Some(value), None)),
            Cell::Empty => Ok((None, None)),
            Cell::Bad => Err("number"),
        };
    }
    let cell = cell.trim_ascii();
    if numbers.is_missing(cell) {
        return Ok((None, None));
    }
    std::str::from_utf8(cell)
        .map(|text| (None, Some(text)))
        .map_err(|_| "UTF-8")
}

/// The first characters of a cell, for messages.
pub(super) fn shown(cell: &[u8]) -> String {
    let text = String::from_utf8_lossy(&cell[..cell.len().min(160)]);
    text.chars().take(40).collect()
}

/// A field: bytes from `start` to before `end`.
#[derive(Clone, Copy, Debug)]
struct Span {
    start: u32,
    end: u32,
}

impl Span {
    #[inline]
    fn of(start: usize, end: usize) -> Self {
        Span {
            start: start as u32,
            end: end as u32,
        }
    }

    #[inline]
    fn range(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// Splits lines that may have quotes.
struct Splitter {
    delimiter: u8,
    bytes: Vec<u8>,
    ends: Vec<usize>,
    spans: Vec<Span>,
}

impl Splitter {
    fn new(delimiter: u8) -> Self {
        Splitter {
            delimiter,
            bytes: Vec::new(),
            ends: Vec::new(),
            spans: Vec::new(),
        }
    }

    /// The fields of a line as spans of the bytes beside them. An open quote ends with the line.
    fn split(&mut self, line: &[u8]) -> (&[u8], &[Span]) {
        // A field more than there are delimiters, and one byte as room for an empty line.
        let fields = 1 + memchr::memchr_iter(self.delimiter, line).count();
        self.bytes.resize(line.len() + 1, 0);
        self.ends.resize(fields + 1, 0);
        // The lines are cut already; by default a lone carriage return would end one.
        let mut reader = csv_core::ReaderBuilder::new()
            .delimiter(self.delimiter)
            .terminator(csv_core::Terminator::Any(b'\n'))
            .build();
        let (_, _, written, ended) = reader.read_record(line, &mut self.bytes, &mut self.ends);
        // The end of the input ends the last field.
        let (_, _, _, last) = reader.read_record(&[], &mut self.bytes[written..], &mut self.ends[ended..]);
        self.spans.clear();
        let mut start = 0;
        for &end in &self.ends[..ended + last] {
            self.spans.push(Span::of(start, end));
            start = end;
        }
        (&self.bytes, &self.spans)
    }
}

/// A line without the carriage return of a CRLF line end.
#[inline]
fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use taktline_engine::config::Section;

    #[test]
    fn a_placeholder_that_makes_a_text_column_is_told() {
        let check = |text: &str, rest: &str, expect: &[&str]| {
            let settings = Settings::of(&Section::from_yaml(
                "s",
                &format!("{{path: a.csv, time: {{column: t}}, {rest}}}"),
            ));
            let settings = settings.unwrap();
            let mut splitter = Splitter::new(b',');
            let header: Vec<String> = ["t", "a", "b"].map(String::from).to_vec();
            let sorts = sorts(text.as_bytes(), true, 3, &settings.numbers(), &mut splitter);
            let columns = resolve(&settings, &header, "a", |index| Some(sorts[index].0)).unwrap();
            let told = warnings(&settings, Path::new("a.csv"), &columns, |index| {
                sorts[index].1.as_deref()
            });
            let starts: Vec<&str> = told
                .iter()
                .filter_map(|warning| warning.split(" is read").next())
                .collect();
            assert_eq!(starts, expect, "{text:?} {rest}");
        };
        check("1,N/A,on\n2,5,off\n", "", &["a.csv: column `a`"]);
        check("1,,-\n2,null,1\n", "", &["a.csv: column `a`", "a.csv: column `b`"]);
        check("1,N/A,on\n2,5,off\n", "text: a", &[]);
        check("1,N/A,on\n2,5,off\n", "missing: [N/A]", &[]);
        check("1,N/A,2\n2,5,3\n", "signals: [b]", &[]);
    }
}
