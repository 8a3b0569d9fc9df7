//! `ListState`: a list per key.

use std::fmt;

use thalweg_common::graph::StateKind;
use thalweg_common::record::Record;

use crate::declare::{Declarations, Declare};
use crate::tables::{Accessor, StateKey};
use crate::value::ValueState;

/// A list per key, in the order in which its elements were added: Flink's `ListState`. Every method works on the list of the key of the
/// context that it is given. An empty list is none: its key takes no memory.
///
/// A list is one value: to add to it costs no more in a long one, and a checkpoint writes the whole list if it has changed. Where elements
/// are looked up or removed one by one, a [`MapState`](crate::MapState) is better.
///
/// ```
/// # mod krate { pub mod state { pub use thalweg_state::*; } } // a job has `thalweg` instead
/// use thalweg_common::key_group::groups_of;
/// use thalweg_state::{Declarations, KeyedStore, ListState, State};
///
/// #[derive(State, Clone, Default)]
/// #[state(crate = krate)]
/// struct Waiting {
///     orders: ListState<u64>,
/// }
///
/// let mut waiting = Waiting::default();
/// let mut declarations = Declarations::default();
/// waiting.declare(&mut declarations);
/// let mut store = KeyedStore::<String>::new("waiting", declarations, 128, groups_of(0, 1, 128)).unwrap();
///
/// let mut alice = store.select("alice".to_string()).unwrap();
/// waiting.orders.add(&mut alice, 7);
/// waiting.orders.extend(&mut alice, [8, 9]);
/// waiting.orders.retain(&mut alice, |order| *order != 8);
/// assert_eq!(waiting.orders.get(&alice), [7, 9]);
/// ```
///
/// # Panics
/// Every method panics when the state was not declared by the function that uses it; see
/// [`State`](macro@crate::State).
pub struct ListState<T> {
    lists: ValueState<Vec<T>>,
}

impl<T: Record> ListState<T> {
    /// The elements, in their order.
    #[inline]
    pub fn get<'a>(&self, context: &'a impl Accessor) -> &'a [T] {
        self.lists.get(context).map_or(&[], Vec::as_slice)
    }

    /// Adds an element at the end.
    #[inline]
    pub fn add(&self, context: &mut impl Accessor, element: T) {
        self.lists.get_or_insert_with(context, Vec::new).push(element);
    }

    /// Adds elements at the end: Flink's `addAll`.
    pub fn extend(&self, context: &mut impl Accessor, elements: impl IntoIterator<Item = T>) {
        let mut elements = elements.into_iter().peekable();
        if elements.peek().is_some() {
            self.lists.get_or_insert_with(context, Vec::new).extend(elements);
        }
    }

    /// Replaces the list: Flink's `update`.
    pub fn set(&self, context: &mut impl Accessor, elements: Vec<T>) {
        self.lists.update(context, |_| (!elements.is_empty()).then_some(elements));
    }

    /// Keeps the elements for which `keep` holds.
    pub fn retain(&self, context: &mut impl Accessor, keep: impl FnMut(&T) -> bool) {
        self.lists.update(context, |list| {
            let mut list = list?;
            list.retain(keep);
            (!list.is_empty()).then_some(list)
        });
    }

    /// Takes all elements out.
    pub fn take(&self, context: &mut impl Accessor) -> Vec<T> {
        self.lists.take(context).unwrap_or_default()
    }

    /// How many elements there are.
    #[inline]
    pub fn len(&self, context: &impl Accessor) -> usize {
        self.get(context).len()
    }

    /// Whether there are no elements.
    #[inline]
    pub fn is_empty(&self, context: &impl Accessor) -> bool {
        self.get(context).is_empty()
    }

    /// Forgets all elements.
    pub fn clear(&self, context: &mut impl Accessor) {
        self.lists.clear(context);
    }
}

impl<T: Record> Declare for ListState<T> {
    fn declare<K: StateKey>(&mut self, name: &str, declarations: &mut Declarations<K>) {
        self.lists.declare_as(StateKind::List, name, declarations);
    }
}

impl<T> Default for ListState<T> {
    fn default() -> Self {
        Self { lists: ValueState::default() }
    }
}

impl<T> Clone for ListState<T> {
    fn clone(&self) -> Self {
        Self { lists: self.lists.clone() }
    }
}

impl<T> fmt::Debug for ListState<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListState<{}>", std::any::type_name::<T>())
    }
}
