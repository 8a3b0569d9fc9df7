//! What connectors and jobs implement: sources, sinks and functions on keyed streams.
//!
//! On a record's way these are its beginning, its end and the stations with a memory. All of them are prototypes: the
//! topology holds one, each subtask works with a clone of it. None of them may block for long: a task that sits in one of
//! these methods takes no part in checkpoints and cannot be cancelled.

use std::fmt;
use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::clock::SharedClock;
use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, CheckpointId, JobId, OperatorId};
use thalweg_common::record::Record;
use thalweg_common::storage::StorageFactory;
use thalweg_common::task_scope::BoxError;

pub use crate::metrics::OperatorMetrics;
pub use thalweg_state::TimeDomain;

use crate::batch::Batch;
use crate::io::Io;
use crate::metrics::MetricGroup;

pub(crate) use crate::keyed_process::Moment;
pub use crate::keyed_process::{Context, Key, KeyedProcess};

/// Where an operator runs; what it is told when it is opened.
#[derive(Debug, Clone)]
pub struct OpenContext {
    /// The job.
    pub job_id: JobId,
    /// The job's name.
    pub job_name: String,
    /// The execution attempt, from 1.
    pub attempt: Attempt,
    /// The operator's stable id.
    pub operator_id: OperatorId,
    /// The operator's name.
    pub operator_name: String,
    /// The subtask, from 0.
    pub subtask_index: u32,
    /// How many subtasks the operator has.
    pub parallelism: u32,
    /// The operator's number of key groups.
    pub max_parallelism: u32,
    /// Whether the job runs in the author's own process, without a cluster.
    pub is_local: bool,
    /// The time.
    pub clock: SharedClock,
    /// What it counts.
    pub metrics: OperatorMetrics,
    /// How it asks the outside.
    pub io: Io,
    /// The worker's storages, with the settings of the job.
    pub storages: StorageFactory,
}

impl OpenContext {
    /// The outermost group of the metrics that user code registers for this subtask of the operator, as Flink's
    /// `RuntimeContext::getMetricGroup`.
    pub fn metric_group(&self) -> MetricGroup {
        self.metrics.group()
    }

    /// The subtask's share of a list that all subtasks see alike: item `n` is that of subtask `n % parallelism`.
    pub fn share_of<I: IntoIterator>(&self, all: I) -> impl Iterator<Item = I::Item> + use<I> {
        all.into_iter().skip(self.subtask_index as usize).step_by(self.parallelism.max(1) as usize)
    }
}

/// What a source is told when it is opened.
pub type SourceContext = OpenContext;

/// What a sink is told when it is opened.
pub type SinkContext = OpenContext;

/// What a source has to say after a poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceStatus {
    /// There may be more at once.
    Ready,
    /// There is nothing at the moment.
    Idle {
        /// When to ask again at the latest.
        retry_after: Duration,
    },
    /// There will never be more: the input is bounded and at its end. A source that is restored there says so again. From a
    /// [`SourceReader`](crate::split::SourceReader): its splits are at their end.
    Finished,
}

/// Reads records from outside. Its position is part of every checkpoint.
///
/// The position of a subtask is one thing that only it understands, so that such a source keeps its parallelism. A source whose
/// input has parts is a [`SplitSource`](crate::split::SplitSource).
pub trait Source: Send {
    /// What it reads.
    type Out: Record;

    /// Prepares for reading: from the beginning, or from where the snapshot `restored` was taken.
    ///
    /// # Errors
    /// What cannot be opened or read; the task fails with it.
    fn open(&mut self, context: &SourceContext, restored: Option<&[u8]>) -> Result<(), Failure>;

    /// Appends at most `max` records to `out`, without waiting for them: with [`push`](Batch::push), or with
    /// [`push_with_timestamp`](Batch::push_with_timestamp) if it knows when they happened.
    ///
    /// # Errors
    /// What cannot be read; the task fails with it.
    fn poll(&mut self, out: &mut Batch<Self::Out>, max: usize) -> Result<SourceStatus, Failure>;

    /// The position behind the last record that was given out.
    ///
    /// # Errors
    /// A position that cannot be written; the task fails with it.
    fn snapshot(&mut self) -> Result<Vec<u8>, Failure>;
}

/// Writes records to the outside, and makes them visible when the checkpoint that covers them is durable: the two phases of
/// Flink's `TwoPhaseCommittingSink`.
///
/// At each barrier what was written becomes prepared transactions, the committables, which are part of the checkpoint. When it is
/// complete they are committed; after a failure those of the restored checkpoint are committed (again) and everything younger is
/// aborted. The runtime keeps the committables, in their order, and repeats a commit that failed: the sink itself remembers nothing
/// of them. With another parallelism the committables of subtask `i` go to subtask `i % parallelism`.
///
/// A sink without transactions has `()` as its committables and neither [`prepare`](Self::prepare) nor [`commit`](Self::commit).
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::{Arc, Mutex};
///
/// use thalweg_common::failure::Failure;
/// use thalweg_common::id::CheckpointId;
/// use thalweg_runtime::batch::Batch;
/// use thalweg_runtime::operator::{Sink, SinkContext};
/// use thalweg_runtime::operators;
/// use thalweg_runtime::testing::{OperatorHarness, Setup};
///
/// /// Something outside that has transactions.
/// #[derive(Default)]
/// struct Store {
///     prepared: BTreeMap<String, Vec<u64>>,
///     visible: Vec<u64>,
/// }
///
/// #[derive(Clone, Default)]
/// struct StoreSink {
///     store: Arc<Mutex<Store>>,
///     open: Vec<u64>,
///     subtask: u32,
/// }
///
/// impl Sink<u64> for StoreSink {
///     type Committable = String;
///
///     fn open(&mut self, context: &SinkContext) -> Result<(), Failure> {
///         self.subtask = context.subtask_index;
///         Ok(())
///     }
///
///     fn write(&mut self, batch: &mut Batch<u64>) -> Result<(), Failure> {
///         self.open.extend(batch.drain());
///         Ok(())
///     }
///
///     fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Vec<String>, Failure> {
///         let name = format!("{}-{checkpoint}", self.subtask);
///         let records = std::mem::take(&mut self.open);
///         self.store.lock().unwrap().prepared.insert(name.clone(), records);
///         Ok(vec![name])
///     }
///
///     fn commit(&mut self, names: &[String]) -> Result<(), Failure> {
///         let mut store = self.store.lock().unwrap();
///         for name in names {
///             // One that is not there was committed before.
///             let records = store.prepared.remove(name).unwrap_or_default();
///             store.visible.extend(records);
///         }
///         Ok(())
///     }
/// }
///
/// let prototype = StoreSink::default();
/// let factory = operators::sink(prototype.clone());
/// let mut sink = OperatorHarness::<u64>::open_sink(factory.as_ref(), Setup::default()).unwrap();
/// sink.push(vec![1, 2]).unwrap();
/// sink.barrier(7).unwrap();
/// assert!(prototype.store.lock().unwrap().visible.is_empty());
/// sink.completed(7).unwrap();
/// assert_eq!(prototype.store.lock().unwrap().visible, [1, 2]);
/// ```
pub trait Sink<T>: Send {
    /// What names a prepared transaction, so that any subtask of any later attempt can commit it.
    type Committable: Record;

    /// Prepares for writing.
    ///
    /// # Errors
    /// What cannot be opened; the task fails with it.
    fn open(&mut self, context: &SinkContext) -> Result<(), Failure>;

    /// Called once behind [`open`](Self::open), also when nothing is restored: aborts every transaction that earlier attempts left
    /// behind, except those of `prepared`, which are committed next. If subtask `i` finds transactions by the number of the subtask
    /// that made them, it must answer for all numbers `n` where `n % parallelism` is `i`, and for no others.
    ///
    /// # Errors
    /// What cannot be aborted; the task fails with it.
    fn recover(&mut self, prepared: &[Self::Committable]) -> Result<(), Failure> {
        let _ = prepared;
        Ok(())
    }

    /// Writes and drains `batch`, whose records may have timestamps.
    ///
    /// # Errors
    /// What cannot be written; the task fails with it.
    fn write(&mut self, batch: &mut Batch<T>) -> Result<(), Failure>;

    /// A watermark has come: no record with `timestamp` or an earlier one is written any more. All records that came before it are
    /// written. Each watermark is later than the one before; the last one, at the end of the input, is
    /// [`MAX_WATERMARK`](crate::time::MAX_WATERMARK). Watermarks are no part of checkpoints: behind a restore they begin anew. Flink's
    /// `SinkWriter.writeWatermark`.
    ///
    /// # Errors
    /// What cannot be written; the task fails with it.
    fn write_watermark(&mut self, timestamp: Timestamp) -> Result<(), Failure> {
        let _ = timestamp;
        Ok(())
    }

    /// There is nothing more to write at the moment.
    ///
    /// # Errors
    /// What cannot be written; the task fails with it.
    fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
    }

    /// The input has ended: nothing is written any more. The last barrier comes behind this.
    ///
    /// # Errors
    /// What cannot be written; the task fails with it.
    fn finish(&mut self) -> Result<(), Failure> {
        self.flush()
    }

    /// Goes on with what is written beside the task, as requests to the outside ([`io`](OpenContext::io)); called whenever the task has a
    /// turn, and woken for. A sink that has not told the outside everything at a barrier makes what is left its committables: with
    /// [`recover`](Self::recover) it gets them back, and writes them again. A task ends only when nothing is under way.
    ///
    /// # Errors
    /// What cannot be written; the task fails with it.
    fn advance(&mut self) -> Result<UnderWay, Failure> {
        Ok(UnderWay::default())
    }

    /// At the barrier: everything written since the last one becomes prepared transactions, which a crash does not undo.
    ///
    /// # Errors
    /// What cannot be prepared; the task fails with it.
    fn prepare(&mut self, checkpoint: CheckpointId) -> Result<Vec<Self::Committable>, Failure> {
        let _ = checkpoint;
        self.flush().map(|()| Vec::new())
    }

    /// Commits what was prepared for one checkpoint. May be called again for the same transactions, also by another attempt or
    /// subtask, and after only some of them were committed: what is committed already is no error.
    ///
    /// # Errors
    /// What cannot be committed. If the failure is retryable, the same call is repeated after a while, and behind the last repetition
    /// the task fails; otherwise it fails at once. Recovery repeats the commit.
    fn commit(&mut self, prepared: &[Self::Committable]) -> Result<(), Failure> {
        let _ = prepared;
        Ok(())
    }

    /// News only: `checkpoint` will never complete. Its transactions stay prepared, because their records are not read again, and are
    /// committed with the next checkpoint that completes.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn abort(&mut self, checkpoint: CheckpointId) -> Result<(), Failure> {
        let _ = checkpoint;
        Ok(())
    }
}

/// What a sink has under way beside its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UnderWay {
    /// How many records the outside has not taken yet.
    pub records: usize,
    /// Whether it takes no more for now: then its task reads nothing until it is woken.
    pub is_full: bool,
    /// When it wants another turn although nobody answers, by the monotonic clock.
    pub again_at: Option<Duration>,
}

/// A running aggregate of a keyed stream: what it keeps of a key, and what it emits after each record.
///
/// If accumulators can be put together, implement [`MergeAggregate`] in place of it: that one is combined before the records
/// are sent to their keys.
pub trait Aggregate<In>: Clone + Send + Sync + 'static {
    /// What is kept of a key.
    type Accumulator: Record;
    /// What is emitted.
    type Out: Record;

    /// The accumulator of a key before its first record.
    fn create(&self) -> Self::Accumulator;

    /// Adds a record.
    fn add(&self, accumulator: &mut Self::Accumulator, record: In);

    /// The result so far.
    fn result(&self, accumulator: &Self::Accumulator) -> Self::Out;
}

/// An associative aggregate: accumulators of parts of a key's records can be merged into that of all of them.
///
/// That promise is what the type says. It allows each subtask in front of `key_by` to aggregate what it reads and send
/// accumulators in place of records, so that a key with very many records does not hold up the one subtask that owns it.
/// What must hold: adding records to two accumulators and merging these, in the order of their records, gives the same
/// as adding all records to one. The order in which accumulators of different subtasks are merged is open, as is the
/// order of their records.
pub trait MergeAggregate<In>: Clone + Send + Sync + 'static {
    /// What is kept of a key, and sent in place of its records.
    type Accumulator: Record;
    /// What is emitted.
    type Out: Record;

    /// The accumulator before the first record.
    fn create(&self) -> Self::Accumulator;

    /// Adds a record.
    fn add(&self, accumulator: &mut Self::Accumulator, record: In);

    /// Adds the records of `later`, which come behind those of `accumulator`.
    fn merge(&self, accumulator: &mut Self::Accumulator, later: Self::Accumulator);

    /// Takes the records of `earlier` out again, which were the first that were added or merged, and says whether it can do that. Sliding
    /// windows then go on with a running total. Must not depend on the accumulators; with rounded numbers leave it out.
    fn subtract(&self, accumulator: &mut Self::Accumulator, earlier: &Self::Accumulator) -> bool {
        let _ = (accumulator, earlier);
        false
    }

    /// The result so far.
    fn result(&self, accumulator: &Self::Accumulator) -> Self::Out;
}

/// The failure of user code: of any error, a text, or a [`Failure`], which stays as it is. The causes of an error are
/// part of the message.
pub fn user_failure(error: impl Into<BoxError>) -> Failure {
    let error = error.into();
    match error.downcast::<Failure>() {
        Ok(failure) => *failure,
        Err(error) => {
            let causes = std::iter::successors(error.source(), |error| error.source());
            let mut message = error.to_string();
            for cause in causes.map(ToString::to_string) {
                // Some errors repeat their cause in their own message.
                if !message.contains(&cause) {
                    message = format!("{message}: {cause}");
                }
            }
            Failure::user(message)
        }
    }
}

/// Turns errors of any type into the [`Failure`] that the methods of this module return.
///
/// ```
/// use thalweg_common::failure::Failure;
/// use thalweg_runtime::operator::OrFailure;
///
/// fn price(text: &str) -> Result<f64, Failure> {
///     text.parse().or_failure(format_args!("`{text}` is no price"))
/// }
///
/// assert_eq!(price("x").unwrap_err().message, "`x` is no price: invalid float literal");
/// ```
pub trait OrFailure<T> {
    /// The value, or a failure of user code whose message says what was going on and then the error.
    ///
    /// # Errors
    /// If this is an error, or nothing.
    fn or_failure(self, doing: impl fmt::Display) -> Result<T, Failure>;
}

impl<T, E: Into<BoxError>> OrFailure<T> for Result<T, E> {
    fn or_failure(self, doing: impl fmt::Display) -> Result<T, Failure> {
        self.map_err(|error| user_failure(error).context(doing))
    }
}

impl<T> OrFailure<T> for Option<T> {
    fn or_failure(self, doing: impl fmt::Display) -> Result<T, Failure> {
        self.ok_or_else(|| Failure::user(doing.to_string()))
    }
}
