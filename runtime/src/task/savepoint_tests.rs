//! Savepoints of a store on disk, taken beside the processing.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use thalweg_common::graph::{StateDescriptor, StateKind};
use thalweg_common::id::{JobId, SubtaskId};
use thalweg_common::manifest::StateManifest;
use thalweg_common::record::Record as _;
use thalweg_common::schema::Schema;
use thalweg_savepoint::Metadata;

use crate::event::Barrier;
use crate::operators;
use crate::program::OperatorFactory;
use crate::task::upload;
use crate::testing::{OPERATOR, OperatorHarness, Setup};

use super::*;

const OWNER: Owner = Owner { subtask: SubtaskId { vertex: 1, index: 0 }, attempt: 2 };
const KEYS: u64 = 30_000;
/// A cache for a part of the keys.
const MEMORY: u64 = 1536 << 10;

type Harness = OperatorHarness<(u64, u64), (u64, u64)>;

/// Counts records by key.
fn count() -> Arc<dyn OperatorFactory> {
    operators::reduce(|pair: &(u64, u64)| pair.0, |a: (u64, u64), b: (u64, u64)| (a.0, a.1 + b.1))
}

fn push(harness: &mut Harness, keys: impl IntoIterator<Item = u64>) {
    harness.push(keys.into_iter().map(|key| (key, 1)).collect()).unwrap();
}

/// An operator that has counted every key once.
fn counted(setup: Setup) -> Harness {
    let mut harness = Harness::open(count().as_ref(), setup).unwrap();
    (0..KEYS / 1_000).for_each(|part| push(&mut harness, part * 1_000..(part + 1) * 1_000));
    harness
}

/// A barrier reaches the operator; `store` works on what it froze while the operator encodes it and does `meanwhile`.
async fn at_barrier<T, F: Future<Output = T>>(
    harness: &mut Harness,
    checkpoint: CheckpointId,
    store: impl FnOnce(TaskSnapshot, Vec<FrozenStore>) -> F,
    mut meanwhile: impl FnMut(&mut Harness),
) -> T {
    let (snapshot, frozen) = harness.freeze(checkpoint).unwrap().into_parts();
    let mut task = TaskSnapshot::default();
    task.operators.insert(OPERATOR, snapshot);
    let mut storing = std::pin::pin!(store(task, frozen));
    loop {
        tokio::select! {
            biased;
            stored = &mut storing => return stored,
            () = tokio::task::yield_now() => {}
        }
        meanwhile(harness);
        harness.flush().unwrap();
    }
}

/// Takes a savepoint, while every tenth key is counted once more.
async fn savepoint(
    harness: &mut Harness,
    id: CheckpointId,
    directory: &Arc<dyn Storage>,
    stores: &TaskStores,
) -> Result<SnapshotHandle, Failure> {
    let mut later = (0..KEYS).step_by(10);
    let write = |task, frozen| write(id, task, frozen, OWNER, Arc::clone(directory), stores);
    let mut count_on = |harness: &mut Harness| push(harness, later.by_ref().take(100));
    let written = at_barrier(harness, id, write, &mut count_on).await;
    (0..KEYS / 1_000).for_each(|_| count_on(harness));
    written
}

/// Takes a checkpoint.
async fn checkpoint(
    harness: &mut Harness,
    id: CheckpointId,
    directory: &Arc<dyn Storage>,
    stores: &TaskStores,
) -> upload::Stored {
    let barrier = Barrier { id, timestamp_ms: 0, is_final: false, is_savepoint: false };
    let directory = Some(Arc::clone(directory));
    let store = |task, frozen| upload::store(barrier, task, frozen, None, OWNER, directory, stores);
    let stored = at_barrier(harness, id, store, |_| ()).await.unwrap();
    stores.uploads().completed(id);
    stored
}

/// That of the operator whose state is in these files. The descriptor says no more than what is needed to read them.
fn manifest_of(files: &[DataFile], value: Schema) -> StateManifest {
    let state = files.iter().flat_map(|file| file.states.keys()).next().unwrap();
    let operator = OperatorManifest {
        id: OPERATOR,
        uid: None,
        name: "Count".into(),
        parallelism: 1,
        max_parallelism: 128,
        key_schema: Some(u64::schema()),
        states: vec![StateDescriptor::new(state, StateKind::Value, value)],
    };
    StateManifest { job_name: "counts".into(), operators: vec![operator] }
}

/// The counts in a savepoint, with their key groups.
async fn read_counts(
    directory: &Arc<dyn Storage>,
    handle: &SnapshotHandle,
) -> BTreeMap<(KeyGroup, u64), u64> {
    let SnapshotLocation::DataFiles(list) = &handle.location else { unreachable!("{handle:?}") };
    let files = DataFile::decode_list(list).unwrap();
    assert_eq!(handle.size_bytes, files.iter().map(|file| file.size_bytes).sum::<u64>());
    let manifest = manifest_of(&files, <(u64, u64)>::schema());
    Metadata::new(JobId(1), 1, 0, manifest, files).write(&**directory).await.unwrap();
    let savepoint = Savepoint::open(Arc::clone(directory)).await.unwrap();
    let mut counts = BTreeMap::new();
    let visited = savepoint.visit(OPERATOR, groups_of(0, 1, 128), |_, group, mut entries| {
        while !entries.is_empty() {
            let (key, (_, count)) = <(u64, (u64, u64))>::decode(&mut entries).unwrap();
            assert_eq!(counts.insert((group, key), count), None, "key {key} is there twice");
        }
        Ok::<_, SavepointError>(())
    });
    visited.await.unwrap();
    counts
}

fn directory(path: &Path) -> Arc<dyn Storage> {
    thalweg_common::storage::open(&path.display().to_string()).unwrap()
}

/// Whether every tenth key has been counted so often, and the others once.
fn assert_counted(harness: &mut Harness, times: u64) {
    harness.output();
    for part in 0..KEYS / 1_000 {
        push(harness, part * 1_000..(part + 1) * 1_000);
    }
    for (key, count) in harness.output() {
        assert_eq!(count, if key % 10 == 0 { times + 1 } else { 2 }, "key {key}");
    }
}

#[tokio::test]
async fn a_savepoint_of_a_store_larger_than_its_cache_is_that_of_memory_at_the_barrier() {
    let temporary = tempfile::tempdir().unwrap();
    let mut savepoints = Vec::new();
    for (name, setup) in [
        ("memory", Setup::default()),
        ("disk", Setup::default().on_disk(&temporary.path().join("store"), MEMORY)),
    ] {
        let (directory, stores) = (directory(&temporary.path().join(name)), setup.stores());
        let mut harness = counted(setup);
        let handle = savepoint(&mut harness, 1, &directory, &stores).await.unwrap();
        savepoints.push(read_counts(&directory, &handle).await);
        assert_counted(&mut harness, 2);
    }
    assert!(savepoints[0] == savepoints[1]);
    assert!(savepoints[0].len() as u64 == KEYS && savepoints[0].values().all(|count| *count == 1));
}

#[tokio::test]
async fn more_than_fits_into_memory_comes_from_a_savepoint_into_a_store_on_disk() {
    const LARGE: u64 = 40_000;
    let text = |key: u64| format!("{key:01000}");
    let longest = operators::reduce(
        |pair: &(u64, String)| pair.0,
        |a: (u64, String), b: (u64, String)| if b.1.len() > a.1.len() { b } else { a },
    );
    let open =
        |setup| OperatorHarness::<(u64, String), (u64, String)>::open(longest.as_ref(), setup).unwrap();
    let push = |harness: &mut OperatorHarness<_, _>, text: &dyn Fn(u64) -> String| {
        for part in 0..LARGE / 1_000 {
            let keys = part * 1_000..(part + 1) * 1_000;
            harness.push(keys.map(|key| (key, text(key))).collect()).unwrap();
        }
        harness.output()
    };
    let temporary = tempfile::tempdir().unwrap();
    let directory = directory(&temporary.path().join("savepoint"));
    let setup = Setup::default();
    let stores = setup.stores();
    let mut harness = open(setup);
    push(&mut harness, &text);
    let mut task = TaskSnapshot::default();
    task.operators.insert(OPERATOR, harness.barrier(1).unwrap());
    let handle = write(1, task, Vec::new(), OWNER, Arc::clone(&directory), &stores).await.unwrap();
    let SnapshotLocation::DataFiles(list) = &handle.location else { unreachable!("{handle:?}") };
    let files = DataFile::decode_list(list).unwrap();
    let manifest = manifest_of(&files, <(u64, String)>::schema());
    let states = manifest.operators[0].states.clone();
    Metadata::new(JobId(1), 1, 0, manifest, files).write(&*directory).await.unwrap();

    let operator = Operator {
        node: 0,
        id: OPERATOR,
        uid: None,
        name: "Longest".into(),
        kind: "reduce".into(),
        location: String::new(),
        inputs: Vec::new(),
        input_tag: None,
        states,
        key_schema: Some(u64::schema()),
        time: None,
    };
    let vertex = Vertex {
        name: "Longest".into(),
        parallelism: 1,
        max_parallelism: 128,
        slot_sharing_group: "default".into(),
        operators: vec![operator],
    };
    let from = || RestoredSavepoint { path: directory.uri().to_string(), allow_non_restored_state: false };
    let storages = StorageFactory::default();
    let disk = Setup::default().on_disk(&temporary.path().join("store"), MEMORY);
    let restored = read(from(), &storages, &vertex, 0, &disk.stores(), 0).await.unwrap();
    let state = restored.operators[&OPERATOR].clone();
    let files = state.spooled.clone();
    assert!(!files.is_empty() && files.iter().all(|file| file.exists()), "{files:?}");
    let in_memory: usize =
        state.keyed_state.values().flat_map(|state| state.groups.values()).map(|e| e.0.len()).sum();
    assert!(in_memory < EPOCH_CHUNK_BYTES, "{in_memory} bytes");
    let mut harness = open(disk.restoring(state));
    assert!(files.iter().all(|file| !file.exists()), "they were read");
    for (key, longest) in push(&mut harness, &|_| "short".to_string()) {
        assert_eq!(longest, text(key));
    }
    // A store in memory takes all of it at once.
    let restored = read(from(), &storages, &vertex, 0, &Setup::default().stores(), 0).await.unwrap();
    assert!(restored.operators[&OPERATOR].spooled.is_empty());
}

#[tokio::test]
async fn a_savepoint_that_fails_or_is_given_up_leaves_a_store_that_takes_checkpoints() {
    let temporary = tempfile::tempdir().unwrap();
    let path = |name: &str| temporary.path().join(name);
    let setup = Setup::default().on_disk(&path("store"), MEMORY);
    let (checkpoints, stores) = (directory(&path("checkpoints")), setup.stores());
    let mut harness = counted(setup);
    let first = checkpoint(&mut harness, 1, &checkpoints, &stores).await;

    // Its directory is a file.
    let refused = directory(&path("refused"));
    std::fs::write(path("refused"), b"a file").unwrap();
    let failure = savepoint(&mut harness, 2, &refused, &stores).await.unwrap_err();
    assert!(failure.message.contains("refused"), "{failure}");
    // Given up before it is written.
    stores.uploads().aborted(3);
    let given_up = directory(&path("given-up"));
    let failure = savepoint(&mut harness, 3, &given_up, &stores).await.unwrap_err();
    assert!(failure.message.contains("was given up"), "{failure}");
    assert!(!path("given-up").exists());
    // Nobody waits for it any more.
    let unwanted = directory(&path("unwanted"));
    let write = |task, frozen| write(4, task, frozen, OWNER, Arc::clone(&unwanted), &stores);
    tokio::select! {
        biased;
        written = at_barrier(&mut harness, 4, write, |_| ()) => drop(written),
        () = tokio::task::yield_now() => {}
    }

    // What came behind the barriers is in the next checkpoint, which names files of the first one.
    let last = checkpoint(&mut harness, 5, &checkpoints, &stores).await;
    let shared = |stored: &upload::Stored| -> BTreeSet<String> {
        stored.handle.shared.iter().map(|file| file.path.clone()).collect()
    };
    assert!(!shared(&last).is_disjoint(&shared(&first)), "{last:?}");
    let (bytes, _) = upload::fetch(&last.handle, &Some(Arc::clone(&checkpoints)), &stores).await.unwrap();
    let snapshot = upload::decode(&[bytes]).unwrap().remove(0);
    let other = Setup::default().on_disk(&path("other"), MEMORY);
    let (restored, owned) = (other.stores(), groups_of(0, 1, 128));
    files::fetch(std::slice::from_ref(&snapshot), owned, &Some(checkpoints), &restored).await.unwrap();
    let other = other.restoring(snapshot.operators[&OPERATOR].clone());
    assert_counted(&mut Harness::open(count().as_ref(), other).unwrap(), 3);
    assert_counted(&mut harness, 3);
}
