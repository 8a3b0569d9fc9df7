//! S3 that fails: what is acknowledged is there, what is lost is known, and an error says what to do and comes in time.

use thalweg_common::clock::{SharedClock, Stopwatch, SystemClock};
use thalweg_common::limits::{S3_RETRY_BUDGET, S3_RETRY_BUDGET_PER_SECOND};
use thalweg_common::storage::RemoteCause;
use thalweg_test_support::{Fault, FaultProxy, Faults};

use super::*;

/// A storage behind a proxy.
struct Given {
    peer: S3Peer,
    proxy: FaultProxy,
    settings: StorageSettings,
    storage: Arc<dyn Storage>,
}

impl Given {
    async fn new(seed: u64) -> Self {
        Self::with(seed, |settings| settings).await
    }

    async fn with(seed: u64, change: impl FnOnce(StorageSettings) -> StorageSettings) -> Self {
        let peer = peer().await;
        let proxy = FaultProxy::start(peer.address(), seed).await.unwrap();
        let settings = change(peer.settings_at(proxy.address()));
        let storage = open(&settings, "chaos");
        Self { peer, proxy, settings, storage }
    }

    /// The same storage without the proxy.
    fn direct(&self) -> Arc<dyn Storage> {
        open(&self.peer.settings(), "chaos")
    }
}

/// Everything the storage can do, several times at the same time.
async fn everything_succeeds(storage: &Arc<dyn Storage>, files: &std::path::Path) {
    let work = |worker: usize| async move {
        for round in 0..4 {
            let path = format!("job-{worker}/object-{round}");
            let object = content(1 + 70_000 * round, worker as u64);
            storage.put(&path, object.clone()).await.unwrap();
            assert!(storage.get(&path).await.unwrap() == object);
            assert!(storage.exists(&path).await.unwrap());
        }
        let file = files.join(format!("file-{worker}"));
        let bytes = content((17 << 20) + worker, worker as u64);
        std::fs::write(&file, &bytes).unwrap();
        let path = format!("job-{worker}/file");
        let uploaded = storage.upload_file(&file, &path, None).await.unwrap();
        storage.download_file(&path, &file, Some(uploaded)).await.unwrap();
        assert!(std::fs::read(&file).unwrap() == bytes);
        let range = (5 << 20)..(6 << 20);
        let part = storage.get_range(&path, range.start as u64..range.end as u64).await.unwrap();
        assert!(part == bytes[range]);
        assert_eq!(storage.list(&format!("job-{worker}")).await.unwrap().len(), 5);
        storage.delete(&format!("job-{worker}/object-0")).await.unwrap();
        let more: Vec<_> = (1..3).map(|round| format!("job-{worker}/object-{round}")).collect();
        storage.delete_many(&more).await.unwrap();
    };
    together(4, work).await;
    for round in 0..5 {
        let path = format!("lock-{round}");
        let own = |writer: usize| storage.put_if_absent(&path, format!("writer {writer}").into());
        let won: Vec<_> = together(12, own).await.into_iter().map(Result::unwrap).collect();
        let winners: Vec<_> = (0..12).filter(|&writer| won[writer]).collect();
        assert_eq!(winners.len(), 1, "round {round}: {won:?}");
        assert_eq!(storage.get(&path).await.unwrap(), format!("writer {}", winners[0]));
    }
}

async fn faults_are_survived(seed: u64, of_thousand: u16) {
    let given = Given::new(seed).await;
    let files = tempfile::tempdir().unwrap();
    given.proxy.set_faults(Faults::of_thousand(of_thousand));
    eprintln!("seed {seed}, {of_thousand} of 1,000 requests fail");
    everything_succeeds(&given.storage, files.path()).await;
    let (requests, failed) = (given.proxy.requests(), given.proxy.failed());
    eprintln!("{failed} of {requests} requests failed");
    assert!(failed * 1_000 > requests * u64::from(of_thousand) / 2, "the proxy did its work");

    let direct = given.direct();
    let mut left: Vec<_> = direct.list("").await.unwrap().into_iter().map(|object| object.path).collect();
    let mut wanted: Vec<_> =
        (0..4).flat_map(|n| [format!("job-{n}/file"), format!("job-{n}/object-3")]).collect();
    wanted.extend((0..5).map(|round| format!("lock-{round}")));
    left.sort();
    wanted.sort();
    assert_eq!(left, wanted, "what was acknowledged is there, and what was deleted is not");
    assert_eq!(given.peer.unfinished_uploads(BUCKET).await.unwrap(), 0);

    given.storage.delete_prefix("").await.unwrap();
    assert_eq!(direct.list("").await.unwrap(), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_percent_of_faults_are_survived() {
    faults_are_survived(1, 50).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thirty_percent_of_faults_are_survived() {
    faults_are_survived(2, 300).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conditional_write_whose_answer_is_lost_knows_that_it_won() {
    let given = Given::new(3).await;
    let storage = &given.storage;
    for (round, lost) in [Fault::ResetAfter, Fault::Truncated].into_iter().enumerate() {
        let path = format!("small-{round}");
        given.proxy.script(&[lost]);
        assert!(storage.put_if_absent(&path, "mine".into()).await.unwrap(), "{lost:?}");
        given.proxy.script(&[lost]);
        assert!(!storage.put_if_absent(&path, "mine".into()).await.unwrap(), "the next one has not won");

        // Create, three parts, complete.
        let path = format!("large-{round}");
        given.proxy.script(&[Fault::None, Fault::None, Fault::None, Fault::None, lost]);
        assert!(storage.put_if_absent(&path, content(20 << 20, 1)).await.unwrap(), "{lost:?}");
        given.proxy.script(&[Fault::None, Fault::None, Fault::None, Fault::None, lost]);
        assert!(!storage.put_if_absent(&path, content(20 << 20, 1)).await.unwrap());
        // And one that need not be the first.
        given.proxy.script(&[Fault::None, Fault::None, Fault::None, Fault::None, lost]);
        storage.put(&path, content(20 << 20, 2)).await.unwrap();
        assert!(given.direct().get(&path).await.unwrap() == content(20 << 20, 2));
    }
    assert_eq!(given.peer.unfinished_uploads(BUCKET).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_down_gives_a_clear_error_in_time() {
    let given = Given::with(4, |mut settings| {
        settings.s3.max_retries = 3;
        settings.s3.socket_timeout = Duration::from_millis(200);
        settings.s3.attempt_timeout = Duration::from_millis(300);
        settings.s3.operation_timeout = Duration::from_secs(2);
        settings
    })
    .await;
    let clock: SharedClock = SystemClock::shared();
    let file = tempfile::NamedTempFile::new().unwrap();
    given.storage.put("there", "x".into()).await.unwrap();
    let all = |fault: Fault| match fault {
        Fault::SlowDown => Faults { slow_down: 1_000, ..Faults::default() },
        Fault::Denied => Faults { denied: 1_000, ..Faults::default() },
        Fault::ResetBefore => Faults { reset_before: 1_000, ..Faults::default() },
        Fault::ResetAfter => Faults { reset_after: 1_000, ..Faults::default() },
        Fault::Truncated => Faults { truncated: 1_000, ..Faults::default() },
        _ => Faults { silence: 1_000, ..Faults::default() },
    };
    for (fault, cause, cure) in [
        (Fault::SlowDown, RemoteCause::Throttled, "write less often"),
        (Fault::Denied, RemoteCause::Denied, "s3:PutObject"),
        (Fault::ResetBefore, RemoteCause::Unreachable, "`s3.endpoint`"),
        (Fault::ResetAfter, RemoteCause::Unreachable, "`s3.endpoint`"),
        (Fault::Silence, RemoteCause::Timeout, "`s3.attempt.timeout`"),
    ] {
        given.proxy.set_faults(all(fault));
        // Each with a budget of its own.
        let storage = open(&given.settings, "chaos");
        let stopwatch = Stopwatch::start(&clock);
        for (operation, error) in [
            ("write", error(storage.put("a", "x".into()).await)),
            ("write", error(storage.put_if_absent("b", "x".into()).await)),
            ("write", error(storage.put("c", content(20 << 20, 1)).await)),
            ("write", error(storage.upload_file(file.path(), "d", None).await)),
            ("read", error(storage.get("there").await)),
            ("read", error(storage.download_file("there", file.path(), None).await)),
            ("look for", error(storage.exists("there").await)),
            ("list", error(storage.list("there").await)),
            ("delete", error(storage.delete("there").await)),
            ("delete", error(storage.delete_many(&["there".to_owned()]).await)),
        ] {
            let StorageError::Remote { cause: found, .. } = &error else { panic!("{fault:?}: {error:?}") };
            assert_eq!(*found, cause, "{fault:?}: {error}");
            let text = error.to_string();
            assert!(text.starts_with(&format!("could not {operation} `")), "{text}");
            assert!(text.contains("in s3://thalweg-tests/chaos: ") && text.contains(cure), "{text}");
            assert_eq!(error.retryable(), fault != Fault::Denied);
            assert_eq!(text.contains("tried 4 times"), fault != Fault::Denied, "{text}");
            eprintln!("{fault:?}: {text}");
        }
        assert!(stopwatch.elapsed_ms() < 25_000, "{fault:?} took {} ms", stopwatch.elapsed_ms());
        given.proxy.set_faults(Faults::default());
        open(&given.settings, "chaos").put("there", "x".into()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_down_is_not_stormed() {
    const WRITERS: usize = 60;
    let given = Given::with(5, |mut settings| {
        settings.s3.max_retries = 4;
        settings
    })
    .await;
    given.proxy.set_faults(Faults { slow_down: 1_000, ..Faults::default() });
    let clock: SharedClock = SystemClock::shared();
    let stopwatch = Stopwatch::start(&clock);
    let put = |number: usize| {
        let storage = Arc::clone(&given.storage);
        async move { storage.put(&format!("object-{number}"), "x".into()).await }
    };
    let errors: Vec<_> = together(WRITERS, put).await.into_iter().map(error).collect();
    assert!(
        errors
            .iter()
            .any(|error| error.to_string().contains("so many requests fail that no more are repeated"))
    );
    let refilled = stopwatch.elapsed_ms() * u64::from(S3_RETRY_BUDGET_PER_SECOND) / 1_000;
    let allowed = WRITERS as u64 + u64::from(S3_RETRY_BUDGET) + refilled + 1;
    assert!(given.proxy.requests() <= allowed, "{} requests, {allowed} allowed", given.proxy.requests());

    given.proxy.set_faults(Faults::default());
    given.storage.put("recovered", "x".into()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upload_that_fails_or_is_given_up_leaves_nothing() {
    let given = Given::with(6, |mut settings| {
        settings.s3.max_retries = 0;
        settings
    })
    .await;
    let large = content(40 << 20, 1);
    // The upload begins, and one of its parts fails.
    given.proxy.script(&[Fault::None, Fault::None, Fault::ResetBefore]);
    let failed = error(given.storage.put("large", large.clone()).await);
    assert!(matches!(failed, StorageError::Remote { .. }), "{failed}");
    assert_eq!(given.peer.unfinished_uploads(BUCKET).await.unwrap(), 0);
    assert!(!given.direct().exists("large").await.unwrap());

    // Nobody waits any more while a part hangs.
    given.proxy.script(&[Fault::None, Fault::None, Fault::Silence]);
    let put = given.storage.put("large", large);
    tokio::time::timeout(Duration::from_secs(2), put).await.expect_err("it hangs");
    let nothing_is_left = async {
        while given.peer.unfinished_uploads(BUCKET).await.unwrap() > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await; // not a wait: the pause between two looks
        }
    };
    tokio::time::timeout(PATIENCE, nothing_is_left).await.expect("the upload is aborted in the background");
    assert!(!given.direct().exists("large").await.unwrap());

    // The store begins an upload, and the answer is lost.
    let retrying = open(&given.peer.settings_at(given.proxy.address()), "chaos");
    given.proxy.script(&[Fault::ResetAfter, Fault::Truncated]);
    retrying.put("large", content(20 << 20, 2)).await.unwrap();
    assert_eq!(given.peer.unfinished_uploads(BUCKET).await.unwrap(), 0);

    // What a crash left behind goes with its prefix.
    let (status, _) =
        given.peer.ask("POST", &format!("/{BUCKET}/chaos/job/left-over?uploads")).await.unwrap();
    assert_eq!(status, 200);
    assert_eq!(given.peer.unfinished_uploads(BUCKET).await.unwrap(), 1);
    given.storage.delete_prefix("job").await.unwrap();
    assert_eq!(given.peer.unfinished_uploads(BUCKET).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_breaks_off_is_read_again() {
    let given = Given::new(7).await;
    let (small, large) = (content(100_000, 1), content(20 << 20, 2));
    given.storage.put("small", small.clone()).await.unwrap();
    given.storage.put("large", large.clone()).await.unwrap();
    for fault in [Fault::Truncated, Fault::SlowBody, Fault::ResetAfter, Fault::SlowDown] {
        given.proxy.script(&[fault, fault]);
        assert!(given.storage.get("small").await.unwrap() == small, "{fault:?}");
        given.proxy.script(&[fault, Fault::None, fault, fault]);
        assert!(given.storage.get("large").await.unwrap() == large, "{fault:?}");
    }
}
