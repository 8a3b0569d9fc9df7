//! Which records are written with which request, and what becomes of those that were refused. Pure: the caller says what time it is.
//!
//! Invariants: a record is in the queue, perhaps as part of a request, until the service has taken it; requests have at most as many records
//! and bytes as allowed; refused records come before younger ones; in order, at most one record of a key is on its way.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::time::Duration;

use super::Entry;
use super::options::WriteOptions;

/// A record in its place.
#[derive(Debug, Clone)]
struct Waiting<E> {
    number: u64,
    /// When it came.
    since: Duration,
    entry: E,
}

/// Records that are not written.
#[derive(Debug)]
pub(super) struct Queue<E> {
    options: WriteOptions,
    waiting: VecDeque<Waiting<E>>,
    waiting_bytes: usize,
    requests: BTreeMap<u64, Vec<Waiting<E>>>,
    under_way: usize,
    under_way_bytes: usize,
    next_number: u64,
    next_request: u64,
    /// Whether what waits goes as soon as nothing is on its way.
    is_flushed: bool,
    /// Behind a refusal: no request before this time.
    pause_until: Duration,
    refusals: u32,
    /// In order: keys that are on their way.
    busy: HashSet<String>,
}

impl<E: Entry> Queue<E> {
    pub(super) fn new(options: WriteOptions) -> Self {
        Self {
            options,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            requests: BTreeMap::new(),
            under_way: 0,
            under_way_bytes: 0,
            next_number: 0,
            next_request: 0,
            is_flushed: false,
            pause_until: Duration::ZERO,
            refusals: 0,
            busy: HashSet::new(),
        }
    }

    /// A record comes.
    pub(super) fn push(&mut self, entry: E, now: Duration) {
        self.waiting_bytes += entry.bytes();
        self.waiting.push_back(Waiting { number: self.next_number, since: now, entry });
        self.next_number += 1;
        self.is_flushed = false;
    }

    /// Nothing more comes for now: what waits need not wait for company.
    pub(super) fn flush(&mut self) {
        self.is_flushed = true;
    }

    /// How many records the service has not taken.
    pub(super) fn len(&self) -> usize {
        self.waiting.len() + self.under_way
    }

    /// Whether no more should come.
    pub(super) fn is_full(&self) -> bool {
        self.len() >= self.options.max_buffered
            || self.waiting_bytes + self.under_way_bytes >= self.options.max_unsent_bytes
    }

    /// All records that the service has not taken, in the order in which they came.
    pub(super) fn unsent(&self) -> Vec<E> {
        let mut all: Vec<&Waiting<E>> = self.waiting.iter().chain(self.requests.values().flatten()).collect();
        all.sort_by_key(|waiting| waiting.number);
        all.into_iter().map(|waiting| waiting.entry.clone()).collect()
    }

    /// Since when the oldest record waits, if there is any.
    pub(super) fn oldest_since(&self) -> Option<Duration> {
        let all = self.waiting.iter().chain(self.requests.values().flatten());
        all.map(|waiting| waiting.since).min()
    }

    /// The next request, if one is due: its number and records.
    pub(super) fn request(&mut self, now: Duration) -> Option<(u64, Vec<E>)> {
        if self.requests.len() >= self.options.max_in_flight || now < self.pause_until || !self.is_due(now) {
            return None;
        }
        let mut chosen = Vec::new();
        let (mut bytes, mut passed) = (0, VecDeque::new());
        let mut keys: HashSet<String> = HashSet::new();
        while chosen.len() < self.options.max_batch_records
            && let Some(waiting) = self.waiting.pop_front()
        {
            let (size, key) = (waiting.entry.bytes(), waiting.entry.key());
            if self.options.is_ordered {
                // Also behind one of its key that has to wait.
                let is_free = !self.busy.contains(key) && keys.insert(key.to_owned());
                if !is_free {
                    keys.insert(key.to_owned());
                    passed.push_back(waiting);
                    continue;
                }
            }
            if bytes + size > self.options.max_batch_bytes && !chosen.is_empty() {
                self.waiting.push_front(waiting);
                break;
            }
            bytes += size;
            chosen.push(waiting);
        }
        while let Some(waiting) = passed.pop_back() {
            self.waiting.push_front(waiting);
        }
        if chosen.is_empty() {
            return None;
        }
        self.waiting_bytes -= bytes;
        self.under_way_bytes += bytes;
        self.under_way += chosen.len();
        if self.options.is_ordered {
            self.busy.extend(chosen.iter().map(|waiting| waiting.entry.key().to_owned()));
        }
        let number = self.next_request;
        self.next_request += 1;
        let entries = chosen.iter().map(|waiting| waiting.entry.clone()).collect();
        self.requests.insert(number, chosen);
        Some((number, entries))
    }

    /// Whether what waits is enough for a request, or has waited long enough.
    fn is_due(&self, now: Duration) -> bool {
        let Some(first) = self.waiting.front() else { return false };
        self.waiting.len() >= self.options.max_batch_records
            || self.waiting_bytes >= self.options.max_batch_bytes
            || (self.is_flushed && self.requests.is_empty())
            || first.since + self.options.max_time_in_buffer <= now
    }

    /// When a request may become due although nothing happens.
    pub(super) fn again_at(&self, now: Duration) -> Option<Duration> {
        if self.requests.len() >= self.options.max_in_flight {
            return None;
        }
        let first = self.waiting.front()?;
        if self.is_due(now) {
            // Either a pause, or keys that are on their way: whose answers wake.
            return (now < self.pause_until).then_some(self.pause_until);
        }
        Some((first.since + self.options.max_time_in_buffer).max(self.pause_until))
    }

    /// A request was answered: `refused` says of each of its records, in their order, whether it was; a request that failed has refused all.
    /// Says how many come again.
    pub(super) fn answered(
        &mut self,
        number: u64,
        refused: impl Fn(usize) -> bool,
        now: Duration,
        random: u64,
    ) -> usize {
        let Some(request) = self.requests.remove(&number) else { return 0 };
        let bytes: usize = request.iter().map(|waiting| waiting.entry.bytes()).sum();
        self.under_way_bytes -= bytes;
        self.under_way -= request.len();
        let mut again = Vec::new();
        for (place, waiting) in request.into_iter().enumerate() {
            self.busy.remove(waiting.entry.key());
            if refused(place) {
                again.push(waiting);
            }
        }
        let count = again.len();
        if count == 0 {
            self.refusals = 0;
            return 0;
        }
        self.pause_until = now + self.options.backoff.pause(self.refusals, random);
        self.refusals = self.refusals.saturating_add(1);
        self.waiting_bytes += again.iter().map(|waiting| waiting.entry.bytes()).sum::<usize>();
        self.waiting.extend(again);
        // In the order in which they came; younger ones may have gone meanwhile.
        self.waiting.make_contiguous().sort_by_key(|waiting| waiting.number);
        self.is_flushed = true;
        count
    }
}

#[cfg(test)]
#[path = "queue_tests.rs"]
mod tests;
