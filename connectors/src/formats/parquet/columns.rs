//! From encoded records to columns.
//!
//! Invariant: after each whole record all columns have the same length; a record that cannot be taken apart is one that its own type
//! has not written, and ends the file.

use std::sync::Arc;

use arrow_array::builder::{
    ArrayBuilder as _, BinaryBuilder, BooleanBuilder, NullBufferBuilder, PrimitiveBuilder, StringBuilder,
};
use arrow_array::types::{
    Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow_array::{ArrayRef, BinaryArray, ListArray, MapArray, RecordBatch, StringArray, StructArray};
use arrow_buffer::{OffsetBuffer, ScalarBuffer};
use arrow_schema::{FieldRef, Fields, SchemaRef};

use super::super::Malformed;
use super::layout::{self, Kind, Layout, Number};

/// The columns of records that come one by one.
pub(super) struct Columns {
    columns: Vec<Builder>,
    records: usize,
    bytes: usize,
}

/// A column that grows.
struct Builder {
    is_nullable: bool,
    values: Values,
}

enum Values {
    U8(PrimitiveBuilder<UInt8Type>),
    U16(PrimitiveBuilder<UInt16Type>),
    U32(PrimitiveBuilder<UInt32Type>),
    U64(PrimitiveBuilder<UInt64Type>),
    I8(PrimitiveBuilder<Int8Type>),
    I16(PrimitiveBuilder<Int16Type>),
    I32(PrimitiveBuilder<Int32Type>),
    I64(PrimitiveBuilder<Int64Type>),
    F32(PrimitiveBuilder<Float32Type>),
    F64(PrimitiveBuilder<Float64Type>),
    Bool(BooleanBuilder),
    /// Whether it is UTF-8 is checked for all of them at once, when the column is finished.
    Text(BinaryBuilder),
    Char(StringBuilder),
    Names(Vec<String>, StringBuilder),
    Bytes(BinaryBuilder),
    Group {
        fields: Fields,
        columns: Vec<Builder>,
        validity: NullBufferBuilder,
    },
    List {
        field: FieldRef,
        items: Box<Builder>,
        lengths: Lengths,
    },
    Map {
        field: FieldRef,
        fields: Fields,
        keys: Box<Builder>,
        values: Box<Builder>,
        lengths: Lengths,
    },
}

/// Where the lists of a column end, and which of them are null.
struct Lengths {
    offsets: Vec<i32>,
    validity: NullBufferBuilder,
}

impl Columns {
    pub(super) fn new(layout: &Layout) -> Self {
        let columns = match &layout.kind {
            Kind::Group(columns) => columns.iter().map(|column| Builder::new(&column.layout)).collect(),
            _ => Vec::new(),
        };
        Self { columns, records: 0, bytes: 0 }
    }

    pub(super) fn records(&self) -> usize {
        self.records
    }

    /// Bytes of the records' encodings, which is about what the columns take.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a record by its encoding.
    pub(super) fn append(&mut self, record: &[u8]) -> Result<(), Malformed> {
        let mut rest = record;
        self.columns.iter_mut().try_for_each(|column| column.append(&mut rest))?;
        self.records += 1;
        self.bytes += record.len();
        if rest.is_empty() { Ok(()) } else { Err(damaged()) }
    }

    /// Takes out the columns so far.
    pub(super) fn take(&mut self, schema: &SchemaRef) -> Result<RecordBatch, Malformed> {
        (self.records, self.bytes) = (0, 0);
        let arrays: Result<Vec<_>, _> = self.columns.iter_mut().map(Builder::finish).collect();
        RecordBatch::try_new(Arc::clone(schema), arrays?).map_err(Malformed::new)
    }
}

impl Builder {
    fn new(layout: &Layout) -> Self {
        let values = match &layout.kind {
            Kind::Number(number) => match number {
                Number::U8 => Values::U8(PrimitiveBuilder::new()),
                Number::U16 => Values::U16(PrimitiveBuilder::new()),
                Number::U32 => Values::U32(PrimitiveBuilder::new()),
                Number::U64 => Values::U64(PrimitiveBuilder::new()),
                Number::I8 => Values::I8(PrimitiveBuilder::new()),
                Number::I16 => Values::I16(PrimitiveBuilder::new()),
                Number::I32 => Values::I32(PrimitiveBuilder::new()),
                Number::I64 => Values::I64(PrimitiveBuilder::new()),
                Number::F32 => Values::F32(PrimitiveBuilder::new()),
                Number::F64 => Values::F64(PrimitiveBuilder::new()),
            },
            Kind::Bool => Values::Bool(BooleanBuilder::new()),
            Kind::Text => Values::Text(BinaryBuilder::new()),
            Kind::Char => Values::Char(StringBuilder::new()),
            Kind::Names(names) => Values::Names(names.clone(), StringBuilder::new()),
            Kind::Bytes => Values::Bytes(BinaryBuilder::new()),
            Kind::Group(columns) => Values::Group {
                fields: layout::fields(columns),
                columns: columns.iter().map(|column| Self::new(&column.layout)).collect(),
                validity: NullBufferBuilder::new(0),
            },
            Kind::List(item) => Values::List {
                field: item.field("element"),
                items: Box::new(Self::new(item)),
                lengths: Lengths::new(),
            },
            Kind::Map(key, value) => Values::Map {
                field: layout::entries(key, value),
                fields: Fields::from(vec![key.field("key"), value.field("value")]),
                keys: Box::new(Self::new(key)),
                values: Box::new(Self::new(value)),
                lengths: Lengths::new(),
            },
        };
        Self { is_nullable: layout.is_nullable, values }
    }

    /// Takes a value from the front of `rest`.
    fn append(&mut self, rest: &mut &[u8]) -> Result<(), Malformed> {
        if self.is_nullable && take::<1>(rest)? == [0] {
            self.values.append_null();
            return Ok(());
        }
        self.values.append(rest)
    }

    fn len(&self) -> usize {
        self.values.len()
    }

    fn finish(&mut self) -> Result<ArrayRef, Malformed> {
        self.values.finish()
    }
}

/// The same for the builder of every kind of number.
macro_rules! numbers {
    ($values:expr, $builder:ident => $number:expr, $($pattern:pat => $other:expr),+ $(,)?) => {
        match $values {
            Values::U8($builder) => $number,
            Values::U16($builder) => $number,
            Values::U32($builder) => $number,
            Values::U64($builder) => $number,
            Values::I8($builder) => $number,
            Values::I16($builder) => $number,
            Values::I32($builder) => $number,
            Values::I64($builder) => $number,
            Values::F32($builder) => $number,
            Values::F64($builder) => $number,
            $($pattern => $other),+
        }
    };
}

impl Values {
    fn append(&mut self, rest: &mut &[u8]) -> Result<(), Malformed> {
        match self {
            Self::U8(builder) => builder.append_value(u8::from_le_bytes(take(rest)?)),
            Self::U16(builder) => builder.append_value(u16::from_le_bytes(take(rest)?)),
            Self::U32(builder) => builder.append_value(u32::from_le_bytes(take(rest)?)),
            Self::U64(builder) => builder.append_value(u64::from_le_bytes(take(rest)?)),
            Self::I8(builder) => builder.append_value(i8::from_le_bytes(take(rest)?)),
            Self::I16(builder) => builder.append_value(i16::from_le_bytes(take(rest)?)),
            Self::I32(builder) => builder.append_value(i32::from_le_bytes(take(rest)?)),
            Self::I64(builder) => builder.append_value(i64::from_le_bytes(take(rest)?)),
            Self::F32(builder) => builder.append_value(f32::from_le_bytes(take(rest)?)),
            Self::F64(builder) => builder.append_value(f64::from_le_bytes(take(rest)?)),
            Self::Bool(builder) => builder.append_value(take::<1>(rest)? != [0]),
            Self::Char(builder) => {
                let character = char::from_u32(u32::from_le_bytes(take(rest)?)).ok_or_else(damaged)?;
                builder.append_value(character.encode_utf8(&mut [0; 4]));
            }
            Self::Names(names, builder) => {
                let name = names.get(u32::from_le_bytes(take(rest)?) as usize).ok_or_else(damaged)?;
                builder.append_value(name);
            }
            Self::Text(builder) | Self::Bytes(builder) => builder.append_value(take_bytes(rest)?),
            Self::Group { columns, validity, .. } => {
                columns.iter_mut().try_for_each(|column| column.append(rest))?;
                validity.append_non_null();
            }
            Self::List { items, lengths, .. } => {
                for _ in 0..take_length(rest)? {
                    items.append(rest)?;
                }
                lengths.end(items.len(), true)?;
            }
            Self::Map { keys, values, lengths, .. } => {
                for _ in 0..take_length(rest)? {
                    keys.append(rest)?;
                    values.append(rest)?;
                }
                lengths.end(keys.len(), true)?;
            }
        }
        Ok(())
    }

    fn append_null(&mut self) {
        numbers!(self, builder => builder.append_null(),
            Self::Bool(builder) => builder.append_null(),
            Self::Char(builder) | Self::Names(_, builder) => builder.append_null(),
            Self::Text(builder) | Self::Bytes(builder) => builder.append_null(),
            Self::Group { columns, validity, .. } => {
                columns.iter_mut().for_each(Builder::fill);
                validity.append_null();
            },
            Self::List { lengths, .. } | Self::Map { lengths, .. } => lengths.null(),
        );
    }

    /// A value that nobody sees, because a group around it is null.
    fn append_zero(&mut self) {
        numbers!(self, builder => builder.append_value(Default::default()),
            Self::Bool(builder) => builder.append_value(false),
            Self::Char(builder) | Self::Names(_, builder) => builder.append_value(""),
            Self::Text(builder) | Self::Bytes(builder) => builder.append_value(b""),
            Self::Group { columns, validity, .. } => {
                columns.iter_mut().for_each(Builder::fill);
                validity.append_non_null();
            },
            Self::List { lengths, .. } | Self::Map { lengths, .. } => lengths.empty(),
        );
    }

    fn len(&self) -> usize {
        numbers!(self, builder => builder.len(),
            Self::Bool(builder) => builder.len(),
            Self::Char(builder) | Self::Names(_, builder) => builder.len(),
            Self::Text(builder) | Self::Bytes(builder) => builder.len(),
            Self::Group { validity, .. } => validity.len(),
            Self::List { lengths, .. } | Self::Map { lengths, .. } => lengths.offsets.len() - 1,
        )
    }

    /// Gives the column, and begins the next one. That is about as long: it need not grow step by step.
    fn finish(&mut self) -> Result<ArrayRef, Malformed> {
        Ok(numbers!(self, builder => {
                let next = PrimitiveBuilder::with_capacity(builder.len());
                Arc::new(std::mem::replace(builder, next).finish()) as ArrayRef
            },
            Self::Bool(builder) => Arc::new(builder.finish()),
            Self::Text(builder) => {
                Arc::new(StringArray::try_from_binary(finish_bytes(builder)).map_err(|_| damaged())?)
            },
            Self::Char(builder) | Self::Names(_, builder) => Arc::new(builder.finish()),
            Self::Bytes(builder) => Arc::new(finish_bytes(builder)),
            Self::Group { fields, columns, validity } => {
                let arrays: Result<Vec<_>, _> = columns.iter_mut().map(Builder::finish).collect();
                let array = StructArray::try_new(fields.clone(), arrays?, validity.finish());
                Arc::new(array.map_err(Malformed::new)?)
            },
            Self::List { field, items, lengths } => {
                let (offsets, nulls) = lengths.finish();
                let array = ListArray::try_new(Arc::clone(field), offsets, items.finish()?, nulls);
                Arc::new(array.map_err(Malformed::new)?)
            },
            Self::Map { field, fields, keys, values, lengths } => {
                let (offsets, nulls) = lengths.finish();
                let entries = StructArray::try_new(fields.clone(), vec![keys.finish()?, values.finish()?], None);
                let entries = entries.map_err(Malformed::new)?;
                let array = MapArray::try_new(Arc::clone(field), offsets, entries, nulls, false);
                Arc::new(array.map_err(Malformed::new)?)
            },
        ))
    }
}

fn finish_bytes(builder: &mut BinaryBuilder) -> BinaryArray {
    let (values, bytes) = (builder.len(), builder.values_slice().len());
    let next = BinaryBuilder::with_capacity(values, bytes + bytes / 8);
    std::mem::replace(builder, next).finish()
}

impl Builder {
    fn fill(&mut self) {
        if self.is_nullable { self.values.append_null() } else { self.values.append_zero() }
    }
}

impl Lengths {
    fn new() -> Self {
        Self { offsets: vec![0], validity: NullBufferBuilder::new(0) }
    }

    fn end(&mut self, at: usize, is_valid: bool) -> Result<(), Malformed> {
        let end = i32::try_from(at)
            .map_err(|_| Malformed::new("the lists of one batch have more than 2^31 elements"))?;
        self.offsets.push(end);
        self.validity.append(is_valid);
        Ok(())
    }

    fn null(&mut self) {
        self.offsets.push(self.offsets.last().copied().unwrap_or_default());
        self.validity.append_null();
    }

    fn empty(&mut self) {
        self.offsets.push(self.offsets.last().copied().unwrap_or_default());
        self.validity.append_non_null();
    }

    fn finish(&mut self) -> (OffsetBuffer<i32>, Option<arrow_buffer::NullBuffer>) {
        let offsets = std::mem::replace(&mut self.offsets, vec![0]);
        (OffsetBuffer::new(ScalarBuffer::from(offsets)), self.validity.finish())
    }
}

fn damaged() -> Malformed {
    Malformed::new("its encoding does not follow its schema")
}

#[inline]
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or_else(damaged)?;
    *rest = tail;
    Ok(*head)
}

fn take_length(rest: &mut &[u8]) -> Result<usize, Malformed> {
    usize::try_from(u64::from_le_bytes(take(rest)?)).map_err(|_| damaged())
}

#[inline]
fn take_bytes<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = take_length(rest)?;
    let (head, tail) = rest.split_at_checked(length).ok_or_else(damaged)?;
    *rest = tail;
    Ok(head)
}
