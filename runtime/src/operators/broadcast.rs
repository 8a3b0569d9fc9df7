//! The operator of a keyed stream and one that is broadcast: a keyed operator, and beside its keys a state that all subtasks have alike.

use std::marker::PhantomData;
use std::sync::Arc;

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_state::Declarations;

use super::factory;
use super::keyed::body::{Body, KeyedFunction};
use super::process::{restore_state, snapshot_state};
use crate::batch::Batch;
use crate::broadcast::{Broadcasting, KeyedBroadcastProcess};
use crate::co_process::Either;
use crate::event::{Barrier, WatermarkStatus};
use crate::link::{Flushed, Link};
use crate::operator::{Context, Key, OpenContext};
use crate::program::{OperatorContext, OperatorFactory};
use crate::snapshot::SnapshotBuilder;

/// A stateful function on a stream keyed by `key` and on one that is broadcast.
pub fn keyed_broadcast<K, A, B, P, F>(key: F, process: P) -> Arc<dyn OperatorFactory>
where
    K: Key,
    A: Send + 'static,
    B: Send + 'static,
    P: KeyedBroadcastProcess<K, A, B>,
    F: Fn(&A) -> K + Clone + Send + Sync + 'static,
{
    factory::operator(move |context, next| {
        Ok(Box::new(KeyedBroadcast::open(key.clone(), process.clone(), context, next)?))
    })
}

struct KeyedBroadcast<K: Key, A, B, F, P: KeyedBroadcastProcess<K, A, B>> {
    key: F,
    function: Function<K, A, B, P>,
    /// Records of the keyed stream that lie together.
    keyed: Batch<A>,
    open: OpenContext,
    body: Body<K, P::Out>,
}

/// What the body calls of the function.
struct Function<K: Key, A, B, P: KeyedBroadcastProcess<K, A, B>> {
    broadcasting: Broadcasting<P, P::Key, P::Value>,
    key: PhantomData<fn() -> K>,
    records: PhantomData<fn(A, B)>,
}

impl<K: Key, A, B, P: KeyedBroadcastProcess<K, A, B>> KeyedFunction<K, P::Out> for Function<K, A, B, P> {
    fn on_timer(&mut self, at: Timestamp, context: &mut Context<'_, K, P::Out>) -> Result<(), Failure> {
        let Broadcasting { process, state } = &mut self.broadcasting;
        process.on_timer(at, state, context)
    }

    fn on_end(&mut self, context: &mut Context<'_, K, P::Out>) -> Result<(), Failure> {
        let Broadcasting { process, state } = &mut self.broadcasting;
        process.on_end(state, context)
    }
}

impl<K: Key, A, B, F: Fn(&A) -> K, P: KeyedBroadcastProcess<K, A, B>> KeyedBroadcast<K, A, B, F, P> {
    fn open(
        key: F,
        process: P,
        context: &mut OperatorContext,
        next: Box<dyn Link<P::Out>>,
    ) -> Result<Self, Failure> {
        let mut broadcasting = Broadcasting::new(process);
        let declare = |declarations: &mut Declarations<K>| {
            broadcasting.process.declare(declarations);
            if P::TIMERS {
                declarations.add_timers();
            }
        };
        let body = Body::open(context, declare, next)?;
        restore_state(context, |states| broadcasting.broadcast_state(states))?;
        let opened = broadcasting.process.open(&context.open);
        opened.map_err(|failure| failure.context(&context.open.operator_name))?;
        let function = Function { broadcasting, key: PhantomData, records: PhantomData };
        Ok(Self { key, function, keyed: Batch::default(), open: context.open.clone(), body })
    }

    /// Processes the keyed records that were put together.
    fn process_keyed(&mut self) -> Result<(), Failure> {
        let Broadcasting { process, state } = &mut self.function.broadcasting;
        self.body
            .process(&mut self.keyed, &self.key, |record, context| process.on_record(record, state, context))
    }
}

impl<K, A, B, F, P> Link<Either<A, B>> for KeyedBroadcast<K, A, B, F, P>
where
    K: Key,
    A: Send,
    B: Send,
    F: Fn(&A) -> K + Send,
    P: KeyedBroadcastProcess<K, A, B>,
{
    fn process(&mut self, batch: &mut Batch<Either<A, B>>) -> Result<(), Failure> {
        self.body.let_pass(&mut self.function)?;
        let (records, mut timestamps) = batch.drain_parts();
        for record in records {
            let timestamp = timestamps.next();
            match record {
                Either::First(record) => self.keyed.push_with_timestamp(record, timestamp),
                Either::Second(record) => {
                    self.process_keyed()?;
                    let Broadcasting { process, state } = &mut self.function.broadcasting;
                    self.body.beside(timestamp, |context| process.on_broadcast(record, state, context))?;
                }
            }
        }
        self.process_keyed()
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
        let broadcasting = &mut self.function.broadcasting;
        snapshot_state(&self.open, snapshot, |states| broadcasting.broadcast_state(states));
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
