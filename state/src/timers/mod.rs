//! Timers: for each key the times at which its function wants to be called again, by event time and by processing time.
//!
//! Stands beside the tables of a store. Timers are state: a timer is its key and its time, so that there is one of each kind at most, and
//! snapshots have them as maps of times. A memory store keeps them in buckets by time (`buckets`), a store with a backend keeps the soonest
//! ones in memory and all of them behind (`disk`). Whoever fires them takes a few together, whose keys are looked up at once; until one of these
//! is fired it counts as registered. Invariants: timers fire in the order of their times, also those that are registered while others
//! fire; a timer that was deleted, or has fired, does not fire.

mod buckets;
mod disk;
mod firing;

use thalweg_common::Timestamp;
use thalweg_common::graph::{StateDescriptor, StateKind};
use thalweg_common::key_group::KeyGroupRange;
use thalweg_common::record::Record;
use thalweg_common::schema::Schema;

use self::buckets::Buckets;
pub(crate) use self::disk::{Behind, DiskTimers};
pub(crate) use self::firing::Firing;
use crate::tables::StateKey;

/// By which time a timer fires.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TimeDomain {
    /// By the time in the records: when a watermark says that no earlier ones will come.
    EventTime,
    /// By the clock of the machine.
    ProcessingTime,
}

impl TimeDomain {
    /// Both.
    pub const ALL: [Self; 2] = [Self::EventTime, Self::ProcessingTime];

    /// The name of the state that holds its timers; the same as in Flink.
    pub fn state_name(self) -> &'static str {
        match self {
            Self::EventTime => "_timer_state/event_time",
            Self::ProcessingTime => "_timer_state/processing_time",
        }
    }

    /// What the plan says of that state: for each key a map from times to nothing.
    pub fn descriptor(self) -> StateDescriptor {
        let times = Schema::Map(Box::new(Timestamp::schema()), Box::new(<()>::schema()));
        StateDescriptor::new(self.state_name(), StateKind::Timers, times)
    }

    fn index(self) -> usize {
        self as usize
    }
}

/// The timers of all keys of a store.
pub(crate) struct Timers<K> {
    domains: [Firing<K>; 2],
}

/// Where the timers of one domain are.
enum Queue<K> {
    Memory(Buckets<K>),
    Disk(DiskTimers),
}

impl<K: StateKey> Timers<K> {
    /// None yet, in memory.
    pub(crate) fn in_memory() -> Self {
        Self { domains: TimeDomain::ALL.map(|_| Firing::new(Queue::Memory(Buckets::default()))) }
    }

    /// Those behind a cache, whose states have the numbers from `state` on.
    pub(crate) fn on_disk(
        state: usize,
        owned: KeyGroupRange,
        max_parallelism: u32,
        budget_bytes: usize,
        is_new: bool,
    ) -> Self {
        let disk = |domain: TimeDomain| {
            DiskTimers::new(domain, state + domain.index(), owned, max_parallelism, budget_bytes / 2, is_new)
        };
        Self { domains: TimeDomain::ALL.map(|domain| Firing::new(Queue::Disk(disk(domain)))) }
    }

    pub(crate) fn of(&self, domain: TimeDomain) -> &Firing<K> {
        &self.domains[domain.index()]
    }

    pub(crate) fn of_mut(&mut self, domain: TimeDomain) -> &mut Firing<K> {
        &mut self.domains[domain.index()]
    }

    /// Those that are kept on disk, with their domains.
    pub(crate) fn disks_mut(&mut self) -> impl Iterator<Item = &mut DiskTimers> {
        self.domains.iter_mut().filter_map(Firing::disk_mut)
    }

    /// How many there are in memory.
    pub(crate) fn len(&self) -> usize {
        self.domains.iter().map(Firing::len).sum()
    }

    /// About how much memory they take.
    pub(crate) fn bytes(&self) -> usize {
        self.domains.iter().map(Firing::bytes).sum()
    }

    /// What was taken out to be fired and was not goes back.
    pub(crate) fn put_back(&mut self) {
        self.domains.iter_mut().for_each(Firing::put_back);
    }
}

impl<K: StateKey> Queue<K> {
    fn register(&mut self, at: Timestamp, key: &K) {
        match self {
            Self::Memory(buckets) => buckets.insert(at, key),
            Self::Disk(disk) => disk.register(at, key),
        }
    }

    fn delete(&mut self, at: Timestamp, key: &K) {
        match self {
            Self::Memory(buckets) => buckets.remove(at, key),
            Self::Disk(disk) => disk.delete(at, key),
        }
    }
}
