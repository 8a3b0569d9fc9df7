//! The cache of a function whose only state lies beside its keys.

use std::any::Any;

use thalweg_common::record::{DecodeError, Record};

use super::batch::EntryBatch;
use super::epochs::{Epochs, Mark, Rows, sweep};
use crate::grouped::GroupedEntries;
use crate::key_table::{Found, KeyTable};
use crate::tables::StateKey;

/// What is known of a key: its value, or that it has none.
pub(crate) struct Cached<T> {
    value: Option<T>,
    mark: Mark,
}

/// The rows of all cached keys.
pub(crate) struct InlineCache<K, T> {
    table: KeyTable<K, Cached<T>>,
    hand: usize,
}

impl<K, T> Default for InlineCache<K, T>
where
    KeyTable<K, Cached<T>>: Default,
{
    fn default() -> Self {
        Self { table: KeyTable::default(), hand: 0 }
    }
}

/// The cache without the type of its values.
pub(crate) trait CacheTable<K>: Any + Send {
    fn find(&self, key: &K) -> Found;
    fn find_all(&self, keys: &[K], found: &mut Vec<Found>);
    fn position(&self, hash: u64, key: &K) -> Option<usize>;
    fn generation(&self) -> u64;
    fn key(&self, position: usize) -> &K;
    /// Notes a use of the row at a position.
    fn used(&mut self, position: usize);
    /// Rows, and places for rows.
    fn rows(&self) -> (usize, usize);
    /// Memory of a place, and whether keys or values have memory on the heap.
    fn row_bytes(&self) -> (usize, bool);
    /// The keys that have state.
    fn keys<'a>(&'a self) -> Box<dyn Iterator<Item = &'a K> + 'a>;
    /// Appends all values.
    fn append(&self, entries: &mut GroupedEntries);
    /// Adds a row without a value for a key that has none yet, and says where it is.
    fn admit(&mut self, key: K, hash: u64) -> usize;
    /// Reads the value of a key that was just admitted.
    fn fill(&mut self, key: &K, bytes: &mut &[u8]) -> Result<(), DecodeError>;
    /// Checks a value and moves past it.
    fn skip(&self, bytes: &mut &[u8]) -> Result<(), DecodeError>;
    fn encode_frozen(&mut self, epochs: &mut Epochs, limit_bytes: usize);
    fn sweep(&mut self, epochs: &mut Epochs, keep_rows: usize, batch: &mut EntryBatch) -> bool;
}

impl<K: StateKey, T: Record> CacheTable<K> for InlineCache<K, T> {
    fn find(&self, key: &K) -> Found {
        self.table.find(key)
    }

    fn find_all(&self, keys: &[K], found: &mut Vec<Found>) {
        self.table.find_all(keys, found);
    }

    fn position(&self, hash: u64, key: &K) -> Option<usize> {
        self.table.position(hash, key)
    }

    fn generation(&self) -> u64 {
        self.table.generation()
    }

    fn key(&self, position: usize) -> &K {
        &self.table.row(position).0
    }

    fn used(&mut self, position: usize) {
        self.table.value_mut(position).mark.used();
    }

    fn rows(&self) -> (usize, usize) {
        (self.table.len(), self.table.capacity())
    }

    fn row_bytes(&self) -> (usize, bool) {
        let has_heap = std::mem::needs_drop::<K>() || std::mem::needs_drop::<T>();
        (size_of::<Option<(K, Cached<T>)>>(), has_heap)
    }

    fn keys<'a>(&'a self) -> Box<dyn Iterator<Item = &'a K> + 'a> {
        Box::new(self.table.iter().filter(|(_, cached)| cached.value.is_some()).map(|(key, _)| key))
    }

    fn append(&self, entries: &mut GroupedEntries) {
        for (key, cached) in self.table.iter() {
            if let Some(value) = &cached.value {
                entries.key(key);
                value.encode(entries.entry());
            }
        }
    }

    fn admit(&mut self, key: K, hash: u64) -> usize {
        self.table.insert(hash, key, Cached { value: None, mark: Mark::default() })
    }

    fn fill(&mut self, key: &K, bytes: &mut &[u8]) -> Result<(), DecodeError> {
        let value = T::decode(bytes)?;
        if let Some(position) = self.table.find(key).position {
            self.table.value_mut(position).value = Some(value);
        }
        Ok(())
    }

    fn skip(&self, bytes: &mut &[u8]) -> Result<(), DecodeError> {
        T::decode(bytes).map(|_| ())
    }

    fn encode_frozen(&mut self, epochs: &mut Epochs, limit_bytes: usize) {
        epochs.encode_frozen(&mut self.table, &mut ValueRows, limit_bytes);
    }

    fn sweep(&mut self, epochs: &mut Epochs, keep_rows: usize, batch: &mut EntryBatch) -> bool {
        sweep(&mut self.table, &mut ValueRows, &mut self.hand, epochs, keep_rows, batch)
    }
}

/// A row is an entry by itself.
struct ValueRows;

impl<K, T: Record> Rows<K, Cached<T>> for ValueRows {
    fn mark<'a>(&'a mut self, row: &'a mut Cached<T>) -> &'a mut Mark {
        &mut row.mark
    }

    fn encode_frozen(&mut self, row: &mut Cached<T>, epochs: &mut Epochs) {
        epochs.encode(0, |_| (), row.value.as_ref().map(|value| |out: &mut Vec<u8>| value.encode(out)));
    }

    fn encode_changed(&mut self, row: &mut Cached<T>, epochs: &mut Epochs, batch: &mut EntryBatch) {
        let value = row.value.as_ref().map(|value| |out: &mut Vec<u8>| value.encode(out));
        epochs.encode_into(batch, 0, |_| (), value);
    }

    fn forget(&mut self, row: Cached<T>) -> bool {
        row.value.is_some()
    }
}

/// The row of the key at hand.
pub(crate) struct CachedRow<'a, K, T> {
    pub(crate) cache: &'a mut InlineCache<K, T>,
    pub(crate) epochs: &'a mut Epochs,
    pub(crate) hash: u64,
    pub(crate) position: usize,
}

impl<K: StateKey, T> InlineCache<K, T> {
    /// The value at a position.
    #[inline]
    pub(crate) fn value(&self, position: usize) -> Option<&T> {
        self.table.row(position).1.value.as_ref()
    }
}

impl<'a, K: StateKey, T: Record> CachedRow<'a, K, T> {
    /// The value, if there is one, to change it.
    #[inline]
    pub(crate) fn get(self) -> Option<&'a mut T> {
        let place = self.change();
        place.as_mut()
    }

    /// The value; if there is none, `first` makes it.
    #[inline]
    pub(crate) fn get_or_insert_with(self, first: impl FnOnce() -> T) -> &'a mut T {
        self.change().get_or_insert_with(first)
    }

    /// Replaces the value by what `update` makes of it.
    #[inline]
    pub(crate) fn update<R>(self, update: impl FnOnce(Option<T>) -> (Option<T>, R)) -> R {
        let place = self.change();
        let (value, result) = update(place.take());
        *place = value;
        result
    }

    /// The place of the value, which is about to change.
    #[inline]
    fn change(self) -> &'a mut Option<T> {
        let Self { cache, epochs, hash, position } = self;
        if !epochs.is_noted(cache.table.row(position).1.mark) {
            note(&mut cache.table, epochs, hash, position);
        }
        &mut cache.table.value_mut(position).value
    }
}

/// The first change of a row in its epoch.
#[cold]
fn note<K: StateKey, T: Record>(
    table: &mut KeyTable<K, Cached<T>>,
    epochs: &mut Epochs,
    hash: u64,
    position: usize,
) {
    let capacity = table.capacity();
    let Some((key, row)) = table.row_at(position) else { return };
    epochs.note_row(&mut row.mark, hash, capacity);
    if epochs.note_entry(&mut row.mark) {
        epochs.copied_row();
        epochs.go_to(key);
        Rows::<K, _>::encode_frozen(&mut ValueRows, row, epochs);
    }
}
