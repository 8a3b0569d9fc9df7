//! The table of a combiner: what it holds of each key, in the order in which the keys were first seen.
//!
//! Stands inside the combiner. A hash table of positions leads into a list of entries; both keep their memory when they
//! are emptied. The hash is seeded at random, so that nobody can choose keys that collide; the order does not depend on
//! it.

use std::hash::BuildHasher;
use std::vec;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use thalweg_common::Timestamp;
use thalweg_common::limits::COMBINER_KEYS;

use super::Combiner;
use crate::batch::{Batch, Timestamps};
use crate::operator::Key;

/// Positions are numbered by this.
type Position = u32;

const _: () = assert!(COMBINER_KEYS <= Position::MAX as usize, "every entry has a position");

pub(super) struct Table<K, S> {
    /// Each with the latest timestamp of its records.
    entries: Batch<(K, S)>,
    positions: HashTable<Position>,
    hasher: RandomState,
}

impl<K, S> Default for Table<K, S> {
    fn default() -> Self {
        Self { entries: Batch::default(), positions: HashTable::new(), hasher: RandomState::default() }
    }
}

impl<K: Key, S> Table<K, S> {
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds a record; says whether it is the first of its key.
    #[inline]
    pub(super) fn add<In, C: Combiner<In, Slot = S>>(
        &mut self,
        combiner: &C,
        key: K,
        record: In,
        timestamp: Timestamp,
    ) -> bool {
        let Self { entries, positions, hasher } = self;
        let hash = hasher.hash_one(&key);
        let own = entries.records();
        if let Some(position) = positions.find(hash, |position| own[*position as usize].0 == key) {
            let position = *position as usize;
            combiner.add(&mut entries.records_mut()[position].1, record);
            entries.raise_timestamp(position, timestamp);
            return false;
        }
        let position = entries.len() as Position;
        positions.insert_unique(hash, position, |position| hasher.hash_one(&own[*position as usize].0));
        entries.push_with_timestamp((key, combiner.first(record)), timestamp);
        true
    }

    /// Empties it. Its memory stays.
    pub(super) fn drain(&mut self) -> (vec::Drain<'_, (K, S)>, Timestamps<'_>) {
        if !self.entries.is_empty() {
            self.positions.clear();
        }
        self.entries.drain_parts()
    }
}
