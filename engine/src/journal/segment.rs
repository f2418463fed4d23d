//! The format of one segment: a header, then records. Reading it never trusts a byte.
//!
//! ```text
//! header (twice)  magic 8 | version u32 | salt u32 | number u64 | first batch u64 | crc32 u32 | zeros 4
//! record          length u32 | crc32 u32 | batch u64 | rows u32 | kind u8 | payload
//! ```
//!
//! Little-endian. A record's checksum starts from the segment's salt and covers all of the record but itself.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;

const MAGIC: &[u8; 8] = b"TAKTJRNL";
const VERSION: u32 = 1;
const HEADER_COPY: usize = 40;
/// Bytes before the first record. The header stands there twice, so that one bad byte costs nothing.
pub(super) const HEADER: u64 = 2 * HEADER_COPY as u64;
const RECORD_HEAD: usize = 21;
/// The payload is one raw batch as an Arrow IPC stream.
const ARROW: u8 = 1;

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub number: u64,
    /// Number of the first batch in it.
    pub first: u64,
    /// Random, so that bytes of a payload can't be taken for a record.
    pub salt: u32,
}

impl Header {
    pub fn encode(&self) -> Vec<u8> {
        let mut copy = Vec::with_capacity(HEADER_COPY);
        copy.extend(MAGIC);
        copy.extend(VERSION.to_le_bytes());
        copy.extend(self.salt.to_le_bytes());
        copy.extend(self.number.to_le_bytes());
        copy.extend(self.first.to_le_bytes());
        copy.extend(crc32fast::hash(&copy).to_le_bytes());
        copy.resize(HEADER_COPY, 0);
        copy.repeat(2)
    }

    fn decode(copy: &[u8]) -> Option<(u32, Self)> {
        let sound = copy.starts_with(MAGIC) && crc32fast::hash(&copy[..32]) == u32_at(copy, 32);
        let header = Header {
            salt: u32_at(copy, 12),
            number: u64_at(copy, 16),
            first: u64_at(copy, 24),
        };
        sound.then(|| (u32_at(copy, 8), header))
    }
}

/// Appends a batch to `out` as a record.
pub(super) fn encode(out: &mut Vec<u8>, salt: u32, index: u64, batch: &RecordBatch) -> anyhow::Result<()> {
    out.clear();
    out.extend([0; RECORD_HEAD]);
    let mut writer = StreamWriter::try_new(&mut *out, &batch.schema())?;
    writer.write(batch)?;
    writer.finish()?;
    drop(writer);
    let length = u32::try_from(out.len() - RECORD_HEAD)?;
    out[0..4].copy_from_slice(&length.to_le_bytes());
    out[8..16].copy_from_slice(&index.to_le_bytes());
    out[16..20].copy_from_slice(&u32::try_from(batch.num_rows())?.to_le_bytes());
    out[20] = ARROW;
    let crc = checksum(salt, out);
    out[4..8].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

fn checksum(salt: u32, record: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new_with_initial(salt);
    crc.update(&record[0..4]);
    crc.update(&record[8..]);
    crc.finalize()
}

/// A whole record.
pub(super) struct Record {
    pub index: u64,
    pub rows: u32,
    payload: Vec<u8>,
}

impl Record {
    pub fn batch(self) -> anyhow::Result<RecordBatch> {
        let mut bytes = Buffer::from_vec(self.payload);
        let batch = StreamDecoder::new().decode(&mut bytes)?;
        batch.ok_or_else(|| anyhow::anyhow!("the record holds no batch"))
    }
}

/// What comes next in a segment.
pub(super) enum Next {
    Record(Record),
    /// No record begins at byte `at`. Whole records go on at byte `next`, or there are no more.
    Damage {
        at: u64,
        next: Option<u64>,
    },
    End,
}

/// Reads a segment's records in order, and finds its way over damage.
pub(super) struct Reader {
    file: File,
    pub header: Header,
    at: u64,
    /// The lowest batch that may come next.
    expected: u64,
}

impl Reader {
    /// None: the header isn't whole, or neither copy of it is sound.
    ///
    /// # Errors
    /// The file can't be read, or a newer binary wrote it.
    pub fn open(path: &Path) -> anyhow::Result<Option<Self>> {
        let file = File::open(path)?;
        let mut bytes = [0; HEADER as usize];
        if file.metadata()?.len() < HEADER {
            return Ok(None);
        }
        file.read_exact_at(&mut bytes, 0)?;
        let Some((version, header)) = bytes.chunks(HEADER_COPY).find_map(Header::decode) else {
            return Ok(None);
        };
        anyhow::ensure!(
            version <= VERSION,
            "{} is of format {version}, this binary reads {VERSION}: go on with the version that wrote it",
            path.display()
        );
        Ok(Some(Reader {
            file,
            header,
            at: HEADER,
            expected: header.first,
        }))
    }

    /// The byte where the next record begins.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Goes to a place where a record is known to begin.
    pub fn seek(&mut self, at: u64, expected: u64) {
        (self.at, self.expected) = (at, expected);
    }

    /// What comes next among the first `bytes` bytes of the file, of batches before `end`.
    pub fn next(&mut self, end: u64, bytes: u64) -> io::Result<Next> {
        let bytes = bytes.min(self.file.metadata()?.len());
        if self.expected >= end || self.at == bytes {
            return Ok(Next::End);
        }
        if let Some(record) = self.record(bytes)? {
            if record.index >= end {
                return Ok(Next::End);
            }
            self.at += (RECORD_HEAD + record.payload.len()) as u64;
            self.expected = record.index + 1;
            return Ok(Next::Record(record));
        }
        let at = self.at;
        let next = self.resync(bytes)?;
        if let Some(next) = next {
            self.at = next;
        }
        Ok(Next::Damage { at, next })
    }

    fn record(&self, bytes: u64) -> io::Result<Option<Record>> {
        let left = bytes.saturating_sub(self.at);
        let mut head = [0; RECORD_HEAD];
        if left < RECORD_HEAD as u64 {
            return Ok(None);
        }
        self.file.read_exact_at(&mut head, self.at)?;
        let Some(length) = self.plausible(&head, left, bytes) else {
            return Ok(None);
        };
        let mut payload = vec![0; length];
        self.file.read_exact_at(&mut payload, self.at + RECORD_HEAD as u64)?;
        let mut crc = crc32fast::Hasher::new_with_initial(self.header.salt);
        crc.update(&head[0..4]);
        crc.update(&head[8..]);
        crc.update(&payload);
        let sound = crc.finalize() == u32_at(&head, 4);
        Ok(sound.then(|| Record {
            index: u64_at(&head, 8),
            rows: u32_at(&head, 16),
            payload,
        }))
    }

    /// The byte of the next whole record behind one that isn't.
    fn resync(&self, bytes: u64) -> io::Result<Option<u64>> {
        let from = (self.at + 1).min(bytes);
        let mut rest = vec![0; (bytes - from) as usize];
        self.file.read_exact_at(&mut rest, from)?;
        let found = (0..rest.len().saturating_sub(RECORD_HEAD)).find(|&place| {
            let tail = &rest[place..];
            self.plausible(tail, tail.len() as u64, bytes).is_some_and(|length| {
                let record = &tail[..RECORD_HEAD + length];
                checksum(self.header.salt, record) == u32_at(record, 4)
            })
        });
        Ok(found.map(|place| from + place as u64))
    }

    /// The length of the payload, if a record with this head can stand where `left` bytes are left.
    fn plausible(&self, head: &[u8], left: u64, bytes: u64) -> Option<usize> {
        let length = u64::from(u32_at(head, 0));
        let index = u64_at(head, 8);
        // A file can't hold more batches than fit into it. This keeps a search through foreign bytes short.
        let highest = self.expected.saturating_add(bytes / RECORD_HEAD as u64);
        let fits = length > 0 && length + RECORD_HEAD as u64 <= left;
        (fits && head[20] == ARROW && self.expected <= index && index < highest).then_some(length as usize)
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
