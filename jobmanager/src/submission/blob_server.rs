//! BlobService: hands out and takes in job binaries, to task managers and between job managers.

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use thalweg_common::clock::SharedClock;
use thalweg_common::limits::UPLOAD_CHUNK_BYTES;
use thalweg_proto::blob::BlobHash;
use thalweg_proto::v1;
use thalweg_proto::v1::blob_service_server::BlobService;
use tokio::fs::File;
use tokio::io::AsyncReadExt;
use tonic::{Request, Response, Status, Streaming};

use super::blob_store::{BlobError, BlobStore};
use super::tidy;
use crate::consensus::SharedState;

/// The service over a store.
pub(crate) struct BlobServer {
    store: BlobStore,
    /// Says which blobs are needed.
    state: SharedState,
    clock: SharedClock,
}

impl BlobServer {
    /// Serves `store`, in which the jobs of `state` have their binaries.
    pub(crate) fn new(store: BlobStore, state: SharedState, clock: SharedClock) -> Self {
        Self { store, state, clock }
    }
}

fn status(error: BlobError) -> Status {
    match error {
        BlobError::TooLarge { .. } => Status::invalid_argument(error.to_string()),
        BlobError::Mismatch { .. } => Status::data_loss(error.to_string()),
        BlobError::Disk { .. } => Status::internal(error.to_string()),
    }
}

fn malformed(error: thalweg_proto::convert::Malformed) -> Status {
    Status::invalid_argument(error.to_string())
}

#[tonic::async_trait]
impl BlobService for BlobServer {
    type GetBlobStream = BoxStream<'static, Result<v1::BlobChunk, Status>>;

    async fn get_blob(
        &self,
        request: Request<v1::GetBlobRequest>,
    ) -> Result<Response<Self::GetBlobStream>, Status> {
        let hash = BlobHash::from_wire("sha256", &request.into_inner().sha256).map_err(malformed)?;
        match self.store.read(hash).await.map_err(status)? {
            Some(file) => Ok(Response::new(chunks(file).boxed())),
            None => {
                Err(Status::not_found(format!("this job manager does not hold blob {hash}; ask another")))
            }
        }
    }

    async fn put_blob(
        &self,
        request: Request<Streaming<v1::PutBlobRequest>>,
    ) -> Result<Response<v1::PutBlobResponse>, Status> {
        let mut messages = request.into_inner();
        let first =
            messages.message().await?.ok_or_else(|| Status::invalid_argument("a blob without a header"))?;
        let hash = BlobHash::from_wire("sha256", &first.sha256).map_err(malformed)?;
        if self.store.contains(hash).await {
            return Ok(Response::new(v1::PutBlobResponse {}));
        }
        let mut writer = self.store.receive(hash, first.size_bytes).await.map_err(status)?;
        writer.write(first.data).await.map_err(status)?;
        while let Some(message) = messages.message().await? {
            writer.write(message.data).await.map_err(status)?;
        }
        writer.finish().await.map_err(status)?;
        tidy(&self.store, &self.state, hash, self.clock.now_ms()).await;
        Ok(Response::new(v1::PutBlobResponse {}))
    }
}

/// The file's content in messages.
fn chunks(file: File) -> impl stream::Stream<Item = Result<v1::BlobChunk, Status>> {
    stream::unfold(Some(file), |file| async {
        let mut file = file?;
        let mut data = Vec::with_capacity(UPLOAD_CHUNK_BYTES);
        match (&mut file).take(UPLOAD_CHUNK_BYTES as u64).read_to_end(&mut data).await {
            Ok(0) => None,
            Ok(_) => Some((Ok(v1::BlobChunk { data: data.into() }), Some(file))),
            Err(error) => Some((Err(Status::internal(format!("cannot read the blob: {error}"))), None)),
        }
    })
}
