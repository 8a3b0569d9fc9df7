//! Lookup joins: a stream joined with a table outside, record by record.

use std::fmt;

use thalweg_common::record::Record;
use thalweg_runtime::operator::Key;
use thalweg_runtime::operators::async_io::Lookup;

use crate::graph::{NodeSpec, Place};
use crate::keyed::KeyOf;
use crate::stream::{DataStream, unkeyed};

/// A stream of which each record is joined with the rows that a table has for its key; made by [`DataStream::lookup_join`].
pub struct LookupJoined<T, K, V, F> {
    stream: DataStream<T>,
    key: F,
    lookup: Lookup<K, V>,
}

impl<T, K, V, F> fmt::Debug for LookupJoined<T, K, V, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} with {:?}", self.stream, self.lookup)
    }
}

impl<T: Record> DataStream<T> {
    /// Joins each record with the rows that a table outside, such as a database, has for its key at the moment when it comes: the lookup join
    /// of Flink's SQL, `JOIN t FOR SYSTEM_TIME AS OF s.proctime`.
    ///
    /// ```text
    /// records   A    B    A    C           table   A: 1 row, B: none, C: 2 rows
    /// inner     a         a    c1 c2
    /// left      a    b-   a    c1 c2
    /// ```
    ///
    /// It is [asynchronous I/O](Self::async_map): requests are made for many records at the same time, results have the timestamps of
    /// their records, and leave in the order of these unless the [options](Lookup::options) say otherwise. A later change of the
    /// table changes no result, and records whose results have not left when the job fails are looked up again, so that the results may then
    /// be others. With a [cache](crate::async_io::LookupCache) each subtask remembers what it has found; behind
    /// [`key_by`](Self::key_by) and a stateless operator all records of a key are in one subtask, which helps it.
    ///
    /// ```
    /// use thalweg::prelude::*;
    ///
    /// #[derive(Clone)]
    /// struct Customer {
    ///     country: String,
    /// }
    ///
    /// async fn customer(id: u64) -> std::io::Result<Option<Customer>> {
    ///     tokio::time::sleep(Duration::from_millis(5)).await; // a query
    ///     Ok((id % 2 == 0).then(|| Customer { country: "NL".into() }))
    /// }
    ///
    /// # fn topology(env: &Environment) {
    /// let customers = Lookup::new(customer)
    ///     .cache(LookupCache::of_keys(10_000).expire_after_write(minutes(10)))
    ///     .options(AsyncOptions::ordered().retry(AsyncRetry::fixed_delay(3, millis(100))));
    /// let orders = env.from_iter([(1_u64, 30_u64), (2, 74)]);
    /// orders
    ///     .lookup_join(|order| order.0, customers)
    ///     .left_outer(|order, customer| (order.1, customer.map(|customer| customer.country.clone())))
    ///     .uid("orders-with-countries")
    ///     .print_debug();
    /// # }
    /// ```
    pub fn lookup_join<K, V, F>(&self, key: F, lookup: Lookup<K, V>) -> LookupJoined<T, K, V, F>
    where
        K: Key,
        V: Clone + Send + Sync + 'static,
        F: Fn(&T) -> K + Clone + Send + Sync + 'static,
    {
        LookupJoined { stream: self.clone(), key, lookup }
    }
}

impl<T, K, V, F> LookupJoined<T, K, V, F>
where
    T: Record,
    K: Key,
    V: Clone + Send + Sync + 'static,
    F: KeyOf<T, K>,
{
    /// Makes a record of each pair; a record whose key has no rows is dropped.
    #[track_caller]
    pub fn inner<Out: Record>(
        &self,
        function: impl Fn(&T, &V) -> Out + Send + Sync + 'static,
    ) -> DataStream<Out> {
        self.joined("Lookup Join", move |record, rows| rows.iter().map(|row| function(record, row)).collect())
    }

    /// The same, and a record whose key has no rows stands alone.
    #[track_caller]
    pub fn left_outer<Out: Record>(
        &self,
        function: impl Fn(&T, Option<&V>) -> Out + Send + Sync + 'static,
    ) -> DataStream<Out> {
        self.joined("Left Outer Lookup Join", move |record, rows| {
            let alone = rows.is_empty().then(|| function(record, None));
            rows.iter().map(|row| function(record, Some(row))).chain(alone).collect()
        })
    }

    #[track_caller]
    fn joined<Out: Record>(
        &self,
        name: &str,
        function: impl Fn(&T, &[V]) -> Vec<Out> + Send + Sync + 'static,
    ) -> DataStream<Out> {
        let operator = self.lookup.clone().joining(self.key.clone(), function);
        let spec = NodeSpec::new("lookup_join", name, Place::caller());
        self.stream.asynchronous(spec, operator, || Box::new(unkeyed::<T>))
    }
}
