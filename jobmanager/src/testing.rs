//! Graphs, jobs and times for the unit tests of this crate.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use thalweg_common::config::{CheckpointConfig, RestartStrategy};
use thalweg_common::graph::{
    Edge, JobGraph, Operator, PROTOCOL_VERSION, Partitioning, StateDescriptor, StateKind, Vertex,
};
use thalweg_common::id::{JobId, OperatorId, SubmissionId};
use thalweg_common::schema::Schema;

use crate::cluster::SubmitJob;

/// A vertex of one operator.
pub(crate) fn vertex(name: &str, parallelism: u32, group: &str) -> Vertex {
    Vertex {
        name: name.to_string(),
        parallelism,
        max_parallelism: 128,
        slot_sharing_group: group.to_string(),
        operators: vec![Operator {
            node: 0,
            id: OperatorId(0),
            uid: None,
            name: name.to_string(),
            kind: "map".to_string(),
            location: "src/main.rs:1".to_string(),
            inputs: vec![],
            input_tag: None,
            states: vec![],
            key_schema: None,
            time: None,
        }],
    }
}

/// A state of numbers.
pub(crate) fn state(name: &str, kind: StateKind) -> StateDescriptor {
    StateDescriptor::new(name, kind, Schema::primitive("u64"))
}

/// The same job, with other parallelisms of its vertices.
pub(crate) fn at(graph: &JobGraph, parallelisms: &[u32]) -> JobGraph {
    let mut graph = graph.clone();
    for (vertex, parallelism) in graph.vertices.iter_mut().zip(parallelisms) {
        vertex.parallelism = *parallelism;
    }
    graph
}

/// A line of vertices, each feeding the next.
pub(crate) fn graph_of(mut vertices: Vec<Vertex>) -> JobGraph {
    for (number, vertex) in (0u32..).zip(&mut vertices) {
        vertex.operators[0].node = number;
        vertex.operators[0].id = OperatorId(u64::from(number) + 1);
    }
    let edges = (1..vertices.len() as u32)
        .map(|target| Edge {
            source: target - 1,
            source_operator: 0,
            tag: None,
            target,
            partitioning: Partitioning::Rebalance,
            schema_fingerprint: 0,
        })
        .collect();
    JobGraph {
        protocol_version: PROTOCOL_VERSION,
        name: "test".to_string(),
        vertices,
        edges,
        checkpointing: CheckpointConfig::default(),
        restart_strategy: RestartStrategy::None,
        warnings: vec![],
    }
}

/// `source -> count` at parallelism 2, with checkpoints every second and one restart after 100 ms.
pub(crate) fn checkpointed_graph() -> JobGraph {
    let mut graph = graph_of(vec![vertex("source", 2, "default"), vertex("count", 2, "default")]);
    graph.vertices[0].operators[0].states = vec![state("position", StateKind::Source)];
    graph.vertices[1].operators[0].states = vec![state("count", StateKind::Value)];
    graph.vertices[1].operators[0].key_schema = Some(Schema::primitive("u64"));
    graph.checkpointing = CheckpointConfig {
        interval_ms: Some(1_000),
        timeout_ms: 5_000,
        directory: Some("/checkpoints".to_string()),
        ..CheckpointConfig::default()
    };
    graph.restart_strategy = RestartStrategy::FixedDelay { attempts: 2, delay_ms: 100 };
    graph
}

/// The same with a source that has splits.
pub(crate) fn graph_with_splits() -> JobGraph {
    let mut graph = checkpointed_graph();
    graph.vertices[0].operators[0].states = vec![state("position", StateKind::Splits)];
    graph
}

/// The submission of a graph as job `id`.
pub(crate) fn submission(id: u128, graph: JobGraph) -> SubmitJob {
    SubmitJob {
        job_id: JobId(id),
        submission_id: SubmissionId(id + 1_000),
        name: "test".to_string(),
        binary: None,
        arguments: vec![],
        properties: Default::default(),
        configuration: BTreeMap::new(),
        checkpoint_directory: graph.checkpointing.directory.clone(),
        graph: Arc::new(graph),
        base: None,
        warnings: vec![],
        time_ms: 1,
    }
}
