//! How far each file of a source has been read: the offset of its partition.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::FileState;
use super::inputs::{Input, Opened};

/// Bytes before a mark in text that tell whether the file is still the same.
const CHECK_BYTES: u64 = 256;
/// The same at the end of a Parquet file: its footer, which differs for other rows.
const FOOT_BYTES: u64 = 64 << 10;

/// How far one file has been read.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Mark {
    /// The path as the source names it.
    pub file: String,
    #[serde(flatten)]
    pub at: At,
    /// Rows of the file before this place.
    pub rows: u64,
    /// The block that begins here has been played up to this byte (Parquet: row).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub till: Option<u64>,
    /// True when this was the end of the file.
    #[serde(default)]
    pub whole: bool,
    /// Hash of what stands before this place (Parquet: at the end of the file).
    pub check: String,
}

/// A place in a file.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum At {
    /// Text: bytes before it.
    Byte(u64),
    /// Parquet: rows before it.
    Row(u64),
    /// The end of a file that can't be read; its size in bytes.
    Broken(u64),
}

impl Mark {
    /// A mark in a file as it is now.
    pub fn new(input: &Input, at: At, rows: u64) -> anyhow::Result<Self> {
        Ok(Mark {
            file: input.name.clone(),
            at,
            rows,
            till: None,
            whole: false,
            check: check(input, at)?,
        })
    }

    /// The byte or row that is read next.
    pub fn next(&self) -> u64 {
        match self.at {
            At::Byte(next) | At::Row(next) | At::Broken(next) => next,
        }
    }

    /// Refuses a file that is another one now.
    fn verify(&self, input: &Input, opened: &Opened) -> anyhow::Result<()> {
        let what = match (self.at, opened) {
            (At::Byte(byte), _) if input.bytes < byte => {
                format!("has {} bytes now, and {byte} of it were read", input.bytes)
            }
            (At::Byte(_), Opened::Csv(_) | Opened::Ndjson | Opened::Empty) => {
                match self.check == check(input, self.at)? {
                    true => return Ok(()),
                    false => format!("is not what it was before byte {}", self.next()),
                }
            }
            // What was empty may be anything by now.
            (At::Byte(0), _) => return Ok(()),
            (At::Row(_), Opened::Parquet(_)) if self.check == check(input, self.at)? => return Ok(()),
            (At::Broken(bytes), Opened::Broken(_)) if bytes == input.bytes && self.check == check(input, self.at)? => {
                return Ok(());
            }
            _ => "is another file now".to_owned(),
        };
        anyhow::bail!("{} {what}; {}", input.name, way_out())
    }
}

fn way_out() -> &'static str {
    "put the old one back, or begin the source anew with --fresh and its name"
}

/// A hash of the bytes before a place in text; of the end of any other file.
fn check(input: &Input, at: At) -> anyhow::Result<String> {
    let (end, length) = match at {
        At::Byte(byte) => (byte, CHECK_BYTES),
        At::Row(_) | At::Broken(_) => (input.bytes, FOOT_BYTES),
    };
    let hashed = || -> io::Result<u64> {
        let start = end.saturating_sub(length);
        let mut file = File::open(&input.path)?;
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = end.to_le_bytes().to_vec();
        file.take(end - start).read_to_end(&mut bytes)?;
        Ok(fnv(&bytes))
    };
    Ok(format!("{:016x}", hashed().with_context(|| input.name.clone())?))
}

/// FNV-1a.
fn fnv(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}

/// The marks of all files of a partition.
#[derive(Clone, Debug, Default)]
pub(super) struct Marks {
    /// By the file's index in the source.
    of: BTreeMap<usize, Mark>,
    /// Of files that the source no longer has.
    gone: Vec<Mark>,
}

impl Marks {
    /// The marks that an offset tells, checked against the files.
    ///
    /// # Errors
    /// This is no offset of a file source, or a file is another one than it was.
    pub fn read(state: &FileState, files: Range<usize>, offset: &Value) -> anyhow::Result<Self> {
        #[derive(Deserialize)]
        struct Offset {
            files: Vec<Mark>,
        }
        let Offset { files: known } =
            Offset::deserialize(offset).with_context(|| format!("no offset of a file source: {offset}"))?;
        let inputs = state.inputs()?;
        let by_name: HashMap<&str, usize> = files.map(|file| (inputs[file].name.as_str(), file)).collect();
        let mut marks = Marks::default();
        for mark in known {
            match by_name.get(mark.file.as_str()).copied() {
                Some(file) => {
                    let input = &inputs[file];
                    mark.verify(input, input.open(&state.settings)?)?;
                    marks.of.insert(file, mark);
                }
                None => marks.gone.push(mark),
            }
        }
        if let (true, Some(mark)) = (marks.of.is_empty(), marks.gone.last()) {
            anyhow::bail!(
                "{} and all else that was read is no longer there; {}",
                mark.file,
                way_out()
            );
        }
        if let Some(mark) = marks.gone.iter().find(|mark| !mark.whole) {
            anyhow::bail!(
                "{} was not read to its end and is no longer there; {}",
                mark.file,
                way_out()
            );
        }
        Ok(marks)
    }

    pub fn of(&self, file: usize) -> Option<&Mark> {
        self.of.get(&file)
    }

    /// True before anything has been read.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty() && self.gone.is_empty()
    }

    pub fn set(&mut self, file: usize, mark: Mark) {
        self.of.insert(file, mark);
    }

    /// Rows that were read from all files together.
    pub fn rows(&self) -> u64 {
        self.of.values().chain(&self.gone).map(|mark| mark.rows).sum()
    }

    /// As an offset.
    pub fn offset(&self) -> Value {
        json!({"files": self.gone.iter().chain(self.of.values()).collect::<Vec<_>>()})
    }
}
