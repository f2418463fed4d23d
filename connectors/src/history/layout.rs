//! Which tables a history keeps, with which columns, and where each input's rows go.

use std::sync::Arc;

use anyhow::Context;
use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use taktline_engine::config::Problem;
use taktline_engine::kind::Input;
use taktline_engine::table;

/// The tables and the way of rows into them.
pub(super) struct Layout {
    pub tables: Vec<TableLayout>,
    /// For each input the tables it feeds.
    pub routes: Vec<Vec<Route>>,
}

/// One table of the history.
pub(super) struct TableLayout {
    pub name: &'static str,
    /// Columns as the Delta log says: plain types, all nullable, so that columns can be added and left out.
    pub stored: SchemaRef,
    /// Columns as they go to the Parquet writer: as stored, except that names stay dictionaries, which are cheaper to
    /// write and the same in the file.
    pub written: SchemaRef,
}

/// From an input into one table.
pub(super) struct Route {
    pub table: usize,
    project: fn(&RecordBatch) -> anyhow::Result<RecordBatch>,
    /// For each column of the table its place in the projected batch.
    columns: Vec<Option<usize>>,
}

impl Layout {
    /// The layout for the inputs of a sink. Tables of the same name have the columns of all inputs that publish them;
    /// an input whose rows another input extends is not written.
    ///
    /// # Errors
    /// Two inputs disagree about a column's type.
    pub fn of(inputs: &[Input]) -> Result<Self, Vec<Problem>> {
        let mut fields: Vec<(&'static str, Vec<Field>)> = Vec::new();
        let mut problems = Vec::new();
        for input in inputs {
            for published in input.table.published.iter().filter(|p| !covered(input, p.name, inputs)) {
                let table = match fields.iter().position(|(name, _)| *name == published.name) {
                    Some(index) => index,
                    None => {
                        fields.push((published.name, Vec::new()));
                        fields.len() - 1
                    }
                };
                let known = &mut fields[table].1;
                for field in published.schema.fields() {
                    if let Err(message) = merge(known, field) {
                        let message = format!("table `{}` from `{}`: {message}", published.name, input.name);
                        problems.push(Problem::at("from", message).hint("write them with two history sinks"));
                    }
                }
            }
        }
        if !problems.is_empty() {
            return Err(problems);
        }
        let tables: Vec<TableLayout> = fields
            .into_iter()
            .map(|(name, fields)| TableLayout::new(name, fields))
            .collect();
        let routes = inputs.iter().map(|input| routes(input, inputs, &tables)).collect();
        Ok(Layout { tables, routes })
    }
}

/// True when the rows of `input` in table `name` also come from another input that extends it.
fn covered(input: &Input, name: &str, inputs: &[Input]) -> bool {
    inputs.iter().any(|other| {
        other.extends.contains(&input.name) && other.table.published.iter().any(|published| published.name == name)
    })
}

fn routes(input: &Input, inputs: &[Input], tables: &[TableLayout]) -> Vec<Route> {
    let mut routes = Vec::new();
    for published in input.table.published.iter().filter(|p| !covered(input, p.name, inputs)) {
        let Some(table) = tables.iter().position(|table| table.name == published.name) else {
            continue;
        };
        let columns = tables[table].stored.fields().iter();
        let columns = columns
            .map(|field| published.schema.index_of(field.name()).ok())
            .collect();
        routes.push(Route {
            table,
            project: published.project,
            columns,
        });
    }
    routes
}

/// Adds `field` to the columns known so far. A name type against plain text becomes plain text.
fn merge(known: &mut Vec<Field>, field: &Field) -> Result<(), String> {
    let Some(old) = known.iter_mut().find(|old| old.name() == field.name()) else {
        known.push(Field::new(field.name(), field.data_type().clone(), true));
        return Ok(());
    };
    if old.data_type() == field.data_type() {
        return Ok(());
    }
    let (one, other) = (stored_type(old.data_type()), stored_type(field.data_type()));
    if one != other {
        return Err(format!(
            "column `{}` is {other} here and {one} in another input",
            field.name()
        ));
    }
    *old = Field::new(field.name(), one, true);
    Ok(())
}

impl TableLayout {
    fn new(name: &'static str, fields: Vec<Field>) -> Self {
        let stored: Fields = fields
            .iter()
            .map(|f| Field::new(f.name(), stored_type(f.data_type()), true))
            .collect();
        let written: Fields = fields
            .iter()
            .zip(&stored)
            .map(|(field, stored)| {
                if *field.data_type() == table::name_type() {
                    Arc::new(field.clone())
                } else {
                    stored.clone()
                }
            })
            .collect();
        TableLayout {
            name,
            stored: Arc::new(Schema::new(stored)),
            written: Arc::new(Schema::new(written)),
        }
    }
}

/// The type in the Delta table: no dictionaries, no unsigned numbers, times in µs UTC.
fn stored_type(of: &DataType) -> DataType {
    match of {
        DataType::Dictionary(_, values) => stored_type(values),
        DataType::UInt64 | DataType::UInt32 | DataType::Duration(_) => DataType::Int64,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt8 => DataType::Int16,
        DataType::Float16 => DataType::Float32,
        DataType::Null | DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => DataType::Binary,
        DataType::Timestamp(_, Some(_)) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            DataType::List(Arc::new(Field::new("element", stored_type(item.data_type()), true)))
        }
        DataType::Struct(fields) => DataType::Struct(
            fields
                .iter()
                .map(|f| Field::new(f.name(), stored_type(f.data_type()), true))
                .collect(),
        ),
        plain => plain.clone(),
    }
}

impl Route {
    /// The rows of a batch as the table's columns.
    ///
    /// # Errors
    /// The projection fails or a column can't be cast.
    pub fn rows(&self, batch: &RecordBatch, written: &SchemaRef) -> anyhow::Result<RecordBatch> {
        let batch = (self.project)(batch)?;
        let columns: anyhow::Result<Vec<ArrayRef>> =
            self.columns
                .iter()
                .zip(written.fields())
                .map(|(column, field)| match column {
                    None => Ok(new_null_array(field.data_type(), batch.num_rows())),
                    Some(index) if batch.column(*index).data_type() == field.data_type() => {
                        Ok(batch.column(*index).clone())
                    }
                    Some(index) => cast(batch.column(*index), field.data_type())
                        .with_context(|| format!("column `{}`", field.name())),
                })
                .collect();
        Ok(RecordBatch::try_new(written.clone(), columns?)?)
    }
}
