//! Connections that others make: accepted, agreed on TLS where that is asked for, and then served.
//!
//! Invariants: a peer that takes its time to agree on TLS holds up no other one, and gives up its place after ten seconds; what cannot be
//! agreed on ends that connection alone, and the log says why, but not again and again.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use thalweg_common::clock::{SharedClock, SystemClock};
use thalweg_common::limits::{REMEMBERED_COMPLAINTS, TLS_HANDSHAKE_TIMEOUT_MS, TLS_HANDSHAKES};
use thalweg_common::security::Tls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream as AsyncStream;

use super::stream::Stream;

/// The same complaint about the same machine is not made again within this time.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// How long, and for how many bytes, a peer that is refused may go on talking, so that it can read why.
const FAREWELL_TIMEOUT: Duration = Duration::from_millis(500);
const FAREWELL_BYTES: u64 = 64 * 1024;

type Handshake = Pin<Box<dyn Future<Output = Result<Stream, Refused>> + Send>>;

/// Why somebody was not let in.
struct Refused {
    address: SocketAddr,
    reason: String,
}

/// The connections that are made to a port, as a stream of which none ends because of one of them.
pub struct Incoming {
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    handshakes: FuturesUnordered<Handshake>,
    complaints: Complaints,
}

impl Incoming {
    /// Accepts at `listener`, with TLS if there is any.
    #[must_use]
    pub fn new(listener: TcpListener, tls: Option<Arc<Tls>>) -> Self {
        Self { listener, tls, handshakes: FuturesUnordered::new(), complaints: Complaints::new() }
    }
}

impl AsyncStream for Incoming {
    type Item = io::Result<Stream>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            match this.handshakes.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(stream))) => return Poll::Ready(Some(Ok(stream))),
                Poll::Ready(Some(Err(refused))) => {
                    this.complaints.hear(&refused);
                    continue;
                }
                Poll::Ready(None) | Poll::Pending => {}
            }
            if this.handshakes.len() >= TLS_HANDSHAKES {
                return Poll::Pending;
            }
            let Poll::Ready(accepted) = this.listener.poll_accept(context) else { return Poll::Pending };
            let (tcp, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => return Poll::Ready(Some(Err(error))),
            };
            if let Err(error) = tcp.set_nodelay(true) {
                tracing::debug!("a connection of {address} has ended at once: {error}");
                continue;
            }
            match &this.tls {
                None => return Poll::Ready(Some(Ok(Stream::plain(tcp, address.to_string())))),
                Some(tls) => this.handshakes.push(Box::pin(handshake(Arc::clone(tls), tcp, address))),
            }
        }
    }
}

/// Agrees on TLS with whoever has connected.
async fn handshake(tls: Arc<Tls>, tcp: TcpStream, address: SocketAddr) -> Result<Stream, Refused> {
    let refused = |reason: String| Refused { address, reason };
    let Some(config) = tls.server() else {
        return Err(refused("this process has no certificate that it could show".into()));
    };
    let peer = address.to_string();
    let accepting = TlsAcceptor::from(config).accept(tcp).into_fallible();
    match tokio::time::timeout(Duration::from_millis(TLS_HANDSHAKE_TIMEOUT_MS), accepting).await {
        Ok(Ok(stream)) => Ok(Stream::tls(stream, peer)),
        Ok(Err((error, tcp))) => {
            farewell(tcp).await;
            Err(refused(tls.explain(&peer, &error).unwrap_or_else(|| format!("{peer}: {error}"))))
        }
        Err(_) => Err(refused(format!(
            "{peer} has not agreed on TLS within {} s",
            TLS_HANDSHAKE_TIMEOUT_MS / 1_000
        ))),
    }
}

/// Closes a connection so that the other end still reads the alert: what it has sent and nobody reads would reset it.
async fn farewell(mut tcp: TcpStream) {
    let reading = async {
        // Whatever goes wrong here, it is the end of a connection that has been refused.
        let _ = tcp.shutdown().await;
        let mut rest = pin!((&mut tcp).take(FAREWELL_BYTES));
        let _ = tokio::io::copy(&mut rest, &mut tokio::io::sink()).await;
    };
    let _ = tokio::time::timeout(FAREWELL_TIMEOUT, reading).await;
}

/// What was said of whom and when.
struct Complaints {
    clock: SharedClock,
    made: HashMap<(IpAddr, String), Duration>,
}

impl Complaints {
    fn new() -> Self {
        Self { clock: SystemClock::shared(), made: HashMap::new() }
    }

    fn hear(&mut self, refused: &Refused) {
        let Refused { address, reason } = refused;
        // Every connection has a port of its own.
        let general = reason.replace(&address.to_string(), &address.ip().to_string());
        let now = self.clock.monotonic();
        self.made.retain(|_, made| now.saturating_sub(*made) < COMPLAINT_INTERVAL);
        if self.made.len() >= REMEMBERED_COMPLAINTS
            || self.made.contains_key(&(address.ip(), general.clone()))
        {
            tracing::debug!("refused a connection: {reason}");
            return;
        }
        self.made.insert((address.ip(), general), now);
        tracing::warn!("refused a connection: {reason}");
    }
}
