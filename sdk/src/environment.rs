//! `Environment`: where a topology begins, with its arguments, its settings and its sources.
//!
//! Declaring only notes down: every call adds an operator ([`NodeSpec`]) and its code to a list, and the first mistake
//! is kept until the topology is complete, so that a job reads top to bottom without a `?` on every line.

use std::cell::{RefCell, RefMut};
use std::collections::BTreeMap;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use thalweg_common::config::{ConfigError, Configuration, keys};
use thalweg_common::graph::{Partitioning, StateDescriptor, StateKind};
use thalweg_common::properties::RuntimeProperties;
use thalweg_common::record::Record;
use thalweg_common::schema::Schema;
use thalweg_common::storage::{StorageFactory, StorageSettings};
use thalweg_runtime::exchange::ExchangeSettings;
use thalweg_runtime::operators::{AnySource, CollectionSource, EnumeratorCode, GeneratorSource};
use thalweg_runtime::program::{EdgeCode, Node, Program};
use thalweg_runtime::side_output::OutputTag;
use thalweg_runtime::stores::StateSettings;
use thalweg_runtime::testing::Gathered;
use thalweg_runtime::time::TimeSettings;

use crate::error::{Error, Result};
use crate::graph::build::build;
use crate::graph::{Chaining, ENUMERATOR, EdgeSpec, NodeSpec, Place, name_enumerators};
use crate::stream::DataStream;
use crate::testing::stand_ins::{Ends, StandIns, scripted_source};
use crate::two_stages::{AggPhaseStrategy, TwoStages};

/// Makes the code of an edge, when its partitioning is known.
pub(crate) type EdgeMaker = Box<dyn FnOnce(Partitioning) -> EdgeCode>;

/// Where a topology begins: hands out sources and takes settings.
///
/// [`run`](crate::run) passes it to the topology. It is a handle: clones belong to the same job.
#[derive(Clone)]
pub struct Environment {
    arguments: Rc<[String]>,
    /// Whether the job runs in the author's own process.
    is_local: bool,
    topology: Rc<RefCell<Topology>>,
    /// What a test puts in place of sources and sinks.
    stand_ins: Option<Rc<RefCell<StandIns>>>,
    /// Settings that the process was given: they win over those in the topology.
    given: Rc<Configuration>,
    properties: Rc<RuntimeProperties>,
}

/// What was declared so far.
#[derive(Default)]
struct Topology {
    nodes: Vec<NodeSpec>,
    /// Parallel to `nodes`.
    code: Vec<Node>,
    /// Parallel to `nodes`, and inside to each one's inputs.
    edges: Vec<Vec<EdgeMaker>>,
    two_stages: Vec<TwoStages>,
    configuration: Configuration,
    first_error: Option<Error>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let topology = self.topology.borrow();
        let operators: Vec<&str> = topology.nodes.iter().map(|node| node.name.as_str()).collect();
        f.debug_struct("Environment")
            .field("arguments", &self.arguments)
            .field("operators", &operators)
            .finish()
    }
}

impl Environment {
    pub(crate) fn new(arguments: &[String], is_local: bool) -> Self {
        Self {
            arguments: arguments.into(),
            is_local,
            topology: Rc::default(),
            stand_ins: None,
            given: Rc::default(),
            properties: Rc::default(),
        }
    }

    /// The same with runtime properties.
    pub(crate) fn with_properties(self, properties: RuntimeProperties) -> Self {
        Self { properties: Rc::new(properties), ..self }
    }

    /// The same under settings that win over those in the topology.
    pub(crate) fn under(self, given: &Configuration) -> Self {
        Self { given: Rc::new(given.clone()), ..self }
    }

    /// One whose sources and sinks are replaced.
    pub(crate) fn with_stand_ins(arguments: &[String], stand_ins: StandIns) -> Self {
        Self { stand_ins: Some(Rc::new(RefCell::new(stand_ins))), ..Self::new(arguments, true) }
    }

    /// The job's own arguments: without the program's name and without what Thalweg took for itself.
    pub fn args(&self) -> &[String] {
        &self.arguments
    }

    /// A group of the job's runtime properties, as `KinesisAnalyticsRuntime.getApplicationProperties()` gives it in Flink's managed service;
    /// empty if there is no such group. They come from a file (`--properties application_properties.json`) or flags
    /// (`--property Group:key=value`), and are the same in every process of the job, behind restarts and at another parallelism.
    ///
    /// ```
    /// use thalweg::testing::LocalCluster;
    ///
    /// let cluster = LocalCluster::new().property("ConsumerConfigProperties", "stream.name", "orders");
    /// cluster.run(|env| {
    ///     let consumer = env.properties("ConsumerConfigProperties");
    ///     let stream = consumer.get("stream.name").map_or("ExampleInputStream", String::as_str);
    ///     assert_eq!(stream, "orders");
    ///     env.from_iter([stream.to_string()]).print();
    ///     Ok(())
    /// })?;
    /// # Ok::<(), thalweg::Error>(())
    /// ```
    pub fn properties(&self, group: &str) -> BTreeMap<String, String> {
        self.properties.group(group)
    }

    /// The ids of all groups of runtime properties.
    pub fn property_groups(&self) -> Vec<String> {
        self.properties.groups().map(|(id, _)| id.to_string()).collect()
    }

    /// The parallelism of operators that set none. Without it: `parallelism.default`, which is 1.
    #[track_caller]
    pub fn set_parallelism(&self, parallelism: u32) -> &Self {
        self.configure(keys::PARALLELISM_DEFAULT.name, parallelism)
    }

    /// The parallelism of operators that set none: as it was set for this run, or else in the topology so far, or else 1. For operators
    /// whose parallelism follows from it:
    ///
    /// ```
    /// use thalweg::prelude::*;
    ///
    /// # fn topology(env: &Environment, lines: DataStream<String>) {
    /// let parsed = lines.map(|line| line.len() as u64).set_parallelism(env.parallelism().div_ceil(2));
    /// # parsed.print();
    /// # }
    /// ```
    pub fn parallelism(&self) -> u32 {
        let topology = self.topology.borrow();
        let set = |configuration: &Configuration| configuration.integer(&keys::PARALLELISM_DEFAULT);
        let parallelism = set(&self.given).or_else(|| set(&topology.configuration));
        parallelism.and_then(|parallelism| u32::try_from(parallelism).ok()).unwrap_or(1)
    }

    /// The max parallelism of operators that set none: the number of key groups, and thus the highest parallelism that the
    /// job can ever have with its state.
    #[track_caller]
    pub fn set_max_parallelism(&self, max_parallelism: u32) -> &Self {
        self.configure(keys::PIPELINE_MAX_PARALLELISM.name, max_parallelism)
    }

    /// Takes a checkpoint at this interval. Without checkpoints a failure starts the job over or ends it.
    #[track_caller]
    pub fn enable_checkpointing(&self, interval: Duration) -> &Self {
        self.configure(keys::CHECKPOINTING_INTERVAL.name, format_args!("{} ms", interval.as_millis()))
    }

    /// Runs every operator in a task of its own, to see each one's share of the work.
    #[track_caller]
    pub fn disable_operator_chaining(&self) -> &Self {
        self.configure(keys::PIPELINE_OPERATOR_CHAINING.name, false)
    }

    /// Sets any other setting, by its name in Flink's reference. What is given on the command line wins over it.
    #[track_caller]
    pub fn configure(&self, key: &str, value: impl fmt::Display) -> &Self {
        let set = self.topology.borrow_mut().configuration.set(key, &value.to_string());
        if let Err(error) = set {
            self.fail(Place::caller(), error);
        }
        self
    }

    /// Reads a source: one whose input has splits that are known when the job begins
    /// ([`SplitSource`](thalweg_runtime::split::SplitSource)) or found while it runs
    /// ([`EnumeratedSource`](thalweg_runtime::split::EnumeratedSource), whose enumerator is an operator of its own), or a simple
    /// [`Source`](thalweg_runtime::operator::Source). `name` is shown to people and finds the source's position again after a
    /// change of the job, so it should be unique.
    #[track_caller]
    pub fn source<S, Kind>(&self, name: &str, source: S) -> DataStream<S::Out>
    where
        S: AnySource<Kind>,
    {
        let mut spec = NodeSpec::new("source", name, Place::caller());
        spec.is_named = true;
        spec.has_side_outputs = true;
        self.add_source(spec, source)
    }

    /// The records of a collection, in one subtask unless another parallelism is set. For tests and small inputs: all
    /// records are in memory, and the iterator runs again in each worker, where it must give the same records.
    #[track_caller]
    pub fn from_iter<T: Record>(&self, records: impl IntoIterator<Item = T>) -> DataStream<T> {
        let mut spec = NodeSpec::new("source", "Collection Source", Place::caller());
        spec.parallelism = Some(1);
        self.add_source(spec, CollectionSource::new(records))
    }

    /// Makes records: `function(0)`, `function(1)`, ..., at most `rate` in a second and `count` in all (over all subtasks;
    /// `None` for no limit). After a failure the same numbers are made again, so the function must be a pure one.
    #[track_caller]
    pub fn generate<T, F>(&self, rate: Option<f64>, count: Option<u64>, function: F) -> DataStream<T>
    where
        T: Record,
        F: Fn(u64) -> T + Clone + Send + Sync + 'static,
    {
        let place = Place::caller();
        let mut source = GeneratorSource::new(function);
        if let Some(rate) = rate {
            if !(rate.is_finite() && rate > 0.0) {
                self.fail(
                    place,
                    Error::new(format!("{rate} is no rate; give a number of records per second above 0")),
                );
            }
            source = source.records_per_second(rate);
        }
        if let Some(count) = count {
            source = source.count(count);
        }
        self.add_source(NodeSpec::new("source", "Data Generator", place), source)
    }

    fn add_source<S, Kind>(&self, mut spec: NodeSpec, source: S) -> DataStream<S::Out>
    where
        S: AnySource<Kind>,
    {
        if let Some(stand_ins) =
            self.stand_ins().filter(|stand_ins| spec.is_named && stand_ins.replaces(&spec.name))
        {
            return self.add_scripted(spec, stand_ins);
        }
        spec.states = vec![opaque_state("position", S::STATE)];
        let edges = match source.enumerator() {
            Some(EnumeratorCode { node, edge, schema_fingerprint }) => {
                let mut enumerator = NodeSpec::new(ENUMERATOR, &spec.name, spec.place);
                enumerator.is_named = spec.is_named;
                (enumerator.parallelism, enumerator.chaining) = (Some(1), Chaining::Never);
                enumerator.states = vec![opaque_state("splits", StateKind::Source)];
                let (partitioning, place) = (Some(Partitioning::Splits), spec.place);
                let from = self.add(enumerator, node, Vec::new());
                spec.inputs = vec![EdgeSpec { from, tag: None, partitioning, place, schema_fingerprint }];
                let maker: EdgeMaker = Box::new(move |_| edge);
                vec![maker]
            }
            None => Vec::new(),
        };
        let is_named = spec.is_named;
        let node = self.add(spec, Node::source::<S::Out>(source.factory()), edges);
        if let Some(mut stand_ins) = self.stand_ins().filter(|_| !is_named) {
            stand_ins.note_unnamed::<S::Out>(node);
        }
        DataStream::of_node(self.clone(), node)
    }

    /// Adds a source that reads what a test gives it.
    fn add_scripted<T: Record>(
        &self,
        mut spec: NodeSpec,
        mut stand_ins: RefMut<'_, StandIns>,
    ) -> DataStream<T> {
        let (code, stand_in) = scripted_source::<T>(&mut spec);
        let node = self.add(spec, code, Vec::new());
        stand_ins.add_script(node, stand_in);
        DataStream::of_node(self.clone(), node)
    }

    /// What a test puts in place of a sink for records of `T`, if it replaces the one of this name.
    pub(crate) fn stand_in_sink<T: Record>(&self, name: &str) -> Option<Gathered<T>> {
        self.stand_ins().filter(|stand_ins| stand_ins.replaces(name)).map(|_| Gathered::default())
    }

    /// Notes the sink that a test has put in place of another one.
    pub(crate) fn add_gathered<T: Record>(&self, node: usize, gathered: Gathered<T>) {
        if let Some(mut stand_ins) = self.stand_ins() {
            stand_ins.add_gathered(node, gathered);
        }
    }

    /// The topology is complete: says which sources and sinks were replaced.
    pub(crate) fn replaced(&self) -> Ends {
        let stand_ins = self.stand_ins().map(|mut stand_ins| std::mem::take(&mut *stand_ins));
        let topology = &mut *self.topology.borrow_mut();
        stand_ins.unwrap_or_default().settle(&mut topology.nodes, &mut topology.code)
    }

    /// The operator with this name or uid.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub(crate) fn node_named(&self, name: &str) -> Result<usize> {
        let topology = self.topology.borrow();
        let is_it = |spec: &NodeSpec| spec.name == name || spec.uid.as_deref() == Some(name);
        let mut found =
            topology.nodes.iter().enumerate().filter(|(_, spec)| is_it(spec)).map(|(node, _)| node);
        match (found.next(), found.next()) {
            (Some(node), None) => Ok(node),
            (None, _) => Err(Error::new(format!("no operator has the name or uid `{name}`"))),
            (Some(_), Some(_)) => Err(Error::new(format!(
                "several operators are called `{name}`; give the one that is meant a uid"
            ))),
        }
    }

    fn stand_ins(&self) -> Option<RefMut<'_, StandIns>> {
        self.stand_ins.as_ref().map(|stand_ins| stand_ins.borrow_mut())
    }

    /// Adds an operator and gives its number.
    pub(crate) fn add(&self, spec: NodeSpec, code: Node, edges: Vec<EdgeMaker>) -> usize {
        let mut topology = self.topology.borrow_mut();
        topology.nodes.push(spec);
        topology.code.push(code);
        topology.edges.push(edges);
        topology.nodes.len() - 1
    }

    /// Notes that operators which were added are the two stages of an aggregation.
    pub(crate) fn add_two_stages(&self, stages: TwoStages) {
        self.topology.borrow_mut().two_stages.push(stages);
    }

    /// Changes a setting of an operator.
    pub(crate) fn change(&self, node: usize, change: impl FnOnce(&mut NodeSpec)) {
        if let Some(spec) = self.topology.borrow_mut().nodes.get_mut(node) {
            change(spec);
        }
    }

    /// Notes that somebody reads a side output of an operator.
    ///
    /// # Errors
    /// When the operator emits to no side outputs, or the name is that of a tag of another type.
    pub(crate) fn read_side_output<T: Record>(&self, node: usize, tag: &OutputTag<T>) -> Result<()> {
        let mut topology = self.topology.borrow_mut();
        if let Some(spec) = topology.nodes.get(node).filter(|spec| !spec.has_side_outputs) {
            return Err(Error::new(format!(
                "{} emits to no side outputs; read them right behind an operator with a function that is given a context",
                spec.name
            )));
        }
        topology.code.get_mut(node).map_or(Ok(()), |code| Ok(code.read_side_output(tag)?))
    }

    /// Notes a mistake at `place`. Only the first one is reported; those after it may follow from it.
    pub(crate) fn fail(&self, place: Place, error: impl Into<Error>) {
        self.topology.borrow_mut().first_error.get_or_insert(error.into().context(place));
    }

    pub(crate) fn is_local(&self) -> bool {
        self.is_local
    }

    /// The program that was declared, under settings that win over those in the code. The environment is empty afterwards.
    ///
    /// # Errors
    /// The first mistake in the topology, with its file and line.
    pub(crate) fn build(&self, configuration: &Configuration, default_name: &str) -> Result<Program> {
        let mut topology = self.topology.take();
        if let Some(error) = topology.first_error {
            return Err(error);
        }
        let mut settings = std::mem::take(&mut topology.configuration);
        settings.merge(configuration);
        let strategy = AggPhaseStrategy::from_configuration(&settings);
        // The last first, so that those before keep their numbers.
        for stages in topology.two_stages.drain(..).rev() {
            stages.apply(strategy, &mut topology.nodes, &mut topology.code, &mut topology.edges);
        }
        name_enumerators(&mut topology.nodes);
        let built = build(&topology.nodes, &settings, default_name)?;
        let mut makers: Vec<Vec<Option<EdgeMaker>>> =
            topology.edges.into_iter().map(|makers| makers.into_iter().map(Some).collect()).collect();
        let edges = built.graph.edges.iter().zip(&built.edges).filter_map(|(edge, (node, input))| {
            let make = makers.get_mut(*node)?.get_mut(*input)?.take()?;
            Some(make(edge.partitioning))
        });
        let edges: Vec<EdgeCode> = edges.collect();
        if edges.len() != built.graph.edges.len() {
            return Err(Error::new(
                "an edge of the topology has no code; this is a fault of Thalweg, please report it",
            ));
        }
        let exchange = ExchangeSettings::from_configuration(&settings);
        let state = StateSettings::from_configuration(&settings)?;
        let storages = StorageFactory::new(StorageSettings::from_configuration(&settings)?);
        if let Some(directory) = settings.text(&keys::CHECKPOINTING_DIRECTORY) {
            // Said before anything runs; a cluster's own directory is only known where it runs.
            storages
                .open(directory)
                .map_err(|error| Error::new(error).context("the checkpoint directory is wrong"))?;
        }
        let time = TimeSettings::from_configuration(&settings);
        Ok(Program { graph: built.graph, nodes: topology.code, edges, exchange, storages, state, time })
    }
}

/// A state whose bytes only its connector understands.
pub(crate) fn opaque_state(name: &str, kind: StateKind) -> StateDescriptor {
    StateDescriptor::new(name, kind, Schema::primitive("bytes"))
}

/// The settings of a job as a process was given them: they win over those in the program.
pub(crate) fn received_configuration(json: &str) -> Result<Configuration> {
    let received: Result<Configuration, serde_json::Error> = serde_json::from_str(json);
    let mut configuration = received
        .map_err(|error| Error::new(error).context("THALWEG_CONFIGURATION is no JSON object of settings"))?;
    let checked: Result<(), ConfigError> = configuration.validate();
    checked?;
    Ok(configuration)
}

#[cfg(test)]
mod tests {
    use thalweg_common::graph::{AlignmentDescriptor, TimeDescriptor};
    use thalweg_runtime::time::WatermarkStrategy;

    use super::*;

    #[test]
    fn settings_of_the_exchange_reach_the_program_and_those_given_to_the_process_win() {
        let environment = Environment::new(&[], false);
        environment.configure("taskmanager.network.memory.channel-credit", "1 mb");
        environment.configure("taskmanager.memory.segment-size", "8 kb");
        environment.from_iter([1u64]).print();
        let received =
            received_configuration(r#"{"taskmanager.memory.segment-size": "16 kb"}"#).expect("a known key");
        let exchange = environment.build(&received, "test").expect("a topology").exchange;
        let expected = ExchangeSettings {
            channel_credit_bytes: 1 << 20,
            frame_target_bytes: 16 << 10,
            ..ExchangeSettings::default()
        };
        assert_eq!(exchange, expected);
    }

    #[test]
    fn no_time_is_no_idleness() {
        let environment = Environment::new(&[], false);
        let strategy = crate::monotonous_timestamps().with_idleness(Duration::ZERO);
        environment.from_iter([1i64]).watermarks(strategy).print();
        let error = environment.build(&Configuration::new(), "test").err().expect("it is refused");
        assert!(error.to_string().contains("above zero"), "{error}");
    }

    /// The refusal of a topology over two collections, or its operators' time.
    fn time_of(
        topology: impl FnOnce(DataStream<i64>, DataStream<i64>),
        settings: &[(&str, &str)],
    ) -> Result<Vec<TimeDescriptor>> {
        let environment = Environment::new(&[], false);
        settings.iter().for_each(|(key, value)| {
            environment.configure(key, *value);
        });
        topology(environment.from_iter([1i64]), environment.from_iter([2i64]));
        let graph = environment.build(&Configuration::new(), "test")?.graph;
        let operators = graph.vertices.into_iter().flat_map(|vertex| vertex.operators);
        Ok(operators.filter_map(|operator| operator.time).collect())
    }

    #[test]
    fn the_plan_tells_strategies_and_windows() {
        let secs = Duration::from_secs;
        let time = time_of(
            |orders, payments| {
                let strategy = crate::bounded_out_of_orderness(secs(5)).with_idleness(secs(15));
                let aligned = strategy.with_watermark_alignment("g", secs(20), None);
                let keyed = orders.watermarks(aligned).key_by(|number| *number);
                keyed.window(crate::prelude::sliding(secs(60), secs(1))).reduce(i64::max).print();
                payments.watermarks(crate::monotonous_timestamps()).print();
            },
            &[],
        );
        let alignment =
            AlignmentDescriptor { group: "g".into(), max_drift_ms: 20_000, update_interval_ms: 1_000 };
        let expected = [
            TimeDescriptor {
                words: "out of order by 5s".into(),
                idleness_ms: Some(15_000),
                alignment: Some(alignment),
            },
            TimeDescriptor { words: "monotonous timestamps".into(), ..TimeDescriptor::default() },
            TimeDescriptor { words: "sliding window of 60s every 1s".into(), ..TimeDescriptor::default() },
        ];
        assert_eq!(time.expect("a topology"), expected);
    }

    #[test]
    fn only_a_strategy_directly_behind_a_source_is_aligned_and_only_one() {
        let aligned = |group: &str, interval_ms| {
            let (drift, interval) = (Duration::from_secs(1), Duration::from_millis(interval_ms));
            crate::monotonous_timestamps().with_watermark_alignment(group, drift, interval)
        };
        let (behind, unchained) = ("directly behind a source", "pipeline.operator-chaining.enabled");
        let table: [Case; 4] = [
            (|a, _| drop(a.map(|number| number).watermarks(usual()).print()), None, behind),
            (|a, b| drop(a.union(&b).watermarks(usual()).print()), None, behind),
            (|a, _| drop(a.watermarks(usual()).print()), Some(unchained), behind),
            (|a, _| drop((a.watermarks(usual()).print(), a.watermarks(usual()).print())), None, "aligned at"),
        ];
        for (number, (topology, turned_off, words)) in table.into_iter().enumerate() {
            let settings: Vec<_> = turned_off.into_iter().map(|key| (key, "false")).collect();
            let error = time_of(topology, &settings).expect_err("it is refused").to_string();
            assert!(error.contains(words), "{number}: {error}");
        }
        for (group, interval_ms) in [("", 1_000), ("g", 9)] {
            let topology = |a: DataStream<i64>, _| drop(a.watermarks(aligned(group, interval_ms)).print());
            let error = time_of(topology, &[]).expect_err("it is refused");
            assert!(error.to_string().contains("at least 10 ms"), "{error}");
        }
    }

    /// A topology over two collections, a setting that is turned off, and what the refusal says.
    type Case = (fn(DataStream<i64>, DataStream<i64>), Option<&'static str>, &'static str);

    fn usual() -> WatermarkStrategy<thalweg_runtime::time::BoundedOutOfOrderness> {
        crate::monotonous_timestamps().with_watermark_alignment("g", Duration::from_secs(1), None)
    }

    #[test]
    fn generators_are_asked_as_often_as_the_job_says() {
        let interval = |value: Option<&str>| {
            let environment = Environment::new(&[], false);
            value.into_iter().for_each(|value| {
                environment.configure("pipeline.auto-watermark-interval", value);
            });
            environment.from_iter([1i64]).watermarks(crate::monotonous_timestamps()).print();
            let program = environment.build(&Configuration::new(), "test").expect("a topology");
            program.time.auto_watermark_interval
        };
        assert_eq!(interval(None), Duration::from_millis(200));
        assert_eq!(interval(Some("1 s")), Duration::from_secs(1));
        assert_eq!(interval(Some("0 ms")), Duration::ZERO);
    }
}
