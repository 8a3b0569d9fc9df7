//! Timers in memory: by their time, and for each time the keys.
//!
//! Registering is one step down a tree of times, of which windows have few, and one look-up in a hash table. Invariant: no bucket is empty;
//! `len` counts the timers of all.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use thalweg_common::Timestamp;

use crate::key_table::KeyTable;
use crate::tables::StateKey;

/// All timers of one domain.
pub(super) struct Buckets<K> {
    buckets: BTreeMap<Timestamp, Bucket<K>>,
    len: usize,
}

/// The keys of one time.
enum Bucket<K> {
    /// Times of the clock hardly meet each other.
    One(K),
    Many(Box<Many<K>>),
}

struct Many<K> {
    keys: KeyTable<K, ()>,
    /// The place from which keys are taken out next.
    hand: usize,
}

impl<K> Default for Buckets<K> {
    fn default() -> Self {
        Self { buckets: BTreeMap::new(), len: 0 }
    }
}

impl<K: StateKey> Buckets<K> {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn earliest(&self) -> Option<Timestamp> {
        self.buckets.first_key_value().map(|(at, _)| *at)
    }

    pub(super) fn insert(&mut self, at: Timestamp, key: &K) {
        let is_new = match self.buckets.entry(at) {
            Entry::Vacant(entry) => {
                entry.insert(Bucket::One(key.clone()));
                true
            }
            Entry::Occupied(mut entry) => entry.get_mut().insert(key),
        };
        self.len += usize::from(is_new);
    }

    pub(super) fn remove(&mut self, at: Timestamp, key: &K) {
        let Entry::Occupied(mut entry) = self.buckets.entry(at) else { return };
        let (was_there, is_empty) = match entry.get_mut() {
            Bucket::One(only) => (only == key, only == key),
            Bucket::Many(many) => {
                let position = many.keys.find(key).position;
                position.map(|position| many.keys.remove(position));
                (position.is_some(), many.keys.len() == 0)
            }
        };
        self.len -= usize::from(was_there);
        if is_empty {
            entry.remove();
        }
    }

    /// Takes out up to `max` timers until a time, the earliest first.
    pub(super) fn take_due(
        &mut self,
        until: Timestamp,
        max: usize,
        times: &mut Vec<Timestamp>,
        keys: &mut Vec<K>,
    ) {
        while times.len() < max {
            let Some(mut entry) = self.buckets.first_entry().filter(|entry| *entry.key() <= until) else {
                return;
            };
            let at = *entry.key();
            if let Bucket::Many(many) = entry.get_mut() {
                while times.len() < max
                    && let Some(key) = many.take()
                {
                    times.push(at);
                    keys.push(key);
                    self.len -= 1;
                }
                if many.keys.len() == 0 {
                    entry.remove();
                }
            } else if let Bucket::One(key) = entry.remove() {
                times.push(at);
                keys.push(key);
                self.len -= 1;
            }
        }
    }

    /// All timers, in the order of their times.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Timestamp, &K)> {
        self.buckets.iter().flat_map(|(at, bucket)| {
            let (one, many) = match bucket {
                Bucket::One(key) => (Some(key), None),
                Bucket::Many(many) => (None, Some(many.keys.iter().map(|(key, ())| key))),
            };
            one.into_iter().chain(many.into_iter().flatten()).map(|key| (*at, key))
        })
    }
}

impl<K: StateKey> Bucket<K> {
    /// Whether the key was not there.
    fn insert(&mut self, key: &K) -> bool {
        match self {
            Self::One(only) if only == key => false,
            Self::One(only) => {
                let mut keys = KeyTable::default();
                for key in [&*only, key] {
                    keys.insert(keys.find(key).hash, key.clone(), ());
                }
                *self = Self::Many(Box::new(Many { keys, hand: 0 }));
                true
            }
            Self::Many(many) => {
                let found = many.keys.find(key);
                if found.position.is_none() {
                    many.keys.insert(found.hash, key.clone(), ());
                }
                found.position.is_none()
            }
        }
    }
}

impl<K: StateKey> Many<K> {
    /// Takes out any key.
    fn take(&mut self) -> Option<K> {
        if self.keys.len() == 0 {
            return None;
        }
        loop {
            self.hand %= self.keys.capacity();
            if self.keys.row_at(self.hand).is_some() {
                // Another row may move to this place: the hand stays.
                return Some(self.keys.remove(self.hand).0);
            }
            self.hand += 1;
        }
    }
}
