//! One query, read-only.

use std::io::Write;

use anyhow::anyhow;
use datafusion::common::{DataFusionError, SchemaError, TableReference};
use datafusion::config::Dialect;
use datafusion::execution::context::SQLOptions;
use datafusion::prelude::SessionContext;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::Statement as Standard;
use futures::StreamExt;
use taktline_engine::config::Problem;

use crate::format::{Format, RowWriter};

/// Runs `query` and writes its rows to `out`.
///
/// Rows are written as they come in CSV and JSON. A table needs to know its widths first: it holds up to
/// 10,000 rows and says when there are more.
///
/// # Errors
/// The query doesn't parse, names what isn't there, would change something, or fails; `out` can't be written.
pub async fn sql(session: &SessionContext, query: &str, format: Format, out: impl Write) -> anyhow::Result<()> {
    let state = session.state();
    let statement = state.sql_to_statement(query, &Dialect::PostgreSQL).map_err(short)?;
    let reads = match &statement {
        Statement::Explain(_) => true,
        Statement::Statement(standard) => matches!(standard.as_ref(), Standard::Query(_)),
        _ => false,
    };
    if reads {
        known_tables(session, &statement)?;
    }
    let plan = state.statement_to_plan(statement).await.map_err(short)?;
    let reading = SQLOptions::new()
        .with_allow_ddl(false)
        .with_allow_dml(false)
        .with_allow_statements(false);
    reading.verify_plan(&plan).map_err(|error| {
        let error = short(error).to_string();
        let refused = error
            .split_once("not supported: ")
            .map_or(error.as_str(), |(_, name)| name);
        anyhow!("queries only read: {refused} is refused; write SELECT, WITH, SHOW, DESCRIBE or EXPLAIN")
    })?;
    let frame = session.execute_logical_plan(plan).await.map_err(short)?;
    let mut batches = frame.execute_stream().await.map_err(short)?;
    let mut rows = RowWriter::new(format, &batches.schema(), out);
    while let Some(batch) = batches.next().await {
        if !rows.write(&batch.map_err(short)?)? {
            break;
        }
    }
    rows.finish()
}

/// Says at once which table is unknown, and which are known.
fn known_tables(session: &SessionContext, statement: &Statement) -> anyhow::Result<()> {
    let state = session.state();
    for table in state.resolve_table_references(statement).map_err(short)? {
        let TableReference::Bare { table } = &table else {
            continue;
        };
        let is_table = session
            .table_exist(TableReference::bare(table.as_ref()))
            .map_err(short)?;
        if is_table || state.table_functions().contains_key(table.as_ref()) {
            continue;
        }
        let schema = session
            .catalog("datafusion")
            .and_then(|catalog| catalog.schema("public"));
        let mut known = schema.map(|schema| schema.table_names()).unwrap_or_default();
        known.sort();
        anyhow::bail!(
            "there is no table `{table}`{}",
            meant(table, known.iter().map(String::as_str))
        );
    }
    Ok(())
}

/// `; did you mean ...?` for a near name, else `; known: ...`.
fn meant<'a>(wrong: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let hint = Problem::at("", "").did_you_mean(wrong, known).hint;
    hint.map(|hint| format!("; {hint}")).unwrap_or_default()
}

/// DataFusion's error without its layers and without the advice for people who write DataFusion.
fn short(error: DataFusionError) -> anyhow::Error {
    let text = match error.find_root() {
        DataFusionError::SchemaError(schema, _) => match schema.as_ref() {
            SchemaError::FieldNotFound { field, valid_fields } => {
                let mut names: Vec<&str> = valid_fields.iter().map(|column| column.name.as_str()).collect();
                names.dedup();
                format!("there is no column `{}`{}", field.name, meant(&field.name, names))
            }
            other => other.to_string(),
        },
        root => root.strip_backtrace(),
    };
    let text = text.lines().next().unwrap_or_default();
    let text = [
        "Error during planning: ",
        "SQL error: ",
        "This feature is not implemented: ",
        "Arrow error: ",
    ]
    .iter()
    .fold(text, |text, layer| text.strip_prefix(layer).unwrap_or(text));
    let text = text
        .strip_prefix("ParserError(\"")
        .and_then(|text| text.strip_suffix("\")"))
        .unwrap_or(text);
    anyhow!(text.to_owned())
}
