//! Snapshots of a store on disk, uploaded and fetched again.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;

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
    let storing = upload::store(barrier, task, frozen, None, OWNER, directory.clone(), stores);
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
    let (bytes, _) = upload::fetch(&last.handle, &directory, &TaskStores::default()).await.unwrap();
    let snapshot = upload::decode(&[bytes]).unwrap().remove(0);
    let other = Setup::default().on_disk(&temporary.path().join("other"), 8 << 20);
    let restored = other.stores();
    fetch(std::slice::from_ref(&snapshot), groups_of(0, 1, 128), &directory, &restored).await.unwrap();
    let operator = snapshot.operators[&crate::testing::OPERATOR].clone();
    let mut harness = open(other.restoring(operator));
    harness.push(ones(0..50_000)).unwrap();
    assert_eq!(harness.output().into_iter().map(|(_, count)| count).collect::<Vec<_>>(), expected);
    // What was restored need not be uploaded.
    let next = store(&mut harness, 6, &directory, &restored).await.unwrap();
    assert!(paths(&next.handle).is_superset(&paths(&last.handle)));

    std::fs::remove_dir_all(temporary.path().join("storage")).unwrap();
    let third = Setup::default().on_disk(&temporary.path().join("third"), 8 << 20);
    let missing = fetch(std::slice::from_ref(&snapshot), groups_of(0, 1, 128), &directory, &third.stores())
        .await
        .unwrap_err();
    assert!(missing.message.contains("shared/"), "{missing}");
}

/// The names of the copies of the harness's subtask.
fn copied(job: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(job.join("1-0")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_restore_reads_copies_on_this_machine_and_fetches_what_is_missing_or_damaged() {
    let temporary = tempfile::tempdir().unwrap();
    let path = |name: &str| temporary.path().join(name);
    let directory: Directory =
        Some(thalweg_common::storage::open(&path("storage").display().to_string()).unwrap());
    let on_disk = |name: &str| Setup::default().on_disk(&path(name), 8 << 20).with_copies(&path("job"));
    let setup = on_disk("one");
    let stores = setup.stores();
    let mut harness = open(setup);
    let mut last = None;
    for checkpoint in 1..=4 {
        harness.push(ones(0..50_000 / checkpoint)).unwrap();
        last = Some(store(&mut harness, checkpoint, &directory, &stores).await.unwrap().handle);
        stores.uploads().completed(checkpoint);
        copies::prune(stores.clone()).await;
    }
    // Of the newest complete checkpoint and no other; one that is in progress is kept beside it.
    let last = last.unwrap();
    let names: BTreeSet<String> = paths(&last).iter().map(|path| path.replace('/', "-")).collect();
    assert!(names.len() >= 2, "{names:?}");
    assert_eq!(copied(&path("job")), names);
    harness.push(ones(0..10)).unwrap();
    let aborted = store(&mut harness, 5, &directory, &stores).await.unwrap().handle;
    copies::prune(stores.clone()).await;
    assert_eq!(copied(&path("job")).len(), paths(&aborted).union(&paths(&last)).count());
    stores.uploads().aborted(5);
    copies::prune(stores.clone()).await;
    assert_eq!(copied(&path("job")), names);

    // The storage cannot be read, and need not be.
    fs::rename(path("storage/shared"), path("storage/elsewhere")).unwrap();
    let (bytes, _) = upload::fetch(&last, &directory, &stores).await.unwrap();
    let snapshot = upload::decode(&[bytes]).unwrap().remove(0);
    let shared_bytes: u64 = last.shared.iter().map(|file| file.size_bytes).sum();
    let setup = on_disk("two");
    let origins = fetch(std::slice::from_ref(&snapshot), groups_of(0, 1, 128), &directory, &setup.stores())
        .await
        .unwrap();
    assert_eq!(origins, Origins { copied_bytes: shared_bytes, fetched_bytes: 0 });
    let mut again = open(setup.restoring(snapshot.operators[&crate::testing::OPERATOR].clone()));
    again.push(ones([0, 20_000, 49_999])).unwrap();
    assert_eq!(again.output(), [(0, 5), (20_000, 3), (49_999, 2)]);

    // A copy of other content, and one that is missing.
    fs::rename(path("storage/elsewhere"), path("storage/shared")).unwrap();
    let copy = |file: &SharedFile| path("job/1-0").join(file.path.replace('/', "-"));
    let (damaged, missing) = (&last.shared[0], &last.shared[1]);
    fs::remove_file(copy(damaged)).unwrap();
    fs::write(copy(damaged), vec![0; damaged.size_bytes as usize]).unwrap();
    fs::remove_file(copy(missing)).unwrap();
    let setup = on_disk("three");
    let origins = fetch(std::slice::from_ref(&snapshot), groups_of(0, 1, 128), &directory, &setup.stores())
        .await
        .unwrap();
    let fetched_bytes = damaged.size_bytes + missing.size_bytes;
    assert_eq!(origins, Origins { copied_bytes: shared_bytes - fetched_bytes, fetched_bytes });
    let mut again = open(setup.restoring(snapshot.operators[&crate::testing::OPERATOR].clone()));
    again.push(ones([0, 20_000, 49_999])).unwrap();
    assert_eq!(again.output(), [(0, 5), (20_000, 3), (49_999, 2)]);
    assert_eq!(copied(&path("job")), names, "what was fetched is there for the next time");
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
