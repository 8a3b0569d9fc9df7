//! Lookup joins: each record is joined with the rows that a table outside has for its key, at the moment.
//!
//! An asynchronous operator like every other one, whose requests go to a cache first. Follows the lookup join of Flink's SQL
//! (`FOR SYSTEM_TIME AS OF proctime`), with its defaults: ordered, 100 records at a time, a timeout of 3 minutes, no cache. Invariant: what
//! has not left is asked for again behind a restart, so that its rows may then be newer ones.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_common::task_scope::BoxError;

use super::lookup_cache::{CachedRows, LookupCache};
use super::requests::Answer;
use super::{AsyncIo, AsyncOptions, Request};
use crate::operator::{Key, OpenContext, user_failure};

/// The rows of a key.
type Rows<V> = Pin<Box<dyn Future<Output = Result<Arc<[V]>, Failure>> + Send>>;

/// A table outside whose rows are looked up by key: a database, a service, a file.
pub struct Lookup<K, V> {
    fetch: Arc<dyn Fn(K) -> Rows<V> + Send + Sync>,
    options: AsyncOptions,
    cache: Option<LookupCache>,
}

impl<K, V> Clone for Lookup<K, V> {
    fn clone(&self) -> Self {
        Self { fetch: Arc::clone(&self.fetch), options: self.options.clone(), cache: self.cache }
    }
}

impl<K, V> fmt::Debug for Lookup<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup")
            .field("options", &self.options)
            .field("cache", &self.cache)
            .finish_non_exhaustive()
    }
}

impl<K: Key, V: Clone + Send + Sync + 'static> Lookup<K, V> {
    /// `rows(key)` gives all rows of a key: none, one (an `Option` will do) or several. An error fails the task, unless the
    /// [options](Self::options) say that the request is repeated.
    pub fn new<F, Answer, I, E>(rows: F) -> Self
    where
        F: Fn(K) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Result<I, E>> + Send + 'static,
        I: IntoIterator<Item = V>,
        E: Into<BoxError>,
    {
        let fetch = move |key| -> Rows<V> {
            let rows = rows(key);
            Box::pin(async move {
                match rows.await {
                    Ok(rows) => Ok(rows.into_iter().collect()),
                    Err(error) => Err(user_failure(error)),
                }
            })
        };
        Self { fetch: Arc::new(fetch), options: AsyncOptions::ordered(), cache: None }
    }

    /// How requests are made: their order, how many at a time, for how long, whether again. [`AsyncOptions::ordered`] unless set.
    #[must_use]
    pub fn options(self, options: AsyncOptions) -> Self {
        Self { options, ..self }
    }

    /// Each subtask remembers what it has found. Without this the table is asked for every record.
    #[must_use]
    pub fn cache(self, cache: LookupCache) -> Self {
        Self { cache: Some(cache), ..self }
    }

    /// The operator that gives `join` each record of `In` with the rows of its key.
    #[doc(hidden)]
    pub fn joining<In, Out, F>(
        self,
        key: impl Fn(&In) -> K + Send + Sync + 'static,
        join: F,
    ) -> AsyncIo<In, Out>
    where
        In: Record,
        Out: Record,
        F: Fn(&In, &[V]) -> Vec<Out> + Send + Sync + 'static,
    {
        let Self { fetch, options, cache } = self;
        let (key, join) = (Arc::new(key), Arc::new(join));
        let open = move |context: &OpenContext| -> Request<In, Out> {
            let clock = Arc::clone(&context.clock);
            let (fetch, key, join) = (Arc::clone(&fetch), Arc::clone(&key), Arc::clone(&join));
            let cache = cache.map(|cache| Arc::new(Mutex::new(CachedRows::new(cache))));
            Arc::new(move |record: In| -> Answer<Out> {
                let key = key(&record);
                let known = cache.as_ref().and_then(|cache| lock(cache).get(&key, clock.monotonic()));
                if let Some(rows) = known {
                    return Box::pin(std::future::ready(Ok(join(&record, &rows))));
                }
                let (cache, clock, join) = (cache.clone(), Arc::clone(&clock), Arc::clone(&join));
                let rows = fetch(key.clone());
                Box::pin(async move {
                    let rows = rows.await?;
                    if let Some(cache) = cache {
                        lock(&cache).insert(key, Arc::clone(&rows), clock.monotonic());
                    }
                    Ok(join(&record, &rows))
                })
            })
        };
        AsyncIo::opening(options, open)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::time::Duration;

    use super::*;
    use crate::testing::{OperatorHarness, Setup};

    /// A table with as many rows of a key as the key says, and the keys that it was asked for.
    #[derive(Clone, Default)]
    struct Table(Arc<Mutex<Vec<u64>>>);

    impl Table {
        fn lookup(&self) -> Lookup<u64, u64> {
            let table = self.clone();
            Lookup::new(move |key: u64| {
                lock(&table.0).push(key);
                async move {
                    if key == 13 {
                        Err("no such table".to_string())
                    } else {
                        Ok((0..key).collect::<Vec<_>>())
                    }
                }
            })
        }

        fn asked(&self) -> Vec<u64> {
            std::mem::take(&mut *lock(&self.0))
        }
    }

    type Harness = OperatorHarness<(u64, String), String>;

    fn open(lookup: Lookup<u64, u64>) -> Harness {
        let join = |record: &(u64, String), rows: &[u64]| {
            rows.iter().map(|row| format!("{}{row}", record.1)).collect()
        };
        let operator = lookup.joining(|record: &(u64, String)| record.0, join);
        Harness::open(operator.factory().as_ref(), Setup::default()).unwrap()
    }

    fn push(harness: &mut Harness, records: &[(u64, &str)]) -> Vec<String> {
        harness.push(records.iter().map(|(key, text)| (*key, (*text).to_string())).collect()).unwrap();
        harness.flush().unwrap();
        harness.output()
    }

    #[test]
    fn each_record_is_joined_with_all_rows_of_its_key_in_order() {
        let table = Table::default();
        let mut harness = open(table.lookup());
        assert_eq!(
            push(&mut harness, &[(2, "a"), (0, "b"), (1, "c"), (2, "d")]),
            ["a0", "a1", "c0", "d0", "d1"]
        );
        assert_eq!(table.asked(), [2, 0, 1, 2], "nothing is remembered unless it shall be");
    }

    #[test]
    fn what_was_found_is_not_asked_for_again_until_it_is_too_old() {
        let table = Table::default();
        let cache = LookupCache::of_keys(2).expire_after_write(Duration::from_millis(100));
        let mut harness = open(table.lookup().cache(cache));
        push(&mut harness, &[(2, "a")]);
        push(&mut harness, &[(0, "b")]);
        assert_eq!(table.asked(), [2, 0]);
        assert_eq!(push(&mut harness, &[(2, "c"), (0, "d")]), ["c0", "c1"]);
        assert_eq!(table.asked(), [] as [u64; 0]);
        harness.processing_time(100).unwrap();
        assert_eq!(push(&mut harness, &[(2, "e")]), ["e0", "e1"]);
        assert_eq!(table.asked(), [2]);
    }

    #[test]
    fn a_table_that_fails_fails_the_task() {
        let mut harness = open(Table::default().lookup().cache(LookupCache::of_keys(2)));
        harness.push(vec![(13, String::new())]).unwrap();
        assert!(harness.flush().unwrap_err().message.contains("no such table"));
    }
}
