//! The dead letters of one message.

use taktline_engine::DeadLetters;

use super::message::Message;

/// How many dead letters one message may make; the rest of its bad samples are counted in one more.
const LIMIT: usize = 10_000;

/// Takes what is bad about a payload.
pub(crate) trait Refusals {
    /// The row at `index` (line, or row of an Arrow stream, from 0; 0 where the payload is one document) isn't taken. `line` is the row as
    /// it came, where it can be told from the others.
    fn refuse(&mut self, index: usize, reason: &str, line: Option<&[u8]>);
}

/// Takes what is bad about a message. The message itself is kept with the first reason only, so that a payload with many bad samples
/// makes no flood.
pub(super) struct Letters<'d, 'm> {
    dead: &'d mut DeadLetters,
    message: &'d Message<'m>,
    count: usize,
    kept: bool,
}

impl<'d, 'm> Letters<'d, 'm> {
    pub fn new(dead: &'d mut DeadLetters, message: &'d Message<'m>) -> Self {
        Letters {
            dead,
            message,
            count: 0,
            kept: false,
        }
    }

    fn add(&mut self, reason: &str, payload: &[u8]) {
        self.count += 1;
        if self.count <= LIMIT {
            self.dead
                .push(self.message.topic, self.message.sequence, reason, payload);
        }
    }

    /// Says what was beyond the limit.
    pub fn finish(self) {
        if self.count > LIMIT {
            let reason = format!("{} more bad samples in this message", self.count - LIMIT);
            self.dead.push(self.message.topic, self.message.sequence, reason, &[]);
        }
    }
}

impl Refusals for Letters<'_, '_> {
    fn refuse(&mut self, _: usize, reason: &str, line: Option<&[u8]>) {
        let payload = match line {
            Some(line) => line,
            None if std::mem::replace(&mut self.kept, true) => &[],
            None => self.message.payload,
        };
        self.add(reason, payload);
    }
}
