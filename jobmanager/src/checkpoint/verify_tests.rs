//! Checkpoints with every kind of damage, on a real directory.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;
use std::sync::Arc;

use thalweg_common::storage::UploadedFile;

use super::*;
use crate::testing::checkpointed_graph;

const SNAPSHOT: &[u8] = b"a snapshot of some bytes";
const SST: &[u8] = b"a file that checkpoints have in common";

fn shared(name: &str) -> SharedFile {
    let path = format!("shared/a1-c3-0-0-{name}");
    SharedFile { path, size_bytes: SST.len() as u64, checksum: xxh3_64(SST) }
}

/// A checkpoint whose subtask 0/0 is inline, with a file each for the others and two shared files.
fn metadata(graph: &JobGraph) -> CheckpointMetadata {
    let snapshots = graph.subtasks().map(|subtask| {
        let mut handle = SnapshotHandle {
            location: SnapshotLocation::File(format!("chk-4/{}-{}-a2", subtask.vertex, subtask.index)),
            size_bytes: SNAPSHOT.len() as u64,
            checksum: xxh3_64(SNAPSHOT),
            shared: vec![shared("x")],
        };
        if (subtask.vertex, subtask.index) == (0, 0) {
            handle.location = SnapshotLocation::Inline(SNAPSHOT.to_vec());
            handle.shared.push(shared("y"));
        }
        (subtask, handle)
    });
    CheckpointMetadata {
        job_id: JobId(1),
        checkpoint_id: 4,
        attempt: 2,
        is_final: false,
        shape: crate::checkpoint::Shape::of(graph),
        in_flight_bytes: 0,
        triggered_ms: 5,
        snapshots: snapshots.collect(),
        manifest: thalweg_common::manifest::StateManifest::of(graph),
    }
}

/// Where a sound checkpoint is.
async fn written() -> (tempfile::TempDir, Arc<dyn Storage>, JobGraph, CheckpointMetadata) {
    let directory = tempfile::tempdir().unwrap();
    let storage = thalweg_common::storage::open(directory.path().to_str().unwrap()).unwrap();
    let graph = checkpointed_graph();
    let metadata = metadata(&graph);
    for path in ["chk-4/0-1-a2", "chk-4/1-0-a2", "chk-4/1-1-a2"] {
        storage.put(path, SNAPSHOT.into()).await.unwrap();
    }
    for name in ["x", "y"] {
        storage.put(&shared(name).path, SST.into()).await.unwrap();
    }
    metadata.write(&*storage).await.unwrap();
    (directory, storage, graph, metadata)
}

async fn restore(storage: &Arc<dyn Storage>, graph: &JobGraph, as_a_whole: bool) -> Result<(), RestoreError> {
    restorable(&**storage, JobId(1), 4, graph, as_a_whole).await.map(drop)
}

#[tokio::test]
async fn what_is_whole_is_acknowledged_and_restored() {
    let (_directory, storage, graph, metadata) = written().await;
    acknowledged(&*storage, &metadata, &BTreeSet::new()).await.unwrap();
    for as_a_whole in [false, true] {
        assert_eq!(restore(&storage, &graph, as_a_whole).await, Ok(()));
    }
}

#[tokio::test]
async fn every_damage_is_found() {
    type Damage = fn(&Path);
    let table: [(&str, Damage, bool, &str); 7] = [
        ("metadata gone", |at| std::fs::remove_file(at.join("chk-4/_metadata")).unwrap(), false, "_metadata"),
        ("metadata cut off", |at| cut_off(&at.join("chk-4/_metadata")), false, "checksum is wrong"),
        (
            "snapshot gone",
            |at| std::fs::remove_file(at.join("chk-4/1-0-a2")).unwrap(),
            false,
            "`chk-4/1-0-a2` is not in",
        ),
        ("snapshot cut off", |at| cut_off(&at.join("chk-4/1-1-a2")), false, "bytes instead of 24"),
        (
            "shared file gone",
            |at| std::fs::remove_file(at.join(shared("y").path)).unwrap(),
            false,
            "-y` is not in",
        ),
        ("bit flipped", |at| flip(&at.join("chk-4/0-1-a2")), true, "`chk-4/0-1-a2` is damaged"),
        ("bit of a shared file flipped", |at| flip(&at.join(shared("x").path)), true, "-x` is damaged"),
    ];
    for (name, damage, only_as_a_whole, expected) in table {
        let (directory, storage, graph, _) = written().await;
        damage(directory.path());
        assert_eq!(restore(&storage, &graph, false).await.is_ok(), only_as_a_whole, "{name}");
        match restore(&storage, &graph, true).await {
            Err(RestoreError::Unreadable(reason)) => assert!(reason.contains(expected), "{name}: {reason}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

fn cut_off(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() - 3]).unwrap();
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[7] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// A storage that does not answer in time.
#[derive(Debug)]
struct Outage;

impl Outage {
    fn error(path: &str) -> StorageError {
        let reason = std::io::ErrorKind::TimedOut.into();
        StorageError::Io { operation: "reach", path: path.into(), storage: "file:///far".into(), reason }
    }
}

#[async_trait::async_trait]
impl Storage for Outage {
    async fn put(&self, path: &str, _: bytes::Bytes) -> Result<(), StorageError> {
        Err(Self::error(path))
    }
    async fn put_if_absent(&self, path: &str, _: bytes::Bytes) -> Result<bool, StorageError> {
        Err(Self::error(path))
    }
    async fn get(&self, path: &str) -> Result<bytes::Bytes, StorageError> {
        Err(Self::error(path))
    }
    async fn get_range(&self, path: &str, _: std::ops::Range<u64>) -> Result<bytes::Bytes, StorageError> {
        Err(Self::error(path))
    }
    async fn upload_file(
        &self,
        _: &Path,
        path: &str,
        _: Option<UploadedFile>,
    ) -> Result<UploadedFile, StorageError> {
        Err(Self::error(path))
    }
    async fn download_file(
        &self,
        path: &str,
        _: &Path,
        _: Option<UploadedFile>,
    ) -> Result<UploadedFile, StorageError> {
        Err(Self::error(path))
    }
    async fn delete_many(&self, paths: &[String]) -> Result<(), StorageError> {
        Err(Self::error(&paths.concat()))
    }
    async fn exists(&self, path: &str) -> Result<bool, StorageError> {
        Err(Self::error(path))
    }
    async fn list(&self, prefix: &str) -> Result<Vec<thalweg_common::storage::ObjectInfo>, StorageError> {
        Err(Self::error(prefix))
    }
    async fn delete(&self, path: &str) -> Result<(), StorageError> {
        Err(Self::error(path))
    }
    async fn delete_prefix(&self, prefix: &str) -> Result<(), StorageError> {
        Err(Self::error(prefix))
    }
    fn uri(&self) -> &str {
        "file:///far"
    }
}

#[tokio::test]
async fn an_outage_of_the_storage_says_nothing_about_the_checkpoint() {
    let graph = checkpointed_graph();
    let failed = restorable(&Outage, JobId(1), 4, &graph, false).await.unwrap_err();
    let RestoreError::Failed(failure) = failed else { panic!("{failed:?}") };
    assert!(failure.retryable && failure.message.contains("chk-4/_metadata"), "{failure}");
    let verified = acknowledged(&Outage, &metadata(&graph), &BTreeSet::new()).await.unwrap_err();
    assert!(matches!(verified, VerifyError::Storage(_)), "{verified}");
}

#[tokio::test]
async fn a_checkpoint_of_another_job_is_never_passed_over() {
    let (_directory, storage, graph, _) = written().await;
    let failed = restorable(&*storage, JobId(9), 4, &graph, false).await.unwrap_err();
    let RestoreError::Failed(failure) = failed else { panic!("{failed:?}") };
    assert!(!failure.retryable, "{failure}");
}

#[tokio::test]
async fn what_was_promised_must_be_there_before_it_counts() {
    let (directory, storage, _, metadata) = written().await;
    std::fs::remove_file(directory.path().join(shared("x").path)).unwrap();
    let error = acknowledged(&*storage, &metadata, &BTreeSet::new()).await.unwrap_err().to_string();
    assert!(error.contains("-x` is not in"), "{error}");
    let known = BTreeSet::from([shared("x").path]);
    acknowledged(&*storage, &metadata, &known).await.unwrap();

    let mut contradicting = metadata.clone();
    let handle = contradicting.snapshots.values_mut().next().unwrap();
    handle.shared[0].checksum ^= 1;
    let error = acknowledged(&*storage, &contradicting, &known).await.unwrap_err().to_string();
    assert!(error.contains("different contents"), "{error}");

    let mut lying = metadata;
    lying.snapshots.values_mut().next().unwrap().size_bytes += 1;
    let error = acknowledged(&*storage, &lying, &known).await.unwrap_err().to_string();
    assert!(error.contains("announced were"), "{error}");
}
