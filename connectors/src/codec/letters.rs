//! The dead letters of one message.

use taktline_engine::DeadLetters;

use super::message::Message;

/// How many dead letters one message may make; the rest of its bad samples are counted in one more.
const LIMIT: usize = 10_000;

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

    /// Something is bad about the message or a sample in it.
    pub fn push(&mut self, reason: &str) {
        let payload = if self.kept { &[][..] } else { self.message.payload };
        self.kept = true;
        self.add(reason, payload);
    }

    /// Something is bad about a line of the message, which is kept with its reason.
    pub fn push_line(&mut self, reason: &str, line: &[u8]) {
        self.add(reason, line);
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
