//! The tables of a cache and the timers beside them as one: what has changed of both is frozen, encoded and sealed together.

use thalweg_common::Timestamp;

use super::{Layout, StateKey, Tables};
use crate::timers::TimeDomain;

impl<K: StateKey> Tables<K> {
    /// Begins a new epoch. The one before must have been encoded to its end.
    pub(crate) fn freeze(&mut self, epoch: u64) {
        if let Some(epochs) = &mut self.epochs {
            epochs.freeze();
        }
        if let Some(timers) = &mut self.timers {
            timers.disks_mut().for_each(|timers| timers.freeze(epoch));
        }
    }

    /// Encodes what belongs to the frozen epoch until so many bytes are encoded, or all of it. Whether it is all.
    pub(crate) fn encode_frozen(&mut self, limit_bytes: usize) -> bool {
        let Some(epochs) = &mut self.epochs else { return true };
        match &mut self.layout {
            Layout::Columns(columns) => columns.encode_frozen(epochs, limit_bytes),
            Layout::Cached(cache) => cache.encode_frozen(epochs, limit_bytes),
            Layout::Inline(_) => {}
        }
        let mut is_all = epochs.frozen_rows() == 0;
        for timers in self.timers.iter_mut().flat_map(|timers| timers.disks_mut()) {
            if is_all {
                timers.encode_frozen(&mut epochs.encoded, limit_bytes);
            }
            is_all &= timers.is_encoded();
        }
        is_all
    }

    /// So many epochs are behind the cache, of those that were frozen.
    pub(crate) fn sealed(&mut self, frozen: u64, sealed: u64) {
        if let Some(epochs) = &mut self.epochs {
            epochs.set_outstanding(frozen - sealed);
        }
        if let Some(timers) = &mut self.timers {
            timers.disks_mut().for_each(|timers| timers.sealed(sealed));
        }
    }

    /// About how much memory timers take.
    pub(crate) fn timer_bytes(&self) -> usize {
        self.timers.as_ref().map_or(0, |timers| timers.bytes())
    }
}

/// What timers of the key at hand do.
impl<K: StateKey> Tables<K> {
    pub(crate) fn register_timer(&mut self, domain: TimeDomain, at: Timestamp) {
        let mut timers = self.timers.take().unwrap_or_else(no_timers);
        timers.of_mut(domain).register(at, self.key());
        self.timers = Some(timers);
    }

    pub(crate) fn delete_timer(&mut self, domain: TimeDomain, at: Timestamp) {
        let mut timers = self.timers.take().unwrap_or_else(no_timers);
        timers.of_mut(domain).delete(at, self.key());
        self.timers = Some(timers);
    }
}

/// Timers of a function that says that it has none. A fault like the one below.
#[cold]
#[expect(clippy::panic, reason = "a fault of user code in a call that has no other way to tell")]
fn no_timers<T>() -> T {
    panic!(
        "a timer was used by a function that says it has none; take `const TIMERS: bool = false` out of it"
    )
}
