//! The states of all keys of a store, in one of two layouts, and the key at hand.
//!
//! A function with one small value state has it *inline*: key and value share a row of the key table, so that a record
//! costs one way to memory. Every other function has *columns*: the key table gives a key a number, its place in one typed
//! column per state. Handles reach both through an [`Accessor`], which always stands at one key.
//! Invariants: exactly the keys that have state are in the key table; all columns are equally long; `live` counts for each
//! number the columns that hold something of its key, and a number is free only when that count is zero.

use std::any::Any;
use std::hash::Hash;

use thalweg_common::key_group::{KeyGroup, encoded_key_hash, key_group};
use thalweg_common::record::{DecodeError, Record};

use crate::declare::{Declared, Slot};
use crate::key_table::{Found, KeyTable};
use crate::snapshot::Entries;

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
}

/// The key at hand.
struct At<K> {
    hash: u64,
    /// Where it is in the key table, if it has state.
    position: Option<usize>,
    /// The key as it was given. Always there while it has no state; with state it may have been moved out.
    key: Option<K>,
}

enum Layout<K> {
    Inline(Box<dyn InlineTable<K>>),
    Columns(Columns<K>),
}

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

/// One state of all keys of a store.
pub(crate) trait Column: Any + Send {
    /// Makes room for one more key.
    fn grow(&mut self);

    /// Starts to fetch the place of the key with this number.
    fn prefetch(&self, number: usize);

    /// Entries held: keys of a value state, pairs of a map state.
    fn entries(&self) -> usize;

    /// Memory of one entry, without what it holds on the heap.
    fn entry_bytes(&self) -> usize;

    /// Appends all entries of the key with this number, each led by the key.
    fn append(&self, number: usize, entries: &mut GroupedEntries);

    /// Reads one entry, behind its key, into the place of the key with this number.
    fn decode(&mut self, number: usize, bytes: &mut &[u8]) -> Result<Change, DecodeError>;
}

/// Whether a column began or ceased to hold something of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    Began,
    Ceased,
}

impl Change {
    /// From whether there was and is something.
    pub(crate) fn between(before: bool, after: bool) -> Self {
        match (before, after) {
            (false, true) => Self::Began,
            (true, false) => Self::Ceased,
            _ => Self::None,
        }
    }
}

/// Keys by number, and a column per state.
struct Columns<K> {
    numbers: KeyTable<K, u32>,
    columns: Vec<Box<dyn Column>>,
    live: Vec<u32>,
    free: Vec<u32>,
}

impl<K: StateKey> Columns<K> {
    /// A number for a new key.
    fn allocate(&mut self) -> u32 {
        if let Some(number) = self.free.pop() {
            return number;
        }
        self.columns.iter_mut().for_each(|column| column.grow());
        self.live.push(0);
        u32::try_from(self.live.len() - 1).expect("a task has memory for less than 2^32 keys")
    }

    fn count(&mut self, number: u32, change: Change) {
        match change {
            Change::None => {}
            Change::Began => self.live[number as usize] += 1,
            Change::Ceased => self.live[number as usize] -= 1,
        }
    }
}

impl<K: StateKey> Tables<K> {
    /// Empty tables for these states, in the layout that suits them.
    pub(crate) fn new(declared: Vec<Declared<K>>) -> Self {
        let layout = match <[Declared<K>; 1]>::try_from(declared) {
            Ok([Declared { inline: Some(inline), .. }]) => Layout::Inline(inline()),
            Ok([other]) => Layout::columns(vec![other.column]),
            Err(many) => Layout::columns(many.into_iter().map(|declared| declared.column).collect()),
        };
        Self { layout, at: At { hash: 0, position: None, key: None } }
    }

    pub(crate) fn find(&self, key: &K) -> Found {
        match &self.layout {
            Layout::Inline(table) => table.find(key),
            Layout::Columns(columns) => columns.numbers.find(key),
        }
    }

    /// Finds a batch of keys and starts to fetch their states; `found` comes empty.
    pub(crate) fn find_all(&self, keys: &[K], found: &mut Vec<Found>) {
        match &self.layout {
            Layout::Inline(table) => table.find_all(keys, found),
            Layout::Columns(Columns { numbers, columns, .. }) => {
                numbers.find_all(keys, found);
                numbers.for_found(found, |number| {
                    columns.iter().for_each(|column| column.prefetch(number as usize));
                });
            }
        }
    }

    pub(crate) fn position(&self, hash: u64, key: &K) -> Option<usize> {
        match &self.layout {
            Layout::Inline(table) => table.position(hash, key),
            Layout::Columns(columns) => columns.numbers.position(hash, key),
        }
    }

    pub(crate) fn generation(&self) -> u64 {
        match &self.layout {
            Layout::Inline(table) => table.generation(),
            Layout::Columns(columns) => columns.numbers.generation(),
        }
    }

    /// Goes to a key.
    #[inline]
    pub(crate) fn select(&mut self, key: K, found: Found) {
        self.at = At { hash: found.hash, position: found.position, key: Some(key) };
    }

    /// The key at hand.
    #[inline]
    pub(crate) fn key(&self) -> &K {
        match (&self.at.key, self.at.position) {
            (Some(key), _) => key,
            (None, Some(position)) => match &self.layout {
                Layout::Inline(table) => table.key(position),
                Layout::Columns(columns) => &columns.numbers.row(position).0,
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

    /// Keys that have state.
    pub(crate) fn len(&self) -> usize {
        match &self.layout {
            Layout::Inline(table) => table.len(),
            Layout::Columns(columns) => columns.numbers.len(),
        }
    }

    pub(crate) fn keys(&self) -> Box<dyn Iterator<Item = &K> + '_> {
        match &self.layout {
            Layout::Inline(table) => table.keys(),
            Layout::Columns(columns) => Box::new(columns.numbers.iter().map(|(key, _)| key)),
        }
    }

    /// Entries of all states.
    pub(crate) fn entries(&self) -> u64 {
        match &self.layout {
            Layout::Inline(table) => table.len() as u64,
            Layout::Columns(columns) => columns.columns.iter().map(|column| column.entries() as u64).sum(),
        }
    }

    /// Memory of keys and values without what they hold on the heap.
    pub(crate) fn bytes(&self) -> u64 {
        let bytes = match &self.layout {
            Layout::Inline(table) => table.len() * table.row_bytes(),
            Layout::Columns(Columns { numbers, columns, .. }) => {
                let values: usize =
                    columns.iter().map(|column| column.entries() * column.entry_bytes()).sum();
                values + numbers.len() * size_of::<Option<(K, u32)>>()
            }
        };
        bytes as u64
    }

    /// Appends the entries of all keys: one collection for each state.
    pub(crate) fn append(&self, entries: &mut [GroupedEntries]) {
        match &self.layout {
            Layout::Inline(table) => entries.iter_mut().for_each(|entries| table.append(entries)),
            Layout::Columns(Columns { numbers, columns, .. }) => {
                for (key, number) in numbers.iter() {
                    for (column, entries) in columns.iter().zip(&mut *entries) {
                        entries.key(key);
                        column.append(*number as usize, entries);
                    }
                }
            }
        }
    }

    /// Reads one entry of the state at `index` for `key`.
    pub(crate) fn decode(&mut self, index: usize, key: K, bytes: &mut &[u8]) -> Result<(), DecodeError> {
        match &mut self.layout {
            Layout::Inline(table) => table.decode(key, bytes),
            Layout::Columns(columns) => {
                let found = columns.numbers.find(&key);
                let number = match found.position {
                    Some(position) => columns.numbers.row(position).1,
                    None => {
                        let number = columns.allocate();
                        columns.numbers.insert(found.hash, key, number);
                        number
                    }
                };
                let change = columns.columns[index].decode(number as usize, bytes)?;
                columns.count(number, change);
                Ok(())
            }
        }
    }
}

impl<K> Layout<K> {
    fn columns(columns: Vec<Box<dyn Column>>) -> Self {
        Self::Columns(Columns { numbers: KeyTable::default(), columns, live: Vec::new(), free: Vec::new() })
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

    /// The column of a handle, and the number of the key at hand if it has state.
    pub(crate) fn column<C: Column>(&self, slot: Slot) -> (&C, Option<usize>) {
        let Layout::Columns(Columns { numbers, columns, .. }) = &self.layout else { undeclared::<C>() };
        let column =
            columns.get(slot.index()).and_then(|column| (column.as_ref() as &dyn Any).downcast_ref());
        let number = self.at.position.map(|position| numbers.row(position).1 as usize);
        (column.unwrap_or_else(|| undeclared::<C>()), number)
    }

    /// The column of a handle, to change values that are there already.
    pub(crate) fn column_mut<C: Column>(&mut self, slot: Slot) -> (&mut C, Option<usize>) {
        let Layout::Columns(Columns { numbers, columns, .. }) = &mut self.layout else { undeclared::<C>() };
        let column =
            columns.get_mut(slot.index()).and_then(|column| (column.as_mut() as &mut dyn Any).downcast_mut());
        let number = self.at.position.map(|position| numbers.row(position).1 as usize);
        (column.unwrap_or_else(|| undeclared::<C>()), number)
    }

    /// Changes the column of a handle at the key at hand. `change` says whether it began or ceased to hold something.
    pub(crate) fn change<C: Column, R>(
        &mut self,
        slot: Slot,
        change: impl FnOnce(&mut C, usize) -> (R, Change),
    ) -> R {
        let Layout::Columns(columns) = &mut self.layout else { undeclared::<C>() };
        let number = match self.at.position {
            Some(position) => columns.numbers.row(position).1,
            None => {
                let number = columns.allocate();
                let key = self.at.key.take().expect("a key without state is kept as it was given");
                self.at.position = Some(columns.numbers.insert(self.at.hash, key, number));
                number
            }
        };
        let column = columns.columns.get_mut(slot.index());
        let column = column.and_then(|column| (column.as_mut() as &mut dyn Any).downcast_mut());
        let (result, change) = change(column.unwrap_or_else(|| undeclared::<C>()), number as usize);
        columns.count(number, change);
        if columns.live[number as usize] == 0
            && let Some(position) = self.at.position.take()
        {
            columns.free.push(number);
            self.at.key = Some(columns.numbers.remove(position).0);
        }
        result
    }
}

/// The row of the key at hand in an inline table.
pub(crate) struct InlineRow<'a, K, T> {
    table: &'a mut KeyTable<K, T>,
    at: &'a mut At<K>,
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

/// Entries of one state on their way into a snapshot, by key group.
pub(crate) struct GroupedEntries {
    max_parallelism: u32,
    first: KeyGroup,
    groups: Vec<Vec<u8>>,
    key: Vec<u8>,
    group: usize,
}

impl GroupedEntries {
    /// For the groups from `first` on, with room for `bytes` in all.
    pub(crate) fn new(max_parallelism: u32, owned: std::ops::Range<KeyGroup>, bytes: u64) -> Self {
        let room = usize::try_from(bytes).unwrap_or(0) / owned.len().max(1);
        let groups = owned.clone().map(|_| Vec::with_capacity(room + room / 16)).collect();
        Self { max_parallelism, first: owned.start, groups, key: Vec::new(), group: 0 }
    }

    /// Goes to a key. Only keys of owned groups are in a store.
    pub(crate) fn key<K: Record>(&mut self, key: &K) {
        self.key.clear();
        key.encode(&mut self.key);
        let group = key_group(encoded_key_hash(&self.key), self.max_parallelism);
        self.group = (group - self.first) as usize;
    }

    /// Begins an entry of that key: what comes behind the key is to be appended.
    pub(crate) fn entry(&mut self) -> &mut Vec<u8> {
        let entries = &mut self.groups[self.group];
        entries.extend_from_slice(&self.key);
        entries
    }

    /// The groups that have entries.
    pub(crate) fn into_groups(self) -> impl Iterator<Item = (KeyGroup, Entries)> {
        let groups = (self.first..).zip(self.groups);
        groups.filter(|(_, entries)| !entries.is_empty()).map(|(group, entries)| (group, Entries(entries)))
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
