//! How frames find their worker.

use arrow::array::{Array, RecordBatch, StringArray, UInt32Array, new_null_array};
use arrow::compute::take;
use timely::communication::Push;
use timely::container::Accountable;
use timely::dataflow::channels::Message;
use timely::dataflow::channels::pushers::exchange::Distributor;

use crate::frame::{Frame, Packet};
use crate::table::Samples;

/// Sends whole raw batches to the workers in turn, by their place in the input; control to the worker it is for.
pub(crate) struct InTurn;

impl Distributor<Frame> for InTurn {
    fn partition<T: Clone, P: Push<Message<T, Frame>>>(&mut self, frame: &mut Frame, time: &T, pushers: &mut [P]) {
        let worker = match frame {
            Frame::Control { worker, .. } => *worker,
            Frame::Rows(packet) => {
                let place = packet.origin.sequence.wrapping_add(packet.origin.partition.1.into());
                (place % pushers.len() as u64) as usize
            }
        };
        Message::push_at(frame, time.clone(), &mut pushers[worker]);
    }

    fn flush<T: Clone, P: Push<Message<T, Frame>>>(&mut self, _: &T, _: &mut [P]) {}
}

/// Sends each row of `samples` to the worker that owns its machine.
pub(crate) struct ByMachine;

impl Distributor<Frame> for ByMachine {
    fn partition<T: Clone, P: Push<Message<T, Frame>>>(&mut self, frame: &mut Frame, time: &T, pushers: &mut [P]) {
        let frame = std::mem::take(frame);
        let Frame::Rows(packet) = frame else { return };
        for (worker, part) in split(packet, pushers.len()).into_iter().enumerate() {
            if let Some(mut part) = part.filter(|part| part.record_count() > 0) {
                Message::push_at(&mut part, time.clone(), &mut pushers[worker]);
            }
        }
    }

    fn flush<T: Clone, P: Push<Message<T, Frame>>>(&mut self, _: &T, _: &mut [P]) {}
}

#[allow(clippy::expect_used)] // decoded batches have the schema of `samples`; the decode operator has checked it
fn split(packet: Packet, workers: usize) -> Vec<Option<Frame>> {
    let Packet { batch, origin, .. } = packet;
    let samples = Samples::of(&batch).expect("samples");
    let owners = owners(samples.machines, workers);
    if let Some(first) = samples.machine.first().map(|m| owners[*m as usize])
        && samples.machine.iter().all(|machine| owners[*machine as usize] == first)
    {
        let mut parts: Vec<Option<Frame>> = (0..workers).map(|_| None).collect();
        parts[first] = Some(Frame::rows(batch, origin));
        return parts;
    }
    let mut rows: Vec<Vec<u32>> = (0..workers)
        .map(|_| Vec::with_capacity(batch.num_rows() / workers + 1))
        .collect();
    for (row, machine) in samples.machine.iter().enumerate() {
        rows[owners[*machine as usize]].push(row as u32);
    }
    let rows = rows.into_iter().map(UInt32Array::from);
    rows.map(|rows| Some(Frame::rows(pick(&batch, &rows), origin)))
        .collect()
}

/// `take` for a batch, with a short way for columns that are all null.
#[allow(clippy::expect_used)] // indices come from the batch itself
fn pick(batch: &RecordBatch, rows: &UInt32Array) -> RecordBatch {
    let columns = batch.columns().iter().map(|column| {
        if column.null_count() == column.len() {
            new_null_array(column.data_type(), rows.len())
        } else {
            take(column, rows, None).expect("rows of the batch")
        }
    });
    RecordBatch::try_new(batch.schema(), columns.collect()).expect("columns of equal length")
}

fn owners(machines: &StringArray, workers: usize) -> Vec<usize> {
    (0..machines.len())
        .map(|i| (hash(machines.value(i)) % workers as u64) as usize)
        .collect()
}

/// FNV-1a, then the finaliser of SplitMix64 so that all bits depend on all bytes. Part of the on-disk contract: state moves
/// between workers by it, so it never changes.
pub(crate) fn hash(key: &str) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in key.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::hash;

    #[test]
    fn machines_spread_evenly_and_always_the_same() {
        assert_eq!(hash("press-1"), hash("press-1"));
        let mut owned = [0; 4];
        for i in 0..10_000 {
            owned[(hash(&format!("press-{i}")) % 4) as usize] += 1;
        }
        assert!(owned.iter().all(|count| (2300..2700).contains(count)), "{owned:?}");
    }
}
