//! `file`: CSV, Parquet and NDJSON files as a source, long or wide.
//!
//! In the order in which a row passes them:
//!
//! - `config`: the settings. `inputs`: the files they name, in order.
//! - `columns`: the settings applied to one file's header.
//! - `reader`: a thread cuts files into `blocks` (each a `block` of whole lines or a Parquet slice), `paced` if they are
//!   replayed. `marks`: how far each file has been read.
//! - `decode`: a block to rows, by `csv`, `ndjson` or `parquet`; `cell` and the crate's `time` read single fields.

mod block;
mod blocks;
mod cell;
mod columns;
mod config;
mod csv;
mod decode;
mod inputs;
mod marks;
mod ndjson;
mod paced;
mod parquet;
mod reader;
#[cfg(test)]
mod tests;

use std::sync::{Arc, OnceLock};

use serde_json::Value;
use taktline_engine::config::{Problem, Section};
use taktline_engine::kind::SourceKind;
use taktline_engine::{Decoder, Partition, Source, Wake};

use crate::replay::{Pace, Replay};
use crate::time;
pub(crate) use config::Format;
use config::{FileConfig, Settings};
use inputs::Input;
pub(crate) use inputs::format_of;
use marks::Marks;

/// The `file` source.
pub const KIND: SourceKind = SourceKind {
    name: "file",
    summary: "Reads CSV, Parquet and NDJSON files, long or wide, as fast as it can or at the pace of their times.",
    schema: || schemars::schema_for!(FileConfig),
    build,
};

fn build(section: &Section) -> Result<Box<dyn Source>, Vec<Problem>> {
    Ok(Box::new(FileSource::new(Settings::of(section)?)))
}

struct FileSource {
    state: Arc<FileState>,
}

/// What the reading threads and decoders of a source share.
struct FileState {
    settings: Settings,
    inputs: OnceLock<Vec<Input>>,
    pace: Option<Arc<Pace>>,
}

impl FileState {
    /// The source's files in order.
    fn inputs(&self) -> anyhow::Result<&[Input]> {
        if let Some(inputs) = self.inputs.get() {
            return Ok(inputs);
        }
        let found = inputs::find(&self.settings)?;
        Ok(self.inputs.get_or_init(|| found))
    }

    /// True when each file is a partition of its own: a replay of several machines at the pace of their times.
    fn side_by_side(&self) -> bool {
        self.pace.is_some() && self.settings.file_is_machine()
    }
}

impl FileSource {
    fn new(settings: Settings) -> Self {
        let pace = match settings.replay {
            Replay::Max => None,
            Replay::Times(speed) => Some(Arc::new(Pace::new(speed))),
        };
        FileSource {
            state: Arc::new(FileState {
                settings,
                inputs: OnceLock::new(),
                pace,
            }),
        }
    }
}

impl Source for FileSource {
    fn partitions(&self) -> anyhow::Result<Vec<String>> {
        let inputs = self.state.inputs()?;
        if self.state.side_by_side() {
            return Ok(inputs.iter().map(|input| input.name.clone()).collect());
        }
        Ok(vec![self.state.settings.paths.join(", ")])
    }

    fn open(&self, partition: usize, from: Option<&Value>, wake: Wake) -> anyhow::Result<Box<dyn Partition>> {
        let inputs = self.state.inputs()?;
        let files = if self.state.side_by_side() {
            partition..partition + 1
        } else {
            0..inputs.len()
        };
        // All headers before the first row: a wrong setting is told at once, not after an hour.
        for input in inputs.get(files.clone()).unwrap_or_default() {
            input.open(&self.state.settings)?;
        }
        anyhow::ensure!(files.end <= inputs.len(), "there is no partition {partition}");
        let marks = match from {
            Some(offset) => Marks::read(&self.state, files.clone(), offset)?,
            None => Marks::default(),
        };
        let partition = reader::FilePartition::start(self.state.clone(), files, marks, wake)?;
        Ok(Box::new(partition))
    }

    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(decode::FileDecoder::new(self.state.clone()))
    }

    fn bounded(&self) -> bool {
        true
    }

    fn replayable(&self) -> bool {
        true
    }
}
