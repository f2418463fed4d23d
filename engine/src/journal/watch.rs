//! What a journal counts and says.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Sentences that are kept when nobody takes them.
const SENTENCES: usize = 1000;

/// What a journal counts, for metrics, and what it has to say, for the log. Clones share their counts, and so may journals.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    counters: [AtomicU64; 9],
    sentences: Mutex<Vec<String>>,
}

/// The places of the counters.
#[derive(Clone, Copy)]
pub(super) enum Count {
    Bytes,
    Batches,
    Rows,
    Dropped,
    Syncs,
    Torn,
    Quarantined,
    Lost,
    Unread,
}

impl Watch {
    /// Bytes on disk now.
    pub fn bytes(&self) -> u64 {
        self.get(Count::Bytes)
    }

    /// Batches appended and durable, by this process.
    pub fn batches(&self) -> u64 {
        self.get(Count::Batches)
    }

    /// Rows appended and durable, by this process.
    pub fn rows(&self) -> u64 {
        self.get(Count::Rows)
    }

    /// Rows dropped by the policy.
    pub fn dropped_rows(&self) -> u64 {
        self.get(Count::Dropped)
    }

    /// Group commits to disk.
    pub fn syncs(&self) -> u64 {
        self.get(Count::Syncs)
    }

    /// Bytes of unfinished writes that were cut.
    pub fn torn_bytes(&self) -> u64 {
        self.get(Count::Torn)
    }

    /// Segments that were found damaged and put into `quarantine/`.
    pub fn quarantined(&self) -> u64 {
        self.get(Count::Quarantined)
    }

    /// Batches that can't be read any more because of damage.
    pub fn lost_batches(&self) -> u64 {
        self.get(Count::Lost)
    }

    /// Durable batches that the dataflow hasn't read yet.
    pub fn unread_batches(&self) -> u64 {
        self.get(Count::Unread)
    }

    /// Takes the sentences for the log, oldest first.
    pub fn sentences(&self) -> Vec<String> {
        std::mem::take(&mut self.0.sentences.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn say(&self, sentence: String) {
        let mut sentences = self.0.sentences.lock().unwrap_or_else(PoisonError::into_inner);
        if sentences.len() == SENTENCES {
            sentences.remove(0);
        }
        sentences.push(sentence);
    }

    pub(super) fn add(&self, count: Count, by: u64) {
        self.0.counters[count as usize].fetch_add(by, Ordering::Relaxed);
    }

    pub(super) fn sub(&self, count: Count, by: u64) {
        self.0.counters[count as usize].fetch_sub(by, Ordering::Relaxed);
    }

    fn get(&self, count: Count) -> u64 {
        self.0.counters[count as usize].load(Ordering::Relaxed)
    }
}
