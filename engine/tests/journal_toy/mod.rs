//! A partition that gives what a test hands it, and remembers what it was told.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used)] // each test file uses a part

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use arrow::array::{AsArray, BinaryArray, RecordBatch, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema, UInt64Type};
use serde_json::{Value, json};
use taktline_engine::journal::{self, Full, JournalPartition, Settings, Watch};
use taktline_engine::{Partition, Poll, Position, Wake};

/// Long enough for any machine; a test that waits so long has failed.
pub const LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, Default)]
pub struct Toy(Arc<Mutex<State>>);

#[derive(Default)]
pub struct State {
    pub give: VecDeque<RecordBatch>,
    /// Given after a stop.
    pub held: VecDeque<RecordBatch>,
    pub ends: bool,
    pub fails: bool,
    pub polled: u64,
    pub acknowledged: u64,
    pub stopped: bool,
    /// What an earlier run wrote, newest first, as far as it was asked for.
    pub recalled: Vec<u64>,
    pub recalls: usize,
    wake: Option<Wake>,
}

impl Toy {
    pub fn with(numbers: impl IntoIterator<Item = u64>) -> Self {
        let toy = Toy::default();
        toy.lock().give.extend(numbers.into_iter().map(batch));
        toy
    }

    pub fn ending(numbers: impl IntoIterator<Item = u64>) -> Self {
        let toy = Toy::with(numbers);
        toy.lock().ends = true;
        toy
    }

    pub fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn give(&self, numbers: impl IntoIterator<Item = u64>) {
        let mut state = self.lock();
        state.give.extend(numbers.into_iter().map(batch));
        if let Some(wake) = &state.wake {
            wake();
        }
    }

    pub fn end(&self) {
        self.lock().ends = true;
    }
}

impl Partition for Toy {
    fn poll(&mut self) -> anyhow::Result<Poll> {
        let mut state = self.lock();
        let next = if state.stopped {
            state.held.pop_front()
        } else {
            state.give.pop_front()
        };
        if let Some(batch) = next {
            state.polled += 1;
            return Ok(Poll::Batch(batch));
        }
        anyhow::ensure!(!state.fails, "the toy broke");
        Ok(if state.ends || state.stopped {
            Poll::End
        } else {
            Poll::Idle
        })
    }

    fn stop(&mut self) -> bool {
        self.lock().stopped = true;
        !self.lock().held.is_empty()
    }

    fn acknowledge(&mut self, batches: u64) -> anyhow::Result<()> {
        let mut state = self.lock();
        assert!(state.acknowledged <= batches && batches <= state.polled);
        state.acknowledged = batches;
        Ok(())
    }

    fn recall(&mut self, newest: &mut dyn Iterator<Item = RecordBatch>) {
        let mut state = self.lock();
        state.recalls += 1;
        state.recalled.extend(newest.take(25).map(|batch| number(&batch)));
    }

    fn position(&self) -> Position {
        Position {
            text: format!("toy {}", self.lock().polled),
            fraction: None,
        }
    }
}

/// The raw batch with this number: one to three rows.
pub fn batch(number: u64) -> RecordBatch {
    sized(number, (number % 50) as usize)
}

/// The same with payloads of some length.
pub fn sized(number: u64, length: usize) -> RecordBatch {
    let rows = number % 3 + 1;
    let schema = Schema::new(vec![
        Field::new("number", DataType::UInt64, false),
        Field::new("payload", DataType::Binary, true),
    ]);
    let payload = vec![number as u8; length];
    let payloads = (0..rows).map(|row| (row != 1).then_some(payload.as_slice()));
    RecordBatch::try_new(
        Arc::new(schema),
        vec![
            Arc::new(UInt64Array::from_iter_values((0..rows).map(|row| 10 * number + row))),
            Arc::new(BinaryArray::from_iter(payloads)),
        ],
    )
    .unwrap()
}

/// The number of a batch, which must be whole.
pub fn number(found: &RecordBatch) -> u64 {
    let number = found.column(0).as_primitive::<UInt64Type>().value(0) / 10;
    let length = found.column(1).as_binary::<i32>().value(0).len();
    assert_eq!(found, &sized(number, length), "batch {number} was changed");
    number
}

pub fn rows(numbers: &[u64]) -> u64 {
    numbers.iter().map(|number| number % 3 + 1).sum()
}

/// Settings for a journal of small segments.
pub fn settings(folder: &Path) -> Settings {
    Settings {
        folder: folder.into(),
        quota_bytes: 1 << 30,
        full: Full::Block,
        sync_every: Duration::from_millis(1),
        segment_bytes: 4096,
        whole: false,
        fence: Arc::new(|| Ok(())),
    }
}

pub fn at(batch: u64) -> Value {
    json!({ "batch": batch })
}

pub fn open(settings: Settings, from: Option<u64>, toy: &Toy) -> anyhow::Result<(JournalPartition, Watch)> {
    let (watch, toy, thread) = (Watch::default(), toy.clone(), std::thread::current());
    let inner = Box::new(move |wake| {
        toy.lock().wake = Some(wake);
        Ok(Box::new(toy) as Box<dyn Partition>)
    });
    let wake = Arc::new(move || thread.unpark());
    let from = from.map(at);
    Ok((
        journal::open(settings, from.as_ref(), inner, wake, watch.clone())?,
        watch,
    ))
}

/// Polls until `enough`, the end or an error.
pub fn read(journal: &mut JournalPartition, enough: usize) -> anyhow::Result<Vec<u64>> {
    let began = Instant::now();
    let mut numbers = Vec::new();
    while numbers.len() < enough {
        match journal.poll()? {
            Poll::Batch(batch) => numbers.push(number(&batch)),
            Poll::End => break,
            Poll::Idle | Poll::Wait => std::thread::park_timeout(Duration::from_millis(1)),
        }
        assert!(began.elapsed() < LIMIT, "only {numbers:?}");
    }
    Ok(numbers)
}

/// Reads what a journal holds, without anything new.
pub fn read_all(settings: Settings, from: Option<u64>) -> (Vec<u64>, Watch) {
    let (mut journal, watch) = open(settings, from, &Toy::ending([])).unwrap();
    (read(&mut journal, usize::MAX).unwrap(), watch)
}

pub fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < LIMIT, "waited for {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

/// Writes batches to a journal and closes it.
pub fn write(settings: Settings, numbers: impl IntoIterator<Item = u64>) {
    let toy = Toy::ending(numbers);
    let total = toy.lock().give.len() as u64;
    let (_journal, _) = open(settings, None, &toy).unwrap();
    wait("the acknowledgement", || toy.lock().acknowledged == total);
}

/// The segments, oldest first.
pub fn segments(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_file())
        .collect();
    paths.sort();
    paths
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for path in segments(from) {
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}
