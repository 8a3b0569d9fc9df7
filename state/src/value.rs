//! `ValueState`: one value per key.

use std::fmt;
use std::marker::PhantomData;

use thalweg_common::graph::StateKind;
use thalweg_common::record::{DecodeError, Record};

use crate::declare::{Declarations, Declare, Slot};
use crate::tables::{Accessor, Change, Column};

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
        let (column, number) = context.tables().column::<ValueColumn<T>>(self.slot);
        column.values[number].as_ref()
    }

    /// The value, if there is one, to change it in place.
    #[inline]
    pub fn get_mut<'a>(&self, context: &'a mut impl Accessor) -> Option<&'a mut T> {
        let (column, number) = context.tables_mut().column_mut::<ValueColumn<T>>(self.slot);
        column.values[number].as_mut()
    }

    /// The value, to change it in place. If there is none, `first` makes it.
    #[inline]
    pub fn get_or_insert_with<'a>(
        &self,
        context: &'a mut impl Accessor,
        first: impl FnOnce() -> T,
    ) -> &'a mut T {
        let tables = context.tables_mut();
        tables.change(self.slot, |column: &mut ValueColumn<T>, number| {
            let is_new = column.values[number].is_none();
            if is_new {
                column.values[number] = Some(first());
                column.entries += 1;
            }
            ((), Change::between(!is_new, true))
        });
        let (column, number) = tables.column_mut::<ValueColumn<T>>(self.slot);
        column.values[number].as_mut().expect("a value was put there if there was none")
    }

    /// Sets the value.
    #[inline]
    pub fn set(&self, context: &mut impl Accessor, value: T) {
        self.update(context, |_| Some(value));
    }

    /// Replaces the value by what `update` makes of it; `None` stands for no value on both sides.
    #[inline]
    pub fn update(&self, context: &mut impl Accessor, update: impl FnOnce(Option<T>) -> Option<T>) {
        context.tables_mut().change(self.slot, |column: &mut ValueColumn<T>, number| {
            let place = &mut column.values[number];
            let before = place.take();
            let was_there = before.is_some();
            *place = update(before);
            let change = Change::between(was_there, place.is_some());
            column.count(change);
            ((), change)
        });
    }

    /// Takes the value out.
    #[inline]
    pub fn take(&self, context: &mut impl Accessor) -> Option<T> {
        context.tables_mut().change(self.slot, |column: &mut ValueColumn<T>, number| {
            let value = column.values[number].take();
            let change = Change::between(value.is_some(), false);
            column.count(change);
            (value, change)
        })
    }

    /// Forgets the value. A key without any state takes no memory.
    #[inline]
    pub fn clear(&self, context: &mut impl Accessor) {
        self.take(context);
    }
}

impl<T: Record> Declare for ValueState<T> {
    fn declare(&mut self, name: &str, declarations: &mut Declarations) {
        let column = ValueColumn::<T> { values: Vec::new(), entries: 0 };
        self.slot = declarations.add(name, StateKind::Value, T::schema(), Box::new(column));
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
    }

    fn entries(&self) -> usize {
        self.entries
    }

    fn entry_bytes(&self) -> usize {
        size_of::<Option<T>>()
    }

    fn append(&self, number: usize, key: &[u8], out: &mut Vec<u8>) {
        if let Some(value) = &self.values[number] {
            out.extend_from_slice(key);
            value.encode(out);
        }
    }

    fn decode(&mut self, number: usize, bytes: &mut &[u8]) -> Result<Change, DecodeError> {
        let before = self.values[number].replace(T::decode(bytes)?);
        let change = Change::between(before.is_some(), true);
        self.count(change);
        Ok(change)
    }
}
