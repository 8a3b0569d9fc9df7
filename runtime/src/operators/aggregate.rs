//! Running reduce and aggregates of a keyed stream: they emit the new result after each record, as in Flink.

use std::sync::Arc;

use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_state::{Declarations, Declare, State, StateKey, ValueState};

use super::keyed::keyed_process;
use crate::operator::{Aggregate, Context, Key, KeyedProcess};
use crate::program::OperatorFactory;

/// Combines the records of a key one after the other: `combine(value so far, record)`. Emits every new value.
pub fn reduce<K, T, F, C>(key: F, combine: C) -> Arc<dyn OperatorFactory>
where
    K: Key,
    T: Record,
    F: Fn(&T) -> K + Clone + Send + Sync + 'static,
    C: Fn(T, T) -> T + Clone + Send + Sync + 'static,
{
    keyed_process(key, Reduce::new(combine))
}

/// A running aggregate. Emits key and result after every record.
pub fn aggregate<K, In, A, F>(key: F, aggregate: A) -> Arc<dyn OperatorFactory>
where
    K: Key,
    In: Send + 'static,
    A: Aggregate<In>,
    F: Fn(&In) -> K + Clone + Send + Sync + 'static,
{
    keyed_process(key, RunningAggregate::<In, A>::new(aggregate))
}

/// Combines a record with the value so far, in its place; the first one is the value.
#[inline]
pub(crate) fn reduce_into<T>(value: &mut Option<T>, record: T, combine: impl Fn(T, T) -> T) {
    *value = Some(match value.take() {
        Some(before) => combine(before, record),
        None => record,
    });
}

/// The name of the one state of these operators and of those that merge what was combined, as the plan shows it.
pub(super) const STATE: &str = "value";

/// What [`reduce`] runs; its `declare` gives the states of the plan.
#[derive(Clone)]
pub struct Reduce<T, C> {
    value: ValueState<T>,
    combine: C,
}

impl<T, C> Reduce<T, C> {
    /// With the function that combines two values.
    pub fn new(combine: C) -> Self {
        Self { value: ValueState::default(), combine }
    }
}

impl<T: Record, C> State for Reduce<T, C> {
    fn declare<K: StateKey>(&mut self, declarations: &mut Declarations<K>) {
        self.value.declare(STATE, declarations);
    }
}

impl<K, T, C> KeyedProcess<K, T> for Reduce<T, C>
where
    K: Key,
    T: Record,
    C: Fn(T, T) -> T + Clone + Send + Sync + 'static,
{
    type Out = T;

    const TIMERS: bool = false;

    fn on_record(&mut self, record: T, context: &mut Context<'_, K, T>) -> Result<(), Failure> {
        self.value.update(context, |before| {
            Some(match before {
                Some(before) => (self.combine)(before, record),
                None => record,
            })
        });
        if let Some(value) = self.value.get(context).cloned() {
            context.emit(value);
        }
        Ok(())
    }
}

/// What [`aggregate`] runs; its `declare` gives the states of the plan.
pub struct RunningAggregate<In, A: Aggregate<In>> {
    value: ValueState<A::Accumulator>,
    aggregate: A,
}

impl<In, A: Aggregate<In>> RunningAggregate<In, A> {
    /// With the aggregate to run.
    pub fn new(aggregate: A) -> Self {
        Self { value: ValueState::default(), aggregate }
    }
}

impl<In, A: Aggregate<In>> Clone for RunningAggregate<In, A> {
    fn clone(&self) -> Self {
        Self { value: self.value.clone(), aggregate: self.aggregate.clone() }
    }
}

impl<In, A: Aggregate<In>> State for RunningAggregate<In, A> {
    fn declare<K: StateKey>(&mut self, declarations: &mut Declarations<K>) {
        self.value.declare(STATE, declarations);
    }
}

impl<K, In, A> KeyedProcess<K, In> for RunningAggregate<In, A>
where
    K: Key,
    In: 'static,
    A: Aggregate<In>,
{
    type Out = (K, A::Out);

    const TIMERS: bool = false;

    fn on_record(&mut self, record: In, context: &mut Context<'_, K, Self::Out>) -> Result<(), Failure> {
        let accumulator = self.value.get_or_insert_with(context, || self.aggregate.create());
        self.aggregate.add(accumulator, record);
        let result = self.aggregate.result(accumulator);
        let key = context.take_key();
        context.emit((key, result));
        Ok(())
    }
}
