//! The streams: what senders call them, whose samples they carry, and which signals they have.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use taktline_engine::config::Problem;

/// The most streams that are remembered, and the most signals of one.
const STREAM_LIMIT: usize = 10_000;
const SIGNAL_LIMIT: usize = 10_000;
const NAME_LIMIT: usize = 256;

/// A stream: what one sender, or one kind of sender, pushes.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StreamConfig {
    /// Machine of the rows that name none. Default: the stream's name
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<String>,
    /// Its signals, as a list or with what is known of each: `{temperature: {unit: degC}}`. A row of any other signal is refused. Default: every
    /// signal is taken
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signals: Option<Signals>,
}

/// The signals of a stream.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Signals {
    /// Names
    Names(Vec<String>),
    /// Names, and what is known of each
    Known(BTreeMap<String, SignalConfig>),
}

/// What is known of a signal.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignalConfig {
    /// What its values count: `degC`, `bar`, `mm/s`. For people
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// A stream as rows are judged by it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Stream {
    pub name: String,
    /// Of rows that name none, where it was said.
    pub machine: Option<String>,
    /// None: every signal is taken.
    signals: Option<BTreeMap<String, SignalConfig>>,
}

impl Stream {
    /// # Errors
    /// What is wrong with it, at a path below the stream.
    pub(super) fn new(name: &str, config: &StreamConfig) -> Result<Self, Problem> {
        check_name(name).map_err(|message| Problem::at("", format!("a stream's {message}")))?;
        if let Some(machine) = &config.machine {
            check_name(machine).map_err(|message| Problem::at("machine", format!("a machine's {message}")))?;
        }
        let signals = config.signals.as_ref().map(|signals| match signals {
            Signals::Names(names) => names
                .iter()
                .map(|name| (name.clone(), SignalConfig::default()))
                .collect(),
            Signals::Known(known) => known.clone(),
        });
        let stream = Stream {
            name: name.to_owned(),
            machine: config.machine.clone(),
            signals,
        };
        let names = || stream.signals.iter().flat_map(|signals| signals.keys());
        if let Some(message) = names().find_map(|name| check_name(name).err()) {
            return Err(Problem::at("signals", format!("a signal's {message}")));
        }
        if stream.signals.as_ref().is_some_and(BTreeMap::is_empty) {
            let hint = "leave `signals` out to take every signal";
            return Err(Problem::at("signals", "a stream without signals takes nothing").hint(hint));
        }
        if names().count() > SIGNAL_LIMIT {
            return Err(Problem::at("signals", format!("more than {SIGNAL_LIMIT} signals")));
        }
        Ok(stream)
    }

    /// Says why a signal isn't taken.
    pub(super) fn check(&self, signal: &str) -> Result<(), String> {
        match &self.signals {
            Some(signals) if !signals.contains_key(signal) => Err(format!(
                "the stream `{}` has no signal `{}`; register it with PUT /streams/{} or in `streams`",
                self.name,
                signal.chars().take(NAME_LIMIT).collect::<String>(),
                self.name
            )),
            _ => Ok(()),
        }
    }
}

/// A name that a stream, machine or signal may have.
fn check_name(name: &str) -> Result<(), String> {
    let shown: String = name.chars().take(40).collect();
    if name.is_empty() || name.len() > NAME_LIMIT {
        return Err(format!("name must have 1 to {NAME_LIMIT} bytes: `{shown}`"));
    }
    if name.trim() != name || name.contains(char::is_control) {
        return Err(format!(
            "name must have no blanks around it and no control characters: `{shown}`"
        ));
    }
    Ok(())
}

/// What became of a registration.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Registered {
    New,
    /// It was known, as it is now or otherwise.
    Again,
}

/// Why a registration isn't taken.
#[derive(Debug, PartialEq)]
pub(super) enum Unregistered {
    /// It is wrong.
    Wrong(String),
    /// The pipeline file says otherwise.
    Declared,
    /// There are too many.
    Full,
}

/// All streams that are known: of the pipeline file, registered, or only seen.
pub(super) struct Catalogue {
    /// False: only registered and declared streams take rows.
    open: bool,
    known: Mutex<HashMap<String, Known>>,
}

struct Known {
    stream: Arc<Stream>,
    origin: Origin,
    samples: u64,
    refused: u64,
    last: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Origin {
    /// The pipeline file has it.
    Declared,
    /// A sender registered it.
    Registered,
    /// A sender pushed to it.
    Seen,
}

/// A stream, for people.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    name: String,
    origin: Origin,
    machine: Option<String>,
    signals: Option<BTreeMap<String, SignalConfig>>,
    /// Samples taken and rows refused in this run.
    samples: u64,
    refused: u64,
    /// When rows came last.
    last: Option<String>,
}

impl Catalogue {
    pub(super) fn new(declared: Vec<Stream>, open: bool) -> Self {
        let known = declared
            .into_iter()
            .map(|stream| (stream.name.clone(), Known::new(stream, Origin::Declared)));
        Catalogue {
            open,
            known: Mutex::new(known.collect()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stream of this name, for a push to it.
    ///
    /// # Errors
    /// The name can't be one, or the stream has to be registered first.
    pub(super) fn find(&self, name: &str) -> Result<Arc<Stream>, String> {
        if let Some(known) = self.lock().get(name) {
            return Ok(known.stream.clone());
        }
        if !self.open {
            return Err(format!(
                "there is no stream `{name}`; register it with PUT /streams/{name}, or declare it in `streams`"
            ));
        }
        Stream::new(name, &StreamConfig::default())
            .map(Arc::new)
            .map_err(|problem| problem.message)
    }

    /// Notes what came of a push.
    pub(super) fn count(&self, stream: &Stream, samples: usize, refused: usize, at: i64) {
        let mut all = self.lock();
        if !all.contains_key(&stream.name) && all.len() >= STREAM_LIMIT {
            return;
        }
        let known = all
            .entry(stream.name.clone())
            .or_insert_with(|| Known::new(stream.clone(), Origin::Seen));
        known.samples += samples as u64;
        known.refused += refused as u64;
        known.last = Some(at);
    }

    /// Registers a stream, or changes what was registered.
    pub(super) fn register(&self, name: &str, config: &StreamConfig) -> Result<Registered, Unregistered> {
        let wrong = |problem: Problem| {
            let path = problem.path.join(".");
            let at = if path.is_empty() {
                String::new()
            } else {
                format!("`{path}`: ")
            };
            let hint = problem.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
            Unregistered::Wrong(format!("{at}{}{hint}", problem.message))
        };
        let stream = Stream::new(name, config).map_err(wrong)?;
        let mut all = self.lock();
        let count = all.len();
        match all.get_mut(name) {
            Some(known) if known.origin == Origin::Declared && *known.stream != stream => Err(Unregistered::Declared),
            Some(known) => {
                let was = known.origin;
                if was != Origin::Declared {
                    (known.stream, known.origin) = (Arc::new(stream), Origin::Registered);
                }
                Ok(if was == Origin::Seen {
                    Registered::New
                } else {
                    Registered::Again
                })
            }
            None if count >= STREAM_LIMIT => Err(Unregistered::Full),
            None => {
                all.insert(name.to_owned(), Known::new(stream, Origin::Registered));
                Ok(Registered::New)
            }
        }
    }

    /// All streams, by name; or one.
    pub(super) fn shown(&self, name: Option<&str>) -> Vec<Shown> {
        let all = self.lock();
        let wanted = all
            .values()
            .filter(|known| name.is_none_or(|name| known.stream.name == name));
        let mut shown: Vec<Shown> = wanted.map(Known::show).collect();
        shown.sort_by(|a, b| a.name.cmp(&b.name));
        shown
    }
}

impl Known {
    fn new(stream: Stream, origin: Origin) -> Self {
        Known {
            stream: Arc::new(stream),
            origin,
            samples: 0,
            refused: 0,
            last: None,
        }
    }

    fn show(&self) -> Shown {
        let last = self.last.and_then(|last| jiff::Timestamp::from_microsecond(last).ok());
        Shown {
            name: self.stream.name.clone(),
            origin: self.origin,
            machine: self.stream.machine.clone(),
            signals: self.stream.signals.clone(),
            samples: self.samples,
            refused: self.refused,
            last: last.map(|last| last.to_string()),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn config(json: &str) -> StreamConfig {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn registrations() {
        let declared = Stream::new("oven", &config(r#"{"machine": "oven-1", "signals": ["t"]}"#)).unwrap();
        let catalogue = Catalogue::new(vec![declared], true);
        let check = |name: &str, json: &str, expect: Result<Registered, Unregistered>| {
            assert_eq!(catalogue.register(name, &config(json)), expect, "{name} {json}");
        };
        check(
            "press-1",
            r#"{"signals": {"t": {"unit": "degC"}, "p": {}}}"#,
            Ok(Registered::New),
        );
        check(
            "press-1",
            r#"{"signals": {"t": {"unit": "degC"}, "p": {}}}"#,
            Ok(Registered::Again),
        );
        check("press-1", r#"{"signals": ["t"]}"#, Ok(Registered::Again));
        check(
            "oven",
            r#"{"machine": "oven-1", "signals": ["t"]}"#,
            Ok(Registered::Again),
        );
        check("oven", r#"{"machine": "oven-2"}"#, Err(Unregistered::Declared));
        check(
            "x",
            r#"{"signals": []}"#,
            Err(Unregistered::Wrong(
                "`signals`: a stream without signals takes nothing; leave `signals` out to take every signal".into(),
            )),
        );
        check(
            " x",
            "{}",
            Err(Unregistered::Wrong(
                "a stream's name must have no blanks around it and no control characters: ` x`".into(),
            )),
        );
        assert_eq!(catalogue.find("press-1").unwrap().check("t"), Ok(()));
        let reason = catalogue.find("press-1").unwrap().check("p").unwrap_err();
        assert!(
            reason.contains("no signal `p`") && reason.contains("PUT /streams/press-1"),
            "{reason}"
        );
        assert_eq!(catalogue.find("other").unwrap().check("anything"), Ok(()));
        let stream = catalogue.find("seen").unwrap();
        catalogue.count(&stream, 3, 1, 0);
        check("seen", "{}", Ok(Registered::New));
        let shown = serde_json::to_value(catalogue.shown(None)).unwrap();
        let names: Vec<&str> = shown
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["name"].as_str().unwrap())
            .collect();
        assert_eq!(names, ["oven", "press-1", "seen"]);
        assert_eq!(
            (&shown[0]["origin"], &shown[2]["samples"]),
            (&"declared".into(), &3.into())
        );
        assert_eq!(catalogue.shown(Some("oven")).len(), 1);
    }

    #[test]
    fn a_closed_catalogue_takes_only_what_is_registered() {
        let catalogue = Catalogue::new(Vec::new(), false);
        assert!(catalogue.find("press-1").unwrap_err().contains("PUT /streams/press-1"));
        catalogue.register("press-1", &StreamConfig::default()).unwrap();
        assert!(catalogue.find("press-1").is_ok());
    }
}
