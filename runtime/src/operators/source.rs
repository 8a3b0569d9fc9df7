//! The head of a chain that begins with a source, with or without splits.
//!
//! Invariant: the position in the snapshot is the one behind the last record that went through the chain.

use std::collections::BTreeSet;
use std::sync::Arc;

use thalweg_common::failure::Failure;
use thalweg_common::graph::StateKind;
use thalweg_common::id::CheckpointId;
use thalweg_common::record::Record;

use super::assigned::{EnumeratorCode, ReaderFactory};
use super::splits::SplitReading;
use crate::batch::Batch;
use crate::event::Barrier;
use crate::exchange::pace::Pace;
use crate::link::Flushed;
use crate::operator::{OpenContext, Source, SourceStatus};
use crate::program::{AnyLink, Head, OperatorContext, Polled, SourceFactory};
use crate::side_output::{Aside, Outputs};
use crate::snapshot::{OperatorSnapshot, SnapshotBuilder};
use crate::split::{EnumeratedSource, SplitSource};
use crate::task::counters::Counters;
use crate::time::alignment::Alignment;
use crate::time::splits::SharedSplits;
use crate::time::{MAX_WATERMARK, SplitReport};

/// What a source reads at once leaves in this part of the target time of buffer debloating: a barrier that is triggered meanwhile
/// waits behind it.
const POLLS_IN_TARGET: u32 = 8;

/// A factory of subtasks of `prototype`, a source with or without splits. If it has an enumerator too, that is its
/// [`enumerator`](AnySource::enumerator).
pub fn source<S: AnySource<Kind>, Kind>(prototype: S) -> Arc<dyn SourceFactory> {
    prototype.factory()
}

/// Has one position in each subtask, and keeps its parallelism: a [`Source`].
#[derive(Debug)]
pub enum Whole {}

/// Has an input that any number of subtasks can share: a [`SplitSource`].
#[derive(Debug)]
pub enum InSplits {}

/// Has an input whose splits an enumerator finds while the job runs: an [`EnumeratedSource`].
#[derive(Debug)]
pub enum Enumerated {}

/// Whatever implements [`EnumeratedSource`], [`SplitSource`] or [`Source`], but only one of them.
///
/// `Kind` tells which of them. The compiler finds it, nobody has to write it.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no source",
    note = "implement `EnumeratedSource` or `SplitSource`, or `Source` (and `Clone` and `Sync`) if its input has no parts; only one of them"
)]
pub trait AnySource<Kind> {
    /// What it reads.
    type Out: Record;

    /// What it remembers.
    #[doc(hidden)]
    const STATE: StateKind;

    #[doc(hidden)]
    fn factory(self) -> Arc<dyn SourceFactory>;

    /// What finds its splits while the job runs, if anything does: an operator in front of its subtasks.
    #[doc(hidden)]
    fn enumerator(&self) -> Option<EnumeratorCode> {
        None
    }
}

impl<S: Source + Clone + Sync + 'static> AnySource<Whole> for S {
    type Out = S::Out;

    const STATE: StateKind = StateKind::Source;

    fn factory(self) -> Arc<dyn SourceFactory> {
        Arc::new(WholeFactory(self))
    }
}

impl<S: SplitSource> AnySource<InSplits> for S {
    type Out = S::Out;

    const STATE: StateKind = StateKind::Splits;

    fn factory(self) -> Arc<dyn SourceFactory> {
        Arc::new(SplitFactory(self))
    }
}

impl<S: EnumeratedSource> AnySource<Enumerated> for S {
    type Out = S::Out;

    const STATE: StateKind = StateKind::Splits;

    fn factory(self) -> Arc<dyn SourceFactory> {
        Arc::new(ReaderFactory(self))
    }

    fn enumerator(&self) -> Option<EnumeratorCode> {
        Some(EnumeratorCode::of(self.clone()))
    }
}

struct WholeFactory<S>(S);

impl<S: Source + Clone + Sync + 'static> SourceFactory for WholeFactory<S> {
    fn build(&self, context: &mut OperatorContext, next: AnyLink) -> Result<Box<dyn Head>, Failure> {
        head(context, next, |context| {
            let mut source = self.0.clone();
            source.open(&context.open, context.restored_operator_state()?)?;
            Ok(source)
        })
    }
}

struct SplitFactory<S>(S);

impl<S: SplitSource> SourceFactory for SplitFactory<S> {
    fn build(&self, context: &mut OperatorContext, next: AnyLink) -> Result<Box<dyn Head>, Failure> {
        head(context, next, |context| SplitReading::open(&self.0, context))
    }
}

/// Reads one subtask's share of a source.
pub(super) trait Reading: Send + 'static {
    type Out: Record;

    fn poll(&mut self, out: &mut Batch<Self::Out>, max: usize) -> Result<SourceStatus, Failure>;

    /// Tells of which splits the last poll was.
    fn tell_splits(&mut self, report: &mut SplitReport) {
        let _ = report;
    }

    /// Whether single splits can wait.
    const PAUSES_SPLITS: bool = false;

    /// These splits wait from now on, and no others.
    fn pause_splits(&mut self, paused: &BTreeSet<String>) {
        let _ = paused;
    }

    /// Emits what the last poll has for side outputs.
    fn emit_aside(&mut self, aside: &mut Aside<'_>) {
        let _ = aside;
    }

    /// Adds the position to the snapshot of its operator.
    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot) -> Result<(), Failure>;

    /// What comes before reading, if there is an input of its own.
    fn attend(&mut self) -> Result<Option<Polled>, Failure> {
        Ok(None)
    }

    /// As [`Head::look`].
    fn look(&mut self) -> Result<Polled, Failure> {
        Ok(Polled::Idle { retry_after: None })
    }

    /// The barrier has passed the whole chain.
    fn passed(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) {
        let _ = (barrier, snapshot);
    }

    /// The checkpoint will never complete.
    fn aborted(&mut self, checkpoint: CheckpointId) {
        let _ = checkpoint;
    }

    /// The end of the input was told: nothing is read any more.
    fn over(&mut self) {}

    /// The job has come to its end, and that is durable.
    fn close(&mut self) {}
}

impl<S: Source + 'static> Reading for S {
    type Out = S::Out;

    fn poll(&mut self, out: &mut Batch<S::Out>, max: usize) -> Result<SourceStatus, Failure> {
        Source::poll(self, out, max)
    }

    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot) -> Result<(), Failure> {
        snapshot.operator_state.push(Source::snapshot(self)?);
        Ok(())
    }
}

/// Opens the head of a chain.
pub(super) fn head<R: Reading>(
    context: &mut OperatorContext,
    next: AnyLink,
    open: impl FnOnce(&mut OperatorContext) -> Result<R, Failure>,
) -> Result<Box<dyn Head>, Failure> {
    let name = context.open.operator_name.clone();
    let next = next.typed::<R::Out>().map_err(|failure| failure.context(&name))?;
    let reading = open(context).map_err(|failure| failure.context(&name))?;
    let outputs = Outputs::new(next, std::mem::take(&mut context.side_outputs));
    let target = context.debloat_target.map(|target| target / POLLS_IN_TARGET);
    Ok(Box::new(SourceHead {
        reading,
        open: context.open.clone(),
        counters: context.counters.clone(),
        pace: target.map(|target| Pace::new(target, Batch::<R::Out>::FULL_RECORDS)),
        splits: context.splits.clone().filter(|splits| splits.is_wanted() && splits.lock().is_told()),
        alignment: context.splits.as_ref().and_then(SharedSplits::alignment),
        paused: BTreeSet::new(),
        last: None,
        outputs,
    }))
}

struct SourceHead<R: Reading> {
    reading: R,
    open: OpenContext,
    counters: Counters,
    /// How fast records leave, where that bounds how many are read at once.
    pace: Option<Pace>,
    /// Where it tells of its splits.
    splits: Option<SharedSplits>,
    /// What it waits for, if it is aligned with other sources.
    alignment: Option<Alignment>,
    /// The splits that wait.
    paused: BTreeSet<String>,
    /// The checkpoint with which the job ends, while it is undecided.
    last: Option<CheckpointId>,
    outputs: Outputs<R::Out>,
}

impl<R: Reading> SourceHead<R> {
    fn named(&self, failure: Failure) -> Failure {
        failure.context(&self.open.operator_name)
    }

    /// Lets the splits wait that are ahead of other sources. Says whether all of it has to.
    fn waits_for_others(&mut self) -> bool {
        let Some(alignment) = &self.alignment else { return false };
        if R::PAUSES_SPLITS
            && let Some(splits) = &self.splits
        {
            let ahead = splits.lock().ahead(alignment.limit());
            if ahead != self.paused {
                self.reading.pause_splits(&ahead);
                self.paused = ahead;
            }
        }
        alignment.is_ahead()
    }
}

impl<R: Reading> Head for SourceHead<R> {
    fn poll(&mut self) -> Result<Polled, Failure> {
        if let Some(polled) = self.reading.attend().map_err(|failure| self.named(failure))? {
            return Ok(polled);
        }
        if self.waits_for_others() {
            // Who brings news of them wakes the task.
            return self.look();
        }
        let paced = self.pace.as_mut().map(|pace| {
            let now = self.open.clock.monotonic();
            pace.end(now);
            (pace.records(), now)
        });
        let max = paced.map_or(Batch::<R::Out>::FULL_RECORDS, |(records, _)| records);
        let output = self.outputs.main_mut();
        let polled = self.reading.poll(output, max);
        let records = output.len();
        let status = polled.map_err(|failure| self.named(failure))?;
        if records > max {
            let message = format!("gave {records} records at once where {max} are allowed; respect `max`");
            return Err(self.named(Failure::user(message)));
        }
        if let Some(splits) = &self.splits {
            let mut report = splits.lock();
            report.begin();
            self.reading.tell_splits(&mut report);
        }
        if records > 0 {
            if let (Some(pace), Some((_, now))) = (&mut self.pace, paced) {
                pace.begin(records, now);
            }
            self.counters.add_records_read(records);
        }
        self.reading.emit_aside(&mut Aside::new(self.outputs.sides_mut()));
        self.outputs.hand_on()?;
        Ok(match status {
            SourceStatus::Finished => Polled::EndOfInput,
            SourceStatus::Idle { retry_after } if records == 0 => {
                Polled::Idle { retry_after: Some(retry_after) }
            }
            SourceStatus::Ready | SourceStatus::Idle { .. } => Polled::Progress,
        })
    }

    fn look(&mut self) -> Result<Polled, Failure> {
        self.reading.look().map_err(|failure| self.named(failure))
    }

    fn finish(&mut self) -> Result<(), Failure> {
        self.outputs.watermark(MAX_WATERMARK)?;
        self.reading.over();
        self.outputs.finish()
    }

    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure> {
        let taken = self.reading.snapshot(snapshot.operator(self.open.operator_id));
        taken.map_err(|failure| self.named(failure))?;
        self.outputs.snapshot(barrier, snapshot)?;
        // Behind that, so that the barrier is on its way when what it has overtaken is recorded.
        self.reading.passed(barrier, snapshot);
        self.last = barrier.is_final.then_some(barrier.id);
        Ok(())
    }

    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.outputs.completed(checkpoint)?;
        if self.last == Some(checkpoint) {
            self.reading.close();
        }
        Ok(())
    }

    fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        self.reading.aborted(checkpoint);
        self.last = self.last.filter(|last| *last != checkpoint);
        self.outputs.aborted(checkpoint)
    }

    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure> {
        self.outputs.flush(partial)
    }
}
