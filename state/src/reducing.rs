//! `ReducingState`: one value per key that everything which is added is combined with.

use std::fmt;

use thalweg_common::graph::StateKind;
use thalweg_common::record::Record;

use crate::declare::{Declarations, Declare};
use crate::tables::{Accessor, StateKey};
use crate::value::ValueState;

/// One value per key, which each value that is added is combined with: Flink's `ReducingState`. Every method works on the value of the
/// key of the context that it is given.
///
/// ```
/// # mod krate { pub mod state { pub use thalweg_state::*; } } // a job has `thalweg` instead
/// use thalweg_common::key_group::groups_of;
/// use thalweg_state::{Declarations, KeyedStore, ReducingState, State};
///
/// #[derive(State, Clone)]
/// #[state(crate = krate)]
/// struct Highest {
///     price: ReducingState<u64>,
/// }
///
/// let mut highest = Highest { price: ReducingState::new(|one, other| one.max(other)) };
/// let mut declarations = Declarations::default();
/// highest.declare(&mut declarations);
/// let mut store = KeyedStore::<String>::new("highest", declarations, 128, groups_of(0, 1, 128)).unwrap();
///
/// let mut amazon = store.select("AMZN".to_string()).unwrap();
/// for price in [30, 50, 40] {
///     highest.price.add(&mut amazon, price);
/// }
/// assert_eq!(highest.price.get(&amazon), Some(&50));
/// ```
///
/// A closure that captures something has a type of its own: `ReducingState<T, F>`.
///
/// # Panics
/// Every method panics when the state was not declared by the function that uses it; see
/// [`State`](macro@crate::State).
pub struct ReducingState<T, F = fn(T, T) -> T> {
    values: ValueState<T>,
    combine: F,
}

impl<T: Record, F: Fn(T, T) -> T> ReducingState<T, F> {
    /// Combines by this function: `combine(value so far, added)`.
    pub fn new(combine: F) -> Self {
        Self { values: ValueState::default(), combine }
    }

    /// The value so far, if anything was added.
    #[inline]
    pub fn get<'a>(&self, context: &'a impl Accessor) -> Option<&'a T> {
        self.values.get(context)
    }

    /// Adds a value; the first one is the value.
    #[inline]
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

/// The value so far with one that is added; the first one is the value.
#[inline]
pub(crate) fn combined<T>(before: Option<T>, added: T, combine: impl FnOnce(T, T) -> T) -> T {
    match before {
        Some(before) => combine(before, added),
        None => added,
    }
}

impl<T: Record, F> Declare for ReducingState<T, F> {
    fn declare<K: StateKey>(&mut self, name: &str, declarations: &mut Declarations<K>) {
        self.values.declare_as(StateKind::Reducing, name, declarations);
    }
}

impl<T, F: Clone> Clone for ReducingState<T, F> {
    fn clone(&self) -> Self {
        Self { values: self.values.clone(), combine: self.combine.clone() }
    }
}

impl<T, F> fmt::Debug for ReducingState<T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ReducingState<{}>", std::any::type_name::<T>())
    }
}
