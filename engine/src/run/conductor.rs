//! Worker 0 stamps what all workers must see at the same place of the stream: passing time, checkpoints, the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use timely::dataflow::ProbeHandle;

use super::Run;
use super::clerk::Clerk;
use super::clock::now_us;
use super::feed::{EPOCHS_IN_FLIGHT, Input};
use super::memory::Pace;
use crate::frame::{Barrier, BarrierKind, Frame, Word};

/// How often passing time is stamped for machines that are silent.
const TICK: Duration = Duration::from_millis(250);

/// When memory is near its limit the next checkpoint comes so soon: it lets sinks go of what they gather. As long as that doesn't help,
/// the one after waits twice as long.
const SOON: Duration = Duration::from_millis(500);

/// The stamping side of the control stream. It holds back the epochs of all workers, so it never stays behind the sources.
pub(crate) struct Conductor {
    run: Arc<Run>,
    clerk: Arc<Clerk>,
    control: Option<Input>,
    epoch: u64,
    peers: usize,
    /// Any source goes on for ever.
    live: bool,
    keeps_state: bool,
    next_checkpoint: u64,
    in_flight: Option<u64>,
    last_tick: Instant,
    last_checkpoint: Instant,
    released: u64,
    committed: u64,
    pace: Pace,
    soon: Duration,
}

impl Conductor {
    pub fn new(
        run: &Arc<Run>,
        clerk: &Arc<Clerk>,
        control: Input,
        peers: usize,
        first: u64,
        keeps_state: bool,
    ) -> Self {
        let now = Instant::now();
        Conductor {
            live: run.plan().sources.iter().any(|planned| !planned.source.bounded()),
            run: Arc::clone(run),
            clerk: Arc::clone(clerk),
            control: Some(control),
            epoch: 0,
            peers,
            keeps_state,
            next_checkpoint: first,
            in_flight: None,
            last_tick: now,
            last_checkpoint: now,
            released: 0,
            committed: 0,
            pace: Pace::Full,
            soon: SOON,
        }
    }

    /// Stamps what is due into the open epoch, before this worker's feed leaves it for `next`: the epoch it opens now, or none
    /// when it has ended. `raw` says how far the sources of all workers have come.
    pub fn turn(&mut self, next: Option<u64>, raw: &ProbeHandle<u64>) {
        if self
            .in_flight
            .is_some_and(|checkpoint| self.clerk.committed() >= checkpoint)
        {
            self.in_flight = None;
        }
        // The checkpoint on its way may wait for a sink whose target is away.
        if self.in_flight.is_some() && self.run.out_of_patience() {
            self.run.give_up();
        }
        if self.control.is_none() {
            return;
        }
        if self.run.failed() {
            self.control = None;
            return;
        }
        let stops = self.run.stopping() && self.keeps_state;
        if stops || raw.done() {
            // One checkpoint at a time.
            if self.in_flight.is_none() {
                if let Some(exceeded) = self.run.exceeded() {
                    self.send(&Word::Exceeded(exceeded));
                }
                if stops {
                    // Ahead of all workers, so that each still fills its epochs up to there: a stop cuts no epoch short.
                    let on_their_way = if self.pace == Pace::Full { EPOCHS_IN_FLIGHT } else { 1 };
                    self.advance_to(self.epoch + on_their_way + 1);
                }
                self.barrier(if stops { BarrierKind::Stop } else { BarrierKind::End });
                self.control = None;
            }
            return;
        }
        self.stamp();
        let reached = next.or_else(|| raw.with_frontier(|frontier| frontier.first().copied()));
        if let Some(reached) = reached.filter(|reached| *reached > self.epoch) {
            self.advance_to(reached);
        }
    }

    /// True when nothing more will be stamped and nothing is waited for.
    pub fn done(&self) -> bool {
        self.control.is_none() && self.in_flight.is_none()
    }

    fn stamp(&mut self) {
        // What waits in a journal was not silence.
        if self.live && self.run.caught_up() && self.last_tick.elapsed() >= TICK {
            self.last_tick = Instant::now();
            self.send(&Word::Tick { now_us: now_us() });
        }
        let released = self.clerk.released();
        if released > std::mem::replace(&mut self.released, released) {
            self.send(&Word::Released { checkpoint: released });
        }
        let committed = self.clerk.committed();
        if committed > std::mem::replace(&mut self.committed, committed) {
            self.send(&Word::Committed { checkpoint: committed });
        }
        let pace = self.run.wanted_pace();
        if pace != self.pace {
            if pace.min(self.pace) == Pace::Full {
                self.soon = SOON;
            }
            self.pace = pace;
            self.send(&Word::Pace(pace));
        }
        if self.in_flight.is_some() {
            return;
        }
        if self.checkpoint_is_due() {
            self.barrier(BarrierKind::Passing);
        } else if self.pace != Pace::Full && self.last_checkpoint.elapsed() >= self.soon {
            self.soon *= 2;
            self.barrier(BarrierKind::Passing);
        }
    }

    fn checkpoint_is_due(&self) -> bool {
        let passed = self.last_checkpoint.elapsed();
        passed >= self.run.options.checkpoint_every || self.run.wants_checkpoint()
    }

    fn barrier(&mut self, kind: BarrierKind) {
        self.run.checkpoint_begins();
        self.last_checkpoint = Instant::now();
        let checkpoint = self.next_checkpoint;
        self.next_checkpoint += 1;
        self.in_flight = Some(checkpoint);
        self.send(&Word::Barrier(Barrier { checkpoint, kind }));
        self.advance_to(self.epoch + 1);
    }

    fn advance_to(&mut self, epoch: u64) {
        if let Some(control) = &mut self.control {
            self.epoch = epoch;
            control.advance_to(epoch);
        }
    }

    fn send(&mut self, word: &Word) {
        let Some(control) = &mut self.control else { return };
        for worker in 0..self.peers {
            let word = word.clone();
            control.send_batch(&mut Frame::Control { worker, word });
        }
    }
}
