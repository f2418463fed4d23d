//! Where a run goes on: the claim on the state directory, the checkpoint, the keys of its workers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use super::Run;
use super::exchange::hash;
use super::graph::Place;
use super::ledger::{Ledger, Restored, SLOTS, Shared};
use crate::journal::{self, JournalPartition};
use crate::operator::Order;
use crate::plan::{Plan, PlannedSource};
use crate::source::Wake;
use crate::state::{self, Claim, Kept, Manifest, Offset, StateDir, StateFile};

/// Where and how a run keeps its state.
#[derive(Clone, Debug)]
pub struct StateOptions {
    /// The data directory; state lies in a folder of it.
    pub data: PathBuf,
    /// Go on from this savepoint, not from the newest checkpoint.
    pub from: Option<String>,
    /// Steps and sources that start without their state.
    pub fresh: Vec<String>,
    /// How long the owner of the directory may be silent before it is held to be gone.
    pub lease: Duration,
    /// Checkpoints that are kept.
    pub keep: usize,
    /// How old an orphaned file must be before it is removed.
    pub grace: Duration,
}

impl StateOptions {
    /// State in this data directory, everything else as usual.
    pub fn at(data: impl Into<PathBuf>) -> Self {
        StateOptions {
            data: data.into(),
            from: None,
            fresh: Vec::new(),
            lease: Duration::from_secs(10),
            keep: 3,
            grace: Duration::from_secs(600),
        }
    }
}

/// What a process knows of the state before it starts.
pub struct Resume {
    dir: StateDir,
    generation: u64,
    first_checkpoint: u64,
    manifest: Option<Manifest>,
    fresh: BTreeSet<String>,
    /// The pipeline's steps.
    steps: BTreeSet<String>,
    workers: Mutex<HashMap<usize, Restored>>,
    journal: journal::Settings,
    peers: usize,
    fence: Fence,
    leader: Mutex<Option<Leader>>,
}

type Fence = Arc<dyn Fn() -> anyhow::Result<()> + Send + Sync>;

/// What the leading process has beside it.
pub(crate) struct Leader {
    pub claim: Arc<Claim>,
    pub dir: StateDir,
    pub files: Vec<StateFile>,
    pub sources: BTreeMap<String, BTreeMap<String, Offset>>,
    pub keep: usize,
    pub grace: Duration,
    run: Arc<Run>,
}

impl Resume {
    /// Claims the state directory and reads the checkpoint to go on from. For the leading process, which is often the only one.
    ///
    /// # Errors
    /// Another run holds the directory; no checkpoint can be read though there are some; the pipeline changed in a way that needs a decision.
    pub fn lead(run: &Arc<Run>, options: &StateOptions, processes: usize) -> anyhow::Result<Self> {
        let dir = StateDir::at(&options.data);
        let plan = run.plan();
        let claim = Arc::new(dir.claim(&plan.name, options.lease)?);
        if let Some(warning) = claim.took_over() {
            tracing::warn!("{warning}");
        }
        let peers = run.options.workers * processes;
        let wanted = owned_by(0..run.options.workers, peers);
        let newest = match &options.from {
            Some(name) => {
                let found = dir.savepoint(name)?;
                let keys = state::load(&dir, &found.manifest, &wanted).with_context(|| format!("savepoint {name}"))?;
                Some((found, keys))
            }
            None => dir.recover(&claim, &wanted)?,
        };
        let fresh: BTreeSet<String> = options.fresh.iter().cloned().collect();
        check_names(plan, &fresh)?;
        let mut first_checkpoint = claim.next_checkpoint();
        let (manifest, keys) = match newest {
            None => (None, HashMap::new()),
            Some((found, keys)) => {
                found
                    .passed_over
                    .iter()
                    .for_each(|sentence| tracing::warn!("{sentence}"));
                let mut manifest = found.manifest;
                // Before anything is moved: an error here leaves all as it is.
                compare(plan, &manifest, &fresh)?;
                if options.from.is_some() || !found.passed_over.is_empty() {
                    // From here on this is the newest, also after a crash before the next one: what later ones published is
                    // taken back.
                    claim.resume_from(Some(&manifest))?;
                    manifest.restores = Some(manifest.restores.unwrap_or(manifest.checkpoint));
                    manifest.checkpoint = first_checkpoint;
                    manifest.generation = claim.generation();
                    claim.commit(&manifest)?;
                    first_checkpoint += 1;
                }
                (Some(manifest), keys)
            }
        };
        if let Some(manifest) = &manifest {
            check_published(plan, manifest, &dir)?;
            if let Some(restored) = manifest.restores {
                for name in dir.abandon_savepoints(restored, manifest.checkpoint)? {
                    tracing::warn!("savepoint {name}: came after what is gone back to; it is set aside");
                }
            }
        }
        let leader = Leader {
            claim: Arc::clone(&claim),
            dir: dir.clone(),
            files: manifest
                .as_ref()
                .map(|manifest| manifest.files.clone())
                .unwrap_or_default(),
            sources: known_sources(plan, manifest.as_ref(), &fresh),
            keep: options.keep,
            grace: options.grace,
            run: Arc::clone(run),
        };
        Ok(Resume {
            generation: claim.generation(),
            first_checkpoint,
            workers: Mutex::new(by_worker(keys, peers)),
            manifest,
            fresh,
            steps: steps(plan).into_keys().collect(),
            journal: journal_settings(plan, options),
            peers,
            fence: Arc::new(move || claim.check()),
            leader: Mutex::new(Some(leader)),
            dir,
        })
    }

    /// Goes on where the leading process does; `facts` are its [`Resume::facts`].
    ///
    /// # Errors
    /// The state can't be read here: the data directory is not shared, or damaged since.
    pub fn follow(
        run: &Arc<Run>,
        options: &StateOptions,
        facts: &Value,
        process: usize,
        processes: usize,
    ) -> anyhow::Result<Self> {
        let fact = |name: &str| facts.get(name).and_then(Value::as_u64);
        let (generation, first_checkpoint) = fact("generation")
            .zip(fact("first_checkpoint"))
            .context("the leading process did not say where to go on")?;
        let dir = StateDir::at(&options.data);
        let workers = run.options.workers;
        let peers = workers * processes;
        let (manifest, keys) = match (fact("checkpoint"), fact("of_generation")) {
            (Some(checkpoint), Some(of)) => {
                let manifest = dir.manifest(checkpoint, of)?;
                let keys = state::load(
                    &dir,
                    &manifest,
                    &owned_by(process * workers..(process + 1) * workers, peers),
                )?;
                (Some(manifest), keys)
            }
            _ => (None, HashMap::new()),
        };
        let checked = dir.clone();
        Ok(Resume {
            dir,
            generation,
            first_checkpoint,
            manifest,
            fresh: options.fresh.iter().cloned().collect(),
            steps: steps(run.plan()).into_keys().collect(),
            workers: Mutex::new(by_worker(keys, peers)),
            journal: journal_settings(run.plan(), options),
            peers,
            fence: Arc::new(move || checked.check(generation)),
            leader: Mutex::new(None),
        })
    }

    /// What the other processes of a run need to know, to be given to [`Resume::follow`].
    pub fn facts(&self) -> Value {
        json!({
            "generation": self.generation,
            "first_checkpoint": self.first_checkpoint,
            "checkpoint": self.manifest.as_ref().map(|manifest| manifest.checkpoint),
            "of_generation": self.manifest.as_ref().map(|manifest| manifest.generation),
        })
    }

    /// True when an earlier run has read the input to its end.
    pub fn ended(&self) -> bool {
        self.manifest.as_ref().is_some_and(|manifest| manifest.ended)
    }

    /// The generation of this run.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Where sinks keep what they stage.
    pub(crate) fn staging(&self) -> PathBuf {
        self.dir.staging()
    }

    /// The checkpoint that is gone on from; 0 when there is none.
    pub fn checkpoint(&self) -> u64 {
        self.manifest.as_ref().map_or(0, |manifest| manifest.checkpoint)
    }

    pub(crate) fn first_checkpoint(&self) -> u64 {
        self.first_checkpoint
    }

    /// The checkpoint whose rows sinks shall show, and what they staged for it.
    pub(crate) fn published(&self, sink: &str) -> (u64, Vec<state::Staged>) {
        let Some(manifest) = &self.manifest else {
            return (0, Vec::new());
        };
        let staged = manifest.sinks.get(sink).cloned().unwrap_or_default();
        (manifest.restores.unwrap_or(manifest.checkpoint), staged)
    }

    pub(crate) fn take_leader(&self) -> Option<Leader> {
        self.leader.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The ledger of one worker, with its keys.
    pub(crate) fn ledger(&self, place: Place) -> anyhow::Result<Shared> {
        anyhow::ensure!(
            place.peers == self.peers,
            "the state was read for {} workers, not {}",
            self.peers,
            place.peers
        );
        let mut workers = self.workers.lock().unwrap_or_else(PoisonError::into_inner);
        let restored = workers.remove(&place.index).unwrap_or_default();
        let stays = |step: &str| {
            let known = self
                .manifest
                .as_ref()
                .is_some_and(|manifest| manifest.steps.contains_key(step));
            known && self.steps.contains(step) && !self.fresh.contains(step)
        };
        let (restored, dropped) = restored.into_iter().partition(|(step, _)| stays(step));
        let mut files = BTreeMap::new();
        for file in self.manifest.iter().flat_map(|manifest| &manifest.files) {
            *files.entry(file.checkpoint).or_default() += file.bytes / place.peers as u64;
        }
        let ledger = Ledger::new(
            self.dir.clone(),
            self.generation,
            place.index,
            (restored, dropped),
            files,
        );
        Ok(std::rc::Rc::new(std::cell::RefCell::new(ledger)))
    }

    /// Where a partition is read on.
    pub(crate) fn offset(&self, planned: &PlannedSource, partition: &str) -> Option<Offset> {
        let manifest = self.manifest.as_ref().filter(|_| !self.fresh.contains(&planned.name))?;
        let known = manifest.sources.get(&planned.name)?;
        let own = known.get(partition);
        if !planned.source.replayable() {
            return own.cloned();
        }
        // A partition that is new takes on from the others' batches.
        let sequence = own.map_or_else(
            || known.values().map(|offset| offset.sequence).max(),
            |own| Some(own.sequence),
        );
        let known = known.iter().map(|(name, offset)| (name.clone(), offset.at.clone()));
        Some(Offset {
            at: planned.source.read_on(partition, &known.collect())?,
            sequence: sequence.unwrap_or_default(),
        })
    }

    /// The journal of a partition that can't be read twice.
    pub(crate) fn journal(
        &self,
        run: &Arc<Run>,
        (source, number, _): (usize, usize, &str),
        from: Option<&Value>,
        wake: Wake,
    ) -> anyhow::Result<JournalPartition> {
        let name = run.plan().sources[source].name.clone();
        let settings = journal::Settings {
            folder: self.dir.journal().join(&name).join(number.to_string()),
            fence: Arc::clone(&self.fence),
            ..self.journal.clone()
        };
        let watch = run.metrics.journal(&name);
        let opened = Arc::clone(run);
        let inner = Box::new(move |wake: Wake| opened.plan().sources[source].source.open(number, None, wake));
        journal::open(settings, from, inner, wake, watch)
    }
}

fn journal_settings(plan: &Plan, options: &StateOptions) -> journal::Settings {
    journal::Settings {
        whole: options.from.is_some(),
        ..plan.journal.clone()
    }
}

/// Which keys belong to these workers.
fn owned_by(workers: std::ops::Range<usize>, peers: usize) -> impl Fn(&str) -> bool + Sync {
    move |key| workers.contains(&((hash(key) % peers as u64) as usize))
}

fn by_worker(keys: HashMap<(String, u8, String), Kept>, peers: usize) -> HashMap<usize, Restored> {
    let mut workers: HashMap<usize, Restored> = HashMap::new();
    for ((step, slot, key), kept) in keys {
        let worker = (hash(&key) % peers as u64) as usize;
        let slots = workers
            .entry(worker)
            .or_default()
            .entry(step)
            .or_default()
            .entry(key)
            .or_default();
        if (slot as usize) < SLOTS {
            slots[slot as usize] = Some(kept);
        }
    }
    workers
}

/// What the state of each step is.
pub(crate) fn steps(plan: &Plan) -> BTreeMap<String, String> {
    let text = |planned: &crate::plan::PlannedStep| {
        // Rows that wait for their watermark are state too, in a form of its own.
        let waiting = match planned.step.order() {
            Order::Time { .. } => " rows/2",
            Order::Arrival => "",
        };
        format!("{} {}{waiting}", planned.kind, planned.step.state())
    };
    plan.steps
        .iter()
        .map(|planned| (planned.name.clone(), text(planned)))
        .collect()
}

fn check_names(plan: &Plan, fresh: &BTreeSet<String>) -> anyhow::Result<()> {
    for name in fresh {
        anyhow::ensure!(
            plan.edge(name).is_some(),
            "--fresh {name}: there is no step or source of this name"
        );
    }
    Ok(())
}

/// Says what changed since the checkpoint.
///
/// # Errors
/// A step can't take its state.
fn compare(plan: &Plan, manifest: &Manifest, fresh: &BTreeSet<String>) -> anyhow::Result<()> {
    anyhow::ensure!(
        manifest.pipeline == plan.name,
        "the data directory holds the state of the pipeline `{}`, not of `{}`; name another --data, or start afresh with --overwrite",
        manifest.pipeline,
        plan.name
    );
    let now = steps(plan);
    let mut incompatible = Vec::new();
    for (step, state) in &now {
        match manifest.steps.get(step) {
            _ if fresh.contains(step) => tracing::warn!("step {step}: starts without its state, as asked"),
            None => tracing::info!("step {step}: new, starts without state"),
            Some(before) if before == state => {}
            Some(before) => incompatible.push(format!(
                "step {step}: its state is `{before}`, and would be `{state}` now"
            )),
        }
    }
    for step in manifest.steps.keys().filter(|step| !now.contains_key(*step)) {
        tracing::warn!("step {step}: is no longer in the pipeline; its state is dropped");
    }
    for source in manifest.sources.keys() {
        if !plan.sources.iter().any(|planned| planned.name == *source) {
            tracing::warn!("source {source}: is no longer in the pipeline; its place is forgotten");
        }
    }
    for sink in manifest.sinks.keys() {
        if !plan.sinks.iter().any(|planned| planned.name == *sink) {
            tracing::warn!("sink {sink}: is no longer in the pipeline");
        }
    }
    for planned in &plan.sources {
        match manifest.sources.contains_key(&planned.name) {
            true if fresh.contains(&planned.name) => {
                tracing::warn!("source {}: starts from its beginning, as asked", planned.name)
            }
            true => {}
            false => tracing::info!("source {}: new, starts from its beginning", planned.name),
        }
    }
    let flags: Vec<&str> = incompatible
        .iter()
        .filter_map(|line| line.split([' ', ':']).nth(1))
        .collect();
    anyhow::ensure!(
        incompatible.is_empty(),
        "{}; to drop that state, start with {}",
        incompatible.join("; "),
        flags
            .iter()
            .map(|step| format!("--fresh {step}"))
            .collect::<Vec<_>>()
            .join(" ")
    );
    Ok(())
}

/// A sink that is gone can't publish what it staged last. After a stop in good order it has done so.
fn check_published(plan: &Plan, manifest: &Manifest, dir: &StateDir) -> anyhow::Result<()> {
    let staged = |tokens: &[state::Staged]| tokens.iter().any(|token| !token.0.is_null());
    for (sink, _) in manifest.sinks.iter().filter(|(_, tokens)| staged(tokens)) {
        anyhow::ensure!(
            plan.sinks.iter().any(|planned| planned.name == *sink) || dir.published()? == Some(manifest.checkpoint),
            "sink {sink} is no longer in the pipeline, and the last run was cut off before it had published all; run once more with it"
        );
    }
    Ok(())
}

/// The places of partitions that stay, whether or not they are read now.
fn known_sources(
    plan: &Plan,
    manifest: Option<&Manifest>,
    fresh: &BTreeSet<String>,
) -> BTreeMap<String, BTreeMap<String, Offset>> {
    let mut sources = manifest.map(|manifest| manifest.sources.clone()).unwrap_or_default();
    sources.retain(|source, _| !fresh.contains(source) && plan.sources.iter().any(|planned| planned.name == *source));
    sources
}

impl Leader {
    /// Names the savepoints that were asked for when this checkpoint began.
    pub fn name_savepoints(&self, manifest: &Manifest) {
        for (name, answer) in self.run.begun_savepoints() {
            let named = self.dir.name_savepoint(&name, manifest);
            let _ = answer.send(named.map(|_| manifest.checkpoint)); // who asked may have gone
        }
    }
}
