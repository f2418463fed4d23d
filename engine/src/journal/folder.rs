//! The segments of a journal as files: listed and mended when it is opened, created, put into quarantine.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::segment::{HEADER, Header, Next, Reader};
use super::watch::{Count, Watch};
use crate::fault;

/// A segment as the journal knows it.
#[derive(Clone, Debug)]
pub(super) struct Segment {
    pub number: u64,
    /// Its batches are `first..end`; damage may have made gaps.
    pub first: u64,
    pub end: u64,
    /// Bytes of the file that are durable.
    pub bytes: u64,
    /// Rows in it, where this process has counted them.
    pub rows: Option<u64>,
    /// The writer appends to it.
    pub open: bool,
    /// Its batches were dropped by the policy. A [`tombstone`] is left, so that the gap isn't taken for damage.
    pub dropped: bool,
}

const TOMBSTONE: &[u8] = b"dropped\n";
/// Bytes of a tombstone.
pub(super) const TOMBSTONE_BYTES: u64 = HEADER + TOMBSTONE.len() as u64;

/// Empties a segment, and leaves a word about it.
pub(super) fn tombstone(path: &Path) -> io::Result<()> {
    let file = File::options().write(true).open(path)?;
    file.set_len(HEADER)?;
    file.write_all_at(TOMBSTONE, HEADER)
}

fn is_tombstone(path: &Path, bytes: u64) -> io::Result<bool> {
    Ok(bytes == TOMBSTONE_BYTES && fs::read(path)?.ends_with(TOMBSTONE))
}

/// What a folder holds when the journal is opened.
pub(super) struct Found {
    pub segments: VecDeque<Segment>,
    /// The number of the next batch and of the next segment.
    pub end: u64,
    pub number: u64,
}

/// Lists the segments and cuts what was written last and never finished.
pub(super) fn inspect(folder: &Path, watch: &Watch) -> anyhow::Result<Found> {
    create_folder(folder).with_context(|| format!("journal folder {}", folder.display()))?;
    let mut found = Found {
        segments: VecDeque::new(),
        end: 0,
        number: 1,
    };
    for number in numbers(folder)? {
        found.number = number.saturating_add(1);
        let path = path(folder, number);
        let header = Reader::open(&path)
            .with_context(|| format!("journal segment {}", path.display()))?
            .map(|reader| reader.header);
        let Some(header) = header.filter(|header| header.number == number && found.end <= header.first) else {
            put_aside(folder, number, watch)?;
            continue;
        };
        if let Some(before) = found.segments.back_mut() {
            before.end = header.first;
        }
        found.end = header.first;
        let bytes = fs::metadata(&path)?.len();
        found.segments.push_back(Segment {
            number,
            first: header.first,
            end: header.first,
            bytes,
            rows: None,
            open: false,
            dropped: is_tombstone(&path, bytes)?,
        });
    }
    if let Some(last) = found.segments.back_mut() {
        mend(folder, last, watch)?;
        found.end = last.end;
        if last.first == last.end {
            fs::remove_file(path(folder, last.number))?;
            found.segments.pop_back();
        }
    }
    Ok(found)
}

fn numbers(folder: &Path) -> anyhow::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.ends_with(".new") {
            fs::remove_file(entry.path())?; // a segment that was never begun
        } else if let Some(number) = name.strip_suffix(".journal").and_then(|number| number.parse().ok())
            && path(folder, number) == entry.path()
        {
            numbers.push(number);
        }
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

/// Finds the end of the last segment, and cuts an unfinished write off it.
fn mend(folder: &Path, last: &mut Segment, watch: &Watch) -> anyhow::Result<()> {
    let path = path(folder, last.number);
    let act = || format!("journal segment {}", path.display());
    let Some(mut reader) = Reader::open(&path)? else {
        anyhow::bail!("{} changed while it was read", path.display());
    };
    let mut rows = Some(0);
    let cut = loop {
        match reader.next(u64::MAX, last.bytes).with_context(act)? {
            Next::Record(record) => {
                rows = rows.map(|rows| rows + u64::from(record.rows));
                last.end = record.index + 1;
            }
            Next::Damage { next: Some(_), .. } => rows = None, // the reader says it when it comes there
            Next::Damage { at, next: None } => break Some(at.min(last.bytes)),
            Next::End => break None,
        }
    };
    last.rows = rows;
    let file = File::options().write(true).open(&path).with_context(act)?;
    if let Some(at) = cut {
        let torn = last.bytes - at;
        fault::point("journal.repair").with_context(act)?;
        file.set_len(at).with_context(act)?;
        last.bytes = at;
        watch.add(Count::Torn, torn);
        watch.say(format!(
            "cut {torn} bytes off the end of {} at byte {at}: the last write, of batch {}, was not finished",
            path.display(),
            last.end
        ));
    }
    // Whole records of a process that was killed may not be on disk yet.
    file.sync_all().with_context(|| format!("fsync of {}", path.display()))
}

/// Moves a segment that can't be read at all out of the way.
fn put_aside(folder: &Path, number: u64, watch: &Watch) -> anyhow::Result<()> {
    let path = path(folder, number);
    watch.say(format!(
        "{} has no sound header at byte 0: all its batches are lost{}",
        path.display(),
        quarantine(folder, number, watch)
    ));
    fault::point("journal.repair")?;
    fs::remove_file(&path).with_context(|| format!("journal segment {}", path.display()))
}

/// Keeps a damaged segment in `quarantine/`, and says so in half a sentence. The journal goes on to read what it can of it.
pub(super) fn quarantine(folder: &Path, number: u64, watch: &Watch) -> String {
    match link(folder, number) {
        Ok(fresh) => {
            watch.add(Count::Quarantined, u64::from(fresh));
            "; the segment is kept in quarantine/".into()
        }
        Err(error) => format!("; the segment can't be kept in quarantine/: {error}"),
    }
}

/// True when the segment wasn't in quarantine before.
fn link(folder: &Path, number: u64) -> io::Result<bool> {
    let from = path(folder, number);
    let inode = fs::metadata(&from)?.ino();
    let quarantine = folder.join("quarantine");
    fs::create_dir_all(&quarantine)?;
    for copy in 0_u32.. {
        let name = match copy {
            0 => format!("{number:08}.journal"),
            copy => format!("{number:08}-{copy}.journal"),
        };
        match fs::hard_link(&from, quarantine.join(&name)) {
            Ok(()) => {
                sync_folder(&quarantine)?;
                return sync_folder(folder).map(|()| true);
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if fs::metadata(quarantine.join(&name))?.ino() == inode {
                    return Ok(false);
                }
            }
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Where a segment lies.
pub(super) fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number:08}.journal"))
}

/// Begins a segment. It gets its name when its header is durable, and never takes the place of another: a run that was
/// taken for dead can't write over its successor.
pub(super) fn create(folder: &Path, header: &Header) -> io::Result<File> {
    let fresh = folder.join(format!("{:08}-{:08x}.new", header.number, header.salt));
    let made = begin(folder, header, &fresh);
    if made.is_err() {
        let _ = fs::remove_file(&fresh); // the error is the one to tell
    }
    made
}

fn begin(folder: &Path, header: &Header, fresh: &Path) -> io::Result<File> {
    fault::point("journal.rotate")?;
    let mut file = File::create_new(fresh)?;
    file.write_all(&header.encode())?;
    file.sync_all().map_err(last_word)?;
    match fs::hard_link(fresh, path(folder, header.number)) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            return Err(io::Error::other(format!(
                "segment {} is there already: another run writes here",
                header.number
            )));
        }
        linked => linked?,
    }
    fs::remove_file(fresh).map_err(last_word)?;
    sync_folder(folder).map_err(last_word)?;
    Ok(file)
}

/// An error after which there is no second try, whatever its kind.
fn last_word(error: io::Error) -> io::Error {
    io::Error::other(format!("fsync: {error}"))
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().unwrap_or(Path::new("/"));
    create_folder(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    sync_folder(if parent.as_os_str().is_empty() {
        Path::new(".")
    } else {
        parent
    })
}
