//! Raft's messages to the other job managers, over gRPC.
//!
//! Invariants: each peer has two connections, so that a snapshot never delays a heartbeat; they are opened when first used
//! and again after they broke; a dead connection is noticed by its keep-alive; every message names the node it is for and
//! the one it is from, so that a wrong address cannot mix up two nodes or two clusters; a peer's coming and going is logged once.

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use openraft::error::{
    Fatal, NetworkError, PayloadTooLarge, RPCError, RaftError, ReplicationClosed, StreamingError, Timeout,
    Unreachable,
};
use openraft::network::{Backoff, RPCOption, RPCTypes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend, RaftNetwork, RaftNetworkFactory};
use serde::Serialize;
use serde::de::DeserializeOwned;
use thalweg_common::task_scope::with_causes;
use thalweg_common::{codec, limits};
use thalweg_proto::transport::{Channel, Dialer};
use thalweg_proto::v1::raft_service_client::RaftServiceClient;
use thalweg_proto::v1::{RaftMessage, RaftSender, SnapshotChunk};
use tonic::Status;
use tonic::transport::Endpoint;

use super::types::{Snapshot, SnapshotMeta, TypeConfig, Vote};
use crate::consensus::{Node, NodeId};

/// A connection attempt to a machine that does not answer ends after this time.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);

/// A connection without traffic is checked this often ...
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// ... and given up when the check is not answered within this time.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// A peer that cannot be reached is tried again after this time. A restarted one is back in the cluster that soon.
const RETRY_INTERVAL: Duration = Duration::from_millis(75);

/// What a snapshot's first chunk says about it.
pub(crate) type SnapshotHeader = (Vote, SnapshotMeta);

/// Makes the clients of one node.
pub(crate) struct Network {
    own: RaftSender,
    dialer: Dialer,
    links: Arc<Mutex<HashMap<String, Link>>>,
}

impl Network {
    /// For the node with this number and address.
    pub(crate) fn new(id: NodeId, address: String, dialer: Dialer) -> Self {
        Self { own: RaftSender { id, address }, dialer, links: Arc::default() }
    }

    fn link(&self, address: &str) -> Result<Link, tonic::transport::Error> {
        let mut links = self.links.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = links.get(address) {
            return Ok(link.clone());
        }
        let link = Link::new(address, &self.dialer)?;
        if links.len() >= limits::MAX_JOB_MANAGERS {
            // Addresses of members that left; those in use hold their own clones.
            links.clear();
        }
        links.insert(address.to_string(), link.clone());
        Ok(link)
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Peer;

    async fn new_client(&mut self, target: NodeId, node: &Node) -> Peer {
        let link = self.link(&node.address).map_err(|error| Unreachable::from(AnyError::new(&error)));
        Peer { own: self.own.clone(), target, address: node.address.clone(), link }
    }
}

/// Whether `address` can be used as the address of a job manager.
pub(crate) fn check_address(address: &str) -> Result<(), String> {
    let described = |reason: &str| format!("{address:?} is not an address of the form host:port: {reason}");
    let (host, port) = address.rsplit_once(':').ok_or_else(|| described("there is no colon"))?;
    if host.is_empty() {
        return Err(described("the host is missing"));
    }
    match port.parse::<u16>() {
        Ok(1..) => {}
        _ => return Err(described("the port is not a number from 1 to 65535")),
    }
    endpoint(address).map(drop).map_err(|error| described(&error.to_string()))
}

fn endpoint(address: &str) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

/// The connections to one address.
#[derive(Clone)]
struct Link {
    control: RaftServiceClient<Channel>,
    bulk: RaftServiceClient<Channel>,
    reachable: Arc<AtomicBool>,
}

impl Link {
    fn new(address: &str, dialer: &Dialer) -> Result<Self, tonic::transport::Error> {
        let endpoint = endpoint(address)?;
        let client = || {
            RaftServiceClient::new(dialer.connect_lazy(&endpoint))
                .max_decoding_message_size(limits::GRPC_MAX_MESSAGE_BYTES)
                .max_encoding_message_size(limits::GRPC_MAX_MESSAGE_BYTES)
        };
        Ok(Self { control: client(), bulk: client(), reachable: Arc::new(AtomicBool::new(true)) })
    }
}

/// The client of one other job manager.
pub(crate) struct Peer {
    own: RaftSender,
    target: NodeId,
    address: String,
    /// An error if the address is not one.
    link: Result<Link, Unreachable>,
}

impl Peer {
    fn message<T: Serialize>(&self, request: &T) -> Result<RaftMessage, Unreachable> {
        let payload = codec::to_bytes(request).map_err(|error| AnyError::new(&error))?;
        Ok(RaftMessage { payload: payload.into(), target: self.target, sender: Some(self.own.clone()) })
    }

    /// Reads the answer, and logs when the peer came or went.
    fn answer<T: DeserializeOwned>(
        &self,
        link: &Link,
        answered: Result<tonic::Response<RaftMessage>, Status>,
    ) -> Result<T, Unreachable> {
        let was_reachable = link.reachable.swap(answered.is_ok(), Ordering::Relaxed);
        let (peer, address) = (self.target, &self.address);
        match answered {
            Ok(response) => {
                if !was_reachable {
                    tracing::info!(peer, %address, "job manager is reachable again");
                }
                let answer = codec::from_bytes(&response.into_inner().payload);
                answer.map_err(|error| AnyError::new(&error).into())
            }
            Err(status) => {
                if was_reachable {
                    tracing::warn!(peer, %address, reason = %describe(&status), "job manager cannot be reached");
                }
                Err(Unreachable::new(&status))
            }
        }
    }

    fn snapshot_timeout(&self) -> Timeout<NodeId> {
        Timeout {
            action: RPCTypes::InstallSnapshot,
            id: self.own.id,
            target: self.target,
            timeout: Duration::from_millis(limits::RAFT_SNAPSHOT_TIMEOUT_MS),
        }
    }
}

/// The cause of a failed call: tonic's own message is just "transport error".
fn describe(status: &Status) -> String {
    std::error::Error::source(status).map_or_else(|| status.message().to_string(), with_causes)
}

impl RaftNetwork<TypeConfig> for Peer {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<TypeConfig>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<NodeId>, RPCError<NodeId, Node, RaftError<NodeId>>> {
        let mut link = self.link.clone()?;
        let entries = request.entries.len() as u64;
        let message = self.message(&request)?;
        if message.payload.len() > limits::GRPC_MAX_MESSAGE_BYTES / 2 && entries > 1 {
            return Err(PayloadTooLarge::new_entries_hint(entries / 2).into());
        }
        let answered = link.control.append_entries(message).await;
        Ok(self.answer(&link, answered)?)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<NodeId>,
        _option: RPCOption,
    ) -> Result<VoteResponse<NodeId>, RPCError<NodeId, Node, RaftError<NodeId>>> {
        let mut link = self.link.clone()?;
        let answered = link.control.vote(self.message(&request)?).await;
        Ok(self.answer(&link, answered)?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancelled: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<NodeId>, StreamingError<TypeConfig, Fatal<NodeId>>> {
        let mut link = self.link.clone()?;
        let header: SnapshotHeader = (vote, snapshot.meta);
        let header = codec::to_bytes(&header).map_err(|error| NetworkError::new(&error))?;
        let first = SnapshotChunk {
            header: header.into(),
            target: self.target,
            sender: Some(self.own.clone()),
            ..SnapshotChunk::default()
        };
        let chunks = stream::iter(chunks(first, *snapshot.snapshot));
        let limit = Duration::from_millis(limits::RAFT_SNAPSHOT_TIMEOUT_MS);
        let answered = tokio::select! {
            biased;
            closed = cancelled => return Err(closed.into()),
            answered = link.bulk.install_snapshot(chunks) => answered,
            () = tokio::time::sleep(limit) => return Err(self.snapshot_timeout().into()),
        };
        Ok(self.answer(&link, answered)?)
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY_INTERVAL))
    }
}

/// A snapshot as messages; the first one, which may be the only one, says what it is.
fn chunks(first: SnapshotChunk, data: Bytes) -> impl Iterator<Item = SnapshotChunk> + Send + 'static {
    let size = limits::RAFT_SNAPSHOT_CHUNK_BYTES;
    let count = data.len().div_ceil(size).max(1);
    let mut next = first;
    (0..count).map(move |index| {
        let start = index * size;
        next.data = data.slice(start..data.len().min(start + size));
        std::mem::take(&mut next)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_snapshot_is_cut_into_chunks_that_add_up() {
        let size = limits::RAFT_SNAPSHOT_CHUNK_BYTES;
        for (bytes, wanted) in [(0, 1), (1, 1), (size, 1), (size + 1, 2), (3 * size, 3)] {
            let data: Bytes = (0..bytes).map(|index| (index % 251) as u8).collect();
            let header = Bytes::from_static(b"header");
            let first = SnapshotChunk { header, target: 3, ..SnapshotChunk::default() };
            let chunks: Vec<_> = chunks(first, data.clone()).collect();
            assert_eq!(chunks.len(), wanted, "{bytes} bytes");
            assert_eq!((chunks[0].target, &chunks[0].header[..]), (3, &b"header"[..]));
            assert!(chunks[1..].iter().all(|chunk| chunk.header.is_empty()));
            let joined: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.data.to_vec()).collect();
            assert_eq!(joined, data);
        }
    }

    #[test]
    fn addresses_are_checked() {
        for good in ["localhost:6123", "10.0.0.1:1", "[::1]:65535", "jm-1.example.com:6123"] {
            assert_eq!(check_address(good), Ok(()), "{good}");
        }
        for bad in ["localhost", ":6123", "localhost:0", "localhost:65536", "localhost:http", "a b:1", ""] {
            let error = check_address(bad).unwrap_err();
            assert!(error.contains("host:port"), "{error}");
        }
    }

    #[tokio::test]
    async fn connections_to_an_address_are_shared() {
        let network = Network::new(1, "127.0.0.1:2".to_string(), Dialer::default());
        let first = network.link("127.0.0.1:1").unwrap();
        let second = network.link("127.0.0.1:1").unwrap();
        assert!(Arc::ptr_eq(&first.reachable, &second.reachable));
    }
}
