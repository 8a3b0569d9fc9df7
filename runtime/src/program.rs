//! Programs: the code of a job, as the topology declared it, beside the graph that the plan printed.
//!
//! The graph says what is chained and connected with what; the program holds for each of its operators and edges the code
//! that knows the types. A task is built by `chain` from both. Types are erased here and only here: a link, channel or
//! partitioner travels as an `Any...` and is checked when it is used, so that a topology that differs from its graph is a
//! failure with a name and never a wrong result.

use std::sync::Arc;
use std::time::Duration;

use thalweg_common::config::CheckpointMode;
use thalweg_common::failure::Failure;
use thalweg_common::graph::JobGraph;
use thalweg_common::id::CheckpointId;
use thalweg_common::key_group::KeyGroupRange;
use thalweg_common::record::Record;
use thalweg_common::storage::StorageFactory;

use crate::erased::AnyReceiver;
use crate::event::{Aligned, Barrier};
use crate::exchange::{ExchangeSettings, InputGate, Note, TaskWaker};
use crate::link::Flushed;
use crate::operator::OpenContext;
use crate::parts::{self, Part, Parts};
use crate::record_type::{ReceivingEnd, open_gate};
use crate::side_output::{OutputTag, SideOutputs, TagDescription};
use crate::snapshot::{OperatorSnapshot, SnapshotBuilder};
use crate::split::message::Assignment;
use crate::stores::{StateSettings, TaskStores};
use crate::task::counters::{Counters, Gauge};
use crate::time::TimeSettings;
use crate::time::splits::SharedSplits;

pub use crate::edge::EdgeCode;
pub use crate::erased::AnyLink;
pub use crate::record_type::RecordType;

/// What a job runs.
pub struct Program {
    /// What the plan printed.
    pub graph: JobGraph,
    /// The code of the operators, found by [`Operator::node`](thalweg_common::graph::Operator::node).
    pub nodes: Vec<Node>,
    /// The code of the edges, parallel to those of the graph.
    pub edges: Vec<EdgeCode>,
    /// How its workers exchange records with each other.
    pub exchange: ExchangeSettings,
    /// Opens where its snapshots are stored; shared by all its tasks.
    pub storages: StorageFactory,
    /// How it keeps its state.
    pub state: StateSettings,
    /// How it keeps time.
    pub time: TimeSettings,
}

/// The code of one operator.
pub struct Node {
    /// What makes the operator.
    pub code: NodeCode,
    /// What it emits; nothing for a sink.
    pub output: Option<RecordType>,
    /// The side outputs that somebody reads.
    pub(crate) side_outputs: Vec<(TagDescription, RecordType)>,
}

impl Node {
    /// A source of records of `T`.
    pub fn source<T: Record>(factory: Arc<dyn SourceFactory>) -> Self {
        Self::new(NodeCode::Source(factory), Some(RecordType::of::<T>()))
    }

    /// An operator that emits records of `T`.
    pub fn operator<T: Record>(factory: Arc<dyn OperatorFactory>) -> Self {
        Self::new(NodeCode::Operator(factory), Some(RecordType::of::<T>()))
    }

    /// An operator without output.
    pub fn sink(factory: Arc<dyn OperatorFactory>) -> Self {
        Self::new(NodeCode::Operator(factory), None)
    }

    fn new(code: NodeCode, output: Option<RecordType>) -> Self {
        Self { code, output, side_outputs: Vec::new() }
    }

    /// Notes that somebody reads the side output with this tag.
    ///
    /// # Errors
    /// When another tag has the same name and records of another type.
    pub fn read_side_output<T: Record>(&mut self, tag: &OutputTag<T>) -> Result<(), Failure> {
        let described = tag.described();
        match self.side_outputs.iter().find(|(other, _)| other.name == described.name) {
            Some((other, _)) if other.records != described.records => Err(other.conflict(&described)),
            Some(_) => Ok(()),
            None => {
                self.side_outputs.push((described, RecordType::of::<T>()));
                Ok(())
            }
        }
    }
}

/// What makes an operator.
pub enum NodeCode {
    /// It begins a chain.
    Source(Arc<dyn SourceFactory>),
    /// It takes batches. A sink is an operator without output.
    Operator(Arc<dyn OperatorFactory>),
}

/// Makes the operator of one subtask.
pub trait OperatorFactory: Send + Sync {
    /// The link that takes the operator's input and passes its output to `next`, which is `None` for a sink.
    ///
    /// # Errors
    /// An operator that cannot be opened, or a `next` of another type.
    fn build(&self, context: &mut OperatorContext, next: Option<AnyLink>) -> Result<AnyLink, Failure>;
}

/// Makes the source of one subtask.
pub trait SourceFactory: Send + Sync {
    /// The head that reads the source and passes its records to `next`.
    ///
    /// # Errors
    /// A source that cannot be opened, or a `next` of another type.
    fn build(&self, context: &mut OperatorContext, next: AnyLink) -> Result<Box<dyn Head>, Failure>;
}

/// What the factory of an operator is told.
pub struct OperatorContext {
    /// Where it runs.
    pub open: OpenContext,
    /// The key groups that this subtask owns.
    pub owned: KeyGroupRange,
    /// What the checkpoint holds of this operator, if the job restores one. Several snapshots after a change of
    /// parallelism.
    pub restored: Vec<OperatorSnapshot>,
    /// Takes what it emits to tags. An operator that emits to none leaves it.
    pub(crate) side_outputs: SideOutputs,
    /// Whether channels wait for each other at a barrier.
    pub checkpoint_mode: CheckpointMode,
    /// The counters of the task.
    pub(crate) counters: Counters,
    /// Where its keyed state is.
    pub(crate) stores: TaskStores,
    /// How long timers wait behind their time of the clock.
    pub(crate) timer_delay_ms: i64,
    /// Time in which a task is to get through what waits for it.
    pub(crate) debloat_target: Option<Duration>,
    /// How the job keeps time.
    pub(crate) time: TimeSettings,
    /// Between a source and the operators directly behind it: from which splits the records are.
    pub(crate) splits: Option<SharedSplits>,
    /// What connects the two parts of a source with an enumerator.
    pub(crate) wires: SplitWires,
}

/// What connects an enumerator and its readers.
pub(crate) struct SplitWires {
    /// Wakes the task.
    pub(crate) waker: TaskWaker,
    /// How an enumerator is called.
    pub(crate) calls: Calls,
    /// Of an enumerator: what its readers say, by subtask.
    pub(crate) notes: Vec<Note>,
    /// Of a reader: where assignments come from.
    pub(crate) input: Option<(ReceivingEnd, Vec<AnyReceiver>)>,
}

/// How an enumerator is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Calls {
    /// On a thread of its own, because it may wait for the outside.
    OnThread,
    /// In turn with the task, for tests.
    InTurn,
}

impl SplitWires {
    /// Those of an operator that is neither.
    pub(crate) fn none(waker: TaskWaker) -> Self {
        Self { waker, calls: Calls::OnThread, notes: Vec::new(), input: None }
    }

    /// The gate through which a reader gets its assignments.
    ///
    /// # Errors
    /// When there is none, or something else comes through it.
    pub(crate) fn take_gate(&mut self) -> Result<InputGate<Assignment>, Failure> {
        let input = self.input.take();
        let missing = || Failure::internal("a source with an enumerator has no edge from it").permanent();
        let (end, receivers) = input.ok_or_else(missing)?;
        open_gate(&end, receivers)
    }
}

impl OperatorContext {
    /// The parts which a source left in the checkpoint and this subtask goes on with; nothing when it starts from the
    /// beginning.
    ///
    /// # Errors
    /// When what was left has no parts, or some are missing.
    pub(crate) fn restored_parts(&self) -> Result<Option<Vec<Part>>, Failure> {
        // Written before there were parts: all that the subtask remembers is one. What has nothing to remember left an empty one.
        let whole = self.restored.iter().flat_map(|snapshot| &snapshot.operator_state);
        let whole: Vec<Part> =
            whole.filter(|state| !state.is_empty()).map(|state| Part::Whole(state.clone())).collect();
        if !whole.is_empty() {
            return Ok(Some(whole));
        }
        let all: Vec<Parts> = self.restored.iter().filter_map(|snapshot| snapshot.parts.clone()).collect();
        if all.is_empty() {
            return Ok(None);
        }
        parts::share(&all, self.open.subtask_index, self.open.parallelism).map(Some)
    }

    /// The parts which a sink or function left in the checkpoint and this subtask goes on with. Where none left any, as sinks that print do,
    /// there is nothing to divide, and not all of them need be there; a source without splits has said something by that.
    ///
    /// # Errors
    /// When some are missing.
    pub(crate) fn restored_parts_if_any(&self) -> Result<Vec<Part>, Failure> {
        let has_parts = |snapshot: &OperatorSnapshot| {
            !snapshot.operator_state.is_empty()
                || snapshot.parts.as_ref().is_some_and(|parts| !parts.list.is_empty())
        };
        match self.restored.iter().any(has_parts) {
            true => self.restored_parts().map(Option::unwrap_or_default),
            false => Ok(Vec::new()),
        }
    }

    /// The state which a source without splits left in the checkpoint: at most one entry, as it cannot be divided.
    ///
    /// # Errors
    /// When several subtasks left some, or parts.
    pub fn restored_operator_state(&self) -> Result<Option<&[u8]>, Failure> {
        if self.restored.iter().any(|snapshot| snapshot.parts.is_some()) {
            return Err(Failure::user(format!(
                "`{}` has no splits, and was a source with splits when its checkpoint was taken; give it another uid, so that it begins anew",
                self.open.operator_name
            ))
            .permanent());
        }
        let mut entries = self.restored.iter().flat_map(|snapshot| &snapshot.operator_state);
        let first = entries.next().map(Vec::as_slice);
        match entries.next() {
            None => Ok(first),
            Some(second) if first == Some(&[]) && second.is_empty() && entries.all(Vec::is_empty) => Ok(first),
            Some(_) => Err(Failure::user(format!(
                "`{}` cannot be restored with another parallelism than its checkpoint was taken with; run it with the same",
                self.open.operator_name
            ))
            .permanent()),
        }
    }

    /// A gauge for the size of the state of this operator, part of the task's.
    pub(crate) fn state_gauge(&self) -> Gauge {
        self.counters.state_gauge()
    }
}

/// The beginning of a task's chain: reads input batch by batch and runs it through the chain.
///
/// The task's loop calls it. No method blocks.
pub trait Head: Send {
    /// Reads at most one batch and runs it through the chain.
    ///
    /// # Errors
    /// A failure of the input or of any operator; the task fails with it.
    fn poll(&mut self) -> Result<Polled, Failure>;

    /// For a task that must not read because its output is full: whether there is a barrier that overtakes, and when there will be.
    /// Only asked where barriers may.
    ///
    /// # Errors
    /// When the input has failed.
    fn look(&mut self) -> Result<Polled, Failure> {
        Ok(Polled::Idle { retry_after: None })
    }

    /// The input has ended: the operators produce what they still hold, and the outputs end.
    ///
    /// # Errors
    /// As `poll`.
    fn finish(&mut self) -> Result<(), Failure>;

    /// Takes the snapshot of the whole chain at `barrier` and passes the barrier on.
    ///
    /// # Errors
    /// A state that cannot be written; the task fails with it.
    fn snapshot(&mut self, barrier: Barrier, snapshot: &mut SnapshotBuilder) -> Result<(), Failure>;

    /// The checkpoint is durable.
    ///
    /// # Errors
    /// A commit that failed for good; the task fails with it.
    fn completed(&mut self, checkpoint: CheckpointId) -> Result<(), Failure>;

    /// The checkpoint will never complete.
    ///
    /// # Errors
    /// As `completed`.
    fn aborted(&mut self, checkpoint: CheckpointId) -> Result<(), Failure>;

    /// Sends what the chain holds back; see [`Link::flush`](crate::link::Link::flush).
    ///
    /// # Errors
    /// A channel that failed.
    fn flush(&mut self, partial: bool) -> Result<Flushed, Failure>;
}

/// What a head found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Polled {
    /// A batch went through the chain; there may be more at once.
    Progress,
    /// There is nothing to read at the moment.
    Idle {
        /// When to look again at the latest, if nothing wakes the task before.
        retry_after: Option<Duration>,
    },
    /// A barrier has arrived on all inputs, or overtakes: the task takes its snapshot now.
    Barrier {
        /// The barrier.
        barrier: Barrier,
        /// What waiting for the last one took.
        alignment: Aligned,
    },
    /// All inputs have ended. Said once; barriers may still come.
    EndOfInput,
}
