//! Functions on keyed streams, and what they work with: the key at hand, its state and its timers, and the outputs.
//!
//! Implemented by jobs, by windows and by patterns; run by `operators/keyed`. Public as part of [`operator`](crate::operator).

use std::hash::Hash;

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_state::{Accessor, AtKey, State, Tables, TimeDomain};

use crate::batch::known;
use crate::operator::OpenContext;
use crate::side_output::{OutputTag, Outputs};

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
/// let user = |user: &String| user.clone();
/// let mut harness = OperatorHarness::keyed(user, PerMinute::default(), Setup::default()).unwrap();
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
