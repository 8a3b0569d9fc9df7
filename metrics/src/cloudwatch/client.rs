//! Sends reports to CloudWatch with `PutMetricData`.
//!
//! The edge behind [`batch`](super::batch). Requests that fail for now are repeated with growing, random pauses; what still fails is
//! dropped, because the next report follows in a quarter of a minute, and nobody waits for an old one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use aws_config::BehaviorVersion;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::config::Region;
use aws_sdk_cloudwatch::error::{DisplayErrorContext, ProvideErrorMetadata};
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit};
use aws_smithy_http_client::Builder;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};

use super::batch::batches;
use crate::report::Datum;

/// Tries of one request, the first among them.
const TRIES: u32 = 4;

/// How long a request may take with all its tries: less than the time until the next report.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// How long one try may take.
const TRY_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest pause between two tries.
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// Where CloudWatch is, and under what name metrics go there.
#[derive(Debug, Clone, Default)]
pub struct CloudWatchSettings {
    /// The namespace.
    pub namespace: String,
    /// The region. Without it: what the environment, the profile or the machine says.
    pub region: Option<String>,
    /// Where something else is that speaks CloudWatch.
    pub endpoint: Option<String>,
    /// A file in the form of `~/.aws/credentials` in place of the standard chain.
    pub credentials_file: Option<PathBuf>,
}

/// A way to CloudWatch.
#[derive(Debug)]
pub struct CloudWatch {
    client: Client,
    namespace: String,
}

/// Why metrics did not arrive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutError {
    /// Cause and cure.
    pub message: String,
}

impl std::fmt::Display for PutError {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for PutError {}

impl CloudWatch {
    /// Prepares the way; nothing is asked yet.
    pub async fn connect(settings: &CloudWatchSettings) -> Self {
        let http_client = Builder::new().tls_provider(Provider::Rustls(CryptoMode::Ring)).build_https();
        let retries = RetryConfig::standard().with_max_attempts(TRIES).with_max_backoff(MAX_PAUSE);
        let timeouts = TimeoutConfig::builder()
            .operation_timeout(REQUEST_TIMEOUT)
            .operation_attempt_timeout(TRY_TIMEOUT)
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http_client.clone())
            .retry_config(retries)
            .timeout_config(timeouts);
        if let Some(region) = settings.region.clone() {
            loader = loader.region(Region::new(region));
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
        let mut config = aws_sdk_cloudwatch::config::Builder::from(&shared);
        if let Some(endpoint) = &settings.endpoint {
            // Not everything that speaks CloudWatch reads compressed requests.
            config = config.endpoint_url(endpoint).disable_request_compression(true);
        }
        Self { client: Client::from_conf(config.build()), namespace: settings.namespace.clone() }
    }

    /// Sends data in as many requests as they take, one after the other.
    ///
    /// # Errors
    /// That of the first request that fails; those behind it are not sent.
    pub async fn put(&self, data: Vec<Datum>) -> Result<(), PutError> {
        for batch in batches(data) {
            let data = batch.iter().map(datum).collect();
            let request =
                self.client.put_metric_data().namespace(&self.namespace).set_metric_data(Some(data));
            request.send().await.map_err(|error| self.explain(error.code(), &DisplayErrorContext(&error)))?;
        }
        Ok(())
    }

    fn explain(&self, code: Option<&str>, error: &dyn std::fmt::Display) -> PutError {
        let namespace = &self.namespace;
        let cure = match code {
            Some("AccessDenied" | "AccessDeniedException") => {
                "allow this machine's role the action `cloudwatch:PutMetricData`".to_string()
            }
            Some("InvalidParameterValue" | "ValidationError") if namespace.starts_with("AWS/") => format!(
                "CloudWatch keeps namespaces such as `{namespace}` for AWS: set `metrics.reporter.cloudwatch.namespace` to another"
            ),
            Some("InvalidClientTokenId" | "UnrecognizedClientException" | "ExpiredToken" | "SignatureDoesNotMatch") => {
                "check the credentials of this machine, and its clock".to_string()
            }
            _ => "check `metrics.reporter.cloudwatch.region` and `.endpoint`, the credentials, and the way there".to_string(),
        };
        PutError { message: format!("CloudWatch does not take metrics ({error}); {cure}") }
    }
}

fn datum(datum: &Datum) -> MetricDatum {
    // The same value of several subtasks is sent once, with how often it is.
    let mut counts = BTreeMap::<u64, (f64, f64)>::new();
    for value in &datum.values {
        counts.entry(value.to_bits()).or_insert((*value, 0.0)).1 += 1.0;
    }
    let (values, counts) = counts.into_values().unzip();
    let dimension = |(name, value): &(String, String)| Dimension::builder().name(name).value(value).build();
    MetricDatum::builder()
        .metric_name(&datum.name)
        .unit(StandardUnit::from(datum.unit.name()))
        .timestamp(DateTime::from_millis(datum.timestamp_ms))
        .set_dimensions(Some(datum.dimensions.iter().map(dimension).collect()))
        .set_values(Some(values))
        .set_counts(Some(counts))
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Unit;

    #[test]
    fn a_datum_keeps_all_it_has() {
        let built = datum(&Datum {
            name: "busyTimeMsPerSecond".into(),
            unit: Unit::Milliseconds,
            dimensions: vec![("Application".into(), "words".into()), ("Task".into(), "map".into())],
            values: vec![5.0, 0.0, 5.0],
            timestamp_ms: 1_500,
        });
        assert_eq!(built.metric_name(), Some("busyTimeMsPerSecond"));
        assert_eq!(built.unit(), Some(&StandardUnit::Milliseconds));
        assert_eq!(built.timestamp(), Some(&DateTime::from_millis(1_500)));
        assert_eq!((built.values(), built.counts()), (&[0.0, 5.0][..], &[1.0, 2.0][..]));
        let dimensions: Vec<_> = built.dimensions().iter().map(|one| (one.name(), one.value())).collect();
        assert_eq!(dimensions, [(Some("Application"), Some("words")), (Some("Task"), Some("map"))]);
    }

    #[tokio::test]
    async fn errors_name_cause_and_cure() {
        let settings = CloudWatchSettings { namespace: "AWS/KinesisAnalytics".into(), ..Default::default() };
        let cloudwatch = CloudWatch::connect(&settings).await;
        for (code, cure) in [
            (Some("AccessDenied"), "cloudwatch:PutMetricData"),
            (Some("InvalidParameterValue"), "set `metrics.reporter.cloudwatch.namespace` to another"),
            (Some("ExpiredToken"), "check the credentials"),
            (None, "check `metrics.reporter.cloudwatch.region`"),
        ] {
            let message = cloudwatch.explain(code, &"it said no").to_string();
            assert!(message.contains("(it said no)") && message.contains(cure), "{message}");
        }
    }
}
