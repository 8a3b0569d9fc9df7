//! Which columns a record type has. Pure.

use std::sync::Arc;

use arrow_schema::{DataType, Field, Fields};
use thalweg_common::schema::{self, Schema};

use super::super::Malformed;

/// A value and what it becomes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    pub(super) is_nullable: bool,
    pub(super) kind: Kind,
}

/// What a value is.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Kind {
    Number(Number),
    Bool,
    Text,
    /// A `char`: four bytes in the encoding, text in the column.
    Char,
    Bytes,
    /// An enum without fields: the names of its variants.
    Names(Vec<String>),
    Group(Vec<Column>),
    List(Box<Layout>),
    Map(Box<Layout>, Box<Layout>),
}

/// A named value.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) layout: Layout,
    /// The encoding of what it is where a file lacks it.
    pub(super) default: Option<Vec<u8>>,
}

/// Numbers that columns have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
    F32,
    F64,
}

impl Number {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "u8" => Self::U8,
            "u16" => Self::U16,
            "u32" => Self::U32,
            "u64" => Self::U64,
            "i8" => Self::I8,
            "i16" => Self::I16,
            "i32" => Self::I32,
            "i64" => Self::I64,
            "f32" => Self::F32,
            "f64" => Self::F64,
            _ => return None,
        })
    }

    fn data_type(self) -> DataType {
        match self {
            Self::U8 => DataType::UInt8,
            Self::U16 => DataType::UInt16,
            Self::U32 => DataType::UInt32,
            Self::U64 => DataType::UInt64,
            Self::I8 => DataType::Int8,
            Self::I16 => DataType::Int16,
            Self::I32 => DataType::Int32,
            Self::I64 => DataType::Int64,
            Self::F32 => DataType::Float32,
            Self::F64 => DataType::Float64,
        }
    }
}

impl Layout {
    /// The columns of a record type: those of its fields, or a single one called `value` if it has none.
    pub(super) fn of(schema: &Schema) -> Result<Self, Malformed> {
        let layout = layout(schema, "the record")?;
        match (&layout.kind, layout.is_nullable) {
            (Kind::Group(columns), false) if !columns.is_empty() => Ok(layout),
            _ => {
                let column = Column { name: "value".to_owned(), layout, default: None };
                Ok(Self { is_nullable: false, kind: Kind::Group(vec![column]) })
            }
        }
    }

    pub(super) fn arrow_schema(&self) -> arrow_schema::Schema {
        match &self.kind {
            Kind::Group(columns) => arrow_schema::Schema::new(fields(columns)),
            _ => arrow_schema::Schema::empty(),
        }
    }

    pub(super) fn field(&self, name: &str) -> Arc<Field> {
        Arc::new(Field::new(name, self.data_type(), self.is_nullable))
    }

    pub(super) fn data_type(&self) -> DataType {
        match &self.kind {
            Kind::Number(number) => number.data_type(),
            Kind::Bool => DataType::Boolean,
            Kind::Text | Kind::Char | Kind::Names(_) => DataType::Utf8,
            Kind::Bytes => DataType::Binary,
            Kind::Group(columns) => DataType::Struct(fields(columns)),
            Kind::List(item) => DataType::List(item.field("element")),
            Kind::Map(key, value) => DataType::Map(entries(key, value), false),
        }
    }
}

pub(super) fn fields(columns: &[Column]) -> Fields {
    columns.iter().map(|column| column.layout.field(&column.name)).collect()
}

/// The group of keys and values of a map.
pub(super) fn entries(key: &Layout, value: &Layout) -> Arc<Field> {
    let group = DataType::Struct(Fields::from(vec![key.field("key"), value.field("value")]));
    Arc::new(Field::new("key_value", group, false))
}

fn layout(schema: &Schema, place: &str) -> Result<Layout, Malformed> {
    let none = |what: &str| {
        Malformed::new(format_args!(
            "{place} is {what}, for which Parquet has no column; leave it out by a map(), or use another type"
        ))
    };
    let kind = match schema {
        Schema::Primitive(name) => match name.as_str() {
            "bool" => Kind::Bool,
            "string" => Kind::Text,
            "char" => Kind::Char,
            "bytes" => Kind::Bytes,
            other => Kind::Number(Number::of(other).ok_or_else(|| none(other))?),
        },
        Schema::Option(inner) => {
            let inner = layout(inner, place)?;
            if inner.is_nullable {
                return Err(none("an option in an option"));
            }
            return Ok(Layout { is_nullable: true, ..inner });
        }
        Schema::List(item) if **item == Schema::Primitive("u8".into()) => Kind::Bytes,
        Schema::List(item) => Kind::List(Box::new(layout(item, &format!("an element of {place}"))?)),
        Schema::Map(key, value) => {
            let key = layout(key, &format!("a key of {place}"))?;
            if key.is_nullable {
                return Err(none("a map whose keys are options"));
            }
            Kind::Map(Box::new(key), Box::new(layout(value, &format!("a value of {place}"))?))
        }
        Schema::Struct { fields, .. } if fields.is_empty() => return Err(none("without fields")),
        Schema::Struct { fields, .. } => Kind::Group(fields.iter().map(column).collect::<Result<_, _>>()?),
        Schema::Tuple(items) if items.is_empty() => return Err(none("without fields")),
        Schema::Tuple(items) => {
            let named = items
                .iter()
                .enumerate()
                .map(|(place, item)| schema::Field::new(place.to_string(), item.clone()));
            Kind::Group(named.map(|field| column(&field)).collect::<Result<_, _>>()?)
        }
        Schema::Enum { variants, .. } if variants.iter().all(|variant| variant.fields.is_empty()) => {
            Kind::Names(variants.iter().map(|variant| variant.name.clone()).collect())
        }
        Schema::Enum { name, .. } => return Err(none(&format!("`{name}`, an enum with fields"))),
        Schema::Opaque(name) => return Err(none(&format!("`{name}`, whose fields only serde knows"))),
    };
    Ok(Layout { is_nullable: false, kind })
}

fn column(field: &schema::Field) -> Result<Column, Malformed> {
    let layout = layout(&field.schema, &format!("the field `{}`", field.name))?;
    Ok(Column {
        name: field.name.clone(),
        layout,
        default: field.default.as_ref().map(|default| default.0.clone()),
    })
}
