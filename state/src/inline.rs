//! The layout of a memory store whose only state lies beside its keys.

use std::any::Any;

use thalweg_common::record::{DecodeError, Record};

use crate::grouped::GroupedEntries;
use crate::key_table::{Found, KeyTable};
use crate::tables::{At, StateKey};

/// A key table whose values are the operator's only state.
pub(crate) trait InlineTable<K>: Any + Send {
    fn find(&self, key: &K) -> Found;
    fn find_all(&self, keys: &[K], found: &mut Vec<Found>);
    fn position(&self, hash: u64, key: &K) -> Option<usize>;
    fn generation(&self) -> u64;
    fn len(&self) -> usize;
    fn row_bytes(&self) -> usize;
    fn key(&self, position: usize) -> &K;
    fn keys<'a>(&'a self) -> Box<dyn Iterator<Item = &'a K> + 'a>;
    /// Appends all rows.
    fn append(&self, entries: &mut GroupedEntries);
    /// Reads a value and sets it for `key`.
    fn decode(&mut self, key: K, bytes: &mut &[u8]) -> Result<(), DecodeError>;
}

impl<K: StateKey, V: Record> InlineTable<K> for KeyTable<K, V> {
    fn find(&self, key: &K) -> Found {
        self.find(key)
    }

    fn find_all(&self, keys: &[K], found: &mut Vec<Found>) {
        self.find_all(keys, found);
    }

    fn position(&self, hash: u64, key: &K) -> Option<usize> {
        self.position(hash, key)
    }

    fn generation(&self) -> u64 {
        self.generation()
    }

    fn len(&self) -> usize {
        self.len()
    }

    fn row_bytes(&self) -> usize {
        size_of::<Option<(K, V)>>()
    }

    fn key(&self, position: usize) -> &K {
        &self.row(position).0
    }

    fn keys<'a>(&'a self) -> Box<dyn Iterator<Item = &'a K> + 'a> {
        Box::new(self.iter().map(|(key, _)| key))
    }

    fn append(&self, entries: &mut GroupedEntries) {
        for (key, value) in self.iter() {
            entries.key(key);
            value.encode(entries.entry());
        }
    }

    fn decode(&mut self, key: K, bytes: &mut &[u8]) -> Result<(), DecodeError> {
        let value = V::decode(bytes)?;
        let found = self.find(&key);
        match found.position {
            Some(position) => *self.value_mut(position) = value,
            None => {
                self.insert(found.hash, key, value);
            }
        }
        Ok(())
    }
}

/// The row of the key at hand in an inline table.
pub(crate) struct InlineRow<'a, K, T> {
    pub(crate) table: &'a mut KeyTable<K, T>,
    pub(crate) at: &'a mut At<K>,
}

impl<'a, K: StateKey, T> InlineRow<'a, K, T> {
    /// The value, if there is one.
    #[inline]
    pub(crate) fn get(self) -> Option<&'a mut T> {
        self.at.position.map(|position| self.table.value_mut(position))
    }

    /// The value; if there is none, `first` makes it.
    #[inline]
    pub(crate) fn get_or_insert_with(mut self, first: impl FnOnce() -> T) -> &'a mut T {
        let position = match self.at.position {
            Some(position) => position,
            None => {
                let value = first();
                self.insert(value)
            }
        };
        self.table.value_mut(position)
    }

    /// Replaces the value by what `update` makes of it.
    #[inline]
    pub(crate) fn update<R>(mut self, update: impl FnOnce(Option<T>) -> (Option<T>, R)) -> R {
        let Some(position) = self.at.position else {
            let (value, result) = update(None);
            if let Some(value) = value {
                self.insert(value);
            }
            return result;
        };
        let (value, result) = self.table.change(position, update);
        if let Some(key) = value {
            (self.at.position, self.at.key) = (None, Some(key));
        }
        result
    }

    #[cold]
    fn insert(&mut self, value: T) -> usize {
        let key = self.at.key.take().expect("a key without state is kept as it was given");
        let position = self.table.insert(self.at.hash, key, value);
        self.at.position = Some(position);
        position
    }
}
