//! What all storages of a process on S3 share: the client with its connections and credentials, the budget of retries, and
//! the limit of parts that are under way.
//!
//! Invariants: nothing is asked before the first operation; credentials come from the standard chain alone and stay inside
//! of the client; whoever waits for a place for a part holds none.

use std::fmt;

use aws_config::BehaviorVersion;
use aws_config::environment::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{
    Region, RequestChecksumCalculation, ResponseChecksumValidation, StalledStreamProtectionConfig,
};
use tokio::sync::{OnceCell, Semaphore};

use super::super::S3Settings;
use super::retry::Retries;
use crate::aws::{REGION_OF_LAST_RESORT, http_client};
use crate::task_scope::{ErrorPolicy, TaskScope};

/// What is shared.
pub(in super::super) struct Access {
    pub(super) settings: S3Settings,
    pub(super) retries: Retries,
    /// Places for parts under way.
    pub(super) places: Semaphore,
    /// Where uploads are cleaned up that nobody waits for any more.
    pub(super) scope: TaskScope,
    client: OnceCell<Client>,
}

impl Access {
    pub(in super::super) fn new(settings: S3Settings) -> Self {
        Self {
            retries: Retries::new(&settings),
            places: Semaphore::new(settings.parts_under_way.max(1)),
            scope: TaskScope::with_policy("s3", ErrorPolicy::LogOnly),
            client: OnceCell::new(),
            settings,
        }
    }

    /// The client, made when it is first needed.
    pub(super) async fn client(&self) -> &Client {
        self.client.get_or_init(|| connect(&self.settings)).await
    }
}

impl Default for Access {
    fn default() -> Self {
        Self::new(S3Settings::default())
    }
}

impl fmt::Debug for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the client: it knows the credentials.
        formatter.debug_struct("Access").field("settings", &self.settings).finish_non_exhaustive()
    }
}

async fn connect(settings: &S3Settings) -> Client {
    let timeouts = TimeoutConfig::builder().connect_timeout(settings.connection_timeout).build();
    // Given once, here, to everything that asks somebody: also to what finds credentials and the region.
    let http_client = http_client();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client.clone())
        .timeout_config(timeouts);
    if let Some(region) = settings.region.clone() {
        loader = loader.region(Region::new(region));
    } else if settings.endpoint.is_some() {
        // A store of one's own hardly cares: the machine's metadata service is not asked.
        let of_environment = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new());
        loader = loader.region(of_environment.or_else(Region::new(REGION_OF_LAST_RESORT)));
    }
    if let Some(file) = &settings.credentials_file {
        let files = EnvConfigFiles::builder().with_file(EnvConfigFileKind::Credentials, file).build();
        let provider = ProfileFileCredentialsProvider::builder()
            .configure(&ProviderConfig::without_region().with_http_client(http_client))
            .profile_files(files)
            .profile_name("default");
        loader = loader.credentials_provider(provider.build());
    }
    let shared = loader.load().await;
    let region = shared.region().cloned().unwrap_or(Region::new(REGION_OF_LAST_RESORT));
    let mut config = aws_sdk_s3::config::Builder::from(&shared)
        .region(region)
        // Retries and limits of time are ours: content that arrives belongs to a try, and they share a budget.
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
        // Not every store knows checksums in trailers; content is signed, and read back against its own checksum.
        .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
        .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
        .force_path_style(settings.path_style.unwrap_or(settings.endpoint.is_some()));
    if let Some(endpoint) = &settings.endpoint {
        config = config.endpoint_url(endpoint);
    }
    Client::from_conf(config.build())
}
