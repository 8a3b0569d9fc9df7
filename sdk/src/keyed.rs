//! `KeyedStream`: a stream partitioned by key, the only place where state exists.

use std::any::type_name;
use std::fmt;
use std::marker::PhantomData;
use std::ops::AddAssign;
use std::sync::Arc;
use std::time::Duration;

use thalweg_common::graph::{StateDescriptor, TimeDescriptor};
use thalweg_common::record::Record;
use thalweg_common::task_scope::BoxError;
use thalweg_runtime::operator::{Key, KeyedProcess};
use thalweg_runtime::operators::async_io::{AsyncIo, AsyncOptions};
use thalweg_runtime::operators::{
    self, CombinePolicy, MergedReduce, Reduce, RunningAggregate, Unmerged, combine_reduce,
};
use thalweg_runtime::program::{EdgeCode, Node, OperatorFactory};
use thalweg_state::{Declarations, State};

use crate::aggregates::{Count, sum_of};
use crate::aggregation::Aggregation;
use crate::broadcast::KeyedBroadcastConnectedStreams;
use crate::connected::KeyedConnectedStreams;
use crate::environment::{EdgeMaker, Environment};
use crate::error::Error;
use crate::graph::{NodeSpec, Place};
use crate::joins::{IntervalJoined, RegularJoined};
use crate::stream::DataStream;
use crate::two_stages::TwoStages;

/// A function that gives the key of a record, as [`DataStream::key_by`] takes it.
pub trait KeyOf<T, K>: Fn(&T) -> K + Clone + Send + Sync + 'static {}

impl<T, K, F: Fn(&T) -> K + Clone + Send + Sync + 'static> KeyOf<T, K> for F {}

/// A stream of records of type `T`, partitioned by keys of type `K`; made by [`DataStream::key_by`].
///
/// Its operators remember something of each key. Give each a [`uid`](DataStream::uid), by which a changed job finds
/// that state again.
pub struct KeyedStream<K, T, F = fn(&T) -> K> {
    stream: DataStream<T>,
    key: F,
    combines: bool,
    keys: PhantomData<fn() -> K>,
}

impl<K, T, F: Clone> Clone for KeyedStream<K, T, F> {
    fn clone(&self) -> Self {
        let (stream, key) = (self.stream.clone(), self.key.clone());
        Self { stream, key, combines: self.combines, keys: PhantomData }
    }
}

impl<K, T, F> fmt::Debug for KeyedStream<K, T, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} by {}", self.stream, type_name::<K>())
    }
}

impl<K, T, F> KeyedStream<K, T, F>
where
    K: Key,
    T: Record,
    F: KeyOf<T, K>,
{
    pub(crate) fn new(stream: DataStream<T>, key: F) -> Self {
        Self { stream, key, combines: true, keys: PhantomData }
    }

    /// Switches combining off for the operator behind this: [`aggregate`](Self::aggregate) and
    /// [`reduce_associative`](Self::reduce_associative) then emit a new result after every single record. The state of
    /// the operator stays the same.
    #[must_use]
    pub fn without_combining(mut self) -> Self {
        self.combines = false;
        self
    }

    /// Combines the records of each key one after the other, and emits every new value: `function(value so far, record)`.
    /// A key's first record is its first value.
    ///
    /// ```text
    /// (a, 3)  (b, 5)  (a, 4)  ──► sum ──► (a, 3)  (b, 5)  (a, 7)
    /// ```
    ///
    /// Where the function is associative, [`reduce_associative`](Self::reduce_associative) does the same faster.
    #[track_caller]
    pub fn reduce(&self, function: impl Fn(T, T) -> T + Clone + Send + Sync + 'static) -> DataStream<T> {
        self.operator("reduce", "Reduce", Reduce::new(function))
    }

    /// Combines the records of each key by a function that is associative: `f(f(a, b), c)` is `f(a, f(b, c))`. Minimum,
    /// maximum, sums and concatenation are; a mean is not.
    ///
    /// The records of a key are first combined in each subtask that reads them, and only what comes of it is sent to
    /// the subtask that owns the key, as in the local-global aggregation of Flink's Table API. So a key with very many
    /// records holds up nobody. The final values are the same as those of [`reduce`](Self::reduce); on the way to them
    /// a new value is emitted for each key and combined batch, and not after every record. Nothing is held back when
    /// there is nothing more to read, and otherwise for about 5 ms. It stays exactly-once: at a barrier everything that
    /// was combined is sent before it.
    ///
    /// ```
    /// use thalweg::prelude::*;
    ///
    /// # let lowest = thalweg::testing::run_local(|env| {
    /// let lowest = env
    ///     .from_iter([("AMZN", 31), ("TBV", 74), ("AMZN", 28)].map(|(ticker, price)| (ticker.to_string(), price)))
    ///     .key_by(|(ticker, _)| ticker.clone())
    ///     .reduce_associative(|lowest, next| if next.1 < lowest.1 { next } else { lowest })
    ///     .uid("lowest");
    /// # Ok(lowest.collect())})?;
    /// // ("AMZN", 28) and ("TBV", 74)
    /// # let found: std::collections::BTreeMap<String, i32> = lowest.take().into_iter().collect();
    /// # assert_eq!(found.into_iter().collect::<Vec<_>>(), [("AMZN".to_string(), 28), ("TBV".to_string(), 74)]);
    /// # Ok::<(), thalweg::Error>(())
    /// ```
    #[track_caller]
    pub fn reduce_associative(
        &self,
        function: impl Fn(T, T) -> T + Clone + Send + Sync + 'static,
    ) -> DataStream<T> {
        let (key, combined) = (self.key.clone(), function.clone());
        let combiner = move |policy| combine_reduce(key.clone(), combined.clone(), policy);
        let (plain, merged) = (Reduce::new(function.clone()), MergedReduce::new(function));
        self.two_stages::<T, _, _>("reduce", "Reduce", plain, merged, combiner)
    }

    /// Aggregates the records of each key, and emits the key with every new result.
    ///
    /// How often depends on what the aggregate says of itself. An [`Aggregate`](crate::operator::Aggregate) is asked
    /// for a result after every record. A [`MergeAggregate`](crate::operator::MergeAggregate), whose accumulators can
    /// be merged, first aggregates in each subtask that reads the records, and emits a result for each key and combined
    /// batch; the final results are the same. [`reduce_associative`](Self::reduce_associative) says more about that,
    /// [`without_combining`](Self::without_combining) switches it off, and so does `table.optimizer.agg-phase-strategy:
    /// ONE_PHASE` for the whole job. With the same uid the state is found again either way.
    ///
    /// ```
    /// use thalweg::prelude::*;
    ///
    /// /// The mean of all numbers so far.
    /// #[derive(Clone)]
    /// struct Mean;
    ///
    /// impl MergeAggregate<f64> for Mean {
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
    ///     fn merge(&self, (sum, count): &mut (f64, u64), later: (f64, u64)) {
    ///         (*sum, *count) = (*sum + later.0, *count + later.1);
    ///     }
    ///
    ///     fn result(&self, (sum, count): &(f64, u64)) -> f64 {
    ///         sum / *count as f64
    ///     }
    /// }
    ///
    /// # let means = thalweg::testing::run_local(|env| {
    /// let means = env.from_iter([1.0, 2.5, 6.0]).key_by(|number| *number < 2.0).aggregate(Mean).uid("mean");
    /// # Ok(means.collect())})?;
    /// // (true, 1.0) and (false, 4.25)
    /// # let found: std::collections::BTreeMap<bool, f64> = means.take().into_iter().collect();
    /// # assert_eq!(found.into_iter().collect::<Vec<_>>(), [(false, 4.25), (true, 1.0)]);
    /// # Ok::<(), thalweg::Error>(())
    /// ```
    ///
    /// A type that is neither is refused, as is one that wants to be both:
    ///
    /// ```compile_fail,E0277
    /// # use thalweg::prelude::*;
    /// # fn topology(env: &Environment) {
    /// env.from_iter([1.0, 2.5, 6.0]).key_by(|number| *number < 2.0).aggregate("mean");
    /// # }
    /// ```
    #[track_caller]
    pub fn aggregate<A: Aggregation<T, Kind>, Kind>(&self, aggregate: A) -> DataStream<(K, A::Out)> {
        aggregate.declare(self)
    }

    /// Counts the records of each key, and emits the key with every new count, after every record.
    /// [`aggregate(Count)`](crate::aggregates::Count) counts faster and emits more seldom.
    ///
    /// ```text
    /// a  b  a  ──► (a, 1)  (b, 1)  (a, 2)
    /// ```
    #[track_caller]
    pub fn count(&self) -> DataStream<(K, u64)> {
        self.operator("count", "Count", RunningAggregate::<T, _>::new(Unmerged(Count)))
    }

    /// Adds up a number of each record by key, and emits the key with every new sum, after every record.
    /// [`aggregate(sum_of(..))`](crate::aggregates::sum_of) adds up faster and emits more seldom.
    #[track_caller]
    pub fn sum_by<N>(&self, number: impl Fn(&T) -> N + Clone + Send + Sync + 'static) -> DataStream<(K, N)>
    where
        N: Record + AddAssign + Default,
    {
        self.operator("sum", "Sum", RunningAggregate::<T, _>::new(Unmerged(sum_of(number))))
    }

    /// Makes a request to the outside for each record, as [`DataStream::async_map`] does, but for records of the same key one after the
    /// other, so that their results leave in their order and none is asked for before the one in front of it is answered.
    #[track_caller]
    pub fn async_map<U, Request, Answer, E>(&self, options: AsyncOptions, request: Request) -> DataStream<U>
    where
        U: Record,
        Request: Fn(T) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Result<U, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.async_io(AsyncIo::single(options, request))
    }

    /// The same as [`DataStream::async_io`], for records of the same key one after the other.
    #[track_caller]
    pub fn async_io<U: Record>(&self, operator: AsyncIo<T, U>) -> DataStream<U> {
        let operator = operator.by_key(self.key.clone());
        let spec = NodeSpec::new("async", "Async I/O", Place::caller());
        self.stream.asynchronous(spec, operator, hash_edge(&self.key))
    }

    /// Runs a function with state on the records of each key: Flink's `KeyedProcessFunction`. What it emits to side outputs is read
    /// with [`side_output`](DataStream::side_output).
    #[track_caller]
    pub fn process<P: KeyedProcess<K, T>>(&self, process: P) -> DataStream<P::Out> {
        self.operator("process", "Process", process)
    }

    #[track_caller]
    pub(crate) fn operator<P: KeyedProcess<K, T>>(
        &self,
        kind: &'static str,
        name: &str,
        process: P,
    ) -> DataStream<P::Out> {
        self.function(NodeSpec::new(kind, name, Place::caller()), process)
    }

    /// Adds windows, of which the plan says these words.
    #[track_caller]
    pub(crate) fn windows<P: KeyedProcess<K, T>>(
        &self,
        name: &str,
        words: String,
        process: P,
    ) -> DataStream<P::Out> {
        let mut spec = NodeSpec::new("window", name, Place::caller());
        spec.time = Some(TimeDescriptor { words, ..TimeDescriptor::default() });
        self.function(spec, process)
    }

    fn function<P: KeyedProcess<K, T>>(&self, mut spec: NodeSpec, mut process: P) -> DataStream<P::Out> {
        spec.states = declared_states::<K>(self.stream.environment(), &mut process, P::TIMERS, spec.place);
        spec.key_schema = Some(K::schema());
        spec.has_side_outputs = true;
        let factory = operators::keyed_process(self.key.clone(), process);
        let edge = hash_edge(&self.key);
        self.stream.attach(spec, factory, edge)
    }

    /// Declares an aggregation in two stages: `combiner` makes accumulators of the records in front of the hash edge,
    /// `merged` puts these together behind it. `plain` has the same state and does all at once, for jobs that do not
    /// combine.
    #[track_caller]
    pub(crate) fn two_stages<Accumulator, P, M>(
        &self,
        kind: &'static str,
        name: &str,
        plain: P,
        mut merged: M,
        combiner: impl Fn(CombinePolicy) -> Arc<dyn OperatorFactory>,
    ) -> DataStream<P::Out>
    where
        Accumulator: Record,
        P: KeyedProcess<K, T>,
        M: KeyedProcess<K, (K, Accumulator), Out = P::Out>,
    {
        if !self.combines {
            return self.operator(kind, name, plain);
        }
        let mut spec = NodeSpec::new(kind, name, Place::caller());
        spec.states = declared_states::<K>(self.stream.environment(), &mut merged, M::TIMERS, spec.place);
        spec.key_schema = Some(K::schema());
        let one_stage = (
            self.stream.edge_specs(spec.place),
            Node::operator::<P::Out>(operators::keyed_process(self.key.clone(), plain)),
            self.stream.edge_specs(spec.place).iter().map(|_| hash_edge(&self.key)()).collect(),
        );
        let mut local = NodeSpec::new("combine", "Combine", spec.place);
        local.is_combiner = true;
        let (stream, combiners) =
            self.stream.combined::<(K, Accumulator)>(&local, &combiner(CombinePolicy::WhilePaying));
        let key = |pair: &(K, Accumulator)| pair.0.clone();
        let stream = stream.attach(spec, operators::keyed_process(key, merged), hash_edge(&key));
        let tireless = || Node::operator::<(K, Accumulator)>(combiner(CombinePolicy::Always));
        if let Some(merge) = stream.declared_node() {
            let tireless = combiners.iter().map(|_| tireless()).collect();
            self.stream.environment().add_two_stages(TwoStages { combiners, tireless, merge, one_stage });
        }
        stream
    }

    /// This stream and another one, of any type, whose keys are of the same type, as the two inputs of one operator.
    pub fn connect<U, G>(&self, other: &KeyedStream<K, U, G>) -> KeyedConnectedStreams<K, T, U, F, G>
    where
        U: Record,
        G: KeyOf<U, K>,
    {
        KeyedConnectedStreams::new(self.clone(), other.clone())
    }

    /// A mistake in the topology.
    pub(crate) fn fail(&self, place: Place, error: impl Into<Error>) {
        self.stream.environment().fail(place, error);
    }

    /// Pairs each record with those of another stream that have the same key and whose time is from `lower_ms` before (below zero) to
    /// `upper_ms` behind its own, in milliseconds, both included: Flink's `intervalJoin(..).between(..)`.
    ///
    /// ```text
    /// left            L(100 s)
    /// right  ....[90 s ........ 130 s]....    between -10_000 and 30_000
    /// ```
    ///
    /// A pair is emitted as soon as both are there, with the later time of both. Each record is kept until a watermark says that no partner
    /// can come any more, so both streams need timestamps and watermarks. A record that comes behind a watermark later than its own time
    /// is late: it is dropped, or goes to a side output.
    ///
    /// ```
    /// use thalweg::prelude::*;
    ///
    /// const LATE: OutputTag<(String, u64)> = OutputTag::new("late-purchases");
    ///
    /// # fn topology(clicks: DataStream<(String, String)>, purchases: DataStream<(String, u64)>) {
    /// // What was bought within ten minutes of a click, the click's page with it.
    /// let bought = clicks
    ///     .key_by(|click| click.0.clone())
    ///     .interval_join(&purchases.key_by(|purchase| purchase.0.clone()), 0, 600_000)
    ///     .upper_bound_exclusive()
    ///     .side_output_right_late_data(LATE)
    ///     .map(|click, purchase| (click.1.clone(), purchase.1))
    ///     .uid("bought");
    /// bought.side_output(&LATE).print_debug();
    /// bought.print_debug();
    /// # }
    /// ```
    #[track_caller]
    pub fn interval_join<U, G>(
        &self,
        right: &KeyedStream<K, U, G>,
        lower_ms: i64,
        upper_ms: i64,
    ) -> IntervalJoined<K, T, U, F, G>
    where
        U: Record,
        G: KeyOf<U, K>,
    {
        IntervalJoined::new(self.connect(right), lower_ms, upper_ms)
    }

    /// Pairs each record with all of another stream that have the same key, as a join in SQL does. Each record is kept for the time
    /// `retained`, by the clock of the machine, from when it came: Flink's `table.exec.state.ttl`.
    ///
    /// An inner join emits pairs. An outer join emits [changes](crate::join::Change) of its result, because a record that stands alone does so
    /// until its first partner comes: its row is deleted then. A record whose partners are no longer retained does not stand alone again.
    ///
    /// ```
    /// use thalweg::prelude::*;
    ///
    /// # fn topology(orders: DataStream<(u64, String)>, payments: DataStream<(u64, u64)>) {
    /// orders
    ///     .key_by(|order| order.0)
    ///     .regular_join(&payments.key_by(|payment| payment.0), secs(86_400))
    ///     .left_outer()
    ///     .uid("orders-with-payments")
    ///     .map(|change| match change {
    ///         Change::Insert((order, payment)) => format!("+ {order:?} {payment:?}"),
    ///         Change::Delete((order, _)) => format!("- {order:?} is paid now"),
    ///     })
    ///     .print();
    /// # }
    /// ```
    pub fn regular_join<U, G>(
        &self,
        right: &KeyedStream<K, U, G>,
        retained: Duration,
    ) -> RegularJoined<K, T, U, F, G>
    where
        U: Record,
        G: KeyOf<U, K>,
    {
        RegularJoined::new(self.connect(right), retained)
    }

    /// This stream and another one that all subtasks of the operator behind get, to change state that they have alike: rules,
    /// settings, a small table. Flink's `connect` with a broadcast stream.
    #[track_caller]
    pub fn connect_broadcast<B: Record>(
        &self,
        broadcast: &DataStream<B>,
    ) -> KeyedBroadcastConnectedStreams<K, T, B, F> {
        KeyedBroadcastConnectedStreams::new(self.clone(), broadcast.broadcast())
    }

    pub(crate) fn key(&self) -> &F {
        &self.key
    }

    pub(crate) fn stream(&self) -> &DataStream<T> {
        &self.stream
    }
}

/// The states that a function declares for keys of `K`, for the plan.
pub(crate) fn declared_states<K: Key>(
    environment: &Environment,
    state: &mut impl State,
    timers: bool,
    place: Place,
) -> Vec<StateDescriptor> {
    let mut declarations = Declarations::<K>::default();
    state.declare(&mut declarations);
    if timers {
        declarations.add_timers();
    }
    declarations.descriptors().unwrap_or_else(|error| {
        environment.fail(place, error);
        Vec::new()
    })
}

/// Makes the code of edges that send records to their keys.
pub(crate) fn hash_edge<T: Record, K: Key>(key: &impl KeyOf<T, K>) -> impl Fn() -> EdgeMaker {
    || {
        let key = key.clone();
        Box::new(move |_| EdgeCode::hash(key))
    }
}
