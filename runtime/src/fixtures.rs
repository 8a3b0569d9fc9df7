//! A small job for the tests of tasks and workers: numbers, summed up by key, collected.

use std::sync::Arc;

use thalweg_common::config::{CheckpointConfig, CheckpointMode, RestartStrategy};
use thalweg_common::graph::{Edge, JobGraph, Operator, PROTOCOL_VERSION, Partitioning, Vertex};
use thalweg_common::id::OperatorId;
use thalweg_common::record::Record;
use thalweg_common::storage::StorageFactory;

use crate::exchange::ExchangeSettings;
use crate::operators::{self, AnySource, Collected};
use crate::program::{EdgeCode, Node, OperatorFactory, Program, SourceFactory};

/// A key and a number.
pub(crate) type Pair = (u64, u64);

/// Both vertices of the job.
pub(crate) const SOURCES: u32 = 0;
pub(crate) const SUMS: u32 = 1;

/// Reads `source`, adds up the numbers of each key, and collects every new sum.
pub(crate) fn sums<S, Kind>(source: S, parallelism: u32, collected: &Collected<Pair>) -> Program
where
    S: AnySource<Kind, Out = Pair>,
{
    let sum = operators::reduce(|pair: &Pair| pair.0, |a: Pair, b: Pair| (a.0, a.1 + b.1));
    program(operators::source(source), sum, operators::sink(collected.sink()), parallelism)
}

/// A source of pairs in one vertex, a keyed operator on pairs and a sink of pairs in the other.
pub(crate) fn program(
    source: Arc<dyn SourceFactory>,
    keyed: Arc<dyn OperatorFactory>,
    sink: Arc<dyn OperatorFactory>,
    parallelism: u32,
) -> Program {
    let vertex = |name: &str, operators| Vertex {
        name: name.into(),
        parallelism,
        max_parallelism: 128,
        slot_sharing_group: "default".into(),
        operators,
    };
    let graph = JobGraph {
        protocol_version: PROTOCOL_VERSION,
        name: "sums".into(),
        vertices: vec![
            vertex("source", vec![operator(0, "source", &[])]),
            vertex("sum -> sink", vec![operator(1, "sum", &[]), operator(2, "sink", &[0])]),
        ],
        edges: vec![Edge {
            source: SOURCES,
            source_operator: 0,
            tag: None,
            target: SUMS,
            partitioning: Partitioning::Hash,
            schema_fingerprint: Pair::schema().fingerprint(),
        }],
        checkpointing: CheckpointConfig { mode: CheckpointMode::ExactlyOnce, ..CheckpointConfig::default() },
        restart_strategy: RestartStrategy::None,
        warnings: Vec::new(),
    };
    Program {
        graph,
        nodes: vec![Node::source::<Pair>(source), Node::operator::<Pair>(keyed), Node::sink(sink)],
        edges: vec![EdgeCode::hash(|pair: &Pair| pair.0)],
        exchange: ExchangeSettings::default(),
        storages: StorageFactory::default(),
        state: Default::default(),
        time: Default::default(),
    }
}

pub(crate) fn operator(node: u32, name: &str, inputs: &[u32]) -> Operator {
    Operator {
        node,
        id: OperatorId(100 + u64::from(node)),
        uid: None,
        name: name.into(),
        kind: name.into(),
        location: "src/fixtures.rs:1".into(),
        inputs: inputs.to_vec(),
        input_tag: None,
        states: Vec::new(),
        key_schema: None,
        time: None,
    }
}

/// The records of the usual test: `count` pairs over ten keys, with numbers above zero.
pub(crate) fn pairs(count: u64) -> impl Iterator<Item = Pair> + Clone {
    (1..=count).map(|number| (number % 10, number))
}

/// The last and largest sum of each key, which is what counts; checks that each sum came once and in order.
pub(crate) fn final_sums(collected: &[Pair]) -> Vec<Pair> {
    let mut sums = std::collections::BTreeMap::new();
    for (key, sum) in collected {
        let before = sums.insert(*key, *sum);
        assert!(before.is_none_or(|before| before < *sum), "sum {sum} of key {key} after {before:?}");
    }
    sums.into_iter().collect()
}

/// What [`final_sums`] of `pairs(count)` must be.
pub(crate) fn expected_sums(count: u64) -> Vec<Pair> {
    let mut sums = std::collections::BTreeMap::new();
    for (key, number) in pairs(count) {
        *sums.entry(key).or_insert(0) += number;
    }
    sums.into_iter().collect()
}
