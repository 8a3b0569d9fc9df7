//! Windows with a trigger or an evictor of their own.

use std::fmt;

use thalweg_common::record::Record;
use thalweg_runtime::operator::Key;
use thalweg_runtime::windows::{
    Accumulated, ByKey, Contents, Evicted, EvictedAggregate, Evictor, GeneralWindows, Listed, Mapped, Plain,
    ProcessWindowFunction, Processed, ProcessedOne, Reduced, TimeWindow, Trigger, WindowAggregate,
    WindowAssigner, WindowOutput,
};

use super::{WindowAggregation, WindowedStream};
use crate::error::Error;
use crate::graph::Place;
use crate::keyed::{KeyOf, KeyedStream};
use crate::stream::DataStream;

/// No evictor: aggregations keep an accumulator for each window.
#[derive(Debug, Clone, Copy)]
pub struct KeepsAll;

/// An evictor: all records are kept.
#[derive(Debug, Clone, Copy)]
pub struct WithEvictor<E>(E);

/// What is kept of windows: without an evictor, or with one.
pub trait Keeping<T>: Clone {
    #[doc(hidden)]
    type Aggregated<A: WindowAggregate<T>>: Contents<T, Result = A::Out>;

    #[doc(hidden)]
    type Elements: Contents<T, Result = Vec<T>>;

    #[doc(hidden)]
    fn aggregated<A: WindowAggregate<T>>(&self, aggregate: A) -> Self::Aggregated<A>;

    #[doc(hidden)]
    fn elements(&self) -> Self::Elements;
}

impl<T: Record> Keeping<T> for KeepsAll {
    type Aggregated<A: WindowAggregate<T>> = Accumulated<A>;
    type Elements = Listed;

    fn aggregated<A: WindowAggregate<T>>(&self, aggregate: A) -> Accumulated<A> {
        Accumulated(aggregate)
    }

    fn elements(&self) -> Listed {
        Listed
    }
}

impl<T: Record, E: Evictor<T>> Keeping<T> for WithEvictor<E> {
    type Aggregated<A: WindowAggregate<T>> = EvictedAggregate<E, A>;
    type Elements = Evicted<E>;

    fn aggregated<A: WindowAggregate<T>>(&self, aggregate: A) -> EvictedAggregate<E, A> {
        EvictedAggregate { evictor: self.0.clone(), aggregate }
    }

    fn elements(&self) -> Evicted<E> {
        Evicted(self.0.clone())
    }
}

/// A stream cut into windows with a trigger or an evictor of their own; made by [`WindowedStream::trigger`] and
/// [`WindowedStream::evictor`].
///
/// ```
/// use thalweg::aggregates::Count;
/// use thalweg::prelude::*;
/// use thalweg::windows::{ContinuousEventTimeTrigger, CountEvictor, CountTrigger, PurgingTrigger};
///
/// # fn topology(env: &Environment) {
/// let words = env.from_iter(["to", "be"].map(String::from)).key_by(String::clone);
///
/// // The count of the day, every minute.
/// words.window(tumbling(hours(24))).trigger(ContinuousEventTimeTrigger::every(minutes(1))).aggregate(Count);
/// // Whenever ten more have come, and then from zero again.
/// words.window(global()).trigger(PurgingTrigger::of(CountTrigger::of(10))).aggregate(Count);
/// // The last three of each minute.
/// words.window(tumbling(minutes(1))).evictor(CountEvictor::of(3)).apply(|_, _, last| last);
/// # }
/// ```
pub struct CustomWindowedStream<K, T, F, W, G, E, Shows = ByKey> {
    windowed: WindowedStream<K, T, F, W, Shows>,
    trigger: G,
    keeping: E,
}

impl<K, T, F, W: fmt::Debug, G, E, Shows> fmt::Debug for CustomWindowedStream<K, T, F, W, G, E, Shows> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.windowed.fmt(f)
    }
}

impl<K, T, F, W, G, Shows> CustomWindowedStream<K, T, F, W, G, KeepsAll, Shows>
where
    K: Key,
    T: Record,
    F: KeyOf<T, K>,
    W: WindowAssigner<T>,
    G: Trigger<T>,
{
    pub(super) fn new(windowed: WindowedStream<K, T, F, W, Shows>, trigger: G, place: Place) -> Self {
        if windowed.windows.is_merging() && !trigger.can_merge() {
            let keyed: &KeyedStream<K, T, F> = &windowed.keyed;
            let message = "sessions merge, and their trigger cannot; give them one whose can_merge() is true and that has merge()";
            keyed.fail(place, Error::new(message));
        }
        Self { windowed, trigger, keeping: KeepsAll }
    }

    /// An evictor takes records out of windows that fire. For that all records are kept, also behind an aggregation.
    #[must_use]
    pub fn evictor<E: Evictor<T>>(
        self,
        evictor: E,
    ) -> CustomWindowedStream<K, T, F, W, G, WithEvictor<E>, Shows> {
        CustomWindowedStream { windowed: self.windowed, trigger: self.trigger, keeping: WithEvictor(evictor) }
    }
}

impl<K, T, F, W, G, E, Shows> CustomWindowedStream<K, T, F, W, G, E, Shows>
where
    K: Key,
    T: Record,
    F: KeyOf<T, K>,
    W: WindowAssigner<T>,
    G: Trigger<T>,
    E: Keeping<T>,
{
    /// As [`WindowedStream::reduce`].
    #[track_caller]
    pub fn reduce(&self, function: impl Fn(T, T) -> T + Clone + Send + Sync + 'static) -> DataStream<T> {
        self.add(self.keeping.aggregated(Reduced(function)), Plain)
    }

    /// As [`WindowedStream::aggregate`].
    #[track_caller]
    pub fn aggregate<A, Kind>(&self, aggregate: A) -> DataStream<<Shows as WindowOutput<K, A::Out>>::Out>
    where
        A: WindowAggregation<T, W, Kind>,
        Shows: WindowOutput<K, A::Out>,
    {
        self.add(self.keeping.aggregated(aggregate.windowed()), self.windowed.shows.clone())
    }

    /// As [`WindowedStream::aggregate_with`].
    #[track_caller]
    pub fn aggregate_with<A, Kind, I>(
        &self,
        aggregate: A,
        emit: impl Fn(&K, TimeWindow, A::Out) -> I + Clone + Send + Sync + 'static,
    ) -> DataStream<I::Item>
    where
        A: WindowAggregation<T, W, Kind>,
        I: IntoIterator<Item: Record> + 'static,
    {
        self.add(self.keeping.aggregated(aggregate.windowed()), Mapped(emit))
    }

    /// As [`WindowedStream::aggregate_and_process`].
    #[track_caller]
    pub fn aggregate_and_process<A, Kind, P>(&self, aggregate: A, function: P) -> DataStream<P::Out>
    where
        A: WindowAggregation<T, W, Kind>,
        P: ProcessWindowFunction<K, A::Out>,
    {
        self.add(self.keeping.aggregated(aggregate.windowed()), ProcessedOne(function))
    }

    /// As [`WindowedStream::process`].
    #[track_caller]
    pub fn process<P: ProcessWindowFunction<K, T>>(&self, function: P) -> DataStream<P::Out> {
        self.add(self.keeping.elements(), Processed(function))
    }

    /// As [`WindowedStream::apply`].
    #[track_caller]
    pub fn apply<I>(
        &self,
        function: impl Fn(&K, TimeWindow, Vec<T>) -> I + Clone + Send + Sync + 'static,
    ) -> DataStream<I::Item>
    where
        I: IntoIterator<Item: Record> + 'static,
    {
        self.add(self.keeping.elements(), Mapped(function))
    }

    #[track_caller]
    fn add<C, O>(&self, contents: C, output: O) -> DataStream<O::Out>
    where
        C: Contents<T>,
        O: WindowOutput<K, C::Result>,
    {
        let windowed = &self.windowed;
        let (windows, lateness) = (windowed.windows.clone(), windowed.lateness.clone());
        windowed.add(GeneralWindows::new(windows, self.trigger.clone(), contents, output, lateness))
    }
}
