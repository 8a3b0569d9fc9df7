//! Columns: the values of all keys, one typed column per state, and the place in them of the key at hand.
//!
//! A key has a number while it has state or is at hand; its number is its place in every column. Handles reach the
//! columns through an [`Accessor`], which always stands at one key.
//! Invariants: all columns are equally long; `live` counts for each number the columns that hold something of its key,
//! and a number is free only when that count is zero.

use std::any::Any;

use thalweg_common::record::DecodeError;

use crate::declare::Slot;

/// Whatever stands at a key and lets handles reach its state: the context of a function.
pub trait Accessor {
    /// The columns, to read.
    fn tables(&self) -> &Tables;

    /// The columns, to write.
    fn tables_mut(&mut self) -> &mut Tables;
}

/// One state of all keys of a store.
pub(crate) trait Column: Any + Send {
    /// Makes room for one more key.
    fn grow(&mut self);

    /// Entries held: keys of a value state, pairs of a map state.
    fn entries(&self) -> usize;

    /// Memory of one entry, without what it holds on the heap.
    fn entry_bytes(&self) -> usize;

    /// Appends all entries of the key with this number, each led by the encoded key.
    fn append(&self, number: usize, key: &[u8], out: &mut Vec<u8>);

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

/// All states of all keys of a store, and the key at hand. Opaque: handles know how to use it.
#[derive(Default)]
pub struct Tables {
    columns: Vec<Box<dyn Column>>,
    live: Vec<u32>,
    free: Vec<u32>,
    current: u32,
}

impl Tables {
    pub(crate) fn new(columns: Vec<Box<dyn Column>>) -> Self {
        Self { columns, ..Self::default() }
    }

    /// A number for a new key.
    pub(crate) fn allocate(&mut self) -> u32 {
        if let Some(number) = self.free.pop() {
            return number;
        }
        self.columns.iter_mut().for_each(|column| column.grow());
        self.live.push(0);
        u32::try_from(self.live.len() - 1).expect("a task has memory for less than 2^32 keys")
    }

    /// Gives back the number of a key without state.
    pub(crate) fn release(&mut self, number: u32) {
        debug_assert!(!self.is_live(number), "a key with state keeps its number");
        self.free.push(number);
    }

    /// Goes to the key with this number.
    pub(crate) fn select(&mut self, number: u32) {
        self.current = number;
    }

    /// Whether any column holds something of the key.
    pub(crate) fn is_live(&self, number: u32) -> bool {
        self.live[number as usize] > 0
    }

    pub(crate) fn columns(&self) -> &[Box<dyn Column>] {
        &self.columns
    }

    /// The column of a handle, and the number of the key at hand.
    pub(crate) fn column<C: Column>(&self, slot: Slot) -> (&C, usize) {
        let column =
            self.columns.get(slot.index()).and_then(|column| (column.as_ref() as &dyn Any).downcast_ref());
        (column.unwrap_or_else(|| undeclared::<C>()), self.current as usize)
    }

    /// Changes the column of a handle at the key at hand. `change` says whether it began or ceased to hold something.
    pub(crate) fn change<C: Column, R>(
        &mut self,
        slot: Slot,
        change: impl FnOnce(&mut C, usize) -> (R, Change),
    ) -> R {
        let number = self.current as usize;
        let column = self
            .columns
            .get_mut(slot.index())
            .and_then(|column| (column.as_mut() as &mut dyn Any).downcast_mut());
        let (result, change) = change(column.unwrap_or_else(|| undeclared::<C>()), number);
        self.count(number, change);
        result
    }

    /// The column of a handle, to change values that are there already.
    pub(crate) fn column_mut<C: Column>(&mut self, slot: Slot) -> (&mut C, usize) {
        let column = self
            .columns
            .get_mut(slot.index())
            .and_then(|column| (column.as_mut() as &mut dyn Any).downcast_mut());
        (column.unwrap_or_else(|| undeclared::<C>()), self.current as usize)
    }

    /// Reads one entry of the state with this position into the place of a key.
    pub(crate) fn decode(
        &mut self,
        column: usize,
        number: u32,
        bytes: &mut &[u8],
    ) -> Result<(), DecodeError> {
        let change = self.columns[column].decode(number as usize, bytes)?;
        self.count(number as usize, change);
        Ok(())
    }

    fn count(&mut self, number: usize, change: Change) {
        match change {
            Change::None => {}
            Change::Began => self.live[number] += 1,
            Change::Ceased => self.live[number] -= 1,
        }
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
