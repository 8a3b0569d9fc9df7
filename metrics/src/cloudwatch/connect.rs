//! How the clients of CloudWatch connect: the same credentials, TLS and time limits for metrics and logs.

use std::path::PathBuf;
use std::time::Duration;

use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use thalweg_common::aws::http_client;

/// Where a service is.
#[derive(Debug, Clone, Default)]
pub struct Place {
    /// The region. Without it: what the environment, the profile or the machine says.
    pub region: Option<String>,
    /// Where something else is that speaks the service's protocol.
    pub endpoint: Option<String>,
    /// A file in the form of `~/.aws/credentials` in place of the standard chain.
    pub credentials_file: Option<PathBuf>,
}

/// How long requests may take, and how often each is tried.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// A request with all its tries.
    pub(super) request: Duration,
    /// One try.
    pub(super) attempt: Duration,
    /// Tries, the first among them.
    pub(super) tries: u32,
    /// The longest pause between two tries.
    pub(super) max_pause: Duration,
}

/// What a client is made of. Nothing is asked yet, but for the region where nobody says it.
pub(super) async fn load(place: &Place, patience: Patience) -> SdkConfig {
    let http_client = http_client();
    let retries =
        RetryConfig::standard().with_max_attempts(patience.tries).with_max_backoff(patience.max_pause);
    let timeouts = TimeoutConfig::builder()
        .operation_timeout(patience.request)
        .operation_attempt_timeout(patience.attempt)
        .build();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client.clone())
        .retry_config(retries)
        .timeout_config(timeouts);
    if let Some(region) = place.region.clone() {
        loader = loader.region(Region::new(region));
    }
    if let Some(file) = &place.credentials_file {
        let files = EnvConfigFiles::builder().with_file(EnvConfigFileKind::Credentials, file).build();
        let provider = ProfileFileCredentialsProvider::builder()
            .configure(&ProviderConfig::without_region().with_http_client(http_client))
            .profile_files(files)
            .profile_name("default");
        loader = loader.credentials_provider(provider.build());
    }
    loader.load().await
}
