//! The operator behind `key_by`: a stateful function with the state and the timers of its key groups.
//!
//! `body` is what all keyed operators have in common, whatever their inputs. Invariant: a record is processed with the state of its
//! own key.

pub(super) mod body;

use std::marker::PhantomData;
use std::sync::Arc;

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_state::Declarations;

use self::body::{Body, KeyedFunction};
use super::factory;
use crate::batch::Batch;
use crate::event::{Barrier, WatermarkStatus};
use crate::link::{Flushed, Link};
use crate::operator::{Context, Key, KeyedProcess};
use crate::program::{OperatorContext, OperatorFactory};
use crate::snapshot::SnapshotBuilder;

/// A stateful function on a stream keyed by `key`.
pub fn keyed_process<K, In, P, F>(key: F, process: P) -> Arc<dyn OperatorFactory>
where
    K: Key,
    In: Send + 'static,
    P: KeyedProcess<K, In>,
    F: Fn(&In) -> K + Clone + Send + Sync + 'static,
{
    factory::operator(move |context, next| {
        Ok(Box::new(Keyed::open(key.clone(), process.clone(), context, next)?))
    })
}

struct Keyed<K: Key, In, F, P: KeyedProcess<K, In>> {
    key: F,
    function: Function<P, In>,
    body: Body<K, P::Out>,
}

/// What the body calls of a process function.
struct Function<P, In> {
    process: P,
    records: PhantomData<fn() -> In>,
}

impl<K: Key, In, P: KeyedProcess<K, In>> KeyedFunction<K, P::Out> for Function<P, In> {
    fn on_timer(&mut self, at: Timestamp, context: &mut Context<'_, K, P::Out>) -> Result<(), Failure> {
        self.process.on_timer(at, context)
    }

    fn on_end(&mut self, context: &mut Context<'_, K, P::Out>) -> Result<(), Failure> {
        self.process.on_end(context)
    }
}

impl<K: Key, In, F, P: KeyedProcess<K, In>> Keyed<K, In, F, P> {
    fn open(
        key: F,
        mut process: P,
        context: &mut OperatorContext,
        next: Box<dyn Link<P::Out>>,
    ) -> Result<Self, Failure> {
        let declare = |declarations: &mut Declarations<K>| {
            process.declare(declarations);
            if P::TIMERS {
                declarations.add_timers();
            }
        };
        let body = Body::open(context, declare, next)?;
        process.open(&context.open).map_err(|failure| failure.context(&context.open.operator_name))?;
        Ok(Self { key, function: Function { process, records: PhantomData }, body })
    }
}

impl<K, In, F, P> Link<In> for Keyed<K, In, F, P>
where
    K: Key,
    F: Fn(&In) -> K + Send,
    P: KeyedProcess<K, In>,
{
    fn process(&mut self, batch: &mut Batch<In>) -> Result<(), Failure> {
        let Self { key, function, body } = self;
        body.let_pass(function)?;
        body.process(batch, &*key, |record, context| function.process.on_record(record, context))
    }

    fn watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure> {
        self.body.watermark(timestamp, &mut self.function)
    }

    fn watermark_status(&mut self, status: WatermarkStatus) -> Result<(), Failure> {
        self.body.watermark_status(status, &mut self.function)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.body.finish(&mut self.function)
    }

    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure> {
        self.body.snapshot(barrier, snapshot)
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.body.completed(checkpoint)
    }

    fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.body.aborted(checkpoint)
    }

    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure> {
        self.body.flush(partial, &mut self.function)
    }
}
