//! The cache of a lookup join: what was found of keys, for as long as it may be shown. Pure: the time comes with each call.
//!
//! Stands in front of the requests of a subtask. It is no part of checkpoints: behind a restart it is empty, as in Flink. Invariants: never
//! more keys than it may have; what is too old is never given out; when it is full a clock goes round and takes out the next key that was
//! not asked for since it last came by.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

/// How a lookup join keeps what it has found: the *partial* cache of Flink's connectors, with their options. As long as rows are in it the
/// table is not asked, so that changes of the table are seen that much later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LookupCache {
    max_keys: usize,
    after_write: Option<Duration>,
    after_access: Option<Duration>,
    keeps_missing: bool,
}

impl LookupCache {
    /// The rows of at most so many keys in each subtask (at least 1), for ever unless it is said how long:
    /// `lookup.partial-cache.max-rows`.
    #[must_use]
    pub fn of_keys(max_keys: usize) -> Self {
        Self { max_keys: max_keys.max(1), after_write: None, after_access: None, keeps_missing: true }
    }

    /// Rows are asked for again when they are this old: `lookup.partial-cache.expire-after-write`.
    #[must_use]
    pub fn expire_after_write(self, age: Duration) -> Self {
        Self { after_write: Some(age), ..self }
    }

    /// Rows are forgotten when no record has needed them for this long: `lookup.partial-cache.expire-after-access`.
    #[must_use]
    pub fn expire_after_access(self, pause: Duration) -> Self {
        Self { after_access: Some(pause), ..self }
    }

    /// That a key has no rows is not remembered: `lookup.partial-cache.cache-missing-key` is `false`.
    #[must_use]
    pub fn without_missing_keys(self) -> Self {
        Self { keeps_missing: false, ..self }
    }
}

/// The rows of a key.
#[derive(Debug)]
struct Entry<K, V> {
    key: K,
    rows: Arc<[V]>,
    written: Duration,
    accessed: Duration,
    was_used: bool,
}

/// The cache of a subtask.
#[derive(Debug)]
pub(super) struct CachedRows<K, V> {
    settings: LookupCache,
    places: HashMap<K, usize>,
    entries: Vec<Entry<K, V>>,
    hand: usize,
}

impl<K: Eq + Hash + Clone, V> CachedRows<K, V> {
    pub(super) fn new(settings: LookupCache) -> Self {
        Self { settings, places: HashMap::new(), entries: Vec::new(), hand: 0 }
    }

    /// The rows of a key, if they are known and not too old.
    pub(super) fn get(&mut self, key: &K, now: Duration) -> Option<Arc<[V]>> {
        let LookupCache { after_write, after_access, .. } = self.settings;
        let entry = self.places.get(key).and_then(|place| self.entries.get_mut(*place))?;
        let is_over =
            |since: Duration, age: Option<Duration>| age.is_some_and(|age| now.saturating_sub(since) >= age);
        if is_over(entry.written, after_write) || is_over(entry.accessed, after_access) {
            // Its place is that of what is found now.
            return None;
        }
        (entry.accessed, entry.was_used) = (now, true);
        Some(Arc::clone(&entry.rows))
    }

    /// What was found of a key.
    pub(super) fn insert(&mut self, key: K, rows: Arc<[V]>, now: Duration) {
        if rows.is_empty() && !self.settings.keeps_missing {
            return;
        }
        let entry = Entry { key: key.clone(), rows, written: now, accessed: now, was_used: false };
        let known = self.places.get(&key).copied();
        if known.is_none() && self.entries.len() < self.settings.max_keys {
            self.places.insert(key, self.entries.len());
            self.entries.push(entry);
            return;
        }
        let place = known.unwrap_or_else(|| self.free());
        let before = std::mem::replace(&mut self.entries[place], entry);
        if known.is_none() {
            self.places.remove(&before.key);
            self.places.insert(key, place);
        }
    }

    /// The place of the next entry that was not used since the hand last came by. Twice around at most.
    fn free(&mut self) -> usize {
        loop {
            let place = self.hand % self.entries.len();
            self.hand = place + 1;
            if !std::mem::take(&mut self.entries[place].was_used) {
                return place;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn rows(row: u64) -> Arc<[u64]> {
        Arc::from([row])
    }

    #[test]
    fn rows_are_known_until_they_are_too_old_or_unused() {
        let settings = LookupCache::of_keys(9).expire_after_write(secs(10)).expire_after_access(secs(4));
        let mut cache = CachedRows::new(settings);
        cache.insert(1, rows(1), secs(0));
        for (at, expected) in [(3, true), (6, true), (9, true), (10, false)] {
            assert_eq!(cache.get(&1, secs(at)).is_some(), expected, "at {at} s");
        }
        cache.insert(1, rows(2), secs(10));
        assert_eq!(cache.get(&1, secs(13)), Some(rows(2)));
        assert_eq!(cache.get(&1, secs(17)), None, "nobody has asked for 4 s");
    }

    #[test]
    fn a_full_cache_forgets_what_nobody_asks_for() {
        let mut cache = CachedRows::new(LookupCache::of_keys(3));
        (1..=3).for_each(|key| cache.insert(key, rows(key), secs(0)));
        assert!(cache.get(&1, secs(1)).is_some() && cache.get(&3, secs(1)).is_some());
        cache.insert(4, rows(4), secs(2));
        let known = |cache: &mut CachedRows<u64, u64>| {
            (1..=5).filter(|key| cache.get(key, secs(3)).is_some()).collect::<Vec<_>>()
        };
        assert_eq!(known(&mut cache), [1, 3, 4]);
        cache.insert(5, rows(5), secs(4));
        assert_eq!((known(&mut cache).len(), cache.places.len(), cache.entries.len()), (3, 3, 3));
    }

    #[test]
    fn that_a_key_has_no_rows_is_remembered_unless_it_shall_not_be() {
        for (settings, expected) in
            [(LookupCache::of_keys(2), true), (LookupCache::of_keys(2).without_missing_keys(), false)]
        {
            let mut cache = CachedRows::<u64, u64>::new(settings);
            cache.insert(1, Arc::from([]), secs(0));
            assert_eq!(cache.get(&1, secs(1)).is_some(), expected);
        }
    }
}
