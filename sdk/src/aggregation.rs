//! What [`KeyedStream::aggregate`] takes: aggregates of either kind, told apart by the trait that they implement.

use thalweg_common::record::Record;
use thalweg_runtime::operator::{Aggregate, Key, MergeAggregate};
use thalweg_runtime::operators::{
    CombinePolicy, MergedAggregate, RunningAggregate, Unmerged, combine_aggregate,
};

use crate::keyed::{KeyOf, KeyedStream};
use crate::stream::DataStream;

/// Aggregates record by record: an [`Aggregate`].
#[derive(Debug)]
pub enum RecordByRecord {}

/// Combines before records are sent to their keys: a [`MergeAggregate`].
#[derive(Debug)]
pub enum Combined {}

/// An aggregate of records of `T`: whatever implements [`Aggregate`] or [`MergeAggregate`], but not both.
///
/// `Kind` tells which of them. The compiler finds it, nobody has to write it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no aggregate of `{T}`",
    note = "implement either `Aggregate<{T}>`, or `MergeAggregate<{T}>` if its accumulators can be merged; not both"
)]
pub trait Aggregation<T, Kind>: Sized {
    /// What is emitted behind the key.
    type Out: Record;

    #[doc(hidden)]
    #[track_caller]
    fn declare<K, F>(self, keyed: &KeyedStream<K, T, F>) -> DataStream<(K, Self::Out)>
    where
        K: Key,
        T: Record,
        F: KeyOf<T, K>;
}

impl<T: Record, A: Aggregate<T>> Aggregation<T, RecordByRecord> for A {
    type Out = A::Out;

    #[track_caller]
    fn declare<K, F>(self, keyed: &KeyedStream<K, T, F>) -> DataStream<(K, A::Out)>
    where
        K: Key,
        F: KeyOf<T, K>,
    {
        keyed.operator("aggregate", "Aggregate", RunningAggregate::<T, A>::new(self))
    }
}

impl<T: Record, A: MergeAggregate<T>> Aggregation<T, Combined> for A {
    type Out = A::Out;

    #[track_caller]
    fn declare<K, F>(self, keyed: &KeyedStream<K, T, F>) -> DataStream<(K, A::Out)>
    where
        K: Key,
        F: KeyOf<T, K>,
    {
        let (key, aggregate) = (keyed.key().clone(), self.clone());
        let combiner = move |policy: CombinePolicy| combine_aggregate(key.clone(), aggregate.clone(), policy);
        let merged = MergedAggregate::<T, A>::new(self.clone());
        let plain = RunningAggregate::<T, _>::new(Unmerged(self));
        keyed.two_stages::<A::Accumulator, _, _>("aggregate", "Aggregate", plain, merged, combiner)
    }
}
