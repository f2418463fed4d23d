//! Before a run goes on: exactly the rows up to its checkpoint are visible.

use std::collections::HashSet;
use std::fs::{self, File};
use std::path::Path;

use anyhow::Context;

use super::name::{Names, Visible};
use super::{Format, Open, Token, parquet, spool};

/// Gives files that went on at the checkpoint their names, with the rows up to it; takes back what later checkpoints published; and
/// removes what nothing needs, so that a run of an older generation finds nothing to publish.
/// Files that got their names already, and only those, may be gone.
pub(super) fn recover(
    names: &Names,
    prefixes: &[&str],
    checkpoint: u64,
    token: &Token,
    is_named: impl Fn(&str) -> bool,
) -> anyhow::Result<()> {
    let mut later = visible(names, prefixes)?;
    later.retain(|(_, file)| file.checkpoint > checkpoint);
    for open in &token.open {
        let found = later
            .iter()
            .find(|(_, file)| file.stem == open.stem)
            .map(|(name, _)| name.as_str());
        // Another format may be written from now on; this file keeps its own.
        let names = &Names {
            format: open.format,
            ..names.clone()
        };
        if found.is_some() || !is_named(&open.file) || names.folder.join(&open.file).exists() {
            close(names, open, checkpoint, found)?;
        }
    }
    for (name, file) in &later {
        tracing::warn!(
            "{}: taken back: checkpoint {} published it, and the run goes on from {checkpoint}",
            names.folder.join(name).display(),
            file.checkpoint
        );
        names.remove(name)?;
    }
    sweep(names, prefixes)?;
    names.sync()
}

fn visible(names: &Names, prefixes: &[&str]) -> anyhow::Result<Vec<(String, Visible)>> {
    let mut found = Vec::new();
    for name in listed(names)? {
        if let Some(file) = prefixes.iter().find_map(|prefix| names.parse(prefix, &name)) {
            found.push((name, file));
        }
    }
    Ok(found)
}

fn listed(names: &Names) -> anyhow::Result<Vec<String>> {
    let place = || format!("folder {}", names.folder.display());
    let entries = fs::read_dir(&names.folder).with_context(place)?;
    let listed = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    listed.collect::<std::io::Result<_>>().with_context(place)
}

/// `later`: the file as a later checkpoint published it.
fn close(names: &Names, open: &Open, checkpoint: u64, later: Option<&str>) -> anyhow::Result<()> {
    let hidden = names.folder.join(&open.file);
    let name = names.visible(&open.prefix, &open.stem, checkpoint);
    if names.folder.join(&name).exists() {
        return names.remove(&open.file);
    }
    if !hidden.exists() {
        let Some(later) = later else {
            anyhow::bail!(
                "{} held rows of checkpoint {checkpoint} and is gone; put it back, or set `path` to where it is; else go on from a savepoint, \
                 or begin anew with --overwrite",
                hidden.display()
            );
        };
        let made = super::Done {
            from: Names::made_of(&open.file),
            name,
            spool: None,
        };
        first_rows(names, &names.folder.join(later), open, &names.folder.join(&made.from))?;
        return names.publish(&[made], |_| false);
    }
    let file = File::options()
        .write(true)
        .open(&hidden)
        .with_context(|| hidden.display().to_string())?;
    let length = file.metadata()?.len();
    anyhow::ensure!(
        open.bytes <= length,
        "{} had {} bytes at checkpoint {checkpoint} and has {length}; put it back, go on from a savepoint, or begin anew with --overwrite",
        hidden.display(),
        open.bytes
    );
    file.set_len(open.bytes)?;
    file.sync_all()
        .with_context(|| format!("fsync of {}", hidden.display()))?;
    names.publish(&[spool::finish(names, open, checkpoint)?], |_| false)
}

/// The rows up to the checkpoint, from a file that got more after it.
fn first_rows(names: &Names, later: &Path, open: &Open, to: &Path) -> anyhow::Result<()> {
    if names.format == Format::Parquet {
        return parquet::first_rows(later, open.rows, to).with_context(|| later.display().to_string());
    }
    fs::copy(later, to).with_context(|| to.display().to_string())?;
    let file = File::options().write(true).open(to)?;
    file.set_len(open.bytes)?;
    file.sync_all().with_context(|| format!("fsync of {}", to.display()))
}

/// Removes hidden files of older generations.
fn sweep(names: &Names, prefixes: &[&str]) -> anyhow::Result<()> {
    let all: HashSet<String> = listed(names)?.into_iter().collect();
    for name in all {
        let generation = prefixes.iter().find_map(|prefix| names.hidden(prefix, &name));
        if generation.is_some_and(|generation| 0 < generation && generation < names.generation) {
            names.remove(&name)?;
        }
    }
    Ok(())
}
