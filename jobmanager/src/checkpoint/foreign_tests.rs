//! What may be deleted of a checkpoint that was claimed, on a real directory; and what a job can begin with.

#![allow(clippy::unwrap_used, clippy::panic)]

use thalweg_common::graph::{StateKind, Vertex};
use thalweg_common::id::{JobId, OperatorId};
use thalweg_common::manifest::StateManifest;
use thalweg_common::schema::Schema;
use thalweg_proto::convert::{SharedFile, SnapshotHandle, SnapshotLocation};

use super::super::Shape;
use super::*;
use crate::cluster::BaseKind;
use crate::testing::{at, checkpointed_graph, graph_with_splits, state, vertex};

fn shared(name: &str) -> String {
    format!("shared/a1-c1-0-0-{name}")
}

/// A checkpoint of the graph, each of whose snapshots names these shared files.
fn metadata(checkpoint_id: u64, graph: &JobGraph, names: &[&str]) -> CheckpointMetadata {
    let file = |name: &&str| SharedFile { path: shared(name), size_bytes: 1, checksum: 0 };
    let handle = SnapshotHandle {
        location: SnapshotLocation::Inline(vec![1]),
        size_bytes: 1,
        checksum: 2,
        shared: names.iter().map(file).collect(),
    };
    CheckpointMetadata {
        job_id: JobId(77),
        checkpoint_id,
        attempt: 1,
        is_final: false,
        shape: Shape::of(graph),
        in_flight_bytes: 0,
        triggered_ms: 5,
        snapshots: graph.subtasks().map(|subtask| (subtask, handle.clone())).collect(),
        manifest: StateManifest::of(graph),
    }
}

/// The directory of a job with checkpoints 3 and 4, which have a file in common.
async fn retained() -> (tempfile::TempDir, Arc<dyn Storage>) {
    let directory = tempfile::tempdir().unwrap();
    let storage = StorageFactory::default().open(directory.path().to_str().unwrap()).unwrap();
    let graph = checkpointed_graph();
    for (checkpoint_id, names) in [(3, ["a", "b"]), (4, ["b", "c"])] {
        metadata(checkpoint_id, &graph, &names).write(&*storage).await.unwrap();
    }
    for name in ["a", "b", "c", "of nobody"] {
        storage.put(&shared(name), "x".into()).await.unwrap();
    }
    (directory, storage)
}

async fn paths(storage: &Arc<dyn Storage>) -> Vec<String> {
    storage.list("").await.unwrap().into_iter().map(|object| object.path).collect()
}

#[tokio::test]
async fn of_a_claimed_checkpoint_only_what_no_other_one_needs_is_deleted() {
    let (directory, storage) = retained().await;
    let address = format!("{}/chk-4", directory.path().display());
    delete(&StorageFactory::default(), &address).await.unwrap();
    let left = ["chk-3/_metadata", &shared("a"), &shared("b"), &shared("of nobody")].map(String::from);
    assert_eq!(paths(&storage).await, left);
    delete(&StorageFactory::default(), &address).await.unwrap();
    assert_eq!(paths(&storage).await, left, "once more");
    delete(&StorageFactory::default(), &address.replace("chk-4", "chk-3")).await.unwrap();
    assert_eq!(paths(&storage).await, [shared("of nobody")]);
}

#[tokio::test]
async fn nothing_is_deleted_beside_a_checkpoint_that_cannot_be_read() {
    let (directory, storage) = retained().await;
    storage.put("chk-5/_metadata", "damaged".into()).await.unwrap();
    let before = paths(&storage).await;
    let address = format!("{}/chk-4", directory.path().display());
    let refused = delete(&StorageFactory::default(), &address).await.unwrap_err();
    assert!(refused.to_string().contains("chk-5/_metadata"), "{refused}");
    assert_eq!(paths(&storage).await, before);
}

#[tokio::test]
async fn it_is_read_from_where_it_is_and_checked_like_an_own_one() {
    let (directory, storage) = retained().await;
    let graph = checkpointed_graph();
    let base = Base {
        id: 4,
        path: format!("{}/chk-4", directory.path().display()),
        kind: BaseKind::Checkpoint,
        allow_non_restored_state: false,
        is_claimed: false,
    };
    let storages = StorageFactory::default();
    let read = restorable(&storages, &base, &at(&graph, &[2, 5]), false).await.unwrap();
    assert_eq!((read.job_id, read.checkpoint_id), (JobId(77), 4));
    storage.delete(&shared("c")).await.unwrap();
    let gone = restorable(&storages, &base, &graph, false).await.unwrap_err();
    assert!(
        matches!(&gone, RestoreError::Unreadable(reason) if reason.contains("-c` is not in")),
        "{gone:?}"
    );
    let mut other = graph;
    other.vertices[1].operators[0].states[0] = state("count", StateKind::List);
    let misfit = restorable(&storages, &base, &other, false).await.unwrap_err();
    assert!(matches!(&misfit, RestoreError::Failed(failure) if !failure.retryable), "{misfit:?}");
}

#[test]
fn every_change_of_a_job_is_let_through_or_refused_with_a_cure() {
    let with = |change: fn(&mut JobGraph)| {
        let mut graph = graph_with_splits();
        change(&mut graph);
        graph
    };
    let add = |graph: &mut JobGraph| {
        let mut sum: Vertex = vertex("sum", 2, "default");
        sum.operators[0].id = OperatorId(9);
        sum.operators[0].states = vec![state("sum", StateKind::Value)];
        sum.operators[0].key_schema = Some(Schema::primitive("u64"));
        graph.vertices.push(sum);
    };
    // What changes, whether it may with all state and with some state dropped, with records on their way, and what is said.
    type Row = (fn(&mut JobGraph), [bool; 2], bool, &'static [&'static str]);
    let table: [Row; 9] = [
        (|_| {}, [true, true], true, &[]),
        (|graph| *graph = at(graph, &[3, 7]), [true, true], true, &[]),
        (|graph| graph.checkpointing.unaligned = true, [true, true], true, &[]),
        (add, [true, true], false, &["on their way", "savepoint"]),
        (
            |graph| graph.vertices[1].operators[0].states.clear(),
            [false, true],
            true,
            &["`count`", "--allow-non-restored-state"],
        ),
        (
            |graph| graph.vertices[1].operators[0].states.push(state("more", StateKind::Value)),
            [false, false],
            false,
            &["state `more` of `count` is new", "thalweg state write NEW --on CHECKPOINT"],
        ),
        (
            |graph| {
                let states = &mut graph.vertices[1].operators[0].states;
                states[0] = thalweg_common::graph::StateDescriptor::new(
                    "count",
                    StateKind::Value,
                    Schema::primitive("u128"),
                );
            },
            [false, false],
            false,
            &["state `count` of `count`", "widened", "only savepoints are migrated"],
        ),
        (
            |graph| graph.vertices[1].max_parallelism = 64,
            [false, false],
            false,
            &["max parallelism 128", "set it to 128"],
        ),
        (
            |graph| graph.vertices[1].operators[0].key_schema = Some(Schema::primitive("string")),
            [false, false],
            false,
            &["`count`", "its keys were"],
        ),
    ];
    let mut aligned = metadata(4, &graph_with_splits(), &[]);
    for (change, fits, fits_on_the_way, said) in table {
        let graph = with(change);
        for (allow, fits) in [false, true].into_iter().zip(fits) {
            aligned.in_flight_bytes = 0;
            let checked = aligned.check_foreign(&graph, allow);
            assert_eq!(checked.is_ok(), fits, "{said:?}: {checked:?}");
            aligned.in_flight_bytes = 10;
            let on_the_way = aligned.check_foreign(&graph, allow);
            assert_eq!(on_the_way.is_ok(), fits && fits_on_the_way, "{said:?}: {on_the_way:?}");
            let reason = if fits { on_the_way.err() } else { checked.err() };
            for word in said.iter().filter(|_| reason.is_some()) {
                assert!(reason.as_ref().is_some_and(|reason| reason.contains(word)), "{word}: {reason:?}");
            }
        }
    }
    let whole = metadata(4, &checkpointed_graph(), &[]);
    let refused = whole.check_foreign(&at(&checkpointed_graph(), &[3, 2]), false).unwrap_err();
    assert!(refused.contains("keep its parallelism with `set_parallelism(2)`"), "{refused}");
}
