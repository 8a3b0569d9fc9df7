//! The global stage of a two-stage aggregation: adds what the [`combine`](super::combine) stage sends to the state of
//! its key.
//!
//! Invariant: the state is the same, by name, type and value, as that of the operators which aggregate in one stage, so
//! that a checkpoint of either is restored by the other.

use std::marker::PhantomData;

use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_state::{Declarations, Declare, State, StateKey, ValueState};

use super::aggregate::STATE;
use crate::operator::{Aggregate, Context, Key, KeyedProcess, MergeAggregate};

/// Merges accumulators into those of their keys, and emits the key with every new result.
pub struct MergedAggregate<In, A: MergeAggregate<In>> {
    value: ValueState<A::Accumulator>,
    aggregate: A,
    input: PhantomData<fn(In)>,
}

impl<In, A: MergeAggregate<In>> MergedAggregate<In, A> {
    /// With the aggregate to run.
    pub fn new(aggregate: A) -> Self {
        Self { value: ValueState::default(), aggregate, input: PhantomData }
    }
}

impl<In, A: MergeAggregate<In>> Clone for MergedAggregate<In, A> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), aggregate: self.aggregate.clone(), input: PhantomData }
    }
}

impl<In, A: MergeAggregate<In>> State for MergedAggregate<In, A> {
    fn declare<K: StateKey>(&mut self, declarations: &mut Declarations<K>) {
        self.value.declare(STATE, declarations);
    }
}

impl<K, In, A> KeyedProcess<K, (K, A::Accumulator)> for MergedAggregate<In, A>
where
    K: Key,
    In: 'static,
    A: MergeAggregate<In>,
{
    type Out = (K, A::Out);

    const TIMERS: bool = false;

    fn on_record(
        &mut self,
        (key, accumulator): (K, A::Accumulator),
        context: &mut Context<'_, K, Self::Out>,
    ) -> Result<(), Failure> {
        let mut later = Some(accumulator);
        let create = || later.take().unwrap_or_else(|| self.aggregate.create());
        let value = self.value.get_or_insert_with(context, create);
        if let Some(later) = later {
            self.aggregate.merge(value, later);
        }
        let result = self.aggregate.result(value);
        context.emit((key, result));
        Ok(())
    }
}

/// Combines values with those of their keys by an associative function, and emits every new value.
#[derive(Clone)]
pub struct MergedReduce<T, C> {
    value: ValueState<T>,
    function: C,
}

impl<T, C> MergedReduce<T, C> {
    /// With the function that combines two values.
    pub fn new(function: C) -> Self {
        Self { value: ValueState::default(), function }
    }
}

impl<T: Record, C> State for MergedReduce<T, C> {
    fn declare<K: StateKey>(&mut self, declarations: &mut Declarations<K>) {
        self.value.declare(STATE, declarations);
    }
}

impl<K, T, C> KeyedProcess<K, (K, T)> for MergedReduce<T, C>
where
    K: Key,
    T: Record,
    C: Fn(T, T) -> T + Clone + Send + Sync + 'static,
{
    type Out = T;

    const TIMERS: bool = false;

    fn on_record(&mut self, (_, later): (K, T), context: &mut Context<'_, K, T>) -> Result<(), Failure> {
        self.value.update(context, |before| {
            Some(match before {
                Some(before) => (self.function)(before, later),
                None => later,
            })
        });
        if let Some(value) = self.value.get(context).cloned() {
            context.emit(value);
        }
        Ok(())
    }
}

/// An associative aggregate that is used record by record all the same.
#[derive(Debug, Clone)]
pub struct Unmerged<A>(pub A);

impl<In, A: MergeAggregate<In>> Aggregate<In> for Unmerged<A> {
    type Accumulator = A::Accumulator;
    type Out = A::Out;

    #[inline]
    fn create(&self) -> A::Accumulator {
        self.0.create()
    }

    #[inline]
    fn add(&self, accumulator: &mut A::Accumulator, record: In) {
        self.0.add(accumulator, record);
    }

    #[inline]
    fn result(&self, accumulator: &A::Accumulator) -> A::Out {
        self.0.result(accumulator)
    }
}
