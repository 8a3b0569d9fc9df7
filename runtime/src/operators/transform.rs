//! Operators without state: map, filter, flat map, and the same with functions that may fail. What comes of a record has its
//! timestamp.

use std::marker::PhantomData;
use std::sync::Arc;

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_common::task_scope::BoxError;

use super::factory;
use crate::batch::{Batch, NO_TIMESTAMP};
use crate::event::{Barrier, WatermarkStatus};
use crate::link::{Flushed, Link};
use crate::operator::user_failure;
use crate::program::OperatorFactory;
use crate::side_output::hand_on;
use crate::snapshot::SnapshotBuilder;

/// One record for each record.
pub fn map<In, Out, F>(function: F) -> Arc<dyn OperatorFactory>
where
    In: Send + 'static,
    Out: Send + 'static,
    F: FnMut(In) -> Out + Clone + Send + Sync + 'static,
{
    factory::operator(move |_, next| Ok(mapped(function.clone(), next)))
}

/// The link that hands what `function` makes of each record to `next`.
pub(crate) fn mapped<In, Out>(
    function: impl FnMut(In) -> Out + Send + 'static,
    next: Box<dyn Link<Out>>,
) -> Box<dyn Link<In>>
where
    In: 'static,
    Out: Send + 'static,
{
    Box::new(Chained { transform: Map { function, output: Batch::default() }, next })
}

/// One record for each record, or a failure.
pub fn try_map<In, Out, E, F>(function: F) -> Arc<dyn OperatorFactory>
where
    In: Send + 'static,
    Out: Send + 'static,
    E: Into<BoxError> + 'static,
    F: FnMut(In) -> Result<Out, E> + Clone + Send + Sync + 'static,
{
    factory::operator(move |context, next| {
        let name = context.open.operator_name.clone();
        let transform =
            TryMap { function: function.clone(), output: Batch::default(), name, error: PhantomData };
        Ok(Box::new(Chained { transform, next }))
    })
}

/// Only the records for which `keep` holds.
pub fn filter<T, F>(keep: F) -> Arc<dyn OperatorFactory>
where
    T: Send + 'static,
    F: FnMut(&T) -> bool + Clone + Send + Sync + 'static,
{
    factory::operator(move |_, next| Ok(Box::new(Chained { transform: Filter { keep: keep.clone() }, next })))
}

/// Only the records for which `keep` holds, or a failure.
pub fn try_filter<T, E, F>(keep: F) -> Arc<dyn OperatorFactory>
where
    T: Send + 'static,
    E: Into<BoxError> + 'static,
    F: FnMut(&T) -> Result<bool, E> + Clone + Send + Sync + 'static,
{
    factory::operator(move |context, next| {
        let transform =
            TryFilter { keep: keep.clone(), name: context.open.operator_name.clone(), error: PhantomData };
        Ok(Box::new(Chained { transform, next }))
    })
}

/// Any number of records for each record.
pub fn flat_map<In, Out, I, F>(mut function: F) -> Arc<dyn OperatorFactory>
where
    In: Send + 'static,
    Out: Send + 'static,
    I: IntoIterator<Item = Out> + 'static,
    F: FnMut(In) -> I + Clone + Send + Sync + 'static,
{
    try_flat_map(move |record| Ok::<I, BoxError>(function(record)))
}

/// Any number of records for each record, or a failure.
pub fn try_flat_map<In, Out, I, E, F>(function: F) -> Arc<dyn OperatorFactory>
where
    In: Send + 'static,
    Out: Send + 'static,
    I: IntoIterator<Item = Out> + 'static,
    E: Into<BoxError> + 'static,
    F: FnMut(In) -> Result<I, E> + Clone + Send + Sync + 'static,
{
    factory::operator(move |context, next| {
        let name = context.open.operator_name.clone();
        let transform =
            FlatMap { function: function.clone(), output: Batch::default(), name, result: PhantomData };
        Ok(Box::new(Chained { transform, next }))
    })
}

/// The part of a stateless operator that differs from one to another.
trait Transform<In>: Send {
    type Out;

    /// Drains `batch` and hands what comes of it to `next`.
    fn transform(&mut self, batch: &mut Batch<In>, next: &mut dyn Link<Self::Out>) -> Result<(), Failure>;
}

/// A stateless operator with what follows it. Everything but records goes straight through.
struct Chained<T, Out> {
    transform: T,
    next: Box<dyn Link<Out>>,
}

impl<In, T: Transform<In>> Link<In> for Chained<T, T::Out> {
    fn process(&mut self, batch: &mut Batch<In>) -> Result<(), Failure> {
        self.transform.transform(batch, self.next.as_mut())
    }

    fn watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure> {
        self.next.watermark(timestamp)
    }

    fn watermark_status(&mut self, status: WatermarkStatus) -> Result<(), Failure> {
        self.next.watermark_status(status)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.next.finish()
    }

    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure> {
        self.next.snapshot(barrier, snapshot)
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.next.completed(checkpoint)
    }

    fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.next.aborted(checkpoint)
    }

    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure> {
        self.next.flush(partial)
    }
}

struct Map<F, Out> {
    function: F,
    output: Batch<Out>,
}

impl<In, Out: Send, F: FnMut(In) -> Out + Send> Transform<In> for Map<F, Out> {
    type Out = Out;

    fn transform(&mut self, batch: &mut Batch<In>, next: &mut dyn Link<Out>) -> Result<(), Failure> {
        batch.map_into(&mut self.output, &mut self.function);
        hand_on(&mut self.output, next)
    }
}

struct TryMap<F, Out, E> {
    function: F,
    output: Batch<Out>,
    name: String,
    error: PhantomData<fn() -> E>,
}

impl<In, Out, E, F> Transform<In> for TryMap<F, Out, E>
where
    Out: Send,
    E: Into<BoxError>,
    F: FnMut(In) -> Result<Out, E> + Send,
{
    type Out = Out;

    fn transform(&mut self, batch: &mut Batch<In>, next: &mut dyn Link<Out>) -> Result<(), Failure> {
        batch.try_map_into(&mut self.output, |record| {
            (self.function)(record).map_err(|error| user_failure(error).context(&self.name))
        })?;
        hand_on(&mut self.output, next)
    }
}

struct Filter<F> {
    keep: F,
}

impl<T, F: FnMut(&T) -> bool + Send> Transform<T> for Filter<F> {
    type Out = T;

    fn transform(&mut self, batch: &mut Batch<T>, next: &mut dyn Link<T>) -> Result<(), Failure> {
        batch.retain(&mut self.keep);
        hand_on(batch, next)
    }
}

struct TryFilter<F, E> {
    keep: F,
    name: String,
    error: PhantomData<fn() -> E>,
}

impl<T, E: Into<BoxError>, F: FnMut(&T) -> Result<bool, E> + Send> Transform<T> for TryFilter<F, E> {
    type Out = T;

    fn transform(&mut self, batch: &mut Batch<T>, next: &mut dyn Link<T>) -> Result<(), Failure> {
        let mut failed = None;
        batch.retain(|record| match (self.keep)(record) {
            Ok(keep) => keep && failed.is_none(),
            Err(error) => {
                failed.get_or_insert(error);
                false
            }
        });
        match failed {
            Some(error) => Err(user_failure(error).context(&self.name)),
            None => hand_on(batch, next),
        }
    }
}

struct FlatMap<F, Out, R> {
    function: F,
    output: Batch<Out>,
    name: String,
    result: PhantomData<fn() -> R>,
}

impl<In, Out, I, E, F> Transform<In> for FlatMap<F, Out, Result<I, E>>
where
    Out: Send,
    I: IntoIterator<Item = Out>,
    E: Into<BoxError>,
    F: FnMut(In) -> Result<I, E> + Send,
{
    type Out = Out;

    fn transform(&mut self, batch: &mut Batch<In>, next: &mut dyn Link<Out>) -> Result<(), Failure> {
        if batch.has_timestamps() {
            self.each::<true, In, I, E>(batch, next)
        } else {
            self.each::<false, In, I, E>(batch, next)
        }
    }
}

impl<F, Out, R> FlatMap<F, Out, R> {
    /// The loop over the records: a few percent faster where nothing has to be done for timestamps.
    fn each<const TIMED: bool, In, I, E>(
        &mut self,
        batch: &mut Batch<In>,
        next: &mut dyn Link<Out>,
    ) -> Result<(), Failure>
    where
        I: IntoIterator<Item = Out>,
        E: Into<BoxError>,
        F: FnMut(In) -> Result<I, E>,
    {
        let (records, mut timestamps) = batch.drain_parts();
        for record in records {
            let timestamp = if TIMED { timestamps.next() } else { NO_TIMESTAMP };
            let produced =
                (self.function)(record).map_err(|error| user_failure(error).context(&self.name))?;
            for out in produced {
                if TIMED {
                    self.output.push_with_timestamp(out, timestamp);
                } else {
                    self.output.push_plain(out);
                }
                // One record may become very many: they leave in batches of the usual size.
                if self.output.len() >= Batch::<Out>::FULL_RECORDS {
                    hand_on(&mut self.output, next)?;
                }
            }
        }
        hand_on(&mut self.output, next)
    }
}
