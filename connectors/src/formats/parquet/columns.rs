//! From encoded records to columns: some thousand records are encoded, and then one column after the other takes its values from all of them.
//!
//! Invariant: when columns are taken out, each has a value for every record; a record that cannot be taken apart is one that its own type
//! has not written, and ends the file.

use std::sync::Arc;

use arrow_array::types::{
    ArrowPrimitiveType, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
    UInt16Type, UInt32Type, UInt64Type,
};
use arrow_array::{
    ArrayRef, BinaryArray, BooleanArray, ListArray, MapArray, PrimitiveArray, RecordBatch, StringArray,
    StructArray,
};
use arrow_buffer::{BooleanBufferBuilder, Buffer, NullBuffer, NullBufferBuilder, OffsetBuffer, ScalarBuffer};
use arrow_schema::{FieldRef, Fields, SchemaRef};
use thalweg_common::record::Record;

use super::super::Malformed;
use super::layout::{self, Kind, Layout, Number};

/// The columns of records that come one by one.
pub(super) struct Columns {
    columns: Vec<Builder>,
    /// Records that are not in the columns yet, one behind the other, and where each ends.
    encoded: Vec<u8>,
    ends: Vec<usize>,
}

/// A column that grows.
struct Builder {
    /// Which of its values are null, if any may be.
    validity: Option<NullBufferBuilder>,
    values: Values,
}

enum Values {
    U8(Vec<u8>),
    U16(Vec<u16>),
    U32(Vec<u32>),
    U64(Vec<u64>),
    I8(Vec<i8>),
    I16(Vec<i16>),
    I32(Vec<i32>),
    I64(Vec<i64>),
    F32(Vec<f32>),
    F64(Vec<f64>),
    Bool(BooleanBufferBuilder),
    /// Whether it is UTF-8 is checked for all of them at once, when the column is finished.
    Text(ByteArrays),
    Char(ByteArrays),
    Names(Vec<String>, ByteArrays),
    Bytes(ByteArrays),
    Group {
        fields: Fields,
        columns: Vec<Builder>,
    },
    List {
        field: FieldRef,
        items: Box<Builder>,
        ends: Ends,
    },
    Map {
        field: FieldRef,
        fields: Fields,
        keys: Box<Builder>,
        values: Box<Builder>,
        ends: Ends,
    },
}

/// Bytes of values, one behind the other.
struct ByteArrays {
    bytes: Vec<u8>,
    ends: Ends,
}

/// Where each value of a column ends in what is below it: Arrow's offsets, which begin with 0.
struct Ends(Vec<i32>);

impl Columns {
    pub(super) fn new(layout: &Layout) -> Self {
        let columns = match &layout.kind {
            Kind::Group(columns) => columns.iter().map(|column| Builder::new(&column.layout)).collect(),
            _ => Vec::new(),
        };
        Self { columns, encoded: Vec::new(), ends: Vec::new() }
    }

    pub(super) fn records(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of the records' encodings, which is about what the columns take.
    pub(super) fn bytes(&self) -> usize {
        self.encoded.len()
    }

    /// Adds a record.
    pub(super) fn append(&mut self, record: &impl Record) {
        record.encode(&mut self.encoded);
        self.ends.push(self.encoded.len());
    }

    /// Takes out the columns so far.
    pub(super) fn take(&mut self, schema: &SchemaRef) -> Result<RecordBatch, Malformed> {
        let begins = std::iter::once(&0).chain(&self.ends);
        let records = begins.zip(&self.ends).map(|(begin, end)| self.encoded.get(*begin..*end));
        let mut rests: Vec<&[u8]> = records.map(Option::unwrap_or_default).collect();
        self.columns.iter_mut().try_for_each(|column| column.append_all(&mut rests))?;
        if rests.iter().any(|rest| !rest.is_empty()) {
            return Err(damaged());
        }
        self.encoded.clear();
        self.ends.clear();
        let arrays: Result<Vec<_>, _> = self.columns.iter_mut().map(Builder::finish).collect();
        RecordBatch::try_new(Arc::clone(schema), arrays?).map_err(Malformed::new)
    }
}

/// The same for every kind of number.
macro_rules! numbers {
    ($values:expr, $numbers:ident => $number:expr, $($pattern:pat => $other:expr),+ $(,)?) => {
        match $values {
            Values::U8($numbers) => $number,
            Values::U16($numbers) => $number,
            Values::U32($numbers) => $number,
            Values::U64($numbers) => $number,
            Values::I8($numbers) => $number,
            Values::I16($numbers) => $number,
            Values::I32($numbers) => $number,
            Values::I64($numbers) => $number,
            Values::F32($numbers) => $number,
            Values::F64($numbers) => $number,
            $($pattern => $other),+
        }
    };
}

impl Builder {
    fn new(layout: &Layout) -> Self {
        let values = match &layout.kind {
            Kind::Number(number) => match number {
                Number::U8 => Values::U8(Vec::new()),
                Number::U16 => Values::U16(Vec::new()),
                Number::U32 => Values::U32(Vec::new()),
                Number::U64 => Values::U64(Vec::new()),
                Number::I8 => Values::I8(Vec::new()),
                Number::I16 => Values::I16(Vec::new()),
                Number::I32 => Values::I32(Vec::new()),
                Number::I64 => Values::I64(Vec::new()),
                Number::F32 => Values::F32(Vec::new()),
                Number::F64 => Values::F64(Vec::new()),
            },
            Kind::Bool => Values::Bool(BooleanBufferBuilder::new(0)),
            Kind::Text => Values::Text(ByteArrays::new()),
            Kind::Char => Values::Char(ByteArrays::new()),
            Kind::Names(names) => Values::Names(names.clone(), ByteArrays::new()),
            Kind::Bytes => Values::Bytes(ByteArrays::new()),
            Kind::Group(columns) => Values::Group {
                fields: layout::fields(columns),
                columns: columns.iter().map(|column| Self::new(&column.layout)).collect(),
            },
            Kind::List(item) => Values::List {
                field: item.field("element"),
                items: Box::new(Self::new(item)),
                ends: Ends::new(),
            },
            Kind::Map(key, value) => Values::Map {
                field: layout::entries(key, value),
                fields: Fields::from(vec![key.field("key"), value.field("value")]),
                keys: Box::new(Self::new(key)),
                values: Box::new(Self::new(value)),
                ends: Ends::new(),
            },
        };
        Self { validity: layout.is_nullable.then(|| NullBufferBuilder::new(0)), values }
    }

    /// Takes a value from the front of each of `rests`.
    fn append_all(&mut self, rests: &mut [&[u8]]) -> Result<(), Malformed> {
        let Self { validity, values } = self;
        numbers!(values, numbers => {
                each(validity, rests, numbers, |numbers, rest| {
                    numbers.push(take_number(rest)?);
                    Ok(())
                }, |numbers| numbers.push(Default::default()))
            },
            Values::Text(byte_arrays) | Values::Bytes(byte_arrays) => {
                each(validity, rests, byte_arrays, |byte_arrays, rest| {
                    byte_arrays.push(take_bytes(rest)?)
                }, |byte_arrays| byte_arrays.ends.push_empty())
            },
            others => each(validity, rests, others, Values::append, Values::append_zero),
        )
    }

    /// Takes a value from the front of `rest`.
    fn append(&mut self, rest: &mut &[u8]) -> Result<(), Malformed> {
        let rests = std::slice::from_mut(rest);
        each(&mut self.validity, rests, &mut self.values, Values::append, Values::append_zero)
    }

    /// A value that nobody sees: it is null, or something around it is.
    fn append_hidden(&mut self) {
        if let Some(validity) = &mut self.validity {
            validity.append_null();
        }
        self.values.append_zero();
    }

    fn finish(&mut self) -> Result<ArrayRef, Malformed> {
        let nulls = self.validity.as_mut().and_then(NullBufferBuilder::finish);
        self.values.finish(nulls)
    }
}

impl Values {
    fn append(&mut self, rest: &mut &[u8]) -> Result<(), Malformed> {
        numbers!(self, numbers => numbers.push(take_number(rest)?),
            Self::Bool(bits) => bits.append(take::<1>(rest)? != [0]),
            Self::Char(byte_arrays) => {
                let character = char::from_u32(u32::from_le_bytes(take(rest)?)).ok_or_else(damaged)?;
                byte_arrays.push(character.encode_utf8(&mut [0; 4]).as_bytes())?;
            },
            Self::Names(names, byte_arrays) => {
                let name = names.get(u32::from_le_bytes(take(rest)?) as usize).ok_or_else(damaged)?;
                byte_arrays.push(name.as_bytes())?;
            },
            Self::Text(byte_arrays) | Self::Bytes(byte_arrays) => byte_arrays.push(take_bytes(rest)?)?,
            Self::Group { columns, .. } => columns.iter_mut().try_for_each(|column| column.append(rest))?,
            Self::List { items, ends, .. } => {
                for _ in 0..take_length(rest)? {
                    items.append(rest)?;
                }
                ends.push(items.values.len())?;
            },
            Self::Map { keys, values, ends, .. } => {
                for _ in 0..take_length(rest)? {
                    keys.append(rest)?;
                    values.append(rest)?;
                }
                ends.push(keys.values.len())?;
            },
        );
        Ok(())
    }

    fn append_zero(&mut self) {
        numbers!(self, numbers => numbers.push(Default::default()),
            Self::Bool(bits) => bits.append(false),
            Self::Text(byte_arrays) | Self::Char(byte_arrays) | Self::Names(_, byte_arrays) | Self::Bytes(byte_arrays) => {
                byte_arrays.ends.push_empty();
            },
            Self::Group { columns, .. } => columns.iter_mut().for_each(Builder::append_hidden),
            Self::List { ends, .. } | Self::Map { ends, .. } => ends.push_empty(),
        );
    }

    fn len(&self) -> usize {
        numbers!(self, numbers => numbers.len(),
            Self::Bool(bits) => bits.len(),
            Self::Text(byte_arrays) | Self::Char(byte_arrays) | Self::Names(_, byte_arrays) | Self::Bytes(byte_arrays) => {
                byte_arrays.ends.len()
            },
            // All are as long, and there is no group without any.
            Self::Group { columns, .. } => columns.first().map_or(0, |column| column.values.len()),
            Self::List { ends, .. } | Self::Map { ends, .. } => ends.len(),
        )
    }

    /// Gives the column, and begins the next one. That is about as long: it need not grow step by step.
    fn finish(&mut self, nulls: Option<NullBuffer>) -> Result<ArrayRef, Malformed> {
        match self {
            Self::U8(numbers) => finish_numbers::<UInt8Type>(numbers, nulls),
            Self::U16(numbers) => finish_numbers::<UInt16Type>(numbers, nulls),
            Self::U32(numbers) => finish_numbers::<UInt32Type>(numbers, nulls),
            Self::U64(numbers) => finish_numbers::<UInt64Type>(numbers, nulls),
            Self::I8(numbers) => finish_numbers::<Int8Type>(numbers, nulls),
            Self::I16(numbers) => finish_numbers::<Int16Type>(numbers, nulls),
            Self::I32(numbers) => finish_numbers::<Int32Type>(numbers, nulls),
            Self::I64(numbers) => finish_numbers::<Int64Type>(numbers, nulls),
            Self::F32(numbers) => finish_numbers::<Float32Type>(numbers, nulls),
            Self::F64(numbers) => finish_numbers::<Float64Type>(numbers, nulls),
            Self::Bool(bits) => Ok(Arc::new(BooleanArray::new(bits.finish(), nulls))),
            Self::Text(byte_arrays) | Self::Char(byte_arrays) | Self::Names(_, byte_arrays) => {
                let (ends, bytes) = byte_arrays.finish();
                Ok(Arc::new(StringArray::try_new(ends, bytes, nulls).map_err(|_| damaged())?))
            }
            Self::Bytes(byte_arrays) => {
                let (ends, bytes) = byte_arrays.finish();
                Ok(Arc::new(BinaryArray::try_new(ends, bytes, nulls).map_err(Malformed::new)?))
            }
            Self::Group { fields, columns } => {
                let arrays: Result<Vec<_>, _> = columns.iter_mut().map(Builder::finish).collect();
                let array = StructArray::try_new(fields.clone(), arrays?, nulls);
                Ok(Arc::new(array.map_err(Malformed::new)?))
            }
            Self::List { field, items, ends } => {
                let array = ListArray::try_new(Arc::clone(field), ends.finish(), items.finish()?, nulls);
                Ok(Arc::new(array.map_err(Malformed::new)?))
            }
            Self::Map { field, fields, keys, values, ends } => {
                let entries =
                    StructArray::try_new(fields.clone(), vec![keys.finish()?, values.finish()?], None);
                let entries = entries.map_err(Malformed::new)?;
                let array = MapArray::try_new(Arc::clone(field), ends.finish(), entries, nulls, false);
                Ok(Arc::new(array.map_err(Malformed::new)?))
            }
        }
    }
}

/// Takes a value from the front of each of `rests` that has one, and a zero for what is null.
fn each<V>(
    validity: &mut Option<NullBufferBuilder>,
    rests: &mut [&[u8]],
    values: &mut V,
    append: impl Fn(&mut V, &mut &[u8]) -> Result<(), Malformed>,
    append_zero: impl Fn(&mut V),
) -> Result<(), Malformed> {
    for rest in rests {
        match validity {
            Some(validity) if take::<1>(rest)? == [0] => {
                validity.append_null();
                append_zero(values);
                continue;
            }
            Some(validity) => validity.append_non_null(),
            None => {}
        }
        append(values, rest)?;
    }
    Ok(())
}

fn finish_numbers<T: ArrowPrimitiveType>(
    numbers: &mut Vec<T::Native>,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef, Malformed> {
    let next = Vec::with_capacity(numbers.len());
    let numbers = ScalarBuffer::from(std::mem::replace(numbers, next));
    Ok(Arc::new(PrimitiveArray::<T>::try_new(numbers, nulls).map_err(Malformed::new)?))
}

impl ByteArrays {
    fn new() -> Self {
        Self { bytes: Vec::new(), ends: Ends::new() }
    }

    #[inline]
    fn push(&mut self, value: &[u8]) -> Result<(), Malformed> {
        self.bytes.extend_from_slice(value);
        self.ends.push(self.bytes.len())
    }

    fn finish(&mut self) -> (OffsetBuffer<i32>, Buffer) {
        let next = Vec::with_capacity(self.bytes.len() + self.bytes.len() / 8);
        (self.ends.finish(), Buffer::from(std::mem::replace(&mut self.bytes, next)))
    }
}

impl Ends {
    fn new() -> Self {
        Self(vec![0])
    }

    /// How many values there are.
    fn len(&self) -> usize {
        self.0.len() - 1
    }

    #[inline]
    fn push(&mut self, end: usize) -> Result<(), Malformed> {
        self.0.push(i32::try_from(end).map_err(|_| too_large())?);
        Ok(())
    }

    fn push_empty(&mut self) {
        self.0.push(self.0.last().copied().unwrap_or_default());
    }

    fn finish(&mut self) -> OffsetBuffer<i32> {
        let mut next = Vec::with_capacity(self.0.len());
        next.push(0);
        OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(&mut self.0, next)))
    }
}

#[cold]
fn too_large() -> Malformed {
    Malformed::new("a column of one batch takes more than 2 GiB; let records be smaller")
}

#[cold]
fn damaged() -> Malformed {
    Malformed::new("its encoding does not follow its schema")
}

#[inline]
fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or_else(damaged)?;
    *rest = tail;
    Ok(*head)
}

#[inline]
fn take_number<T: Record>(rest: &mut &[u8]) -> Result<T, Malformed> {
    T::decode(rest).map_err(|_| damaged())
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
