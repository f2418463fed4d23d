//! The decoder: a raw batch of any of the source's files to rows.

use std::sync::Arc;

use anyhow::Context;
use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use taktline_engine::{DeadLetters, Decoded, Decoder, table};

use super::FileState;
use super::block::BlockView;
use super::csv::CsvDecoder;
use super::inputs::Opened;
use super::ndjson::NdjsonDecoder;
use crate::rows::Rows;

/// Decodes blocks of one source.
pub(super) struct FileDecoder {
    state: Arc<FileState>,
    csv: CsvDecoder,
    ndjson: NdjsonDecoder,
    dead: DeadLetters,
}

impl FileDecoder {
    pub fn new(state: Arc<FileState>) -> Self {
        FileDecoder {
            csv: CsvDecoder::new(&state.settings),
            ndjson: NdjsonDecoder::new(&state.settings),
            dead: DeadLetters::new(state.settings.source.clone()),
            state,
        }
    }

    /// Decodes one block.
    pub fn decode_block(&mut self, block: BlockView<'_>) -> anyhow::Result<Decoded> {
        let samples = self.rows(block)?;
        Ok(Decoded {
            samples,
            dead_letters: self.dead.finish(),
        })
    }

    fn rows(&mut self, block: BlockView<'_>) -> anyhow::Result<RecordBatch> {
        let input = self
            .state
            .inputs()?
            .get(block.file as usize)
            .context("a file that the source doesn't have")?;
        let mut rows = Rows::default();
        let opened = input.open(&self.state.settings)?;
        if let Opened::Broken(reason) = opened {
            self.dead.push(&input.name, 0, reason, b"");
        } else if let Opened::Parquet(file) = opened {
            return file.decode(block, &input.name, &mut self.dead);
        } else if block.length > block.bytes.len() as u64 {
            let reason = format!("line of {} bytes is longer than max_line", block.length);
            self.dead.push(&input.name, block.offset, reason, block.bytes);
        } else if let Opened::Csv(file) = opened {
            self.csv.decode(file, block, &input.name, &mut rows, &mut self.dead);
        } else {
            self.ndjson
                .decode(&input.stem, block, &input.name, &mut rows, &mut self.dead);
        }
        rows.finish()
    }
}

impl Decoder for FileDecoder {
    fn decode(&mut self, raw: &RecordBatch) -> anyhow::Result<Decoded> {
        let parts = BlockView::of(raw)?
            .into_iter()
            .map(|block| self.rows(block))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let samples = match parts.as_slice() {
            [only] => only.clone(),
            parts => concat_batches(&table::samples().schema, parts)?,
        };
        Ok(Decoded {
            samples,
            dead_letters: self.dead.finish(),
        })
    }
}
