//! Lines of columns. A newline ends a line, also inside quotes, so that one stray quote costs one line.

use std::borrow::Cow;

use csv_core::{ReadRecordResult, ReaderBuilder};

use super::leaf::{Leaf, Object};
use super::query::{Document, Found, Query, Scalar};

/// How lines are cut.
#[derive(Clone, Debug)]
pub(crate) struct CsvForm {
    /// None: the first line of a payload names them.
    pub columns: Option<Vec<String>>,
    pub delimiter: u8,
    pub decimal_comma: bool,
}

/// A line as an object of its columns.
pub(crate) struct CsvLine<'c, 'j> {
    columns: &'c [String],
    fields: Vec<Cow<'j, str>>,
    decimal_comma: bool,
}

impl CsvForm {
    /// The fields of a line.
    ///
    /// # Errors
    /// The words for a dead letter.
    pub(crate) fn split<'j>(&self, line: &'j [u8]) -> Result<Vec<Cow<'j, str>>, String> {
        let text = std::str::from_utf8(line).map_err(|e| format!("the line is not UTF-8: {e}"))?;
        if !text.contains('"') {
            return Ok(text.split(self.delimiter as char).map(Cow::Borrowed).collect());
        }
        let mut reader = ReaderBuilder::new().delimiter(self.delimiter).build();
        let mut bytes = vec![0; line.len()];
        let mut ends = vec![0; line.len() + 1];
        let (mut result, mut count) = (ReadRecordResult::InputEmpty, 0);
        let mut written = 0;
        // The second call, without input, says that the record has ended.
        for input in [line, b""] {
            let (found, _, wrote, more) = reader.read_record(input, &mut bytes[written..], &mut ends[count..]);
            (result, written, count) = (found, written + wrote, count + more);
            if result == ReadRecordResult::Record {
                break;
            }
        }
        if result != ReadRecordResult::Record {
            return Err("the line's quotes can't be read".into());
        }
        let mut start = 0;
        let fields = ends[..count].iter().map(|end| {
            let field = bytes.get(start..*end).unwrap_or_default();
            start = *end;
            // Quotes are ASCII: what is left of UTF-8 is UTF-8.
            String::from_utf8_lossy(field).into_owned().into()
        });
        Ok(fields.collect())
    }

    /// A line under its columns.
    ///
    /// # Errors
    /// It has another number of fields.
    pub(crate) fn line<'c, 'j>(&self, columns: &'c [String], line: &'j [u8]) -> Result<CsvLine<'c, 'j>, String> {
        let fields = self.split(line)?;
        if fields.len() != columns.len() {
            let named = if self.columns.is_some() {
                "`decode.columns` names"
            } else {
                "the header names"
            };
            return Err(format!(
                "the line has {} fields, {named} {}; check `decode.delimiter`",
                fields.len(),
                columns.len()
            ));
        }
        Ok(CsvLine {
            columns,
            fields,
            decimal_comma: self.decimal_comma,
        })
    }
}

impl<'j> Document<'j> for CsvLine<'_, 'j> {
    fn find(&self, query: &Query, found: &mut Found<'j>) -> Result<(), String> {
        let members = self
            .columns
            .iter()
            .zip(&self.fields)
            .filter(|(column, _)| !column.is_empty());
        let members = members.map(|(column, field)| (column, Leaf(self.cell(field))));
        query.walk(Object::new(members), found).map_err(|e| e.to_string())
    }
}

impl<'j> CsvLine<'_, 'j> {
    /// A text, which is read as a number where it is one.
    fn cell(&self, field: &Cow<'j, str>) -> Scalar<'j> {
        let trimmed = field.trim_ascii();
        match trimmed {
            "" => Scalar::Null,
            "true" | "True" | "TRUE" => Scalar::Bool(true),
            "false" | "False" | "FALSE" => Scalar::Bool(false),
            _ if self.decimal_comma && trimmed.contains(',') => match fast_float2::parse(trimmed.replacen(',', ".", 1))
            {
                Ok(number) => Scalar::Float(number),
                Err(_) => Scalar::Text(field.clone()),
            },
            _ => Scalar::Text(field.clone()),
        }
    }
}

/// The lines of a payload that hold something, each with its place from 0.
pub(crate) fn lines(payload: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let payload = payload.strip_prefix(b"\xef\xbb\xbf").unwrap_or(payload);
    let lines = payload.split(|byte| *byte == b'\n');
    lines
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .enumerate()
        .filter(|(_, line)| !line.trim_ascii().is_empty())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn fields() {
        let check = |delimiter: u8, line: &str, expect: &[&str]| {
            let form = CsvForm {
                columns: None,
                delimiter,
                decimal_comma: false,
            };
            assert_eq!(form.split(line.as_bytes()).unwrap(), expect, "{line}");
        };
        check(b',', "a,b,,c", &["a", "b", "", "c"]);
        check(b';', "1,5;2", &["1,5", "2"]);
        check(b',', "\"a,b\",\"say \"\"hi\"\"\",c", &["a,b", "say \"hi\"", "c"]);
        check(b',', "\"a,b", &["a,b"]);
        check(b',', "a", &["a"]);
        check(b',', "\"\"", &[""]);
        check(b',', "\"ä\",ö", &["ä", "ö"]);
    }

    #[test]
    fn never_panics() {
        let form = CsvForm {
            columns: None,
            delimiter: b',',
            decimal_comma: true,
        };
        proptest::proptest!(|(line in "[a,\"1. ä]{0,30}")| { let _ = form.split(line.as_bytes()); });
    }
}
