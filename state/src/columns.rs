//! Keys by number, and a typed column per state: the layout of functions with several states, with a map, or with a large value.
//!
//! The same columns serve as memory store and as cache. As a cache they keep a row for every key of which all is known, also
//! for one without state, and marks of what has changed.

use std::any::Any;

use thalweg_common::Timestamp;
use thalweg_common::record::{DecodeError, Record};

use crate::cache::batch::EntryBatch;
use crate::cache::epochs::{Epochs, Mark, Rows, sweep};
use crate::grouped::GroupedEntries;
use crate::key_table::KeyTable;
use crate::prefetch::prefetch;
use crate::tables::StateKey;

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

    /// Memory of the place of a key, whether it has entries or not.
    fn place_bytes(&self) -> usize;

    /// Whether entries have memory on the heap.
    fn has_heap(&self) -> bool;

    /// Appends all entries of the key with this number whose life is not over, each led by the key.
    fn append(&self, number: usize, now_ms: Timestamp, entries: &mut GroupedEntries);

    /// In a memory store: takes out the entries of the key with this number whose life is over. Says how many it looked at.
    fn expire(&mut self, number: usize, now_ms: Timestamp) -> (Change, usize);

    /// Reads one entry, behind its key, into the place of the key with this number.
    fn decode(&mut self, number: usize, bytes: &mut &[u8]) -> Result<Change, DecodeError>;

    /// Checks an entry behind its key and moves past it; says how long its map key is.
    fn skip(&self, bytes: &mut &[u8]) -> Result<usize, DecodeError>;

    /// From now on this is a cache: changes are marked.
    fn track(&mut self);

    /// The value of a key is about to change: marks it, and encodes the old one of the key at hand for the frozen epoch if it
    /// must. The entries of a map are told one by one.
    fn note(
        &mut self,
        state: usize,
        number: usize,
        go_to_key: &mut dyn FnMut(&mut Epochs),
        epochs: &mut Epochs,
    );

    /// Encodes what belongs to the frozen epoch, of the key at hand, and unmarks it.
    fn encode_frozen(&mut self, state: usize, number: usize, epochs: &mut Epochs);

    /// Encodes what has changed, of the key at hand.
    fn encode_changed(&self, state: usize, number: usize, epochs: &mut Epochs, batch: &mut EntryBatch);

    /// Forgets all entries and marks of a key.
    fn forget(&mut self, number: usize);
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

/// The numbers of the keys, and what is held under each.
pub(crate) struct Columns<K> {
    pub(crate) numbers: KeyTable<K, u32>,
    pub(crate) held: Held,
    hand: usize,
    /// Of a memory store: how many places and entries may be looked at for what has expired, before more are allowed.
    allowance: isize,
}

/// What is held under each number.
pub(crate) struct Held {
    pub(crate) columns: Vec<Box<dyn Column>>,
    pub(crate) live: Vec<u32>,
    free: Vec<u32>,
    /// Of a cache, a mark for each number.
    marks: Option<Vec<Mark>>,
}

impl<K: StateKey> Columns<K> {
    pub(crate) fn new(columns: Vec<Box<dyn Column>>) -> Self {
        let held = Held { columns, live: Vec::new(), free: Vec::new(), marks: None };
        Self { numbers: KeyTable::default(), held, hand: 0, allowance: 0 }
    }

    /// As a cache.
    pub(crate) fn tracked(mut columns: Vec<Box<dyn Column>>) -> Self {
        columns.iter_mut().for_each(|column| column.track());
        let mut made = Self::new(columns);
        made.held.marks = Some(Vec::new());
        made
    }

    /// The number of a key, which may be new.
    pub(crate) fn number_of(&mut self, key: K) -> u32 {
        let found = self.numbers.find(&key);
        match found.position {
            Some(position) => self.numbers.row(position).1,
            None => {
                let number = self.held.allocate();
                self.numbers.insert(found.hash, key, number);
                number
            }
        }
    }

    /// The number of the key at hand, which may be new.
    pub(crate) fn number_at(&mut self, position: &mut Option<usize>, hash: u64, key: &mut Option<K>) -> u32 {
        if let Some(position) = *position {
            return self.numbers.row(position).1;
        }
        let number = self.held.allocate();
        let key = key.take().expect("a key without state is kept as it was given");
        *position = Some(self.numbers.insert(hash, key, number));
        number
    }

    /// The key at hand has lost what it held: without any other state it goes, unless this is a cache, which remembers that.
    pub(crate) fn release(&mut self, position: &mut Option<usize>, key: &mut Option<K>, number: u32) {
        if self.held.live[number as usize] == 0
            && self.held.marks.is_none()
            && let Some(position) = position.take()
        {
            self.held.free.push(number);
            *key = Some(self.numbers.remove(position).0);
        }
    }

    /// Notes a use of the row at a position.
    pub(crate) fn used(&mut self, position: usize) {
        let number = self.numbers.row(position).1 as usize;
        if let Some(mark) = self.held.marks.as_mut().and_then(|marks| marks.get_mut(number)) {
            mark.used();
        }
    }

    /// The state at `index` of the row at a position is about to change.
    pub(crate) fn note(&mut self, index: usize, position: usize, hash: u64, epochs: &mut Epochs) {
        let Self { numbers, held, .. } = self;
        let (key, number) = numbers.row(position);
        held.note_row(*number, hash, numbers.capacity(), epochs);
        if let Some(column) = held.columns.get_mut(index) {
            column.note(index, *number as usize, &mut |epochs| epochs.go_to(key), epochs);
        }
    }

    /// Adds a row for a key that has none, and says where it is.
    pub(crate) fn admit(&mut self, key: K, hash: u64) -> usize {
        let number = self.held.allocate();
        self.numbers.insert(hash, key, number)
    }

    /// Reads an entry of the state at `index`, behind its key.
    pub(crate) fn decode(&mut self, index: usize, key: K, bytes: &mut &[u8]) -> Result<(), DecodeError> {
        let number = self.number_of(key);
        let change = self.held.columns[index].decode(number as usize, bytes)?;
        self.held.count(number, change);
        Ok(())
    }

    /// The same for a key that has a row.
    pub(crate) fn fill(&mut self, index: usize, key: &K, bytes: &mut &[u8]) -> Result<(), DecodeError> {
        let Some(position) = self.numbers.find(key).position else { return Ok(()) };
        let number = self.numbers.row(position).1;
        let change = self.held.columns[index].decode(number as usize, bytes)?;
        self.held.count(number, change);
        Ok(())
    }

    pub(crate) fn encode_frozen(&mut self, epochs: &mut Epochs, limit_bytes: usize) {
        epochs.encode_frozen(&mut self.numbers, &mut self.held, limit_bytes);
    }

    pub(crate) fn sweep(&mut self, epochs: &mut Epochs, keep_rows: usize, batch: &mut EntryBatch) -> bool {
        sweep(&mut self.numbers, &mut self.held, &mut self.hand, epochs, keep_rows, batch)
    }

    /// In a memory store: goes on from where it stopped to take out what has expired, over so many places of the key table. An entry
    /// counts as a place; what a large map takes too much is taken from the next times.
    pub(crate) fn expire(&mut self, places: usize, now_ms: Timestamp) {
        let places = isize::try_from(places).unwrap_or(isize::MAX);
        self.allowance = self.allowance.saturating_add(places).min(places);
        for _ in 0..self.numbers.capacity() {
            if self.allowance <= 0 {
                return;
            }
            self.allowance -= 1;
            self.hand %= self.numbers.capacity();
            let Some(number) = self.numbers.row_at(self.hand).map(|(_, number)| *number) else {
                self.hand += 1;
                continue;
            };
            for index in 0..self.held.columns.len() {
                let (change, visited) = self.held.columns[index].expire(number as usize, now_ms);
                self.held.count(number, change);
                self.allowance = self.allowance.saturating_sub_unsigned(visited);
            }
            if self.held.live[number as usize] > 0 {
                self.hand += 1;
            } else {
                // Another row may move to this place: the hand stays.
                self.numbers.remove(self.hand);
                self.held.free.push(number);
            }
        }
    }

    /// Memory of the places of all keys and of all entries, and how many entries have memory on the heap.
    pub(crate) fn cache_bytes(&self) -> (usize, usize) {
        let columns = &self.held.columns;
        let place: usize = columns.iter().map(|column| column.place_bytes()).sum();
        let places = self.numbers.capacity() * size_of::<Option<(K, u32)>>()
            + self.held.live.capacity() * (place + size_of::<u32>() + size_of::<Mark>());
        let entries: usize = columns.iter().map(|column| column.entries() * column.entry_bytes()).sum();
        let on_heap = columns.iter().filter(|column| column.has_heap() || std::mem::needs_drop::<K>());
        (places + entries, on_heap.map(|column| column.entries()).sum())
    }
}

impl Held {
    /// A number for a new key.
    fn allocate(&mut self) -> u32 {
        if let Some(number) = self.free.pop() {
            return number;
        }
        self.columns.iter_mut().for_each(|column| column.grow());
        if let Some(marks) = &mut self.marks {
            marks.push(Mark::default());
        }
        self.live.push(0);
        u32::try_from(self.live.len() - 1).expect("a task has memory for less than 2^32 keys")
    }

    pub(crate) fn count(&mut self, number: u32, change: Change) {
        match change {
            Change::None => {}
            Change::Began => self.live[number as usize] += 1,
            Change::Ceased => self.live[number as usize] -= 1,
        }
    }

    fn note_row(&mut self, number: u32, hash: u64, capacity: usize, epochs: &mut Epochs) {
        if let Some(mark) = self.marks.as_mut().and_then(|marks| marks.get_mut(number as usize)) {
            epochs.note_row(mark, hash, capacity);
        }
    }
}

impl<K: Record> Rows<K, u32> for Held {
    fn prefetch(&self, row: &u32) {
        let number = *row as usize;
        self.columns.iter().for_each(|column| column.prefetch(number));
        if let Some(marks) = &self.marks {
            prefetch(marks, number);
        }
    }

    fn mark<'a>(&'a mut self, row: &'a mut u32) -> &'a mut Mark {
        let marks = self.marks.as_mut().expect("only a cache has epochs");
        &mut marks[*row as usize]
    }

    fn encode_frozen(&mut self, row: &mut u32, epochs: &mut Epochs) {
        for (state, column) in self.columns.iter_mut().enumerate() {
            column.encode_frozen(state, *row as usize, epochs);
        }
    }

    fn encode_changed(&mut self, row: &mut u32, epochs: &mut Epochs, batch: &mut EntryBatch) {
        for (state, column) in self.columns.iter().enumerate() {
            column.encode_changed(state, *row as usize, epochs, batch);
        }
    }

    fn forget(&mut self, row: u32) -> bool {
        let number = row as usize;
        self.columns.iter_mut().for_each(|column| column.forget(number));
        if let Some(marks) = &mut self.marks {
            marks[number] = Mark::default();
        }
        self.free.push(row);
        std::mem::take(&mut self.live[number]) > 0
    }
}
