//! The operator without keys whose function decides by itself what it emits, and to which outputs.

use std::sync::Arc;

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;

use super::factory;
use crate::batch::Batch;
use crate::event::{Barrier, WatermarkStatus};
use crate::link::{Flushed, Link};
use crate::operator::OpenContext;
use crate::operator_state::OperatorStates;
use crate::parts::Parts;
use crate::process::{Process, ProcessContext};
use crate::program::{OperatorContext, OperatorFactory};
use crate::side_output::Outputs;
use crate::snapshot::SnapshotBuilder;
use crate::time::NO_WATERMARK;

/// A function on the records of a stream that is not keyed.
pub fn process<In, P>(process: P) -> Arc<dyn OperatorFactory>
where
    In: Send + 'static,
    P: Process<In>,
{
    factory::operator(move |context, next| {
        let mut process = process.clone();
        restore_state(context, |states| process.operator_state(states))?;
        process.open(&context.open).map_err(|failure| failure.context(&context.open.operator_name))?;
        let outputs = Outputs::new(next, std::mem::take(&mut context.side_outputs));
        Ok(Box::new(Processing { process, outputs, watermark: NO_WATERMARK, open: context.open.clone() }))
    })
}

/// Fills what a function remembers beside its keys, if anything is restored.
pub(super) fn restore_state(
    context: &OperatorContext,
    visit: impl FnOnce(&mut OperatorStates<'_>),
) -> Result<(), Failure> {
    let parts = context.restored_parts_if_any()?;
    let mut result = Ok(());
    visit(&mut OperatorStates::filling(&parts, &mut result));
    result.map_err(|failure: Failure| failure.context(&context.open.operator_name))
}

/// Adds what a function remembers beside its keys, if it remembers anything.
pub(super) fn snapshot_state(
    open: &OpenContext,
    snapshot: &mut SnapshotBuilder,
    visit: impl FnOnce(&mut OperatorStates<'_>),
) {
    let mut list = Vec::new();
    visit(&mut OperatorStates::writing(&mut list));
    if !list.is_empty() {
        let (subtask, parallelism) = (open.subtask_index, open.parallelism);
        snapshot.operator(open.operator_id).parts = Some(Parts { subtask, parallelism, list });
    }
}

struct Processing<P, Out> {
    process: P,
    outputs: Outputs<Out>,
    /// The last one.
    watermark: Timestamp,
    open: OpenContext,
}

impl<In: Send, P: Process<In>> Link<In> for Processing<P, P::Out> {
    fn process(&mut self, batch: &mut Batch<In>) -> Result<(), Failure> {
        let (records, mut timestamps) = batch.drain_parts();
        for record in records {
            let mut context =
                ProcessContext::new(timestamps.next(), self.watermark, &mut self.outputs, &self.open);
            let result = self.process.on_record(record, &mut context);
            result.map_err(|failure| failure.context(&self.open.operator_name))?;
            if self.outputs.is_full() {
                self.outputs.hand_on()?;
            }
        }
        self.outputs.hand_on()
    }

    fn watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure> {
        self.watermark = timestamp;
        self.outputs.watermark(timestamp)
    }

    fn watermark_status(&mut self, status: WatermarkStatus) -> Result<(), Failure> {
        self.outputs.watermark_status(status)
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.outputs.finish()
    }

    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure> {
        snapshot_state(&self.open, snapshot, |states| self.process.operator_state(states));
        self.outputs.snapshot(barrier, snapshot)
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.outputs.completed(checkpoint)
    }

    fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.outputs.aborted(checkpoint)
    }

    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure> {
        self.outputs.flush(partial)
    }
}
