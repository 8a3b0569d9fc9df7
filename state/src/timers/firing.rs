//! The timers of one domain while they fire: a few due ones are taken out of the queue together, so that their keys are looked up together.

use thalweg_common::Timestamp;
use thalweg_common::record::Record;

use super::Queue;
use super::disk::{Behind, DiskTimers};
use crate::error::StoreError;
use crate::grouped::GroupedEntries;
use crate::tables::StateKey;

/// How many are taken out together at the most: as many keys as operators look up at once.
const AHEAD: usize = 64;

/// A queue, and what was taken out of it.
pub(crate) struct Firing<K> {
    queue: Queue<K>,
    /// What is to fire next, the soonest first. It counts as registered.
    taken: Option<Taken<K>>,
    /// How many to take next.
    ahead: usize,
}

struct Taken<K> {
    times: std::vec::IntoIter<Timestamp>,
    keys: std::vec::IntoIter<K>,
    /// The time of the last one.
    until: Timestamp,
    /// How many have fired.
    fired: usize,
}

impl<K: StateKey> Firing<K> {
    pub(super) fn new(queue: Queue<K>) -> Self {
        Self { queue, taken: None, ahead: AHEAD }
    }

    pub(super) fn disk_mut(&mut self) -> Option<&mut DiskTimers> {
        match &mut self.queue {
            Queue::Memory(_) => None,
            Queue::Disk(disk) => Some(disk),
        }
    }

    /// How many there are in memory.
    pub(super) fn len(&self) -> usize {
        let taken = self.taken.as_ref().map_or(0, |taken| taken.keys.len());
        taken
            + match &self.queue {
                Queue::Memory(buckets) => buckets.len(),
                Queue::Disk(disk) => disk.cached(),
            }
    }

    /// About how much memory they take.
    pub(super) fn bytes(&self) -> usize {
        match &self.queue {
            Queue::Memory(buckets) => buckets.len() * size_of::<Option<K>>() * 2,
            Queue::Disk(disk) => disk.bytes(),
        }
    }

    /// No timer is earlier than this.
    pub(crate) fn earliest(&self) -> Option<Timestamp> {
        let taken = self.taken.as_ref().and_then(|taken| taken.times.as_slice().first().copied());
        let queued = match &self.queue {
            Queue::Memory(buckets) => buckets.earliest(),
            Queue::Disk(disk) => disk.earliest(),
        };
        [taken, queued].into_iter().flatten().min()
    }

    #[inline]
    pub(crate) fn register(&mut self, at: Timestamp, key: &K) {
        self.disturb(at);
        self.queue.register(at, key);
    }

    #[inline]
    pub(crate) fn delete(&mut self, at: Timestamp, key: &K) {
        self.disturb(at);
        self.queue.delete(at, key);
    }

    /// Something changes at this time. If it is among what was taken out, that goes back and is taken again, in ever larger steps.
    fn disturb(&mut self, at: Timestamp) {
        if self.taken.as_ref().is_some_and(|taken| at <= taken.until) {
            self.put_back();
            self.ahead = 1;
        }
    }

    /// What was taken out and has not fired goes back.
    pub(crate) fn put_back(&mut self) {
        let Some(Taken { times, keys, .. }) = self.taken.take() else { return };
        for (at, key) in times.zip(keys) {
            match &mut self.queue {
                Queue::Memory(buckets) => buckets.insert(at, &key),
                Queue::Disk(disk) => disk.put_back(at, &key),
            }
        }
    }

    /// Takes out some timers that are due at `until`, and returns their keys in order. With a backend the soonest may have to be read.
    pub(crate) fn take_due(
        &mut self,
        until: Timestamp,
        behind: Option<Behind<'_>>,
    ) -> Result<Vec<K>, StoreError> {
        self.put_back();
        let (mut times, mut keys) = (Vec::with_capacity(self.ahead), Vec::with_capacity(self.ahead));
        match &mut self.queue {
            Queue::Memory(buckets) => buckets.take_due(until, self.ahead, &mut times, &mut keys),
            Queue::Disk(disk) => {
                if let Some(behind) = behind {
                    disk.take_due(behind, until, self.ahead, &mut times, &mut keys)?;
                }
            }
        }
        self.ahead = (self.ahead * 2).min(AHEAD);
        self.taken = times.last().copied().map(|until| Taken {
            times: times.into_iter(),
            keys: Vec::new().into_iter(),
            until,
            fired: 0,
        });
        Ok(keys)
    }

    /// What was taken out is looked up: it may fire.
    pub(crate) fn ready(&mut self, keys: Vec<K>) {
        if let Some(taken) = &mut self.taken {
            taken.keys = keys.into_iter();
        }
    }

    /// The next timer of those that were taken out, which is none any more, and its place among their keys.
    pub(crate) fn fire_next(&mut self) -> Option<(usize, Timestamp, K)> {
        let taken = self.taken.as_mut()?;
        let Some((at, key)) = taken.times.next().zip(taken.keys.next()) else {
            self.taken = None;
            return None;
        };
        let place = taken.fired;
        taken.fired += 1;
        if let Queue::Disk(disk) = &mut self.queue {
            disk.fired(at, &key);
        }
        Some((place, at, key))
    }

    /// Appends all timers as entries of their state. None may be taken out.
    pub(crate) fn append(
        &self,
        behind: Option<Behind<'_>>,
        entries: &mut GroupedEntries,
    ) -> Result<(), StoreError> {
        debug_assert!(self.taken.is_none(), "what was taken out was put back");
        match (&self.queue, behind) {
            (Queue::Memory(buckets), _) => {
                for (at, key) in buckets.iter() {
                    entries.key(key);
                    at.encode(entries.entry());
                }
                Ok(())
            }
            (Queue::Disk(disk), Some(behind)) => disk.append(behind, entries),
            (Queue::Disk(_), None) => Ok(()),
        }
    }
}
