//! What an earlier run wrote last.

use std::collections::VecDeque;
use std::path::Path;

use arrow::array::RecordBatch;

use super::folder::{self, Segment};
use super::segment::{Next, Reader};

/// The batches of these segments, newest first. A segment is read when it is asked for; what is damaged is passed over, since
/// the journal's reader is the one to say it.
pub(super) fn newest_first(folder: &Path, segments: &VecDeque<Segment>) -> impl Iterator<Item = RecordBatch> {
    let kept = segments.iter().rev().filter(|segment| !segment.dropped);
    kept.flat_map(move |segment| batches(folder, segment).into_iter().rev())
}

fn batches(folder: &Path, segment: &Segment) -> Vec<RecordBatch> {
    let mut batches = Vec::new();
    let Ok(Some(mut reader)) = Reader::open(&folder::path(folder, segment.number)) else {
        return batches;
    };
    loop {
        match reader.next(segment.end, segment.bytes) {
            Ok(Next::Record(record)) => batches.extend(record.batch().ok()),
            Ok(Next::Damage { next: Some(_), .. }) => {}
            Ok(Next::Damage { next: None, .. } | Next::End) | Err(_) => return batches,
        }
    }
}
