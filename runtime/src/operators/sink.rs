//! The link at the end of a chain: writes to a sink and runs its transactions.
//!
//! Invariant: a transaction is prepared at the barrier, and committed only after the checkpoint is durable.

use std::sync::Arc;

use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;

use super::factory;
use crate::batch::Batch;
use crate::event::Barrier;
use crate::link::{Flushed, Link};
use crate::operator::{OpenContext, Sink};
use crate::program::OperatorFactory;
use crate::snapshot::SnapshotBuilder;

/// A factory of subtasks of `prototype`.
pub fn sink<T, S>(prototype: S) -> Arc<dyn OperatorFactory>
where
    T: Send + 'static,
    S: Sink<T> + Clone + Sync + 'static,
{
    factory::end::<T>(move |context| {
        let mut sink = prototype.clone();
        let restored = context.restored_operator_state()?;
        sink.open(&context.open, restored).map_err(|failure| failure.context(&context.open.operator_name))?;
        Ok(Box::new(SinkLink { sink, open: context.open.clone() }))
    })
}

struct SinkLink<S> {
    sink: S,
    open: OpenContext,
}

impl<S> SinkLink<S> {
    fn named<R>(&self, result: Result<R, Failure>) -> Result<R, Failure> {
        result.map_err(|failure| failure.context(&self.open.operator_name))
    }
}

impl<T, S: Sink<T>> Link<T> for SinkLink<S> {
    fn process(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        let written = self.sink.write(batch);
        self.named(written)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let flushed = self.sink.flush();
        self.named(flushed)
    }

    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure> {
        let prepared = self.sink.prepare(barrier.id);
        let transactions = self.named(prepared)?;
        snapshot.operator(self.open.operator_id).operator_state.push(transactions);
        Ok(())
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        let committed = self.sink.commit(checkpoint);
        self.named(committed)
    }

    fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        let aborted = self.sink.abort(checkpoint);
        self.named(aborted)
    }

    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure> {
        if partial {
            let flushed = self.sink.flush();
            self.named(flushed)?;
        }
        Ok(Flushed::All)
    }
}
