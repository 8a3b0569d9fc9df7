//! Snapshots of an older version of a job, read as this one declares its state; and entries of every store in pieces for a savepoint.
//! Stores on disk, read without a program.
//!
//! Stands between what was restored from storage and [`KeyedStore::restore`](crate::KeyedStore::restore), which takes only what is
//! declared as it was written.

use std::collections::BTreeMap;

use thalweg_common::Timestamp;
use thalweg_common::entries::{EntryLayout, StateMigration};
use thalweg_common::graph::StateDescriptor;
use thalweg_common::key_group::KeyGroup;
use thalweg_common::limits::SAVEPOINT_BLOCK_BYTES;
use thalweg_common::schema::{MigrateError, Schema};

use crate::backend::{Backend, StoreDescription};
use crate::cache::batch::{MapKey, put_group, split_key};
use crate::error::{RestoreError, StoreError};
use crate::snapshot::{Entries, StateSnapshot};

impl StateSnapshot {
    /// The same state as the program declares it now, under keys of the type `key_schema`. `operator` is for messages. Values that
    /// did not expire before and do so now live from `now_ms`.
    ///
    /// # Errors
    /// When its type has changed in a way that no migration bridges, or the bytes are damaged.
    pub fn migrate(
        self,
        operator: &str,
        declared: &StateDescriptor,
        key_schema: &Schema,
        now_ms: Timestamp,
    ) -> Result<Self, RestoreError> {
        let names = || (operator.to_string(), declared.name.clone());
        if !keeps_its_encoding(&self.key_schema, key_schema) {
            let (operator, state) = names();
            let (found, declared) = (self.key_schema.to_string(), key_schema.to_string());
            return Err(RestoreError::KeyChanged { operator, state, found, declared });
        }
        let migration = StateMigration::new(&self.descriptor, declared, key_schema).map_err(|error| {
            let (operator, state) = names();
            let found = format!("{} state of {}", self.descriptor.kind, self.descriptor.schema);
            let declared = format!("{} state of {} ({error})", declared.kind, declared.schema);
            RestoreError::Changed { operator, state, found, declared }
        })?;
        let migration = migration.at(now_ms);
        let mut groups = self.groups;
        if !migration.is_identity() {
            for entries in groups.values_mut() {
                let mut migrated = Vec::with_capacity(entries.0.len());
                migration
                    .migrate(&entries.0, &mut migrated)
                    .map_err(|error| damaged(operator, &declared.name, &error))?;
                *entries = Entries(migrated);
            }
        }
        Ok(Self { descriptor: declared.clone(), key_schema: key_schema.clone(), groups })
    }

    /// Its entries in pieces of a size that suits a savepoint, group by group. Entries whose type only its own code can read stay together.
    ///
    /// # Errors
    /// When the bytes are damaged.
    pub fn pieces(&self) -> Result<Vec<(KeyGroup, &[u8])>, MigrateError> {
        let layout = EntryLayout::of(&self.descriptor, &self.key_schema).ok();
        let mut pieces = Vec::with_capacity(self.groups.len());
        for (group, Entries(entries)) in &self.groups {
            match &layout {
                Some(layout) => {
                    let split = layout.split(entries, SAVEPOINT_BLOCK_BYTES)?;
                    pieces.extend(split.into_iter().map(|piece| (*group, piece)));
                }
                None => pieces.push((*group, entries.as_slice())),
            }
        }
        Ok(pieces)
    }
}

/// Puts entries that come in the order of their stored keys together to pieces of canonical ones, and hands each on to `piece`.
pub(crate) struct Pieces<'a, F> {
    operator: &'a str,
    description: &'a StoreDescription,
    now_ms: Timestamp,
    piece: F,
    /// State and key group of what is collected.
    open: Option<(usize, KeyGroup)>,
    entries: Vec<u8>,
}

impl<'a, E: From<StoreError>, F: FnMut(&str, KeyGroup, &[u8]) -> Result<(), E>> Pieces<'a, F> {
    /// For entries of the store of `operator`, without what has expired at `now_ms`.
    pub(crate) fn new(
        operator: &'a str,
        description: &'a StoreDescription,
        now_ms: Timestamp,
        piece: F,
    ) -> Self {
        Self { operator, description, now_ms, piece, open: None, entries: Vec::new() }
    }

    /// Adds an entry of the state with this number.
    pub(crate) fn add(&mut self, state: usize, stored: &[u8], value: &[u8]) -> Result<(), E> {
        let Some(descriptor) = self.description.descriptors.get(state) else { return Ok(()) };
        if descriptor.ttl.is_some_and(|ttl| ttl.is_over_stored(value, self.now_ms)) {
            return Ok(());
        }
        let (group, key, map_key) = split(self.operator, descriptor, stored)?;
        if !self.description.groups.contains(group) {
            return Ok(());
        }
        if self.open != Some((state, group)) || self.entries.len() >= SAVEPOINT_BLOCK_BYTES {
            self.hand_on()?;
            self.open = Some((state, group));
        }
        [key, &map_key, value].into_iter().for_each(|part| self.entries.extend_from_slice(part));
        Ok(())
    }

    /// Hands on what is left.
    pub(crate) fn finish(mut self) -> Result<(), E> {
        self.hand_on()
    }

    fn hand_on(&mut self) -> Result<(), E> {
        let Some((state, group)) = self.open.take() else { return Ok(()) };
        let name = &self.description.descriptors[state].name;
        let handed_on = (self.piece)(name, group, &self.entries);
        self.entries.clear();
        handed_on
    }
}

/// The entries of one key group of a state in a store, by its number, which is opened without a program; those that had expired at
/// `now_ms` are left out. `operator` is for messages.
///
/// # Errors
/// When they cannot be read.
pub fn stored_entries(
    store: &dyn Backend,
    description: &StoreDescription,
    state: usize,
    group: KeyGroup,
    now_ms: Timestamp,
    operator: &str,
) -> Result<Entries, StoreError> {
    let (mut prefix, mut entries) = (Vec::new(), Vec::new());
    let Some(descriptor) = description.descriptors.get(state) else { return Ok(Entries(entries)) };
    put_group(&mut prefix, group);
    store.scan(state, &prefix, &mut |stored, value| {
        if descriptor.ttl.is_some_and(|ttl| ttl.is_over_stored(value, now_ms)) {
            return Ok(());
        }
        let (_, key, map_key) = split(operator, descriptor, stored)?;
        [key, &map_key, value].iter().for_each(|part| entries.extend_from_slice(part));
        Ok(())
    })?;
    Ok(Entries(entries))
}

/// Key group, key and map key of a stored key.
fn split<'a>(
    operator: &str,
    descriptor: &StateDescriptor,
    stored: &'a [u8],
) -> Result<(KeyGroup, &'a [u8], MapKey<'a>), StoreError> {
    split_key(descriptor.kind, stored).ok_or_else(|| {
        let (operator, state) = (operator.to_string(), descriptor.name.clone());
        StoreError::Damaged { operator, state, reason: "a key of it has no end".to_string() }
    })
}

/// All states of an operator as the program declares them now. Those that it does not declare any more are dropped if
/// `allow_non_restored_state` says so.
///
/// # Errors
/// As [`StateSnapshot::migrate`], or when a state is not declared any more.
pub fn migrate_states(
    operator: &str,
    states: BTreeMap<String, StateSnapshot>,
    declared: &[StateDescriptor],
    key_schema: &Schema,
    now_ms: Timestamp,
    allow_non_restored_state: bool,
) -> Result<BTreeMap<String, StateSnapshot>, RestoreError> {
    let mut migrated = BTreeMap::new();
    for (name, state) in states {
        match declared.iter().find(|descriptor| descriptor.name == name) {
            Some(descriptor) => {
                migrated.insert(name, state.migrate(operator, descriptor, key_schema, now_ms)?);
            }
            None if allow_non_restored_state => {}
            None => return Err(RestoreError::Undeclared { operator: operator.to_string(), state: name }),
        }
    }
    Ok(migrated)
}

/// Names in a key may change, its bytes may not: they decide where its state lives.
fn keeps_its_encoding(found: &Schema, declared: &Schema) -> bool {
    found.fingerprint() == declared.fingerprint()
        || thalweg_common::schema::Migration::new(found, declared)
            .is_ok_and(|migration| migration.is_identity())
}

fn damaged(operator: &str, state: &str, error: &MigrateError) -> RestoreError {
    let (operator, state) = (operator.to_string(), state.to_string());
    RestoreError::Damaged { operator, state, reason: error.to_string() }
}
