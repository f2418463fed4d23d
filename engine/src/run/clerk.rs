//! The thread of a process that makes checkpoints durable: it syncs state files, and in the leading process writes manifests
//! and has the sinks publish.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, TrySendError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Context;
use timely::scheduling::SyncActivator;

use super::Run;
use super::clock::now_us;
use super::outlet::{Door, Errand, RETRY};
use super::resume::Leader;
use crate::frame::{Barrier, BarrierKind, Report, Word};
use crate::state::{FileWriter, Manifest, Offset, Staged, StateFile};

/// What the clerk is asked to do.
pub(crate) enum Job {
    /// Sync a worker's state file and report it.
    Sync {
        checkpoint: u64,
        writer: Option<FileWriter>,
        needs: u64,
        offsets: Vec<(u32, u32, Offset)>,
    },
    /// All parts are durable: make the checkpoint real. Only in the leading process.
    Commit { barrier: Barrier, reports: Vec<Report> },
}

/// The clerk as the dataflow sees it.
pub(crate) struct Clerk {
    jobs: Mutex<Option<Sender<Job>>>,
    /// For the leader.
    words: Mutex<Vec<Word>>,
    wake: Mutex<Option<SyncActivator>>,
    /// The last checkpoint that is real, and the oldest that is needed. Only in the leading process.
    committed: AtomicU64,
    released: AtomicU64,
}

impl Clerk {
    pub fn new() -> (Arc<Self>, Receiver<Job>) {
        let (jobs, queue) = channel(); // at most one checkpoint is on its way, so it stays short
        let clerk = Clerk {
            jobs: Mutex::new(Some(jobs)),
            words: Mutex::default(),
            wake: Mutex::default(),
            committed: AtomicU64::new(0),
            released: AtomicU64::new(0),
        };
        (Arc::new(clerk), queue)
    }

    pub fn ask(&self, job: Job) {
        if let Some(jobs) = &*self.jobs.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = jobs.send(job); // the thread ends only after the workers
        }
    }

    /// No more jobs: the thread ends after those it has.
    pub fn close(&self) {
        *self.jobs.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Gives a durable part to the dataflow, which carries it to the leader.
    pub fn report(&self, report: Report) {
        self.say(Word::Report(Box::new(report)));
    }

    /// Gives a word to the dataflow, which carries it to the leader.
    pub fn say(&self, word: Word) {
        self.words.lock().unwrap_or_else(PoisonError::into_inner).push(word);
        if let Some(wake) = &*self.wake.lock().unwrap_or_else(PoisonError::into_inner) {
            let _ = wake.activate(); // a worker that has ended needs no report
        }
    }

    pub fn take_words(&self) -> Vec<Word> {
        std::mem::take(&mut *self.words.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn wake_by(&self, wake: SyncActivator) {
        *self.wake.lock().unwrap_or_else(PoisonError::into_inner) = Some(wake);
    }

    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    pub fn released(&self) -> u64 {
        self.released.load(Ordering::Acquire)
    }
}

/// Starts the thread. It ends when the queue's other end is gone.
pub(crate) fn start(
    run: &Arc<Run>,
    clerk: &Arc<Clerk>,
    queue: Receiver<Job>,
    doors: Vec<Door>,
    leader: Option<Leader>,
) -> anyhow::Result<JoinHandle<()>> {
    let mut desk = Desk {
        run: Arc::clone(run),
        clerk: Arc::clone(clerk),
        doors,
        files: leader.as_ref().map(|leader| leader.files.clone()).unwrap_or_default(),
        leader,
        collected: Instant::now(),
    };
    let thread = std::thread::Builder::new().name("checkpoints".into()).spawn(move || {
        for job in queue {
            if desk.run.failed() {
                continue; // what a failed run staged never becomes real
            }
            if let Err(error) = desk.work(job) {
                desk.run.fail(error.context("checkpoint"));
            }
        }
    })?;
    Ok(thread)
}

struct Desk {
    run: Arc<Run>,
    clerk: Arc<Clerk>,
    doors: Vec<Door>,
    leader: Option<Leader>,
    /// State files of the last checkpoint, oldest first.
    files: Vec<StateFile>,
    collected: Instant,
}

/// How often files that nothing needs are looked for.
const COLLECT_EVERY: Duration = Duration::from_secs(10);

impl Desk {
    fn work(&mut self, job: Job) -> anyhow::Result<()> {
        match job {
            Job::Sync {
                checkpoint,
                writer,
                needs,
                offsets,
            } => {
                let file = writer.map(FileWriter::finish).transpose()?.flatten();
                self.clerk.report(Report::Worker {
                    checkpoint,
                    file,
                    needs,
                    offsets,
                });
                Ok(())
            }
            Job::Commit { barrier, reports } => self.commit(barrier, reports),
        }
    }

    fn commit(&mut self, barrier: Barrier, reports: Vec<Report>) -> anyhow::Result<()> {
        let started = Instant::now();
        let mut staged: BTreeMap<usize, Vec<Staged>> = BTreeMap::new();
        let mut sources: BTreeMap<String, BTreeMap<String, Offset>> = BTreeMap::new();
        let mut needed = u64::MAX;
        let mut written = 0;
        let plan = self.run.plan();
        for report in reports {
            match report {
                Report::Sink {
                    sink, staged: token, ..
                } => staged.entry(sink).or_default().push(token),
                Report::Worker {
                    file, needs, offsets, ..
                } => {
                    needed = needed.min(needs);
                    written += file.as_ref().map_or(0, |file| file.bytes);
                    self.files.extend(file);
                    for (source, partition, offset) in offsets {
                        let name = &plan.sources[source as usize].name;
                        let partition = self.run.partition_name(source as usize, partition as usize);
                        sources.entry(name.clone()).or_default().insert(partition, offset);
                    }
                }
            }
        }
        // What has ended can't be resumed, and needs no state.
        self.files
            .retain(|file| file.checkpoint >= needed && barrier.kind != BarrierKind::End);
        self.files
            .sort_by(|a, b| (a.checkpoint, &a.name).cmp(&(b.checkpoint, &b.name)));
        if let Some(leader) = &mut self.leader {
            // A partition that has ended or is not there now keeps its place.
            for (source, partitions) in &leader.sources {
                for (partition, offset) in partitions {
                    let known = sources.entry(source.clone()).or_default();
                    known.entry(partition.clone()).or_insert_with(|| offset.clone());
                }
            }
            leader.sources.clone_from(&sources);
            let name = |sink: &usize| plan.sinks[*sink].name.clone();
            let manifest = Manifest {
                format: crate::state::FORMAT,
                checkpoint: barrier.checkpoint,
                generation: leader.claim.generation(),
                pipeline: plan.name.clone(),
                created_us: now_us(),
                ended: barrier.kind == BarrierKind::End,
                steps: super::resume::steps(plan),
                sources,
                sinks: staged
                    .iter()
                    .map(|(sink, staged)| (name(sink), staged.clone()))
                    .collect(),
                files: self.files.clone(),
                restores: None,
            };
            leader.claim.commit(&manifest)?;
            leader.name_savepoints(&manifest);
            if self.collected.elapsed() >= COLLECT_EVERY || barrier.kind != BarrierKind::Passing {
                self.collected = Instant::now();
                let oldest = leader.collect()?;
                self.clerk.released.store(oldest, Ordering::Release);
            }
        }
        for (sink, staged) in staged {
            let errand = Errand::Publish {
                checkpoint: barrier.checkpoint,
                staged,
            };
            self.hand_over(sink, errand)?;
        }
        let metrics = &self.run.metrics;
        metrics.checkpoints.inc();
        metrics.checkpoint_bytes.inc_by(written);
        metrics.checkpoint_seconds.inc_by(started.elapsed().as_secs_f64());
        self.clerk.committed.store(barrier.checkpoint, Ordering::Release);
        Ok(())
    }
}

impl Desk {
    /// Puts an errand into a sink's queue; its target may be away, and then a stop doesn't wait for ever.
    fn hand_over(&self, sink: usize, mut errand: Errand) -> anyhow::Result<()> {
        loop {
            match self.doors[sink].try_send(errand) {
                Ok(()) => return Ok(()),
                // That of a sink that has failed, which ends the run.
                Err(TrySendError::Disconnected(_)) => return Ok(()),
                Err(TrySendError::Full(back)) if !self.run.out_of_patience() => errand = back,
                Err(TrySendError::Full(_)) => {
                    let name = &self.run.plan().sinks[sink].name;
                    anyhow::bail!("sink {name}: its target takes nothing; the next run publishes what is staged");
                }
            }
            std::thread::park_timeout(RETRY);
        }
    }
}

impl Leader {
    fn collect(&mut self) -> anyhow::Result<u64> {
        let collected = self
            .dir
            .collect(&self.claim, self.keep, self.grace)
            .context("old checkpoints")?;
        for remark in collected.remarks {
            tracing::warn!("{remark}");
        }
        Ok(collected.oldest_needed)
    }
}
