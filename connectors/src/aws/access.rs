//! Makes what clients of a service are configured with: connections, region, credentials.
//!
//! Invariant: credentials are inside of what is returned and nowhere else.

use std::fmt;
use std::time::Duration;

use aws_config::environment::{EnvironmentVariableCredentialsProvider, EnvironmentVariableRegionProvider};
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::web_identity_token::{StaticConfiguration, WebIdentityTokenCredentialsProvider};
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use thalweg_common::aws::{REGION_OF_LAST_RESORT, http_client};
use tokio::sync::OnceCell;

use super::{AwsSettings, CredentialsProvider, WebIdentity};

/// Where a session gets a name that says none.
const SESSION_NAME: &str = "thalweg";

/// Longest time for a connection to come about.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A client that is made when something is first asked, once for all subtasks of a process, which share its connections.
pub(crate) struct Connection<C> {
    settings: AwsSettings,
    /// Of all clients: credentials are asked for once.
    config: OnceCell<SdkConfig>,
    client: OnceCell<C>,
}

impl<C> Connection<C> {
    pub(crate) fn new(settings: AwsSettings) -> Self {
        Self { settings, config: OnceCell::new(), client: OnceCell::new() }
    }

    /// The client, as `make` makes it. `request_timeout` is how long a request may take in all.
    pub(crate) async fn client(&self, request_timeout: Duration, make: impl FnOnce(&SdkConfig) -> C) -> &C {
        let connect = || async { make(self.config(request_timeout).await) };
        self.client.get_or_init(connect).await
    }

    /// A client with connections of its own, whose requests may take so long.
    pub(crate) async fn another_client(
        &self,
        request_timeout: Duration,
        make: impl FnOnce(&SdkConfig) -> C,
    ) -> C {
        let config = self.config(request_timeout).await.to_builder().http_client(http_client());
        make(&config.timeout_config(timeouts(request_timeout)).build())
    }

    async fn config(&self, request_timeout: Duration) -> &SdkConfig {
        self.config.get_or_init(|| sdk_config(&self.settings, request_timeout)).await
    }
}

impl<C> fmt::Debug for Connection<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the client: it knows the credentials.
        formatter.debug_struct("Connection").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn timeouts(request_timeout: Duration) -> TimeoutConfig {
    TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).operation_timeout(request_timeout).build()
}

/// What clients are made from.
async fn sdk_config(settings: &AwsSettings, request_timeout: Duration) -> SdkConfig {
    // Given once, here, to everything that asks somebody: also to what finds credentials and the region.
    let http_client = http_client();
    let mut loader = aws_config::defaults(BehaviorVersion::latest())
        .http_client(http_client.clone())
        .timeout_config(timeouts(request_timeout))
        .retry_config(RetryConfig::disabled())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(region) = settings.region.clone() {
        loader = loader.region(Region::new(region));
    } else if settings.endpoint.is_some() {
        // A service of one's own hardly cares: the machine's metadata service is not asked.
        let of_environment = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new());
        loader = loader.region(of_environment.or_else(Region::new(REGION_OF_LAST_RESORT)));
    }
    let shared = loader.load().await;
    let providers = Providers { settings, shared: &shared };
    let mut config = shared.to_builder();
    if let Some(provider) = providers.make(&settings.credentials).await {
        config = config.credentials_provider(provider);
    }
    if let Some(endpoint) = &settings.endpoint {
        config = config.endpoint_url(endpoint);
    }
    config.build()
}

struct Providers<'a> {
    settings: &'a AwsSettings,
    shared: &'a SdkConfig,
}

impl Providers<'_> {
    /// What gives credentials; nothing if that is what the configuration has already.
    async fn make(&self, provider: &CredentialsProvider) -> Option<SharedCredentialsProvider> {
        Some(match provider {
            CredentialsProvider::Auto => return None,
            CredentialsProvider::EnvironmentVariables => {
                SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new())
            }
            CredentialsProvider::Basic { access_key_id, secret_key } => SharedCredentialsProvider::new(
                Credentials::new(access_key_id, secret_key, None, None, "the job's settings"),
            ),
            CredentialsProvider::Profile { name, path } => {
                let mut builder = ProfileFileCredentialsProvider::builder().configure(&self.config());
                if let Some(name) = name {
                    builder = builder.profile_name(name);
                }
                if let Some(path) = path {
                    let files = EnvConfigFiles::builder().with_file(EnvConfigFileKind::Credentials, path);
                    builder = builder.profile_files(files.build());
                }
                SharedCredentialsProvider::new(builder.build())
            }
            CredentialsProvider::AssumeRole(role) => {
                let mut conf = self.shared.to_builder();
                conf.set_endpoint_url(self.settings.sts_endpoint.clone());
                let mut builder = AssumeRoleProvider::builder(&role.role_arn)
                    .session_name(&role.session_name)
                    .configure(&conf.build());
                if let Some(external_id) = &role.external_id {
                    builder = builder.external_id(external_id);
                }
                let base = Box::pin(self.make(&role.provider)).await;
                SharedCredentialsProvider::new(match base {
                    Some(base) => builder.build_from_provider(base).await,
                    None => builder.build().await,
                })
            }
            CredentialsProvider::WebIdentityToken(token) => {
                let mut builder = WebIdentityTokenCredentialsProvider::builder().configure(&self.config());
                if let WebIdentity { token_file: Some(file), role_arn: Some(role), session_name } = token {
                    builder = builder.static_configuration(StaticConfiguration {
                        web_identity_token_file: file.clone(),
                        role_arn: role.clone(),
                        session_name: session_name.clone().unwrap_or_else(|| SESSION_NAME.to_owned()),
                    });
                }
                SharedCredentialsProvider::new(builder.build())
            }
        })
    }

    fn config(&self) -> ProviderConfig {
        let mut config = ProviderConfig::without_region().with_region(self.shared.region().cloned());
        if let Some(client) = self.shared.http_client() {
            config = config.with_http_client(client.clone());
        }
        config
    }
}
