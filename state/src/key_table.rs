//! A hash table from keys to values that lie beside them: open addressing, linear probing, look-ups of whole batches.
//!
//! Stands under the keyed store. What a look-up costs in a large table is the way to memory, so a key and its value
//! share a cache line, and a batch of keys has all of its lines fetched before the first one is needed.
//! Invariants: the number of rows is a power of two and at least three eighths of them are empty; between the row where a
//! key's search begins and the row where it is, no row is empty. A position stays valid until the generation changes.

use std::hash::{BuildHasher, Hash};

use foldhash::fast::RandomState;

use crate::prefetch::prefetch;

/// Rows of an empty table.
const FIRST_ROWS: usize = 16;

/// Where a key is in a table, if it is there, and its hash.
#[derive(Debug, Clone, Copy)]
pub struct Found {
    pub(crate) hash: u64,
    pub(crate) position: Option<usize>,
}

/// The table.
pub(crate) struct KeyTable<K, V> {
    rows: Vec<Option<(K, V)>>,
    len: usize,
    /// Changes whenever rows move.
    generation: u64,
    hasher: RandomState,
}

impl<K, V> Default for KeyTable<K, V> {
    fn default() -> Self {
        Self { rows: empty(FIRST_ROWS), len: 0, generation: 0, hasher: RandomState::default() }
    }
}

fn empty<T>(rows: usize) -> Vec<Option<T>> {
    std::iter::repeat_with(|| None).take(rows).collect()
}

impl<K: Eq + Hash, V> KeyTable<K, V> {
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &(K, V)> {
        self.rows.iter().flatten()
    }

    /// Finds one key.
    #[inline]
    pub(crate) fn find(&self, key: &K) -> Found {
        let hash = self.hasher.hash_one(key);
        Found { hash, position: self.position(hash, key) }
    }

    /// Finds many keys; `found` comes empty. Fetches all places before it looks at the first one.
    pub(crate) fn find_all(&self, keys: &[K], found: &mut Vec<Found>) {
        found.extend(keys.iter().map(|key| {
            let hash = self.hasher.hash_one(key);
            prefetch(&self.rows, self.home(hash));
            Found { hash, position: None }
        }));
        for (key, found) in keys.iter().zip(found) {
            found.position = self.position(found.hash, key);
        }
    }

    /// Where a key with this hash is.
    #[inline]
    pub(crate) fn position(&self, hash: u64, key: &K) -> Option<usize> {
        let mut position = self.home(hash);
        loop {
            match &self.rows[position] {
                Some((there, _)) if there == key => return Some(position),
                Some(_) => position = self.behind(position),
                None => return None,
            }
        }
    }

    /// The row at a valid position.
    #[inline]
    pub(crate) fn row(&self, position: usize) -> &(K, V) {
        self.rows[position].as_ref().expect("a valid position has a row")
    }

    /// The value at a valid position.
    #[inline]
    pub(crate) fn value_mut(&mut self, position: usize) -> &mut V {
        &mut self.rows[position].as_mut().expect("a valid position has a row").1
    }

    /// Replaces the value at a valid position by what `update` makes of it. Without one the row goes, and its key comes back.
    #[inline]
    pub(crate) fn change<R>(
        &mut self,
        position: usize,
        update: impl FnOnce(Option<V>) -> (Option<V>, R),
    ) -> (Option<K>, R) {
        let (key, value) = self.rows[position].take().expect("a valid position has a row");
        let (value, result) = update(Some(value));
        let Some(value) = value else {
            self.close_gap(position);
            return (Some(key), result);
        };
        self.rows[position] = Some((key, value));
        (None, result)
    }

    /// Adds a key that is not there, and says where it is now.
    pub(crate) fn insert(&mut self, hash: u64, key: K, value: V) -> usize {
        if (self.len + 1) * 8 > self.rows.len() * 5 {
            self.grow();
        }
        self.len += 1;
        self.put(hash, (key, value))
    }

    /// Where rows can be: any position below.
    pub(crate) fn capacity(&self) -> usize {
        self.rows.len()
    }

    /// Rows that a table of this capacity holds before it grows.
    pub(crate) fn rows_within(capacity: usize) -> usize {
        capacity * 5 / 8
    }

    /// The row at any position, if there is one.
    #[inline]
    pub(crate) fn row_at(&mut self, position: usize) -> Option<(&K, &mut V)> {
        self.rows[position].as_mut().map(|(key, value)| (&*key, value))
    }

    /// Starts to fetch the place where the search for this hash begins.
    pub(crate) fn prefetch(&self, hash: u64) {
        prefetch(&self.rows, self.home(hash));
    }

    /// Goes to every row that may have this hash; others come along.
    pub(crate) fn for_hash(&mut self, hash: u64, mut visit: impl FnMut(&K, &mut V)) {
        let mut position = self.home(hash);
        while let Some((key, value)) = &mut self.rows[position] {
            visit(key, value);
            position = self.behind(position);
        }
    }

    /// Takes out the row at a valid position.
    pub(crate) fn remove(&mut self, position: usize) -> (K, V) {
        let removed = self.rows[position].take().expect("a valid position has a row");
        self.close_gap(position);
        removed
    }

    /// A row was taken out: rows behind it move up, so that no search ends too early.
    fn close_gap(&mut self, mut gap: usize) {
        self.len -= 1;
        self.generation += 1;
        let mut next = self.behind(gap);
        while let Some((key, _)) = &self.rows[next] {
            let home = self.home(self.hasher.hash_one(key));
            // A row may move into the gap unless its search begins behind it.
            if self.distance(home, next) >= self.distance(gap, next) {
                self.rows.swap(gap, next);
                gap = next;
            }
            next = self.behind(next);
        }
    }

    fn grow(&mut self) {
        self.generation += 1;
        let rows = empty(self.rows.len() * 2);
        for row in std::mem::replace(&mut self.rows, rows).into_iter().flatten() {
            self.put(self.hasher.hash_one(&row.0), row);
        }
    }

    /// Puts a row into the first empty place of its search.
    fn put(&mut self, hash: u64, row: (K, V)) -> usize {
        let mut position = self.home(hash);
        while self.rows[position].is_some() {
            position = self.behind(position);
        }
        self.rows[position] = Some(row);
        position
    }

    /// Where the search for a hash begins.
    #[inline]
    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.rows.len() - 1)
    }

    #[inline]
    fn behind(&self, position: usize) -> usize {
        (position + 1) & (self.rows.len() - 1)
    }

    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.rows.len() - 1)
    }
}

impl<K: Eq + Hash> KeyTable<K, u32> {
    /// Fetches what `fetch` does for the values of the keys that were found.
    pub(crate) fn for_found(&self, found: &[Found], fetch: impl Fn(u32)) {
        found.iter().filter_map(|found| found.position).for_each(|position| fetch(self.row(position).1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Clone)]
    enum Step {
        Set(u16, u32),
        Remove(u16),
        FindAll(Vec<u16>),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0u16..300, any::<u32>()).prop_map(|(key, value)| Step::Set(key, value)),
            3 => (0u16..300).prop_map(Step::Remove),
            1 => proptest::collection::vec(0u16..300, 0..40).prop_map(Step::FindAll),
        ]
    }

    proptest! {
        #[test]
        fn the_table_is_a_map(steps in proptest::collection::vec(step(), 0..600)) {
            let mut table = KeyTable::<u16, u32>::default();
            let mut expected = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Set(key, value) => {
                        let found = table.find(&key);
                        let there = found.position.map(|position| table.row(position).1);
                        prop_assert_eq!(there, expected.get(&key).copied());
                        match found.position {
                            Some(position) => *table.value_mut(position) = value,
                            None => {
                                let position = table.insert(found.hash, key, value);
                                prop_assert_eq!(table.row(position), &(key, value));
                            }
                        }
                        expected.insert(key, value);
                    }
                    Step::Remove(key) => {
                        let removed = table.find(&key).position.map(|position| table.remove(position));
                        prop_assert_eq!(removed, expected.remove_entry(&key));
                    }
                    Step::FindAll(keys) => {
                        let mut found = Vec::new();
                        table.find_all(&keys, &mut found);
                        for (key, found) in keys.iter().zip(found) {
                            let value = found.position.map(|position| table.row(position).1);
                            prop_assert_eq!(value, expected.get(key).copied());
                        }
                    }
                }
                prop_assert_eq!(table.len(), expected.len());
                prop_assert!(table.len() * 8 <= table.rows.len() * 5);
            }
            let all: BTreeMap<u16, u32> = table.iter().copied().collect();
            prop_assert_eq!(all, expected);
        }
    }

    #[test]
    fn positions_hold_within_a_generation() {
        let mut table = KeyTable::<u64, ()>::default();
        let before = table.generation();
        let first = table.insert(table.find(&1).hash, 1, ());
        for key in 2..9 {
            table.insert(table.find(&key).hash, key, ());
        }
        assert_eq!((table.generation(), table.row(first)), (before, &(1, ())), "nothing moved");
        for key in 9..12 {
            table.insert(table.find(&key).hash, key, ());
        }
        assert_ne!(table.generation(), before, "the table has grown");
    }
}
