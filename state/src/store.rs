//! The keyed store of one operator's subtask: the dictionary of its keys and the columns of its states.
//!
//! Invariants: the dictionary holds exactly the keys that have state (and, while it is selected, not yet the new one);
//! all of them belong to key groups that the subtask owns.

use std::collections::BTreeMap;
use std::hash::Hash;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use thalweg_common::graph::StateDescriptor;
use thalweg_common::key_group::{KeyGroup, KeyGroupRange, key_group, key_hash};
use thalweg_common::record::{DecodeError, Record};
use thalweg_common::schema::Schema;

use crate::declare::Declarations;
use crate::error::{DuplicateState, ForeignKey, RestoreError};
use crate::snapshot::{Entries, StateSnapshot};
use crate::tables::{Accessor, Tables};

/// All keyed state of one subtask of an operator, in memory.
pub struct KeyedStore<K> {
    operator: String,
    descriptors: Vec<StateDescriptor>,
    key_schema: Schema,
    max_parallelism: u32,
    owned: KeyGroupRange,
    keys: HashMap<K, Known, RandomState>,
    tables: Tables,
    /// Entries and encoded bytes of the last snapshot or restore: how much an entry takes.
    measured: Measure,
    scratch: Vec<u8>,
}

/// A key with state.
#[derive(Debug, Clone, Copy)]
struct Known {
    number: u32,
    group: KeyGroup,
}

#[derive(Debug, Clone, Copy, Default)]
struct Measure {
    entries: u64,
    bytes: u64,
}

impl<K: Record + Eq + Hash> KeyedStore<K> {
    /// An empty store for the declared states of `operator` (its name, for messages), owning the key groups `owned`.
    ///
    /// # Errors
    /// When two states have the same name.
    pub fn new(
        operator: &str,
        declarations: Declarations,
        max_parallelism: u32,
        owned: KeyGroupRange,
    ) -> Result<Self, DuplicateState> {
        let declared = declarations.into_declared()?.into_iter();
        let (descriptors, columns) = declared.map(|state| (state.descriptor, state.column)).unzip();
        Ok(Self {
            operator: operator.to_string(),
            descriptors,
            key_schema: K::schema(),
            max_parallelism,
            owned,
            keys: HashMap::default(),
            tables: Tables::new(columns),
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
        let (known, is_new) = match self.keys.get(&key) {
            Some(known) => (*known, false),
            // Keys with state were checked when they came; only new ones cost an encoding.
            None => (self.admit(&key)?, true),
        };
        self.tables.select(known.number);
        Ok(AtKey { keys: &mut self.keys, tables: &mut self.tables, key, known, is_new })
    }

    #[cold]
    fn admit(&mut self, key: &K) -> Result<Known, ForeignKey> {
        let group = key_group(key_hash(key, &mut self.scratch), self.max_parallelism);
        if !self.owned.contains(group) {
            return Err(ForeignKey { operator: self.operator.clone(), group, owned: self.owned });
        }
        Ok(Known { number: self.tables.allocate(), group })
    }

    /// All keys that have state, in no particular order.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.keys.keys()
    }

    /// How many keys have state.
    pub fn key_count(&self) -> usize {
        self.keys.len()
    }

    /// About how many bytes the state takes: as many as its snapshot would have, going by the last one; before the first
    /// snapshot, the memory of keys and values without what they hold on the heap.
    pub fn size_bytes(&self) -> u64 {
        let columns = self.tables.columns();
        let entries: u64 = columns.iter().map(|column| column.entries() as u64).sum();
        if self.measured.entries > 0 {
            let bytes =
                u128::from(entries) * u128::from(self.measured.bytes) / u128::from(self.measured.entries);
            return u64::try_from(bytes).unwrap_or(u64::MAX);
        }
        let values: usize = columns.iter().map(|column| column.entries() * column.entry_bytes()).sum();
        (values + self.keys.len() * size_of::<(K, Known)>()) as u64
    }

    /// All state, by state name.
    pub fn snapshot(&mut self) -> BTreeMap<String, StateSnapshot> {
        let columns = self.tables.columns();
        let mut groups: Vec<BTreeMap<KeyGroup, Entries>> = vec![BTreeMap::new(); columns.len()];
        let mut encoded = std::mem::take(&mut self.scratch);
        for (key, known) in &self.keys {
            encoded.clear();
            key.encode(&mut encoded);
            for (column, groups) in columns.iter().zip(&mut groups) {
                let entries = groups.entry(known.group).or_default();
                column.append(known.number as usize, &encoded, &mut entries.0);
            }
        }
        self.scratch = encoded;
        for groups in &mut groups {
            groups.retain(|_, entries| !entries.0.is_empty());
        }
        self.measured = Measure {
            entries: columns.iter().map(|column| column.entries() as u64).sum(),
            bytes: groups.iter().flat_map(BTreeMap::values).map(|entries| entries.0.len() as u64).sum(),
        };
        let state = |(descriptor, groups): (&StateDescriptor, _)| {
            let state =
                StateSnapshot { descriptor: descriptor.clone(), key_schema: self.key_schema.clone(), groups };
            (descriptor.name.clone(), state)
        };
        self.descriptors.iter().zip(groups).map(state).collect()
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
        self.measured.entries = self.tables.columns().iter().map(|column| column.entries() as u64).sum();
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
            let number = match self.keys.get(&key) {
                Some(known) => known.number,
                None => {
                    let now = key_group(key_hash(&key, &mut self.scratch), self.max_parallelism);
                    if now != group {
                        let (operator, state) = names();
                        return Err(RestoreError::OtherGroup { operator, state, found: group, now });
                    }
                    let number = self.tables.allocate();
                    self.keys.insert(key, Known { number, group });
                    number
                }
            };
            let decoded = self.tables.decode(column, number, &mut bytes);
            decoded.map_err(|error| damaged(error, names()))?;
        }
        Ok(())
    }
}

/// A store at one of its keys.
pub struct AtKey<'a, K: Record + Eq + Hash> {
    keys: &'a mut HashMap<K, Known, RandomState>,
    tables: &'a mut Tables,
    key: K,
    known: Known,
    /// Whether the key had no state when it was selected.
    is_new: bool,
}

impl<K: Record + Eq + Hash> AtKey<'_, K> {
    /// The key.
    pub fn key(&self) -> &K {
        &self.key
    }
}

impl<K: Record + Eq + Hash> Accessor for AtKey<'_, K> {
    #[inline]
    fn tables(&self) -> &Tables {
        self.tables
    }

    #[inline]
    fn tables_mut(&mut self) -> &mut Tables {
        self.tables
    }
}

impl<K: Record + Eq + Hash> Drop for AtKey<'_, K> {
    /// Enters a key that got state, and forgets one that has none any more.
    #[inline]
    fn drop(&mut self) {
        match (self.is_new, self.tables.is_live(self.known.number)) {
            (false, true) => {}
            (true, true) => {
                self.keys.insert(self.key.clone(), self.known);
            }
            (true, false) => self.tables.release(self.known.number),
            (false, false) => {
                self.keys.remove(&self.key);
                self.tables.release(self.known.number);
            }
        }
    }
}
