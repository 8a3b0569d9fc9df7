//! The canonical form of keyed state: entries by key group, each the record encodings of key and value, or of key, map key and value.
//!
//! Stands wherever state is read without the types of the program that wrote it: in savepoints, and before a store restores
//! what an older version of a job wrote. Pure. Invariant: an entry is taken whole or is an error.

use crate::Timestamp;
use crate::graph::{StateDescriptor, StateKind};
use crate::record::Record as _;
use crate::schema::{Change, Compatibility, MigrateError, Migration, Problem, Schema, compare};
use crate::ttl::{STAMP_BYTES, value_of};

/// A state whose entries cannot be told apart, or not be read as the type that is declared now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("state `{state}`: {}", problems.first().map(ToString::to_string).unwrap_or_default())]
pub struct UnreadableState {
    /// The state's name.
    pub state: String,
    /// What stands in the way; at least one.
    pub problems: Vec<Problem>,
}

/// An entry in its record encoding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The key.
    pub key: &'a [u8],
    /// In a map state the key in the map.
    pub map_key: Option<&'a [u8]>,
    /// The value.
    pub value: &'a [u8],
}

/// Tells the entries of a state apart.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryLayout {
    key: Migration,
    map_key: Option<Migration>,
    value: Migration,
}

impl EntryLayout {
    /// That of a keyed state under keys of the type `key_schema`.
    ///
    /// # Errors
    /// When only the program's own code can read one of the types.
    pub fn of(state: &StateDescriptor, key_schema: &Schema) -> Result<Self, UnreadableState> {
        let unreadable = |problems| UnreadableState { state: state.name.clone(), problems };
        let walk = |schema: &Schema| Migration::new(schema, schema).map_err(unreadable);
        let (map_key, value) = parts(state.kind, &state.schema);
        Ok(Self { key: walk(key_schema)?, map_key: map_key.map(walk).transpose()?, value: walk(value)? })
    }

    /// Takes an entry from the front of `entries`.
    ///
    /// # Errors
    /// When the bytes are no entry of this state.
    pub fn take<'a>(&self, entries: &mut &'a [u8]) -> Result<Entry<'a>, MigrateError> {
        let key = self.key.take(entries)?;
        let map_key = self.map_key.as_ref().map(|map_key| map_key.take(entries)).transpose()?;
        Ok(Entry { key, map_key, value: self.value.take(entries)? })
    }

    /// Cuts entries into pieces of whole entries, each of at least `bytes` but the last.
    ///
    /// # Errors
    /// When the bytes are no entries of this state.
    pub fn split<'a>(&self, mut entries: &'a [u8], bytes: usize) -> Result<Vec<&'a [u8]>, MigrateError> {
        let mut pieces = Vec::new();
        while !entries.is_empty() {
            let all = entries;
            let taken = loop {
                let taken = all.len() - entries.len();
                if entries.is_empty() || taken >= bytes.max(1) {
                    break taken;
                }
                self.take(&mut entries)?;
            };
            pieces.push(&all[..taken]);
        }
        Ok(pieces)
    }
}

/// Reads the entries that an older version of a job wrote as those of a newer one.
///
/// ```
/// use thalweg_common::entries::StateMigration;
/// use thalweg_common::graph::{StateDescriptor, StateKind};
/// use thalweg_common::record::Record as _;
///
/// let state = |schema| StateDescriptor::new("total", StateKind::Value, schema);
/// let migration = StateMigration::new(&state(u32::schema()), &state(u64::schema()), &String::schema()).unwrap();
/// let (mut old, mut new) = (Vec::new(), Vec::new());
/// ("a".to_string(), 7u32).encode(&mut old);
/// migration.migrate(&old, &mut new).unwrap();
/// assert_eq!(<(String, u64)>::decode(&mut new.as_slice()).unwrap(), ("a".to_string(), 7));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct StateMigration {
    /// Nothing where the bytes stay as they are.
    rewrite: Option<Rewrite>,
    /// When the life of values begins that did not expire before.
    now_ms: Timestamp,
}

/// How an entry is rewritten.
#[derive(Debug, Clone, PartialEq)]
struct Rewrite {
    key: Migration,
    map_key: Option<Migration>,
    stamp: Stamp,
    /// Whether each element of the value has a stamp of its own, behind that of all. Then `value` is for one.
    is_list: bool,
    value: Migration,
}

/// What becomes of the time in front of values that expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stamp {
    /// It stays, or there is none: it is part of the value.
    Keep,
    /// Values expire that did not.
    Add,
    /// Values do not expire any more.
    Remove,
}

impl Stamp {
    fn between(found: &StateDescriptor, declared: &StateDescriptor) -> Self {
        match (found.ttl, declared.ttl) {
            (None, Some(_)) => Self::Add,
            (Some(_), None) => Self::Remove,
            _ => Self::Keep,
        }
    }
}

impl StateMigration {
    /// The way from the state that was found to the one that is declared now, if there is one. Keys have the same encoding in
    /// both, which [`check`](crate::manifest::check()) makes sure of.
    ///
    /// # Errors
    /// Everything that stands in the way.
    pub fn new(
        found: &StateDescriptor,
        declared: &StateDescriptor,
        key_schema: &Schema,
    ) -> Result<Self, UnreadableState> {
        let unreadable = |problems| UnreadableState { state: declared.name.clone(), problems };
        if found.kind != declared.kind {
            let (from, to) = (format!("{} state", found.kind), format!("{} state", declared.kind));
            return Err(unreadable(vec![Problem::TypeChanged { path: String::new(), from, to }]));
        }
        let identity = Self { rewrite: None, now_ms: 0 };
        let stamp = Stamp::between(found, declared);
        let (old, new) = schemas(found, declared);
        if stamp == Stamp::Keep && old.fingerprint() == new.fingerprint() {
            return Ok(identity);
        }
        let whole = Migration::new(&old, &new).map_err(unreadable)?;
        if stamp == Stamp::Keep && whole.is_identity() {
            return Ok(identity);
        }
        let key = Migration::new(key_schema, key_schema).map_err(unreadable)?;
        let walk = |old: &Schema, new: &Schema| Migration::new(old, new).map_err(unreadable);
        let is_list = stamp != Stamp::Keep && found.kind == StateKind::List;
        let (map_key, value) = match (parts(found.kind, &old), parts(found.kind, &new)) {
            ((Some(old_key), old_value), (Some(new_key), new_value)) => {
                (Some(walk(old_key, new_key)?), walk(old_value, new_value)?)
            }
            ((_, Schema::List(old)), (_, Schema::List(new))) if is_list => (None, walk(old, new)?),
            _ => (None, whole),
        };
        Ok(Self { rewrite: Some(Rewrite { key, map_key, stamp, is_list, value }), ..identity })
    }

    /// The same at this time: the life of values that did not expire before begins now.
    #[must_use]
    pub fn at(self, now_ms: Timestamp) -> Self {
        Self { now_ms, ..self }
    }

    /// Whether entries stay as they are.
    #[must_use]
    pub fn is_identity(&self) -> bool {
        self.rewrite.is_none()
    }

    /// Appends all entries in their new form.
    ///
    /// # Errors
    /// When the bytes are no entries of the state that was found.
    pub fn migrate(&self, mut entries: &[u8], out: &mut Vec<u8>) -> Result<(), MigrateError> {
        let Some(Rewrite { key, map_key, stamp, is_list, value }) = &self.rewrite else {
            out.extend_from_slice(entries);
            return Ok(());
        };
        while !entries.is_empty() {
            out.extend_from_slice(key.take(&mut entries)?);
            if let Some(map_key) = map_key {
                map_key.migrate(&mut entries, out)?;
            }
            self.migrate_stamp(*stamp, &mut entries, out)?;
            if !is_list {
                value.migrate(&mut entries, out)?;
                continue;
            }
            let length =
                u64::decode(&mut entries).map_err(|_| MigrateError::new("a list ends within its length"))?;
            length.encode(out);
            for _ in 0..length {
                self.migrate_stamp(*stamp, &mut entries, out)?;
                value.migrate(&mut entries, out)?;
            }
        }
        Ok(())
    }

    /// The time in front of a value, or of an element of a list.
    fn migrate_stamp(
        &self,
        stamp: Stamp,
        entries: &mut &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), MigrateError> {
        match stamp {
            Stamp::Keep => {}
            Stamp::Add => out.extend_from_slice(&self.now_ms.to_le_bytes()),
            Stamp::Remove => {
                let cut = || MigrateError::new("a value ends within the time from which it lives");
                *entries = entries.get(STAMP_BYTES..).ok_or_else(cut)?;
            }
        }
        Ok(())
    }
}

/// What becomes of the values of a state, if they are of the same kind.
pub(crate) fn compare_states(found: &StateDescriptor, declared: &StateDescriptor) -> Compatibility {
    let (old, new) = schemas(found, declared);
    let compared = compare(&old, &new);
    let change = match Stamp::between(found, declared) {
        Stamp::Keep => return compared,
        Stamp::Add => Change::TtlAdded,
        Stamp::Remove => Change::TtlRemoved,
    };
    match compared {
        // Values are rewritten even so, which somebody must know how to read.
        Compatibility::Same => match Migration::new(&old, &new) {
            Ok(_) => Compatibility::Migratable(vec![change]),
            Err(problems) => Compatibility::Incompatible(problems),
        },
        Compatibility::Migratable(mut changes) => {
            changes.push(change);
            Compatibility::Migratable(changes)
        }
        incompatible @ Compatibility::Incompatible(_) => incompatible,
    }
}

/// Whether the type of a state's values says what its time to live does.
pub(crate) fn fits_ttl(state: &StateDescriptor) -> bool {
    let value = value_of(parts(state.kind, &state.schema).1);
    match (state.ttl, state.kind, value) {
        (None, ..) => true,
        (_, StateKind::List, Some(Schema::List(element))) => value_of(element).is_some(),
        (_, StateKind::List, _) | (.., None) => false,
        _ => true,
    }
}

/// The types behind the key of an entry.
fn parts(kind: StateKind, schema: &Schema) -> (Option<&Schema>, &Schema) {
    match (kind, schema) {
        (kind, Schema::Map(key, value)) if kind.is_map() => (Some(key), value),
        (_, schema) => (None, schema),
    }
}

/// The types of two states, without the time from which values live if only one of them has it.
fn schemas(found: &StateDescriptor, declared: &StateDescriptor) -> (Schema, Schema) {
    let is_kept = Stamp::between(found, declared) == Stamp::Keep;
    let schema = |state: &StateDescriptor| {
        let bare = |schema: &Schema| value_of(schema).unwrap_or(schema).clone();
        match (state.kind, &state.schema) {
            (_, schema) if is_kept || state.ttl.is_none() => schema.clone(),
            (StateKind::Map, Schema::Map(key, value)) => Schema::Map(key.clone(), Box::new(bare(value))),
            (StateKind::List, schema) => match bare(schema) {
                Schema::List(element) => Schema::List(Box::new(bare(&element))),
                other => other,
            },
            (_, schema) => bare(schema),
        }
    };
    (schema(found), schema(declared))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::collections::BTreeMap;

    use super::*;
    use crate::record::Record;
    use crate::schema::Field;
    use crate::ttl::{Expiring, StateTtl};
    use proptest::prelude::*;

    fn state(kind: StateKind, schema: Schema) -> StateDescriptor {
        StateDescriptor::new("s", kind, schema)
    }

    fn encoded<T: Record>(values: &[T]) -> Vec<u8> {
        let mut bytes = Vec::new();
        T::encode_all(values, &mut bytes);
        bytes
    }

    proptest! {
        #[test]
        fn entries_of_both_kinds_are_taken_split_and_migrated(
            entries in proptest::collection::vec((".{0,5}", any::<u16>(), any::<u32>()), 0..20), bytes in 0usize..40,
        ) {
            let map = state(StateKind::Map, BTreeMap::<u16, u32>::schema());
            let all = encoded(&entries);
            let layout = EntryLayout::of(&map, &String::schema()).unwrap();
            let pieces = layout.split(&all, bytes).unwrap();
            prop_assert_eq!(pieces.concat(), all.clone());
            let last = pieces.len().saturating_sub(1);
            prop_assert!(pieces[..last].iter().all(|piece| piece.len() >= bytes));
            let mut rest = all.as_slice();
            for (key, map_key, value) in &entries {
                let entry = layout.take(&mut rest).unwrap();
                prop_assert_eq!(entry.key, encoded(std::slice::from_ref(key)));
                prop_assert_eq!(entry.map_key.unwrap(), map_key.to_le_bytes());
                prop_assert_eq!(entry.value, value.to_le_bytes());
            }
            let wide = state(StateKind::Map, BTreeMap::<u64, Option<u32>>::schema());
            let mut out = Vec::new();
            StateMigration::new(&map, &wide, &String::schema()).unwrap().migrate(&all, &mut out).unwrap();
            let expected: Vec<_> =
                entries.iter().map(|(key, map_key, value)| (key.clone(), u64::from(*map_key), Some(*value))).collect();
            prop_assert_eq!(out, encoded(&expected));
        }
    }

    #[test]
    fn a_type_that_only_its_code_reads_is_restored_as_long_as_it_is_the_same() {
        let own = || state(StateKind::Value, Schema::primitive("nexmark text"));
        let error = EntryLayout::of(&own(), &u64::schema()).unwrap_err().to_string();
        assert!(error.starts_with("state `s`: the value has the type `nexmark text`"), "{error}");
        let same = StateMigration::new(&own(), &own(), &u64::schema()).unwrap();
        let mut out = Vec::new();
        same.migrate(&[1, 2, 3], &mut out).unwrap();
        assert!(same.is_identity());
        assert_eq!(out, [1, 2, 3]);
        let other_kind = state(StateKind::Map, BTreeMap::<u64, u64>::schema());
        assert!(StateMigration::new(&own(), &other_kind, &u64::schema()).is_err());
    }

    fn expiring(kind: StateKind, schema: Schema) -> StateDescriptor {
        StateDescriptor { ttl: Some(StateTtl::new(std::time::Duration::from_secs(1))), ..state(kind, schema) }
    }

    #[test]
    fn a_life_begins_with_the_migration_and_is_forgotten_with_the_next() {
        let forever = state(StateKind::Map, BTreeMap::<u16, u32>::schema());
        let wide = expiring(StateKind::Map, BTreeMap::<u16, Expiring<u64>>::schema());
        let all = encoded(&[("a".to_string(), 1u16, 2u32), ("b".to_string(), 3, 4)]);
        let (mut out, mut back) = (Vec::new(), Vec::new());
        let migration = StateMigration::new(&forever, &wide, &String::schema()).unwrap().at(99);
        migration.migrate(&all, &mut out).unwrap();
        let alive = |value: u64| Expiring { since_ms: 99, value };
        assert_eq!(out, encoded(&[("a".to_string(), 1u16, alive(2)), ("b".to_string(), 3, alive(4))]));
        let longer = state(StateKind::Map, BTreeMap::<u16, u64>::schema());
        let migration = StateMigration::new(&wide, &longer, &String::schema()).unwrap();
        migration.migrate(&out, &mut back).unwrap();
        assert_eq!(back, encoded(&[("a".to_string(), 1u16, 2u64), ("b".to_string(), 3, 4)]));
        let cut = &out[..out.len() - 8 - STAMP_BYTES / 2];
        assert!(migration.migrate(cut, &mut back).is_err());
        assert!(
            StateMigration::new(&wide, &forever, &String::schema()).is_err(),
            "u64 does not fit into u32"
        );
    }

    #[test]
    fn both_sides_of_a_ttl_are_compared_as_they_are_migrated() {
        let (forever, mortal) =
            (state(StateKind::Value, u64::schema()), expiring(StateKind::Value, Expiring::<u64>::schema()));
        let says = |found: &StateDescriptor, declared: &StateDescriptor| {
            let Compatibility::Migratable(changes) = compare_states(found, declared) else { return None };
            Some(changes.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
        };
        assert_eq!(says(&forever, &mortal).unwrap(), "values expire now; their life begins with the restore");
        assert_eq!(says(&mortal, &forever).unwrap(), "values do not expire any more");
        assert_eq!(compare_states(&mortal, &mortal.clone()), Compatibility::Same);
        let own = Schema::primitive("nexmark text");
        let found = state(StateKind::Value, own.clone());
        let fields = vec![Field::new("since_ms", i64::schema()), Field::new("value", own)];
        let declared = expiring(StateKind::Value, Schema::Struct { name: "Expiring".into(), fields });
        assert!(matches!(compare_states(&found, &declared), Compatibility::Incompatible(_)));
        assert!(StateMigration::new(&found, &declared, &u64::schema()).is_err());
    }

    #[test]
    fn damaged_entries_are_errors() {
        let total = state(StateKind::Value, u64::schema());
        let layout = EntryLayout::of(&total, &String::schema()).unwrap();
        let bytes = encoded(&[("a".to_string(), 1u64)]);
        assert!(layout.split(&bytes[..bytes.len() - 1], 1).is_err());
        let wide = state(StateKind::Value, u128::schema());
        let migration = StateMigration::new(&total, &wide, &String::schema()).unwrap();
        assert!(migration.migrate(&bytes[1..], &mut Vec::new()).is_err());
    }
}
