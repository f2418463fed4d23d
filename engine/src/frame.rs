//! The container that timely carries: a record batch and where it came from, or a word of control.

use std::cell::OnceCell;
use std::io::Write;

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use serde::{Deserialize, Serialize};
use timely::bytes::arc::Bytes;
use timely::container::Accountable;
use timely::dataflow::channels::ContainerBytes;

use crate::run::{Memory, MemoryExceeded, Pace};
use crate::state::{Offset, Staged, StateFile};

/// Where a batch stands in the order of the input: by partition, then by sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin {
    /// The source's place in the plan and the partition's place in the source.
    pub partition: (u32, u32),
    /// Number of the raw batch within the partition.
    pub sequence: u64,
}

/// Rows on their way through the dataflow, or a word of control for one worker.
#[derive(Clone, Debug)]
pub(crate) enum Frame {
    /// Rows of an edge.
    Rows(Packet),
    /// What is not rows.
    Control { worker: usize, word: Word },
}

/// What the workers tell each other beside the rows.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Word {
    /// Time stamped by the source side.
    Tick { now_us: i64 },
    /// This epoch is a checkpoint.
    Barrier(Barrier),
    /// This checkpoint is real.
    Committed { checkpoint: u64 },
    /// No checkpoint before this one is needed any more.
    Released { checkpoint: u64 },
    /// To the leader: a part of a checkpoint is durable.
    Report(Box<Report>),
    /// To the leader: how a process stands to its limit of memory.
    Memory { process: usize, memory: Memory },
    /// How fast epochs follow each other: what the leader makes of that.
    Pace(Pace),
    /// The run ends because of this.
    Exceeded(MemoryExceeded),
}

/// A checkpoint that is being taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Barrier {
    pub checkpoint: u64,
    pub kind: BarrierKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum BarrierKind {
    /// The run goes on.
    Passing,
    /// The run is stopped here and will be resumed: what comes after this epoch is let go.
    Stop,
    /// The input has ended, and everything of it belongs to this checkpoint.
    End,
}

/// A durable part of a checkpoint.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// Of one worker: its state file, the oldest checkpoint whose files it still needs, its partitions' offsets by source and number.
    Worker {
        checkpoint: u64,
        file: Option<StateFile>,
        needs: u64,
        offsets: Vec<(u32, u32, Offset)>,
    },
    /// Of one process: what a sink staged.
    Sink {
        checkpoint: u64,
        sink: usize,
        staged: Staged,
    },
}

impl Report {
    pub fn checkpoint(&self) -> u64 {
        match self {
            Report::Worker { checkpoint, .. } | Report::Sink { checkpoint, .. } => *checkpoint,
        }
    }
}

/// Rows and where they stand.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub batch: RecordBatch,
    pub origin: Origin,
    /// The batch as it goes over the wire; timely asks for its length before its bytes, and it is encoded once.
    wire: OnceCell<Vec<u8>>,
}

impl Frame {
    pub fn rows(batch: RecordBatch, origin: Origin) -> Self {
        Frame::Rows(Packet {
            batch,
            origin,
            wire: OnceCell::new(),
        })
    }
}

impl Default for Frame {
    fn default() -> Self {
        Frame::rows(
            RecordBatch::new_empty(arrow::datatypes::Schema::empty().into()),
            Origin::default(),
        )
    }
}

impl Accountable for Frame {
    fn record_count(&self) -> i64 {
        match self {
            Frame::Rows(packet) => packet.batch.num_rows() as i64,
            Frame::Control { .. } => 1,
        }
    }
}

const ROWS: u64 = 0;
const CONTROL: u64 = 1;

// Layout: eight little-endian words (kind, three fields, the length of the body), the body (an Arrow IPC stream, or the JSON of a
// word), zeros up to a multiple of eight.
impl ContainerBytes for Frame {
    #[allow(clippy::expect_used)] // the bytes come from `into_bytes` of the same version over an authenticated link
    fn from_bytes(bytes: Bytes) -> Self {
        let word = |i: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[8 * i..8 * i + 8]);
            u64::from_le_bytes(word)
        };
        let body = &bytes[HEADER..HEADER + word(4) as usize];
        if word(0) == CONTROL {
            return Frame::Control {
                worker: word(1) as usize,
                word: serde_json::from_slice(body).expect("a word of control"),
            };
        }
        let origin = Origin {
            partition: (word(1) as u32, word(2) as u32),
            sequence: word(3),
        };
        // The reader copies out of the slab, so that no kept batch holds a whole slab alive.
        let mut reader = StreamReader::try_new(body, None).expect("Arrow IPC stream");
        let batch = reader.next().expect("one batch").expect("Arrow IPC batch");
        Frame::rows(batch, origin)
    }

    fn length_in_bytes(&self) -> usize {
        match self {
            Frame::Rows(packet) => HEADER + packet.wire().len().next_multiple_of(8),
            Frame::Control { word, .. } => HEADER + encode_word(word).len().next_multiple_of(8),
        }
    }

    #[allow(clippy::expect_used)] // timely's writers are memory; the trait has no way to report an error
    fn into_bytes<W: Write>(&self, writer: &mut W) {
        let encoded;
        let (words, body): (_, &[u8]) = match self {
            Frame::Control { worker, word } => {
                encoded = encode_word(word);
                ([CONTROL, *worker as u64, 0, 0, encoded.len() as u64, 0, 0, 0], &encoded)
            }
            Frame::Rows(packet) => {
                let body = packet.wire();
                let (source, partition) = packet.origin.partition;
                let words = [
                    ROWS,
                    source.into(),
                    partition.into(),
                    packet.origin.sequence,
                    body.len() as u64,
                    0,
                    0,
                    0,
                ];
                (words, body)
            }
        };
        for word in words {
            writer.write_all(&word.to_le_bytes()).expect("write to memory");
        }
        writer.write_all(body).expect("write to memory");
        writer
            .write_all(&[0; 8][..body.len().next_multiple_of(8) - body.len()])
            .expect("write to memory");
    }
}

const HEADER: usize = 64;

impl Packet {
    fn wire(&self) -> &[u8] {
        self.wire.get_or_init(|| encode(&self.batch))
    }
}

#[allow(clippy::expect_used)] // encoding into memory fails only for a type that Arrow IPC lacks, and plans have none
fn encode(batch: &RecordBatch) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = StreamWriter::try_new(&mut bytes, &batch.schema()).expect("Arrow IPC schema");
    writer.write(batch).expect("Arrow IPC batch");
    writer.finish().expect("Arrow IPC end");
    drop(writer);
    bytes
}

#[allow(clippy::expect_used)] // plain data with text keys
fn encode_word(word: &Word) -> Vec<u8> {
    serde_json::to_vec(word).expect("JSON")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use crate::table::{Sample, samples_batch};

    fn round_trip(frame: &Frame) -> Frame {
        let mut bytes = Vec::new();
        frame.into_bytes(&mut bytes);
        assert_eq!(bytes.len(), frame.length_in_bytes());
        assert_eq!(bytes.len() % 8, 0);
        let mut slab = timely::bytes::arc::BytesMut::from(bytes);
        let length = slab.len();
        Frame::from_bytes(slab.extract_to(length))
    }

    #[test]
    fn rows_survive_the_wire() {
        let row = |machine, value| Sample {
            machine,
            signal: "pressure",
            ts: 5,
            value,
            text: Some("ä"),
        };
        let batch = samples_batch([
            row("press-1", Some(1.5)),
            row("press-2", None),
            row("press-1", Some(f64::NAN)),
        ]);
        let origin = Origin {
            partition: (1, 2),
            sequence: 3,
        };
        // A slice too: only its own rows travel.
        for batch in [batch.clone(), batch.slice(1, 1), batch.slice(0, 0)] {
            let Frame::Rows(back) = round_trip(&Frame::rows(batch.clone(), origin)) else {
                panic!("rows became a word");
            };
            assert_eq!(back.origin, origin);
            assert_eq!(format!("{:?}", back.batch.columns()), format!("{:?}", batch.columns()));
        }
    }

    #[test]
    fn words_survive_the_wire() {
        let at = serde_json::json!({"file": "a.csv", "byte": u64::MAX});
        let words = [
            Word::Tick { now_us: -7 },
            Word::Barrier(Barrier {
                checkpoint: u64::MAX,
                kind: BarrierKind::End,
            }),
            Word::Report(Box::new(Report::Worker {
                checkpoint: 1,
                file: None,
                needs: 0,
                offsets: vec![(0, 1, Offset { sequence: 9, at })],
            })),
        ];
        for word in words {
            let sent = format!("{word:?}");
            let Frame::Control { worker, word } = round_trip(&Frame::Control { word, worker: 3 }) else {
                panic!("a word became rows");
            };
            assert_eq!((worker, format!("{word:?}")), (3, sent));
        }
    }
}
