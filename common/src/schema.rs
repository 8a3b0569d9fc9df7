//! What a record type looks like from outside: field names and types, and a fingerprint over them.
//!
//! The plan of a job carries the schema of every edge and every state, so that a mismatch between two builds is found
//! before anything runs. Type names of structs are part of what is shown and not of the fingerprint:
//! moving a type to another module changes nothing. Nor are defaults and former names: they say how older bytes are read,
//! not how these are written.
//!
//! [`compare`](fn@compare) decides whether bytes of an older schema can be read as a newer one, a [`Migration`] rewrites them, and
//! [`json`] shows any value without its type.

pub mod compare;
mod compile;
pub mod json;
pub mod migration;

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub use compare::{Change, Compatibility, Problem, compare};
pub use migration::{MigrateError, Migration};

/// Elements of a tuple that a message names one by one; more of them are an array.
const MAX_SHOWN_ELEMENTS: usize = 8;

/// The structure of a type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schema {
    /// A primitive such as `u64`, `f64`, `bool`, `string` or `bytes` (a count as `u64`, then the bytes). Values of any other
    /// name are known to their own type only.
    Primitive(String),
    /// A struct with its fields in their order.
    Struct {
        /// The Rust name.
        name: String,
        /// In the order of their encoding.
        fields: Vec<Field>,
    },
    /// An enum: the variant's position as `u32`, then its fields.
    Enum {
        /// The Rust name.
        name: String,
        /// In the order of their numbers.
        variants: Vec<Variant>,
    },
    /// A byte that says whether a value follows.
    Option(Box<Schema>),
    /// A count as `u64`, then the elements.
    List(Box<Schema>),
    /// A count as `u64`, then keys and values in turn.
    Map(Box<Schema>, Box<Schema>),
    /// The elements in turn.
    Tuple(Vec<Schema>),
    /// A type that serde writes; its fields are unknown here.
    Opaque(String),
}

/// A field of a struct or variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Its name; a tuple field's is its position.
    pub name: String,
    /// Its type.
    pub schema: Schema,
    /// What it gets in values that were written before it existed: from `#[record(default)]`.
    #[serde(default)]
    pub default: Option<Encoded>,
    /// What it was called before: from `#[record(rename_from = "...")]`.
    #[serde(default)]
    pub former_names: Vec<String>,
}

impl Field {
    /// A field that every value has always had under this name.
    pub fn new(name: impl Into<String>, schema: Schema) -> Self {
        Self { name: name.into(), schema, default: None, former_names: Vec::new() }
    }

    /// The same, with the encoding of what it is where older values lack it.
    #[must_use]
    pub fn with_default(self, encoding: Vec<u8>) -> Self {
        Self { default: Some(Encoded(encoding)), ..self }
    }

    /// The same, with names that it had before.
    #[must_use]
    pub fn with_former_names(self, names: &[&str]) -> Self {
        Self { former_names: names.iter().map(ToString::to_string).collect(), ..self }
    }
}

/// A value in its record encoding. Text formats show it in hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Encoded(pub Vec<u8>);

impl Serialize for Encoded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&json::to_hexadecimal(&self.0))
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Encoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            let bytes = json::from_hexadecimal(&text);
            bytes
                .map(Self)
                .ok_or_else(|| serde::de::Error::custom("an even number of hexadecimal digits expected"))
        } else {
            Vec::deserialize(deserializer).map(Self)
        }
    }
}

/// A variant of an enum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// Its fields; none for a unit variant.
    pub fields: Vec<Field>,
    /// What it was called before: from `#[record(rename_from = "...")]`.
    #[serde(default)]
    pub former_names: Vec<String>,
}

impl Variant {
    /// A variant that has always had this name.
    pub fn new(name: impl Into<String>, fields: Vec<Field>) -> Self {
        Self { name: name.into(), fields, former_names: Vec::new() }
    }

    /// The same, with names that it had before.
    #[must_use]
    pub fn with_former_names(self, names: &[&str]) -> Self {
        Self { former_names: names.iter().map(ToString::to_string).collect(), ..self }
    }
}

impl Schema {
    /// A primitive of this name.
    pub fn primitive(name: &str) -> Self {
        Self::Primitive(name.to_string())
    }

    /// A number that differs when the encoding or a field's name differs.
    pub fn fingerprint(&self) -> u64 {
        let mut text = String::new();
        self.describe(&mut text);
        xxhash_rust::xxh3::xxh3_64(text.as_bytes())
    }

    fn describe(&self, out: &mut String) {
        match self {
            Self::Primitive(name) => out.push_str(name),
            Self::Struct { fields, .. } => describe_fields("struct", fields, out),
            Self::Enum { variants, .. } => {
                out.push_str("enum{");
                for variant in variants {
                    describe_fields(&variant.name, &variant.fields, out);
                    out.push(';');
                }
                out.push('}');
            }
            Self::Option(inner) => describe_all("option", &[inner], out),
            Self::List(inner) => describe_all("list", &[inner], out),
            Self::Map(key, value) => describe_all("map", &[key, value], out),
            Self::Tuple(elements) => describe_all("tuple", &elements.iter().collect::<Vec<_>>(), out),
            Self::Opaque(name) => {
                out.push_str("opaque ");
                out.push_str(name);
            }
        }
    }
}

/// In few words, for messages: `u64`, `list of Trade`.
impl fmt::Display for Schema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primitive(name) | Self::Opaque(name) => f.write_str(name),
            Self::Struct { name, .. } | Self::Enum { name, .. } => f.write_str(name),
            Self::Option(inner) => write!(f, "Option<{inner}>"),
            Self::List(element) => write!(f, "list of {element}"),
            Self::Map(key, value) => write!(f, "map from {key} to {value}"),
            Self::Tuple(elements) if elements.len() > MAX_SHOWN_ELEMENTS => {
                write!(f, "tuple of {} elements", elements.len())
            }
            Self::Tuple(elements) => {
                f.write_str("(")?;
                for (position, element) in elements.iter().enumerate() {
                    f.write_str(if position == 0 { "" } else { ", " })?;
                    write!(f, "{element}")?;
                }
                f.write_str(")")
            }
        }
    }
}

fn describe_fields(head: &str, fields: &[Field], out: &mut String) {
    out.push_str(head);
    out.push('{');
    for field in fields {
        out.push_str(&field.name);
        out.push(':');
        field.schema.describe(out);
        out.push(',');
    }
    out.push('}');
}

fn describe_all<S: AsRef<Schema>>(head: &str, elements: &[S], out: &mut String) {
    out.push_str(head);
    out.push('<');
    for element in elements {
        element.as_ref().describe(out);
        out.push(',');
    }
    out.push('>');
}

impl AsRef<Schema> for Schema {
    fn as_ref(&self) -> &Schema {
        self
    }
}

#[cfg(test)]
#[path = "schema/migration_tests.rs"]
mod migration_tests;

#[cfg(test)]
mod tests {
    use super::*;

    fn point(name: &str, second: &str) -> Schema {
        let fields =
            vec![Field::new("x", Schema::primitive("u64")), Field::new(second, Schema::primitive("u64"))];
        Schema::Struct { name: name.into(), fields }
    }

    #[test]
    fn fingerprint_follows_fields_and_not_the_type_name() {
        assert_eq!(point("Point", "y").fingerprint(), point("Place", "y").fingerprint());
        assert_ne!(point("Point", "y").fingerprint(), point("Point", "z").fingerprint());
        let list = Schema::List(Box::new(Schema::primitive("u64")));
        assert_ne!(list.fingerprint(), Schema::Option(Box::new(Schema::primitive("u64"))).fingerprint());
    }

    #[test]
    fn defaults_and_former_names_do_not_change_the_fingerprint() {
        let field = Field::new("x", Schema::primitive("u64")).with_default(vec![0; 8]);
        let variant =
            Variant::new("A", vec![field.clone().with_former_names(&["z"])]).with_former_names(&["B"]);
        let of = |variant| Schema::Enum { name: "E".into(), variants: vec![variant] }.fingerprint();
        let plain = Variant::new("A", vec![Field::new("x", Schema::primitive("u64"))]);
        assert_eq!(of(variant), of(plain));

        let text = serde_json::to_string(&field).expect("encodes");
        assert!(text.contains(r#""default":"0000000000000000""#), "{text}");
        assert_eq!(serde_json::from_str::<Field>(&text).expect("decodes"), field);
        let bytes = crate::codec::to_bytes(&field).expect("encodes");
        assert_eq!(crate::codec::from_bytes::<Field>(&bytes).expect("decodes"), field);
        let old: Field =
            serde_json::from_str(r#"{"name":"x","schema":{"primitive":"u64"}}"#).expect("decodes");
        assert_eq!(old, Field::new("x", Schema::primitive("u64")));
    }

    #[test]
    fn messages_name_a_type_in_few_words() {
        let number = || Box::new(Schema::primitive("u8"));
        let table = [
            (point("Point", "y"), "Point"),
            (Schema::List(number()), "list of u8"),
            (Schema::Map(Box::new(Schema::primitive("string")), number()), "map from string to u8"),
            (Schema::Option(number()), "Option<u8>"),
            (Schema::Tuple(vec![*number(), *number()]), "(u8, u8)"),
            (Schema::Tuple(vec![*number(); 100]), "tuple of 100 elements"),
        ];
        for (schema, text) in table {
            assert_eq!(schema.to_string(), text);
        }
    }
}
