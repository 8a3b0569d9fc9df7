//! What connectors and jobs implement: sources, sinks and functions on keyed streams.
//!
//! On a record's way these are its beginning, its end and the stations with a memory. All of them are prototypes: the
//! topology holds one, each subtask works with a clone of it. None of them may block for long: a task that sits in one of
//! these methods takes no part in checkpoints and cannot be cancelled.

use std::fmt;
use std::hash::Hash;
use std::time::Duration;

use thalweg_common::Timestamp;
use thalweg_common::clock::SharedClock;
use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, CheckpointId, JobId, OperatorId};
use thalweg_common::record::Record;
use thalweg_common::task_scope::BoxError;
use thalweg_state::{Accessor, AtKey, State, Tables};

pub use crate::task::counters::OperatorMetrics;
pub use thalweg_state::TimeDomain;

use crate::batch::{Batch, known};
use crate::side_output::{OutputTag, Outputs};

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
}

impl OpenContext {
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

    /// There is nothing more to write at the moment.
    ///
    /// # Errors
    /// What cannot be written; the task fails with it.
    fn flush(&mut self) -> Result<(), Failure> {
        Ok(())
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

/// A key: a record that can be compared and hashed.
pub trait Key: Record + Eq + Hash {}

impl<K: Record + Eq + Hash> Key for K {}

/// A function on a keyed stream: Flink's `KeyedProcessFunction`. Its fields are its state (derive
/// [`State`](macro@thalweg_state::State)); what it sees in them is the state of the record's key.
///
/// It can have itself called again at a later time, by [timers](Context::register_event_time_timer) of a key:
///
/// ```
/// use thalweg_common::Timestamp;
/// use thalweg_common::failure::Failure;
/// use thalweg_runtime::batch::Batch;
/// use thalweg_runtime::operator::{Context, KeyedProcess};
/// use thalweg_runtime::operators;
/// use thalweg_runtime::testing::{OperatorHarness, Setup};
/// use thalweg_state::{Declarations, Declare, State, StateKey, ValueState};
///
/// /// Emits for each user how many clicks there were in a minute of event time.
/// #[derive(Clone, Default)]
/// struct PerMinute {
///     clicks: ValueState<u64>,
/// }
///
/// // In a job: #[derive(State)].
/// impl State for PerMinute {
///     fn declare<K: StateKey>(&mut self, declarations: &mut Declarations<K>) {
///         self.clicks.declare("clicks", declarations);
///     }
/// }
///
/// impl KeyedProcess<String, String> for PerMinute {
///     type Out = (String, u64);
///
///     fn on_record(&mut self, _: String, context: &mut Context<'_, String, Self::Out>) -> Result<(), Failure> {
///         let at = context.timestamp().unwrap_or(0);
///         self.clicks.update(context, |clicks| Some(clicks.unwrap_or(0) + 1));
///         // The same time again is the same timer.
///         context.register_event_time_timer(at - at.rem_euclid(60_000) + 59_999);
///         Ok(())
///     }
///
///     fn on_timer(&mut self, _: Timestamp, context: &mut Context<'_, String, Self::Out>) -> Result<(), Failure> {
///         let clicks = self.clicks.take(context).unwrap_or(0);
///         let user = context.key().clone();
///         context.emit((user, clicks));
///         Ok(())
///     }
/// }
///
/// let per_minute = operators::keyed_process(|user: &String| user.clone(), PerMinute::default());
/// let mut harness = OperatorHarness::open(per_minute.as_ref(), Setup::default()).unwrap();
/// let users = ["ann", "bob", "ann"].map(String::from).to_vec();
/// harness.push_batch(Batch::from_parts(users, vec![1_000, 2_000, 3_000])).unwrap();
/// harness.watermark(59_998).unwrap();
/// assert_eq!(harness.output(), []);
/// harness.watermark(59_999).unwrap();
/// let mut clicks = harness.output();
/// clicks.sort();
/// assert_eq!(clicks, [("ann".to_string(), 2), ("bob".to_string(), 1)]);
/// ```
pub trait KeyedProcess<K: Key, In>: State + Clone + Send + Sync + 'static {
    /// What it emits.
    type Out: Record;

    /// Whether it may have timers, so that the plan has states for them. A function that says no saves these, and must not use any.
    const TIMERS: bool = true;

    /// Called once before the first record.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn open(&mut self, context: &OpenContext) -> Result<(), Failure> {
        let _ = context;
        Ok(())
    }

    /// Processes one record.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn on_record(&mut self, record: In, context: &mut Context<'_, K, Self::Out>) -> Result<(), Failure>;

    /// A timer of the key at hand has fired. `at` is its time, and so are the [timestamp](Context::timestamp) of the context and that of
    /// what is emitted. Which kind of timer it was says [`time_domain`](Context::time_domain).
    ///
    /// Timers fire in the order of their times; of several keys at the same time in no particular order. Those of event time fire
    /// before the watermark goes on to the next operators.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn on_timer(&mut self, at: Timestamp, context: &mut Context<'_, K, Self::Out>) -> Result<(), Failure> {
        let _ = (at, context);
        Ok(())
    }

    /// Called at the end of a bounded input, once for every key that has state then. All timers of event time have fired before,
    /// because the last watermark comes in front of the end. Those of processing time do not fire any more, as in Flink: what they
    /// would do is to be done here.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn on_end(&mut self, context: &mut Context<'_, K, Self::Out>) -> Result<(), Failure> {
        let _ = context;
        Ok(())
    }
}

/// What a function on a keyed stream works with: the key at hand, its state, and its output.
pub struct Context<'a, K: Key, Out> {
    state: AtKey<'a, K>,
    moment: Moment,
    outputs: &'a mut Outputs<Out>,
    open: &'a OpenContext,
}

/// When a function is called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moment {
    /// That of the record or timer at hand, and of what is emitted.
    pub(crate) timestamp: Timestamp,
    /// The last one that has come.
    pub(crate) watermark: Timestamp,
    /// That of the timer at hand.
    pub(crate) domain: Option<TimeDomain>,
}

impl Moment {
    pub(crate) fn of_record(timestamp: Timestamp, watermark: Timestamp) -> Self {
        Self { timestamp, watermark, domain: None }
    }
}

impl<'a, K: Key, Out> Context<'a, K, Out> {
    pub(crate) fn new(
        state: AtKey<'a, K>,
        moment: Moment,
        outputs: &'a mut Outputs<Out>,
        open: &'a OpenContext,
    ) -> Self {
        Self { state, moment, outputs, open }
    }

    /// The key at hand.
    #[inline]
    pub fn key(&self) -> &K {
        self.state.key()
    }

    /// The key at hand as a value, to emit it. The first time it costs no copy, unless the key is new.
    #[inline]
    pub fn take_key(&mut self) -> K {
        self.state.take_key()
    }

    /// When the record at hand happened, in milliseconds since the epoch; the time of the timer at hand. Nothing if the record's source
    /// did not say so, and at the end of the input.
    #[inline]
    pub fn timestamp(&self) -> Option<Timestamp> {
        known(self.moment.timestamp)
    }

    /// Emits a record with the [timestamp](Self::timestamp) of the record or timer at hand. (In Flink what comes of a timer of processing
    /// time has none.)
    #[inline]
    pub fn emit(&mut self, record: Out) {
        self.outputs.emit(record, self.moment.timestamp);
    }

    /// Emits a record with a timestamp of its own, in milliseconds since the epoch.
    #[inline]
    pub fn emit_with_timestamp(&mut self, record: Out, at: Timestamp) {
        self.outputs.emit(record, at);
    }

    /// Has [`on_timer`](KeyedProcess::on_timer) called for the key at hand when a watermark comes that is `at` or later: with the next one if
    /// the last one was. Without effect if the key has the same timer already.
    ///
    /// Timers are state: they are in checkpoints and savepoints, as a state `_timer_state/event_time` of times by key, and follow their key
    /// to another subtask.
    ///
    /// # Panics
    /// If the function says that it has no [timers](KeyedProcess::TIMERS).
    #[inline]
    pub fn register_event_time_timer(&mut self, at: Timestamp) {
        self.state.register_timer(TimeDomain::EventTime, at);
    }

    /// Deletes the timer of the key at hand for this event time, if there is one.
    ///
    /// # Panics
    /// If the function says that it has no [timers](KeyedProcess::TIMERS).
    #[inline]
    pub fn delete_event_time_timer(&mut self, at: Timestamp) {
        self.state.delete_timer(TimeDomain::EventTime, at);
    }

    /// Has [`on_timer`](KeyedProcess::on_timer) called for the key at hand when the clock of the machine has passed `at`, in milliseconds
    /// since the epoch: not within that millisecond, in which more records may come, but behind it, as in Flink. At once if that time has
    /// passed, as it may have when a job is restored. Without effect if the key has the same timer already.
    ///
    /// It is state as a timer of event time is: `_timer_state/processing_time`.
    ///
    /// # Panics
    /// If the function says that it has no [timers](KeyedProcess::TIMERS).
    #[inline]
    pub fn register_processing_time_timer(&mut self, at: Timestamp) {
        self.state.register_timer(TimeDomain::ProcessingTime, at);
    }

    /// Deletes the timer of the key at hand for this processing time, if there is one.
    ///
    /// # Panics
    /// If the function says that it has no [timers](KeyedProcess::TIMERS).
    #[inline]
    pub fn delete_processing_time_timer(&mut self, at: Timestamp) {
        self.state.delete_timer(TimeDomain::ProcessingTime, at);
    }

    /// The last watermark that has come, [`NO_WATERMARK`](crate::time::NO_WATERMARK) before the first one. No checkpoint has it: behind a
    /// restart it begins anew, as in Flink.
    #[inline]
    pub fn current_watermark(&self) -> Timestamp {
        self.moment.watermark
    }

    /// The time of the machine, in milliseconds since the epoch.
    pub fn current_processing_time(&self) -> Timestamp {
        self.open.clock.now_ms()
    }

    /// Which kind of timer has fired; nothing where none has.
    #[inline]
    pub fn time_domain(&self) -> Option<TimeDomain> {
        self.moment.domain
    }

    /// Emits a record to a side output, with the timestamp of the record at hand. If nobody reads that side output, the record
    /// is dropped.
    #[inline]
    pub fn output<T: Record>(&mut self, tag: &OutputTag<T>, record: T) {
        self.outputs.emit_aside(tag, record, self.moment.timestamp);
    }

    /// The same with a timestamp of its own, in milliseconds since the epoch.
    #[inline]
    pub fn output_with_timestamp<T: Record>(&mut self, tag: &OutputTag<T>, record: T, at: Timestamp) {
        self.outputs.emit_aside(tag, record, at);
    }

    /// The state and the outputs, for what emits while it reads state.
    pub(crate) fn parts(&mut self) -> (&AtKey<'a, K>, &mut Outputs<Out>) {
        (&self.state, self.outputs)
    }

    /// The subtask, from 0.
    pub fn subtask_index(&self) -> u32 {
        self.open.subtask_index
    }

    /// How many subtasks the operator has.
    pub fn parallelism(&self) -> u32 {
        self.open.parallelism
    }

    /// Where the function runs.
    pub fn open_context(&self) -> &OpenContext {
        self.open
    }
}

impl<K: Key, Out> Accessor for Context<'_, K, Out> {
    type Key = K;

    #[inline]
    fn tables(&self) -> &Tables<K> {
        self.state.tables()
    }

    #[inline]
    fn tables_mut(&mut self) -> &mut Tables<K> {
        self.state.tables_mut()
    }
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
