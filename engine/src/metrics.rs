//! What a run tells about itself to Prometheus.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{Counter, CounterVec, IntCounter, core::Collector};
use prometheus::{GaugeVec, IntCounterVec, IntGaugeVec, Opts, Registry, TextEncoder};

use crate::journal::Watch;

/// The metrics of one run. Names begin with `taktline_`; units are base units.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    /// Rows that entered a step or sink; for a source rows and dead letters, so what it tried to read.
    pub rows_in: IntCounterVec,
    /// Rows that a source or step gave on.
    pub rows_out: IntCounterVec,
    /// Time spent working.
    pub busy_seconds: CounterVec,
    /// Rows waiting at a step or sink.
    pub queue_rows: IntGaugeVec,
    /// How far the newest watermark of a step is behind the clock; only steps that order by time have it.
    pub watermark_delay_seconds: GaugeVec,
    /// Rows that came after their key's watermark.
    pub late_rows: IntCounterVec,
    /// Input that could not be read.
    pub dead_letters: IntCounterVec,
    /// Rows that a source read and left out because its configuration says so.
    pub left_out_rows: IntCounterVec,
    /// Rows that a sink's target refused for good.
    pub refused_rows: IntCounterVec,
    /// Checkpoints that became real.
    pub checkpoints: IntCounter,
    /// Bytes of state files.
    pub checkpoint_bytes: IntCounter,
    /// Time from the last report of a checkpoint until it was real.
    pub checkpoint_seconds: Counter,
    /// What the journals of sources count, and where it is shown.
    journals: Arc<Mutex<BTreeMap<String, Watch>>>,
    journal_bytes: IntGaugeVec,
    journal_unread_batches: IntGaugeVec,
    journal_rows: IntCounterVec,
    journal_dropped_rows: IntCounterVec,
    journal_lost_batches: IntCounterVec,
    /// Watchers' batches dropped because the watcher was slow.
    pub tap_dropped: IntCounterVec,
    /// Messages or rows that wait outside to be read, where a source knows.
    pub source_lag: IntGaugeVec,
}

impl Metrics {
    /// Fresh metrics, all at zero.
    ///
    /// # Errors
    /// Two metrics have one name, which a test excludes.
    pub fn new() -> anyhow::Result<Self> {
        let registry = Registry::new();
        let node = &["node", "kind"];
        let metrics = Metrics {
            rows_in: IntCounterVec::new(Opts::new("taktline_rows_in_total", "Rows that entered a node."), node)?,
            rows_out: IntCounterVec::new(Opts::new("taktline_rows_out_total", "Rows that a node gave on."), node)?,
            busy_seconds: CounterVec::new(
                Opts::new("taktline_busy_seconds_total", "Time a node spent working."),
                node,
            )?,
            queue_rows: IntGaugeVec::new(Opts::new("taktline_queue_rows", "Rows that wait at a node."), node)?,
            watermark_delay_seconds: GaugeVec::new(
                Opts::new(
                    "taktline_watermark_delay_seconds",
                    "Clock minus the newest watermark of a step.",
                ),
                node,
            )?,
            late_rows: IntCounterVec::new(
                Opts::new(
                    "taktline_late_rows_total",
                    "Rows that came after their machine's watermark.",
                ),
                node,
            )?,
            dead_letters: IntCounterVec::new(
                Opts::new("taktline_dead_letters_total", "Input that could not be read."),
                node,
            )?,
            left_out_rows: IntCounterVec::new(
                Opts::new(
                    "taktline_rows_left_out_total",
                    "Rows that a source read and left out because its configuration says so.",
                ),
                node,
            )?,
            refused_rows: IntCounterVec::new(
                Opts::new(
                    "taktline_rows_refused_total",
                    "Rows that a sink's target refused for good.",
                ),
                node,
            )?,
            checkpoints: IntCounter::new("taktline_checkpoints_total", "Checkpoints that became real.")?,
            checkpoint_bytes: IntCounter::new("taktline_checkpoint_bytes_total", "Bytes of state written.")?,
            checkpoint_seconds: Counter::new(
                "taktline_checkpoint_commit_seconds_total",
                "Time from the last part of a checkpoint until it was real.",
            )?,
            journals: Arc::default(),
            journal_bytes: IntGaugeVec::new(
                Opts::new("taktline_journal_bytes", "Bytes of a source's journal."),
                &["node"],
            )?,
            journal_unread_batches: IntGaugeVec::new(
                Opts::new(
                    "taktline_journal_unread_batches",
                    "Durable batches that wait to be read.",
                ),
                &["node"],
            )?,
            journal_rows: IntCounterVec::new(
                Opts::new(
                    "taktline_journal_rows_total",
                    "Messages or rows made durable in the journal.",
                ),
                &["node"],
            )?,
            journal_dropped_rows: IntCounterVec::new(
                Opts::new(
                    "taktline_journal_dropped_rows_total",
                    "Rows dropped because the journal was full.",
                ),
                &["node"],
            )?,
            journal_lost_batches: IntCounterVec::new(
                Opts::new(
                    "taktline_journal_lost_batches_total",
                    "Batches lost to damaged files of the journal.",
                ),
                &["node"],
            )?,
            tap_dropped: IntCounterVec::new(
                Opts::new(
                    "taktline_tap_dropped_batches_total",
                    "Batches dropped for slow watchers.",
                ),
                &["node"],
            )?,
            source_lag: IntGaugeVec::new(
                Opts::new("taktline_source_lag", "Messages or rows that wait outside to be read."),
                &["node", "partition"],
            )?,
            registry,
        };
        let all: [Box<dyn Collector>; 19] = [
            Box::new(metrics.source_lag.clone()),
            Box::new(metrics.rows_in.clone()),
            Box::new(metrics.rows_out.clone()),
            Box::new(metrics.busy_seconds.clone()),
            Box::new(metrics.queue_rows.clone()),
            Box::new(metrics.watermark_delay_seconds.clone()),
            Box::new(metrics.late_rows.clone()),
            Box::new(metrics.dead_letters.clone()),
            Box::new(metrics.left_out_rows.clone()),
            Box::new(metrics.refused_rows.clone()),
            Box::new(metrics.tap_dropped.clone()),
            Box::new(metrics.checkpoints.clone()),
            Box::new(metrics.checkpoint_bytes.clone()),
            Box::new(metrics.checkpoint_seconds.clone()),
            Box::new(metrics.journal_bytes.clone()),
            Box::new(metrics.journal_unread_batches.clone()),
            Box::new(metrics.journal_rows.clone()),
            Box::new(metrics.journal_dropped_rows.clone()),
            Box::new(metrics.journal_lost_batches.clone()),
        ];
        for collector in all {
            metrics.registry.register(collector)?;
        }
        Ok(metrics)
    }

    /// In Prometheus' text format.
    ///
    /// # Errors
    /// A metric can't be written as text.
    pub fn text(&self) -> anyhow::Result<String> {
        for (node, watch) in &*self.journals.lock().unwrap_or_else(PoisonError::into_inner) {
            let node = &[node.as_str()];
            self.journal_bytes.with_label_values(node).set(watch.bytes() as i64);
            self.journal_unread_batches
                .with_label_values(node)
                .set(watch.unread_batches() as i64);
            let counted = [
                (&self.journal_rows, watch.rows()),
                (&self.journal_dropped_rows, watch.dropped_rows()),
                (&self.journal_lost_batches, watch.lost_batches()),
            ];
            for (counter, count) in counted {
                let counter = counter.with_label_values(node);
                counter.inc_by(count.saturating_sub(counter.get()));
            }
        }
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }
}

/// The metrics of one source, step or sink.
#[derive(Clone)]
pub(crate) struct NodeMetrics {
    pub rows_in: prometheus::IntCounter,
    pub rows_out: prometheus::IntCounter,
    pub busy_seconds: prometheus::Counter,
    pub queue_rows: prometheus::IntGauge,
    pub late_rows: prometheus::IntCounter,
    pub dead_letters: prometheus::IntCounter,
    pub left_out_rows: prometheus::IntCounter,
    pub refused_rows: prometheus::IntCounter,
}

impl Metrics {
    /// What the journals have to say since the last call, each with its source.
    pub(crate) fn journal_sentences(&self) -> Vec<(String, String)> {
        let journals = self.journals.lock().unwrap_or_else(PoisonError::into_inner);
        let said = journals.iter().flat_map(|(node, watch)| {
            let sentences = watch.sentences();
            sentences.into_iter().map(|sentence| (node.clone(), sentence))
        });
        said.collect()
    }

    /// What the journal of a source counts.
    pub(crate) fn journal(&self, source: &str) -> Watch {
        let mut journals = self.journals.lock().unwrap_or_else(PoisonError::into_inner);
        journals.entry(source.to_owned()).or_default().clone()
    }

    pub(crate) fn node(&self, name: &str, kind: &str) -> NodeMetrics {
        let labels = &[name, kind];
        NodeMetrics {
            rows_in: self.rows_in.with_label_values(labels),
            rows_out: self.rows_out.with_label_values(labels),
            busy_seconds: self.busy_seconds.with_label_values(labels),
            queue_rows: self.queue_rows.with_label_values(labels),
            late_rows: self.late_rows.with_label_values(labels),
            dead_letters: self.dead_letters.with_label_values(labels),
            left_out_rows: self.left_out_rows.with_label_values(labels),
            refused_rows: self.refused_rows.with_label_values(labels),
        }
    }
}
