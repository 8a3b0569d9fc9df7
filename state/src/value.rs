//! `ValueState`: one value per key.

use std::fmt;
use std::marker::PhantomData;

use thalweg_common::Timestamp;
use thalweg_common::graph::StateKind;
use thalweg_common::record::{DecodeError, Record};

use crate::cache::batch::EntryBatch;
use crate::cache::epochs::{Epochs, Mark};
use crate::columns::{Change, Column};
use crate::declare::{Declarations, Declare, MakeInline, Slot};
use crate::expiring::Expiry;
use crate::grouped::GroupedEntries;
use crate::prefetch::prefetch;
use crate::tables::{Accessor, StateKey};

/// Largest key and value that lie in one row: the empty rows of a key table should not take much memory.
const MAX_INLINE_ROW_BYTES: usize = 64;

/// One value per key. Every method works on the key of the context that it is given.
///
/// # Panics
/// Every method panics when the state was not declared by the function that uses it; see
/// [`State`](macro@crate::State).
pub struct ValueState<T> {
    slot: Slot,
    value: PhantomData<fn() -> T>,
}

impl<T: Record> ValueState<T> {
    /// The value, if there is one.
    #[inline]
    pub fn get<'a>(&self, context: &'a impl Accessor) -> Option<&'a T> {
        let tables = context.tables();
        if let Some((table, position)) = tables.inline(self.slot) {
            return position.map(|position| &table.row(position).1);
        }
        if let Some(value) = tables.cached(self.slot) {
            return value;
        }
        let (column, number) = tables.column::<ValueColumn<T>>(self.slot);
        column.values[number?].as_ref()
    }

    /// The value, if there is one, to change it in place.
    #[inline]
    pub fn get_mut<'a>(&self, context: &'a mut impl Accessor) -> Option<&'a mut T> {
        let tables = context.tables_mut();
        if tables.is_inline() {
            return tables.inline_row(self.slot).get();
        }
        if tables.is_cached() {
            return tables.cached_row(self.slot).get();
        }
        tables.note(self.slot);
        let (column, number) = tables.column_mut::<ValueColumn<T>>(self.slot);
        column.values[number?].as_mut()
    }

    /// The value, to change it in place. If there is none, `first` makes it.
    #[inline]
    pub fn get_or_insert_with<'a>(
        &self,
        context: &'a mut impl Accessor,
        first: impl FnOnce() -> T,
    ) -> &'a mut T {
        let tables = context.tables_mut();
        if tables.is_inline() {
            return tables.inline_row(self.slot).get_or_insert_with(first);
        }
        if tables.is_cached() {
            return tables.cached_row(self.slot).get_or_insert_with(first);
        }
        tables.note(self.slot);
        tables.change(self.slot, |column: &mut ValueColumn<T>, number| {
            let is_new = column.values[number].is_none();
            if is_new {
                column.values[number] = Some(first());
                column.entries += 1;
            }
            ((), Change::between(!is_new, true))
        });
        let (column, number) = tables.column_mut::<ValueColumn<T>>(self.slot);
        let value = number.and_then(|number| column.values[number].as_mut());
        value.expect("a value was put there if there was none")
    }

    /// Sets the value.
    #[inline]
    pub fn set(&self, context: &mut impl Accessor, value: T) {
        self.update(context, |_| Some(value));
    }

    /// Replaces the value by what `update` makes of it; `None` stands for no value on both sides.
    #[inline]
    pub fn update(&self, context: &mut impl Accessor, update: impl FnOnce(Option<T>) -> Option<T>) {
        self.change(context, |before| (update(before), ()));
    }

    /// Takes the value out.
    #[inline]
    pub fn take(&self, context: &mut impl Accessor) -> Option<T> {
        self.change(context, |before| (None, before))
    }

    /// Replaces the value and gives a result.
    #[inline]
    fn change<R>(&self, context: &mut impl Accessor, change: impl FnOnce(Option<T>) -> (Option<T>, R)) -> R {
        let tables = context.tables_mut();
        if tables.is_inline() {
            return tables.inline_row(self.slot).update(change);
        }
        if tables.is_cached() {
            return tables.cached_row(self.slot).update(change);
        }
        tables.note(self.slot);
        tables.change(self.slot, |column: &mut ValueColumn<T>, number| {
            let place = &mut column.values[number];
            let before = place.take();
            let was_there = before.is_some();
            let (after, result) = change(before);
            *place = after;
            let change = Change::between(was_there, place.is_some());
            column.count(change);
            (result, change)
        })
    }

    /// Forgets the value. A key without any state takes no memory.
    #[inline]
    pub fn clear(&self, context: &mut impl Accessor) {
        self.take(context);
    }
}

impl<T: Record> ValueState<T> {
    /// Declares the state as one of another kind which has one value per key.
    #[doc(hidden)]
    pub fn declare_as<K: StateKey>(
        &mut self,
        kind: StateKind,
        name: &str,
        declarations: &mut Declarations<K>,
    ) {
        self.declare_kind(kind, name, None, declarations);
    }

    /// The same with values that expire, if `expiry` says when.
    pub(crate) fn declare_kind<K: StateKey>(
        &mut self,
        kind: StateKind,
        name: &str,
        expiry: Option<Expiry<T>>,
        declarations: &mut Declarations<K>,
    ) {
        let column = Box::new(ValueColumn::<T> { values: Vec::new(), entries: 0, expiry, marks: None });
        let fits = size_of::<Option<(K, T)>>() <= MAX_INLINE_ROW_BYTES && expiry.is_none();
        let (ttl, inline) = (expiry.map(|expiry| expiry.ttl), fits.then(MakeInline::of::<T>));
        self.slot = declarations.add(name, kind, T::schema(), ttl, column, inline);
    }
}

impl<T: Record> Declare for ValueState<T> {
    fn declare<K: StateKey>(&mut self, name: &str, declarations: &mut Declarations<K>) {
        self.declare_kind(StateKind::Value, name, None, declarations);
    }
}

impl<T> Default for ValueState<T> {
    fn default() -> Self {
        Self { slot: Slot::UNDECLARED, value: PhantomData }
    }
}

impl<T> Clone for ValueState<T> {
    fn clone(&self) -> Self {
        Self { slot: self.slot, value: PhantomData }
    }
}

impl<T> fmt::Debug for ValueState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ValueState<{}>", std::any::type_name::<T>())
    }
}

/// The values of all keys.
struct ValueColumn<T> {
    values: Vec<Option<T>>,
    entries: usize,
    /// If they do not live for ever.
    expiry: Option<Expiry<T>>,
    /// Of a cache: what has changed.
    marks: Option<Vec<Mark>>,
}

impl<T> ValueColumn<T> {
    fn count(&mut self, change: Change) {
        match change {
            Change::None => {}
            Change::Began => self.entries += 1,
            Change::Ceased => self.entries -= 1,
        }
    }
}

impl<T: Record> Column for ValueColumn<T> {
    fn grow(&mut self) {
        self.values.push(None);
        if let Some(marks) = &mut self.marks {
            marks.push(Mark::default());
        }
    }

    fn prefetch(&self, number: usize) {
        prefetch(&self.values, number);
        if let Some(marks) = &self.marks {
            prefetch(marks, number);
        }
    }

    fn entries(&self) -> usize {
        self.entries
    }

    fn entry_bytes(&self) -> usize {
        size_of::<Option<T>>()
    }

    fn place_bytes(&self) -> usize {
        // What an entry takes is counted there.
        size_of::<Mark>()
    }

    fn has_heap(&self) -> bool {
        std::mem::needs_drop::<T>()
    }

    fn append(&self, number: usize, now_ms: Timestamp, entries: &mut GroupedEntries) {
        let is_over = |value: &T| self.expiry.is_some_and(|expiry| expiry.is_over(value, now_ms));
        if let Some(value) = self.values[number].as_ref().filter(|value| !is_over(value)) {
            value.encode(entries.entry());
        }
    }

    fn expire(&mut self, number: usize, now_ms: Timestamp) -> (Change, usize) {
        let (Some(expiry), Some(value)) = (&self.expiry, &self.values[number]) else {
            return (Change::None, 0);
        };
        if !expiry.is_over(value, now_ms) {
            return (Change::None, 1);
        }
        self.values[number] = None;
        self.count(Change::Ceased);
        (Change::Ceased, 1)
    }

    fn decode(&mut self, number: usize, bytes: &mut &[u8]) -> Result<Change, DecodeError> {
        let before = self.values[number].replace(T::decode(bytes)?);
        let change = Change::between(before.is_some(), true);
        self.count(change);
        Ok(change)
    }

    fn skip(&self, bytes: &mut &[u8]) -> Result<usize, DecodeError> {
        T::decode(bytes).map(|_| 0)
    }

    fn track(&mut self) {
        self.marks = Some(Vec::new());
    }

    fn note(
        &mut self,
        state: usize,
        number: usize,
        go_to_key: &mut dyn FnMut(&mut Epochs),
        epochs: &mut Epochs,
    ) {
        let Some(mark) = self.marks.as_mut().and_then(|marks| marks.get_mut(number)) else { return };
        if !epochs.is_noted(*mark) && epochs.note_entry(mark) {
            go_to_key(epochs);
            epochs.encode(state, |_| (), encoder(&self.values[number]));
        }
    }

    fn encode_frozen(&mut self, state: usize, number: usize, epochs: &mut Epochs) {
        let mark = self.marks.as_mut().and_then(|marks| marks.get_mut(number));
        if mark.is_some_and(|mark| epochs.take_frozen(mark)) {
            epochs.encode(state, |_| (), encoder(&self.values[number]));
        }
    }

    fn encode_changed(&self, state: usize, number: usize, epochs: &mut Epochs, batch: &mut EntryBatch) {
        if self.marks.as_ref().is_some_and(|marks| marks[number].is_changed()) {
            epochs.encode_into(batch, state, |_| (), encoder(&self.values[number]));
        }
    }

    fn forget(&mut self, number: usize) {
        if self.values[number].take().is_some() {
            self.entries -= 1;
        }
        if let Some(marks) = &mut self.marks {
            marks[number] = Mark::default();
        }
    }
}

/// What encodes a value, if there is one.
fn encoder<T: Record>(value: &Option<T>) -> Option<impl FnOnce(&mut Vec<u8>)> {
    value.as_ref().map(|value| |out: &mut Vec<u8>| value.encode(out))
}
