//! How every connection is set up, so that both ends agree on limits, timeouts and who may speak with whom.
//!
//! A connection's way: [`Dialer`] (TCP, then TLS if this process has it, then the token on each request) -> [`Incoming`] (TCP, then TLS if
//! that is asked for) -> [`Admission`], in front of the services of a job manager. What TLS is made of is in `thalweg_common::security`.

mod admission;
mod dial;
mod incoming;
mod stream;

use std::time::Duration;

use thalweg_common::limits::GRPC_MAX_MESSAGE_BYTES;
use tonic::transport::Endpoint;

use crate::v1::blob_service_client::BlobServiceClient;
use crate::v1::job_service_client::JobServiceClient;
use crate::v1::task_manager_service_client::TaskManagerServiceClient;
use crate::v1::worker_service_client::WorkerServiceClient;

pub use admission::Admission;
pub use dial::{Channel, Dialer, GrpcChannel};
pub use incoming::Incoming;
pub use stream::{Peer, Stream};

/// How long a TCP connection may take to be made before the next address is tried.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often an idle connection is probed by HTTP/2 pings, so that a vanished host is noticed on every stream.
pub const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// How long a ping may stay unanswered before the connection counts as broken.
pub const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// An address that cannot be dialled.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{address}` is not an address; write host:port, as in 127.0.0.1:6123")]
pub struct InvalidAddress {
    address: String,
}

/// Checks that `address` is `host:port`.
///
/// # Errors
/// When it is not.
pub fn check_address(address: &str) -> Result<(), InvalidAddress> {
    let invalid = || InvalidAddress { address: address.to_string() };
    let (host, port) = address.rsplit_once(':').ok_or_else(invalid)?;
    let port_is_number = port.parse::<u16>().is_ok_and(|port| port != 0);
    let bare_ipv6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if host.is_empty() || !port_is_number || bare_ipv6 || host.contains(['/', '@', '?', '#', ' ']) {
        return Err(invalid());
    }
    Ok(())
}

/// How to dial `address` (`host:port`).
///
/// # Errors
/// When it is no address.
pub fn endpoint(address: &str) -> Result<Endpoint, InvalidAddress> {
    check_address(address)?;
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|_| InvalidAddress { address: address.to_string() })?;
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true))
}

macro_rules! client {
    ($(#[$doc:meta])* $function:ident, $client:ident) => {
        $(#[$doc])*
        #[must_use]
        pub fn $function(channel: Channel) -> $client<GrpcChannel> {
            $client::new(channel.into())
                .max_decoding_message_size(GRPC_MAX_MESSAGE_BYTES)
                .max_encoding_message_size(GRPC_MAX_MESSAGE_BYTES)
        }
    };
}

client!(
    /// A client of JobService with the cluster's message limits.
    job_service,
    JobServiceClient
);
client!(
    /// A client of TaskManagerService with the cluster's message limits.
    task_manager_service,
    TaskManagerServiceClient
);
client!(
    /// A client of BlobService with the cluster's message limits.
    blob_service,
    BlobServiceClient
);
client!(
    /// A client of WorkerService with the cluster's message limits.
    worker_service,
    WorkerServiceClient
);

#[cfg(test)]
mod connection_tests;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_host_and_port() {
        for address in ["127.0.0.1:6123", "localhost:1", "jm-1.example:65535", "[::1]:6123"] {
            assert_eq!(check_address(address), Ok(()), "{address}");
            assert!(endpoint(address).is_ok(), "{address}");
        }
        for address in
            ["", "localhost", ":6123", "host:", "host:0", "host:65536", "http://host:1", "::1:6123", "a b:1"]
        {
            assert!(check_address(address).is_err(), "{address}");
        }
    }
}
