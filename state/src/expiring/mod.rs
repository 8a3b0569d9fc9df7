//! States whose values live for a time only: handles over those whose values live for ever.
//!
//! A value is stored as [`Expiring`], with the time at which its life began in front of it, so that tables, cache, files and savepoints
//! carry it along without knowing. Whoever reads asks the store's clock. What is over goes when it is met by a read that may
//! change things, by and by as the tables of a memory store are swept, when a snapshot in the canonical form is taken, and when RocksDB
//! merges its files. Such a state always lies in columns, never beside its keys.

mod list;
mod map;
mod reducing;
mod value;

use thalweg_common::Timestamp;
use thalweg_common::ttl::{Expiring, StateTtl, TtlUpdate, TtlVisibility};

use crate::declare::Declarations;
use crate::tables::StateKey;

pub use list::ExpiringList;
pub use map::ExpiringMap;
pub use reducing::ExpiringReducing;
pub use value::ExpiringValue;

/// A handle of a state whose values live for a time only, as it stands in a field.
#[diagnostic::on_unimplemented(
    message = "values of a `{Self}` do not expire",
    label = "it cannot have #[state(ttl = ...)]",
    note = "use ExpiringValue in place of ValueState, ExpiringMap in place of MapState, and so on"
)]
pub trait DeclareExpiring {
    /// Declares the state as `name` with values that live so long, and remembers its number.
    fn declare<K: StateKey>(&mut self, name: &str, ttl: StateTtl, declarations: &mut Declarations<K>);
}

/// How a column knows that the life of a value is over.
pub(crate) struct Expiry<T> {
    pub(crate) ttl: StateTtl,
    since_ms: fn(&T) -> Timestamp,
}

impl<T> Clone for Expiry<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Expiry<T> {}

impl<T> Expiry<Expiring<T>> {
    fn of(ttl: StateTtl) -> Self {
        Self { ttl, since_ms: |expiring| expiring.since_ms }
    }
}

impl<T> Expiry<T> {
    pub(crate) fn is_over(&self, value: &T, now_ms: Timestamp) -> bool {
        self.ttl.is_over((self.since_ms)(value), now_ms)
    }
}

/// Of a handle that was not declared: nothing asks it before that is found out.
const UNDECLARED: StateTtl = StateTtl {
    ttl_ms: u64::MAX,
    update: TtlUpdate::OnCreateAndWrite,
    visibility: TtlVisibility::NeverReturnExpired,
};

/// What a read makes of a value.
enum Seen {
    Yes,
    /// And its life begins anew.
    Again,
    /// It is over and goes.
    Gone,
}

fn seen<T>(ttl: StateTtl, expiring: &Expiring<T>, now_ms: Timestamp) -> Seen {
    let is_over = ttl.is_over(expiring.since_ms, now_ms);
    match (is_over, ttl.visibility, ttl.update) {
        (true, TtlVisibility::NeverReturnExpired, _) => Seen::Gone,
        (true, TtlVisibility::ReturnExpiredIfNotCleanedUp, _) => Seen::Yes,
        (false, _, TtlUpdate::OnReadAndWrite) if expiring.since_ms != now_ms => Seen::Again,
        (false, ..) => Seen::Yes,
    }
}

/// Whether a value is seen, without any effect.
fn is_seen<T>(ttl: StateTtl, expiring: &Expiring<T>, now_ms: Timestamp) -> bool {
    !matches!(seen(ttl, expiring, now_ms), Seen::Gone)
}
