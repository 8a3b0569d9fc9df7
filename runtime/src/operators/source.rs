//! The head of a chain that begins with a source.
//!
//! Invariant: the position in the snapshot is the one behind the last record that went through the chain.

use std::sync::Arc;

use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;

use crate::batch::Batch;
use crate::event::Barrier;
use crate::exchange::pace::Pace;
use crate::link::{Flushed, Link};
use crate::operator::{OpenContext, Source, SourceStatus};
use crate::program::{AnyLink, Head, OperatorContext, Polled, SourceFactory};
use crate::snapshot::SnapshotBuilder;
use crate::task::counters::Counters;

/// What a source reads at once leaves in this part of the target time of buffer debloating: a barrier that is triggered meanwhile
/// waits behind it.
const POLLS_IN_TARGET: u32 = 8;

/// A factory of subtasks of `prototype`.
pub fn source<S: Source + Clone + Sync + 'static>(prototype: S) -> Arc<dyn SourceFactory> {
    Arc::new(Prototype(prototype))
}

struct Prototype<S>(S);

impl<S: Source + Clone + Sync + 'static> SourceFactory for Prototype<S> {
    fn build(&self, context: &mut OperatorContext, next: AnyLink) -> Result<Box<dyn Head>, Failure> {
        let name = context.open.operator_name.clone();
        let next = next.typed::<S::Out>().map_err(|failure| failure.context(&name))?;
        let mut source = self.0.clone();
        let restored = context.restored_operator_state()?;
        source.open(&context.open, restored).map_err(|failure| failure.context(&name))?;
        let counters = context.counters.clone();
        let target = context.debloat_target.map(|target| target / POLLS_IN_TARGET);
        Ok(Box::new(SourceHead {
            source,
            open: context.open.clone(),
            counters,
            pace: target.map(|target| Pace::new(target, Batch::<S::Out>::FULL_RECORDS)),
            output: Batch::default(),
            next,
        }))
    }
}

struct SourceHead<S: Source> {
    source: S,
    open: OpenContext,
    counters: Counters,
    /// How fast records leave, where that bounds how many are read at once.
    pace: Option<Pace>,
    output: Batch<S::Out>,
    next: Box<dyn Link<S::Out>>,
}

impl<S: Source> SourceHead<S> {
    fn named(&self, failure: Failure) -> Failure {
        failure.context(&self.open.operator_name)
    }
}

impl<S: Source> Head for SourceHead<S> {
    fn poll(&mut self) -> Result<Polled, Failure> {
        let paced = self.pace.as_mut().map(|pace| {
            let now = self.open.clock.monotonic();
            pace.end(now);
            (pace.records(), now)
        });
        let max = paced.map_or(Batch::<S::Out>::FULL_RECORDS, |(records, _)| records);
        let status = self.source.poll(&mut self.output, max).map_err(|failure| self.named(failure))?;
        let records = self.output.len();
        if records > max {
            let message = format!("gave {records} records at once where {max} are allowed; respect `max`");
            return Err(self.named(Failure::user(message)));
        }
        if records > 0 {
            if let (Some(pace), Some((_, now))) = (&mut self.pace, paced) {
                pace.begin(records, now);
            }
            self.counters.add_records_read(records);
            let result = self.next.process(&mut self.output);
            self.output.clear();
            result?;
        }
        Ok(match status {
            SourceStatus::Finished => Polled::EndOfInput,
            SourceStatus::Idle { retry_after } if records == 0 => {
                Polled::Idle { retry_after: Some(retry_after) }
            }
            SourceStatus::Ready | SourceStatus::Idle { .. } => Polled::Progress,
        })
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.next.finish()
    }

    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure> {
        let position = self.source.snapshot().map_err(|failure| self.named(failure))?;
        snapshot.operator(self.open.operator_id).operator_state.push(position);
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
