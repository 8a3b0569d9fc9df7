//! The keyed store of one operator's subtask: the states of all its keys, in memory alone or in a cache over a [`Backend`].
//!
//! Invariants: it holds exactly the keys that have state; all of them belong to key groups that the subtask owns. In a cache a
//! key has a row before it is selected, so that handles never wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashSet;
use thalweg_common::Timestamp;
use thalweg_common::clock::SharedClock;
use thalweg_common::graph::{StateDescriptor, StateKind};
use thalweg_common::id::CheckpointId;
use thalweg_common::key_group::{KeyGroup, KeyGroupRange, key_group, key_hash};
use thalweg_common::limits::{EPOCH_CHUNK_BYTES, EXPIRY_PLACES, TIMERS_SHARE};
use thalweg_common::record::{DecodeError, Record};

use crate::backend::{Backend, StoreDescription};
use crate::cache::batch::{EntryBatch, MapKey, put_key, split_key};
use crate::cache::persistent::{CacheOptions, Drained, Persistent};
use crate::declare::Declarations;
use crate::epoch::FrozenEpoch;
use crate::error::{DuplicateState, ForeignKey, RestoreError, SelectError, StoreError};
use crate::grouped::GroupedEntries;
use crate::key_table::Found;
use crate::snapshot::StateSnapshot;
use crate::tables::{Accessor, StateKey, Tables};
use crate::timers::{DiskTimers, Timers};

mod timers;

/// All keyed state of one subtask of an operator.
pub struct KeyedStore<K> {
    operator: String,
    description: StoreDescription,
    tables: Tables<K>,
    /// What lies behind the tables, if they are a cache.
    behind: Option<Box<Persistent>>,
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
    /// An empty memory store for the declared states of `operator` (its name, for messages), owning the key groups `owned`.
    ///
    /// # Errors
    /// When two states have the same name.
    pub fn new(
        operator: &str,
        declarations: Declarations<K>,
        max_parallelism: u32,
        owned: KeyGroupRange,
    ) -> Result<Self, DuplicateState> {
        let (descriptors, has_timers) = (declarations.descriptors()?, declarations.has_timers());
        let mut tables = Tables::new(declarations.into_declared()?);
        tables.timers = has_timers.then(|| Box::new(Timers::in_memory()));
        Ok(Self::of(operator, descriptors, max_parallelism, owned, tables, None))
    }

    /// A store for the declared states of `operator` with what is in `backend`, whose states must have the same numbers: the
    /// tables are a cache over it.
    ///
    /// # Errors
    /// When two states have the same name.
    pub fn with_backend(
        operator: &str,
        declarations: Declarations<K>,
        max_parallelism: u32,
        owned: KeyGroupRange,
        backend: Arc<dyn Backend>,
        options: CacheOptions,
    ) -> Result<Self, DuplicateState> {
        let (descriptors, has_timers) = (declarations.descriptors()?, declarations.has_timers());
        let declared = declarations.into_declared()?;
        let state = declared.len();
        let mut tables = Tables::cache(declared, max_parallelism);
        let timers = || {
            let bytes = usize::try_from(options.budget_bytes / TIMERS_SHARE).unwrap_or(usize::MAX);
            Box::new(Timers::on_disk(state, owned, max_parallelism, bytes, backend.is_empty()))
        };
        tables.timers = has_timers.then(timers);
        let behind = Some(Box::new(Persistent::new(operator, backend, options)));
        Ok(Self::of(operator, descriptors, max_parallelism, owned, tables, behind))
    }

    fn of(
        operator: &str,
        descriptors: Vec<StateDescriptor>,
        max_parallelism: u32,
        groups: KeyGroupRange,
        tables: Tables<K>,
        behind: Option<Box<Persistent>>,
    ) -> Self {
        Self {
            operator: operator.to_string(),
            description: StoreDescription { descriptors, key_schema: K::schema(), groups, max_parallelism },
            tables,
            behind,
            found: Vec::new(),
            generation: 0,
            measured: Measure::default(),
            scratch: Vec::new(),
        }
    }

    /// The same with this clock in place of the machine's: values of states with a time to live expire by it.
    #[must_use]
    pub fn with_clock(mut self, clock: SharedClock) -> Self {
        self.tables.set_clock(clock);
        self
    }

    /// Goes to `key`: handles work on its state as long as the result lives.
    ///
    /// # Errors
    /// When the key belongs to a key group that this subtask does not own, or its state cannot be read.
    #[inline]
    pub fn select(&mut self, key: K) -> Result<AtKey<'_, K>, SelectError> {
        let found = self.tables.find(&key);
        self.go_to(key, found)
    }

    /// Looks up a batch of keys at once, for [`select_next`](Self::select_next): what lies far away in memory, or behind the
    /// cache, is fetched for all of them together.
    ///
    /// # Errors
    /// When their state cannot be read.
    pub fn look_up(&mut self, keys: &[K]) -> Result<(), StoreError> {
        if self.tables.has_ttl() && self.behind.is_none() {
            self.tables.expire(keys.len().min(EXPIRY_PLACES));
        }
        self.settle_timers()?;
        self.find(keys)
    }

    /// What is needed of these keys is fetched.
    fn find(&mut self, keys: &[K]) -> Result<(), StoreError> {
        self.found.clear();
        self.tables.find_all(keys, &mut self.found);
        if let Some(behind) = &mut self.behind
            && self.found.iter().any(|found| found.position.is_none())
        {
            behind.load(&mut self.tables, &self.description, keys, &self.found)?;
            self.found.clear();
            self.tables.find_all(keys, &mut self.found);
        }
        self.generation = self.tables.generation();
        Ok(())
    }

    /// Goes to the key at `index` of the last [`look_up`](Self::look_up), which is `key`.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    #[inline]
    pub fn select_next(&mut self, index: usize, key: K) -> Result<AtKey<'_, K>, SelectError> {
        let found = match self.found.get(index) {
            Some(found) if found.position.is_some() && self.generation == self.tables.generation() => *found,
            // It may have come since, with an earlier record, or may have moved.
            Some(found) => Found { position: self.tables.position(found.hash, &key), ..*found },
            None => self.tables.find(&key),
        };
        self.go_to(key, found)
    }

    #[inline]
    fn go_to(&mut self, key: K, mut found: Found) -> Result<AtKey<'_, K>, SelectError> {
        if found.position.is_none() {
            // Keys with state were checked when they came; only new ones cost an encoding.
            found.position = self.admit(&key, found)?;
        }
        self.tables.select(key, found);
        Ok(AtKey { tables: &mut self.tables })
    }

    /// Checks a key that has no row. In a cache it gets one.
    #[cold]
    fn admit(&mut self, key: &K, found: Found) -> Result<Option<usize>, SelectError> {
        let group = key_group(key_hash(key, &mut self.scratch), self.description.max_parallelism);
        let owned = self.description.groups;
        if !owned.contains(group) {
            return Err(ForeignKey { operator: self.operator.clone(), group, owned }.into());
        }
        let Some(behind) = &mut self.behind else { return Ok(None) };
        behind.load(&mut self.tables, &self.description, std::slice::from_ref(key), &[found])?;
        Ok(self.tables.position(found.hash, key))
    }

    /// All keys that have state, in no particular order. Some may have only such that has expired.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn keys(&self) -> Result<Vec<K>, StoreError> {
        let cached = self.tables.keys().cloned();
        let Some(behind) = self.behind.as_ref().filter(|behind| !behind.is_complete()) else {
            return Ok(cached.collect());
        };
        let mut keys: HashSet<K, foldhash::fast::RandomState> = cached.collect();
        let states = self.description.descriptors.iter().enumerate();
        for (state, descriptor) in states.filter(|(_, descriptor)| descriptor.kind != StateKind::Timers) {
            behind.backend.scan(state, &[], &mut |stored, _| {
                let (_, mut key, _) = self.parts(descriptor, stored)?;
                let key = K::decode(&mut key).map_err(|error| self.damaged(descriptor, &error))?;
                if self.tables.find(&key).position.is_none() {
                    keys.insert(key);
                }
                Ok(())
            })?;
        }
        Ok(keys.into_iter().collect())
    }

    /// About how many bytes the state takes: as many as its snapshot would have, going by the last one; before the first
    /// snapshot, the memory of keys and values without what they hold on the heap. With a backend, what that takes on disk, if
    /// it is more.
    pub fn size_bytes(&self) -> u64 {
        if let Some(behind) = &self.behind {
            return behind.backend.size_bytes().max(self.tables.bytes());
        }
        if self.measured.entries == 0 {
            return self.tables.bytes() + self.timer_bytes();
        }
        let entries = u128::from(self.entries());
        let bytes = entries * u128::from(self.measured.bytes) / u128::from(self.measured.entries);
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Memory of the cache, if this is one.
    pub fn cache_bytes(&self) -> u64 {
        self.tables.cache_bytes().0 as u64 + self.timer_bytes()
    }

    /// How often the task that owns the store has stood still since it was opened, because memory or the disk had to follow, and how
    /// long in all. Never for a memory store.
    pub fn stalls(&self) -> (u64, Duration) {
        self.behind.as_ref().map_or_else(Default::default, |behind| behind.stalls())
    }

    /// Keys of which everything is known in memory.
    pub fn cache_rows(&self) -> usize {
        self.tables.len()
    }

    /// Freezes what has changed since the last barrier. Takes microseconds, unless the epoch before is not encoded yet. The task
    /// then calls [`drain`](Self::drain) while another thread works on the result. `None` for a memory store.
    ///
    /// # Errors
    /// When the epoch before is not written in time, or the store has failed.
    pub fn freeze(&mut self, checkpoint: CheckpointId) -> Result<Option<FrozenEpoch>, StoreError> {
        let Some(behind) = &mut self.behind else { return Ok(None) };
        behind.freeze(&mut self.tables, checkpoint, self.description.clone()).map(Some)
    }

    /// Encodes about so many bytes of the frozen epoch, if there is one: to be called between batches until it says
    /// [`Drained::All`].
    ///
    /// # Errors
    /// When the store has failed.
    pub fn drain(&mut self, limit_bytes: usize) -> Result<Drained, StoreError> {
        match &mut self.behind {
            Some(behind) => behind.drain(&mut self.tables, limit_bytes),
            None => Ok(Drained::All),
        }
    }

    /// All state that has not expired, by state name, in the canonical form that every store reads.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn snapshot(&mut self) -> Result<BTreeMap<String, StateSnapshot>, StoreError> {
        if let Some(timers) = &mut self.tables.timers {
            timers.put_back();
        }
        let StoreDescription { descriptors, key_schema, groups, max_parallelism } = &self.description;
        let room =
            if self.behind.is_some() { 0 } else { self.size_bytes() / (descriptors.len().max(1) as u64) };
        let grouped = || GroupedEntries::new(*max_parallelism, groups.as_range(), room);
        let mut entries: Vec<_> = descriptors.iter().map(|_| grouped()).collect();
        let states = descriptors.iter().filter(|state| state.kind != StateKind::Timers).count();
        self.append_behind(&mut entries)?;
        self.tables.append(&mut entries[..states]);
        self.append_timers(&mut entries[states..])?;
        let states = descriptors.iter().zip(entries).map(|(descriptor, entries)| {
            let (descriptor, key_schema) = (descriptor.clone(), key_schema.clone());
            let groups = entries.into_groups().collect();
            (descriptor.name.clone(), StateSnapshot { descriptor, key_schema, groups })
        });
        let states: BTreeMap<_, _> = states.collect();
        let entries = states.values().flat_map(|state| state.groups.values());
        self.measured =
            Measure { entries: self.entries(), bytes: entries.map(|entries| entries.0.len() as u64).sum() };
        Ok(states)
    }

    /// Appends the entries of all keys that have no row in the cache.
    fn append_behind(&self, entries: &mut [GroupedEntries]) -> Result<(), StoreError> {
        let Some(behind) = &self.behind else { return Ok(()) };
        let now_ms = self.tables.now_ms();
        let states = self.description.descriptors.iter().enumerate().zip(entries);
        for ((state, descriptor), entries) in states.filter(|((_, state), _)| state.kind != StateKind::Timers)
        {
            behind.backend.scan(state, &[], &mut |stored, value| {
                if descriptor.ttl.is_some_and(|ttl| ttl.is_over_stored(value, now_ms)) {
                    return Ok(());
                }
                let (group, key, map_key) = self.parts(descriptor, stored)?;
                let decoded = K::decode(&mut &*key).map_err(|error| self.damaged(descriptor, &error))?;
                if self.tables.find(&decoded).position.is_none() {
                    entries.add(group, [key, &map_key, value]);
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    fn parts<'a>(
        &self,
        descriptor: &StateDescriptor,
        stored: &'a [u8],
    ) -> Result<(KeyGroup, &'a [u8], MapKey<'a>), StoreError> {
        split_key(descriptor.kind, stored).ok_or_else(|| self.damaged(descriptor, &"a key of it has no end"))
    }

    fn damaged(&self, descriptor: &StateDescriptor, reason: &dyn std::fmt::Display) -> StoreError {
        let (operator, state) = (self.operator.clone(), descriptor.name.clone());
        StoreError::Damaged { operator, state, reason: reason.to_string() }
    }

    /// Adds the state of a snapshot, as far as this subtask owns it. After a change of parallelism it is called with
    /// the snapshots of several subtasks in turn.
    ///
    /// # Errors
    /// When a state is not declared or has another type, or the bytes are damaged.
    pub fn restore(&mut self, states: &BTreeMap<String, StateSnapshot>) -> Result<(), RestoreError> {
        let mut batch = EntryBatch::default();
        for (name, state) in states {
            let column = self.column_for(name, state)?;
            if let Some(timers) = &mut self.tables.timers {
                timers.disks_mut().for_each(DiskTimers::forget_head);
            }
            let owned = state.groups.range(self.description.groups.as_range());
            for (group, entries) in owned {
                self.restore_entries(column, name, *group, &entries.0, &mut batch)?;
                self.measured.bytes += entries.0.len() as u64;
            }
        }
        if let Some(behind) = self.behind.as_mut().filter(|_| !batch.is_empty()) {
            behind.ingest(batch)?;
        }
        self.measured.entries = self.entries();
        Ok(())
    }

    /// The position of the declared state which a restored one continues.
    fn column_for(&self, name: &str, found: &StateSnapshot) -> Result<usize, RestoreError> {
        let (operator, state) = (self.operator.clone(), name.to_string());
        let Some(column) = self.description.descriptors.iter().position(|descriptor| descriptor.name == name)
        else {
            return Err(RestoreError::Undeclared { operator, state });
        };
        let declared = &self.description.descriptors[column];
        if declared.kind != found.descriptor.kind || declared.fingerprint != found.descriptor.fingerprint {
            let describe =
                |descriptor: &StateDescriptor| format!("{:?} of {:?}", descriptor.kind, descriptor.schema);
            let (found, declared) = (describe(&found.descriptor), describe(declared));
            return Err(RestoreError::Changed { operator, state, found, declared });
        }
        if self.description.key_schema.fingerprint() != found.key_schema.fingerprint() {
            let (found, declared) =
                (format!("{:?}", found.key_schema), format!("{:?}", self.description.key_schema));
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
        batch: &mut EntryBatch,
    ) -> Result<(), RestoreError> {
        let operator = self.operator.clone();
        let names = || (operator.clone(), state.to_string());
        let kind = self.description.descriptors[column].kind;
        let damaged = |error: DecodeError, (operator, state)| RestoreError::Damaged {
            operator,
            state,
            reason: error.to_string(),
        };
        while !bytes.is_empty() {
            let entry = bytes;
            let key = K::decode(&mut bytes).map_err(|error| damaged(error, names()))?;
            let key_bytes = entry.len() - bytes.len();
            let now = key_group(key_hash(&key, &mut self.scratch), self.description.max_parallelism);
            if now != group {
                let (operator, state) = names();
                return Err(RestoreError::OtherGroup { operator, state, found: group, now });
            }
            if kind == StateKind::Timers {
                let at = Timestamp::decode(&mut bytes).map_err(|error| damaged(error, names()))?;
                self.restore_timer(column, group, at, key, batch);
                continue;
            }
            let Some(behind) = &mut self.behind else {
                let decoded = self.tables.decode(column, key, &mut bytes);
                decoded.map_err(|error| damaged(error, names()))?;
                continue;
            };
            let map_key_bytes =
                self.tables.skip(column, &mut bytes).map_err(|error| damaged(error, names()))?;
            let (key, rest) = entry[..entry.len() - bytes.len()].split_at(key_bytes);
            let (map_key, value) = rest.split_at(map_key_bytes);
            let put = |out: &mut Vec<u8>| {
                put_key(out, kind, group, key);
                out.extend_from_slice(map_key);
            };
            batch.put(column, put, Some(|out: &mut Vec<u8>| out.extend_from_slice(value)));
            if batch.size_bytes() >= EPOCH_CHUNK_BYTES {
                behind.ingest(std::mem::take(batch))?;
            }
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
