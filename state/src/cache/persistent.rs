//! The cache and what lies behind it: loading rows, making room, freezing and draining epochs.

use std::sync::Arc;
use std::time::Duration;

use thalweg_common::graph::{StateDescriptor, StateKind};
use thalweg_common::id::CheckpointId;
use thalweg_common::key_group::{KeyGroup, encoded_key_hash, key_group};
use thalweg_common::limits::{EPOCH_BATCH_BYTES, EPOCH_WAIT_MS, EVICTED_BYTES, EVICTED_ROWS};

use super::batch::{EntryBatch, put_key, split_key};
use crate::backend::{SharedBackend, StoreDescription};
use crate::epoch::{EpochSender, FrozenEpoch, Gate, Sent};
use crate::error::StoreError;
use crate::key_table::{Found, KeyTable};
use crate::tables::{StateKey, Tables};

/// How large a cache may be, and how long its task waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheOptions {
    /// Memory of the cache. It is exceeded only by what the keys of one batch take together, and, for the moment in which a
    /// table grows, by the old table.
    pub budget_bytes: u64,
    /// How long the task waits when the cache is full of changes that belong to a checkpoint which is not written yet.
    pub epoch_wait: Duration,
}

impl CacheOptions {
    /// A cache of this size.
    pub fn with_budget(budget_bytes: u64) -> Self {
        Self { budget_bytes, epoch_wait: Duration::from_millis(EPOCH_WAIT_MS) }
    }
}

/// How far the frozen epoch is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// To its end, or none is frozen.
    All,
    /// There is more.
    Some,
    /// There is more, but the writer must take what is there first.
    Behind,
}

/// What a cache has beside its tables.
pub(crate) struct Persistent {
    operator: String,
    pub(crate) backend: SharedBackend,
    options: CacheOptions,
    /// Every key that has state has a row: what has none need not be looked for.
    is_complete: bool,
    gate: Arc<Gate>,
    frozen_epochs: u64,
    sender: Option<EpochSender>,
    evicted: EntryBatch,
    misses: Misses,
}

/// Keys that have no row, encoded.
#[derive(Default)]
struct Misses {
    bytes: Vec<u8>,
    /// The index of each key, its group, and where its encoding is.
    keys: Vec<Miss>,
}

type Miss = (usize, KeyGroup, std::ops::Range<usize>);

impl Persistent {
    pub(crate) fn new(operator: &str, backend: SharedBackend, options: CacheOptions) -> Self {
        Self {
            operator: operator.to_string(),
            is_complete: backend.is_empty(),
            backend,
            options,
            gate: Arc::default(),
            frozen_epochs: 0,
            sender: None,
            evicted: EntryBatch::default(),
            misses: Misses::default(),
        }
    }

    /// Whether every key that has state has a row.
    pub(crate) fn is_complete(&self) -> bool {
        self.is_complete
    }

    /// Entries come in from elsewhere.
    pub(crate) fn ingest(&mut self, batch: EntryBatch) -> Result<(), StoreError> {
        self.is_complete = false;
        self.backend.ingest(batch)
    }

    /// Loads the rows of keys that have none: those of `keys` which `found` did not find and which this subtask owns. Their
    /// positions are to be looked up again.
    pub(crate) fn load<K: StateKey>(
        &mut self,
        tables: &mut Tables<K>,
        description: &StoreDescription,
        keys: &[K],
        found: &[Found],
    ) -> Result<(), StoreError> {
        let mut misses = std::mem::take(&mut self.misses);
        misses.collect(description, keys, found);
        let result = self.load_misses(tables, description, keys, found, &mut misses);
        self.misses = misses;
        // Rows without what belongs into them must not be taken for keys without state.
        result.inspect_err(|error| match error {
            StoreError::Behind { .. } => {}
            _ => self.gate.fail(error.to_string()),
        })
    }

    fn load_misses<K: StateKey>(
        &mut self,
        tables: &mut Tables<K>,
        description: &StoreDescription,
        keys: &[K],
        found: &[Found],
        misses: &mut Misses,
    ) -> Result<(), StoreError> {
        self.make_room(tables, misses.keys.len())?;
        if self.is_complete {
            // None of them has state. One that is there twice gets one row.
            for (index, ..) in &misses.keys {
                if tables.position(found[*index].hash, &keys[*index]).is_none() {
                    tables.admit(keys[*index].clone(), found[*index].hash);
                }
            }
            return Ok(());
        }
        misses.sort();
        for (index, ..) in &misses.keys {
            tables.admit(keys[*index].clone(), found[*index].hash);
        }
        let mut buffer = Vec::new();
        let of_tables = |(_, descriptor): &(usize, &StateDescriptor)| descriptor.kind != StateKind::Timers;
        for (state, descriptor) in description.descriptors.iter().enumerate().filter(of_tables) {
            let damaged = |error: &dyn std::fmt::Display| StoreError::Damaged {
                operator: self.operator.clone(),
                state: descriptor.name.clone(),
                reason: error.to_string(),
            };
            let stored = misses.stored(descriptor.kind, &mut buffer);
            if descriptor.kind == StateKind::Map {
                for (prefix, key) in stored.iter().zip(&misses.keys) {
                    self.backend.scan(state, prefix, &mut |stored, value| {
                        let (.., map_key) = split_key(StateKind::Map, stored)
                            .ok_or_else(|| damaged(&"a key of it has no end"))?;
                        let entry = [&*map_key, value].concat();
                        tables
                            .fill(state, &keys[key.0], &mut entry.as_slice())
                            .map_err(|error| damaged(&error))
                    })?;
                }
            } else {
                self.backend.get(state, &stored, &mut |index, mut value| {
                    let key = &keys[misses.keys[index].0];
                    tables.fill(state, key, &mut value).map_err(|error| damaged(&error))
                })?;
            }
        }
        if let Some(epochs) = tables.epochs_mut() {
            let keys: usize = misses.keys.iter().map(|(.., range)| range.len()).sum();
            epochs.came_by(keys / misses.keys.len().max(1));
        }
        Ok(())
    }

    /// Makes room for so many rows more.
    fn make_room<K: StateKey>(&mut self, tables: &mut Tables<K>, rows: usize) -> Result<(), StoreError> {
        loop {
            self.settle(tables)?;
            let Some(keep_rows) = self.excess(tables, rows) else { return Ok(()) };
            let before = tables.len();
            let has_left = tables.sweep(keep_rows, &mut self.evicted);
            self.is_complete &= !has_left;
            if !self.evicted.is_empty() {
                let written = self.backend.write(&mut self.evicted);
                self.evicted.clear();
                written.inspect_err(|error| self.gate.fail(error.to_string()))?;
            }
            if tables.len() < before {
                continue;
            }
            if !tables.epochs_mut().is_some_and(|epochs| epochs.is_outstanding()) {
                // What is left are the rows of a batch at most.
                return Ok(());
            }
            self.wait(tables)?;
        }
    }

    /// How many rows may stay when so many more come, if not all of them.
    fn excess<K: StateKey>(&self, tables: &mut Tables<K>, more: usize) -> Option<usize> {
        let budget = usize::try_from(self.options.budget_bytes).unwrap_or(usize::MAX);
        let budget = budget.saturating_sub(tables.timer_bytes());
        let (bytes, growth) = tables.cache_bytes();
        let (rows, places) = tables.rows();
        let per_entry = tables.epochs_mut().map_or(0, |epochs| epochs.bytes_per_entry());
        let (bytes, limit) = (bytes + more * per_entry, KeyTable::<K, ()>::rows_within(places));
        let must_grow = rows + more > limit;
        if bytes + if must_grow { growth } else { 0 } <= budget || rows == 0 {
            return None;
        }
        let mut keep = rows;
        if must_grow && bytes + growth > budget {
            keep = keep.min(limit.saturating_sub(more.max(places / 16)));
        }
        if bytes > budget {
            keep = keep.min((rows as u128 * budget as u128 * 15 / (bytes as u128 * 16)) as usize);
        }
        let at_once = EVICTED_ROWS.min(EVICTED_BYTES / (bytes / rows).max(1)).max(1);
        (keep < rows).then(|| keep.max(rows.saturating_sub(at_once)))
    }

    /// Takes note of epochs that are behind the cache by now.
    fn settle<K: StateKey>(&self, tables: &mut Tables<K>) -> Result<(), StoreError> {
        if let Some(cause) = self.gate.failure() {
            return Err(StoreError::Incomplete { operator: self.operator.clone(), cause });
        }
        tables.sealed(self.frozen_epochs, self.gate.sealed());
        Ok(())
    }

    /// How often its task has waited here, and how long.
    pub(crate) fn stalls(&self) -> (u64, Duration) {
        self.gate.stalls()
    }

    /// Waits until a frozen epoch is a step further behind the cache.
    fn wait<K: StateKey>(&mut self, tables: &mut Tables<K>) -> Result<(), StoreError> {
        let steps = self.gate.steps();
        while self.drain(tables, EPOCH_BATCH_BYTES)? == Drained::Some {}
        if self.frozen_epochs > self.gate.sealed() && !self.gate.wait(steps, self.options.epoch_wait) {
            let waited_ms = self.options.epoch_wait.as_millis() as u64;
            return Err(StoreError::Behind { operator: self.operator.clone(), waited_ms });
        }
        Ok(())
    }

    /// Writes what has changed of the timers, if that has become too much to be kept.
    pub(crate) fn write_timers<K: StateKey>(&mut self, tables: &mut Tables<K>) -> Result<(), StoreError> {
        let is_full = |tables: &mut Tables<K>| {
            tables.timers.iter_mut().flat_map(|timers| timers.disks_mut()).any(|timers| timers.is_full())
        };
        while is_full(tables) {
            self.settle(tables)?;
            if tables.epochs_mut().is_some_and(|epochs| epochs.is_outstanding()) {
                // Nothing younger than a frozen epoch is written.
                self.wait(tables)?;
                continue;
            }
            let mut batch = EntryBatch::default();
            for timers in tables.timers.iter_mut().flat_map(|timers| timers.disks_mut()) {
                timers.write(&mut batch);
            }
            self.backend.ingest(batch).inspect_err(|error| self.gate.fail(error.to_string()))?;
        }
        Ok(())
    }

    /// Freezes what has changed since the last barrier.
    pub(crate) fn freeze<K: StateKey>(
        &mut self,
        tables: &mut Tables<K>,
        checkpoint: CheckpointId,
        description: StoreDescription,
    ) -> Result<FrozenEpoch, StoreError> {
        while self.sender.is_some() {
            // The epoch before must be encoded: usually it was, long ago.
            let steps = self.gate.steps();
            if self.drain(tables, EPOCH_BATCH_BYTES)? == Drained::Behind
                && !self.gate.wait(steps, self.options.epoch_wait)
            {
                let waited_ms = self.options.epoch_wait.as_millis() as u64;
                return Err(StoreError::Behind { operator: self.operator.clone(), waited_ms });
            }
        }
        self.settle(tables)?;
        self.frozen_epochs += 1;
        tables.freeze(self.frozen_epochs);
        let (epoch, sender) = FrozenEpoch::new(
            checkpoint,
            self.frozen_epochs,
            tables.now_ms(),
            &self.operator,
            self.backend.clone(),
            description,
            self.gate.clone(),
        );
        self.sender = Some(sender);
        Ok(epoch)
    }

    /// Encodes about so many bytes more of the frozen epoch.
    pub(crate) fn drain<K: StateKey>(
        &mut self,
        tables: &mut Tables<K>,
        limit_bytes: usize,
    ) -> Result<Drained, StoreError> {
        self.settle(tables)?;
        let Some(sender) = &self.sender else { return Ok(Drained::All) };
        let encoded = tables.epochs_mut().map_or(0, |epochs| epochs.encoded.size_bytes());
        let limit = encoded.saturating_add(limit_bytes.max(1)).min(EPOCH_BATCH_BYTES);
        let is_last = tables.encode_frozen(limit);
        let Some(epochs) = tables.epochs_mut() else { return Ok(Drained::All) };
        if !is_last && epochs.encoded.size_bytes() < EPOCH_BATCH_BYTES {
            return Ok(Drained::Some);
        }
        match sender.send(std::mem::take(&mut epochs.encoded), is_last) {
            Sent::Yes if is_last => {
                self.sender = None;
                Ok(Drained::All)
            }
            Sent::Yes => Ok(Drained::Some),
            Sent::Full(batch) => {
                epochs.encoded = batch;
                Ok(Drained::Behind)
            }
            Sent::Gone => {
                self.gate.fail("the writer of a checkpoint has ended before its end");
                self.settle(tables)?;
                Ok(Drained::Behind)
            }
        }
    }
}

impl Misses {
    fn collect<K: StateKey>(&mut self, description: &StoreDescription, keys: &[K], found: &[Found]) {
        self.bytes.clear();
        self.keys.clear();
        for (index, key) in keys.iter().enumerate() {
            if found[index].position.is_some() {
                continue;
            }
            let start = self.bytes.len();
            key.encode(&mut self.bytes);
            let group = key_group(encoded_key_hash(&self.bytes[start..]), description.max_parallelism);
            // A key of another subtask is refused when it is selected.
            if description.groups.contains(group) {
                self.keys.push((index, group, start..self.bytes.len()));
            }
        }
    }

    /// Brings them into the order in which they are stored, each once.
    fn sort(&mut self) {
        let bytes = &self.bytes;
        let order = |(_, group, range): &Miss| (*group, &bytes[range.clone()]);
        self.keys.sort_unstable_by(|left, right| order(left).cmp(&order(right)));
        self.keys.dedup_by(|left, right| order(left) == order(right));
    }

    /// The keys as they are stored, in `buffer`.
    fn stored<'a>(&self, kind: StateKind, buffer: &'a mut Vec<u8>) -> Vec<&'a [u8]> {
        buffer.clear();
        let mut ends = Vec::with_capacity(self.keys.len());
        for (_, group, range) in &self.keys {
            put_key(buffer, kind, *group, &self.bytes[range.clone()]);
            ends.push(buffer.len());
        }
        let starts = std::iter::once(0).chain(ends.iter().copied());
        starts.zip(&ends).map(|(start, end)| &buffer[start..*end]).collect()
    }
}
