//! Snapshots of a store on disk, uploaded and fetched again.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use thalweg_common::id::SubtaskId;
use thalweg_common::key_group::groups_of;
use thalweg_proto::convert::SnapshotHandle;

use crate::event::Barrier;
use crate::operators;
use crate::task::upload::{self, Stored};
use crate::testing::{OperatorHarness, Setup};

use super::*;

const OWNER: Owner = Owner { subtask: SubtaskId { vertex: 1, index: 0 }, attempt: 2 };

type Harness = OperatorHarness<(u64, u64), (u64, u64)>;

/// Counts records by key.
fn count() -> std::sync::Arc<dyn crate::program::OperatorFactory> {
    operators::reduce(|pair: &(u64, u64)| pair.0, |a: (u64, u64), b: (u64, u64)| (a.0, a.1 + b.1))
}

fn ones(keys: impl IntoIterator<Item = u64>) -> Vec<(u64, u64)> {
    keys.into_iter().map(|key| (key, 1)).collect()
}

/// An operator with a store on disk.
fn open(setup: Setup) -> Harness {
    Harness::open(count().as_ref(), setup).unwrap()
}

/// A barrier reaches the operator; what it froze is stored while the operator encodes it.
async fn store(
    harness: &mut Harness,
    checkpoint: CheckpointId,
    directory: &Directory,
    stores: &TaskStores,
) -> Result<Stored, Failure> {
    let (snapshot, frozen) = harness.freeze(checkpoint).unwrap().into_parts();
    let barrier = Barrier { id: checkpoint, timestamp_ms: 0, is_final: false, is_savepoint: false };
    let mut task = TaskSnapshot::default();
    task.operators.insert(crate::testing::OPERATOR, snapshot);
    let storing = upload::store(barrier, task, frozen, OWNER, directory.clone(), stores);
    let mut storing = std::pin::pin!(storing);
    loop {
        harness.flush().unwrap();
        tokio::select! {
            biased;
            stored = &mut storing => return stored,
            () = tokio::task::yield_now() => {}
        }
    }
}

fn paths(handle: &SnapshotHandle) -> BTreeSet<String> {
    handle.shared.iter().map(|file| file.path.clone()).collect()
}

#[tokio::test]
async fn files_travel_once_and_are_named_again_when_their_checkpoint_is_complete() {
    let temporary = tempfile::tempdir().unwrap();
    let uri = temporary.path().join("storage").display().to_string();
    let directory: Directory = Some(thalweg_common::storage::open(&uri).unwrap());
    let setup = Setup::default().on_disk(&temporary.path().join("one"), 8 << 20);
    let stores = setup.stores();
    let mut harness = open(setup);

    harness.push(ones(0..50_000)).unwrap();
    let first = store(&mut harness, 1, &directory, &stores).await.unwrap();
    assert!(!first.handle.shared.is_empty() && first.handle.state_bytes() > 200_000, "{first:?}");
    assert_eq!(first.incremental_bytes, first.handle.state_bytes());
    assert!(paths(&first.handle).iter().all(|path| SharedFile::uploaded_by(path) == Some((2, 1))));

    // Not told yet that the first one is complete: nothing of it may be named.
    harness.push(ones(0..100)).unwrap();
    let second = store(&mut harness, 2, &directory, &stores).await.unwrap();
    assert!(paths(&second.handle).is_disjoint(&paths(&first.handle)));
    stores.uploads().completed(2);

    harness.push(ones(100..200)).unwrap();
    let third = store(&mut harness, 3, &directory, &stores).await.unwrap();
    assert!(paths(&third.handle).is_superset(&paths(&second.handle)), "{third:?}");
    assert!(third.incremental_bytes * 10 < third.handle.state_bytes(), "{third:?}");

    // Given up: what it has changed is in the next one all the same.
    harness.push(ones(200..300)).unwrap();
    stores.uploads().aborted(4);
    let aborted = store(&mut harness, 4, &directory, &stores).await.unwrap_err();
    assert!(aborted.message.contains("was given up"), "{aborted}");
    stores.uploads().completed(3);
    let last = store(&mut harness, 5, &directory, &stores).await.unwrap();
    let expected: Vec<u64> = (0..50_000).map(|key| if key < 300 { 3 } else { 2 }).collect();

    // On another machine.
    let bytes = upload::fetch(last.handle.clone(), directory.clone()).await.unwrap();
    let snapshot = upload::decode(&[bytes]).unwrap().remove(0);
    let other = Setup::default().on_disk(&temporary.path().join("other"), 8 << 20);
    let restored = other.stores();
    fetch(&snapshot, groups_of(0, 1, 128), &directory, &restored).await.unwrap();
    let operator = snapshot.operators[&crate::testing::OPERATOR].clone();
    let mut harness = open(other.restoring(operator));
    harness.push(ones(0..50_000)).unwrap();
    assert_eq!(harness.output().into_iter().map(|(_, count)| count).collect::<Vec<_>>(), expected);
    // What was restored need not be uploaded.
    let next = store(&mut harness, 6, &directory, &restored).await.unwrap();
    assert!(paths(&next.handle).is_superset(&paths(&last.handle)));

    std::fs::remove_dir_all(temporary.path().join("storage")).unwrap();
    let third = Setup::default().on_disk(&temporary.path().join("third"), 8 << 20);
    let missing = fetch(&snapshot, groups_of(0, 1, 128), &directory, &third.stores()).await.unwrap_err();
    assert!(missing.message.contains("shared/"), "{missing}");
}

#[tokio::test]
async fn without_a_directory_a_checkpoint_is_declined_and_the_store_goes_on() {
    let temporary = tempfile::tempdir().unwrap();
    let setup = Setup::default().on_disk(temporary.path(), 8 << 20);
    let stores = setup.stores();
    let mut harness = open(setup);
    for checkpoint in 1..4 {
        harness.push(ones([1, 2])).unwrap();
        let declined = store(&mut harness, checkpoint, &None, &stores).await.unwrap_err();
        assert!(declined.message.contains("set `execution.checkpointing.dir`"), "{declined}");
    }
    harness.output();
    harness.push(ones([1])).unwrap();
    assert_eq!(harness.output(), [(1, 4)]);
}
