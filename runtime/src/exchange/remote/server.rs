//! Accepts channels from other workers.
//!
//! On a record's way this is where a channel enters a worker: the first frame names it, the registry lets it in, and from
//! then on the channel's own stream carries frames in and grants out. Invariants: no stream is read before its channel
//! was admitted; stopping the server ends every channel.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use thalweg_common::clock::{SharedClock, SystemClock};
use thalweg_common::failure::Failure;
use thalweg_common::id::{Attempt, ChannelId, JobId, RegionId};
use thalweg_common::limits::{
    EXCHANGE_CONNECTION_WINDOW_BYTES, EXCHANGE_KEEP_ALIVE_MS, EXCHANGE_STREAM_WINDOW_BYTES, HTTP2_FRAME_BYTES,
};
use thalweg_common::record::Record;
use thalweg_common::security::Tls;
use thalweg_common::task_scope::TaskScope;
use thalweg_proto::transport::{Incoming, Peer};
use thalweg_proto::v1::{Frame, frame};
use tokio::net::TcpListener;
use tokio_stream::StreamExt;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::NamedService;
use tonic::transport::Server;

use super::receiver::{Inbound, InboundStream, RemoteReceiver};
use super::registry::Registry;
use super::wire::{self, FrameStream};
use super::{ExchangeSettings, OpenChannel};
use crate::exchange::channel::Receiver;
use crate::exchange::credit::FloatingCredit;
use crate::exchange::window::WindowPolicy;

/// The receiving side of a worker's exchange. Cheap to clone; it stops when its scope is cancelled or the last clone goes.
#[derive(Clone)]
pub struct ExchangeServer {
    registry: Arc<Registry>,
    windows: WindowPolicy,
    clock: SharedClock,
    address: SocketAddr,
    /// Keeps the server running.
    _scope: TaskScope,
}

impl ExchangeServer {
    /// Listens at a free port of `host` for senders that run the same plan, with TLS if there is any. Runs in a child of `scope`.
    ///
    /// # Errors
    /// When the host cannot be listened at.
    pub async fn start(
        host: &str,
        plan_fingerprint: u64,
        settings: ExchangeSettings,
        tls: Option<Arc<Tls>>,
        scope: &TaskScope,
    ) -> Result<Self, Failure> {
        let cannot_listen = |error: std::io::Error| {
            Failure::external(format!(
                "the exchange cannot listen at {host}: {error}; the data host must be an address of this machine"
            ))
        };
        let listener = TcpListener::bind((host, 0)).await.map_err(cannot_listen)?;
        let address = listener.local_addr().map_err(cannot_listen)?;
        let registry = Arc::new(Registry::new(plan_fingerprint));
        let scope = scope.child("exchange-server");
        let stopped = {
            let (registry, cancelled) = (Arc::clone(&registry), scope.token());
            async move {
                cancelled.cancelled().await;
                // The server waits for its connections to end, and they for their channels.
                registry.stop();
            }
        };
        let service = ExchangeService { registry: Arc::clone(&registry) };
        let keep_alive = std::time::Duration::from_millis(EXCHANGE_KEEP_ALIVE_MS);
        let server = Server::builder()
            .max_frame_size(HTTP2_FRAME_BYTES)
            .initial_stream_window_size(EXCHANGE_STREAM_WINDOW_BYTES)
            .initial_connection_window_size(EXCHANGE_CONNECTION_WINDOW_BYTES)
            .http2_keepalive_interval(Some(keep_alive))
            .http2_keepalive_timeout(Some(keep_alive))
            .add_service(service);
        let incoming = Incoming::new(listener, tls);
        scope.spawn_fallible("listener", server.serve_with_incoming_shutdown(incoming, stopped));
        let windows = WindowPolicy {
            own: settings.channel_credit_bytes,
            debloat_target: settings.debloat_target,
            floating: Arc::new(Mutex::new(FloatingCredit::new(settings.floating_credit_bytes))),
        };
        Ok(Self { registry, windows, clock: SystemClock::shared(), address, _scope: scope })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on only senders of this attempt are let in to a region; channels of older ones fail.
    ///
    /// # Errors
    /// When the attempt has ended, or a later one has started.
    pub fn start_attempt(&self, job_id: JobId, region: RegionId, attempt: Attempt) -> Result<(), Failure> {
        self.registry.start_attempt(job_id, region, attempt)
    }

    /// Closes the channels of this attempt of a region and lets no sender of it in any more.
    pub fn end_attempt(&self, job_id: JobId, region: RegionId, attempt: Attempt) {
        self.registry.end_attempt(job_id, region, attempt);
    }

    /// The receiving end of a channel of a region's current attempt, for the one sender that opens it.
    ///
    /// # Errors
    /// When no attempt runs, or the channel was registered before.
    pub fn register<T: Record>(&self, region: RegionId, channel: ChannelId) -> Result<Receiver<T>, Failure> {
        let inbound = Inbound::new(channel, self.windows.clone(), Arc::clone(&self.clock));
        self.registry.register(region, channel, Arc::clone(&inbound))?;
        Ok(Receiver::remote(RemoteReceiver::new(inbound)))
    }
}

/// `thalweg.v1.ExchangeService`, by hand: tonic's own service copies every frame.
#[derive(Clone)]
struct ExchangeService {
    registry: Arc<Registry>,
}

impl NamedService for ExchangeService {
    const NAME: &'static str = wire::SERVICE;
}

impl Service<http::Request<Body>> for ExchangeService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let registry = Arc::clone(&self.registry);
        Box::pin(async move {
            let answers = open(&registry, request).await;
            Ok(answers.map_or_else(Status::into_http, wire::response))
        })
    }
}

/// Lets a channel in: its first frame says which.
async fn open(
    registry: &Registry,
    request: http::Request<Body>,
) -> Result<InboundStream<FrameStream<Body>>, Status> {
    wire::check_request(&request)?;
    let peer = request.extensions().get::<Peer>().and_then(|peer| peer.address);
    let peer = peer.map_or_else(|| "an unknown address".to_owned(), |peer| peer.to_string());
    let mut frames = FrameStream::new(request.into_body());
    let first = frames.next().await.transpose()?;
    let Some(Frame { sequence: 0, message: Some(frame::Message::Open(open)), .. }) = first else {
        return Err(Status::invalid_argument("the first frame of a channel must open it, with sequence 0"));
    };
    let inbound = registry.claim(OpenChannel::try_from(open)?).await?;
    Ok(InboundStream::new(inbound, peer, frames))
}
