//! From a pipeline file and the command line to a plan.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use taktline_engine::config::{Diagnostic, Node, NodeKind, Override};
use taktline_engine::plan::{Plan, compile, read};

use crate::catalog::CATALOG;
use crate::recorded::replace_sources;

/// Where history goes when neither the file nor the command line says so.
pub const DATA: &str = "taktline-data";

/// A pipeline file that is wrong: everything at once.
#[derive(Debug)]
pub struct Wrong(pub Vec<Diagnostic>);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, diagnostic) in self.0.iter().enumerate() {
            write!(f, "{}{diagnostic}", if i > 0 { "\n" } else { "" })?;
        }
        Ok(())
    }
}

impl std::error::Error for Wrong {}

/// A pipeline file and what the command line says about it.
#[derive(Debug)]
pub struct Pipeline {
    name: String,
    text: String,
    overrides: Vec<Override>,
}

impl Pipeline {
    /// Reads a file. `data` takes the place of the `path` of every history sink.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn open(file: &Path, overrides: &[Override], data: Option<&Path>) -> anyhow::Result<Self> {
        let name = file.display().to_string();
        let text = std::fs::read_to_string(file).with_context(|| name.clone())?;
        Ok(Self::new(&name, &text, overrides, data))
    }

    /// The same for a text that is already read; `name` stands in messages.
    pub fn new(name: &str, text: &str, overrides: &[Override], data: Option<&Path>) -> Self {
        let mut pipeline = Pipeline {
            name: name.to_owned(),
            text: text.to_owned(),
            overrides: overrides.to_vec(),
        };
        if let Some(data) = data {
            let path = |(sink, _)| Override::new(&format!("sinks.{sink}.path"), data.display().to_string());
            let paths: Vec<Override> = pipeline.histories().into_iter().map(path).collect();
            pipeline.overrides.extend(paths);
        }
        pipeline
    }

    /// Compiles it.
    ///
    /// # Errors
    /// [`Wrong`]: everything that is wrong with it.
    pub fn plan(&self) -> Result<Plan, Wrong> {
        compile(&self.name, &self.text, &self.overrides, &CATALOG, &environment).map_err(Wrong)
    }

    /// The plan over recorded samples: nothing is read from outside, and only history is written.
    ///
    /// # Errors
    /// [`Wrong`]; the samples can't be read; the pipeline has several sources, whose samples history can't tell apart.
    pub fn backfill(&self, samples: &Path) -> anyhow::Result<Plan> {
        self.plan()?; // so that what is wrong with the file is said with its own positions
        let (mut root, _) = read(&self.name, &self.text, &self.overrides, &environment)
            .map_err(|diagnostic| Wrong(vec![diagnostic]))?;
        let sources = root.get("sources").map_or(0, |sources| sources.entries().len());
        anyhow::ensure!(
            sources == 1,
            "{}: only a pipeline with one source can be filled back, not with {sources}",
            self.name
        );
        if let NodeKind::Map(parts) = &mut root.kind {
            for (_, part) in parts.iter_mut().filter(|(key, _)| key.name == "sinks") {
                if let NodeKind::Map(sinks) = &mut part.kind {
                    sinks.retain(|(_, sink)| sink.get("kind").and_then(Node::text) == Some("history"));
                }
            }
        }
        let nothing = Path::new("/dev/null");
        replace_sources(&mut root, &samples.display().to_string(), nothing)?;
        Ok(compile(&self.name, &root.to_json().to_string(), &[], &CATALOG, &environment).map_err(Wrong)?)
    }

    /// The data directories that its history sinks write.
    pub fn data_dirs(&self) -> Vec<PathBuf> {
        self.histories().into_iter().map(|(_, path)| path).collect()
    }

    /// The history sinks and their paths; none when the text can't be read, which [`Pipeline::plan`] tells.
    fn histories(&self) -> Vec<(String, PathBuf)> {
        let Ok((root, _)) = read(&self.name, &self.text, &self.overrides, &environment) else {
            return Vec::new();
        };
        let sinks = root.get("sinks").map(Node::entries).unwrap_or_default();
        let text = |node: &Node, key: &str| node.get(key).and_then(Node::text).map(str::to_owned);
        let history = sinks
            .iter()
            .filter(|(_, sink)| text(sink, "kind").as_deref() == Some("history"));
        let path = |sink: &Node| text(sink, "path").unwrap_or_else(|| DATA.to_owned()).into();
        history.map(|(key, sink)| (key.name.clone(), path(sink))).collect()
    }
}

/// The process's environment.
pub fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
