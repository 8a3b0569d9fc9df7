//! The promises, one case each. A case knows nothing about the kind of storage.

use std::path::PathBuf;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt, stream};
use thalweg_common::storage::UploadedFile;

use super::*;

/// An empty storage and an empty directory for files of this machine.
struct Given {
    storage: Arc<dyn Storage>,
    local: PathBuf,
}

impl Given {
    async fn put(&self, path: &str, bytes: impl Into<Bytes>) {
        self.storage.put(path, bytes.into()).await.unwrap();
    }

    async fn paths(&self, prefix: &str) -> Vec<String> {
        self.storage.list(prefix).await.unwrap().into_iter().map(|object| object.path).collect()
    }

    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.local.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn local_names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.local).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

type Case = (&'static str, fn(Given) -> BoxFuture<'static, ()>);

macro_rules! cases {
    ($($name:ident),+ $(,)?) => { &[$((stringify!($name), |given| $name(given).boxed())),+] };
}

const CASES: &[Case] = cases![
    objects_are_written_read_replaced_and_deleted,
    a_missing_object_is_not_found_and_says_where,
    paths_cannot_leave_the_storage,
    prefixes_stand_for_whole_segments,
    put_if_absent_keeps_the_first,
    of_twelve_that_put_if_absent_exactly_one_wins,
    of_large_ones_that_put_if_absent_exactly_one_wins,
    more_than_a_thousand_objects_are_listed_and_deleted,
    large_objects_keep_their_content,
    ranges_are_exact,
    files_come_back_as_they_went,
    a_file_that_is_not_what_was_expected_is_refused,
    files_that_cannot_be_copied_leave_nothing,
    many_are_deleted_at_once,
    many_large_objects_travel_side_by_side,
    names_of_all_kinds_are_kept,
];

async fn hold(mut given: impl FnMut(&str) -> Arc<dyn Storage>) {
    for (name, case) in CASES {
        let local = tempfile::tempdir().unwrap();
        let given = Given { storage: given(name), local: local.path().to_owned() };
        eprintln!("{name}: {}", given.storage.uri());
        tokio::time::timeout(PATIENCE, case(given)).await.unwrap_or_else(|_| panic!("{name} hangs"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_keeps_the_promises() {
    let root = tempfile::tempdir().unwrap();
    let open = |name: &str| thalweg_common::storage::open(root.path().join(name).to_str().unwrap()).unwrap();
    hold(open).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn s3_keeps_the_promises() {
    let peer = peer().await;
    let settings = peer.settings();
    hold(|name| open(&settings, name)).await;
    assert_eq!(peer.unfinished_uploads(BUCKET).await.unwrap(), 0);
}

async fn objects_are_written_read_replaced_and_deleted(given: Given) {
    let storage = &given.storage;
    assert!(!storage.exists("job/a").await.unwrap());
    given.put("job/a", "one").await;
    given.put("job/empty", "").await;
    assert_eq!(storage.get("job/a").await.unwrap(), "one");
    assert_eq!(storage.get("job/empty").await.unwrap(), "");
    assert!(storage.exists("job/a").await.unwrap() && storage.exists("job/empty").await.unwrap());
    given.put("job/a", "two").await;
    assert_eq!(storage.get("job/a").await.unwrap(), "two");
    assert_eq!(given.paths("").await, ["job/a", "job/empty"]);
    storage.delete("job/a").await.unwrap();
    storage.delete("job/a").await.unwrap();
    storage.delete("other/a").await.unwrap();
    assert!(!storage.exists("job/a").await.unwrap());
}

async fn a_missing_object_is_not_found_and_says_where(given: Given) {
    let storage = &given.storage;
    given.put("job/a", "one").await;
    for missing in ["nothing", "job/b", "job/a/below-an-object", "job"] {
        for error in [
            error(storage.get(missing).await),
            error(storage.get_range(missing, 0..1).await),
            error(storage.get_range(missing, 0..0).await),
            error(storage.download_file(missing, &given.local.join("x"), None).await),
        ] {
            assert!(error.is_not_found() && !error.retryable(), "{error}");
            assert!(
                error.to_string().contains(missing) && error.to_string().contains(storage.uri()),
                "{error}"
            );
        }
        assert!(!storage.exists(missing).await.unwrap(), "{missing}");
    }
    assert_eq!(given.local_names(), Vec::<String>::new());
}

async fn paths_cannot_leave_the_storage(given: Given) {
    let (storage, out) = (&given.storage, "../../secret");
    let file = given.file("file", b"x");
    for error in [
        error(storage.get(out).await),
        error(storage.get_range(out, 0..1).await),
        error(storage.exists(out).await),
        error(storage.put(out, Bytes::new()).await),
        error(storage.put_if_absent(out, Bytes::new()).await),
        error(storage.upload_file(&file, out, None).await),
        error(storage.download_file(out, &file, None).await),
        error(storage.delete(out).await),
        error(storage.delete_many(&["fine".to_owned(), out.to_owned()]).await),
        error(storage.delete_prefix("..").await),
        error(storage.list("a/..").await),
    ] {
        assert!(matches!(error, StorageError::InvalidPath { .. }), "{error}");
    }
}

async fn prefixes_stand_for_whole_segments(given: Given) {
    for path in ["job/chk-1/a", "job/chk-1/sub/b", "job/chk-10/a", "job/chk-1.old", "other"] {
        given.put(path, "1234").await;
    }
    assert_eq!(given.paths("job/chk-1").await, ["job/chk-1/a", "job/chk-1/sub/b"]);
    assert_eq!(given.paths("job/chk-1/").await, ["job/chk-1/a", "job/chk-1/sub/b"]);
    assert_eq!(given.paths("other").await, ["other"]);
    assert_eq!(given.paths("nothing").await, Vec::<String>::new());
    assert_eq!(given.paths("").await.len(), 5);
    assert!(given.storage.list("").await.unwrap().iter().all(|object| object.size == 4));

    given.storage.delete_prefix("job/chk-1").await.unwrap();
    assert_eq!(given.paths("").await, ["job/chk-1.old", "job/chk-10/a", "other"]);
    given.storage.delete_prefix("job/chk-1").await.unwrap();
    given.storage.delete_prefix("other").await.unwrap();
    given.storage.delete_prefix("").await.unwrap();
    assert_eq!(given.paths("").await, Vec::<String>::new());
    given.put("again", "").await;
}

async fn put_if_absent_keeps_the_first(given: Given) {
    let storage = &given.storage;
    assert!(storage.put_if_absent("lock", "first".into()).await.unwrap());
    assert!(!storage.put_if_absent("lock", "second".into()).await.unwrap());
    assert!(!storage.put_if_absent("lock", "first".into()).await.unwrap(), "the same content is no victory");
    assert_eq!(storage.get("lock").await.unwrap(), "first");
    storage.delete("lock").await.unwrap();
    assert!(storage.put_if_absent("lock", "third".into()).await.unwrap());
    given.put("plain", "x").await;
    assert!(!storage.put_if_absent("plain", "y".into()).await.unwrap());
}

/// Of so many, one wins, and the object is the winner's.
async fn one_wins(given: &Given, rounds: usize, writers: usize, object: impl Fn(usize) -> Bytes) {
    for round in 0..rounds {
        let path = format!("lock-{round}");
        let won = together(writers, |writer| given.storage.put_if_absent(&path, object(writer))).await;
        let won: Vec<bool> = won.into_iter().map(Result::unwrap).collect();
        assert_eq!(won.iter().filter(|&&won| won).count(), 1, "{won:?}");
        let winner = won.iter().position(|&won| won).unwrap();
        assert!(given.storage.get(&path).await.unwrap() == object(winner));
    }
}

async fn of_twelve_that_put_if_absent_exactly_one_wins(given: Given) {
    one_wins(&given, 10, 12, |writer| format!("writer {writer}").into()).await;
}

async fn of_large_ones_that_put_if_absent_exactly_one_wins(given: Given) {
    one_wins(&given, 1, 3, |writer| content(17 << 20, writer as u64)).await;
    assert!(!given.storage.put_if_absent("lock-0", content(17 << 20, 9)).await.unwrap());
}

async fn more_than_a_thousand_objects_are_listed_and_deleted(given: Given) {
    const COUNT: usize = 1_100;
    let put = |number: usize| {
        let storage = Arc::clone(&given.storage);
        async move { storage.put(&format!("many/{:02}/{number:04}", number % 7), "x".into()).await.unwrap() }
    };
    stream::iter(0..COUNT).for_each_concurrent(16, put).await;
    given.put("many-more", "x").await;
    let listed = given.paths("many").await;
    let mut wanted: Vec<_> = (0..COUNT).map(|number| format!("many/{:02}/{number:04}", number % 7)).collect();
    wanted.sort();
    assert_eq!(listed, wanted);
    assert_eq!(given.paths("many/03").await.len(), COUNT.div_ceil(7) - usize::from(COUNT % 7 <= 3));
    given.storage.delete_prefix("many").await.unwrap();
    assert_eq!(given.paths("").await, ["many-more"]);
}

async fn large_objects_keep_their_content(given: Given) {
    let storage = &given.storage;
    // Around the sizes at which one request becomes several, and a part becomes two.
    for size in [(8 << 20) + 1, 16 << 20, (16 << 20) + 1, 20 << 20, 24 << 20] {
        let object = content(size, size as u64);
        storage.put("large", object.clone()).await.unwrap();
        assert!(storage.get("large").await.unwrap() == object, "{size} bytes");
        assert_eq!(storage.list("large").await.unwrap()[0].size, size as u64);
    }
}

async fn ranges_are_exact(given: Given) {
    let storage = &given.storage;
    let object = content(20 << 20, 1);
    given.put("large", object.clone()).await;
    given.put("small", "0123456789").await;
    for (start, end) in [(0, 0), (0, 1), (3, 7), (9, 10), (0, 10), (10, 10)] {
        let part = storage.get_range("small", start..end).await.unwrap();
        assert_eq!(part, "0123456789"[start as usize..end as usize], "{start}..{end}");
    }
    let size = object.len() as u64;
    for (start, end) in [(0, size), (1, size - 1), (size - 1, size), (5 << 20, 6 << 20), (7, (18 << 20) + 3)]
    {
        let part = storage.get_range("large", start..end).await.unwrap();
        assert!(part == object[start as usize..end as usize], "{start}..{end}");
    }
    for (path, start, end) in
        [("small", 0, 11), ("small", 10, 11), ("small", 11, 11), ("small", 7, 3), ("large", 1, size + 1)]
    {
        let error = error(storage.get_range(path, start..end).await);
        assert!(matches!(error, StorageError::OutOfRange { .. }), "{path} {start}..{end}: {error}");
        assert!(!error.retryable());
    }
}

async fn files_come_back_as_they_went(given: Given) {
    let storage = &given.storage;
    for size in [0, 1, 1_000_000, 20 << 20] {
        let bytes = content(size, 3);
        let file = given.file("sst", &bytes);
        let uploaded = storage.upload_file(&file, "shared/sst", None).await.unwrap();
        assert_eq!(uploaded.size, size as u64);
        assert_eq!(uploaded.checksum, xxhash_rust::xxh3::xxh3_64(&bytes));
        // Over itself, which is the same file where links are made; known or not, and with a size that it has not.
        let longer = UploadedFile { size: uploaded.size + 1, ..uploaded };
        for known in [None, Some(uploaded), Some(longer)] {
            assert_eq!(storage.upload_file(&file, "shared/sst", known).await.unwrap(), uploaded);
        }
        assert!(storage.get("shared/sst").await.unwrap() == bytes, "{size} bytes");
        assert_eq!(given.paths("").await, ["shared/sst"], "nothing else is left");

        let back = given.local.join("back");
        for expected in [None, Some(uploaded)] {
            assert_eq!(storage.download_file("shared/sst", &back, expected).await.unwrap(), uploaded);
            assert!(std::fs::read(&back).unwrap() == bytes, "{size} bytes");
        }
        std::fs::remove_file(&file).unwrap();
        assert!(storage.get("shared/sst").await.unwrap() == bytes, "the object does not need the file");
        assert_eq!(given.local_names(), ["back"]);
    }
}

async fn a_file_that_is_not_what_was_expected_is_refused(given: Given) {
    let storage = &given.storage;
    let right = storage.upload_file(&given.file("sst", b"content"), "sst", None).await.unwrap();
    let target = given.file("target", b"before");
    for wrong in [
        UploadedFile { size: right.size + 1, ..right },
        UploadedFile { checksum: right.checksum ^ 1, ..right },
    ] {
        let error = error(storage.download_file("sst", &target, Some(wrong)).await);
        assert!(matches!(error, StorageError::Damaged { .. }) && !error.retryable(), "{error}");
        assert!(
            error.to_string().contains("`sst`") && error.to_string().contains("another checkpoint"),
            "{error}"
        );
    }
    assert_eq!(std::fs::read(&target).unwrap(), b"before");
    assert_eq!(given.local_names(), ["sst", "target"], "no part of it is left");
}

async fn files_that_cannot_be_copied_leave_nothing(given: Given) {
    let storage = &given.storage;
    given.put("a", "x").await;
    for missing in [given.local.join("missing"), given.local.clone()] {
        let error = error(storage.upload_file(&missing, "b", None).await);
        assert!(matches!(error, StorageError::LocalFile { .. }) && !error.is_not_found(), "{error}");
        assert!(error.to_string().contains(missing.to_str().unwrap()), "{error}");
    }
    let nowhere = given.local.join("no/such/directory");
    let error = error(storage.download_file("a", &nowhere, None).await);
    assert!(error.to_string().contains(nowhere.to_str().unwrap()), "{error}");
    assert_eq!(given.paths("").await, ["a"]);
}

async fn many_are_deleted_at_once(given: Given) {
    let storage = &given.storage;
    storage.delete_many(&[]).await.unwrap();
    for path in ["a", "b/c", "b/d", "e"] {
        given.put(path, "x").await;
    }
    let mut gone: Vec<String> = (0..1_005).map(|number| format!("never/was/{number}")).collect();
    gone.extend(["a".to_owned(), "b/d".to_owned()]);
    storage.delete_many(&gone).await.unwrap();
    assert_eq!(given.paths("").await, ["b/c", "e"]);
}

async fn many_large_objects_travel_side_by_side(given: Given) {
    // More parts than a process has under way, and each object needs several.
    let objects: Vec<_> = (0..4).map(|number| content(18 << 20, number)).collect();
    let put = |number: usize| given.storage.put("x", objects[number].clone());
    together(2, put).await.into_iter().for_each(Result::unwrap);
    let copy = |number: usize| {
        let (given, objects) = (&given, &objects);
        async move {
            let path = format!("sst-{number}");
            let file = given.file(&path, &objects[number]);
            let uploaded = given.storage.upload_file(&file, &path, None).await.unwrap();
            given.storage.download_file(&path, &file, Some(uploaded)).await.unwrap();
            assert!(given.storage.get(&path).await.unwrap() == objects[number]);
        }
    };
    together(4, copy).await;
}

async fn names_of_all_kinds_are_kept(given: Given) {
    let mut names =
        ["a b/c+d", "ü/µ", "per%20cent", "q?x=1&y", "dots...", "(1)/'2'", "a#b", "x=y,z;"].map(str::to_owned);
    for name in &names {
        given.put(name, name.clone()).await;
    }
    names.sort();
    assert_eq!(given.paths("").await, names);
    for name in &names {
        assert_eq!(given.storage.get(name).await.unwrap(), *name);
    }
    given.storage.delete_many(&names).await.unwrap();
    assert_eq!(given.paths("").await, Vec::<String>::new());
}
