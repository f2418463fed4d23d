//! JSON bodies: cut into rows, so that a bad one costs itself only. What a row means, `members` says.

use std::borrow::Cow;

use serde::de::IgnoredAny;

use super::members::Members;
use super::verdicts::Verdicts;
use crate::codec::csv::lines;
use crate::codec::json::JsonDocument;
use crate::codec::query::Found;
use crate::time::Unit;

/// Reads rows from JSON.
pub(super) struct JsonRows<'m> {
    pub members: &'m Members,
    /// What numbers in times count.
    pub unit: Unit,
}

impl JsonRows<'_> {
    /// A list of rows, or rows one after another.
    ///
    /// # Errors
    /// The body as a whole is no JSON; then nothing of it may be used.
    pub(super) fn document(&self, body: &[u8], verdicts: &mut Verdicts<'_>) -> Result<(), String> {
        match body.trim_ascii_start().first() {
            Some(b'[') => {
                self.rows(elements(body)?.into_iter().enumerate(), verdicts);
                Ok(())
            }
            Some(b'{') => self.objects(body, verdicts),
            _ => Err("the body is no JSON object and no list of them".into()),
        }
    }

    /// A row on each line; blank lines don't count.
    pub(super) fn lines(&self, body: &[u8], verdicts: &mut Verdicts<'_>) {
        self.rows(lines(body), verdicts);
    }

    /// One object, which may stand on many lines, or one on each line.
    fn objects(&self, body: &[u8], verdicts: &mut Verdicts<'_>) -> Result<(), String> {
        match serde_json::from_slice::<IgnoredAny>(body) {
            Ok(_) => {
                self.rows(std::iter::once((0, body)), verdicts);
                Ok(())
            }
            Err(error) => {
                let body = body.trim_ascii();
                let first = body
                    .split(|byte| *byte == b'\n')
                    .next()
                    .unwrap_or_default()
                    .trim_ascii_end();
                if first.len() == body.len() || !first.ends_with(b"}") {
                    return Err(format!("not JSON: {error}"));
                }
                self.lines(body, verdicts);
                Ok(())
            }
        }
    }

    fn rows<'j>(&self, rows: impl Iterator<Item = (usize, &'j [u8])>, verdicts: &mut Verdicts<'_>) {
        let mut found = Found::default();
        for (index, row) in rows {
            let shown = |_: &Found<'j>| Cow::Borrowed(row.trim_ascii());
            self.members
                .take((index, &JsonDocument(row)), self.unit, &mut found, verdicts, shown);
        }
    }
}

/// The elements of a list, each as it stands. They are not looked into, so that a bad one costs itself only.
fn elements(body: &[u8]) -> Result<Vec<&[u8]>, String> {
    let body = body.trim_ascii();
    let (mut found, mut start, mut depth) = (Vec::new(), 1, 0_usize);
    let (mut in_text, mut escaped, mut ended) = (false, false, false);
    for (at, byte) in body.iter().enumerate() {
        if ended {
            return Err("something stands behind the list".into());
        }
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => depth += 1,
            b',' if depth == 1 => {
                found.push(body[start..at].trim_ascii());
                start = at + 1;
            }
            b']' | b'}' => {
                depth = depth.checked_sub(1).ok_or("a bracket closes what was not opened")?;
                if depth == 0 {
                    let last = body[start..at].trim_ascii();
                    if !last.is_empty() || !found.is_empty() {
                        found.push(last);
                    }
                    ended = true;
                }
            }
            _ => {}
        }
    }
    if ended {
        Ok(found)
    } else {
        Err("the list is not closed: the body may have been cut".into())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::codec::signals::Signals;
    use crate::http::catalogue::{Stream, StreamConfig};
    use crate::http::verdicts::shown;

    const NOW: i64 = 1_767_323_045_000_000;

    fn read(body: &[u8], lines: bool) -> String {
        let config: StreamConfig = serde_json::from_str(r#"{"signals": ["t", "p", "state"]}"#).unwrap();
        let stream = Stream::new("press-1", &config).unwrap();
        let (signals, members) = (Signals::default(), Members::new().unwrap());
        let mut verdicts = Verdicts::new(&stream, ("plc", &signals), NOW);
        let json = JsonRows {
            members: &members,
            unit: Unit::Ms,
        };
        if lines {
            json.lines(body, &mut verdicts);
        } else if let Err(error) = json.document(body, &mut verdicts) {
            return format!("error: {error}");
        }
        shown(verdicts)
    }

    #[test]
    fn documents() {
        let check = |body: &str, expect: &[&str]| assert_eq!(read(body.as_bytes(), false), expect.join("\n"), "{body}");
        check(r#"{"t": 21.5}"#, &["press-1 t 0 21.5"]);
        check("\n {\"t\":\n 21.5}\n", &["press-1 t 0 21.5"]);
        check(
            r#"{"t": 21, "p": true, "state": "run", "ts": 1767323044000, "machine": "m"}"#,
            &["m t -1000000 21", "m p -1000000 1", "m state -1000000 'run'"],
        );
        check(
            r#"[{"signal": "t", "value": 1}, {"signal": "state", "text": "a,]\"", "time": "2026-01-02T03:04:04Z"}]"#,
            &["press-1 t 0 1", "press-1 state -1000000 'a,]\"'"],
        );
        check("{\"t\": 1}\n{\"t\": 2}\n", &["press-1 t 0 1", "press-1 t 0 2"]);
        check(r#"{"signal": "t", "value": null}"#, &["press-1 t 0 -"]);
        check("[]", &[]);
        check(r#"{"t": 1, "timestamp_ms": 1767323045000.5}"#, &["press-1 t 500 1"]);
    }

    #[test]
    fn a_bad_row_costs_one_row() {
        let check = |body: &str, expect: &[&str]| {
            let got = read(body.as_bytes(), false);
            let lines: Vec<&str> = got.lines().collect();
            assert_eq!(lines.len(), expect.len(), "{body}: {got}");
            for (line, part) in lines.iter().zip(expect) {
                assert!(line.contains(part), "{body}: {line}: {part}");
            }
        };
        check(
            r#"[{"t": 1}, {"t": }, 7, [{"t": 1}], {"x": 1, "p": 2}, {"ts": "soon", "t": 1}, {"t": [1]}, {}]"#,
            &[
                "press-1 t 0 1",
                "press-1 p 0 2",
                "refused 1: not JSON",
                "refused 2: a row is an object",
                "refused 3: a row is an object",
                "refused 4: the stream `press-1` has no signal `x`",
                "refused 5: the time `soon` is neither a number nor a date and time",
                "refused 6: `t` is an object or a list",
                "refused 7: the row has no signal",
            ],
        );
        check(r#"[{"t": 1},,{"t": 2}]"#, &["t 0 1", "t 0 2", "refused 1: not JSON"]);
        check(
            r#"{"ts": 1767323045, "t": 1}"#,
            &["refused 0: the time would be in the year 1970; as s it would be 2026-01-02T03:04:05Z"],
        );
        check(
            r#"{"signal": "t"}"#,
            &["refused 0: nothing stands at `value` or `text`"],
        );
        check(
            r#"{"signal": "t", "value": {}}"#,
            &["refused 0: an object or a list stands at `value`"],
        );
        check(r#"{"machine": [], "t": 1}"#, &["refused 0: `machine` is no text"]);
        check(r#"{"machine": null, "t": 1}"#, &["press-1 t 0 1"]);
        check(r#"{"machine": "", "t": 1}"#, &["refused 0: the row names no machine"]);
        check(
            "{\"t\": 1}\n{\"t\": \n{\"t\": 3}",
            &["t 0 1", "t 0 3", "refused 1: not JSON: EOF"],
        );
    }

    #[test]
    fn a_body_that_is_no_json_is_an_error() {
        let check = |body: &str, part: &str| {
            let got = read(body.as_bytes(), false);
            assert!(got.starts_with("error: ") && got.contains(part), "{body}: {got}");
        };
        check("", "no JSON object");
        check("21.5", "no JSON object");
        check(r#"[{"t": 1}"#, "not closed");
        check(r#"[{"t": 1}] x"#, "behind the list");
        check(r#"{"t": 1"#, "not JSON: EOF");
        check("{\"t\":\n1", "not JSON: EOF");
    }

    #[test]
    fn lines_count_from_0_with_the_blank_ones() {
        assert_eq!(
            read(b"{\"t\":1}\n\n{\"t\":2}\r\nnope\n", true)
                .lines()
                .collect::<Vec<_>>(),
            [
                "press-1 t 0 1",
                "press-1 t 0 2",
                "refused 3: not JSON: expected ident at line 1 column 2"
            ]
        );
    }

    #[test]
    fn deep_and_broken_bodies_neither_panic_nor_recurse() {
        let deep = format!("[{}{}]", "[".repeat(100_000), "]".repeat(100_000));
        assert!(read(deep.as_bytes(), false).contains("refused 0"));
        proptest::proptest!(|(bytes: Vec<u8>)| { read(&bytes, false); read(&bytes, true); });
        proptest::proptest!(|(text in "[\\[\\]{},:\"\\\\t1 \n]{0,60}")| { read(text.as_bytes(), false); });
    }
}
