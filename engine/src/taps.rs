//! Taps: watch the rows of an edge while the pipeline runs, without ever slowing it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};

use arrow::array::RecordBatch;

use crate::metrics::Metrics;
use crate::plan::Edge;

/// Batches that a watcher may be behind before it loses some.
const DEPTH: usize = 256;

/// The way to a watcher.
type Watcher = SyncSender<(Edge, RecordBatch)>;

/// Who watches which edge.
pub struct Taps {
    watchers: Mutex<HashMap<Edge, Vec<Watcher>>>,
    count: AtomicUsize,
    closed: AtomicBool,
    dropped: prometheus::IntCounterVec,
}

impl Taps {
    /// Nobody watches yet.
    pub fn new(metrics: &Metrics) -> Self {
        Taps {
            watchers: Mutex::default(),
            count: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            dropped: metrics.tap_dropped.clone(),
        }
    }

    /// Watches these edges from now on. A watcher that falls behind loses batches, which is counted. It stops by dropping
    /// the receiver.
    pub fn watch(&self, edges: &[Edge]) -> Receiver<(Edge, RecordBatch)> {
        let (sender, receiver) = sync_channel(DEPTH);
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) {
            return receiver; // its sender ends here: the run is over
        }
        for edge in edges {
            watchers.entry(*edge).or_default().push(sender.clone());
        }
        self.count.store(watchers.len(), Ordering::Release);
        receiver
    }

    /// Ends all watching, so that receivers see the end of the run.
    pub fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.count.store(0, Ordering::Release);
    }

    pub(crate) fn offer(&self, edge: Edge, name: &str, batch: &RecordBatch) {
        if self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut watchers = self.watchers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(of_edge) = watchers.get_mut(&edge) else { return };
        of_edge.retain(|watcher| match watcher.try_send((edge, batch.clone())) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => {
                self.dropped.with_label_values(&[name]).inc();
                true
            }
            Err(TrySendError::Disconnected(_)) => false,
        });
        if of_edge.is_empty() {
            watchers.remove(&edge);
            self.count.store(watchers.len(), Ordering::Release);
        }
    }
}
