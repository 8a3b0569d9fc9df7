//! `ExpiringList`: a list per key whose elements live for a time only.
//!
//! A list is stored as one value, an [`Expiring`] with a list of [`Expiring`] ones in it: in front of all stands the time at which the
//! youngest life began, so that whoever knows the list only as bytes can tell when nothing of it is left.

use std::fmt;

use thalweg_common::graph::StateKind;
use thalweg_common::record::Record;
use thalweg_common::ttl::{Expiring, StateTtl};

use super::{DeclareExpiring, Expiry, Seen, UNDECLARED, is_seen, seen};
use crate::declare::Declarations;
use crate::tables::{Accessor, StateKey};
use crate::value::ValueState;

/// The elements of a list, oldest first.
type Elements<T> = Vec<Expiring<T>>;

/// A list per key, in the order in which its elements were added, each of which lives for a time only, by the clock of the machine
/// (processing time): Flink's `ListState` with a time to live. Declared as an [`ExpiringValue`](crate::ExpiringValue) is.
///
/// ```text
/// ttl = 10 s      add a     add b          at 12 s: [b]    at 16 s: []
///                  |         |              |               |
///                 0 s       6 s            12 s            16 s
/// ```
///
/// Elements that are over take memory until the list is read or half of it is over. As with a [`ListState`](crate::ListState) a checkpoint
/// writes the whole list if it has changed.
///
/// # Panics
/// Every method panics when the state was not declared by the function that uses it; see
/// [`State`](macro@crate::State).
pub struct ExpiringList<T> {
    lists: ValueState<Expiring<Elements<T>>>,
    ttl: StateTtl,
}

impl<T: Record> ExpiringList<T> {
    /// The elements, in their order. With [`OnReadAndWrite`](thalweg_common::ttl::TtlUpdate::OnReadAndWrite)
    /// the lives of all begin anew.
    pub fn get<'a, A: Accessor>(&self, context: &'a mut A) -> impl Iterator<Item = &'a T> + use<'a, T, A> {
        let now_ms = context.tables().now_ms();
        let is_new = |element: &Expiring<T>| matches!(seen(self.ttl, element, now_ms), Seen::Yes);
        if self.lists.get(context).is_some_and(|list| !list.value.iter().all(is_new)) {
            self.change(context, |elements| {
                for element in elements {
                    if matches!(seen(self.ttl, element, now_ms), Seen::Again) {
                        element.since_ms = now_ms;
                    }
                }
            });
        }
        self.peek(context)
    }

    /// The elements without any effect on their lives.
    pub fn peek<'a, A: Accessor>(&self, context: &'a A) -> impl Iterator<Item = &'a T> + use<'a, T, A> {
        let (ttl, now_ms) = (self.ttl, context.tables().now_ms());
        let elements = self.lists.get(context).map_or(&[][..], |list| list.value.as_slice());
        elements.iter().filter(move |element| is_seen(ttl, element, now_ms)).map(|element| &element.value)
    }

    /// Adds an element at the end.
    pub fn add(&self, context: &mut impl Accessor, element: T) {
        self.extend(context, [element]);
    }

    /// Adds elements at the end: Flink's `addAll`.
    pub fn extend(&self, context: &mut impl Accessor, elements: impl IntoIterator<Item = T>) {
        let now_ms = context.tables().now_ms();
        let mut elements = elements.into_iter().map(|value| Expiring { since_ms: now_ms, value }).peekable();
        if elements.peek().is_none() {
            return;
        }
        let list =
            self.lists.get_or_insert_with(context, || Expiring { since_ms: now_ms, value: Vec::new() });
        // The oldest are in front: cleaning up when half of them are over costs each addition a constant.
        let middle = list.value.get(list.value.len() / 2);
        if middle.is_some_and(|middle| !is_seen(self.ttl, middle, now_ms)) {
            list.value.retain(|element| is_seen(self.ttl, element, now_ms));
        }
        list.since_ms = list.since_ms.max(now_ms);
        list.value.extend(elements);
    }

    /// Replaces the list: Flink's `update`.
    pub fn set(&self, context: &mut impl Accessor, elements: Vec<T>) {
        let now_ms = context.tables().now_ms();
        let value: Elements<T> =
            elements.into_iter().map(|value| Expiring { since_ms: now_ms, value }).collect();
        self.lists.update(context, |_| (!value.is_empty()).then_some(Expiring { since_ms: now_ms, value }));
    }

    /// Keeps the elements for which `keep` holds, without any effect on their lives.
    pub fn retain(&self, context: &mut impl Accessor, mut keep: impl FnMut(&T) -> bool) {
        self.change(context, |elements| elements.retain(|element| keep(&element.value)));
    }

    /// Takes all elements out.
    pub fn take(&self, context: &mut impl Accessor) -> Vec<T> {
        let now_ms = context.tables().now_ms();
        let taken = self.lists.take(context).map(|list| list.value).unwrap_or_default();
        let seen = taken.into_iter().filter(|element| is_seen(self.ttl, element, now_ms));
        seen.map(|element| element.value).collect()
    }

    /// How many elements there are. Looks at all of them.
    pub fn len(&self, context: &impl Accessor) -> usize {
        self.peek(context).count()
    }

    /// Whether there are no elements.
    pub fn is_empty(&self, context: &impl Accessor) -> bool {
        self.peek(context).next().is_none()
    }

    /// Forgets all elements. A key without any state takes no memory.
    pub fn clear(&self, context: &mut impl Accessor) {
        self.lists.clear(context);
    }

    /// Changes what is left of the list.
    fn change(&self, context: &mut impl Accessor, change: impl FnOnce(&mut Elements<T>)) {
        let now_ms = context.tables().now_ms();
        self.lists.update(context, |list| {
            let mut value = list?.value;
            value.retain(|element| is_seen(self.ttl, element, now_ms));
            change(&mut value);
            let since_ms = value.iter().map(|element| element.since_ms).max()?;
            Some(Expiring { since_ms, value })
        });
    }
}

impl<T: Record> DeclareExpiring for ExpiringList<T> {
    fn declare<K: StateKey>(&mut self, name: &str, ttl: StateTtl, declarations: &mut Declarations<K>) {
        self.ttl = ttl;
        self.lists.declare_kind(StateKind::List, name, Some(Expiry::of(ttl)), declarations);
    }
}

impl<T> Default for ExpiringList<T> {
    fn default() -> Self {
        Self { lists: ValueState::default(), ttl: UNDECLARED }
    }
}

impl<T> Clone for ExpiringList<T> {
    fn clone(&self) -> Self {
        Self { lists: self.lists.clone(), ttl: self.ttl }
    }
}

impl<T> fmt::Debug for ExpiringList<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExpiringList<{}>", std::any::type_name::<T>())
    }
}
