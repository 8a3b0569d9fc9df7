//! Opens channels at other workers: one HTTP/2 connection per peer, shared by its channels.
//!
//! On a record's way this stands beside the sending end of a remote channel: it brings the channel about and then reads
//! the receiver's grants. Invariants: a connection lives exactly as long as a sender uses it, so a restarted job starts
//! on fresh ones and nothing piles up; whatever ends the stream of grants fails the channel.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use thalweg_common::failure::Failure;
use thalweg_common::id::ChannelId;
use thalweg_common::limits::{
    EXCHANGE_CONNECT_TIMEOUT_MS, EXCHANGE_CONNECTION_WINDOW_BYTES, EXCHANGE_KEEP_ALIVE_MS,
    EXCHANGE_STREAM_WINDOW_BYTES, OPEN_CHANNEL_TIMEOUT_MS,
};
use thalweg_common::record::Record;
use thalweg_common::task_scope::{TaskScope, with_causes};
use thalweg_proto::transport::{Channel, Dialer};
use thalweg_proto::v1::CreditGrant;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tonic::codegen::Service;
use tonic::transport::Endpoint;
use tonic::{Status, Streaming};

use super::sender::{Outbound, OutboundStream, RemoteSender};
use super::wire;
use super::{ExchangeSettings, OpenChannel, failure_of};
use crate::exchange::channel::{Sender, receiver_gone};
use crate::exchange::lock;

/// Opens channels. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct ExchangeClient {
    scope: TaskScope,
    settings: ExchangeSettings,
    dialer: Dialer,
    peers: Arc<Mutex<HashMap<String, Weak<Peer>>>>,
}

/// The connection to one worker; made once, by whoever needs it first.
#[derive(Default)]
pub(super) struct Peer {
    connection: OnceCell<Channel>,
}

impl ExchangeClient {
    /// A client that connects through `dialer` and whose tasks run in a child of `scope`: when that is cancelled, all channels fail.
    #[must_use]
    pub fn new(settings: ExchangeSettings, dialer: Dialer, scope: &TaskScope) -> Self {
        Self { scope: scope.child("exchange-client"), settings, dialer, peers: Arc::default() }
    }

    /// Opens a channel at the worker whose exchange listens at `address` (`host:port`). Waits until its receiver is deployed,
    /// at most [`OPEN_CHANNEL_TIMEOUT_MS`]. Must be called on a tokio runtime; the sender is then used without one.
    ///
    /// # Errors
    /// When the worker cannot be reached, or refuses the channel: another plan, a stale attempt, no such receiver.
    pub async fn open<T: Record>(&self, address: &str, open: OpenChannel) -> Result<Sender<T>, Failure> {
        let id = open.channel;
        let peer = self.peer(address);
        let connection = peer.connection.get_or_try_init(|| self.connect(address, id)).await?.clone();
        let outbound = Outbound::new(open);
        let frames = OutboundStream::new(Arc::clone(&outbound));
        // The receiver's side keeps the time limit; this one is for a worker that does not answer at all.
        let limit = Duration::from_millis(OPEN_CHANNEL_TIMEOUT_MS + EXCHANGE_KEEP_ALIVE_MS);
        let answer = tokio::time::timeout(limit, call(connection, frames)).await;
        let grants = answer
            .unwrap_or_else(|_| {
                Err(Status::deadline_exceeded(format!("the worker did not answer within {limit:?}")))
            })
            .map_err(|status| failure_of(id, address, &status))?;
        let reader = read_grants(Arc::clone(&outbound), address.to_owned(), grants, self.scope.token());
        self.scope.spawn(&format!("grants of {id}"), reader);
        Ok(Sender::remote(id, RemoteSender::new(outbound, peer, self.settings)))
    }

    fn peer(&self, address: &str) -> Arc<Peer> {
        let mut peers = lock(&self.peers);
        if let Some(peer) = peers.get(address).and_then(Weak::upgrade) {
            return peer;
        }
        peers.retain(|_, peer| peer.strong_count() > 0);
        let peer = Arc::new(Peer::default());
        peers.insert(address.to_owned(), Arc::downgrade(&peer));
        peer
    }

    async fn connect(&self, address: &str, channel: ChannelId) -> Result<Channel, Failure> {
        let cannot_connect = |error: tonic::transport::Error| {
            Failure::external(format!(
                "the channel of {channel} cannot connect to the worker at {address}: {}; check that the worker runs and \
                 that this machine may reach its port",
                with_causes(&error)
            ))
            .consequence()
        };
        let keep_alive = Duration::from_millis(EXCHANGE_KEEP_ALIVE_MS);
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(cannot_connect)?
            .connect_timeout(Duration::from_millis(EXCHANGE_CONNECT_TIMEOUT_MS))
            .http2_keep_alive_interval(keep_alive)
            .keep_alive_timeout(keep_alive)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(EXCHANGE_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(EXCHANGE_CONNECTION_WINDOW_BYTES);
        self.dialer.connect(&endpoint).await.map_err(cannot_connect)
    }
}

/// Calls `ExchangeService/Open` with these frames.
async fn call(mut connection: Channel, frames: OutboundStream) -> Result<Streaming<CreditGrant>, Status> {
    let request = wire::request(frames);
    let not_sent = |error: tonic::transport::Error| Status::from_error(error.into());
    std::future::poll_fn(|context| connection.poll_ready(context)).await.map_err(not_sent)?;
    let response = connection.call(request).await.map_err(not_sent)?;
    wire::grants(response)
}

/// Brings the receiver's grants to the sending end until the channel ends.
async fn read_grants(
    outbound: Arc<Outbound>,
    address: String,
    mut grants: Streaming<CreditGrant>,
    cancelled: CancellationToken,
) {
    let id = outbound.id();
    let failure = loop {
        let grant = tokio::select! {
            biased;
            () = cancelled.cancelled() => {
                break Failure::external(format!("the channel of {id} was closed: its worker is stopping"));
            }
            grant = grants.message() => grant,
        };
        match grant {
            Ok(Some(grant)) => {
                if let Err(violation) = outbound.grant(grant) {
                    break Failure::internal(format!(
                        "the receiver of the channel of {id} at {address} broke the protocol: {violation}"
                    ));
                }
            }
            Ok(None) => break receiver_gone(id),
            Err(status) => break failure_of(id, &address, &status),
        }
    };
    // The sender decides whether it still matters: after its end of input it does not.
    outbound.fail(failure);
}
