//! What all clients of AWS services share.
//!
//! Stands below the storage on S3 and the connectors. Each service has its own settings, errors and retries; what must be the same is how they
//! connect, and how it is told that a host has no address.

use std::error::Error;
use std::io;

use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use aws_smithy_runtime_api::client::dns::{DnsFuture, ResolveDns, ResolveDnsError};
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use thiserror::Error;

/// Where AWS answers that something is elsewhere, and what a service of one's own does not care about.
pub const REGION_OF_LAST_RESORT: &str = "us-east-1";

/// Makes connections, which those share that have a clone of it. One TLS stack for the whole program: rustls with ring.
#[must_use]
pub fn http_client() -> SharedHttpClient {
    Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_with_resolver(Resolver)
}

/// A host has no address. It is [among the causes](cause) of what a client complains of.
#[derive(Debug, Error)]
#[error("the host {host} has no address")]
pub struct NoAddress {
    /// Its name.
    pub host: String,
    #[source]
    error: io::Error,
}

impl NoAddress {
    /// Whether there is no host of this name, which hardly passes. Else nobody could say.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        // The standard library keeps only the words of the C library: glibc's two, musl's, that of macOS.
        const WORDS: [&str; 4] = [
            "Name or service not known",
            "No address associated with hostname",
            "Name does not resolve",
            "nodename nor servname provided",
        ];
        let text = self.error.to_string();
        WORDS.iter().any(|words| text.contains(words))
    }
}

/// An error of this type among the causes of another one, or that one itself.
pub fn cause<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// Asks the system for addresses, as clients do by themselves, and says which host has none.
#[derive(Debug, Clone, Copy)]
struct Resolver;

impl ResolveDns for Resolver {
    fn resolve_dns<'a>(&'a self, name: &'a str) -> DnsFuture<'a> {
        DnsFuture::new(async move {
            let no_address = |error| ResolveDnsError::new(NoAddress { host: name.to_owned(), error });
            let found = tokio::net::lookup_host((name, 0)).await.map_err(no_address)?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_that_is_not_there_is_told_from_one_of_which_nobody_knows() {
        // No name begins like this, so that nobody is asked.
        let unknown = Resolver.resolve_dns("-kinesis.us-est-1.invalid").await.expect_err("no such host");
        let found = cause::<NoAddress>(&unknown).expect("it says which host");
        assert!(found.is_unknown(), "{found:?}");
        assert_eq!(found.to_string(), "the host -kinesis.us-est-1.invalid has no address");
        let text = "failed to lookup address information: Temporary failure in name resolution";
        let later = NoAddress { host: "host".into(), error: io::Error::other(text) };
        assert!(!later.is_unknown());
        let known = Resolver.resolve_dns("127.0.0.1").await.expect("an address is one");
        assert_eq!(known, [std::net::Ipv4Addr::LOCALHOST]);
    }
}
