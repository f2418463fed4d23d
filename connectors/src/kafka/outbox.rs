//! Rows that wait on disk until their checkpoint is real: a file a process and checkpoint, in blocks with checksums.

use std::fs::{self, File};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use taktline_engine::fault;

/// A file of rows, as a checkpoint names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Lot {
    file: String,
    pub rows: u64,
}

/// A row as it will be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Letter {
    pub topic: String,
    pub key: Option<Vec<u8>>,
    pub payload: Vec<u8>,
}

impl Letter {
    /// What it costs, about.
    pub(crate) fn bytes(&self) -> usize {
        self.topic.len() + self.key.as_ref().map_or(0, Vec::len) + self.payload.len() + 32
    }
}

/// Blocks are about this large; one holds at least one row.
const BLOCK: usize = 256 << 10;
/// The longest block that is believed: rows are smaller than Kafka's largest messages.
const BLOCK_LIMIT: usize = 1 << 30;
const ENDING: &str = "rows";

/// The outbox of one process.
pub(crate) struct Outbox {
    folder: PathBuf,
    generation: u64,
    writing: Option<Writing>,
    block: Vec<u8>,
}

struct Writing {
    file: File,
    lot: Lot,
}

impl Outbox {
    pub(crate) fn new(folder: PathBuf, generation: u64) -> Self {
        Outbox {
            folder,
            generation,
            writing: None,
            block: Vec::new(),
        }
    }

    /// Adds a row. It isn't durable before [`Outbox::finish`].
    pub(crate) fn push(&mut self, topic: &str, key: Option<&[u8]>, payload: &[u8]) -> anyhow::Result<()> {
        if self.writing.is_none() {
            self.writing = Some(self.create()?);
        }
        put(&mut self.block, Some(topic.as_bytes()))?;
        put(&mut self.block, key)?;
        put(&mut self.block, Some(payload))?;
        if let Some(writing) = &mut self.writing {
            writing.lot.rows += 1;
        }
        if self.block.len() >= BLOCK {
            self.write_block()?;
        }
        Ok(())
    }

    /// Makes what was added durable; none if nothing was.
    pub(crate) fn finish(&mut self) -> anyhow::Result<Option<Lot>> {
        self.write_block()?;
        let Some(Writing { file, lot }) = self.writing.take() else {
            return Ok(None);
        };
        fault::point("kafka.outbox.sync")?;
        let sync = || file.sync_all().and_then(|()| sync_folder(&self.folder));
        sync().with_context(|| self.folder.join(&lot.file).display().to_string())?;
        Ok(Some(lot))
    }

    fn create(&self) -> anyhow::Result<Writing> {
        fault::point("kafka.outbox.create")?;
        make_folder(&self.folder)?;
        let name = format!("{}-{}.{ENDING}", self.generation, uuid::Uuid::new_v4().simple());
        let path = self.folder.join(&name);
        let file = File::create_new(&path).with_context(|| path.display().to_string())?;
        Ok(Writing {
            file,
            lot: Lot { file: name, rows: 0 },
        })
    }

    fn write_block(&mut self) -> anyhow::Result<()> {
        let Some(writing) = self.writing.as_mut().filter(|_| !self.block.is_empty()) else {
            return Ok(());
        };
        let length = u32::try_from(self.block.len())
            .ok()
            .filter(|length| *length as usize <= BLOCK_LIMIT);
        let length = length.context("a row has more than 1 GiB")?;
        let mut head = length.to_le_bytes().to_vec();
        head.extend(crc32fast::hash(&self.block).to_le_bytes());
        fault::point("kafka.outbox.write")?;
        let write = |file: &mut File| file.write_all(&head).and_then(|()| file.write_all(&self.block));
        write(&mut writing.file).with_context(|| self.folder.join(&writing.lot.file).display().to_string())?;
        self.block.clear();
        Ok(())
    }
}

/// Makes a folder that is still there after a crash.
pub(crate) fn make_folder(folder: &Path) -> anyhow::Result<()> {
    let make = || -> std::io::Result<()> {
        fs::create_dir_all(folder)?;
        folder.parent().map_or(Ok(()), sync_folder)
    };
    make().with_context(|| folder.display().to_string())
}

pub(crate) fn sync_folder(folder: &Path) -> std::io::Result<()> {
    File::open(folder)?.sync_all()
}

/// A length and as many bytes; a length of its own for none.
fn put(block: &mut Vec<u8>, bytes: Option<&[u8]>) -> anyhow::Result<()> {
    let length = match bytes {
        None => NONE,
        Some(bytes) => u32::try_from(bytes.len())
            .ok()
            .filter(|length| *length < NONE)
            .context("a row has more than 4 GiB")?,
    };
    block.extend(length.to_le_bytes());
    block.extend(bytes.unwrap_or_default());
    Ok(())
}

const NONE: u32 = u32::MAX;

fn get<'b>(block: &mut &'b [u8]) -> Option<Option<&'b [u8]>> {
    let (length, rest) = block.split_first_chunk::<4>()?;
    let length = u32::from_le_bytes(*length);
    *block = rest;
    if length == NONE {
        return Some(None);
    }
    let (bytes, rest) = block.split_at_checked(length as usize)?;
    *block = rest;
    Some(Some(bytes))
}

/// True when the file of a lot is there.
pub(crate) fn is_there(folder: &Path, lot: &Lot) -> anyhow::Result<bool> {
    let path = folder.join(&lot.file);
    path.try_exists().with_context(|| path.display().to_string())
}

/// Gives each row of a lot to `each`, in order.
///
/// # Errors
/// The file is damaged or can't be read; `each` gave up.
pub(crate) fn read(folder: &Path, lot: &Lot, each: &mut dyn FnMut(Letter) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let path = folder.join(&lot.file);
    let name = || path.display().to_string();
    let damaged = |what: &str| {
        anyhow::anyhow!(
            "{}: {what}: the rows that were staged in it can't be published",
            path.display()
        )
    };
    let mut file = BufReader::new(File::open(&path).with_context(name)?);
    let mut rows = 0;
    loop {
        let mut head = [0; 8];
        match file.read_exact(&mut head[..1]) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => break,
            Err(e) => return Err(e).with_context(name),
        }
        let mut fill = |bytes: &mut [u8]| match file.read_exact(bytes) {
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => Err(damaged("it ends in the middle of a block")),
            read => read.with_context(name),
        };
        fill(&mut head[1..])?;
        let [a, b, c, d, crc @ ..] = head;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        ensure!(length <= BLOCK_LIMIT, damaged("a block has an impossible length"));
        let mut block = vec![0; length];
        fill(&mut block)?;
        ensure!(
            crc32fast::hash(&block) == u32::from_le_bytes(crc),
            damaged("a block does not fit its checksum")
        );
        let mut rest = block.as_slice();
        while !rest.is_empty() {
            let letter = letter(&mut rest).ok_or_else(|| damaged("a block holds no rows"))?;
            each(letter)?;
            rows += 1;
        }
    }
    ensure!(
        rows == lot.rows,
        damaged(&format!("it has {rows} rows and not {}", lot.rows))
    );
    Ok(())
}

fn letter(block: &mut &[u8]) -> Option<Letter> {
    let topic = String::from_utf8(get(block)??.to_vec()).ok()?;
    let key = get(block)?.map(<[u8]>::to_vec);
    let payload = get(block)??.to_vec();
    Some(Letter { topic, key, payload })
}

/// Removes what was published.
pub(crate) fn remove(folder: &Path, lots: &[Lot]) -> anyhow::Result<()> {
    for lot in lots {
        let path = folder.join(&lot.file);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e).with_context(|| path.display().to_string()),
            _ => {}
        }
    }
    Ok(())
}

/// Removes files of generations before this one that no checkpoint names: their runs ended before they became real.
pub(crate) fn remove_orphans(folder: &Path, generation: u64, named: &[Lot]) -> anyhow::Result<()> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        entries => entries.with_context(|| folder.display().to_string())?,
    };
    for entry in entries {
        let entry = entry.with_context(|| folder.display().to_string())?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let of = name
            .strip_suffix(&format!(".{ENDING}"))
            .and_then(|name| name.split_once('-')?.0.parse::<u64>().ok());
        if of.is_some_and(|of| of < generation) && !named.iter().any(|lot| lot.file == name) {
            fs::remove_file(entry.path()).with_context(|| entry.path().display().to_string())?;
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    fn letters(folder: &Path, lot: &Lot) -> anyhow::Result<Vec<Letter>> {
        let mut found = Vec::new();
        read(folder, lot, &mut |letter| {
            found.push(letter);
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn what_goes_in_comes_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut outbox = Outbox::new(dir.path().join("a/b"), 3);
        assert_eq!(outbox.finish().unwrap(), None);
        let big = vec![b'x'; BLOCK];
        type Row<'r> = (&'r str, Option<&'r [u8]>, &'r [u8]);
        let rows: [Row<'_>; 4] = [
            ("t", None, b"1"),
            ("u", Some(b"k"), b""),
            ("t", Some(b""), &big),
            ("t", Some(b"m"), b"4"),
        ];
        for (topic, key, payload) in rows {
            outbox.push(topic, key, payload).unwrap();
        }
        let lot = outbox.finish().unwrap().unwrap();
        assert_eq!(lot.rows, 4);
        let found = letters(&dir.path().join("a/b"), &lot).unwrap();
        for (letter, (topic, key, payload)) in found.iter().zip(rows) {
            assert_eq!(
                (letter.topic.as_str(), letter.key.as_deref(), &*letter.payload),
                (topic, key, payload)
            );
        }
        outbox.push("t", None, b"5").unwrap();
        let next = outbox.finish().unwrap().unwrap();
        assert_ne!(next.file, lot.file);
        assert_eq!(letters(&dir.path().join("a/b"), &next).unwrap().len(), 1);
    }

    #[test]
    fn damage_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let mut outbox = Outbox::new(dir.path().to_owned(), 1);
        for _ in 0..3 {
            outbox.push("topic", Some(b"key"), b"payload").unwrap();
        }
        let lot = outbox.finish().unwrap().unwrap();
        let path = dir.path().join(&lot.file);
        let whole = fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(&path, &bytes).unwrap();
            assert!(letters(dir.path(), &lot).is_err(), "a changed byte {at}");
            fs::write(&path, &whole[..at]).unwrap();
            assert!(letters(dir.path(), &lot).is_err(), "cut at {at}");
        }
        fs::remove_file(&path).unwrap();
        assert!(!is_there(dir.path(), &lot).unwrap());
    }

    #[test]
    fn orphans_go_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let lot = |generation| {
            let mut outbox = Outbox::new(dir.path().to_owned(), generation);
            outbox.push("t", None, b"1").unwrap();
            outbox.finish().unwrap().unwrap()
        };
        let (orphan, named, own) = (lot(1), lot(2), lot(3));
        fs::write(dir.path().join("identity"), "x").unwrap();
        remove_orphans(dir.path(), 3, std::slice::from_ref(&named)).unwrap();
        let there = [&orphan, &named, &own].map(|lot| is_there(dir.path(), lot).unwrap());
        assert_eq!(there, [false, true, true]);
        assert!(dir.path().join("identity").exists());
        remove(dir.path(), &[orphan, named]).unwrap();
        remove_orphans(&dir.path().join("none"), 3, &[]).unwrap();
    }
}
