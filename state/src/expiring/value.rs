//! `ExpiringValue`: one value per key that lives for a time only.

use std::fmt;

use thalweg_common::graph::StateKind;
use thalweg_common::record::Record;
use thalweg_common::ttl::{Expiring, StateTtl};

use super::{DeclareExpiring, Expiry, Seen, UNDECLARED, is_seen, seen};
use crate::declare::Declarations;
use crate::tables::{Accessor, StateKey};
use crate::value::ValueState;

/// One value per key that lives for a time only, by the clock of the machine (processing time). Every method works on the key of the
/// context that it is given.
///
/// ```
/// # mod krate { pub mod state { pub use thalweg_state::*; } } // a job has `thalweg` instead
/// use std::sync::Arc;
/// use std::time::Duration;
/// use thalweg_common::clock::ManualClock;
/// use thalweg_common::key_group::groups_of;
/// use thalweg_state::{Declarations, ExpiringValue, KeyedStore, State};
///
/// /// Lets each key pass once an hour.
/// #[derive(State, Clone, Default)]
/// #[state(crate = krate)]
/// struct Distinct {
///     #[state(ttl = "1h")]
///     seen: ExpiringValue<bool>,
/// }
///
/// let mut distinct = Distinct::default();
/// let mut declarations = Declarations::default();
/// distinct.declare(&mut declarations);
/// let clock = Arc::new(ManualClock::new(0));
/// let store = KeyedStore::<String>::new("distinct", declarations, 128, groups_of(0, 1, 128)).unwrap();
/// let mut store = store.with_clock(clock.clone());
///
/// let mut alice = store.select("alice".to_string()).unwrap();
/// assert_eq!(distinct.seen.get(&mut alice), None);
/// distinct.seen.set(&mut alice, true);
/// clock.advance(Duration::from_secs(3_599));
/// assert_eq!(distinct.seen.get(&mut alice), Some(&true));
/// clock.advance(Duration::from_secs(1));
/// assert_eq!(distinct.seen.get(&mut alice), None);
/// ```
///
/// # Panics
/// Every method panics when the state was not declared by the function that uses it; see
/// [`State`](macro@crate::State).
pub struct ExpiringValue<T> {
    values: ValueState<Expiring<T>>,
    ttl: StateTtl,
}

impl<T: Record> ExpiringValue<T> {
    /// The value, if there is one. With [`OnReadAndWrite`](thalweg_common::ttl::TtlUpdate::OnReadAndWrite) its life begins anew.
    pub fn get<'a>(&self, context: &'a mut impl Accessor) -> Option<&'a T> {
        let now_ms = context.tables().now_ms();
        match seen(self.ttl, self.values.get(context)?, now_ms) {
            Seen::Yes => {}
            Seen::Again => self.values.get_mut(context)?.since_ms = now_ms,
            Seen::Gone => {
                self.values.clear(context);
                return None;
            }
        }
        self.values.get(context).map(|expiring| &expiring.value)
    }

    /// The value, if there is one, without any effect on its life.
    pub fn peek<'a>(&self, context: &'a impl Accessor) -> Option<&'a T> {
        let now_ms = context.tables().now_ms();
        let expiring = self.values.get(context).filter(|expiring| is_seen(self.ttl, expiring, now_ms));
        expiring.map(|expiring| &expiring.value)
    }

    /// The value, if there is one, to change it in place. Its life begins anew.
    pub fn get_mut<'a>(&self, context: &'a mut impl Accessor) -> Option<&'a mut T> {
        let now_ms = context.tables().now_ms();
        if !is_seen(self.ttl, self.values.get(context)?, now_ms) {
            self.values.clear(context);
            return None;
        }
        let expiring = self.values.get_mut(context)?;
        expiring.since_ms = now_ms;
        Some(&mut expiring.value)
    }

    /// The value, to change it in place. If there is none, `first` makes it. Its life begins anew.
    pub fn get_or_insert_with<'a>(
        &self,
        context: &'a mut impl Accessor,
        first: impl FnOnce() -> T,
    ) -> &'a mut T {
        let now_ms = context.tables().now_ms();
        if self.values.get(context).is_some_and(|expiring| !is_seen(self.ttl, expiring, now_ms)) {
            self.values.clear(context);
        }
        let begin = || Expiring { since_ms: now_ms, value: first() };
        let expiring = self.values.get_or_insert_with(context, begin);
        expiring.since_ms = now_ms;
        &mut expiring.value
    }

    /// Sets the value.
    pub fn set(&self, context: &mut impl Accessor, value: T) {
        self.update(context, |_| Some(value));
    }

    /// Replaces the value by what `update` makes of it; `None` stands for no value on both sides. Its life begins anew.
    pub fn update(&self, context: &mut impl Accessor, update: impl FnOnce(Option<T>) -> Option<T>) {
        let now_ms = context.tables().now_ms();
        self.values.update(context, |before| {
            let before = before.filter(|expiring| is_seen(self.ttl, expiring, now_ms));
            let value = update(before.map(|expiring| expiring.value));
            value.map(|value| Expiring { since_ms: now_ms, value })
        });
    }

    /// Takes the value out.
    pub fn take(&self, context: &mut impl Accessor) -> Option<T> {
        let now_ms = context.tables().now_ms();
        let taken = self.values.take(context).filter(|expiring| is_seen(self.ttl, expiring, now_ms));
        taken.map(|expiring| expiring.value)
    }

    /// Forgets the value. A key without any state takes no memory.
    pub fn clear(&self, context: &mut impl Accessor) {
        self.values.clear(context);
    }
}

impl<T: Record> ExpiringValue<T> {
    /// Declares the state as one of another kind which has one value per key.
    #[doc(hidden)]
    pub fn declare_as<K: StateKey>(
        &mut self,
        kind: StateKind,
        name: &str,
        ttl: StateTtl,
        declarations: &mut Declarations<K>,
    ) {
        self.ttl = ttl;
        self.values.declare_kind(kind, name, Some(Expiry::of(ttl)), declarations);
    }
}

impl<T: Record> DeclareExpiring for ExpiringValue<T> {
    fn declare<K: StateKey>(&mut self, name: &str, ttl: StateTtl, declarations: &mut Declarations<K>) {
        self.declare_as(StateKind::Value, name, ttl, declarations);
    }
}

impl<T> Default for ExpiringValue<T> {
    fn default() -> Self {
        Self { values: ValueState::default(), ttl: UNDECLARED }
    }
}

impl<T> Clone for ExpiringValue<T> {
    fn clone(&self) -> Self {
        Self { values: self.values.clone(), ttl: self.ttl }
    }
}

impl<T> fmt::Debug for ExpiringValue<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExpiringValue<{}>", std::any::type_name::<T>())
    }
}
