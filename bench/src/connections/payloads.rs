//! The rows that are measured on, as JSON payloads.

use crate::rows;

/// Samples of a message that carries many.
pub const MANY: usize = 100;

/// A payload and whose it is.
pub struct Payload {
    /// The machine, which is the message's key or a level of its topic.
    pub machine: String,
    /// The signal.
    pub signal: &'static str,
    /// JSON.
    pub json: String,
}

/// One sample each.
pub fn one(samples: usize) -> impl Iterator<Item = Payload> {
    rows::all().take(samples).map(|(machine, signal, ts, value)| {
        let machine = name(machine);
        let json = format!("{{\"machine\":\"{machine}\",\"signal\":\"{signal}\",\"ts\":{ts},\"value\":{value}}}");
        Payload { machine, signal, json }
    })
}

/// [`MANY`] samples of one signal each, in the order in which the last of them is made.
pub fn many(samples: usize) -> impl Iterator<Item = Payload> {
    let mut gathered: Vec<(usize, String)> = vec![(0, String::new()); rows::SERIES];
    rows::all()
        .take(samples)
        .filter_map(move |(machine, signal, ts, value)| {
            let series = rows::series(machine, signal);
            let (count, list) = &mut gathered[series];
            if *count > 0 {
                list.push(',');
            }
            list.push_str(&format!("{{\"ts\":{ts},\"value\":{value}}}"));
            *count += 1;
            if *count < MANY {
                return None;
            }
            let machine = name(machine);
            let json = format!("{{\"machine\":\"{machine}\",\"signal\":\"{signal}\",\"samples\":[{list}]}}");
            (*count, *list) = (0, String::new());
            Some(Payload { machine, signal, json })
        })
}

fn name(machine: usize) -> String {
    format!("machine-{machine:02}")
}
