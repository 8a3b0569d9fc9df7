//! The timers of a store: registered at a key, fired in the order of their times, part of every snapshot.

use thalweg_common::Timestamp;
use thalweg_common::key_group::KeyGroup;

use super::{AtKey, KeyedStore};
use crate::cache::batch::{EntryBatch, put_timer};
use crate::error::{SelectError, StoreError};
use crate::grouped::GroupedEntries;
use crate::tables::StateKey;
use crate::timers::{Behind, TimeDomain};

impl<K: StateKey> KeyedStore<K> {
    /// No timer of this kind is earlier: the time of the earliest one, or, of a store with a backend, perhaps one before it. Nothing if
    /// there are none.
    #[inline]
    pub fn earliest_timer(&self, domain: TimeDomain) -> Option<Timestamp> {
        self.tables.timers.as_ref()?.of(domain).earliest()
    }

    /// Prepares some timers whose time is `until` at the latest, the earliest ones, for [`fire_next`](Self::fire_next); their keys are
    /// looked up together. Until they fire they count as registered.
    ///
    /// # Errors
    /// When timers or the state of their keys cannot be read.
    pub fn prepare_timers(&mut self, domain: TimeDomain, until: Timestamp) -> Result<(), StoreError> {
        self.settle_timers()?;
        let Some(timers) = &mut self.tables.timers else { return Ok(()) };
        let behind =
            self.behind.as_ref().map(|behind| Behind { backend: &*behind.backend, operator: &self.operator });
        let keys = timers.of_mut(domain).take_due(until, behind)?;
        let found = self.find(&keys);
        if let Some(timers) = &mut self.tables.timers {
            timers.of_mut(domain).ready(keys);
        }
        found
    }

    /// Takes out the next of the prepared timers and goes to its key. Nothing if no more are prepared: there may be more that are due.
    ///
    /// # Errors
    /// As [`select`](Self::select).
    pub fn fire_next(
        &mut self,
        domain: TimeDomain,
    ) -> Result<Option<(Timestamp, AtKey<'_, K>)>, SelectError> {
        let next = self.tables.timers.as_mut().and_then(|timers| timers.of_mut(domain).fire_next());
        let Some((place, at, key)) = next else { return Ok(None) };
        self.select_next(place, key).map(|state| Some((at, state)))
    }

    /// What was prepared goes back, and what has changed is written if it has become too much to be kept.
    pub(super) fn settle_timers(&mut self) -> Result<(), StoreError> {
        let Some(timers) = &mut self.tables.timers else { return Ok(()) };
        timers.put_back();
        match &mut self.behind {
            Some(behind) => behind.write_timers(&mut self.tables),
            None => Ok(()),
        }
    }

    /// Appends all timers, of which none are prepared: of each domain to its own collection.
    pub(super) fn append_timers(&self, entries: &mut [GroupedEntries]) -> Result<(), StoreError> {
        let Some(timers) = &self.tables.timers else { return Ok(()) };
        for (domain, entries) in TimeDomain::ALL.into_iter().zip(entries) {
            timers.of(domain).append(self.behind(), entries)?;
        }
        Ok(())
    }

    fn behind(&self) -> Option<Behind<'_>> {
        self.behind.as_ref().map(|behind| Behind { backend: &*behind.backend, operator: &self.operator })
    }

    /// Restores a timer of the domain whose state has this number.
    pub(super) fn restore_timer(
        &mut self,
        state: usize,
        group: KeyGroup,
        at: Timestamp,
        key: K,
        batch: &mut EntryBatch,
    ) {
        let Some(timers) = &mut self.tables.timers else { return };
        if self.behind.is_some() {
            let mut bytes = Vec::new();
            key.encode(&mut bytes);
            let put = |out: &mut Vec<u8>| put_timer(out, group, at, &bytes);
            batch.put(state, put, Some(|_: &mut Vec<u8>| {}));
            return;
        }
        let name = &self.description.descriptors[state].name;
        for domain in TimeDomain::ALL.into_iter().filter(|domain| domain.state_name() == name) {
            timers.of_mut(domain).register(at, &key);
        }
    }

    /// Entries of all states, and timers.
    pub(super) fn entries(&self) -> u64 {
        let timers = self.tables.timers.as_ref().map_or(0, |timers| timers.len());
        self.tables.entries() + timers as u64
    }

    /// About how much memory timers take.
    pub(super) fn timer_bytes(&self) -> u64 {
        self.tables.timer_bytes() as u64
    }
}

impl<K: StateKey> AtKey<'_, K> {
    /// Registers a timer of the key: it fires when its time has come. Without effect if the key has the same one already.
    ///
    /// # Panics
    /// When the operator has declared that it has no timers.
    #[inline]
    pub fn register_timer(&mut self, domain: TimeDomain, at: Timestamp) {
        self.tables.register_timer(domain, at);
    }

    /// Deletes a timer of the key. Without effect if the key has none at this time.
    ///
    /// # Panics
    /// When the operator has declared that it has no timers.
    #[inline]
    pub fn delete_timer(&mut self, domain: TimeDomain, at: Timestamp) {
        self.tables.delete_timer(domain, at);
    }
}
