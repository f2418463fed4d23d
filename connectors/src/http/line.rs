//! InfluxDB line protocol: `measurement,tag=a field=1.5,state="run" 1767323045000000000`, a row on each line.
//!
//! A line break ends a row, also inside quotes: one stray quote then costs one row and not the body.

use super::members::time;
use super::verdicts::Verdicts;
use crate::codec::csv::lines;
use crate::codec::influx::Line;
use crate::codec::pointer::Pointer;
use crate::codec::query::{Document, Found, Query, Scalar, Slot};
use crate::codec::sample::content;
use crate::time::Unit;

/// Finds what a line says.
#[derive(Clone, Debug)]
pub(super) struct LineParts {
    query: Query,
    measurement: Slot,
    /// The tag that names the machine.
    machine: Slot,
    time: Slot,
    /// Name and value of each field.
    field: (Slot, Slot),
}

impl LineParts {
    pub(super) fn new() -> Result<Self, String> {
        let mut query = Query::default();
        Ok(LineParts {
            measurement: query.value(&Pointer::parse("/measurement")?)?,
            machine: query.value(&Pointer::parse("/tags/machine")?)?,
            time: query.value(&Pointer::parse("/time")?)?,
            field: query.members(&Pointer::parse("/fields")?)?,
            query,
        })
    }
}

/// Reads rows from lines.
pub(super) struct LineRows<'p> {
    pub parts: &'p LineParts,
    /// What times count.
    pub unit: Unit,
    /// True where the measurement is the machine of lines that name none: the stream is only a database.
    pub by_measurement: bool,
}

impl LineRows<'_> {
    /// The rows of a body; blank lines and comments don't count.
    pub(super) fn read(&self, body: &[u8], verdicts: &mut Verdicts<'_>) {
        let mut found = Found::default();
        for (index, line) in lines(body) {
            if let Err(reason) = self.line(index, line, &mut found, verdicts) {
                verdicts.refuse(index, reason, line);
            }
        }
    }

    /// An error refuses the line as a whole; single fields are refused on the way.
    fn line<'j>(
        &self,
        index: usize,
        raw: &'j [u8],
        found: &mut Found<'j>,
        verdicts: &mut Verdicts<'_>,
    ) -> Result<(), String> {
        let Some(line) = Line::parse(raw)? else { return Ok(()) };
        let parts = self.parts;
        line.find(&parts.query, found)?;
        let ts = match found.get(parts.time, 0) {
            Some(count) => time(count, self.unit, verdicts.received)?,
            None => verdicts.received,
        };
        let text = |slot: Slot, record: usize| match found.get(slot, record) {
            Some(Scalar::Text(text)) => Some(text.as_ref()),
            _ => None,
        };
        let stream = verdicts.stream;
        let measurement = text(parts.measurement, 0).unwrap_or_default();
        let named = text(parts.machine, 0).or(stream.machine.as_deref());
        let machine = named.unwrap_or(if self.by_measurement { measurement } else { &stream.name });
        let (name, value) = parts.field;
        for record in 0..found.count(value.level) {
            // A field `value` is called so where the measurement says what it is.
            let signal = match text(name, record).unwrap_or_default() {
                "value" => measurement,
                field => field,
            };
            let taken =
                content(found.get(value, record), None).and_then(|content| verdicts.take(machine, signal, ts, content));
            if let Err(reason) = taken {
                verdicts.refuse(index, reason, raw);
            }
        }
        Ok(())
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

    fn read(body: &[u8], by_measurement: bool) -> String {
        let stream = Stream::new("hall", &StreamConfig::default()).unwrap();
        let (signals, parts) = (Signals::default(), LineParts::new().unwrap());
        let mut verdicts = Verdicts::new(&stream, ("plc", &signals), NOW);
        let lines = LineRows {
            parts: &parts,
            unit: Unit::Ns,
            by_measurement,
        };
        lines.read(body, &mut verdicts);
        shown(verdicts)
    }

    #[test]
    fn lines() {
        let check = |body: &str, expect: &[&str]| {
            assert_eq!(read(body.as_bytes(), true), expect.join("\n"), "{body}");
        };
        check("press-1 temperature=21.5", &["press-1 temperature 0 21.5"]);
        check(
            "modbus,host=gw,machine=press-2 t=1i,p=2u,on=true,state=\"a, \\\"b\\\" c\" 1767323044999000000\n",
            &[
                "press-2 t -1000 1",
                "press-2 p -1000 2",
                "press-2 on -1000 1",
                "press-2 state -1000 'a, \"b\" c'",
            ],
        );
        check("temperature,machine=m value=-1.5e3", &["m temperature 0 -1500"]);
        check("# a comment\n\n  \r\npress\\ 1,a\\=b=c t=1\r\n", &["press 1 t 0 1"]);
        check(r"press a\ b=1,c\,d=2", &["press a b 0 1", "press c,d 0 2"]);
        check("m  t=1  1767323045000000000 ", &["m t 0 1"]);
        check("m s=\"\"", &["m s 0 ''"]);
    }

    #[test]
    fn a_bad_line_costs_one_line() {
        let check = |body: &[u8], expect: &[&str]| {
            let got = read(body, true);
            let lines: Vec<&str> = got.lines().collect();
            assert_eq!(lines.len(), expect.len(), "{got}");
            for (line, part) in lines.iter().zip(expect) {
                assert!(line.contains(part), "{line}: {part}");
            }
        };
        check(
            b"m t=1\nm\nm t=2",
            &["m t 0 1", "m t 0 2", "refused 1: the line has no fields"],
        );
        check(b"m t=x,p=2", &["refused 0: the value `x` of field `t`"]);
        check(b"m t=NaN", &["refused 0: the value `NaN`"]);
        check(
            b"m t=\"a\nm t=1",
            &["m t 0 1", "refused 0: the text of field `t` has no closing quote"],
        );
        check(b"m t=1 soon", &["refused 0: the time `soon` is no whole number"]);
        check(
            b"m t=1 1767323045",
            &["refused 0: the time would be in the year 1970; as s it would be 2026-01-02T03:04:05Z"],
        );
        check(b"m t=\xff", &["refused 0: the line is not UTF-8"]);
        check(b"{\"t\": 1}", &["refused 0: field 1 has no `key=value`"]);
    }

    #[test]
    fn machines_and_signals_of_lines_that_name_none() {
        let line = b"modbus,line=l1 value=1,t=2";
        assert_eq!(read(line, true), "modbus modbus 0 1\nmodbus t 0 2");
        assert_eq!(read(line, false), "hall modbus 0 1\nhall t 0 2");
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>, text in "[mt,= \\\\\"1i\n]{0,60}") {
            read(&bytes, true);
            read(text.as_bytes(), false);
        }
    }
}
