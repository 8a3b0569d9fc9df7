//! Functions that see the records of one stream together with what another stream, which all subtasks get, has told them.
//!
//! On a record's way: the records of the first stream find their subtask as ever, those of the second one go to all subtasks, and change
//! their [`BroadcastState`] there. Both travel as [`Either`], see [`co_process`](crate::co_process).

use thalweg_common::Timestamp;
use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_state::State;

use crate::co_process::Either;
use crate::operator::{Context, Key, OpenContext};
use crate::operator_state::{BroadcastState, OperatorStates};
use crate::process::{Process, ProcessContext};

/// The name of the broadcast state, as the plan shows it.
const STATE: &str = "broadcast";

/// A function on a stream that is not keyed, and on one that is broadcast: Flink's `BroadcastProcessFunction`.
///
/// `on_broadcast` must change the state in the same way in all subtasks. It is part of checkpoints; after a change of parallelism each
/// subtask has the state of one former subtask.
///
/// ```
/// use thalweg_common::failure::Failure;
/// use thalweg_runtime::broadcast::{BroadcastProcess, Broadcasting};
/// use thalweg_runtime::co_process::Either;
/// use thalweg_runtime::operator_state::BroadcastState;
/// use thalweg_runtime::operators;
/// use thalweg_runtime::process::ProcessContext;
/// use thalweg_runtime::testing::{OperatorHarness, Setup};
///
/// /// Lets pass what a rule allows: the highest price of a ticker.
/// #[derive(Clone)]
/// struct Allowed;
///
/// impl BroadcastProcess<(String, u64), (String, u64)> for Allowed {
///     type Key = String;
///     type Value = u64;
///     type Out = (String, u64);
///
///     fn on_record(
///         &mut self,
///         (ticker, price): (String, u64),
///         highest: &BroadcastState<String, u64>,
///         context: &mut ProcessContext<'_, Self::Out>,
///     ) -> Result<(), Failure> {
///         if highest.get(&ticker).is_some_and(|highest| price <= *highest) {
///             context.emit((ticker, price));
///         }
///         Ok(())
///     }
///
///     fn on_broadcast(
///         &mut self,
///         (ticker, price): (String, u64),
///         highest: &mut BroadcastState<String, u64>,
///         _: &mut ProcessContext<'_, Self::Out>,
///     ) -> Result<(), Failure> {
///         highest.insert(ticker, price);
///         Ok(())
///     }
/// }
///
/// type Event = Either<(String, u64), (String, u64)>;
/// let factory = operators::process::<Event, _>(Broadcasting::new(Allowed));
/// let mut harness = OperatorHarness::<Event, (String, u64)>::open(factory.as_ref(), Setup::default()).unwrap();
/// let trade = |price| Either::First(("AMZN".to_string(), price));
/// let rule = |price| Either::Second(("AMZN".to_string(), price));
/// harness.push(vec![trade(1), rule(10), trade(2), trade(11), rule(20), trade(12)]).unwrap();
/// let prices: Vec<u64> = harness.output().into_iter().map(|(_, price)| price).collect();
/// assert_eq!(prices, [2, 12]);
/// ```
pub trait BroadcastProcess<In, Broadcast>: Clone + Send + Sync + 'static {
    /// The keys of the broadcast state.
    type Key: Key;
    /// Its values.
    type Value: Record;
    /// What it emits to its main output.
    type Out: Record;

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
    fn on_record(
        &mut self,
        record: In,
        state: &BroadcastState<Self::Key, Self::Value>,
        context: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<(), Failure>;

    /// Processes one record of the stream that is broadcast, in every subtask.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn on_broadcast(
        &mut self,
        record: Broadcast,
        state: &mut BroadcastState<Self::Key, Self::Value>,
        context: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<(), Failure>;
}

/// A function on a keyed stream, and on one that is broadcast: Flink's `KeyedBroadcastProcessFunction`. Its fields are its keyed state
/// (derive [`State`](macro@thalweg_state::State)); the broadcast state comes as an argument, which only `on_broadcast` can change.
///
/// A record of the broadcast stream has no key, so `on_broadcast` sees no keyed state.
pub trait KeyedBroadcastProcess<K: Key, In, Broadcast>: State + Clone + Send + Sync + 'static {
    /// The keys of the broadcast state.
    type Key: Key;
    /// Its values.
    type Value: Record;
    /// What it emits to its main output.
    type Out: Record;

    /// Whether it may have timers; see [`KeyedProcess::TIMERS`](crate::operator::KeyedProcess::TIMERS).
    const TIMERS: bool = true;

    /// Called once before the first record.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn open(&mut self, context: &OpenContext) -> Result<(), Failure> {
        let _ = context;
        Ok(())
    }

    /// Processes one record of a key.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn on_record(
        &mut self,
        record: In,
        state: &BroadcastState<Self::Key, Self::Value>,
        context: &mut Context<'_, K, Self::Out>,
    ) -> Result<(), Failure>;

    /// Processes one record of the stream that is broadcast, in every subtask.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn on_broadcast(
        &mut self,
        record: Broadcast,
        state: &mut BroadcastState<Self::Key, Self::Value>,
        context: &mut ProcessContext<'_, Self::Out>,
    ) -> Result<(), Failure>;

    /// A timer of the key at hand has fired; see [`KeyedProcess::on_timer`](crate::operator::KeyedProcess::on_timer).
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn on_timer(
        &mut self,
        at: Timestamp,
        state: &BroadcastState<Self::Key, Self::Value>,
        context: &mut Context<'_, K, Self::Out>,
    ) -> Result<(), Failure> {
        let _ = (at, state, context);
        Ok(())
    }

    /// Called when both inputs have ended, once for every key that has state then.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn on_end(
        &mut self,
        state: &BroadcastState<Self::Key, Self::Value>,
        context: &mut Context<'_, K, Self::Out>,
    ) -> Result<(), Failure> {
        let _ = (state, context);
        Ok(())
    }
}

/// A function with its broadcast state.
#[derive(Clone)]
pub struct Broadcasting<P, K, V> {
    pub(crate) process: P,
    pub(crate) state: BroadcastState<K, V>,
}

impl<P, K, V> Broadcasting<P, K, V> {
    /// With nothing in the state.
    pub fn new(process: P) -> Self {
        Self { process, state: BroadcastState::default() }
    }
}

impl<P, K: Key, V: Record> Broadcasting<P, K, V> {
    /// Visits the broadcast state.
    #[doc(hidden)]
    pub fn broadcast_state(&mut self, states: &mut OperatorStates<'_>) {
        states.broadcast(STATE, &mut self.state);
    }
}

impl<A, B, P: BroadcastProcess<A, B>> Process<Either<A, B>> for Broadcasting<P, P::Key, P::Value> {
    type Out = P::Out;

    fn open(&mut self, context: &OpenContext) -> Result<(), Failure> {
        self.process.open(context)
    }

    fn operator_state(&mut self, states: &mut OperatorStates<'_>) {
        self.broadcast_state(states);
    }

    fn on_record(
        &mut self,
        record: Either<A, B>,
        context: &mut ProcessContext<'_, P::Out>,
    ) -> Result<(), Failure> {
        match record {
            Either::First(record) => self.process.on_record(record, &self.state, context),
            Either::Second(record) => self.process.on_broadcast(record, &mut self.state, context),
        }
    }
}

#[cfg(test)]
#[path = "broadcast_tests.rs"]
mod tests;
