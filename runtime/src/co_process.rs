//! Functions with two inputs, of two types: Flink's `connect`.
//!
//! On a record's way: an edge into such an operator turns its records into [`Either`] of the two types where they are sent
//! ([`EdgeCode::fed_by`](crate::program::EdgeCode::fed_by)). So the channels, the gate, alignment, what is recorded on its way and the
//! division of it are those of an operator with one input, and a watermark is the minimum over both. Functions with two inputs are
//! functions with one that look which it is: state, timers and all else are those of [`KeyedProcess`].

use std::fmt;

use thalweg_common::failure::Failure;
use thalweg_common::record::Record;
use thalweg_common::{Record, Timestamp};
use thalweg_state::{Declarations, State, StateKey};

use crate::operator::{Context, Key, KeyedProcess, OpenContext};
use crate::operator_state::OperatorStates;
use crate::process::{Process, ProcessContext};

/// A record of one of two inputs.
#[derive(Record, Debug, Clone, PartialEq, Eq)]
#[record(crate = thalweg_common)]
pub enum Either<A, B> {
    /// Of the first one.
    First(A),
    /// Of the second one.
    Second(B),
}

impl<A, B> Either<A, B> {
    /// What the function for its input makes of it.
    #[inline]
    pub fn map<R>(self, first: impl FnOnce(A) -> R, second: impl FnOnce(B) -> R) -> R {
        match self {
            Self::First(record) => first(record),
            Self::Second(record) => second(record),
        }
    }

    /// A reference to it.
    #[inline]
    pub fn as_ref(&self) -> Either<&A, &B> {
        match self {
            Self::First(record) => Either::First(record),
            Self::Second(record) => Either::Second(record),
        }
    }
}

/// A function on two streams that are not keyed: Flink's `CoProcessFunction`.
///
/// ```
/// use thalweg_common::failure::Failure;
/// use thalweg_runtime::co_process::{Co, CoProcess, Either};
/// use thalweg_runtime::operators;
/// use thalweg_runtime::process::ProcessContext;
/// use thalweg_runtime::testing::{OperatorHarness, Setup};
///
/// /// Numbers and texts, as texts.
/// #[derive(Clone)]
/// struct Show;
///
/// impl CoProcess<u64, String> for Show {
///     type Out = String;
///
///     fn on_first(&mut self, number: u64, context: &mut ProcessContext<'_, String>) -> Result<(), Failure> {
///         context.emit(number.to_string());
///         Ok(())
///     }
///
///     fn on_second(&mut self, text: String, context: &mut ProcessContext<'_, String>) -> Result<(), Failure> {
///         context.emit(text);
///         Ok(())
///     }
/// }
///
/// type Event = Either<u64, String>;
/// let factory = operators::process::<Event, _>(Co(Show));
/// let mut harness = OperatorHarness::<Event, String>::open(factory.as_ref(), Setup::default()).unwrap();
/// harness.push(vec![Either::First(1), Either::Second("b".into())]).unwrap();
/// assert_eq!(harness.output(), ["1", "b"]);
/// ```
pub trait CoProcess<A, B>: Clone + Send + Sync + 'static {
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

    /// Visits what each subtask remembers; see [`Process::operator_state`].
    fn operator_state(&mut self, states: &mut OperatorStates<'_>) {
        let _ = states;
    }

    /// Processes one record of the first stream.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn on_first(&mut self, record: A, context: &mut ProcessContext<'_, Self::Out>) -> Result<(), Failure>;

    /// Processes one record of the second stream.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn on_second(&mut self, record: B, context: &mut ProcessContext<'_, Self::Out>) -> Result<(), Failure>;
}

/// A function on two streams that are keyed by keys of the same type: Flink's `KeyedCoProcessFunction`. Its fields are its state
/// (derive [`State`](macro@thalweg_state::State)), which both methods and the timers share for each key. The records of the two
/// streams come in no particular order; the watermark is the lower one of both.
pub trait KeyedCoProcess<K: Key, A, B>: State + Clone + Send + Sync + 'static {
    /// What it emits to its main output.
    type Out: Record;

    /// Whether it may have timers; see [`KeyedProcess::TIMERS`].
    const TIMERS: bool = true;

    /// Called once before the first record.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn open(&mut self, context: &OpenContext) -> Result<(), Failure> {
        let _ = context;
        Ok(())
    }

    /// Processes one record of the first stream.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn on_first(&mut self, record: A, context: &mut Context<'_, K, Self::Out>) -> Result<(), Failure>;

    /// Processes one record of the second stream.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn on_second(&mut self, record: B, context: &mut Context<'_, K, Self::Out>) -> Result<(), Failure>;

    /// A timer of the key at hand has fired, which either method may have registered; see [`KeyedProcess::on_timer`].
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn on_timer(&mut self, at: Timestamp, context: &mut Context<'_, K, Self::Out>) -> Result<(), Failure> {
        let _ = (at, context);
        Ok(())
    }

    /// Called when both inputs have ended, once for every key that has state then.
    ///
    /// # Errors
    /// Any; the task fails with it.
    fn on_end(&mut self, context: &mut Context<'_, K, Self::Out>) -> Result<(), Failure> {
        let _ = context;
        Ok(())
    }
}

/// A function with two inputs as one that takes [`Either`].
#[derive(Clone)]
pub struct Co<P>(pub P);

impl<P> fmt::Debug for Co<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Co<{}>", std::any::type_name::<P>())
    }
}

impl<A, B, P: CoProcess<A, B>> Process<Either<A, B>> for Co<P> {
    type Out = P::Out;

    fn open(&mut self, context: &OpenContext) -> Result<(), Failure> {
        self.0.open(context)
    }

    fn operator_state(&mut self, states: &mut OperatorStates<'_>) {
        self.0.operator_state(states);
    }

    #[inline]
    fn on_record(
        &mut self,
        record: Either<A, B>,
        context: &mut ProcessContext<'_, P::Out>,
    ) -> Result<(), Failure> {
        match record {
            Either::First(record) => self.0.on_first(record, context),
            Either::Second(record) => self.0.on_second(record, context),
        }
    }
}

impl<P: State> State for Co<P> {
    fn declare<K: StateKey>(&mut self, declarations: &mut Declarations<K>) {
        self.0.declare(declarations);
    }
}

impl<K: Key, A, B, P: KeyedCoProcess<K, A, B>> KeyedProcess<K, Either<A, B>> for Co<P> {
    type Out = P::Out;

    const TIMERS: bool = P::TIMERS;

    fn open(&mut self, context: &OpenContext) -> Result<(), Failure> {
        self.0.open(context)
    }

    #[inline]
    fn on_record(
        &mut self,
        record: Either<A, B>,
        context: &mut Context<'_, K, P::Out>,
    ) -> Result<(), Failure> {
        match record {
            Either::First(record) => self.0.on_first(record, context),
            Either::Second(record) => self.0.on_second(record, context),
        }
    }

    fn on_timer(&mut self, at: Timestamp, context: &mut Context<'_, K, P::Out>) -> Result<(), Failure> {
        self.0.on_timer(at, context)
    }

    fn on_end(&mut self, context: &mut Context<'_, K, P::Out>) -> Result<(), Failure> {
        self.0.on_end(context)
    }
}

#[cfg(test)]
#[path = "co_process_tests.rs"]
mod tests;
