//! What a record type looks like from outside: field names and types, and a fingerprint over them.
//!
//! The plan of a job carries the schema of every edge and every state, so that a mismatch between two builds is found
//! before anything runs. Type names of structs are part of what is shown and not of the fingerprint:
//! moving a type to another module changes nothing.

use serde::{Deserialize, Serialize};

/// The structure of a type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Schema {
    /// A primitive such as `u64`, `f64`, `bool`, `string` or `bytes`.
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
}

impl Field {
    /// A field.
    pub fn new(name: impl Into<String>, schema: Schema) -> Self {
        Self { name: name.into(), schema }
    }
}

/// A variant of an enum.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// Its fields; none for a unit variant.
    pub fields: Vec<Field>,
}

impl Variant {
    /// A variant.
    pub fn new(name: impl Into<String>, fields: Vec<Field>) -> Self {
        Self { name: name.into(), fields }
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
}
