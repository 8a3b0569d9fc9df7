//! Brings a job's binary to a majority of the job managers before the job is accepted, so that it outlives its leader.
//!
//! Where `blob.storage.directory` names a shared storage, the blob is put there instead. A job manager that misses a
//! blob fetches it from that storage or from the others.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, FuturesUnordered};
use thalweg_common::failure::Failure;
use thalweg_common::limits::UPLOAD_CHUNK_BYTES;
use thalweg_common::storage::Storage;
use thalweg_proto::blob::BlobHash;
use thalweg_proto::transport::{Dialer, GrpcChannel, blob_service, endpoint};
use thalweg_proto::v1;
use thalweg_proto::v1::blob_service_client::BlobServiceClient;
use tokio::io::AsyncReadExt;

use super::blob_store::{BlobError, BlobStore};
use crate::consensus::{Members, NodeId};

/// How long one job manager may take to receive a blob.
const COPY_TIMEOUT: Duration = Duration::from_secs(120);

/// Where blobs go.
#[derive(Clone)]
pub(crate) struct Replicator {
    store: BlobStore,
    own: NodeId,
    shared: Option<Arc<dyn Storage>>,
    dialer: Dialer,
}

impl Replicator {
    /// Replicates from `store`, which is job manager `own`'s, into `shared` or to the other job managers.
    pub(crate) fn new(
        store: BlobStore,
        own: NodeId,
        shared: Option<Arc<dyn Storage>>,
        dialer: Dialer,
    ) -> Self {
        Self { store, own, shared, dialer }
    }

    /// Returns once the shared storage or a majority of `members`, this one included, has the blob on disk.
    ///
    /// # Errors
    /// When too few could take it; the message names them and why.
    pub(crate) async fn replicate(
        &self,
        hash: BlobHash,
        size_bytes: u64,
        members: &Members,
    ) -> Result<(), Failure> {
        if let Some(shared) = &self.shared {
            return self.share(shared.as_ref(), hash).await;
        }
        let needed = members.len() / 2 + 1;
        let mut have = usize::from(members.contains_key(&self.own)).max(usize::from(members.is_empty()));
        let mut copies: FuturesUnordered<_> = members
            .iter()
            .filter(|(id, _)| **id != self.own)
            .map(|(id, node)| async move {
                let copied =
                    tokio::time::timeout(COPY_TIMEOUT, self.copy(hash, size_bytes, &node.address)).await;
                let outcome =
                    copied.unwrap_or_else(|_| Err(format!("no answer within {} s", COPY_TIMEOUT.as_secs())));
                outcome.map_err(|reason| format!("job manager {id} at {}: {reason}", node.address))
            })
            .collect();
        let mut missing = Vec::new();
        while have < needed {
            match copies.next().await {
                Some(Ok(())) => have += 1,
                Some(Err(reason)) => missing.push(reason),
                None => {
                    return Err(Failure::external(format!(
                        "the binary is on {have} of {} job managers, {needed} are needed to accept the job; bring back: {}",
                        members.len(),
                        missing.join("; ")
                    )));
                }
            }
        }
        Ok(())
    }

    /// Makes sure that the blob is on this job manager's disk: from the shared storage, else from the others.
    ///
    /// # Errors
    /// When nobody has it; the message says what each answered.
    pub(crate) async fn hold(
        &self,
        hash: BlobHash,
        size_bytes: u64,
        members: &Members,
    ) -> Result<(), Failure> {
        if self.store.contains(hash).await {
            return Ok(());
        }
        let Some(shared) = &self.shared else {
            return self.fetch_from_peers(hash, size_bytes, members).await;
        };
        let fetched = shared.get(&shared_path(hash)).await;
        let bytes = fetched
            .map_err(|error| Failure::external(format!("binary {hash} cannot be fetched: {error}")))?;
        let store = async {
            let mut writer = self.store.receive(hash, size_bytes).await?;
            writer.write(bytes).await?;
            writer.finish().await
        };
        store.await.map(|_| ()).map_err(|error: BlobError| Failure::external(error.to_string()))
    }

    async fn share(&self, shared: &dyn Storage, hash: BlobHash) -> Result<(), Failure> {
        let path = self.store.path(hash);
        let bytes = tokio::fs::read(&path)
            .await
            .map_err(|error| Failure::external(format!("cannot read {}: {error}", path.display())))?;
        shared.put_if_absent(&shared_path(hash), Bytes::from(bytes)).await.map(|_| ()).map_err(|error| {
            Failure::external(format!("cannot put the binary into blob.storage.directory: {error}"))
        })
    }

    /// Sends the blob to one other job manager.
    async fn copy(&self, hash: BlobHash, size_bytes: u64, address: &str) -> Result<(), String> {
        let file =
            self.store.read(hash).await.map_err(|error| error.to_string())?.ok_or("the blob is not here")?;
        let mut client = self.connect(address)?;
        let header = v1::PutBlobRequest { sha256: hash.to_wire(), size_bytes, data: Bytes::new() };
        let pieces = stream::unfold(file, |mut file| async {
            let mut data = Vec::with_capacity(UPLOAD_CHUNK_BYTES);
            // A read error ends the stream early, and the receiver refuses what is incomplete.
            let read = (&mut file).take(UPLOAD_CHUNK_BYTES as u64).read_to_end(&mut data).await;
            let message = v1::PutBlobRequest { data: data.into(), ..v1::PutBlobRequest::default() };
            read.is_ok_and(|read| read > 0).then_some((message, file))
        });
        let messages = stream::once(async { header }).chain(pieces);
        client.put_blob(messages).await.map(|_| ()).map_err(|status| status.message().to_string())
    }

    /// Fetches a blob that this job manager misses from the others.
    ///
    /// # Errors
    /// When none of them has it; the message says what each answered.
    async fn fetch_from_peers(
        &self,
        hash: BlobHash,
        size_bytes: u64,
        members: &Members,
    ) -> Result<(), Failure> {
        let mut answers = Vec::new();
        for (id, node) in members.iter().filter(|(id, _)| **id != self.own) {
            match self.fetch(hash, size_bytes, &node.address).await {
                Ok(()) => return Ok(()),
                Err(reason) => answers.push(format!("job manager {id} at {}: {reason}", node.address)),
            }
        }
        Err(Failure::external(format!("no job manager could give binary {hash}: {}", answers.join("; "))))
    }

    async fn fetch(&self, hash: BlobHash, size_bytes: u64, address: &str) -> Result<(), String> {
        let mut client = self.connect(address)?;
        let request = v1::GetBlobRequest { sha256: hash.to_wire() };
        let mut chunks =
            client.get_blob(request).await.map_err(|status| status.message().to_string())?.into_inner();
        let mut writer = self.store.receive(hash, size_bytes).await.map_err(|error| error.to_string())?;
        while let Some(chunk) = chunks.message().await.map_err(|status| status.message().to_string())? {
            writer.write(chunk.data).await.map_err(|error| error.to_string())?;
        }
        writer.finish().await.map(|_| ()).map_err(|error| error.to_string())
    }

    fn connect(&self, address: &str) -> Result<BlobServiceClient<GrpcChannel>, String> {
        let endpoint = endpoint(address).map_err(|error| error.to_string())?;
        Ok(blob_service(self.dialer.connect_lazy(&endpoint)))
    }
}

fn shared_path(hash: BlobHash) -> String {
    format!("blobs/{hash}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use thalweg_common::task_scope::TaskScope;
    use thalweg_proto::v1::blob_service_server::BlobServiceServer;
    use tokio::net::TcpListener;
    use tonic::transport::Server;
    use tonic::transport::server::TcpIncoming;

    use super::*;
    use crate::consensus::{Node, SharedState};
    use crate::submission::BlobServer;
    use thalweg_common::clock::SystemClock;

    struct Peer {
        folder: tempfile::TempDir,
        store: BlobStore,
        address: String,
    }

    /// A job manager's blob service on loopback.
    async fn peer(scope: &TaskScope) -> Peer {
        let folder = tempfile::tempdir().unwrap();
        let store = BlobStore::open(folder.path()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = BlobServer::new(store.clone(), SharedState::default(), SystemClock::shared());
        let service = BlobServiceServer::new(server);
        let server = Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener));
        scope.spawn("blob server", async { server.await.unwrap() });
        Peer { folder, store, address }
    }

    async fn put(store: &BlobStore, content: Vec<u8>) -> BlobHash {
        let hash = BlobHash::of(&content);
        let mut writer = store.receive(hash, content.len() as u64).await.unwrap();
        writer.write(content.into()).await.unwrap();
        writer.finish().await.unwrap();
        hash
    }

    fn members(addresses: [&str; 3]) -> Members {
        let node = |address: &str| Node { address: address.to_string() };
        (1u64..).zip(addresses.map(node)).collect::<BTreeMap<_, _>>()
    }

    #[tokio::test]
    async fn a_majority_is_enough_and_a_minority_is_not() {
        let scope = TaskScope::new("test");
        let (one, two) = (peer(&scope).await, peer(&scope).await);
        let content = vec![7; 3 * UPLOAD_CHUNK_BYTES + 5];
        let size = content.len() as u64;
        let hash = put(&one.store, content.clone()).await;
        let replicator = Replicator::new(one.store.clone(), 1, None, Dialer::default());

        let nobody = "127.0.0.1:1";
        replicator.replicate(hash, size, &members([&one.address, nobody, &two.address])).await.unwrap();
        assert_eq!(std::fs::read(two.store.path(hash)).unwrap(), content);

        let failure =
            replicator.replicate(hash, size, &members([&one.address, nobody, nobody])).await.unwrap_err();
        assert!(failure.message.contains("1 of 3"), "{failure}");
        assert!(failure.message.contains("job manager 2 at 127.0.0.1:1"), "{failure}");
    }

    #[tokio::test]
    async fn a_missing_blob_is_fetched_from_whoever_has_it() {
        let scope = TaskScope::new("test");
        let (one, two, three) = (peer(&scope).await, peer(&scope).await, peer(&scope).await);
        let hash = put(&three.store, b"content".to_vec()).await;
        let members = members([&one.address, &two.address, &three.address]);
        let replicator = Replicator::new(one.store.clone(), 1, None, Dialer::default());
        replicator.fetch_from_peers(hash, 7, &members).await.unwrap();
        assert!(one.store.contains(hash).await);
        let unknown = BlobHash::of(b"unknown");
        let failure = replicator.fetch_from_peers(unknown, 7, &members).await.unwrap_err();
        assert!(failure.message.contains("does not hold"), "{failure}");
        assert!(one.folder.path().exists());
    }

    #[tokio::test]
    async fn a_missing_blob_is_fetched_from_the_shared_storage() {
        let scope = TaskScope::new("test");
        let (one, two) = (peer(&scope).await, peer(&scope).await);
        let folder = tempfile::tempdir().unwrap();
        let shared = thalweg_common::storage::open(folder.path().to_str().unwrap()).unwrap();
        let hash = put(&one.store, vec![7; 10]).await;
        let nobody = Members::new();
        let replicator = |store: &BlobStore, own| {
            Replicator::new(store.clone(), own, Some(shared.clone()), Dialer::default())
        };
        let missing = replicator(&two.store, 2).hold(hash, 10, &nobody).await.unwrap_err();
        assert!(missing.message.contains(&hash.to_string()), "{missing}");
        replicator(&one.store, 1).replicate(hash, 10, &nobody).await.unwrap();
        replicator(&two.store, 2).hold(hash, 10, &nobody).await.unwrap();
        assert!(two.store.contains(hash).await);
    }
}
