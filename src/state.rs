//! Where a run keeps its state, and how its process joins the others.

use std::hash::{Hash, Hasher};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use taktline_engine::state::StateDir;
use taktline_engine::{Fabric, Resume, Run, StateOptions};

use crate::cli::{BAD_CONFIGURATION, FAILED};
use crate::cluster::certificates::Certificates;
use crate::cluster::mesh::{self, Mesh, MeshSettings, Patience};
use crate::cluster::{alive, certificates_folder, folder};

/// What the command line says about state and about other processes.
#[derive(clap::Args, Debug, Default)]
pub struct StateArgs {
    /// Go on from this savepoint, and take back what history got after it.
    #[arg(long, value_name = "SAVEPOINT")]
    from: Option<String>,
    /// Start this step or source without its state; may be given several times.
    #[arg(long, value_name = "NAME")]
    fresh: Vec<String>,
    /// How long another run on the same data directory may be silent before it is held to be gone.
    #[arg(long, hide = true, value_name = "SECS", default_value_t = 10.0)]
    lease_secs: f64,
    /// Which of the processes this one is.
    #[arg(long, hide = true, requires = "peers")]
    process: Option<usize>,
    /// Where the processes are: `host:port` of each.
    #[arg(long, hide = true, value_delimiter = ',')]
    peers: Vec<String>,
    /// Plain links between them.
    #[arg(long, hide = true)]
    insecure: bool,
}

/// How a run starts: its state, and its links.
pub struct Started {
    /// None: the run keeps no state.
    pub resume: Option<Resume>,
    /// This process among all.
    pub fabric: Fabric,
    /// To be closed when the run has ended.
    pub mesh: Option<Mesh>,
}

impl Started {
    /// A process alone that keeps no state.
    pub fn without_state() -> Self {
        Started {
            resume: None,
            fabric: Fabric::alone(),
            mesh: None,
        }
    }
}

impl StateArgs {
    /// True for a process that does not lead.
    pub fn follows(&self) -> bool {
        self.process.is_some_and(|process| process > 0)
    }

    /// Reads the state in `data`, and joins the other processes if there are some.
    ///
    /// # Errors
    /// The state is another run's, or can't be read, or doesn't fit the pipeline; a process is missing.
    pub fn start(&self, run: &Arc<Run>, data: Option<PathBuf>) -> anyhow::Result<Started> {
        let Some(data) = data else {
            let asked = self.from.is_some() || !self.fresh.is_empty() || self.process.is_some();
            anyhow::ensure!(
                !asked,
                "without --data DIR or a history sink there is no state to go on from"
            );
            return Ok(Started::without_state());
        };
        std::fs::create_dir_all(&data).with_context(|| data.display().to_string())?;
        let options = StateOptions {
            from: self.from.clone(),
            fresh: self.fresh.clone(),
            lease: Duration::try_from_secs_f64(self.lease_secs).context("--lease-secs")?,
            ..StateOptions::at(&data)
        };
        let Some(process) = self.process else {
            return Ok(Started {
                resume: Some(Resume::lead(run, &options, 1)?),
                ..Started::without_state()
            });
        };
        alive::heartbeat(&alive::heartbeat_file(&folder(&data), process))?;
        alive::end_with_parent()?;
        let processes = self.peers.len();
        let leading = (process == 0)
            .then(|| Resume::lead(run, &options, processes))
            .transpose()?;
        let mesh = mesh::join(&MeshSettings {
            process,
            addresses: self.peers.clone(),
            threads: run.options().workers,
            cluster: cluster_name(run),
            facts: leading.as_ref().map(Resume::facts),
            certificates: (!self.insecure)
                .then(|| Certificates::open(&certificates_folder(&data)))
                .transpose()?,
            patience: Patience::default(),
            on_lost: Arc::new(mesh::end_process),
        })?;
        let resume = match leading {
            Some(resume) => resume,
            None => Resume::follow(run, &options, &mesh.facts, process, processes)?,
        };
        end_when_failed(run)?;
        let mut mesh = mesh;
        Ok(Started {
            resume: Some(resume),
            fabric: Fabric {
                process,
                processes,
                sockets: std::mem::take(&mut mesh.sockets),
            },
            mesh: Some(mesh),
        })
    }
}

/// Ends this process when its part of the run fails: its peers then notice, and all start again from the checkpoint. In good
/// order it could wait for them for ever.
fn end_when_failed(run: &Arc<Run>) -> anyhow::Result<()> {
    let run = Arc::downgrade(run);
    std::thread::Builder::new().name("failure".into()).spawn(move || {
        while let Some(run) = run.upgrade() {
            if run.failed() {
                let said = run.failure().unwrap_or_else(|| "the run failed".into());
                let code = if run.exceeded().is_some() {
                    BAD_CONFIGURATION
                } else {
                    FAILED
                };
                alive::end(&said, code);
            }
            drop(run);
            std::thread::park_timeout(LOOK_EVERY);
        }
    })?;
    Ok(())
}

/// How often it is looked whether the run has failed.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The same in all processes that run the same graph.
fn cluster_name(run: &Run) -> String {
    let mut hasher = std::hash::DefaultHasher::new();
    run.plan().to_string().hash(&mut hasher);
    format!("{} {:016x}", run.plan().name, hasher.finish())
}

/// What a run does with a data directory that is not empty.
///
/// # Errors
/// It holds history without the state that goes with it; or it is to be overwritten and another run is at it.
pub fn make_room(data: &Path, overwrite: bool) -> anyhow::Result<()> {
    let state = StateDir::at(data);
    let place = data.display();
    if overwrite {
        if state.exists() {
            state.remove()?;
        }
        if taktline_connectors::history::holds(data)? {
            tracing::info!("{place}: the old history is removed");
            taktline_connectors::history::remove(data)?;
        }
        return Ok(());
    }
    anyhow::ensure!(
        state.exists() || !taktline_connectors::history::holds(data)?,
        "{place} holds history, but not the state of the run that wrote it, so rows would be there twice; \
         choose another --data DIR, or --overwrite to begin it anew"
    );
    Ok(())
}
