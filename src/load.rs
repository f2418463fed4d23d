//! From a pipeline file and the command line to a plan.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use taktline_engine::config::{Diagnostic, Override, parse};
use taktline_engine::plan::{Plan, compile};

use crate::catalog::CATALOG;

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

/// Reads and compiles a pipeline file. `data` takes the place of the `path` of every history sink.
///
/// # Errors
/// [`Wrong`] when the file says something that can't be; another error when it can't be read.
pub fn load(file: &Path, overrides: &[Override], data: Option<&Path>) -> anyhow::Result<Plan> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).with_context(|| name.clone())?;
    load_text(&name, &text, overrides, data)
}

/// The same for a text that is already read; `name` stands in messages.
///
/// # Errors
/// As for [`load`].
pub fn load_text(name: &str, text: &str, overrides: &[Override], data: Option<&Path>) -> anyhow::Result<Plan> {
    let mut overrides = overrides.to_vec();
    if let Some(data) = data {
        let paths = history_sinks(name, text).into_iter().map(|sink| path_of(&sink));
        overrides.extend(paths.map(|path| Override::new(&path, data.display().to_string())));
    }
    let env = |name: &str| std::env::var(name).ok();
    Ok(compile(name, text, &overrides, &CATALOG, &env).map_err(Wrong)?)
}

/// The data directories that a pipeline's history sinks write.
pub fn data_dirs(name: &str, text: &str, overrides: &[Override], data: Option<&Path>) -> Vec<PathBuf> {
    if let Some(data) = data {
        return vec![data.to_owned()];
    }
    let Ok(mut root) = parse(name, text) else {
        return Vec::new();
    };
    for one in overrides {
        one.apply(&mut root);
    }
    let path = |sink: &String| {
        let node = root
            .get("sinks")
            .and_then(|sinks| sinks.get(sink))
            .and_then(|sink| sink.get("path"));
        PathBuf::from(node.and_then(|path| path.text()).unwrap_or(DATA))
    };
    history_sinks(name, text).iter().map(path).collect()
}

fn history_sinks(name: &str, text: &str) -> Vec<String> {
    let Ok(root) = parse(name, text) else { return Vec::new() };
    let Some(sinks) = root.get("sinks") else {
        return Vec::new();
    };
    let history = sinks
        .entries()
        .iter()
        .filter(|(_, sink)| sink.get("kind").and_then(|k| k.text()) == Some("history"));
    history.map(|(key, _)| key.name.clone()).collect()
}

fn path_of(sink: &str) -> String {
    format!("sinks.{sink}.path")
}
