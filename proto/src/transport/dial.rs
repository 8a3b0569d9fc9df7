//! Connections to others: made with TLS and the token where this process has them.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use thalweg_common::security::{Security, Tls};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::body::Body;
use tonic::codegen::http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use tonic::codegen::http::{self, StatusCode, Uri};
use tonic::codegen::{Service, StdError};
use tonic::transport::{Endpoint, Error};

use super::stream::{Stream, in_words};

/// Makes connections as the security of this process demands. Cheap to clone; the default makes them without TLS and token.
#[derive(Debug, Clone, Default)]
pub struct Dialer {
    security: Security,
    name: Option<Arc<str>>,
}

impl Dialer {
    /// Makes connections with this security.
    #[must_use]
    pub fn new(security: Security) -> Self {
        Self { security, name: None }
    }

    /// The same, but the certificates of those who are dialled have to be for `name`, whatever the address.
    #[must_use]
    pub fn expecting(mut self, name: &str) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// When nobody accepts the connection, or the two ends do not agree on TLS.
    pub async fn connect(&self, endpoint: &Endpoint) -> Result<Channel, Error> {
        let inner = endpoint.connect_with_connector(self.connector()).await?;
        Ok(self.channel(inner))
    }

    /// Connects when the first request is made, and again whenever the connection has broken.
    #[must_use]
    pub fn connect_lazy(&self, endpoint: &Endpoint) -> Channel {
        self.channel(endpoint.connect_with_connector_lazy(self.connector()))
    }

    fn connector(&self) -> Connector {
        Connector { tls: self.security.tls.clone(), name: self.name.clone() }
    }

    fn channel(&self, inner: tonic::transport::Channel) -> Channel {
        let authorization = self.security.token.as_ref().and_then(|token| {
            let mut value = HeaderValue::from_str(&token.bearer()).ok()?;
            value.set_sensitive(true);
            Some(value)
        });
        Channel { inner, authorization }
    }
}

/// A connection for requests: tonic's, with the token on each of them. Cheap to clone.
#[derive(Clone)]
pub struct Channel {
    inner: tonic::transport::Channel,
    authorization: Option<HeaderValue>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(formatter)
    }
}

impl Service<http::Request<Body>> for Channel {
    type Response = http::Response<Body>;
    type Error = Error;
    type Future = <tonic::transport::Channel as Service<http::Request<Body>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        self.inner.call(request)
    }
}

/// A connection of which only answers in gRPC are taken. Without this, tonic would read a page of HTML as a message and tell of its compression.
#[derive(Debug, Clone)]
pub struct GrpcChannel(Channel);

/// What answers a request does not speak gRPC: it is no process of a cluster.
#[derive(Debug, thiserror::Error)]
#[error(
    "what answers is no process of a Thalweg cluster: HTTP status {0}, and not gRPC; look whether the port is right (a job manager is asked \
     at `jobmanager.rpc.port`, not at the port of its REST API)"
)]
struct NotGrpc(StatusCode);

impl From<Channel> for GrpcChannel {
    fn from(channel: Channel) -> Self {
        Self(channel)
    }
}

impl Service<http::Request<Body>> for GrpcChannel {
    type Response = http::Response<Body>;
    type Error = StdError;
    type Future = BoxFuture<'static, Result<Self::Response, StdError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        self.0.poll_ready(context).map_err(StdError::from)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answered = self.0.call(request);
        Box::pin(async {
            let answer = answered.await?;
            match answer.headers().get(CONTENT_TYPE) {
                Some(kind) if kind.as_bytes().starts_with(b"application/grpc") => Ok(answer),
                _ => Err(NotGrpc(answer.status()).into()),
            }
        })
    }
}

/// Makes one connection after the other to the address that it is given.
#[derive(Clone)]
struct Connector {
    tls: Option<Arc<Tls>>,
    name: Option<Arc<str>>,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, address: Uri) -> Self::Future {
        Box::pin(self.clone().dial(address))
    }
}

impl Connector {
    async fn dial(self, address: Uri) -> io::Result<TokioIo<Stream>> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidInput, format!("`{address}` {what}"));
        let host = address.host().ok_or_else(|| invalid("names no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let port = address.port_u16().ok_or_else(|| invalid("names no port"))?;
        let tcp = TcpStream::connect((host, port)).await?;
        tcp.set_nodelay(true)?;
        let peer = address.authority().map_or_else(|| host.to_owned(), ToString::to_string);
        let Some(tls) = self.tls else { return Ok(TokioIo::new(Stream::plain(tcp, peer))) };
        let name = self.name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(name.to_owned()).map_err(|_| {
            invalid("is no name that a certificate could have; dial a host name or an address")
        })?;
        let connected = TlsConnector::from(tls.client()).connect(name, tcp).await;
        let stream = connected.map_err(|error| in_words(&peer, error))?;
        Ok(TokioIo::new(Stream::tls(stream, peer)))
    }
}
