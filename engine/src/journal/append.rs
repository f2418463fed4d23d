//! Appending to the segment that is being written.

use std::fs::File;
use std::hash::{BuildHasher, RandomState};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::time::Duration;

use anyhow::Context;
use arrow::array::RecordBatch;

use super::folder::{self, Segment};
use super::quota::Room;
use super::segment::{self, HEADER, Header};
use super::shared::Recent;
use super::watch::Count;
use super::writer::Writer;
use crate::fault;

/// How long to wait for space on a full disk before the next try.
const RETRY: Duration = Duration::from_millis(100);
/// Bytes that are kept in memory until they are durable, to be given to the reader without reading them back.
const PENDING_BYTES: u64 = 4 << 20;

/// The segment that is being written.
pub(super) struct Current {
    pub file: File,
    pub header: Header,
    pub bytes: u64,
    pub rows: u64,
}

impl Writer {
    /// Appends a batch, or drops it as the policy says.
    pub(super) fn take(&mut self, batch: &RecordBatch, room: Room) -> anyhow::Result<()> {
        let salt = match &self.current {
            Some(current) => current.header.salt,
            None => RandomState::new().hash_one(self.number) as u32,
        };
        let mut record = std::mem::take(&mut self.record);
        segment::encode(&mut record, salt, self.next, batch)?;
        if self.keeps(room, record.len() as u64) {
            self.append(&record, salt, batch)?;
        } else {
            self.quota.dropped += batch.num_rows() as u64;
            self.watch.add(Count::Dropped, batch.num_rows() as u64);
            self.settled += 1;
        }
        self.record = record;
        Ok(())
    }

    /// Appends a record; on a full disk it waits for space. Nothing is appended when everybody has gone meanwhile.
    fn append(&mut self, record: &[u8], salt: u32, batch: &RecordBatch) -> anyhow::Result<()> {
        if self.current.is_none() {
            (self.settings.fence)()?; // a run that was taken for dead begins no segment
        }
        let mut waited = false;
        while let Err(error) = self.write(record, salt) {
            if !matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
                return Err(error)
                    .with_context(|| format!("journal {} can't be written", self.settings.folder.display()));
            }
            if !std::mem::replace(&mut waited, true) {
                self.commit()?;
                self.watch.say(format!(
                    "no space left for the journal {} ({error}): the source waits until there is",
                    self.settings.folder.display()
                ));
            }
            if self.shared.gone() {
                return Ok(());
            }
            std::thread::sleep(RETRY);
        }
        if waited {
            let folder = self.settings.folder.display();
            self.watch.say(format!(
                "space again for the journal {folder}: the source goes on, nothing was lost"
            ));
        }
        let Some(current) = &mut self.current else {
            return Ok(());
        };
        current.bytes += record.len() as u64;
        current.rows += batch.num_rows() as u64;
        self.shared.lock().bytes += record.len() as u64;
        self.watch.add(Count::Bytes, record.len() as u64);
        let bytes = batch.get_array_memory_size() as u64;
        if self.pending_bytes + bytes <= PENDING_BYTES {
            self.pending_bytes += bytes;
            self.pending.push(Recent {
                index: self.next,
                batch: batch.clone(),
                segment: current.header.number,
                ends_at: current.bytes,
                bytes,
            });
        }
        self.pending_rows += batch.num_rows() as u64;
        self.next += 1;
        self.settled += 1;
        Ok(())
    }

    fn write(&mut self, record: &[u8], salt: u32) -> io::Result<()> {
        if self.current.is_none() {
            self.begin(salt)?;
        }
        let Some(Current { file, bytes, .. }) = &self.current else {
            return Err(io::Error::other("no segment is open"));
        };
        // In two halves, so that a fault can come between them.
        let half = record.len() / 2;
        let written = file
            .write_all_at(&record[..half], *bytes)
            .and_then(|()| fault::point("journal.write"))
            .and_then(|()| file.write_all_at(&record[half..], *bytes + half as u64));
        if written.is_err() {
            file.set_len(*bytes).map_err(|error| {
                io::Error::other(format!("the half-written record can't be cut at byte {bytes}: {error}"))
            })?;
        }
        written
    }

    /// Begins a segment.
    fn begin(&mut self, salt: u32) -> io::Result<()> {
        let header = Header {
            number: self.number,
            first: self.next,
            salt,
        };
        let file = folder::create(&self.settings.folder, &header)?;
        self.number += 1;
        let mut state = self.shared.lock();
        state.bytes += HEADER;
        state.segments.push_back(Segment {
            number: header.number,
            first: header.first,
            end: header.first,
            bytes: HEADER,
            rows: Some(0),
            open: true,
            dropped: false,
        });
        self.watch.add(Count::Bytes, HEADER);
        self.current = Some(Current {
            file,
            header,
            bytes: HEADER,
            rows: 0,
        });
        Ok(())
    }
}
