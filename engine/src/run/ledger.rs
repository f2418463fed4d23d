//! What one worker knows of the state it has on disk: which keys, how large, in files of which checkpoints.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use crate::snapshot::{Saved, Snapshot};
use crate::state::{Change, FileWriter, Kept, Offset, Record, StateDir};

/// Keys by step, then by name; for each what its slots had.
pub(crate) type Restored = HashMap<String, HashMap<String, [Option<Kept>; SLOTS]>>;

/// A key has its time in slot 0 and its operator in slot 1.
pub(crate) const SLOTS: usize = 2;
pub(crate) const TIME: usize = 0;
pub(crate) const OPERATOR: usize = 1;

/// What a record costs beside its key, head and tail, about.
const OVERHEAD: u64 = 24;

/// Dead bytes below this are not worth cleaning.
const SLACK: u64 = 4 << 20;

/// The ledger of one worker, shared by its steps.
pub(crate) type Shared = Rc<RefCell<Ledger>>;

pub(crate) struct Ledger {
    dir: StateDir,
    generation: u64,
    worker: usize,
    restored: Restored,
    writing: Option<(u64, FileWriter)>,
    /// Bytes of the state files that this worker needs, by checkpoint.
    files: BTreeMap<u64, u64>,
    /// Keys' slots by the checkpoint of the oldest record they need.
    oldest: BTreeMap<u64, usize>,
    live: u64,
    /// Keys with records older than this are written whole, so that their old files can go.
    clean_below: u64,
    /// The partitions' offsets after each epoch that may still become a checkpoint.
    offsets: BTreeMap<u64, Vec<(u32, u32, Offset)>>,
    offsets_dropped: bool,
    /// The partitions' offsets at checkpoints, and the oldest checkpoint that is still needed.
    pub passed: BTreeMap<u64, Vec<(u32, u32, Offset)>>,
    pub released: u64,
    /// The newest checkpoint that is real.
    pub committed: u64,
    /// The epoch of the checkpoint that ends the run, once it is known.
    pub stop_at: Option<u64>,
    /// Keys of steps that start without their state, or are no longer there: said to be gone at the next checkpoint, or they would come
    /// back with the one after.
    dropped: Vec<(String, String, [OnDisk; SLOTS])>,
}

/// One slot of a key as it is on disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct OnDisk {
    head: u64,
    tail: u64,
    oldest: u64,
    there: bool,
}

impl OnDisk {
    pub fn there(self) -> bool {
        self.there
    }
}

impl Ledger {
    pub fn new(
        dir: StateDir,
        generation: u64,
        worker: usize,
        (restored, dropped): (Restored, Restored),
        files: BTreeMap<u64, u64>,
    ) -> Self {
        let mut ledger = Ledger {
            dir,
            generation,
            worker,
            restored,
            writing: None,
            files,
            oldest: BTreeMap::new(),
            live: 0,
            clean_below: 0,
            offsets: BTreeMap::new(),
            offsets_dropped: false,
            passed: BTreeMap::new(),
            released: 0,
            committed: 0,
            stop_at: None,
            dropped: Vec::new(),
        };
        for (step, keys) in dropped {
            for (key, slots) in keys {
                let on_disk = slots.map(|kept| kept.map_or_else(OnDisk::default, |kept| ledger.adopt(&key, &kept)));
                ledger.dropped.push((step.clone(), key, on_disk));
            }
        }
        ledger
    }

    /// The keys of a step as the last checkpoint had them; given once.
    pub fn take_restored(&mut self, step: &str) -> HashMap<String, [Option<Kept>; SLOTS]> {
        self.restored.remove(step).unwrap_or_default()
    }

    /// Takes note of what a restored key has on disk.
    pub fn adopt(&mut self, key: &str, kept: &Kept) -> OnDisk {
        let on_disk = OnDisk {
            head: kept.head.len() as u64 + key.len() as u64 + OVERHEAD,
            tail: kept.tail.len() as u64,
            oldest: kept.oldest,
            there: true,
        };
        self.live += on_disk.head + on_disk.tail;
        *self.oldest.entry(on_disk.oldest).or_default() += 1;
        on_disk
    }

    /// True when this slot must be written whole at this checkpoint, though its key may not have changed.
    pub fn wants_whole(&self, on_disk: OnDisk) -> bool {
        !on_disk.there || on_disk.oldest < self.clean_below
    }

    /// True when something is to be cleaned at this checkpoint.
    pub fn cleans(&self) -> bool {
        self.oldest
            .first_key_value()
            .is_some_and(|(oldest, _)| *oldest < self.clean_below)
    }

    /// Writes one slot of a key.
    pub fn write(
        &mut self,
        checkpoint: u64,
        (step, slot, key): (&str, usize, &str),
        snapshot: &Snapshot,
        on_disk: &mut OnDisk,
    ) -> anyhow::Result<()> {
        self.bury(checkpoint)?;
        let (head, tail) = snapshot.parts();
        // Without a tail nothing of the older records is needed.
        let restart = snapshot.is_restart() || on_disk.tail == 0;
        let change = if restart { Change::Restart } else { Change::Append };
        self.put(checkpoint, (step, slot, key), change, (head, tail))?;
        self.forget(*on_disk);
        let oldest = if restart { checkpoint } else { on_disk.oldest };
        *on_disk = OnDisk {
            head: (head.len() + key.len()) as u64 + OVERHEAD,
            tail: tail.len() as u64 + if restart { 0 } else { on_disk.tail },
            oldest,
            there: true,
        };
        self.live += on_disk.head + on_disk.tail;
        *self.oldest.entry(oldest).or_default() += 1;
        Ok(())
    }

    /// Writes that the dropped keys are gone: before anything else, since a key of the same name may have begun anew.
    fn bury(&mut self, checkpoint: u64) -> anyhow::Result<()> {
        for (step, key, mut slots) in std::mem::take(&mut self.dropped) {
            for (slot, on_disk) in slots.iter_mut().enumerate() {
                self.write_gone(checkpoint, (&step, slot, &key), on_disk)?;
            }
        }
        Ok(())
    }

    /// Writes that a key is gone.
    pub fn write_gone(
        &mut self,
        checkpoint: u64,
        (step, slot, key): (&str, usize, &str),
        on_disk: &mut OnDisk,
    ) -> anyhow::Result<()> {
        if on_disk.there {
            self.put(checkpoint, (step, slot, key), Change::Gone, (&[], &[]))?;
            self.forget(*on_disk);
            *on_disk = OnDisk::default();
        }
        Ok(())
    }

    fn put(
        &mut self,
        checkpoint: u64,
        (step, slot, key): (&str, usize, &str),
        change: Change,
        (head, tail): (&[u8], &[u8]),
    ) -> anyhow::Result<()> {
        let writer = match &mut self.writing {
            Some((open, writer)) if *open == checkpoint => writer,
            slot => {
                let writer = FileWriter::create(&self.dir, self.generation, checkpoint, self.worker)?;
                &mut slot.insert((checkpoint, writer)).1
            }
        };
        writer.write(&Record {
            step,
            slot: slot as u8,
            key,
            change,
            head,
            tail,
        })?;
        let bytes = (head.len() + tail.len() + key.len()) as u64 + OVERHEAD;
        *self.files.entry(checkpoint).or_default() += bytes;
        Ok(())
    }

    fn forget(&mut self, on_disk: OnDisk) {
        if on_disk.there {
            self.live -= on_disk.head + on_disk.tail;
            if let Some(count) = self.oldest.get_mut(&on_disk.oldest) {
                *count -= 1;
                if *count == 0 {
                    self.oldest.remove(&on_disk.oldest);
                }
            }
        }
    }

    /// Ends the checkpoint: its file, and the oldest checkpoint whose files are still needed. Plans what the next one cleans, so
    /// that the files never hold much more than twice what is live.
    pub fn finish(&mut self, checkpoint: u64) -> anyhow::Result<(Option<FileWriter>, u64)> {
        self.bury(checkpoint)?;
        let needs = self.oldest.first_key_value().map_or(u64::MAX, |(oldest, _)| *oldest);
        self.files.retain(|file, _| *file >= needs);
        let mut total: u64 = self.files.values().sum();
        for (file, bytes) in &self.files {
            if total <= 2 * self.live + SLACK {
                break;
            }
            self.clean_below = file + 1;
            total -= bytes;
        }
        let writer = self.writing.take().filter(|(open, _)| *open == checkpoint);
        Ok((writer.map(|(_, writer)| writer), needs))
    }

    /// Where the partitions have come to after an epoch.
    pub fn note_offsets(&mut self, epoch: u64, offsets: Vec<(u32, u32, Offset)>) {
        self.offsets.insert(epoch, offsets);
        while self.offsets.len() > EPOCHS_KEPT {
            self.offsets.pop_first();
            self.offsets_dropped = true;
        }
    }

    /// The offsets that belong to a checkpoint at this epoch: those after the newest epoch up to it.
    ///
    /// # Errors
    /// They were dropped already: without them rows would be read twice.
    pub fn offsets_at(&mut self, epoch: u64, checkpoint: u64) -> anyhow::Result<Vec<(u32, u32, Offset)>> {
        let at = self
            .offsets
            .range(..=epoch)
            .next_back()
            .map(|(_, offsets)| offsets.clone());
        anyhow::ensure!(
            at.is_some() || !self.offsets_dropped,
            "checkpoint {checkpoint}: the offsets of epoch {epoch} are no longer known"
        );
        // None before the first epoch, or on a worker without partitions: the leader knows where these stood.
        let at = at.unwrap_or_default();
        self.passed.insert(checkpoint, at.clone());
        Ok(at)
    }
}

/// More epochs than can be on their way.
const EPOCHS_KEPT: usize = 256;

impl From<Kept> for Saved {
    fn from(kept: Kept) -> Self {
        Saved {
            head: kept.head,
            tail: kept.tail,
        }
    }
}
