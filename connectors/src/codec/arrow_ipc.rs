//! Arrow IPC streams: their rows as objects of their columns.
//!
//! The library's reader trusts the lengths and types in a stream and panics where they are wrong, which must not cost more than one
//! payload. So only its access to the metadata, which checks itself, is used, and flat columns are read from there.

use std::borrow::Cow;
use std::collections::HashMap;

use arrow::ipc;

use super::leaf::{Leaf, Object};
use super::query::{Document, Found, Query, Scalar};
use crate::time::Unit;

/// A stream being read, message by message.
pub(crate) struct Stream<'j> {
    rest: &'j [u8],
    columns: Vec<Column>,
    dictionaries: HashMap<i64, Vec<Option<&'j str>>>,
}

/// What the schema says about a column.
#[derive(Clone, Debug)]
struct Column {
    name: String,
    kind: Kind,
    /// Its dictionary, with the type of the indices; `kind` is then that of the dictionary's values.
    dictionary: Option<(i64, Kind)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Null,
    Bool,
    /// Bytes of an integer, and whether it is signed.
    Int(usize, bool),
    Float,
    Double,
    /// Texts with offsets of so many bytes.
    Text(usize),
    Time(Unit),
    /// Days since 1970.
    Date,
}

/// Rows of a stream.
pub(crate) struct Batch<'s, 'j> {
    columns: Vec<Values<'s, 'j>>,
    rows: usize,
}

/// A column of a batch.
struct Values<'s, 'j> {
    name: &'s str,
    /// Of what `data` holds: the values, or the indices into `dictionary`.
    kind: Kind,
    /// A bit for each row; none if all are valid.
    valid: Option<&'j [u8]>,
    data: &'j [u8],
    /// The characters of texts, to which `data` has the offsets.
    text: &'j [u8],
    dictionary: Option<&'s [Option<&'j str>]>,
}

impl<'j> Stream<'j> {
    /// Reads the schema.
    ///
    /// # Errors
    /// The words for a dead letter.
    pub(crate) fn open(payload: &'j [u8]) -> Result<Self, String> {
        if payload.starts_with(b"ARROW1") {
            return Err("this is an Arrow file; a stream is wanted (RecordBatchStreamWriter)".into());
        }
        let mut stream = Stream {
            rest: payload,
            columns: Vec::new(),
            dictionaries: HashMap::new(),
        };
        let (message, _) = stream.message()?.ok_or("not Arrow IPC: there is no schema")?;
        let schema = message
            .header_as_schema()
            .ok_or("not Arrow IPC: it does not begin with a schema")?;
        if schema.endianness() != ipc::Endianness::Little {
            return Err("big-endian Arrow is not read".into());
        }
        for field in schema.fields().ok_or("the Arrow schema has no fields")? {
            stream.columns.push(column(&field)?);
        }
        Ok(stream)
    }

    /// The next rows.
    ///
    /// # Errors
    /// The words for a dead letter.
    pub(crate) fn next(&mut self) -> Result<Option<Batch<'_, 'j>>, String> {
        loop {
            let Some((message, body)) = self.message()? else {
                return Ok(None);
            };
            if let Some(dictionary) = message.header_as_dictionary_batch() {
                self.dictionary(&dictionary, body)?;
            } else if let Some(batch) = message.header_as_record_batch() {
                return batch_of(&self.columns, &self.dictionaries, &batch, body).map(Some);
            } else {
                return Err("an Arrow message is neither rows nor a dictionary".into());
            }
        }
    }

    /// The next message and its body.
    fn message(&mut self) -> Result<Option<(ipc::Message<'j>, &'j [u8])>, String> {
        let cut = || "the Arrow stream is cut off".to_owned();
        if self.rest.is_empty() {
            return Ok(None);
        }
        if let Some(rest) = self.rest.strip_prefix(&[0xff; 4]) {
            self.rest = rest;
        }
        let (length, rest) = self.rest.split_at_checked(4).ok_or_else(cut)?;
        let length = u32::from_le_bytes(length.try_into().map_err(|_| cut())?) as usize;
        self.rest = rest;
        if length == 0 {
            return Ok(None);
        }
        let (head, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        let message = ipc::root_as_message(head).map_err(|e| format!("not Arrow IPC: {e}"))?;
        let body = usize::try_from(message.bodyLength()).map_err(|_| cut())?;
        let (body, rest) = rest.split_at_checked(body).ok_or_else(cut)?;
        self.rest = rest;
        Ok(Some((message, body)))
    }

    fn dictionary(&mut self, dictionary: &ipc::DictionaryBatch<'j>, body: &'j [u8]) -> Result<(), String> {
        let id = dictionary.id();
        let column = self
            .columns
            .iter()
            .find(|column| matches!(column.dictionary, Some((known, _)) if known == id));
        let column = column.ok_or_else(|| format!("no Arrow column has the dictionary {id}"))?;
        let values = Column {
            name: column.name.clone(),
            kind: column.kind,
            dictionary: None,
        };
        let batch = dictionary.data().ok_or("an Arrow dictionary has no values")?;
        let none = HashMap::new();
        let columns = [values];
        let batch = batch_of(&columns, &none, &batch, body)?;
        let values = batch.columns.first().ok_or("an Arrow dictionary has no values")?;
        let texts = (0..batch.rows).map(|row| match values.cell(row)? {
            Scalar::Text(Cow::Borrowed(text)) => Ok(Some(text)),
            _ => Ok(None),
        });
        let texts: Vec<Option<&'j str>> = texts.collect::<Result<_, String>>()?;
        match dictionary.isDelta() {
            true => self.dictionaries.entry(id).or_default().extend(texts),
            false => {
                self.dictionaries.insert(id, texts);
            }
        }
        Ok(())
    }
}

fn column(field: &ipc::Field<'_>) -> Result<Column, String> {
    let name = field.name().unwrap_or_default().to_owned();
    let kind = kind(field).ok_or_else(|| {
        let found = field.type_type().variant_name().unwrap_or("unknown");
        format!(
            "the Arrow column `{}` has the type {found}, which is not read",
            super::short(&name)
        )
    })?;
    let dictionary = match field.dictionary() {
        None => None,
        Some(dictionary) => {
            // Without a word about the indices they are of 32 bits.
            let index = match dictionary.indexType() {
                None => Kind::Int(4, true),
                Some(int) => int_kind(int.bitWidth(), int.is_signed()).ok_or_else(|| {
                    format!(
                        "the Arrow column `{}` has indices of {} bits",
                        super::short(&name),
                        int.bitWidth()
                    )
                })?,
            };
            if !matches!(kind, Kind::Text(_)) {
                return Err(format!(
                    "the Arrow column `{}` has a dictionary of something else than texts",
                    super::short(&name)
                ));
            }
            Some((dictionary.id(), index))
        }
    };
    Ok(Column { name, kind, dictionary })
}

fn int_kind(bits: i32, signed: bool) -> Option<Kind> {
    matches!(bits, 8 | 16 | 32 | 64).then_some(Kind::Int(bits as usize / 8, signed))
}

fn kind(field: &ipc::Field<'_>) -> Option<Kind> {
    Some(match field.type_type() {
        ipc::Type::Null => Kind::Null,
        ipc::Type::Bool => Kind::Bool,
        ipc::Type::Int => {
            let int = field.type_as_int()?;
            int_kind(int.bitWidth(), int.is_signed())?
        }
        ipc::Type::FloatingPoint => match field.type_as_floating_point()?.precision() {
            ipc::Precision::SINGLE => Kind::Float,
            ipc::Precision::DOUBLE => Kind::Double,
            _ => return None,
        },
        ipc::Type::Utf8 => Kind::Text(4),
        ipc::Type::LargeUtf8 => Kind::Text(8),
        ipc::Type::Timestamp => Kind::Time(match field.type_as_timestamp()?.unit() {
            ipc::TimeUnit::SECOND => Unit::S,
            ipc::TimeUnit::MILLISECOND => Unit::Ms,
            ipc::TimeUnit::MICROSECOND => Unit::Us,
            ipc::TimeUnit::NANOSECOND => Unit::Ns,
            _ => return None,
        }),
        ipc::Type::Date => match field.type_as_date()?.unit() {
            ipc::DateUnit::DAY => Kind::Date,
            ipc::DateUnit::MILLISECOND => Kind::Time(Unit::Ms),
            _ => return None,
        },
        _ => return None,
    })
}

impl Kind {
    /// Bytes that so many rows have in the buffer of values.
    fn bytes(self, rows: usize) -> Option<usize> {
        match self {
            Kind::Null => Some(0),
            Kind::Bool => Some(rows.div_ceil(8)),
            Kind::Int(width, _) => rows.checked_mul(width),
            Kind::Float | Kind::Date => rows.checked_mul(4),
            Kind::Double | Kind::Time(_) => rows.checked_mul(8),
            Kind::Text(_) if rows == 0 => Some(0),
            Kind::Text(width) => rows.checked_add(1)?.checked_mul(width),
        }
    }
}

fn batch_of<'s, 'j>(
    columns: &'s [Column],
    dictionaries: &'s HashMap<i64, Vec<Option<&'j str>>>,
    batch: &ipc::RecordBatch<'j>,
    body: &'j [u8],
) -> Result<Batch<'s, 'j>, String> {
    if batch.compression().is_some() {
        return Err("compressed Arrow is not read; let the sender write it without compression".into());
    }
    // Each row has a bit at least, or the payload would be longer than it is.
    let rows = usize::try_from(batch.length())
        .ok()
        .filter(|rows| *rows <= body.len().saturating_mul(8));
    let rows = rows.ok_or_else(|| format!("{} Arrow rows in {} bytes", batch.length(), body.len()))?;
    let (mut nodes, mut buffers) = (
        batch.nodes().into_iter().flatten(),
        batch.buffers().into_iter().flatten(),
    );
    let mut found = Vec::with_capacity(columns.len());
    for column in columns {
        let wrong = |what: &str| format!("the Arrow column `{}` {what}", super::short(&column.name));
        let node = nodes.next().ok_or_else(|| wrong("is absent"))?;
        if node.length() != batch.length() {
            return Err(wrong("is of another length than the rows"));
        }
        let kind = column.dictionary.map_or(column.kind, |(_, index)| index);
        let mut buffer = || -> Option<&'j [u8]> {
            let buffer = buffers.next()?;
            let (offset, length) = (
                usize::try_from(buffer.offset()).ok()?,
                usize::try_from(buffer.length()).ok()?,
            );
            body.get(offset..offset.checked_add(length)?)
        };
        let mut values = Values {
            name: &column.name,
            kind,
            valid: None,
            data: &[],
            text: &[],
            dictionary: None,
        };
        if kind != Kind::Null {
            let valid = buffer().ok_or_else(|| wrong("has a validity outside of the payload"))?;
            values.valid = (node.null_count() != 0).then_some(valid);
            if values.valid.is_some_and(|bits| bits.len() < rows.div_ceil(8)) {
                return Err(wrong("has too short a validity"));
            }
            values.data = buffer().ok_or_else(|| wrong("has values outside of the payload"))?;
            if kind.bytes(rows).is_none_or(|bytes| values.data.len() < bytes) {
                return Err(wrong("has too few values"));
            }
        }
        if matches!(kind, Kind::Text(_)) {
            values.text = buffer().ok_or_else(|| wrong("has texts outside of the payload"))?;
        }
        if let Some((id, _)) = column.dictionary {
            values.dictionary = Some(dictionaries.get(&id).map_or(&[], Vec::as_slice));
        }
        found.push(values);
    }
    Ok(Batch { columns: found, rows })
}

impl<'j> Batch<'_, 'j> {
    /// How many rows there are.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// A row as a document.
    pub(crate) fn row(&self, row: usize) -> Row<'_, 'j> {
        Row {
            columns: &self.columns,
            row,
        }
    }
}

/// A row.
pub(crate) struct Row<'b, 'j> {
    columns: &'b [Values<'b, 'j>],
    row: usize,
}

impl<'j> Document<'j> for Row<'_, 'j> {
    fn find(&self, query: &Query, found: &mut Found<'j>) -> Result<(), String> {
        let mut broken = None;
        let members = self.columns.iter().map(|column| {
            let cell = column.cell(self.row).unwrap_or_else(|reason| {
                broken = Some(reason);
                Scalar::Null
            });
            (column.name, Leaf(cell))
        });
        query.walk(Object::new(members), found).map_err(|e| e.to_string())?;
        broken.map_or(Ok(()), Err)
    }
}

impl<'j> Values<'_, 'j> {
    /// # Errors
    /// The cell points to what isn't there, or is no UTF-8.
    fn cell(&self, row: usize) -> Result<Scalar<'j>, String> {
        let bit = |bits: &[u8]| bits.get(row / 8).is_some_and(|byte| byte & 1 << (row % 8) != 0);
        if self.kind == Kind::Null || self.valid.is_some_and(|bits| !bit(bits)) {
            return Ok(Scalar::Null);
        }
        let wrong = |what: &str| format!("row {row} of the Arrow column `{}` {what}", super::short(self.name));
        if let Some(dictionary) = self.dictionary {
            let index = self.int(row).and_then(|index| usize::try_from(index).ok());
            let text = index.and_then(|index| dictionary.get(index));
            return match text {
                Some(text) => Ok(text.map_or(Scalar::Null, |text| Scalar::Text(text.into()))),
                None => Err(wrong("is not in its dictionary")),
            };
        }
        let scalar = match self.kind {
            Kind::Null => Some(Scalar::Null),
            Kind::Bool => Some(Scalar::Bool(bit(self.data))),
            Kind::Int(..) => self
                .int(row)
                .map(|number| i64::try_from(number).map_or(Scalar::Float(number as f64), Scalar::Int)),
            Kind::Float => self
                .fixed(row)
                .map(|bytes| Scalar::Float(f32::from_le_bytes(bytes).into())),
            Kind::Double => self.fixed(row).map(|bytes| Scalar::Float(f64::from_le_bytes(bytes))),
            Kind::Date => self
                .fixed(row)
                .map(|bytes| Scalar::Time(i64::from(i32::from_le_bytes(bytes)) * 86_400_000_000)),
            Kind::Time(unit) => {
                let micros = self.fixed(row).and_then(|bytes| unit.micros(i64::from_le_bytes(bytes)));
                return micros.map(Scalar::Time).ok_or_else(|| wrong("has a time out of range"));
            }
            Kind::Text(_) => {
                let text = self.text_at(row).ok_or_else(|| wrong("points outside of its texts"))?;
                let text = std::str::from_utf8(text).map_err(|_| wrong("is not UTF-8"))?;
                Some(Scalar::Text(text.into()))
            }
        };
        scalar.ok_or_else(|| wrong("is absent"))
    }

    fn fixed<const WIDTH: usize>(&self, row: usize) -> Option<[u8; WIDTH]> {
        let start = row.checked_mul(WIDTH)?;
        self.data.get(start..start + WIDTH)?.try_into().ok()
    }

    fn int(&self, row: usize) -> Option<i128> {
        Some(match self.kind {
            Kind::Int(1, true) => i8::from_le_bytes(self.fixed(row)?).into(),
            Kind::Int(2, true) => i16::from_le_bytes(self.fixed(row)?).into(),
            Kind::Int(4, true) => i32::from_le_bytes(self.fixed(row)?).into(),
            Kind::Int(_, true) => i64::from_le_bytes(self.fixed(row)?).into(),
            Kind::Int(1, false) => u8::from_le_bytes(self.fixed(row)?).into(),
            Kind::Int(2, false) => u16::from_le_bytes(self.fixed(row)?).into(),
            Kind::Int(4, false) => u32::from_le_bytes(self.fixed(row)?).into(),
            Kind::Int(_, false) => u64::from_le_bytes(self.fixed(row)?).into(),
            _ => return None,
        })
    }

    fn text_at(&self, row: usize) -> Option<&'j [u8]> {
        let offset = |row| match self.kind {
            Kind::Text(4) => usize::try_from(i32::from_le_bytes(self.fixed(row)?)).ok(),
            _ => usize::try_from(i64::from_le_bytes(self.fixed(row)?)).ok(),
        };
        self.text.get(offset(row)?..offset(row + 1)?)
    }
}

#[cfg(test)]
#[path = "arrow_ipc_tests.rs"]
mod tests;
