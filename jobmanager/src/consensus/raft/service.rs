//! Raft's messages from the other job managers, over gRPC.
//!
//! Invariants: a message for another node, or from another cluster, is refused; a message that cannot be read changes nothing;
//! what is received is bounded, and one snapshot is received at a time.

use bytes::{Bytes, BytesMut};
use openraft::error::{Fatal, RaftError};
use openraft::raft::AppendEntriesRequest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::Duration;
use thalweg_common::{codec, limits};
use thalweg_proto::v1::raft_service_server::{RaftService, RaftServiceServer};
use thalweg_proto::v1::{RaftMessage, RaftSender, SnapshotChunk};
use tokio::sync::Mutex;
use tonic::{Request, Response, Status, Streaming};

use super::loyalty::Heard;
use super::members::known_elsewhere;
use super::network::SnapshotHeader;
use super::types::{Raft, Snapshot, TypeConfig};
use crate::consensus::NodeId;

/// The Raft service of one node, to be added to the job manager's gRPC server.
pub type RaftServer = RaftServiceServer<RaftEndpoint>;

/// Hands the messages of the other job managers to Raft.
pub struct RaftEndpoint {
    id: NodeId,
    raft: Raft,
    heard: Heard,
    /// Held while a snapshot is received.
    receiving: Mutex<()>,
}

impl RaftEndpoint {
    pub(crate) fn server(id: NodeId, raft: Raft, heard: Heard) -> RaftServer {
        RaftServiceServer::new(Self { id, raft, heard, receiving: Mutex::new(()) })
            .max_decoding_message_size(limits::GRPC_MAX_MESSAGE_BYTES)
            .max_encoding_message_size(limits::GRPC_MAX_MESSAGE_BYTES)
    }

    /// Refuses what is for another node, or from another cluster: where a job manager took over the address of one that
    /// is gone, those that knew the old one go on talking to it, and their numbers may be the same.
    fn check(&self, target: NodeId, sender: Option<RaftSender>) -> Result<(), Status> {
        if target != self.id {
            return Err(Status::failed_precondition(format!(
                "this is job manager {}, not {target}; check the addresses of the cluster's members",
                self.id
            )));
        }
        // One of an older version does not say who it is.
        let Some(RaftSender { id, address }) = sender else { return Ok(()) };
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        match known_elsewhere(metrics.membership_config.membership(), id, &address) {
            None => Ok(()),
            Some(known) => Err(Status::failed_precondition(format!(
                "job manager {id} of this cluster is at {known}, not at {address}; is that one of another cluster, which \
                 should no longer list this address?"
            ))),
        }
    }

    fn request<T: DeserializeOwned>(&self, message: Request<RaftMessage>) -> Result<T, Status> {
        let message = message.into_inner();
        self.check(message.target, message.sender)?;
        read(&message.payload)
    }
}

fn read<T: DeserializeOwned>(payload: &[u8]) -> Result<T, Status> {
    codec::from_bytes(payload).map_err(|error| {
        Status::invalid_argument(format!("{error}; do all job managers run the same version?"))
    })
}

fn answer<T: Serialize>(answer: &T) -> Result<Response<RaftMessage>, Status> {
    let payload = codec::to_bytes(answer).map_err(|error| Status::internal(error.to_string()))?;
    Ok(Response::new(RaftMessage { payload: payload.into(), ..RaftMessage::default() }))
}

/// Raft refuses nothing in its own protocol: an error means that this node has stopped.
fn stopped(error: RaftError<NodeId>) -> Status {
    match error {
        RaftError::Fatal(fatal) => halted(&fatal),
        RaftError::APIError(never) => match never {},
    }
}

fn halted(fatal: &Fatal<NodeId>) -> Status {
    Status::unavailable(format!("this job manager's log has stopped: {fatal}"))
}

#[tonic::async_trait]
impl RaftService for RaftEndpoint {
    async fn append_entries(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let request: AppendEntriesRequest<TypeConfig> = self.request(request)?;
        // Of a leader that is none any more nothing counts.
        if request.vote.leader_id.term >= self.raft.metrics().borrow().current_term {
            self.heard.leader();
        }
        answer(&self.raft.append_entries(request).await.map_err(stopped)?)
    }

    async fn vote(&self, request: Request<RaftMessage>) -> Result<Response<RaftMessage>, Status> {
        let request = self.request(request)?;
        answer(&self.raft.vote(request).await.map_err(stopped)?)
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<RaftMessage>, Status> {
        let Ok(_receiving) = self.receiving.try_lock() else {
            return Err(Status::resource_exhausted(
                "another snapshot is being received; retry when it has arrived",
            ));
        };
        let mut chunks = request.into_inner();
        let first = next_chunk(&mut chunks)
            .await?
            .ok_or_else(|| Status::invalid_argument("the snapshot has no first chunk"))?;
        self.check(first.target, first.sender)?;
        let (vote, meta): SnapshotHeader = read(&first.header)?;
        self.heard.leader();
        let data = Box::new(receive(first.data, &mut chunks).await?);
        let installed = self.raft.install_full_snapshot(vote, Snapshot { meta, snapshot: data }).await;
        answer(&installed.map_err(|fatal| halted(&fatal))?)
    }
}

async fn receive(first: Bytes, chunks: &mut Streaming<SnapshotChunk>) -> Result<Bytes, Status> {
    let mut data = BytesMut::from(first);
    while let Some(chunk) = next_chunk(chunks).await? {
        if data.len() + chunk.data.len() > limits::RAFT_MAX_SNAPSHOT_BYTES {
            return Err(Status::resource_exhausted(format!(
                "the snapshot is larger than {} bytes",
                limits::RAFT_MAX_SNAPSHOT_BYTES
            )));
        }
        data.extend_from_slice(&chunk.data);
    }
    Ok(data.freeze())
}

/// The next chunk, unless the sender has gone silent: then another one may start.
async fn next_chunk(chunks: &mut Streaming<SnapshotChunk>) -> Result<Option<SnapshotChunk>, Status> {
    let limit = Duration::from_millis(limits::RAFT_SNAPSHOT_CHUNK_TIMEOUT_MS);
    tokio::time::timeout(limit, chunks.message())
        .await
        .map_err(|_| Status::deadline_exceeded(format!("no chunk of the snapshot came for {limit:?}")))?
}
