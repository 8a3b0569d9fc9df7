//! `MapState`: a map per key.

use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use thalweg_common::graph::StateKind;
use thalweg_common::record::{DecodeError, Record};
use thalweg_common::schema::Schema;

use crate::declare::{Declarations, Declare, Slot};
use crate::prefetch::prefetch;
use crate::tables::{Accessor, Change, Column, GroupedEntries, StateKey};

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
        let (column, number) = context.tables_mut().column_mut::<MapColumn<K, V>>(self.slot);
        column.maps[number?].get_mut(key)
    }

    /// Sets the value at `key` and returns the one before.
    #[inline]
    pub fn insert(&self, context: &mut impl Accessor, key: K, value: V) -> Option<V> {
        self.change(context, |map| map.insert(key, value))
    }

    /// Replaces the value at `key` by what `update` makes of it; `None` stands for no value on both sides.
    #[inline]
    pub fn update(&self, context: &mut impl Accessor, key: K, update: impl FnOnce(Option<V>) -> Option<V>) {
        use hashbrown::hash_map::Entry;
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
        self.change(context, |map| *map = HashMap::default());
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

impl<K: Record + Eq + Hash, V: Record> Declare for MapState<K, V> {
    fn declare<Key: StateKey>(&mut self, name: &str, declarations: &mut Declarations<Key>) {
        let schema = Schema::Map(Box::new(K::schema()), Box::new(V::schema()));
        let column = MapColumn::<K, V> { maps: Vec::new(), entries: 0 };
        self.slot = declarations.add(name, StateKind::Map, schema, Box::new(column), None);
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

    fn append(&self, number: usize, entries: &mut GroupedEntries) {
        for (map_key, value) in &self.maps[number] {
            let entry = entries.entry();
            map_key.encode(entry);
            value.encode(entry);
        }
    }

    fn decode(&mut self, number: usize, bytes: &mut &[u8]) -> Result<Change, DecodeError> {
        let (key, value) = (K::decode(bytes)?, V::decode(bytes)?);
        Ok(self.change(number, |map| map.insert(key, value)).1)
    }
}
