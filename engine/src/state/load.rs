//! The live state of the keys, out of the files of a checkpoint.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::Path;

use super::record::MAGIC;
use super::sealed::not_read;
use super::{Change, Damaged, Manifest, Record, StateDir, StateFile};

/// What is read from the disk at once.
const CHUNK: usize = 1 << 20;

/// The state of every key, by step, slot and key.
pub type States = HashMap<(String, u8, String), Kept>;

/// One key's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// The newest head.
    pub head: Vec<u8>,
    /// All tails since the last restart.
    pub tail: Vec<u8>,
    /// The checkpoint of the oldest record that this is made of. Files of checkpoints below the lowest such number of
    /// *all* keys can be left out of the next manifest. Leave out only from the front: a later file may be what says
    /// that a key is gone.
    pub oldest: u64,
}

/// Reads all state files of a checkpoint, each once.
///
/// # Errors
/// [`Damaged`] when a file is not what was written; another one when it can't be read for a reason of its own.
pub fn load(dir: &StateDir, manifest: &Manifest, wanted: &(dyn Fn(&str) -> bool + Sync)) -> anyhow::Result<States> {
    dir.files_are_there(manifest)?; // found out before a gigabyte is read
    let mut slots: Vec<Slot> = Vec::new();
    let mut at = 0;
    for file in &manifest.files {
        each(&dir.state_path(&file.name), file, |record| {
            if !wanted(record.key) {
                return;
            }
            let is_it = |slot: &Slot| slot.slot == record.slot && slot.step == record.step;
            // Records of one step come one after the other.
            if !slots.get(at).is_some_and(is_it) {
                at = slots.iter().position(is_it).unwrap_or(slots.len());
                if at == slots.len() {
                    slots.push(Slot {
                        step: record.step.to_owned(),
                        slot: record.slot,
                        keys: HashMap::new(),
                    });
                }
            }
            apply(&mut slots[at].keys, &record, file.checkpoint);
        })?;
    }
    let mut states = States::with_capacity(slots.iter().map(|slot| slot.keys.len()).sum());
    for Slot { step, slot, keys } in slots {
        states.extend(keys.into_iter().map(|(key, kept)| ((step.clone(), slot, key), kept)));
    }
    Ok(states)
}

/// The keys of a step's slot, so that a known key is found without making strings.
struct Slot {
    step: String,
    slot: u8,
    keys: HashMap<String, Kept>,
}

fn apply(keys: &mut HashMap<String, Kept>, record: &Record<'_>, checkpoint: u64) {
    if record.change == Change::Gone {
        keys.remove(record.key);
        return;
    }
    let Some(kept) = keys.get_mut(record.key) else {
        let kept = Kept {
            head: record.head.to_vec(),
            tail: record.tail.to_vec(),
            oldest: checkpoint,
        };
        keys.insert(record.key.to_owned(), kept);
        return;
    };
    if record.change == Change::Restart {
        kept.tail.clear();
    }
    if kept.tail.is_empty() {
        kept.oldest = checkpoint; // nothing of the records before is left
    }
    kept.head.clear();
    kept.head.extend_from_slice(record.head);
    kept.tail.extend_from_slice(record.tail);
}

/// Gives each record of a file. Only after the last one is it known whether the file was whole.
fn each(path: &Path, file: &StateFile, mut give: impl FnMut(Record<'_>)) -> anyhow::Result<()> {
    let opened = File::open(path).map_err(|error| not_read(error, path))?;
    let mut reader = BufReader::with_capacity(
        CHUNK,
        Summed {
            file: opened,
            crc: crc32fast::Hasher::new(),
        },
    );
    let mut left = file.bytes;
    let mut buffer = Vec::new();
    let mut first = [0; MAGIC.len()];
    read(&mut reader, &mut first, &mut left, path)?;
    if first != *MAGIC {
        return Err(Damaged::error(
            path,
            "is damaged: it doesn't begin as a state file does",
        ));
    }
    while left > 0 {
        let mut length = [0; 4];
        read(&mut reader, &mut length, &mut left, path)?;
        let length = u32::from_le_bytes(length);
        if u64::from(length) > left {
            return Err(Damaged::error(path, "is damaged: a record is longer than the file"));
        }
        buffer.resize(length as usize, 0);
        read(&mut reader, &mut buffer, &mut left, path)?;
        match postcard::take_from_bytes(&buffer) {
            Ok((record, [])) => give(record),
            _ => return Err(Damaged::error(path, "is damaged: a record can't be read")),
        }
    }
    let crc = reader.into_inner().crc.finalize();
    match crc == file.crc {
        true => Ok(()),
        false => Err(Damaged::error(
            path,
            format!("is damaged: its checksum is {crc:08x} and not {:08x}", file.crc),
        )),
    }
}

fn read(reader: &mut impl Read, bytes: &mut [u8], left: &mut u64, path: &Path) -> anyhow::Result<()> {
    reader.read_exact(bytes).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Damaged::error(path, "is damaged: it is cut off"),
        _ => not_read(error, path),
    })?;
    match left.checked_sub(bytes.len() as u64) {
        Some(rest) => *left = rest,
        None => return Err(Damaged::error(path, "is damaged: it is too short")),
    }
    Ok(())
}

/// Sums up what is read.
struct Summed {
    file: File,
    crc: crc32fast::Hasher,
}

impl Read for Summed {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(bytes)?;
        self.crc.update(&bytes[..count]);
        Ok(count)
    }
}
