//! Parquet, which can't be appended to: made of a stream of Arrow batches, or of the first rows of another file.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::properties::WriterProperties;
use taktline_engine::fault;

const LEVEL: i32 = 3;
const ROW_GROUP_ROWS: usize = 1 << 18;

/// Makes a durable Parquet file of a stream of batches, which may lack its end.
pub(super) fn convert(stream: &Path, to: &Path) -> anyhow::Result<()> {
    let reader = StreamReader::try_new(BufReader::new(File::open(stream)?), None)?;
    write(reader.schema(), reader, to)
}

/// Makes a durable Parquet file of the first rows of another.
pub(super) fn first_rows(from: &Path, rows: u64, to: &Path) -> anyhow::Result<()> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(from)?)?;
    let (schema, rows) = (builder.schema().clone(), usize::try_from(rows)?);
    write(schema, builder.with_limit(rows).build()?, to)
}

fn write(
    schema: SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch, ArrowError>>,
    to: &Path,
) -> anyhow::Result<()> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(LEVEL)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(concat!("taktline ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let mut writer = ArrowWriter::try_new(File::create(to)?, schema, Some(properties))?;
    for batch in batches {
        writer.write(&batch?)?;
    }
    let file = writer.into_inner()?;
    fault::point("file.sync")?;
    file.sync_all()?;
    Ok(())
}
