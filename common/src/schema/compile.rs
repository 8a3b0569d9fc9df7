//! One walk over an older and a newer schema: what has changed, what cannot be, and how values are rewritten.
//!
//! Stands behind [`compare`](super::compare()) and [`Migration`](super::Migration). Fields and variants are matched by name, then by former names.
//! Pure; as deep as the schemas are.

use super::compare::{Change, Problem};
use super::{Field, Schema, Variant};

/// How values of one type are read and rewritten.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    /// So many bytes, of which all are allowed.
    Fixed(usize),
    Bool,
    Char,
    Text,
    /// A count, then as many bytes.
    Blob,
    Widen(Number, Number),
    Fields(Fields),
    /// By the old number: the new number and the fields.
    Enum(Vec<(u32, Fields)>),
    Option(Box<Node>),
    /// A value that becomes one that is there.
    IntoSome(Box<Node>),
    /// The elements, each of which has at least so many bytes.
    List(Box<Node>, usize),
}

/// Fields, elements of a tuple, or a map's key and value.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Fields {
    /// As they stand in old bytes, and whether they are kept.
    pub(super) read: Vec<(Node, bool)>,
    /// What the new bytes consist of; `None` if that is what is kept, in its order.
    pub(super) layout: Option<Vec<Piece>>,
}

/// A part of the new bytes of a struct.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Piece {
    /// An old field, by its position in `read`.
    Field(usize),
    /// A field's default.
    Default(Vec<u8>),
}

/// A number's kind and its size in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Unsigned(usize),
    Signed(usize),
    Float(usize),
}

impl Number {
    fn parse(name: &str) -> Option<Self> {
        let (kind, bits) = name.split_at_checked(1)?;
        let bytes = match bits {
            "8" => 1,
            "16" => 2,
            "32" => 4,
            "64" => 8,
            "128" => 16,
            _ => return None,
        };
        match (kind, bytes) {
            ("u", _) => Some(Self::Unsigned(bytes)),
            ("i", _) => Some(Self::Signed(bytes)),
            ("f", 4 | 8) => Some(Self::Float(bytes)),
            _ => None,
        }
    }

    pub(super) fn bytes(self) -> usize {
        match self {
            Self::Unsigned(bytes) | Self::Signed(bytes) | Self::Float(bytes) => bytes,
        }
    }

    /// Whether `wider` can hold every value of this one exactly.
    fn fits_into(self, wider: Self) -> bool {
        use Number::{Float, Signed, Unsigned};
        match (self, wider) {
            (Unsigned(from), Unsigned(to) | Signed(to)) | (Signed(from), Signed(to)) => from < to,
            (Float(from), Float(to)) => from < to,
            // A float has 24 or 53 bits for the digits of a whole number.
            (Unsigned(from) | Signed(from), Float(to)) => from <= 2 || (from == 4 && to == 8),
            _ => false,
        }
    }
}

impl Node {
    /// The fewest bytes that an old value has. A value without any bytes never has some.
    pub(super) fn min_bytes(&self) -> usize {
        match self {
            Self::Fixed(bytes) => *bytes,
            Self::Bool | Self::Option(_) => 1,
            Self::Char | Self::Enum(_) => 4,
            Self::Text | Self::Blob | Self::List(..) => 8,
            Self::Widen(from, _) => from.bytes(),
            Self::Fields(fields) => fields.read.iter().map(|(node, _)| node.min_bytes()).sum(),
            Self::IntoSome(inner) => inner.min_bytes(),
        }
    }

    /// Whether new bytes are the old ones.
    pub(super) fn is_copy(&self) -> bool {
        match self {
            Self::Fixed(_) | Self::Bool | Self::Char | Self::Text | Self::Blob => true,
            Self::Widen(..) | Self::IntoSome(_) => false,
            Self::Fields(fields) => fields.is_copy(),
            Self::Enum(variants) => {
                (0..).zip(variants).all(|(old, (new, fields))| old == *new && fields.is_copy())
            }
            Self::Option(inner) | Self::List(inner, _) => inner.is_copy(),
        }
    }

    fn list(element: Self) -> Self {
        let min_bytes = element.min_bytes();
        Self::List(Box::new(element), min_bytes)
    }

    /// All of them kept, in their order. Neighbours that are just so many bytes are taken together.
    fn sequence(nodes: impl Iterator<Item = Self>) -> Self {
        let mut read: Vec<(Self, bool)> = Vec::new();
        for node in nodes {
            match (read.last_mut(), node) {
                (Some((Self::Fixed(before), _)), Self::Fixed(bytes)) => *before += bytes,
                (_, node) => read.push((node, true)),
            }
        }
        match read.as_slice() {
            [(Self::Fixed(bytes), _)] => Self::Fixed(*bytes),
            _ => Self::Fields(Fields { read, layout: None }),
        }
    }
}

impl Fields {
    fn is_copy(&self) -> bool {
        self.layout.is_none() && self.read.iter().all(|(node, is_kept)| *is_kept && node.is_copy())
    }
}

/// What the walk has found. Nothing may be rewritten while there are problems.
pub(super) struct Compiled {
    pub(super) node: Node,
    pub(super) changes: Vec<Change>,
    pub(super) problems: Vec<Problem>,
}

pub(super) fn compile(old: &Schema, new: &Schema) -> Compiled {
    let mut walk = Walk::default();
    let node = walk.value(old, new);
    Compiled { node, changes: walk.changes, problems: walk.problems }
}

#[derive(Default)]
struct Walk {
    path: String,
    /// In the keys of a map, where two different values must not become one.
    is_key: bool,
    changes: Vec<Change>,
    problems: Vec<Problem>,
}

impl Walk {
    fn value(&mut self, old: &Schema, new: &Schema) -> Node {
        match (old, new) {
            (Schema::Option(old), Schema::Option(new)) => Node::Option(Box::new(self.value(old, new))),
            (old, Schema::Option(new)) => {
                self.changes.push(Change::MadeOptional { path: self.path.clone() });
                Node::IntoSome(Box::new(self.value(old, new)))
            }
            (Schema::Option(_), _) => self.problem(Problem::NotOptional { path: self.path.clone() }),
            (Schema::Primitive(old), Schema::Primitive(new)) => self.primitive(old, new),
            (Schema::Struct { fields: old, .. }, Schema::Struct { fields: new, .. }) => {
                let Fields { read, layout } = self.fields(old, new);
                if layout.is_none() && read.iter().all(|(_, is_kept)| *is_kept) {
                    return Node::sequence(read.into_iter().map(|(node, _)| node));
                }
                Node::Fields(Fields { read, layout })
            }
            (Schema::Enum { variants: old, .. }, Schema::Enum { variants: new, .. }) => {
                self.variants(old, new)
            }
            (Schema::List(old), Schema::List(new)) => {
                Node::list(self.within("[]", |walk| walk.value(old, new)))
            }
            (Schema::Map(old_key, old_value), Schema::Map(new_key, new_value)) => {
                let outside = std::mem::replace(&mut self.is_key, true);
                let key = self.within("[key]", |walk| walk.value(old_key, new_key));
                self.is_key = outside;
                let value = self.within("[value]", |walk| walk.value(old_value, new_value));
                Node::list(Node::sequence([key, value].into_iter()))
            }
            (Schema::Tuple(old), Schema::Tuple(new)) if old.len() == new.len() => {
                let pairs = old.iter().zip(new).enumerate();
                let nodes: Vec<Node> = pairs
                    .map(|(position, (old, new))| {
                        self.within(&format!(".{position}"), |walk| walk.value(old, new))
                    })
                    .collect();
                Node::sequence(nodes.into_iter())
            }
            (Schema::Opaque(old), Schema::Opaque(new)) if old == new => Node::Blob,
            _ => self.type_changed(old.to_string(), new.to_string()),
        }
    }

    fn primitive(&mut self, old: &str, new: &str) -> Node {
        match (Number::parse(old), Number::parse(new)) {
            (Some(from), Some(to)) if from == to => return Node::Fixed(from.bytes()),
            (Some(from), Some(to)) if from.fits_into(to) => {
                let (path, from_name, to_name) = (self.path.clone(), old.to_string(), new.to_string());
                self.changes.push(Change::Widened { path, from: from_name, to: to_name });
                return Node::Widen(from, to);
            }
            (Some(_), Some(_)) => {
                let (path, from, to) = (self.path.clone(), old.to_string(), new.to_string());
                return self.problem(Problem::Narrowed { path, from, to });
            }
            _ if old != new => return self.type_changed(old.to_string(), new.to_string()),
            _ => {}
        }
        match old {
            "bool" => Node::Bool,
            "char" => Node::Char,
            "string" => Node::Text,
            "bytes" => Node::Blob,
            other => {
                let type_name = other.to_string();
                self.problem(Problem::UnknownEncoding { path: self.path.clone(), type_name })
            }
        }
    }

    fn fields(&mut self, old: &[Field], new: &[Field]) -> Fields {
        let named = |name: &str| old.iter().position(|field| field.name == name);
        let mut taken = vec![false; old.len()];
        let mut sources: Vec<Option<usize>> = new.iter().map(|field| named(&field.name)).collect();
        sources.iter().flatten().for_each(|position| taken[*position] = true);
        for (field, source) in new.iter().zip(&mut sources).filter(|(_, source)| source.is_none()) {
            let former = field.former_names.iter().filter_map(|name| named(name));
            *source = former.into_iter().find(|position| !taken[*position]);
            source.iter().for_each(|position| taken[*position] = true);
        }
        let mut read: Vec<Option<(Node, bool)>> = vec![None; old.len()];
        let mut layout = Vec::with_capacity(new.len());
        for (field, source) in new.iter().zip(sources) {
            let path = self.path_to(&field.name);
            let Some(position) = source else {
                layout.push(Piece::Default(self.default_of(field, path)));
                continue;
            };
            let before = &old[position];
            if before.name != field.name {
                self.changes.push(Change::FieldRenamed { path, from: before.name.clone() });
            }
            let node = self.within_field(&field.name, |walk| walk.value(&before.schema, &field.schema));
            read[position] = Some((node, true));
            layout.push(Piece::Field(position));
        }
        let read: Vec<(Node, bool)> = read
            .into_iter()
            .zip(old)
            .map(|(node, field)| node.unwrap_or_else(|| self.removed(field)))
            .collect();
        let order: Vec<usize> = layout.iter().filter_map(Piece::field).collect();
        let in_order = order.is_sorted();
        if !in_order {
            self.changes.push(Change::FieldsReordered { path: self.path.clone() });
        }
        let is_kept_as_read = in_order && order.len() == layout.len();
        Fields { read, layout: (!is_kept_as_read).then_some(layout) }
    }

    fn default_of(&mut self, field: &Field, path: String) -> Vec<u8> {
        match &field.default {
            Some(default) => {
                self.changes.push(Change::FieldAdded { path });
                default.0.clone()
            }
            None => {
                self.problems.push(Problem::NoDefault { path });
                Vec::new()
            }
        }
    }

    /// A field that is read and left out.
    fn removed(&mut self, field: &Field) -> (Node, bool) {
        let path = self.path_to(&field.name);
        if self.is_key {
            self.problems.push(Problem::KeyFieldRemoved { path });
        } else {
            self.changes.push(Change::FieldRemoved { path });
        }
        (self.within_field(&field.name, |walk| walk.value(&field.schema, &field.schema)), false)
    }

    fn variants(&mut self, old: &[Variant], new: &[Variant]) -> Node {
        let mut taken = vec![false; new.len()];
        let mut targets: Vec<Option<usize>> =
            old.iter().map(|before| new.iter().position(|variant| variant.name == before.name)).collect();
        targets.iter().flatten().for_each(|position| taken[*position] = true);
        for (before, target) in old.iter().zip(&mut targets).filter(|(_, target)| target.is_none()) {
            *target = (0..new.len())
                .find(|position| !taken[*position] && new[*position].former_names.contains(&before.name));
            if let Some(position) = *target {
                taken[position] = true;
                let path = self.path_to(&new[position].name);
                self.changes.push(Change::VariantRenamed { path, from: before.name.clone() });
            }
        }
        let mut nodes = Vec::with_capacity(old.len());
        let mut is_reordered = false;
        for (number, (before, target)) in old.iter().zip(targets).enumerate() {
            let Some(position) = target else {
                let path = self.path_to(&before.name);
                self.problems.push(Problem::VariantRemoved { path });
                continue;
            };
            is_reordered |= position != number;
            let fields = self
                .within_field(&new[position].name, |walk| walk.fields(&before.fields, &new[position].fields));
            nodes.push((u32::try_from(position).unwrap_or(u32::MAX), fields));
        }
        if is_reordered {
            self.changes.push(Change::VariantsReordered { path: self.path.clone() });
        }
        for (variant, _) in new.iter().zip(taken).filter(|(_, is_taken)| !is_taken) {
            let path = self.path_to(&variant.name);
            self.changes.push(Change::VariantAdded { path });
        }
        Node::Enum(nodes)
    }

    fn type_changed(&mut self, from: String, to: String) -> Node {
        self.problem(Problem::TypeChanged { path: self.path.clone(), from, to })
    }

    /// Notes a problem; the node stands for nothing.
    fn problem(&mut self, problem: Problem) -> Node {
        self.problems.push(problem);
        Node::Fixed(0)
    }

    fn path_to(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_string() } else { format!("{}.{name}", self.path) }
    }

    fn within_field<T>(&mut self, name: &str, inner: impl FnOnce(&mut Self) -> T) -> T {
        let dot = if self.path.is_empty() { "" } else { "." };
        self.within(&format!("{dot}{name}"), inner)
    }

    fn within<T>(&mut self, segment: &str, inner: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(segment);
        let result = inner(self);
        self.path.truncate(length);
        result
    }
}

impl Piece {
    fn field(&self) -> Option<usize> {
        match self {
            Self::Field(position) => Some(*position),
            Self::Default(_) => None,
        }
    }
}
