//! `ExpiringReducing`: one value per key that everything which is added is combined with, for a time only.

use std::fmt;

use thalweg_common::graph::StateKind;
use thalweg_common::record::Record;
use thalweg_common::ttl::StateTtl;

use super::{DeclareExpiring, ExpiringValue};
use crate::declare::Declarations;
use crate::reducing::combined;
use crate::tables::{Accessor, StateKey};

/// One value per key, which each value that is added is combined with, as in a [`ReducingState`](crate::ReducingState): it lives for a time
/// only, from when something was added last, by the clock of the machine (processing time). What is added to a value whose life is
/// over is the first one again. Declared as an [`ExpiringValue`] is.
///
/// # Panics
/// Every method panics when the state was not declared by the function that uses it; see
/// [`State`](macro@crate::State).
pub struct ExpiringReducing<T, F = fn(T, T) -> T> {
    values: ExpiringValue<T>,
    combine: F,
}

impl<T: Record, F: Fn(T, T) -> T> ExpiringReducing<T, F> {
    /// Combines by this function: `combine(value so far, added)`.
    pub fn new(combine: F) -> Self {
        Self { values: ExpiringValue::default(), combine }
    }

    /// The value so far, if anything was added. With [`OnReadAndWrite`](thalweg_common::ttl::TtlUpdate::OnReadAndWrite) its life begins
    /// anew.
    pub fn get<'a>(&self, context: &'a mut impl Accessor) -> Option<&'a T> {
        self.values.get(context)
    }

    /// The value so far, without any effect on its life.
    pub fn peek<'a>(&self, context: &'a impl Accessor) -> Option<&'a T> {
        self.values.peek(context)
    }

    /// Adds a value; the first one is the value. Its life begins anew.
    pub fn add(&self, context: &mut impl Accessor, value: T) {
        self.values.update(context, |before| Some(combined(before, value, &self.combine)));
    }

    /// Takes the value out.
    pub fn take(&self, context: &mut impl Accessor) -> Option<T> {
        self.values.take(context)
    }

    /// Forgets the value. A key without any state takes no memory.
    pub fn clear(&self, context: &mut impl Accessor) {
        self.values.clear(context);
    }
}

impl<T: Record, F> DeclareExpiring for ExpiringReducing<T, F> {
    fn declare<K: StateKey>(&mut self, name: &str, ttl: StateTtl, declarations: &mut Declarations<K>) {
        self.values.declare_as(StateKind::Reducing, name, ttl, declarations);
    }
}

impl<T, F: Clone> Clone for ExpiringReducing<T, F> {
    fn clone(&self) -> Self {
        Self { values: self.values.clone(), combine: self.combine.clone() }
    }
}

impl<T, F> fmt::Debug for ExpiringReducing<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExpiringReducing<{}>", std::any::type_name::<T>())
    }
}
