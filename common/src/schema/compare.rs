//! Whether values of an older schema can be read as those of a newer one, and what stands in the way.
//!
//! Stands before anything of a job is stopped: an upgrade compares the schemas of the state it finds with those that the new
//! program declares. Pure. Invariant: what is called migratable is exactly what a [`Migration`](super::Migration) can do, because both
//! come from the same walk over the two schemas.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Schema;
use super::compile::compile;

/// What becomes of values of an older schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "compatibility", content = "details")]
pub enum Compatibility {
    /// They are read as they are.
    Same,
    /// They are rewritten, with these changes.
    Migratable(Vec<Change>),
    /// They cannot be read.
    Incompatible(Vec<Problem>),
}

/// Compares the schema of stored values with the one that a program declares.
///
/// ```
/// use thalweg_common::schema::{Compatibility, compare};
/// use thalweg_common::{Record, record::Record as _};
///
/// mod before {
///     # use thalweg_common::Record;
///     #[derive(Record, Clone)]
///     # #[record(crate = thalweg_common)]
///     pub struct Trade { ticker: String, volume: u32 }
/// }
/// #[derive(Record, Clone)]
/// # #[record(crate = thalweg_common)]
/// struct Trade {
///     ticker: String,
///     #[record(rename_from = "volume")]
///     amount: u64,
///     #[record(default)]
///     venue: Option<String>,
/// }
/// let Compatibility::Migratable(changes) = compare(&before::Trade::schema(), &Trade::schema()) else { panic!() };
/// let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
/// assert_eq!(changes, [
///     "field `amount` was called `volume`",
///     "`amount` is widened from u32 to u64",
///     "field `venue` is added with its default",
/// ]);
/// ```
#[must_use]
pub fn compare(old: &Schema, new: &Schema) -> Compatibility {
    if old.fingerprint() == new.fingerprint() {
        return Compatibility::Same;
    }
    let compiled = compile(old, new);
    if compiled.problems.is_empty() {
        Compatibility::Migratable(compiled.changes)
    } else {
        Compatibility::Incompatible(compiled.problems)
    }
}

/// A difference that a migration bridges. Paths lead from the value to the field, as in `legs[].price`; a path of the value
/// itself is empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum Change {
    /// A field that older values lack; they get its default.
    FieldAdded {
        /// The field.
        path: String,
    },
    /// A field that is not read any more.
    FieldRemoved {
        /// The field.
        path: String,
    },
    /// A field that had another name.
    FieldRenamed {
        /// The field.
        path: String,
        /// Its former name.
        from: String,
    },
    /// Fields in another order.
    FieldsReordered {
        /// The struct or variant.
        path: String,
    },
    /// A number that has more room now.
    Widened {
        /// The number.
        path: String,
        /// Its former type.
        from: String,
        /// Its type.
        to: String,
    },
    /// A value that may be absent now.
    MadeOptional {
        /// The value.
        path: String,
    },
    /// A variant that older values cannot have.
    VariantAdded {
        /// The variant.
        path: String,
    },
    /// A variant that had another name.
    VariantRenamed {
        /// The variant.
        path: String,
        /// Its former name.
        from: String,
    },
    /// Variants with other numbers.
    VariantsReordered {
        /// The enum.
        path: String,
    },
    /// Values of a state that did not expire.
    TtlAdded,
    /// Values of a state that expired.
    TtlRemoved,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FieldAdded { path } => write!(f, "field `{path}` is added with its default"),
            Self::FieldRemoved { path } => write!(f, "field `{path}` is removed"),
            Self::FieldRenamed { path, from } => write!(f, "field `{path}` was called `{from}`"),
            Self::FieldsReordered { path } => write!(f, "the fields of {} are reordered", Value(path)),
            Self::Widened { path, from, to } => write!(f, "{} is widened from {from} to {to}", Value(path)),
            Self::MadeOptional { path } => write!(f, "{} may be absent now", Value(path)),
            Self::VariantAdded { path } => write!(f, "variant `{path}` is added"),
            Self::VariantRenamed { path, from } => write!(f, "variant `{path}` was called `{from}`"),
            Self::VariantsReordered { path } => write!(f, "the variants of {} are reordered", Value(path)),
            Self::TtlAdded => f.write_str("values expire now; their life begins with the restore"),
            Self::TtlRemoved => f.write_str("values do not expire any more"),
        }
    }
}

/// A difference that no migration bridges. Its text says what to do. Paths are those of [`Change`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "problem")]
pub enum Problem {
    /// A new field of which nobody says what it is in older values.
    #[error(
        "field `{path}` is new and has no default; put #[record(default)] above it, or #[record(rename_from = \"...\")] if it \
         only had another name"
    )]
    NoDefault {
        /// The field.
        path: String,
    },
    /// Another type.
    #[error(
        "{} was {from} and is {to} now, which cannot be converted; keep its type, or give the new one another name with \
         #[record(default)]",
        Value(path)
    )]
    TypeChanged {
        /// The value.
        path: String,
        /// What it was.
        from: String,
        /// What it is.
        to: String,
    },
    /// A number with less room, or that cannot have all values it had.
    #[error(
        "{} was {from} and is {to} now, which cannot hold every value; keep {from} or a wider number",
        Value(path)
    )]
    Narrowed {
        /// The number.
        path: String,
        /// What it was.
        from: String,
        /// What it is.
        to: String,
    },
    /// A value that could be absent and may not be any more.
    #[error("{} could be absent and may not be any more; keep it an Option", Value(path))]
    NotOptional {
        /// The value.
        path: String,
    },
    /// A variant that stored values may have.
    #[error(
        "variant `{path}` is gone, but stored values may have it; keep it, or put #[record(rename_from = \"...\")] with its name \
         above the one that takes its place"
    )]
    VariantRemoved {
        /// The variant.
        path: String,
    },
    /// A field of a map's keys that is gone, so that two keys could become one.
    #[error("field `{path}` of a map's keys is gone, so that two keys could become one; keep it")]
    KeyFieldRemoved {
        /// The field.
        path: String,
    },
    /// A type that writes itself in a way nobody else knows.
    #[error(
        "{} has the type `{type_name}`, which only its own code can read, so that nothing around it can change; keep the \
         type that holds it as it was, or put the change into a state of its own",
        Value(path)
    )]
    UnknownEncoding {
        /// The value.
        path: String,
        /// Its type.
        type_name: String,
    },
}

/// A path as the subject of a sentence.
struct Value<'a>(&'a str);

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { f.write_str("the value") } else { write!(f, "`{}`", self.0) }
    }
}
