//! Rows as Avro: with the framing and the numbers of a schema registry, or bare.

use std::sync::Arc;

use anyhow::{Context, bail, ensure};
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Float64Array, Int64Array, ListArray, RecordBatch, StringArray,
    StructArray,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Fields, Float64Type, Int64Type, SchemaRef, TimeUnit};
use serde_json::{Value, json};

use super::avro::{AvroSchema, Type};
use super::encode::Encoder;
use super::registry::Registry;
use crate::time::Unit;

/// Where the schema stands that rows are written with.
pub(crate) enum WriteBy {
    /// In a registry, under this subject. The schema is made from the columns where none is given.
    Registry {
        registry: Arc<Registry>,
        subject: String,
        schema: Option<String>,
    },
    /// With the reader; payloads are bare.
    Reader { schema: Option<String> },
}

/// Rows as Avro records of their columns.
pub(crate) struct AvroEncoder {
    /// Name of the record, where the schema is made from the columns.
    name: String,
    write_by: WriteBy,
    /// For batches with these columns.
    ready: Option<(SchemaRef, Ready)>,
    payload: Vec<u8>,
}

struct Ready {
    schema: AvroSchema,
    /// What each payload begins with.
    framing: Vec<u8>,
}

impl AvroEncoder {
    pub(crate) fn new(name: &str, write_by: WriteBy) -> Self {
        AvroEncoder {
            name: sanitized(name),
            write_by,
            ready: None,
            payload: Vec::new(),
        }
    }

    fn ready(&self, columns: &SchemaRef) -> anyhow::Result<Ready> {
        let given = match &self.write_by {
            WriteBy::Registry { schema, .. } | WriteBy::Reader { schema } => schema.as_ref(),
        };
        let json = match given {
            Some(json) => json.clone(),
            None => derived(&self.name, columns.fields())?.to_string(),
        };
        let schema = AvroSchema::parse(&json, &[]).map_err(anyhow::Error::msg)?;
        let framing = match &self.write_by {
            WriteBy::Reader { .. } => Vec::new(),
            WriteBy::Registry { registry, subject, .. } => {
                let id = registry.register(subject, &json)?;
                [&[0], &id.to_be_bytes()[..]].concat()
            }
        };
        Ok(Ready { schema, framing })
    }
}

impl Encoder for AvroEncoder {
    fn encode(
        &mut self,
        batch: &RecordBatch,
        each: &mut dyn FnMut(usize, &[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let ready = match self.ready.take() {
            Some((columns, ready)) if columns == batch.schema() => ready,
            _ => self.ready(batch.schema_ref())?,
        };
        let columns = record(&ready.schema, batch)?;
        for row in 0..batch.num_rows() {
            self.payload.clear();
            self.payload.extend_from_slice(&ready.framing);
            for column in &columns {
                column.write(&ready.schema, row, &mut self.payload)?;
            }
            each(row, &self.payload)?;
        }
        self.ready = Some((batch.schema(), ready));
        Ok(())
    }
}

/// The schema of a record with these columns. Its fields are of the columns' names, with `_` for what Avro's names can't hold.
fn derived(name: &str, fields: &Fields) -> anyhow::Result<Value> {
    let fields = fields.iter().map(|field| {
        let kind = derived_type(&format!("{name}_{}", sanitized(field.name())), field)?;
        Ok(match field.is_nullable() {
            true => json!({"name": sanitized(field.name()), "type": ["null", kind], "default": null}),
            false => json!({"name": sanitized(field.name()), "type": kind}),
        })
    });
    let fields: Vec<Value> = fields.collect::<anyhow::Result<_>>()?;
    Ok(json!({"type": "record", "name": name, "namespace": "taktline", "fields": fields}))
}

fn derived_type(name: &str, field: &Field) -> anyhow::Result<Value> {
    Ok(match field.data_type() {
        DataType::Null => json!("null"),
        DataType::Boolean => json!("boolean"),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::UInt8 | DataType::UInt16 => json!("int"),
        DataType::Int64 | DataType::UInt32 | DataType::UInt64 | DataType::Duration(_) => json!("long"),
        DataType::Float16 | DataType::Float32 | DataType::Float64 => json!("double"),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => json!("string"),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => json!("bytes"),
        DataType::Timestamp(..) => json!({"type": "long", "logicalType": "timestamp-micros"}),
        DataType::Date32 => json!({"type": "int", "logicalType": "date"}),
        DataType::Dictionary(_, values) => derived_type(name, &Field::new(name, (**values).clone(), true))?,
        DataType::List(items) | DataType::LargeList(items) => {
            let kind = derived_type(name, items)?;
            let kind = if items.is_nullable() {
                json!(["null", kind])
            } else {
                kind
            };
            json!({"type": "array", "items": kind})
        }
        DataType::Struct(fields) => derived(name, fields)?,
        other => bail!(
            "column `{}` is of type {other}, which has no form in Avro",
            field.name()
        ),
    })
}

fn sanitized(name: &str) -> String {
    let mut out: String = (name.chars())
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '_' })
        .collect();
    if out.is_empty() || out.starts_with(|c: char| c.is_ascii_digit()) {
        out.insert(0, '_');
    }
    out
}

/// The fields of the schema's record, each with the column of its name.
fn record(schema: &AvroSchema, batch: &RecordBatch) -> anyhow::Result<Vec<Column>> {
    let Type::Record(fields) = &schema.types[schema.root] else {
        bail!("the Avro schema is no record");
    };
    columns(fields, batch.schema_ref().fields(), batch.columns())
}

fn columns(fields: &[(Box<str>, usize)], names: &Fields, arrays: &[ArrayRef]) -> anyhow::Result<Vec<Column>> {
    let column = |(name, at): &(Box<str>, usize)| {
        let index = names.iter().position(|field| *field.name() == **name);
        let index = index.or_else(|| names.iter().position(|field| sanitized(field.name()) == **name));
        let cells = match index {
            Some(index) => Cells::of(&arrays[index]).with_context(|| format!("column `{name}`"))?,
            None => Cells::Absent,
        };
        Ok(Column {
            name: name.clone(),
            at: *at,
            cells,
        })
    };
    fields.iter().map(column).collect()
}

/// A field of a record with the column that it is written from.
struct Column {
    name: Box<str>,
    /// Its type in the schema.
    at: usize,
    cells: Cells,
}

/// A column in one of few forms.
enum Cells {
    /// There is no such column: every row is null.
    Absent,
    Bool(BooleanArray),
    Long(Int64Array),
    /// Times in µs.
    Time(Int64Array),
    Double(Float64Array),
    Text(StringArray),
    Bytes(BinaryArray),
    List(ListArray, Box<Cells>),
    Struct(StructArray),
}

impl Cells {
    fn of(array: &ArrayRef) -> anyhow::Result<Self> {
        let to = |kind: &DataType| cast(array, kind);
        Ok(match array.data_type() {
            DataType::Null => Cells::Absent,
            DataType::Boolean => Cells::Bool(array.as_boolean().clone()),
            DataType::UInt64 => {
                let numbers = array.as_primitive::<arrow::datatypes::UInt64Type>();
                ensure!(
                    numbers.iter().flatten().all(|number| i64::try_from(number).is_ok()),
                    "a number is greater than Avro's long can hold"
                );
                Cells::Long(to(&DataType::Int64)?.as_primitive::<Int64Type>().clone())
            }
            kind if kind.is_integer() || matches!(kind, DataType::Duration(_)) => {
                Cells::Long(to(&DataType::Int64)?.as_primitive::<Int64Type>().clone())
            }
            DataType::Date32 => {
                let days = cast(&to(&DataType::Int32)?, &DataType::Int64)?;
                Cells::Long(days.as_primitive::<Int64Type>().clone())
            }
            DataType::Timestamp(_, zone) => {
                let micros = to(&DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
                Cells::Time(cast(&micros, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
            }
            kind if kind.is_floating() => Cells::Double(to(&DataType::Float64)?.as_primitive::<Float64Type>().clone()),
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => {
                Cells::Text(to(&DataType::Utf8)?.as_string().clone())
            }
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
                Cells::Bytes(to(&DataType::Binary)?.as_binary().clone())
            }
            DataType::Dictionary(_, values) => Cells::of(&cast(array, values)?)?,
            DataType::List(_) => {
                let list = array.as_list::<i32>().clone();
                let items = Cells::of(list.values())?;
                Cells::List(list, Box::new(items))
            }
            DataType::LargeList(items) => Cells::of(&cast(array, &DataType::List(items.clone()))?)?,
            DataType::Struct(_) => Cells::Struct(array.as_struct().clone()),
            other => bail!("the type {other} has no form in Avro"),
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Cells::Absent => true,
            Cells::Bool(array) => array.is_null(row),
            Cells::Long(array) | Cells::Time(array) => array.is_null(row),
            Cells::Double(array) => array.is_null(row),
            Cells::Text(array) => array.is_null(row),
            Cells::Bytes(array) => array.is_null(row),
            Cells::List(array, _) => array.is_null(row),
            Cells::Struct(array) => array.is_null(row),
        }
    }

    /// True when a value of this column can be written as the type.
    fn fits(&self, kind: &Type) -> bool {
        match self {
            Cells::Absent => matches!(kind, Type::Null),
            Cells::Bool(_) => matches!(kind, Type::Boolean),
            Cells::Long(_) => matches!(kind, Type::Long | Type::Date | Type::Double | Type::Float),
            Cells::Time(_) => matches!(kind, Type::Time(_) | Type::Long),
            Cells::Double(_) => matches!(kind, Type::Double | Type::Float),
            Cells::Text(_) => matches!(kind, Type::String | Type::Enum(_) | Type::Bytes),
            Cells::Bytes(_) => matches!(kind, Type::Bytes),
            Cells::List(..) => matches!(kind, Type::Array(_)),
            Cells::Struct(_) => matches!(kind, Type::Record(_)),
        }
    }
}

impl Column {
    fn write(&self, schema: &AvroSchema, row: usize, out: &mut Vec<u8>) -> anyhow::Result<()> {
        write(schema, self.at, &self.cells, row, out).with_context(|| format!("column `{}`, row {row}", self.name))
    }
}

fn write(schema: &AvroSchema, at: usize, cells: &Cells, row: usize, out: &mut Vec<u8>) -> anyhow::Result<()> {
    let kind = &schema.types[at];
    let is_null = cells.is_null(row);
    if let Type::Union(variants) = kind {
        let fits = |variant: &usize| match is_null {
            true => schema.types[*variant] == Type::Null,
            false => cells.fits(&schema.types[*variant]),
        };
        let index = variants.iter().position(fits);
        let index = index.with_context(|| {
            format!(
                "the schema's union has no variant for {}",
                if is_null { "null" } else { "it" }
            )
        })?;
        long(index as i64, out);
        return write(schema, variants[index], cells, row, out);
    }
    if *kind == Type::Null {
        ensure!(is_null, "the schema says null, and there is a value");
        return Ok(());
    }
    ensure!(!is_null, "it is null, and the schema has no null there");
    match (cells, kind) {
        (Cells::Bool(array), Type::Boolean) => out.push(u8::from(array.value(row))),
        (Cells::Long(array), Type::Long | Type::Date) => long(array.value(row), out),
        (Cells::Long(array), Type::Double) => out.extend((array.value(row) as f64).to_le_bytes()),
        (Cells::Long(array), Type::Float) => out.extend((array.value(row) as f32).to_le_bytes()),
        (Cells::Double(array), Type::Double) => out.extend(array.value(row).to_le_bytes()),
        (Cells::Double(array), Type::Float) => out.extend((array.value(row) as f32).to_le_bytes()),
        (Cells::Time(array), Type::Long | Type::Time(Unit::Us)) => long(array.value(row), out),
        (Cells::Time(array), Type::Time(Unit::Ms)) => long(array.value(row).div_euclid(1_000), out),
        (Cells::Time(array), Type::Time(_)) => {
            let nanos = array.value(row).checked_mul(1_000);
            long(nanos.context("the time is out of range for ns")?, out);
        }
        (Cells::Text(array), Type::String | Type::Bytes) => bytes(array.value(row).as_bytes(), out),
        (Cells::Text(array), Type::Enum(symbols)) => {
            let text = array.value(row);
            let index = symbols.iter().position(|symbol| **symbol == *text);
            long(
                index.with_context(|| format!("`{text}` is no symbol of the schema's enum"))? as i64,
                out,
            );
        }
        (Cells::Bytes(array), Type::Bytes) => bytes(array.value(row), out),
        (Cells::List(array, items), Type::Array(of)) => {
            let offsets = array.value_offsets();
            let (start, end) = (offsets[row] as usize, offsets[row + 1] as usize);
            if start < end {
                long((end - start) as i64, out);
                for item in start..end {
                    write(schema, *of, items, item, out)?;
                }
            }
            long(0, out);
        }
        (Cells::Struct(array), Type::Record(fields)) => {
            for column in columns(fields, array.fields(), array.columns())? {
                column.write(schema, row, out)?;
            }
        }
        _ => bail!("it has another type than the schema says"),
    }
    Ok(())
}

fn bytes(text: &[u8], out: &mut Vec<u8>) {
    long(text.len() as i64, out);
    out.extend_from_slice(text);
}

fn long(number: i64, out: &mut Vec<u8>) {
    let mut bits = ((number << 1) ^ (number >> 63)) as u64;
    while bits >= 0x80 {
        out.push(bits as u8 | 0x80);
        bits >>= 7;
    }
    out.push(bits as u8);
}

#[cfg(test)]
#[path = "avro_encode_tests.rs"]
mod tests;
