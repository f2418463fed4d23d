//! The `decode` section checked and resolved: what a decoder knows. Nothing after it looks up a name.

use std::sync::Arc;

use prost_reflect::MessageDescriptor;
use taktline_engine::config::Problem;

use super::address::Address;
use super::avro::AvroSchema;
use super::config::{Decimal, DecodeConfig, Format, Framing};
use super::csv::CsvForm;
use super::pointer::Pointer;
use super::preset::{Shape, shapes};
use super::protobuf;
use super::query::{Query, Slot};
use super::registry::Registry;
use super::signals::Signals;
use super::topic::Template;
use crate::time::Unit;

/// Everything a decoder knows; made once and cloned for each worker.
#[derive(Clone, Debug)]
pub(crate) struct Reading {
    pub(super) source: String,
    pub(super) address: Address,
    pub(super) payload: Payload,
    pub(super) framing: Framing,
    /// The first whose pointers all lead to something counts.
    pub(super) forms: Vec<Form>,
    pub(super) signals: Signals,
}

/// How a payload is cut into documents.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    Json,
    Ndjson,
    Number,
    Text,
    Scalar,
    Csv(CsvForm),
    Influx,
    Avro(WrittenBy),
    Protobuf(MessageDescriptor),
    Arrow,
}

/// Where the schema of Avro payloads is.
#[derive(Clone, Debug)]
pub(super) enum WrittenBy {
    File(Arc<AvroSchema>),
    Registry(Arc<Registry>),
}

/// The pointers of one shape of document, and the templates over what they find.
#[derive(Clone, Debug)]
pub(super) struct Form {
    pub query: Query,
    /// What must stand somewhere in a document for this form to be its.
    pub required: Vec<Slot>,
    /// Whether a document of this form is a list; none if it may be either.
    pub is_list: Option<bool>,
    pub time: Option<Slot>,
    pub unit: Option<Unit>,
    /// True where a document without a time is of its arrival.
    pub time_may_be_absent: bool,
    pub value: Option<Slot>,
    pub text: Option<Slot>,
    /// Each member of an object is a sample.
    pub wide: bool,
    /// Names for the templates that stand in documents; in a template they come after those of the address.
    pub names: Vec<Slot>,
    pub machine: Named,
    pub signal: Named,
}

/// A template, and the level of the records that its names stand in.
#[derive(Clone, Debug)]
pub(super) struct Named {
    pub template: Template,
    pub level: usize,
    /// What the payload must give it.
    pub slots: Vec<Slot>,
}

/// The name of a wide payload's member in the `signal` template.
const MEMBER: &str = "member";
/// A name in the address that the payload says better.
const SHADOWED: &str = "\0";

impl Reading {
    /// Checks the settings against each other.
    pub(crate) fn new(
        source: &str,
        address: Address,
        config: &DecodeConfig,
        machine: Option<&str>,
        signal: Option<&str>,
    ) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        foreign_settings(config, &mut problems);
        let payload = payload(config, &mut problems);
        let framing = framing(config, &mut problems);
        let signals = Signals::new(config, &mut problems);
        let mut forms = Vec::new();
        for shape in shapes(config) {
            match form(config, &shape, &address, machine, signal) {
                Ok(form) => forms.push(form),
                Err(found) => {
                    // One shape's problems are enough: the others have the same settings.
                    problems.extend(found);
                    break;
                }
            }
        }
        match payload {
            Some(payload) if problems.is_empty() => Ok(Reading {
                source: source.to_owned(),
                address,
                payload,
                framing,
                forms,
                signals,
            }),
            _ => Err(problems),
        }
    }

    /// The number of names that the address gives.
    pub(super) fn address_names(&self) -> usize {
        self.address.names().len()
    }
}

/// Settings that the format has no use for.
pub(crate) fn foreign_settings(config: &DecodeConfig, problems: &mut Vec<Problem>) {
    let format = config.format;
    let pointers = [
        ("time", config.time.is_some()),
        ("value", config.value.is_some()),
        ("text", config.text.is_some()),
        ("values", config.values.is_some()),
        ("machine", config.machine.is_some()),
        ("signal", config.signal.is_some()),
        ("preset", config.preset.is_some()),
    ];
    if !format.has_pointers() {
        for (key, _) in pointers.into_iter().filter(|(_, set)| *set) {
            let message = "only a payload with a structure has pointers";
            problems.push(Problem::at(&format!("decode.{key}"), message).hint("write format: json"));
        }
    }
    let of_one = [
        ("columns", config.columns.is_some(), format == Format::Csv, "csv"),
        ("header", config.header, format == Format::Csv, "csv"),
        ("delimiter", config.delimiter.is_some(), format == Format::Csv, "csv"),
        ("decimal", config.decimal.is_some(), format == Format::Csv, "csv"),
        ("schema", config.schema.is_some(), format == Format::Avro, "avro"),
        ("registry", config.registry.is_some(), format == Format::Avro, "avro"),
        (
            "descriptor",
            config.descriptor.is_some(),
            format == Format::Protobuf,
            "protobuf",
        ),
        (
            "message",
            config.message.is_some(),
            format == Format::Protobuf,
            "protobuf",
        ),
    ];
    for (key, _, _, own) in of_one.into_iter().filter(|(_, set, fits, _)| *set && !fits) {
        let message = format!("`{key}` is for {own} only");
        problems.push(
            Problem::at(&format!("decode.{key}"), message)
                .on_key()
                .hint(format!("write format: {own}")),
        );
    }
}

fn payload(config: &DecodeConfig, problems: &mut Vec<Problem>) -> Option<Payload> {
    Some(match config.format {
        Format::Json => Payload::Json,
        Format::Ndjson => Payload::Ndjson,
        Format::Number => Payload::Number,
        Format::Text => Payload::Text,
        Format::Scalar => Payload::Scalar,
        Format::Csv => Payload::Csv(csv(config, problems)?),
        Format::Influx => Payload::Influx,
        Format::Avro => Payload::Avro(written_by(config, problems)?),
        Format::Protobuf => {
            let (Some(file), Some(message)) = (&config.descriptor, &config.message) else {
                let problem = Problem::at("decode", "a Protobuf payload needs a `descriptor` and a `message`");
                problems.push(problem.hint("write descriptor: plant.desc and message: plant.Reading"));
                return None;
            };
            match protobuf::descriptor(file, message) {
                Ok(descriptor) => Payload::Protobuf(descriptor),
                Err((key, message)) => {
                    problems.push(Problem::at(&format!("decode.{key}"), message));
                    return None;
                }
            }
        }
        Format::Arrow => Payload::Arrow,
    })
}

fn csv(config: &DecodeConfig, problems: &mut Vec<Problem>) -> Option<CsvForm> {
    let before = problems.len();
    let decimal_comma = config.decimal == Some(Decimal::Comma);
    let delimiter = match config.delimiter.as_deref() {
        None => Some(if decimal_comma { b';' } else { b',' }),
        Some("tab" | "\t") => Some(b'\t'),
        Some(text) => match text.as_bytes() {
            [byte] if byte.is_ascii() && !byte.is_ascii_alphanumeric() && !b"\"\r\n".contains(byte) => Some(*byte),
            _ => None,
        },
    };
    if delimiter.is_none() {
        let problem = Problem::at("decode.delimiter", "this is no delimiter");
        problems.push(problem.hint("one character like `;`, or `tab`; no quote, letter, digit or line end"));
    }
    if delimiter == Some(b',') && decimal_comma {
        problems.push(Problem::at(
            "decode.delimiter",
            "can't be a comma where the decimal mark is a comma",
        ));
    }
    match (&config.columns, config.header) {
        (None, false) => {
            let problem = Problem::at("decode", "CSV payloads need the names of their columns");
            problems.push(problem.hint("write columns: [ts, pressure], or header: true if each payload has them"));
        }
        (Some(_), true) => problems.push(Problem::at(
            "decode.header",
            "there are `columns` and a `header`; choose one",
        )),
        (Some(columns), false) => {
            let named: Vec<&String> = columns.iter().filter(|name| !name.is_empty()).collect();
            let twice = named
                .iter()
                .enumerate()
                .find(|(index, name)| named[..*index].contains(name));
            if named.is_empty() {
                problems.push(Problem::at("decode.columns", "no column has a name"));
            } else if let Some((_, name)) = twice {
                problems.push(Problem::at("decode.columns", format!("two columns are named `{name}`")));
            }
        }
        (None, true) => {}
    }
    let delimiter = delimiter.filter(|_| problems.len() == before)?;
    Some(CsvForm {
        columns: config.columns.clone(),
        delimiter,
        decimal_comma,
    })
}

fn written_by(config: &DecodeConfig, problems: &mut Vec<Problem>) -> Option<WrittenBy> {
    match (&config.schema, &config.registry) {
        (None, None) => {
            let problem = Problem::at("decode", "an Avro payload needs its schema");
            problems.push(problem.hint("write registry: {url: 'http://registry:8081'} or schema: reading.avsc"));
            None
        }
        (Some(_), Some(_)) => {
            problems.push(Problem::at(
                "decode.schema",
                "there are a `schema` and a `registry`; choose one",
            ));
            None
        }
        (None, Some(registry)) => match Registry::new(registry, "decode.registry") {
            Ok(registry) => Some(WrittenBy::Registry(Arc::new(registry))),
            Err(found) => {
                problems.extend(found);
                None
            }
        },
        (Some(file), None) => {
            let parsed = std::fs::read_to_string(file)
                .map_err(|e| e.to_string())
                .and_then(|json| AvroSchema::parse(&json, &[]));
            let parsed =
                parsed.map_err(|e| problems.push(Problem::at("decode.schema", format!("{}: {e}", file.display()))));
            parsed.ok().map(|schema| WrittenBy::File(Arc::new(schema)))
        }
    }
}

fn framing(config: &DecodeConfig, problems: &mut Vec<Problem>) -> Framing {
    let default = if config.registry.is_some() {
        Framing::Confluent
    } else {
        Framing::None
    };
    let framing = config.framing.unwrap_or(default);
    let fits = match framing {
        Framing::None => config.registry.is_none(),
        Framing::Confluent => matches!(config.format, Format::Json | Format::Avro | Format::Protobuf),
        Framing::SingleObject => config.format == Format::Avro && config.registry.is_none(),
    };
    if !fits && config.framing.is_some() {
        let problem = match framing {
            Framing::None => Problem::at(
                "decode.framing",
                "without a framing a payload doesn't name its schema in the registry",
            ),
            Framing::Confluent => Problem::at("decode.framing", "`confluent` is for json, avro and protobuf"),
            Framing::SingleObject => Problem::at("decode.framing", "`single_object` is for avro with a `schema` file"),
        };
        problems.push(problem.hint("leave it out"));
    }
    framing
}

/// Collects the pointers of a form.
#[derive(Default)]
struct Pointers {
    query: Query,
    problems: Vec<Problem>,
}

impl Pointers {
    /// The slot of a pointer, with what finds it.
    fn add<S>(
        &mut self,
        key: &str,
        text: Option<&str>,
        find: impl Fn(&mut Query, &Pointer) -> Result<S, String>,
    ) -> Option<S> {
        let text = text?;
        let found = Pointer::parse(text).and_then(|pointer| find(&mut self.query, &pointer));
        found
            .map_err(|message| self.problems.push(Problem::at(key, message)))
            .ok()
    }

    fn value(&mut self, key: &str, text: Option<&str>) -> Option<Slot> {
        self.add(key, text, Query::value)
    }

    /// A name: what stands there, or the name of the member.
    fn name(&mut self, key: &str, text: Option<&str>) -> Option<Slot> {
        self.add(key, text, |query, pointer| match pointer.ends_with_each() {
            true => query.name(pointer),
            false => query.value(pointer),
        })
    }
}

fn form(
    config: &DecodeConfig,
    shape: &Shape,
    address: &Address,
    machine: Option<&str>,
    signal: Option<&str>,
) -> Result<Form, Vec<Problem>> {
    let format = config.format;
    if !format.has_pointers() {
        return bare(format, address, machine, signal);
    }
    let mut pointers = Pointers::default();
    let time = pointers.value("decode.time", shape.time.as_deref());
    let value = pointers.value("decode.value", shape.value.as_deref());
    let text = pointers.value("decode.text", shape.text.as_deref());
    let machine_name = pointers.name("decode.machine", shape.machine.as_deref());
    let signal_name = pointers.name("decode.signal", shape.signal.as_deref());
    let members = pointers.add("decode.values", shape.values.as_deref(), Query::members);
    // With one shape only there is nothing to choose by.
    let object = shape.values.as_deref().filter(|_| config.preset.is_some());
    let object = pointers.value("decode.values", object);
    let mut payload_names: Vec<(String, Slot)> = Vec::new();
    payload_names.extend(machine_name.map(|slot| ("machine".to_owned(), slot)));
    payload_names.extend(signal_name.map(|slot| ("signal".to_owned(), slot)));
    payload_names.extend(members.map(|(name, _)| (MEMBER.to_owned(), name)));
    for (key, template) in [("machine", machine), ("signal", signal)] {
        for (name, pointer) in template.map(|text| pointers_in(text, format)).unwrap_or_default() {
            payload_names.extend(pointers.name(key, Some(&pointer)).map(|slot| (name, slot)));
        }
    }
    let Pointers { query, mut problems } = pointers;
    contents(config, shape, &mut problems);

    let wide = shape.values.is_some();
    let default_signal = if wide && shape.signal.is_none() {
        "{member}"
    } else {
        "{signal}"
    };
    let names = names_of(address, &payload_names);
    let machine = template("machine", machine, "{machine}", &names);
    let signal = template("signal", signal, default_signal, &names);
    let (machine, signal) = match (machine, signal) {
        (Ok(machine), Ok(signal)) if problems.is_empty() => (machine, signal),
        (machine, signal) => {
            problems.extend(machine.err());
            problems.extend(signal.err());
            return Err(problems);
        }
    };
    let slots: Vec<Slot> = payload_names.iter().map(|(_, slot)| *slot).collect();
    let given = address.names().len();
    let named = |template: Template| {
        let used = slots
            .iter()
            .enumerate()
            .filter(|(index, _)| template.uses(given + index));
        let used: Vec<Slot> = used.map(|(_, slot)| *slot).collect();
        Named {
            level: used.iter().map(|slot| slot.level).max().unwrap_or(0),
            slots: used,
            template,
        }
    };
    let content = value.or(text).or(object);
    let time_may_be_absent = format == Format::Influx && config.time.is_none();
    let required_time = time.filter(|_| !time_may_be_absent);
    Ok(Form {
        required: required_time
            .into_iter()
            .chain(content)
            .chain(signal_name)
            .chain(machine_name)
            .collect(),
        is_list: shape.is_list,
        query,
        time,
        unit: shape.unit,
        time_may_be_absent,
        value: value.or(members.map(|(_, value)| value)),
        text,
        wide,
        machine: named(machine),
        signal: named(signal),
        names: slots,
    })
}

/// What a shape must have, and what excludes what.
fn contents(config: &DecodeConfig, shape: &Shape, problems: &mut Vec<Problem>) {
    let one = shape.value.is_some() || shape.text.is_some();
    if !one && shape.values.is_none() {
        let hint = "write value: /value, or value: \"\" for a payload that is a bare value";
        problems.push(Problem::at("decode", "the payload needs a pointer to its value").hint(hint));
    }
    if one && shape.values.is_some() {
        let message = "`values` stands alone, without `value` and `text`";
        problems.push(Problem::at("decode.values", message));
    }
    if shape.time.is_some() && shape.unit.is_none() && !config.format.knows_units() {
        let hint = "write unit: ms (or s, us, ns, rfc3339)";
        problems.push(Problem::at("decode.time", "the time needs a `unit`").hint(hint));
    }
    if shape.time.is_none() && config.unit.is_some() && config.preset.is_none() {
        problems.push(Problem::at("decode.unit", "there is a `unit` but no `time`").hint("write time: /timestamp"));
    }
}

/// A payload that is its value.
fn bare(format: Format, address: &Address, machine: Option<&str>, signal: Option<&str>) -> Result<Form, Vec<Problem>> {
    let mut pointers = Pointers::default();
    let whole = pointers.value("decode", Some(""));
    let names = names_of(address, &[]);
    let machine = template("machine", machine, "{machine}", &names);
    let signal = template("signal", signal, "{signal}", &names);
    let (machine, signal) = match (machine, signal) {
        (Ok(machine), Ok(signal)) => (machine, signal),
        (machine, signal) => return Err(machine.err().into_iter().chain(signal.err()).collect()),
    };
    let is_text = format == Format::Text;
    let named = |template| Named {
        template,
        level: 0,
        slots: Vec::new(),
    };
    Ok(Form {
        query: pointers.query,
        required: Vec::new(),
        is_list: None,
        time: None,
        unit: None,
        time_may_be_absent: false,
        value: whole.filter(|_| !is_text),
        text: whole.filter(|_| is_text),
        wide: false,
        names: Vec::new(),
        machine: named(machine),
        signal: named(signal),
    })
}

/// The names that templates may use: those of the address, then those of the payload, which count before them.
fn names_of(address: &Address, payload: &[(String, Slot)]) -> Vec<String> {
    let mut names = address.names();
    for (name, _) in payload {
        if let Some(shadowed) = names.iter_mut().find(|known| *known == name) {
            *shadowed = SHADOWED.to_owned();
        }
    }
    names.extend(payload.iter().map(|(name, _)| name.clone()));
    names
}

/// Names in a template that lead into the payload: `{/meta/line}`, and for the line protocol `{measurement}` and `{tag.line}`.
fn pointers_in(text: &str, format: Format) -> Vec<(String, String)> {
    let names = text.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
    let pointer = |name: &str| match name.strip_prefix("tag.") {
        _ if name.starts_with('/') => Some(name.to_owned()),
        Some(tag) if format == Format::Influx => Some(format!("/tags/{}", tag.replace('~', "~0").replace('/', "~1"))),
        None if format == Format::Influx && name == "measurement" => Some("/measurement".to_owned()),
        _ => None,
    };
    names
        .filter_map(|(name, _)| Some((name.to_owned(), pointer(name)?)))
        .collect()
}

fn template(key: &str, text: Option<&str>, default: &str, names: &[String]) -> Result<Template, Problem> {
    use super::topic::TemplateError::{Brace, Unknown};
    Template::parse(text.unwrap_or(default), names).map_err(|error| match (error, text) {
        (Unknown(name), None) => Problem::at("topic", format!("no level of the topic is named `{{{name}}}`")).hint(
            format!("write {{{name}}} in place of a level, or say what the {key} is by `{key}:`, or where the payload names it by `decode.{key}`"),
        ),
        (Unknown(name), Some(_)) => {
            let known = names.iter().map(String::as_str).filter(|name| *name != SHADOWED);
            Problem::at(key, format!("the topic has no level `{{{name}}}`")).did_you_mean(&name, known)
        }
        (Brace, _) => Problem::at(key, "a brace has no partner").hint("write {name}"),
    })
}
