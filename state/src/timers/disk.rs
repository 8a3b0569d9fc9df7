//! Timers that are kept behind the cache: the soonest ones in memory, and what has changed since it was last written.
//!
//! A stored timer is its key group, its time and its key, so that those of a group lie in the order of their times. The idea is Flink's
//! priority queue on RocksDB with a cached head for each key group; here the heads are one ordered set, and a group whose head does not
//! reach to its end has a bound, from which on its timers are only behind. Registering and deleting read nothing. Invariants: a
//! timer before the bound of its group is in the head exactly if it is registered; whatever is not behind yet is among the changes,
//! those of the running epoch or of one that was frozen; changes of a frozen epoch stay until the epoch is behind.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use thalweg_common::Timestamp;
use thalweg_common::key_group::{KeyGroup, KeyGroupRange, encoded_key_hash, key_group};
use thalweg_common::limits::{MIN_TIMER_BYTES, TIMERS_READ};
use thalweg_common::record::Record;

use super::TimeDomain;
use crate::backend::Backend;
use crate::cache::batch::{EntryBatch, put_group, put_timer, split_timer};
use crate::error::StoreError;
use crate::grouped::GroupedEntries;

/// What a timer takes in an ordered set, beside its key.
const TIMER_BYTES: usize = 96;

/// Where the timers are that are not in memory.
#[derive(Clone, Copy)]
pub(crate) struct Behind<'a> {
    pub(crate) backend: &'a dyn Backend,
    /// The operator, for messages.
    pub(crate) operator: &'a str,
}

/// A timer, in the order in which timers fire.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Timer {
    at: Timestamp,
    group: KeyGroup,
    key: Arc<[u8]>,
}

/// The same in the order in which timers are stored.
type Stored = (KeyGroup, Timestamp, Arc<[u8]>);

/// What has become of a timer since it was last written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    /// It was registered, and nothing older knows of it: if it goes, nothing is left to be said.
    New,
    /// It was registered.
    Registered,
    /// It is no more.
    Gone,
}

/// The timers of one domain.
pub(crate) struct DiskTimers {
    domain: TimeDomain,
    /// The number of their state.
    state: usize,
    owned: KeyGroupRange,
    max_parallelism: u32,
    head: Set,
    /// From here on the timers of a group are only behind. Those of all groups that have one, in the order of timers, and by group.
    bounds: BTreeSet<Timer>,
    bound_of: Vec<Option<Timer>>,
    changes: Changes,
    frozen: VecDeque<Frozen>,
    /// Bytes that the head may take, and the changes.
    limit_bytes: usize,
    scratch: Vec<u8>,
}

#[derive(Default)]
struct Set {
    timers: BTreeSet<Timer>,
    bytes: usize,
}

#[derive(Default)]
struct Changes {
    timers: BTreeMap<Stored, Change>,
    bytes: usize,
}

/// The changes of an epoch that was frozen.
struct Frozen {
    epoch: u64,
    changes: Changes,
    /// Up to where they are encoded, and whether that is all.
    encoded: Option<Stored>,
    is_encoded: bool,
}

impl DiskTimers {
    /// Those of the state with this number. If the store is not new, all that it has is behind.
    pub(super) fn new(
        domain: TimeDomain,
        state: usize,
        owned: KeyGroupRange,
        max_parallelism: u32,
        budget_bytes: usize,
        is_new: bool,
    ) -> Self {
        let mut timers = Self {
            domain,
            state,
            owned,
            max_parallelism,
            head: Set::default(),
            bounds: BTreeSet::new(),
            bound_of: owned.as_range().map(|_| None).collect(),
            changes: Changes::default(),
            frozen: VecDeque::new(),
            limit_bytes: (budget_bytes / 2).max(MIN_TIMER_BYTES),
            scratch: Vec::new(),
        };
        if !is_new {
            timers.forget_head();
        }
        timers
    }

    /// Nothing is known any more of what is behind.
    pub(crate) fn forget_head(&mut self) {
        self.head = Set::default();
        for group in self.owned.as_range() {
            self.set_bound(group, Some(Timer::first_of(group)));
        }
    }

    /// Timers that are in memory.
    pub(super) fn cached(&self) -> usize {
        self.head.timers.len()
    }

    /// Memory of all this.
    pub(crate) fn bytes(&self) -> usize {
        let frozen: usize = self.frozen.iter().map(|frozen| frozen.changes.bytes).sum();
        self.head.bytes + self.changes.bytes + frozen
    }

    /// Whether so much has changed that it is to be written.
    pub(crate) fn is_full(&self) -> bool {
        self.changes.bytes > self.limit_bytes
    }

    /// No timer is earlier than this.
    pub(super) fn earliest(&self) -> Option<Timestamp> {
        let first = [self.head.timers.first(), self.bounds.first()];
        first.into_iter().flatten().map(|timer| timer.at).min()
    }

    pub(super) fn register(&mut self, at: Timestamp, key: &impl Record) {
        let timer = self.timer(at, key);
        let is_known = self.is_known(&timer);
        if is_known && !self.head.insert(timer.clone()) {
            return;
        }
        self.changes.register(timer, is_known);
        self.trim();
    }

    pub(super) fn delete(&mut self, at: Timestamp, key: &impl Record) {
        let timer = self.timer(at, key);
        if !self.is_known(&timer) || self.head.remove(&timer) {
            self.changes.remove(timer);
        }
    }

    /// One that was taken out has fired.
    pub(super) fn fired(&mut self, at: Timestamp, key: &impl Record) {
        let timer = self.timer(at, key);
        self.changes.remove(timer);
    }

    /// One that was taken out has not fired.
    pub(super) fn put_back(&mut self, at: Timestamp, key: &impl Record) {
        let timer = self.timer(at, key);
        self.head.insert(timer);
    }

    /// Takes out up to `max` timers until a time, the earliest first; they stay registered until they have fired.
    pub(super) fn take_due<K: Record>(
        &mut self,
        behind: Behind<'_>,
        until: Timestamp,
        max: usize,
        times: &mut Vec<Timestamp>,
        keys: &mut Vec<K>,
    ) -> Result<(), StoreError> {
        while times.len() < max {
            while let Some(group) = self.missing(until) {
                self.read(behind, group)?;
            }
            let Some(timer) = self.head.pop_due(until) else { return Ok(()) };
            times.push(timer.at);
            keys.push(K::decode(&mut &*timer.key).map_err(|error| self.damaged(behind, &error))?);
        }
        Ok(())
    }

    /// The group whose next timers must be read to know which one is the earliest until a time.
    fn missing(&self, until: Timestamp) -> Option<KeyGroup> {
        let bound = self.bounds.first().filter(|bound| bound.at <= until)?;
        let is_later = self.head.timers.first().is_none_or(|first| first >= bound);
        is_later.then_some(bound.group)
    }

    /// Reads the next timers of a group.
    fn read(&mut self, behind: Behind<'_>, group: KeyGroup) -> Result<(), StoreError> {
        let Some(bound) = self.bound(group).clone() else { return Ok(()) };
        let limit = (self.limit_bytes / TIMER_BYTES / 4).clamp(1, TIMERS_READ);
        let (read, next) = self.merged(behind, &bound, limit)?;
        self.set_bound(group, next);
        for timer in read {
            self.head.insert(timer);
        }
        self.trim();
        Ok(())
    }

    /// The timers of a group from one on: so many of those that are behind, as changes have left them; and where the others begin.
    fn merged(
        &self,
        behind: Behind<'_>,
        from: &Timer,
        limit: usize,
    ) -> Result<(BTreeSet<Timer>, Option<Timer>), StoreError> {
        let group = from.group;
        let (mut first, mut end) = (Vec::new(), Vec::new());
        put_timer(&mut first, group, from.at, &from.key);
        put_group(&mut end, group + 1);
        let (mut read, mut next) = (BTreeSet::new(), None);
        behind.backend.range(self.state, &first, &end, limit.saturating_add(1), &mut |stored, _| {
            let (_, at, key) =
                split_timer(stored).ok_or_else(|| self.damaged(behind, &"a timer of it has no time"))?;
            let timer = Timer { at, group, key: key.into() };
            if read.len() < limit {
                read.insert(timer);
            } else {
                next = Some(timer);
            }
            Ok(())
        })?;
        let end = next.as_ref().unwrap_or(&Timer::first_of(group + 1)).stored();
        for layer in self.frozen.iter().map(|frozen| &frozen.changes).chain([&self.changes]) {
            for ((group, at, key), change) in layer.timers.range(from.stored()..end.clone()) {
                let timer = Timer { at: *at, group: *group, key: key.clone() };
                match change {
                    Change::Gone => read.remove(&timer),
                    Change::New | Change::Registered => read.insert(timer),
                };
            }
        }
        Ok((read, next))
    }

    /// Appends all timers as entries of their state.
    pub(super) fn append(&self, behind: Behind<'_>, entries: &mut GroupedEntries) -> Result<(), StoreError> {
        for group in self.owned.as_range() {
            let (timers, _) = self.merged(behind, &Timer::first_of(group), usize::MAX)?;
            for timer in timers {
                entries.add(group, [&timer.key, &timer.at.to_le_bytes(), &[]]);
            }
        }
        Ok(())
    }

    /// Keeps of a head that has grown too large the earliest timers.
    fn trim(&mut self) {
        if self.head.bytes <= self.limit_bytes {
            return;
        }
        while self.head.bytes > self.limit_bytes / 4 * 3
            && let Some(last) = self.head.timers.pop_last()
        {
            self.head.bytes -= last.bytes();
            self.set_bound(last.group, Some(last));
        }
    }

    /// What has changed since the last barrier belongs to this epoch from now on.
    pub(crate) fn freeze(&mut self, epoch: u64) {
        let changes = std::mem::take(&mut self.changes);
        if !changes.timers.is_empty() {
            self.frozen.push_back(Frozen { epoch, changes, encoded: None, is_encoded: false });
        }
    }

    /// Epochs up to this one are behind.
    pub(crate) fn sealed(&mut self, epoch: u64) {
        while self.frozen.front().is_some_and(|frozen| frozen.epoch <= epoch) {
            self.frozen.pop_front();
        }
    }

    /// Whether all that was frozen is encoded.
    pub(crate) fn is_encoded(&self) -> bool {
        self.frozen.back().is_none_or(|frozen| frozen.is_encoded)
    }

    /// Encodes what was frozen until `batch` has so many bytes.
    pub(crate) fn encode_frozen(&mut self, batch: &mut EntryBatch, limit_bytes: usize) {
        let has_room = batch.size_bytes() < limit_bytes;
        let frozen = self.frozen.back_mut().filter(|frozen| !frozen.is_encoded && has_room);
        let Some(frozen) = frozen else { return };
        let from = frozen.encoded.take().map_or(Bound::Unbounded, Bound::Excluded);
        for (timer, change) in frozen.changes.timers.range((from, Bound::Unbounded)) {
            put(batch, self.state, timer, *change);
            if batch.size_bytes() >= limit_bytes {
                frozen.encoded = Some(timer.clone());
                return;
            }
        }
        frozen.is_encoded = true;
    }

    /// Moves all changes to `batch`, which is written at once: nothing that was frozen is left.
    pub(crate) fn write(&mut self, batch: &mut EntryBatch) {
        debug_assert!(self.frozen.is_empty(), "nothing younger than a frozen epoch is written");
        for (timer, change) in std::mem::take(&mut self.changes).timers {
            put(batch, self.state, &timer, change);
        }
    }

    fn timer(&mut self, at: Timestamp, key: &impl Record) -> Timer {
        self.scratch.clear();
        key.encode(&mut self.scratch);
        let group = key_group(encoded_key_hash(&self.scratch), self.max_parallelism);
        Timer { at, group, key: self.scratch.as_slice().into() }
    }

    fn bound(&self, group: KeyGroup) -> &Option<Timer> {
        &self.bound_of[(group - self.owned.start) as usize]
    }

    fn set_bound(&mut self, group: KeyGroup, bound: Option<Timer>) {
        let place = &mut self.bound_of[(group - self.owned.start) as usize];
        if let Some(before) = place.take() {
            self.bounds.remove(&before);
        }
        self.bounds.extend(bound.clone());
        *place = bound;
    }

    fn is_known(&self, timer: &Timer) -> bool {
        self.bound(timer.group).as_ref().is_none_or(|bound| timer < bound)
    }

    fn damaged(&self, behind: Behind<'_>, reason: &dyn std::fmt::Display) -> StoreError {
        let state = self.domain.state_name().to_string();
        StoreError::Damaged { operator: behind.operator.to_string(), state, reason: reason.to_string() }
    }
}

/// Adds what has become of a timer to a batch.
fn put(batch: &mut EntryBatch, state: usize, (group, at, key): &Stored, change: Change) {
    let value = (change != Change::Gone).then_some(|_: &mut Vec<u8>| {});
    batch.put(state, |out| put_timer(out, *group, *at, key), value);
}

impl Timer {
    /// No timer of the group is before this.
    fn first_of(group: KeyGroup) -> Self {
        Self { at: Timestamp::MIN, group, key: Arc::default() }
    }

    fn stored(&self) -> Stored {
        (self.group, self.at, self.key.clone())
    }

    fn bytes(&self) -> usize {
        TIMER_BYTES + self.key.len()
    }
}

impl Set {
    fn insert(&mut self, timer: Timer) -> bool {
        let bytes = timer.bytes();
        let is_new = self.timers.insert(timer);
        self.bytes += if is_new { bytes } else { 0 };
        is_new
    }

    fn pop_due(&mut self, until: Timestamp) -> Option<Timer> {
        self.timers.first().filter(|timer| timer.at <= until)?;
        let timer = self.timers.pop_first()?;
        self.bytes -= timer.bytes();
        Some(timer)
    }

    fn remove(&mut self, timer: &Timer) -> bool {
        let was_there = self.timers.remove(timer);
        self.bytes -= if was_there { timer.bytes() } else { 0 };
        was_there
    }
}

impl Changes {
    /// A timer was registered; `is_new` if it was not before.
    fn register(&mut self, timer: Timer, is_new: bool) {
        let bytes = timer.bytes();
        let change = if is_new { Change::New } else { Change::Registered };
        match self.timers.entry((timer.group, timer.at, timer.key)) {
            Entry::Vacant(entry) => {
                entry.insert(change);
                self.bytes += bytes;
            }
            Entry::Occupied(mut entry) => {
                if *entry.get() == Change::Gone {
                    entry.insert(Change::Registered);
                }
            }
        }
    }

    /// A timer is no more.
    fn remove(&mut self, timer: Timer) {
        let bytes = timer.bytes();
        match self.timers.entry((timer.group, timer.at, timer.key)) {
            Entry::Vacant(entry) => {
                entry.insert(Change::Gone);
                self.bytes += bytes;
            }
            Entry::Occupied(entry) if *entry.get() == Change::New => {
                entry.remove();
                self.bytes -= bytes;
            }
            Entry::Occupied(mut entry) => {
                entry.insert(Change::Gone);
            }
        }
    }
}
