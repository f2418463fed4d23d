//! What the raw rows of this source say beside the message: their `key`.

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use taktline_engine::{DeadLetters, Decoded, Decoder};

use crate::codec::decode::MessageDecoder;
use crate::codec::message::Messages;

/// What a raw row is.
#[derive(Debug, PartialEq)]
pub(super) enum Note<'k> {
    /// A message, and under which packet id it came. None: the broker waits for no acknowledgement.
    Message(Option<u16>),
    /// No row: word of a delivery that we had, so that the end of the journal knows it.
    Had { packet: u16, fingerprint: u64 },
    /// A dead letter with this reason.
    Refused(&'k str),
}

const HAD: &[u8] = b"had";
const REFUSED: &[u8] = b"refused ";

impl<'k> Note<'k> {
    /// The note in a raw row's key.
    pub(super) fn of(key: Option<&'k [u8]>) -> Self {
        let Some(key) = key else { return Note::Message(None) };
        if let Some(reason) = key.strip_prefix(REFUSED) {
            return Note::Refused(std::str::from_utf8(reason).unwrap_or_default());
        }
        match (key, key.strip_prefix(HAD)) {
            (&[high, low], _) => Note::Message(Some(u16::from_be_bytes([high, low]))),
            (_, Some(&[high, low, a, b, c, d, e, f, g, h])) => Note::Had {
                packet: u16::from_be_bytes([high, low]),
                fingerprint: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
            },
            _ => Note::Message(None),
        }
    }

    /// As a raw row's key; that of a message is its packet id.
    pub(super) fn key(&self) -> Option<Vec<u8>> {
        match self {
            Note::Message(packet) => packet.map(|packet| packet.to_be_bytes().to_vec()),
            Note::Had { packet, fingerprint } => Some(
                [
                    HAD,
                    packet.to_be_bytes().as_slice(),
                    fingerprint.to_be_bytes().as_slice(),
                ]
                .concat(),
            ),
            Note::Refused(reason) => Some([REFUSED, reason.as_bytes()].concat()),
        }
    }
}

/// Decodes messages, and minds the notes among them.
pub(super) struct NotedDecoder {
    messages: MessageDecoder,
    dead: DeadLetters,
}

impl NotedDecoder {
    pub(super) fn new(source: &str, messages: MessageDecoder) -> Self {
        NotedDecoder {
            messages,
            dead: DeadLetters::new(source),
        }
    }
}

impl Decoder for NotedDecoder {
    fn decode(&mut self, raw: &RecordBatch) -> anyhow::Result<Decoded> {
        let messages = Messages::of(raw)?;
        let keys = raw.column_by_name("key").and_then(|keys| keys.as_binary_opt::<i32>());
        let keys = keys.ok_or_else(|| anyhow::anyhow!("a raw batch of messages without keys"))?;
        // A batch with notes is rare.
        if keys.value_offsets().windows(2).all(|ends| ends[1] - ends[0] <= 2) {
            return self.messages.decode(raw);
        }
        let mut headers = Vec::new();
        let mut is_message = Vec::with_capacity(raw.num_rows());
        for row in 0..raw.num_rows() {
            let note = Note::of(keys.is_valid(row).then(|| keys.value(row)));
            if let Note::Refused(reason) = note {
                let message = messages.get(row, &mut headers);
                self.dead.push(message.topic, message.sequence, reason, message.payload);
            }
            is_message.push(matches!(note, Note::Message(_)));
        }
        let rest = filter_record_batch(raw, &BooleanArray::from(is_message))?;
        let decoded = self.messages.decode(&rest)?;
        let refused = self.dead.finish();
        Ok(Decoded {
            samples: decoded.samples,
            dead_letters: concat_batches(&refused.schema(), [&refused, &decoded.dead_letters])?,
        })
    }

    fn left_out(&mut self) -> u64 {
        self.messages.left_out()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out() {
        for note in [
            Note::Message(None),
            Note::Message(Some(0x6861)), // "ha"
            Note::Had {
                packet: 65_535,
                fingerprint: u64::MAX - 1,
            },
            Note::Refused("a gap"),
            Note::Refused(""),
        ] {
            assert_eq!(Note::of(note.key().as_deref()), note);
        }
        assert_eq!(Note::of(Some(b"else")), Note::Message(None));
    }
}
