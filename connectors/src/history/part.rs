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
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use taktline_engine::fault;

use super::files::sync_folder;

const ROW_GROUP_ROWS: usize = 1 << 18;
/// Longer texts are no help to a reader that skips files, and the log stays small.
const TEXT_BOUND: usize = 32;

/// A closed, synced part file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
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

/// What the name of a part tells: `part-<checkpoint>-<generation>-<uuid>.parquet`, or `part-<generation>-<uuid>.open`
/// before it is staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartName {
    /// The checkpoint that it was staged for.
    pub checkpoint: Option<u64>,
    /// The generation that wrote it; 0: a run without state.
    pub generation: u64,
}

impl PartName {
    /// Reads a file name; `None` when it is none of ours.
    pub fn parse(name: &str) -> Option<Self> {
        let number = |digits: &str, width| (digits.len() == width).then(|| digits.parse().ok()).flatten();
        let rest = name.strip_prefix("part-")?;
        if let Some(open) = rest.strip_suffix(".open") {
            let (generation, _) = open.split_once('-')?;
            return Some(PartName {
                checkpoint: None,
                generation: number(generation, 8)?,
            });
        }
        let mut fields = rest.strip_suffix(".parquet")?.splitn(3, '-');
        Some(PartName {
            checkpoint: Some(number(fields.next()?, 12)?),
            generation: number(fields.next()?, 8)?,
        })
    }
}

/// Writes the parts of one table, one after the other.
pub(super) struct PartWriter {
    folder: PathBuf,
    generation: u64,
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
    pub fn new(folder: PathBuf, generation: u64, schema: SchemaRef, properties: WriterProperties) -> Self {
        PartWriter {
            folder,
            generation,
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
            none => none.insert(Open::new(
                &self.folder,
                self.generation,
                &self.schema,
                &self.properties,
            )?),
        };
        fault::point("history.write")?;
        open.writer.write(rows)?;
        open.rows += rows.num_rows();
        Ok(())
    }

    /// Closes and syncs the part that is being written, where there is one. It still has to be placed.
    ///
    /// # Errors
    /// The file can't be written or synced.
    pub fn close(&mut self) -> anyhow::Result<Option<Part>> {
        let Some(open) = self.open.take() else { return Ok(None) };
        let metadata = open.writer.close()?;
        fault::point("history.sync")?;
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

    /// Gives closed parts the names that tell their checkpoint, and makes these durable.
    ///
    /// # Errors
    /// A file can't be renamed or the folder not synced.
    pub fn place(&self, parts: &mut [Part], checkpoint: u64) -> anyhow::Result<()> {
        for part in parts.iter_mut() {
            let name = format!(
                "part-{checkpoint:012}-{:08}-{}.parquet",
                self.generation,
                uuid::Uuid::new_v4()
            );
            fault::point("history.rename")?;
            fs::rename(self.folder.join(&part.name), self.folder.join(&name))
                .with_context(|| format!("{} can't become {name}", part.name))?;
            part.name = name;
        }
        fault::point("history.folder")?;
        Ok(sync_folder(&self.folder)?)
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
    fn new(folder: &Path, generation: u64, schema: &SchemaRef, properties: &WriterProperties) -> anyhow::Result<Self> {
        let name = format!("part-{generation:08}-{}.open", uuid::Uuid::new_v4());
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

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let check = |name: &str, expect: Option<(Option<u64>, u64)>| {
            let found = PartName::parse(name).map(|name| (name.checkpoint, name.generation));
            assert_eq!(found, expect, "{name}");
        };
        let uuid = "6f0e7a4c-0b8e-4c39-a4a5-2f2e9f0b5a11";
        check(
            &format!("part-000000000012-00000003-{uuid}.parquet"),
            Some((Some(12), 3)),
        );
        check(&format!("part-00000003-{uuid}.open"), Some((None, 3)));
        check(&format!("part-{uuid}.parquet"), None);
        check("part-00001-6f0e7a4c-c000.snappy.parquet", None);
        check("part-000000000012-00000003.open", None);
        check("orders.parquet", None);
    }
}
