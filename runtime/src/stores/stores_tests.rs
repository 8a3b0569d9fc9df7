//! Settings of stores, and the shares of a worker's memory.
#![allow(clippy::unwrap_used)]

use thalweg_common::graph::{StateDescriptor, StateKind};
use thalweg_common::schema::Schema;

use super::*;
use crate::fixtures;
use crate::operators::{Collected, CollectionSource};

fn configuration(text: &str) -> Configuration {
    Configuration::from_yaml(text).unwrap()
}

#[test]
fn settings_are_read_from_their_keys() {
    let settings = StateSettings::from_configuration(&Configuration::new()).unwrap();
    assert_eq!((settings.backend, settings.incremental), (StateBackend::HashMap, true));
    let all =
        "state.backend: hashmap\nstate.backend.incremental: false\ntaskmanager.memory.managed.size: 5 mb";
    let settings = StateSettings::from_configuration(&configuration(all)).unwrap();
    assert_eq!((settings.incremental, settings.managed_bytes), (false, 5 << 20));
    assert!(settings.local_directories.is_empty(), "without a task manager there is no place for copies");
    let roots = "taskmanager.state.local.root-dirs: /a, /b,";
    let settings = StateSettings::from_configuration(&configuration(roots)).unwrap();
    assert_eq!(settings.local_directories, ["/a", "/b"].map(PathBuf::from));
    let off = format!("{roots}\nstate.backend.local-recovery: false");
    assert!(StateSettings::from_configuration(&configuration(&off)).unwrap().local_directories.is_empty());
    let rocksdb = StateSettings::from_configuration(&configuration("state.backend.type: rocksdb"));
    if cfg!(feature = "rocksdb") {
        assert_eq!(rocksdb.unwrap().backend, StateBackend::RocksDb);
    } else {
        let message = rocksdb.unwrap_err().message;
        assert!(
            message.contains("`state.backend.type`") && message.contains("feature `rocksdb`"),
            "{message}"
        );
    }
}

#[test]
fn a_worker_has_the_memory_of_its_slots() {
    let graph = one_pipeline();
    let subtask = |vertex, index| SubtaskId { vertex, index };
    for (tasks, slots) in [
        (vec![subtask(0, 0), subtask(1, 0)], 1),
        // Keyed state has all of its slot's memory, and a slot without any lends its own.
        (vec![subtask(1, 1)], 1),
        (vec![subtask(0, 0), subtask(1, 0), subtask(0, 1), subtask(1, 1)], 2),
        (vec![], 0),
    ] {
        assert_eq!(share_of_slots(&graph, &tasks, 100), 100 * slots, "{tasks:?}");
    }
    assert_eq!(share_of_all(&graph, &[subtask(0, 0)], 100), 100, "all of one region");
    assert_eq!(share_of_all(&graph, &[], 100), 0);
}

/// A source and a keyed operator with state.
fn one_pipeline() -> JobGraph {
    let mut graph = fixtures::sums(CollectionSource::new([]), 2, &Collected::default()).graph;
    let state = StateDescriptor::new("sum", StateKind::Value, Schema::primitive("u64"));
    graph.vertices[1].operators[0].states = vec![state];
    graph
}

/// Two of them, in the same slots.
fn two_pipelines() -> JobGraph {
    let mut graph = one_pipeline();
    let (vertices, mut edge) = (graph.vertices.clone(), graph.edges[0].clone());
    (edge.source, edge.target) = (2, 3);
    graph.vertices.extend(vertices);
    graph.edges.push(edge);
    graph
}

#[test]
fn regions_in_the_same_slots_divide_their_memory() {
    let mut graph = two_pipelines();
    let region = |first: u32| {
        let subtask = |vertex| [0, 1].map(|index| SubtaskId { vertex, index });
        [subtask(first), subtask(first + 1)].concat()
    };
    for first in [0, 2] {
        assert_eq!(share_of_slots(&graph, &region(first), 100), 100, "half of two slots");
        assert_eq!(share_of_all(&graph, &region(first), 100), 50);
    }
    // One without keyed state leaves all to the other.
    graph.vertices[3].operators.iter_mut().for_each(|operator| operator.states.clear());
    let shares = [0, 2].map(|first| share_of_slots(&graph, &region(first), 100));
    assert_eq!(shares, [200, 0]);
    assert_eq!([0, 2].map(|first| share_of_all(&graph, &region(first), 100)), [100, 0]);
}
