//! What the page shows, kept up to date from the run's taps.

use std::collections::{BTreeMap, HashMap};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arrow::array::{Array, RecordBatch};
use serde_json::{Map, Value, json};
use taktline_engine::plan::Edge;
use taktline_engine::{Run, Samples};
use tokio::sync::broadcast;

use crate::rows::objects;
use crate::shelf::Shelf;

/// Cycles kept for each machine, and bytes of all as JSON text: with many machines each has fewer.
const CYCLES: usize = 100;
const CYCLE_BYTES: usize = 64 << 20;

/// Machines kept; beyond, the half that was heard of longest ago is forgotten.
const MACHINES: usize = 100_000;

/// How often machines are announced at most, and samples of watched machines.
const MACHINES_EVERY: Duration = Duration::from_millis(500);
const SAMPLES_EVERY: Duration = Duration::from_millis(100);

/// Something that changed.
#[derive(Clone, Debug)]
pub enum Event {
    /// The list of machines.
    Machines,
    /// The list of open alerts.
    Alerts,
    /// A cycle of a machine.
    Cycle(Arc<str>, Arc<Value>),
    /// Samples of a watched machine, by signal.
    Samples(Arc<str>, Arc<Value>),
}

/// The state behind the page.
pub struct Board {
    state: Mutex<State>,
    /// Changes, for those who show them.
    pub events: broadcast::Sender<Event>,
}

struct State {
    machines: BTreeMap<String, Machine>,
    cycles: Shelf,
    alerts: BTreeMap<String, Value>,
    watched: HashMap<String, usize>,
}

#[derive(Default)]
struct Machine {
    last_us: i64,
    cycles: u64,
    health: Value,
    risk: Value,
}

impl State {
    fn machine(&mut self, name: &str) -> &mut Machine {
        if !self.machines.contains_key(name) {
            if self.machines.len() >= MACHINES {
                self.forget_half();
            }
            let unknown = Machine {
                risk: "unknown".into(),
                ..Machine::default()
            };
            self.machines.insert(name.to_owned(), unknown);
        }
        self.machines.entry(name.to_owned()).or_default()
    }

    fn forget_half(&mut self) {
        let mut heard: Vec<i64> = self.machines.values().map(|machine| machine.last_us).collect();
        let half = heard.len() / 2;
        let middle = *heard.select_nth_unstable(half).1;
        let cycles = &mut self.cycles;
        self.machines.retain(|name, machine| {
            let stays = machine.last_us >= middle;
            if !stays {
                cycles.forget(name);
            }
            stays
        });
    }
}

impl Board {
    /// A board that follows `run` on a thread of its own until the run ends.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn follow(run: &Arc<Run>) -> anyhow::Result<Arc<Self>> {
        let (events, _) = broadcast::channel(1024);
        let board = Arc::new(Board {
            state: Mutex::new(State {
                machines: BTreeMap::new(),
                cycles: Shelf::new(CYCLES, CYCLE_BYTES),
                alerts: BTreeMap::new(),
                watched: HashMap::new(),
            }),
            events,
        });
        let receiver = run.taps.watch(&shown(run));
        let (run, follower) = (Arc::clone(run), Arc::clone(&board));
        std::thread::Builder::new().name("board".into()).spawn(move || {
            let mut pending = Pending::default();
            loop {
                match receiver.recv_timeout(SAMPLES_EVERY) {
                    Ok((edge, batch)) => {
                        if let Err(error) = follower.take(&run, edge, &batch, &mut pending) {
                            tracing::error!("the page lost rows of {}: {error:#}", run.plan().edge_name(edge));
                        }
                    }
                    Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => break,
                }
                pending.announce(&follower.events, false);
            }
            pending.announce(&follower.events, true);
        })?;
        Ok(board)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, run: &Run, edge: Edge, batch: &RecordBatch, pending: &mut Pending) -> anyhow::Result<()> {
        match run.plan().table(edge).name {
            "samples" => self.take_samples(batch, pending),
            "cycles" => self.take_cycles(run, edge, batch, pending),
            "alerts" => self.take_alerts(batch),
            _ => Ok(()),
        }
    }

    fn take_samples(&self, batch: &RecordBatch, pending: &mut Pending) -> anyhow::Result<()> {
        let samples = Samples::of(batch)?;
        let mut newest = vec![i64::MIN; samples.machines.len()];
        for (machine, ts) in samples.machine.iter().zip(samples.ts) {
            let newest = &mut newest[*machine as usize];
            *newest = (*newest).max(*ts);
        }
        let mut state = self.state();
        for (number, newest) in newest.iter().enumerate().filter(|(_, newest)| **newest > i64::MIN) {
            let name = samples.machines.value(number);
            let machine = state.machine(name);
            machine.last_us = machine.last_us.max(*newest);
            if !state.watched.contains_key(name) {
                continue;
            }
            let rows = (0..batch.num_rows()).filter(|row| samples.machine[*row] as usize == number);
            for row in rows.filter(|row| samples.text.is_null(*row)) {
                let value = samples.value.is_valid(row).then(|| samples.value.value(row));
                pending.sample(
                    name,
                    samples.signals.value(samples.signal[row] as usize),
                    samples.ts[row],
                    value,
                );
            }
        }
        pending.machines = true;
        Ok(())
    }

    fn take_cycles(&self, run: &Run, edge: Edge, batch: &RecordBatch, pending: &mut Pending) -> anyhow::Result<()> {
        let mut cycles = Vec::new();
        let mut signals: HashMap<String, Vec<Value>> = HashMap::new();
        for published in run.plan().table(edge).published {
            let rows = objects(&(published.project)(batch)?)?;
            match published.name {
                "cycles" => cycles = rows,
                "cycle_signals" => rows.into_iter().for_each(|row| {
                    let cycle = row
                        .get("cycle_id")
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                        .to_owned();
                    signals.entry(cycle).or_default().push(Value::Object(row));
                }),
                _ => {}
            }
        }
        let mut state = self.state();
        for mut cycle in cycles {
            let text = |key: &str| cycle.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
            let (name, id) = (text("machine"), text("cycle_id"));
            cycle.insert("signals".into(), signals.remove(&id).unwrap_or_default().into());
            let machine = state.machine(&name);
            machine.cycles += 1;
            machine.health = cycle.get("health").cloned().unwrap_or_default();
            machine.risk = cycle.get("risk").cloned().unwrap_or("unknown".into());
            let (name, cycle): (Arc<str>, _) = (name.into(), Arc::new(Value::Object(cycle)));
            state.cycles.put(&name, cycle.to_string().into());
            let _ = self.events.send(Event::Cycle(name, cycle)); // nobody may be watching
        }
        pending.machines = true;
        Ok(())
    }

    fn take_alerts(&self, batch: &RecordBatch) -> anyhow::Result<()> {
        let mut state = self.state();
        for row in objects(batch)? {
            let id = row
                .get("alert_id")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned();
            if row.get("state").and_then(Value::as_str) == Some("open") {
                state.alerts.insert(id, Value::Object(row));
            } else {
                state.alerts.remove(&id);
            }
        }
        let _ = self.events.send(Event::Alerts); // nobody may be watching
        Ok(())
    }

    /// All machines.
    pub fn machines(&self) -> Value {
        let state = self.state();
        let open = |name: &str| state.alerts.values().filter(|alert| alert["machine"] == name).count();
        let machine = |(name, machine): (&String, &Machine)| {
            json!({"machine": name, "last_ms": machine.last_us.div_euclid(1000), "cycles": machine.cycles,
                "health": machine.health, "risk": machine.risk, "open_alerts": open(name)})
        };
        state.machines.iter().map(machine).collect()
    }

    /// All open alerts.
    pub fn alerts(&self) -> Value {
        self.state().alerts.values().cloned().collect()
    }

    /// The last cycles of a machine, oldest first.
    pub fn cycles(&self, machine: &str) -> Value {
        let state = self.state();
        let cycles = state.cycles.of(machine);
        cycles
            .filter_map(|cycle| serde_json::from_str::<Value>(cycle).ok())
            .collect()
    }

    /// From now on the machine's samples are announced, until [`Board::unwatch`].
    pub fn watch(&self, machine: &str) {
        *self.state().watched.entry(machine.to_owned()).or_default() += 1;
    }

    /// Takes a [`Board::watch`] back.
    pub fn unwatch(&self, machine: &str) {
        let mut state = self.state();
        if let Some(count) = state.watched.get_mut(machine) {
            *count -= 1;
            if *count == 0 {
                state.watched.remove(machine);
            }
        }
    }
}

/// Samples, alerts, and of cycles the edges that no other edge extends.
fn shown(run: &Run) -> Vec<Edge> {
    let plan = run.plan();
    let extended = |edge: Edge| {
        plan.steps
            .iter()
            .any(|step| step.step.output().extends_input && step.inputs.as_slice() == [edge])
    };
    let steps = (0..plan.steps.len()).map(Edge::Step);
    let rows = steps.filter(|edge| match plan.table(*edge).name {
        "cycles" => !extended(*edge),
        name => name == "alerts",
    });
    (0..plan.sources.len()).map(Edge::Source).chain(rows).collect()
}

/// Changes that wait to be announced together.
struct Pending {
    machines: bool,
    machines_at: Instant,
    samples: HashMap<String, Map<String, Value>>,
    samples_at: Instant,
}

impl Default for Pending {
    fn default() -> Self {
        let now = Instant::now();
        Pending {
            machines: false,
            machines_at: now,
            samples: HashMap::new(),
            samples_at: now,
        }
    }
}

impl Pending {
    fn sample(&mut self, machine: &str, signal: &str, ts_us: i64, value: Option<f64>) {
        if !self.samples.contains_key(machine) {
            self.samples.insert(machine.to_owned(), Map::new());
        }
        let Some(signals) = self.samples.get_mut(machine) else {
            return;
        };
        let point = json!([ts_us as f64 / 1e3, value]);
        match signals.get_mut(signal) {
            Some(Value::Array(points)) => points.push(point),
            _ => {
                signals.insert(signal.to_owned(), Value::Array(vec![point]));
            }
        }
    }

    fn announce(&mut self, events: &broadcast::Sender<Event>, at_once: bool) {
        if !self.samples.is_empty() && (at_once || self.samples_at.elapsed() >= SAMPLES_EVERY) {
            self.samples_at = Instant::now();
            for (machine, signals) in self.samples.drain() {
                let _ = events.send(Event::Samples(machine.into(), Arc::new(Value::Object(signals)))); // as above
            }
        }
        if self.machines && (at_once || self.machines_at.elapsed() >= MACHINES_EVERY) {
            self.machines_at = Instant::now();
            self.machines = false;
            let _ = events.send(Event::Machines); // as above
        }
    }
}
