//! The connections of REST, with TLS if there is any, as axum wants them.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use futures_util::StreamExt;
use thalweg_common::security::Tls;
use thalweg_proto::transport::{Incoming, Stream};
use tokio::net::TcpListener;

/// The pause behind a connection that could not be accepted, mostly because the process has too many files open.
const PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections; none of them ends the others.
pub(super) struct Connections {
    address: io::Result<SocketAddr>,
    incoming: Incoming,
}

impl Connections {
    pub(super) fn new(listener: TcpListener, tls: Option<Arc<Tls>>) -> Self {
        Self { address: listener.local_addr(), incoming: Incoming::new(listener, tls) }
    }
}

impl Listener for Connections {
    type Io = Stream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Stream, SocketAddr) {
        loop {
            match self.incoming.next().await {
                Some(Ok(stream)) => {
                    let unknown = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
                    let address = stream.peer().address.unwrap_or(unknown);
                    return (stream, address);
                }
                Some(Err(error)) => {
                    tracing::warn!(
                        "REST cannot accept a connection: {error}; the limit of open files may be too low"
                    );
                    tokio::time::sleep(PAUSE).await;
                }
                // It accepts for as long as it is there.
                None => std::future::pending().await,
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.address {
            Ok(address) => Ok(*address),
            Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
        }
    }
}
