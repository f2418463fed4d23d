//! A look at a source: what comes, decoded, and nothing else happens.

use std::time::{Duration, Instant};

use arrow::array::{AsArray, RecordBatch};

use crate::source::{Poll, Source, Wake};

/// When a look ends.
#[derive(Clone, Copy, Debug)]
pub struct Until {
    /// So many rows have come, dead letters with them.
    pub rows: usize,
    /// So many bytes of raw batches.
    pub bytes: usize,
    /// So much time has passed.
    pub time: Duration,
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Looked {
    /// Raw batches as the partitions gave them.
    pub raw: Vec<RecordBatch>,
    /// Rows of the `samples` table.
    pub samples: Vec<RecordBatch>,
    /// Rows of the `dead_letters` table.
    pub dead_letters: Vec<RecordBatch>,
    /// The source came to its end.
    pub ended: bool,
    /// How long it took.
    pub took: Duration,
}

impl Looked {
    /// How many samples.
    pub fn rows(&self) -> usize {
        count(&self.samples)
    }

    /// How many dead letters.
    pub fn refused(&self) -> usize {
        count(&self.dead_letters)
    }

    /// Why each of them was refused, in the order they came.
    pub fn reasons(&self) -> impl Iterator<Item = &str> {
        let columns = self
            .dead_letters
            .iter()
            .filter_map(|batch| batch.column_by_name("reason"));
        columns.flat_map(|reasons| reasons.as_string::<i32>().iter().flatten())
    }
}

/// Reads all partitions in turn, until one of the limits is reached or all have ended. Nothing is acknowledged, and no offset is kept.
///
/// # Errors
/// The source can't be opened or read.
pub fn look(source: &dyn Source, until: &Until) -> anyhow::Result<Looked> {
    let begun = Instant::now();
    let thread = std::thread::current();
    let wake: Wake = std::sync::Arc::new(move || thread.unpark());
    let names = source.partitions()?;
    let mut partitions = Vec::new();
    for number in 0..names.len() {
        partitions.push(source.look(number, wake.clone())?);
    }
    let mut decoder = source.decoder();
    let mut looked = Looked::default();
    let mut bytes = 0;
    while !partitions.is_empty() && begun.elapsed() < until.time {
        let mut idle = true;
        let mut at = 0;
        while at < partitions.len() {
            match partitions[at].poll()? {
                Poll::Batch(raw) => {
                    idle = false;
                    bytes += raw.get_array_memory_size();
                    let decoded = decoder.decode(&raw)?;
                    looked.raw.push(raw);
                    looked.samples.push(decoded.samples);
                    looked.dead_letters.push(decoded.dead_letters);
                    at += 1;
                }
                Poll::Idle | Poll::Wait => at += 1,
                Poll::End => drop(partitions.swap_remove(at)),
            }
            if looked.rows() + looked.refused() >= until.rows || bytes >= until.bytes {
                looked.took = begun.elapsed();
                return Ok(looked);
            }
        }
        if idle {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
    looked.ended = partitions.is_empty();
    looked.took = begun.elapsed();
    Ok(looked)
}

fn count(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::num_rows).sum()
}
