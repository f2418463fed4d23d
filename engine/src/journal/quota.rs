//! What happens when the journal is larger than it may be.

use anyhow::Context;

use super::Full;
use super::folder::{self, Segment, TOMBSTONE_BYTES};
use super::segment::{Next, Reader};
use super::watch::Count;
use super::writer::Writer;
use crate::fault;

/// Whether the journal takes another batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Keep,
    Drop,
    /// Every n-th is kept.
    Sample(u32),
    /// The source isn't polled.
    Wait,
}

/// The time over the quota.
#[derive(Debug, Default)]
pub(super) struct Quota {
    over: bool,
    /// Batches that came since.
    came: u64,
    /// Rows of them that were dropped.
    pub dropped: u64,
}

impl Writer {
    /// What is to be done with the next batch. A source that stops is heard to its end.
    pub(super) fn room(&mut self, draining: bool) -> anyhow::Result<Room> {
        let quota = self.settings.quota_bytes;
        if self.settings.full == Full::DropOldest {
            while self.shared.lock().bytes >= quota && self.drop_oldest()? {}
        }
        let over = self.shared.lock().bytes >= quota;
        self.tell(over);
        Ok(match self.settings.full {
            _ if !over => Room::Keep,
            Full::Block | Full::DropOldest if draining => Room::Keep,
            Full::Block | Full::DropOldest => Room::Wait,
            Full::DropNewest => Room::Drop,
            Full::Sample { keep_one_in } => Room::Sample(keep_one_in),
        })
    }

    /// Whether a batch whose record has this length is kept.
    pub(super) fn keeps(&mut self, room: Room, length: u64) -> bool {
        match room {
            Room::Keep | Room::Wait => true,
            Room::Drop => false,
            Room::Sample(keep_one_in) => {
                self.quota.came += 1;
                let most = self.settings.quota_bytes + self.settings.segment_limit();
                self.quota.came.is_multiple_of(keep_one_in.into()) && self.shared.lock().bytes + length <= most
            }
        }
    }

    /// Says when the quota is reached, and what that has cost when there is room again.
    fn tell(&mut self, over: bool) {
        if over == self.quota.over {
            return;
        }
        let (folder, quota) = (self.settings.folder.display(), self.settings.quota_bytes);
        if over {
            let act = match self.settings.full {
                Full::Block => "the source waits",
                Full::DropOldest => "the source waits, for what is left has been read but not released",
                Full::DropNewest => "new rows are dropped",
                Full::Sample { .. } => "most new rows are dropped",
            };
            self.watch.say(format!(
                "the journal {folder} has reached its quota of {quota} bytes: {act}"
            ));
        } else {
            let dropped = self.quota.dropped;
            self.watch.say(format!(
                "the journal {folder} is below its quota again; {dropped} rows were dropped meanwhile"
            ));
        }
        self.quota = Quota {
            over,
            ..Default::default()
        };
    }

    /// Drops the oldest segment that nobody has begun to read; false when there is none.
    fn drop_oldest(&mut self) -> anyhow::Result<bool> {
        (self.settings.fence)()?;
        let mut state = self.shared.lock();
        let read = state.read;
        let unread = |segment: &Segment| read <= segment.first && !segment.open && !segment.dropped;
        let Some(place) = state.segments.iter().position(unread) else {
            return Ok(false);
        };
        let segment = state.segments[place].clone();
        let path = folder::path(&self.settings.folder, segment.number);
        let rows = segment.rows.map_or_else(|| count(&path, &segment), Ok);
        let rows = rows.with_context(|| format!("journal segment {}", path.display()))?;
        fault::point("journal.release")?;
        // One tombstone is enough for neighbours.
        let neighbour = place.checked_sub(1).filter(|&before| state.segments[before].dropped);
        let freed = if let Some(before) = neighbour {
            std::fs::remove_file(&path)?;
            state.segments[before].end = segment.end;
            state.segments.remove(place);
            segment.bytes
        } else {
            folder::tombstone(&path)?;
            state.segments[place].bytes = TOMBSTONE_BYTES;
            state.segments[place].dropped = true;
            segment.bytes.saturating_sub(TOMBSTONE_BYTES)
        };
        state.window.forget(segment.first, segment.end);
        state.bytes -= freed;
        drop(state);
        self.watch.sub(Count::Bytes, freed);
        self.watch.add(Count::Dropped, rows);
        self.watch.say(format!(
            "the journal {} has reached its quota of {} bytes: dropped the oldest, batches {} to {} with {rows} rows",
            self.settings.folder.display(),
            self.settings.quota_bytes,
            segment.first,
            segment.end.saturating_sub(1)
        ));
        Ok(true)
    }
}

/// Rows of a segment that an earlier process wrote.
fn count(path: &std::path::Path, segment: &Segment) -> anyhow::Result<u64> {
    let mut rows = 0;
    let Some(mut reader) = Reader::open(path)? else {
        return Ok(rows);
    };
    loop {
        match reader.next(segment.end, segment.bytes)? {
            Next::Record(record) => rows += u64::from(record.rows),
            Next::Damage { next: Some(_), .. } => {}
            Next::Damage { next: None, .. } | Next::End => return Ok(rows),
        }
    }
}
