//! One connection, encrypted or not, and what its first bytes and its errors mean.
//!
//! Beneath HTTP/2, at both ends. Invariant: without TLS a read or a write is that of the socket, behind one comparison.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use thalweg_common::security::explain;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tonic::transport::server::Connected;

/// How a record of TLS begins that is an alert, and one that is a handshake. HTTP/2 never begins so.
const TLS_ALERT: [u8; 2] = [0x15, 0x03];
const TLS_HANDSHAKE: [u8; 2] = [0x16, 0x03];

/// A connection.
#[derive(Debug)]
pub struct Stream {
    io: Io,
    /// Who is at the other end, for messages.
    peer: String,
    /// Whether the other end has said something.
    heard: bool,
}

#[derive(Debug)]
enum Io {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// What is known of whoever has made a connection; a request has it among its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Where it is.
    pub address: Option<SocketAddr>,
    /// Whether it has shown a certificate of the cluster.
    pub is_certified: bool,
}

impl Stream {
    pub(super) fn plain(tcp: TcpStream, peer: String) -> Self {
        Self { io: Io::Plain(tcp), peer, heard: false }
    }

    pub(super) fn tls(tls: impl Into<TlsStream<TcpStream>>, peer: String) -> Self {
        Self { io: Io::Tls(Box::new(tls.into())), peer, heard: true }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> Peer {
        let (tcp, is_certified) = match &self.io {
            Io::Plain(tcp) => (tcp, false),
            Io::Tls(tls) => {
                let (tcp, session) = tls.get_ref();
                (tcp, session.peer_certificates().is_some_and(|shown| !shown.is_empty()))
            }
        };
        Peer { address: tcp.peer_addr().ok(), is_certified }
    }

    /// Looks at what was heard first on a connection without TLS.
    #[cold]
    fn check_first(&mut self, first: &[u8]) -> io::Result<()> {
        self.heard = !first.is_empty();
        if first.starts_with(&TLS_ALERT) || first.starts_with(&TLS_HANDSHAKE) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!(
                    "{} speaks TLS where plain text is expected; set `security.ssl.internal.enabled` to true on both ends, or to false",
                    self.peer
                ),
            ));
        }
        Ok(())
    }

    /// The same error, in words if it is one of TLS.
    #[cold]
    fn explained(&self, error: io::Error) -> io::Error {
        in_words(&self.peer, error)
    }
}

/// The same error, in words if it is one of TLS with this peer.
pub(super) fn in_words(peer: &str, error: io::Error) -> io::Error {
    match explain(peer, &error) {
        Some(text) => io::Error::new(error.kind(), text),
        None => error,
    }
}

impl Connected for Stream {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer()
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match &mut this.io {
            Io::Plain(tcp) => {
                let before = buffer.filled().len();
                ready!(Pin::new(tcp).poll_read(context, buffer))?;
                if !this.heard {
                    let first = buffer.filled().get(before..).unwrap_or_default();
                    return Poll::Ready(this.check_first(first));
                }
                Poll::Ready(Ok(()))
            }
            Io::Tls(tls) => {
                let read = ready!(Pin::new(tls).poll_read(context, buffer));
                Poll::Ready(read.map_err(|error| this.explained(error)))
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(tcp) => Pin::new(tcp).poll_write(context, bytes),
            Io::Tls(tls) => Pin::new(tls).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().io {
            Io::Plain(tcp) => Pin::new(tcp).poll_write_vectored(context, slices),
            Io::Tls(tls) => Pin::new(tls).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match &self.io {
            Io::Plain(tcp) => tcp.is_write_vectored(),
            Io::Tls(tls) => tls.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(tcp) => Pin::new(tcp).poll_flush(context),
            Io::Tls(tls) => Pin::new(tls).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().io {
            Io::Plain(tcp) => Pin::new(tcp).poll_shutdown(context),
            Io::Tls(tls) => Pin::new(tls).poll_shutdown(context),
        }
    }
}
