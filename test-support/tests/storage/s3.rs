//! What only S3 has: credentials, buckets, encryption, addresses.

use thalweg_common::failure::{Failure, Fault as WhoseFault};
use thalweg_common::storage::{Encryption, RemoteCause};
use thalweg_test_support::s3_peer::{ACCESS_KEY, SECRET_KEY};
use thalweg_test_support::{FaultProxy, Faults};

use super::*;

fn remote(error: StorageError, cause: RemoteCause) -> String {
    let StorageError::Remote { cause: found, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*found, cause, "{error}");
    assert_eq!(
        Failure::from(&error).fault,
        if cause.retryable() { WhoseFault::External } else { WhoseFault::User }
    );
    error.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_does_not_exist_is_named() {
    let peer = peer().await;
    let storage = StorageFactory::new(peer.settings()).open("s3://no-such-bucket/x").unwrap();
    for error in [
        error(storage.put("a", "x".into()).await),
        error(storage.put("a", content(20 << 20, 1)).await),
        error(storage.get("a").await),
        error(storage.list("").await),
        error(storage.delete_many(&["a".to_owned()]).await),
    ] {
        let text = remote(error, RemoteCause::NoSuchBucket);
        assert!(text.contains("s3://no-such-bucket/x") && text.contains("create the bucket"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_not_there_is_unreachable() {
    let peer = peer().await;
    let free = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut settings = peer.settings_at(free);
    settings.s3.max_retries = 2;
    let text = remote(error(open(&settings, "x").put("a", "x".into()).await), RemoteCause::Unreachable);
    assert!(text.contains("refused") && text.contains("tried 3 times"), "{text}");
    assert!(text.contains("check `s3.endpoint`"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_credentials_the_error_says_where_they_come_from() {
    let peer = peer().await;
    let mut settings = peer.settings();
    let empty = tempfile::NamedTempFile::new().unwrap();
    settings.s3 = settings.s3.with_credentials_file(empty.path());
    let text = remote(error(open(&settings, "x").get("a").await), RemoteCause::NoCredentials);
    assert!(text.contains("there are no credentials") && text.contains("AWS_ACCESS_KEY_ID"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_are_never_shown() {
    let peer = peer().await;
    let proxy = FaultProxy::start(peer.address(), 1).await.unwrap();
    let mut settings = peer.settings_at(proxy.address());
    settings.s3.max_retries = 0;
    let factory = StorageFactory::new(settings.clone());
    let storage = factory.open(&format!("s3://{BUCKET}/x")).unwrap();
    storage.put("a", "x".into()).await.unwrap();
    let mut shown = vec![format!("{settings:?} {factory:?} {storage:?} {}", storage.uri())];
    for faults in [
        Faults { slow_down: 1_000, ..Faults::default() },
        Faults { denied: 1_000, ..Faults::default() },
        Faults { reset_before: 1_000, ..Faults::default() },
        Faults { truncated: 1_000, ..Faults::default() },
    ] {
        proxy.set_faults(faults);
        let error = error(storage.put("a", "x".into()).await);
        shown.push(format!("{error} {error:?}"));
    }
    for text in shown {
        assert!(!text.contains(SECRET_KEY) && !text.contains(ACCESS_KEY), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn encryption_is_asked_for() {
    let peer = peer().await;
    let kms = Encryption::Kms { key_id: Some("alias/checkpoints".to_owned()) };
    for (encryption, wanted) in [(Encryption::S3, "AES256"), (kms, "aws:kms")] {
        let mut settings = peer.settings();
        settings.s3.encryption = encryption;
        let storage = open(&settings, wanted);
        storage.put("small", "x".into()).await.unwrap();
        storage.put("large", content(17 << 20, 1)).await.unwrap();
        for name in ["small", "large"] {
            let target = format!("/{BUCKET}/{wanted}/{name}");
            let (status, head) = peer.ask("HEAD", &target).await.unwrap();
            assert_eq!(status, 200, "{target}");
            let head = head.to_ascii_lowercase();
            assert!(
                head.contains(&format!("x-amz-server-side-encryption: {}", wanted.to_ascii_lowercase())),
                "{target}: {head}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_storages_of_one_bucket_do_not_see_each_other() {
    let peer = peer().await;
    let factory = StorageFactory::new(peer.settings());
    let open = |uri: &str| factory.open(uri).unwrap();
    let (whole, job, other) = (
        open(&format!("s3://{BUCKET}")),
        open(&format!("s3a://{BUCKET}/jobs/1/")),
        open(&format!("s3://{BUCKET}/jobs/10")),
    );
    job.put("a", "1".into()).await.unwrap();
    other.put("a", "10".into()).await.unwrap();
    assert_eq!(whole.get("jobs/1/a").await.unwrap(), "1");
    assert_eq!(whole.get("jobs/10/a").await.unwrap(), "10");
    assert_eq!(job.uri(), format!("s3://{BUCKET}/jobs/1"));
    job.delete_prefix("").await.unwrap();
    assert_eq!(other.list("").await.unwrap().len(), 1);
    assert_eq!(whole.list("").await.unwrap().len(), 1);
}

/// Where the process that has only an environment is told what to do.
const ENDPOINT_VARIABLE: &str = "THALWEG_TEST_S3_ENDPOINT";

/// Runs [`in_a_process_of_its_own`] with nothing but these variables.
async fn run_with(variables: &[(&str, &str)]) {
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "s3::in_a_process_of_its_own", "--ignored", "--nocapture"])
        .env_clear()
        // No files of whoever runs the tests, and no questions to the network.
        .envs([("HOME", "/nonexistent"), ("AWS_EC2_METADATA_DISABLED", "true")])
        .envs(variables.iter().copied())
        .kill_on_drop(true);
    let output = tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends").unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "{said}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_come_from_where_every_program_takes_them() {
    let peer = peer().await;
    let endpoint = format!("http://{}", peer.address());
    run_with(&[
        (ENDPOINT_VARIABLE, &endpoint),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
    ])
    .await;
    let file = peer.credentials_file();
    let file = file.to_str().unwrap();
    run_with(&[(ENDPOINT_VARIABLE, &endpoint), ("AWS_SHARED_CREDENTIALS_FILE", file)]).await;
    run_with(&[]).await;
}

#[tokio::test]
#[ignore = "started by another test, with an environment of its own"]
async fn in_a_process_of_its_own() {
    let mut settings = StorageSettings::default();
    settings.s3.endpoint = std::env::var(ENDPOINT_VARIABLE).ok();
    let storage = open(&settings, "own");
    if settings.s3.endpoint.is_some() {
        storage.put("a", "x".into()).await.unwrap();
        assert_eq!(storage.get("a").await.unwrap(), "x");
    } else {
        // Neither a region nor credentials nor anybody who could be asked for them.
        remote(error(storage.put("a", "x".into()).await), RemoteCause::NoCredentials);
    }
}
