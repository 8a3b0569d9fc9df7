//! `ExpiringMap`: a map per key whose entries live for a time only.

use std::fmt;
use std::hash::Hash;

use thalweg_common::record::Record;
use thalweg_common::ttl::{Expiring, StateTtl, TtlUpdate};

use super::{DeclareExpiring, Expiry, Seen, UNDECLARED, is_seen, seen};
use crate::declare::Declarations;
use crate::map::MapState;
use crate::tables::{Accessor, StateKey};

/// A map per key whose entries live for a time only, each by itself, by the clock of the machine (processing time). Every method works on
/// the map of the key of the context that it is given. Declared as an [`ExpiringValue`](crate::ExpiringValue) is.
///
/// # Panics
/// Every method panics when the state was not declared by the function that uses it; see
/// [`State`](macro@crate::State).
pub struct ExpiringMap<K, V> {
    entries: MapState<K, Expiring<V>>,
    ttl: StateTtl,
}

impl<K: Record + Eq + Hash, V: Record> ExpiringMap<K, V> {
    /// The value at `key`, if there is one. With [`OnReadAndWrite`](TtlUpdate::OnReadAndWrite) its life begins anew.
    pub fn get<'a>(&self, context: &'a mut impl Accessor, key: &K) -> Option<&'a V> {
        let now_ms = context.tables().now_ms();
        match seen(self.ttl, self.entries.get(context, key)?, now_ms) {
            Seen::Yes => {}
            Seen::Again => self.entries.get_mut(context, key)?.since_ms = now_ms,
            Seen::Gone => {
                self.entries.remove(context, key);
                return None;
            }
        }
        self.entries.get(context, key).map(|expiring| &expiring.value)
    }

    /// The value at `key`, if there is one, without any effect on its life.
    pub fn peek<'a>(&self, context: &'a impl Accessor, key: &K) -> Option<&'a V> {
        let now_ms = context.tables().now_ms();
        let expiring = self.entries.get(context, key).filter(|expiring| is_seen(self.ttl, expiring, now_ms));
        expiring.map(|expiring| &expiring.value)
    }

    /// The value at `key`, if there is one, to change it in place, without any effect on its life.
    pub fn peek_mut<'a>(&self, context: &'a mut impl Accessor, key: &K) -> Option<&'a mut V> {
        let now_ms = context.tables().now_ms();
        if !is_seen(self.ttl, self.entries.get(context, key)?, now_ms) {
            return None;
        }
        self.entries.get_mut(context, key).map(|expiring| &mut expiring.value)
    }

    /// The value at `key`, if there is one, to change it in place. Its life begins anew.
    pub fn get_mut<'a>(&self, context: &'a mut impl Accessor, key: &K) -> Option<&'a mut V> {
        let now_ms = context.tables().now_ms();
        if !is_seen(self.ttl, self.entries.get(context, key)?, now_ms) {
            self.entries.remove(context, key);
            return None;
        }
        let expiring = self.entries.get_mut(context, key)?;
        expiring.since_ms = now_ms;
        Some(&mut expiring.value)
    }

    /// Sets the value at `key` and returns the one before.
    pub fn insert(&self, context: &mut impl Accessor, key: K, value: V) -> Option<V> {
        let now_ms = context.tables().now_ms();
        let before = self.entries.insert(context, key, Expiring { since_ms: now_ms, value });
        before.filter(|expiring| is_seen(self.ttl, expiring, now_ms)).map(|expiring| expiring.value)
    }

    /// Replaces the value at `key` by what `update` makes of it; `None` stands for no value on both sides. Its life begins anew.
    pub fn update(&self, context: &mut impl Accessor, key: K, update: impl FnOnce(Option<V>) -> Option<V>) {
        let now_ms = context.tables().now_ms();
        self.entries.update(context, key, |before| {
            let before = before.filter(|expiring| is_seen(self.ttl, expiring, now_ms));
            let value = update(before.map(|expiring| expiring.value));
            value.map(|value| Expiring { since_ms: now_ms, value })
        });
    }

    /// Removes and returns the value at `key`.
    pub fn remove(&self, context: &mut impl Accessor, key: &K) -> Option<V> {
        let now_ms = context.tables().now_ms();
        let removed = self.entries.remove(context, key);
        removed.filter(|expiring| is_seen(self.ttl, expiring, now_ms)).map(|expiring| expiring.value)
    }

    /// Whether there is a value at `key`. With [`OnReadAndWrite`](TtlUpdate::OnReadAndWrite) its life begins anew.
    pub fn contains(&self, context: &mut impl Accessor, key: &K) -> bool {
        self.get(context, key).is_some()
    }

    /// All pairs, in no particular order. With [`OnReadAndWrite`](TtlUpdate::OnReadAndWrite) the lives of all begin anew.
    pub fn iter<'a, A: Accessor>(
        &self,
        context: &'a mut A,
    ) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V, A> {
        if self.ttl.update == TtlUpdate::OnReadAndWrite {
            let keys: Vec<K> = self.entries.iter(context).map(|(key, _)| key.clone()).collect();
            for key in &keys {
                self.get(context, key);
            }
        }
        self.peek_all(context)
    }

    /// The same without any effect on their lives.
    pub fn peek_all<'a, A: Accessor>(
        &self,
        context: &'a A,
    ) -> impl Iterator<Item = (&'a K, &'a V)> + use<'a, K, V, A> {
        let (ttl, now_ms) = (self.ttl, context.tables().now_ms());
        let seen = self.entries.iter(context).filter(move |(_, expiring)| is_seen(ttl, expiring, now_ms));
        seen.map(|(key, expiring)| (key, &expiring.value))
    }

    /// How many pairs there are. Looks at all of them.
    pub fn len(&self, context: &impl Accessor) -> usize {
        self.peek_all(context).count()
    }

    /// Whether there are no pairs.
    pub fn is_empty(&self, context: &impl Accessor) -> bool {
        self.peek_all(context).next().is_none()
    }

    /// Forgets all pairs. A key without any state takes no memory.
    pub fn clear(&self, context: &mut impl Accessor) {
        self.entries.clear(context);
    }
}

impl<K: Record + Eq + Hash, V: Record> DeclareExpiring for ExpiringMap<K, V> {
    fn declare<Key: StateKey>(&mut self, name: &str, ttl: StateTtl, declarations: &mut Declarations<Key>) {
        self.ttl = ttl;
        self.entries.declare_column(name, Some(Expiry::of(ttl)), declarations);
    }
}

impl<K, V> Default for ExpiringMap<K, V> {
    fn default() -> Self {
        Self { entries: MapState::default(), ttl: UNDECLARED }
    }
}

impl<K, V> Clone for ExpiringMap<K, V> {
    fn clone(&self) -> Self {
        Self { entries: self.entries.clone(), ttl: self.ttl }
    }
}

impl<K, V> fmt::Debug for ExpiringMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExpiringMap<{}, {}>", std::any::type_name::<K>(), std::any::type_name::<V>())
    }
}
