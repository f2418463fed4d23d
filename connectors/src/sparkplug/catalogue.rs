//! What an edge node or a device measures, as its birth says: names, aliases, types.

use std::collections::HashMap;

use crate::codec::sparkplug::{Metric, MetricValue};

/// The metrics of one edge node or device.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    known: Vec<Known>,
    by_name: HashMap<String, usize>,
    /// Empty when aliases can't be trusted.
    by_alias: HashMap<u64, usize>,
    /// There was word of it, and no death since.
    pub is_alive: bool,
    /// There was a birth, and nothing since that could have made it void.
    pub has_birth: bool,
    /// Since when, in µs of the clock that only goes forward, it may have died unheard.
    pub unsure_since: Option<i64>,
    /// The newest time among the samples, µs since 1970.
    pub newest: Option<i64>,
}

/// A metric that was named.
#[derive(Debug)]
pub(super) struct Known {
    pub name: String,
    pub datatype: Option<u32>,
    pub usage: Usage,
    /// Time and content of the newest sample: a birth says again what data has said.
    pub newest: Option<(i64, Content)>,
}

/// What a sample was.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Content {
    Null,
    /// By its bits.
    Number(u64),
    Text(String),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Usage {
    Sample,
    /// For the protocol itself: `bdSeq`, `Node Control/Rebirth`.
    Control,
    /// Of a type that a sample can't hold.
    Skipped,
}

/// The metric by which deaths find their births.
pub(super) const BD_SEQ: &str = "bdSeq";

fn usage(name: &str) -> Usage {
    if name == BD_SEQ || name.starts_with("Node Control/") || name.starts_with("Device Control/") {
        Usage::Control
    } else {
        Usage::Sample
    }
}

impl Catalogue {
    /// Takes a birth. Gives the names of those samples that are no longer there.
    pub fn birth(&mut self, metrics: &[Metric]) -> Vec<String> {
        let mut before = std::mem::take(self);
        self.newest = before.newest;
        for metric in metrics {
            let Some(name) = metric.name.as_deref() else { continue };
            let index = self.learn(name, metric.datatype);
            if let Some(alias) = metric.alias {
                self.by_alias.insert(alias, index);
            }
            if let Some(was) = before.by_name.remove(name) {
                let was = &mut before.known[was];
                self.known[index].newest = was.newest.take();
                self.known[index].usage = was.usage;
            }
        }
        (self.is_alive, self.has_birth) = (true, true);
        let gone = before.by_name.into_values().map(|index| &before.known[index]);
        let gone = gone.filter(|known| before.is_alive && known.usage == Usage::Sample);
        let mut gone: Vec<String> = gone.map(|known| known.name.clone()).collect();
        gone.sort_unstable();
        gone
    }

    /// Takes a death. Gives the names of the samples that are stale now, in the birth's order; none if it was dead.
    pub fn death(&mut self) -> Vec<String> {
        self.by_alias.clear();
        (self.has_birth, self.unsure_since) = (false, None);
        if !std::mem::take(&mut self.is_alive) {
            return Vec::new();
        }
        let samples = self.known.iter().filter(|known| known.usage == Usage::Sample);
        samples.map(|known| known.name.clone()).collect()
    }

    /// Forgets the aliases: deaths and births may have been missed that gave them to others.
    pub fn distrust(&mut self, now: i64) {
        self.by_alias.clear();
        self.has_birth = false;
        if self.is_alive {
            self.unsure_since.get_or_insert(now);
        }
    }

    /// The aliases that these metrics use and no birth has named.
    pub fn unknown(&self, metrics: &[Metric]) -> Option<u64> {
        let nameless = metrics.iter().filter(|metric| metric.name.is_none());
        let mut aliases = nameless.map(|metric| metric.alias.unwrap_or(u64::MAX));
        aliases.find(|alias| !self.by_alias.contains_key(alias))
    }

    /// The metric that a message means. One that has a name needs no birth.
    pub fn find(&mut self, metric: &Metric) -> Option<&mut Known> {
        let index = match (&metric.name, metric.alias) {
            (Some(name), _) => self.learn(name, metric.datatype),
            (None, Some(alias)) => *self.by_alias.get(&alias)?,
            (None, None) => return None,
        };
        self.known.get_mut(index)
    }

    fn learn(&mut self, name: &str, datatype: Option<u32>) -> usize {
        if let Some(&index) = self.by_name.get(name) {
            let known = &mut self.known[index];
            known.datatype = datatype.or(known.datatype);
            return index;
        }
        self.known.push(Known {
            name: name.to_owned(),
            datatype,
            usage: usage(name),
            newest: None,
        });
        self.by_name.insert(name.to_owned(), self.known.len() - 1);
        self.known.len() - 1
    }
}

/// The number of the session that a birth or death belongs to.
pub(super) fn bd_seq(metrics: &[Metric]) -> Option<u64> {
    let metric = metrics.iter().find(|metric| metric.name.as_deref() == Some(BD_SEQ))?;
    match metric.value {
        Some(MetricValue::Int(number)) => Some(number.into()),
        Some(MetricValue::Long(number)) => Some(number),
        _ => None,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn metric(name: Option<&str>, alias: Option<u64>) -> Metric {
        Metric {
            name: name.map(str::to_owned),
            alias,
            ..Metric::default()
        }
    }

    #[test]
    fn names_and_aliases() {
        let mut catalogue = Catalogue::default();
        let gone = catalogue.birth(&[
            metric(Some("p"), Some(1)),
            metric(Some("q"), None),
            metric(Some(BD_SEQ), None),
        ]);
        assert_eq!(gone, [""; 0]);
        let mut check = |metric: Metric, expect: Option<&str>| {
            let unknown = catalogue.unknown(std::slice::from_ref(&metric)).is_some();
            let found = catalogue.find(&metric).map(|known| known.name.clone());
            assert_eq!(found.as_deref(), expect, "{metric:?}");
            assert_eq!(unknown, expect.is_none(), "{metric:?}");
        };
        check(metric(None, Some(1)), Some("p"));
        check(metric(Some("q"), None), Some("q"));
        check(metric(Some("r"), Some(7)), Some("r"));
        check(metric(None, Some(7)), None); // only births give aliases
        check(metric(None, None), None);
    }

    #[test]
    fn births_and_deaths_say_what_is_gone() {
        let mut catalogue = Catalogue::default();
        assert_eq!(catalogue.death(), [""; 0]);
        catalogue.birth(&[
            metric(Some("p"), Some(1)),
            metric(Some("q"), Some(2)),
            metric(Some(BD_SEQ), None),
        ]);
        assert_eq!(catalogue.birth(&[metric(Some("q"), Some(1))]), ["p"]);
        assert_eq!(catalogue.find(&metric(None, Some(1))).unwrap().name, "q");
        assert_eq!(catalogue.death(), ["q"]);
        assert_eq!(catalogue.death(), [""; 0]);
        assert!(catalogue.find(&metric(None, Some(1))).is_none());
        assert_eq!(catalogue.birth(&[metric(Some("p"), None)]), [""; 0]); // q was stale already
    }

    #[test]
    fn sessions() {
        let of = |value| {
            let metric = Metric {
                value,
                ..metric(Some(BD_SEQ), None)
            };
            bd_seq(&[metric])
        };
        assert_eq!(of(Some(MetricValue::Long(7))), Some(7));
        assert_eq!(of(Some(MetricValue::Int(7))), Some(7));
        assert_eq!(of(None), None);
        assert_eq!(bd_seq(&[]), None);
    }
}
