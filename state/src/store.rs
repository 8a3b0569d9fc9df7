//! The keyed store of one operator's subtask: the states of all its keys.
//!
//! Invariants: it holds exactly the keys that have state; all of them belong to key groups that the subtask owns.

use std::collections::BTreeMap;

use thalweg_common::graph::StateDescriptor;
use thalweg_common::key_group::{KeyGroup, KeyGroupRange, key_group, key_hash};
use thalweg_common::record::DecodeError;
use thalweg_common::schema::Schema;

use crate::declare::Declarations;
use crate::error::{DuplicateState, ForeignKey, RestoreError};
use crate::key_table::Found;
use crate::snapshot::StateSnapshot;
use crate::tables::{Accessor, GroupedEntries, StateKey, Tables};

/// All keyed state of one subtask of an operator, in memory.
pub struct KeyedStore<K> {
    operator: String,
    descriptors: Vec<StateDescriptor>,
    key_schema: Schema,
    max_parallelism: u32,
    owned: KeyGroupRange,
    tables: Tables<K>,
    /// Where the keys of the last look-up are, and the generation of the tables in which that holds.
    found: Vec<Found>,
    generation: u64,
    /// Entries and encoded bytes of the last snapshot or restore: how much an entry takes.
    measured: Measure,
    scratch: Vec<u8>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Measure {
    entries: u64,
    bytes: u64,
}

impl<K: StateKey> KeyedStore<K> {
    /// An empty store for the declared states of `operator` (its name, for messages), owning the key groups `owned`.
    ///
    /// # Errors
    /// When two states have the same name.
    pub fn new(
        operator: &str,
        declarations: Declarations<K>,
        max_parallelism: u32,
        owned: KeyGroupRange,
    ) -> Result<Self, DuplicateState> {
        let declared = declarations.into_declared()?;
        Ok(Self {
            operator: operator.to_string(),
            descriptors: declared.iter().map(|state| state.descriptor.clone()).collect(),
            key_schema: K::schema(),
            max_parallelism,
            owned,
            tables: Tables::new(declared),
            found: Vec::new(),
            generation: 0,
            measured: Measure::default(),
            scratch: Vec::new(),
        })
    }

    /// Goes to `key`: handles work on its state as long as the result lives.
    ///
    /// # Errors
    /// When the key belongs to a key group that this subtask does not own.
    #[inline]
    pub fn select(&mut self, key: K) -> Result<AtKey<'_, K>, ForeignKey> {
        let found = self.tables.find(&key);
        self.go_to(key, found)
    }

    /// Looks up a batch of keys at once, for [`select_next`](Self::select_next): what lies far away in memory is fetched for all
    /// of them together.
    pub fn look_up(&mut self, keys: &[K]) {
        self.found.clear();
        self.tables.find_all(keys, &mut self.found);
        self.generation = self.tables.generation();
    }

    /// Goes to the key at `index` of the last [`look_up`](Self::look_up), which is `key`.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    #[inline]
    pub fn select_next(&mut self, index: usize, key: K) -> Result<AtKey<'_, K>, ForeignKey> {
        let found = match self.found.get(index) {
            Some(found) if found.position.is_some() && self.generation == self.tables.generation() => *found,
            // It may have come since, with an earlier record, or may have moved.
            Some(found) => Found { position: self.tables.position(found.hash, &key), ..*found },
            None => self.tables.find(&key),
        };
        self.go_to(key, found)
    }

    #[inline]
    fn go_to(&mut self, key: K, found: Found) -> Result<AtKey<'_, K>, ForeignKey> {
        if found.position.is_none() {
            // Keys with state were checked when they came; only new ones cost an encoding.
            self.admit(&key)?;
        }
        self.tables.select(key, found);
        Ok(AtKey { tables: &mut self.tables })
    }

    #[cold]
    fn admit(&mut self, key: &K) -> Result<(), ForeignKey> {
        let group = key_group(key_hash(key, &mut self.scratch), self.max_parallelism);
        if self.owned.contains(group) {
            return Ok(());
        }
        Err(ForeignKey { operator: self.operator.clone(), group, owned: self.owned })
    }

    /// All keys that have state, in no particular order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.tables.keys()
    }

    /// How many keys have state.
    pub fn key_count(&self) -> usize {
        self.tables.len()
    }

    /// About how many bytes the state takes: as many as its snapshot would have, going by the last one; before the first
    /// snapshot, the memory of keys and values without what they hold on the heap.
    pub fn size_bytes(&self) -> u64 {
        if self.measured.entries == 0 {
            return self.tables.bytes();
        }
        let entries = u128::from(self.tables.entries());
        let bytes = entries * u128::from(self.measured.bytes) / u128::from(self.measured.entries);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// All state, by state name.
    pub fn snapshot(&mut self) -> BTreeMap<String, StateSnapshot> {
        let room = self.size_bytes() / (self.descriptors.len().max(1) as u64);
        let grouped = || GroupedEntries::new(self.max_parallelism, self.owned.as_range(), room);
        let mut entries: Vec<_> = self.descriptors.iter().map(|_| grouped()).collect();
        self.tables.append(&mut entries);
        let states = self.descriptors.iter().zip(entries).map(|(descriptor, entries)| {
            let (descriptor, key_schema) = (descriptor.clone(), self.key_schema.clone());
            let groups = entries.into_groups().collect();
            (descriptor.name.clone(), StateSnapshot { descriptor, key_schema, groups })
        });
        let states: BTreeMap<_, _> = states.collect();
        let entries = states.values().flat_map(|state| state.groups.values());
        self.measured = Measure {
            entries: self.tables.entries(),
            bytes: entries.map(|entries| entries.0.len() as u64).sum(),
        };
        states
    }

    /// Adds the state of a snapshot, as far as this subtask owns it. After a change of parallelism it is called with
    /// the snapshots of several subtasks in turn.
    ///
    /// # Errors
    /// When a state is not declared or has another type, or the bytes are damaged.
    pub fn restore(&mut self, states: &BTreeMap<String, StateSnapshot>) -> Result<(), RestoreError> {
        for (name, state) in states {
            let column = self.column_for(name, state)?;
            let owned = state.groups.range(self.owned.as_range());
            for (group, entries) in owned {
                self.restore_entries(column, name, *group, &entries.0)?;
                self.measured.bytes += entries.0.len() as u64;
            }
        }
        self.measured.entries = self.tables.entries();
        Ok(())
    }

    /// The position of the declared state which a restored one continues.
    fn column_for(&self, name: &str, found: &StateSnapshot) -> Result<usize, RestoreError> {
        let (operator, state) = (self.operator.clone(), name.to_string());
        let Some(column) = self.descriptors.iter().position(|descriptor| descriptor.name == name) else {
            return Err(RestoreError::Undeclared { operator, state });
        };
        let declared = &self.descriptors[column];
        if declared.kind != found.descriptor.kind || declared.fingerprint != found.descriptor.fingerprint {
            let describe =
                |descriptor: &StateDescriptor| format!("{:?} of {:?}", descriptor.kind, descriptor.schema);
            let (found, declared) = (describe(&found.descriptor), describe(declared));
            return Err(RestoreError::Changed { operator, state, found, declared });
        }
        if self.key_schema.fingerprint() != found.key_schema.fingerprint() {
            let (found, declared) = (format!("{:?}", found.key_schema), format!("{:?}", self.key_schema));
            return Err(RestoreError::KeyChanged { operator, state, found, declared });
        }
        Ok(column)
    }

    fn restore_entries(
        &mut self,
        column: usize,
        state: &str,
        group: KeyGroup,
        mut bytes: &[u8],
    ) -> Result<(), RestoreError> {
        let names = || (self.operator.clone(), state.to_string());
        let damaged = |error: DecodeError, (operator, state)| RestoreError::Damaged {
            operator,
            state,
            reason: error.to_string(),
        };
        while !bytes.is_empty() {
            let key = K::decode(&mut bytes).map_err(|error| damaged(error, names()))?;
            let now = key_group(key_hash(&key, &mut self.scratch), self.max_parallelism);
            if now != group {
                let (operator, state) = names();
                return Err(RestoreError::OtherGroup { operator, state, found: group, now });
            }
            let decoded = self.tables.decode(column, key, &mut bytes);
            decoded.map_err(|error| damaged(error, names()))?;
        }
        Ok(())
    }
}

/// A store at one of its keys.
pub struct AtKey<'a, K> {
    tables: &'a mut Tables<K>,
}

impl<K: StateKey> AtKey<'_, K> {
    /// The key.
    #[inline]
    pub fn key(&self) -> &K {
        self.tables.key()
    }

    /// The key as a value. The first time it costs no copy, unless the key is new.
    #[inline]
    pub fn take_key(&mut self) -> K {
        self.tables.take_key()
    }
}

impl<K: StateKey> Accessor for AtKey<'_, K> {
    type Key = K;

    #[inline]
    fn tables(&self) -> &Tables<K> {
        self.tables
    }

    #[inline]
    fn tables_mut(&mut self) -> &mut Tables<K> {
        self.tables
    }
}
