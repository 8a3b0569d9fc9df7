//! The link at the end of a chain: writes to a sink and runs its transactions.
//!
//! Invariants: a transaction is prepared at the barrier, and committed only after the checkpoint is durable; a commit that is to be
//! repeated is waited for between the task's turns, so that control mail is read meanwhile; a task does not end while its sink has
//! requests under way.

use std::sync::Arc;
use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;
use thalweg_common::record::Record;

use super::committer::{Committer, Next, Transactions};
use super::factory;
use crate::batch::Batch;
use crate::event::{Barrier, WatermarkStatus};
use crate::link::{Flushed, Link};
use crate::operator::{OpenContext, Sink, UnderWay};
use crate::parts::{Part, Parts};
use crate::program::{OperatorContext, OperatorFactory};
use crate::snapshot::SnapshotBuilder;
use crate::stores::Draining;
use crate::task::counters::Counters;

/// How often a sink is looked at that has something under way behind the last barrier.
const LAST_LOOKS: Duration = Duration::from_millis(5);

/// A factory of subtasks of `prototype`.
pub fn sink<T, S>(prototype: S) -> Arc<dyn OperatorFactory>
where
    T: Send + 'static,
    S: Sink<T> + Clone + Sync + 'static,
{
    factory::end::<T>(move |context| {
        let name = context.open.operator_name.clone();
        let link = SinkLink::<S, S::Committable>::open::<T>(prototype.clone(), context);
        Ok(Box::new(link.map_err(|failure| failure.context(name))?))
    })
}

struct SinkLink<S, C> {
    sink: S,
    committer: Committer<C>,
    /// Where it says when it wants another turn.
    alarm: Draining,
    /// The barrier behind which nothing is written: what belongs to it is committed when nothing is under way any more.
    last_barrier: Option<CheckpointId>,
    /// Whether it is durable.
    is_ending: bool,
    open: OpenContext,
    counters: Counters,
}

impl<S, C: Record> SinkLink<S, C> {
    fn open<T>(mut sink: S, context: &OperatorContext) -> Result<Self, Failure>
    where
        S: Sink<T, Committable = C>,
    {
        let restored = context.restored_parts_if_any()?;
        let restored: Result<Vec<_>, Failure> = restored.into_iter().map(transactions).collect();
        let restored = restored?;
        let prepared: Vec<C> =
            restored.iter().flat_map(|transactions| transactions.committables.iter().cloned()).collect();
        sink.open(&context.open)?;
        sink.recover(&prepared)?;
        let (committer, alarm) = (Committer::new(restored), context.stores.draining());
        let (open, counters) = (context.open.clone(), context.counters.clone());
        let mut link = Self { sink, committer, alarm, last_barrier: None, is_ending: false, open, counters };
        link.commit_due()?;
        Ok(link)
    }

    /// Lets the sink go on with what it writes beside the task.
    fn advance<T>(&mut self) -> Result<UnderWay, Failure>
    where
        S: Sink<T, Committable = C>,
    {
        let under_way = self.sink.advance()?;
        // Behind the last barrier a task ends when it wants no turn any more: only what is under way may keep it.
        let is_over = self.last_barrier.is_some() && under_way.records == 0;
        if let Some(time) = under_way.again_at.filter(|_| !is_over) {
            self.alarm.flush_at(time);
        }
        Ok(under_way)
    }

    /// Commits what is due; behind the last barrier only when nothing is under way any more.
    fn go_on<T>(&mut self) -> Result<Flushed, Failure>
    where
        S: Sink<T, Committable = C>,
    {
        let under_way = self.advance()?;
        if self.is_ending && under_way.records > 0 {
            // The task has no turns any more but those that it wants.
            self.alarm.hold_until(self.open.clock.monotonic() + LAST_LOOKS);
            return Ok(Flushed::All);
        }
        self.commit_due()?;
        Ok(if under_way.is_full { Flushed::Blocked } else { Flushed::All })
    }

    /// Commits what is due, or says when to try again.
    fn commit_due<T>(&mut self) -> Result<(), Failure>
    where
        S: Sink<T, Committable = C>,
    {
        loop {
            let now = self.open.clock.monotonic();
            match self.committer.next(now) {
                Next::Nothing => return Ok(()),
                Next::At(time) => {
                    self.alarm.hold_until(time);
                    return Ok(());
                }
                Next::Commit(committables) => match self.sink.commit(committables) {
                    Ok(()) => self.committer.committed(),
                    Err(failure) => {
                        let text = failure.message.clone();
                        self.committer.failed(failure, self.open.clock.monotonic())?;
                        tracing::warn!(
                            operator = %self.open.operator_name,
                            subtask = self.open.subtask_index,
                            "A commit failed and will be repeated: {text}"
                        );
                    }
                },
            }
        }
    }

    fn parts(&self) -> Parts {
        let part = |prepared: &Transactions<C>| Part::Transactions {
            writer: prepared.writer,
            checkpoint: prepared.checkpoint,
            committables: prepared.committables.iter().map(encoded).collect(),
        };
        let list = self.committer.prepared().map(part).collect();
        Parts { subtask: self.open.subtask_index, parallelism: self.open.parallelism, list }
    }

    fn named<R>(&self, result: Result<R, Failure>) -> Result<R, Failure> {
        result.map_err(|failure| failure.context(&self.open.operator_name))
    }
}

impl<T, S: Sink<T>> Link<T> for SinkLink<S, S::Committable> {
    fn process(&mut self, batch: &mut Batch<T>) -> Result<(), Failure> {
        let written = self.sink.write(batch);
        self.named(written)
    }

    fn watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure> {
        self.counters.set_output_watermark(timestamp);
        let written = self.sink.write_watermark(timestamp);
        self.named(written)
    }

    fn watermark_status(&mut self, _status: WatermarkStatus) -> Result<(), Failure> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), Failure> {
        let finished = self.sink.finish();
        self.named(finished)
    }

    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure> {
        let prepared = self.sink.prepare(barrier.id);
        let prepared = self.named(prepared)?;
        self.committer.add(self.open.subtask_index, barrier.id, prepared);
        self.last_barrier = barrier.is_final.then_some(barrier.id);
        snapshot.operator(self.open.operator_id).parts = Some(self.parts());
        Ok(())
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.committer.complete(checkpoint);
        self.is_ending |= self.last_barrier == Some(checkpoint);
        let committed = self.go_on();
        self.named(committed).map(drop)
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
        let flushed = self.go_on();
        self.named(flushed)
    }
}

fn encoded<C: Record>(committable: &C) -> Vec<u8> {
    let mut bytes = Vec::new();
    committable.encode(&mut bytes);
    bytes
}

/// What a restored checkpoint had prepared.
fn transactions<C: Record>(part: Part) -> Result<Transactions<C>, Failure> {
    let (writer, checkpoint, committables) = match part {
        Part::Transactions { writer, checkpoint, committables } => (writer, checkpoint, committables),
        Part::Whole(committable) => (0, 0, vec![committable]),
        Part::Began
        | Part::Split { .. }
        | Part::Pinned { .. }
        | Part::Finished { .. }
        | Part::List { .. }
        | Part::Broadcast { .. } => {
            return Err(Failure::internal("the state of a source is to be restored in a sink"));
        }
    };
    let decode = |bytes: Vec<u8>| {
        let mut rest = bytes.as_slice();
        match C::decode(&mut rest) {
            Ok(committable) if rest.is_empty() => Ok(committable),
            _ => Err(Failure::user(
                "a transaction in the restored state cannot be read: it was written by another version of the sink; run that version, or \
             give the operator another uid, so that it begins anew",
            )
            .permanent()),
        }
    };
    let committables: Result<Vec<C>, Failure> = committables.into_iter().map(decode).collect();
    Ok(Transactions { writer, checkpoint, committables: committables?, is_due: true })
}
