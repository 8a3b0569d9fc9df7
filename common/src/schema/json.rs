//! Shows values as JSON and reads them back, with nothing but their schema.
//!
//! Stands in the state tool, which has a savepoint and not the program that wrote it. A struct is an object; a variant is its
//! name, or an object of its name and its fields; an absent value is `null`, and one that is there is itself, or `{"some": ...}`
//! where the value could be `null` too; a map with texts as keys is an object, another one a list of pairs; bytes are hexadecimal
//! digits; numbers that JSON lacks (of 128 bits, not finite) are texts. Invariant: what is shown reads back as the same bytes.
//!
//! ```
//! use thalweg_common::record::Record as _;
//! use thalweg_common::schema::json::{from_json, to_json};
//!
//! let schema = <(String, Option<u64>)>::schema();
//! let mut bytes = Vec::new();
//! ("AMZN".to_string(), Some(7u64)).encode(&mut bytes);
//! let value = to_json(&schema, &mut bytes.as_slice()).unwrap();
//! assert_eq!(value, serde_json::json!(["AMZN", 7]));
//! let mut again = Vec::new();
//! from_json(&schema, &value, &mut again).unwrap();
//! assert_eq!(again, bytes);
//! ```

use serde_json::{Map, Number, Value};

use super::migration::{MigrateError, flag_of, long, number, take};
use super::{Field, Schema, Variant};
use crate::limits::MAX_EMPTY_ELEMENTS;
use crate::record::Record;

/// A value that cannot be shown, or a JSON value that is none of the schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// The bytes are not of the schema.
    #[error(transparent)]
    Damaged(#[from] MigrateError),
    /// Only its own code can read the type.
    #[error("a value of the type `{type_name}` cannot be shown: only its own code can read it")]
    UnknownEncoding {
        /// The type.
        type_name: String,
    },
    /// The JSON value does not fit.
    #[error("{} should be {expected}, and is {found}", if path.is_empty() { "the value" } else { path })]
    Unfit {
        /// Where it stands, as in `legs[2].price`; empty for the value itself.
        path: String,
        /// What the schema says.
        expected: String,
        /// What stands there, shortened.
        found: String,
    },
}

/// Takes one value from the front of `bytes` and shows it.
///
/// # Errors
/// When the bytes are no value of the schema, or nobody else can read its type.
pub fn to_json(schema: &Schema, bytes: &mut &[u8]) -> Result<Value, JsonError> {
    match schema {
        Schema::Primitive(name) => primitive_to_json(name, bytes),
        Schema::Struct { fields, .. } => fields_to_json(fields, bytes),
        Schema::Enum { variants, .. } => {
            let number = number(take(bytes, 4)?);
            let variant = variants.get(number as usize);
            let variant =
                variant.ok_or_else(|| MigrateError::new(format!("there is no variant {number}")))?;
            if variant.fields.is_empty() {
                return Ok(Value::String(variant.name.clone()));
            }
            let fields = fields_to_json(&variant.fields, bytes)?;
            Ok(Value::Object(Map::from_iter([(variant.name.clone(), fields)])))
        }
        Schema::Option(inner) => match (flag_of(take(bytes, 1)?)?, inner.as_ref()) {
            (false, _) => Ok(Value::Null),
            (true, Schema::Option(_)) => {
                let value = to_json(inner, bytes)?;
                Ok(Value::Object(Map::from_iter([(SOME.to_string(), value)])))
            }
            (true, inner) => to_json(inner, bytes),
        },
        Schema::List(element) => {
            let length = take_length(bytes)?;
            (0..length).map(|_| to_json(element, bytes)).collect()
        }
        Schema::Map(key, value) => {
            let length = take_length(bytes)?;
            let mut pairs = Vec::new();
            for _ in 0..length {
                pairs.push((to_json(key, bytes)?, to_json(value, bytes)?));
            }
            Ok(map_to_json(pairs))
        }
        Schema::Tuple(elements) => elements.iter().map(|element| to_json(element, bytes)).collect(),
        Schema::Opaque(_) => Ok(Value::String(to_hexadecimal(take_counted(bytes)?))),
    }
}

/// Appends the encoding of the value that `value` shows. Fields that are missing there get their defaults.
///
/// # Errors
/// When it is no value of the schema: which part, and what should stand there. `out` may then have a part of it.
pub fn from_json(schema: &Schema, value: &Value, out: &mut Vec<u8>) -> Result<(), JsonError> {
    Reader { path: String::new(), out }.value(schema, value)
}

/// The only field of a value that is there where it could be `null` itself.
const SOME: &str = "some";

/// Characters of a JSON value that a message shows.
const SHOWN_CHARACTERS: usize = 60;

fn primitive_to_json(name: &str, bytes: &mut &[u8]) -> Result<Value, JsonError> {
    macro_rules! decoded {
        ($type:ty) => {
            <$type as Record>::decode(bytes).map_err(|error| MigrateError::new(error.to_string()))?
        };
    }
    Ok(match name {
        "u8" => decoded!(u8).into(),
        "u16" => decoded!(u16).into(),
        "u32" => decoded!(u32).into(),
        "u64" => decoded!(u64).into(),
        "i8" => decoded!(i8).into(),
        "i16" => decoded!(i16).into(),
        "i32" => decoded!(i32).into(),
        "i64" => decoded!(i64).into(),
        "u128" => Value::String(decoded!(u128).to_string()),
        "i128" => Value::String(decoded!(i128).to_string()),
        "f32" => {
            let number = decoded!(f32);
            float_to_json(f64::from(number), number.to_bits().into())
        }
        "f64" => {
            let number = decoded!(f64);
            float_to_json(number, number.to_bits())
        }
        "bool" => decoded!(bool).into(),
        "char" => Value::String(decoded!(char).into()),
        "string" => Value::String(decoded!(String)),
        "bytes" => Value::String(to_hexadecimal(take_counted(bytes)?)),
        other => return Err(JsonError::UnknownEncoding { type_name: other.to_string() }),
    })
}

/// Numbers that are not finite are told by their bits, because there are many that are called NaN.
fn float_to_json(number: f64, bits: u64) -> Value {
    Number::from_f64(number).map_or_else(|| Value::String(format!("{number}:{bits:x}")), Value::Number)
}

fn fields_to_json(fields: &[Field], bytes: &mut &[u8]) -> Result<Value, JsonError> {
    let shown = fields.iter().map(|field| Ok((field.name.clone(), to_json(&field.schema, bytes)?)));
    shown.collect::<Result<Map<_, _>, JsonError>>().map(Value::Object)
}

/// An object if all keys are texts, and different ones.
fn map_to_json(pairs: Vec<(Value, Value)>) -> Value {
    let mut object = Map::new();
    for (key, value) in &pairs {
        if let Value::String(key) = key
            && !object.contains_key(key)
        {
            object.insert(key.clone(), value.clone());
        }
    }
    if object.len() == pairs.len() && !pairs.is_empty() {
        return Value::Object(object);
    }
    pairs.into_iter().map(|(key, value)| Value::Array(vec![key, value])).collect()
}

fn take_counted<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], MigrateError> {
    let count = long(take(bytes, 8)?);
    take(bytes, usize::try_from(count).unwrap_or(usize::MAX))
}

/// The length of a list. Its elements may have no bytes, so it is bounded by itself too.
fn take_length(bytes: &mut &[u8]) -> Result<usize, MigrateError> {
    let count = long(take(bytes, 8)?);
    let length = usize::try_from(count).ok().filter(|length| *length <= bytes.len().max(MAX_EMPTY_ELEMENTS));
    length.ok_or_else(|| MigrateError::new(format!("{count} elements announced, {} bytes left", bytes.len())))
}

/// Two digits for each byte.
pub fn to_hexadecimal(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |half: u8| char::from(DIGITS[usize::from(half & 0xf)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// The bytes, unless something else stands there than pairs of hexadecimal digits.
pub fn from_hexadecimal(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let byte = |pair: &[u8; 2]| Some(digit(pair[0])? << 4 | digit(pair[1])?);
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}

struct Reader<'a> {
    path: String,
    out: &'a mut Vec<u8>,
}

impl Reader<'_> {
    fn value(&mut self, schema: &Schema, value: &Value) -> Result<(), JsonError> {
        match (schema, value) {
            (Schema::Primitive(name), value) => self.primitive(name, value),
            (Schema::Struct { name, fields }, Value::Object(object)) => self.fields(name, fields, object),
            (Schema::Enum { variants, .. }, value) => self.variant(schema, variants, value),
            (Schema::Option(_), Value::Null) => {
                self.out.push(0);
                Ok(())
            }
            (Schema::Option(inner), value) => {
                self.out.push(1);
                match (inner.as_ref(), value) {
                    (Schema::Option(_), Value::Object(object)) => match object.get(SOME) {
                        Some(value) if object.len() == 1 => self.value(inner, value),
                        _ => self
                            .unfit(&format!("null or {{\"{SOME}\": ...}}"), &Value::Object(object.clone())),
                    },
                    (Schema::Option(_), other) => self.unfit(&format!("null or {{\"{SOME}\": ...}}"), other),
                    (inner, value) => self.value(inner, value),
                }
            }
            (Schema::List(element), Value::Array(values)) => {
                self.length(values.len());
                self.elements(std::iter::repeat(element.as_ref()), values)
            }
            (Schema::Map(key, value), Value::Object(object)) => {
                self.length(object.len());
                for (name, shown) in object {
                    self.within(&format!(".{name}"), |reader| {
                        reader.value(key, &Value::String(name.clone()))?;
                        reader.value(value, shown)
                    })?;
                }
                Ok(())
            }
            (Schema::Map(key, value), Value::Array(pairs)) => {
                self.length(pairs.len());
                let pair = Schema::Tuple(vec![(**key).clone(), (**value).clone()]);
                self.elements(std::iter::repeat(&pair), pairs)
            }
            (Schema::Tuple(elements), Value::Array(values)) if elements.len() == values.len() => {
                self.elements(elements.iter(), values)
            }
            (Schema::Opaque(_), Value::String(text)) => self.bytes(text),
            (schema, other) => self.unfit(&schema.to_string(), other),
        }
    }

    fn primitive(&mut self, name: &str, value: &Value) -> Result<(), JsonError> {
        macro_rules! number {
            ($type:ty, $as:ident) => {
                match value.$as().and_then(|number| <$type>::try_from(number).ok()) {
                    Some(number) => number.encode(self.out),
                    None => return self.unfit(name, value),
                }
            };
        }
        macro_rules! text {
            ($type:ty) => {
                match value.as_str().and_then(|text| text.parse::<$type>().ok()) {
                    Some(parsed) => parsed.encode(self.out),
                    None => return self.unfit(name, value),
                }
            };
        }
        match name {
            "u8" => number!(u8, as_u64),
            "u16" => number!(u16, as_u64),
            "u32" => number!(u32, as_u64),
            "u64" => number!(u64, as_u64),
            "i8" => number!(i8, as_i64),
            "i16" => number!(i16, as_i64),
            "i32" => number!(i32, as_i64),
            "i64" => number!(i64, as_i64),
            "u128" => text!(u128),
            "i128" => text!(i128),
            "char" => text!(char),
            "f32" => match single_of(value) {
                Some(number) => number.encode(self.out),
                None => return self.unfit(name, value),
            },
            "f64" => match double_of(value) {
                Some(number) => number.encode(self.out),
                None => return self.unfit(name, value),
            },
            "bool" => match value {
                Value::Bool(flag) => flag.encode(self.out),
                _ => return self.unfit(name, value),
            },
            "string" => match value {
                Value::String(text) => text.encode(self.out),
                _ => return self.unfit(name, value),
            },
            "bytes" => return self.bytes(value.as_str().unwrap_or("no text")),
            other => return Err(JsonError::UnknownEncoding { type_name: other.to_string() }),
        }
        Ok(())
    }

    fn fields(&mut self, name: &str, fields: &[Field], object: &Map<String, Value>) -> Result<(), JsonError> {
        if let Some(unknown) = object.keys().find(|key| fields.iter().all(|field| field.name != **key)) {
            let names: Vec<&str> = fields.iter().map(|field| field.name.as_str()).collect();
            return self
                .unfit(&format!("{name} with the fields {}", names.join(", ")), &unknown.clone().into());
        }
        for field in fields {
            self.within(&format!(".{}", field.name), |reader| {
                match (object.get(&field.name), &field.default) {
                    (Some(value), _) => reader.value(&field.schema, value),
                    (None, Some(default)) => {
                        reader.out.extend_from_slice(&default.0);
                        Ok(())
                    }
                    (None, None) => reader.unfit(&field.schema.to_string(), &Value::String("missing".into())),
                }
            })?;
        }
        Ok(())
    }

    fn variant(&mut self, schema: &Schema, variants: &[Variant], value: &Value) -> Result<(), JsonError> {
        let empty = Map::new();
        let named = match value {
            Value::String(name) => Some((name, &empty)),
            Value::Object(object) if object.len() == 1 => {
                object.iter().next().and_then(|(name, fields)| Some((name, fields.as_object()?)))
            }
            _ => None,
        };
        let found = named.and_then(|(name, fields)| {
            let numbered = (0u32..).zip(variants).find(|(_, variant)| variant.name == *name);
            numbered.map(|numbered| (numbered, fields))
        });
        let Some(((number, variant), fields)) = found else {
            let names: Vec<&str> = variants.iter().map(|variant| variant.name.as_str()).collect();
            return self.unfit(&format!("{schema}, one of {}", names.join(", ")), value);
        };
        number.encode(self.out);
        self.within(&format!(".{}", variant.name), |reader| {
            reader.fields(&variant.name, &variant.fields, fields)
        })
    }

    fn elements<'s>(
        &mut self,
        schemas: impl Iterator<Item = &'s Schema>,
        values: &[Value],
    ) -> Result<(), JsonError> {
        for (position, (schema, value)) in schemas.zip(values).enumerate() {
            self.within(&format!("[{position}]"), |reader| reader.value(schema, value))?;
        }
        Ok(())
    }

    fn bytes(&mut self, text: &str) -> Result<(), JsonError> {
        let Some(bytes) = from_hexadecimal(text) else {
            return self.unfit("hexadecimal digits", &Value::String(text.to_string()));
        };
        self.length(bytes.len());
        self.out.extend_from_slice(&bytes);
        Ok(())
    }

    fn length(&mut self, length: usize) {
        (length as u64).encode(self.out);
    }

    fn within<T>(&mut self, segment: &str, inner: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(if length == 0 { segment.trim_start_matches('.') } else { segment });
        let result = inner(self);
        self.path.truncate(length);
        result
    }

    fn unfit<T>(&self, expected: &str, found: &Value) -> Result<T, JsonError> {
        let mut shown: String = found.to_string().chars().take(SHOWN_CHARACTERS).collect();
        if shown.chars().count() == SHOWN_CHARACTERS {
            shown.push_str("...");
        }
        Err(JsonError::Unfit { path: self.path.clone(), expected: expected.to_string(), found: shown })
    }
}

/// The number, also one that is not finite.
fn double_of(value: &Value) -> Option<f64> {
    match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => bits_of(text).map(f64::from_bits),
        _ => None,
    }
}

fn single_of(value: &Value) -> Option<f32> {
    match value {
        Value::Number(number) => {
            number.as_f64().map(|number| number as f32).filter(|number| number.is_finite())
        }
        Value::String(text) => bits_of(text).and_then(|bits| u32::try_from(bits).ok()).map(f32::from_bits),
        _ => None,
    }
}

/// What stands behind the colon of a number that is not finite.
fn bits_of(text: &str) -> Option<u64> {
    text.split_once(':').and_then(|(_, bits)| u64::from_str_radix(bits, 16).ok())
}
