//! The files of a source: found, put in order, opened once and shared by the reader and all decoders.

use std::cmp::Ordering;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use anyhow::Context;

use super::config::{Format, Settings};
use super::csv::CsvFile;
use super::parquet::ParquetFile;

/// A file of a source.
#[derive(Debug)]
pub(super) struct Input {
    pub path: PathBuf,
    /// The path as text: the partition of its dead letters.
    pub name: String,
    /// The file's name without folder and ending.
    pub stem: String,
    pub bytes: u64,
    format: Format,
    opened: OnceLock<Opened>,
}

/// What has been found at the head (Parquet: the foot) of a file.
#[derive(Debug)]
pub(super) enum Opened {
    Empty,
    Csv(CsvFile),
    Ndjson,
    Parquet(Box<ParquetFile>),
    /// Can't be read at all; the whole file is one dead letter with this reason.
    Broken(String),
}

impl Input {
    /// Reads the header if that has not been done.
    ///
    /// # Errors
    /// The file can't be read or doesn't have what the settings name.
    pub fn open(&self, settings: &Settings) -> anyhow::Result<&Opened> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let opened = match self.format {
            _ if self.bytes == 0 => Ok(Opened::Empty),
            Format::Csv => CsvFile::open(settings, &self.path, &self.stem).map(|file| match file {
                Ok(file) => file.map_or(Opened::Empty, Opened::Csv),
                Err(reason) => Opened::Broken(reason),
            }),
            Format::Ndjson => Ok(Opened::Ndjson),
            Format::Parquet => ParquetFile::open(settings, &self.path, &self.stem).map(|file| match file {
                Ok(file) => Opened::Parquet(Box::new(file)),
                Err(reason) => Opened::Broken(reason),
            }),
        };
        let opened = opened.with_context(|| self.name.clone())?;
        Ok(self.opened.get_or_init(|| opened))
    }
}

/// Finds the files.
///
/// # Errors
/// A path or glob matches none, or a file's format can't be told.
pub(super) fn find(settings: &Settings) -> anyhow::Result<Vec<Input>> {
    let mut paths: Vec<PathBuf> = Vec::new();
    for pattern in &settings.paths {
        let before = paths.len();
        // A name with `[` in it is a file first and a glob second.
        if Path::new(pattern).is_file() {
            paths.push(pattern.into());
            continue;
        }
        for path in glob::glob(pattern)? {
            let path = path?;
            if path.is_file() {
                paths.push(path);
            }
        }
        anyhow::ensure!(paths.len() > before, "`path`: there is no file {pattern}");
    }
    paths.sort_by(|a, b| natural_order(&a.to_string_lossy(), &b.to_string_lossy()));
    paths.dedup();
    paths.into_iter().map(|path| input(settings, path)).collect()
}

fn input(settings: &Settings, path: PathBuf) -> anyhow::Result<Input> {
    let name = path.to_string_lossy().into_owned();
    let format = settings.format.or_else(|| format_of(&path));
    let format = format
        .with_context(|| format!("{name}: the ending tells no format; set `format` to csv, parquet or ndjson"))?;
    let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let bytes = path.metadata().with_context(|| name.clone())?.len();
    Ok(Input {
        path,
        name,
        stem,
        bytes,
        format,
        opened: OnceLock::new(),
    })
}

/// By the file's ending.
pub(crate) fn format_of(path: &Path) -> Option<Format> {
    match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
        "csv" | "tsv" | "txt" => Some(Format::Csv),
        "parquet" | "pq" => Some(Format::Parquet),
        "ndjson" | "jsonl" => Some(Format::Ndjson),
        _ => None,
    }
}

/// Compares names so that numbers in them count as numbers: `run-9` before `run-10`.
fn natural_order(a: &str, b: &str) -> Ordering {
    let (mut left, mut right) = (a, b);
    loop {
        let (Some(x), Some(y)) = (left.chars().next(), right.chars().next()) else {
            return left.len().cmp(&right.len()).then_with(|| a.cmp(b));
        };
        let order = if x.is_ascii_digit() && y.is_ascii_digit() {
            let (digits, others) = (take_digits(&mut left), take_digits(&mut right));
            digits.len().cmp(&others.len()).then_with(|| digits.cmp(others))
        } else {
            left = &left[x.len_utf8()..];
            right = &right[y.len_utf8()..];
            x.cmp(&y)
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// Takes a number off the front, without leading zeros.
fn take_digits<'a>(text: &mut &'a str) -> &'a str {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    *text = rest;
    digits.trim_start_matches('0')
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn names_in_natural_order() {
        let mut names = vec!["run-10", "run-9", "run-009", "a", "run-9b", "run-", "b/2", "b/10"];
        names.sort_by(|a, b| natural_order(a, b));
        assert_eq!(
            names,
            ["a", "b/2", "b/10", "run-", "run-009", "run-9", "run-9b", "run-10"]
        );
    }
}
