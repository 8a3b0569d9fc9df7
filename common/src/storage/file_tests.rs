//! Tests of the storage in a directory.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tempfile::TempDir;

use super::*;
use crate::task_scope::TaskScope;

/// Far more than any of these tests needs: only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(60);

fn storage() -> (TempDir, FileStorage) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let storage = FileStorage::new(directory.path().join("made/on/demand"));
    (directory, storage)
}

async fn paths(storage: &FileStorage, prefix: &str) -> Vec<String> {
    storage.list(prefix).await.expect("listable").into_iter().map(|object| object.path).collect()
}

/// Names of all files, temporary ones too.
fn files(root: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(root)
        .expect("readable")
        .map(|entry| entry.expect("readable").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_is_put_can_be_read_replaced_and_deleted() {
    let (_directory, storage) = storage();
    assert!(!storage.exists("job/a").await.expect("can tell"));
    storage.put("job/a", Bytes::from_static(b"one")).await.expect("writable");
    storage.put("job/empty", Bytes::new()).await.expect("writable");
    assert_eq!(storage.get("job/a").await.expect("readable"), "one");
    assert_eq!(storage.get("job/empty").await.expect("readable"), "");
    assert!(storage.exists("job/a").await.expect("can tell"));

    storage.put("job/a", Bytes::from_static(b"two")).await.expect("writable");
    assert_eq!(storage.get("job/a").await.expect("readable"), "two");
    assert_eq!(files(&storage.root().join("job")), ["a", "empty"], "no temporary file is left");

    storage.delete("job/a").await.expect("deletable");
    storage.delete("job/a").await.expect("deleting twice is no error");
    storage.delete("other/a").await.expect("nor is deleting what never was");
    assert!(!storage.exists("job/a").await.expect("can tell"));
}

#[tokio::test]
async fn a_missing_object_is_not_found_and_says_where() {
    let (_directory, storage) = storage();
    storage.put("job/a", Bytes::from_static(b"one")).await.expect("writable");
    for missing in ["nothing", "job/b", "job/a/below-an-object", "job"] {
        let error = storage.get(missing).await.expect_err("there is no such object");
        assert!(error.is_not_found() && !error.retryable(), "{error}");
        assert!(error.to_string().contains(missing) && error.to_string().contains(storage.uri()), "{error}");
        assert!(!storage.exists(missing).await.expect("can tell"), "{missing}");
    }
}

#[tokio::test]
async fn paths_cannot_leave_the_storage() {
    let (directory, storage) = storage();
    fs::write(directory.path().join("secret"), "x").expect("writable");
    let outside = "../../../secret";
    assert!(matches!(storage.get(outside).await, Err(StorageError::InvalidPath { .. })));
    assert!(matches!(storage.exists(outside).await, Err(StorageError::InvalidPath { .. })));
    assert!(matches!(storage.put(outside, Bytes::new()).await, Err(StorageError::InvalidPath { .. })));
    assert!(matches!(
        storage.put_if_absent(outside, Bytes::new()).await,
        Err(StorageError::InvalidPath { .. })
    ));
    assert!(matches!(storage.delete(outside).await, Err(StorageError::InvalidPath { .. })));
    assert!(matches!(storage.delete_prefix("..").await, Err(StorageError::InvalidPath { .. })));
    assert!(matches!(storage.list("..").await, Err(StorageError::InvalidPath { .. })));
    assert_eq!(fs::read(directory.path().join("secret")).expect("untouched"), b"x");
}

#[tokio::test]
async fn prefixes_stand_for_whole_segments() {
    let (_directory, storage) = storage();
    for path in ["job/chk-1/a", "job/chk-1/sub/b", "job/chk-10/a", "job/chk-1.old", "other"] {
        storage.put(path, Bytes::from_static(b"1234")).await.expect("writable");
    }
    assert_eq!(paths(&storage, "job/chk-1").await, ["job/chk-1/a", "job/chk-1/sub/b"]);
    assert_eq!(paths(&storage, "job/chk-1/").await, ["job/chk-1/a", "job/chk-1/sub/b"]);
    assert_eq!(paths(&storage, "other").await, ["other"]);
    assert_eq!(paths(&storage, "nothing").await, Vec::<String>::new());
    assert_eq!(paths(&storage, "").await.len(), 5);
    assert!(storage.list("").await.expect("listable").iter().all(|object| object.size == 4));

    storage.delete_prefix("job/chk-1").await.expect("deletable");
    assert_eq!(paths(&storage, "").await, ["job/chk-1.old", "job/chk-10/a", "other"]);
    storage.delete_prefix("job/chk-1").await.expect("deleting twice is no error");
    storage.delete_prefix("other").await.expect("an object is its own prefix");
    storage.delete_prefix("").await.expect("deletable");
    assert_eq!(paths(&storage, "").await, Vec::<String>::new());
    storage.put("again", Bytes::new()).await.expect("the root is made again");
}

#[tokio::test]
async fn what_a_crash_left_behind_is_hidden_and_goes_with_its_directory() {
    let (_directory, storage) = storage();
    storage.put("job/a", Bytes::from_static(b"one")).await.expect("writable");
    let left_over = storage.root().join(format!("job/{TEMPORARY}0123456789abcdef"));
    fs::write(&left_over, "half of an obj").expect("writable");
    assert_eq!(paths(&storage, "").await, ["job/a"]);
    assert!(storage.get(&format!("job/{TEMPORARY}0123456789abcdef")).await.is_err());
    storage.delete_prefix("job").await.expect("deletable");
    assert!(!left_over.exists());
}

#[tokio::test]
async fn a_failed_write_leaves_nothing_and_says_why() {
    let (_directory, storage) = storage();
    storage.put("job/a", Bytes::from_static(b"one")).await.expect("writable");
    let error = storage.put("job/a/b", Bytes::new()).await.expect_err("an object is no directory");
    assert!(error.to_string().contains("could not write `job/a/b`") && !error.retryable(), "{error}");
    let error = storage.put("job", Bytes::new()).await.expect_err("a directory is no object");
    assert!(error.to_string().contains("something else has this name") && !error.is_not_found(), "{error}");
    let error = storage.put_if_absent("job", Bytes::new()).await.expect_err("nor can it be linked");
    assert!(error.to_string().contains("something else has this name"), "{error}");
    assert_eq!(files(storage.root()), ["job"], "no temporary file is left");
    assert_eq!(storage.get("job/a").await.expect("untouched"), "one");
}

#[tokio::test]
async fn put_if_absent_keeps_the_first() {
    let (_directory, storage) = storage();
    assert!(storage.put_if_absent("lock", Bytes::from_static(b"first")).await.expect("writable"));
    assert!(!storage.put_if_absent("lock", Bytes::from_static(b"second")).await.expect("writable"));
    assert_eq!(storage.get("lock").await.expect("readable"), "first");
    assert_eq!(files(storage.root()), ["lock"], "no temporary file is left");
    storage.delete("lock").await.expect("deletable");
    assert!(storage.put_if_absent("lock", Bytes::from_static(b"third")).await.expect("writable"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_put_if_absent_exactly_one_wins() {
    let (_directory, storage) = storage();
    for round in 0..20 {
        let scope = TaskScope::new("writers");
        let winners = Arc::new(AtomicUsize::new(0));
        let winner = Arc::new(AtomicUsize::new(usize::MAX));
        for writer in 0..8 {
            let (storage, winners, winner) = (storage.clone(), Arc::clone(&winners), Arc::clone(&winner));
            scope.spawn_fallible("writer", async move {
                let mine = Bytes::from(writer.to_string());
                if storage.put_if_absent(&format!("lock-{round}"), mine).await? {
                    winners.fetch_add(1, Ordering::SeqCst);
                    winner.store(writer, Ordering::SeqCst);
                }
                Ok::<_, StorageError>(())
            });
        }
        tokio::time::timeout(PATIENCE, scope.drained()).await.expect("all writers end");
        assert_eq!(scope.first_failure(), None);
        assert_eq!(winners.load(Ordering::SeqCst), 1);
        let held_by = storage.get(&format!("lock-{round}")).await.expect("readable");
        assert_eq!(held_by, winner.load(Ordering::SeqCst).to_string());
    }
}

/// Objects of different sizes, each of one repeated byte, so that a mixture or a part of one is recognised.
fn object(writer: usize, round: usize) -> Bytes {
    let size = 1_000 + (writer * 131 + round * 977) % 60_000;
    Bytes::from(vec![u8::try_from(writer).expect("few writers"); size])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_never_see_a_part_of_an_object() {
    const WRITERS: usize = 4;
    const ROUNDS: usize = 40;
    let (_directory, storage) = storage();
    storage.put("hot/object", object(0, 0)).await.expect("writable");
    let (writers, readers) = (TaskScope::new("writers"), TaskScope::new("readers"));
    let done = Arc::new(AtomicBool::new(false));
    for writer in 0..WRITERS {
        let storage = storage.clone();
        writers.spawn_fallible("writer", async move {
            for round in 0..ROUNDS {
                storage.put("hot/object", object(writer, round)).await?;
            }
            Ok::<_, StorageError>(())
        });
    }
    for _ in 0..2 {
        let (storage, done) = (storage.clone(), Arc::clone(&done));
        readers.spawn_fallible("reader", async move {
            while !done.load(Ordering::SeqCst) {
                let seen = storage.get("hot/object").await?;
                let writer = usize::from(seen[0]);
                let whole = (0..ROUNDS).any(|round| object(writer, round) == seen);
                assert!(whole, "an object of {} bytes was never written by writer {writer}", seen.len());
                let listed = storage.list("hot").await?;
                assert_eq!(listed.len(), 1, "temporary files are listed: {listed:?}");
            }
            Ok::<_, StorageError>(())
        });
    }
    tokio::time::timeout(PATIENCE, writers.drained()).await.expect("all writers end");
    done.store(true, Ordering::SeqCst);
    tokio::time::timeout(PATIENCE, readers.drained()).await.expect("all readers end");
    assert_eq!((writers.first_failure(), readers.first_failure()), (None, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writing_survives_the_deletion_of_its_directory() {
    let (_directory, storage) = storage();
    let scope = TaskScope::new("s");
    // One deletion for each write, at about the same time: it hits the write before, within or after.
    let (begin, mut begun) = tokio::sync::mpsc::channel::<()>(1);
    let (writing, deleting) = (storage.clone(), storage);
    scope.spawn_fallible("writer", async move {
        for _ in 0..100 {
            if begin.send(()).await.is_err() {
                break;
            }
            writing.put("job/chk/a", Bytes::from_static(b"x")).await?;
        }
        Ok::<_, StorageError>(())
    });
    scope.spawn_fallible("deleter", async move {
        while begun.recv().await.is_some() {
            deleting.delete_prefix("job").await?;
        }
        Ok::<_, StorageError>(())
    });
    tokio::time::timeout(PATIENCE, scope.drained()).await.expect("both end");
    assert_eq!(scope.first_failure(), None);
}

#[test]
fn objects_are_deleted_until_enough_room_is_free() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let root = directory.path();
    let names = ["a", "linked", "missing", "b", "c", "d"].map(str::to_owned);
    for name in ["a", "linked", "b", "c", "d"] {
        fs::write(root.join(name), [0; 100]).expect("writable");
    }
    fs::hard_link(root.join("linked"), root.join("kept")).expect("a link");
    let mut left = names.into_iter();
    assert_eq!(delete_some(root, &mut left, 200).expect("deletable"), []);
    assert_eq!(
        (left.as_slice(), files(root)),
        (&["c".into(), "d".into()][..], vec!["c".into(), "d".into(), "kept".into()])
    );
    assert_eq!(delete_some(root, &mut left, 1_000).expect("deletable"), []);
    assert_eq!((left.len(), files(root)), (0, vec!["kept".to_owned()]));
}

#[tokio::test]
async fn more_is_deleted_than_room_is_freed_at_once() {
    let (_directory, storage) = storage();
    let names: Vec<_> = (0..7).map(|number| format!("job/{number}")).collect();
    for name in &names {
        storage.put(name, Bytes::from_static(b"x")).await.expect("writable");
        let file = File::options().write(true).open(storage.root().join(name)).expect("there");
        file.set_len(STORAGE_FREED_AT_ONCE_BYTES / 2).expect("a hole takes no room");
    }
    storage.delete_many(&names).await.expect("deletable");
    assert_eq!(paths(&storage, "").await, [""; 0]);
}
