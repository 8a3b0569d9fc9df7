//! The task of a reader whose splits an enumerator assigns.
//!
//! On a record's way it is a source with an input: assignments come through a gate, and with them the barriers, by which the task takes
//! its snapshots. Invariants: the gate is read to its last message before each poll, so that barriers never wait behind a split that is long;
//! what the gate delivered before a barrier is in the snapshot; a reader that is to end before its splits do keeps them in its snapshot.

use std::collections::BTreeSet;
use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::id::CheckpointId;

use super::enumerating::EnumeratorFactory;
use super::source::{Reading, head};
use super::splits::{decoded, restored};
use crate::batch::Batch;
use crate::event::Barrier;
use crate::exchange::{Input, InputGate};
use crate::operator::SourceStatus;
use crate::parts::{Part, Parts};
use crate::program::{AnyLink, EdgeCode, Head, Node, OperatorContext, Polled, SourceFactory};
use crate::side_output::Aside;
use crate::snapshot::{OperatorSnapshot, SnapshotBuilder};
use crate::split::holdings::Holdings;
use crate::split::message::{Assignment, EncodedSplit, Order};
use crate::split::{EnumeratedSource, SourceReader, SourceSplit, SplitEnumerator};
use crate::time::SplitReport;
use crate::time::splits::SharedSplits;

/// How long to sleep without anything to read: what is assigned wakes the task.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

/// The operator that finds the splits of a source, and the edge from it to the readers.
pub struct EnumeratorCode {
    /// The operator.
    pub node: Node,
    /// The edge.
    pub edge: EdgeCode,
    /// The fingerprint of what flows over it.
    pub schema_fingerprint: u64,
}

impl EnumeratorCode {
    pub(super) fn of<S: EnumeratedSource>(source: S) -> Self {
        let node = Node::source::<Assignment>(std::sync::Arc::new(EnumeratorFactory(source)));
        let schema_fingerprint = node.output.as_ref().map_or(0, crate::program::RecordType::fingerprint);
        Self { node, edge: EdgeCode::splits(), schema_fingerprint }
    }
}

/// Makes the readers of a source.
pub(super) struct ReaderFactory<S>(pub(super) S);

impl<S: EnumeratedSource> SourceFactory for ReaderFactory<S> {
    fn build(&self, context: &mut OperatorContext, next: AnyLink) -> Result<Box<dyn Head>, Failure> {
        head(context, next, |context| AssignedReading::<S::Reader>::open(&self.0, context))
    }
}

/// A reader, and where its splits come from.
struct AssignedReading<R> {
    reader: R,
    holdings: Holdings,
    gate: InputGate<Assignment>,
    /// Where it is told from which splits the records are, if the reader tells.
    told: Option<SharedSplits>,
    subtask: u32,
    parallelism: u32,
    /// Whether the enumerator has found all splits. They may still be on their way.
    no_more: bool,
    /// How far the assignments are.
    stage: Stage,
}

/// How far the assignments of a reader are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// There may be more.
    Open,
    /// All splits have come.
    Complete,
    /// The enumerator was stopped: so are its readers.
    Stopped,
    /// The end of the input was told.
    Over,
}

impl<R: SourceReader> AssignedReading<R> {
    fn open<S>(source: &S, context: &mut OperatorContext) -> Result<Self, Failure>
    where
        S: EnumeratedSource<Out = R::Out, Split = R::Split, Reader = R>,
    {
        let parts = context.restored_parts()?.unwrap_or_default();
        let finished = parts.iter().filter_map(|part| match part {
            Part::Finished { id } => Some(id.clone()),
            _ => None,
        });
        let finished = finished.collect();
        let splits: Vec<R::Split> = restored(parts)?;
        let told = context.splits.clone().filter(|_| R::TELLS_SPLITS);
        if let Some(told) = &told {
            let mut report = told.lock();
            report.added::<R>(&splits);
            // Until the enumerator has said that there is nothing: others must not go ahead of what may be on its way.
            report.expect(true);
        }
        let open = splits.iter().map(R::Split::split_id).collect();
        let holdings = Holdings::new(open, finished, S::Enumerator::TRACKS_FINISHED);
        let mut reader = source.reader(&context.open)?;
        reader.add_splits(splits)?;
        let gate = context.wires.take_gate()?;
        let (subtask, parallelism) = (context.open.subtask_index, context.open.parallelism);
        Ok(Self { reader, holdings, gate, told, subtask, parallelism, no_more: false, stage: Stage::Open })
    }

    /// Follows what has been assigned. Gives what the task must see to before it reads.
    fn follow(&mut self) -> Result<Option<Polled>, Failure> {
        loop {
            match self.gate.poll()? {
                Input::Batch(mut batch) => {
                    let mut splits = Vec::new();
                    for assignment in batch.drain() {
                        self.obey(assignment, &mut splits)?;
                    }
                    self.gate.recycle(batch);
                    if !splits.is_empty() {
                        if let Some(told) = &self.told {
                            told.lock().added::<R>(&splits);
                        }
                        self.reader.add_splits(splits)?;
                    }
                }
                Input::Barrier { barrier, alignment } => {
                    return Ok(Some(Polled::Barrier { barrier, alignment }));
                }
                Input::EndOfInput if self.stage == Stage::Open => {
                    self.stage = if self.no_more { Stage::Complete } else { Stage::Stopped };
                }
                // Of an edge that carries no records of the job, so that its time is nobody's.
                Input::EndOfInput | Input::Time(_) => {}
                Input::Idle => return Ok(None),
            }
        }
    }

    fn obey(&mut self, assignment: Assignment, splits: &mut Vec<R::Split>) -> Result<(), Failure> {
        match assignment.order {
            Order::Read { number, split: EncodedSplit { id, bytes } } => {
                self.expect(true);
                self.holdings.assigned(number, &id)?;
                splits.push(decoded(&bytes, &id)?);
            }
            Order::Noted(finished) => self.holdings.noted(&finished),
            Order::NoMoreSplits => {
                self.no_more = true;
                self.expect(false);
            }
            Order::NothingAtPresent => self.expect(false),
        }
        Ok(())
    }

    /// Whether more splits may come at any moment.
    fn expect(&self, is_expecting: bool) {
        if let Some(told) = &self.told {
            told.lock().expect(is_expecting && !self.no_more);
        }
    }

    /// Says what is new to the enumerator.
    fn say(&mut self) {
        if let Some(word) = self.holdings.news() {
            self.gate.write_note(&word.to_note());
        }
    }
}

impl<R: SourceReader> Reading for AssignedReading<R> {
    type Out = R::Out;

    fn attend(&mut self) -> Result<Option<Polled>, Failure> {
        if let Some(polled) = self.follow()? {
            return Ok(Some(polled));
        }
        self.say();
        Ok(match self.stage {
            Stage::Open | Stage::Complete => None,
            Stage::Stopped => Some(Polled::EndOfInput),
            Stage::Over => Some(Polled::Idle { retry_after: self.gate.overtakes_in() }),
        })
    }

    fn look(&mut self) -> Result<Polled, Failure> {
        Ok(match self.gate.look()? {
            Some(Input::Barrier { barrier, alignment }) => Polled::Barrier { barrier, alignment },
            _ => Polled::Idle { retry_after: self.gate.overtakes_in() },
        })
    }

    fn poll(&mut self, out: &mut Batch<R::Out>, max: usize) -> Result<SourceStatus, Failure> {
        let status = self.reader.poll(out, max)?;
        self.holdings.ended(self.reader.take_finished());
        if status == SourceStatus::Finished {
            self.holdings.all_ended();
        }
        self.say();
        let longest = self.gate.overtakes_in().unwrap_or(LONGEST_SLEEP);
        Ok(match status {
            SourceStatus::Finished if self.stage == Stage::Complete => SourceStatus::Finished,
            SourceStatus::Finished => SourceStatus::Idle { retry_after: longest },
            SourceStatus::Idle { retry_after } => {
                SourceStatus::Idle { retry_after: retry_after.min(longest) }
            }
            SourceStatus::Ready => SourceStatus::Ready,
        })
    }

    fn tell_splits(&mut self, report: &mut SplitReport) {
        self.reader.tell_splits(report);
    }

    const PAUSES_SPLITS: bool = R::PAUSES_SPLITS;

    fn pause_splits(&mut self, paused: &BTreeSet<String>) {
        self.reader.pause_splits(paused);
    }

    fn emit_aside(&mut self, aside: &mut Aside<'_>) {
        self.reader.emit_aside(aside);
    }

    fn snapshot(&mut self, snapshot: &mut OperatorSnapshot) -> Result<(), Failure> {
        let finished = self.holdings.finished().map(|id| Part::Finished { id: id.clone() });
        let mut list: Vec<Part> = finished.collect();
        list.extend(self.reader.snapshot()?.iter().map(super::splits::part));
        snapshot.parts = Some(Parts { subtask: self.subtask, parallelism: self.parallelism, list });
        Ok(())
    }

    fn passed(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) {
        self.gate.snapshot(barrier, snapshot);
    }

    fn aborted(&mut self, checkpoint: CheckpointId) {
        self.gate.abort(checkpoint);
    }

    fn over(&mut self) {
        self.stage = Stage::Over;
    }
}
