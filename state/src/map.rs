//! `MapState`: a map per key.

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use thalweg_common::Timestamp;
use thalweg_common::graph::StateKind;
use thalweg_common::record::{DecodeError, Record};
use thalweg_common::schema::Schema;

use crate::cache::batch::EntryBatch;
use crate::cache::epochs::{Epochs, Mark};
use crate::columns::{Change, Column};
use crate::declare::{Declarations, Declare, Slot};
use crate::expiring::Expiry;
use crate::grouped::GroupedEntries;
use crate::prefetch::prefetch;
use crate::tables::{Accessor, StateKey};

/// A map per key. Every method works on the map of the key of the context that it is given.
///
/// # Panics
/// Every method panics when the state was not declared by the function that uses it; see
/// [`State`](macro@crate::State).
pub struct MapState<K, V> {
    slot: Slot,
    entry: PhantomData<fn() -> (K, V)>,
}

impl<K: Record + Eq + Hash, V: Record> MapState<K, V> {
    /// The value at `key`, if there is one.
    #[inline]
    pub fn get<'a>(&self, context: &'a impl Accessor, key: &K) -> Option<&'a V> {
        self.map(context)?.get(key)
    }

    /// The value at `key`, if there is one, to change it in place.
    #[inline]
    pub fn get_mut<'a>(&self, context: &'a mut impl Accessor, key: &K) -> Option<&'a mut V> {
        self.note(context, key);
        let (column, number) = context.tables_mut().column_mut::<MapColumn<K, V>>(self.slot);
        column.maps[number?].get_mut(key)
    }

    /// Sets the value at `key` and returns the one before.
    #[inline]
    pub fn insert(&self, context: &mut impl Accessor, key: K, value: V) -> Option<V> {
        self.note(context, &key);
        self.change(context, |map| map.insert(key, value))
    }

    /// Replaces the value at `key` by what `update` makes of it; `None` stands for no value on both sides.
    #[inline]
    pub fn update(&self, context: &mut impl Accessor, key: K, update: impl FnOnce(Option<V>) -> Option<V>) {
        use hashbrown::hash_map::Entry;
        self.note(context, &key);
        self.change(context, |map| match map.entry(key) {
            Entry::Occupied(entry) => {
                entry.replace_entry_with(|_, value| update(Some(value)));
            }
            Entry::Vacant(entry) => {
                if let Some(value) = update(None) {
                    entry.insert(value);
                }
            }
        });
    }

    /// Removes and returns the value at `key`.
    #[inline]
    pub fn remove(&self, context: &mut impl Accessor, key: &K) -> Option<V> {
        self.note(context, key);
        self.change(context, |map| map.remove(key))
    }

    /// Whether there is a value at `key`.
    #[inline]
    pub fn contains(&self, context: &impl Accessor, key: &K) -> bool {
        self.map(context).is_some_and(|map| map.contains_key(key))
    }

    /// All pairs, in no particular order.
    pub fn iter<'a, A: Accessor>(
        &self,
        context: &'a A,
    ) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V, A> {
        self.map(context).into_iter().flatten()
    }

    /// How many pairs there are.
    #[inline]
    pub fn len(&self, context: &impl Accessor) -> usize {
        self.map(context).map_or(0, HashMap::len)
    }

    /// Whether there are no pairs.
    #[inline]
    pub fn is_empty(&self, context: &impl Accessor) -> bool {
        self.len(context) == 0
    }

    /// Forgets all pairs. A key without any state takes no memory.
    pub fn clear(&self, context: &mut impl Accessor) {
        let note = |column: &mut MapColumn<K, V>, number: usize, of: &_, epochs: &mut Epochs| {
            let keys: Vec<K> = column.maps[number].keys().cloned().collect();
            keys.iter().for_each(|key| column.note_entry(self.slot.index(), number, key, of, epochs));
        };
        context.tables_mut().note_entries(self.slot, note);
        self.change(context, |map| *map = HashMap::default());
    }

    /// In a cache: the value at `key` is about to change.
    #[inline]
    fn note<A: Accessor>(&self, context: &mut A, key: &K) {
        let tables = context.tables_mut();
        if tables.epochs_mut().is_some() {
            let note = |column: &mut MapColumn<K, V>, number, of: &A::Key, epochs: &mut Epochs| {
                column.note_entry(self.slot.index(), number, key, of, epochs);
            };
            tables.note_entries(self.slot, note);
        }
    }

    #[inline]
    fn map<'a>(&self, context: &'a impl Accessor) -> Option<&'a HashMap<K, V, RandomState>> {
        let (column, number) = context.tables().column::<MapColumn<K, V>>(self.slot);
        Some(&column.maps[number?])
    }

    #[inline]
    fn change<R>(
        &self,
        context: &mut impl Accessor,
        change: impl FnOnce(&mut HashMap<K, V, RandomState>) -> R,
    ) -> R {
        context
            .tables_mut()
            .change(self.slot, |column: &mut MapColumn<K, V>, number| column.change(number, change))
    }
}

impl<K: Record + Eq + Hash, V: Record> MapState<K, V> {
    /// Declares the state with entries that expire, if `expiry` says when.
    pub(crate) fn declare_column<Key: StateKey>(
        &mut self,
        name: &str,
        expiry: Option<Expiry<V>>,
        declarations: &mut Declarations<Key>,
    ) {
        let schema = Schema::Map(Box::new(K::schema()), Box::new(V::schema()));
        let column = Box::new(MapColumn::<K, V> { maps: Vec::new(), entries: 0, expiry, changes: None });
        let ttl = expiry.map(|expiry| expiry.ttl);
        self.slot = declarations.add(name, StateKind::Map, schema, ttl, column, None);
    }
}

impl<K: Record + Eq + Hash, V: Record> Declare for MapState<K, V> {
    fn declare<Key: StateKey>(&mut self, name: &str, declarations: &mut Declarations<Key>) {
        self.declare_column(name, None, declarations);
    }
}

impl<K, V> Default for MapState<K, V> {
    fn default() -> Self {
        Self { slot: Slot::UNDECLARED, entry: PhantomData }
    }
}

impl<K, V> Clone for MapState<K, V> {
    fn clone(&self) -> Self {
        Self { slot: self.slot, entry: PhantomData }
    }
}

impl<K, V> fmt::Debug for MapState<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MapState<{}, {}>", std::any::type_name::<K>(), std::any::type_name::<V>())
    }
}

/// The maps of all keys. An empty map has no memory of its own.
struct MapColumn<K, V> {
    maps: Vec<HashMap<K, V, RandomState>>,
    entries: usize,
    /// If they do not live for ever.
    expiry: Option<Expiry<V>>,
    /// Of a cache: the entries that have changed, also those that are gone.
    changes: Option<Vec<HashMap<K, Mark, RandomState>>>,
}

impl<K: Record + Eq + Hash, V: Record> MapColumn<K, V> {
    /// An entry of the key `of` is about to change.
    fn note_entry(&mut self, state: usize, number: usize, key: &K, of: &impl Record, epochs: &mut Epochs) {
        let Some(changes) = self.changes.as_mut().and_then(|changes| changes.get_mut(number)) else { return };
        let mark = match changes.get_mut(key) {
            Some(mark) if epochs.is_noted(*mark) => return,
            Some(mark) => mark,
            None => changes.entry(key.clone()).or_default(),
        };
        if epochs.note_entry(mark) {
            epochs.go_to(of);
            epochs.encode(state, |out| key.encode(out), encoder(&self.maps[number], key));
        }
    }
}

/// What encodes the value at a key, if there is one.
fn encoder<'a, K: Eq + Hash, V: Record>(
    map: &'a HashMap<K, V, RandomState>,
    key: &K,
) -> Option<impl FnOnce(&mut Vec<u8>) + use<'a, K, V>> {
    map.get(key).map(|value| |out: &mut Vec<u8>| value.encode(out))
}

impl<K, V> MapColumn<K, V> {
    fn change<R>(
        &mut self,
        number: usize,
        change: impl FnOnce(&mut HashMap<K, V, RandomState>) -> R,
    ) -> (R, Change) {
        let map = &mut self.maps[number];
        let before = map.len();
        let result = change(map);
        self.entries = self.entries - before + map.len();
        (result, Change::between(before > 0, !map.is_empty()))
    }
}

impl<K: Record + Eq + Hash, V: Record> Column for MapColumn<K, V> {
    fn grow(&mut self) {
        self.maps.push(HashMap::default());
        if let Some(changes) = &mut self.changes {
            changes.push(HashMap::default());
        }
    }

    fn prefetch(&self, number: usize) {
        prefetch(&self.maps, number);
    }

    fn entries(&self) -> usize {
        self.entries
    }

    fn entry_bytes(&self) -> usize {
        size_of::<(K, V)>()
    }

    fn place_bytes(&self) -> usize {
        size_of::<HashMap<K, V, RandomState>>() + size_of::<HashMap<K, Mark, RandomState>>()
    }

    fn has_heap(&self) -> bool {
        // The maps themselves: about as much again as their entries.
        true
    }

    fn append(&self, number: usize, now_ms: Timestamp, entries: &mut GroupedEntries) {
        let is_over = |value: &V| self.expiry.is_some_and(|expiry| expiry.is_over(value, now_ms));
        for (map_key, value) in self.maps[number].iter().filter(|(_, value)| !is_over(value)) {
            let entry = entries.entry();
            map_key.encode(entry);
            value.encode(entry);
        }
    }

    fn expire(&mut self, number: usize, now_ms: Timestamp) -> (Change, usize) {
        let (Some(expiry), visited) = (self.expiry, self.maps[number].len()) else {
            return (Change::None, 0);
        };
        let keep = |_: &K, value: &mut V| !expiry.is_over(value, now_ms);
        let ((), change) = self.change(number, |map| {
            map.retain(keep);
            if map.is_empty() {
                *map = HashMap::default();
            }
        });
        (change, visited)
    }

    fn decode(&mut self, number: usize, bytes: &mut &[u8]) -> Result<Change, DecodeError> {
        let (key, value) = (K::decode(bytes)?, V::decode(bytes)?);
        Ok(self.change(number, |map| map.insert(key, value)).1)
    }

    fn skip(&self, bytes: &mut &[u8]) -> Result<usize, DecodeError> {
        let before = bytes.len();
        K::decode(bytes)?;
        let key_bytes = before - bytes.len();
        V::decode(bytes).map(|_| key_bytes)
    }

    fn track(&mut self) {
        self.changes = Some(Vec::new());
    }

    fn note(&mut self, _: usize, _: usize, _: &mut dyn FnMut(&mut Epochs), _: &mut Epochs) {
        // Its handle tells which entries change.
    }

    fn encode_frozen(&mut self, state: usize, number: usize, epochs: &mut Epochs) {
        let Some(changes) = self.changes.as_mut().and_then(|changes| changes.get_mut(number)) else { return };
        let map = &self.maps[number];
        changes.retain(|key, mark| {
            if epochs.take_frozen(mark) {
                epochs.encode(state, |out| key.encode(out), encoder(map, key));
            }
            mark.is_changed()
        });
        changes.shrink_to_fit();
    }

    fn encode_changed(&self, state: usize, number: usize, epochs: &mut Epochs, batch: &mut EntryBatch) {
        let changes = self.changes.iter().flat_map(|changes| &changes[number]);
        for (key, _) in changes.filter(|(_, mark)| mark.is_changed()) {
            epochs.encode_into(batch, state, |out| key.encode(out), encoder(&self.maps[number], key));
        }
    }

    fn forget(&mut self, number: usize) {
        self.change(number, |map| *map = HashMap::default());
        if let Some(changes) = &mut self.changes {
            changes[number] = HashMap::default();
        }
    }
}
