//! Two streams as the two inputs of one operator: Flink's `connect`.

use std::fmt;
use std::sync::Arc;

use thalweg_common::record::Record;
use thalweg_runtime::co_process::{Co, CoProcess, Either, KeyedCoProcess};
use thalweg_runtime::operator::{Key, KeyedProcess};
use thalweg_runtime::operators;
use thalweg_runtime::program::{Node, OperatorFactory};

use crate::environment::{EdgeMaker, Environment};
use crate::graph::{NodeSpec, Place};
use crate::keyed::{KeyOf, KeyedStream, declared_states, hash_edge};
use crate::stream::{DataStream, unkeyed};

/// Two streams, of records of type `A` and of type `B`, that one operator reads; made by [`DataStream::connect`]. Other than
/// [`union`](DataStream::union) it leaves both their types.
///
/// ```text
/// first  ── A ──┐
///               ├── operator ── Out
/// second ── B ──┘
/// ```
///
/// Records of both come in no particular order, those of each stream in theirs; the operator's watermark is the lower one of the two
/// streams'.
#[derive(Debug)]
pub struct ConnectedStreams<A, B> {
    first: DataStream<A>,
    second: DataStream<B>,
}

impl<A, B> Clone for ConnectedStreams<A, B> {
    fn clone(&self) -> Self {
        Self { first: self.first.clone(), second: self.second.clone() }
    }
}

impl<A: Record, B: Record> ConnectedStreams<A, B> {
    pub(crate) fn new(first: DataStream<A>, second: DataStream<B>) -> Self {
        Self { first, second }
    }

    /// Turns each record into one of the type that both shall have: Flink's `CoMapFunction`.
    ///
    /// ```
    /// use thalweg::prelude::*;
    ///
    /// # let both = thalweg::testing::run_local(|env| {
    /// let (numbers, texts) = (env.from_iter([1_u64, 2]), env.from_iter(["a", "b"].map(String::from)));
    /// let both = numbers.connect(&texts).map(|number| number.to_string(), |text| text);
    /// # Ok(both.collect())})?;
    /// # let mut both = both.take();
    /// # both.sort();
    /// # assert_eq!(both, ["1", "2", "a", "b"]);
    /// # Ok::<(), thalweg::Error>(())
    /// ```
    #[track_caller]
    pub fn map<U: Record>(
        &self,
        first: impl Fn(A) -> U + Clone + Send + Sync + 'static,
        second: impl Fn(B) -> U + Clone + Send + Sync + 'static,
    ) -> DataStream<U> {
        let map = operators::map(move |record: Either<A, B>| record.map(&first, &second));
        self.attach(NodeSpec::new("co_map", "Co-Map", Place::caller()), map)
    }

    /// Turns each record into any number of others, of the type that both shall have: Flink's `CoFlatMapFunction`.
    #[track_caller]
    pub fn flat_map<I>(
        &self,
        first: impl Fn(A) -> I + Clone + Send + Sync + 'static,
        second: impl Fn(B) -> I + Clone + Send + Sync + 'static,
    ) -> DataStream<I::Item>
    where
        I: IntoIterator<Item: Record> + 'static,
    {
        let map = operators::flat_map(move |record: Either<A, B>| record.map(&first, &second));
        self.attach(NodeSpec::new("co_flat_map", "Co-Flat Map", Place::caller()), map)
    }

    /// Runs a function on the records of both: Flink's `CoProcessFunction`.
    #[track_caller]
    pub fn process<P: CoProcess<A, B>>(&self, mut process: P) -> DataStream<P::Out> {
        let mut spec = NodeSpec::new("co_process", "Co-Process", Place::caller());
        spec.has_side_outputs = true;
        spec.remembers(|states| process.operator_state(states));
        self.attach(spec, operators::process::<Either<A, B>, _>(Co(process)))
    }

    /// Partitions both streams by a key, so that records with the same key meet in one subtask.
    #[track_caller]
    pub fn key_by<K, F, G>(&self, first: F, second: G) -> KeyedConnectedStreams<K, A, B, F, G>
    where
        K: Key,
        F: Fn(&A) -> K + Clone + Send + Sync + 'static,
        G: Fn(&B) -> K + Clone + Send + Sync + 'static,
    {
        KeyedConnectedStreams::new(self.first.key_by(first), self.second.key_by(second))
    }

    fn attach<U: Record>(&self, spec: NodeSpec, factory: Arc<dyn OperatorFactory>) -> DataStream<U> {
        let edges = || -> EdgeMaker { Box::new(unkeyed::<Either<A, B>>) };
        attach_two(&self.first, &self.second, spec, factory, edges)
    }
}

/// Two keyed streams that one operator reads, made by [`KeyedStream::connect`] or [`ConnectedStreams::key_by`]. Their keys are of one
/// type; records with the same key are processed by the same subtask, with the same state.
pub struct KeyedConnectedStreams<K, A, B, F, G> {
    first: KeyedStream<K, A, F>,
    second: KeyedStream<K, B, G>,
}

impl<K, A, B, F: Clone, G: Clone> Clone for KeyedConnectedStreams<K, A, B, F, G> {
    fn clone(&self) -> Self {
        Self { first: self.first.clone(), second: self.second.clone() }
    }
}

impl<K, A, B, F, G> fmt::Debug for KeyedConnectedStreams<K, A, B, F, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} with {:?}", self.first, self.second)
    }
}

impl<K, A, B, F, G> KeyedConnectedStreams<K, A, B, F, G>
where
    K: Key,
    A: Record,
    B: Record,
    F: KeyOf<A, K>,
    G: KeyOf<B, K>,
{
    pub(crate) fn new(first: KeyedStream<K, A, F>, second: KeyedStream<K, B, G>) -> Self {
        Self { first, second }
    }

    /// Runs a function with state on the records of each key of both streams: Flink's `KeyedCoProcessFunction`.
    ///
    /// ```
    /// use thalweg::prelude::*;
    ///
    /// /// Passes what a key's last switch allows.
    /// #[derive(State, Clone, Default)]
    /// struct Switched {
    ///     is_on: ValueState<bool>,
    /// }
    ///
    /// impl KeyedCoProcess<String, (String, u64), (String, bool)> for Switched {
    ///     type Out = u64;
    ///
    ///     fn on_first(
    ///         &mut self,
    ///         (_, number): (String, u64),
    ///         context: &mut Context<'_, String, u64>,
    ///     ) -> Result<(), Failure> {
    ///         if self.is_on.get(context) == Some(&true) {
    ///             context.emit(number);
    ///         }
    ///         Ok(())
    ///     }
    ///
    ///     fn on_second(
    ///         &mut self,
    ///         (_, is_on): (String, bool),
    ///         context: &mut Context<'_, String, u64>,
    ///     ) -> Result<(), Failure> {
    ///         self.is_on.set(context, is_on);
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # fn topology(numbers: DataStream<(String, u64)>, switches: DataStream<(String, bool)>) {
    /// numbers
    ///     .key_by(|number| number.0.clone())
    ///     .connect(&switches.key_by(|switch| switch.0.clone()))
    ///     .process(Switched::default())
    ///     .uid("switched")
    ///     .print();
    /// # }
    /// ```
    #[track_caller]
    pub fn process<P: KeyedCoProcess<K, A, B>>(&self, process: P) -> DataStream<P::Out> {
        self.operator("co_process", "Co-Process", process)
    }

    /// An operator with state on both streams.
    #[track_caller]
    pub(crate) fn operator<P: KeyedCoProcess<K, A, B>>(
        &self,
        kind: &'static str,
        name: &str,
        process: P,
    ) -> DataStream<P::Out> {
        self.either(kind, name, Co(process))
    }

    /// The same with a function on records of either stream.
    #[track_caller]
    pub(crate) fn either<P: KeyedProcess<K, Either<A, B>>>(
        &self,
        kind: &'static str,
        name: &str,
        mut process: P,
    ) -> DataStream<P::Out> {
        let mut spec = NodeSpec::new(kind, name, Place::caller());
        let (first, second) = (self.first.stream(), self.second.stream());
        spec.states = declared_states::<K>(first.environment(), &mut process, P::TIMERS, spec.place);
        spec.key_schema = Some(K::schema());
        spec.has_side_outputs = true;
        let key = self.key();
        let factory = operators::keyed_process::<K, Either<A, B>, _, _>(key.clone(), process);
        attach_two(first, second, spec, factory, hash_edge::<Either<A, B>, K>(&key))
    }

    pub(crate) fn environment(&self) -> &Environment {
        self.first.stream().environment()
    }

    /// The key of a record of either stream.
    fn key(&self) -> impl Fn(&Either<A, B>) -> K + Clone + Send + Sync + 'static {
        let (first, second) = (self.first.key().clone(), self.second.key().clone());
        move |record| match record {
            Either::First(record) => first(record),
            Either::Second(record) => second(record),
        }
    }
}

/// Adds an operator behind two streams; `edge` makes the code of an edge that carries records of either.
pub(crate) fn attach_two<A: Record, B: Record, U: Record>(
    first: &DataStream<A>,
    second: &DataStream<B>,
    spec: NodeSpec,
    factory: Arc<dyn OperatorFactory>,
    edge: impl Fn() -> EdgeMaker,
) -> DataStream<U> {
    attach_sides(first, second, spec, factory, &edge, &edge)
}

/// The same with edges of the first stream that differ from those of the second one.
pub(crate) fn attach_sides<A: Record, B: Record, U: Record>(
    first: &DataStream<A>,
    second: &DataStream<B>,
    mut spec: NodeSpec,
    factory: Arc<dyn OperatorFactory>,
    first_edge: &impl Fn() -> EdgeMaker,
    second_edge: &impl Fn() -> EdgeMaker,
) -> DataStream<U> {
    let schema_fingerprint = Either::<A, B>::schema().fingerprint();
    let (firsts, seconds) = (first.edge_specs(spec.place), second.edge_specs(spec.place));
    let edges_of_first = firsts.iter().map(|_| {
        let edge = first_edge();
        Box::new(move |partitioning| edge(partitioning).fed_by(Either::<A, B>::First)) as EdgeMaker
    });
    let edges_of_second = seconds.iter().map(|_| {
        let edge = second_edge();
        Box::new(move |partitioning| edge(partitioning).fed_by(Either::<A, B>::Second)) as EdgeMaker
    });
    let edges = edges_of_first.chain(edges_of_second).collect();
    spec.inputs = firsts.into_iter().chain(seconds).collect();
    spec.inputs.iter_mut().for_each(|input| input.schema_fingerprint = schema_fingerprint);
    let environment = first.environment();
    let node = environment.add(spec, Node::operator::<U>(factory), edges);
    DataStream::of_node(environment.clone(), node)
}
