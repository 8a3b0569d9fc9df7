//! What all clients of AWS services share.
//!
//! Stands below the storage on S3 and the connectors. Each service has its own settings, errors and retries; what must be the same is how they
//! connect.

use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

/// Where AWS answers that something is elsewhere, and what a service of one's own does not care about.
pub const REGION_OF_LAST_RESORT: &str = "us-east-1";

/// Makes connections, which those share that have a clone of it. One TLS stack for the whole program: rustls with ring.
#[must_use]
pub fn http_client() -> SharedHttpClient {
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https()
}
