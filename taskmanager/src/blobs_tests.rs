//! The blob cache against job managers that have a blob, lack it, or damage it.

use std::sync::atomic::{AtomicUsize, Ordering};

use thalweg_common::task_scope::TaskScope;
use thalweg_proto::transport::Dialer;
use thalweg_proto::v1::blob_service_server::{BlobService, BlobServiceServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, Streaming};

use super::*;

const BLOB: &[u8] = b"#!/bin/true\n";

struct JobManager {
    answer: Result<&'static [u8], Status>,
    requests: Arc<AtomicUsize>,
}

type Chunks = tokio_stream::Iter<std::vec::IntoIter<Result<v1::BlobChunk, Status>>>;

#[tonic::async_trait]
impl BlobService for JobManager {
    type GetBlobStream = Chunks;

    async fn get_blob(&self, request: Request<v1::GetBlobRequest>) -> Result<Response<Chunks>, Status> {
        self.requests.fetch_add(1, Ordering::SeqCst);
        assert_eq!(request.into_inner().sha256, BlobHash::of(BLOB).to_wire());
        let bytes = self.answer.clone()?;
        let chunks: Vec<_> = bytes.chunks(5).map(|data| Ok(v1::BlobChunk { data: data.into() })).collect();
        Ok(Response::new(tokio_stream::iter(chunks)))
    }

    async fn put_blob(
        &self,
        _: Request<Streaming<v1::PutBlobRequest>>,
    ) -> Result<Response<v1::PutBlobResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}

/// A job manager that gives this answer; how often it was asked is counted.
async fn job_manager(scope: &TaskScope, answer: Result<&'static [u8], Status>) -> (String, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let service = BlobServiceServer::new(JobManager { answer, requests: requests.clone() });
    let server = tonic::transport::Server::builder().add_service(service);
    scope.spawn_fallible("job manager", server.serve_with_incoming(TcpListenerStream::new(listener)));
    (address, requests)
}

struct Fixture {
    directory: tempfile::TempDir,
    scope: TaskScope,
}

impl Fixture {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory"), scope: TaskScope::new("test") }
    }

    fn cache(&self, addresses: Vec<String>) -> BlobCache {
        let (_, job_managers) = watch::channel(addresses);
        BlobCache::open(self.directory.path().join("blobs"), job_managers, Dialer::default()).expect("opens")
    }

    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path().join("blobs")).expect("reads");
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("a name")).collect()
    }
}

async fn get(cache: &BlobCache) -> Result<PathBuf, Failure> {
    cache.get(BlobHash::of(BLOB), BLOB.len() as u64).await
}

#[tokio::test]
async fn a_blob_is_fetched_once_verified_and_executable() {
    let fixture = Fixture::new();
    let (address, requests) = job_manager(&fixture.scope, Ok(BLOB)).await;
    let cache = fixture.cache(vec![address]);
    let (first, second) = tokio::join!(get(&cache), get(&cache));
    let path = first.expect("fetched");
    assert_eq!(second, Ok(path.clone()));
    assert_eq!(get(&cache).await, Ok(path.clone()));
    assert_eq!(requests.load(Ordering::SeqCst), 1);
    assert_eq!(std::fs::read(&path).expect("reads"), BLOB);
    let mode = std::fs::metadata(&path).expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
    assert_eq!(fixture.files(), [BlobHash::of(BLOB).to_string()]);
}

#[tokio::test]
async fn job_managers_that_lack_or_damage_it_are_passed_over() {
    let fixture = Fixture::new();
    let mut addresses = vec!["127.0.0.1:1".to_string()];
    for answer in [Err(Status::not_found("not here")), Ok(&b"#!/bin/fake\n"[..]), Ok(&b"short"[..]), Ok(BLOB)]
    {
        addresses.push(job_manager(&fixture.scope, answer).await.0);
    }
    let path = get(&fixture.cache(addresses)).await.expect("the last one has it");
    assert_eq!(std::fs::read(path).expect("reads"), BLOB);
    assert_eq!(fixture.files().len(), 1, "nothing is left of the others");
}

#[tokio::test]
async fn a_blob_that_nobody_has_is_a_failure_that_names_the_last_answer() {
    let fixture = Fixture::new();
    let (address, requests) = job_manager(&fixture.scope, Err(Status::not_found("not here"))).await;
    let cache = fixture.cache(vec![address.clone()]);
    let failure = get(&cache).await.expect_err("nobody has it");
    assert!(
        failure.retryable && failure.message.contains(&address) && failure.message.contains("not here"),
        "{failure}"
    );
    assert_eq!(requests.load(Ordering::SeqCst), ROUNDS as usize);
    assert!(
        get(&fixture.cache(vec![]))
            .await
            .expect_err("nobody to ask")
            .message
            .contains("no job manager is known")
    );
}

#[tokio::test]
async fn what_is_on_disk_is_used_if_it_is_intact() {
    let fixture = Fixture::new();
    let (address, requests) = job_manager(&fixture.scope, Ok(BLOB)).await;
    let path = get(&fixture.cache(vec![address.clone()])).await.expect("fetched");
    assert_eq!(
        get(&fixture.cache(vec![])).await,
        Ok(path.clone()),
        "by the next task manager here, without asking"
    );
    std::fs::write(&path, b"damaged").expect("writes");
    let cache = fixture.cache(vec![address]);
    assert_eq!(get(&cache).await, Ok(path.clone()));
    assert_eq!(std::fs::read(&path).expect("reads"), BLOB);
    std::fs::remove_file(&path).expect("removes");
    assert_eq!(get(&cache).await, Ok(path.clone()), "also when it vanished while in use");
    assert!(path.exists());
    assert_eq!(requests.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn remains_of_interrupted_fetches_are_removed() {
    let fixture = Fixture::new();
    drop(fixture.cache(vec![]));
    std::fs::write(fixture.directory.path().join("blobs/abc.def.part"), "x").expect("writes");
    drop(fixture.cache(vec![]));
    assert_eq!(fixture.files(), Vec::<String>::new());
}
