//! The metadata file of a checkpoint: written, read back, damaged, and of another job.

#![allow(clippy::unwrap_used, clippy::panic)]

use thalweg_common::failure::Failure;
use thalweg_common::graph::JobGraph;
use thalweg_common::id::JobId;
use thalweg_common::manifest::StateManifest;
use thalweg_common::storage;
use thalweg_proto::checkpoint::{
    CheckpointMetadata, MetadataError, Shape, checkpoint_of_path, job_directory, metadata_path,
};
use thalweg_proto::convert::{SnapshotHandle, SnapshotLocation};

use crate::testing::checkpointed_graph;

fn metadata(graph: &JobGraph) -> CheckpointMetadata {
    let snapshots = graph
        .subtasks()
        .map(|subtask| {
            let location = match subtask.index {
                0 => SnapshotLocation::Inline(vec![7; 3]),
                _ => SnapshotLocation::File(format!("chk-4/{}-{}-a2", subtask.vertex, subtask.index)),
            };
            (subtask, SnapshotHandle { location, size_bytes: 3, checksum: 9, shared: vec![] })
        })
        .collect();
    CheckpointMetadata {
        job_id: JobId(1),
        checkpoint_id: 4,
        attempt: 2,
        is_final: false,
        shape: Shape::of(graph),
        in_flight_bytes: 0,
        triggered_ms: 5,
        snapshots,
        manifest: StateManifest::of(graph),
    }
}

#[tokio::test]
async fn what_is_written_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let graph = checkpointed_graph();
    let metadata = metadata(&graph);
    let jobs = job_directory(directory.path().to_str().unwrap(), JobId(1));
    let storage = storage::open(&jobs).unwrap();
    let uri = metadata.write(&*storage).await.unwrap();
    assert!(uri.ends_with(&format!("/{}/chk-4/_metadata", JobId(1))), "{uri}");
    assert_eq!(CheckpointMetadata::read(&*storage, JobId(1), 4, &graph).await.unwrap(), metadata);
    assert_eq!(metadata.write(&*storage).await.unwrap(), uri, "the same once more");

    let stale = CheckpointMetadata { attempt: 1, ..metadata.clone() };
    let refused = stale.write(&*storage).await.unwrap_err();
    assert!(matches!(&refused, MetadataError::Taken { path } if *path == uri), "{refused}");
    assert_eq!(CheckpointMetadata::read(&*storage, JobId(1), 4, &graph).await.unwrap(), metadata);

    for address in [uri.clone(), uri.replace("/_metadata", ""), uri.replace("_metadata", "")] {
        let (found_in, found) = CheckpointMetadata::find(&address, storage::open).await.unwrap().unwrap();
        assert_eq!((found_in.uri(), found), (storage.uri(), metadata.clone()), "{address}");
    }
    storage.put("chk-8/_metadata", "something else".into()).await.unwrap();
    for other in ["chk-5", "chk-8", "shared"] {
        let address = format!("{}/{other}", storage.uri());
        assert!(CheckpointMetadata::find(&address, storage::open).await.unwrap().is_none(), "{address}");
    }

    let missing = CheckpointMetadata::read(&*storage, JobId(1), 5, &graph).await.unwrap_err();
    assert!(missing.to_string().contains("chk-5/_metadata"), "{missing}");
}

#[test]
fn a_path_tells_its_checkpoint() {
    for (path, expected) in [
        (metadata_path(17), Some(17)),
        ("chk-3/0-1-a2".into(), Some(3)),
        ("chk-3".into(), None),
        ("chk-x/y".into(), None),
        ("shared/a1-c3-0-0-x".into(), None),
    ] {
        assert_eq!(checkpoint_of_path(&path), expected, "{path}");
    }
}

#[test]
fn what_is_damaged_says_so() {
    let bytes = metadata(&checkpointed_graph()).encode().unwrap();
    assert!(CheckpointMetadata::decode(&bytes).is_ok());
    let flipped = |at: usize| {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1;
        bytes
    };
    let table = [
        (vec![], "only 0 bytes"),
        (bytes[..19].to_vec(), "only 19 bytes"),
        (flipped(0), "no checkpoint metadata"),
        (flipped(8), "another version"),
        (flipped(30), "checksum"),
        (flipped(bytes.len() - 1), "checksum"),
        (bytes[..bytes.len() - 1].to_vec(), "checksum"),
    ];
    for (bytes, expected) in table {
        let reason = CheckpointMetadata::decode(&bytes).unwrap_err();
        assert!(reason.contains(expected), "{reason} should contain {expected}");
    }
}

#[test]
fn what_does_not_fit_the_job_is_no_reason_to_try_again() {
    let graph = checkpointed_graph();
    let metadata = metadata(&graph);
    let mut rescaled = graph.clone();
    rescaled.vertices[1].parallelism = 3;
    let mut changed = graph.clone();
    changed.vertices[1].operators[0].states[0].name = "other".to_string();
    assert!(metadata.check(JobId(1), 4, &graph).is_ok());
    assert!(metadata.check(JobId(2), 4, &graph).unwrap_err().contains("checkpoint 4 of job"));
    assert!(metadata.check(JobId(1), 5, &graph).is_err());
    assert_eq!(metadata.check(JobId(1), 4, &rescaled), Ok(()));
    assert!(metadata.check(JobId(1), 4, &changed).unwrap_err().contains("another version"));
    let mut partial = metadata;
    partial.snapshots.pop_last();
    assert!(partial.check(JobId(1), 4, &graph).unwrap_err().contains("no snapshot of subtask 1/1"));
    let mismatch = MetadataError::Mismatch { path: "p".into(), reason: "r".into() };
    assert!(!Failure::from(mismatch).retryable);
}
