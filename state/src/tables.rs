//! The states of all keys of a store, in one of three layouts, and the key at hand.
//!
//! A function with one small value state has it *inline*: key and value share a row of the key table, so that a record
//! costs one way to memory. Every other function has *columns*: the key table gives a key a number, its place in one typed
//! column per state. Over a backend the inline layout becomes *cached*: a row also says whether it has changed, and a key
//! without state may have one. Handles reach all of them through an [`Accessor`], which always stands at one key.
//! Invariants: in a memory store exactly the keys that have state are in the key table, in a cache all keys of which everything
//! is known; all columns are equally long; `live` counts for each number the columns that hold something of its key, and in a
//! memory store a number is free only when that count is zero.

use std::any::Any;
use std::hash::Hash;

use thalweg_common::Timestamp;
use thalweg_common::clock::{SharedClock, SystemClock};
use thalweg_common::record::{DecodeError, Record};

use crate::cache::batch::EntryBatch;
use crate::cache::epochs::{Epochs, Rows};
use crate::cache::inline::{CacheTable, CachedRow, InlineCache};
use crate::columns::{Change, Column, Columns};
use crate::declare::{Declared, Slot};
use crate::grouped::GroupedEntries;
use crate::inline::{InlineRow, InlineTable};
use crate::key_table::{Found, KeyTable};
use crate::timers::Timers;

mod epochs;

/// What keys of a keyed stream are.
pub trait StateKey: Record + Eq + Hash {}

impl<K: Record + Eq + Hash> StateKey for K {}

/// Whatever stands at a key and lets handles reach its state: the context of a function.
pub trait Accessor {
    /// The type of the keys.
    type Key: StateKey;

    /// The states, to read.
    fn tables(&self) -> &Tables<Self::Key>;

    /// The states, to write.
    fn tables_mut(&mut self) -> &mut Tables<Self::Key>;
}

/// All states of all keys of a store, and the key at hand. Opaque: handles know how to use it.
pub struct Tables<K> {
    layout: Layout<K>,
    at: At<K>,
    /// Of a cache.
    epochs: Option<Box<Epochs>>,
    /// For values that live for a time only.
    clock: SharedClock,
    has_ttl: bool,
    /// Of an operator that has timers.
    pub(crate) timers: Option<Box<Timers<K>>>,
}

/// The key at hand.
pub(crate) struct At<K> {
    pub(crate) hash: u64,
    /// Where it is in the key table, if it has state.
    pub(crate) position: Option<usize>,
    /// The key as it was given. Always there while it has no state; with state it may have been moved out.
    pub(crate) key: Option<K>,
}

enum Layout<K> {
    Inline(Box<dyn InlineTable<K>>),
    Columns(Columns<K>),
    Cached(Box<dyn CacheTable<K>>),
}

impl<K: StateKey> Tables<K> {
    /// Empty tables for these states, in the layout that suits them.
    pub(crate) fn new(declared: Vec<Declared<K>>) -> Self {
        let has_ttl = has_ttl(&declared);
        let layout = match <[Declared<K>; 1]>::try_from(declared) {
            Ok([Declared { inline: Some(inline), .. }]) => Layout::Inline(inline.table()),
            Ok([other]) => Layout::Columns(Columns::new(vec![other.column])),
            Err(many) => Layout::Columns(Columns::new(columns(many))),
        };
        Self::of(layout, None, has_ttl)
    }

    /// The same as a cache.
    pub(crate) fn cache(declared: Vec<Declared<K>>, max_parallelism: u32) -> Self {
        let kinds = declared.iter().map(|declared| declared.descriptor.kind).collect();
        let has_ttl = has_ttl(&declared);
        let layout = match <[Declared<K>; 1]>::try_from(declared) {
            Ok([Declared { inline: Some(inline), .. }]) => Layout::Cached(inline.cache()),
            Ok([other]) => Layout::Columns(Columns::tracked(vec![other.column])),
            Err(many) => Layout::Columns(Columns::tracked(columns(many))),
        };
        Self::of(layout, Some(Box::new(Epochs::new(kinds, max_parallelism))), has_ttl)
    }

    fn of(layout: Layout<K>, epochs: Option<Box<Epochs>>, has_ttl: bool) -> Self {
        let at = At { hash: 0, position: None, key: None };
        Self { layout, at, epochs, clock: SystemClock::shared(), has_ttl, timers: None }
    }

    /// The clock by which values expire, in place of the machine's.
    pub(crate) fn set_clock(&mut self, clock: SharedClock) {
        self.clock = clock;
    }

    /// The time by which values expire.
    pub(crate) fn now_ms(&self) -> Timestamp {
        self.clock.now_ms()
    }

    /// Whether values of some state expire.
    pub(crate) fn has_ttl(&self) -> bool {
        self.has_ttl
    }

    /// In a memory store: goes on to take out what has expired, over so many places.
    #[cold]
    pub(crate) fn expire(&mut self, places: usize) {
        let now_ms = self.now_ms();
        if let Layout::Columns(columns) = &mut self.layout {
            columns.expire(places, now_ms);
        }
    }

    pub(crate) fn find(&self, key: &K) -> Found {
        match &self.layout {
            Layout::Inline(table) => table.find(key),
            Layout::Columns(columns) => columns.numbers.find(key),
            Layout::Cached(cache) => cache.find(key),
        }
    }

    /// Finds a batch of keys and starts to fetch their states; `found` comes empty.
    pub(crate) fn find_all(&self, keys: &[K], found: &mut Vec<Found>) {
        match &self.layout {
            Layout::Inline(table) => table.find_all(keys, found),
            Layout::Columns(Columns { numbers, held, .. }) => {
                numbers.find_all(keys, found);
                numbers.for_found(found, |number| Rows::<K, u32>::prefetch(held, &number));
            }
            Layout::Cached(cache) => cache.find_all(keys, found),
        }
    }

    pub(crate) fn position(&self, hash: u64, key: &K) -> Option<usize> {
        match &self.layout {
            Layout::Inline(table) => table.position(hash, key),
            Layout::Columns(columns) => columns.numbers.position(hash, key),
            Layout::Cached(cache) => cache.position(hash, key),
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        match &self.layout {
            Layout::Inline(table) => table.generation(),
            Layout::Columns(columns) => columns.numbers.generation(),
            Layout::Cached(cache) => cache.generation(),
        }
    }

    /// Goes to a key. In a cache it must have a row.
    #[inline]
    pub(crate) fn select(&mut self, key: K, found: Found) {
        self.at = At { hash: found.hash, position: found.position, key: Some(key) };
        if self.epochs.is_some() {
            self.note_use();
        }
    }

    /// Notes a use of the row of the key at hand. Apart, so that it takes no room in the way of a memory store.
    #[inline(never)]
    fn note_use(&mut self) {
        let Some(position) = self.at.position else { return };
        match &mut self.layout {
            Layout::Cached(cache) => cache.used(position),
            Layout::Columns(columns) => columns.used(position),
            Layout::Inline(_) => {}
        }
    }

    /// The key at hand.
    #[inline]
    pub(crate) fn key(&self) -> &K {
        match (&self.at.key, self.at.position) {
            (Some(key), _) => key,
            (None, Some(position)) => match &self.layout {
                Layout::Inline(table) => table.key(position),
                Layout::Columns(columns) => &columns.numbers.row(position).0,
                Layout::Cached(cache) => cache.key(position),
            },
            (None, None) => unreachable!("a key without state is kept as it was given"),
        }
    }

    /// The key at hand, moved out if the tables do not need it.
    #[inline]
    pub(crate) fn take_key(&mut self) -> K {
        let spare = self.at.position.and_then(|_| self.at.key.take());
        spare.unwrap_or_else(|| self.key().clone())
    }

    /// Keys that have a row.
    pub(crate) fn len(&self) -> usize {
        match &self.layout {
            Layout::Inline(table) => table.len(),
            Layout::Columns(columns) => columns.numbers.len(),
            Layout::Cached(cache) => cache.rows().0,
        }
    }

    /// The keys here that have state.
    pub(crate) fn keys(&self) -> Box<dyn Iterator<Item = &K> + '_> {
        match &self.layout {
            Layout::Inline(table) => table.keys(),
            Layout::Columns(Columns { numbers, held, .. }) => {
                let live = |(_, number): &&(K, u32)| held.live[*number as usize] > 0;
                Box::new(numbers.iter().filter(live).map(|(key, _)| key))
            }
            Layout::Cached(cache) => cache.keys(),
        }
    }

    /// Entries of all states.
    pub(crate) fn entries(&self) -> u64 {
        match &self.layout {
            Layout::Inline(table) => table.len() as u64,
            Layout::Columns(columns) => {
                columns.held.columns.iter().map(|column| column.entries() as u64).sum()
            }
            Layout::Cached(cache) => cache.rows().0 as u64,
        }
    }

    /// Memory of keys and values without what they hold on the heap.
    pub(crate) fn bytes(&self) -> u64 {
        let bytes = match &self.layout {
            Layout::Inline(table) => table.len() * table.row_bytes(),
            Layout::Columns(Columns { numbers, held, .. }) => {
                let values: usize =
                    held.columns.iter().map(|column| column.entries() * column.entry_bytes()).sum();
                values + numbers.len() * size_of::<Option<(K, u32)>>()
            }
            Layout::Cached(cache) => cache.rows().0 * cache.row_bytes().0,
        };
        bytes as u64
    }

    /// Appends the entries of all keys that have not expired: one collection for each state.
    pub(crate) fn append(&self, entries: &mut [GroupedEntries]) {
        let now_ms = self.now_ms();
        match &self.layout {
            Layout::Inline(table) => entries.iter_mut().for_each(|entries| table.append(entries)),
            Layout::Columns(Columns { numbers, held, .. }) => {
                for (key, number) in numbers.iter() {
                    for (column, entries) in held.columns.iter().zip(&mut *entries) {
                        entries.key(key);
                        column.append(*number as usize, now_ms, entries);
                    }
                }
            }
            Layout::Cached(cache) => entries.iter_mut().for_each(|entries| cache.append(entries)),
        }
    }

    /// Reads one entry of the state at `index` for `key`.
    pub(crate) fn decode(&mut self, index: usize, key: K, bytes: &mut &[u8]) -> Result<(), DecodeError> {
        match &mut self.layout {
            Layout::Inline(table) => table.decode(key, bytes),
            Layout::Columns(columns) => columns.decode(index, key, bytes),
            Layout::Cached(cache) => cache.fill(&key, bytes),
        }
    }
}

fn has_ttl<K>(declared: &[Declared<K>]) -> bool {
    declared.iter().any(|declared| declared.descriptor.ttl.is_some())
}

fn columns<K>(declared: Vec<Declared<K>>) -> Vec<Box<dyn Column>> {
    declared.into_iter().map(|declared| declared.column).collect()
}

/// What only a cache does.
impl<K: StateKey> Tables<K> {
    /// The epochs, if this is a cache.
    pub(crate) fn epochs_mut(&mut self) -> Option<&mut Epochs> {
        self.epochs.as_deref_mut()
    }

    /// Rows, and places for rows.
    pub(crate) fn rows(&self) -> (usize, usize) {
        match &self.layout {
            Layout::Columns(columns) => (columns.numbers.len(), columns.numbers.capacity()),
            Layout::Cached(cache) => cache.rows(),
            Layout::Inline(table) => (table.len(), table.len()),
        }
    }

    /// About how much memory all of this takes, and how much more a table of twice the places would.
    pub(crate) fn cache_bytes(&self) -> (usize, usize) {
        let Some(epochs) = &self.epochs else { return (0, 0) };
        let (fixed, growth, on_heap) = match &self.layout {
            Layout::Columns(columns) => {
                let (bytes, on_heap) = columns.cache_bytes();
                (bytes, columns.numbers.capacity() * size_of::<Option<(K, u32)>>(), on_heap)
            }
            Layout::Cached(cache) => {
                let ((rows, places), (row_bytes, has_heap)) = (cache.rows(), cache.row_bytes());
                (places * row_bytes, places * row_bytes, if has_heap { rows } else { 0 })
            }
            Layout::Inline(_) => (0, 0, 0),
        };
        (fixed + on_heap * epochs.bytes_per_entry() + epochs.bytes(), growth)
    }

    /// Adds a row for a key that has none yet, and says where it is.
    pub(crate) fn admit(&mut self, key: K, hash: u64) -> Option<usize> {
        match &mut self.layout {
            Layout::Columns(columns) => Some(columns.admit(key, hash)),
            Layout::Cached(cache) => Some(cache.admit(key, hash)),
            Layout::Inline(_) => None,
        }
    }

    /// Reads an entry of the state at `index`, behind its key, for a key that has a row.
    pub(crate) fn fill(&mut self, index: usize, key: &K, bytes: &mut &[u8]) -> Result<(), DecodeError> {
        match &mut self.layout {
            Layout::Columns(columns) => columns.fill(index, key, bytes),
            Layout::Cached(cache) => cache.fill(key, bytes),
            Layout::Inline(_) => Ok(()),
        }
    }

    /// Checks an entry of the state at `index`, behind its key, and moves past it; says how long its map key is.
    pub(crate) fn skip(&self, index: usize, bytes: &mut &[u8]) -> Result<usize, DecodeError> {
        match &self.layout {
            Layout::Columns(columns) => columns.held.columns[index].skip(bytes),
            Layout::Cached(cache) => cache.skip(bytes).map(|()| 0),
            Layout::Inline(_) => Ok(0),
        }
    }

    /// Takes out rows that were not used for long until at most `keep_rows` are left; those that have changed are added to
    /// `batch`. Whether state has left.
    pub(crate) fn sweep(&mut self, keep_rows: usize, batch: &mut EntryBatch) -> bool {
        let Some(epochs) = &mut self.epochs else { return false };
        match &mut self.layout {
            Layout::Columns(columns) => columns.sweep(epochs, keep_rows, batch),
            Layout::Cached(cache) => cache.sweep(epochs, keep_rows, batch),
            Layout::Inline(_) => false,
        }
    }
}

/// What handles do.
impl<K: StateKey> Tables<K> {
    /// The inline table of a handle's type, and where the key at hand is in it.
    #[inline]
    pub(crate) fn inline<T: Record>(&self, slot: Slot) -> Option<(&KeyTable<K, T>, Option<usize>)> {
        let Layout::Inline(table) = &self.layout else { return None };
        let table = (table.as_ref() as &dyn Any).downcast_ref().filter(|_| slot == Slot::FIRST);
        Some((table.unwrap_or_else(|| undeclared::<T>()), self.at.position))
    }

    /// Whether the only state lies beside its keys.
    #[inline]
    pub(crate) fn is_inline(&self) -> bool {
        matches!(self.layout, Layout::Inline(_))
    }

    /// The row of the key at hand in the inline table of a handle's type.
    #[inline]
    pub(crate) fn inline_row<T: Record>(&mut self, slot: Slot) -> InlineRow<'_, K, T> {
        let Layout::Inline(table) = &mut self.layout else { undeclared::<T>() };
        let table = (table.as_mut() as &mut dyn Any).downcast_mut().filter(|_| slot == Slot::FIRST);
        InlineRow { table: table.unwrap_or_else(|| undeclared::<T>()), at: &mut self.at }
    }

    /// The value of the key at hand in the cache of a handle's type, if the only state lies beside its keys there.
    #[inline]
    pub(crate) fn cached<T: Record>(&self, slot: Slot) -> Option<Option<&T>> {
        let Layout::Cached(cache) = &self.layout else { return None };
        let cache = (cache.as_ref() as &dyn Any).downcast_ref::<InlineCache<K, T>>();
        let cache = cache.filter(|_| slot == Slot::FIRST).unwrap_or_else(|| undeclared::<T>());
        Some(self.at.position.and_then(|position| cache.value(position)))
    }

    /// Whether this is a cache whose only state lies beside its keys.
    #[inline]
    pub(crate) fn is_cached(&self) -> bool {
        matches!(self.layout, Layout::Cached(_))
    }

    /// The row of the key at hand there.
    #[inline]
    pub(crate) fn cached_row<T: Record>(&mut self, slot: Slot) -> CachedRow<'_, K, T> {
        let Layout::Cached(cache) = &mut self.layout else { undeclared::<T>() };
        let cache = (cache.as_mut() as &mut dyn Any).downcast_mut::<InlineCache<K, T>>();
        let cache = cache.filter(|_| slot == Slot::FIRST).unwrap_or_else(|| undeclared::<T>());
        let position = self.at.position.expect("a key that is selected in a cache has a row");
        let epochs = self.epochs.as_deref_mut().expect("a cache has epochs");
        CachedRow { cache, epochs, hash: self.at.hash, position }
    }

    /// The column of a handle, and the number of the key at hand if it has state.
    pub(crate) fn column<C: Column>(&self, slot: Slot) -> (&C, Option<usize>) {
        let Layout::Columns(Columns { numbers, held, .. }) = &self.layout else { undeclared::<C>() };
        let column =
            held.columns.get(slot.index()).and_then(|column| (column.as_ref() as &dyn Any).downcast_ref());
        let number = self.at.position.map(|position| numbers.row(position).1 as usize);
        (column.unwrap_or_else(|| undeclared::<C>()), number)
    }

    /// The column of a handle, to change values that are there already. In a cache the change must have been noted.
    pub(crate) fn column_mut<C: Column>(&mut self, slot: Slot) -> (&mut C, Option<usize>) {
        let Layout::Columns(Columns { numbers, held, .. }) = &mut self.layout else { undeclared::<C>() };
        let column = held
            .columns
            .get_mut(slot.index())
            .and_then(|column| (column.as_mut() as &mut dyn Any).downcast_mut());
        let number = self.at.position.map(|position| numbers.row(position).1 as usize);
        (column.unwrap_or_else(|| undeclared::<C>()), number)
    }

    /// In a cache: the state of a handle is about to change at the key at hand.
    #[inline]
    pub(crate) fn note(&mut self, slot: Slot) {
        if let (Some(epochs), Layout::Columns(columns), Some(position)) =
            (&mut self.epochs, &mut self.layout, self.at.position)
        {
            columns.note(slot.index(), position, self.at.hash, epochs);
        }
    }

    /// In a cache: gives the column of a handle, the number of the key at hand, the key and the epochs to `note`, which marks
    /// the entries that are about to change.
    #[inline]
    pub(crate) fn note_entries<C: Column>(
        &mut self,
        slot: Slot,
        note: impl FnOnce(&mut C, usize, &K, &mut Epochs),
    ) {
        self.note(slot);
        if let (Some(epochs), Layout::Columns(Columns { numbers, held, .. }), Some(position)) =
            (&mut self.epochs, &mut self.layout, self.at.position)
        {
            let (key, number) = numbers.row(position);
            let column = held.columns.get_mut(slot.index());
            let column = column.and_then(|column| (column.as_mut() as &mut dyn Any).downcast_mut());
            note(column.unwrap_or_else(|| undeclared::<C>()), *number as usize, key, epochs);
        }
    }

    /// Changes the column of a handle at the key at hand. `change` says whether it began or ceased to hold something.
    pub(crate) fn change<C: Column, R>(
        &mut self,
        slot: Slot,
        change: impl FnOnce(&mut C, usize) -> (R, Change),
    ) -> R {
        let At { hash, position, key } = &mut self.at;
        let Layout::Columns(columns) = &mut self.layout else { undeclared::<C>() };
        let number = columns.number_at(position, *hash, key);
        let column = columns.held.columns.get_mut(slot.index());
        let column = column.and_then(|column| (column.as_mut() as &mut dyn Any).downcast_mut());
        let (result, change) = change(column.unwrap_or_else(|| undeclared::<C>()), number as usize);
        columns.held.count(number, change);
        columns.release(position, key, number);
        result
    }
}

/// A handle that its function did not declare, or that belongs to another function. Only user code can cause it, and
/// there it is a panic like an index out of bounds: the task fails with this message and a backtrace.
#[cold]
#[expect(clippy::panic, reason = "a fault of user code in a call that has no other way to tell")]
fn undeclared<C>() -> ! {
    panic!(
        "state was used that its function does not declare ({}); derive State on the struct that holds it, \
         without #[state(skip)] on the field, and use it only in that struct's own methods",
        std::any::type_name::<C>()
    )
}
