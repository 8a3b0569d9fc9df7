//! `DataStream`: records on their way from one operator to the next.
//!
//! A stream is a handle on the output of an operator, perhaps with a wish how it is to be distributed. It holds no
//! records: those flow when the job runs.

use std::fmt::{Debug, Display};
use std::marker::PhantomData;

use thalweg_common::graph::{Partitioning, StateKind};
use thalweg_common::record::Record;
use thalweg_common::task_scope::BoxError;
use thalweg_runtime::operator::{Key, Sink};
use thalweg_runtime::operators::async_io::{AsyncIo, AsyncOptions};
use thalweg_runtime::operators::{self, Collected, DiscardSink, PrintSink};
use thalweg_runtime::process::Process;
use thalweg_runtime::program::{EdgeCode, Node, OperatorFactory};
use thalweg_runtime::side_output::OutputTag;

use crate::broadcast::BroadcastConnectedStreams;
use crate::connected::ConnectedStreams;
use crate::environment::{EdgeMaker, Environment, opaque_state};
use crate::error::Error;
use crate::graph::{EdgeSpec, NodeSpec, Place};
use crate::keyed::KeyedStream;
use crate::settings::operator_settings;

/// A stream of records of type `T`.
///
/// Clones are the same stream. A stream may be read by several operators: each gets all records.
pub struct DataStream<T> {
    environment: Environment,
    /// The operators whose output this is: several after [`union`](Self::union).
    inputs: Vec<Upstream>,
    /// The operator that settings such as [`uid`](Self::uid) are for.
    node: Option<usize>,
    records: PhantomData<fn() -> T>,
}

/// One operator's output and the wish how it is distributed.
#[derive(Clone, Copy)]
struct Upstream {
    node: usize,
    /// The tag of the side output that it is; nothing for the main output.
    tag: Option<&'static str>,
    wish: Option<(Partitioning, Place)>,
}

impl<T> Clone for DataStream<T> {
    fn clone(&self) -> Self {
        Self {
            environment: self.environment.clone(),
            inputs: self.inputs.clone(),
            node: self.node,
            records: PhantomData,
        }
    }
}

impl<T> Debug for DataStream<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let operators: Vec<usize> = self.inputs.iter().map(|input| input.node).collect();
        write!(f, "DataStream<{}> from operators {operators:?}", std::any::type_name::<T>())
    }
}

/// The end of a stream, to give it a [`uid`](Self::uid), a parallelism and so on.
#[derive(Debug, Clone)]
pub struct StreamSink {
    environment: Environment,
    node: Option<usize>,
}

operator_settings!(StreamSink);
operator_settings!(DataStream<T>, T);

impl<T: Record> DataStream<T> {
    pub(crate) fn of_node(environment: Environment, node: usize) -> Self {
        let inputs = vec![Upstream { node, tag: None, wish: None }];
        Self { environment, inputs, node: Some(node), records: PhantomData }
    }

    /// Turns each record into another.
    ///
    /// ```text
    /// 1  2  3  ──► |n| n * 10 ──► 10  20  30
    /// ```
    #[track_caller]
    pub fn map<U: Record>(&self, function: impl Fn(T) -> U + Clone + Send + Sync + 'static) -> DataStream<U> {
        self.transform("map", "Map", operators::map(function))
    }

    /// Turns each record into another, or fails the task: the job is then restarted as its restart strategy says.
    #[track_caller]
    pub fn try_map<U, E>(
        &self,
        function: impl Fn(T) -> Result<U, E> + Clone + Send + Sync + 'static,
    ) -> DataStream<U>
    where
        U: Record,
        E: Into<BoxError> + 'static,
    {
        self.transform("map", "Map", operators::try_map(function))
    }

    /// Keeps the records for which the function holds.
    #[track_caller]
    pub fn filter(&self, function: impl Fn(&T) -> bool + Clone + Send + Sync + 'static) -> Self {
        self.transform("filter", "Filter", operators::filter(function))
    }

    /// Turns each record into any number of others.
    ///
    /// Operators make one pass each over the records. Where steps are so small that this counts, one closure can hold them
    /// all, because options and iterators have `map` and `filter` too:
    ///
    /// ```
    /// # use thalweg::testing::run_local;
    /// # let doubled = run_local(|env| Ok(
    /// env.from_iter(["12", "x", "-3"].map(String::from))
    ///     .flat_map(|text| text.parse::<i64>().ok().filter(|number| *number > 0).map(|number| number * 2))
    /// # .collect()))?;
    /// // 24
    /// # assert_eq!(doubled.take(), [24]);
    /// # Ok::<(), thalweg::Error>(())
    /// ```
    #[track_caller]
    pub fn flat_map<I>(
        &self,
        function: impl Fn(T) -> I + Clone + Send + Sync + 'static,
    ) -> DataStream<I::Item>
    where
        I: IntoIterator<Item: Record> + 'static,
    {
        self.transform("flat_map", "Flat Map", operators::flat_map(function))
    }

    /// Turns each record into any number of others, or fails the task.
    #[track_caller]
    pub fn try_flat_map<I, E>(
        &self,
        function: impl Fn(T) -> Result<I, E> + Clone + Send + Sync + 'static,
    ) -> DataStream<I::Item>
    where
        I: IntoIterator<Item: Record> + 'static,
        E: Into<BoxError> + 'static,
    {
        self.transform("flat_map", "Flat Map", operators::try_flat_map(function))
    }

    /// Runs a function that decides for each record what it emits, and to which outputs: Flink's `ProcessFunction`. Behind
    /// [`key_by`](Self::key_by) such a function has [state](KeyedStream::process) too.
    ///
    /// ```
    /// use thalweg::prelude::*;
    ///
    /// const REFUSED: OutputTag<String> = OutputTag::new("refused");
    ///
    /// /// Numbers, and beside them what is none.
    /// #[derive(Clone)]
    /// struct Parse;
    ///
    /// impl Process<String> for Parse {
    ///     type Out = u64;
    ///
    ///     fn on_record(&mut self, text: String, context: &mut ProcessContext<'_, u64>) -> Result<(), Failure> {
    ///         match text.parse() {
    ///             Ok(number) => context.emit(number),
    ///             Err(_) => context.output(&REFUSED, text),
    ///         }
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # use thalweg::testing::run_local;
    /// # let (refused, doubled) = run_local(|env| {
    /// let numbers = env.from_iter(["1", "x", "3"].map(String::from)).process(Parse);
    /// let refused = numbers.side_output(&REFUSED).map(|text| format!("not a number: {text}"));
    /// let doubled = numbers.map(|number| number * 2);
    /// # Ok((refused.collect(), doubled.collect()))})?;
    /// # assert_eq!((refused.take(), doubled.take()), (vec!["not a number: x".to_string()], vec![2, 6]));
    /// # Ok::<(), thalweg::Error>(())
    /// ```
    #[track_caller]
    pub fn process<P: Process<T>>(&self, mut process: P) -> DataStream<P::Out> {
        let mut spec = NodeSpec::new("process", "Process", Place::caller());
        spec.has_side_outputs = true;
        spec.remembers(|states| process.operator_state(states));
        self.attach(spec, operators::process(process), || Box::new(unkeyed::<T>))
    }

    /// What the operator right before this emits to a side output: Flink's `getSideOutput`. The records have the timestamps of
    /// those that they come of. The tag is that of the function that emits, or one of the same name and type; a type that differs
    /// is an error which names the places of both tags. What is emitted to a tag that nobody reads is dropped at once.
    #[track_caller]
    pub fn side_output<S: Record>(&self, tag: &OutputTag<S>) -> DataStream<S> {
        let place = Place::caller();
        let read = match self.node {
            Some(node) => self.environment.read_side_output(node, tag).map(|()| node),
            None => Err(Error::new(
                "side_output() is for the operator right before it, but here is a union, partitioning or side output, which is \
                 none; move it right behind process()",
            )),
        };
        let node = read.map_err(|error| self.environment.fail(place, error));
        let inputs =
            node.map(|node| Upstream { node, tag: Some(tag.name()), wish: None }).into_iter().collect();
        DataStream { environment: self.environment.clone(), inputs, node: None, records: PhantomData }
    }

    /// Makes a request to the outside for each record, such as a look-up, many of them at the same time: Flink's `AsyncDataStream`.
    ///
    /// The futures are polled by the task itself; sockets and timers of tokio work in them, and code that blocks holds up its own slot
    /// only. Records whose results have not left are part of every checkpoint, and their requests are made again after a failure,
    /// so a request may be made more than once. [`AsyncOptions`](crate::async_io::AsyncOptions) says how many may be under way, in which
    /// order results leave, how long they may take and whether failed ones are repeated.
    ///
    /// ```
    /// use thalweg::prelude::*;
    ///
    /// async fn price_of(ticker: &str) -> std::io::Result<f64> {
    ///     tokio::time::sleep(Duration::from_millis(5)).await; // a request
    ///     Ok(ticker.len() as f64)
    /// }
    ///
    /// # use thalweg::testing::run_local;
    /// # let prices = run_local(|env| {
    /// let options = AsyncOptions::unordered()
    ///     .capacity(50)
    ///     .timeout(Duration::from_secs(5))
    ///     .retry(AsyncRetry::fixed_delay(3, Duration::from_millis(100)));
    /// let prices = env
    ///     .from_iter(["AMZN", "TBV"].map(String::from))
    ///     .async_map(options, |ticker| async move { Ok::<_, std::io::Error>((price_of(&ticker).await?, ticker)) })
    ///     .uid("prices");
    /// # Ok(prices.collect())})?;
    /// # let mut prices = prices.take();
    /// # prices.sort_by(|one, other| one.1.cmp(&other.1));
    /// # assert_eq!(prices, [(4.0, "AMZN".to_string()), (3.0, "TBV".to_string())]);
    /// # Ok::<(), thalweg::Error>(())
    /// ```
    #[track_caller]
    pub fn async_map<U, F, Answer, E>(&self, options: AsyncOptions, request: F) -> DataStream<U>
    where
        U: Record,
        F: Fn(T) -> Answer + Send + Sync + 'static,
        Answer: Future<Output = Result<U, E>> + Send + 'static,
        E: Into<BoxError>,
    {
        self.async_io(AsyncIo::single(options, request))
    }

    /// The same with any number of results for each record, and what becomes of records that have waited too long: see
    /// [`AsyncIo`](crate::async_io::AsyncIo).
    #[track_caller]
    pub fn async_io<U: Record>(&self, operator: AsyncIo<T, U>) -> DataStream<U> {
        let spec = NodeSpec::new("async", "Async I/O", Place::caller());
        self.asynchronous(spec, operator, || Box::new(unkeyed::<T>))
    }

    /// Partitions the stream by a key: records with the same key are processed by the same subtask, in their order. Only
    /// behind this there is state. The function must always give the same key for the same record.
    ///
    /// ```text
    /// a1  b2  a3  c4  ──► key_by ──┬──► subtask 0: a1 a3
    ///                              └──► subtask 1: b2 c4
    /// ```
    #[track_caller]
    pub fn key_by<K, F>(&self, key: F) -> KeyedStream<K, T, F>
    where
        K: Key,
        F: Fn(&T) -> K + Clone + Send + Sync + 'static,
    {
        KeyedStream::new(self.distributed(Partitioning::Hash, Place::caller()), key)
    }

    /// This stream and another one together, in no particular order.
    pub fn union(&self, other: &Self) -> Self {
        let inputs = self.inputs.iter().chain(&other.inputs).copied().collect();
        Self { environment: self.environment.clone(), inputs, node: None, records: PhantomData }
    }

    /// This stream and another one, of any type, as the two inputs of one operator.
    pub fn connect<U: Record>(&self, other: &DataStream<U>) -> ConnectedStreams<T, U> {
        ConnectedStreams::new(self.clone(), other.clone())
    }

    /// This stream and another one that all subtasks of the operator behind get, to change state that they have alike: rules,
    /// settings, a small table. Flink's `connect` with a broadcast stream.
    #[track_caller]
    pub fn connect_broadcast<B: Record>(&self, broadcast: &DataStream<B>) -> BroadcastConnectedStreams<T, B> {
        BroadcastConnectedStreams::new(self.clone(), broadcast.broadcast())
    }

    /// Spreads the records evenly over all subtasks of the next operator.
    #[track_caller]
    pub fn rebalance(&self) -> Self {
        self.distributed(Partitioning::Rebalance, Place::caller())
    }

    /// Spreads the records of each subtask over its own share of the next operator's subtasks: fewer channels than
    /// [`rebalance`](Self::rebalance), but no help against skew between subtasks.
    #[track_caller]
    pub fn rescale(&self) -> Self {
        self.distributed(Partitioning::Rescale, Place::caller())
    }

    /// Sends every record to all subtasks of the next operator.
    #[track_caller]
    pub fn broadcast(&self) -> Self {
        self.distributed(Partitioning::Broadcast, Place::caller())
    }

    /// Keeps the records in their subtask. It is an error if the next operator has another parallelism.
    #[track_caller]
    pub fn forward(&self) -> Self {
        self.distributed(Partitioning::Forward, Place::caller())
    }

    /// Writes the records to a sink. `name` is shown to people and finds the sink's transactions again after a change of
    /// the job, so it should be unique.
    #[track_caller]
    pub fn sink<S>(&self, name: &str, sink: S) -> StreamSink
    where
        S: Sink<T> + Clone + Sync + 'static,
    {
        let mut spec = NodeSpec::new("sink", name, Place::caller());
        spec.is_named = true;
        spec.states = vec![opaque_state("transactions", StateKind::Sink)];
        self.end_outside(spec, || operators::sink(sink))
    }

    /// Reads the records and drops them: Flink's `DiscardingSink`. For measurements, and where only side outputs are of interest.
    #[track_caller]
    pub fn discard(&self) -> StreamSink {
        let spec = NodeSpec::new("sink", "Discard", Place::caller());
        self.end_outside(spec, || operators::sink::<T, _>(DiscardSink))
    }

    /// Prints each record to standard output, in front of it the subtask's number if there are several. In a cluster it
    /// goes to the worker's log. After a failure lines may come twice.
    #[track_caller]
    pub fn print(&self) -> StreamSink
    where
        T: Display,
    {
        let spec = NodeSpec::new("sink", "Print to Std. Out", Place::caller());
        self.end_outside(spec, || operators::sink(PrintSink::<T>::display()))
    }

    /// The same as [`print`](Self::print) for records that have `Debug` only.
    #[track_caller]
    pub fn print_debug(&self) -> StreamSink
    where
        T: Debug,
    {
        let spec = NodeSpec::new("sink", "Print to Std. Out", Place::caller());
        self.end_outside(spec, || operators::sink(PrintSink::<T>::debug()))
    }

    /// Collects the records in this process, each exactly once; they are there when the job has ended. For tests and local
    /// runs only: a job that is submitted to a cluster is refused.
    #[track_caller]
    pub fn collect(&self) -> Collected<T> {
        let place = Place::caller();
        if !self.environment.is_local() {
            let message = "collect() keeps the records in this process, which a cluster cannot do; use .sink(..) instead";
            self.environment.fail(place, Error::new(message));
        }
        let collected = Collected::default();
        let mut spec = NodeSpec::new("sink", "Collect", place);
        spec.states = vec![opaque_state("transactions", StateKind::Sink)];
        self.end(spec, operators::sink(collected.sink()));
        collected
    }

    #[track_caller]
    pub(crate) fn transform<U: Record>(
        &self,
        kind: &'static str,
        name: &str,
        factory: std::sync::Arc<dyn OperatorFactory>,
    ) -> DataStream<U> {
        self.attach(NodeSpec::new(kind, name, Place::caller()), factory, || Box::new(unkeyed::<T>))
    }

    /// Adds an asynchronous operator behind this stream.
    pub(crate) fn asynchronous<U: Record>(
        &self,
        mut spec: NodeSpec,
        operator: AsyncIo<T, U>,
        edge: impl Fn() -> EdgeMaker,
    ) -> DataStream<U> {
        spec.states = vec![operator.state()];
        self.attach(spec, operator.factory(), edge)
    }

    /// Adds an operator behind this stream; `edge` makes the code of the edge from each input.
    pub(crate) fn attach<U: Record>(
        &self,
        mut spec: NodeSpec,
        factory: std::sync::Arc<dyn OperatorFactory>,
        edge: impl Fn() -> EdgeMaker,
    ) -> DataStream<U> {
        spec.inputs = self.edge_specs(spec.place);
        let edges = self.inputs.iter().map(|_| edge()).collect();
        let node = self.environment.add(spec, Node::operator::<U>(factory), edges);
        DataStream::of_node(self.environment.clone(), node)
    }

    /// Adds an operator behind each of this stream's inputs, and gives their outputs together, distributed as this stream is.
    pub(crate) fn combined<U: Record>(
        &self,
        spec: &NodeSpec,
        factory: &std::sync::Arc<dyn OperatorFactory>,
    ) -> (DataStream<U>, Vec<usize>) {
        let add = |input: &Upstream| {
            let inputs = vec![Upstream { wish: None, ..*input }];
            let before: Self = DataStream { inputs, node: None, ..self.clone() };
            let mut spec = spec.clone();
            spec.inputs = before.edge_specs(spec.place);
            let code = Node::operator::<U>(std::sync::Arc::clone(factory));
            self.environment.add(spec, code, vec![Box::new(unkeyed::<T>)])
        };
        let nodes: Vec<usize> = self.inputs.iter().map(add).collect();
        let wishes = self.inputs.iter().map(|input| input.wish);
        let upstream = |(node, wish): (&usize, _)| Upstream { node: *node, tag: None, wish };
        let inputs = nodes.iter().zip(wishes).map(upstream).collect();
        let environment = self.environment.clone();
        (DataStream { environment, inputs, node: None, records: PhantomData }, nodes)
    }

    /// Ends the stream outside of the job, unless a test puts something in that place.
    fn end_outside(
        &self,
        mut spec: NodeSpec,
        factory: impl FnOnce() -> std::sync::Arc<dyn OperatorFactory>,
    ) -> StreamSink {
        let Some(gathered) = self.environment.stand_in_sink::<T>(&spec.name) else {
            return self.end(spec, factory());
        };
        spec.states.clear();
        let sink = self.end(spec, gathered.sink());
        sink.node.into_iter().for_each(|node| self.environment.add_gathered(node, gathered.clone()));
        sink
    }

    fn end(&self, mut spec: NodeSpec, factory: std::sync::Arc<dyn OperatorFactory>) -> StreamSink {
        spec.inputs = self.edge_specs(spec.place);
        spec.has_output = false;
        let edges = self.inputs.iter().map(|_| Box::new(unkeyed::<T>) as EdgeMaker).collect();
        let node = self.environment.add(spec, Node::sink(factory), edges);
        StreamSink { environment: self.environment.clone(), node: Some(node) }
    }

    pub(crate) fn edge_specs(&self, place: Place) -> Vec<EdgeSpec> {
        let schema_fingerprint = T::schema().fingerprint();
        let edge = |input: &Upstream| EdgeSpec {
            from: input.node,
            tag: input.tag,
            partitioning: input.wish.map(|(partitioning, _)| partitioning),
            place: input.wish.map_or(place, |(_, place)| place),
            schema_fingerprint,
        };
        self.inputs.iter().map(edge).collect()
    }

    fn distributed(&self, partitioning: Partitioning, place: Place) -> Self {
        let wish = Some((partitioning, place));
        let inputs = self.inputs.iter().map(|input| Upstream { wish, ..*input }).collect();
        Self { environment: self.environment.clone(), inputs, node: None, records: PhantomData }
    }

    /// The operator that settings such as `uid` are for.
    pub(crate) fn declared_node(&self) -> Option<usize> {
        self.node
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }
}

/// The code of an edge that looks at no key.
pub(crate) fn unkeyed<T: Record>(partitioning: Partitioning) -> EdgeCode {
    match partitioning {
        Partitioning::Forward => EdgeCode::forward::<T>(),
        Partitioning::Rescale => EdgeCode::rescale::<T>(),
        Partitioning::Broadcast => EdgeCode::broadcast::<T>(),
        // A hash edge is made by `KeyedStream`, which knows the key; one of splits by `Environment::source`.
        Partitioning::Rebalance | Partitioning::Hash | Partitioning::Splits => EdgeCode::rebalance::<T>(),
    }
}
