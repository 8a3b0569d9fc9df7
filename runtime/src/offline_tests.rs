//! Checkpoints of both stores, stored as tasks do it, and read without a program.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use thalweg_common::graph::{StateDescriptor, StateKind};
use thalweg_common::id::{CheckpointId, JobId};
use thalweg_common::key_group::{groups_of, key_group, key_hash};
use thalweg_common::manifest::{OperatorManifest, StateManifest};
use thalweg_common::record::Record;
use thalweg_common::storage;
use thalweg_common::task_scope::blocking;
use thalweg_proto::checkpoint::Shape;
use thalweg_proto::convert::SnapshotLocation;

use crate::event::Barrier;
use crate::operators;
use crate::task::upload::{Owner, Stored};
use crate::testing::{OPERATOR, OperatorHarness, Setup};

use super::*;

const KEYS: u64 = 20_000;
const CHECKPOINT: CheckpointId = 5;
const OWNER: Owner = Owner { subtask: SubtaskId { vertex: 1, index: 0 }, attempt: 2 };

/// Stores what an operator has after it has counted every key once, and every tenth twice; its directory, and what its state is.
async fn stored(setup: Setup, directory: &Arc<dyn Storage>) -> (Stored, Vec<StateDescriptor>) {
    let count =
        operators::reduce(|pair: &(u64, u64)| pair.0, |a: (u64, u64), b: (u64, u64)| (a.0, a.1 + b.1));
    let stores = setup.stores();
    let mut harness = OperatorHarness::<(u64, u64), (u64, u64)>::open(count.as_ref(), setup).unwrap();
    for keys in [(0..KEYS).collect(), (0..KEYS).step_by(10).collect::<Vec<_>>()] {
        harness.push(keys.into_iter().map(|key| (key, 1)).collect()).unwrap();
    }
    let (snapshot, frozen) = harness.freeze(CHECKPOINT).unwrap().into_parts();
    let mut task = TaskSnapshot::default();
    task.operators.insert(OPERATOR, snapshot);
    let barrier = Barrier { id: CHECKPOINT, timestamp_ms: 0, is_final: false, is_savepoint: false };
    let directory = Some(Arc::clone(directory));
    let stored = {
        let storing =
            crate::task::upload::store(barrier, task, frozen, None, OWNER, directory.clone(), &stores);
        let mut storing = std::pin::pin!(storing);
        loop {
            harness.flush().unwrap();
            tokio::select! {
                biased;
                stored = &mut storing => break stored.unwrap(),
                () = tokio::task::yield_now() => {}
            }
        }
    };
    let (bytes, _) = upload::fetch(&stored.handle, &directory, &TaskStores::default()).await.unwrap();
    let operator = upload::decode(&[bytes]).unwrap().remove(0).operators.remove(&OPERATOR).unwrap();
    let in_memory = operator.keyed_state.values().map(|state| state.descriptor.clone()).collect();
    let descriptors = operator.store.map_or(in_memory, |store| store.description.descriptors);
    (stored, descriptors)
}

fn metadata(stored: Stored, states: Vec<StateDescriptor>) -> CheckpointMetadata {
    let operator = OperatorManifest {
        id: OPERATOR,
        uid: None,
        name: "Count".to_string(),
        parallelism: 1,
        max_parallelism: 128,
        key_schema: Some(u64::schema()),
        states,
    };
    CheckpointMetadata {
        job_id: JobId(7),
        checkpoint_id: CHECKPOINT,
        attempt: 2,
        is_final: false,
        shape: Shape { fingerprint: 0, states: 0, topology: 0, vertices: Vec::new() },
        in_flight_bytes: 0,
        triggered_ms: 1_000,
        snapshots: [(OWNER.subtask, stored.handle)].into(),
        manifest: StateManifest { job_name: "counts".to_string(), operators: vec![operator] },
    }
}

/// All counts in a savepoint, each found in the key group of its key.
async fn counts(savepoint: &Savepoint) -> BTreeMap<u64, u64> {
    let (mut counts, mut scratch) = (BTreeMap::new(), Vec::new());
    let visited = savepoint.visit(OPERATOR, groups_of(0, 1, 128), |_, group, mut entries| {
        while !entries.is_empty() {
            let key = u64::decode(&mut entries).unwrap();
            let (same, count) = <(u64, u64)>::decode(&mut entries).unwrap();
            assert_eq!((same, key_group(key_hash(&key, &mut scratch), 128)), (key, group));
            assert_eq!(counts.insert(key, count), None, "{key} is there twice");
        }
        Ok::<_, SavepointError>(())
    });
    visited.await.unwrap();
    counts
}

/// Stores a checkpoint and reads it back.
async fn is_read_back(setup: Setup, folder: &Path) -> CheckpointMetadata {
    let directory = storage::open(folder.join("job").to_str().unwrap()).unwrap();
    let (stored, states) = stored(setup, &directory).await;
    assert!(matches!(states.as_slice(), [state] if state.kind == StateKind::Value), "{states:?}");
    let checkpoint = metadata(stored, states);
    checkpoint.write(&*directory).await.unwrap();
    let (directory, found) =
        CheckpointMetadata::find(&format!("{}/job/chk-5", folder.display()), storage::open)
            .await
            .unwrap()
            .unwrap();
    assert_eq!(found, checkpoint);

    let (into, scratch) = (folder.join("savepoint"), folder.join("scratch"));
    let into = storage::open(into.to_str().unwrap()).unwrap();
    let converted = to_savepoint(&directory, &found, into, &scratch).await.unwrap();
    let expected: BTreeMap<u64, u64> = (0..KEYS).map(|key| (key, 1 + u64::from(key % 10 == 0))).collect();
    assert_eq!(counts(&converted.savepoint).await, expected);
    converted.savepoint.verify().await.unwrap();
    let metadata = converted.savepoint.metadata();
    assert_eq!((metadata.job_id, metadata.savepoint_id, metadata.triggered_ms), (JobId(7), 5, 1_000));
    assert_eq!((&metadata.manifest, converted.in_flight_bytes), (&checkpoint.manifest, 0));
    let left = blocking("look", move || std::fs::read_dir(scratch).map_or(0, Iterator::count)).await;
    assert_eq!(left.unwrap(), 0, "stores that were opened are removed");
    checkpoint
}

#[tokio::test]
async fn a_checkpoint_of_state_in_memory_is_read_and_a_missing_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = is_read_back(Setup::default(), folder.path()).await;
    let handle = &checkpoint.snapshots[&OWNER.subtask];
    let SnapshotLocation::File(path) = &handle.location else { unreachable!("{handle:?}") };
    std::fs::remove_file(folder.path().join("job").join(path)).unwrap();
    let directory = storage::open(folder.path().join("job").to_str().unwrap()).unwrap();
    let into = storage::open(folder.path().join("again").to_str().unwrap()).unwrap();
    let missing = to_savepoint(&directory, &checkpoint, into, folder.path()).await.unwrap_err();
    assert!(missing.to_string().contains(path) && missing.to_string().contains("1/0"), "{missing}");
}

#[cfg(feature = "rocksdb")]
#[tokio::test]
async fn a_checkpoint_of_state_in_rocksdb_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let setup = Setup::default().on_disk(&folder.path().join("worker"), 8 << 20);
    let checkpoint = is_read_back(setup, folder.path()).await;
    assert!(!checkpoint.shared_files().is_empty());
}

#[cfg(not(feature = "rocksdb"))]
#[tokio::test]
async fn a_program_without_rocksdb_says_how_to_read_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let directory = storage::open(folder.path().to_str().unwrap()).unwrap();
    let (mut stored, states) = stored(Setup::default(), &directory).await;
    let description = thalweg_state::StoreDescription {
        descriptors: states.clone(),
        key_schema: u64::schema(),
        groups: groups_of(0, 1, 128),
        max_parallelism: 128,
    };
    let store = Some(StoreManifest { description, files: Vec::new() });
    let mut task = TaskSnapshot::default();
    task.operators.insert(OPERATOR, OperatorSnapshot { store, ..OperatorSnapshot::default() });
    let bytes = thalweg_common::codec::to_bytes(&task).unwrap();
    stored.handle.size_bytes = bytes.len() as u64;
    stored.handle.checksum = xxhash_rust::xxh3::xxh3_64(&bytes);
    stored.handle.location = SnapshotLocation::Inline(bytes);
    let into = storage::open(folder.path().join("into").to_str().unwrap()).unwrap();
    let refused = to_savepoint(&directory, &metadata(stored, states), into, folder.path()).await.unwrap_err();
    assert!(refused.message.contains("--features rocksdb"), "{refused}");
}
