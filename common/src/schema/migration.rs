//! Rewrites values of an older schema as those of a newer one, without either type.
//!
//! Stands between a savepoint and the store that restores it. Invariants: it moves past exactly one value, or is an error;
//! bytes that are no values of the older schema are never written on; memory is taken only for bytes that are there.
//!
//! ```
//! use thalweg_common::record::Record as _;
//! use thalweg_common::schema::Migration;
//!
//! let widen = Migration::new(&Vec::<u32>::schema(), &Vec::<u64>::schema()).unwrap();
//! let (mut old, mut new) = (Vec::new(), Vec::new());
//! vec![1u32, 2].encode(&mut old);
//! widen.migrate(&mut old.as_slice(), &mut new).unwrap();
//! assert_eq!(Vec::<u64>::decode(&mut new.as_slice()).unwrap(), [1, 2]);
//! ```

use super::Schema;
use super::compare::Problem;
use super::compile::{Fields, Node, Number, Piece, compile};
use crate::limits::MAX_EMPTY_ELEMENTS;

/// Bytes that are no value of the schema that they are said to have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a stored value is not of the type it is said to be: {reason}; the bytes are damaged")]
pub struct MigrateError {
    reason: String,
}

impl MigrateError {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into() }
    }
}

/// The way from an older schema to a newer one.
#[derive(Debug, Clone, PartialEq)]
pub struct Migration {
    node: Node,
    is_identity: bool,
}

impl Migration {
    /// The way from `old` to `new`, if there is one. From a schema to itself it only checks and measures values.
    ///
    /// # Errors
    /// Everything that stands in the way.
    pub fn new(old: &Schema, new: &Schema) -> Result<Self, Vec<Problem>> {
        let compiled = compile(old, new);
        if compiled.problems.is_empty() {
            let is_identity = compiled.node.is_copy();
            Ok(Self { node: compiled.node, is_identity })
        } else {
            Err(compiled.problems)
        }
    }

    /// Whether all bytes stay as they are, as when a field has only got another name.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.is_identity
    }

    /// Takes one value from the front of `bytes` and appends it to `out` in its new form.
    ///
    /// # Errors
    /// When the bytes are no value of the old schema. `out` may then have a part of it.
    pub fn migrate(&self, bytes: &mut &[u8], out: &mut Vec<u8>) -> Result<(), MigrateError> {
        rewrite(&self.node, bytes, &mut Keep(out))
    }

    /// Takes one value from the front of `bytes` as it is.
    ///
    /// # Errors
    /// When the bytes are no value of the old schema.
    pub fn take<'a>(&self, bytes: &mut &'a [u8]) -> Result<&'a [u8], MigrateError> {
        let all = *bytes;
        rewrite(&self.node, bytes, &mut Drop)?;
        Ok(&all[..all.len() - bytes.len()])
    }
}

/// Where new bytes go.
trait Sink {
    fn put(&mut self, bytes: &[u8]);
    /// Puts what has come since `read` began into the order of the layout.
    fn arrange(&mut self, layout: &[Piece], read: Read);
    fn length(&self) -> usize;
}

/// Where each old field has ended up, behind `start`.
struct Read {
    start: usize,
    ends: Vec<usize>,
}

struct Keep<'a>(&'a mut Vec<u8>);
struct Drop;

impl Sink for Keep<'_> {
    fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn arrange(&mut self, layout: &[Piece], read: Read) {
        let values = self.0.split_off(read.start);
        for piece in layout {
            match piece {
                Piece::Default(default) => self.put(default),
                Piece::Field(position) => {
                    let begin = position.checked_sub(1).map_or(0, |before| read.ends[before]);
                    self.0.extend_from_slice(&values[begin..read.ends[*position]]);
                }
            }
        }
    }

    fn length(&self) -> usize {
        self.0.len()
    }
}

impl Sink for Drop {
    fn put(&mut self, _bytes: &[u8]) {}

    fn arrange(&mut self, _layout: &[Piece], _read: Read) {}

    fn length(&self) -> usize {
        0
    }
}

fn rewrite(node: &Node, bytes: &mut &[u8], out: &mut impl Sink) -> Result<(), MigrateError> {
    match node {
        Node::Fixed(size) => out.put(take(bytes, *size)?),
        Node::Bool => {
            let flag = take(bytes, 1)?;
            flag_of(flag)?;
            out.put(flag);
        }
        Node::Char => {
            let code = take(bytes, 4)?;
            char::from_u32(number(code))
                .ok_or_else(|| MigrateError::new("a character that does not exist"))?;
            out.put(code);
        }
        Node::Text => {
            let text = take_counted(bytes, out)?;
            std::str::from_utf8(text).map_err(|error| MigrateError::new(error.to_string()))?;
            out.put(text);
        }
        Node::Blob => {
            let blob = take_counted(bytes, out)?;
            out.put(blob);
        }
        Node::Widen(from, to) => widen(*from, *to, take(bytes, from.bytes())?, out),
        Node::Fields(fields) => rewrite_fields(fields, bytes, out)?,
        Node::Enum(variants) => {
            let number = number(take(bytes, 4)?);
            let Some((new, fields)) = variants.get(number as usize) else {
                return Err(MigrateError::new(format!("there is no variant {number}")));
            };
            out.put(&new.to_le_bytes());
            rewrite_fields(fields, bytes, out)?;
        }
        Node::Option(inner) => {
            let flag = take(bytes, 1)?;
            out.put(flag);
            if flag_of(flag)? {
                rewrite(inner, bytes, out)?;
            }
        }
        Node::IntoSome(inner) => {
            out.put(&[1]);
            rewrite(inner, bytes, out)?;
        }
        Node::List(element, min_bytes) => rewrite_list(element, *min_bytes, bytes, out)?,
    }
    Ok(())
}

fn rewrite_fields(fields: &Fields, bytes: &mut &[u8], out: &mut impl Sink) -> Result<(), MigrateError> {
    let Some(layout) = &fields.layout else {
        for (node, is_kept) in &fields.read {
            if *is_kept {
                rewrite(node, bytes, out)?;
            } else {
                rewrite(node, bytes, &mut Drop)?;
            }
        }
        return Ok(());
    };
    let start = out.length();
    let mut ends = Vec::with_capacity(fields.read.len());
    for (node, is_kept) in &fields.read {
        if *is_kept {
            rewrite(node, bytes, out)?;
        } else {
            rewrite(node, bytes, &mut Drop)?;
        }
        ends.push(out.length() - start);
    }
    out.arrange(layout, Read { start, ends });
    Ok(())
}

fn rewrite_list(
    element: &Node,
    min_bytes: usize,
    bytes: &mut &[u8],
    out: &mut impl Sink,
) -> Result<(), MigrateError> {
    let count = take(bytes, 8)?;
    out.put(count);
    let count = long(count);
    let missing = || MigrateError::new(format!("{count} elements announced, {} bytes left", bytes.len()));
    let length = usize::try_from(count).map_err(|_| missing())?;
    if length.saturating_mul(min_bytes) > bytes.len() {
        return Err(missing());
    }
    if let Node::Fixed(size) = element {
        out.put(take(bytes, length.saturating_mul(*size))?);
        return Ok(());
    }
    if min_bytes == 0 && length > MAX_EMPTY_ELEMENTS {
        return Err(MigrateError::new(format!(
            "a list has {length} elements without content, the most are {MAX_EMPTY_ELEMENTS}"
        )));
    }
    (0..length).try_for_each(|_| rewrite(element, bytes, out))
}

/// Writes a number that fits into the wider type.
fn widen(from: Number, to: Number, bytes: &[u8], out: &mut impl Sink) {
    if let (Number::Float(_), Ok(four)) = (from, <[u8; 4]>::try_from(bytes)) {
        return out.put(&f64::from(f32::from_le_bytes(four)).to_le_bytes());
    }
    // The widest type that has a wider one is of 64 bits.
    let is_negative = matches!(from, Number::Signed(_)) && bytes.last().is_some_and(|byte| byte & 0x80 != 0);
    let mut wide = [if is_negative { 0xff } else { 0 }; 16];
    wide[..bytes.len()].copy_from_slice(bytes);
    match to {
        Number::Unsigned(size) | Number::Signed(size) => out.put(&wide[..size]),
        Number::Float(4) => out.put(&(i128::from_le_bytes(wide) as f32).to_le_bytes()),
        Number::Float(_) => out.put(&(i128::from_le_bytes(wide) as f64).to_le_bytes()),
    }
}

fn take_counted<'a>(bytes: &mut &'a [u8], out: &mut impl Sink) -> Result<&'a [u8], MigrateError> {
    let count = take(bytes, 8)?;
    out.put(count);
    let count = usize::try_from(long(count)).unwrap_or(usize::MAX);
    take(bytes, count)
}

pub(super) fn take<'a>(bytes: &mut &'a [u8], size: usize) -> Result<&'a [u8], MigrateError> {
    let (head, rest) = bytes
        .split_at_checked(size)
        .ok_or_else(|| MigrateError::new(format!("{size} bytes expected, {} left", bytes.len())))?;
    *bytes = rest;
    Ok(head)
}

pub(super) fn flag_of(flag: &[u8]) -> Result<bool, MigrateError> {
    match flag {
        [0] => Ok(false),
        [1] => Ok(true),
        _ => Err(MigrateError::new("a flag is neither 0 nor 1")),
    }
}

/// The number in 4 bytes.
pub(super) fn number(bytes: &[u8]) -> u32 {
    bytes.try_into().map_or(0, u32::from_le_bytes)
}

/// The number in 8 bytes.
pub(super) fn long(bytes: &[u8]) -> u64 {
    bytes.try_into().map_or(0, u64::from_le_bytes)
}
