//! From columns to records: each row becomes the encoding of a record, which its type decodes.
//!
//! Columns are found by their names; one that a file lacks has the default of its field (`#[record(default)]`), or is `None`. Columns
//! that nobody asks for are not read.

use std::ops::Range;
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{Array, ArrayRef, PrimitiveArray};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::file::reader::ChunkReader;
use thalweg_common::record::Record;

use super::super::Malformed;
use super::layout::{Column, Kind, Layout, Number};

/// Rows that are decoded at once.
const ROWS_AT_ONCE: usize = 1_024;

/// What the end of a file says of the rest of it.
#[derive(Debug, Clone)]
pub(crate) struct RowGroups {
    metadata: ArrowReaderMetadata,
    layout: Arc<Layout>,
}

/// A row group and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RowGroup {
    pub(crate) number: usize,
    pub(crate) bytes: Range<u64>,
    pub(crate) rows: u64,
}

/// The records of a row group.
pub(crate) struct Rows {
    batches: ParquetRecordBatchReader,
    layout: Arc<Layout>,
}

impl RowGroups {
    /// Bytes at the end of a file, in which its length stands.
    pub(crate) const TAIL_BYTES: u64 = 8;

    /// How many bytes at the end of a file say what is in it, by its last eight.
    pub(crate) fn footer_bytes(tail: &[u8]) -> Result<u64, Malformed> {
        match tail.last_chunk::<8>() {
            Some([a, b, c, d, b'P', b'A', b'R', b'1']) => {
                Ok(u64::from(u32::from_le_bytes([*a, *b, *c, *d])) + Self::TAIL_BYTES)
            }
            _ => Err(Malformed::new("it is no Parquet file, or it is not complete")),
        }
    }

    /// Reads the end of a file for records of `T`.
    pub(crate) fn load<T: Record>(file: &impl ChunkReader) -> Result<Self, Malformed> {
        let metadata = ArrowReaderMetadata::load(file, ArrowReaderOptions::new()).map_err(Malformed::new)?;
        Ok(Self { metadata, layout: Arc::new(Layout::of(&T::schema())?) })
    }

    /// The row groups that begin in a range of the file.
    pub(crate) fn within(&self, range: &Range<u64>) -> Result<Vec<RowGroup>, Malformed> {
        let mut found = Vec::new();
        for (number, group) in self.metadata.metadata().row_groups().iter().enumerate() {
            let chunks = group.columns().iter().map(|column| column.byte_range());
            let bytes = chunks.map(|(start, length)| start..start.saturating_add(length));
            let Some(bytes) = bytes.reduce(|all, next| all.start.min(next.start)..all.end.max(next.end))
            else {
                continue;
            };
            if range.contains(&bytes.start) {
                let rows = u64::try_from(group.num_rows()).map_err(Malformed::new)?;
                found.push(RowGroup { number, bytes, rows });
            }
        }
        Ok(found)
    }

    /// Begins to read a row group behind so many of its rows.
    pub(crate) fn read(
        &self,
        file: impl ChunkReader + 'static,
        group: usize,
        skip: u64,
    ) -> Result<Rows, Malformed> {
        let builder = ParquetRecordBatchReaderBuilder::new_with_metadata(file, self.metadata.clone());
        let wanted = match &self.layout.kind {
            Kind::Group(columns) => columns.as_slice(),
            _ => &[],
        };
        let known = builder.schema().fields().iter().map(|field| field.name().clone()).enumerate();
        let roots =
            known.filter(|(_, name)| wanted.iter().any(|column| column.name == *name)).map(|(root, _)| root);
        let mask = ProjectionMask::roots(builder.parquet_schema(), roots.collect::<Vec<_>>());
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let builder = builder.with_projection(mask).with_row_groups(vec![group]).with_offset(skip);
        let batches = builder.with_batch_size(ROWS_AT_ONCE).build().map_err(Malformed::new)?;
        Ok(Rows { batches, layout: Arc::clone(&self.layout) })
    }
}

impl Rows {
    /// Gives the records of the next rows, and says whether there were any.
    pub(crate) fn next<T: Record>(&mut self, mut give: impl FnMut(T)) -> Result<bool, Malformed> {
        let Some(batch) = self.batches.next() else { return Ok(false) };
        let batch = batch.map_err(Malformed::new)?;
        let Kind::Group(columns) = &self.layout.kind else { return Ok(false) };
        let views = views(columns, |name| batch.column_by_name(name))?;
        let mut bytes = Vec::new();
        for row in 0..batch.num_rows() {
            bytes.clear();
            views.iter().try_for_each(|view| view.put(row, &mut bytes))?;
            give(T::decode(&mut bytes.as_slice()).map_err(Malformed::new)?);
        }
        Ok(batch.num_rows() > 0)
    }
}

/// A column of a batch, as its values are to be encoded.
struct View<'a> {
    /// Where it is told which values are null, if there may be any.
    nulls: Option<&'a ArrayRef>,
    values: Values<'a>,
}

enum Values<'a> {
    /// The file has no such column: the encoding that all rows have.
    Missing(Vec<u8>),
    U8(&'a PrimitiveArray<UInt8Type>),
    U16(&'a PrimitiveArray<UInt16Type>),
    U32(&'a PrimitiveArray<UInt32Type>),
    U64(&'a PrimitiveArray<UInt64Type>),
    I8(&'a PrimitiveArray<Int8Type>),
    I16(&'a PrimitiveArray<Int16Type>),
    I32(&'a PrimitiveArray<Int32Type>),
    I64(&'a PrimitiveArray<Int64Type>),
    F32(&'a PrimitiveArray<Float32Type>),
    F64(&'a PrimitiveArray<Float64Type>),
    Bool(&'a arrow_array::BooleanArray),
    Text(&'a arrow_array::StringArray),
    Char(&'a arrow_array::StringArray),
    Names(&'a [String], &'a arrow_array::StringArray),
    Bytes(&'a arrow_array::BinaryArray),
    Group(Vec<View<'a>>),
    List(&'a [i32], Box<View<'a>>),
    Map(&'a [i32], Box<View<'a>>, Box<View<'a>>),
}

fn views<'a>(
    columns: &'a [Column],
    find: impl Fn(&str) -> Option<&'a ArrayRef>,
) -> Result<Vec<View<'a>>, Malformed> {
    let view = |column: &'a Column| match find(&column.name) {
        Some(array) => View::new(&column.name, &column.layout, array),
        None => View::missing(column),
    };
    columns.iter().map(view).collect()
}

impl<'a> View<'a> {
    fn missing(column: &Column) -> Result<Self, Malformed> {
        let encoding = match (&column.default, column.layout.is_nullable) {
            (Some(default), _) => default.clone(),
            (None, true) => vec![0],
            (None, false) => {
                return Err(Malformed::new(format_args!(
                    "the file has no column `{}`; make the field an Option, or give it a default by #[record(default)]",
                    column.name
                )));
            }
        };
        Ok(Self { nulls: None, values: Values::Missing(encoding) })
    }

    fn new(name: &str, layout: &'a Layout, array: &'a ArrayRef) -> Result<Self, Malformed> {
        let differs = || {
            Malformed::new(format_args!(
                "the column `{name}` is {} in the file and {} in the record type; let them be the same",
                array.data_type(),
                layout.data_type()
            ))
        };
        let values = match &layout.kind {
            Kind::Number(number) => number_view(*number, array).ok_or_else(differs)?,
            Kind::Bool => Values::Bool(array.as_boolean_opt().ok_or_else(differs)?),
            Kind::Text => Values::Text(array.as_string_opt().ok_or_else(differs)?),
            Kind::Char => Values::Char(array.as_string_opt().ok_or_else(differs)?),
            Kind::Names(names) => Values::Names(names, array.as_string_opt().ok_or_else(differs)?),
            Kind::Bytes => Values::Bytes(array.as_binary_opt().ok_or_else(differs)?),
            Kind::Group(columns) => {
                let group = array.as_struct_opt().ok_or_else(differs)?;
                Values::Group(views(columns, |name| group.column_by_name(name))?)
            }
            Kind::List(item) => {
                let list = array.as_list_opt::<i32>().ok_or_else(differs)?;
                Values::List(list.value_offsets(), Box::new(View::new(name, item, list.values())?))
            }
            Kind::Map(key, value) => {
                let map = array.as_map_opt().ok_or_else(differs)?;
                let (keys, values) =
                    (View::new(name, key, map.keys())?, View::new(name, value, map.values())?);
                Values::Map(map.value_offsets(), Box::new(keys), Box::new(values))
            }
        };
        if array.null_count() > 0 && !layout.is_nullable {
            return Err(Malformed::new(format_args!(
                "the column `{name}` has null values; make the field an Option"
            )));
        }
        Ok(Self { nulls: layout.is_nullable.then_some(array), values })
    }

    /// Appends the encoding of a value.
    fn put(&self, row: usize, out: &mut Vec<u8>) -> Result<(), Malformed> {
        if let Some(array) = self.nulls {
            let is_some = array.is_valid(row);
            out.push(u8::from(is_some));
            if !is_some {
                return Ok(());
            }
        }
        match &self.values {
            Values::Missing(encoding) => out.extend_from_slice(encoding),
            Values::U8(array) => out.push(array.value(row)),
            Values::U16(array) => out.extend_from_slice(&array.value(row).to_le_bytes()),
            Values::U32(array) => out.extend_from_slice(&array.value(row).to_le_bytes()),
            Values::U64(array) => out.extend_from_slice(&array.value(row).to_le_bytes()),
            Values::I8(array) => out.extend_from_slice(&array.value(row).to_le_bytes()),
            Values::I16(array) => out.extend_from_slice(&array.value(row).to_le_bytes()),
            Values::I32(array) => out.extend_from_slice(&array.value(row).to_le_bytes()),
            Values::I64(array) => out.extend_from_slice(&array.value(row).to_le_bytes()),
            Values::F32(array) => out.extend_from_slice(&array.value(row).to_le_bytes()),
            Values::F64(array) => out.extend_from_slice(&array.value(row).to_le_bytes()),
            Values::Bool(array) => out.push(u8::from(array.value(row))),
            Values::Text(array) => put_bytes(array.value(row).as_bytes(), out),
            Values::Bytes(array) => put_bytes(array.value(row), out),
            Values::Char(array) => {
                let mut characters = array.value(row).chars();
                let (Some(character), None) = (characters.next(), characters.next()) else {
                    return Err(Malformed::new("a text that is to be one character has another length"));
                };
                out.extend_from_slice(&u32::from(character).to_le_bytes());
            }
            Values::Names(names, array) => {
                let name = array.value(row);
                let variant =
                    names.iter().position(|known| known == name).and_then(|place| u32::try_from(place).ok());
                let unknown = || Malformed::new(format_args!("`{name}` is none of {}", names.join(", ")));
                out.extend_from_slice(&variant.ok_or_else(unknown)?.to_le_bytes());
            }
            Values::Group(columns) => columns.iter().try_for_each(|column| column.put(row, out))?,
            Values::List(offsets, items) => {
                let range = range(offsets, row);
                put_length(range.len(), out);
                range.into_iter().try_for_each(|row| items.put(row, out))?;
            }
            Values::Map(offsets, keys, values) => {
                let range = range(offsets, row);
                put_length(range.len(), out);
                for row in range {
                    keys.put(row, out)?;
                    values.put(row, out)?;
                }
            }
        }
        Ok(())
    }
}

fn number_view(number: Number, array: &ArrayRef) -> Option<Values<'_>> {
    Some(match number {
        Number::U8 => Values::U8(array.as_primitive_opt()?),
        Number::U16 => Values::U16(array.as_primitive_opt()?),
        Number::U32 => Values::U32(array.as_primitive_opt()?),
        Number::U64 => Values::U64(array.as_primitive_opt()?),
        Number::I8 => Values::I8(array.as_primitive_opt()?),
        Number::I16 => Values::I16(array.as_primitive_opt()?),
        Number::I32 => Values::I32(array.as_primitive_opt()?),
        Number::I64 => Values::I64(array.as_primitive_opt()?),
        Number::F32 => Values::F32(array.as_primitive_opt()?),
        Number::F64 => Values::F64(array.as_primitive_opt()?),
    })
}

fn range(offsets: &[i32], row: usize) -> Range<usize> {
    let at = |place: usize| {
        offsets.get(place).and_then(|offset| usize::try_from(*offset).ok()).unwrap_or_default()
    };
    at(row)..at(row + 1)
}

fn put_length(length: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(&(length as u64).to_le_bytes());
}

fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_length(bytes.len(), out);
    out.extend_from_slice(bytes);
}
