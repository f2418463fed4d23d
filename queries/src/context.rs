//! The tables of a data directory, and files beside them, as one session.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::Context;
use datafusion::common::TableReference;
use datafusion::datasource::file_format::options::{CsvReadOptions, JsonReadOptions, ParquetReadOptions};
use datafusion::prelude::{SessionConfig, SessionContext};
use deltalake::DeltaTableBuilder;
use url::Url;

/// A session with every Delta table below the data directory `dir`, named by its folder (`samples`, `cycles`, ...), and
/// the `extra` tables: names and Parquet, CSV or NDJSON files, told apart by their ending. Names are lower case.
///
/// Where there are extra tables, `dir` may be absent.
///
/// # Errors
/// There is no history in `dir`, a table or file can't be read, or a name is taken or no name.
pub async fn context(dir: &Path, extra: &[(String, PathBuf)]) -> anyhow::Result<SessionContext> {
    let mut config = SessionConfig::new().with_information_schema(true);
    // Joins on dictionary columns panic with the list form of dynamic filters; so does delta-rs in its own sessions.
    config.options_mut().optimizer.hash_join_inlist_pushdown_max_size = 0;
    config
        .options_mut()
        .optimizer
        .hash_join_inlist_pushdown_max_distinct_values = 0;
    let session = SessionContext::new_with_config(config);
    let tables = delta_tables(dir)?;
    if tables.is_empty() && extra.is_empty() {
        let what = if dir.exists() {
            "has no tables yet"
        } else {
            "does not exist"
        };
        anyhow::bail!(
            "the data directory {} {what}; make a history with `taktline run FILE --data {0}`, or name another with --data",
            dir.display()
        );
    }
    for (name, folder) in tables {
        register_delta(&session, &name, &folder)
            .await
            .with_context(|| format!("table `{name}` in {}", dir.display()))?;
    }
    for (name, file) in extra {
        let named = || format!("--table {name}={}", file.display());
        register_file(&session, name, file).await.with_context(named)?;
    }
    Ok(session)
}

/// Folders with a Delta log that has entries, sorted by name.
fn delta_tables(dir: &Path) -> anyhow::Result<Vec<(String, PathBuf)>> {
    if !dir.exists() {
        return Ok(Vec::new());
    }
    let read = || format!("data directory {}", dir.display());
    let mut tables = Vec::new();
    for entry in fs::read_dir(dir).with_context(read)? {
        let folder = entry.with_context(read)?.path();
        if has_entries(&folder.join("_delta_log"))
            && let Some(name) = folder.file_name().and_then(|name| name.to_str())
        {
            tables.push((name.to_lowercase(), folder));
        }
    }
    tables.sort();
    Ok(tables)
}

/// False also for a log that is just being made.
fn has_entries(log: &Path) -> bool {
    let mut entries = fs::read_dir(log).into_iter().flatten().flatten();
    entries.any(|entry| {
        entry
            .path()
            .extension()
            .is_some_and(|ending| ending == "json" || ending == "parquet")
    })
}

async fn register_delta(session: &SessionContext, name: &str, folder: &Path) -> anyhow::Result<()> {
    let folder = fs::canonicalize(folder)?;
    let url = Url::from_directory_path(&folder).map_err(|()| anyhow::anyhow!("{} is no path", folder.display()))?;
    let table = DeltaTableBuilder::from_url(url)?.load().await?;
    table.update_datafusion_session(&session.state())?;
    session.register_table(TableReference::bare(name), table.table_provider().await?)?;
    Ok(())
}

async fn register_file(session: &SessionContext, name: &str, file: &Path) -> anyhow::Result<()> {
    let is_name = name.chars().all(|c| c.is_alphanumeric() || c == '_') && !name.is_empty();
    anyhow::ensure!(
        is_name && !name.starts_with(char::is_numeric),
        "`{name}` is no table name; use letters, digits and _"
    );
    let table = TableReference::bare(name.to_lowercase());
    anyhow::ensure!(
        !session.table_exist(table.clone())?,
        "there is a table `{name}` already; choose another name"
    );
    let path = fs::canonicalize(file)?;
    anyhow::ensure!(path.is_file(), "is no file");
    let ending = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_owned();
    let dotted = format!(".{ending}");
    // A URL, so that blanks, brackets and question marks in a path are just that.
    let url = Url::from_file_path(&path).map_err(|()| anyhow::anyhow!("is no path"))?;
    match ending.to_lowercase().as_str() {
        "parquet" | "pq" => {
            session
                .register_parquet(table, url, ParquetReadOptions::default().file_extension(&dotted))
                .await?;
        }
        "csv" | "tsv" | "txt" => {
            let options = CsvReadOptions::new()
                .has_header(true)
                .delimiter(delimiter(&path)?)
                .file_extension(&dotted);
            session.register_csv(table, url, options).await?;
        }
        "json" | "ndjson" | "jsonl" => {
            session
                .register_json(table, url, JsonReadOptions::default().file_extension(&dotted))
                .await?;
        }
        _ => anyhow::bail!("ends in none of .parquet, .csv, .tsv, .ndjson, .jsonl, .json"),
    }
    Ok(())
}

/// The delimiter that the header line has most of.
fn delimiter(path: &Path) -> anyhow::Result<u8> {
    let mut header = Vec::new();
    BufReader::new(fs::File::open(path)?).read_until(b'\n', &mut header)?;
    let count = |delimiter: u8| header.iter().filter(|&&byte| byte == delimiter).count();
    Ok([b',', b';', b'\t']
        .into_iter()
        .rev()
        .max_by_key(|&delimiter| count(delimiter))
        .unwrap_or(b','))
}
