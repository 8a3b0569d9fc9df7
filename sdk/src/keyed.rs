//! `KeyedStream`: a stream partitioned by key, the only place where state exists.

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::ops::AddAssign;

use thalweg_common::graph::StateDescriptor;
use thalweg_common::record::Record;
use thalweg_runtime::operator::{Aggregate, Key, KeyedProcess};
use thalweg_runtime::operators::{self, Reduce, RunningAggregate};
use thalweg_runtime::program::EdgeCode;
use thalweg_state::{Declarations, State};

use crate::graph::{NodeSpec, Place};
use crate::stream::DataStream;

/// A stream of records of type `T`, partitioned by keys of type `K`; made by [`DataStream::key_by`].
///
/// Its operators remember something of each key. Give each a [`uid`](DataStream::uid), by which a changed job finds
/// that state again.
pub struct KeyedStream<K, T, F = fn(&T) -> K> {
    stream: DataStream<T>,
    key: F,
    keys: PhantomData<fn() -> K>,
}

impl<K, T, F: Clone> Clone for KeyedStream<K, T, F> {
    fn clone(&self) -> Self {
        Self { stream: self.stream.clone(), key: self.key.clone(), keys: PhantomData }
    }
}

impl<K, T, F> fmt::Debug for KeyedStream<K, T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} by {}", self.stream, type_name::<K>())
    }
}

impl<K, T, F> KeyedStream<K, T, F>
where
    K: Key,
    T: Record,
    F: Fn(&T) -> K + Clone + Send + Sync + 'static,
{
    pub(crate) fn new(stream: DataStream<T>, key: F) -> Self {
        Self { stream, key, keys: PhantomData }
    }

    /// Combines the records of each key one after the other, and emits every new value: `function(value so far, record)`.
    /// A key's first record is its first value.
    #[track_caller]
    pub fn reduce(&self, function: impl Fn(T, T) -> T + Clone + Send + Sync + 'static) -> DataStream<T> {
        self.operator("reduce", "Reduce", Reduce::new(function))
    }

    /// Aggregates the records of each key, and emits the key with every new result.
    #[track_caller]
    pub fn aggregate<A: Aggregate<T>>(&self, aggregate: A) -> DataStream<(K, A::Out)> {
        self.operator("aggregate", "Aggregate", RunningAggregate::<T, A>::new(aggregate))
    }

    /// Counts the records of each key, and emits the key with every new count.
    #[track_caller]
    pub fn count(&self) -> DataStream<(K, u64)> {
        self.operator("count", "Count", RunningAggregate::<T, _>::new(Sum::new(|_: &T| 1_u64)))
    }

    /// Adds up a number of each record by key, and emits the key with every new sum.
    #[track_caller]
    pub fn sum_by<N>(&self, number: impl Fn(&T) -> N + Clone + Send + Sync + 'static) -> DataStream<(K, N)>
    where
        N: Record + AddAssign + Default,
    {
        self.operator("sum", "Sum", RunningAggregate::<T, _>::new(Sum::new(number)))
    }

    /// Runs a function with state on the records of each key.
    #[track_caller]
    pub fn process<P: KeyedProcess<K, T>>(&self, process: P) -> DataStream<P::Out> {
        self.operator("process", "Process", process)
    }

    #[track_caller]
    fn operator<P: KeyedProcess<K, T>>(
        &self,
        kind: &'static str,
        name: &str,
        mut process: P,
    ) -> DataStream<P::Out> {
        let mut spec = NodeSpec::new(kind, name, Place::caller());
        spec.states = self.declared_states(&mut process, spec.place);
        let factory = operators::keyed_process(self.key.clone(), process);
        let key = &self.key;
        self.stream.connect(spec, factory, || {
            let key = key.clone();
            Box::new(move |_| EdgeCode::hash(key))
        })
    }

    fn declared_states(&self, state: &mut impl State, place: Place) -> Vec<StateDescriptor> {
        let mut declarations = Declarations::<K>::default();
        state.declare(&mut declarations);
        declarations.descriptors().unwrap_or_else(|error| {
            self.stream.environment().fail(place, error);
            Vec::new()
        })
    }
}

/// The sum of a number of each record.
#[derive(Clone)]
struct Sum<F, N> {
    number: F,
    sum: PhantomData<fn() -> N>,
}

impl<F, N> Sum<F, N> {
    fn new(number: F) -> Self {
        Self { number, sum: PhantomData }
    }
}

impl<T, F, N> Aggregate<T> for Sum<F, N>
where
    F: Fn(&T) -> N + Clone + Send + Sync + 'static,
    N: Record + AddAssign + Default,
{
    type Accumulator = N;
    type Out = N;

    fn create(&self) -> N {
        N::default()
    }

    fn add(&self, accumulator: &mut N, record: T) {
        *accumulator += (self.number)(&record);
    }

    fn result(&self, accumulator: &N) -> N {
        accumulator.clone()
    }
}
