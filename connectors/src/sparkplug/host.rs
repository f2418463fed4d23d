//! All edge nodes that are heard: from their messages to samples.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use taktline_engine::DeadLetters;

use super::node::{Heard, Node, Patience};
use super::topic::Topic;
use crate::codec::sparkplug::Payload;
use crate::codec::topic::Template;
use crate::rows::Rows;

/// What a dead letter keeps of a payload.
const HEAD: usize = 4096;

/// Who is meant: an edge node, or one of its devices.
#[derive(Clone, Copy, Debug)]
pub(super) struct Who<'w> {
    pub group: &'w str,
    pub node: &'w str,
    /// None: the node itself.
    pub device: Option<&'w str>,
}

impl<'w> Who<'w> {
    pub fn with(self, device: Option<&'w str>) -> Self {
        Who { device, ..self }
    }
}

/// The names for the templates, in the order in which [`Out`] gives their values.
pub(super) const MACHINE_NAMES: [&str; 3] = ["group", "node", "device"];
pub(super) const SIGNAL_NAMES: [&str; 4] = ["group", "node", "device", "metric"];

/// What comes of the messages.
pub(super) struct Out {
    machine: Template,
    signal: Template,
    name: String,
    pub rows: Rows,
    dead: DeadLetters,
    refused: usize,
    /// Values of metrics whose type a sample can't hold.
    pub skipped: u64,
}

impl Out {
    /// The number of a machine's name among the rows; None if it is empty. Of the name of a node itself, what parted it from the name of a
    /// device falls away.
    pub fn machine(&mut self, who: Who<'_>) -> Option<i32> {
        let values = [who.group, who.node, who.device.unwrap_or_default()];
        self.machine.render(|index| values[index], &mut self.name);
        let name = match who.device {
            Some(_) => self.name.as_str(),
            None => self.name.trim_matches(['/', '-', '_', '.', ':', ' ']),
        };
        self.rows.machines.number(name.as_bytes())
    }

    /// The number of a signal's name among the rows; None if it is empty.
    pub fn signal(&mut self, who: Who<'_>, metric: &str) -> Option<i32> {
        let values = [who.group, who.node, who.device.unwrap_or_default(), metric];
        self.signal.render(|index| values[index], &mut self.name);
        self.rows.signals.number(self.name.as_bytes())
    }

    /// Makes a dead letter of a message, or of a part of it.
    pub fn refuse(&mut self, heard: &Heard, reason: &str) {
        self.refused += 1;
        self.dead.push(&heard.topic, heard.sequence, reason, &heard.head);
    }

    /// Makes a dead letter of something that did not come.
    pub fn refuse_topic(&mut self, topic: &str, sequence: u64, reason: &str) {
        self.refused += 1;
        self.dead.push(topic, sequence, reason, &[]);
    }
}

/// All edge nodes of a source.
pub(super) struct Host {
    /// By group and name.
    nodes: BTreeMap<String, BTreeMap<String, Node>>,
    patience: Patience,
    out: Out,
}

/// A message as it came.
pub(super) struct Came<'m> {
    pub topic: &'m str,
    pub payload: &'m [u8],
    /// µs since 1970.
    pub received: i64,
    /// Its number in this run.
    pub sequence: u64,
    /// µs of a clock that only goes forward.
    pub now: i64,
}

impl Host {
    pub fn new(source: &str, (machine, signal): (Template, Template), patience: Patience) -> Self {
        Host {
            nodes: BTreeMap::new(),
            patience,
            out: Out {
                machine,
                signal,
                name: String::new(),
                rows: Rows::default(),
                dead: DeadLetters::new(source),
                refused: 0,
                skipped: 0,
            },
        }
    }

    /// Takes a message.
    pub fn take(&mut self, came: &Came<'_>) {
        let refuse = |out: &mut Out, reason: &str| {
            out.refused += 1;
            out.dead.push(came.topic, came.sequence, reason, came.payload);
        };
        let Some(topic) = Topic::parse(came.topic) else {
            return refuse(&mut self.out, "the topic is none of an edge node");
        };
        let payload = match Payload::read(came.payload) {
            Ok(payload) if payload.uuid.as_deref() == Some("SPBV1.0_COMPRESSED") => {
                return refuse(
                    &mut self.out,
                    "the payload is compressed; switch compression off at the edge node",
                );
            }
            Ok(payload) => payload,
            Err(reason) => return refuse(&mut self.out, &reason),
        };
        let heard = Heard {
            topic: came.topic.to_owned(),
            kind: topic.kind,
            device: topic.device.map(str::to_owned),
            payload,
            head: came.payload[..came.payload.len().min(HEAD)].to_vec(),
            received: came.received,
            sequence: came.sequence,
            now: came.now,
        };
        let who = Who {
            group: topic.group,
            node: topic.node,
            device: None,
        };
        if !self.nodes.contains_key(who.group) {
            self.nodes.insert(who.group.to_owned(), BTreeMap::new());
        }
        let Some(group) = self.nodes.get_mut(who.group) else {
            return;
        };
        if !group.contains_key(who.node) {
            group.insert(who.node.to_owned(), Node::default());
        }
        if let Some(node) = group.get_mut(who.node) {
            node.hear(who, heard, &mut self.out);
        }
    }

    /// Makes a dead letter of something that did not come.
    pub fn refuse(&mut self, topic: &str, sequence: u64, reason: &str) {
        self.out.refuse_topic(topic, sequence, reason);
    }

    /// Lets time pass. Gives the groups and names of those nodes that are to be asked for a birth.
    pub fn tick(&mut self, now: i64, wall: i64) -> Vec<(String, String)> {
        let (patience, mut asked) = (self.patience, Vec::new());
        self.each(|who, node, out| {
            if node.tick(who, (now, wall), patience, out) {
                asked.push((who.group.to_owned(), who.node.to_owned()));
            }
        });
        asked
    }

    /// The broker was away, and with it what it would have said.
    pub fn distrust(&mut self, now: i64) {
        self.each(|who, node, out| node.distrust(who, now, out));
    }

    /// The run ends.
    pub fn end(&mut self) {
        self.each(|who, node, out| node.end(who, out));
    }

    fn each(&mut self, mut act: impl FnMut(Who<'_>, &mut Node, &mut Out)) {
        for (group, nodes) in &mut self.nodes {
            for (name, node) in nodes {
                let who = Who {
                    group,
                    node: name,
                    device: None,
                };
                act(who, node, &mut self.out);
            }
        }
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> usize {
        self.nodes.values().map(BTreeMap::len).sum()
    }

    /// Values of metrics that no sample can hold.
    pub fn skipped(&self) -> u64 {
        self.out.skipped
    }

    /// Rows and dead letters that wait to be given out.
    pub fn pending(&self) -> usize {
        self.out.rows.len() + self.out.refused
    }

    /// The samples and the dead letters so far, each if there are any.
    pub fn finish(&mut self) -> anyhow::Result<[Option<RecordBatch>; 2]> {
        let has_rows = self.out.rows.len() > 0;
        let has_refused = std::mem::take(&mut self.out.refused) > 0;
        Ok([
            has_rows.then(|| self.out.rows.finish()).transpose()?,
            has_refused.then(|| self.out.dead.finish()),
        ])
    }
}

#[cfg(test)]
#[path = "host_tests.rs"]
mod tests;
