//! Sends reports to CloudWatch with `PutMetricData`.
//!
//! The edge behind [`batch`](super::batch). Requests that fail for now are repeated with growing, random pauses; what still fails is
//! dropped, because the next report follows in a quarter of a minute, and nobody waits for an old one.

use std::collections::BTreeMap;
use std::time::Duration;

use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::error::{DisplayErrorContext, ProvideErrorMetadata};
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit};

use super::batch::batches;
use super::connect::{self, Patience, Place};
use crate::report::Datum;

/// A request takes less than the time until the next report.
const PATIENCE: Patience = Patience {
    request: Duration::from_secs(10),
    attempt: Duration::from_secs(3),
    tries: 4,
    max_pause: Duration::from_secs(2),
};

/// Where CloudWatch is, and under what name metrics go there.
#[derive(Debug, Clone, Default)]
pub struct CloudWatchSettings {
    /// The namespace.
    pub namespace: String,
    /// Where it is.
    pub place: Place,
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
        let shared = connect::load(&settings.place, PATIENCE).await;
        let mut config = aws_sdk_cloudwatch::config::Builder::from(&shared);
        if let Some(endpoint) = &settings.place.endpoint {
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
