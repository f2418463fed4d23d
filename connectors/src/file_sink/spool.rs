//! A hidden file that rows are appended to.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use arrow::array::RecordBatch;
use arrow::csv::WriterBuilder;
use arrow::datatypes::Schema;
use arrow::ipc::writer::StreamWriter;
use taktline_engine::fault;

use super::name::Names;
use super::{Done, Format, Open, parquet};
use crate::codec::json;

/// An open file. CSV and NDJSON are as they will be seen; for Parquet it is a stream of Arrow batches, which can be cut anywhere.
pub(super) struct Spool {
    path: PathBuf,
    open: Open,
    began: Instant,
    format: Format,
    text: Vec<u8>,
    out: Out,
}

enum Out {
    Text(Counted),
    Arrow(Box<StreamWriter<Counted>>),
}

/// A file that knows how much was written to it.
struct Counted {
    file: BufWriter<File>,
    bytes: u64,
}

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Spool {
    pub(super) fn create(names: &Names, prefix: &str, schema: &Schema) -> anyhow::Result<Self> {
        let (stem, file) = names.begin(prefix);
        let path = names.folder.join(&file);
        let created = fault::point("file.create").and_then(|()| File::create_new(&path));
        let counted = Counted {
            file: BufWriter::with_capacity(64 << 10, created.with_context(|| path.display().to_string())?),
            bytes: 0,
        };
        let out = match names.format {
            Format::Csv | Format::Ndjson => Out::Text(counted),
            Format::Parquet => Out::Arrow(Box::new(StreamWriter::try_new(counted, schema)?)),
        };
        Ok(Spool {
            path,
            open: Open {
                file,
                prefix: prefix.to_owned(),
                stem,
                format: names.format,
                bytes: 0,
                rows: 0,
            },
            began: Instant::now(),
            format: names.format,
            text: Vec::new(),
            out,
        })
    }

    pub(super) fn write(&mut self, rows: &RecordBatch) -> anyhow::Result<()> {
        let place = || self.path.display().to_string();
        fault::point("file.write").with_context(place)?;
        self.text.clear();
        match &mut self.out {
            Out::Arrow(writer) => writer.write(rows).with_context(place)?,
            Out::Text(out) => {
                match self.format {
                    Format::Csv => write_csv(rows, self.open.rows == 0, &mut self.text)?,
                    _ => json::write_rows(rows, &mut self.text)?,
                }
                out.write_all(&self.text).with_context(place)?;
            }
        }
        self.open.rows += rows.num_rows() as u64;
        Ok(())
    }

    pub(super) fn rows(&self) -> u64 {
        self.open.rows
    }

    pub(super) fn bytes(&self) -> u64 {
        match &self.out {
            Out::Text(out) => out.bytes,
            Out::Arrow(writer) => writer.get_ref().bytes,
        }
    }

    pub(super) fn age(&self) -> Duration {
        self.began.elapsed()
    }

    pub(super) fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// Makes what was written durable, and says how much that is.
    pub(super) fn sync(&mut self) -> anyhow::Result<Open> {
        let out = match &mut self.out {
            Out::Text(out) => out,
            Out::Arrow(writer) => writer.get_mut(),
        };
        let synced = out
            .flush()
            .and_then(|()| fault::point("file.sync"))
            .and_then(|()| out.file.get_ref().sync_data());
        synced.with_context(|| format!("fsync of {}", self.path.display()))?;
        self.open.bytes = self.bytes();
        Ok(self.open.clone())
    }

    /// Makes the file that will be seen, durable and still hidden.
    pub(super) fn finish(mut self, names: &Names, checkpoint: u64) -> anyhow::Result<Done> {
        let open = self.sync()?;
        drop(self);
        finish(names, &open, checkpoint)
    }
}

/// Makes of a hidden file that is durable the one that will be seen.
pub(super) fn finish(names: &Names, open: &Open, checkpoint: u64) -> anyhow::Result<Done> {
    let name = names.visible(&open.prefix, &open.stem, checkpoint);
    if names.format != Format::Parquet {
        return Ok(Done {
            from: open.file.clone(),
            name,
            spool: None,
        });
    }
    let from = Names::made_of(&open.file);
    let (spool, made) = (names.folder.join(&open.file), names.folder.join(&from));
    parquet::convert(&spool, &made).with_context(|| made.display().to_string())?;
    Ok(Done {
        from,
        name,
        spool: Some(open.file.clone()),
    })
}

/// Columns that are lists have no form in CSV and are left out.
fn write_csv(rows: &RecordBatch, header: bool, out: &mut Vec<u8>) -> anyhow::Result<()> {
    let fields = rows.schema_ref().fields().iter().enumerate();
    let flat: Vec<usize> = fields
        .filter(|(_, field)| !field.data_type().is_nested())
        .map(|(index, _)| index)
        .collect();
    let rows = json::offset_zones(&rows.project(&flat)?)?;
    WriterBuilder::new().with_header(header).build(out).write(&rows)?;
    Ok(())
}
