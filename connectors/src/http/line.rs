//! InfluxDB line protocol: `measurement,tag=a field=1.5,state="run" 1767323045000000000`, a row on each line.
//!
//! A line break ends a row, also inside quotes: one stray quote then costs one row and not the body.

use std::borrow::Cow;

use taktline_engine::config::Problem;

use super::catalogue::Stream;
use super::precision::Precision;
use super::rows::{Content, Verdicts};
use crate::codec::influx::Line;
use crate::codec::pointer::Pointer;
use crate::codec::query::{Document, Found, Query, Scalar, Slot};
use crate::codec::topic::{Template, TemplateError};

/// How the names of machines and signals are made from a line, and where in it.
#[derive(Clone, Debug)]
pub(super) struct LineNames {
    machine: Option<Name>,
    signal: Option<Name>,
    query: Query,
    measurement: Slot,
    time: Slot,
    /// Name and value of each field.
    field: (Slot, Slot),
    /// The tags that are asked for.
    tags: Vec<(String, Slot)>,
}

/// A template and what stands in its braces.
#[derive(Clone, Debug)]
struct Name {
    setting: &'static str,
    template: Template,
    parts: Vec<String>,
}

/// The tag that names the machine where no template does.
const MACHINE: &str = "machine";

impl LineNames {
    /// # Errors
    /// A brace has no partner.
    pub(super) fn new(machine: Option<&str>, signal: Option<&str>) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut name = |setting, text: Option<&str>| {
            let name = text.map(|text| Name::parse(setting, text)).transpose();
            name.map_err(|problem| problems.push(problem)).ok().flatten()
        };
        let (machine, signal) = (name(MACHINE, machine), name("signal", signal));
        if !problems.is_empty() {
            return Err(problems);
        }
        LineNames::of(machine, signal).map_err(|message| vec![Problem::at("lines", message)])
    }

    fn of(machine: Option<Name>, signal: Option<Name>) -> Result<Self, String> {
        let mut query = Query::default();
        let measurement = query.value(&Pointer::parse("/measurement")?)?;
        let time = query.value(&Pointer::parse("/time")?)?;
        let field = query.members(&Pointer::parse("/fields")?)?;
        let mut tags = vec![(MACHINE.to_owned(), query.value(&Pointer::parse("/tags/machine")?)?)];
        for part in machine.iter().chain(&signal).flat_map(|name| &name.parts) {
            if !matches!(part.as_str(), "stream" | "measurement" | "field") && tags.iter().all(|(tag, _)| tag != part) {
                let escaped = part.replace('~', "~0").replace('/', "~1");
                tags.push((
                    part.clone(),
                    query.value(&Pointer::parse(&format!("/tags/{escaped}"))?)?,
                ));
            }
        }
        Ok(LineNames {
            machine,
            signal,
            query,
            measurement,
            time,
            field,
            tags,
        })
    }

    fn tag<'f>(&self, found: &'f Found<'_>, name: &str) -> Option<&'f str> {
        let (_, slot) = self.tags.iter().find(|(tag, _)| tag == name)?;
        text(found.get(*slot, 0)?)
    }
}

fn text<'s>(scalar: &'s Scalar<'_>) -> Option<&'s str> {
    match scalar {
        Scalar::Text(text) => Some(text),
        _ => None,
    }
}

impl Name {
    fn parse(setting: &'static str, text: &str) -> Result<Self, Problem> {
        let parts: Vec<String> = text
            .split('{')
            .skip(1)
            .filter_map(|part| Some(part.split_once('}')?.0.to_owned()))
            .collect();
        match Template::parse(text, &parts) {
            Ok(template) => Ok(Name {
                setting,
                template,
                parts,
            }),
            Err(TemplateError::Brace | TemplateError::Unknown(_)) => {
                Err(Problem::at(&format!("lines.{setting}"), "a brace has no partner")
                    .hint("write names of tags in braces, {stream}, {measurement} or {field}: '{line}-{machine}'"))
            }
        }
    }

    fn render<'f>(&self, value: impl Fn(&str) -> Option<&'f str>) -> Result<String, String> {
        let mut values = Vec::with_capacity(self.parts.len());
        for part in &self.parts {
            let found = value(part);
            values
                .push(found.ok_or_else(|| {
                    format!("the line has no tag `{part}`, and `lines.{}` asks for it", self.setting)
                })?);
        }
        let mut name = String::new();
        self.template.render(|index| values[index], &mut name);
        Ok(name)
    }
}

/// Reads rows from lines.
pub(super) struct LineRows<'n> {
    pub names: &'n LineNames,
    pub precision: Precision,
    /// True where the measurement is the machine of lines that name none: the stream is only a database.
    pub by_measurement: bool,
}

impl LineRows<'_> {
    /// The rows of a body; blank lines and comments don't count.
    pub(super) fn read(&self, body: &[u8], verdicts: &mut Verdicts<'_>) {
        for (index, line) in body.split(|byte| *byte == b'\n').enumerate() {
            let line = line.trim_ascii();
            if line.is_empty() || line[0] == b'#' {
                continue;
            }
            if let Err(reason) = self.line(index, line, verdicts) {
                verdicts.refuse(index, reason, line);
            }
        }
    }

    /// An error refuses the line as a whole; single fields are refused on the way.
    fn line(&self, index: usize, raw: &[u8], verdicts: &mut Verdicts<'_>) -> Result<(), String> {
        let Some(line) = Line::parse(raw)? else { return Ok(()) };
        let (names, mut found) = (self.names, Found::default());
        line.find(&names.query, &mut found)?;
        let ts = match found.get(names.time, 0) {
            Some(Scalar::Int(count)) => self.precision.time(*count, verdicts.received)?,
            _ => verdicts.received,
        };
        let stream = verdicts.stream;
        let machine = self.machine(&found, stream)?;
        for record in 0..found.count(names.field.0.level) {
            let (Some(field), Some(value)) = (found.get(names.field.0, record), found.get(names.field.1, record))
            else {
                continue;
            };
            let field = text(field).unwrap_or_default();
            let taken = self
                .signal(&found, field, stream)
                .and_then(|signal| verdicts.take(&machine, &signal, ts, content(value)));
            if let Err(reason) = taken {
                verdicts.refuse(index, reason, raw);
            }
        }
        Ok(())
    }

    fn machine<'v>(&self, found: &'v Found<'_>, stream: &'v Stream) -> Result<Cow<'v, str>, String> {
        if let Some(name) = &self.names.machine {
            return name
                .render(|part| self.part(found, part, "", &stream.name))
                .map(Cow::Owned);
        }
        let named = self.names.tag(found, MACHINE).or(stream.machine.as_deref());
        let otherwise = if self.by_measurement {
            self.measurement(found)
        } else {
            &stream.name
        };
        Ok(named.unwrap_or(otherwise).into())
    }

    /// `value` is what a field is called whose measurement says what it is.
    fn signal<'v>(&self, found: &'v Found<'_>, field: &'v str, stream: &'v Stream) -> Result<Cow<'v, str>, String> {
        match &self.names.signal {
            Some(name) => name
                .render(|part| self.part(found, part, field, &stream.name))
                .map(Cow::Owned),
            None if field == "value" => Ok(self.measurement(found).into()),
            None => Ok(field.into()),
        }
    }

    fn measurement<'f>(&self, found: &'f Found<'_>) -> &'f str {
        found.get(self.names.measurement, 0).and_then(text).unwrap_or_default()
    }

    fn part<'f>(&self, found: &'f Found<'_>, part: &str, field: &'f str, stream: &'f str) -> Option<&'f str> {
        match part {
            "stream" => Some(stream),
            "measurement" => Some(self.measurement(found)),
            "field" => Some(field),
            tag => self.names.tag(found, tag),
        }
    }
}

fn content<'f>(value: &'f Scalar<'_>) -> Content<'f> {
    match value {
        Scalar::Bool(value) => (Some(f64::from(u8::from(*value))), None),
        Scalar::Int(value) => (Some(*value as f64), None),
        Scalar::Float(value) => (Some(*value), None),
        Scalar::Text(text) => (None, Some(text.as_ref().into())),
        Scalar::Null | Scalar::Time(_) | Scalar::Nested => (None, None),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::http::catalogue::StreamConfig;
    use crate::http::rows::shown;

    const NOW: i64 = 1_767_323_045_000_000;

    fn plain() -> LineNames {
        LineNames::new(None, None).unwrap()
    }

    fn read(body: &[u8], names: &LineNames, by_measurement: bool) -> String {
        let stream = Stream::new("hall", &StreamConfig::default()).unwrap();
        let mut verdicts = Verdicts::new(&stream, NOW);
        let lines = LineRows {
            names,
            precision: Precision::NS,
            by_measurement,
        };
        lines.read(body, &mut verdicts);
        shown(verdicts)
    }

    #[test]
    fn lines() {
        let check = |body: &str, expect: &[&str]| {
            assert_eq!(read(body.as_bytes(), &plain(), true), expect.join("\n"), "{body}");
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
            let got = read(body, &plain(), true);
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
            &["refused 0: the time is read in ns and is far from now; in s it would be now"],
        );
        check(b"m t=\xff", &["refused 0: the line is not UTF-8"]);
        check(b"{\"t\": 1}", &["refused 0: field 1 has no `key=value`"]);
    }

    #[test]
    fn names() {
        let check = |machine: Option<&str>, signal: Option<&str>, by_measurement, expect: &str| {
            let names = LineNames::new(machine, signal).unwrap();
            let got = read(b"modbus,line=l1,unit=7 value=1,t=2", &names, by_measurement);
            assert_eq!(got, expect, "{machine:?} {signal:?}");
        };
        check(None, None, true, "modbus modbus 0 1\nmodbus t 0 2");
        check(None, None, false, "hall modbus 0 1\nhall t 0 2");
        check(
            Some("{line}-{unit}"),
            Some("{measurement}.{field}"),
            true,
            "l1-7 modbus.value 0 1\nl1-7 modbus.t 0 2",
        );
        check(Some("{stream}"), None, true, "hall modbus 0 1\nhall t 0 2");
        let reason = "the line has no tag `x`, and `lines.machine` asks for it";
        check(Some("{x}"), None, true, &format!("refused 0: {reason}"));
        assert_eq!(LineNames::new(Some("{a"), Some("b}")).unwrap_err().len(), 2);
    }

    proptest::proptest! {
        #[test]
        fn never_panics(bytes: Vec<u8>, text in "[mt,= \\\\\"1i\n]{0,60}") {
            read(&bytes, &plain(), true);
            read(text.as_bytes(), &plain(), false);
        }
    }
}
