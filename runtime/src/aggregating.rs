//! `AggregatingState` and `ExpiringAggregating`: an accumulator per key that records are added to, for ever or for a time.

use std::fmt;
use std::marker::PhantomData;

use thalweg_common::graph::StateKind;
use thalweg_common::ttl::StateTtl;
use thalweg_state::{Accessor, Declarations, Declare, DeclareExpiring, ExpiringValue, StateKey, ValueState};

use crate::operator::Aggregate;

/// An accumulator per key, to which records are added, and the result of it: Flink's `AggregatingState`. Every method works on the
/// accumulator of the key of the context that it is given. What is stored, and shown by tools, is the accumulator.
///
/// ```
/// # mod krate { pub mod state { pub use thalweg_state::*; } } // a job has `thalweg` instead
/// use thalweg_common::failure::Failure;
/// use thalweg_runtime::aggregating::AggregatingState;
/// use thalweg_runtime::operator::{Aggregate, Context, KeyedProcess};
/// use thalweg_runtime::operators;
/// use thalweg_runtime::testing::{OperatorHarness, Setup};
/// use thalweg_state::State;
///
/// #[derive(Clone)]
/// struct Mean;
///
/// impl Aggregate<f64> for Mean {
///     type Accumulator = (f64, u64);
///     type Out = f64;
///
///     fn create(&self) -> (f64, u64) {
///         (0.0, 0)
///     }
///
///     fn add(&self, (sum, count): &mut (f64, u64), number: f64) {
///         (*sum, *count) = (*sum + number, *count + 1);
///     }
///
///     fn result(&self, (sum, count): &(f64, u64)) -> f64 {
///         sum / *count as f64
///     }
/// }
///
/// /// Emits the mean of a key's numbers with every third one.
/// #[derive(State, Clone)]
/// #[state(crate = krate)]
/// struct Means {
///     mean: AggregatingState<f64, Mean>,
/// }
///
/// impl KeyedProcess<bool, f64> for Means {
///     type Out = f64;
///
///     fn on_record(&mut self, number: f64, context: &mut Context<'_, bool, f64>) -> Result<(), Failure> {
///         self.mean.add(context, number);
///         if self.mean.accumulator(context).is_some_and(|(_, count)| count % 3 == 0) {
///             context.emit(self.mean.get(context).unwrap_or_default());
///         }
///         Ok(())
///     }
/// }
///
/// let means = Means { mean: AggregatingState::new(Mean) };
/// let factory = operators::keyed_process(|number: &f64| *number < 0.0, means);
/// let mut harness = OperatorHarness::<f64, f64>::open(factory.as_ref(), Setup::default()).unwrap();
/// harness.push(vec![1.0, 2.0, -5.0, 6.0]).unwrap();
/// assert_eq!(harness.output(), [3.0]);
/// ```
///
/// # Panics
/// Every method panics when the state was not declared by the function that uses it; see
/// [`State`](macro@thalweg_state::State).
pub struct AggregatingState<In, A: Aggregate<In>> {
    accumulators: ValueState<A::Accumulator>,
    aggregate: A,
    input: PhantomData<fn(In)>,
}

impl<In, A: Aggregate<In>> AggregatingState<In, A> {
    /// Adds by this aggregate.
    pub fn new(aggregate: A) -> Self {
        Self { accumulators: ValueState::default(), aggregate, input: PhantomData }
    }

    /// The result so far, if anything was added.
    #[inline]
    pub fn get(&self, context: &impl Accessor) -> Option<A::Out> {
        self.accumulator(context).map(|accumulator| self.aggregate.result(accumulator))
    }

    /// What the result is made of, if anything was added.
    #[inline]
    pub fn accumulator<'a>(&self, context: &'a impl Accessor) -> Option<&'a A::Accumulator> {
        self.accumulators.get(context)
    }

    /// Adds a record.
    #[inline]
    pub fn add(&self, context: &mut impl Accessor, record: In) {
        let accumulator = self.accumulators.get_or_insert_with(context, || self.aggregate.create());
        self.aggregate.add(accumulator, record);
    }

    /// Forgets all that was added. A key without any state takes no memory.
    pub fn clear(&self, context: &mut impl Accessor) {
        self.accumulators.clear(context);
    }
}

impl<In, A: Aggregate<In>> Declare for AggregatingState<In, A> {
    fn declare<K: StateKey>(&mut self, name: &str, declarations: &mut Declarations<K>) {
        self.accumulators.declare_as(StateKind::Aggregating, name, declarations);
    }
}

impl<In, A: Aggregate<In>> Clone for AggregatingState<In, A> {
    fn clone(&self) -> Self {
        let (accumulators, aggregate) = (self.accumulators.clone(), self.aggregate.clone());
        Self { accumulators, aggregate, input: PhantomData }
    }
}

impl<In, A: Aggregate<In>> fmt::Debug for AggregatingState<In, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AggregatingState<{}>", std::any::type_name::<A>())
    }
}

/// An accumulator per key, to which records are added, as in an [`AggregatingState`]: it lives for a time only, from when something was added
/// last, by the clock of the machine (processing time). What is added behind its end is the first again.
///
/// ```
/// # mod krate { pub mod state { pub use thalweg_state::*; } } // a job has `thalweg` instead
/// use thalweg_runtime::aggregating::ExpiringAggregating;
/// use thalweg_runtime::operator::Aggregate;
/// use thalweg_state::State;
///
/// #[derive(Clone)]
/// struct Sum;
///
/// impl Aggregate<u64> for Sum {
///     type Accumulator = u64;
///     type Out = u64;
///
///     fn create(&self) -> u64 {
///         0
///     }
///
///     fn add(&self, sum: &mut u64, number: u64) {
///         *sum += number;
///     }
///
///     fn result(&self, sum: &u64) -> u64 {
///         *sum
///     }
/// }
///
/// /// Sums that are forgotten when nothing was added for an hour.
/// #[derive(State, Clone)]
/// #[state(crate = krate)]
/// struct Sums {
///     #[state(ttl = "1h")]
///     sum: ExpiringAggregating<u64, Sum>,
/// }
///
/// let sums = Sums { sum: ExpiringAggregating::new(Sum) };
/// ```
///
/// # Panics
/// Every method panics when the state was not declared by the function that uses it; see
/// [`State`](macro@thalweg_state::State).
pub struct ExpiringAggregating<In, A: Aggregate<In>> {
    accumulators: ExpiringValue<A::Accumulator>,
    aggregate: A,
    input: PhantomData<fn(In)>,
}

impl<In, A: Aggregate<In>> ExpiringAggregating<In, A> {
    /// Adds by this aggregate.
    pub fn new(aggregate: A) -> Self {
        Self { accumulators: ExpiringValue::default(), aggregate, input: PhantomData }
    }

    /// The result so far, if anything was added. With [`OnReadAndWrite`](thalweg_common::ttl::TtlUpdate::OnReadAndWrite) its life begins
    /// anew.
    pub fn get(&self, context: &mut impl Accessor) -> Option<A::Out> {
        self.accumulators.get(context).map(|accumulator| self.aggregate.result(accumulator))
    }

    /// What the result is made of, without any effect on its life.
    pub fn peek<'a>(&self, context: &'a impl Accessor) -> Option<&'a A::Accumulator> {
        self.accumulators.peek(context)
    }

    /// Adds a record. The life of the accumulator begins anew.
    pub fn add(&self, context: &mut impl Accessor, record: In) {
        let accumulator = self.accumulators.get_or_insert_with(context, || self.aggregate.create());
        self.aggregate.add(accumulator, record);
    }

    /// Forgets all that was added. A key without any state takes no memory.
    pub fn clear(&self, context: &mut impl Accessor) {
        self.accumulators.clear(context);
    }
}

impl<In, A: Aggregate<In>> DeclareExpiring for ExpiringAggregating<In, A> {
    fn declare<K: StateKey>(&mut self, name: &str, ttl: StateTtl, declarations: &mut Declarations<K>) {
        self.accumulators.declare_as(StateKind::Aggregating, name, ttl, declarations);
    }
}

impl<In, A: Aggregate<In>> Clone for ExpiringAggregating<In, A> {
    fn clone(&self) -> Self {
        let (accumulators, aggregate) = (self.accumulators.clone(), self.aggregate.clone());
        Self { accumulators, aggregate, input: PhantomData }
    }
}

impl<In, A: Aggregate<In>> fmt::Debug for ExpiringAggregating<In, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ExpiringAggregating<{}>", std::any::type_name::<A>())
    }
}
