//! The journal: makes a replayable log of a source that can't give anything twice.
//!
//! A thread polls the real partition, appends its raw batches to segment files, commits them to disk in groups and only then
//! acknowledges them; the dataflow reads the journal as a [`Partition`] with offsets. Beyond its quota a [`Full`] policy says
//! what gives way. Damage costs the batches it hit, and a sentence in [`Watch`], never the run.
//!
//! From the bottom up: `segment` (the format), `folder` (the files), `tail` (what an earlier run wrote last), `shared` (between the
//! thread and the `reader`), `writer` (the thread) with `append` and `quota`.

mod append;
mod folder;
mod quota;
mod reader;
mod segment;
mod shared;
mod tail;
mod watch;
mod writer;

use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

pub use reader::JournalPartition;
pub use watch::Watch;

use crate::source::{Partition, Wake};
use shared::{Failure, Shared};
use watch::Count;
use writer::Writer;

/// Fails when another run has taken over; asked before each acknowledgement and each removal.
pub type Fence = Arc<dyn Fn() -> anyhow::Result<()> + Send + Sync>;

/// How a journal is kept.
#[derive(Clone)]
pub struct Settings {
    /// Where the segments are; made if it isn't there. No other journal may use it.
    pub folder: PathBuf,
    /// Bytes on disk that are not released yet; one batch more may be written.
    pub quota_bytes: u64,
    /// What gives way beyond the quota.
    pub full: Full,
    /// The shortest time between two commits to disk; 10 ms is a good value.
    pub sync_every: Duration,
    /// Size of a segment, 64 MiB as a rule; at most an eighth of the quota is used, so that releasing frees it bit by bit.
    pub segment_bytes: u64,
    /// See [`Fence`].
    pub fence: Fence,
    /// An offset whose batches are gone is an error, and not only said.
    pub whole: bool,
}

/// What gives way when the journal has reached its quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The source waits.
    Block,
    /// The oldest segments that nobody has read yet are removed; the source waits when all have been read and are kept for a
    /// checkpoint.
    DropOldest,
    /// What comes is dropped.
    DropNewest,
    /// Of what comes every n-th batch is kept, up to one segment beyond the quota.
    Sample {
        /// The n.
        keep_one_in: u32,
    },
}

impl Settings {
    fn segment_limit(&self) -> u64 {
        self.segment_bytes.min(self.quota_bytes / 8).max(1)
    }

    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.quota_bytes > 0,
            "a journal's quota of 0 bytes holds nothing: give it at least 1 MiB"
        );
        anyhow::ensure!(
            self.full != Full::Sample { keep_one_in: 0 },
            "one batch in 0 can't be kept: give 1 or more, or `drop_newest`"
        );
        Ok(())
    }
}

/// Opens the journal, mends it, starts its thread, and gives the partition that the dataflow reads, from the offset `from`
/// or from the oldest batch there is. `inner` opens the real partition on that thread. `wake` is called when there is more
/// to poll.
///
/// # Errors
/// The folder can't be read or written, a newer binary wrote it, `from` is no offset of a journal, or `inner` failed.
pub fn open(
    settings: Settings,
    from: Option<&Value>,
    inner: Box<dyn FnOnce(Wake) -> anyhow::Result<Box<dyn Partition>> + Send>,
    wake: Wake,
    watch: Watch,
) -> anyhow::Result<JournalPartition> {
    settings.check()?;
    let asked = from.map(reader::batch_number).transpose()?;
    let found = folder::inspect(&settings.folder, &watch)?;
    let oldest = found.segments.front().map_or(found.end, |segment| segment.first);
    let start = asked.unwrap_or(oldest).max(oldest);
    let next = found.end.max(start);
    let name = settings.folder.display();
    if let Some(asked) = asked.filter(|&asked| asked < oldest) {
        anyhow::ensure!(
            !settings.whole,
            "the journal {name} begins at batch {oldest}: {} batches that came after this savepoint are gone, so going back would lose \
             their rows; choose a later savepoint, or accept the loss with --fresh for this source",
            oldest - asked
        );
        watch.add(Count::Lost, oldest - asked);
        watch.say(format!(
            "the journal {name} begins at batch {oldest}: the {} batches from {asked} on are gone; reading begins there",
            oldest - asked
        ));
    }
    if found.end < start {
        watch.say(format!(
            "the journal {name} ends before batch {}, and {start} was to be read next: what was between was read before or is gone \
             (was the folder deleted?); new batches are numbered from {start}",
            found.end
        ));
    }
    let earlier = found.segments.clone();
    let shared = Arc::new(Shared::new(found.segments, next, start));
    watch.add(Count::Bytes, shared.lock().bytes);
    watch.add(Count::Unread, next - start);
    let (opened, has_opened) = mpsc::sync_channel(1);
    let thread = std::thread::Builder::new().name("journal".into()).spawn({
        let (settings, shared, watch) = (settings.clone(), Arc::clone(&shared), watch.clone());
        move || {
            let thread = std::thread::current();
            match inner(Arc::new(move || thread.unpark())) {
                Ok(mut inner) => {
                    if next > 0 {
                        inner.recall(&mut tail::newest_first(&settings.folder, &earlier));
                    }
                    drop(earlier);
                    let _ = opened.send(Ok(())); // it is waited for
                    Writer::new(settings, shared, (next, found.number), inner, wake, watch).run();
                }
                Err(error) => {
                    shared.end(None::<Failure>);
                    let _ = opened.send(Err(error));
                }
            }
        }
    });
    let thread = thread.context("the journal's thread")?;
    let partition = JournalPartition::new(settings, shared, thread, start, watch);
    has_opened.recv().context("the journal's thread ended early")??;
    Ok(partition)
}
