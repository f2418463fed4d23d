//! Part files: Parquet, written beside the table's other files and invisible until a commit names them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, SchemaRef};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::file::metadata::ParquetMetaData;
use parquet::file::properties::WriterProperties;
use parquet::file::statistics::Statistics;
use serde_json::{Map, Value, json};

const ROW_GROUP_ROWS: usize = 1 << 18;
/// Longer texts are no help to a reader that skips files, and the log stays small.
const TEXT_BOUND: usize = 32;

/// A closed, synced part file.
#[derive(Clone, Debug)]
pub(super) struct Part {
    /// File name inside the table's folder.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// When it was closed, ms since 1970.
    pub modified_ms: i64,
    /// Statistics in Delta's JSON form: rows, bounds, nulls.
    pub stats: String,
}

/// Writes the parts of one table, one after the other.
pub(super) struct PartWriter {
    folder: PathBuf,
    schema: SchemaRef,
    properties: WriterProperties,
    open: Option<Open>,
}

struct Open {
    name: String,
    file: File,
    writer: ArrowWriter<File>,
    rows: usize,
}

/// How parts are encoded: zstd throughout; times as differences, since they hardly repeat.
pub(super) fn properties(schema: &SchemaRef, level: i32) -> anyhow::Result<WriterProperties> {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(level)?))
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_created_by(concat!("taktline ", env!("CARGO_PKG_VERSION")).to_owned());
    for field in schema.fields() {
        if matches!(field.data_type(), DataType::Timestamp(..)) {
            let column = || parquet::schema::types::ColumnPath::from(field.name().as_str());
            properties = properties
                .set_column_dictionary_enabled(column(), false)
                .set_column_encoding(column(), Encoding::DELTA_BINARY_PACKED);
        }
    }
    Ok(properties.build())
}

impl PartWriter {
    pub fn new(folder: PathBuf, schema: SchemaRef, properties: WriterProperties) -> Self {
        PartWriter {
            folder,
            schema,
            properties,
            open: None,
        }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Rows in the part that is being written.
    pub fn rows(&self) -> usize {
        self.open.as_ref().map_or(0, |open| open.rows)
    }

    /// Appends rows; begins a part where none is open.
    ///
    /// # Errors
    /// The file can't be made or written.
    pub fn write(&mut self, rows: &RecordBatch) -> anyhow::Result<()> {
        if rows.num_rows() == 0 {
            return Ok(());
        }
        let open = match &mut self.open {
            Some(open) => open,
            none => none.insert(Open::new(&self.folder, &self.schema, &self.properties)?),
        };
        open.writer.write(rows)?;
        open.rows += rows.num_rows();
        Ok(())
    }

    /// Closes and syncs the part that is being written, where there is one. The folder is still to be synced.
    ///
    /// # Errors
    /// The file can't be written or synced.
    pub fn close(&mut self) -> anyhow::Result<Option<Part>> {
        let Some(open) = self.open.take() else { return Ok(None) };
        let metadata = open.writer.close()?;
        open.file.sync_all()?;
        let size = open.file.metadata()?.len();
        let modified_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |d| d.as_millis() as i64);
        let stats = stats(&self.schema, &metadata).to_string();
        Ok(Some(Part {
            name: open.name,
            size,
            modified_ms,
            stats,
        }))
    }
}

impl Drop for PartWriter {
    fn drop(&mut self) {
        if let Some(open) = &self.open {
            // Best effort: nothing names this file.
            let _ = fs::remove_file(self.folder.join(&open.name));
        }
    }
}

impl Open {
    fn new(folder: &Path, schema: &SchemaRef, properties: &WriterProperties) -> anyhow::Result<Self> {
        let name = format!("part-{}.parquet", uuid::Uuid::new_v4());
        let file = File::create(folder.join(&name)).with_context(|| format!("{name} can't be made"))?;
        // Readers see plain strings: that the writer was fed dictionaries is nobody's business.
        let options = ArrowWriterOptions::new()
            .with_properties(properties.clone())
            .with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(file.try_clone()?, schema.clone(), options)?;
        Ok(Open {
            name,
            file,
            writer,
            rows: 0,
        })
    }
}

/// The bounds that Delta readers skip files by. Floats have none: a NaN is in no bound but matches `> x`.
fn stats(schema: &SchemaRef, metadata: &ParquetMetaData) -> Value {
    let (mut min, mut max, mut nulls) = (Map::new(), Map::new(), Map::new());
    for field in schema.fields() {
        let chunks = metadata.row_groups().iter().flat_map(|group| group.columns());
        let of_field: Option<Vec<&Statistics>> = chunks
            .filter(|chunk| chunk.column_path().parts() == [field.name().as_str()])
            .map(|chunk| chunk.statistics())
            .collect();
        let Some(chunks) = of_field.filter(|chunks| !chunks.is_empty()) else {
            continue;
        };
        if let Some(count) = chunks.iter().map(|chunk| chunk.null_count_opt()).sum::<Option<u64>>() {
            nulls.insert(field.name().clone(), count.into());
        }
        if let Some((lo, hi)) = bounds(field.data_type(), &chunks) {
            min.insert(field.name().clone(), lo);
            max.insert(field.name().clone(), hi);
        }
    }
    let rows = metadata.file_metadata().num_rows();
    json!({"numRecords": rows, "minValues": min, "maxValues": max, "nullCount": nulls})
}

fn bounds(of: &DataType, chunks: &[&Statistics]) -> Option<(Value, Value)> {
    let filled = || chunks.iter().filter(|chunk| chunk.min_bytes_opt().is_some());
    match of {
        DataType::Timestamp(..) | DataType::Int64 => {
            let ints = || {
                filled().filter_map(|chunk| {
                    if let Statistics::Int64(ints) = chunk {
                        Some(ints)
                    } else {
                        None
                    }
                })
            };
            let lo = *ints().filter_map(|ints| ints.min_opt()).min()?;
            let hi = *ints().filter_map(|ints| ints.max_opt()).max()?;
            match of {
                DataType::Int64 => Some((lo.into(), hi.into())),
                _ => Some((time_bound(lo.div_euclid(1000))?, time_bound(hi.div_euclid(1000) + 1)?)),
            }
        }
        DataType::Utf8 | DataType::Dictionary(..) => {
            let texts = |bytes: Option<&[u8]>| {
                bytes
                    .filter(|b| b.len() <= TEXT_BOUND)
                    .and_then(|b| String::from_utf8(b.to_vec()).ok())
            };
            let lo: Option<Vec<String>> = filled().map(|chunk| texts(chunk.min_bytes_opt())).collect();
            let hi: Option<Vec<String>> = filled().map(|chunk| texts(chunk.max_bytes_opt())).collect();
            Some((lo?.into_iter().min()?.into(), hi?.into_iter().max()?.into()))
        }
        _ => None,
    }
}

/// Delta's statistics have milliseconds; bounds are rounded outwards.
fn time_bound(ms: i64) -> Option<Value> {
    jiff::Timestamp::from_millisecond(ms)
        .ok()
        .map(|time| time.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string().into())
}
